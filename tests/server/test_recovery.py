"""Connection state recovery: a client that comes back is the socket that it was, and gets what it has missed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio

from trio_socketio import ConnectionRefused, ConnectionStateRecovery, Server, Socket, SocketDisconnected
from trio_socketio.abc import MemoryAdapter, RecoveringMemoryAdapter

from ..wire_client import ConnectError, settle
from .support import TRANSPORTS, serving

if TYPE_CHECKING:
    from ..wire_client import SioClient
    from .support import Served

both_transports = pytest.mark.parametrize("transport", TRANSPORTS)


class Left(NamedTuple):
    """What a client that has lost its connection knows, and its old socket."""

    sid: str
    pid: str
    offset: str | None
    socket: Socket

    @property
    def claim(self) -> dict[str, Any]:
        return {"pid": self.pid} | ({} if self.offset is None else {"offset": self.offset})


class Back(NamedTuple):
    """A client that has come back: what it got before the answer to its CONNECT, and that."""

    client: SioClient
    missed: list[list[Any]]
    answer: dict[str, Any]


async def come(served: Served, transport: str = "websocket", auth: Any = None) -> Back:
    """Connect, with whatever comes before the answer."""
    client = await served.net.open_socketio(transport)
    await client.send_raw("0" + ("" if auth is None else json.dumps(auth)))
    missed: list[list[Any]] = []
    while (packet := str(await client.recv()))[0] == "2":
        missed.append(json.loads(packet[1:]))
    payload = json.loads(packet[1:])
    if packet[0] == "4":
        assert not missed
        raise ConnectError(payload)
    client.sid = payload["sid"]
    return Back(client, missed, payload)


async def come_and_go(
    served: Served, transport: str = "websocket", *rooms: str, events: int = 1, data: dict[str, Any] | None = None
) -> Left:
    """A client that joins rooms, gets events, and loses its connection."""
    client, _, answer = await come(served, transport)
    socket = served.socket_of(client)
    socket.data.update(data or {})
    if rooms:
        await socket.join(rooms)
    offset = None
    for number in range(events):
        await socket.emit("event", number)
        offset = (await client.recv_event())[1][-1]
    await client.drop()
    await gone(socket)
    return Left(answer["sid"], answer["pid"], offset, socket)


async def gone(socket: Socket) -> None:
    with trio.fail_after(60):
        await socket.ended.wait()


def recovering(**options: Any) -> Server:
    return Server(connection_state_recovery=ConnectionStateRecovery(**options))


# On and off


async def test_off_by_default_there_is_no_private_id_and_a_claim_is_ordinary_auth() -> None:
    async with serving() as served:
        auth = {"pid": "p", "offset": "o"}
        client, missed, answer = await come(served, auth=auth)
        socket = served.socket_of(client)
        assert list(answer) == ["sid"]
        assert not missed
        assert not socket.recovered
        assert socket.handshake.auth == auth
        await socket.emit("event")
        assert await client.recv() == '2["event"]'
        assert type(served.io.adapter) is MemoryAdapter


async def test_private_id_is_told_to_the_client_alone() -> None:
    async with serving(recovering()) as served:
        client, _, answer = await come(served)
        socket = served.socket_of(client)
        assert list(answer) == ["sid", "pid"]
        assert len(answer["pid"]) >= 20
        assert answer["pid"] != answer["sid"]
        assert answer["pid"] not in f"{socket!r} {socket.details()!r} {socket.rooms!r}"


async def test_claim_is_no_part_of_the_handshake() -> None:
    async with serving(recovering()) as served:
        left = await come_and_go(served)
        client, _, answer = await come(served, auth=left.claim | {"token": "t"})
        assert answer["sid"] == left.sid
        assert served.socket_of(client).handshake.auth == {"token": "t"}


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

    async with serving(Server(connection_state_recovery=True, adapter=Counting)) as served:
        left = await come_and_go(served)
        assert (await come(served, auth=left.claim)).answer["sid"] == left.sid
        adapter = served.io.adapter
        assert isinstance(adapter, Counting)
        assert adapter.asked == 1


async def test_adapter_that_fails_makes_a_new_client(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(RecoveringMemoryAdapter):
        async def restore_session(self, pid: str, offset: str | None) -> Any:
            raise OSError("no storage")

    async with serving(Server(connection_state_recovery=True, adapter=Failing)) as served:
        left = await come_and_go(served)
        assert (await come(served, auth=left.claim)).answer["sid"] != left.sid
        assert "cannot be recovered" in caplog.text


# Offsets


@both_transports
async def test_events_end_with_an_offset_and_others_do_not(transport: str) -> None:
    async with serving(recovering()) as served:
        pair = await served.connect(transport=transport)
        offsets = []
        for emitter in (pair.socket, served.io, served.io.to(pair.socket.id), pair.socket.compress(False)):
            await emitter.emit("event", b"x")
            _, (name, value, offset) = await pair.client.recv_event()
            assert (name, value) == ("event", b"x")
            offsets.append(offset)
        pair.socket.emit_nowait("event")
        offsets.append((await pair.client.recv_event())[1][-1])
        assert len(set(offsets)) == 5
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.socket.emit_with_ack, "asks")
            assert (await pair.client.recv_event())[1] == ["asks"]
            await pair.client.ack(0)
        await settle()
        await pair.socket.volatile.emit("volatile")
        with trio.move_on_after(1):
            assert (await pair.client.recv_event())[1] == ["volatile"]


# Coming back


@both_transports
async def test_client_that_comes_back_is_what_it_was_and_gets_what_it_has_missed(transport: str) -> None:
    async with serving(recovering()) as served:
        io = served.io
        left = await come_and_go(served, transport, "room", data={"name": "Ann"})
        await io.emit("all")
        await io.to("room").emit("room")
        await left.socket.emit("direct")
        await io.to("elsewhere").emit("other room")
        await io.except_("room").emit("excluded")
        back = await come(served, transport, left.claim)
        assert [event[0] for event in back.missed] == ["all", "room", "direct"]
        assert back.answer == {"sid": left.sid, "pid": left.pid}
        socket = served.socket_of(back.client)
        assert socket is not left.socket
        assert socket.recovered
        assert socket.rooms == {left.sid, "room"}
        assert socket.data == {"name": "Ann"}
        await io.to("room").emit("live")
        assert (await back.client.recv_event())[1][0] == "live"


async def test_connection_handlers_are_told_of_a_client_that_is_back() -> None:
    recovered = []
    io = recovering()
    io.on("connection", lambda socket: recovered.append(socket.recovered))
    async with serving(io) as served:
        left = await come_and_go(served)
        await come(served, auth=left.claim)
        assert recovered == [False, True]


@both_transports
async def test_client_that_has_received_nothing_comes_back_without_an_offset(transport: str) -> None:
    async with serving(recovering()) as served:
        await served.io.emit("before it was there")
        left = await come_and_go(served, transport, "room", events=0)
        await served.io.to("room").emit("missed")
        back = await come(served, transport, left.claim)
        assert [event[0] for event in back.missed] == ["missed"]
        assert back.answer == {"sid": left.sid, "pid": left.pid}


async def test_client_that_was_idle_for_long_comes_back_from_its_old_offset() -> None:
    allowed = False
    io = recovering(skip_middlewares=False, max_disconnection_duration=60)

    @io.use
    def check(socket: Socket) -> None:
        if socket.recovered and not allowed:
            raise ConnectionRefused("not yet")

    async with serving(io) as served:
        client, _, answer = await come(served)
        socket = served.socket_of(client)
        await socket.emit("event")
        claim = {"pid": answer["pid"], "offset": (await client.recv_event())[1][-1]}
        await client.recv_nothing(1000)
        await client.drop()
        await gone(socket)
        await io.emit("missed")
        with pytest.raises(ConnectError, match="not yet"):
            await come(served, auth=claim)
        allowed = True
        back = await come(served, auth=claim)
        assert [event[0] for event in back.missed] == ["missed"]
        assert back.answer == answer


async def test_missed_events_have_their_attachments() -> None:
    async with serving(recovering()) as served:
        left = await come_and_go(served)
        await served.io.emit("bytes", b"one", {"two": b"two"})
        client = await served.net.open_socketio()
        await client.send_raw("0" + json.dumps(left.claim))
        assert (await client.recv_event())[1][:-1] == ["bytes", b"one", {"two": b"two"}]
        assert str(await client.recv()).startswith("0")


async def test_client_comes_back_again_and_again() -> None:
    async with serving(recovering()) as served:
        left = await come_and_go(served, "websocket", "room")
        for number in range(5):
            await served.io.to("room").emit("missed", number)
            back = await come(served, auth=left.claim)
            assert [event[:2] for event in back.missed] == [["missed", number]]
            assert back.answer["sid"] == left.sid
            socket = served.socket_of(back.client)
            left = left._replace(offset=back.missed[-1][-1], socket=socket)
            await back.client.drop()
            await gone(socket)


async def test_client_that_left_the_namespace_or_was_disconnected_does_not_come_back() -> None:
    async with serving(recovering()) as served:
        for by_client in (True, False):
            client, _, answer = await come(served)
            socket = served.socket_of(client)
            if by_client:
                await client.disconnect()
            else:
                await socket.disconnect()
            await gone(socket)
            with pytest.raises(SocketDisconnected):
                await socket.emit("event")
            again = await come(served, auth={"pid": answer["pid"]})
            assert again.answer["sid"] != answer["sid"]
            assert again.answer["pid"] != answer["pid"]
            assert not served.socket_of(again.client).recovered


async def test_client_whose_session_was_closed_by_the_server_comes_back() -> None:
    async with serving(recovering()) as served:
        client, _, answer = await come(served)
        socket = served.socket_of(client)
        socket.conn.close()
        await gone(socket)
        assert (await come(served, auth={"pid": answer["pid"]})).answer["sid"] == answer["sid"]


async def test_client_comes_back_after_the_server_was_closed() -> None:
    async with serving(recovering()) as served:
        _, _, answer = await come(served)
        await served.io.close()
        assert (await come(served, auth={"pid": answer["pid"]})).answer["sid"] == answer["sid"]


async def test_what_disconnecting_handlers_have_changed_is_kept() -> None:
    async with serving(recovering()) as served:
        client, _, answer = await come(served)
        socket = served.socket_of(client)
        await socket.join(["kept", "left"])

        @socket.on("disconnecting")
        async def disconnecting(reason: str) -> None:
            await socket.leave("left")
            socket.data["reason"] = reason

        await client.drop()
        await gone(socket)
        back = served.socket_of((await come(served, auth={"pid": answer["pid"]})).client)
        assert back.data == {"reason": "transport close"}
        assert back.rooms == {answer["sid"], "kept"}


async def test_slow_disconnect_handlers_do_not_harm_the_client_that_is_back() -> None:
    async with serving(recovering()) as served:
        client, _, answer = await come(served)
        old = served.socket_of(client)
        ended = []

        @old.on("disconnect")
        async def disconnect() -> None:
            await trio.sleep(2)
            ended.append(True)

        await client.drop()
        await settle()
        back = await come(served, auth={"pid": answer["pid"]})
        assert not ended
        await gone(old)
        assert served.socket_of(back.client).rooms == {answer["sid"]}
        await served.io.to(answer["sid"]).emit("event")
        assert (await back.client.recv_event())[1][0] == "event"


@both_transports
async def test_client_that_is_back_before_its_loss_was_noticed_is_what_it_was(transport: str) -> None:
    async with serving(recovering()) as served:
        client, _, answer = await come(served, transport)
        socket = served.socket_of(client)
        await socket.join("room")
        await socket.emit("lost")
        reasons: list[tuple[Any, ...]] = []
        socket.on("disconnect", lambda *args: reasons.append(args))
        back = await come(served, transport, {"pid": answer["pid"]})
        assert [event[0] for event in back.missed] == ["lost"]
        assert back.answer == answer
        assert reasons == [("transport close", "the client has come back on another connection")]
        assert served.socket_of(back.client).rooms == {answer["sid"], "room"}
        assert len(served.io.sockets.sockets) == served.io.engine.clients_count == 1


async def test_client_that_is_back_waits_for_the_handlers_of_its_end() -> None:
    async with serving(recovering()) as served:
        client, _, answer = await come(served)
        socket = served.socket_of(client)

        @socket.on("disconnecting")
        async def disconnecting() -> None:
            await trio.sleep(2)
            socket.data["saved"] = True

        await client.drop()
        await settle()
        back = await come(served, auth={"pid": answer["pid"]})
        assert back.answer == answer
        assert served.socket_of(back.client).data == {"saved": True}


async def test_nothing_is_held_of_sockets_that_have_gone() -> None:
    async with serving(recovering()) as served:
        for by_client in (True, False):
            client, _, _ = await come(served)
            socket = served.socket_of(client)
            await (client.disconnect() if by_client else client.drop())
            await gone(socket)
        assert served.io.sockets.recovery is not None
        assert not served.io.sockets.recovery.holders


# Not coming back


@pytest.mark.parametrize(
    "claim",
    [{"pid": "unknown"}, {"offset": "unknown"}, {"offset": 1}, {"pid": 1}, {"pid": None}],
    ids=lambda claim: str(claim),
)
async def test_claim_that_is_not_known_makes_a_new_client(claim: dict[str, Any]) -> None:
    async with serving(recovering()) as served:
        left = await come_and_go(served)
        await served.io.emit("missed")
        back = await come(served, auth=left.claim | claim)
        assert not back.missed
        assert back.answer["sid"] != left.sid
        assert back.answer["pid"] != left.pid
        assert not served.socket_of(back.client).recovered


async def test_client_that_is_too_late_is_a_new_one() -> None:
    async with serving(recovering(max_disconnection_duration=30)) as served:
        left = await come_and_go(served)
        await trio.sleep(30.1)
        assert (await come(served, auth=left.claim)).answer["sid"] != left.sid


async def test_of_two_that_come_back_at_once_one_recovers() -> None:
    async with serving(recovering(skip_middlewares=False)) as served:
        served.io.use(lambda socket: None)
        left = await come_and_go(served)
        sids = []

        async def back() -> None:
            sids.append((await come(served, auth=left.claim)).answer["sid"])

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(back)
        assert sids.count(left.sid) == 1
        assert len(set(sids)) == 3


async def test_client_that_has_missed_more_than_its_outbox_takes_is_a_new_one() -> None:
    io = Server(connection_state_recovery=True, max_outbox_bytes=2000)
    async with serving(io) as served:
        left = await come_and_go(served)
        for _ in range(20):
            await io.emit("event", "x" * 100)
        back = await come(served, auth=left.claim)
        assert not back.missed
        assert back.answer["sid"] != left.sid


# Being away


async def test_emit_to_a_client_that_is_away_is_kept_until_it_cannot_come_back() -> None:
    async with serving(recovering(max_disconnection_duration=30)) as served:
        left = await come_and_go(served)
        await left.socket.emit("one")
        left.socket.emit_nowait("two")
        with pytest.raises(SocketDisconnected):
            await left.socket.emit_with_ack("three")
        await trio.sleep(30.1)
        with pytest.raises(SocketDisconnected):
            await left.socket.emit("four")
        with pytest.raises(SocketDisconnected):
            left.socket.emit_nowait("five")


async def test_old_socket_reaches_the_client_that_is_back() -> None:
    async with serving(recovering()) as served:
        left = await come_and_go(served)
        back = await come(served, auth=left.claim)
        await left.socket.emit("from before")
        assert (await back.client.recv_event())[1][0] == "from before"


# Middlewares


async def test_middlewares_are_skipped_or_see_who_is_back() -> None:
    for skip in (True, False):
        seen: list[tuple[bool, dict[str, Any], bool]] = []
        io = recovering(skip_middlewares=skip)
        io.use(lambda socket, seen=seen: seen.append((socket.recovered, dict(socket.data), "room" in socket.rooms)))
        async with serving(io) as served:
            left = await come_and_go(served, "websocket", "room", data={"name": "Ann"})
            await come(served, auth=left.claim)
            assert seen == [(False, {}, False)] + ([] if skip else [(True, {"name": "Ann"}, True)])


async def test_refused_client_has_got_nothing_and_may_try_again() -> None:
    allowed = True
    io = recovering(skip_middlewares=False)

    @io.use
    def check(socket: Socket) -> None:
        if not allowed:
            raise ConnectionRefused("not now")

    async with serving(io) as served:
        left = await come_and_go(served, "websocket", "room")
        await io.to("room").emit("missed")
        allowed = False
        with pytest.raises(ConnectError, match="not now"):
            await come(served, auth=left.claim)
        await settle()
        assert not io.adapter.rooms
        allowed = True
        back = await come(served, auth=left.claim)
        assert [event[0] for event in back.missed] == ["missed"]
        assert back.answer["sid"] == left.sid


async def test_events_that_are_sent_while_middlewares_run_are_not_lost() -> None:
    io = recovering(skip_middlewares=False)

    @io.use
    async def slow(socket: Socket) -> None:
        if socket.recovered:
            await io.emit("meanwhile")
            await trio.sleep(1)

    async with serving(io) as served:
        left = await come_and_go(served)
        await io.emit("before")
        back = await come(served, auth=left.claim)
        assert [event[0] for event in back.missed] == ["before", "meanwhile"]
        await back.client.recv_nothing()


async def test_client_that_goes_while_middlewares_run_may_come_back() -> None:
    io = recovering(skip_middlewares=False)

    @io.use
    async def slow(socket: Socket) -> None:
        if socket.recovered:
            await trio.sleep(1)

    async with serving(io) as served:
        left = await come_and_go(served, "websocket", "room")
        client = await served.net.open_socketio()
        await client.send_raw("0" + json.dumps(left.claim))
        await settle()
        await client.drop()
        await trio.sleep(2)
        assert not io.adapter.rooms
        back = await come(served, auth=left.claim)
        assert back.answer["sid"] == left.sid


async def test_middleware_that_takes_a_room_away_takes_what_was_said_there() -> None:
    io = recovering(skip_middlewares=False)

    @io.use
    async def revoke(socket: Socket) -> None:
        if socket.recovered:
            await socket.leave("secret")

    async with serving(io) as served:
        left = await come_and_go(served, "websocket", "secret")
        await io.to("secret").emit("secret")
        await io.emit("public")
        back = await come(served, auth=left.claim)
        assert [event[0] for event in back.missed] == ["public"]
        assert served.socket_of(back.client).rooms == {left.sid}


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

    async with serving(io) as served:
        left = await come_and_go(served)
        client = await served.net.open_socketio()
        await client.send_raw("0" + json.dumps(left.claim))
        await client.lost()
        assert (await come(served, auth=left.claim)).answer["sid"] != left.sid
        assert flooded == 1


@both_transports
async def test_other_namespaces_recover_on_their_own(transport: str) -> None:
    io = recovering()
    chat = io.of("/chat")
    async with serving(io) as served:
        client = await served.net.open_socketio(transport)
        answers = {name: await client.join(name) for name in ("/", "/chat")}
        sockets = [io.sockets.sockets[answers["/"]["sid"]], chat.sockets[answers["/chat"]["sid"]]]
        await client.drop()
        for socket in sockets:
            await gone(socket)
        await chat.emit("chat")
        again = await served.net.open_socketio(transport)
        await again.send_raw("0/chat," + json.dumps({"pid": answers["/chat"]["pid"]}))
        assert json.loads(str(await again.recv()).removeprefix("2/chat,"))[0] == "chat"
        assert json.loads(str(await again.recv()).removeprefix("0/chat,")) == answers["/chat"]
        assert (await again.join("/", {"pid": answers["/chat"]["pid"]}))["sid"] != answers["/"]["sid"]
