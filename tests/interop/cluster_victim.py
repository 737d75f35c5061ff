"""A server of ours in a process of its own, which tests stop, kill and freeze.

Its arguments are the kind of bus, the URL of the Redis server, the prefix of all names there, and its name. It says
when it is a member, stops in order when its stdin ends, and answers ``ask`` of other servers with its name.
"""

from __future__ import annotations

import sys

import trio

from tests.adapters.cluster_suite import KINDS
from trio_socketio import Server


async def main(*arguments: str) -> None:
    kind_name, url, prefix, name = arguments
    kind = next(kind for kind in KINDS if kind.name == kind_name)
    io = Server(adapter=kind.meet(url, prefix)(name))
    io.on("ask", lambda: name)
    async with io.running():
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
