"""The end of a server: closing, draining, leaving `running`, and being cancelled.

Clients are raw where their connections are cancelled together with the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from trio_socketio import NotRunning, Server, ServerStatistics

from ..wire_client import Net, count_tasks, open_app, settle
from .support import TRANSPORTS, open_server, stop_polling, warnings

if TYPE_CHECKING:
    from trio_socketio import Socket
    from trio_socketio.testing.pytest_plugin import OpenClient

SHUTTING_DOWN = "server shutting down"


class Ends:
    """Notes the reasons that all sockets of a server are told, from handlers that take their time."""

    def __init__(self, io: Server, seconds: float = 0.5) -> None:
        self.reasons: list[str] = []
        self.cancelled = 0
        self._seconds = seconds
        io.on("connection", self._listen)

    def _listen(self, socket: Socket) -> None:
        async def disconnect(reason: str) -> None:
            try:
                await trio.sleep(self._seconds)
            except trio.Cancelled:
                self.cancelled += 1
                raise
            self.reasons.append(reason)

        socket.on("disconnect", disconnect)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_close_tells_every_socket_and_returns_when_their_handlers_are_over(
    transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    io = Server()
    io.of("/other")
    ends = Ends(io)
    async with open_server(io) as server:
        clients = [await server.client(transport=transport) for _ in range(3)]
        clients.append(await clients[0].of("/other"))
        begun = trio.current_time()

        await io.close()

        assert ends.reasons == [SHUTTING_DOWN] * 3
        assert trio.current_time() - begun == pytest.approx(0.5)
        assert io.statistics() == ServerStatistics()
        for client in clients:
            assert (await client.wait_disconnected()).startswith("transport ")  # and no DISCONNECT before it
        assert not warnings(caplog)


async def test_after_close_a_server_that_runs_takes_new_clients() -> None:
    async with open_server() as server:
        await server.connect()
        await server.io.close()

        client, socket = await server.connect()
        await socket.emit("welcome")
        await client.close()
        await socket.ended.wait()

        assert socket.conn.closed_because == ("transport close", None)


async def test_close_while_nothing_runs_does_nothing() -> None:
    io = Server()

    await io.close()

    assert not io.is_running


async def test_close_twice_at_once_tells_everybody_once() -> None:
    io = Server()
    ends = Ends(io)
    async with open_server(io) as server:
        await server.connect_many(2)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(io.close)
            nursery.start_soon(io.close)

        assert ends.reasons == [SHUTTING_DOWN] * 2


async def test_close_in_a_handler_ends_that_handler_too() -> None:
    io = Server()
    ends = Ends(io)
    steps: list[str] = []

    async def shut_down() -> None:
        await io.close()
        steps.append("not reached: the session of this task is closed")

    io.on("connection", lambda socket: socket.on("shut down", shut_down))
    async with open_server(io) as server:
        pairs = await server.connect_many(3)
        await pairs[1].client.emit("shut down")
        await trio.sleep(1)

        assert ends.reasons == [SHUTTING_DOWN] * 3
        assert steps == []


# Draining


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_draining_delivers_what_is_queued_and_says_goodbye(transport: str) -> None:
    io = Server()
    ends = Ends(io)
    async with open_server(io) as server, trio.open_nursery() as nursery:
        client, socket = await server.connect(transport=transport)
        await socket.emit("last words")

        nursery.start_soon(io.drain, 10.0)
        await settle()

        assert await client.receive_all() == [("last words",)]
        assert await client.wait_disconnected() == "transport close"
        await trio.sleep(1)
        assert ends.reasons == [SHUTTING_DOWN]


async def test_while_draining_no_new_client_is_let_in() -> None:
    async with open_server() as server, trio.open_nursery() as nursery:
        await stop_polling(*await server.connect(transport="polling"))  # it does not come to collect its goodbye
        nursery.start_soon(server.io.drain, 10.0)
        await settle()

        assert (await server.net.get("?EIO=4&transport=polling")).status == 503


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_draining_is_over_at_its_deadline_whatever_clients_do(transport: str) -> None:
    io = Server()
    ends = Ends(io)
    async with open_server(io) as server:
        client, socket = await server.connect(transport=transport)
        await stop_polling(client, socket)  # nor read
        await socket.emit("unread", "." * 100_000)
        await settle()
        begun = trio.current_time()

        await io.drain(3.0)

        assert trio.current_time() - begun == pytest.approx(3)
        assert io.engine.clients_count == 0
        await trio.sleep(3)
        assert ends.reasons == [SHUTTING_DOWN]


async def test_a_cancelled_drain_closes_at_once() -> None:
    io = Server()
    ends = Ends(io)
    async with open_server(io) as server:
        await stop_polling(*await server.connect(transport="polling"))

        with trio.move_on_after(1) as scope:
            await io.drain(100.0)
        assert scope.cancelled_caught
        await trio.sleep(1)

        assert ends.reasons == [SHUTTING_DOWN]
        assert io.statistics() == ServerStatistics()


async def test_draining_a_server_that_does_not_run_is_an_error() -> None:
    with pytest.raises(NotRunning):
        await Server().drain(1.0)


# Leaving `running`, and being cancelled


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_leaving_running_waits_for_the_handlers_of_all_sockets(transport: str, memory_client: OpenClient) -> None:
    io = Server()
    ends = Ends(io)
    tasks = count_tasks()
    async with io.running():
        for _ in range(3):
            await memory_client(io, transport=transport)

    assert sorted(ends.reasons) == [SHUTTING_DOWN] * 3
    assert io.statistics() == ServerStatistics()
    assert not io.is_running
    await trio.sleep(5)
    assert count_tasks() - tasks == 3  # in which the fixture holds the clients


async def test_an_error_in_the_body_leaves_as_itself_after_the_handlers(memory_client: OpenClient) -> None:
    io = Server()
    ends = Ends(io)

    async def serve() -> None:
        async with io.running():
            await memory_client(io)
            raise KeyError

    with pytest.raises(KeyError):
        await serve()

    assert ends.reasons == [SHUTTING_DOWN]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("connections_too", [False, True])
@pytest.mark.parametrize("attempt", range(3))  # because Trio wakes the tasks of a tick in a random order
async def test_a_cancelled_server_tells_every_socket_once_that_it_is_over(
    transport: str, connections_too: bool, attempt: int, caplog: pytest.LogCaptureFixture
) -> None:
    io = Server()
    ends = Ends(io)
    async with open_app(io, running=False) as outside, trio.open_nursery() as nursery:
        await nursery.start(io.run)
        net = Net(io, nursery) if connections_too else outside
        for _ in range(2):
            client = await net.connect_socketio(transport=transport)
            nursery.start_soon(client.recv_nothing, 1000)  # on polling, with a GET that pends
        await settle()
        nursery.cancel_scope.cancel()

    assert len(ends.reasons) == 2
    # A request or WebSocket that is cancelled in the same tick may be the first to end its session.
    assert set(ends.reasons) <= (
        {SHUTTING_DOWN, "forced close", "transport error"} if connections_too else {SHUTTING_DOWN}
    )
    assert io.statistics() == ServerStatistics()
    assert not warnings(caplog)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_cancelled_server_is_over_at_the_deadline_of_its_handlers(
    transport: str, memory_client: OpenClient
) -> None:
    io = Server(disconnect_timeout=2.0)
    ends = Ends(io, seconds=1000)
    begun = trio.current_time()
    with trio.CancelScope() as scope:
        async with io.running():
            for _ in range(3):
                await memory_client(io, transport=transport)
            scope.cancel()
            await trio.sleep_forever()

    assert trio.current_time() - begun == pytest.approx(2)
    assert (ends.reasons, ends.cancelled) == ([], 3)
    assert io.statistics() == ServerStatistics()


async def test_whoever_waits_for_close_is_let_go_when_the_server_is_cancelled(memory_client: OpenClient) -> None:
    io = Server()
    io.of("/other")
    ends = Ends(io, seconds=1)
    closed: list[float] = []
    async with trio.open_nursery() as outside:

        async def close() -> None:
            await io.close()
            closed.append(trio.current_time())

        with trio.CancelScope() as scope:
            async with io.running():
                client = await memory_client(io)
                await client.of("/other")  # two sockets: their ends are awaited together
                outside.start_soon(close)
                await settle()
                scope.cancel()
                await trio.sleep_forever()
        await trio.sleep(10)

        assert len(closed) == 1
        assert ends.reasons == [SHUTTING_DOWN]


async def test_a_server_can_run_again_but_not_twice_at_once(memory_client: OpenClient) -> None:
    io = Server()
    ids: list[str] = []
    for _ in range(2):
        async with io.running():
            ids.append((await memory_client(io)).id)
            with pytest.raises(RuntimeError, match="running already"):
                async with io.running():
                    pass

    assert len(set(ids)) == 2


async def test_a_socket_of_a_server_that_has_stopped_is_an_ended_one(memory_client: OpenClient) -> None:
    io = Server()
    async with io.running():
        client = await memory_client(io)
        socket = io.sockets.sockets[client.id]

    await io.emit("to nobody")
    with pytest.raises(trio.BrokenResourceError, match=SHUTTING_DOWN):
        await socket.emit("x")
