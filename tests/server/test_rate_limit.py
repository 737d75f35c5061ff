"""How much a client may send: the arithmetic by properties, and what becomes of clients that send more."""

from __future__ import annotations

import logging
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trio_socketio import RateLimit, Server
from trio_socketio._server.connection import Connection
from trio_socketio._server.rate import Meter, TokenBucket, byte_length
from trio_socketio._server.throttled import ThrottledConnection

from ..wire_client import settle
from .support import TRANSPORTS, at_least, open_server

if TYPE_CHECKING:
    from trio_socketio import Socket

both_transports = pytest.mark.parametrize("transport", TRANSPORTS)

# The arithmetic. Rounding is allowed for: a billionth, and what comes in a microsecond.

rates = st.floats(0.01, 10_000)
bursts = st.floats(0.01, 100)
starts = st.floats(0, 1e6)
gaps = st.floats(0, 100)
costs = st.floats(0, 1000)


def most(bucket: TokenBucket, seconds: float) -> float:
    return (bucket.rate * seconds + bucket.capacity) * (1 + 1e-9) + bucket.rate * 1e-6


@given(rates, bursts, starts, st.lists(st.tuples(gaps, costs), min_size=1, max_size=60))
def test_what_is_covered_never_exceeds_rate_and_burst_in_any_span_of_time(
    rate: float, burst: float, now: float, steps: list[tuple[float, float]]
) -> None:
    bucket = TokenBucket(rate, burst, now)
    covered: list[tuple[float, float]] = []
    for gap, cost in steps:
        now += gap
        if bucket.spend(cost, now):
            covered.append((now, cost))

    for first in range(len(covered)):
        total = 0.0
        for at, cost in covered[first:]:
            total += cost
            assert total <= most(bucket, at - covered[first][0])


@given(rates, bursts, starts, st.lists(gaps, min_size=1, max_size=60))
def test_reading_event_by_event_at_ready_at_never_exceeds_rate_and_burst(
    rate: float, burst: float, now: float, idle: list[float]
) -> None:
    bucket = TokenBucket(rate, burst, now)
    times: list[float] = []
    for gap in idle:
        now = max(now + gap, bucket.ready_at)
        bucket.spend(1, now)
        times.append(now)

    for first in range(len(times)):
        for last in range(first, len(times)):
            assert last - first + 1 <= most(bucket, times[last] - times[first])


@given(rates, bursts, starts, st.lists(st.tuples(gaps, costs), min_size=1, max_size=60))
def test_reading_messages_of_any_size_exceeds_rate_and_burst_by_one_message_at_most(
    rate: float, burst: float, now: float, steps: list[tuple[float, float]]
) -> None:
    bucket = TokenBucket(rate, burst, now)
    begun = now
    total = 0.0
    for gap, cost in steps:
        now = max(now + gap, bucket.ready_at)
        bucket.spend(cost, now)
        total += cost

    assert total <= most(bucket, now - begun) + max(cost for _, cost in steps)


@given(rates, bursts, starts, costs)
def test_who_waits_until_ready_at_finds_a_token(rate: float, burst: float, now: float, cost: float) -> None:
    bucket = TokenBucket(rate, burst, now)
    bucket.spend(cost, now)

    ready_at = bucket.ready_at

    assert ready_at >= now
    assert bucket.spend(1 - 1e-6 * max(rate, 1), ready_at)


@given(st.integers(1, 1000), st.integers(1, 10), starts)
def test_a_quiet_client_may_send_exactly_its_burst_at_once(rate: int, burst: int, now: float) -> None:
    bucket = TokenBucket(rate, burst, now - 1000)

    assert all(bucket.spend(1, now) for _ in range(rate * burst))
    assert not bucket.spend(1, now)


@pytest.mark.parametrize("text", ["", "plain", "é", "☃", "𝄞", "\ud800", "a\x1eb"])
def test_text_counts_in_utf_8_and_bytes_as_they_are(text: str) -> None:
    encoded = text.encode("utf-8", "surrogatepass")

    assert byte_length(text) == byte_length(encoded) == len(encoded)


