"""What programs that come from Node.js rely on, where no other test has said it by its name.

Clients are raw where one breaks the protocol, and where it matters what comes with one poll.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import ConnectionStateRecovery, Server, SocketDisconnected
from trio_socketio.abc import MemoryAdapter

from ..wire_client import SessionLost, settle
from .support import TRANSPORTS, open_server, serving, stop_polling

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_socketio import Namespace, Socket
    from trio_socketio.testing import MemoryClient

# Options


def test_options_are_by_default_what_they_are_in_node() -> None:
    io = Server()
    config, engine = io.config, io.engine.config

    assert engine.path == "/socket.io"
    assert (config.serve_client, config.connect_timeout, config.max_attachments) == (True, 45.0, 10)
    assert (config.connection_state_recovery, config.cleanup_empty_child_namespaces) == (False, False)
    assert (engine.ping_interval, engine.ping_timeout, engine.upgrade_timeout) == (25.0, 20.0, 10.0)
    assert (engine.max_http_buffer_size, engine.per_message_deflate) == (1_000_000, None)
    assert set(engine.transports) == {"polling", "websocket"}
    assert (engine.allow_upgrades, engine.add_trailing_slash, engine.allow_eio3) == (True, True, False)
    assert (engine.cors, engine.cookie, engine.initial_packet, engine.allow_request) == (None, None, None, None)


def test_recovery_is_by_default_for_two_minutes_and_without_the_middlewares() -> None:
    recovery = Server(connection_state_recovery=True).config.recovery

    assert recovery == ConnectionStateRecovery()
    assert recovery is not None
    assert (recovery.max_disconnection_duration, recovery.skip_middlewares) == (120.0, True)


async def test_a_slash_at_the_end_of_the_path_makes_no_difference() -> None:
    async with open_server(path="/chat/") as server:
        assert server.io.engine.config.path == "/chat"
        client, socket = await server.connect()
        await socket.emit("x")
        assert await client.receive() == ("x",)


async def test_the_adapter_option_is_asked_once_for_each_namespace() -> None:
    made: list[Any] = []

    def make(namespace: Any) -> MemoryAdapter:
        made.append(namespace)
        return MemoryAdapter(namespace)

    async with open_server(adapter=make) as server:
        io = server.io
        other = io.of("/other")
        parent = io.of(re.compile("^/dynamic-"))
        await server.connect_many(2, "/dynamic-1")
        dynamic = io.of("/dynamic-1")
        io.of("/other")

        assert made[:2] == [io.sockets, other]
        assert made.count(dynamic) == 1
        assert dynamic.parent is parent
        assert len({id(io.adapter), id(other.adapter), id(dynamic.adapter)}) == 3


# Servers and namespaces


async def test_listeners_and_middlewares_of_the_server_are_those_of_the_main_namespace_alone() -> None:
    io = Server()
    io.of("/other")
    told: list[str] = []
    io.use(lambda socket: told.append(f"middleware {socket.namespace.name}"))
    io.on("connection", lambda socket: told.append(f"connection {socket.namespace.name}"))
    io.handle("x", lambda socket: told.append(f"x {socket.namespace.name}"))

    async with open_server(io) as server:
        for name in ("/other", "/"):
            client = await server.client(name)
            await client.emit("x")
            await settle()

        assert server.io.of("/") is io.sockets
        assert told == ["middleware /", "connection /", "x /"]


async def test_operations_of_the_server_are_those_of_the_main_namespace_alone() -> None:
    async with open_server() as server:
        io = server.io
        other = io.of("/other")
        main_client, main = await server.connect()
        other_client, elsewhere = await server.connect("/other")

        await io.emit("x")
        await io.sockets_join(["a", "b"])
        await io.sockets_leave("b")
        assert main.rooms == {main.id, "a"}
        assert elsewhere.rooms == {elsewhere.id}
        assert await io.fetch_sockets() == [main]
        assert await other.fetch_sockets() == [elsewhere]
        await io.disconnect_sockets()
        await main.ended.wait()

        assert await main_client.receive_all() == [("x",)]
        assert await main_client.wait_disconnected() == "io server disconnect"
        assert await other_client.receive_all() == []
        assert elsewhere.connected


async def test_close_ends_sockets_of_static_and_of_dynamic_namespaces_without_a_disconnect_packet() -> None:
    io = Server()
    told: list[tuple[str, str]] = []

    def connected(socket: Socket) -> None:
        socket.on("disconnect", lambda reason: told.append((socket.namespace.name, reason)))

    namespaces: list[Namespace] = [io.sockets, io.of("/static"), io.of(re.compile("^/dynamic-"))]
    for namespace in namespaces:
        namespace.on("connection", connected)

    async with open_server(io) as server:
        client = await server.client()
        clients = [client, await client.of("/static"), await client.of("/dynamic-1")]

        await io.close()

        assert sorted(told) == [(name, "server shutting down") for name in ("/", "/dynamic-1", "/static")]
        assert [namespace.sockets for namespace in io.namespaces.values()] == [{}, {}, {}]
        assert [await each.wait_disconnected() for each in clients] == ["transport close"] * 3


# Sockets


async def test_ids_are_random_texts_of_at_least_twenty_characters() -> None:
    async with open_server() as server:
        ids = {pair.socket.id for pair in await server.connect_many(5)}

        assert len(ids) == 5
        assert min(len(id) for id in ids) >= 20


async def test_each_socket_has_an_empty_dict_for_data_that_is_fetched_with_it() -> None:
    async with open_server() as server:
        first, second = [pair.socket for pair in await server.connect_many(2)]
        assert (first.data, second.data) == ({}, {})

        first.data["name"] = "Ann"

        fetched = {socket.id: socket.data for socket in await server.io.fetch_sockets()}
        assert fetched == {first.id: {"name": "Ann"}, second.id: {}}


async def test_sockets_of_one_session_share_its_first_request_and_have_their_own_auth() -> None:
    async with open_server() as server:
        server.io.of("/other")
        before = int(time.time())
        client, main = await server.connect(auth={"a": 1}, query={"token": "1"})
        second = server.socket_of(await client.of("/other", {"b": 2}))

        assert main.conn is second.conn
        assert main.request is second.request is main.conn.request
        assert (main.handshake.auth, second.handshake.auth) == ({"a": 1}, {"b": 2})
        for handshake in (main.handshake, second.handshake):
            assert (handshake.query["EIO"], handshake.query["token"]) == ("4", "1")
            assert handshake.url == main.request.target
            assert before <= handshake.issued <= time.time()
            assert parsedate_to_datetime(handshake.time).timestamp() == int(handshake.issued)


async def test_what_a_middleware_emits_comes_before_the_answer_to_connect() -> None:
    io = Server()

    @io.use
    async def greet(socket: Socket) -> None:
        await socket.emit("early")

    async with open_server(io) as server:
        client = await server.client()

        _, early, answer = [str(packet.data) for packet in client.wire if packet.sender == "server"]
        assert early == '42["early"]'
        assert answer.startswith('40{"sid":')
        assert await client.receive_all() == [("early",)]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_event_with_letters_before_its_array_ends_the_session(transport: str) -> None:
    async with serving() as served:
        client, socket = await served.connect(transport=transport)

        await client.send_raw('2abc["x"]')

        assert isinstance(await client.lost(), SessionLost)
        await socket.ended.wait()
        assert not served.io.sockets.sockets


async def test_a_connection_listener_that_was_removed_hears_of_no_more_clients() -> None:
    io = Server()
    told: list[str] = []
    io.on("connection", lambda socket: told.append("stays"))

    @io.on("connection")
    def goes(socket: Socket) -> None:
        told.append("goes")

    async with open_server(io) as server:
        await server.connect()
        io.off("connection", goes)
        await server.connect()

    assert told == ["stays", "goes", "stays"]


# Rooms


@pytest.mark.parametrize("namespace", ["/", "/other"])
async def test_the_id_of_a_socket_is_a_room_that_can_be_chosen_and_left_out(namespace: str) -> None:
    async with open_server() as server:
        nsp = server.io.of(namespace)
        (first, one), (second, two), (third, _) = await server.connect_many(3, namespace)

        await nsp.to(one.id).emit("to one")
        await nsp.except_(one.id).emit("not to one")
        await one.broadcast.except_(two.id).emit("to the third")
        await one.to(one.id).emit("to nobody")
        await one.to(two.id).emit("private")

        assert await first.receive_all() == [("to one",)]
        assert await second.receive_all() == [("not to one",), ("private",)]
        assert await third.receive_all() == [("not to one",), ("to the third",)]


async def test_an_empty_list_of_rooms_is_everybody() -> None:
    async with open_server() as server:
        pairs = await server.connect_many(2)

        await server.io.to([]).emit("x")

        assert [await pair.client.receive_all() for pair in pairs] == [[("x",)]] * 2


async def test_a_volatile_broadcast_is_dropped_for_each_client_that_cannot_take_it_at_once() -> None:
    async with open_server() as server:
        ready = await server.client()
        busy, socket = await server.connect(transport="polling")
        await stop_polling(busy, socket)

        await server.io.volatile.emit("volatile")
        await server.io.emit("regular")
        busy.resume_reading()

        assert await ready.receive_all() == [("volatile",), ("regular",)]
        assert await busy.receive_all() == [("for the poll that pends",), ("regular",)]


async def test_a_room_is_there_from_its_first_member_to_its_last() -> None:
    async with open_server() as server:
        rooms = server.io.adapter.rooms
        (_, one), (client, two) = await server.connect_many(2)
        await one.join("room")
        await two.join("room")
        assert set(rooms["room"]) == {one.id, two.id}

        await one.leave("room")
        assert set(rooms["room"]) == {two.id}
        await client.disconnect()
        await two.ended.wait()

        assert set(rooms) == {one.id}
        assert set(server.io.adapter.sids) == {one.id}


# Which ends a client may come back from


async def violate(io: Server, client: MemoryClient, socket: Socket) -> None:
    await client.send_raw("40")


async def violate_between_polls(io: Server, client: MemoryClient, socket: Socket) -> None:
    await stop_polling(client, socket)
    await client.send_raw("40")
    client.resume_reading()


async def be_silent(io: Server, client: MemoryClient, socket: Socket) -> None:
    client.stop_reading()  # pings
    await trio.sleep(60)
    client.resume_reading()


async def discard(io: Server, client: MemoryClient, socket: Socket) -> None:
    socket.conn.close(discard=True)


ENDS: dict[str, tuple[Callable[[Server, MemoryClient, Socket], Awaitable[Any]], str, bool]] = {
    "client leaves": (lambda io, client, _: client.disconnect(), "client namespace disconnect", False),
    "disconnect": (lambda io, _, socket: socket.disconnect(), "server namespace disconnect", False),
    "disconnect with close": (lambda io, _, socket: socket.disconnect(True), "server namespace disconnect", False),
    "disconnect_sockets": (lambda io, _, socket: io.disconnect_sockets(), "server namespace disconnect", False),
    "unknown engine packet": (lambda io, client, _: client.send_raw("x"), "parse error", False),
    "close of the server": (lambda io, _, socket: io.close(), "server shutting down", True),
    "close of the session": (discard, "forced close", True),
    "violation": (violate, "forced close", True),
    "violation on polling": (violate_between_polls, "forced server close", True),
    "client closes": (lambda io, client, _: client.close(), "transport close", True),
    "ping of the client": (lambda io, client, _: client.send_raw("2"), "transport error", True),
    "silence": (be_silent, "ping timeout", True),
}


@pytest.mark.parametrize("way", ENDS)
async def test_the_reason_of_the_end_decides_whether_a_client_may_come_back(way: str) -> None:
    end, reason, comes_back = ENDS[way]
    async with open_server(connection_state_recovery=True) as server:
        client, socket = await server.connect(transport="polling" if "polling" in way else "websocket")
        pid = client.pid
        reasons: list[str] = []
        socket.on("disconnect", reasons.append)

        with suppress(SocketDisconnected):  # what a client that is cut off sees is not the point here
            await end(server.io, client, socket)
        with trio.fail_after(60):
            await socket.ended.wait()
            await client.wait_disconnected()
        await client.reconnect()

        assert reasons == [reason]
        assert (client.id == socket.id, client.pid == pid) == (comes_back, comes_back)
        assert server.socket_of(client).recovered is comes_back


async def test_what_was_missed_and_the_answer_to_connect_come_with_one_poll() -> None:
    async with serving(connection_state_recovery=True) as served:
        client = await served.net.open_socketio()
        answer = await client.join("/")
        socket = served.io.sockets.sockets[answer["sid"]]
        await socket.join("room")
        await client.drop()
        await socket.ended.wait()
        await served.io.emit("all")
        await served.io.to("room").emit("room")
        await socket.emit("direct")

        session = await served.net.polling()
        await session.send(f'40{{"pid":"{answer["pid"]}"}}')
        packets = await session.poll()

        assert [packet[:7] for packet in packets[:3]] == ['42["all', '42["roo', '42["dir']
        assert packets[3:] == [f'40{{"sid":"{answer["sid"]}","pid":"{answer["pid"]}"}}']
