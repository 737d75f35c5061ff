"""The application on trio_socketio, on all defaults but for the heartbeats.

``io`` is for its own listener, ``app`` for ASGI.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from trio_socketio import Server
from trio_socketio.asgi import ASGIApp

if TYPE_CHECKING:
    from trio_socketio import Socket

io = Server(ping_interval=float(os.environ.get("PING_INTERVAL", "25")))
app = ASGIApp(io)


@io.on("connection")
async def connected(socket: Socket) -> None:
    await socket.join("r")


@io.handle("echo")
async def echo(socket: Socket, data: Any) -> None:
    await socket.emit("echo", data)


@io.handle("ack")
async def ack(socket: Socket, data: Any) -> Any:
    return data


@io.handle("bcast")
async def bcast(socket: Socket, data: Any) -> None:
    await io.to("r").emit("m", data)
