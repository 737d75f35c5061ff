"""What rooms mean, in as few lines as that can be said; everything that an adapter does is held against this."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class RoomModel:
    """The rooms of a cluster, as they should be.

    Sockets have names, and every socket is in a room of its own name. The servers are numbers.

    Attributes:
        rooms: The rooms of each connected socket.
        server: The server of each connected socket.
    """

    def __init__(self) -> None:
        self.rooms: dict[str, set[str]] = {}
        self.server: dict[str, int] = {}

    def connect(self, socket: str, server: int) -> None:
        """A socket connects."""
        self.rooms[socket], self.server[socket] = {socket}, server

    def disconnect(self, socket: str) -> None:
        """A socket leaves all its rooms, and is gone."""
        del self.rooms[socket], self.server[socket]

    def join(self, sockets: Iterable[str], rooms: Iterable[str]) -> None:
        """Sockets join rooms, those that they are in already included."""
        for socket in sockets:
            self.rooms[socket].update(rooms)

    def leave(self, sockets: Iterable[str], rooms: Iterable[str]) -> None:
        """Sockets leave rooms, even their own; those that they are not in are no matter."""
        for socket in sockets:
            self.rooms[socket].difference_update(rooms)

    def chosen(self, rooms: Iterable[str], except_rooms: Iterable[str], servers: Iterable[int]) -> set[str]:
        """Who is meant: the union of the rooms, or everybody without any; but nobody in one of the other rooms.

        Each is meant once, however many of the rooms it is in.
        """
        wanted, unwanted, present = set(rooms), set(except_rooms), set(servers)
        return {
            socket
            for socket, own in self.rooms.items()
            if self.server[socket] in present and (not wanted or own & wanted) and not own & unwanted
        }

    def index(self, server: int) -> dict[str, set[str]]:
        """The rooms of one server, with the sockets in them; a room without any does not exist."""
        index: dict[str, set[str]] = {}
        for socket, own in self.rooms.items():
            if self.server[socket] == server:
                for room in own:
                    index.setdefault(room, set()).add(socket)
        return index
