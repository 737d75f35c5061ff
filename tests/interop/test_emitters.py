"""Those who emit from outside of a cluster: ours to servers in Node.js, others (JavaScript, Python) to ours."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
import socketio
import trio

from trio_socketio import Server
from trio_socketio._redis.client import Redis
from trio_socketio.redis import Emitter, PythonSocketIOListener, RedisAdapter, SyncEmitter

from ..adapters.cluster_suite import KINDS, eventually
from ..js_client import PROJECT, to_json
from ..redis_server import unique, valkey_server
from .node_server import Protocol, start_node_server, talk_to
from .serving import PATIENCE, on_one_front_end, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trio_socketio import Socket

    from ..js_client import Client, Driver
    from ..redis_server import RedisServer
    from .serving import Serve

__all__ = ["valkey_server"]

DATA = [1, {"deep": [b"\x00\xff", None]}, "é"]
NOT_OF_SERVERS = ("connect", "disconnect", "engine.upgrade", "end")
BY_NAME = {kind.name: kind for kind in KINDS}
#: How our emitters call it, and how servers in Node.js do.
PROTOCOLS = {
    "classic": Protocol("classic", BY_NAME["classic"], "classic-redis"),
    "sharded": Protocol("sharded", BY_NAME["sharded-dynamic"], "sharded"),
    "streams": Protocol("streams", BY_NAME["streams"], "streams-redis"),
}


@asynccontextmanager
async def javascript_emitter(node: str, url: str, key: str) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """The emitter in JavaScript: a function of its steps, which returns when Redis has what it publishes."""
    pipe = subprocess.PIPE
    command = [node, str(PROJECT / "emitter.mjs"), url, key]
    process = await trio.lowlevel.open_process(command, stdin=pipe, stdout=pipe)
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None

    async def emit(*steps: list[Any]) -> None:
        await stdin.send_all(json.dumps(to_json(steps)).encode() + b"\n")
        answer = b""
        with trio.fail_after(PATIENCE):
            while not answer.endswith(b"\n"):
                chunk = await stdout.receive_some()
                assert chunk, "it has ended"
                answer += chunk
        assert json.loads(answer) is None

    try:
        yield emit
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            await stdin.aclose()
            await stdout.aclose()


async def heard(*clients: Client) -> list[list[tuple[Any, ...]]]:
    """What each has heard of servers, until and without an ``end``."""
    found = []
    for client in clients:
        await client.wait_for("end")
        own = [(event.name, *event.args) for event in client.events]
        found.append([event for event in own if event[0] not in NOT_OF_SERVERS])
    return found


# Emitters in JavaScript, to our servers


def server_with_rooms(url: str, key: str) -> Server:
    """A server whose clients join the room that they name."""
    io = Server(adapter=RedisAdapter(url, key=key))
    for namespace in (io, io.of("/news")):

        @namespace.on("connection")
        async def join(socket: Socket) -> None:
            if room := socket.handshake.auth.get("room"):
                await socket.join(room)

    return io


@on_one_front_end
async def test_the_emitter_in_javascript_reaches_clients_of_our_servers(
    serve: Serve, js: Driver, node: str, valkey_server: RedisServer
) -> None:
    key = unique("key")
    served = [await serve(server_with_rooms(valkey_server.url, key)) for _ in range(2)]
    jobs: list[Any] = []
    for number, server in enumerate(served):
        server.io.on("job", lambda *args, number=number: jobs.append((number, *args)))
    one = await js.connect(served[0].url, auth={"room": "a"})
    two = await js.connect(served[1].url)
    news = await js.connect(served[1].url, "/news")
    ids = [(await client.state()).id for client in (one, two)]
    async with javascript_emitter(node, valkey_server.url, key) as emit:
        for steps in (
            [["emit", "hello", *DATA]],
            [["to", "a"], ["emit", "in a"]],
            [["to", ids[1]], ["emit", "private"]],
            [["except", "a"], ["compress", False], ["emit", "not a"]],
            [["of", "news"], ["emit", "extra"]],
            [["serverSideEmit", "job", 1, "2"]],
            [["in", "a"], ["socketsJoin", ["b", "c"]]],
            [["in", "b"], ["socketsLeave", "c"]],
            [["to", "b"], ["emit", "in b"]],
            [["to", "c"], ["emit", "in c"]],
            [["emit", "end"]],
            [["of", "/news"], ["emit", "end"]],
        ):
            await emit(*steps)
        assert await heard(one, two, news) == [
            [("hello", *DATA), ("in a",), ("in b",)],
            [("hello", *DATA), ("private",), ("not a",)],
            [("extra",)],
        ]
        await until(lambda: len(jobs) == 2, "jobs of both servers")
        assert sorted(jobs) == [(0, 1, "2"), (1, 1, "2")]
        await emit(["in", "b"], ["disconnectSockets", True])
        assert (await one.wait_for("disconnect"))[0] in ("io server disconnect", "transport close")
        assert (await two.state()).connected


PACK: Any = msgpack.packb
OLD = partial(PACK, use_bin_type=False)

#: What emitters in other languages make of ``[uid, packet, opts]``: the channel's room, and the frame.
DEVIATIONS: dict[str, tuple[str, bytes, list[Any]]] = {
    "without except": ("", PACK(["emitter", {"type": 2, "data": ["x", 1], "nsp": "/"}, {"rooms": []}]), [1]),
    "without anything in opts": ("", PACK(["emitter", {"type": 2, "data": ["x"], "nsp": "/"}, {}]), []),
    "binary type": (
        "",
        PACK(["emitter", {"type": 5, "data": ["x", b"\x00"], "nsp": "/"}, {"rooms": [], "flags": {}}]),
        [b"\x00"],
    ),
    "arrays of PHP": (
        "a#",
        PACK(["emitter", {"type": 2, "data": ["x"], "nsp": "/"}, {"rooms": {0: "a"}, "except": [], "flags": []}]),
        [],
    ),
    "null": (
        "",
        PACK(["emitter", {"type": 2, "data": ["x"], "nsp": "/"}, {"rooms": None, "except": None, "flags": None}]),
        [],
    ),
    "old msgpack": ("", OLD(["emitter", {"type": 2, "data": ["x", "s" * 40], "nsp": "/"}, {"rooms": []}]), ["s" * 40]),
    "a name of its own": ("", PACK(["php-1", {"type": 2, "data": ["x"], "nsp": "/"}, {"rooms": ["a"]}]), []),
    "no namespace": ("", PACK(["emitter", {"type": 2, "data": ["x"]}, {"rooms": [], "except": []}]), []),
    "old flags": (
        "",
        PACK(["emitter", {"type": 2, "data": ["x"], "nsp": "/"}, {"flags": {"broadcast": True, "json": True}}]),
        [],
    ),
}


@on_one_front_end
@pytest.mark.parametrize("name", DEVIATIONS)
async def test_emitters_in_other_languages_reach_our_clients(
    serve: Serve, js: Driver, valkey_server: RedisServer, name: str
) -> None:
    key = unique("key")
    served = await serve(server_with_rooms(valkey_server.url, key))
    client = await js.connect(served.url, auth={"room": "a"})
    room, frame, args = DEVIATIONS[name]
    async with Redis(valkey_server.url).running() as redis, Emitter(valkey_server.url, key=key) as emitter:
        await redis.execute("PUBLISH", f"{key}#/#{room}", frame)
        await emitter.emit("end")
        assert await heard(client) == [[("x", *args)]]


# Our emitters, to servers in Node.js


ACTS: list[Callable[[Any], Any]] = [
    lambda e: e.emit("hello", *DATA),
    lambda e: e.to("a").emit("in a"),
    lambda e: e.except_("a").compress(False).emit("not a"),
    lambda e: e.of("news").emit("extra"),
    lambda e: e.server_side_emit("job", 1, "2"),
    lambda e: e.in_("a").sockets_join(["b", "c"]),
    lambda e: e.in_("b").sockets_leave("c"),
    lambda e: e.to(["b"]).emit("in b"),
    lambda e: e.to("c").emit("in c"),
    lambda e: e.emit("end"),
    lambda e: e.of("/news").emit("end"),
    lambda e: e.in_("b").disconnect_sockets(),
]


@pytest.mark.parametrize("kind", ["trio", "sync"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_our_emitters_reach_clients_of_servers_in_javascript(
    node: str, valkey_server: RedisServer, protocol: Any, kind: str
) -> None:
    key = unique("key")
    with start_node_server(PROTOCOLS[protocol], valkey_server.url, key) as process:
        async with talk_to(process) as server:
            await server.call("of", namespace="/news")
            await server.listen("job")
            one, two, news = await server.user(), await server.user(), await server.connect(server.url, "/news")
            await server.call("io.socketsJoin", target={"rooms": [await server.id_of(one)]}, rooms=["a"])
            await eventually(partial(server.rooms_of, one))
            if kind == "trio":
                async with Emitter(valkey_server.url, key=key, protocol=protocol) as emitter:
                    for act in ACTS:
                        await act(emitter)
            else:
                with SyncEmitter(valkey_server.url, key=key, protocol=protocol) as emitter:
                    for act in ACTS:
                        await trio.to_thread.run_sync(act, emitter)
            assert await one.wait_for("disconnect")
            assert await heard(one, two, news) == [
                [("hello", *DATA), ("in a",), ("in b",)],
                [("hello", *DATA), ("not a",)],
                [("extra",)],
            ]
            assert await server.seen() == [["job", 1, "2"]]
            assert (await two.state()).connected


# Producers and servers of python-socketio


@asynccontextmanager
async def producing(url: str, channel: str) -> AsyncIterator[socketio.RedisManager]:
    """A producer of python-socketio, whose connection is closed at the end."""
    manager = socketio.RedisManager(url, channel=channel, write_only=True)
    try:
        yield manager
    finally:
        if manager.redis is not None:
            manager.redis.close()


@on_one_front_end
async def test_a_producer_of_python_socketio_reaches_clients_of_our_servers_once(
    serve: Serve, js: Driver, valkey_server: RedisServer
) -> None:
    key, channel = unique("key"), unique("channel")
    served = [await serve(server_with_rooms(valkey_server.url, key)) for _ in range(2)]
    listeners = [PythonSocketIOListener(server.io, valkey_server.url, channel) for server in served]
    one, two = [await js.connect(server.url) for server in served]
    news = await js.connect(served[0].url, "/news")
    ids: list[Any] = [(await client.state()).id for client in (one, two)]
    async with listeners[0].running(), listeners[1].running(), producing(valkey_server.url, channel) as manager:

        async def do(method: str, *args: Any, **options: Any) -> None:
            await trio.to_thread.run_sync(partial(getattr(manager, method), *args, **options))

        await do("emit", "hello", {"a": [1, None, "é"]})
        await do("emit", "several", (1, "two", {"three": 3}))
        await do("emit", "none", None)
        await do("emit", "bytes", [b"\x00\xff", {"deep": bytearray(b"x")}])
        await do("emit", "private", 1, room=ids[0])
        await do("emit", "skipped", 1, skip_sid=ids[0])
        await do("emit", "extra", 1, namespace="/news")
        await do("enter_room", ids[1], "/", "a")
        await do("emit", "in a", 1, room="a")
        await do("emit", "in both", 1, room=["a", ids[0]])
        await do("close_room", "a", "/")
        await do("emit", "in a", 2, room="a")
        await do("enter_room", ids[1], "/", "b")
        await do("leave_room", ids[1], "/", "b")
        await do("emit", "in b", 1, room="b")
        await do("emit", "end", 1)
        await do("emit", "end", 1, namespace="/news")
        everybody = [
            ("hello", {"a": [1, None, "é"]}),
            ("several", 1, "two", {"three": 3}),
            ("none",),
            ("bytes", [b"\x00\xff", {"deep": b"x"}]),
        ]
        assert await heard(one, two, news) == [
            [*everybody, ("private", 1), ("in both", 1)],
            [*everybody, ("skipped", 1), ("in a", 1), ("in both", 1)],
            [("extra", 1)],
        ]
        # Its `disconnect` wants a server first, which a producer does not have; this is what a server would publish.
        await do("_publish", {"method": "disconnect", "sid": ids[1], "namespace": "/", "host_id": manager.host_id})
        assert (await two.wait_for("disconnect"))[0] == "io server disconnect"
        assert (await one.state()).connected
        assert [listener.statistics().dropped for listener in listeners] == [0, 0]


#: A server of python-socketio without clients of its own: it asks a client of ours, and prints what it answers.
ASKING = """
import os, sys, threading, time
import redis, socketio

