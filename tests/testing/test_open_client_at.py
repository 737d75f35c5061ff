"""The client of the kit on TCP, in real time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import ConnectionRefused, Server, SocketDisconnected
from trio_socketio.testing import MemoryClient, TrioStepper, open_client_at

if TYPE_CHECKING:
    from collections.abc import Iterator

BIG = 500_000  # bytes; more than the client reads at once


@pytest.fixture
def stepper() -> Iterator[TrioStepper]:
    with TrioStepper(real_time=True, step_limit=20) as stepper:
        yield stepper


@pytest.fixture
def io() -> Server:
    io = Server()
    io.handle("echo", lambda socket, *args: args)
    return io


@pytest.fixture
def url(stepper: TrioStepper, io: Server) -> str:
    async def serve() -> str:
        listeners = await stepper.nursery.start(partial(io.serve_tcp, 0, host="127.0.0.1"))
        return f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"

    return stepper.run(serve)


def connect(stepper: TrioStepper, url: str, **options: Any) -> MemoryClient:
    return stepper.run(stepper.enter, open_client_at(url, **options))


@pytest.mark.parametrize(
    ("options", "transport"),
    [
        ({}, "websocket"),
        ({"transport": "polling"}, "polling"),
        ({"transport": "polling", "upgrade": True}, "websocket"),
    ],
)
def test_events_and_acknowledgements_go_both_ways(
    stepper: TrioStepper, url: str, io: Server, options: dict[str, Any], transport: str
) -> None:
    client = connect(stepper, url, **options)
    assert client.transport == transport
    assert stepper.run(client.emit_with_ack, "echo", 1, b"\x00") == (1, b"\x00")
    stepper.run(io.emit, "chat", "hello", b"\x01")
    assert stepper.run(client.receive) == ("chat", "hello", b"\x01")


def test_the_context_leaves_nothing_behind(stepper: TrioStepper, url: str, io: Server) -> None:
    async def visit() -> None:
        async with open_client_at(url) as client:
            assert io.statistics().sockets == 1
            assert await client.emit_with_ack("echo", 1) == 1
        while io.statistics().sockets:  # noqa: ASYNC110
            await trio.lowlevel.checkpoint()

    stepper.run(visit)
    assert io.statistics() == type(io.statistics())()


def test_a_lost_connection_is_noticed_on_both_sides_and_can_be_made_again(
    stepper: TrioStepper, url: str, io: Server
) -> None:
    gone = trio.Event()
    io.handle("disconnect", lambda socket, reason, details: gone.set())
    client = connect(stepper, url)
    stepper.run(client.drop)
    stepper.run(gone.wait)
    assert not client.connected
    stepper.run(client.reconnect)
    assert stepper.run(client.emit_with_ack, "echo", 2) == 2


def test_a_client_that_does_not_read_gets_everything_later(stepper: TrioStepper, url: str, io: Server) -> None:
    async def scenario() -> None:
        async with open_client_at(url) as client:
            client.stop_reading()
            await io.emit("big", b"\x00" * BIG)
            await io.emit("small")
            assert await client.receive_all() == []
            client.resume_reading()
            assert [(await client.receive()).name, (await client.receive()).name] == ["big", "small"]

    stepper.run(scenario)


def test_a_refusal_has_the_server_s_words(stepper: TrioStepper, url: str) -> None:
    with pytest.raises(ConnectionRefused, match="Invalid namespace"):
        connect(stepper, url, namespace="/unknown")
    with pytest.raises(ConnectionRefused) as caught:
        connect(stepper, url, path="/elsewhere/")
    assert caught.value.data["status"] == 404


def test_where_nobody_listens_nobody_is_connected(stepper: TrioStepper, url: str) -> None:
    with pytest.raises(SocketDisconnected):
        connect(stepper, "http://127.0.0.1:1")


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_where_nobody_answers_nobody_is_connected(stepper: TrioStepper, transport: str) -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.aclose()

    async def serve() -> str:
        listeners = await stepper.nursery.start(partial(trio.serve_tcp, hang_up, 0, host="127.0.0.1"))
        return f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"

    with pytest.raises(SocketDisconnected):
        connect(stepper, stepper.run(serve), transport=transport)


@pytest.mark.parametrize("url", ["https://127.0.0.1", "127.0.0.1:3000", "http://127.0.0.1/chat", "http://:3000"])
def test_other_urls_are_refused(stepper: TrioStepper, url: str) -> None:
    with pytest.raises(ValueError, match="http://host:port"):
        connect(stepper, url)