def test_a_meter_is_ready_when_both_limits_are() -> None:
    meter = Meter(RateLimit(events=1, bytes=10, burst=2), 100.0)
    assert meter.ready_at == 100

    assert meter.on_packet(1, 20, 100) is None
    assert meter.ready_at == 100.1
    assert meter.on_packet(1, 0, 100) is None
    assert meter.ready_at == 101
    assert meter.on_packet(1, 1, 100) == "more than 1 events a second (burst: 2)"
    assert meter.on_packet(0, 1, 110) is None
    assert meter.on_packet(0, 20, 110) == "more than 10 bytes a second (burst: 20)"


# The option


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"events": 0},
        {"events": -1},
        {"events": True},
        {"events": float("inf")},
        {"bytes": float("nan")},
        {"events": 1, "burst": float("inf")},
        {"bytes": "10"},
        {"events": 1, "burst": 0},
        {"events": 1, "burst": None},
        {"events": 1, "on_excess": "drop"},
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"above zero|finite|limits events|on_excess"):
        RateLimit(**options)


def test_the_option_is_a_rate_limit_or_none() -> None:
    assert Server(rate_limit=None).config.rate_limit is None
    with pytest.raises(TypeError, match="rate_limit"):
        Server(rate_limit=10)  # type: ignore[call-overload]


async def test_without_a_limit_nothing_is_counted() -> None:
    async with open_server() as server:
        await server.connect()

        assert [type(connection) for connection in server.io._connections] == [Connection]


# "delay"


def noting(limit: RateLimit, **options: Any) -> tuple[Server, list[tuple[float, Any]]]:
    """A server, and when which events of its clients came."""
    io = Server(rate_limit=limit, **options)
    calls: list[tuple[float, Any]] = []

    @io.on("connection")
    def connected(socket: Socket) -> None:
        socket.on("event", lambda value: calls.append((trio.current_time(), value)))

    return io, calls


async def flood(client: Any, count: int) -> None:
    for number in range(count):
        await client.emit("event", number)


@both_transports
async def test_a_client_that_sends_too_fast_is_read_at_the_rate_and_loses_nothing(transport: str) -> None:
    io, calls = noting(RateLimit(events=10, burst=2))
    async with open_server(io) as server, trio.open_nursery() as nursery:
        pair = await server.connect(transport=transport)
        begun = trio.current_time()

        nursery.start_soon(flood, pair.client, 60)
        await trio.sleep(10)

        assert [value for _, value in calls] == list(range(60))
        if transport == "polling":  # one event at a time is read, so the law holds exactly
            for count, (at, _) in enumerate(calls, 1):
                assert count <= 10 * (at - begun) + 20 + 1e-6
            assert calls[-1][0] - begun == pytest.approx(4.0)
        assert pair.socket.connected


async def test_what_was_read_at_once_is_delivered_at_once_and_paid_for_afterwards() -> None:
    io, calls = noting(RateLimit(events=10, burst=1))
    async with open_server(io) as server:
        pair = await server.connect(transport="polling")
        begun = trio.current_time()

        await pair.client.send_raw(*[f'42["event",{number}]' for number in range(50)])
        # The answer to the POST has come, so the debt is paid: 50 events, 10 of them from the burst, and one for next.
        assert trio.current_time() - begun == pytest.approx(4.1)
        assert [at for at, _ in calls] == [begun] * 50
        assert not pair.socket.conn.paused


@both_transports
async def test_a_client_below_the_rate_is_never_delayed(transport: str) -> None:
    io, calls = noting(RateLimit(events=10, bytes=10_000))
    async with open_server(io) as server:
        pair = await server.connect(transport=transport)
        begun = trio.current_time()

        for number in range(50):
            await pair.client.emit("event", number)
            await trio.sleep(0.125)

        assert [at - begun for at, _ in calls] == pytest.approx([0.125 * number for number in range(50)])


async def test_others_are_not_delayed_with_it() -> None:
    io, calls = noting(RateLimit(events=1, burst=2))
    async with open_server(io) as server, trio.open_nursery() as nursery:
        loud, quiet = await server.connect(), await server.connect()
        nursery.start_soon(flood, loud.client, 20)
        await settle()
        assert loud.socket.conn.paused
        before = trio.current_time()

        await quiet.client.emit("event", "quiet")
        await settle()

        assert (before, "quiet") in calls
        assert not quiet.socket.conn.paused
        nursery.cancel_scope.cancel()


