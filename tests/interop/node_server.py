"""Servers of Node.js in the same cluster: ``js/cluster_server.mjs``, each in a process that several tests use.

A process outlives Trio's runs, of which every test has one: each test talks to it through pipes of its own, and leaves
it as it was.
"""

from __future__ import annotations

import contextlib
import json
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from ..js_client import PATIENCE, Client, Driver, driving, start_node, to_json

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator, Iterator, Mapping

    from ..adapters.cluster_suite import Kind


class Protocol(NamedTuple):
    """What both sides speak.

    Attributes:
        name: What tests call it.
        kind: How servers of ours meet.
        adapter: The adapter of the server in Node.js, as in ``js/cluster_server.mjs``.
        options: That adapter's.
        server_options: Those of the server in Node.js.
    """

    name: str
    kind: Kind
    adapter: str
    options: Mapping[str, Any] = MappingProxyType({})
    server_options: Mapping[str, Any] = MappingProxyType({})


@contextlib.contextmanager
def start_node_server(protocol: Protocol, url: str, prefix: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server in Node.js; it ends with the context.

    Args:
        protocol: What it speaks.
        url: That of its Redis server.
        prefix: Of all names there.

    Raises:
        NodeMissing: There is no Node.js, or ``npm ci`` has not run.
    """
    options = json.dumps({"adapter": dict(protocol.options), "server": dict(protocol.server_options)})
    with start_node("cluster_server.mjs", protocol.adapter, url, prefix, options) as process:
        yield process


@asynccontextmanager
async def talk_to(process: subprocess.Popen[bytes]) -> AsyncIterator[NodeServer]:
    """Use a server in Node.js; at the end it has no clients, and nothing may have troubled it."""
    async with driving(process, NodeServer) as node:
        node.url = f"http://127.0.0.1:{await node.call('port')}"
        try:
            yield node
            assert await node.call("io.pending") == 0
        finally:
            with trio.CancelScope(deadline=trio.current_time() + PATIENCE, shield=True):
                assert await node.call("reset") == []


class NodeServer(Driver):
    """A server in Node.js, and clients in the same process.

    Attributes:
        url: Where its clients find it.
    """

    url: str = ""

    async def user(self) -> Client:
        """A client of this server, once it is connected."""
        return await self.connect(self.url, transports=["websocket"])

    async def id_of(self, client: Client) -> str:
        id = (await client.state()).id
        assert id is not None
        return id

    async def rooms_of(self, client: Client) -> set[str]:
        """All rooms but its own."""
        return set(await self.call("io.rooms", client=client._number)) - {await self.id_of(client)}

    # What the server does; `target` is {rooms, except, local, timeout (milliseconds)}.

    async def emit(self, event: str, *args: Any, **target: Any) -> None:
        await self.call("io.emit", target=target, event=event, args=to_json(args))

    async def emit_with_ack(self, event: str, *args: Any, **target: Any) -> Any:
        """The answers, and the text of the error if they are not all."""
        found = await self.call("io.emitWithAck", target=target, event=event, args=to_json(args))
        return found["responses"], found["error"]

    async def server_side_emit_with_ack(self, event: str, *args: Any) -> Any:
        found = await self.call("io.serverSideEmitWithAck", event=event, args=to_json(args))
        return found["responses"], found["error"]

    async def fetch_sockets(self, **target: Any) -> list[Any]:
        found: list[Any] = await self.call("io.fetchSockets", target=target)
        return found

    async def listen(self, event: str, answer: Any = None) -> None:
        """Note this event of other servers, and answer it unless that is None."""
        await self.call("listen", event=event, answer=to_json(answer))

    async def seen(self) -> list[Any]:
        """What was noted since the last time."""
        noted: list[Any] = await self.call("seen")
        return noted

    async def server_count(self) -> int:
        count: int = await self.call("io.serverCount")
        return count
