"""The application with plain functions for handlers, which is what Node.js has: they emit, and never wait."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from trio_socketio import Server

if TYPE_CHECKING:
    from trio_socketio import Socket

io = Server(ping_interval=float(os.environ.get("PING_INTERVAL", "25")))


@io.handle("echo")
def echo(socket: Socket, data: Any) -> None:
    socket.emit_nowait("echo", data)


@io.handle("ack")
def ack(socket: Socket, data: Any) -> Any:
    return data
