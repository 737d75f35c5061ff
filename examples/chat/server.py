"""A small chat: names, rooms, who is here, who is typing.

Run it with ``python examples/chat/server.py`` or ``trio-socketio run examples.chat.server:io``, open two tabs and talk
to yourself. What goes over the wire:

====================  ==============================================================================================
the page emits        ``join(room)`` and ``leave(room)``, ``say(room, text)``: each is answered with ``{"at": ...}``
                      or ``{"error": why}``; ``typing(room)``, volatile
the server emits      to everybody ``rooms({room: [names]})``; to a room ``message(room, name, text, at)``,
                      ``joined(room, name)``, ``left(room, name)`` and, volatile, ``typing(room, name)``
====================  ==============================================================================================

Nothing is stored: what a page shows is what it has heard.
"""

from __future__ import annotations

import argparse
import os
import re
import time
import unicodedata
from functools import partial
from pathlib import Path
from typing import TypeAlias

import trio

from trio_socketio import ConnectionRefused, Server, Socket

HERE = Path(__file__).resolve().parent
# Where the JavaScript client is, which npm puts beside this file; the variable names another place.
CLIENT = Path(os.environ.get("CHAT_CLIENT_DIR") or HERE / "node_modules" / "socket.io-client" / "dist")
if not (CLIENT / "socket.io.esm.min.js").is_file():
    raise SystemExit(f"The JavaScript client is not in {CLIENT}: get it with `npm ci --prefix {HERE}`.")

USUAL_ROOMS = ("general", "random", "help")
MAX_ROOMS = 20  # per person
MAX_NAME, MAX_TEXT = 24, 2000  # characters
ROOM_NAME = re.compile(r"[\w-]{1,24}")

Answer: TypeAlias = "dict[str, int | str]"

io = Server(static_files={"/": HERE / "public", "/socket.io-client": CLIENT})

#: Who is here, by casefolded name. All else, such as who is in a room, is read from the sockets: one truth, never two.
people: dict[str, Socket] = {}


@io.use
async def admit(socket: Socket) -> None:
    """Let in who brings a good name that nobody else has; what is raised here is what the page shows."""
    name = socket.handshake.auth.get("name")
    name = " ".join(unicodedata.normalize("NFKC", name).split()) if isinstance(name, str) else ""
    if not (name.isprintable() and 1 <= len(name) <= MAX_NAME):
        raise ConnectionRefused(f"A name has 1 to {MAX_NAME} printable characters.")
    key = socket.handshake.auth.get("key")
    holder = people.get(name.casefold())
    if holder is not None:
        # Whoever knows the holder's key is the holder: back before the server could notice that the old connection
        # is dead, or in a copy of the tab.
        if not key or key != holder.data["key"]:
            raise ConnectionRefused(f"Somebody here is already called {name}. Choose another name?")
        await holder.disconnect()
    socket.data.update(name=name, key=key)


@io.on("connection")
async def arrived(socket: Socket) -> None:
    name: str = socket.data["name"]
    # The name is taken here and not in the middleware: only a socket that has connected is sure to get a `disconnect`,
    # which gives it back. Of two that were admitted at the same moment, the second one goes.
    if people.setdefault(name.casefold(), socket) is not socket:
        await socket.disconnect()
        return

    @socket.on("join")
    async def join(room: object) -> Answer:
        if not (isinstance(room, str) and ROOM_NAME.fullmatch(room) and room == room.lower()):
            return {"error": "A room's name has 1 to 24 letters, digits or hyphens."}
        if room not in rooms_of(socket):
            if len(rooms_of(socket)) >= MAX_ROOMS:
                return {"error": f"You are in {MAX_ROOMS} rooms. Leave one first."}
            await socket.join(inside(room))
            await socket.to(inside(room)).emit("joined", room, name)
            await announce()
        return {"at": now()}

    @socket.on("leave")
    async def leave(room: object) -> Answer:
        if room in rooms_of(socket):
            await socket.leave(inside(room))
            await socket.to(inside(room)).emit("left", room, name)
            await announce()
        return {"at": now()}

    @socket.on("say")
    async def say(room: object, text: object) -> Answer:
        if room not in rooms_of(socket):
            return {"error": "You are not in that room."}
        if not (isinstance(text, str) and text.strip() and len(text) <= MAX_TEXT):
            return {"error": f"A message has 1 to {MAX_TEXT} characters."}
        at = now()
        await socket.to(inside(room)).emit("message", room, name, text.strip(), at)
        return {"at": at}

    @socket.on("typing")
    async def typing(room: object) -> None:
        # Volatile: worth nothing later, so it is dropped where it would have to wait. Pages forget it after a while.
        if room in rooms_of(socket):
            await socket.to(inside(room)).volatile.emit("typing", room, name)

    @socket.on("disconnecting")
    async def leaving(reason: str) -> None:
        for room in rooms_of(socket):
            await socket.to(inside(room)).emit("left", room, name)

    @socket.on("disconnect")
    async def left(reason: str) -> None:
        if people.get(name.casefold()) is socket:
            del people[name.casefold()]
        await announce()


async def announce() -> None:
    """Tell everybody who is where, as one picture: a page never has to add up what it may have missed."""
    rooms: dict[str, list[str]] = {room: [] for room in USUAL_ROOMS}
    for socket in people.values():
        for room in rooms_of(socket):
            rooms.setdefault(room, []).append(socket.data["name"])
    await io.emit("rooms", rooms)


PREFIX = "room:"  # every socket is in a room named like its id; a prefix keeps visitors out of those


def inside(room: object) -> str:
    return f"{PREFIX}{room}"


def rooms_of(socket: Socket) -> list[str]:
    return [room.removeprefix(PREFIX) for room in socket.rooms if room.startswith(PREFIX)]


def now() -> int:
    """Milliseconds since 1970, as JavaScript counts."""
    return int(time.time() * 1000)


async def main(port: int, host: str) -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(io.serve_tcp, port, host=host))
        address = listeners[0].socket.getsockname()
        print(f"The chat is on http://{host}:{address[1]}/ (Ctrl+C ends it)", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A small chat on trio_socketio.")
    parser.add_argument("--port", type=int, default=3000, help="0 takes any free one (default: 3000)")
    parser.add_argument("--host", default="localhost", help="0.0.0.0 lets the whole network in (default: localhost)")
    arguments = parser.parse_args()
    try:
        trio.run(main, arguments.port, arguments.host)
    except* KeyboardInterrupt:
        pass
