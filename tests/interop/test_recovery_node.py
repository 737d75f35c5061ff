"""Sessions that go from a server of ours to one in Node.js and back, with the JavaScript client."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio

from trio_socketio import Server
from trio_socketio._errors import plain_exceptions
from trio_socketio.redis import RedisStreamsAdapter

from ..adapters.cluster_suite import Kind, eventually, streams, until
from ..redis_server import RedisServer, unique, valkey_server
from .node_server import Protocol, start_node_server, talk_to
from .serving import HOST, own_listener

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator, Iterator

    from trio_socketio import Socket

    from ..js_client import Client
    from .node_server import NodeServer

__all__ = ["valkey_server"]

RECOVERING = {"connectionStateRecovery": {"maxDisconnectionDuration": 120_000}}
STREAMS = Kind("streams", streams())
PROTOCOLS = [
    Protocol("redis", STREAMS, "streams-redis", server_options=RECOVERING),
    Protocol("ioredis", STREAMS, "streams-ioredis", {"streamCount": 5}, RECOVERING),
]


class Running(NamedTuple):
    """A Node.js process that several tests use."""

    process: subprocess.Popen[bytes]
    url: str
    prefix: str
    stream_count: int


@pytest.fixture(scope="module", params=PROTOCOLS, ids=[protocol.name for protocol in PROTOCOLS])
def running(request: pytest.FixtureRequest, node: str, valkey_server: RedisServer) -> Iterator[Running]:
    protocol: Protocol = request.param
    prefix = unique("recovery")
    with start_node_server(protocol, valkey_server.url, prefix) as process:
        yield Running(process, valkey_server.url, prefix, protocol.options.get("streamCount", 1))


class Both(NamedTuple):
    """A server of each kind."""

    node: NodeServer
    io: Server
    our_url: str

    async def connect(self, url: str) -> Client:
        """A client that does not reconnect by itself."""
        return await self.node.connect(url, transports=["websocket"], reconnection=False)

    async def our_socket(self, client: Client) -> Socket:
        return self.io.sockets.sockets[await self.node.id_of(client)]

    async def lose(self, client: Client) -> None:
        """Lose a client, wherever it is, and wait until that is noticed."""
        await client.drop()
        await client.wait_for("disconnect")
        await until(lambda: not self.io.sockets.sockets)
        await eventually(self._node_has_nobody)

    async def _node_has_nobody(self) -> bool:
        return not await self.node.fetch_sockets(local=True)


@asynccontextmanager
async def both_in(running: Running) -> AsyncIterator[Both]:
    adapter = RedisStreamsAdapter(
        running.url,
        stream_name=running.prefix,
        stream_count=running.stream_count,
        channel_prefix=running.prefix,
        session_key_prefix=f"{running.prefix}:session:",
    )
    io, stop = Server(adapter=adapter, connection_state_recovery=True), trio.Event()
    async with talk_to(running.process) as node:
        with plain_exceptions():
            async with trio.open_nursery() as nursery:
                port = await nursery.start(own_listener, io, 0, stop)
                yield Both(node, io, f"http://{HOST}:{port}")
                stop.set()


def values(events: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Without their offsets, each of which has to be greater than the one before."""
    offsets = [tuple(map(int, event[-1].split("-"))) for event in events]
    assert offsets == sorted(set(offsets))
    return [event[:-1] for event in events]


async def emit_missed(both: Both, sid: str) -> None:
    """What a client in "room" and "other" misses: from 1 to 6, and nothing else."""
    await both.io.emit("event", 1, b"bytes")
    await both.io.to("room").emit("event", 2)
    await both.io.to("elsewhere").emit("event", "not for it")
    await both.io.except_("other").emit("event", "nor this")
    await both.io.of("/another").emit("event", "nor that")
    await both.io.to(sid).emit("event", 3)
    await both.node.emit("event", 4, b"bytes")
    await both.node.emit("event", "nor this", rooms=["elsewhere"])
    await both.node.emit("event", 5, rooms=["room", "other"])
    await both.node.emit("event", 6, rooms=[sid])


