"""``python -m tests.soak.server [classic|streams URL]``: the server, and what it can say about itself.

It writes its port as the first line to its standard output, and a `Measurement` in JSON for each line on its standard
input; it ends with that. All its deadlines are short, so that whoever has vanished is gone soon after a wave.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import resource
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from trio_socketio import AckTimeout, ConnectionRefused, ConnectionStateRecovery, Server, SocketDisconnected
from trio_socketio.engineio import HttpLimits
from trio_socketio.redis import RedisAdapter, RedisStreamsAdapter

from .judging import Measurement

if TYPE_CHECKING:
    from trio_socketio import Socket

#: What the server keeps for clients that do not read; some come for no other reason.
MAX_OUTBOX = 1_000_000
PAGE = resource.getpagesize()


def make_server(kind: str = "", url: str = "") -> Server:
    """The server.

    Args:
        kind: ``"classic"`` or ``"streams"`` for a part of a cluster, else empty.
        url: Of its Redis.
    """
    options: dict[str, Any] = {
        "ping_interval": 1.0,
        "ping_timeout": 1.0,
        "upgrade_timeout": 1.0,
        "close_timeout": 1.0,
        "connect_timeout": 1.0,
        "disconnect_timeout": 1.0,
        "http_limits": HttpLimits(header_timeout=1.0, keep_alive_timeout=1.0, body_timeout=1.0, write_timeout=1.0),
        "max_outbox_bytes": MAX_OUTBOX,
        "per_message_deflate": True,
        "cleanup_empty_child_namespaces": True,
    }
    if kind:
        options["adapter"] = {"classic": RedisAdapter, "streams": RedisStreamsAdapter}[kind](url)
    else:
        options["connection_state_recovery"] = ConnectionStateRecovery(max_disconnection_duration=1.0)
    io = Server(**options)
    io.use(admit)
    for namespace in (io, io.of(re.compile(r"^/room-\d+$"))):
        namespace.on("connection", greet)
    return io


def admit(socket: Socket) -> None:
    if socket.handshake.auth.get("refuse"):
        raise ConnectionRefused("not you", data={"why": "as you like"})


async def greet(socket: Socket) -> None:
    namespace = socket.namespace

    @socket.on("echo")
    async def echo(*args: Any) -> Any:
        return args

    @socket.on("join")
    async def join(room: str) -> None:
        await socket.join(room)

    @socket.on("leave")
    async def leave(room: str) -> None:
        await socket.leave(room)

    @socket.on("say")
    async def say(room: str, *args: Any) -> None:
        await namespace.to(room).emit("said", *args)

    @socket.on("flood")
    async def flood(count: int, size: int) -> None:
        # One by one it waits for the client; the other way, the server loses its patience.
        for number in range(count):
            await (socket if count > 100 or number % 2 else namespace.to(socket.id)).emit("flood", b"\x00" * size)

    @socket.on("ask")
    async def ask(count: int) -> None:
        async def put(number: int) -> None:
            with suppress(SocketDisconnected):
                await socket.emit_with_ack("question", number)

        for number in range(count):
            socket.start_soon(put, number)

    @socket.on("ask all")
    async def ask_all(room: str) -> int:
        answers = 0
        with suppress(AckTimeout):
            async with namespace.to(room).timeout(0.2).acks("question", 0) as replies:
                async for _ in replies:
                    answers += 1
        return answers

    @socket.on("throw out")
    async def throw_out(room: str) -> None:
        await namespace.in_(room).disconnect_sockets(close=True)

    await socket.emit("hello", socket.recovered)


class Errors(logging.Handler):
    """Counts what is logged as an error: by the library, by Trio, by anybody."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


def measure(io: Server, errors: int) -> Measurement:
    """What there is now, after everything that can be collected has been."""
    for _ in range(3):
        gc.collect()
    kinds = Counter(type(thing).__qualname__ for thing in gc.get_objects())
    return Measurement(
        statistics={name: value for name, value in asdict(io.statistics()).items() if value},
        tasks=trio.lowlevel.current_statistics().tasks_living,
        files=len(os.listdir("/proc/self/fd")),
        objects=kinds.total(),
        rss=int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE,
        errors=errors,
        kinds=dict(kinds.most_common(400)),
    )


async def main(arguments: list[str]) -> None:
    io, errors = make_server(*arguments), Errors()
    logging.getLogger().addHandler(errors)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(io.serve_tcp, 0, host="127.0.0.1"))
        print(listeners[0].socket.getsockname()[1], flush=True)
        async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as lines:
            async for _ in lines:
                print(json.dumps(measure(io, errors.count)._asdict()), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    trio.run(main, sys.argv[1:])
