"""Servers with real clients next to a `RoomModel`: whatever is done is done in both, and then they are compared.

Nothing here knows Hypothesis: `AdapterMachine` draws what is done, `AdapterConformance` has it written down.
"""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import trio

from .. import AckTimeout
from ..abc import ClusterAdapter
from ._client import MemoryClient
from ._open import open_client
from ._rooms import RoomModel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from .. import BroadcastOperator, Server, Socket
    from ..abc import Adapter, MemoryCluster

#: How a client goes: it says goodbye, its connection breaks, or its server ends it.
Departure = Literal["goodbye", "lost", "dismissed"]

MESSAGE = "message"
QUESTION = "question"
NOTHING: Mapping[str, Any] = MappingProxyType({})


class World:
    """Servers, clients, and what should be true of them.

    Servers are known by their numbers, clients by their names: ``c0``, ``c1`` ... Wherever a room is named, the name of
    a client stands for the room of its own.

    Args:
        servers: They; not running yet.
        enter: Enters a context that stays entered until the end.
        bus: What connects them, if its faults are to be used.
        settle: Waits until everything has arrived everywhere; see `AdapterMachine.settle`.

    Attributes:
        model: What should be.
        clients: The connected clients by name.
    """

    def __init__(
        self,
        servers: Sequence[Server[Any]],
        enter: Callable[[AbstractAsyncContextManager[Any]], Awaitable[Any]],
        settle: Callable[[], Awaitable[None]],
        bus: MemoryCluster | None = None,
    ) -> None:
        self.servers = servers
        self.model = RoomModel()
        self.clients: dict[str, MemoryClient] = {}
        self.bus = bus
        self._enter = enter
        self._settle = settle
        self._sent = 0
        self._names: dict[str, str] = {}
        self._replayed: list[dict[str, set[str]]] = [{} for _ in servers]
        self._heard: list[tuple[int, int]] = []
        self._silent: set[int] = set()

    async def start(self) -> None:
        """Run the servers."""
        for number, io in enumerate(self.servers):
            self._replay_rooms(number, io)
            self._listen(number, io)
            await self._enter(io.running())

    def _replay_rooms(self, number: int, io: Server[Any]) -> None:
        replayed = self._replayed[number]
        io.sockets.adapter.on("create-room", lambda room: replayed.setdefault(room, set()))
        io.sockets.adapter.on("join-room", lambda room, id: replayed[room].add(id))
        io.sockets.adapter.on("leave-room", lambda room, id: replayed[room].remove(id))
        io.sockets.adapter.on("delete-room", lambda room: replayed.pop(room))

    def _listen(self, number: int, io: Server[Any]) -> None:
        @io.on(MESSAGE)
        async def hear(message: int) -> int:
            self._heard.append((number, message))
            await trio.lowlevel.checkpoint()
            return number

    # What is done by and to one client

    async def connect(self, server: int) -> str:
        """Connect a client; its name."""
        name = f"c{len(self._names)}"
        client: MemoryClient = await self._enter(open_client(self.servers[server]))
        client.on(QUESTION, lambda _: name)
        self.clients[name], self._names[client.id] = client, name
        self.model.connect(name, server)
        await self.check()
        return name

    async def depart(self, client: str, how: Departure) -> None:
        """Have a client go."""
        if how == "goodbye":
            await self.clients[client].disconnect()
        elif how == "lost":
            await self.clients[client].drop()
        else:
            await self.socket(client).disconnect()
        self._gone(client)
        await self.check()

    async def join(self, client: str, rooms: Sequence[str]) -> None:
        """Have a socket join rooms."""
        await self.socket(client).join(self._ids(rooms))
        self.model.join([client], rooms)
        await self.check()

    async def leave(self, client: str, room: str) -> None:
        """Have a socket leave a room."""
        await self.socket(client).leave(*self._ids([room]))
        self.model.leave([client], [room])
        await self.check()

    async def emit_from(self, client: str, rooms: Sequence[str]) -> None:
        """Emit from a socket to everybody else in rooms, or everywhere."""
        operator = self.socket(client).broadcast.to(self._ids(rooms))
        meant = self.model.chosen(rooms, [client], self._reached(self.model.server[client]))
        await self._expect(operator, meant)

    # What is done to many

    async def emit(self, server: int, rooms: Sequence[str], except_rooms: Sequence[str], local: bool) -> None:
        """Emit from a server."""
        await self._expect(*self._choose(server, rooms, except_rooms, local))

    async def sockets_join(
        self, server: int, rooms: Sequence[str], except_rooms: Sequence[str], local: bool, joined: Sequence[str]
    ) -> None:
        """Put sockets into rooms, and emit to these at once: whoever is in them gets it, and nobody else."""
        operator, meant = self._choose(server, rooms, except_rooms, local)
        await operator.sockets_join(self._ids(joined))
        self.model.join(meant, joined)
        await self._expect(*self._choose(server, joined, (), False))

    async def sockets_leave(
        self, server: int, rooms: Sequence[str], except_rooms: Sequence[str], local: bool, left: Sequence[str]
    ) -> None:
        """Take sockets out of rooms, and emit to these at once: whoever is left in them gets it, and nobody else."""
        operator, meant = self._choose(server, rooms, except_rooms, local)
        await operator.sockets_leave(self._ids(left))
        self.model.leave(meant, left)
        await self._expect(*self._choose(server, left, (), False))

    async def disconnect_sockets(
        self, server: int, rooms: Sequence[str], except_rooms: Sequence[str], local: bool
    ) -> None:
        """Emit to sockets, and disconnect them at once: everybody gets it before."""
        operator, meant = self._choose(server, rooms, except_rooms, local)
        expected = await self._send(operator, meant)
        clients = {name: self.clients[name] for name in meant}
        await operator.disconnect_sockets()
        for name in meant:
            self.model.disconnect(name)
        await self.check(expected)
        for name, client in clients.items():
            assert not client.connected, f"{name} is still connected"
            del self.clients[name]

    async def fetch_sockets(self, server: int, rooms: Sequence[str], except_rooms: Sequence[str], local: bool) -> None:
        """Fetch sockets, wherever they are."""
        operator, meant = self._choose(server, rooms, except_rooms, local)
        found = await self._answers(server, local, operator.fetch_sockets())
        names = Counter(self._names.get(socket.id, socket.id) for socket in found)
        assert names == Counter(meant), f"fetched {_show(names)} instead of {_show(meant)}"
        for socket in found:
            name = self._names[socket.id]
            rooms_there = {self._names.get(room, room) for room in socket.rooms}
            assert rooms_there == self.model.rooms[name], f"{name} is said to be in {_show(rooms_there)}"

    async def ask(self, server: int, rooms: Sequence[str], except_rooms: Sequence[str], local: bool) -> None:
        """Emit with acknowledgements."""
        operator, meant = self._choose(server, rooms, except_rooms, local)
        answers = await self._answers(server, local, operator.timeout(1).emit_with_ack(QUESTION, 0))
        assert Counter(answers) == Counter(meant), f"{_show(answers)} have answered instead of {_show(meant)}"
        await self.check()

    async def server_side_emit(self, server: int, ask: bool) -> None:
        """Emit to the other servers, which answer if they are asked."""
        io, others = self.servers[server], self._reached(server) - {server}
        self._sent += 1
        if ask:
            answers = await self._answers(server, False, io.timeout(1).server_side_emit_with_ack(MESSAGE, self._sent))
            assert Counter(answers) == Counter(others), f"the servers {answers} have answered, not {others}"
        else:
            await io.server_side_emit(MESSAGE, self._sent)
        await self._settle()
        heard, self._heard = self._heard, []
        assert Counter(heard) == Counter((other, self._sent) for other in others), f"heard by {heard}, not {others}"

    async def _answers(self, server: int, local: bool, answers: Awaitable[list[Any]]) -> list[Any]:
        """The answers of all servers; the silent ones have to be named."""
        silent = set() if local else set(range(len(self.servers))) - self._reached(server)
        try:
            found, timeout = await answers, None
        except AckTimeout as error:
            found, timeout = error.responses, error
        missed = set() if timeout is None else set(timeout.servers)
        names = {f"s{number}" for number in silent}
        assert (timeout is not None) == bool(silent), f"with the silent servers {names or 'none'}: {timeout}"
        assert missed == names, f"{missed or 'none'} are said to be silent instead of {names or 'none'}"
        return found

    # Faults

    async def delay(self, seconds: float) -> None:
        """Have messages between servers take their time."""
        assert self.bus is not None, "there is a bus with faults"
        self.bus.delay = seconds
        await self.check()

    async def cut_off(self, server: int) -> None:
        """Lose what is sent to and by a server."""
        assert self.bus is not None, "there is a bus with faults"
        others = [f"s{number}" for number in range(len(self.servers)) if number != server]
        self.bus.partition([f"s{server}"], others)
        self._silent = {server}
        await self.check()

    async def heal(self) -> None:
        """No faults any more."""
        assert self.bus is not None, "there is a bus with faults"
        self.bus.heal()
        self._silent = set()
        await self.check()

    # What has to be true

    async def check(self, expected: Mapping[str, Any] = NOTHING) -> None:
        """Compare everything with the model, when everything has arrived.

        Args:
            expected: The arguments of the message that each of these clients must have got; the others got none.

        Raises:
            AssertionError: It is different; the text says where.
        """
        await self._settle()
        for name, client in self.clients.items():
            # Two arguments: there is an offset as well, if clients can come back.
            got = [event.args[:2] for event in client.receive_all_nowait()]
            wanted = [expected[name]] if name in expected else []
            assert got == wanted, f"{name} got {got} instead of {wanted}; meant were {_show(set(expected))}"
        for number, io in enumerate(self.servers):
            self._check_rooms(number, io.sockets.adapter)
        assert not self._heard, f"servers heard {self._heard}, which was not for them"

    def _check_rooms(self, number: int, adapter: Adapter) -> None:
        rooms = {room: set(ids) for room, ids in adapter.rooms.items()}
        inverse = {(room, id) for id, own in adapter.sids.items() for room in own}
        agree = inverse == {(room, id) for room, ids in rooms.items() for id in ids}
        assert agree, f"the two indexes of server {number} disagree"
        assert all(rooms.values()), f"server {number} has empty rooms"
        assert self._replayed[number] == rooms, f"the room events of server {number} tell of other rooms"
        names = self._names
        named = {names.get(room, room): {names.get(id, id) for id in ids} for room, ids in rooms.items()}
        wanted = self.model.index(number)
        assert named == wanted, f"server {number} has the rooms {_show(named)} instead of {_show(wanted)}"

    async def finish(self) -> None:
        """Have all clients go, and look for what is left of them.

        Raises:
            AssertionError: Something is.
        """
        if self.bus is not None:
            self.bus.heal()
        for client in self.clients.values():
            await client.drop()
        for name in list(self.clients):
            self._gone(name)
        await self.check()
        for number, io in enumerate(self.servers):
            figures = io.statistics()
            assert figures == type(figures)(), f"left of the clients of server {number}: {figures}"
            adapter = io.sockets.adapter
            if isinstance(adapter, ClusterAdapter):
                waiting = adapter.statistics()
                assert waiting.requests == waiting.collecting == 0, f"server {number} still waits: {waiting}"

    # Helpers

    def socket(self, client: str) -> Socket[Any]:
        """The server's side of a client."""
        return self.servers[self.model.server[client]].sockets.sockets[self.clients[client].id]

    def _ids(self, rooms: Sequence[str]) -> list[str]:
        ids = {name: id for id, name in self._names.items()}
        return [ids.get(room, room) for room in rooms]

    def _gone(self, client: str) -> None:
        self.model.disconnect(client)
        del self.clients[client]

    def _reached(self, server: int) -> set[int]:
        """Which servers get what one sends."""
        everybody = set(range(len(self.servers)))
        return {server} if server in self._silent else everybody - self._silent

    def _choose(
        self, server: int, rooms: Sequence[str], except_rooms: Sequence[str], local: bool
    ) -> tuple[BroadcastOperator, set[str]]:
        operator = self.servers[server].to(self._ids(rooms)).except_(self._ids(except_rooms))
        reached = {server} if local else self._reached(server)
        return operator.local if local else operator, self.model.chosen(rooms, except_rooms, reached)

    async def _send(self, operator: BroadcastOperator, meant: Collection[str]) -> dict[str, Any]:
        """Emit; what everybody who is meant has to get."""
        self._sent += 1
        await operator.emit(MESSAGE, self._sent, b"\x00")
        return dict.fromkeys(meant, (self._sent, b"\x00"))

    async def _expect(self, operator: BroadcastOperator, meant: Collection[str]) -> None:
        """Emit, and see that exactly these get it, once each."""
        await self.check(await self._send(operator, meant))


def _show(names: Any) -> Any:
    """The same in the same order each time, for texts that do not change from run to run."""
    if isinstance(names, dict):
        return {name: _show(value) for name, value in sorted(names.items())}
    return sorted(names) if isinstance(names, (set, frozenset, list)) else names
