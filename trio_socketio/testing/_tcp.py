"""The way to a server on a network."""

from __future__ import annotations

import socket
from contextlib import suppress

import trio

from .._errors import SessionClosed
from ._network import TRANSPORT_ERROR, ClientStream, StreamNetwork


class TcpNetwork(StreamNetwork):
    """TCP connections.

    Args:
        host: The server's name or address.
        port: The server's.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        self._address = (host, port)

    async def connect(self) -> ClientStream:
        try:
            return _TcpStream(await trio.open_tcp_stream(*self._address))
        except OSError as error:
            raise SessionClosed(TRANSPORT_ERROR) from error

    async def finished(self) -> None:
        # Only the server knows when it is done. That it has said goodbye is what the session has waited for.
        await trio.lowlevel.checkpoint()
        self.cut()


class _TcpStream(ClientStream):
    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._reading = trio.Event()
        self._reading.set()

    async def send_all(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def receive_some(self, max_bytes: int) -> bytes:
        await self._reading.wait()
        data = await self._stream.receive_some(max_bytes)
        await self._reading.wait()  # what has come after `stop_reading` has not been read yet
        return bytes(data)

    def stop_reading(self) -> None:
        self._reading = trio.Event()

    def resume_reading(self) -> None:
        self._reading.set()

    def close_sending(self) -> None:
        with suppress(OSError):  # it is not connected any more
            self._stream.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._stream.socket.close()
        self._reading.set()
