"""The connection for commands: pipelined, with the replies in the order of the commands.

Every command has its place in the queue of those who await a reply, until the reply is there. Whoever is cancelled
leaves the place behind, so the replies of others never shift. When the connection is lost, everybody in the queue is
told; nothing is sent again, because nobody knows what the server has executed.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import trio

from .._errors import RedisBufferFull, RedisConnectionLost, RedisError, RedisProtocolError
from .lines import Line
from .parsing import PUSHES, pack_command
from .resp import Reply

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .address import RedisAddress
    from .config import RedisConfig
    from .resp import Argument

logger = logging.getLogger("trio_socketio.redis")

#: Called with a command's reply, or with the error that came instead.
OnReply: TypeAlias = Callable[[Reply], None]


class Waiter:
    """A task that waits for its reply; callable like any other `OnReply`."""

    __slots__ = ("_reply", "_task")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._reply: Reply = None

    def __call__(self, reply: Reply) -> None:
        if self._task is not None:
            self._reply = reply
            trio.lowlevel.reschedule(self._task)
            self._task = None

    async def wait(self) -> Reply:
        """The reply, or the error that came instead. Cancelled, it leaves its place to nobody."""

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)
        return self._reply


class Commands(Line):
    """See above.

    Attributes:
        submitted: How many commands were.
        error_replies: How many errors have answered commands for which nobody waits.
    """

    PURPOSE = "commands"

    def __init__(
        self, address: RedisAddress, config: RedisConfig, on_change: Callable[[RedisError | None], None]
    ) -> None:
        super().__init__(address, config, on_change)
        self.submitted = 0
        self.error_replies = 0
        self._queue: deque[OnReply] = deque()
        self._reason = f"the client of {address} does not run"
        self._logged: set[str] = set()

    @property
    def awaiting(self) -> int:
        """How many commands have no reply yet."""
        return len(self._queue)

    def submit(self, command: bytes, on_reply: OnReply) -> None:
        """Write a packed command. The same as `Redis.execute_nowait`."""
        link = self.link
        if link is None:
            raise RedisConnectionLost(self._reason)
        if not link.takes(len(command)):
            raise RedisBufferFull(f"{link.buffered} bytes wait already for the server at {self._address}")
        self.submitted += 1
        self._queue.append(on_reply)
        link.write(command)

    def submit_transaction(self, commands: Sequence[bytes], on_reply: OnReply) -> None:
        """Write packed commands between MULTI and EXEC, all or none. The same as `Redis.transaction_nowait`."""
        unit = b"".join((pack_command(("MULTI",)), *commands, pack_command(("EXEC",))))
        self.submit(unit, self.ignore)
        self.submitted += len(commands) + 1
        self._queue.extend([self.ignore] * len(commands))
        self._queue.append(on_reply)

    async def wait_room(self, size: int = 1) -> None:
        """Return when so many bytes may be submitted, or there is no connection."""
        while self.link is not None and not self.link.takes(size):
            await self.link.wait_room()

    async def execute(self, *args: Argument) -> Reply:
        """The same as `Redis.execute`."""
        command = pack_command(args)
        await trio.lowlevel.checkpoint_if_cancelled()
        await self.wait_room(len(command))
        waiter = Waiter()
        self.submit(command, waiter)
        reply = await waiter.wait()
        if isinstance(reply, RedisError):
            raise reply
        return reply

    def ignore(self, reply: Reply) -> None:
        """What becomes of a reply for which nobody waits: errors are counted, each kind is logged once."""
        if not isinstance(reply, RedisError):
            return
        self.error_replies += 1
        code = str(reply).partition(" ")[0]
        if code not in self._logged and not isinstance(reply, RedisConnectionLost):
            self._logged.add(code)
            logger.warning("%s has answered a command for which nobody waits: %s", self._address, reply)

    def _deliver(self, replies: Iterator[Reply]) -> None:
        queue = self._queue
        for reply in replies:
            if isinstance(reply, PUSHES):
                continue
            if not queue:
                raise RedisProtocolError("a reply to no command")
            self._answer(queue.popleft(), reply)

    def _answer(self, on_reply: OnReply, reply: Reply) -> None:
        try:
            on_reply(reply)
        except Exception:  # its author's mistake must not end the connection of all others
            self.failures += 1
            logger.exception("a callback for a reply failed")

    def _ping(self) -> None:
        if self.link is not None and self.link.takes(64):
            self.submit(pack_command(("PING",)), self.ignore)

    async def _prepare(self) -> None:
        pass

    def _on_lost(self, reason: str) -> None:
        self._reason = reason
        abandoned, self._queue = self._queue, deque()
        for on_reply in abandoned:
            self._answer(on_reply, RedisConnectionLost(reason))
