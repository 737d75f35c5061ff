"""The way to a server through an ASGI app: what an ASGI server would say to it, without the bytes."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from .._errors import SessionClosed
from ._network import (
    HOST,
    TRANSPORT_CLOSE,
    TRANSPORT_ERROR,
    ClientWebSocket,
    HttpAnswer,
    Network,
    RefusedByHttp,
)
from ._pipe import CAPACITY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
    from typing import TypeAlias

    from ._network import HeaderItems

    Message: TypeAlias = MutableMapping[str, Any]
    ASGI: TypeAlias = Callable[
        [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
        Awaitable[None],
    ]

#: Messages of a WebSocket that wait for the app; then its client waits.
QUEUED = 10
_VERSION = {"version": "3.0", "spec_version": "2.3"}


class ASGINetwork(Network):
    """Calls of an ASGI app.

    Args:
        app: The app; its lifespan is not begun here.
        nursery: For the calls. An exception of the app ends this nursery.
    """

    def __init__(self, app: ASGI, nursery: trio.Nursery) -> None:
        self._app = app
        self._nursery = nursery
        self._calling = 0
        self._called = trio.lowlevel.ParkingLot()
        self._exchanges: set[_Exchange] = set()
        self._websockets: set[_ASGIWebSocket] = set()
        self._paused = False
        self._is_cut = False

    async def request(self, method: str, target: str, headers: HeaderItems, body: bytes = b"") -> HttpAnswer:
        self._require_order()
        exchange = _Exchange(_scope("http", target, headers, method=method), body)
        self._exchanges.add(exchange)
        self._start(exchange)
        try:
            return await exchange.answer()
        finally:
            exchange.leave()
            self._exchanges.discard(exchange)

    async def open_websocket(self, target: str, headers: HeaderItems) -> ClientWebSocket:
        self._require_order()
        websocket = _ASGIWebSocket(_scope("websocket", target, headers, extensions={"websocket.http.response": {}}))
        websocket.paused = self._paused
        self._websockets.add(websocket)
        self._start(websocket)
        await websocket.opened()
        return websocket

    def stop_reading(self) -> None:
        self._paused = True
        for websocket in self._websockets:
            websocket.paused = True

    def resume_reading(self) -> None:
        self._paused = False
        for websocket in self._websockets:
            websocket.paused = False
            websocket.changed.unpark_all()

    def cut(self) -> None:
        self._is_cut = True
        for call in (*self._exchanges, *self._websockets):
            call.leave()
        self._exchanges.clear()
        self._websockets.clear()

    def restore(self) -> None:
        self._is_cut = False

    async def finished(self) -> None:
        await trio.lowlevel.checkpoint()
        while self._calling:
            await self._called.park()

    def _start(self, call: _Call) -> None:
        self._calling += 1
        self._nursery.start_soon(self._call, call)

    async def _call(self, call: _Call) -> None:
        try:
            await call.run(self._app)
        finally:
            self._calling -= 1
            self._called.unpark_all()

    def _require_order(self) -> None:
        if self._is_cut:
            raise SessionClosed(TRANSPORT_ERROR)


def _scope(kind: str, target: str, headers: HeaderItems, **more: Any) -> Message:
    path, _, query = target.partition("?")
    lines = [("host", HOST), *headers]
    return {
        "type": kind,
        "asgi": _VERSION,
        "http_version": "1.1",
        "scheme": "http" if kind == "http" else "ws",
        "path": path,
        "raw_path": path.encode("ascii"),
        "query_string": query.encode("ascii"),
        "root_path": "",
        "headers": [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in lines],
        "client": ("127.0.0.1", 50_000),
        "server": (HOST, 80),
        "subprotocols": [],
        **more,
    }


class _Call:
    """One call of the app. Whatever changes, `changed` wakes all that wait for something."""

    def __init__(self, scope: Message) -> None:
        self._scope = scope
        self.changed = trio.lowlevel.ParkingLot()
        self.gone = False  # the client
        self.over = False  # the app
        self._status = 0
        self._body: bytearray = bytearray()

    async def run(self, app: ASGI) -> None:
        try:
            await app(self._scope, self._receive, self._send)
        finally:
            self.over = True
            self.changed.unpark_all()

    def leave(self) -> None:
        self.gone = True
        self.changed.unpark_all()

    async def _receive(self) -> Message:
        raise NotImplementedError

    async def _send(self, message: Message) -> None:
        raise NotImplementedError


class _Exchange(_Call):
    def __init__(self, scope: Message, body: bytes) -> None:
        super().__init__(scope)
        self._request_body: bytes | None = body
        self._complete = False

    async def answer(self) -> HttpAnswer:
        await trio.lowlevel.checkpoint()
        while not self._complete:
            if self.over or self.gone:
                raise SessionClosed(TRANSPORT_ERROR)
            await self.changed.park()
        return HttpAnswer(self._status, bytes(self._body))

    async def _receive(self) -> Message:
        await trio.lowlevel.checkpoint()
        if self._request_body is not None:
            body, self._request_body = self._request_body, None
            return {"type": "http.request", "body": body, "more_body": False}
        while not self.gone:
            await self.changed.park()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            self._status = message["status"]
            return
        self._body += message.get("body", b"")
        if not message.get("more_body", False):
            self._complete = True
            self.changed.unpark_all()


class _ASGIWebSocket(_Call, ClientWebSocket):
    def __init__(self, scope: Message) -> None:
        super().__init__(scope)
        self.paused = False
        self._for_app: deque[Message] = deque([{"type": "websocket.connect"}])
        self._messages: deque[str | bytes] = deque()
        self._buffered = 0
        self._accepted = False
        self._refused = False
        self._closed = False  # by the app

    async def opened(self) -> None:
        """Wait for the app's decision."""
        while not self._accepted:
            if self._refused:
                raise RefusedByHttp(self._status, self._body.decode())
            if self.over or self.gone:
                raise SessionClosed(TRANSPORT_ERROR)
            await self.changed.park()

    async def send(self, messages: Sequence[str | bytes]) -> None:
        await trio.lowlevel.checkpoint()
        for message in messages:
            if self._closed or self.gone or self.over:
                raise SessionClosed(TRANSPORT_CLOSE)
            while len(self._for_app) >= QUEUED and not self.gone:
                await self.changed.park()
            kind = "text" if isinstance(message, str) else "bytes"
            self._for_app.append({"type": "websocket.receive", kind: message})
            self.changed.unpark_all()

    async def send_bytes(self, data: bytes) -> None:
        raise RuntimeError("an ASGI app gets messages, not bytes")

    async def receive(self) -> str | bytes:
        await trio.lowlevel.checkpoint()
        while self.paused or not self._messages:
            if self.gone or ((self._closed or self.over) and not self.paused):
                raise SessionClosed(TRANSPORT_CLOSE)
            await self.changed.park()
        message = self._messages.popleft()
        self._buffered -= len(message)
        self.changed.unpark_all()
        return message

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
        self.leave()

    def leave(self) -> None:
        if not self.gone:
            self._for_app.append({"type": "websocket.disconnect", "code": 1006})
        super().leave()

    async def _receive(self) -> Message:
        await trio.lowlevel.checkpoint()
        while not self._for_app:
            await self.changed.park()
        self.changed.unpark_all()
        return self._for_app.popleft()

    async def _send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        kind = message["type"]
        if kind == "websocket.send":
            while self._buffered >= CAPACITY and not self.gone:
                await self.changed.park()
            content = message.get("text")
            self._messages.append(message["bytes"] if content is None else content)
            self._buffered += len(self._messages[-1])
        elif kind == "websocket.accept":
            self._accepted = True
        elif kind == "websocket.http.response.start":
            self._status = message["status"]
        elif kind == "websocket.http.response.body":
            self._body += message.get("body", b"")
            self._refused = not message.get("more_body", False)
        elif self._accepted:  # websocket.close
            self._closed = True
            self._for_app.append({"type": "websocket.disconnect", "code": message.get("code", 1000)})
        else:
            self._status, self._refused = 403, True
        self.changed.unpark_all()


@asynccontextmanager
async def lifespan(app: ASGI) -> AsyncIterator[None]:
    """Be the server that an app lives in: it has started when this is entered, and has stopped when it is left.

    Raises:
        RuntimeError: The app says that it cannot start, or stop.
    """
    to_app, from_server = trio.open_memory_channel[Any](2)
    to_server, from_app = trio.open_memory_channel[Any](2)

    async def run() -> None:
        async with to_server:
            await app({"type": "lifespan", "asgi": _VERSION, "state": {}}, from_server.receive, to_server.send)

    async def step(name: str) -> None:
        await to_app.send({"type": f"lifespan.{name}"})
        try:
            answer = await from_app.receive()
        except trio.EndOfChannel:
            raise RuntimeError(f"the app has no lifespan that could run the server ({name})") from None
        if answer["type"] != f"lifespan.{name}.complete":
            raise RuntimeError(f"the {name} of the app failed: {answer.get('message', '')}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await step("startup")
        yield
        await step("shutdown")
