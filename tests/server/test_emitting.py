"""Emitting to one client: what is sent, what is refused before anything is sent, and waiting for room.

Clients whose network takes not a single byte speak for themselves (`serving`): the testing kit's have buffers.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_socketio import EncodeError, ReservedEventError, SocketDisconnected
from trio_socketio._wire.packets import RESERVED_EVENTS

from ..wire_client import settle
from .support import TRANSPORTS, open_server, received, resume_polling, serving, stop_polling

if TYPE_CHECKING:
    from trio_socketio._engine.session import Session
    from trio_socketio._wire.encoded import EncodedPacket


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("args", "packet"),
    [
        ((), '2["x"]'),
        ((1, None, "é\u2028😀", [True], {"a": {"b": []}}), '2["x",1,null,"é\u2028😀",[true],{"a":{"b":[]}}]'),
        ((float("nan"), float("inf")), '2["x",null,null]'),
        ((datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),), '2["x","2024-01-02T03:04:05+00:00"]'),
    ],
)
async def test_an_event_arrives_as_json(args: tuple[Any, ...], packet: str, transport: str) -> None:
    async with open_server() as server:
        client, socket = await server.connect(transport=transport)

        await socket.emit("x", *args)

        await client.receive()

        assert client.wire[-1] == ("server", transport, f"4{packet}")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_bytes_arrive_as_attachments_in_their_order(transport: str) -> None:
    async with open_server() as server:
        client, socket = await server.connect(transport=transport)

        await socket.emit("x", b"\x00", {"a": [bytearray(b"\x01"), memoryview(b"\x02")]}, "text")

        assert await client.receive() == ("x", b"\x00", {"a": [b"\x01", b"\x02"]}, "text")


async def test_ten_attachments_are_sent_and_eleven_are_refused() -> None:
    async with open_server() as server:
        client, socket = await server.connect()

        with pytest.raises(EncodeError, match="too many attachments: 11"):
            await socket.emit("x", *[b""] * 11)
        await socket.emit("x", *[b""] * 10)

        assert await client.receive() == ("x", *[b""] * 10)


@pytest.mark.parametrize("value", [Decimal(1), {1}, object(), 2**70, 1j, test_an_event_arrives_as_json])
async def test_what_has_no_json_form_is_refused_with_nothing_queued_and_later_emits_are_fine(value: Any) -> None:
    async with open_server() as server:
        client, socket = await server.connect()

        with pytest.raises(EncodeError):
            await socket.emit("x", b"attachment", [value])
        with pytest.raises(EncodeError):
            socket.emit_nowait("x", value)
        with pytest.raises(EncodeError):
            await socket.emit_with_ack("x", value)
        with pytest.raises(EncodeError):
            await server.io.emit("x", value)
        with pytest.raises(EncodeError):
            await server.io.emit_with_ack("x", value)
        with pytest.raises(EncodeError):
            await socket.volatile.emit("x", value)
        await socket.emit("fine")

        assert await client.receive_all() == [("fine",)]
        assert socket.statistics().pending_acks == 0


@pytest.mark.parametrize("name", sorted(RESERVED_EVENTS))
async def test_reserved_names_are_refused_by_everything_that_emits(name: str) -> None:
    async with open_server() as server:
        client, socket = await server.connect()

        for emit in (
            socket.emit,
            socket.emit_with_ack,
            socket.volatile.emit,
            socket.broadcast.emit,
            server.io.emit,
            server.io.emit_with_ack,
            server.io.to("room").emit,
        ):
            with pytest.raises(ReservedEventError, match=f'"{name}" is a reserved event name'):
                await emit(name)
        with pytest.raises(ReservedEventError):
            socket.emit_nowait(name)

        assert await client.receive_all() == []


@pytest.mark.parametrize("name", [None, True, b"x", ["x"], 1.5])
async def test_a_name_is_a_string_or_a_number(name: Any) -> None:
    async with open_server() as server:
        _, socket = await server.connect()

        with pytest.raises(TypeError, match="an event's name is a str or an int"):
            await socket.emit(name)
        with pytest.raises(TypeError, match="an event's name is a str or an int"):
            await server.io.emit(name)


async def test_a_number_is_sent_as_a_number() -> None:
    async with open_server() as server:
        client, socket = await server.connect()

        await socket.emit(7, "x")

        await client.receive()
        assert client.wire[-1].data == '42[7,"x"]'


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_emits_arrive_in_their_order_over_all_namespaces(transport: str) -> None:
    async with open_server() as server:
        namespaces = (server.io.sockets, server.io.of("/a"))
        client, main = await server.connect(transport=transport)
        sockets = (main, server.socket_of(await client.of("/a")))

        for number in range(50):
            await sockets[number % 2].emit("x", number)
            await namespaces[number % 2].emit("y", number)
        await settle()

        assert [packet.data for packet in client.wire if packet.sender == "server"][-100:] == [
            f'42{"/a," if number % 2 else ""}["{event}",{number}]' for number in range(50) for event in "xy"
        ]


@pytest.mark.parametrize("compress", [True, False])
async def test_whether_a_packet_may_be_compressed_travels_with_it(
    compress: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_server() as server:
        _, socket = await server.connect()
        written: list[EncodedPacket] = []

        def write(session: Session, packet: EncodedPacket) -> bool:
            written.append(packet)
            return True

        for name in ("write", "write_at_once"):
            monkeypatch.setattr(type(socket.conn), name, write)

        await socket.compress(compress).emit("x")
        socket.compress(compress).emit_nowait("x")
        await server.io.compress(compress).emit("x")
        await socket.broadcast.compress(compress).local.to(socket.id).emit("nobody")
        await socket.emit("x")
        await server.io.emit("x")

        assert [packet.compress for packet in written] == [compress] * 3 + [True] * 2
        monkeypatch.undo()


# Waiting


async def test_emit_is_a_checkpoint_and_a_cancelled_one_sends_nothing() -> None:
    async with open_server() as server:
        client, socket = await server.connect()

        for emit in (socket.emit, socket.volatile.emit, socket.compress(False).emit, server.io.emit):
            with trio.testing.assert_checkpoints():
                await emit("sent")
            with trio.CancelScope() as scope:
                scope.cancel()
                await emit("not sent")
            assert scope.cancelled_caught
            assert await client.receive_all() == [("sent",)]


async def test_emit_waits_above_the_high_water_mark_and_goes_on_when_there_is_room() -> None:
    async with open_server(max_outbox_bytes=1000) as server, trio.open_nursery() as nursery:
        client, socket = await server.connect(transport="polling")
        await stop_polling(client, socket)
        sent: list[int] = []

        async def emit() -> None:
            for number in range(30):
                await socket.emit("x", number, "." * 90)
                sent.append(number)

        nursery.start_soon(emit)
        await settle()
        assert 4 <= len(sent) <= 7
        assert 500 <= socket.conn.buffered_bytes <= 1000

        found = await resume_polling(client)

        assert len(sent) == 30
        assert found == [("x", number, "." * 90) for number in range(30)]


async def test_emit_nowait_raises_when_there_is_no_room_and_queues_nothing() -> None:
    async with open_server(max_outbox_packets=5) as server:
        client, socket = await server.connect(transport="polling")
        await stop_polling(client, socket)
        for number in range(5):
            socket.emit_nowait("x", number)

        with pytest.raises(trio.WouldBlock):
            socket.emit_nowait("x", 5)
        with pytest.raises(trio.WouldBlock):
            socket.compress(False).emit_nowait("x", 5)

        assert await resume_polling(client) == [("x", number) for number in range(5)]
        assert socket.connected


@pytest.mark.parametrize("end", ["DISCONNECT", "disconnect()"])
async def test_an_emit_that_waits_for_room_sends_nothing_if_its_socket_has_ended_meanwhile(end: str) -> None:
    async with open_server(max_outbox_bytes=1000) as server, trio.open_nursery() as nursery:
        server.io.of("/other")
        client, socket = await server.connect(transport="polling")
        await client.of("/other")
        await stop_polling(client, socket)
        raised: list[str] = []
        sent: list[int] = []

        async def emit() -> None:
            try:
                while True:
                    await socket.emit("x", "." * 200)
                    sent.append(1)
            except SocketDisconnected as error:
                raised.append(error.reason)

        nursery.start_soon(emit)
        await settle()
        if end == "DISCONNECT":
            await client.disconnect()
        else:
            await socket.disconnect()
        client.resume_reading()
        await settle()

        assert len([packet for packet in client.wire if str(packet.data).startswith('42["x"')]) == len(sent)
        assert raised == ["client namespace disconnect" if end == "DISCONNECT" else "server namespace disconnect"]


@pytest.mark.parametrize("end", ["close", "session.close", "io.close"])
async def test_an_emit_that_waits_for_room_ends_at_once_with_its_session(end: str) -> None:
    async with open_server(max_outbox_bytes=1000) as server, trio.open_nursery() as nursery:
        client, socket = await server.connect(transport="polling")
        await stop_polling(client, socket)
        raised: list[str] = []

        async def emit() -> None:
            try:
                while True:
                    await socket.emit("x", "." * 200)
            except SocketDisconnected as error:
                raised.append(error.reason)

        nursery.start_soon(emit)
        await settle()
        if end == "close":
            await client.close()
        elif end == "session.close":
            socket.conn.close(discard=True)
        else:
            await server.io.close()
        await settle()
        nursery.cancel_scope.cancel()

        reasons = {"close": "transport close", "session.close": "forced close", "io.close": "server shutting down"}
        assert raised == [reasons[end]]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_broadcast_that_does_not_fit_ends_that_session_alone(transport: str) -> None:
    async with serving(max_outbox_packets=3) as served:
        witness = await served.connect()
        client = await served.net.connect_socketio(transport=transport, unread=True)
        socket = served.socket_of(client)
        ends: list[tuple[str, str]] = []
        socket.on("disconnect", lambda reason, description: ends.append((reason, description)))

        for number in range(10):
            await served.io.emit("x", number)
            await settle()

        assert [reason for reason, _ in ends] == ["transport error"]
        assert "max_outbox_packets=3" in ends[0][1]
        assert await received(witness.client) == [f'2["x",{number}]' for number in range(10)]


@pytest.mark.parametrize("event", ["CONNECT", "DISCONNECT"])
async def test_a_packet_of_our_own_that_does_not_fit_ends_the_session_cleanly(
    event: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_server(max_outbox_packets=3) as server:
        other = server.io.of("/other")
        connected: list[str] = []
        ends: list[str] = []
        other.on("connection", lambda socket: connected.append(socket.id))
        client, socket = await server.connect(transport="polling")
        await stop_polling(client, socket)
        socket.on("disconnect", ends.append)
        for number in range(3):
            await server.io.emit("x", number)

        if event == "CONNECT":
            await client.send_raw("40/other")
        else:
            await socket.disconnect()
        await settle()

        assert connected == []
        assert ends == ["transport error" if event == "CONNECT" else "server namespace disconnect"]
        assert server.io.statistics().connections == 0
        assert not [record for record in caplog.records if record.levelname == "ERROR"]


# After the end


async def test_every_operation_on_an_ended_socket_raises_the_same_error_or_does_nothing() -> None:
    async def sleep() -> None:
        await trio.sleep_forever()

    async with open_server() as server:
        client, socket = await server.connect()
        socket.data["name"] = "ann"
        await client.disconnect()
        await socket.ended.wait()

        for emit in (socket.emit, socket.emit_with_ack, socket.compress(True).emit, socket.timeout(1).emit_with_ack):
            with pytest.raises(SocketDisconnected) as caught:
                await emit("x")
            assert caught.value.reason == "client namespace disconnect"
        for emit_nowait in (socket.emit_nowait, socket.compress(True).emit_nowait):
            with pytest.raises(SocketDisconnected):
                emit_nowait("x")
        with pytest.raises(SocketDisconnected):
            await socket.join("room")
        with pytest.raises(SocketDisconnected):
            socket.start_soon(sleep)
        with trio.fail_after(1), pytest.raises(SocketDisconnected):
            await socket.volatile.emit_with_ack("x")

        await socket.volatile.emit("x")
        socket.volatile.emit_nowait("x")
        await socket.leave("room")
        await socket.disconnect()
        await socket.disconnect(close=False)
        await socket.broadcast.emit("x")
        assert (socket.connected, socket.rooms, socket.data) == (False, frozenset(), {"name": "ann"})
        assert await client.receive_all() == []


async def test_emitting_into_a_session_that_is_closing_raises_although_the_socket_has_not_ended() -> None:
    async with open_server() as server:
        client, socket = await server.connect(transport="polling")
        await stop_polling(client, socket)
        await socket.emit("last")
        socket.conn.close()

        for emit in (socket.emit, socket.emit_with_ack):
            with pytest.raises(SocketDisconnected, match="forced close"):
                await emit("x")
        with pytest.raises(SocketDisconnected, match="forced close"):
            socket.emit_nowait("x")

        assert await resume_polling(client) == [("last",)]
        assert await client.wait_disconnected() == "transport close"


async def test_the_error_is_a_broken_resource() -> None:
    async with open_server() as server:
        _, socket = await server.connect()
        await socket.disconnect()

        with pytest.raises(trio.BrokenResourceError, match="server namespace disconnect"):
            await socket.emit("x")


# Volatile


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_lone_volatile_packet_is_sent(transport: str) -> None:
    async with open_server() as server:
        client, socket = await server.connect(transport=transport)
        await settle()

        await socket.volatile.emit("x")

        assert await client.receive_all() == [("x",)]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("steps", "count"),
    [
        ("v", 1),
        ("ev", 1),
        ("vv", 1),
        ("eve", 2),
        ("vev", 2),
    ],
)
@pytest.mark.parametrize("way", ["socket", "io", "room"])
@pytest.mark.parametrize("value", ["text", b"bytes"])
async def test_of_volatile_packets_in_one_tick_only_those_that_leave_at_once_arrive(
    transport: str, steps: str, count: int, way: str, value: Any
) -> None:
    async with open_server() as server:
        client, socket = await server.connect(transport=transport)
        target: Any = {"socket": socket, "io": server.io, "room": server.io.to(socket.id)}[way]

        def deliver(volatile: bool) -> None:
            packet = server.io.sockets.event_packet("x", [value])
            encoded = server.io.sockets.encode(packet)
            if way == "socket":
                (socket.volatile if volatile else socket.compress(True)).emit_nowait("x", value)
            else:
                ids = server.io.adapter.sockets(target._operator().options)
                server.io.sockets.deliver(ids, packet, encoded, volatile)

        await settle()
        for step in steps:  # in one tick, which an `await` between two emits would end
            deliver(step == "v")

        assert await client.receive_all() == [("x", value)] * count


async def test_a_volatile_packet_is_dropped_without_a_pending_poll() -> None:
    async with open_server() as server:
        client, socket = await server.connect(transport="polling")
        await stop_polling(client, socket)

        await socket.volatile.emit("dropped")
        await server.io.volatile.emit("dropped")
        await socket.emit("kept")

        assert await resume_polling(client) == [("kept",)]


async def test_a_volatile_packet_is_dropped_while_a_write_is_under_way() -> None:
    async with serving() as served:
        client = await served.net.connect_socketio(unread=True)
        socket = served.socket_of(client)

        await socket.emit("under way")
        await settle()
        await socket.volatile.emit("dropped")
        await served.io.volatile.emit("dropped", b"with bytes")

        assert await received(client) == ['2["under way"]']


async def test_the_question_in_a_dropped_volatile_packet_is_not_answered_before_its_timeout() -> None:
    async with open_server() as server:
        client, socket = await server.connect(transport="polling")
        await stop_polling(client, socket)

        with trio.move_on_after(5) as scope:
            await socket.volatile.emit_with_ack("x")

        assert scope.cancelled_caught
        assert socket.statistics().pending_acks == 0
