"""How the JavaScript client gets in, and how it is refused."""

from __future__ import annotations

import http.client
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trustme

from trio_socketio import ConnectionRefused, Server

from ..js_client import ConnectError
from .serving import HOST, MODES, Record, either_transport, on_one_front_end, record

if TYPE_CHECKING:
    from trio_socketio import Headers, Request, Socket

    from ..js_client import Driver
    from .serving import Serve, Served


async def test_client_connects_and_both_ends_agree_who_it_is(js: Driver, served: Served, mode: str) -> None:
    client, socket = await served.pair(js, mode)
    state = await client.state()
    assert (state.connected, state.id, state.recovered) == (True, socket.id, False)
    assert state.transport == socket.conn.transport
    assert (socket.handshake.address, socket.handshake.secure, socket.handshake.auth) == (HOST, False, {})
    assert socket.rooms == {socket.id}


@either_transport
async def test_handshake_has_auth_query_and_headers(js: Driver, served: Served, mode: str) -> None:
    _, socket = await served.pair(
        js,
        mode,
        auth={"token": "s3cret", "deep": [1, None]},
        query={"q": "a b&c=é", "empty": ""},
        extraHeaders={"X-App": "interop"},
    )
    handshake = socket.handshake
    assert handshake.auth == {"token": "s3cret", "deep": [1, None]}
    assert (handshake.query["q"], handshake.query["empty"], handshake.query["EIO"]) == ("a b&c=é", "", "4")
    assert handshake.headers["x-app"] == "interop"
    assert handshake.url.startswith("/socket.io/?")


async def test_server_with_another_path_is_found_there(js: Driver, serve: Serve) -> None:
    served = await serve(Server(path="/deep/down"))
    client, _ = await served.pair(js, "upgrade", path="/deep/down")
    assert (await client.state()).connected


@either_transport
async def test_what_the_connection_handler_emits_comes_right_after_the_connect(
    js: Driver, served: Served, mode: str
) -> None:
    @served.io.on("connection")
    async def connected(socket: Socket) -> None:
        await socket.emit("first", b"1")
        await socket.emit("second")

    client = await js.connect(served.url, transports=MODES[mode])
    await client.wait_for("second")
    assert [event.name for event in client.events if "." not in event.name] == ["connect", "first", "second"]


@either_transport
async def test_namespaces_of_one_session_do_not_meet(js: Driver, served: Served, mode: str) -> None:
    for name in ("/chat", "/news"):
        served.io.of(name)
    main, socket = await served.pair(js, mode)
    chat = await main.join("/chat", auth={"name": "ada"})
    await chat.connected()
    news = await main.join("/news")
    await news.connected()
    chat_socket, news_socket = await served.socket_of(chat, "/chat"), await served.socket_of(news, "/news")

    assert chat_socket.conn is news_socket.conn is socket.conn
    assert len({socket.id, chat_socket.id, news_socket.id}) == 3
    assert (socket.handshake.auth, chat_socket.handshake.auth) == ({}, {"name": "ada"})

    heard = {end.namespace.name: record(end, "up") for end in (socket, chat_socket, news_socket)}
    await chat.emit("up", b"x")
    await heard["/chat"].reach(1)
    await served.io.of("/news").emit("down", 1)
    await served.io.emit("down", 2)
    assert (await main.wait_for("down"), await news.wait_for("down")) == ((2,), (1,))
    assert heard == {"/": [], "/chat": [(b"x",)], "/news": []}
    assert "down" not in [event.name for event in chat.events]


@on_one_front_end
async def test_unknown_namespace_is_refused_and_the_session_goes_on(js: Driver, served: Served) -> None:
    main, socket = await served.pair(js)
    stranger = await main.join("/nowhere")
    with pytest.raises(ConnectError) as caught:
        await stranger.connected()
    assert caught.value.args[0] == "Invalid namespace"
    socket.on("ping?", lambda: "pong")
    assert await main.emit_with_ack("ping?") == ("pong",)


@either_transport
async def test_refused_client_gets_the_message_and_the_data(js: Driver, served: Served, mode: str) -> None:
    @served.io.use
    async def check(socket: Socket) -> None:
        await trio.lowlevel.checkpoint()
        if socket.handshake.auth.get("token") != "good":
            raise ConnectionRefused("not you", data={"code": 7, "why": ["é"]})

    with pytest.raises(ConnectError) as caught:
        await js.connect(served.url, transports=MODES[mode], auth={"token": "bad"})
    assert caught.value.args[:2] == ("not you", {"code": 7, "why": ["é"]})
    _, socket = await served.pair(js, mode, auth={"token": "good"})
    assert list(served.io.sockets.sockets) == [socket.id]


