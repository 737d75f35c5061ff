"""Connection state recovery: a client that comes back is the socket that it was, and gets what it has missed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import ConnectionRefused, ConnectionStateRecovery, Server, Socket, SocketDisconnected
from trio_socketio.abc import MemoryAdapter, RecoveringMemoryAdapter

from ..wire_client import settle
from .support import TRANSPORTS, Connected, open_server

if TYPE_CHECKING:
    from trio_socketio.testing import MemoryClient, ReceivedEvent

    from .support import OpenServer

both_transports = pytest.mark.parametrize("transport", TRANSPORTS)


def recovering(**options: Any) -> Server:
    return Server(connection_state_recovery=ConnectionStateRecovery(**options))


async def come_and_go(
    server: OpenServer,
    *rooms: str,
    transport: str = "websocket",
    events: int = 1,
    data: dict[str, Any] | None = None,
) -> Connected:
    """A client that joins rooms, gets events, and loses its connection; and its old socket."""
    client, socket = await server.connect(transport=transport)
    socket.data.update(data or {})
    if rooms:
        await socket.join(rooms)
    for number in range(events):
        await socket.emit("event", number)
        assert (await client.receive())[:2] == ("event", number)
    await lose(client, socket)
    return Connected(client, socket)


async def lose(client: MemoryClient, *sockets: Socket) -> None:
    """Lose the connection, and wait until the server has noticed."""
    await client.drop()
    for socket in sockets:
        await gone(socket)


async def gone(socket: Socket) -> None:
    with trio.fail_after(60):
        await socket.ended.wait()


def answer(client: MemoryClient) -> Any:
    """What the server said to CONNECT, after which nothing has come yet."""
    packet = str(client.wire[-1].data)
    assert packet.startswith("40")
    return json.loads(packet[packet.index("{") :])


def missed(client: MemoryClient) -> list[ReceivedEvent]:
    """What has come before the answer to CONNECT."""
    assert answer(client)
    return client.receive_all_nowait()


def names(events: list[ReceivedEvent]) -> list[str | int]:
    return [event.name for event in events]


# On and off


async def test_off_by_default_there_is_no_private_id_and_a_claim_is_ordinary_auth() -> None:
    async with open_server() as server:
        auth = {"pid": "p", "offset": "o"}
        client, socket = await server.connect(auth=auth)
        assert list(answer(client)) == ["sid"]
        assert not missed(client)
        assert not socket.recovered
        assert socket.handshake.auth == auth
        await socket.emit("event")
        assert await client.receive() == ("event",)
        assert type(server.io.adapter) is MemoryAdapter


async def test_private_id_is_told_to_the_client_alone() -> None:
    async with open_server(recovering()) as server:
        client, socket = await server.connect()
        assert list(answer(client)) == ["sid", "pid"]
        assert client.pid is not None
        assert len(client.pid) >= 20
        assert client.pid != client.id
        assert client.pid not in f"{socket!r} {socket.details()!r} {socket.rooms!r}"


async def test_claim_is_no_part_of_the_handshake() -> None:
    async with open_server(recovering()) as server:
        client, _ = await come_and_go(server)
        client.auth = {"token": "t"}
        await client.reconnect()
        assert client.recovered
        assert server.socket_of(client).handshake.auth == {"token": "t"}


@pytest.mark.parametrize("option", [None, 120, "yes", {}])
def test_option_of_another_type_is_an_error(option: Any) -> None:
    with pytest.raises(TypeError, match="connection_state_recovery"):
        Server(connection_state_recovery=option)


def test_adapter_that_cannot_recover_is_an_error() -> None:
    with pytest.raises(TypeError, match="needs an adapter that can do it"):
        Server(connection_state_recovery=True, adapter=lambda directory: MemoryAdapter(directory))


async def test_adapter_of_the_application_may_recover() -> None:
    class Counting(RecoveringMemoryAdapter):
        asked = 0

        async def restore_session(self, pid: str, offset: str | None) -> Any:
            self.asked += 1
            return await super().restore_session(pid, offset)

    async with open_server(connection_state_recovery=True, adapter=Counting) as server:
        client, old = await come_and_go(server)
        await client.reconnect()
        assert client.id == old.id
        adapter = server.io.adapter
        assert isinstance(adapter, Counting)
        assert adapter.asked == 1


async def test_adapter_that_fails_makes_a_new_client(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(RecoveringMemoryAdapter):
        async def restore_session(self, pid: str, offset: str | None) -> Any:
            raise OSError("no storage")

    async with open_server(connection_state_recovery=True, adapter=Failing) as server:
        client, old = await come_and_go(server)
        await client.reconnect()
        assert client.id != old.id
        assert "cannot be recovered" in caplog.text


# Offsets


@both_transports
async def test_events_end_with_an_offset_and_others_do_not(transport: str) -> None:
    async with open_server(recovering()) as server:
        client, socket = await server.connect(transport=transport)
        offsets = []
        for emitter in (socket, server.io, server.io.to(socket.id), socket.compress(False)):
            await emitter.emit("event", b"x")
            name, value, offset = await client.receive()
            assert (name, value) == ("event", b"x")
            offsets.append(offset)
        socket.emit_nowait("event")
        offsets.append((await client.receive())[-1])
        assert len(set(offsets)) == 5
        async with trio.open_nursery() as nursery:
            nursery.start_soon(socket.emit_with_ack, "asks")
            question = await client.receive()
            assert (question.name, question.args) == ("asks", ())
            await question.ack()
        await settle()
        await socket.volatile.emit("volatile")
        assert await client.receive_all() == [("volatile",)]


# Coming back


@both_transports
async def test_client_that_comes_back_is_what_it_was_and_gets_what_it_has_missed(transport: str) -> None:
    async with open_server(recovering()) as server:
        io = server.io
        client, old = await come_and_go(server, "room", transport=transport, data={"name": "Ann"})
        pid = client.pid
        await io.emit("all")
        await io.to("room").emit("room")
        await old.emit("direct")
        await io.to("elsewhere").emit("other room")
        await io.except_("room").emit("excluded")
        await client.reconnect()
        assert answer(client) == {"sid": old.id, "pid": pid}
        assert names(missed(client)) == ["all", "room", "direct"]
        socket = server.socket_of(client)
        assert socket is not old
        assert socket.recovered
        assert socket.rooms == {old.id, "room"}
        assert socket.data == {"name": "Ann"}
        await io.to("room").emit("live")
        assert (await client.receive()).name == "live"


async def test_connection_handlers_are_told_of_a_client_that_is_back() -> None:
    recovered = []
    io = recovering()
    io.on("connection", lambda socket: recovered.append(socket.recovered))
    async with open_server(io) as server:
        client, _ = await come_and_go(server)
        await client.reconnect()
        assert recovered == [False, True]


@both_transports
async def test_client_that_has_received_nothing_comes_back_without_an_offset(transport: str) -> None:
    async with open_server(recovering()) as server:
        await server.io.emit("before it was there")
        client, old = await come_and_go(server, "room", transport=transport, events=0)
        pid = client.pid
        await server.io.to("room").emit("missed")
        assert client.offset is None
        await client.reconnect()
        assert answer(client) == {"sid": old.id, "pid": pid}
        assert names(missed(client)) == ["missed"]


async def test_client_that_was_idle_for_long_comes_back_from_its_old_offset() -> None:
    allowed = False
    io = recovering(skip_middlewares=False, max_disconnection_duration=60)

    @io.use
    def check(socket: Socket) -> None:
        if socket.recovered and not allowed:
            raise ConnectionRefused("not yet")

    async with open_server(io) as server:
        client, socket = await server.connect()
        await socket.emit("event")
        await client.receive()
        await trio.sleep(1000)
        assert await client.receive_all() == []
        await lose(client, socket)
        await io.emit("missed")
        with pytest.raises(ConnectionRefused, match="not yet"):
            await client.reconnect()
        allowed = True
        await client.reconnect()
        assert names(missed(client)) == ["missed"]
        assert client.recovered
        assert client.id == socket.id


async def test_missed_events_have_their_attachments() -> None:
    async with open_server(recovering()) as server:
        client, _ = await come_and_go(server)
        await server.io.emit("bytes", b"one", {"two": b"two"})
        await client.reconnect()
        assert [event[:-1] for event in missed(client)] == [("bytes", b"one", {"two": b"two"})]


async def test_client_comes_back_again_and_again() -> None:
    async with open_server(recovering()) as server:
        client, old = await come_and_go(server, "room")
        for number in range(5):
            await server.io.to("room").emit("missed", number)
            await client.reconnect()
            assert [event[:2] for event in missed(client)] == [("missed", number)]
            assert client.id == old.id
            await lose(client, server.socket_of(client))


@pytest.mark.parametrize("by_client", [True, False])
async def test_client_that_left_the_namespace_or_was_disconnected_does_not_come_back(by_client: bool) -> None:
    async with open_server(recovering()) as server:
        client, socket = await server.connect()
        pid = client.pid
        await (client.disconnect() if by_client else socket.disconnect())
        await gone(socket)
        await client.wait_disconnected()
        with pytest.raises(SocketDisconnected):
            await socket.emit("event")
        await client.reconnect()
        assert client.id != socket.id
        assert client.pid != pid
        assert not server.socket_of(client).recovered


async def test_client_whose_session_was_closed_by_the_server_comes_back() -> None:
    async with open_server(recovering()) as server:
        client, socket = await server.connect()
        socket.conn.close()
        await gone(socket)
        await client.wait_disconnected()
        await client.reconnect()
        assert client.id == socket.id


async def test_client_comes_back_after_the_server_was_closed() -> None:
    async with open_server(recovering()) as server:
        client, socket = await server.connect()
        await server.io.close()
        await client.wait_disconnected()
        await client.reconnect()
        assert client.id == socket.id


async def test_what_disconnecting_handlers_have_changed_is_kept() -> None:
    async with open_server(recovering()) as server:
        client, socket = await server.connect()
        await socket.join(["kept", "left"])

        @socket.on("disconnecting")
        async def disconnecting(reason: str) -> None:
            await socket.leave("left")
            socket.data["reason"] = reason

        await lose(client, socket)
        await client.reconnect()
        back = server.socket_of(client)
        assert back.data == {"reason": "transport close"}
        assert back.rooms == {socket.id, "kept"}


async def test_slow_disconnect_handlers_do_not_harm_the_client_that_is_back() -> None:
    async with open_server(recovering()) as server:
        client, old = await server.connect()
        ended = []

        @old.on("disconnect")
        async def disconnect() -> None:
            await trio.sleep(2)
            ended.append(True)

        await client.drop()
        await settle()
        await client.reconnect()
        assert not ended
        await gone(old)
        assert server.socket_of(client).rooms == {old.id}
        await server.io.to(old.id).emit("event")
        assert (await client.receive()).name == "event"


@both_transports
async def test_client_that_is_back_before_its_loss_was_noticed_is_what_it_was(transport: str) -> None:
    async with open_server(recovering()) as server:
        client, socket = await server.connect(transport=transport)
        await socket.join("room")
        await socket.emit("lost")
        reasons: list[tuple[Any, ...]] = []
        socket.on("disconnect", lambda *args: reasons.append(args))
        back = await server.client(transport=transport, auth={"pid": client.pid})
        assert answer(back) == {"sid": client.id, "pid": client.pid}
        assert names(missed(back)) == ["lost"]
        assert reasons == [("transport close", "the client has come back on another connection")]
        assert server.socket_of(back).rooms == {client.id, "room"}
        assert len(server.io.sockets.sockets) == server.io.engine.clients_count == 1


async def test_client_that_is_back_waits_for_the_handlers_of_its_end() -> None:
    async with open_server(recovering()) as server:
        client, socket = await server.connect()

        @socket.on("disconnecting")
        async def disconnecting() -> None:
            await trio.sleep(2)
            socket.data["saved"] = True

        await client.drop()
        await settle()
        await client.reconnect()
        assert client.recovered
        assert client.id == socket.id
        assert server.socket_of(client).data == {"saved": True}


async def test_nothing_is_held_of_sockets_that_have_gone() -> None:
    async with open_server(recovering()) as server:
        for by_client in (True, False):
            client, socket = await server.connect()
            await (client.disconnect() if by_client else client.drop())
            await gone(socket)
        assert server.io.sockets.recovery is not None
        assert not server.io.sockets.recovery.holders


# Not coming back


@pytest.mark.parametrize(
    "claim",
    [{"pid": "unknown"}, {"offset": "unknown"}, {"offset": 1}, {"pid": 1}, {"pid": None}],
    ids=lambda claim: str(claim),
)
async def test_claim_that_is_not_known_makes_a_new_client(claim: dict[str, Any]) -> None:
    async with open_server(recovering()) as server:
        client, old = await come_and_go(server)
        pid = client.pid
        await server.io.emit("missed")
        client.auth = claim
        await client.reconnect()
        assert not missed(client)
        assert client.id != old.id
        assert client.pid != pid
        assert not server.socket_of(client).recovered


async def test_client_that_is_too_late_is_a_new_one() -> None:
    async with open_server(recovering(max_disconnection_duration=30)) as server:
        client, old = await come_and_go(server)
        await trio.sleep(30.1)
        await client.reconnect()
        assert client.id != old.id


async def test_of_two_that_come_back_at_once_one_recovers() -> None:
    async with open_server(recovering(skip_middlewares=False)) as server:
        server.io.use(lambda socket: None)
        client, old = await come_and_go(server)
        sids = []

        async def back() -> None:
            sids.append((await server.client(auth={"pid": client.pid, "offset": client.offset})).id)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(back)
        assert sids.count(old.id) == 1
        assert len(set(sids)) == 3


async def test_client_that_has_missed_more_than_its_outbox_takes_is_a_new_one() -> None:
    async with open_server(connection_state_recovery=True, max_outbox_bytes=2000) as server:
        client, old = await come_and_go(server)
        for _ in range(20):
            await server.io.emit("event", "x" * 100)
        await client.reconnect()
        assert not missed(client)
        assert client.id != old.id


# Being away


async def test_emit_to_a_client_that_is_away_is_kept_until_it_cannot_come_back() -> None:
    async with open_server(recovering(max_disconnection_duration=30)) as server:
        _, socket = await come_and_go(server)
        await socket.emit("one")
        socket.emit_nowait("two")
        with pytest.raises(SocketDisconnected):
            await socket.emit_with_ack("three")
        await trio.sleep(30.1)
        with pytest.raises(SocketDisconnected):
            await socket.emit("four")
        with pytest.raises(SocketDisconnected):
            socket.emit_nowait("five")


async def test_old_socket_reaches_the_client_that_is_back() -> None:
    async with open_server(recovering()) as server:
        client, old = await come_and_go(server)
        await client.reconnect()
        await old.emit("from before")
        assert (await client.receive()).name == "from before"


# Middlewares


async def test_middlewares_are_skipped_or_see_who_is_back() -> None:
    for skip in (True, False):
        seen: list[tuple[bool, dict[str, Any], bool]] = []
        io = recovering(skip_middlewares=skip)
        io.use(lambda socket, seen=seen: seen.append((socket.recovered, dict(socket.data), "room" in socket.rooms)))
        async with open_server(io) as server:
            client, _ = await come_and_go(server, "room", data={"name": "Ann"})
            await client.reconnect()
            assert seen == [(False, {}, False)] + ([] if skip else [(True, {"name": "Ann"}, True)])


async def test_refused_client_has_got_nothing_and_may_try_again() -> None:
    allowed = True
    io = recovering(skip_middlewares=False)

    @io.use
    def check(socket: Socket) -> None:
        if not allowed:
            raise ConnectionRefused("not now")

    async with open_server(io) as server:
        client, old = await come_and_go(server, "room")
        await io.to("room").emit("missed")
        allowed = False
        with pytest.raises(ConnectionRefused, match="not now"):
            await client.reconnect()
        assert await client.receive_all() == []
        assert not io.adapter.rooms
        allowed = True
        await client.reconnect()
        assert names(missed(client)) == ["missed"]
        assert client.id == old.id


async def test_events_that_are_sent_while_middlewares_run_are_not_lost() -> None:
    io = recovering(skip_middlewares=False)

    @io.use
    async def slow(socket: Socket) -> None:
        if socket.recovered:
            await io.emit("meanwhile")
            await trio.sleep(1)

    async with open_server(io) as server:
        client, _ = await come_and_go(server)
        await io.emit("before")
        await client.reconnect()
        assert names(missed(client)) == ["before", "meanwhile"]
        await trio.sleep(1)
        assert await client.receive_all() == []


async def test_client_that_goes_while_middlewares_run_may_come_back() -> None:
    io = recovering(skip_middlewares=False)

    @io.use
    async def slow(socket: Socket) -> None:
        if socket.recovered:
            await trio.sleep(1)

    async with open_server(io) as server:
        client, old = await come_and_go(server, "room")
        with trio.move_on_after(0.5) as scope:
            await client.reconnect()
        assert scope.cancelled_caught
        await client.drop()
        await trio.sleep(2)
        assert not io.adapter.rooms
        await client.reconnect()
        assert client.id == old.id


async def test_middleware_that_takes_a_room_away_takes_what_was_said_there() -> None:
    io = recovering(skip_middlewares=False)

    @io.use
    async def revoke(socket: Socket) -> None:
        if socket.recovered:
            await socket.leave("secret")

    async with open_server(io) as server:
        client, old = await come_and_go(server, "secret")
        await io.to("secret").emit("secret")
        await io.emit("public")
        await client.reconnect()
        assert names(missed(client)) == ["public"]
        assert server.socket_of(client).rooms == {old.id}


async def test_events_dropped_while_middlewares_run_end_in_a_new_client_and_not_in_a_gap() -> None:
    io = recovering(skip_middlewares=False, max_packets=3)
    flooded = 0

    @io.use
    async def flood(socket: Socket) -> None:
        nonlocal flooded
        if socket.recovered:
            flooded += 1
            for _ in range(5):
                await io.emit("event")

    async with open_server(io) as server:
        client, old = await come_and_go(server)
        with pytest.raises(SocketDisconnected):
            await client.reconnect()
        assert await client.receive_all() == []
        await client.reconnect()
        assert client.id != old.id
        assert flooded == 1


@both_transports
async def test_other_namespaces_recover_on_their_own(transport: str) -> None:
    io = recovering()
    namespace = io.of("/chat")
    async with open_server(io) as server:
        main, main_socket = await server.connect(transport=transport)
        chat = await main.of("/chat")
        chat_socket = server.socket_of(chat)
        await lose(main, main_socket, chat_socket)
        await namespace.emit("chat")
        await chat.reconnect()
        assert names(missed(chat)) == ["chat"]
        assert chat.recovered
        assert chat.id == chat_socket.id
        main.auth = {"pid": chat.pid}
        await main.reconnect()
        assert main.id != main_socket.id
