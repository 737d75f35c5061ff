"""What is broadcast within one tick is queued once for all; who gets what, and in which order, must not show it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from trio_socketio import Server
from trio_socketio._adapters.contract import BroadcastOptions
from trio_socketio._server.audiences import FEW, MAX_REMEMBERED
from trio_socketio.abc import MemoryAdapter

from .conftest import run_on_virtual_clock
from .support import open_server

if TYPE_CHECKING:
    from trio_socketio import Socket
    from trio_socketio.testing import MemoryClient

    from .support import Connected

CLIENTS = FEW + 3
ROOMS = ("a", "b")
EVENT = re.compile(r'4[25](?:1-)?\["event",(\d+)')

clients = st.integers(0, CLIENTS - 1)
rooms = st.sampled_from(ROOMS)
some_rooms = st.sampled_from([frozenset[str](), frozenset("a"), frozenset("ab")])
few_rooms = st.sampled_from([frozenset[str]()] * 3 + [frozenset("b")])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("broadcast"), some_rooms, few_rooms, st.just(False)),
        st.tuples(st.just("broadcast"), some_rooms, few_rooms, st.booleans()),
        st.tuples(st.just("except one"), some_rooms, clients),
        st.tuples(st.just("emit"), clients),
        st.tuples(st.just("join"), clients, rooms),
        st.tuples(st.just("leave"), clients, rooms),
        st.tuples(st.just("end"), clients),
        st.tuples(st.just("cut"), clients),
        st.tuples(st.just("tick")),
    ),
    min_size=4,
    max_size=25,
)


def broadcast(io: Server, options: BroadcastOptions, *args: Any) -> None:
    """The local part of a broadcast: what `Adapter.broadcast` does before it waits."""
    packet = io.sockets.event_packet("event", args)
    assert isinstance(io.sockets.adapter, MemoryAdapter)
    io.sockets.adapter.deliver(packet, io.sockets.encode(packet), options)


def events_on_wire(client: MemoryClient) -> list[Any]:
    """The numbers of all events that a client was sent, whether it still wanted them or not."""
    received = [str(packet.data) for packet in client.wire if packet.sender == "server"]
    return [int(match[1]) for text in received if (match := EVENT.match(text))]


class Model:
    """What each client is to get."""

    def __init__(self, io: Server, pairs: list[Connected]) -> None:
        self.io = io
        self.pairs = pairs
        self.expected: list[list[Any]] = [[] for _ in pairs]
        self.members = {room: set(range(CLIENTS)) for room in ROOMS}
        self.alive = set(range(CLIENTS))
        self.sent: dict[int, int] = {}  # so many events in this tick
        self.count = 0

    def send(self, recipients: set[int]) -> None:
        for number in recipients & self.alive:
            self.expected[number].append(self.count)
            self.sent[number] = self.sent.get(number, 0) + 1

    def in_rooms(self, rooms: frozenset[str]) -> set[int]:
        return set[int]().union(*(self.members[room] for room in rooms))

    def broadcast(self, rooms: frozenset[str], left_out: frozenset[str], volatile: bool) -> None:
        broadcast(self.io, BroadcastOptions(rooms, left_out, volatile=volatile), self.count, b"bytes")
        chosen = self.in_rooms(rooms) if rooms else set(range(CLIENTS))
        self.send(chosen - self.in_rooms(left_out) - (self.sent.keys() if volatile else set()))

    def except_one(self, rooms: frozenset[str], number: int) -> None:
        broadcast(self.io, BroadcastOptions(rooms, frozenset((self.pairs[number].socket.id,))), self.count)
        chosen = self.in_rooms(rooms) if rooms else set(range(CLIENTS))
        # One that has ended has left its own room, and gets nothing anyway.
        self.send(chosen - {number})

    def emit(self, number: int) -> None:
        if number in self.alive:
            self.pairs[number].socket.emit_nowait("event", self.count)
            self.send({number})

    def join(self, number: int, room: str) -> None:
        if number in self.alive:
            self._own(number, "add_sockets_now", room)
            self.members[room].add(number)

    def leave(self, number: int, room: str) -> None:
        if number in self.alive:
            self._own(number, "delete_sockets_now", room)
            self.members[room].discard(number)

    def _own(self, number: int, method: str, room: str) -> None:
        own = BroadcastOptions(frozenset((self.pairs[number].socket.id,)))
        getattr(self.io.sockets.adapter, method)(own, [room])

    def end(self, number: int) -> None:
        self.pairs[number].socket.begin_disconnect()
        self.alive.discard(number)

    def cut(self, number: int) -> None:
        """What has not been written yet is lost."""
        if number in self.alive:
            self.pairs[number].socket.conn.close(discard=True)
            self.alive.discard(number)
            del self.expected[number][len(self.expected[number]) - self.sent.get(number, 0) :]

    async def tick(self) -> None:
        await wait_all_tasks_blocked()
        self.sent.clear()


@given(steps, st.integers(0, CLIENTS))
@settings(max_examples=200)
def test_everybody_gets_what_is_theirs_in_order(steps: list[Any], on_polling: int) -> None:
    async def run() -> None:
        async with open_server() as served:
            pairs = [
                await served.connect(transport="polling" if number < on_polling else "websocket")
                for number in range(CLIENTS)
            ]
            for pair in pairs:
                await pair.socket.join(ROOMS)
            model = Model(served.io, pairs)
            await model.tick()
            for name, *args in steps:
                model.count += 1
                if name == "tick":
                    await model.tick()
                else:
                    getattr(model, name.replace(" ", "_"))(*args)
            await model.tick()
            assert [events_on_wire(pair.client) for pair in pairs] == model.expected

    run_on_virtual_clock(run)


async def connect_crowd(io: Server, served: Any) -> list[Connected]:
    pairs: list[Connected] = await served.connect_many(CLIENTS)
    await wait_all_tasks_blocked()
    return pairs


async def test_a_batch_is_queued_for_each_session_until_the_end_of_the_tick() -> None:
    async with open_server() as served:
        pairs = await connect_crowd(served.io, served)
        everybody = BroadcastOptions()

        broadcast(served.io, everybody, "x")
        broadcast(served.io, everybody, "y")

        queued = [pair.socket.conn.buffered_bytes for pair in pairs]
        await wait_all_tasks_blocked()

        assert queued == [len(b'42["event","x"]42["event","y"]')] * CLIENTS
        assert [pair.socket.conn.buffered_bytes for pair in pairs] == [0] * CLIENTS


async def test_a_batch_that_exceeds_the_bound_of_the_outboxes_closes_the_sessions() -> None:
    async with open_server(max_outbox_packets=3) as served:
        pairs = await connect_crowd(served.io, served)
        reasons: list[tuple[str, str | None]] = []

        @served.io.handle("disconnect")
        def on_disconnect(socket: Socket, reason: str, description: str | None) -> None:
            reasons.append((reason, description))

        for number in range(4):
            broadcast(served.io, BroadcastOptions(), number)
        await wait_all_tasks_blocked()

        assert len(reasons) == CLIENTS
        assert {reason for reason, _ in reasons} == {"transport error"}
        assert all("max_outbox_packets=3" in (description or "") for _, description in reasons)
        assert not any(pair.socket.connected for pair in pairs)


async def test_a_client_that_does_not_keep_up_does_not_hold_up_the_others() -> None:
    async with open_server(max_outbox_packets=5) as served:
        pairs = await connect_crowd(served.io, served)
        pairs[0].client.stop_reading()
        for number in range(3):
            broadcast(served.io, BroadcastOptions(), number, "x" * 100_000)
            await wait_all_tasks_blocked()

        for number in range(3, 12):
            broadcast(served.io, BroadcastOptions(), number)
            await wait_all_tasks_blocked()

        for pair in pairs[1:]:
            assert [event.args[0] for event in pair.client.receive_all_nowait()] == list(range(12))
        assert not pairs[0].socket.connected


async def test_a_session_that_closes_gracefully_delivers_what_was_broadcast_before() -> None:
    async with open_server() as served:
        pairs = await connect_crowd(served.io, served)

        broadcast(served.io, BroadcastOptions(), "last")
        pairs[0].socket.conn.close()
        await wait_all_tasks_blocked()

        assert [event.args for event in pairs[0].client.receive_all_nowait()] == [("last",)]
        assert not pairs[0].client.connected


async def test_as_many_audiences_as_there_are_rooms_do_not_pile_up() -> None:
    async with open_server() as served:
        pairs = await connect_crowd(served.io, served)
        names = [f"room {number}" for number in range(3 * MAX_REMEMBERED)]
        for pair in pairs:
            await pair.socket.join(names)

        for name in names:
            broadcast(served.io, BroadcastOptions(frozenset((name,))), name)
        await wait_all_tasks_blocked()

        for pair in pairs:
            assert [event.args[0] for event in pair.client.receive_all_nowait()] == names


@pytest.mark.parametrize("volatile", [False, True])
async def test_an_ended_socket_gets_nothing_although_its_session_goes_on(volatile: bool) -> None:
    io = Server()
    io.of("/other")
    async with open_server(io) as served:
        pairs = await connect_crowd(io, served)
        other = await pairs[0].client.of("/other")
        broadcast(io, BroadcastOptions(volatile=volatile), "before")
        await wait_all_tasks_blocked()

        pairs[0].socket.begin_disconnect()
        broadcast(io, BroadcastOptions(volatile=volatile), "after")
        await wait_all_tasks_blocked()

        assert [event.args for event in pairs[0].client.receive_all_nowait()] == [("before",)]
        assert [event.args for event in pairs[1].client.receive_all_nowait()] == [("before",), ("after",)]
        assert other.connected
