"""A chat with rooms that take no more than a few, on however many servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trio_socketio import Server, Socket

CAPACITY = 3


def register(io: Server) -> None:
    """Have a server be a part of the chat."""

    @io.handle("join")
    async def join(socket: Socket, room: str) -> str:
        members = {member.id for member in await io.in_(room).fetch_sockets()}
        if socket.id not in members and len(members) >= CAPACITY:
            return "full"
        await socket.join(room)
        return "welcome"

    @io.handle("leave")
    async def leave(socket: Socket, room: str) -> None:
        await socket.leave(room)

    @io.handle("say")
    async def say(socket: Socket, room: str, text: str) -> bool:
        """Whether somebody was told: who is not in a room has no say in it."""
        if room not in socket.rooms:
            return False
        await socket.to(room).emit("said", room, text)
        return True