async def test_each_socket_has_a_limit_of_its_own_and_coming_back_does_not_fill_it() -> None:
    io = Server(rate_limit=RateLimit(events=1, burst=4))
    io.of("/other")
    async with open_server(io) as server:
        client, socket = await server.connect()
        other = await client.of("/other")

        await client.send_raw(*['42["a"]', '42/other,["b"]'] * 3)
        await settle()
        assert not socket.conn.paused

        await other.disconnect()
        await other.reconnect()
        await other.emit("c")
        await settle()
        assert socket.conn.paused


async def test_a_socket_that_sends_too_fast_has_the_others_of_its_session_wait_with_it() -> None:
    io = Server(rate_limit=RateLimit(events=1, burst=2))
    told: list[float] = []
    io.of("/other").on("connection", lambda socket: socket.on("quiet", lambda: told.append(trio.current_time())))
    async with open_server(io) as server:
        client = await server.client(transport="polling")
        other = await client.of("/other")
        begun = trio.current_time()

        await client.send_raw(*['42["loud"]'] * 4)
        await other.emit("quiet")

        assert told == [pytest.approx(begun + 3)]


async def test_what_goes_to_no_socket_is_limited_too() -> None:
    async with open_server(rate_limit=RateLimit(bytes=1000)) as server:
        client, socket = await server.connect()

        for number in range(10):
            await client.send_raw(f'40/nowhere-{number},{{"x":"{"x" * 200}"}}')

        await settle()
        assert socket.conn.paused


async def test_limits_that_are_kept_of_namespaces_left_are_bounded() -> None:
    io = Server(rate_limit=RateLimit(events=100), max_namespaces=3)
    io.of(re.compile("^/dynamic-"))
    async with open_server(io) as server:
        client = await server.client()
        (connection,) = io._connections
        assert isinstance(connection, ThrottledConnection)
        for number in range(10):
            dynamic = await client.of(f"/dynamic-{number}")
            await dynamic.emit("event")
            await dynamic.disconnect()

        await settle()

        assert 0 < len(connection._meters) <= 4


@both_transports
async def test_a_delayed_client_is_no_silent_peer(transport: str) -> None:
    io, calls = noting(RateLimit(events=1), ping_interval=5.0, ping_timeout=1.0)
    async with open_server(io) as server:
        client, socket = await server.connect(transport=transport)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_raw, *['42["event",1]'] * 60)
            await trio.sleep(59)

            assert len(calls) == 60
            assert socket.connected
            assert transport == "polling" or ("server", "websocket", "2") in client.wire


async def test_the_server_can_still_emit_to_a_delayed_client_and_acks_come_when_their_turn_is() -> None:
    io, _ = noting(RateLimit(events=1, burst=2))
    async with open_server(io) as server, trio.open_nursery() as nursery:
        client, socket = await server.connect()
        answers: list[tuple[float, Any]] = []
        begun = trio.current_time()

        async def ask() -> None:
            answer = await socket.emit_with_ack("question")
            answers.append((trio.current_time() - begun, answer))

        await client.send_raw(*['42["event",1]'] * 5)
        nursery.start_soon(ask)
        question = await client.receive()
        assert (question.name, question.args) == ("question", ())
        await settle()
        assert socket.conn.paused

        await question.ack("late")
        await trio.sleep(10)

        assert [answer for _, answer in answers] == ["late"]
        assert 1.0 <= answers[0][0] <= 4.0  # how many events the reader took at once is the network's affair


async def test_a_delayed_client_that_leaves_leaves_nothing() -> None:
    io, _ = noting(RateLimit(events=0.001))
    async with open_server(io) as server:
        client, socket = await server.connect()
        await client.send_raw(*['42["event",1]'] * 5)
        await settle()
        assert socket.conn.paused

        await socket.disconnect(close=True)

        assert not socket.conn.paused


async def test_what_comes_during_a_pause_makes_it_longer() -> None:
    io, _ = noting(RateLimit(events=1, burst=2))
    async with open_server(io) as server:
        _, socket = await server.connect()
        (connection,) = io._connections
        # A reader may have more at hand when the pause begins, and may have to wait before it delivers that.
        for _ in range(3):
            connection.on_message('2["event",1]')
        await trio.sleep(1)
        connection.on_message('2["event",1]')

        await trio.sleep(1.9)
        assert socket.conn.paused
        await trio.sleep(0.2)
        assert not socket.conn.paused


