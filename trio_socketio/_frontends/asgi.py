"""An `Application` as an ASGI app, for hypercorn's Trio worker.

Each request has two tasks. Its own calls the application and is the only one that awaits ``send``; a child awaits
``receive``, so that a client that leaves cancels its long poll. What that child must do when a write hangs is in
`hypercorn_worker`.

A WebSocket is judged before it is accepted. The two checkpoints before the answer let hypercorn, should the client have
sent something with its request already, finish its own refusal first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h11
import trio

from .._engine.contract import Headers, Request, Response, no_body
from .._errors import ClientDisconnected, plain_exceptions
from .asgi_lifespan import ASGI, NOT_TRIO, Receive, Send, in_trio, serve_lifespan
from .asgi_websocket import ASGIWebSocket
from .hypercorn_worker import Outlet
from .static import StaticFiles

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from .._engine.contract import Acceptance, Application

    Scope = MutableMapping[str, Any]

#: Seconds for a client to take a response; then the connection is cut.
WRITE_TIMEOUT = 60.0

_DENIAL = "websocket.http.response"
_PLAIN_TEXT = "text/plain; charset=utf-8"


class ASGIApp:
    """An ASGI app that serves a `Server` or an `Engine` under hypercorn's Trio worker.

    ::

        app = ASGIApp(io)                    # hypercorn --worker-class trio module:app
        app = ASGIApp(io, other_app=quart)   # everything that is not Socket.IO's goes to another ASGI app

    Its lifespan runs the server: the other app starts first and stops last. It may be mounted below a path (then
    `with_lifespan` has to be around the outermost app). Without a lifespan that runs the server, requests are answered
    503. Outside Trio, the start is refused with a text that says so, and requests are answered 500.

    hypercorn refuses WebSocket messages over its own ``websocket_max_message_size`` (16 MiB): raise that too if you
    raise ``max_http_buffer_size`` above it.

    Args:
        application: The server.
        other_app: Gets what is neither the server's nor one of its ``static_files``; without one, that is answered 404
            with a hint.

    Raises:
        ValueError: The server's ``static_files`` name a directory that does not exist.
    """

    def __init__(self, application: Application, other_app: ASGI | None = None) -> None:
        self._application = application
        self._other_app = other_app
        files = getattr(application, "static_files", None)
        self._files = files if files is None or isinstance(files, StaticFiles) else StaticFiles(files)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await serve_lifespan(self._application, self._other_app, scope, receive, send)
            return
        path = _path_below_mount(scope)
        if not in_trio():
            await _refuse(scope, receive, send, _text(500, NOT_TRIO))
        elif not self._application.owns(path):
            await self._serve_elsewhere(scope, path, receive, send)
        elif scope["type"] == "websocket":
            await self._serve_websocket(scope, path, receive, Outlet(send))
        else:
            await _serve_http(scope, path, receive, Outlet(send), self._application.handle_request)

    async def _serve_elsewhere(self, scope: Scope, path: str, receive: Receive, send: Send) -> None:
        response = None
        if self._files is not None and scope["type"] == "http":
            response = await self._files.respond(_request(scope, path))
        if response is None and self._other_app is not None:
            await self._other_app(scope, receive, send)
            return
        found = response or _text(404, _hint(path, scope))

        async def answer(request: Request) -> Response:
            await trio.lowlevel.checkpoint()
            return found

        if scope["type"] == "websocket":
            await _refuse(scope, receive, send, found)
        else:
            await _serve_http(scope, path, receive, Outlet(send), answer)

    async def _serve_websocket(self, scope: Scope, path: str, receive: Receive, outlet: Outlet) -> None:
        await receive()  # websocket.connect
        verdict = await self._application.open_websocket(_request(scope, path))
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        try:
            if isinstance(verdict, Response):
                await _deny(scope, outlet, verdict)
                return
            await _accept(scope, outlet, verdict)
        except h11.LocalProtocolError:
            return  # the client spoke too early, and hypercorn is in the middle of its own refusal
        websocket = ASGIWebSocket(receive, outlet, verdict.max_message_size)
        await verdict.run(websocket)
        await websocket.finish()


def with_lifespan(application: Application, asgi_app: ASGI) -> ASGI:
    """Let a server run as long as another ASGI app, which has an `ASGIApp` of it mounted somewhere inside.

    ::

        app = with_lifespan(io, Starlette(routes=[Mount("/ws", ASGIApp(io))]))

    Args:
        application: The server. It starts after the app's own startup, and its sessions are over before the app's
            shutdown begins.
        asgi_app: The outermost app; it need not support lifespans itself.

    Returns:
        The app to give to hypercorn.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await serve_lifespan(application, asgi_app, scope, receive, send)
        else:
            await asgi_app(scope, receive, send)

    return app


