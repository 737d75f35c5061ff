"""The application on python-socketio, on all defaults but for the heartbeats, as an ASGI app."""

from __future__ import annotations

import os
from typing import Any

import socketio

io = socketio.AsyncServer(async_mode="asgi", ping_interval=float(os.environ.get("PING_INTERVAL", "25")))
app = socketio.ASGIApp(io)


async def connect(sid: str, environ: object) -> None:
    await io.enter_room(sid, "r")


async def echo(sid: str, data: Any) -> None:
    await io.emit("echo", data, to=sid)


async def ack(sid: str, data: Any) -> Any:
    return data


async def bcast(sid: str, data: Any) -> None:
    await io.emit("m", data, room="r")


for handler in (connect, echo, ack, bcast):
    io.on(handler.__name__, handler)
