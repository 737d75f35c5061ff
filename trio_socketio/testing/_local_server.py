"""A server under test that runs in this process, where everything can be looked at."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from .. import AckTimeout
from ..abc import ClusterAdapter
from ._open import open_client
from ._under_test import MESSAGE, Answers, Found, ServerUnderTest, Snapshot, Target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Sequence
    from contextlib import AbstractAsyncContextManager

    from .. import BroadcastOperator, Server, Socket
    from ._client import MemoryClient


class LocalServer(ServerUnderTest):
    """Does what it is told with the server's own API.

    Args:
        io: The server; not running yet.
    """

    def __init__(self, io: Server[Any]) -> None:
        self._io = io
        self._number = 0
        self._replayed: dict[str, set[str]] = {}
        self._heard: list[int] = []

    @asynccontextmanager
    async def running(self, number: int) -> AsyncIterator[None]:
        self._number = number
        self._io.on(MESSAGE, self._hear)
        self._replay_rooms()
        async with self._io.running():
            yield

    def _replay_rooms(self) -> None:
        adapter, replayed = self._io.sockets.adapter, self._replayed
        adapter.on("create-room", lambda room: replayed.setdefault(room, set()))
        adapter.on("join-room", lambda room, id: replayed[room].add(id))
        adapter.on("leave-room", lambda room, id: replayed[room].remove(id))
        adapter.on("delete-room", lambda room: replayed.pop(room))

    async def _hear(self, number: int) -> int:
        self._heard.append(number)
        await trio.lowlevel.checkpoint()
        return self._number

    def open_client(self) -> AbstractAsyncContextManager[MemoryClient]:
        return open_client(self._io)

    async def wait_gone(self, id: str) -> None:
        pass  # it does before all tasks wait for something, which is waited for anyway

    async def snapshot(self) -> Snapshot:
        adapter, number = self._io.sockets.adapter, self._number
        rooms = {room: set(ids) for room, ids in adapter.rooms.items()}
        inverse = {(room, id) for id, own in adapter.sids.items() for room in own}
        agree = inverse == {(room, id) for room, ids in rooms.items() for id in ids}
        assert agree, f"the two indexes of server {number} disagree"
        assert all(rooms.values()), f"server {number} has empty rooms"
        assert self._replayed == rooms, f"the room events of server {number} tell of other rooms"
        heard, self._heard = self._heard, []
        return Snapshot(rooms, heard)

    async def check_empty(self) -> None:
        figures = self._io.statistics()
        assert figures == type(figures)(), f"left of the clients of server {self._number}: {figures}"
        adapter = self._io.sockets.adapter
        if isinstance(adapter, ClusterAdapter):
            waiting = adapter.statistics()
            assert waiting.requests == waiting.collecting == 0, f"server {self._number} still waits: {waiting}"

    # With one of its sockets

    async def join(self, id: str, rooms: Sequence[str]) -> None:
        await self._socket(id).join(rooms)

    async def leave(self, id: str, room: str) -> None:
        await self._socket(id).leave(room)

    async def disconnect(self, id: str) -> None:
        await self._socket(id).disconnect()

    async def emit_from(self, id: str, rooms: Sequence[str], event: str, *args: Any) -> None:
        await self._socket(id).broadcast.to(rooms).emit(event, *args)

    # With many sockets

    async def emit(self, target: Target, event: str, *args: Any) -> None:
        await self._meant(target).emit(event, *args)

    async def ask(self, target: Target, event: str, *args: Any) -> Answers:
        return await _answers(self._meant(target).timeout(1).emit_with_ack(event, *args))

    async def sockets_join(self, target: Target, rooms: Sequence[str]) -> None:
        await self._meant(target).sockets_join(rooms)

    async def sockets_leave(self, target: Target, rooms: Sequence[str]) -> None:
        await self._meant(target).sockets_leave(rooms)

    async def disconnect_sockets(self, target: Target) -> None:
        await self._meant(target).disconnect_sockets()

    async def fetch_sockets(self, target: Target) -> Answers:
        sockets, silent = await _answers(self._meant(target).fetch_sockets())
        return Answers([Found(socket.id, socket.rooms) for socket in sockets], silent)

    # With other servers

    async def server_side_emit(self, event: str, number: int) -> None:
        await self._io.server_side_emit(event, number)

    async def server_side_ask(self, event: str, number: int) -> Answers:
        return await _answers(self._io.timeout(1).server_side_emit_with_ack(event, number))

    def _socket(self, id: str) -> Socket[Any]:
        return self._io.sockets.sockets[id]

    def _meant(self, target: Target) -> BroadcastOperator:
        operator = self._io.to(target.rooms).except_(target.except_rooms)
        return operator.local if target.local else operator


async def _answers(answers: Awaitable[Sequence[Any]]) -> Answers:
    try:
        return Answers(await answers)
    except AckTimeout as error:
        return Answers(error.responses, error.servers)
