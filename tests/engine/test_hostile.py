"""Clients that mean ill, and listeners that fail: whoever is not part of it notices nothing."""

from __future__ import annotations

import logging
from contextlib import suppress
from itertools import product
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_socketio.engineio import ConnectionRefused, Engine

from ..wire_client import WEBSOCKET_HEADERS, Net, WebSocketRefused, count_tasks, settle
from .stage import POLLING, WEBSOCKET, Stage, on_both_transports, open_stage, run_in_virtual_time

if TYPE_CHECKING:
    from trio_socketio.engineio import Request

TRANSPORTS = (None, "polling", "websocket", "tobi", "__proto__")
VERSIONS = (None, "3", "4", "abc")
SIDS = (None, "", "nobody", "polling", "websocket")
METHODS = ("GET", "POST", "PUT", "upgrade")


def errors_in(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


async def is_well(stage: Stage) -> bool:
    """Whether a new client on each transport is served."""
    for transport in ("polling", "websocket"):
        client = await stage.client(transport)
        await client.send("4x")
        if await stage.session.receive() != "x":
            return False
        await client.close()
    return True


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("guarded", [False, True])
async def test_every_combination_of_parameters_is_answered_and_breaks_nothing(
    method: str, guarded: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_stage() as stage:
        if guarded:
            stage.engine.use(lambda request: None)
        for transport, version, sid in product(TRANSPORTS, VERSIONS, SIDS):
            sids = {"polling": (await stage.net.polling()).sid, "websocket": (await stage.net.engine_websocket()).sid}
            given = {"transport": transport, "EIO": version, "sid": sids.get(sid or "", sid)}
            query = "?" + "&".join(f"{name}={value}" for name, value in given.items() if value is not None)
            upgrade = method == "upgrade"
            body = b"4x" if method == "POST" else b""
            headers = WEBSOCKET_HEADERS if upgrade else {}
            exchange = await stage.net.start("GET" if upgrade else method, query, headers, body)
            status = 0
            with trio.move_on_after(0.01):
                status = (await exchange.response()).status
            expected = {0, 101, 200, 400}
            if method == "PUT" and sid == transport == "polling":
                expected = {500}
            assert status in expected, (method, query)
            await exchange.drop()
            await stage.engine.close()
        assert await is_well(stage)
    assert errors_in(caplog) == []


@pytest.mark.parametrize("upgrading", [False, True])
async def test_connection_lost_after_any_byte_of_an_upgrade_costs_nobody_anything(
    upgrading: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        target = stage.net.target(WEBSOCKET + (f"&sid={client.sid}" if upgrading else ""))
        lines = [f"GET {target} HTTP/1.1", "host: example.com"]
        lines += [f"{name}: {value}" for name, value in WEBSOCKET_HEADERS.items()]
        request = "\r\n".join([*lines, "", ""]).encode() + b"\x81\x86\x00\x00\x00\x002probe\x81\x81\x00\x00\x00\x006"
        await settle()
        for end in range(0, len(request) + 1, 3):
            stream = stage.net.connect()
            await stream.send_all(request[:end])
            await settle()
            await trio.aclose_forcefully(stream)
            await settle()
        await client.send("4x")
        assert await stage.sessions[0].receive() == "x"
        await trio.sleep(10)
        assert stage.engine.clients_count == 1
    assert errors_in(caplog) == []


async def send_noise(pieces: list[bytes], transport: str) -> None:
    async with open_stage(max_http_buffer_size=1000) as stage:
        other = await stage.net.polling()
        client = await stage.client(transport)
        if transport == "polling":
            await stage.net.post(f"{POLLING}&sid={client.sid}", b"".join(pieces))
        else:
            websocket = await stage.net.websocket(f"{WEBSOCKET}&sid={client.sid}")
            with suppress(trio.BrokenResourceError):
                for piece in pieces:
                    await websocket.send_raw(piece)
            await websocket.drop()
        await other.send("4x")
        assert await stage.sessions[0].receive() == "x"


frames = st.sampled_from(
    [bytes([first, second]) for first in (0x81, 0x82, 0x01, 0x89, 0x88) for second in (0x80, 0x84)]
)
noise = st.lists(st.binary(max_size=20) | frames | st.sampled_from([b"4x", b"\x1e", b"b", b"1", b"2probe"]), max_size=8)


@settings(max_examples=60)
@given(noise, st.sampled_from(["polling", "websocket"]))
def test_noise_costs_the_other_sessions_nothing(pieces: list[bytes], transport: str) -> None:
    run_in_virtual_time(send_noise, pieces, transport)


async def test_hundreds_of_refused_requests_leave_no_task_and_no_session() -> None:
    async with open_stage() as stage:
        await settle()
        tasks = count_tasks()
        for _ in range(200):
            await stage.net.post(POLLING, b"4x")
        await settle()
        assert count_tasks() == tasks
        assert stage.engine.clients_count == 0


# Listeners that fail


@on_both_transports
async def test_failing_listener_of_connection_error_costs_that_request_only(
    transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_stage() as stage:
        stage.engine.on("connection_error", lambda error: 1 // 0)
        query = f"?EIO=3&transport={transport}"
        response = await stage.net.request("GET", query, WEBSOCKET_HEADERS if transport == "websocket" else {})
        assert response.status == 500
        assert await is_well(stage)
    assert len(errors_in(caplog)) == 1


@pytest.mark.parametrize("waits_for", ["allow_request", "generate_id"])
async def test_engine_that_stops_while_a_client_connects_answers_503(waits_for: str) -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(Engine(allow_request=wait_a_second if waits_for == "allow_request" else None))
        if waits_for == "generate_id":
            stage.engine.generate_id = slow_id
        net = Net(stage.engine, nursery)
        async with stage.engine.running():
            exchanges = [
                await net.start("GET", POLLING),
                await net.start("GET", WEBSOCKET, WEBSOCKET_HEADERS),
            ]
            await settle()
        assert (await exchanges[0].response()).status == 503
        with pytest.raises(WebSocketRefused, match="503"):
            await exchanges[1].websocket()
        assert not stage.sessions
        nursery.cancel_scope.cancel()


async def wait_a_second(request: Request) -> bool:
    await trio.sleep(1)
    return True


async def slow_id(request: Request) -> str:
    await trio.sleep(1)
    return "slow"


async def test_two_drains_at_once_both_return_when_the_last_client_has_left() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        returned: list[float] = []

        async def drain() -> None:
            await stage.engine.drain(100)
            returned.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            nursery.start_soon(drain)
            await trio.sleep(1)
            assert await client.poll() == ["6", "1"]
        assert returned == [1, 1]


async def test_refusal_by_a_middleware_of_many_clients_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with open_stage() as stage:

        @stage.engine.use
        def refuse(request: Request) -> None:
            raise ConnectionRefused

        for _ in range(50):
            await stage.net.get(POLLING)
        assert len(stage.errors) == 50
    assert caplog.records == []