url, channel, sid = sys.argv[1:]
server = socketio.Server(client_manager=socketio.RedisManager(url, channel=channel), async_mode="threading")
server.manager.initialize()
with redis.Redis.from_url(url) as client:
    while client.pubsub_numsub(channel)[0][1] < 2:  # its own subscription, besides our listener's
        time.sleep(0.01)
answered = threading.Event()

def answer(*args):
    print(repr(args), flush=True)
    answered.set()

server.emit("question", {"n": 1}, to=sid, callback=answer)
answered.wait(20)
os._exit(0)  # its listening thread would go on for ever
"""


@on_one_front_end
async def test_a_server_of_python_socketio_gets_the_answer_of_our_client(
    serve: Serve, js: Driver, valkey_server: RedisServer
) -> None:
    channel = unique("channel")
    served = await serve(Server())
    client, socket = await served.pair(js)
    await client.reply("question", "yes", 2)
    async with PythonSocketIOListener(served.io, valkey_server.url, channel).running() as listener:
        with trio.fail_after(PATIENCE):
            result = await trio.run_process(
                [sys.executable, "-c", ASKING, valkey_server.url, channel, socket.id], capture_stdout=True
            )
        assert result.stdout.decode().strip() == "('yes', 2)"
        assert await client.wait_for("question") == ({"n": 1},)
        assert listener.statistics().callbacks == 0
