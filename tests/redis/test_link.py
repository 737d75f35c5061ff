"""One connection, on memory streams and the virtual clock; and the waits, states and figures, which need no server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_socketio._errors import RedisConnectionLost, RedisError, RedisProtocolError, RedisReplyError
from trio_socketio._redis.config import RedisConfig
from trio_socketio._redis.health import TRANSITIONS, Change, Health, worst
from trio_socketio._redis.lines import Backoff
from trio_socketio._redis.link import Link

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio.testing import MockClock

PING = b"*1\r\n$4\r\nPING\r\n"


class Served:
    """A link that is served, and the server's end of its stream."""

    def __init__(self, **options: Any) -> None:
        ours, self.peer = trio.testing.memory_stream_pair()
        self.link = Link(ours, RedisConfig(**options))
        self.replies: list[Any] = []
        self.pings = 0
        self.error: RedisError | None = None

    def deliver(self, replies: Iterator[Any]) -> None:
        for reply in replies:
            self.replies.append(reply)

    def ping(self) -> None:
        self.pings += 1
        self.link.write(PING)

    async def prepare(self) -> None:
        await trio.lowlevel.checkpoint()

    async def run(self) -> None:
        self.error = await self.link.serve(self.deliver, self.ping, self.prepare)


async def test_what_is_written_in_one_tick_goes_out_together(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    served = Served()
    nursery.start_soon(served.run)
    await trio.testing.wait_all_tasks_blocked()
    for number in range(10):
        served.link.write(b"%d" % number)
    assert await served.peer.receive_some() == b"0123456789"


async def test_replies_are_delivered_as_they_come(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    served = Served()
    nursery.start_soon(served.run)
    await served.peer.send_all(b":1\r\n:2\r\n:3")
    await trio.testing.wait_all_tasks_blocked()
    assert served.replies == [1, 2]
    await served.peer.send_all(b"4\r\n")
    await trio.testing.wait_all_tasks_blocked()
    assert served.replies == [1, 2, 34]


async def test_a_peer_that_does_not_answer_a_ping_is_given_up(autojump_clock: MockClock) -> None:
    served = Served(ping_idle=5.0, ping_limit=2.0)
    await served.run()
    assert trio.current_time() == pytest.approx(7.0)
    assert served.pings == 1
    assert isinstance(served.error, RedisConnectionLost)
    assert "no sign of life within 2.0 s" in str(served.error)


async def test_a_peer_that_answers_pings_is_kept(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    served = Served(ping_idle=5.0, ping_limit=2.0)
    nursery.start_soon(served.run)

    async def answer() -> None:
        async for _ in served.peer:
            await trio.sleep(1.9)
            await served.peer.send_all(b"+PONG\r\n")

    nursery.start_soon(answer)
    await trio.sleep(1000.0)
    assert served.error is None
    assert served.pings == pytest.approx(1000 / 6.9, abs=1)
    nursery.cancel_scope.cancel()


async def test_a_peer_that_talks_is_not_pinged(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    served = Served(ping_idle=5.0, ping_limit=2.0)
    nursery.start_soon(served.run)
    for _ in range(100):
        await trio.sleep(4.9)
        await served.peer.send_all(b":1\r\n")
    assert served.pings == 0
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"", RedisConnectionLost), (b"nonsense\r\n", RedisProtocolError), (b"$70000\r\n", RedisProtocolError)],
)
async def test_the_end_of_a_connection_has_a_reason(
    autojump_clock: MockClock, data: bytes, error: type[RedisError]
) -> None:
    served = Served(max_reply_bytes=60_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(served.run)
        await served.peer.send_all(data + b"x" * 61_000 if data.startswith(b"$") else data)
        await served.peer.send_eof()
    assert type(served.error) is error


async def test_a_peer_that_does_not_read_fills_the_buffer(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    ours, _ = trio.testing.lockstep_stream_pair()
    link = Link(ours, RedisConfig(max_buffer_bytes=1000, ping_idle=1000.0))
    assert link.takes(5000), "one command goes, whatever its size"
    link.write(b"x" * 900)
    assert link.takes(100)
    assert not link.takes(101)
    assert link.buffered == 900


async def test_waiting_for_room_ends_with_the_connection(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    served = Served()
    nursery.start_soon(served.run)
    await trio.testing.wait_all_tasks_blocked()
    with trio.fail_after(1.0):
        async with trio.open_nursery() as inner:
            inner.start_soon(served.link.wait_room)
            await trio.testing.wait_all_tasks_blocked()
            served.link.lose(RedisConnectionLost("enough"))
    assert str(served.error) == "enough"


async def test_a_question_has_its_answer_and_pushes_are_none(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    ours, peer = trio.testing.memory_stream_pair()
    link = Link(ours, RedisConfig())
    await peer.send_all(b">2\r\n+invalidate\r\n_\r\n+OK\r\n")
    assert await link.ask("SELECT", 3) == b"OK"
    assert await peer.receive_some() == b"*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n"
    await peer.send_all(b"-ERR no\r\n")
    with pytest.raises(RedisReplyError, match="ERR no"):
        await link.ask("SELECT", 99)
    await peer.aclose()
    with pytest.raises(RedisConnectionLost):
        await link.ask("SELECT", 3)


# Waits


def test_waits_grow_to_their_most_and_begin_again() -> None:
    backoff = Backoff(RedisConfig(backoff_least=0.05, backoff_most=5.0))
    waits = [backoff.next() for _ in range(2000)]
    assert 0.05 <= waits[0] <= 0.1
    assert all(0.05 <= wait <= 5.0 for wait in waits)
    assert all(wait >= 2.5 for wait in waits[8:])
    assert len(set(waits[8:])) > 100, "chance keeps clients apart"
    backoff.reset()
    assert 0.05 <= backoff.next() <= 0.1


# States


@pytest.mark.parametrize("health", Health)
@pytest.mark.parametrize("change", Change)
def test_every_pair_of_state_and_change_is_decided(health: Health, change: Change) -> None:
    allowed = {
        Change.START: {Health.CLOSED},
        Change.UP: {Health.CONNECTING, Health.LOST},
        Change.DOWN: {Health.CONNECTING, Health.READY, Health.LOST},
        Change.STOP: set(Health),
    }
    leads_to = {
        Change.START: Health.CONNECTING,
        Change.UP: Health.READY,
        Change.DOWN: Health.LOST,
        Change.STOP: Health.CLOSED,
    }
    expected = leads_to[change] if health in allowed[change] else None
    assert TRANSITIONS.get((health, change)) is expected


@pytest.mark.parametrize(
    ("healths", "expected"),
    [
        ((Health.CLOSED, Health.CLOSED), Health.CLOSED),
        ((Health.READY, Health.CLOSED), Health.READY),
        ((Health.READY, Health.CONNECTING), Health.CONNECTING),
        ((Health.READY, Health.LOST), Health.LOST),
        ((Health.LOST, Health.CONNECTING), Health.LOST),
    ],
)
def test_a_client_is_as_well_as_the_worst_of_its_connections(healths: tuple[Health, Health], expected: Health) -> None:
    assert worst(healths) is expected
    assert worst(reversed(healths)) is expected
