"""One server of a cluster. Start as many as you like, anywhere, with the same Redis::

    python examples/cluster/server.py --name "Trio 1" --port 3000 --redis redis://localhost:6379

What goes over the wire is the same for `server.mjs`, its twin for Node.js:

====================  ==============================================================================================
clients emit          ``say(text)``; ``join(room)``; ``say to(room, text)``; ``who()``, answered with how many clients
                      each server has, of the whole cluster
servers emit          ``said(text, server)``, to everybody or to a room
====================  ==============================================================================================
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from functools import partial
from pathlib import Path

import trio

from trio_socketio import Server, Socket
from trio_socketio.redis import RedisAdapter

HERE = Path(__file__).resolve().parent
CLIENT = HERE / "node_modules" / "socket.io" / "client-dist"
# Without npm, the client that `trio-socketio fetch-client` has fetched, if it has.
SERVE_CLIENT: str | bool = str(CLIENT) if CLIENT.is_dir() else True

MAX_TEXT = 1000  # characters


def make_server(name: str, redis: str) -> Server:
    """A server that is one with all others at this Redis."""
    io = Server(
        adapter=RedisAdapter(redis),
        cors=re.compile(r"http://(localhost|127\.0\.0\.1)(:[0-9]+)?"),  # its page talks to the other servers as well
        serve_client=SERVE_CLIENT,
        static_files=HERE / "public",
    )

    @io.on("connection")
    async def connected(socket: Socket) -> None:
        socket.data["server"] = name  # which `fetch_sockets` tells the other servers

        @socket.on("say")
        async def say(text: object) -> None:
            if is_text(text):
                await io.emit("said", text, name)

        @socket.on("join")
        async def join(room: object) -> None:
            if is_text(room):
                await socket.join(f"room:{room}")

        @socket.on("say to")
        async def say_to(room: object, text: object) -> None:
            if is_text(room) and is_text(text):
                await io.to(f"room:{room}").emit("said", text, name)

        @socket.on("who")
        async def who() -> dict[str, int]:
            sockets = await io.fetch_sockets()
            return dict(Counter(socket.data.get("server", "?") for socket in sockets))

    return io


def is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT


async def main(name: str, redis: str, port: int) -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(make_server(name, redis).serve_tcp, port, host="localhost"))
        print(f"{name} is on http://localhost:{listeners[0].socket.getsockname()[1]}/", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="One server of a cluster.")
    parser.add_argument("--name", default="Trio")
    parser.add_argument("--port", type=int, default=3000, help="0 takes any free one (default: 3000)")
    parser.add_argument("--redis", default="redis://localhost:6379")
    arguments = parser.parse_args()
    try:
        trio.run(main, arguments.name, arguments.redis, arguments.port)
    except* KeyboardInterrupt:
        pass
