"""A connection that is kept: opened again, after a wait, whenever it is lost."""

from __future__ import annotations

import logging
import random
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import trio

from .._errors import RedisError, RedisUnavailable
from .health import TRANSITIONS, Change, Health
from .link import open_link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

    from .address import RedisAddress
    from .config import RedisConfig
    from .link import Link
    from .resp import Reply

logger = logging.getLogger("trio_socketio.redis")


class Backoff:
    """The waits between attempts: each about twice the last, and by chance, so that clients do not come all at once."""

    def __init__(self, config: RedisConfig) -> None:
        self._config = config
        self._failures = 0

    def reset(self) -> None:
        """An attempt was successful: the next wait is the least one."""
        self._failures = 0

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        least, most = self._config.backoff_least, self._config.backoff_most
        self._failures += 1
        longest = min(most, least * 2.0 ** min(self._failures, 64))
        return random.uniform(max(least, longest / 2), longest)


class Line(ABC):
    """What the connection for commands and that for subscriptions have in common.

    Args:
        address: Where the server is.
        config: The client's options.
        on_change: Called after each change of its health, with what is wrong, if something is.

    Attributes:
        health: How it is.
        link: The connection, while there is one that can be written to.
        losses: How often it was lost.
        failures: How many exceptions its handlers have raised.
    """

    PURPOSE: ClassVar[str]

    def __init__(
        self, address: RedisAddress, config: RedisConfig, on_change: Callable[[RedisError | None], None]
    ) -> None:
        self.health = Health.CLOSED
        self.link: Link | None = None
        self.losses = 0
        self.failures = 0
        self._address = address
        self._config = config
        self._on_change = on_change
        self._backoff = Backoff(config)

    def begin(self) -> None:
        """It is about to be kept; in the same tick in which `keep` is started, so that nobody starts it twice."""
        self._change(Change.START)

    async def keep(
        self, must_connect: bool, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> NoReturn:
        """Have a connection until cancelled.

        Args:
            must_connect: Whether the first attempt has to succeed.
            task_status: Told when it has.

        Raises:
            RedisUnavailable: It had to, and did not.
        """
        try:
            while True:
                error = await self._live(task_status)
                if must_connect and self.health is Health.CONNECTING:
                    raise RedisUnavailable(f"cannot use the Redis server at {self._address}: {error}") from error
                self._lose(error)
                await trio.sleep(self._backoff.next())
        finally:
            self._end(f"the client of the Redis server at {self._address} is closed")
            self._change(Change.STOP)

    async def _live(self, task_status: trio.TaskStatus[None]) -> RedisError:
        is_first = self.health is Health.CONNECTING

        async def prepare() -> None:
            await self._prepare()
            self._backoff.reset()
            self._change(Change.UP)
            if is_first:
                task_status.started()
            else:
                logger.info("connected to %s for %s again", self._address, self.PURPOSE)

        try:
            async with open_link(self._address, self._config) as link:
                self.link = link
                return await link.serve(self._deliver, self._ping, prepare)
        except RedisError as error:
            return error

    def _lose(self, error: RedisError) -> None:
        was = self.health
        self.losses += was is Health.READY
        self._end(f"the connection to {self._address} for {self.PURPOSE} was lost: {error}")
        self._change(Change.DOWN, error)
        if was is not Health.LOST:
            logger.warning(
                "the connection to %s for %s was lost, and will be opened again: %s", self._address, self.PURPOSE, error
            )

    def _end(self, reason: str) -> None:
        self.link = None
        self._on_lost(reason)

    def _change(self, change: Change, error: RedisError | None = None) -> None:
        self.health = TRANSITIONS[self.health, change]
        self._on_change(error)

    @abstractmethod
    def _deliver(self, replies: Iterator[Reply]) -> None:
        """Take the replies of one chunk."""

    @abstractmethod
    def _ping(self) -> None:
        """Ask the server for a sign of life."""

    @abstractmethod
    async def _prepare(self) -> None:
        """What has to be done before the connection counts as ready."""

    @abstractmethod
    def _on_lost(self, reason: str) -> None:
        """Whoever waits for an answer gets none."""
