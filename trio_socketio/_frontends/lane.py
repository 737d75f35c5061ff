"""The fast lane: a stream between the socket and trio-websocket that takes out what needs no protocol.

trio-websocket is the authority on RFC 6455, and is given this stream instead of the socket, as soon as there is
something for it: most clients send nothing but messages until they close. The lane's law: *the application
gets through the lane what it would get without it, no later*. Complete messages go from the lane straight to the
receiver; all other frames are passed on untouched (`trio_socketio._wire.frames` tells one from the other), and what
trio-websocket writes (pongs, closes) goes out between our own frames, never inside one.

Two tasks meet here: the pump, which reads, and trio-websocket's reader, which parks in `Lane.receive_some` until the
pump has something for it. The pump then waits until the reader is back for more, so there is always one who acts, and
the order of messages is the order of the bytes. When messages are no longer the lane's business (one side has closed,
or the peer has broken the protocol), the reader reads for itself.

On a plain socket the lane does without Trio's checkpoint for each call: a `recv` costs 0.3 microseconds instead of 6.5,
a `send` 2 instead of 10. Where there is epoll, one task waits for all such sockets (`readiness`), and a pump wakes only
when it has to wait or to decide. On any other stream it uses the methods that all streams have.
"""

from __future__ import annotations

import enum
import os
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from .._latch import Latch
from .._wire.frames import CLOSE, Phase, answer_goodbye, encode_frame
from .readiness import ready_set

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .._engine.contract import Receiver
    from .._wire.frames import FrameSorter

READ_SIZE = 65_536

_MESSAGES = Phase.MESSAGES  # an attribute of an enum's class costs 60 nanoseconds


class LaneState(enum.Enum):
    OPEN = "open"
    BROKEN = "broken"  # the connection failed, or a write was cut off inside a frame
    OVER = "over"  # the client has left, or has said goodbye and got its answer; trio-websocket knows nothing of it
    CLOSED = "closed"


