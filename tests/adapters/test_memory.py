"""The in-memory adapter, on its own: a directory that only notes what it is asked."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trio_socketio._adapters.answers import AckStream
from trio_socketio._wire.encoded import EncodedPacket
from trio_socketio._wire.packets import Packet, PacketType
from trio_socketio.abc import BroadcastOptions, MemoryAdapter, SocketDetails

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from trio_socketio._adapters.contract import AckCollector

IDS = ("a", "b", "c", "d")
ROOMS = ("r", "s", "t", "a")
PACKET = Packet(PacketType.EVENT, "/", ["hi"])
ENCODED = EncodedPacket(b'42["hi"]')


class Directory:
    """The sockets that there are, and what was asked about them."""

    name = "/"

    def __init__(self, connected: Iterable[str] = IDS) -> None:
        self.ids = set(connected)
        self.delivered: list[tuple[list[str], EncodedPacket, bool]] = []
        self.asked: list[list[str]] = []
        self.disconnected: list[tuple[list[str], bool]] = []

    @property
    def connected(self) -> AbstractSet[str]:
        return self.ids

    def encode(self, packet: Packet, compress: bool = True) -> EncodedPacket:
        return ENCODED

    def deliver(
        self,
        ids: Sequence[str],
        packet: Packet,
        encoded: EncodedPacket,
        volatile: bool,
        left_out: AbstractSet[str] = frozenset(),
    ) -> None:
        self.delivered.append(([id for id in ids if id in self.ids and id not in left_out], encoded, volatile))

    def deliver_with_ack(
        self, ids: Sequence[str], packet: Packet, options: BroadcastOptions, acks: AckCollector
    ) -> None:
        self.asked.append(list(ids))

    def details(self, id: str) -> SocketDetails:
        return SocketDetails(id)

    def begin_disconnect(self, ids: Sequence[str], close: bool) -> None:
        raise AssertionError("there are no other servers")

    async def disconnect(self, ids: Sequence[str], close: bool) -> None:
        self.disconnected.append((list(ids), close))
        await trio.lowlevel.checkpoint()

    def on_server_side_emit(self, args: Sequence[Any], answer: Callable[[Any], None] | None) -> None:
        raise AssertionError("there are no other servers")


def listen(adapter: MemoryAdapter) -> list[tuple[str, ...]]:
    events: list[tuple[str, ...]] = []
    adapter.on("create-room", lambda room: events.append(("create-room", room)))
    adapter.on("join-room", lambda room, id: events.append(("join-room", room, id)))
    adapter.on("leave-room", lambda room, id: events.append(("leave-room", room, id)))
    adapter.on("delete-room", lambda room: events.append(("delete-room", room)))
    return events


def options(rooms: Iterable[str] = (), except_rooms: Iterable[str] = (), **flags: Any) -> BroadcastOptions:
    return BroadcastOptions(frozenset(rooms), frozenset(except_rooms), **flags)


def check_indexes(adapter: MemoryAdapter) -> None:
    assert {(id, room) for room, members in adapter.rooms.items() for id in members} == {
        (id, room) for id, rooms in adapter.sids.items() for room in rooms
    }
    assert all(adapter.rooms.values()), "a room is empty"


def check_replay(events: Sequence[tuple[str, ...]], adapter: MemoryAdapter) -> None:
    """Rebuild the rooms from the events alone; every one of them has to change something."""
    rooms: dict[str, set[str]] = {}
    for event, room, *who in events:
        if event == "create-room":
            assert room not in rooms, "created twice"
            rooms[room] = set()
        elif event == "join-room":
            assert who[0] not in rooms[room], "joined twice"
            rooms[room].add(who[0])
        elif event == "leave-room":
            rooms[room].remove(who[0])
        else:
            assert rooms.pop(room) == set(), "deleted with somebody in it"
    assert rooms == adapter.rooms


# Rooms


async def test_a_listener_may_ask_who_is_meant_in_the_middle_of_a_change() -> None:
    adapter = MemoryAdapter(Directory())
    await adapter.add_all("a", ["r"])
    seen: list[tuple[list[str], list[str]]] = []

    def look(*_: str) -> None:
        seen.append((adapter.sockets(options(["r"])), adapter.sockets(options(["s"]))))

    for event in ("join-room", "leave-room"):
        adapter.on(event, look)
    await adapter.add_all("b", ["r", "s"])
    assert [(len(r), len(s)) for r, s in seen] == [(2, 0), (2, 1)]
    assert (sorted(adapter.sockets(options(["r"]))), adapter.sockets(options(["s"]))) == (["a", "b"], ["b"])
    await adapter.delete_all("b")
    assert (adapter.sockets(options(["r"])), adapter.sockets(options(["s"]))) == (["a"], [])
    assert adapter.sockets(options()) == ["a"]


async def test_a_join_into_a_new_room_creates_it_first() -> None:
    adapter = MemoryAdapter(Directory())
    events = listen(adapter)

    await adapter.add_all("a", ["r", "s"])
    await adapter.add_all("b", ["r"])

    assert events == [
        ("create-room", "r"),
        ("join-room", "r", "a"),
        ("create-room", "s"),
        ("join-room", "s", "a"),
        ("join-room", "r", "b"),
    ]
    assert adapter.rooms == {"r": {"a", "b"}, "s": {"a"}}
    assert adapter.sids == {"a": {"r", "s"}, "b": {"r"}}


async def test_joining_a_room_again_changes_nothing() -> None:
    adapter = MemoryAdapter(Directory())
    await adapter.add_all("a", ["r"])
    events = listen(adapter)

    await adapter.add_all("a", ["r", "r"])

    assert events == []


async def test_the_last_one_to_leave_a_room_deletes_it() -> None:
    adapter = MemoryAdapter(Directory())
    await adapter.add_all("a", ["r"])
    await adapter.add_all("b", ["r"])
    events = listen(adapter)

    await adapter.delete("a", "r")
    await adapter.delete("b", "r")

    assert events == [("leave-room", "r", "a"), ("leave-room", "r", "b"), ("delete-room", "r")]
    assert adapter.rooms == {}


async def test_leaving_the_last_room_keeps_the_socket_known_and_leaving_all_forgets_it() -> None:
    adapter = MemoryAdapter(Directory())
    await adapter.add_all("a", ["r"])

    await adapter.delete("a", "r")
    assert adapter.sids == {"a": set()}

    await adapter.delete_all("a")
    assert adapter.sids == {}


@pytest.mark.parametrize(("id", "room"), [("a", "s"), ("z", "r"), ("z", "z")])
async def test_leaving_a_room_one_is_not_in_changes_nothing(id: str, room: str) -> None:
    adapter = MemoryAdapter(Directory())
    await adapter.add_all("a", ["r"])
    events = listen(adapter)

    await adapter.delete(id, room)

    assert events == []
    assert adapter.sids == {"a": {"r"}}


async def test_leaving_twice_and_forgetting_twice_is_harmless() -> None:
    adapter = MemoryAdapter(Directory())
    await adapter.add_all("a", ["r", "s"])
    events = listen(adapter)

    for _ in range(2):
        await adapter.delete("a", "r")
    for _ in range(2):
        await adapter.delete_all("a")

    assert events == [("leave-room", "r", "a"), ("delete-room", "r"), ("leave-room", "s", "a"), ("delete-room", "s")]


async def test_the_rooms_of_one_who_leaves_all_are_complete_until_the_last_event() -> None:
    adapter = MemoryAdapter(Directory())
    await adapter.add_all("a", ["r", "s", "t"])
    seen: list[set[str]] = []
    adapter.on("leave-room", lambda room, id: seen.append(set(adapter.sids[id])))

    await adapter.delete_all("a")

    assert seen == [{"r", "s", "t"}] * 3
    assert adapter.sids == {}


async def test_a_listener_may_leave_again_what_is_being_left() -> None:
    adapter = MemoryAdapter(Directory())
    await adapter.add_all("a", ["r", "s"])
    adapter.on("leave-room", lambda room, id: adapter._leave(id, room))
    events = listen(adapter)

    await adapter.delete("a", "r")

    assert events == [("leave-room", "r", "a"), ("delete-room", "r")]
    check_indexes(adapter)


async def test_a_listener_that_puts_someone_into_the_room_being_emptied_keeps_it_alive() -> None:
    adapter = MemoryAdapter(Directory())
    await adapter.add_all("a", ["r"])
    events = listen(adapter)
    adapter.on("leave-room", lambda room, id: adapter._join("b", [room]))

    await adapter.delete("a", "r")

    assert events == [("leave-room", "r", "a"), ("join-room", "r", "b")]
    assert adapter.rooms == {"r": {"b"}}


async def test_a_room_made_anew_while_the_old_one_is_deleted_stays() -> None:
    adapter = MemoryAdapter(Directory())
    await adapter.add_all("a", ["r"])
    events = listen(adapter)
    again = [True]

    def bounce(room: str, id: str) -> None:
        if again.pop():
            again.append(False)
            adapter._join("b", [room])
            adapter._leave("b", room)
            adapter._join("c", [room])
        else:
            again.append(False)

    adapter.on("leave-room", bounce)

    await adapter.delete("a", "r")

    assert adapter.rooms == {"r": {"c"}}
    check_replay([("create-room", "r"), ("join-room", "r", "a"), *events], adapter)


async def test_one_who_is_put_into_another_room_while_leaving_all_leaves_that_too() -> None:
    adapter = MemoryAdapter(Directory())
    await adapter.add_all("a", ["r"])
    adapter.on("leave-room", lambda room, id: adapter._join(id, ["s"]))

    await adapter.delete_all("a")

    assert (adapter.rooms, adapter.sids) == ({}, {})


async def test_a_listener_that_raises_disturbs_neither_the_change_nor_the_other_events(
    caplog: pytest.LogCaptureFixture,
) -> None:
    adapter = MemoryAdapter(Directory())

    def broken(room: str, id: str) -> None:
        raise RuntimeError("broken listener")

    adapter.on("join-room", broken)
    events = listen(adapter)

    await adapter.add_all("a", ["r", "s"])

    assert adapter.rooms == {"r": {"a"}, "s": {"a"}}
    assert [event[:2] for event in events if event[0] == "create-room"] == [("create-room", "r"), ("create-room", "s")]
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2


@pytest.mark.parametrize("event", ["create", "join-rooms", ""])
async def test_there_are_only_four_events(event: str) -> None:
    with pytest.raises(ValueError, match="no such event"):
        MemoryAdapter(Directory()).on(event, lambda: None)


async def test_an_async_listener_is_refused() -> None:
    async def joined(room: str, id: str) -> None:
        pass

    with pytest.raises(TypeError, match="plain function"):
        MemoryAdapter(Directory()).on("join-room", joined)


class Rooms(RuleBasedStateMachine):
    """Any history of joins and leaves, with listeners that join in: against a set of pairs, and against its events."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Directory()
        self.adapter = MemoryAdapter(self.directory)
        self.events = listen(self.adapter)
        self.model: set[tuple[str, str]] = set()
        self.interventions: list[Callable[[], object]] = []
        for event in ("join-room", "leave-room"):
            self.adapter.on(event, lambda: self.interventions and self.interventions.pop()())
        self.adapter.on("delete-room", lambda: self.interventions and self.interventions.pop()())

    def do(self, fn: Callable[..., Awaitable[None]], *args: Any) -> None:
        trio.run(fn, *args)
        self.interventions.clear()

    @rule(id=st.sampled_from(IDS), rooms=st.lists(st.sampled_from(ROOMS), max_size=3))
    def join(self, id: str, rooms: list[str]) -> None:
        self.do(self.adapter.add_all, id, rooms)
        self.model |= {(id, room) for room in rooms}

    @rule(id=st.sampled_from(IDS), room=st.sampled_from(ROOMS))
    def leave(self, id: str, room: str) -> None:
        self.do(self.adapter.delete, id, room)
        self.model.discard((id, room))

    @rule(id=st.sampled_from(IDS))
    def leave_all(self, id: str) -> None:
        self.do(self.adapter.delete_all, id)
        self.model = {pair for pair in self.model if pair[0] != id}
        assert id not in self.adapter.sids

    @rule(id=st.sampled_from(IDS))
    def connect_or_disconnect(self, id: str) -> None:
        self.directory.ids ^= {id}

    @rule(
        chosen=st.sets(st.sampled_from(ROOMS), max_size=2),
        left_out=st.sets(st.sampled_from(ROOMS), max_size=2),
        rooms=st.lists(st.sampled_from(ROOMS), max_size=2),
        joining=st.booleans(),
    )
    def join_or_leave_many(self, chosen: set[str], left_out: set[str], rooms: list[str], joining: bool) -> None:
        meant = self.adapter.sockets(options(chosen, left_out))
        pairs = {(id, room) for id in meant for room in rooms}
        if joining:
            self.do(self.adapter.add_sockets, options(chosen, left_out), rooms)
            self.model |= pairs
        else:
            self.do(self.adapter.delete_sockets, options(chosen, left_out), rooms)
            self.model -= pairs

    @invariant()
    def both_indexes_agree_with_the_model_and_no_room_is_empty(self) -> None:
        check_indexes(self.adapter)
        assert {(id, room) for room, members in self.adapter.rooms.items() for id in members} == self.model

    @invariant()
    def the_events_rebuild_the_rooms(self) -> None:
        check_replay(self.events, self.adapter)

    @invariant()
    def those_without_any_filter_are_all_who_are_connected_and_known(self) -> None:
        everybody = self.adapter.sockets(options())
        assert sorted(everybody) == sorted(self.directory.ids & self.adapter.sids.keys())


