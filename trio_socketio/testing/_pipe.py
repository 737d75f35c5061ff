"""A connection in memory that is as a TCP connection is: bytes in order, and room for only so many of them.

The memory streams of `trio.testing` take whatever is written to them, at once. What a server does about a client that
does not read cannot be seen with those; here, `Pipe.stop_reading` lets the bytes pile up until the writer has to wait.
"""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

if TYPE_CHECKING:
    from typing import Self

#: Bytes that one direction holds: what the kernels of both ends would, roughly.
CAPACITY = 65_536

Stream: TypeAlias = "trio.StapledStream[PipeSender, PipeReceiver]"


class Pipe:
    """One direction of a connection.

    Args:
        capacity: Bytes that it holds; a writer with more than that waits.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity: int = capacity
        self.data: bytearray = bytearray()
        self.sender_closed: bool = False
        self.receiver_closed: bool = False
        self.paused: bool = False
        self.changed: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()

    def stop_reading(self) -> None:
        """Whoever reads gets nothing any more, not even what is here, until `resume_reading`."""
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
        self.changed.unpark_all()


class _End:
    """What both ends of a pipe have in common: one task at a time uses it, and it can be closed."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._busy = False

    def __enter__(self) -> Self:
        if self._busy:
            raise trio.BusyResourceError("another task is using this end of the connection")
        self._busy = True
        return self

    def __exit__(self, *_: object) -> None:
        self._busy = False


class PipeSender(_End, trio.abc.SendStream):
    """The end of a `Pipe` that is written to."""

    async def send_all(self, data: Any) -> None:
        with self:
            await trio.lowlevel.checkpoint()
            pipe, rest = self._pipe, memoryview(data)
            self._check()
            while rest:
                room = pipe.capacity - len(pipe.data)
                if room <= 0:
                    await pipe.changed.park()
                    self._check()
                    continue
                pipe.data += rest[:room]
                rest = rest[room:]
                pipe.changed.unpark_all()

    async def wait_send_all_might_not_block(self) -> None:
        with self:
            await trio.lowlevel.checkpoint()
            self._check()
            while len(self._pipe.data) >= self._pipe.capacity and not self._pipe.receiver_closed:
                await self._pipe.changed.park()
                self._check(broken=False)

    def _check(self, broken: bool = True) -> None:
        if self._pipe.sender_closed:
            raise trio.ClosedResourceError("this end was closed")
        if broken and self._pipe.receiver_closed:
            raise trio.BrokenResourceError("the other end was closed")

    def close(self) -> None:
        self._pipe.sender_closed = True
        self._pipe.changed.unpark_all()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()


class PipeReceiver(_End, trio.abc.ReceiveStream):
    """The end of a `Pipe` that is read from."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        with self:
            await trio.lowlevel.checkpoint()
            pipe = self._pipe
            while not pipe.receiver_closed and (pipe.paused or not (pipe.data or pipe.sender_closed)):
                await pipe.changed.park()
            if pipe.receiver_closed:
                raise trio.ClosedResourceError("this end was closed")
            taken = bytes(pipe.data[:max_bytes])
            del pipe.data[: len(taken)]
            pipe.changed.unpark_all()
            return taken

    def close(self) -> None:
        self._pipe.receiver_closed = True
        self._pipe.data.clear()
        self._pipe.changed.unpark_all()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()


def connect() -> tuple[Stream, Stream, Pipe]:
    """A new connection: the client's end, the server's end, and the pipe that leads to the client."""
    to_server, to_client = Pipe(), Pipe()
    client = trio.StapledStream(PipeSender(to_server), PipeReceiver(to_client))
    server = trio.StapledStream(PipeSender(to_client), PipeReceiver(to_server))
    return client, server, to_client
