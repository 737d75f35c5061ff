"""The in-memory adapter with connection state recovery, on its own: what it keeps, for whom, and for how long."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from trio_socketio import ConnectionStateRecovery
from trio_socketio._adapters.recovery import encode_number, generate_offsets
from trio_socketio._wire.packets import Packet, PacketType
from trio_socketio.abc import (
    BroadcastOptions,
    DefaultParser,
    EncodedPacket,
    PersistedSession,
    RecoveringAdapter,
    RecoveringMemoryAdapter,
    SocketDetails,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from trio_socketio._adapters.contract import AckCollector

PARSER = DefaultParser(10)


class Directory:
    """Notes what each of its sockets would have been sent."""

    name = "/"

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.sent: dict[str, list[str]] = {}

    @property
    def connected(self) -> AbstractSet[str]:
        return self.ids

    def encode(self, packet: Packet, compress: bool = True) -> EncodedPacket:
        return PARSER.encode(packet, compress)

    def deliver(
        self,
        ids: Sequence[str],
        packet: Packet,
        encoded: EncodedPacket,
        volatile: bool,
        left_out: AbstractSet[str] = frozenset(),
    ) -> None:
        for id in self.ids.intersection(ids) - left_out:
            self.sent.setdefault(id, []).append(text_of(encoded))

    def deliver_with_ack(
        self, ids: Sequence[str], packet: Packet, options: BroadcastOptions, acks: AckCollector
    ) -> None:
        raise AssertionError("nobody is asked here")

    def details(self, id: str) -> SocketDetails:
        return SocketDetails(id)

    def begin_disconnect(self, ids: Sequence[str], close: bool) -> None:
        raise AssertionError("there are no other servers")

    async def disconnect(self, ids: Sequence[str], close: bool) -> None:
        raise AssertionError("nobody is disconnected here")

    def on_server_side_emit(self, args: Sequence[Any], answer: Callable[[Any], None] | None) -> None:
        raise AssertionError("there are no other servers")


def text_of(encoded: EncodedPacket) -> str:
    assert encoded.text is not None
    return encoded.text.decode()


def offset_in(text: str) -> str:
    return str(json.loads(text[2:])[-1])


class Place:
    """An adapter, and what a namespace does with it."""

    def __init__(self, **options: Any) -> None:
        self.directory = Directory()
        self.adapter = RecoveringMemoryAdapter(self.directory, ConnectionStateRecovery(**options))

    async def arrive(self, id: str, *rooms: str) -> None:
        """A socket with this id is connected, and joins rooms; its private id is ``p-<id>``."""
        await self.adapter.add_all(id, (id,))
        self.directory.ids.add(id)
        self.adapter.connected(id)
        await self.adapter.add_all(id, rooms)

    async def leave(self, id: str) -> PersistedSession:
        """The server notices that a socket has lost its connection."""
        session = PersistedSession(id, f"p-{id}", frozenset(self.adapter.sids[id]), {"name": id})
        await self.adapter.persist_session(session)
        await self.depart(id)
        return session

    async def depart(self, id: str) -> None:
        self.directory.ids.remove(id)
        await self.adapter.delete_all(id)

    async def emit(self, text: str, rooms: Iterable[str] = (), except_rooms: Iterable[str] = ()) -> str | None:
        """Broadcast an event; its offset, if there is a witness."""
        self.directory.sent.pop("witness", None)
        await self.send(
            Packet(PacketType.EVENT, "/", [text]), BroadcastOptions(frozenset(rooms), frozenset(except_rooms))
        )
        heard = self.directory.sent.get("witness")
        return offset_in(heard[0]) if heard else None

    async def send(self, packet: Packet, options: BroadcastOptions) -> None:
        await self.adapter.broadcast(packet, self.directory.encode(packet), options)

    async def missed(self, id: str, offset: str | None) -> list[str] | None:
        """Come back: the texts of what was missed, or None for a new client."""
        session = await self.adapter.restore_session(f"p-{id}", offset)
        if session is None:
            return None
        packets = await self.adapter.missed_packets(session, offset)
        assert packets is not None
        await self.adapter.add_all(session.sid, session.rooms)
        self.directory.ids.add(session.sid)
        self.adapter.connected(session.sid, session)
        return [json.loads(text_of(packet)[2:])[0] for packet in packets]


async def place_with_one_away(**options: Any) -> tuple[Place, str]:
    """``a`` was in room r, has received one event, and is away; its offset."""
    place = Place(**options)
    await place.arrive("witness", "everywhere")
    await place.arrive("a", "r")
    offset = await place.emit("first")
    assert offset is not None
    await place.leave("a")
    return place, offset


def test_it_is_an_adapter_that_recovers() -> None:
    assert isinstance(Place().adapter, RecoveringAdapter)


# Offsets


def test_an_offset_is_the_millisecond_and_a_number_within_it() -> None:
    times = iter([1_000_000_000, 1_000_000_001, 1_000_999_999, 1_001_000_000, 1_001_500_000])
    offsets = generate_offsets(lambda: next(times))
    assert [next(offsets) for _ in range(5)] == ["Fe", "Fe.0", "Fe.1", "Ff", "Ff.0"]


def test_numbers_have_sixty_four_digits() -> None:
    assert [encode_number(n) for n in (0, 9, 10, 35, 36, 61, 62, 63, 64, 4095, 4096)] == [
        "0", "9", "A", "Z", "a", "z", "-", "_", "10", "__", "100"
    ]  # fmt: skip


@given(times=st.lists(st.integers(0, 5), max_size=200))
def test_no_offset_comes_twice_even_when_the_clock_is_set_back(times: list[int]) -> None:
    clock = iter(times)
    offsets = generate_offsets(lambda: next(clock) * 1_000_000)
    made = [next(offsets) for _ in times]
    assert len(set(made)) == len(made)


async def test_an_event_gets_its_offset_as_its_last_argument() -> None:
    place = Place()
    await place.arrive("a")
    await place.emit("hello")
    (text,) = place.directory.sent["a"]
    name, offset = json.loads(text[2:])
    assert name == "hello"
    assert isinstance(offset, str)


@pytest.mark.parametrize(
    ("packet", "volatile"),
    [
        (Packet(PacketType.EVENT, "/", ["asks for an ack"], 3), False),
        (Packet(PacketType.ACK, "/", ["is an ack"], 3), False),
        (Packet(PacketType.EVENT, "/", ["is volatile"]), True),
    ],
    ids=lambda value: "" if isinstance(value, bool) else value.data[0],
)
async def test_what_is_not_kept_gets_no_offset(packet: Packet, volatile: bool) -> None:
    place = Place()
    await place.arrive("a")
    await place.send(packet, BroadcastOptions(volatile=volatile))
    assert place.directory.sent["a"] == [text_of(place.directory.encode(packet))]
    assert place.adapter.kept() == (0, 0, 0)


# Coming back


async def test_who_has_missed_nothing_gets_nothing() -> None:
    place, offset = await place_with_one_away()
    assert await place.missed("a", offset) == []


async def test_what_was_for_the_socket_is_replayed_in_order() -> None:
    place, offset = await place_with_one_away()
    await place.emit("all")
    await place.emit("room", ["r", "s"])
    await place.emit("direct", ["a"])
    await place.emit("not excluded", [], ["s"])
    await place.emit("other room", ["s"])
    await place.emit("excluded", [], ["r"])
    await place.send(Packet(PacketType.EVENT, "/", ["with ack"], 0), BroadcastOptions())
    await place.send(Packet(PacketType.ACK, "/", ["not an event"], 0), BroadcastOptions())
    await place.send(Packet(PacketType.EVENT, "/", ["volatile"]), BroadcastOptions(volatile=True))
    assert await place.missed("a", offset) == ["all", "room", "direct", "not excluded"]


async def test_missed_events_have_their_original_offsets() -> None:
    place, offset = await place_with_one_away()
    second = await place.emit("second")
    session = await place.adapter.restore_session("p-a", offset)
    assert session is not None
    (packet,) = await place.adapter.missed_packets(session, offset) or []
    assert offset_in(text_of(packet)) == second


async def test_the_session_is_what_was_persisted() -> None:
    place, offset = await place_with_one_away()
    session = await place.adapter.restore_session("p-a", offset)
    assert session == PersistedSession("a", "p-a", frozenset(("a", "r")), {"name": "a"})
    assert "p-a" not in repr(session)


async def test_unknown_pid_or_offset_is_a_new_client() -> None:
    place, offset = await place_with_one_away()
    assert await place.missed("nobody", offset) is None
    assert await place.missed("a", "unknown") is None
    assert await place.missed("a", offset) == []


async def test_a_session_is_consumed_until_the_next_loss() -> None:
    place, offset = await place_with_one_away()
    assert await place.missed("a", offset) == []
    assert await place.missed("a", offset) is None
    await place.leave("a")
    assert await place.missed("a", offset) == []


async def test_only_one_of_two_that_come_at_once_recovers() -> None:
    place, offset = await place_with_one_away()
    found: list[PersistedSession | None] = []

    async def restore() -> None:
        found.append(await place.adapter.restore_session("p-a", offset))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(restore)
    assert [session.sid for session in found if session] == ["a"]


async def test_who_has_received_nothing_gets_everything_since_its_connection() -> None:
    place = Place()
    await place.emit("before")
    await place.arrive("a")
    await place.emit("lost on the way")
    await place.leave("a")
    await place.emit("while away")
    assert await place.missed("a", None) == ["lost on the way", "while away"]


async def test_who_was_sent_nothing_comes_back_without_an_offset(autojump_clock: MockClock) -> None:
    place = Place(max_disconnection_duration=10)
    await place.arrive("a")
    await place.emit("not for it", ["r"])
    await trio.sleep(1000)
    await place.emit("nor this", ["r"])
    await place.leave("a")
    await trio.sleep(9)
    await place.emit("for it")
    assert await place.missed("a", None) == ["for it"]


async def test_a_long_silence_before_the_loss_is_no_matter(autojump_clock: MockClock) -> None:
    place = Place(max_disconnection_duration=10)
    await place.arrive("witness")
    await place.arrive("a")
    offset = await place.emit("first")
    await trio.sleep(1000)
    await place.emit("for others", ["r"])
    assert place.adapter.kept()[0] == 1
    await place.leave("a")
    await place.emit("second")
    assert await place.missed("a", offset) == ["second"]


async def test_what_was_lost_before_the_server_noticed_is_replayed() -> None:
    place, offset = await place_with_one_away()
    assert await place.missed("a", offset) == []
    await place.emit("on the way")
    await place.leave("a")
    await place.emit("while away")
    assert await place.missed("a", offset) == ["on the way", "while away"]


async def test_a_loss_in_the_middle_of_the_replay_replays_it_again() -> None:
    place, offset = await place_with_one_away()
    await place.emit("one", ["r"])
    assert await place.missed("a", offset) == ["one"]
    await place.emit("two", ["r"])
    await place.leave("a")
    assert await place.missed("a", offset) == ["one", "two"]


async def test_what_was_said_in_a_room_before_it_joined_stays_unheard() -> None:
    place = Place()
    await place.arrive("witness", "secret")
    await place.arrive("a")
    offset = await place.emit("first")
    await place.emit("before", ["secret"])
    await place.emit("not for members", [], ["secret"])
    await place.adapter.add_all("a", ["secret"])
    await place.emit("after", ["secret"])
    await place.leave("a")
    assert await place.missed("a", offset) == ["not for members", "after"]


async def test_what_cannot_be_connected_after_all_may_try_again_in_its_time(autojump_clock: MockClock) -> None:
    place, offset = await place_with_one_away(max_disconnection_duration=10)
    for _ in range(3):
        await trio.sleep(3)
        session = await place.adapter.restore_session("p-a", offset)
        assert session is not None
        await place.adapter.persist_session(session)
    await trio.sleep(3)
    assert await place.missed("a", offset) is None


async def test_what_was_said_in_a_room_before_a_middleware_put_it_there_stays_unheard() -> None:
    place, offset = await place_with_one_away()
    await place.emit("before", ["new"])
    session = await place.adapter.restore_session("p-a", offset)
    assert session is not None
    await place.adapter.add_all("a", [*session.rooms, "new"])
    place.directory.ids.add("a")
    place.adapter.connected("a", session)
    await place.emit("after", ["new"])
    await place.leave("a")
    assert await place.missed("a", offset) == ["after"]


# Bounds


async def test_a_client_that_is_away_too_long_is_a_new_one(autojump_clock: MockClock) -> None:
    place, offset = await place_with_one_away(max_disconnection_duration=10)
    await trio.sleep(10.001)
    assert await place.missed("a", offset) is None
    assert place.adapter.kept() == (0, 0, 0)


async def test_a_client_is_in_time_at_the_last_moment(autojump_clock: MockClock) -> None:
    place, offset = await place_with_one_away(max_disconnection_duration=10)
    await trio.sleep(10)
    assert await place.missed("a", offset) == []


async def test_old_events_are_dropped_when_new_ones_come(autojump_clock: MockClock) -> None:
    place = Place(max_disconnection_duration=10)
    for _ in range(100):
        await place.emit("x" * 1000)
        await trio.sleep(1)
        count, size, _ = place.adapter.kept()
        assert count <= 11
        assert size < 12_000


async def test_no_more_events_are_kept_than_allowed_and_nothing_is_replayed_in_part() -> None:
    place, offset = await place_with_one_away(max_packets=3)
    for number in range(3):
        await place.emit(str(number))
    assert place.adapter.kept()[0] == 3
    assert await place.missed("a", offset) == ["0", "1", "2"]
    await place.leave("a")
    await place.emit("3")
    assert await place.missed("a", offset) is None


async def test_who_has_received_nothing_of_too_much_is_a_new_client() -> None:
    place = Place(max_packets=2)
    await place.arrive("a")
    for number in range(3):
        await place.emit(str(number))
    await place.leave("a")
    assert await place.missed("a", None) is None


async def test_a_second_attempt_does_not_outlive_its_time_behind_others(autojump_clock: MockClock) -> None:
    place, offset = await place_with_one_away(max_disconnection_duration=10)
    await trio.sleep(5)
    await place.arrive("b")
    await place.leave("b")
    session = await place.adapter.restore_session("p-a", offset)
    assert session is not None
    await place.adapter.persist_session(session)
    await trio.sleep(6)
    assert await place.missed("a", offset) is None
    assert await place.missed("b", None) == []


async def test_no_more_bytes_are_kept_than_allowed() -> None:
    place = Place(max_bytes=1000)
    for number in range(100):
        await place.emit("x" * number * 20)
        assert place.adapter.kept()[1] <= 1000
    assert place.adapter.kept()[:2] == (0, 0)


async def test_the_oldest_session_makes_room() -> None:
    place = Place(max_sessions=2)
    for id in "abc":
        await place.arrive(id)
        await place.leave(id)
    assert place.adapter.kept()[2] == 2
    assert [await place.missed(id, None) for id in "abc"] == [None, [], []]


async def test_a_socket_that_does_not_come_back_leaves_nothing() -> None:
    place = Place()
    for number in range(10):
        await place.arrive(str(number), "r")
        await place.depart(str(number))
    assert place.adapter.kept() == (0, 0, 0)
    assert not place.adapter._traces


async def test_closing_forgets_everything() -> None:
    place, _ = await place_with_one_away()
    async with trio.open_nursery() as nursery:
        await nursery.start(place.adapter.run)
        assert place.adapter.kept() != (0, 0, 0)
        nursery.cancel_scope.cancel()
    assert place.adapter.kept() == (0, 0, 0)


@pytest.mark.parametrize("name", ["max_disconnection_duration", "max_packets", "max_bytes", "max_sessions"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_bounds_are_positive(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        replace(ConnectionStateRecovery(), **{name: value})  # type: ignore[arg-type]


# The law

ROOMS = ("r", "s", "t")
rooms = st.sets(st.sampled_from(ROOMS), max_size=2)


class Emit(NamedTuple):
    rooms: set[str]
    except_rooms: set[str]


class Join(NamedTuple):
    rooms: set[str]


class Leave(NamedTuple):
    room: str


class Wait(NamedTuple):
    seconds: float


#: The network is lost; the server notices; the client comes back.
CUT, NOTICE, RETURN = "cut", "notice", "return"

steps = st.one_of(
    st.builds(Emit, rooms, st.one_of(st.just(set[str]()), rooms)),
    st.builds(Join, rooms),
    st.builds(Leave, st.sampled_from(ROOMS)),
    st.builds(Wait, st.sampled_from([1.0, 20.0])),
    st.sampled_from([CUT, NOTICE, RETURN]),
)


@settings(max_examples=300, deadline=None)
@given(steps=st.lists(steps, max_size=40), max_packets=st.sampled_from([2, 1000]))
def test_a_client_that_comes_back_has_got_what_it_would_have_got(steps: list[Any], max_packets: int) -> None:
    trio.run(live, iter(steps), max_packets, clock=MockClock(autojump_threshold=0))


async def live(steps: Iterator[Any], max_packets: int) -> None:
    """One socket whose network fails, and a twin in the same rooms whose network does not."""
    place = Place(max_disconnection_duration=100, max_packets=max_packets)
    sent, adapter = place.directory.sent, place.adapter
    await place.arrive("twin")
    await place.arrive("a")
    received: list[str] = []
    reachable = there = True
    cut_at = 0.0
    for step in steps:
        match step:
            case Emit(rooms, except_rooms):
                await place.emit("event", rooms, except_rooms)
            case Join(rooms) if there:
                for id in ("a", "twin"):
                    await adapter.add_all(id, sorted(rooms))
            case Leave(room) if reachable:
                for id in ("a", "twin"):
                    await adapter.delete(id, room)
            case Wait(seconds):
                await trio.sleep(seconds)
            case "cut" if reachable:
                reachable, cut_at = False, trio.current_time()
            case "notice" if there and not reachable:
                await place.leave("a")
                there = False
            case "return" if not there:
                offset = offset_in(received[-1]) if received else None
                session = await adapter.restore_session("p-a", offset)
                if session is None:
                    assert max_packets == 2 or trio.current_time() - cut_at > 100
                    return
                assert await adapter.restore_session("p-a", offset) is None
                await adapter.add_all("a", session.rooms)
                await adapter.missed_packets(session, offset)  # nothing changes by asking
                missed = await adapter.missed_packets(session, offset)
                assert missed is not None
                place.directory.ids.add("a")
                adapter.connected("a", session)
                received += map(text_of, missed)
                reachable = there = True
            case _:
                pass  # it makes no sense now
        live_events = sent.pop("a", [])
        if reachable:
            received += live_events
            assert received == sent.get("twin", [])