class Lane(trio.abc.Stream):
    """One client's stream, as trio-websocket and the pump see it.

    Args:
        stream: What to read from and write to; from now on the lane is the one who closes it.
        trailing: What the client had already sent after its opening request.
        sorter: What tells messages from the rest.
        summon: Called when there is something for trio-websocket's reader, to start it if that has not been done.
    """

    __slots__ = (
        "_back", "_fileno", "_handshake", "_passed", "_reading", "_ready", "_rest", "_sending", "_state", "_stream",
        "_summon", "_summoned", "_unsent", "_wake", "deaf", "sorter",
    )  # fmt: skip

    def __init__(
        self, stream: trio.abc.Stream, trailing: bytes, sorter: FrameSorter, summon: Callable[[], object]
    ) -> None:
        self.sorter = sorter
        sorter.feed(trailing)
        self._stream = stream
        # Asked each time, and not kept: once a socket is closed, its number may be another client's.
        self._fileno: Callable[[], int] | None = None
        if isinstance(stream, trio.SocketStream) and os.name == "posix":
            self._fileno = stream.socket.fileno
        self._ready = None if self._fileno is None else ready_set()
        self._rest: bytes | None = b""
        self._state = LaneState.OPEN
        self._unsent = bytearray()
        self._sending: trio.Lock | None = None
        self._passed: bytes | None = None
        self._summon = summon
        self._summoned = False
        self._reading = False  # the pump is
        #: Whether trio-websocket's reader was cancelled, as it is with the server: it sees no more frames.
        self.deaf = False
        self._handshake: trio.CancelScope | None = None
        self._wake = Latch()  # the reader has something to look at
        self._back = Latch()  # the reader is done with what was passed on

    # Reading: the pump's side

    async def carry(self, receiver: Receiver) -> None:
        """Read and deliver, until trio-websocket has something to say: a message, or that there are no more.

        Raises:
            RemoteProtocolError: A message exceeds the limit.
            trio.BrokenResourceError: The connection broke.
        """
        sorter = self.sorter
        passed = self._sort(receiver)
        while True:
            if passed:
                if not self._summoned and (answer := answer_goodbye(passed)) is not None:
                    await self._say_goodbye(answer)
                    return
                await self._pass_on(passed)
                if sorter.message_follows:
                    return
            elif receiver.paused:
                await receiver.resumed()
            if sorter.phase is not Phase.MESSAGES:
                self._wake.set()
                return
            if passed:
                passed = self._sort(receiver)
                continue
            found = await self._read_as_pump(receiver)
            if found is None:
                if not self._summoned and self._state is LaneState.OPEN:
                    self._state = LaneState.OVER
                    return
                self._passed = b""
                self._wake.set()
                return
            passed = found

    def _sort(self, receiver: Receiver) -> bytes:
        passed = self.sorter.sort(receiver.on_message)
        receiver.end_batch()
        return passed

    async def _pass_on(self, data: bytes) -> None:
        if self._state is LaneState.CLOSED:
            return  # trio-websocket has given up on this client, and never comes back
        self._let_in()
        self._passed = data
        self._back = Latch()
        self._wake.set()
        await self._back.wait()
        if self._state is LaneState.BROKEN:
            raise trio.BrokenResourceError("the connection broke")

    def _let_in(self) -> None:
        self._summoned = True
        self._summon()

    async def _say_goodbye(self, answer: bytes) -> None:
        complete = self.send_nowait(answer)
        self._state = LaneState.OVER
        if not complete:
            await self.drain()

    @property
    def is_over(self) -> bool:
        """Whether the client has gone, and trio-websocket has never had anything to do with it."""
        return self._state is LaneState.OVER

    async def _read_as_pump(self, receiver: Receiver) -> bytes | None:
        """Read and deliver. Returns what must be passed on, or that there is something else to do; None at the end."""
        self._reading = True
        try:
            if self._ready is not None:
                await self._ready.watch(self._open_fd(), partial(self._on_readable, receiver))
                return self._rest
            data = await self._read()
            if not data:
                return None
            self.sorter.feed(data)
            return self._sort(receiver)
        except trio.ClosedResourceError:
            return None  # trio-websocket, or `aclose`, has closed the stream meanwhile
        finally:
            self._reading = False
            if self.sorter.phase is not Phase.MESSAGES:
                self._wake.set()

    def _on_readable(self, receiver: Receiver, fd: int) -> bool:
        try:
            data = self._read_nowait(fd)
        except BlockingIOError:
            return True
        if not data:
            self._rest = None
            return False
        sorter = self.sorter
        sorter.feed(data)
        self._rest = passed = self._sort(receiver)
        return not passed and sorter.phase is _MESSAGES and not receiver.paused

    async def _read(self) -> bytes:
        if self._fileno is None:
            return bytes(await self._stream.receive_some(READ_SIZE))
        while True:
            await trio.lowlevel.wait_readable(self._open_fd())
            try:
                return self._read_nowait(self._open_fd())
            except BlockingIOError:
                continue

    def _read_nowait(self, fd: int) -> bytes:
        try:
            return os.read(fd, READ_SIZE)
        except BlockingIOError:
            raise
        except OSError as error:
            self._break()
            raise trio.BrokenResourceError(f"the connection broke: {error}") from error

    def _open_fd(self) -> int:
        assert self._fileno is not None
        fd = self._fileno()
        if fd < 0:
            raise trio.ClosedResourceError("the connection is closed")
        return fd

    # Reading: the side of trio-websocket's reader

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What is passed on to trio-websocket, however much it is. Parks until there is something."""
        try:
            # A reader that begins with its server's end is deaf before anyone takes it for idle.
            await trio.lowlevel.checkpoint_if_cancelled()
            return await self._receive_passed()
        except trio.Cancelled:
            self._lose_reader()
            raise

    def _lose_reader(self) -> None:
        self.deaf = True
        self._back.set()
        if self._handshake is not None:
            self._handshake.cancel()

    async def _receive_passed(self) -> bytes:
        if self._passed is None:
            self._back.set()
        while self._state is LaneState.OPEN:
            if self._passed is not None:
                data, self._passed = self._passed, None
                if not data:
                    self._back.set()  # the reader does not come back for more than the end
                await trio.lowlevel.checkpoint()
                return data
            if self.sorter.phase is not Phase.MESSAGES and not self._reading:
                return await self._read_alone()
            self._wake = Latch()
            await self._wake.wait()
        self._back.set()  # nor does it come back after this
        if self._state is LaneState.BROKEN:
            raise trio.BrokenResourceError("the connection broke")
        raise trio.ClosedResourceError("the connection is closed")

    async def _read_alone(self) -> bytes:
        while not (passed := self.sorter.rest()):
            data = await self._read()
            if not data:
                return b""
            self.sorter.feed(data)
        return passed

    async def end_messages(self) -> None:
        """Prepare for our close frame, which must follow in the same tick.

        It waits until trio-websocket is idle: a ping that it found after our close frame would be an error to it.
        """
        self._let_in()
        await self._back.wait()
        self.sorter.end()
        self._wake.set()

    @contextmanager
    def handshake(self) -> Iterator[None]:
        """A context for our close frame and the wait for the peer's.

        It ends when trio-websocket's reader is cancelled, as it is with the server: nobody would see the peer's frame.
        """
        with trio.CancelScope() as self._handshake:
            yield

    async def close_alone(self, code: int) -> None:
        """The closing handshake when trio-websocket's reader has gone before.

        Raises:
            trio.BrokenResourceError: The connection broke.
        """
        await self.send_all(encode_frame(CLOSE, code.to_bytes(2, "big")))
        await self._read_alone()

    # Writing

    def send_nowait(self, data: bytes) -> bool:
        """Write whole frames; what the kernel does not take is kept for `drain`.

        Returns:
            Whether nothing is kept.

        Raises:
            trio.BrokenResourceError: The connection broke, or is closed.
        """
        if self._fileno is not None and not self._unsent:
            try:
                sent = os.write(self._fileno(), data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._break()
                raise trio.BrokenResourceError(f"the connection broke: {error}") from error
            if sent == len(data):
                return True
            data = data[sent:]
        elif self._state is not LaneState.OPEN:
            raise trio.BrokenResourceError("the connection broke")
        self._unsent += data
        return False

    async def drain(self) -> None:
        """Write what is kept. Several tasks may drain; each returns when nothing is kept any more.

        When cancelled on a plain socket, the rest is still kept; on other streams nobody knows what was written, and
        the lane is broken.

        Raises:
            trio.BrokenResourceError: The connection broke, or is closed.
        """
        if self._sending is None:
            self._sending = trio.Lock()  # half a KiB that an idle client does not need
        async with self._sending:
            try:
                while self._unsent:
                    await (self._drain_stream() if self._fileno is None else self._drain_socket())
            except (trio.ClosedResourceError, OSError) as error:
                self._break()
                raise trio.BrokenResourceError(f"the connection broke: {error}") from error

    async def _drain_socket(self) -> None:
        await trio.lowlevel.wait_writable(self._open_fd())
        try:
            sent = os.write(self._open_fd(), self._unsent)
        except BlockingIOError:
            return
        del self._unsent[:sent]

    async def _drain_stream(self) -> None:
        data, self._unsent = self._unsent, bytearray()
        complete = False
        try:
            await self._stream.send_all(data)
            complete = True
        finally:
            if not complete:
                self._break()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Trio-websocket's own frames: they go behind what is kept."""
        try:
            if self.send_nowait(bytes(data)):
                await trio.lowlevel.checkpoint()
            else:
                await self.drain()
        except trio.Cancelled:
            self._lose_reader()  # for it was writing a pong; or it was us, and all is over anyway
            raise

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until nothing is kept, and the stream takes more."""
        await self.drain()
        await self._stream.wait_send_all_might_not_block()

    # Ending

    def _break(self) -> None:
        if self._state is LaneState.OPEN:
            self._state = LaneState.BROKEN
            self._wake.set()

    async def aclose(self) -> None:
        """Close the stream."""
        self._close()
        await self._stream.aclose()

    async def cut(self) -> None:
        """Close the stream without waiting for anything; once is enough."""
        if self._state is not LaneState.CLOSED:
            self._close()
            await cut(self._stream)

    def _close(self) -> None:
        if self._ready is not None and self._fileno is not None:
            self._ready.forget(self._fileno())
        self._state = LaneState.CLOSED
        self._summon = _nobody  # who has us; without this cycle, what a client leaves behind is freed at once
        self._wake.set()
        self._back.set()


async def cut(stream: trio.abc.Stream) -> None:
    """Close a stream without waiting for anything; not a checkpoint where there is nothing that could wait.

    Trio's `trio.aclose_forcefully` takes a cancel scope and two turns of the task for it, also when all is closed.
    """
    if isinstance(stream, trio.SocketStream):
        stream.socket.close()
    else:
        await trio.aclose_forcefully(stream)


def _nobody() -> None:
    """There is nothing to be done any more."""
