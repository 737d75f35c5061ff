"""The server pings, and a client that does not answer is gone (Engine.IO protocol, "heartbeat")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio._engine.alarms import LEFTOVERS, Alarms
from trio_socketio._engine.heartbeat import Due, Heartbeat

from ..wire_client import EioPolling, EioWebSocket, SessionLost, settle
from .stage import on_both_transports, open_stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_socketio._wire.encoded import EncodedPacket
    from trio_socketio.engineio import Session

PING_TIMEOUT = ("ping timeout", None)


@on_both_transports
async def test_silent_client_is_closed_at_interval_plus_timeout_and_not_before(transport: str) -> None:
    async with open_stage(ping_interval=25, ping_timeout=20) as stage:
        await stage.client(transport)
        await trio.sleep(44.9)
        assert stage.engine.clients_count == 1
        await trio.sleep(0.2)
        assert await stage.close_reason() == PING_TIMEOUT
        assert stage.engine.clients_count == 0


@on_both_transports
async def test_client_sees_its_transport_close_after_the_timeout(transport: str) -> None:
    async with open_stage(ping_interval=25, ping_timeout=20) as stage:
        client = await stage.client(transport)
        assert await client.recv() == "2"
        with pytest.raises(SessionLost):
            await client.recv()
        assert trio.current_time() == pytest.approx(45, abs=0.01)
        assert await stage.end() == PING_TIMEOUT


@on_both_transports
async def test_client_that_answers_lives_on_round_after_round(transport: str) -> None:
    async with open_stage(ping_interval=25, ping_timeout=20) as stage:
        client = await stage.client(transport)
        for number in range(1, 6):
            assert await client.recv() == "2"
            assert trio.current_time() == pytest.approx(number * 25, abs=0.01)
            await client.send("3")
        assert await stage.close_reason() is None


@on_both_transports
async def test_timeout_is_not_earlier_than_interval_plus_timeout_after_a_pong(transport: str) -> None:
    async with open_stage(ping_interval=25, ping_timeout=20) as stage:
        client = await stage.client(transport)
        await trio.sleep(44)
        await client.send("3")
        await stage.end()
        assert trio.current_time() == pytest.approx(44 + 45, abs=0.01)


@on_both_transports
async def test_unsolicited_pong_restarts_the_interval(transport: str) -> None:
    async with open_stage(ping_interval=25, ping_timeout=20) as stage:
        client = await stage.client(transport)
        await trio.sleep(20)
        await client.send("3")
        assert await client.recv() == "2"
        assert trio.current_time() == pytest.approx(45, abs=0.01)


@on_both_transports
async def test_messages_are_no_pongs(transport: str) -> None:
    async with open_stage(ping_interval=25, ping_timeout=20) as stage:
        client = await stage.client(transport)
        for _ in range(44):
            await trio.sleep(1)
            await client.send("4I am here", "6")
        assert await stage.close_reason() is None
        assert await stage.end() == PING_TIMEOUT
        assert trio.current_time() == pytest.approx(45, abs=0.01)


@on_both_transports
async def test_messages_to_the_client_do_not_postpone_the_ping(transport: str) -> None:
    async with open_stage(ping_interval=25, ping_timeout=20) as stage:
        client = await stage.client(transport)
        received: list[str | bytes] = []
        while "2" not in received:
            await trio.sleep(1)
            await stage.session.send("x")
            received.append(await client.recv())
        assert trio.current_time() == pytest.approx(25, abs=1)


@on_both_transports
async def test_ping_in_the_wrong_direction_is_a_transport_error(transport: str) -> None:
    async with open_stage() as stage:
        client = await stage.client(transport)
        await client.send("2")
        assert await stage.end() == ("transport error", "invalid heartbeat direction")


async def test_poll_is_answered_by_the_ping() -> None:
    async with open_stage(ping_interval=25, ping_timeout=20) as stage:
        client = await stage.net.polling()
        assert await client.poll() == ["2"]
        assert trio.current_time() == pytest.approx(25, abs=0.01)


# Upgrades


async def test_ping_in_flight_on_polling_does_not_end_an_upgraded_session() -> None:
    async with open_stage(ping_interval=25, ping_timeout=20) as stage:
        client = await stage.net.polling()
        assert await client.poll() == ["2"]
        await trio.sleep(19)
        websocket = await client.upgrade()
        await trio.sleep(15)
        assert await stage.close_reason() is None
        await websocket.send("3")
        assert await websocket.recv() == "2"
        assert trio.current_time() == pytest.approx(44 + 15 + 25, abs=0.01)


async def test_upgraded_session_still_times_out_if_that_pong_never_comes() -> None:
    async with open_stage(ping_interval=25, ping_timeout=20) as stage:
        client = await stage.net.polling()
        await trio.sleep(44)
        await client.upgrade()
        assert await stage.end() == PING_TIMEOUT
        assert trio.current_time() == pytest.approx(64, abs=0.01)


async def test_upgraded_session_is_pinged_on_its_websocket() -> None:
    async with open_stage(ping_interval=25, ping_timeout=20) as stage:
        websocket = await (await stage.net.polling()).upgrade()
        for _ in range(3):
            assert await websocket.recv() == "2"
            await websocket.send("3")
        assert trio.current_time() == pytest.approx(75, abs=0.01)


# A reader that we have paused


@on_both_transports
async def test_client_that_we_do_not_read_is_not_silent(transport: str) -> None:
    options: dict[str, Any] = {"ping_interval": 25, "ping_timeout": 20, "max_inbox_messages": 1}
    async with open_stage(**options) as stage, trio.open_nursery() as nursery:
        client = await stage.client(transport)
        nursery.start_soon(client.send, "4first")
        assert await client.recv() == "2"
        if isinstance(client, EioWebSocket):
            await client.send("3")  # stays unread; a polling client cannot even send it
        await trio.sleep(300)
        assert await stage.close_reason() is None
        assert await stage.session.receive() == "first"
        await settle()
        if isinstance(client, EioPolling):
            await client.send("3")
        assert await client.recv() == "2"
        await client.send("3")
        assert await stage.close_reason() is None


async def test_client_that_is_silent_after_we_read_on_times_out() -> None:
    async with open_stage(ping_interval=25, ping_timeout=20, max_inbox_messages=1) as stage:
        client = await stage.net.engine_websocket()
        await client.send("4first")
        await trio.sleep(300)
        await stage.session.receive()
        resumed_at = trio.current_time()
        assert await stage.end() == PING_TIMEOUT
        assert trio.current_time() - resumed_at <= 20.01


async def send_much(session: Session) -> None:
    for _ in range(100):
        await session.send("x" * 65_536)
        await trio.sleep(0.02)


async def test_many_large_messages_do_not_delay_pongs() -> None:
    async with open_stage(ping_interval=0.2, ping_timeout=0.1) as stage, trio.open_nursery() as nursery:
        client = await stage.net.engine_websocket()
        nursery.start_soon(send_much, stage.session)
        received = 0
        while received < 100:
            packet = await client.recv()
            if packet == "2":
                await client.send("3")
            else:
                received += 1
        assert await stage.close_reason() is None


# The clock by itself


async def test_a_session_that_fails_when_it_is_due_costs_no_other_its_heartbeat(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_stage(ping_interval=25, ping_timeout=20) as stage:
        await stage.client("websocket")
        failing = stage.session
        other = await stage.client("websocket")
        write = type(failing).write

        def fail(session: Session, packet: EncodedPacket) -> bool:
            if session is failing:
                raise RuntimeError("no ping")
            return write(session, packet)

        monkeypatch.setattr(type(failing), "write", fail)
        assert await other.recv() == "2"
        assert trio.current_time() == pytest.approx(25, abs=0.01)
        assert ["no ping" in caplog.text, caplog.text.count("this is a bug")] == [True, 1]
        monkeypatch.undo()


@pytest.fixture
async def alarms() -> AsyncIterator[Alarms]:
    async with trio.open_nursery() as nursery:
        alarms = Alarms()
        nursery.start_soon(alarms.run)
        yield alarms
        nursery.cancel_scope.cancel()


class Clock:
    """A heartbeat, and what it has said when."""

    def __init__(self, alarms: Alarms, *, interval: float = 25, client_pings: bool = False) -> None:
        self.said: list[tuple[Due, float]] = []
        self.heartbeat = Heartbeat(interval, 20, client_pings=client_pings, alarms=alarms, on_due=self._on_due)
        self.heartbeat.beat()

    def _on_due(self, due: Due) -> None:
        self.said.append((due, trio.current_time()))


async def test_what_is_due_is_said_in_the_order_of_its_deadlines(alarms: Alarms) -> None:
    clock = Clock(alarms)
    await trio.sleep(70)
    clock.heartbeat.be_patient()
    await trio.sleep(25)
    clock.heartbeat.beat()
    await trio.sleep(30)
    clock.heartbeat.close_in(5)
    clock.heartbeat.expire_in(4)
    await trio.sleep(6)
    clock.heartbeat.stop()
    await trio.sleep(1000)
    assert clock.said == [
        (Due.PING, 25),
        (Due.SILENCE, 45),
        (Due.SILENCE, 65),
        (Due.SILENCE, 90),
        (Due.PING, 120),
        (Due.EXPIRY, 129),
        (Due.CLOSE, 130),
    ]


async def test_what_is_due_at_the_same_time_is_all_said(alarms: Alarms) -> None:
    clock = Clock(alarms)
    clock.heartbeat.close_in(25)
    clock.heartbeat.expire_in(25)
    await trio.sleep(26)
    clock.heartbeat.stop()
    assert clock.said == [(Due.CLOSE, 25), (Due.EXPIRY, 25), (Due.PING, 25)]


async def test_client_that_pings_has_both_times_and_is_never_pinged(alarms: Alarms) -> None:
    clock = Clock(alarms, client_pings=True)
    await trio.sleep(50)
    clock.heartbeat.stop()
    assert clock.said == [(Due.SILENCE, 45)]


@pytest.mark.parametrize(("close_in", "due"), [(1000, (Due.PING, 20 + 25)), (5, (Due.CLOSE, 20 + 5))])
async def test_deadlines_may_be_moved_in_both_directions(
    close_in: float, due: tuple[Due, float], alarms: Alarms
) -> None:
    clock = Clock(alarms)
    await trio.sleep(20)
    clock.heartbeat.beat()
    clock.heartbeat.close_in(close_in)
    await trio.sleep(30)
    assert clock.said[0] == due


def let_many_go(alarms: Alarms, count: int) -> None:
    for _ in range(count):
        Clock(alarms).heartbeat.stop()


async def test_alarms_of_those_who_have_gone_do_not_pile_up(alarms: Alarms) -> None:
    let_many_go(alarms, 3 * LEFTOVERS)
    assert len(alarms._entries) <= 2 * LEFTOVERS


async def test_a_clock_keeps_its_alarm_when_those_of_others_are_removed(alarms: Alarms) -> None:
    clock = Clock(alarms)
    let_many_go(alarms, 2 * LEFTOVERS)
    await trio.sleep(26)
    assert clock.said == [(Due.PING, 25)]


async def test_thousands_of_clocks_ring_in_their_order(alarms: Alarms) -> None:
    clocks = [Clock(alarms, interval=1 + i * 7 % 2000) for i in range(2000)]
    await trio.sleep(2500)
    first = sorted(clock.said[0][1] for clock in clocks)
    assert first == list(range(1, 2001))
    assert all(clock.said[0] == (Due.PING, 1 + i * 7 % 2000) for i, clock in enumerate(clocks))
