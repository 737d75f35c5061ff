"""Connecting to namespaces, and clients that break the protocol (Socket.IO protocol, "connection to a namespace").

Whatever is about packets, or about sessions that are in no namespace, speaks for itself (`serving`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import ConnectionRefused, Server, ServerStatistics, SocketDisconnected

from ..wire_client import ConnectError, settle
from .support import TRANSPORTS, at_least, open_server, received, serving, warnings

if TYPE_CHECKING:
    from trio_socketio import Namespace, Socket


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_connect_is_answered_with_the_id_of_the_socket_and_nothing_else(transport: str) -> None:
    async with serving() as served:
        client = await served.net.open_socketio(transport)
        await client.send_raw("0")

        assert await client.recv() == f'0{{"sid":"{next(iter(served.io.sockets.sockets))}"}}'


async def test_the_id_of_a_socket_is_not_the_secret_one_of_its_session() -> None:
    async with open_server() as server:
        first, second = await server.connect_many(2)

        assert len({first.socket.id, second.socket.id, first.socket.conn.id, second.socket.conn.id}) == 4
        assert len(first.socket.id) >= 20


@pytest.mark.parametrize(("packet", "auth"), [("0", {}), ("0{}", {}), ('0{"token":"123"}', {"token": "123"})])
async def test_auth_is_the_payload_of_connect(packet: str, auth: dict[str, Any]) -> None:
    async with serving() as served:
        client = await served.net.open_socketio()
        await client.send_raw(packet)
        await client.recv()

        [socket] = served.io.sockets.sockets.values()
        assert socket.handshake.auth == auth


async def test_the_handshake_is_that_of_the_session_and_auth_that_of_the_namespace() -> None:
    async with open_server(cors="*") as server:
        server.io.of("/admin")
        client = await server.client(auth={"a": 1}, query={"room": "7"}, headers={"origin": "http://x.org"})
        admin = await client.of("/admin", {"b": 2})
        main, other = server.socket_of(client).handshake, server.socket_of(admin).handshake

        assert (main.auth, other.auth) == ({"a": 1}, {"b": 2})
        assert main.query["room"] == other.query["room"] == "7"
        assert main.query["EIO"] == "4"
        assert (main.xdomain, main.secure, main.headers["host"]) == (True, False, "localhost")
        assert main.url.startswith("/socket.io/?EIO=4")


@pytest.mark.parametrize("name", ["/custom", "/Custom", "/a/b", "/q?token=1", "/наме"])
@pytest.mark.parametrize("ending", [",", ""])
async def test_a_namespace_is_found_by_its_exact_name(name: str, ending: str) -> None:
    async with serving() as served:
        namespace = served.io.of(name)
        client = await served.net.open_socketio()
        await client.send_raw(f"0{name}{ending}")

        answer = await client.recv()

        assert answer == f'0{name},{{"sid":"{next(iter(namespace.sockets))}"}}'


@pytest.mark.parametrize(("name", "canonical"), [("", "/"), ("/", "/"), ("abc", "/abc"), ("/abc", "/abc")])
def test_the_leading_slash_of_a_namespace_may_be_left_out(name: str, canonical: str) -> None:
    io = Server()

    assert io.of(name) is io.of(canonical)
    assert io.of(name).name == canonical


def test_the_name_of_a_namespace_must_be_a_string() -> None:
    with pytest.raises(TypeError, match="string"):
        Server().of(3)  # type: ignore[call-overload]


def test_a_new_namespace_is_told_on_the_main_one() -> None:
    io = Server()
    made: list[Namespace] = []
    io.on("new_namespace", made.append)

    namespace = io.of("/a")
    io.of("/a")
    io.of("/")

    assert made == [namespace]


@pytest.mark.parametrize("name", ["/random", "/Admin", "/admin/", "/admin?x=1"])
async def test_a_namespace_that_does_not_exist_is_refused_and_the_session_stays(name: str) -> None:
    async with open_server() as server:
        server.io.of("/admin")
        client = await server.client()

        with pytest.raises(ConnectionRefused) as caught:
            await client.of(name)

        assert (caught.value.message, caught.value.data) == ("Invalid namespace", None)
        assert (await client.of("/admin")).session_id == client.session_id


async def test_a_session_is_in_several_namespaces_each_with_a_socket_of_its_own() -> None:
    async with open_server() as server:
        names = ("/", "/a", "/b")
        sockets: list[Socket] = []
        for name in names:
            server.io.of(name).on("connection", sockets.append)
        main = await server.client()
        clients = [main, await main.of("/a"), await main.of("/b")]
        await settle()

        assert [socket.id for socket in sockets] == [client.id for client in clients]
        assert len({client.id for client in clients}) == 3
        assert {socket.conn for socket in sockets} == {sockets[0].conn}
        await clients[1].emit("x")
        await sockets[2].emit("for b")
        assert [await client.receive_all() for client in clients] == [[], [], [("for b",)]]


async def test_namespaces_may_be_joined_in_one_body_and_are_answered_each() -> None:
    async with serving() as served:
        served.io.of("/a")
        client = await served.net.open_socketio("polling")

        await client.send_raw("0", "0/a", "0/nowhere,")

        answers = sorted(str(answer)[:5] for answer in await received(client))
        assert answers == ["0/a,{", '0{"si', "4/now"]


async def test_a_socket_is_invisible_until_it_is_connected() -> None:
    async with open_server() as server:
        io = server.io
        seen: list[tuple[bool, bool, int, int]] = []

        def look(socket: Socket) -> None:
            seen.append(
                (socket.connected, socket.id in io.sockets.sockets, io.statistics().connecting, io.statistics().sockets)
            )

        io.use(look)
        io.on("connection", look)
        await server.connect()
        await settle()

        assert seen == [(False, False, 1, 0), (True, True, 0, 1)]


async def test_emits_inside_connection_follow_the_connect_packet() -> None:
    io = Server()

    @io.on("connection")
    async def connected(socket: Socket) -> None:
        await socket.emit("first")
        socket.emit_nowait("second")

    io.on("connection", lambda socket: socket.emit_nowait("third"))

    async with serving(io) as served:
        client = await served.net.open_socketio()
        await client.send_raw("0")

        packets = [str(packet) for packet in await received(client)]
        assert packets[0].startswith('0{"sid"')
        events = packets[1:]
        events.remove('2["third"]')  # the handlers run at the same time
        assert events == ['2["first"]', '2["second"]']


async def test_connection_handlers_start_in_the_order_of_their_registration() -> None:
    io = Server()
    started: list[int] = []

    def register(number: int) -> None:
        if number % 3 == 2:
            io.on("connection", lambda socket: started.append(number))
        else:

            async def connected(socket: Socket) -> None:
                started.append(number)
                await trio.sleep(1)

            io.on("connection", connected)

    for number in range(6):
        register(number)

    async with open_server(io) as server:
        await server.connect()
        await settle()

        assert started == list(range(6))


# Clients that break the protocol

VIOLATIONS: dict[str, str | bytes] = {
    "second CONNECT": "0",
    "EVENT for a namespace it is not in": '2/admin,["x"]',
    "ACK for a namespace it is not in": "3/admin,1[]",
    "DISCONNECT for a namespace it is not in": "1/admin,",
    "CONNECT_ERROR": '4{"message":"no"}',
    "unknown packet type": "abc",
    "unknown packet number": "999",
    "event without a payload": "2",
    "event with an object": "2{}",
    "event with a name that is no name": "2[null]",
    "event with a reserved name": '2["disconnect","gone"]',
    "JSON that ends early": '2["some","data"',
    "NaN": '2["x",NaN]',
    "ack that is no array": "31{}",
    "connect with a string": '0/admin,"invalid"',
    "disconnect with a payload": "1{}",
    "attachments without a number": '5woooot["x"]',
    "attachments without a dash": "5",
    "too many attachments": '511-["x"]',
    "attachment that nobody announced": b"\x00",
    "placeholder out of range": '51-["x",{"_placeholder":true,"num":1}]',
    "huge ack id": "2" + "9" * 400 + '["x"]',
    "huge namespace": "2/" + "n" * 5000 + ',["x"]',
    "deep JSON": "2" + "[" * 5000,
}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("what", VIOLATIONS)
async def test_a_violation_ends_the_session_gracefully_and_nobody_else_notices(
    what: str, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_socketio")
    async with serving() as served:
        served.io.of("/admin")
        witness = await served.connect()
        client, socket = await served.connect(transport=transport)
        reasons: list[str] = []
        socket.on("disconnect", reasons.append)
        await socket.emit("queued before")

        await client.send_raw(VIOLATIONS[what])
        assert await client.recv() == '2["queued before"]'
        lost = await client.lost()
        await served.io.emit("still here")

        assert "1000" in lost.how or "closed by the server" in lost.how
        assert await witness.client.recv() == '2["still here"]'
        assert reasons[0] in ("forced close", "forced server close")
        assert len(at_least(caplog, logging.INFO)) == 1
        assert not warnings(caplog)


@pytest.mark.parametrize("packet", ['2["x"]', "30[]", "1", "1/admin,", "abc"])
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_first_packet_must_be_connect(packet: str, transport: str) -> None:
    async with serving() as served:
        client = await served.net.open_socketio(transport)

        await client.send_raw(packet)

        await client.lost()
        assert served.io.statistics() == ServerStatistics()


async def test_a_graceful_close_is_a_noop_and_a_close_on_polling() -> None:
    async with serving() as served:
        session = await served.net.polling()
        await session.send("40")
        await session.poll()

        await session.send("40")

        assert await session.poll() == ["6", "1"]


@pytest.mark.parametrize("packet", ['2["early"]', "30[]", "0", "1"])
async def test_packets_for_a_namespace_whose_middlewares_are_at_work_are_violations(packet: str) -> None:
    io = Server()
    connected: list[Socket] = []
    io.on("connection", connected.append)

    @io.use
    async def slow(socket: Socket) -> None:
        await trio.sleep(1)

    async with serving(io) as served:
        client = await served.net.open_socketio()
        await client.send_raw("0", packet)

        await client.lost()
        assert not connected
        assert io.statistics() == ServerStatistics()


async def test_a_middleware_that_lets_in_a_client_whose_session_is_closing_lets_in_nobody() -> None:
    io = Server()
    called: list[str] = []
    io.on("connection", lambda socket: called.append("connection"))

    @io.use
    async def slow(socket: Socket) -> None:
        socket.on("disconnect", lambda: called.append("disconnect"))
        await trio.sleep(1)

    async with serving(io) as served:
        client = await served.net.open_socketio("polling")
        await client.send_raw("0", '2["early"]')  # and the close waits for a poll to collect it
        await trio.sleep(2)

        assert called == []
        assert io.statistics() == ServerStatistics(sessions=1, connections=1)
        await client.lost()


async def test_half_a_packet_is_forgotten_with_its_session() -> None:
    async with open_server() as server:
        client, socket = await server.connect()

        await client.send_raw(HEADER, b"1234")
        await settle()
        assert server.io.statistics().half_received_bytes > 4

        await client.drop()
        await socket.ended.wait()
        await settle()
        assert server.io.statistics() == ServerStatistics()


HEADER = '452-["x",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]'


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("sent", [0, 1])
async def test_a_packet_that_is_still_half_received_at_the_second_heartbeat_ends_its_session(
    sent: int, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_socketio")
    async with open_server(ping_interval=10.0, ping_timeout=5.0) as server:
        client, socket = await server.connect(transport=transport)
        ends: list[tuple[str, str]] = []
        socket.on("disconnect", lambda *why: ends.append(why))
        begun = trio.current_time()

        await client.send_raw(HEADER, *[b"1234"] * sent)
        assert await client.wait_disconnected() == "transport close"  # until then it answers the pings
        await socket.ended.wait()

        assert 10 <= trio.current_time() - begun <= 2 * (10 + 5)
        assert ends == [("forced close", "the attachments of a packet have not come in time")]
        (line,) = at_least(caplog, logging.INFO)
        assert "the attachments of a packet have not come in time" in line


async def test_the_second_heartbeat_of_an_old_client_is_one_that_comes_after_the_time_between_two() -> None:
    async with serving(allow_eio3=True, ping_interval=10.0, ping_timeout=5.0) as served:
        websocket = await served.net.websocket("?EIO=3&transport=websocket")
        await settle()
        (socket,) = served.io.sockets.sockets.values()
        await websocket.send(HEADER)

        for _ in range(2):
            await websocket.send("2")
            await trio.sleep(6)
        assert socket.connected
        await websocket.send("2")
        await socket.ended.wait()

        assert socket.conn.closed_because == ("forced close", "the attachments of a packet have not come in time")


async def test_heartbeats_among_the_attachments_of_packets_that_arrive_are_no_matter() -> None:
    async with open_server(ping_interval=10.0, ping_timeout=5.0) as server:
        client, socket = await server.connect()
        told: list[tuple[bytes, bytes]] = []
        socket.on("x", lambda *args: told.append(args))

        for _ in range(5):
            await client.send_raw(HEADER)
            await trio.sleep(8)
            await client.send_raw(b"1")
            await trio.sleep(8)
            await client.send_raw("3", "3")  # signs of life that nobody has asked for
            await client.send_raw(b"2")
        await settle()

        assert told == [(b"1", b"2")] * 5


# The time to connect


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_who_joins_no_namespace_in_time_is_disconnected(transport: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trio_socketio")
    async with serving(connect_timeout=3.0) as served:
        begun = trio.current_time()
        client = await served.net.open_socketio(transport)

        await client.lost()

        assert trio.current_time() - begun == pytest.approx(3.0, abs=0.1)
        assert not at_least(caplog, logging.INFO)


async def test_a_refused_namespace_does_not_count_as_joined() -> None:
    async with serving(connect_timeout=3.0) as served:
        client = await served.net.open_socketio()
        with pytest.raises(ConnectError):
            await client.join("/nowhere")

        with trio.fail_after(3.5):
            await client.lost()


async def test_the_time_to_connect_is_over_when_a_middleware_takes_longer() -> None:
    io = Server(connect_timeout=3.0)

    @io.use
    async def slow(socket: Socket) -> None:
        await trio.sleep(10)

    async with open_server(io) as server:
        with pytest.raises(SocketDisconnected), trio.fail_after(3.5):
            await server.client()


async def test_the_time_to_connect_never_begins_again() -> None:
    async with serving(connect_timeout=3.0) as served:
        client, socket = await served.connect()
        await client.disconnect()
        await socket.ended.wait()

        await client.recv_nothing(10)

        assert "sid" in await client.join("/")


async def test_a_namespace_can_be_joined_again_after_leaving_it() -> None:
    async with serving() as served:
        client, first = await served.connect()

        await client.send_raw("1", "0")
        answer = await client.recv()

        assert isinstance(answer, str)
        [second] = served.io.sockets.sockets.values()
        assert answer == f'0{{"sid":"{second.id}"}}'
        assert second.id != first.id


async def test_sockets_of_one_client_do_not_share_their_end() -> None:
    async with open_server() as server:
        server.io.of("/a")
        client, main = await server.connect()
        other = await client.of("/a")
        socket = server.socket_of(other)

        await other.disconnect()
        await socket.ended.wait()
        await main.emit("still here")

        assert await client.receive() == ("still here",)
        assert main.connected
