"""The small print of Node's server on what is emitted and how it is answered; see also its neighbours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import AckTimeout, ReservedEventError, Server
from trio_socketio.abc import DefaultParser, MemoryAdapter

from ..wire_client import SessionLost, settle
from .support import TRANSPORTS, received, serving

if TYPE_CHECKING:
    from trio_socketio import Namespace, Socket
    from trio_socketio.abc import Packet

# Events and acknowledgements


async def test_error_is_an_event_like_others_in_both_directions() -> None:
    async with serving() as served:
        client, socket = await served.connect()
        got: list[Any] = []
        socket.on("error", got.append)

        await client.emit("error", "of the client")
        await socket.emit("error", "of the server")

        assert await client.recv() == '2["error","of the server"]'
        assert got == ["of the client"]
        assert socket.connected


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (('2456["q",1,"two"]',), ['3456[1,"two"]']),
        (
            ('52-789["q",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]', b"\x01", b"\x02"),
            ['62-789[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]', b"\x01", b"\x02"],
        ),
    ],
)
async def test_an_acknowledgement_has_the_id_of_its_event_and_the_attachments_in_order(
    question: tuple[str | bytes, ...], answer: list[str | bytes], transport: str
) -> None:
    async with serving() as served:
        client, socket = await served.connect(transport=transport)
        socket.on("q", lambda *args: args)

        await client.send_raw(*question)

        assert await received(client) == answer


async def test_a_timeout_of_zero_asks_and_is_over_at_once_and_a_late_answer_disturbs_nobody() -> None:
    async with serving() as served:
        client, socket = await served.connect()
        begun = trio.current_time()

        with pytest.raises(AckTimeout):
            await socket.timeout(0).emit_with_ack("of one")
        with pytest.raises(AckTimeout) as caught:
            await served.io.timeout(0).emit_with_ack("of all")

        assert trio.current_time() == begun
        assert caught.value.responses == []
        assert socket.statistics().pending_acks == 0
        assert await received(client) == ['20["of one"]', '21["of all"]']
        for id in (0, 1):
            await client.ack(id, "late")
        await socket.emit("fine")
        assert await client.recv() == '2["fine"]'


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_questions_and_answers_of_a_namespace_carry_its_name(transport: str) -> None:
    async with serving() as served, trio.open_nursery() as nursery:
        served.io.of("/other")
        client, socket = await served.connect("/other", transport=transport)
        answers: list[Any] = []

        @socket.on("q")
        def answer(value: int) -> int:
            return value + 1

        async def ask() -> None:
            answers.append(await socket.emit_with_ack("q", 1))

        await client.send_raw('2/other,7["q",1]')
        assert await client.recv() == "3/other,7[2]"
        nursery.start_soon(ask)
        assert await client.recv() == '2/other,0["q",1]'
        await client.send_raw('3/other,0["yes"]')
        await settle()

        assert answers == ["yes"]


@pytest.mark.parametrize(
    "name", ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"]
)
async def test_names_of_the_protocol_cannot_be_emitted_by_either_side(name: str) -> None:
    async with serving() as served:
        client, socket = await served.connect()
        for target in (socket, served.io, served.io.to("room"), socket.broadcast):
            with pytest.raises(ReservedEventError, match=f'"{name}" is a reserved event name'):
                await target.emit(name)

        await client.emit(name)

        assert isinstance(await client.lost(), SessionLost)
        assert not served.io.sockets.sockets


async def test_a_broadcast_is_encoded_once_for_all_its_recipients() -> None:
    encoded: list[Any] = []

    class Counting(DefaultParser):
        def encode(self, packet: Packet, compress: bool = True) -> Any:
            encoded.append(packet.data)
            return super().encode(packet, compress)

    async with serving(parser=Counting()) as served:
        pairs = await served.connect_many(5)
        encoded.clear()

        await served.io.emit("event", b"x")
        with pytest.raises(AckTimeout):
            await served.io.timeout(0).emit_with_ack("question")

        assert encoded == [["event", b"x"], ["question"]]
        for pair in pairs:
            assert (await pair.client.recv_event())[1] == ["event", b"x"]
            assert (await pair.client.recv_event())[1] == ["question"]


async def test_handlers_that_are_changed_by_another_count_from_the_next_event_on() -> None:
    async with serving() as served:
        client, socket = await served.connect()
        calls: list[str] = []

        def late() -> None:
            calls.append("late")

        def second() -> None:
            calls.append("second")

        @socket.on("event")
        def first() -> None:
            calls.append("first")
            socket.off("event")
            socket.on("event", late)

        socket.on("event", second)
        await client.emit("event")
        await client.emit("event")
        await settle()

        assert calls == ["first", "second", "late"]


async def test_every_namespace_counts_its_questions_from_zero() -> None:
    async with serving() as served:
        namespaces: list[Namespace] = [served.io.sockets, served.io.of("/other")]
        clients = [(await served.connect(namespace.name)).client for namespace in namespaces]

        for namespace in namespaces:
            for _ in range(2):
                with pytest.raises(AckTimeout):
                    await namespace.timeout(0).emit_with_ack("question")

        assert await received(clients[0]) == ['20["question"]', '21["question"]']
        assert await received(clients[1]) == ['2/other,0["question"]', '2/other,1["question"]']


async def test_of_a_volatile_question_only_those_who_could_be_asked_are_awaited() -> None:
    async with serving() as served, trio.open_nursery() as nursery:
        ready, _ = await served.connect()
        _, busy = await served.connect(transport="polling")  # which has no GET under way
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await served.io.volatile.emit_with_ack("question"))

        nursery.start_soon(ask)
        id, _ = await ready.recv_event()
        await ready.ack(id or 0, "here")
        await settle()

        assert answers == [["here"]]
        assert busy.statistics().pending_acks == 0


async def test_flags_of_a_socket_are_kept_by_every_broadcast_that_begins_there() -> None:
    async with serving() as served:
        (first, socket), (second, _) = await served.connect_many(2)
        busy, _ = await served.connect(transport="polling")  # which has no GET under way

        for number, operator in enumerate(
            (socket.volatile.local, socket.volatile.broadcast, socket.volatile.except_("nobody"))
        ):
            await settle()
            await operator.emit("event", number)

        assert await received(first) == await received(busy) == []
        assert await received(second) == [f'2["event",{number}]' for number in range(3)]


async def test_a_question_that_waits_for_room_in_the_outbox_is_over_in_its_time() -> None:
    async with serving(max_outbox_packets=4) as served:
        client, socket = await served.connect(transport="polling")
        for number in range(3):
            socket.emit_nowait("event", number)
        begun = trio.current_time()

        with pytest.raises(AckTimeout):
            await socket.timeout(5).emit_with_ack("question")

        assert trio.current_time() == begun + 5
        assert socket.statistics().pending_acks == 0
        assert await received(client) == [f'2["event",{number}]' for number in range(3)]


async def test_a_cancelled_question_was_not_asked() -> None:
    async with serving() as served:
        client, socket = await served.connect()

        for ask in (socket.emit_with_ack, socket.timeout(5).emit_with_ack, socket.volatile.emit_with_ack):
            with trio.CancelScope() as scope:
                scope.cancel()
                await ask("question")
            assert scope.cancelled_caught

        assert await received(client) == []


# Connection state recovery


async def test_without_the_option_an_adapter_that_could_recover_is_not_asked_to() -> None:
    asked: list[str] = []

    class Able(MemoryAdapter):
        async def persist_session(self, session: Any) -> None:
            asked.append("persist")

        async def restore_session(self, pid: str, offset: str | None) -> None:
            asked.append("restore")

    async with serving(adapter=Able) as served:
        client = await served.net.open_socketio()
        answer = await client.join("/", {"pid": "p", "offset": "o"})
        socket = served.io.sockets.sockets[answer["sid"]]
        await client.drop()
        await socket.ended.wait()

        assert list(answer) == ["sid"]
        assert asked == []


async def test_what_a_middleware_emits_has_no_offset_because_nobody_could_miss_it() -> None:
    io = Server(connection_state_recovery=True)

    @io.use
    async def greet(socket: Socket) -> None:
        await socket.emit("early")
        socket.emit_nowait("early too")

    async with serving(io) as served:
        client = await served.net.open_socketio()
        await client.send_raw("0")

        assert [await client.recv(), await client.recv()] == ['2["early"]', '2["early too"]']
        assert sorted(json.loads(str(await client.recv())[1:])) == ["pid", "sid"]
