"""The driver of the JavaScript client, as far as that takes no server: its failures have to explain themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock

from .js_client import (
    AckError,
    ConnectError,
    DriverError,
    NodeMissing,
    State,
    find_node,
    from_json,
    open_driver,
    talk_to,
    to_json,
)

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from .js_client import Driver


@pytest.fixture
async def nowhere() -> str:
    """The address of a port on which nobody listens."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    return f"http://127.0.0.1:{port}"


def test_bytes_survive_the_way_to_node_at_any_depth() -> None:
    value = {"a": [b"\x00\xff", {"b": b""}], "c": None, "d": [1, 2.5, "x", True]}
    assert to_json(b"hi") == {"$binary": "aGk="}
    assert from_json(to_json(value)) == value


async def test_a_client_that_finds_no_server_says_so_at_once(js: Driver, nowhere: str) -> None:
    with pytest.raises(ConnectError) as caught, trio.fail_after(5):
        await js.connect(nowhere, transports=["websocket"])
    assert caught.value.args[0] == "websocket error"


async def test_a_client_that_is_not_connected_shows_it(js: Driver, nowhere: str) -> None:
    client = await js.open(nowhere, autoConnect=False)
    assert await client.state() == State(connected=False, active=False, id=None, recovered=False, transport=None)


async def test_a_failed_reconnection_is_recorded_step_by_step(js: Driver, nowhere: str) -> None:
    client = await js.open(nowhere, reconnection=True, reconnectionAttempts=2, reconnectionDelay=1)
    await client.wait_for("manager.reconnect_failed")
    assert await client.wait_for_many("manager.reconnect_attempt", 2) == [(1,), (2,)]
    assert [event.name for event in client.events].count("connect_error") == 3


async def test_an_ack_that_never_comes_is_an_error_of_the_client(js: Driver, nowhere: str) -> None:
    client = await js.open(nowhere, autoConnect=False)
    with pytest.raises(AckError, match="timed out"):
        await client.emit_with_ack("question", ack_timeout=0.01)


async def test_a_wait_in_vain_shows_what_did_come(js: Driver, nowhere: str) -> None:
    client = await js.open(nowhere)
    await client.wait_for("connect_error")
    with pytest.raises(DriverError) as caught:
        await client.wait_for("chat", patience=0.05)
    assert "'chat' for <JS client 0> did not come within 0.05 seconds" in str(caught.value)
    assert "<JS client 0> saw connect_error x1" in str(caught.value)


async def test_an_unknown_command_is_refused(js: Driver) -> None:
    with pytest.raises(DriverError, match="no such command: dance"):
        await js.call("dance")


async def test_the_end_of_node_ends_every_wait_and_shows_its_last_words(node: str, nowhere: str) -> None:
    async with open_driver() as js:
        client = await js.open(nowhere, autoConnect=False)
        await js._pipes.stdin.send_all(b"this is no JSON\n")
        with pytest.raises(DriverError, match=r"(?s)ended before 'chat'.*SyntaxError"):
            await client.wait_for("chat")


async def test_a_process_that_several_use_one_after_the_other_knows_nothing_of_the_last(
    driver_process: Callable[[], subprocess.Popen[bytes]], nowhere: str
) -> None:
    async with talk_to(driver_process()) as js:
        last = await js.open(nowhere, reconnection=True, reconnectionDelay=1)
        await last.wait_for("connect_error")
    async with talk_to(driver_process()) as js:
        assert js.process is driver_process()
        client = await js.open(nowhere, autoConnect=False)
        with pytest.raises(AckError, match="timed out"):
            await client.emit_with_ack("question", ack_timeout=0.05)
        assert client.events == []


async def test_a_process_that_cannot_be_reset_is_replaced(
    driver_process: Callable[[], subprocess.Popen[bytes]],
) -> None:
    process = driver_process()
    with pytest.raises(ZeroDivisionError):
        async with talk_to(process):
            raise ZeroDivisionError
    process.wait()
    async with talk_to(driver_process()) as js:
        assert js.process is not process
        assert await js.call("ping") == "pong"


async def test_what_the_body_raises_comes_out_unwrapped(node: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_driver():
            raise ZeroDivisionError


def test_a_mock_clock_is_refused_because_node_has_a_real_one() -> None:
    async def main() -> None:
        async with open_driver():
            pass

    with pytest.raises(RuntimeError, match="MockClock"):
        trio.run(main, clock=MockClock())


def test_a_missing_node_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIO_SOCKETIO_NODE", "/nowhere/node")
    with pytest.raises(NodeMissing, match="TRIO_SOCKETIO_NODE"):
        find_node()
