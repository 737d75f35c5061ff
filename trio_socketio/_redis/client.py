"""The client: what its two kept connections do, put together."""

from __future__ import annotations

import contextvars
import logging
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import trio

from .._errors import NotRunning, RedisConnectionLost, RedisError, plain_exceptions
from .address import RedisAddress, parse_url
from .blocking import BlockingConnection
from .commands import Commands
from .config import RedisConfig
from .health import Health, RedisStatistics, worst
from .parsing import pack_command
from .subscriptions import Kind, Subscriptions, Topic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence
    from typing import Self

    from typing_extensions import Unpack

    from .commands import OnReply
    from .config import RedisOptions
    from .resp import Argument, Reply
    from .subscriptions import Handler

logger = logging.getLogger("trio_socketio.redis")

Name = str | bytes


class Redis:
    """A client of one Redis (or Valkey) server.

    It works inside ``async with client.running()``, and can be started again after that.

    Args:
        address: A URL (see `parse_url`), or a `RedisAddress`.
        options: `RedisConfig` documents each.

    Raises:
        TypeError: An option that does not exist.
        ValueError: The URL is wrong, or an option out of its range.

    Attributes:
        address: Where the server is.
        config: The options, checked and immutable.
        error: Why the connection is lost, or was the last time.
    """

    def __init__(self, address: str | RedisAddress, **options: Unpack[RedisOptions]) -> None:
        self.address: RedisAddress = parse_url(address) if isinstance(address, str) else address
        self.config: RedisConfig = RedisConfig(**options)
        self.error: RedisError | None = None
        self._commands = Commands(self.address, self.config, self._on_change)
        self._subscriptions = Subscriptions(self.address, self.config, self._on_change)
        self._nursery: trio.Nursery | None = None
        self._context = contextvars.Context()
        self._health = Health.CLOSED
        self._listeners: list[Callable[[Health, RedisError | None], object]] = []
        self._listener_errors = 0

    def __repr__(self) -> str:
        return f"<Redis {self.address} {self._health.value}>"

    # Life

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """The client's life: it is connected when this begins, and everything ends with it.

        When the body has ended without an exception, the end waits for the answers to what was submitted, for at most
        ``close_timeout`` seconds. Subscriptions do not outlive it.

        Raises:
            RedisUnavailable: The server cannot be used; the text names the address and the reason.
            RuntimeError: It runs already.
        """
        if self._nursery is not None:
            raise RuntimeError("it is running already")
        with plain_exceptions():
            async with trio.open_nursery() as nursery:
                self._nursery, self._context = nursery, contextvars.copy_context()
                self._commands.begin()
                try:
                    await nursery.start(self._commands.keep, True)
                    yield self
                    await self._finish()
                finally:
                    self._nursery = None
                    self._subscriptions.clear()
                    nursery.cancel_scope.cancel()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; the same as `running`, for ``await nursery.start(client.run)``."""
        async with self.running():
            task_status.started()
            await trio.sleep_forever()

    async def _finish(self) -> None:
        if self._commands.awaiting:
            with trio.move_on_after(self.config.close_timeout), suppress(RedisError):
                await self._commands.execute("PING")  # its answer is the last one

    # Health

    @property
    def health(self) -> Health:
        """That of the connection that is worst off."""
        return self._health

    def on_health(self, listener: Callable[[Health, RedisError | None], object]) -> None:
        """Have a plain function called after each change of `health`, with it and the reason, if it is a loss.

        After `Health.LOST`, messages may have been published that did not arrive here. It is called in the middle of
        things, and its exceptions are logged.
        """
        self._listeners.append(listener)

    def _on_change(self, error: RedisError | None) -> None:
        self.error = error or self.error
        health = worst((self._commands.health, self._subscriptions.health))
        if health is self._health:
            return
        self._health = health
        for listener in tuple(self._listeners):
            try:
                listener(health, error)
            except Exception:  # its author's mistake must not keep the connection from being opened again
                self._listener_errors += 1
                logger.exception("a listener of the client's health failed")

    def statistics(self) -> RedisStatistics:
        """What there is now, and what has been."""
        lines = (self._commands, self._subscriptions)
        links = [line.link for line in lines if line.link is not None]
        return RedisStatistics(
            health=self._health,
            connections=len(links),
            losses=sum(line.losses for line in lines),
            commands=self._commands.submitted,
            awaiting=self._commands.awaiting,
            buffered=sum(link.buffered for link in links),
            subscriptions=len(self._subscriptions),
            messages=self._subscriptions.messages,
            error_replies=self._commands.error_replies + self._subscriptions.refused,
            handler_errors=sum(line.failures for line in lines) + self._listener_errors,
        )

    # Commands

    async def execute(self, *args: Argument) -> Reply:
        """Execute a command, pipelined with those of other tasks; it never blocks the server (see `blocking`).

        Waits while the server does not take what is buffered already. When cancelled, the command may still be
        executed; its reply is dropped, and those of others stay their own.

        Args:
            args: The command's words.

        Returns:
            The reply: bytes, int, float, bool, None, or lists and dicts of them.

        Raises:
            RedisReplyError: The server's answer is an error.
            RedisConnectionLost: There is no connection, which is said at once; or it broke before the answer came.
            TypeError: A word that is no text, bytes or number.
        """
        return await self._commands.execute(*args)

    def execute_nowait(self, *args: Argument, on_reply: OnReply | None = None) -> None:
        """Submit a command without waiting. Commands are executed in the order in which they were submitted.

        Args:
            args: The command's words.
            on_reply: Called with the reply, inline and in the order of the commands; exactly once, with the
                `RedisError` if there is no reply. Without it, errors are counted, and logged once for each kind.

        Raises:
            RedisConnectionLost: There is no connection; the command was not sent.
            RedisBufferFull: ``max_buffer_bytes`` wait already; the command was not sent.
            TypeError: A word that is no text, bytes or number.
        """
        self._commands.submit(pack_command(args), self._commands.ignore if on_reply is None else on_reply)

    def transaction_nowait(self, *commands: Sequence[Argument], on_reply: OnReply) -> None:
        """Submit commands that are executed together, or not at all (``MULTI``); nobody else's come in between.

        Args:
            commands: The words of each.
            on_reply: Called with the list of their replies, as that of `execute_nowait` is.

        Raises:
            RedisConnectionLost: There is no connection; nothing was sent.
            RedisBufferFull: ``max_buffer_bytes`` wait already; nothing was sent.
            TypeError: A word that is no text, bytes or number.
        """
        self._commands.submit_transaction([pack_command(tuple(command)) for command in commands], on_reply)

    async def writable(self) -> None:
        """Wait until `execute_nowait` takes a command; a checkpoint, even if it does. Nobody waits for a connection."""
        await trio.lowlevel.checkpoint()
        await self._commands.wait_room()

    @asynccontextmanager
    async def blocking(self) -> AsyncIterator[BlockingConnection]:
        """A connection of its own, for one task and commands that block; closed with the context."""
        connection = BlockingConnection(self.address, self.config)
        try:
            yield connection
        finally:
            await connection.aclose()

    # Subscriptions

    async def subscribe(
        self,
        handler: Handler,
        *,
        channels: Iterable[Name] = (),
        patterns: Iterable[Name] = (),
        shard_channels: Iterable[Name] = (),
    ) -> None:
        """Subscribe, and wait until the server has confirmed all of it.

        From then on the handler gets every message, until `unsubscribe`; except those that are published while the
        connection is lost. It may get some before this returns. If this is cancelled, or raises, only what the handler
        had subscribed before stays.

        Args:
            handler: Called with the channel and the message (bytes), inline by the reader: it must not take long.
                Its exceptions are logged and counted. Several handlers may subscribe the same name.
            channels: For ``SUBSCRIBE``.
            patterns: For ``PSUBSCRIBE``; the handler still gets the channel.
            shard_channels: For ``SSUBSCRIBE`` (Redis 7).

        Raises:
            RedisConnectionLost: The connection is lost, which is said at once; or it broke before the confirmation.
            RedisReplyError: The server refused a name.
            NotRunning: The client does not run.
        """
        topics = make_topics(channels, patterns, shard_channels)
        if self._subscriptions.health is Health.LOST:
            raise RedisConnectionLost(f"the connection to {self.address} is lost")
        added = self._subscribe(topics, handler)
        try:
            await self._subscriptions.confirm(topics)
        except BaseException:
            self._subscriptions.remove(added, handler)
            raise

    def subscribe_nowait(
        self,
        handler: Handler,
        *,
        channels: Iterable[Name] = (),
        patterns: Iterable[Name] = (),
        shard_channels: Iterable[Name] = (),
    ) -> None:
        """The same as `subscribe`, without waiting: the server is told at once, or when there is a connection again.

        A name that the server refuses is logged, and not subscribed.

        Raises:
            NotRunning: The client does not run.
        """
        self._subscribe(make_topics(channels, patterns, shard_channels), handler)

    def _subscribe(self, topics: list[Topic], handler: Handler) -> list[Topic]:
        if self._nursery is None:
            raise NotRunning("a subscription needs a running client")
        if self._subscriptions.health is Health.CLOSED:
            self._subscriptions.begin()
            nursery = self._nursery
            # Not in the subscriber's context: its handlers are not the only ones that will be called.
            self._context.run(lambda: nursery.start_soon(self._subscriptions.keep, False))
        return self._subscriptions.add(topics, handler)

    async def unsubscribe(
        self,
        handler: Handler,
        *,
        channels: Iterable[Name] = (),
        patterns: Iterable[Name] = (),
        shard_channels: Iterable[Name] = (),
    ) -> None:
        """Have a handler not called any more, from this moment on; the server is told in the background."""
        self.unsubscribe_nowait(handler, channels=channels, patterns=patterns, shard_channels=shard_channels)
        await trio.lowlevel.checkpoint()

    def unsubscribe_nowait(
        self,
        handler: Handler,
        *,
        channels: Iterable[Name] = (),
        patterns: Iterable[Name] = (),
        shard_channels: Iterable[Name] = (),
    ) -> None:
        """The same as `unsubscribe`."""
        self._subscriptions.remove(make_topics(channels, patterns, shard_channels), handler)


def make_topics(channels: Iterable[Name], patterns: Iterable[Name], shard_channels: Iterable[Name]) -> list[Topic]:
    """Every name once; text is encoded as UTF-8."""
    kinds = ((Kind.CHANNEL, channels), (Kind.PATTERN, patterns), (Kind.SHARD_CHANNEL, shard_channels))
    for _, names in kinds:
        if isinstance(names, str | bytes):
            raise TypeError(f"a list of names is expected, not the name {names!r}")
    topics = [Topic(kind, name.encode() if isinstance(name, str) else name) for kind, names in kinds for name in names]
    return list(dict.fromkeys(topics))
