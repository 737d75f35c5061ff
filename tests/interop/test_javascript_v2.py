"""The JavaScript client of version 2, which speaks Engine.IO 3 (``allow_eio3``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import ConnectionRefused, Server

from .serving import MODES, Record, on_one_front_end, record, until

if TYPE_CHECKING:
    from trio_socketio import Socket

    from ..js_client import Client, Driver
    from .serving import Serve, Served

BLOB = bytes(range(256))
AWKWARD = 'é€\U0001f600 "\\ \u2028 1:4'


@pytest.fixture
async def served(serve: Serve) -> Served:
    """A server for old clients too."""
    return await serve(Server(allow_eio3=True))


async def connect(js: Driver, served: Served, mode: str, namespace: str = "/", **options: Any) -> Client:
    """An old client that has gone where the mode leads."""
    client = await js.connect(served.url, namespace, version=2, transports=MODES[mode], **options)
    if mode == "upgrade":
        await client.wait_for("engine.upgrade")
    return client


async def pair(js: Driver, served: Served, mode: str, namespace: str = "/", **options: Any) -> tuple[Client, Socket]:
    client = await connect(js, served, mode, namespace, **options)
    socket = await served.socket_of(client, namespace.partition("?")[0])
    wanted = "polling" if mode == "polling" else "websocket"
    await until(lambda: socket.conn.transport == wanted, f"transport {wanted}")
    return client, socket


async def test_client_connects_and_both_ends_agree_who_it_is(js: Driver, served: Served, mode: str) -> None:
    client, socket = await pair(js, served, mode)
    state = await client.state()
    assert (state.connected, state.id) == (True, socket.id)
    assert socket.id == socket.conn.id
    assert socket.conn.protocol == 3
    assert socket.handshake.query["EIO"] == "3"
    assert socket.handshake.auth == {}


async def test_events_go_both_ways(js: Driver, served: Served, mode: str) -> None:
    client, socket = await pair(js, served, mode)
    heard = record(socket, "up")
    await client.emit("up", AWKWARD, [1, {"a": None}])
    assert await heard.only() == (AWKWARD, [1, {"a": None}])
    await socket.emit("down", AWKWARD, 2.5)
    assert await client.wait_for("down") == (AWKWARD, 2.5)


async def test_binary_goes_both_ways(js: Driver, served: Served, mode: str) -> None:
    client, socket = await pair(js, served, mode)
    heard = record(socket, "up")
    await client.emit("up", BLOB, {"deep": [b"", AWKWARD]})
    assert await heard.only() == (BLOB, {"deep": [b"", AWKWARD]})
    await socket.emit("down", AWKWARD, BLOB, {"deep": [b"", BLOB]})
    assert await client.wait_for("down") == (AWKWARD, BLOB, {"deep": [b"", BLOB]})


@on_one_front_end
async def test_client_that_asks_for_base64_gets_it(js: Driver, served: Served, mode: str) -> None:
    client, socket = await pair(js, served, mode, forceBase64=True)
    heard = record(socket, "up")
    await client.emit("up", BLOB)
    assert await heard.only() == (BLOB,)
    await socket.emit("down", BLOB, AWKWARD)
    assert await client.wait_for("down") == (BLOB, AWKWARD)


async def test_acks_go_both_ways(js: Driver, served: Served, mode: str) -> None:
    client, socket = await pair(js, served, mode)
    socket.on("ask", lambda *args: args)
    assert await client.emit_with_ack("ask", 1, BLOB, AWKWARD) == (1, BLOB, AWKWARD)
    await client.echo("ask back")
    assert await socket.emit_with_ack("ask back", AWKWARD, BLOB) == (AWKWARD, BLOB)


async def test_many_events_arrive_in_order(js: Driver, served: Served, mode: str) -> None:
    heard = Record()

    @served.io.on("connection")
    async def connected(socket: Socket) -> None:
        socket.on("up", heard.add)
        for number in range(300):
            await socket.emit("down", number, b"%d" % number)
            await trio.sleep(0.0005)

    client = await js.open(served.url, version=2, transports=MODES[mode])
    await client.bulk("up", 300)
    assert await client.wait_for_many("down", 300) == [(number, b"%d" % number) for number in range(300)]
    assert await heard.reach(300) == [(number,) for number in range(300)]
    if mode == "upgrade":
        await client.wait_for("engine.upgrade")


async def test_query_of_a_namespace_is_its_auth(js: Driver, served: Served, mode: str) -> None:
    served.io.of("/admin").on("connection", lambda socket: None)
    client, socket = await pair(js, served, mode, "/admin?token=s3cret&name=a%20b")
    assert socket.handshake.auth == {"token": "s3cret", "name": "a b"}
    assert (await client.state()).id == socket.id == f"/admin#{socket.conn.id}"
    await socket.emit("hello", BLOB)
    assert await client.wait_for("hello") == (BLOB,)


@on_one_front_end
async def test_several_namespaces_share_a_session(js: Driver, served: Served, mode: str) -> None:
    served.io.of("/admin").on("connection", lambda socket: None)
    client, socket = await pair(js, served, mode)
    other = await client.join("/admin")
    await other.connected()
    assert (await served.socket_of(other, "/admin")).conn is socket.conn
    await other.disconnect()
    await until(lambda: not served.io.of("/admin").sockets, "the end of one namespace")
    assert socket.connected


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConnectionRefused("not you"), "not you"),
        (ConnectionRefused("not you", {"code": 7}), {"code": 7}),
    ],
    ids=["message", "data"],
)
@on_one_front_end
async def test_refused_client_is_told_why(
    js: Driver, served: Served, mode: str, error: ConnectionRefused, told: object
) -> None:
    @served.io.use
    def refuse(socket: Socket) -> None:
        raise error

    client = await js.open(served.url, version=2, transports=MODES[mode])
    assert await client.wait_for("error") == (told,)
    assert not (await client.state()).connected


@on_one_front_end
async def test_unknown_namespace_is_refused(js: Driver, served: Served, mode: str) -> None:
    client = await js.open(served.url, "/nowhere", version=2, transports=MODES[mode])
    assert await client.wait_for("error") == ("Invalid namespace",)


async def test_old_client_is_refused_by_default(js: Driver, serve: Serve) -> None:
    served = await serve(Server())
    client = await js.open(served.url, version=2, transports=["polling"])
    message, _, details = await client.wait_for("connect_error")
    assert (message, details["description"]) == ("xhr poll error", 400)
    assert served.io.statistics().sessions == 0


async def test_heartbeat_of_the_client_keeps_it_alive(js: Driver, serve: Serve, mode: str) -> None:
    served = await serve(Server(allow_eio3=True, ping_interval=0.15, ping_timeout=0.15))
    client, socket = await pair(js, served, mode)
    await trio.sleep(0.9)
    assert socket.connected
    assert [event.name for event in client.events if event.name == "disconnect"] == []


async def test_each_end_sees_the_other_leave(js: Driver, served: Served, mode: str) -> None:
    client, socket = await pair(js, served, mode)
    left = record(socket, "disconnect")
    await client.disconnect()
    assert (await left.only())[0] in ("client namespace disconnect", "transport close")
    other, other_socket = await pair(js, served, mode)
    await other_socket.disconnect()
    assert (await other.wait_for("disconnect"))[0] == "io server disconnect"
    await other.close_engine()
    await served.empty()


@on_one_front_end
async def test_old_and_new_clients_share_rooms(js: Driver, served: Served, mode: str) -> None:
    served.io.on("connection", lambda socket: None)
    old, old_socket = await pair(js, served, mode)
    new, new_socket = await served.pair(js, mode)
    await old_socket.join("room")
    await new_socket.join("room")
    await served.io.to("room").emit("news", AWKWARD, BLOB)
    assert await old.wait_for("news") == await new.wait_for("news") == (AWKWARD, BLOB)
