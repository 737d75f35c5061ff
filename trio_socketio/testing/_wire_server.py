"""A server under test that is somewhere else: what it does for the test is asked of it over Socket.IO.

The server has two namespaces. In ``/`` are the clients of the test, who want no more of it than to acknowledge an event
``echo``, with nothing. In ``/control`` is the driver. It emits the events below, and the server uses its own API on
``/``. Events without an answer are carried out in the order in which they come, and those with one after them.

A *target* is ``{"rooms": [...], "except": [...], "local": false}``: the union of the rooms, or everybody without any,
but nobody in a room that is excepted; with ``local``, nobody who is connected to another server. *args* are a list,
with binary data in it. *ids* are those of sockets.

==============================================  ========================================================================
``start(number)``                               This server is known by this number from now on. Answered with nothing.
``join(id, rooms)``                             A socket of this server joins rooms.
``leave(id, room)``                             It leaves one.
``disconnect_socket(id)``                       It is disconnected from ``/``.
``emit_from(id, rooms, event, args)``           Emit from it to everybody else in the rooms, or everywhere without any.
``emit(target, event, args)``                   Emit to sockets.
``ask(target, event, args)``                    Emit to them with acknowledgements, for which they have a second.
                                                Answered with ``[values, complete]``: the values that they acknowledge
                                                it with, and whether all have.
``sockets_join(target, rooms)``                 Have sockets join rooms.
``sockets_leave(target, rooms)``                Have them leave rooms.
``disconnect_sockets(target)``                  Disconnect them from ``/``.
``fetch_sockets(target)``                       Answered with ``[values, complete]``: an ``[id, rooms]`` of each socket,
                                                and whether all servers have told theirs.
``server_side_emit(event, args)``               Emit to the other servers. These note the first argument of an event
                                                ``message``, and acknowledge it with their numbers.
``server_side_ask(event, args)``                The same with acknowledgements; answered with ``[values, complete]``.
``snapshot()``                                  Answered with the rooms of this server, as an object with a list of ids
                                                for each room, and with a list of what it has noted since the last time.
``settle()``                                    Answered with nothing, when all that this server has sent to others has
                                                arrived there. Where messages between servers keep their order, it can
                                                ask all of them for something, such as their sockets. A server that is
                                                alone answers at once.
==============================================  ========================================================================
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from ._open import open_client_at
from ._under_test import Answers, Found, ServerUnderTest, Snapshot, Target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from typing import TypeAlias

    from ._client import MemoryClient

    Rooms: TypeAlias = dict[str, list[str]]

CONTROL = "/control"
ECHO = "echo"
#: Seconds for an answer, or until a server knows that a client has gone.
PATIENCE = 10.0
#: Seconds between two looks; a departure is the one thing that no answer can wait for without help of the server's.
INTERVAL = 0.002


class WireServer(ServerUnderTest):
    """Does what it is told through the server's namespace ``/control``.

    Args:
        url: The server's, such as ``"http://127.0.0.1:3000"``; it is running already.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._control: MemoryClient | None = None
        self._heard: list[int] = []

    @asynccontextmanager
    async def running(self, number: int) -> AsyncIterator[None]:
        async with open_client_at(self._url, CONTROL) as self._control:
            await self._ask("start", number)
            # The clients of an earlier test may just be going.
            if left := await self._wait_for_rooms(lambda rooms: not rooms):
                raise RuntimeError(f"{self._url} has rooms from before: {left}; each test may need a server of its own")
            self._heard = []
            yield

    def open_client(self) -> AbstractAsyncContextManager[MemoryClient]:
        return open_client_at(self._url)

    async def wait_gone(self, id: str) -> None:
        # If it never does, its rooms are seen to be wrong.
        await self._wait_for_rooms(lambda rooms: all(id not in ids for ids in rooms.values()))

    async def snapshot(self) -> Snapshot:
        rooms = await self._rooms()
        heard, self._heard = self._heard, []
        assert all(rooms.values()), f"{self._url} has empty rooms"
        assert all(len(set(ids)) == len(ids) for ids in rooms.values()), f"{self._url} has sockets twice in a room"
        return Snapshot({room: set(ids) for room, ids in rooms.items()}, heard)

    async def check_empty(self) -> None:
        await trio.lowlevel.checkpoint()  # it has no rooms any more, and what else it keeps is its own affair

    async def settle(self) -> None:
        """Wait until the other servers have got what this one has sent."""
        await self._ask("settle")

    # With one of its sockets

    async def join(self, id: str, rooms: Sequence[str]) -> None:
        await self._tell("join", id, rooms)

    async def leave(self, id: str, room: str) -> None:
        await self._tell("leave", id, room)

    async def disconnect(self, id: str) -> None:
        await self._tell("disconnect_socket", id)

    async def emit_from(self, id: str, rooms: Sequence[str], event: str, *args: Any) -> None:
        await self._tell("emit_from", id, rooms, event, args)

    # With many sockets

    async def emit(self, target: Target, event: str, *args: Any) -> None:
        await self._tell("emit", _described(target), event, args)

    async def ask(self, target: Target, event: str, *args: Any) -> Answers:
        return _answers(await self._ask("ask", _described(target), event, args))

    async def sockets_join(self, target: Target, rooms: Sequence[str]) -> None:
        await self._tell("sockets_join", _described(target), rooms)

    async def sockets_leave(self, target: Target, rooms: Sequence[str]) -> None:
        await self._tell("sockets_leave", _described(target), rooms)

    async def disconnect_sockets(self, target: Target) -> None:
        await self._tell("disconnect_sockets", _described(target))

    async def fetch_sockets(self, target: Target) -> Answers:
        sockets, silent = _answers(await self._ask("fetch_sockets", _described(target)))
        return Answers([Found(id, rooms) for id, rooms in sockets], silent)

    # With other servers

    async def server_side_emit(self, event: str, number: int) -> None:
        await self._tell("server_side_emit", event, [number])

    async def server_side_ask(self, event: str, number: int) -> Answers:
        return _answers(await self._ask("server_side_ask", event, [number]))

    # The control client

    async def _rooms(self) -> Rooms:
        rooms: Rooms
        rooms, heard = await self._ask("snapshot")
        self._heard += heard
        return rooms

    async def _wait_for_rooms(self, condition: Callable[[Rooms], bool]) -> Rooms:
        """The rooms when they are as wanted, or else as they are when there is no more patience."""
        deadline = trio.current_time() + PATIENCE
        while not condition(rooms := await self._rooms()) and trio.current_time() < deadline:  # noqa: ASYNC110
            await trio.sleep(INTERVAL)
        return rooms

    async def _tell(self, order: str, *args: Any) -> None:
        # Without waiting: two orders may follow one another as closely as in the server's own code.
        await self._require_control().emit(order, *args)

    async def _ask(self, question: str, *args: Any) -> Any:
        with trio.move_on_after(PATIENCE):
            return await self._require_control().emit_with_ack(question, *args)
        raise TimeoutError(f"{self._url} has not answered {question!r} within {PATIENCE:g} seconds")

    def _require_control(self) -> MemoryClient:
        if self._control is None:
            raise RuntimeError(f"{self._url} is not being driven yet")
        return self._control


def _described(target: Target) -> dict[str, Any]:
    return {"rooms": target.rooms, "except": target.except_rooms, "local": target.local}


def _answers(answer: Any) -> Answers:
    """Who is silent is not said."""
    values, complete = answer
    return Answers(values, None if complete else ())
