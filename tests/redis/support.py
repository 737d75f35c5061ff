"""What the tests of the Redis client have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from trio_socketio._redis.health import Health

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_socketio._redis.client import Redis

LIMIT = 5.0  # seconds of real time, within which something has to have happened


class Inbox:
    """A handler that keeps what it gets."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, bytes]] = []

    def __call__(self, channel: bytes, message: bytes) -> None:
        self.messages.append((channel, message))

    async def wait(self, count: int) -> list[tuple[bytes, bytes]]:
        """All messages, once there are so many."""
        await until(lambda: len(self.messages) >= count)
        return self.messages


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that a real server's answer will make true."""
    with trio.fail_after(LIMIT):
        while not condition():  # noqa: ASYNC110 (it is another process that makes it true)
            await trio.sleep(0.002)


async def until_lost_and_ready(client: Redis, losses: int) -> None:
    """Wait until the client has lost so many connections, and has them all again."""
    await until(lambda: client.statistics().losses >= losses and client.health is Health.READY)
