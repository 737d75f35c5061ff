"""The adapter of a single server: two indexes that always agree.

Invariants: ``id in rooms[room]`` exactly if ``room in sids[id]``; no room is empty; replaying the events rebuilds
``rooms``. Only in the middle of a change, while listeners are told of it, there are two exceptions: the room whose last
member leaves is still there during ``leave-room``, and ``sids`` of a socket that leaves all its rooms is complete until
the end. Listeners may change rooms while they are told, so nothing here iterates over a live set across a call.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import trio

from .._listeners import Listeners
from .contract import EVENT_ARGUMENTS, EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from .._wire.encoded import EncodedPacket
    from .._wire.packets import Packet
    from .answers import AckStream
    from .contract import BroadcastOptions, Directory, Room, SocketDetails

#: Choices of rooms whose members are remembered, until somebody joins or leaves a room.
MAX_REMEMBERED = 32
NOBODY: frozenset[str] = frozenset()

logger = logging.getLogger("trio_socketio.adapters")


class MemoryAdapter:
    """Rooms in memory, for one server; implements `Adapter`.

    Args:
        directory: The namespace whose sockets these are.
    """

    def __init__(self, directory: Directory) -> None:
        self.rooms: dict[Room, set[str]] = {}
        self.sids: dict[str, set[Room]] = {}
        self._directory = directory
        self._remembered: dict[frozenset[Room], tuple[str, ...]] = {}
        self._listeners = Listeners(EVENT_ARGUMENTS, sync_only=EVENTS, known=EVENTS)

    def on(self, event: str, listener: Callable[..., Any]) -> None:
        """See `Adapter.on`."""
        self._listeners.on(event, listener)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """See `Adapter.run`; there is nothing to wait for."""
        task_status.started()
        await trio.sleep_forever()

    # Rooms

    async def add_all(self, id: str, rooms: Iterable[Room]) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._join(id, rooms)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def delete(self, id: str, room: Room) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._leave(id, room)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def delete_all(self, id: str) -> None:
        own = self.sids.get(id, set())
        left = set[str]()
        while rooms := own - left:  # again, because a listener may have put it into another one
            for room in rooms:
                self._remove(id, room)
            left |= rooms
        self.sids.pop(id, None)
        self._remembered.clear()
        await trio.lowlevel.checkpoint()

    def _join(self, id: str, rooms: Iterable[Room]) -> None:
        own = self.sids.setdefault(id, set())
        self._remembered.clear()
        for room in rooms:
            if room in own:
                continue
            own.add(room)
            self._remembered.clear()  # again, because listeners may have asked meanwhile
            created = room not in self.rooms
            self.rooms.setdefault(room, set()).add(id)
            if created:
                self._tell("create-room", room)
            self._tell("join-room", room, id)

    def _leave(self, id: str, room: Room) -> None:
        self.sids.get(id, set()).discard(room)
        self._remove(id, room)

    def _remove(self, id: str, room: Room) -> None:
        members = self.rooms.get(room)
        if members is None or id not in members:
            return
        members.remove(id)
        self._remembered.clear()
        self._tell("leave-room", room, id)
        # Only now, because a listener may have put somebody in again; and only this one, because a listener may have
        # emptied it and made it anew.
        if not members and self.rooms.get(room) is members:
            del self.rooms[room]
            self._tell("delete-room", room)

    def _tell(self, event: str, *args: Any) -> None:
        try:
            self._listeners.call_sync(event, *args)
        except Exception:
            logger.exception("a listener of %r failed", event)

    # Who is meant

    def sockets(self, options: BroadcastOptions) -> list[str]:
        """See `Adapter.sockets`."""
        connected, left_out = self._directory.connected, self._members(options.except_rooms)
        return [id for id in self._chosen(options.rooms) if id in connected and id not in left_out]

    def _chosen(self, rooms: frozenset[Room]) -> tuple[str, ...]:
        """Everybody in any of these rooms, or at all.

        The same tuple for as long as nobody joins or leaves: by that the directory knows the same recipients again.
        """
        chosen = self._remembered.get(rooms)
        if chosen is None:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            # A dict, because the order of the rooms is the order of delivery.
            members = dict.fromkeys(id for room in rooms for id in self.rooms.get(room, ())) if rooms else self.sids
            chosen = self._remembered[rooms] = tuple(members)
        return chosen

    def _members(self, rooms: frozenset[Room]) -> AbstractSet[str]:
        if not rooms:
            return NOBODY
        return NOBODY.union(*(self.rooms.get(room, NOBODY) for room in rooms))

    def has_members(self, options: BroadcastOptions) -> bool:
        """Whether anybody is in the rooms that are meant; perhaps nobody but those who are left out."""
        return bool(self._chosen(options.rooms))

    def deliver(self, packet: Packet, encoded: EncodedPacket, options: BroadcastOptions) -> None:
        """Send to those who are meant: the local part of a broadcast, also of adapters for several servers."""
        left_out = self._members(options.except_rooms)
        self._directory.deliver(self._chosen(options.rooms), packet, encoded, options.volatile, left_out)

    async def broadcast(self, packet: Packet, encoded: EncodedPacket, options: BroadcastOptions) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self.deliver(packet, encoded, options)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def broadcast_with_ack(self, packet: Packet, options: BroadcastOptions, acks: AckStream) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._directory.deliver_with_ack(self.sockets(options), packet, options, acks)
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def fetch_sockets(self, options: BroadcastOptions) -> list[SocketDetails]:
        await trio.lowlevel.checkpoint()
        return [self._directory.details(id) for id in self.sockets(options)]

    async def add_sockets(self, options: BroadcastOptions, rooms: Sequence[Room], wait: bool = False) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self.add_sockets_now(options, rooms)
        await trio.lowlevel.cancel_shielded_checkpoint()

    def add_sockets_now(self, options: BroadcastOptions, rooms: Sequence[Room]) -> None:
        """The same, as the local part of what an adapter for several servers does."""
        for id in self.sockets(options):
            self._join(id, rooms)

    async def delete_sockets(self, options: BroadcastOptions, rooms: Sequence[Room], wait: bool = False) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self.delete_sockets_now(options, rooms)
        await trio.lowlevel.cancel_shielded_checkpoint()

    def delete_sockets_now(self, options: BroadcastOptions, rooms: Sequence[Room]) -> None:
        """The same, as the local part of what an adapter for several servers does."""
        for id in self.sockets(options):
            for room in rooms:
                self._leave(id, room)

    async def disconnect_sockets(self, options: BroadcastOptions, close: bool) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._directory.disconnect(self.sockets(options), close)

    # Other servers: there are none

    async def server_side_emit(self, args: Sequence[Any]) -> None:
        await trio.lowlevel.checkpoint()

    async def server_side_emit_with_ack(self, args: Sequence[Any], acks: AckStream) -> None:
        await trio.lowlevel.checkpoint()
        acks.all_asked()

    async def server_count(self) -> int:
        await trio.lowlevel.checkpoint()
        return 1
