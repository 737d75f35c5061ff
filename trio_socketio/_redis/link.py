"""One open connection to the server: bytes out, replies in, watched for as long as it is open.

What is written goes out together at the end of the scheduler's tick: `Link.write` only notes it and wakes the writer,
which runs when all tasks of this tick have had their turn. On a plain socket, reading and writing go without Trio's
checkpoint for each call: a `recv` costs 0.3 microseconds instead of 6.5, a `send` 2 instead of 10.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import trio

from .._errors import RedisConnectionLost, RedisError, RedisReplyError
from .parsing import PUSHES, make_parser, pack_command

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from .address import RedisAddress
    from .config import RedisConfig
    from .resp import Argument, Reply

READ_SIZE = 128 * 1024
#: What a server says to a HELLO that it does not know, or if it does not want to speak RESP3. A server with a password
#: may not tell strangers which commands it knows.
NO_RESP3 = ("ERR unknown command", "NOPROTO", "NOAUTH")


class Link:
    """One connection.

    Args:
        stream: What to read from and write to; the link does not close it.
        config: The client's options.
    """

    def __init__(self, stream: trio.abc.Stream, config: RedisConfig) -> None:
        self._stream = stream
        self._config = config
        self._parser = make_parser(config.max_reply_bytes)
        self._fileno: Callable[[], int] | None = None
        if isinstance(stream, trio.SocketStream) and os.name == "posix":
            self._fileno = stream.socket.fileno
        self._unsent = bytearray()
        self._sending = 0
        self._written = trio.Event()
        self._room = trio.Event()
        self._heard = trio.current_time()
        self._error: RedisError | None = None
        self._scope = trio.CancelScope()

    @property
    def buffered(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return len(self._unsent) + self._sending

    def takes(self, size: int) -> bool:
        """Whether so many bytes may be written now; whatever the size, if nothing is buffered."""
        buffered = self.buffered
        return not buffered or buffered + size <= self._config.max_buffer_bytes

    def write(self, data: bytes) -> None:
        """Have something sent at the end of this tick."""
        self._unsent += data
        self._written.set()

    async def wait_room(self) -> None:
        """Wait until something was taken by the kernel, or the connection is over."""
        await self._room.wait()

    async def ask(self, *args: Argument) -> Reply:
        """Send one command and read its reply; only while `serve` does not run.

        Raises:
            RedisReplyError: The reply is an error.
            RedisConnectionLost: The connection broke.
            RedisProtocolError: What came is no reply.
        """
        with translated_errors():
            self._unsent += pack_command(args)
            while self._unsent:
                await self._send()
            while True:
                for reply in self._parser.feed(await self._read()):
                    if isinstance(reply, RedisReplyError):
                        raise reply
                    if not isinstance(reply, PUSHES):
                        return reply

    async def serve(
        self,
        deliver: Callable[[Iterator[Reply]], None],
        ping: Callable[[], None],
        prepare: Callable[[], Awaitable[None]],
    ) -> RedisError:
        """Read and write until the connection is lost.

        Args:
            deliver: Called with the replies of each chunk, in order; takes them all.
            ping: Asks the server for a sign of life.
            prepare: Runs as soon as replies are read; if it fails, the connection is lost.

        Returns:
            Why it was lost. Nothing but a cancellation is raised, unless one of the functions has a mistake.
        """
        with self._scope:
            async with trio.open_nursery() as nursery:
                for part in (self._write_all, lambda: self._read_all(deliver), lambda: self._watch(ping), prepare):
                    nursery.start_soon(self._until_lost, part)
        self._room.set()
        return self._error or RedisConnectionLost("the connection was given up")

    async def _until_lost(self, part: Callable[[], Awaitable[None]]) -> None:
        try:
            with translated_errors():
                await part()
        except RedisError as error:
            self.lose(error)

    def lose(self, error: RedisError) -> None:
        """Give the connection up; the first reason counts."""
        self._error = self._error or error
        self._scope.cancel()

    async def _write_all(self) -> None:
        while True:
            while self._unsent:
                await self._send()
                self._room.set()
                self._room = trio.Event()
            self._written = trio.Event()
            await self._written.wait()

    async def _send(self) -> None:
        """Send what there is, or a part of it. May return without a checkpoint."""
        if self._fileno is None:
            data, self._unsent = self._unsent, bytearray()
            self._sending = len(data)
            await self._stream.send_all(data)
            self._sending = 0
            return
        try:
            sent = os.write(self._fileno(), self._unsent)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(self._fileno())
        else:
            del self._unsent[:sent]

    async def _read_all(self, deliver: Callable[[Iterator[Reply]], None]) -> None:
        while True:
            deliver(self._parser.feed(await self._read()))

    async def _read(self) -> bytes:
        if self._fileno is None:
            data = bytes(await self._stream.receive_some(READ_SIZE))
        else:
            while True:
                await trio.lowlevel.wait_readable(self._fileno())
                try:
                    data = os.read(self._fileno(), READ_SIZE)
                    break
                except BlockingIOError:
                    continue
        if not data:
            raise RedisConnectionLost("the server has closed the connection")
        self._heard = trio.current_time()
        return data

    async def _watch(self, ping: Callable[[], None]) -> None:
        idle, limit = self._config.ping_idle, self._config.ping_limit
        while True:
            await trio.sleep_until(self._heard + idle)
            heard = self._heard
            if heard + idle > trio.current_time():
                continue
            ping()
            await trio.sleep(limit)
            await trio.lowlevel.checkpoint()  # if it was us who stood still, the reader has found an answer by now
            if self._heard == heard:
                raise RedisConnectionLost(f"no sign of life within {limit} s")


@contextmanager
def translated_errors() -> Iterator[None]:
    """Whatever a broken connection raises, as ours."""
    try:
        yield
    except RedisError:
        raise
    except trio.TooSlowError as error:
        raise RedisConnectionLost("no answer in time") from error
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
        # Trio's own errors often have their reason, such as a wrong certificate, in their cause only.
        raise RedisConnectionLost(f"the connection broke: {str(error) or error.__cause__ or 'closed'}") from error


@asynccontextmanager
async def open_link(address: RedisAddress, config: RedisConfig) -> AsyncIterator[Link]:
    """A connection that is ready for commands, closed with the context.

    Raises:
        RedisConnectionLost: It could not be made.
        RedisReplyError: The server does not want it: a wrong password, or no such database.
        RedisProtocolError: What answers is not Redis.
    """
    stream: trio.abc.Stream | None = None
    try:
        with translated_errors(), trio.fail_after(config.connect_timeout):
            stream = await open_stream(address, config.ssl_context)
            link = Link(stream, config)
            await introduce(link, address, config.client_name)
        yield link
    finally:
        if stream is not None:
            await trio.aclose_forcefully(stream)


async def open_stream(address: RedisAddress, ssl_context: ssl.SSLContext | None) -> trio.abc.Stream:
    if address.path is not None:
        return await trio.open_unix_socket(address.path)
    if not address.tls:
        return await trio.open_tcp_stream(address.host, address.port)
    stream = await trio.open_ssl_over_tcp_stream(
        address.host, address.port, ssl_context=ssl_context, https_compatible=True
    )
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def introduce(link: Link, address: RedisAddress, client_name: str | None) -> None:
    """Log in and agree on the protocol: RESP3, or what the server speaks."""
    login: tuple[str, ...] = ()
    if address.password is not None:
        login = ("AUTH", address.username or "default", address.password)
    name: tuple[str, ...] = () if client_name is None else ("SETNAME", client_name)
    try:
        await link.ask("HELLO", 3, *login, *name)
    except RedisReplyError as error:
        if not str(error).startswith(NO_RESP3) or (error.code == "NOAUTH" and not login):
            raise
        await introduce_by_resp2(link, address, client_name)
    if address.db:
        await link.ask("SELECT", address.db)


async def introduce_by_resp2(link: Link, address: RedisAddress, client_name: str | None) -> None:
    if address.password is not None:
        user = () if address.username is None else (address.username,)
        await link.ask("AUTH", *user, address.password)
    if client_name is not None:
        await link.ask("CLIENT", "SETNAME", client_name)
