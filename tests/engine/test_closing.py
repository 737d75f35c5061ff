"""How sessions end, and what is still delivered (Engine.IO protocol, "close")."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio

from trio_socketio.engineio import Engine, Session, SessionClosed

from ..wire_client import EioPolling, Net, SessionLost, count_tasks, settle
from .stage import POLLING, WEBSOCKET, on_both_transports, open_stage, receive_all, run_to_the_end

if TYPE_CHECKING:
    from .stage import Client, Stage

FORCED = ("forced close", None)


# The table for polling


@pytest.mark.parametrize("discard", [False, True])
async def test_pending_poll_is_told_and_the_session_is_closed_at_once(discard: bool) -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        poll = await client.start_poll()
        stage.session.close(discard=discard)
        assert stage.session.closed_because == FORCED
        assert (await poll.response()).packets == ["1"]
        assert (await stage.net.get(client.target)).json()["code"] == 1


async def test_discard_without_a_poll_closes_at_once() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        stage.session.close(discard=True)
        assert stage.session.closed_because == FORCED
        assert (await stage.net.get(client.target)).json()["code"] == 1


async def test_graceful_close_waits_for_the_next_poll_and_tells_it() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        stage.session.close()
        await trio.sleep(5)
        assert await stage.close_reason() is None
        assert await client.poll() == ["6", "1"]
        assert await stage.end() == FORCED
        assert trio.current_time() == 5


async def test_graceful_close_delivers_what_is_queued_and_then_tells_the_next_poll() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        for message in "abc":
            await stage.session.send(message)
        stage.session.close()
        assert await client.poll() == ["4a", "4b", "4c"]
        await trio.sleep(2)
        assert await stage.close_reason() is None
        assert await client.poll() == ["6", "1"]
        assert await stage.end() == FORCED


async def test_messages_sent_in_the_tick_of_the_close_reach_a_pending_poll() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        poll = await client.start_poll()
        await stage.session.send("a")
        stage.session.close()
        assert (await poll.response()).packets == ["4a"]
        assert await client.poll() == ["6", "1"]
        assert await stage.end() == FORCED


async def test_discard_loses_what_is_queued() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        await stage.session.send("lost")
        stage.session.close(discard=True)
        assert (await stage.net.get(client.target)).status == 400


@pytest.mark.parametrize("queued", [False, True])
async def test_graceful_close_that_nobody_collects_is_over_at_the_close_timeout(queued: bool) -> None:
    async with open_stage(close_timeout=30) as stage:
        await stage.net.polling()
        if queued:
            await stage.session.send("never collected")
        stage.session.close()
        assert await stage.end() == FORCED
        assert trio.current_time() == pytest.approx(30, abs=0.01)


async def test_heartbeat_goes_on_while_closing() -> None:
    async with open_stage(close_timeout=30, ping_interval=10, ping_timeout=5) as stage:
        await stage.net.polling()
        stage.session.close()
        assert await stage.end() == ("ping timeout", None)
        assert trio.current_time() == pytest.approx(15, abs=0.01)


@on_both_transports
async def test_closing_session_takes_nothing_more_in_either_direction(transport: str) -> None:
    async with open_stage() as stage:
        client = await closing_client(stage, transport)
        with pytest.raises(SessionClosed, match="forced close"):
            await stage.session.send("too late")
        await client.send("4too late", "3")
        await settle()
        assert await stage.close_reason() is None
        stage.session.close(discard=True)
        assert await receive_all(stage.session) == []


@on_both_transports
async def test_closing_session_can_be_closed_at_once(transport: str) -> None:
    async with open_stage() as stage:
        await closing_client(stage, transport)
        stage.session.close(discard=True)
        assert stage.session.closed_because == FORCED
        await stage.end()
        assert trio.current_time() <= 2


async def test_closing_session_ends_when_its_client_closes_it_too() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        stage.session.close(description="enough")
        assert await stage.close_reason() is None
        await client.post("1")
        assert await stage.end() == ("forced close", "enough")
        assert trio.current_time() == 0


@on_both_transports
async def test_closing_twice_is_closing_once(transport: str) -> None:
    async with open_stage() as stage:
        await closing_client(stage, transport)
        stage.session.close()
        assert await stage.close_reason() is None
        stage.session.close(discard=True)
        stage.session.close()
        stage.session.close(discard=True, description="too late to say")
        assert stage.session.closed_because == FORCED


async def closing_client(stage: Stage, transport: str) -> Client:
    """A client whose session is closing, and cannot deliver: it does not poll, or does not read its WebSocket."""
    if transport == "polling":
        client: Client = await stage.net.polling()
    else:
        client = await stage.net.engine_websocket(unread=True)
    await stage.session.send("queued")
    await settle()
    stage.session.close()
    return client


async def test_overlapping_polls_of_a_closing_session_end_it() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        stage.session.close()
        first = await client.start_poll()
        second = await client.start_poll()
        assert (await first.response()).packets == ["6", "1"]
        assert (await second.response()).status == 400
        assert await stage.end() == FORCED


async def test_dropped_poll_of_a_closing_session_ends_it() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        await client.probe()
        stage.session.close()
        await client.start_poll()
        await trio.sleep(1)
        assert await stage.close_reason() == FORCED


# WebSocket


async def test_messages_queued_before_a_graceful_close_reach_a_slow_websocket() -> None:
    async with open_stage() as stage:
        client = await stage.net.engine_websocket(unread=True)
        for number in range(10):
            await stage.session.send(str(number))
            await settle()
        stage.session.close()
        await trio.sleep(3)
        assert await stage.close_reason() is None
        assert [await client.recv() for _ in range(10)] == [f"4{number}" for number in range(10)]
        assert (await client.websocket.closed()).code == 1000
        assert await stage.end() == FORCED


async def test_graceful_close_of_a_websocket_that_does_not_read_is_over_at_the_close_timeout() -> None:
    async with open_stage(close_timeout=30) as stage:
        await stage.net.engine_websocket(unread=True)
        await stage.session.send("never read")
        await settle()
        stage.session.close()
        assert await stage.end() == FORCED
        assert trio.current_time() == pytest.approx(30, abs=0.01)


async def test_client_that_leaves_while_closing_is_a_transport_close() -> None:
    async with open_stage() as stage:
        client = await stage.net.engine_websocket(unread=True)
        await stage.session.send("never read")
        await settle()
        stage.session.close()
        await client.drop()
        assert (await stage.end())[0] in ("transport close", "transport error")


# What is told


@on_both_transports
async def test_description_of_a_close_is_kept(transport: str) -> None:
    async with open_stage() as stage:
        client = await stage.client(transport)
        stage.session.close(description="because")
        if isinstance(client, EioPolling):
            assert await client.poll() == ["6", "1"]
        assert await stage.end() == ("forced close", "because")


@on_both_transports
async def test_closed_session_has_no_transport_and_is_not_counted(transport: str) -> None:
    async with open_stage() as stage:
        await stage.client(transport)
        assert stage.session.transport == transport
        stage.session.close(discard=True)
        assert stage.session.transport is None
        assert stage.session.buffered_bytes == 0
        assert stage.engine.sessions == {}


@on_both_transports
async def test_close_cancels_the_tasks_of_the_session(transport: str) -> None:
    async with open_stage() as stage:
        cancelled: list[bool] = []

        @stage.engine.on("connection")
        async def connected(session: object) -> None:
            with trio.CancelScope() as scope:
                try:
                    await trio.sleep_forever()
                finally:
                    cancelled.append(trio.current_effective_deadline() == -math.inf)
            assert not scope.cancelled_caught

        await stage.client(transport)
        await settle()
        stage.session.close(discard=True)
        await stage.end()
        assert cancelled == [True]


# The engine's own close and drain


@on_both_transports
async def test_close_of_the_engine_ends_every_session_at_once(transport: str) -> None:
    async with open_stage() as stage:
        clients = [await stage.client(transport) for _ in range(3)]
        await stage.session.send("lost")
        await stage.engine.close()
        assert all(session.ended.is_set() for session in stage.sessions)
        assert [session.closed_because for session in stage.sessions] == [FORCED] * 3
        assert stage.engine.clients_count == 0
        assert trio.current_time() == 0
        for client in clients:
            assert await run_to_the_end(client)


async def test_close_of_the_engine_ends_sessions_that_are_closing_already() -> None:
    async with open_stage() as stage:
        await closing_client(stage, "polling")
        await closing_client(stage, "websocket")
        await stage.engine.close()
        assert [session.closed_because for session in stage.sessions] == [FORCED] * 2
        assert trio.current_time() == 0


@pytest.mark.parametrize("stage_of_upgrade", ["plain", "upgrading", "upgraded"])
async def test_close_of_the_engine_leaves_no_task(stage_of_upgrade: str) -> None:
    async with open_stage() as stage:
        tasks = count_tasks()
        client = await stage.net.polling()
        if stage_of_upgrade == "upgrading":
            websocket = await client.probe()
            await websocket.send("2probe")
            await websocket.recv()
        elif stage_of_upgrade == "upgraded":
            await client.upgrade()
        await stage.engine.close()
        await trio.sleep(5)
        assert count_tasks() == tasks


async def test_leaving_running_ends_every_session() -> None:
    engine = Engine()
    sessions: list[Session] = []
    engine.on("connection", sessions.append)
    async with trio.open_nursery() as nursery:
        net = Net(engine, nursery)
        async with engine.running():
            await net.polling()
            await (await net.polling()).probe()
            websocket = await net.engine_websocket()
            await net.engine_websocket(unread=True)
            sessions[0].close()
        assert [session.closed_because for session in sessions] == [FORCED] * 4
        assert engine.clients_count == 0
        assert (await websocket.websocket.closed()).code == 1000
        assert (await net.get(POLLING)).status == 503
        nursery.cancel_scope.cancel()


@on_both_transports
async def test_drain_delivers_what_is_queued_and_returns_when_all_have_left(transport: str) -> None:
    async with open_stage() as stage, trio.open_nursery() as nursery:
        client = await stage.client(transport)
        await stage.session.send("last words")
        nursery.start_soon(stage.engine.drain, 10)
        await settle()
        assert await client.recv() == "4last words"
        assert await run_to_the_end(client)
    assert stage.session.closed_because == FORCED


async def test_drain_without_sessions_returns_at_once() -> None:
    async with open_stage() as stage:
        await stage.engine.drain(10)
        assert trio.current_time() == 0


@pytest.mark.parametrize("query", [POLLING, WEBSOCKET])
async def test_drain_takes_no_new_sessions(query: str) -> None:
    async with open_stage() as stage, trio.open_nursery() as nursery:
        await stage.net.polling()
        nursery.start_soon(stage.engine.drain, 10)
        await settle()
        assert (await stage.net.request("GET", query)).status in (400, 503)
        assert (await stage.net.get(POLLING)).status == 503
        assert len(stage.sessions) == 1


@on_both_transports
async def test_drain_is_over_at_its_deadline_with_a_client_that_does_not_read(transport: str) -> None:
    async with open_stage() as stage:
        await closing_client(stage, transport)
        await (stage.net.polling() if transport == "polling" else stage.net.engine_websocket(unread=True))
        await stage.session.send("never read")
        await stage.engine.drain(3)
        assert trio.current_time() == pytest.approx(3, abs=0.01)
        assert stage.engine.clients_count == 0


async def test_cancelled_drain_closes_what_is_left() -> None:
    async with open_stage() as stage:
        await stage.net.polling()
        with trio.move_on_after(1) as scope:
            await stage.engine.drain(10)
        assert scope.cancelled_caught
        assert stage.engine.clients_count == 0


# No task outlives its session


@on_both_transports
@pytest.mark.parametrize("ending", ["close", "drop", "graceful", "discard", "timeout", "garbage", "wrong direction"])
async def test_no_task_is_left_however_the_session_ends(transport: str, ending: str) -> None:
    async with open_stage(ping_interval=2, ping_timeout=1) as stage:
        tasks = count_tasks()
        client = await stage.client(transport)
        if ending in ("close", "drop"):
            await (client.close() if ending == "close" else client.drop())
        elif ending in ("graceful", "discard"):
            stage.session.close(discard=ending == "discard")
        elif ending in ("garbage", "wrong direction"):
            with suppress(SessionLost):  # which a POST may see before its answer
                await client.send("garbage" if ending == "garbage" else "2")
        await stage.end()
        await trio.sleep(5)
        assert count_tasks() == tasks
        assert stage.engine.sessions == {}