class RoomsWithMeddlers(Rooms):
    """The same, while listeners change the rooms in the middle of a change: only the invariants can be foretold."""

    meddling = st.lists(st.tuples(st.booleans(), st.sampled_from(IDS), st.sampled_from(ROOMS)), min_size=1, max_size=4)

    @precondition(lambda self: not self.interventions)
    @rule(changes=meddling)
    def meddle_next_time(self, changes: list[tuple[bool, str, str]]) -> None:
        def change(joining: bool, id: str, room: str) -> None:
            if joining:
                self.adapter._join(id, [room])
            else:
                self.adapter._leave(id, room)

        self.interventions = [lambda c=c: change(*c) for c in changes]  # type: ignore[misc]

    @invariant()
    def both_indexes_agree_with_the_model_and_no_room_is_empty(self) -> None:
        check_indexes(self.adapter)
        self.model = {(id, room) for room, members in self.adapter.rooms.items() for id in members}


TestRooms = Rooms.TestCase
TestRooms.settings = settings(max_examples=40, stateful_step_count=20)
TestRoomsWithMeddlers = RoomsWithMeddlers.TestCase
TestRoomsWithMeddlers.settings = settings(max_examples=60, stateful_step_count=20)


# Who is meant

memberships = st.dictionaries(st.sampled_from(IDS), st.sets(st.sampled_from(ROOMS)))
some_rooms = st.sets(st.sampled_from((*ROOMS, "nobody's")))


