"""Sockets of other servers of a cluster."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import (
    AckTimeout,
    EncodeError,
    Headers,
    RemoteOperator,
    RemoteSocket,
    Server,
    Socket,
    SocketDetails,
    SocketDisconnected,
)
from trio_socketio.abc import MemoryAdapter
from trio_socketio.testing import open_client

from ..wire_client import settle
from .support import Connected, open_server, open_servers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_socketio import AnySocket, BroadcastOptions


def add_other(io: Server) -> None:
    io.of("/other")


@asynccontextmanager
async def two_servers() -> AsyncIterator[tuple[Server, Connected]]:
    """A server, and a client of another one, from which `fetch` makes a `RemoteSocket`."""
    async with open_servers(2, setup=add_other) as (here, there), open_client(there, auth={"token": "123"}) as client:
        yield here, Connected(client, there.sockets.sockets[client.id])


async def fetch(io: Server, id: str) -> RemoteSocket:
    """The one socket with this id, which has to be elsewhere."""
    found = await io.in_(id).fetch_sockets()
    assert len(found) == 1
    assert isinstance(found[0], RemoteSocket)
    return found[0]


async def test_local_sockets_are_themselves_and_the_others_are_remote() -> None:
    async with two_servers() as (io, far), open_client(io) as near:
        found = await io.fetch_sockets()

        assert found[0] is io.sockets.sockets[near.id]
        assert [type(socket) for socket in found] == [Socket, RemoteSocket]
        assert found[1].id == far.socket.id
        assert await io.local.fetch_sockets() == [found[0]]


async def test_a_remote_socket_says_what_the_adapter_knows() -> None:
    async with two_servers() as (io, far):
        far.socket.data["name"] = "far"
        await far.socket.join(["a", "b"])

        remote = await fetch(io, far.socket.id)

        assert remote.handshake.issued == pytest.approx(far.socket.handshake.issued, abs=0.001)
        assert remote.handshake == replace(
            far.socket.handshake, headers=remote.handshake.headers, issued=remote.handshake.issued
        )
        assert remote.handshake.headers == far.socket.handshake.headers
        assert remote.handshake.auth == {"token": "123"}
        assert remote.handshake.time == far.socket.handshake.time
        assert remote.rooms == {far.socket.id, "a", "b"}
        assert remote.data == {"name": "far"}
        assert repr(remote) == f"<RemoteSocket {far.socket.id} in />"


async def test_what_an_adapter_does_not_know_is_empty() -> None:
    class Elsewhere(MemoryAdapter):
        async def fetch_sockets(self, options: BroadcastOptions) -> list[SocketDetails]:
            await trio.lowlevel.checkpoint()
            return [
                SocketDetails("x"),
                SocketDetails("y", {"headers": {"Host": "there"}, "secure": True}, frozenset("yr"), [1]),
            ]

    async with open_server(adapter=Elsewhere) as server:
        x, y = await server.io.fetch_sockets()

        assert (x.id, x.rooms, x.data) == ("x", frozenset(), None)
        assert (x.handshake.headers, x.handshake.query, x.handshake.auth, x.handshake.url) == (Headers(), {}, {}, "")
        assert (x.handshake.address, x.handshake.secure, x.handshake.xdomain, x.handshake.issued) == ("", 0, 0, 0)
        assert y.rooms == {"y", "r"}
        assert (y.data, y.handshake.secure) == ([1], True)
        assert y.handshake.headers["host"] == "there"


async def test_events_reach_a_remote_socket_and_nobody_else() -> None:
    async with two_servers() as (io, far), open_client(io) as near:
        remote = await fetch(io, far.socket.id)

        await remote.emit("event", 1, b"\x01")
        await remote.timeout(1).emit("another")

        assert await far.client.receive_all() == [("event", 1, b"\x01"), ("another",)]
        assert await near.receive_all() == []


async def test_what_cannot_be_encoded_raises_at_the_emit() -> None:
    async with two_servers() as (io, far):
        remote = await fetch(io, far.socket.id)

        with pytest.raises(EncodeError):
            await remote.emit("event", object())

        assert await far.client.receive_all() == []


async def test_joining_and_leaving_rooms_at_a_distance() -> None:
    async with two_servers() as (io, far):
        remote = await fetch(io, far.socket.id)

        await remote.join("a")
        await remote.join(["b", "c"])
        await remote.leave("b")
        await settle()

        assert far.socket.rooms == {far.socket.id, "a", "c"}
        assert remote.rooms == {far.socket.id}  # as they were
        assert (await fetch(io, far.socket.id)).rooms == {far.socket.id, "a", "c"}


@pytest.mark.parametrize("close", [False, True])
async def test_disconnecting_at_a_distance(close: bool) -> None:
    async with two_servers() as (io, far):
        other = await far.client.of("/other")
        remote = await fetch(io, far.socket.id)

        await remote.disconnect(close)
        await far.socket.ended.wait()

        assert await far.client.wait_disconnected() == "io server disconnect"
        await settle()
        assert far.socket.conn.closed_because == (("forced close", None) if close else None)
        assert other.connected is not close
        assert await io.in_(far.socket.id).fetch_sockets() == []


@pytest.mark.parametrize(("answer", "value"), [((), None), ((1,), 1), ((1, 2), [1, 2]), (([3],), [3])])
@pytest.mark.parametrize("timed", [False, True])
async def test_the_acknowledgement_is_a_single_value(answer: tuple[Any, ...], value: Any, timed: bool) -> None:
    async with two_servers() as (io, far), trio.open_nursery() as nursery:
        remote = await fetch(io, far.socket.id)

        async def reply() -> None:
            question = await far.client.receive()
            assert (question.name, question.args) == ("question", (1,))
            await question.ack(*answer)

        nursery.start_soon(reply)
        asked: RemoteSocket | RemoteOperator = remote.timeout(5) if timed else remote
        assert await asked.emit_with_ack("question", 1) == value
        assert far.socket.statistics().pending_acks == 0


async def test_no_acknowledgement_in_time_is_a_timeout_without_responses() -> None:
    async with two_servers() as (io, far):
        remote = await fetch(io, far.socket.id)
        begun = trio.current_time()

        with pytest.raises(AckTimeout) as caught:
            await remote.timeout(9).timeout(2).emit_with_ack("question")

        assert trio.current_time() == begun + 2
        assert caught.value.responses == []
        await settle()
        assert far.socket.statistics().pending_acks == 0


async def test_without_a_timeout_the_time_is_the_callers() -> None:
    async with two_servers() as (io, far):
        remote = await fetch(io, far.socket.id)

        with trio.move_on_after(2) as scope:
            await remote.emit_with_ack("question")

        assert scope.cancelled_caught
        await trio.sleep(60)  # the other server is not told that nobody waits any more
        assert far.socket.statistics().pending_acks == 0


@pytest.mark.parametrize("leaves", ["before", "meanwhile"])
async def test_a_socket_that_is_gone_fails_the_question_at_once_and_nothing_else(leaves: str) -> None:
    async with two_servers() as (io, far), trio.open_nursery() as nursery:
        remote = await fetch(io, far.socket.id)

        async def leave() -> None:
            await far.client.receive()
            await far.client.disconnect()

        if leaves == "before":
            await far.client.disconnect()
            await far.socket.ended.wait()
        else:
            nursery.start_soon(leave)
        begun = trio.current_time()
        with pytest.raises(SocketDisconnected):
            await remote.timeout(5).emit_with_ack("question")

        assert trio.current_time() == begun
        for act in (remote.emit("event"), remote.join("a"), remote.leave("a"), remote.disconnect()):
            await act


async def test_whatever_was_fetched_can_be_used_without_asking_where_it_is() -> None:
    async with two_servers() as (io, far), open_client(io) as near:
        found: list[AnySocket] = await io.fetch_sockets()

        for socket in found:
            await socket.join("chosen")
            await socket.emit("hello", socket.id)
        await settle()

        assert {socket.id for socket in await io.in_("chosen").fetch_sockets()} == {near.id, far.client.id}
        for client in (near, far.client):
            assert await client.receive_all() == [("hello", client.id)]


async def test_the_sockets_of_one_server_are_never_remote() -> None:
    async with open_server() as server:
        pairs = await server.connect_many(3)

        assert {id(socket) for socket in await server.io.fetch_sockets()} == {id(pair.socket) for pair in pairs}