@on_one_front_end
async def test_refused_client_may_try_again_in_the_same_session(js: Driver, served: Served) -> None:
    doors = [ConnectionRefused("closed")]

    @served.io.of("/club").use
    def check(socket: Socket) -> None:
        if doors:
            raise doors.pop()

    main, socket = await served.pair(js)
    club = await main.join("/club")
    with pytest.raises(ConnectError):
        await club.connected()
    await club.reconnect()
    assert (await served.socket_of(club, "/club")).conn is socket.conn


@on_one_front_end
async def test_failing_middleware_refuses_without_telling_why(js: Driver, served: Served) -> None:
    errors = Record()
    served.io.on_error(errors.add)

    @served.io.use
    def broken(socket: Socket) -> None:
        raise ValueError("the password of the database")

    with pytest.raises(ConnectError) as caught:
        await js.connect(served.url)
    assert caught.value.args[:2] == ("Internal server error", None)
    ((error, _, event),) = errors
    assert (type(error), event) == (ValueError, "middleware")


@either_transport
async def test_request_that_is_not_allowed_makes_no_session(js: Driver, serve: Serve, mode: str) -> None:
    served = await serve(Server(allow_request=lambda request: request.query.get("key") == "open"))
    refusals = Record()
    served.io.engine.on("connection_error", refusals.add)
    with pytest.raises(ConnectError) as caught:
        await js.connect(served.url, transports=MODES[mode])
    message, _, details = caught.value.args
    if mode == "websocket":
        assert message == "websocket error"
    else:
        assert (message, details["body"]) == ("xhr poll error", '{"code":4,"message":"Forbidden"}')
    ((refusal,),) = refusals
    assert (refusal.code, served.io.engine.clients_count) == (4, 0)
    await served.pair(js, mode, query={"key": "open"})


@either_transport
async def test_only_allowed_origins_connect(js: Driver, serve: Serve, mode: str) -> None:
    served = await serve(Server(cors=["http://app.example"]))
    with pytest.raises(ConnectError):
        await js.connect(served.url, transports=MODES[mode], extraHeaders={"Origin": "http://evil.example"})
    _, socket = await served.pair(js, mode, extraHeaders={"Origin": "http://app.example"})
    assert socket.handshake.xdomain
    assert served.io.engine.clients_count == 1


async def test_answer_names_the_allowed_origin(js: Driver, serve: Serve) -> None:
    served = await serve(Server(cors=["http://app.example"]))
    seen: list[str | None] = []

    @served.io.engine.on("headers")
    def look(headers: Headers, request: Request) -> None:
        seen.append(headers.get("access-control-allow-origin"))

    client, _ = await served.pair(js, "polling", extraHeaders={"Origin": "http://app.example"})
    await client.disconnect()
    await served.empty()
    assert set(seen) == {"http://app.example"}
    headers = await trio.to_thread.run_sync(_handshake, served.port, "http://app.example")
    assert headers["access-control-allow-origin"] == "http://app.example"


def _handshake(port: int, origin: str) -> http.client.HTTPMessage:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/socket.io/?EIO=4&transport=polling", headers={"Origin": origin})
        response = connection.getresponse()
        response.read()
        return response.headers
    finally:
        connection.close()


async def test_cookies_of_the_first_answer_come_back(js: Driver, serve: Serve) -> None:
    served = await serve(Server(cookie=True))
    cookies: list[str | None] = []

    @served.io.engine.on("initial_headers")
    def greet(headers: Headers, request: Request) -> None:
        headers.add("set-cookie", "visit=1; Path=/")

    @served.io.engine.on("headers")
    def look(headers: Headers, request: Request) -> None:
        cookies.append(request.headers.get("cookie"))

    _, socket = await served.pair(js, "upgrade", withCredentials=True)
    first, *later = cookies
    assert first is None
    assert later
    for cookie in later:
        assert cookie is not None
        assert sorted(cookie.split("; ")) == [f"io={socket.conn.id}", "visit=1"]


async def test_client_connects_over_tls(js: Driver, nursery: trio.Nursery, mode: str) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    io = Server()
    heard = Record()

    @io.on("connection")
    def connected(socket: Socket) -> None:
        heard.add(socket.handshake.secure)
        socket.on("echo", lambda *args: args)

    listeners = await nursery.start(partial(io.serve_ssl_over_tcp, 0, context, host=HOST))
    port: Any = listeners[0].transport_listener.socket.getsockname()[1]
    certificate = authority.cert_pem.bytes().decode()
    client = await js.connect(f"https://localhost:{port}", transports=MODES[mode], ca=certificate)
    if mode == "upgrade":
        await client.wait_for("engine.upgrade")
    big = "é" * 100_000
    assert await client.emit_with_ack("echo", big, b"\x00" * 100_000) == (big, b"\x00" * 100_000)
    assert heard == [(True,)]