@given(memberships, some_rooms, some_rooms, st.sets(st.sampled_from(IDS)))
def test_who_is_meant_is_the_formula_and_each_once(
    members: dict[str, set[str]], rooms: set[str], except_rooms: set[str], connected: set[str]
) -> None:
    adapter = MemoryAdapter(Directory(connected))
    for id, own in members.items():
        adapter._join(id, own)

    found = adapter.sockets(options(rooms, except_rooms))

    expected = {
        id for id, own in members.items() if id in connected and (not rooms or own & rooms) and not own & except_rooms
    }
    assert sorted(found) == sorted(expected)


async def test_a_broadcast_is_handed_over_once_for_everybody() -> None:
    directory = Directory()
    adapter = MemoryAdapter(directory)
    for id in IDS:
        await adapter.add_all(id, [id, "r"])

    await adapter.broadcast(PACKET, ENCODED, options(["r", "b"], ["c"], volatile=True))

    [(ids, encoded, volatile)] = directory.delivered
    assert sorted(ids) == ["a", "b", "d"]
    assert encoded is ENCODED
    assert volatile


async def test_a_question_is_handed_over_once_even_for_nobody() -> None:
    directory = Directory()
    adapter = MemoryAdapter(directory)
    await adapter.add_all("a", ["r"])

    await adapter.broadcast_with_ack(PACKET, options(["r"]), AckStream(1))
    await adapter.broadcast_with_ack(PACKET, options(["s"]), AckStream(1))

    assert directory.asked == [["a"], []]


