"""How sockets end: what their handlers see and are told, exactly once, whoever ends them and whenever.

Clients that stay without a namespace, or leave before they know that they are in one, speak for themselves (`serving`).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import Server, ServerStatistics, SocketDisconnected

from ..wire_client import SessionLost, settle
from .support import TRANSPORTS, dismissed, open_server, serving, stop_polling, warnings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_socketio import Socket
    from trio_socketio.testing import MemoryClient

    from .support import OpenServer


class Ends:
    """Notes what the handlers of a socket are told at its end."""

    def __init__(self, socket: Socket) -> None:
        self.told: list[tuple[str, str, frozenset[str], bool]] = []
        self.descriptions: list[str | None] = []
        socket.on("disconnecting", lambda reason: self._note("disconnecting", reason, socket))
        socket.on("disconnect", lambda reason: self._note("disconnect", reason, socket))
        socket.on("disconnect", lambda reason, description: self.descriptions.append(description))

    def _note(self, event: str, reason: str, socket: Socket) -> None:
        self.told.append((event, reason, socket.rooms, socket.connected))

    @property
    def reasons(self) -> list[tuple[str, str]]:
        return [(event, reason) for event, reason, *_ in self.told]


def once(reason: str) -> list[tuple[str, str]]:
    return [("disconnecting", reason), ("disconnect", reason)]


async def test_disconnecting_sees_the_rooms_and_disconnect_sees_none() -> None:
    async with open_server() as server:
        client, socket = await server.connect()
        await socket.join("a")
        ends = Ends(socket)

        await client.disconnect()
        await socket.ended.wait()

        rooms = frozenset((socket.id, "a"))
        reason = "client namespace disconnect"
        assert ends.told == [("disconnecting", reason, rooms, True), ("disconnect", reason, frozenset(), False)]
        assert socket.id not in server.io.sockets.sockets


async def by_violation(server: OpenServer, client: MemoryClient, socket: Socket) -> None:
    await client.send_raw("40")


async def by_closing_the_session(server: OpenServer, client: MemoryClient, socket: Socket) -> None:
    socket.conn.close()


async def by_discarding_the_session(server: OpenServer, client: MemoryClient, socket: Socket) -> None:
    socket.conn.close(discard=True)


async def by_silence(server: OpenServer, client: MemoryClient, socket: Socket) -> None:
    client.stop_reading()
    await trio.sleep(60)


async def by_an_unknown_packet(server: OpenServer, client: MemoryClient, socket: Socket) -> None:
    await client.send_raw("x")


async def by_a_ping(server: OpenServer, client: MemoryClient, socket: Socket) -> None:
    await client.send_raw("2")


PATHS: dict[str, tuple[Callable[[OpenServer, MemoryClient, Socket], Awaitable[Any]], str]] = {
    "client leaves the namespace": (lambda s, client, _: client.disconnect(), "client namespace disconnect"),
    "socket.disconnect()": (lambda s, c, socket: socket.disconnect(), "server namespace disconnect"),
    "socket.disconnect(close=True)": (
        lambda s, c, socket: socket.disconnect(close=True),
        "server namespace disconnect",
    ),
    "disconnect_sockets()": (lambda served, c, s: served.io.disconnect_sockets(), "server namespace disconnect"),
    "io.close()": (lambda served, c, s: served.io.close(), "server shutting down"),
    "client closes": (lambda s, client, _: client.close(), "transport close"),
    "silence": (by_silence, "ping timeout"),
    "unknown engine packet": (by_an_unknown_packet, "parse error"),
    "ping from the client": (by_a_ping, "transport error"),
    "session discarded": (by_discarding_the_session, "forced close"),
}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("path", PATHS)
async def test_every_way_to_end_is_told_exactly_once_with_its_reason(
    path: str, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    end, reason = PATHS[path]
    async with open_server() as server:
        client, socket = await server.connect(transport=transport)
        ends = Ends(socket)

        with suppress(SocketDisconnected):  # what a client that is cut off sees is not the point here
            await end(server, client, socket)
        with trio.fail_after(60):
            await socket.ended.wait()

        assert ends.reasons == once(reason)
        assert not warnings(caplog)


@pytest.mark.parametrize(
    ("end", "transport", "reason"),
    [
        (by_violation, "websocket", "forced close"),
        (by_violation, "polling", "forced server close"),
        (by_closing_the_session, "websocket", "forced close"),
        (by_closing_the_session, "polling", "forced close"),
    ],
)
async def test_the_reason_of_a_forced_close_says_whether_it_had_to_be_deferred(
    end: Callable[..., Awaitable[None]], transport: str, reason: str
) -> None:
    async with open_server() as server:
        client, socket = await server.connect(transport=transport)
        if transport == "polling":
            await stop_polling(client, socket)
        ends = Ends(socket)

        await end(server, client, socket)
        await settle()
        if transport == "polling":
            client.resume_reading()
        await socket.ended.wait()

        assert ends.reasons == once(reason)


@pytest.mark.parametrize(("transport", "reason"), [("websocket", "transport close"), ("polling", "transport error")])
async def test_a_client_that_vanishes_is_noticed_by_its_transport(transport: str, reason: str) -> None:
    async with open_server() as server:
        client, socket = await server.connect(transport=transport)
        ends = Ends(socket)

        await client.drop()
        await socket.ended.wait()

        assert ends.reasons == once(reason)


async def test_the_description_says_more_than_the_reason() -> None:
    async with open_server() as server:
        client, socket = await server.connect()
        ends = Ends(socket)

        await client.send_raw("44{}")
        await socket.ended.wait()

        assert ends.descriptions == ["CONNECT_ERROR from a client"]


async def test_what_a_client_of_several_namespaces_is_told_when_one_of_them_ends() -> None:
    async with open_server() as server:
        names = ("/", "/a", "/b")
        for name in names:
            server.io.of(name)
        client = await server.client()
        clients = [client, await client.of("/a"), await client.of("/b")]
        sockets = [server.socket_of(client) for client in clients]
        ends = [Ends(socket) for socket in sockets]

        await sockets[1].disconnect()
        assert await dismissed(clients[1])
        assert [socket.connected for socket in sockets] == [True, False, True]

        await sockets[2].disconnect(close=True)
        assert [await dismissed(client) for client in clients] == [True] * 3
        assert [packet.data for packet in client.wire if packet.sender == "server"][-3:] == ["41/a,", "41", "41/b,"]
        for socket in sockets:
            await socket.ended.wait()

        assert [each.reasons for each in ends] == [once("server namespace disconnect")] * 3


async def test_a_session_without_namespaces_stays() -> None:
    async with serving() as served:
        client, socket = await served.connect()

        await socket.disconnect()

        assert await client.recv() == "1"
        assert served.io.statistics() == ServerStatistics(sessions=1, connections=1)
        assert "sid" in await client.join("/")


async def test_data_is_readable_until_after_the_end() -> None:
    async with open_server() as server:
        client, socket = await server.connect()
        seen: list[Any] = []
        socket.data["user"] = "ann"
        socket.on("disconnect", lambda: seen.append(socket.data["user"]))

        await client.close()
        await socket.ended.wait()

        assert seen == ["ann"]
        assert socket.data == {"user": "ann"}


# Handlers at the end


async def test_async_handlers_are_shielded_and_run_one_after_the_other() -> None:
    async with open_server() as server:
        client, socket = await server.connect()
        steps: list[str] = []

        def handler(name: str) -> Callable[[], Awaitable[None]]:
            async def run() -> None:
                await trio.sleep(1)
                steps.append(name)

            return run

        for name in ("disconnecting", "disconnect"):
            socket.on(name, handler(f"first {name}"))
            socket.on(name, handler(f"second {name}"))
        await client.close()
        await socket.ended.wait()

        assert steps == ["first disconnecting", "second disconnecting", "first disconnect", "second disconnect"]


async def test_handlers_at_the_end_are_over_at_their_deadline() -> None:
    async with open_server(disconnect_timeout=2.0) as server:
        client, socket = await server.connect()
        steps: list[str] = []

        async def stuck(name: str) -> None:
            steps.append(name)
            try:
                await trio.sleep_forever()
            finally:
                steps.append(f"{name} cancelled")

        async def disconnecting() -> None:
            await stuck("disconnecting")

        async def disconnect() -> None:
            await stuck("disconnect")

        socket.on("disconnecting", disconnecting)
        socket.on("disconnect", disconnect)
        begun = trio.current_time()
        await client.close()
        await socket.ended.wait()

        assert trio.current_time() - begun == pytest.approx(4)
        assert steps == ["disconnecting", "disconnecting cancelled", "disconnect", "disconnect cancelled"]
        assert socket.rooms == frozenset()


async def test_a_task_that_takes_its_time_to_end_does_not_take_that_of_the_handlers() -> None:
    async with open_server(disconnect_timeout=2.0) as server:
        client, socket = await server.connect()
        ends = Ends(socket)

        async def stubborn() -> None:
            with trio.CancelScope(shield=True):
                await trio.sleep(10)

        socket.start_soon(stubborn)
        await settle()
        begun = trio.current_time()
        await client.disconnect()
        await socket.ended.wait()

        assert trio.current_time() - begun == pytest.approx(2)
        assert ends.reasons == once("client namespace disconnect")
        await trio.sleep(10)


async def test_a_handler_that_fails_at_the_end_keeps_no_other_from_running() -> None:
    io = Server()
    told: list[Any] = []
    io.on_error(lambda error, socket, event: told.append(event))
    async with open_server(io) as server:
        client, socket = await server.connect()
        socket.on("disconnecting", lambda: 1 / 0)

        async def fails() -> None:
            await trio.lowlevel.checkpoint()
            raise ValueError

        socket.on("disconnect", fails)
        ends = Ends(socket)
        await client.close()
        await socket.ended.wait()

        assert ends.reasons == once("transport close")
        assert told == ["disconnecting", "disconnect"]


async def test_handlers_of_events_are_cancelled_before_disconnecting_is_told() -> None:
    io = Server()
    steps: list[str] = []

    @io.on("connection")
    def connected(socket: Socket) -> None:
        async def work() -> None:
            try:
                await trio.sleep_forever()
            finally:
                steps.append(f"work ends, connected: {socket.connected}")

        socket.on("work", work)
        socket.on("disconnecting", lambda: steps.append("disconnecting"))

    async with open_server(io) as server:
        client, socket = await server.connect()
        await client.emit("work")
        await settle()
        await client.disconnect()
        await socket.ended.wait()

        assert steps == ["work ends, connected: True", "disconnecting"]


async def test_the_client_is_not_heard_and_not_reached_while_its_socket_ends() -> None:
    async with open_server() as server:
        server.io.of("/other")
        client, socket = await server.connect()
        await client.of("/other")

        async def slow() -> None:
            await trio.sleep(1)

        socket.on("disconnecting", slow)
        await client.disconnect()
        await settle()
        said = len(client.wire)
        await server.io.emit("x")
        await settle()

        assert len(client.wire) == said
        assert server.io.statistics().ending == 1


# disconnect(), from everywhere


async def disconnect_in_a_handler(server: OpenServer, client: MemoryClient, socket: Socket) -> list[str]:
    steps: list[str] = []

    async def bye() -> None:
        await socket.disconnect()
        steps.append(f"went on, connected: {socket.connected}")
        await trio.sleep(1)
        steps.append("and on")

    socket.on("bye", bye)
    await client.emit("bye")
    await trio.sleep(2)
    return steps


async def test_disconnect_in_a_handler_of_the_same_socket_returns_and_the_handler_goes_on() -> None:
    async with open_server() as server:
        server.io.of("/other")
        client, socket = await server.connect()
        await client.of("/other")  # so the session stays
        ends = Ends(socket)

        steps = await disconnect_in_a_handler(server, client, socket)

        assert steps[-1] == "and on"
        assert ends.reasons == once("server namespace disconnect")


@pytest.mark.parametrize("event", ["disconnecting", "disconnect"])
@pytest.mark.parametrize("close", [False, True])
async def test_disconnect_in_an_end_handler_of_the_same_socket_returns_at_once(event: str, close: bool) -> None:
    async with open_server() as server:
        client, socket = await server.connect()
        ends = Ends(socket)

        async def again() -> None:
            await socket.disconnect(close)

        socket.on(event, again)
        begun = trio.current_time()
        await client.disconnect()
        await socket.ended.wait()

        assert trio.current_time() == begun
        assert ends.reasons == once("client namespace disconnect")


async def test_disconnect_returns_when_the_handlers_are_over_however_often_it_is_called() -> None:
    async with open_server() as server, trio.open_nursery() as nursery:
        server.io.of("/other")
        client, socket = await server.connect()
        await client.of("/other")  # so the session stays
        ends = Ends(socket)
        returned: list[float] = []

        async def slow() -> None:
            await trio.sleep(1)

        async def disconnect() -> None:
            await socket.disconnect()
            returned.append(trio.current_time() - begun)

        socket.on("disconnect", slow)
        begun = trio.current_time()
        for _ in range(3):
            nursery.start_soon(disconnect)
        await trio.sleep(0.5)
        nursery.start_soon(disconnect)
        await trio.sleep(1)
        await disconnect()

        assert returned[:4] == pytest.approx([1] * 4)
        assert returned[4] == pytest.approx(1.5)
        assert ends.reasons == once("server namespace disconnect")
        assert await dismissed(client)
        assert [packet.data for packet in client.wire].count("41") == 1


async def test_a_cancelled_disconnect_takes_place_all_the_same() -> None:
    async with open_server() as server:
        _, socket = await server.connect()
        ends = Ends(socket)

        with trio.CancelScope() as scope:
            scope.cancel()
            await socket.disconnect()
        await socket.ended.wait()

        assert scope.cancelled_caught
        assert ends.reasons == once("server namespace disconnect")


async def test_sockets_may_disconnect_each_other_at_their_ends() -> None:
    async with open_server(disconnect_timeout=2.0) as server:
        first, second = await server.connect_many(2)
        ends = [Ends(first.socket), Ends(second.socket)]

        async def the_other() -> None:
            await second.socket.disconnect()

        first.socket.on("disconnect", the_other)
        await first.client.close()
        await first.socket.ended.wait()

        assert [each.reasons for each in ends] == [once("transport close"), once("server namespace disconnect")]


async def test_disconnect_in_a_connection_handler_ends_what_has_just_begun() -> None:
    io = Server()
    ends: list[Ends] = []

    @io.on("connection")
    async def connected(socket: Socket) -> None:
        ends.append(Ends(socket))
        await socket.disconnect()

    io.of("/other")
    async with open_server(io) as server:
        client = await (await server.client("/other")).of("/")

        assert await dismissed(client)
        assert [str(packet.data)[:7] for packet in client.wire][-2:] == ['40{"sid', "41"]
        assert ends[0].reasons == once("server namespace disconnect")
        assert io.statistics() == ServerStatistics(sessions=1, connections=1, sockets=1, rooms=1)


async def test_disconnect_in_a_middleware_does_nothing() -> None:
    io = Server()

    @io.use
    async def middleware(socket: Socket) -> None:
        await socket.disconnect()

    async with open_server(io) as server:
        _, socket = await server.connect()

        assert socket.connected


# Coming back


async def test_a_client_may_come_back_while_its_old_socket_is_still_ending() -> None:
    io = Server()
    ends: list[Ends] = []

    async def slow() -> None:
        await trio.sleep(1)

    @io.on("connection")
    def connected(socket: Socket) -> None:
        ends.append(Ends(socket))
        socket.on("disconnecting", slow)
        socket.on("ask", lambda: socket.id)

    io.of("/other")
    async with open_server(io) as server:
        client, old = await server.connect()
        other = await client.of("/other")
        await client.disconnect()
        await settle()
        await client.reconnect()

        assert client.session_id == other.session_id
        assert await client.emit_with_ack("ask") == client.id != old.id
        assert (io.statistics().sockets, io.statistics().ending) == (2, 1)  # one is that of /other

        await old.ended.wait()
        assert await client.emit_with_ack("ask") == client.id
        assert [len(each.told) for each in ends] == [2, 0]


async def test_a_session_that_closes_while_a_socket_ends_waits_for_it() -> None:
    async with open_server() as server:
        server.io.of("/other")
        client, socket = await server.connect()
        other = await client.of("/other")
        ends = Ends(socket)

        async def slow() -> None:
            await trio.sleep(1)
            ends.told.append(("slow", "", frozenset(), False))

        socket.on("disconnecting", slow)
        await client.disconnect()
        await settle()
        await other.close()
        await socket.conn.ended.wait()

        assert [event for event, *_ in ends.told] == ["disconnecting", "slow", "disconnect"]
        assert server.io.statistics() == ServerStatistics()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("leave", ["close", "drop", "disconnect"])
@pytest.mark.parametrize("checkpoints", range(6))
async def test_a_client_that_leaves_during_a_connection_handler_is_gone(
    leave: str, transport: str, checkpoints: int, caplog: pytest.LogCaptureFixture
) -> None:
    io = Server()
    ends: list[Ends] = []
    steps: list[str] = []

    @io.on("connection")
    async def connected(socket: Socket) -> None:
        ends.append(Ends(socket))
        await socket.join("room")
        await trio.sleep(100)
        steps.append("after")

    async with serving(io) as served:
        client = await served.net.open_socketio(transport)
        await client.send_raw("0")
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()
        with suppress(SessionLost):
            await getattr(client, leave)()
        await trio.sleep(50)

        assert [[event for event, _ in each.reasons] for each in ends] == [["disconnecting", "disconnect"]] * len(ends)
        assert io.sockets.adapter.rooms == {}
        assert io.statistics().sockets == 0
        assert not warnings(caplog)
    assert steps == []


@pytest.mark.parametrize("late", ['2["late"]', "312[]", "1", '51-["late",{"_placeholder":true,"num":0}]'])
async def test_what_a_client_sent_before_it_knew_of_its_end_disturbs_nobody(late: str) -> None:
    io = Server()
    other = io.of("/other")
    async with open_server(io) as server:
        client, socket = await server.connect()
        ends = Ends(server.socket_of(await client.of("/other")))

        await socket.disconnect()
        await client.send_raw(f"4{late}", *([b"attached"] if late.startswith("5") else []))

        assert await dismissed(client)
        assert len(other.sockets) == 1
        await client.reconnect()  # and it may come back
        assert len(server.io.sockets.sockets) == 1
        assert ends.told == []