MISSED = [(1, b"bytes"), (2,), (3,), (4, b"bytes"), (5,), (6,)]


async def test_node_recovers_a_session_of_ours(running: Running) -> None:
    async with both_in(running) as both:
        client = await both.connect(both.our_url)
        socket = await both.our_socket(client)
        socket.data = {"name": "Ann", "raw": b"\x00"}
        await socket.join(["room", "other"])
        await socket.emit("event", 0)
        await client.wait_for("event")
        await both.lose(client)
        await emit_missed(both, socket.id)
        await client.reconnect(both.node.url)
        state = await client.state()
        assert (state.id, state.recovered) == (socket.id, True)
        assert await both.node.rooms_of(client) == {"room", "other"}
        (described,) = await both.node.fetch_sockets(local=True)
        assert described["data"]["name"] == "Ann"
        await both.io.emit("event", "live")
        events = [await client.wait_for("event") for _ in range(7)]
        assert values(events) == [*MISSED, ("live",)]


async def test_we_recover_a_session_of_node(running: Running) -> None:
    async with both_in(running) as both:
        client = await both.connect(both.node.url)
        sid = await both.node.id_of(client)
        await both.node.call("io.socketsJoin", target={"rooms": [sid]}, rooms=["room", "other"])
        await both.node.emit("event", 0)
        await client.wait_for("event")
        await both.lose(client)
        await emit_missed(both, sid)
        await client.reconnect(both.our_url)
        state = await client.state()
        assert (state.id, state.recovered) == (sid, True)
        socket = await both.our_socket(client)
        assert socket.recovered
        assert socket.rooms == {sid, "room", "other"}
        assert socket.data == {"node": True}
        await both.node.emit("event", "live")
        events = [await client.wait_for("event") for _ in range(7)]
        assert values(events) == [*MISSED, ("live",)]


async def test_a_client_goes_to_and_fro_and_hears_everything_once(running: Running) -> None:
    async with both_in(running) as both:
        client = await both.connect(both.our_url)
        sid = await both.node.id_of(client)
        await both.io.emit("event", 0)
        assert (await client.wait_for("event"))[0] == 0
        number, heard = 1, [0]
        for url in (both.node.url, both.our_url, both.our_url, both.node.url, both.our_url):
            await both.io.emit("event", number)
            await both.lose(client)
            await both.node.emit("event", number + 1)
            await both.io.emit("event", number + 2)
            await client.reconnect(url)
            assert await both.node.id_of(client) == sid
            await both.io.emit("event", number + 3)
            while len(heard) < number + 4:
                heard.append((await client.wait_for("event"))[0])
            number += 4
        assert sorted(heard) == list(range(number))
        theirs = range(2, number, 4)  # of which nobody knows when Node.js has written it
        ours = [number for number in heard if number not in theirs]
        assert ours == sorted(ours)


async def test_a_session_is_recovered_once(running: Running) -> None:
    async with both_in(running) as both:
        client = await both.connect(both.our_url)
        sid = await both.node.id_of(client)
        await both.io.emit("event")
        await client.wait_for("event")
        await both.lose(client)
        await client.reconnect(both.node.url)
        assert await both.node.id_of(client) == sid
        await client.disconnect()  # on purpose: there is nothing to come back for
        await client.wait_for("disconnect")
        await client.reconnect(both.our_url)
        state = await client.state()
        assert state.id != sid
        assert not state.recovered


async def test_a_question_is_not_asked_again(running: Running) -> None:
    async with both_in(running) as both:
        client = await both.connect(both.node.url)
        sid = await both.node.id_of(client)
        await both.node.emit("event", 0)
        await client.wait_for("event")
        await client.reply("ask", "yes")
        answers, error = await both.node.emit_with_ack("ask", timeout=3000)
        assert (answers, error) == (["yes"], None)
        await both.lose(client)
        await client.reconnect(both.our_url)
        assert await both.node.id_of(client) == sid
        await both.io.emit("event", 1)
        assert (await client.wait_for("event"))[0] == 1
        assert [event.name for event in client.events].count("ask") == 1