async def test_disconnecting_and_fetching_mean_the_same_sockets_as_a_broadcast() -> None:
    directory = Directory()
    adapter = MemoryAdapter(directory)
    await adapter.add_all("a", ["r", "s"])
    await adapter.add_all("b", ["r"])

    await adapter.disconnect_sockets(options(["r"], ["s"]), True)
    fetched = await adapter.fetch_sockets(options(["s"]))

    assert directory.disconnected == [(["b"], True)]
    assert [details.id for details in fetched] == ["a"]


OPERATIONS: dict[str, Callable[[MemoryAdapter], Awaitable[object]]] = {
    "add_all": lambda adapter: adapter.add_all("a", ["new"]),
    "delete": lambda adapter: adapter.delete("a", "r"),
    "broadcast": lambda adapter: adapter.broadcast(PACKET, ENCODED, options()),
    "broadcast_with_ack": lambda adapter: adapter.broadcast_with_ack(PACKET, options(), AckStream(1)),
    "add_sockets": lambda adapter: adapter.add_sockets(options(), ["new"]),
    "delete_sockets": lambda adapter: adapter.delete_sockets(options(), ["r"]),
    "disconnect_sockets": lambda adapter: adapter.disconnect_sockets(options(), False),
    "fetch_sockets": lambda adapter: adapter.fetch_sockets(options()),
    "server_side_emit": lambda adapter: adapter.server_side_emit(["x"]),
    "server_side_emit_with_ack": lambda adapter: adapter.server_side_emit_with_ack(["x"], AckStream(1)),
    "server_count": lambda adapter: adapter.server_count(),
}


