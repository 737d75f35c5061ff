"""The small print of Node's server on what is emitted and how it is answered; see also its neighbours.

Clients are raw where the ids and the namespaces in packets matter, or one emits what no client may.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import AckTimeout, ReservedEventError, Server
from trio_socketio.abc import DefaultParser, MemoryAdapter

from ..wire_client import SessionLost, settle
from .support import TRANSPORTS, open_server, received, serving, stop_polling

if TYPE_CHECKING:
    from trio_socketio import Namespace, Socket
    from trio_socketio.abc import Packet

# Events and acknowledgements


async def test_error_is_an_event_like_others_in_both_directions() -> None:
    async with open_server() as server:
        client, socket = await server.connect()
        got: list[Any] = []
        socket.on("error", got.append)

        await client.emit("error", "of the client")
        await socket.emit("error", "of the server")

        assert await client.receive() == ("error", "of the server")
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
    async with open_server() as server:
        client, socket = await server.connect()
        begun = trio.current_time()

        with pytest.raises(AckTimeout):
            await socket.timeout(0).emit_with_ack("of one")
        with pytest.raises(AckTimeout) as caught:
            await server.io.timeout(0).emit_with_ack("of all")

        assert trio.current_time() == begun
        assert caught.value.responses == []
        assert socket.statistics().pending_acks == 0
        questions = await client.receive_all()
        assert questions == [("of one",), ("of all",)]
        for question in questions:
            await question.ack("late")
        await socket.emit("fine")
        assert await client.receive() == ("fine",)


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

    async with open_server(parser=Counting()) as server:
        pairs = await server.connect_many(5)
        encoded.clear()

        await server.io.emit("event", b"x")
        with pytest.raises(AckTimeout):
            await server.io.timeout(0).emit_with_ack("question")

        assert encoded == [["event", b"x"], ["question"]]
        for pair in pairs:
            assert await pair.client.receive_all() == [("event", b"x"), ("question",)]


async def test_handlers_that_are_changed_by_another_count_from_the_next_event_on() -> None:
    async with open_server() as server:
        client, socket = await server.connect()
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
        pairs = [await served.connect(namespace.name) for namespace in namespaces]

        for namespace, pair in zip(namespaces, pairs, strict=True):
            for asking in (pair.socket, namespace):
                with pytest.raises(AckTimeout):
                    await asking.timeout(0).emit_with_ack("question")

        assert await received(pairs[0].client) == ['20["question"]', '21["question"]']
        assert await received(pairs[1].client) == ['2/other,0["question"]', '2/other,1["question"]']


async def test_of_a_volatile_question_only_those_who_could_be_asked_are_awaited() -> None:
    async with open_server() as server, trio.open_nursery() as nursery:
        ready = await server.client()
        client, busy = await server.connect(transport="polling")
        await stop_polling(client, busy)
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await server.io.volatile.emit_with_ack("question"))

        nursery.start_soon(ask)
        await (await ready.receive()).ack("here")
        await settle()

        assert answers == [["here"]]
        assert busy.statistics().pending_acks == 0


async def test_flags_of_a_socket_are_kept_by_every_broadcast_that_begins_there() -> None:
    async with open_server() as server:
        (first, socket), (second, _) = await server.connect_many(2)
        busy, polling = await server.connect(transport="polling")
        await stop_polling(busy, polling)

        for number, operator in enumerate(
            (socket.volatile.local, socket.volatile.broadcast, socket.volatile.except_("nobody"))
        ):
            await settle()
            await operator.emit("event", number)
        busy.resume_reading()

        assert await first.receive_all() == []
        assert await busy.receive_all() == [("for the poll that pends",)]
        assert await second.receive_all() == [("event", number) for number in range(3)]


async def test_a_question_that_waits_for_room_in_the_outbox_is_over_in_its_time() -> None:
    async with open_server(max_outbox_packets=4) as server:
        client, socket = await server.connect(transport="polling")
        await stop_polling(client, socket)
        for number in range(3):
            socket.emit_nowait("event", number)
        begun = trio.current_time()

        with pytest.raises(AckTimeout):
            await socket.timeout(5).emit_with_ack("question")

        assert trio.current_time() == begun + 5
        assert socket.statistics().pending_acks == 0
        client.resume_reading()
        assert (await client.receive_all())[1:] == [("event", number) for number in range(3)]


async def test_a_cancelled_question_was_not_asked() -> None:
    async with open_server() as server:
        client, socket = await server.connect()

        for ask in (socket.emit_with_ack, socket.timeout(5).emit_with_ack, socket.volatile.emit_with_ack):
            with trio.CancelScope() as scope:
                scope.cancel()
                await ask("question")
            assert scope.cancelled_caught

        assert await client.receive_all() == []


# Connection state recovery


async def test_without_the_option_an_adapter_that_could_recover_is_not_asked_to() -> None:
    asked: list[str] = []

    class Able(MemoryAdapter):
        async def persist_session(self, session: Any) -> None:
            asked.append("persist")

        async def restore_session(self, pid: str, offset: str | None) -> None:
            asked.append("restore")

    async with open_server(adapter=Able) as server:
        client, socket = await server.connect(auth={"pid": "p", "offset": "o"})
        assert client.wire[-1].data == f'40{{"sid":"{client.id}"}}'
        await client.drop()
        await socket.ended.wait()

        assert asked == []


async def test_what_a_middleware_emits_has_no_offset_because_nobody_could_miss_it() -> None:
    io = Server(connection_state_recovery=True)

    @io.use
    async def greet(socket: Socket) -> None:
        await socket.emit("early")
        socket.emit_nowait("early too")

    async with open_server(io) as server:
        client = await server.client()

        _, *early, answer = [str(packet.data) for packet in client.wire if packet.sender == "server"]
        assert early == ['42["early"]', '42["early too"]']
        assert sorted(json.loads(answer[2:])) == ["pid", "sid"]