async def test_handlers_that_are_behind_keep_a_client_paused_when_its_tokens_are_back() -> None:
    io = Server(rate_limit=RateLimit(events=1), max_queued_events=1, max_concurrent_events=1)
    started: list[int] = []

    @io.on("connection")
    def connected(socket: Socket) -> None:
        @socket.on("event")
        async def slow(number: int) -> None:
            started.append(number)
            await trio.sleep(5)

    async with open_server(io) as server:
        client, socket = await server.connect()
        await client.send_raw('42["event",1]', '42["event",2]')
        await trio.sleep(3)
        assert socket.conn.paused
        assert started == [1]

        await trio.sleep(3)
        assert not socket.conn.paused
        assert started == [1, 2]


# Bytes


@both_transports
async def test_bytes_are_limited_attachments_and_acknowledgements_included(transport: str) -> None:
    io, _ = noting(RateLimit(bytes=1000, burst=1))
    async with open_server(io) as server, trio.open_nursery() as nursery:
        pair = await server.connect(transport=transport)
        nursery.start_soon(pair.client.emit, "unknown", b"x" * 3000)
        await settle()
        assert pair.socket.conn.paused
        await trio.sleep(4)
        assert not pair.socket.conn.paused

        nursery.start_soon(pair.client.send_raw, f'4399["{"x" * 3000}"]')
        await settle()
        assert pair.socket.conn.paused


# "disconnect"


@both_transports
async def test_a_client_that_sends_too_many_events_is_disconnected_and_told(
    transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_socketio")
    io, calls = noting(RateLimit(events=5, burst=2, on_excess="disconnect"))
    async with open_server(io) as server:
        pair = await server.connect(transport=transport)
        ends: list[Any] = []
        pair.socket.on("disconnect", lambda *why: ends.append(why))

        await pair.client.send_raw(*[f'42["event",{number}]' for number in range(30)])
        await pair.socket.ended.wait()

        assert not pair.socket.conn.phase.open
        assert [value for _, value in calls] == list(range(10))
        assert ends == [("server namespace disconnect", "rate limit: more than 5 events a second (burst: 10)")]
        assert await pair.client.wait_disconnected() == "io server disconnect"
        (line,) = [line for line in at_least(caplog, logging.INFO) if "too much" in line]
        assert "more than 5 events a second (burst: 10)" in line
        assert at_least(caplog, logging.WARNING) == []


async def test_all_sockets_of_such_a_client_end_and_nobody_elses() -> None:
    io = Server(rate_limit=RateLimit(events=1, on_excess="disconnect"))
    io.of("/other")
    async with open_server(io) as server:
        client, socket = await server.connect()
        sockets = [socket, server.socket_of(await client.of("/other"))]
        bystander = await server.connect()

        await client.send_raw('42["a"]', '42["b"]')
        for ended in sockets:
            await ended.ended.wait()

        assert not any(ended.connected for ended in sockets)
        assert bystander.socket.connected


@both_transports
async def test_a_message_larger_than_the_burst_is_too_much_by_itself(transport: str) -> None:
    io, calls = noting(RateLimit(bytes=1000, on_excess="disconnect"))
    async with open_server(io) as server:
        pair = await server.connect(transport=transport)
        ends: list[Any] = []
        pair.socket.on("disconnect", lambda *why: ends.append(why))

        await pair.client.emit("event", "x" * 500)
        await pair.client.emit("event", "x" * 1001)
        await pair.socket.ended.wait()

        assert len(calls) == 1
        assert ends[0][1] == "rate limit: more than 1000 bytes a second (burst: 1000)"


@both_transports
async def test_a_client_that_stays_within_its_limit_is_not_disconnected(transport: str) -> None:
    io, calls = noting(RateLimit(events=4, on_excess="disconnect"))
    async with open_server(io) as server:
        pair = await server.connect(transport=transport)

        for _ in range(20):
            await pair.client.send_raw(*['42["event",1]'] * 4)
            await trio.sleep(1.001)

        assert len(calls) == 80
        assert pair.socket.connected
        assert all(late[0] >= early[0] for early, late in pairwise(calls))
