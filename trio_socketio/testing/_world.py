"""Servers with real clients next to a `RoomModel`: whatever is done is done in both, and then they are compared.

Nothing here knows Hypothesis: `AdapterMachine` draws what is done, `AdapterConformance` has it written down.
"""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from ._rooms import RoomModel
from ._under_test import MESSAGE, QUESTION, Difference, Target

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from ..abc import MemoryCluster
    from ._client import MemoryClient
    from ._under_test import Answers, ServerUnderTest

#: How a client goes: it says goodbye, its connection breaks, or its server ends it.
Departure = Literal["goodbye", "lost", "dismissed"]

NOTHING: Mapping[Any, Any] = MappingProxyType({})


class World:
    """Servers, clients, and what should be true of them.

    Servers are known by their numbers, clients by their names: ``c0``, ``c1`` ... Wherever a room is named, the name of
    a client stands for the room of its own.

    Args:
        servers: They; not running yet.
        enter: Enters a context that stays entered until the end.
        settle: Waits until everything has arrived everywhere; see `AdapterMachine.settle`.
        bus: What connects them, if its faults are to be used.
        differences: What is known to be different, and allowed for.

    Attributes:
        model: What should be.
        clients: The connected clients by name.
    """

    def __init__(
        self,
        servers: Sequence[ServerUnderTest],
        enter: Callable[[AbstractAsyncContextManager[Any]], Awaitable[Any]],
        settle: Callable[[], Awaitable[None]],
        bus: MemoryCluster | None = None,
        differences: Collection[Difference] = (),
    ) -> None:
        self.servers = servers
        self.model: RoomModel = RoomModel()
        self.clients: dict[str, MemoryClient] = {}
        self.bus = bus
        self._enter = enter
        self._settle = settle
        self._differences = differences
        self._sent = 0
        self._names: dict[str, str] = {}
        self._silent: set[int] = set()

    async def start(self) -> None:
        """Run the servers."""
        for number, server in enumerate(self.servers):
            await self._enter(server.running(number))

    # What is done by and to one client

    async def connect(self, server: int) -> str:
        """Connect a client; its name."""
        name = f"c{len(self._names)}"
        client: MemoryClient = await self._enter(self.servers[server].open_client())
        client.on(QUESTION, lambda _: name)
        self.clients[name], self._names[client.id] = client, name
        self.model.connect(name, server)
        await self.check()
        return name

    async def depart(self, client: str, how: Departure) -> None:
        """Have a client go."""
        server, id = self._place(client)
        if how == "goodbye":
            await self.clients[client].disconnect()
        elif how == "lost":
            await self.clients[client].drop()
        else:
            await server.disconnect(id)
        await server.wait_gone(id)
        self._gone(client)
        await self.check()

    async def join(self, client: str, rooms: Sequence[str]) -> None:
        """Have a socket join rooms."""
        rooms = self._changeable(rooms)
        server, id = self._place(client)
        await server.join(id, self._ids(rooms))
        self.model.join([client], rooms)
        await self.check()

    async def leave(self, client: str, room: str) -> None:
        """Have a socket leave a room."""
        server, id = self._place(client)
        for left in self._changeable([room]):
            await server.leave(id, *self._ids([left]))
            self.model.leave([client], [left])
        await self.check()

    async def emit_from(self, client: str, rooms: Sequence[str]) -> None:
        """Emit from a socket to everybody else in rooms, or everywhere."""
        server, id = self._place(client)
        meant = self.model.chosen(rooms, [client], self._reached(self.model.server[client]))
        message = self._next_message()
        await server.emit_from(id, self._ids(rooms), MESSAGE, *message)
        await self.check(dict.fromkeys(meant, message))

    # What is done to many

    async def emit(self, server: int, rooms: Sequence[str], except_rooms: Sequence[str], local: bool) -> None:
        """Emit from a server, and see that exactly those who are meant get it, once each."""
        await self.check(await self._send(server, rooms, except_rooms, local))

    async def sockets_join(
        self, server: int, rooms: Sequence[str], except_rooms: Sequence[str], local: bool, joined: Sequence[str]
    ) -> None:
        """Put sockets into rooms, and emit to these at once: whoever is in them gets it, and nobody else."""
        joined = self._changeable(joined)
        target, meant = self._choose(server, rooms, except_rooms, local)
        await self.servers[server].sockets_join(target, self._ids(joined))
        self.model.join(meant, joined)
        await self._wait_for_changes()
        await self.emit(server, joined, (), False)

    async def sockets_leave(
        self, server: int, rooms: Sequence[str], except_rooms: Sequence[str], local: bool, left: Sequence[str]
    ) -> None:
        """Take sockets out of rooms, and emit to these at once: whoever is left in them gets it, and nobody else."""
        left = self._changeable(left)
        target, meant = self._choose(server, rooms, except_rooms, local)
        await self.servers[server].sockets_leave(target, self._ids(left))
        self.model.leave(meant, left)
        await self._wait_for_changes()
        await self.emit(server, left, (), False)

    async def disconnect_sockets(
        self, server: int, rooms: Sequence[str], except_rooms: Sequence[str], local: bool
    ) -> None:
        """Emit to sockets, and disconnect them at once: everybody gets it before."""
        target, meant = self._choose(server, rooms, except_rooms, local)
        expected = await self._send(server, rooms, except_rooms, local)
        clients = {name: self.clients[name] for name in meant}
        await self.servers[server].disconnect_sockets(target)
        for name in meant:
            there, id = self._place(name)
            await there.wait_gone(id)
            self.model.disconnect(name)
        await self.check(expected)
        for name, client in clients.items():
            assert not client.connected, f"{name} is still connected"
            del self.clients[name]

    async def fetch_sockets(self, server: int, rooms: Sequence[str], except_rooms: Sequence[str], local: bool) -> None:
        """Fetch sockets, wherever they are."""
        target, meant = self._choose(server, rooms, except_rooms, local)
        found = self._complete(server, local, await self.servers[server].fetch_sockets(target))
        names = Counter(self._names.get(socket.id, socket.id) for socket in found)
        assert names == Counter(meant), f"fetched {_show(names)} instead of {_show(meant)}"
        for socket in found:
            name = self._names[socket.id]
            rooms_there = {self._names.get(room, room) for room in socket.rooms}
            assert rooms_there == self.model.rooms[name], f"{name} is said to be in {_show(rooms_there)}"

    async def ask(self, server: int, rooms: Sequence[str], except_rooms: Sequence[str], local: bool) -> None:
        """Emit with acknowledgements."""
        target, meant = self._choose(server, rooms, except_rooms, local)
        answers = await self.servers[server].ask(target, QUESTION, 0)
        if local and Difference.LOCAL_ACKS_TIME_OUT in self._differences:
            answers = answers._replace(silent=None)
        values = self._complete(server, local, answers)
        assert Counter(values) == Counter(meant), f"{_show(values)} have answered instead of {_show(meant)}"
        await self.check()

    async def server_side_emit(self, server: int, ask: bool) -> None:
        """Emit to the other servers, which answer if they are asked."""
        others = self._reached(server) - {server}
        number, _ = self._next_message()
        if ask:
            answers = self._complete(server, False, await self.servers[server].server_side_ask(MESSAGE, number))
            assert Counter(answers) == Counter(others), f"the servers {answers} have answered, not {others}"
        else:
            await self.servers[server].server_side_emit(MESSAGE, number)
        await self.check(heard=dict.fromkeys(others, number))

    def _complete(self, server: int, local: bool, answers: Answers) -> Sequence[Any]:
        """The answers of all servers; the silent ones have to be named."""
        silent = set() if local else set(range(len(self.servers))) - self._reached(server)
        names = {f"s{number}" for number in silent}
        said = None if answers.silent is None else set(answers.silent)
        wanted = names or None
        assert said == wanted, f"silent are said to be the servers {said} instead of {wanted}"
        return answers.values

    async def _wait_for_changes(self) -> None:
        if Difference.LATE_CHANGES in self._differences:
            await self._settle()

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

    async def check(self, expected: Mapping[str, Any] = NOTHING, heard: Mapping[int, int] = NOTHING) -> None:
        """Compare everything with the model, when everything has arrived.

        Args:
            expected: The arguments of the message that each of these clients must have got; the others got none.
            heard: The number of the message that each of these servers must have got from another one.

        Raises:
            AssertionError: It is different; the text says where.
        """
        await self._settle()
        for name, client in self.clients.items():
            # Two arguments: there is an offset as well, if clients can come back.
            got = [event.args[:2] for event in client.receive_all_nowait()]
            wanted = [expected[name]] if name in expected else []
            assert got == wanted, f"{name} got {got} instead of {wanted}; meant were {_show(set(expected))}"
        for number, server in enumerate(self.servers):
            there = await server.snapshot()
            self._check_rooms(number, there.rooms)
            numbers = [heard[number]] if number in heard else []
            assert list(there.heard) == numbers, f"server {number} heard {there.heard} instead of {numbers}"

    def _check_rooms(self, number: int, rooms: Mapping[str, Iterable[str]]) -> None:
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
        for name, client in list(self.clients.items()):
            server, id = self._place(name)
            await client.drop()
            await server.wait_gone(id)
            self._gone(name)
        await self.check()
        for server in self.servers:
            await server.check_empty()

    # Helpers

    def _place(self, client: str) -> tuple[ServerUnderTest, str]:
        """Where a client is, and its id there."""
        return self.servers[self.model.server[client]], self.clients[client].id

    def _changeable(self, rooms: Sequence[str]) -> Sequence[str]:
        """Those of these rooms that sockets may join and leave."""
        fixed = self.clients if Difference.OWN_ROOMS_ARE_FIXED in self._differences else ()
        return [room for room in rooms if room not in fixed]

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
    ) -> tuple[Target, set[str]]:
        """Whom filters choose: for the server, and for the model."""
        reached = {server} if local else self._reached(server)
        target = Target(self._ids(rooms), self._ids(except_rooms), local)
        return target, self.model.chosen(rooms, except_rooms, reached)

    def _next_message(self) -> tuple[int, bytes]:
        self._sent += 1
        return self._sent, b"\x00"

    async def _send(
        self, server: int, rooms: Sequence[str], except_rooms: Sequence[str], local: bool
    ) -> dict[str, tuple[int, bytes]]:
        """Emit; what everybody who is meant has to get."""
        target, meant = self._choose(server, rooms, except_rooms, local)
        message = self._next_message()
        await self.servers[server].emit(target, MESSAGE, *message)
        return dict.fromkeys(meant, message)


def _show(names: Any) -> Any:
    """The same in the same order each time, for texts that do not change from run to run."""
    if isinstance(names, dict):
        return {name: _show(value) for name, value in sorted(names.items())}
    return sorted(names) if isinstance(names, (set, frozenset, list)) else names