@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_cancelled_operation_has_done_nothing(name: str) -> None:
    directory = Directory()
    adapter = MemoryAdapter(directory)
    await adapter.add_all("a", ["r"])

    with trio.CancelScope() as scope:
        scope.cancel()
        await OPERATIONS[name](adapter)

    assert scope.cancelled_caught
    assert (adapter.rooms, adapter.sids) == ({"r": {"a"}}, {"a": {"r"}})
    assert (directory.delivered, directory.asked, directory.disconnected) == ([], [], [])


@pytest.mark.parametrize("name", OPERATIONS)
async def test_every_operation_is_a_checkpoint(name: str) -> None:
    adapter = MemoryAdapter(Directory())

    with trio.testing.assert_checkpoints():
        await OPERATIONS[name](adapter)

    check_indexes(adapter)


async def test_forgetting_a_socket_is_done_even_when_cancelled() -> None:
    adapter = MemoryAdapter(Directory())
    await adapter.add_all("a", ["r"])

    with trio.CancelScope() as scope:
        scope.cancel()
        await adapter.delete_all("a")

    assert scope.cancelled_caught
    assert (adapter.rooms, adapter.sids) == ({}, {})


# Other servers


async def test_a_single_server_emits_to_no_other_server_and_gets_no_answers() -> None:
    adapter = MemoryAdapter(Directory())

    await adapter.server_side_emit(["x"])

    answers = AckStream(1)
    await adapter.server_side_emit_with_ack(["x"], answers)
    assert [answer async for answer in answers] == []
    assert await adapter.server_count() == 1
