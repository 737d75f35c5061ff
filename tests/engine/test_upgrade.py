"""From polling to a WebSocket (Engine.IO protocol, "transport upgrading")."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import trio

from ..wire_client import WebSocketRefused, count_tasks, settle
from .stage import POLLING, WEBSOCKET, echo, open_stage, receive_all

if TYPE_CHECKING:
    from ..wire_client import EioPolling, WebSocketClient
    from .stage import Stage


async def probed(client: EioPolling) -> WebSocketClient:
    """A WebSocket whose probe has been answered."""
    websocket = await client.probe()
    await websocket.send("2probe")
    assert await websocket.recv() == "3probe"
    return websocket


async def works_on_polling(stage: Stage, client: EioPolling) -> bool:
    """Whether the session exchanges messages on polling, in both directions."""
    await client.send("4up")
    await stage.session.send("down")
    return await stage.session.receive() == "up" and "4down" in await client.poll()


async def can_upgrade(stage: Stage, client: EioPolling) -> bool:
    """Whether a new attempt succeeds."""
    websocket = await client.upgrade()
    await stage.session.send("on the websocket")
    return await websocket.recv() == "4on the websocket"


async def test_probe_is_answered_and_upgrade_moves_the_traffic() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        websocket = await probed(client)
        assert stage.session.transport == "polling"
        await websocket.send("5")
        await settle()
        assert stage.session.transport == "websocket"
        await websocket.send("4up")
        assert await stage.session.receive() == "up"
        await stage.session.send("down")
        assert await websocket.recv() == "4down"


async def test_request_of_an_upgraded_session_is_its_first() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        await client.upgrade()
        assert stage.session.request.query["transport"] == "polling"


async def test_probe_releases_a_pending_poll_with_a_noop() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        poll = await client.start_poll()
        await probed(client)
        assert (await poll.response()).packets == ["6"]
        assert trio.current_time() <= 0.1


async def test_polls_after_the_probe_are_released_within_a_tenth_of_a_second() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        await probed(client)
        for _ in range(5):
            before = trio.current_time()
            assert await client.poll() == ["6"]
            assert trio.current_time() - before <= 0.101


async def test_polling_carries_the_traffic_until_the_upgrade() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        websocket = await probed(client)
        assert await works_on_polling(stage, client)
        await websocket.send("5")
        await stage.session.send("next")
        assert await websocket.recv() == "4next"


async def test_what_is_queued_goes_out_on_the_websocket_in_order() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        for number in range(3):
            await stage.session.send(str(number))
        websocket = await client.upgrade()
        await stage.session.send("3")
        assert [await websocket.recv() for _ in range(4)] == ["40", "41", "42", "43"]


async def test_poll_still_pending_at_the_upgrade_is_told_to_close() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        websocket = await client.probe()
        poll = await client.start_poll()
        await websocket.send("5")
        assert (await poll.response()).packets == ["1"]
        assert await stage.close_reason() is None


async def test_upgrade_without_a_probe_is_taken() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        websocket = await client.probe()
        await websocket.send("5")
        await stage.session.send("x")
        assert await websocket.recv() == "4x"


async def test_message_right_behind_the_upgrade_packet_is_delivered() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        websocket = await probed(client)
        await websocket.send_raw(websocket.encode("5") + websocket.encode("4first") + websocket.encode("4second"))
        assert [await stage.session.receive() for _ in range(2)] == ["first", "second"]


async def test_upgrade_before_the_answer_to_the_probe_was_taken_keeps_the_order() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        websocket = await stage.net.websocket(f"{WEBSOCKET}&sid={client.sid}", unread=True)
        await websocket.send("2probe")
        await settle()
        await websocket.send("5")
        await settle()
        for number in range(3):
            await stage.session.send(str(number))
            await settle()
        assert [await websocket.recv() for _ in range(4)] == ["3probe", "40", "41", "42"]


async def test_upgraded_session_stops_reading_when_its_inbox_is_full() -> None:
    async with open_stage(max_inbox_messages=3) as stage:
        client = await stage.net.polling()
        websocket = await client.upgrade()
        for number in range(10):
            await websocket.send(f"4{number}")
            await settle()
        stage.session.close(discard=True)
        assert await receive_all(stage.session) == ["0", "1", "2"]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_polling_after_the_upgrade_is_a_mismatch_and_the_session_is_unaffected(method: str) -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        websocket = await client.upgrade()
        response = await stage.net.request(method, client.target)
        assert (response.status, response.json()) == (400, {"code": 3, "message": "Bad request"})
        context = {"name": "TRANSPORT_MISMATCH", "transport": "polling", "previousTransport": "websocket"}
        assert [error.context for error in stage.errors] == [context]
        await websocket.send("4x")
        assert await stage.session.receive() == "x"


async def test_post_on_its_way_at_the_upgrade_is_not_delivered_behind_the_clients_back() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        websocket = await probed(client)
        stream = stage.net.connect()
        head = f"POST {client.target} HTTP/1.1\r\nhost: example.com\r\ncontent-length: 5\r\n\r\n"
        await stream.send_all(head.encode() + b"4l")
        await settle()
        await websocket.send("5")
        await settle()
        await stream.send_all(b"ate")
        assert b" 400 " in await stream.receive_some()
        await websocket.send("4x")
        assert await stage.session.receive() == "x"


# What fails is the probe only


@pytest.mark.parametrize(
    "garbage", ["4message", "2", "3probe", "2other", "1", "6", "0{}", "", "garbage", "2probe2", "5x", b"5", b"2probe"]
)
@pytest.mark.parametrize("after_probe", [False, True])
async def test_anything_else_on_the_probing_websocket_closes_only_that(garbage: str | bytes, after_probe: bool) -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        websocket = await probed(client) if after_probe else await client.probe()
        await websocket.send(garbage)
        assert (await websocket.closed()).code == 1000
        assert await works_on_polling(stage, client)
        assert await can_upgrade(stage, client)


async def test_messages_behind_garbage_on_the_probing_websocket_are_not_delivered() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        websocket = await client.probe()
        frames = [websocket.encode(packet) for packet in ("4evil", "5", "4worse")]
        await websocket.send_raw(b"".join(frames))
        await websocket.closed()
        assert stage.session.transport == "polling"
        stage.session.close(discard=True)
        assert await receive_all(stage.session) == []


@pytest.mark.parametrize("raw", [b"\x81\x01x", b"\xff" * 20, b"\x82\xff" + (2**40).to_bytes(8, "big")])
async def test_violation_on_the_probing_websocket_closes_only_that(raw: bytes) -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        websocket = await client.probe()
        await websocket.send_raw(raw)
        await websocket.closed()
        assert await works_on_polling(stage, client)


@pytest.mark.parametrize("after_probe", [False, True])
@pytest.mark.parametrize("abruptly", [False, True])
async def test_end_of_the_probing_websocket_leaves_the_session_on_polling(after_probe: bool, abruptly: bool) -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        websocket = await probed(client) if after_probe else await client.probe()
        await (websocket.drop() if abruptly else websocket.close())
        await settle()
        assert await works_on_polling(stage, client)
        assert await can_upgrade(stage, client)


@pytest.mark.parametrize("after_probe", [False, True])
async def test_probe_that_takes_too_long_is_closed_and_polling_goes_on(after_probe: bool) -> None:
    async with open_stage(upgrade_timeout=10) as stage:
        client = await stage.net.polling()
        websocket = await probed(client) if after_probe else await client.probe()
        assert (await websocket.closed()).code == 1000
        assert trio.current_time() == pytest.approx(10, abs=0.01)
        assert await works_on_polling(stage, client)
        poll = await client.start_poll()
        await trio.sleep(5)
        await stage.session.send("no noops any more")
        assert (await poll.response()).packets == ["4no noops any more"]


async def test_timeout_of_the_probe_does_not_count_after_the_upgrade() -> None:
    async with open_stage(upgrade_timeout=10) as stage:
        client = await stage.net.polling()
        websocket = await client.upgrade()
        await trio.sleep(20)
        await stage.session.send("x")
        assert await websocket.recv() == "4x"


async def test_end_of_the_session_closes_the_probing_websocket() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        websocket = await probed(client)
        stage.session.close(discard=True)
        assert (await websocket.closed()).code == 1000
        assert await stage.end() == ("forced close", None)


async def test_overlap_while_probing_closes_session_and_websocket() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        websocket = await client.probe()
        await client.start_poll()
        await stage.net.get(client.target)
        assert (await websocket.closed()).code == 1000
        assert await stage.end() == ("transport error", "overlap from client")


# Requests for the upgrade that come at the wrong time


@pytest.mark.parametrize("upgraded", [False, True])
async def test_second_websocket_for_an_upgrading_or_upgraded_session_is_closed_at_once(upgraded: bool) -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        first = await probed(client)
        if upgraded:
            await first.send("5")
        second = await client.probe()
        assert (await second.closed()).code == 1000
        if not upgraded:
            assert await works_on_polling(stage, client)
            await first.send("5")
        await first.send("4x")
        assert await stage.session.receive() == "x"
        assert not stage.errors


async def test_websocket_for_a_session_that_began_on_one_is_closed_at_once() -> None:
    async with open_stage() as stage:
        client = await stage.net.engine_websocket()
        second = await stage.net.websocket(f"{WEBSOCKET}&sid={client.sid}")
        assert (await second.closed()).code == 1000
        await client.send("4x")
        assert await stage.session.receive() == "x"


@pytest.mark.parametrize("known", [False, True])
async def test_websocket_that_says_polling_is_accepted_and_closed_at_once(known: bool) -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        websocket = await stage.net.websocket(f"{POLLING}&sid={client.sid}" if known else POLLING)
        assert (await websocket.closed()).code == 1000
        assert stage.engine.clients_count == 1
        assert await works_on_polling(stage, client)


async def test_websocket_for_an_unknown_session_is_refused() -> None:
    async with open_stage() as stage:
        with pytest.raises(WebSocketRefused, match="Session ID unknown"):
            await stage.net.websocket(f"{WEBSOCKET}&sid=nobody")
        assert [error.code for error in stage.errors] == [1]


async def test_upgrade_is_not_refused_if_it_was_not_offered() -> None:
    async with open_stage(allow_upgrades=False) as stage:
        client = await stage.net.polling()
        websocket = await client.upgrade()
        await websocket.send("4x")
        assert await stage.session.receive() == "x"


# Closing


async def test_upgrade_of_a_closing_session_delivers_what_is_queued_and_closes() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        websocket = await probed(client)
        await stage.session.send("last words")
        stage.session.close()
        assert await stage.close_reason() is None
        await websocket.send("5")
        assert await websocket.recv() == "4last words"
        assert (await websocket.closed()).code == 1000
        assert await stage.end() == ("forced close", None)


async def test_closing_session_with_nothing_queued_closes_when_the_upgrade_completes() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        websocket = await client.probe()
        stage.session.close()
        assert await stage.close_reason() is None
        await websocket.send("5")
        assert (await websocket.closed()).code == 1000
        assert await stage.end() == ("forced close", None)
        assert trio.current_time() == 0


async def test_failed_probe_leaves_a_closing_session_closing() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        websocket = await client.probe()
        stage.session.close()
        await websocket.close()
        await settle()
        assert await client.poll() == ["6", "1"]
        assert await stage.end() == ("forced close", None)


async def test_closing_session_cannot_be_probed(caplog: pytest.LogCaptureFixture) -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        stage.session.close()
        websocket = await client.probe()
        assert (await websocket.closed()).code == 1000
        assert await stage.close_reason() is None
        assert await client.poll() == ["6", "1"]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_upgraded_session_ends_with_its_websocket() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        websocket = await client.upgrade()
        await websocket.close()
        assert await stage.end() == ("transport close", None)


# Traffic, and floods


async def test_fifty_messages_each_way_across_an_upgrade_are_neither_lost_nor_reordered() -> None:
    messages = [f"4{number}" for number in range(50)]
    async with open_stage() as stage, trio.open_nursery() as nursery:
        echo(stage.engine)
        client = await stage.net.polling()
        received: list[str | bytes] = []

        async def collect_polls() -> None:
            while stage.session.transport == "polling":
                received.extend(packet for packet in await client.poll() if packet not in "61")
                if "415" in received:
                    break

        nursery.start_soon(collect_polls)
        for message in messages[:25]:
            await client.send(message)
            await trio.sleep(0.002)
        websocket = await client.upgrade()
        for message in messages[25:]:
            await websocket.send(message)
            await trio.sleep(0.002)
        while len(received) < 50:
            received.append(await websocket.recv())
        assert received == messages


async def test_flood_of_probes_and_pings_starts_no_tasks() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        websocket = await probed(client)
        await settle()
        tasks = count_tasks()
        await websocket.send_raw(websocket.encode("2probe") * 1000)
        await settle()
        assert count_tasks() == tasks
        assert await websocket.recv() == "3probe"


async def test_flood_of_probes_to_a_client_that_does_not_read_is_answered_within_bounds() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        websocket = await stage.net.websocket(f"{WEBSOCKET}&sid={client.sid}", unread=True)
        await settle()
        tasks = count_tasks()
        for _ in range(1000):
            await websocket.send("2probe")
        await settle()
        assert count_tasks() <= tasks + 2, "one that writes the answer, one that releases polls"
        assert await works_on_polling(stage, client)


@pytest.mark.parametrize("packet", ["3", "5", "6", "0"])
async def test_flood_of_control_packets_starts_no_tasks(packet: str) -> None:
    async with open_stage() as stage:
        client = await stage.net.engine_websocket()
        await settle()
        tasks = count_tasks()
        await client.websocket.send_raw(client.websocket.encode(packet) * 1000)
        await settle()
        assert count_tasks() == tasks
        assert await stage.close_reason() is None


async def test_failed_probes_by_the_dozen_leave_no_task() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        await settle()
        tasks = count_tasks()
        for _ in range(30):
            websocket = await probed(client)
            await websocket.send("garbage")
            await websocket.closed()
            await websocket.drop()
        await trio.sleep(1)
        assert count_tasks() == tasks
        assert await works_on_polling(stage, client)
