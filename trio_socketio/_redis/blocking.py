"""A connection of its own, for commands that block: the server answers nothing else while one of them waits."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import trio

from .._errors import RedisConnectionLost, RedisError, RedisReplyError
from .lines import Backoff
from .link import open_link

if TYPE_CHECKING:
    from .address import RedisAddress
    from .config import RedisConfig
    from .link import Link
    from .resp import Argument, Reply


class BlockingConnection:
    """From `Redis.blocking`. It is opened by the first command, and by the next one after it was lost or cancelled."""

    def __init__(self, address: RedisAddress, config: RedisConfig) -> None:
        self._address = address
        self._config = config
        self._backoff = Backoff(config)
        self._wait = 0.0
        self._link: Link | None = None
        self._resources = AsyncExitStack()
        self._is_used = False

    async def execute(self, *args: Argument, blocks: float = 0.0) -> Reply:
        """Execute a command that may block, such as ``XREAD BLOCK``.

        After a failure, the next call waits first (the client's back-off), then opens a new connection.

        Args:
            args: The command's words.
            blocks: Seconds for which the server may be silent because of the command itself. If it is for
                ``ping_idle + ping_limit`` more, it counts as frozen.

        Returns:
            The reply. When cancelled, the connection is closed, because its reply would come at some other time.

        Raises:
            RedisReplyError: The server's answer is an error; the connection is kept.
            RedisConnectionLost: There is no connection, or it broke before the answer.
            RedisProtocolError: What came is no reply.
            trio.BusyResourceError: Another task is executing a command on this connection.
        """
        if self._is_used:
            raise trio.BusyResourceError("another task waits for a reply on this connection")
        self._is_used, is_usable = True, False
        try:
            link = await self._open()
            with trio.fail_after(blocks + self._config.ping_idle + self._config.ping_limit):
                reply = await link.ask(*args)
            is_usable = True
            self._backoff.reset()
            return reply
        except trio.TooSlowError:
            self._wait = self._backoff.next()
            raise RedisConnectionLost(f"no answer in time from {self._address}") from None
        except RedisError as error:
            is_usable = self._link is not None and isinstance(error, RedisReplyError)
            self._wait = 0.0 if is_usable else self._backoff.next()
            raise
        finally:
            self._is_used = False
            if not is_usable:
                await self.aclose()

    async def _open(self) -> Link:
        if self._link is None:
            await trio.sleep(self._wait)
            self._link = await self._resources.enter_async_context(open_link(self._address, self._config))
        return self._link

    async def aclose(self) -> None:
        """Close the connection; the next command opens another."""
        self._link = None
        await self._resources.aclose()