async def _serve_http(
    scope: Scope, path: str, receive: Receive, outlet: Outlet, answer: Callable[[Request], Awaitable[Response]]
) -> None:
    client = _Client(receive, has_body=scope["method"] not in ("GET", "HEAD"))
    request = _request(scope, path, client)
    response = Response(400)  # for a client that has gone: it is not sent, but wrappers want to see one
    with plain_exceptions():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.watch)
            with client.present:
                response = await answer(request)
            client.skip_body()
            nursery.start_soon(_limit, outlet, receive)
            await _respond(outlet, response, client)
            nursery.cancel_scope.cancel()


class _Client:
    """What comes from the client of an HTTP request: first the body, then, some day, its leaving.

    There is one reader at a time: whoever reads the body, and from its end on `watch`.
    """

    def __init__(self, receive: Receive, *, has_body: bool) -> None:
        self._receive = receive
        self._body_over = trio.Event()
        if not has_body:
            self._body_over.set()  # the body of a GET has no meaning; `watch` skips what there is
        self.present = trio.CancelScope()
        self.gone = False

    async def receive_body(self) -> bytes:
        """The next part of the body; nothing at its end."""
        while not self._body_over.is_set():
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.gone = True
                raise ClientDisconnected("the connection ended in the middle of a request body")
            if not message.get("more_body", False):
                self._body_over.set()
            if body := message.get("body", b""):
                return bytes(body)
        return b""

    def skip_body(self) -> None:
        """Nobody reads the body any more: `watch` does, lest it fill the server's queue, and the answer wait behind."""
        self._body_over.set()

    async def watch(self) -> None:
        """Wait until the client leaves, and then end what is done for it."""
        await self._body_over.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self.present.cancel()


async def _limit(outlet: Outlet, receive: Receive) -> None:
    """Cut the connection of a client that does not take its response; at once when the server wants to end."""
    async with outlet.settled(0, receive):
        await trio.sleep(WRITE_TIMEOUT)


async def _respond(outlet: Outlet, response: Response, client: _Client) -> None:
    await outlet(_head(response, "http.response.start"))
    body = response.body
    if response.on_lost is not None:
        # A client that has the whole body may leave at once, and all that we are told of a write that failed is that
        # the client has left. So the last byte is held back: one that leaves before that has not got its answer. It
        # takes one tick to wake the watcher, and the order within that tick is random: it is known after the second.
        await outlet({"type": "http.response.body", "body": body[:-1], "more_body": True})
        await trio.lowlevel.checkpoint()
        if client.gone:
            response.on_lost()
        body = body[-1:]
    await outlet({"type": "http.response.body", "body": body})


async def _accept(scope: Scope, outlet: Outlet, acceptance: Acceptance) -> None:
    # Clients that ask for subprotocols want to see one of theirs; the reference takes the first.
    subprotocol = next(iter(scope.get("subprotocols", ())), None)
    await outlet({"type": "websocket.accept", "subprotocol": subprotocol, "headers": _encode(acceptance.headers)})


async def _deny(scope: Scope, outlet: Outlet | Send, response: Response) -> None:
    """Answer the opening request of a WebSocket with something else than a WebSocket."""
    if _DENIAL not in scope.get("extensions", {}):
        await outlet({"type": "websocket.close"})
        return
    response.headers["connection"] = "close"
    await outlet(_head(response, f"{_DENIAL}.start"))
    await outlet({"type": f"{_DENIAL}.body", "body": response.body})


async def _refuse(scope: Scope, receive: Receive, send: Send, response: Response) -> None:
    """Answer without the application; this may run outside Trio, so it awaits nothing of Trio's."""
    if scope["type"] == "websocket":
        await receive()
        await _deny(scope, send, response)
        return
    await send(_head(response, "http.response.start"))
    await send({"type": "http.response.body", "body": response.body})


def _path_below_mount(scope: Scope) -> str:
    """The path as the application knows it: some frameworks leave the mount's path in front, some take it away."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :] or "/"
    return path


def _request(scope: Scope, path: str, client: _Client | None = None) -> Request:
    raw_path = scope.get("raw_path") or scope["path"].encode()
    query = scope.get("query_string", b"")
    address = scope.get("client")
    return Request(
        method=scope.get("method", "GET"),
        target=(raw_path + b"?" + query if query else raw_path).decode("latin-1"),
        path=path,
        headers=Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]),
        client=None if address is None else (address[0], address[1]),
        scheme="https" if scope.get("scheme") in ("https", "wss") else "http",
        receive_body=no_body if client is None else client.receive_body,
    )


def _head(response: Response, message_type: str) -> dict[str, Any]:
    length = (b"content-length", b"%d" % len(response.body))
    return {"type": message_type, "status": response.status, "headers": [*_encode(response.headers), length]}


def _encode(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.multi_items()]


def _text(status: int, text: str) -> Response:
    return Response(status, text.encode(), Headers({"content-type": _PLAIN_TEXT}))


def _hint(path: str, scope: Scope) -> str:
    mount = scope.get("root_path") or "/"
    return f"trio_socketio has nothing at {path!r} below {mount!r}; compare the path options of server and client\n"
