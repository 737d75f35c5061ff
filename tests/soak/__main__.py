"""``python -m tests.soak``: what ``nox -s soak`` runs, with its options."""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from itertools import count
from typing import TYPE_CHECKING

import trio

from ..redis_server import RedisServer
from .judging import MIB, Measurement, as_table, judge, kinds_that_grew
from .visits import visit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

#: About so many waves; in each, clients come for half of the time, and then everybody leaves.
WAVES = 8
SHORTEST_WAVE = 0.5  # seconds
SETTLING = 20.0  # seconds for a server to start, and to be done with everybody after a wave
#: Seconds in which nothing ends: connections without a session are not in the statistics, but none lasts for longer.
QUIET = 1.2
WARM_UP = 0.4  # of the measurements


class ServerProcess:
    """A server in a process of its own, and what it says.

    Args:
        process: It.
        port: Where it listens.
    """

    def __init__(self, process: trio.Process, port: int) -> None:
        self.pid = process.pid
        self.url = f"http://127.0.0.1:{port}"
        self.measurements: list[Measurement] = []
        self._process = process

    async def measure(self) -> Measurement:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(b"\n")
        return Measurement(**json.loads(await read_line(self._process)))

    async def settle(self) -> None:
        """Wait until nobody is there any more, and keep what there is then, or when patience is over."""
        with trio.move_on_after(SETTLING):
            before, since = await self.measure(), trio.current_time()
            while before.statistics or trio.current_time() < since + QUIET:
                await trio.sleep(0.1)
                now = await self.measure()
                if (now.tasks, now.files) != (before.tasks, before.files):
                    since = trio.current_time()
                before = now
        self.measurements.append(await self.measure())


async def read_line(process: trio.Process) -> bytes:
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        more = await process.stdout.receive_some()
        if not more:
            raise RuntimeError(f"the server has ended, with status {await process.wait()}")
        line += more
    return line


@asynccontextmanager
async def serving(*arguments: str) -> AsyncIterator[ServerProcess]:
    """A server, from when it listens; at the end it is told to end, and ends."""
    command = [sys.executable, "-m", "tests.soak.server", *arguments]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        with trio.fail_after(SETTLING):
            port = int(await read_line(process))
        yield ServerProcess(process, port)
    finally:
        with trio.move_on_after(SETTLING, shield=True):
            assert process.stdin is not None
            await process.stdin.aclose()
            await process.wait()
        if process.returncode is None:
            process.kill()


async def soak(seconds: float, clients: int, redis: tuple[str, ...], seed: int) -> bool:
    """Send waves of clients until the time is up; whether nothing has grown."""
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(serving(*redis)) for _ in range(2 if redis else 1)]
        deadline = trio.current_time() + seconds
        visits: Counter[str] = Counter()
        for wave in count(1):
            before = trio.current_time()
            done = await send_wave(servers, max(SHORTEST_WAVE, seconds / WAVES / 2), clients, seed + 1000 * wave)
            visits += done
            over = trio.current_time()
            for server in servers:
                await server.settle()
            times = f"{done.total():>5} visits in {over - before:.1f} s, gone in {trio.current_time() - over:.1f} s"
            print(f"wave {wave:>2}: {times};", describe(servers), flush=True)
            if wave > 1 and trio.current_time() > deadline:
                break
        return report(servers, visits)


async def send_wave(servers: Sequence[ServerProcess], seconds: float, clients: int, seed: int) -> Counter[str]:
    done: Counter[str] = Counter()
    deadline = trio.current_time() + seconds

    async def come_and_go(number: int) -> None:
        chance = random.Random(seed + number)
        while trio.current_time() < deadline:
            done[await visit(chance.choice(servers).url, chance)] += 1

    async with trio.open_nursery() as nursery:
        for number in range(clients):
            nursery.start_soon(come_and_go, number)
    return done


def describe(servers: Sequence[ServerProcess]) -> str:
    parts = []
    for server in servers:
        last = server.measurements[-1]
        left = f", left: {last.statistics}" if last.statistics else ""
        parts.append(f"{last.tasks} tasks, {last.files} files, {last.objects} objects, {last.rss / MIB:.1f} MiB{left}")
    return " | ".join(parts)


def report(servers: Sequence[ServerProcess], visits: Counter[str]) -> bool:
    """Print the verdict; whether it is a good one."""
    good = True
    print("visits:", ", ".join(f"{number} {name}" for name, number in visits.most_common()))
    for server in servers:
        warm_up = int(len(server.measurements) * WARM_UP)
        if growths := judge(server.measurements, warm_up):
            good = False
            print(f"the server of process {server.pid} has grown:\n{as_table(growths)}")
            print("objects more:", kinds_that_grew(server.measurements[warm_up], server.measurements[-1]))
    print("verdict:", "nothing has grown" if good else "FAILED, something has grown")
    return good


@contextmanager
def redis_for(kind: str) -> Iterator[tuple[str, ...]]:
    """A Redis of our own, as arguments for the servers."""
    server = RedisServer("valkey", {})
    try:
        server.start()
        yield kind, server.url
    finally:
        server.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description="Waves of clients, after which nothing may be left.")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the waves together; default: %(default)g")
    parser.add_argument("--clients", type=int, default=100, help="at once; default: %(default)s")
    parser.add_argument("--redis", nargs="?", const="classic", choices=["classic", "streams"], help="two servers on it")
    parser.add_argument("--seed", type=int, help="of what clients choose to do; default: another one each time")
    options = parser.parse_args()
    if not os.path.isdir("/proc/self/fd"):
        parser.error("it needs Linux, where a process can see its own files and memory in /proc")
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}")
    with redis_for(options.redis) if options.redis else nullcontext(()) as redis:
        good = trio.run(soak, options.seconds, options.clients, redis, seed)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
