"""A server of `python-socketio` with the control protocol of `WireMachine`; see `wire.py`.

It takes any free port, says where it is, and ends with its input. What this server's API has no word for is put
together here from what it has: it can emit to rooms and skip sockets, have one join and leave, and call one.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import socketio
from hypercorn.asyncio import serve
from hypercorn.config import Config

CONTROL = "/control"

# In the order of their arrival.
sio: Any = socketio.AsyncServer(async_mode="asgi", async_handlers=False, namespaces="*")


async def echo(sid: str) -> None:
    """Acknowledge it."""


sio.on("echo", echo)


def rooms() -> dict[str, list[str]]:
    """The manager has one more for everybody."""
    everything = sio.manager.rooms.get("/", {})
    return {room: list(sids) for room, sids in everything.items() if room is not None}


def everybody() -> list[str]:
    return list(sio.manager.rooms.get("/", {}).get(None, {}))


def meant(target: dict[str, Any]) -> list[str]:
    there = rooms()
    wanted = {sid for room in target["rooms"] for sid in there.get(room, [])}
    unwanted = skipped(target)
    return [sid for sid in everybody() if (sid in wanted or not target["rooms"]) and sid not in unwanted]


def skipped(target: dict[str, Any]) -> list[str]:
    there = rooms()
    return [sid for room in target["except"] for sid in there.get(room, [])]


async def join_all(sid: str, rooms: list[str]) -> None:
    for room in rooms:
        await sio.enter_room(sid, room)


def control(handler: Callable[..., Awaitable[Any]]) -> None:
    """Handle an event of the driver."""

    async def handle(_: str, *args: Any) -> Any:
        return await handler(*args)

    sio.on(handler.__name__, handle, namespace=CONTROL)


@control
async def start(number: int) -> None:
    """It is alone, and does not need a number."""


@control
async def join(sid: str, rooms: list[str]) -> None:
    await join_all(sid, rooms)


@control
async def leave(sid: str, room: str) -> None:
    await sio.leave_room(sid, room)


@control
async def disconnect_socket(sid: str) -> None:
    await sio.disconnect(sid)


@control
async def emit_from(sid: str, rooms: list[str], event: str, args: list[Any]) -> None:
    await sio.emit(event, tuple(args), to=rooms or None, skip_sid=sid)


@control
async def emit(target: dict[str, Any], event: str, args: list[Any]) -> None:
    await sio.emit(event, tuple(args), to=target["rooms"] or None, skip_sid=skipped(target))


@control
async def ask(target: dict[str, Any], event: str, args: list[Any]) -> list[Any]:
    sids = meant(target)
    answers: asyncio.Queue[Any] = asyncio.Queue()
    for sid in sids:
        await sio.emit(event, tuple(args), to=sid, callback=answers.put_nowait)
    values: list[Any] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            while len(values) < len(sids):
                values.append(await answers.get())
    return [values, len(values) == len(sids)]


@control
async def sockets_join(target: dict[str, Any], rooms: list[str]) -> None:
    for sid in meant(target):
        await join_all(sid, rooms)


@control
async def sockets_leave(target: dict[str, Any], rooms: list[str]) -> None:
    for sid in meant(target):
        for room in rooms:
            await sio.leave_room(sid, room)


@control
async def disconnect_sockets(target: dict[str, Any]) -> None:
    for sid in meant(target):
        await sio.disconnect(sid)


@control
async def fetch_sockets(target: dict[str, Any]) -> list[Any]:
    return [[[sid, sio.rooms(sid)] for sid in meant(target)], True]


@control
async def snapshot() -> tuple[Any, ...]:
    return ([rooms(), []],)


@control
async def settle() -> None:
    """There is nobody else."""


async def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.loglevel = "WARNING"
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    app: Any = socketio.ASGIApp(sio)
    await serve(app, config, shutdown_trigger=lambda: asyncio.to_thread(sys.stdin.buffer.read))


if __name__ == "__main__":
    asyncio.run(main())
