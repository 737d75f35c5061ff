"""State machines that try to tell servers from the model of rooms."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import precondition

from ._local_server import LocalServer
from ._settling import settle_by_joins
from ._stateful import TrioStateMachine, initialize, rule
from ._world import Departure, World

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .. import Server
    from ..abc import MemoryCluster
    from ._under_test import Difference

ROOMS = ("r", "s", "t")


# These are cached because a strategy costs more to make than to draw from: an eighth of the time of all.


@functools.cache
def _one_of(names: tuple[str, ...]) -> st.SearchStrategy[str]:
    return st.sampled_from(names)


@functools.cache
def _some_of(names: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    return st.lists(_one_of(names), max_size=3, unique=True)


def _clients(machine: Any) -> tuple[str, ...]:
    return tuple(sorted(machine.world.clients))


#: One of the machine's servers, and one of its connected clients.
some_server = st.runner().flatmap(lambda machine: st.integers(0, len(machine.world.servers) - 1))
some_client = st.runner().flatmap(lambda machine: _one_of(_clients(machine)))
#: A room, and some: those of clients are among them.
some_room = st.runner().flatmap(lambda machine: _one_of(ROOMS + _clients(machine)))
some_rooms = st.runner().flatmap(lambda machine: _some_of(ROOMS + _clients(machine)))
#: The clients that there are from the start, each with its server and rooms.
some_beginning = st.lists(
    st.tuples(st.integers(0, 2), st.lists(st.sampled_from(ROOMS), max_size=3, unique=True)), max_size=4
)


class WorldMachine(TrioStateMachine):
    """The rules, for servers wherever they are.

    Attributes:
        max_clients: How many there are at most; for a class to assign.
        differences: What is known to be different, and allowed for; likewise.
        world: The servers, the clients and the model.
    """

    max_clients: ClassVar[int] = 5
    differences: ClassVar[Collection[Difference]] = ()

    world: World

    async def make_world(self) -> World:
        """Servers that do not run yet, and what goes with them."""
        raise NotImplementedError

    # With clients from the start, because most of what can go wrong needs some on each server.
    @initialize(clients=some_beginning)
    async def start(self, clients: list[tuple[int, list[str]]]) -> None:
        self.world = await self.make_world()
        await self.world.start()
        for server, rooms in clients:
            await self.world.join(await self.world.connect(server % len(self.world.servers)), rooms)

    def _has_clients(self) -> bool:
        return bool(self.world.clients)

    def _has_room_for_clients(self) -> bool:
        return len(self.world.clients) < self.max_clients

    def _has_others(self) -> bool:
        return len(self.world.servers) > 1

    def _has_faults(self) -> bool:
        return self.world.bus is not None

    @precondition(_has_room_for_clients)
    @rule(server=some_server)
    async def connect(self, server: int) -> None:
        await self.world.connect(server)

    @precondition(_has_clients)
    @rule(client=some_client, how=st.sampled_from(("goodbye", "lost", "dismissed")))
    async def depart(self, client: str, how: Departure) -> None:
        await self.world.depart(client, how)

    @precondition(_has_clients)
    @rule(client=some_client, rooms=some_rooms)
    async def join(self, client: str, rooms: list[str]) -> None:
        await self.world.join(client, rooms)

    @precondition(_has_clients)
    @rule(client=some_client, room=some_room)
    async def leave(self, client: str, room: str) -> None:
        await self.world.leave(client, room)

    @precondition(_has_clients)
    @rule(client=some_client, rooms=some_rooms)
    async def emit_from(self, client: str, rooms: list[str]) -> None:
        await self.world.emit_from(client, rooms)

    @rule(server=some_server, rooms=some_rooms, except_rooms=some_rooms, local=st.booleans())
    async def emit(self, server: int, rooms: list[str], except_rooms: list[str], local: bool) -> None:
        await self.world.emit(server, rooms, except_rooms, local)

    @rule(server=some_server, rooms=some_rooms, except_rooms=some_rooms, local=st.booleans(), joined=some_rooms)
    async def sockets_join(
        self, server: int, rooms: list[str], except_rooms: list[str], local: bool, joined: list[str]
    ) -> None:
        await self.world.sockets_join(server, rooms, except_rooms, local, joined)

    @rule(server=some_server, rooms=some_rooms, except_rooms=some_rooms, local=st.booleans(), left=some_rooms)
    async def sockets_leave(
        self, server: int, rooms: list[str], except_rooms: list[str], local: bool, left: list[str]
    ) -> None:
        await self.world.sockets_leave(server, rooms, except_rooms, local, left)

    @precondition(_has_clients)
    @rule(server=some_server, rooms=some_rooms, except_rooms=some_rooms, local=st.booleans())
    async def disconnect_sockets(self, server: int, rooms: list[str], except_rooms: list[str], local: bool) -> None:
        await self.world.disconnect_sockets(server, rooms, except_rooms, local)

    @rule(server=some_server, rooms=some_rooms, except_rooms=some_rooms, local=st.booleans())
    async def fetch_sockets(self, server: int, rooms: list[str], except_rooms: list[str], local: bool) -> None:
        await self.world.fetch_sockets(server, rooms, except_rooms, local)

    @rule(server=some_server, rooms=some_rooms, except_rooms=some_rooms, local=st.booleans())
    async def ask(self, server: int, rooms: list[str], except_rooms: list[str], local: bool) -> None:
        await self.world.ask(server, rooms, except_rooms, local)

    @precondition(_has_others)
    @rule(server=some_server, ask=st.booleans())
    async def server_side_emit(self, server: int, ask: bool) -> None:
        await self.world.server_side_emit(server, ask)

    @precondition(_has_faults)
    @rule(seconds=st.sampled_from((0.0, 0.01, 0.3)))
    async def delay(self, seconds: float) -> None:
        await self.world.delay(seconds)

    @precondition(_has_faults)
    @rule(server=some_server)
    async def cut_off(self, server: int) -> None:
        await self.world.cut_off(server)

    @precondition(_has_faults)
    @rule()
    async def heal(self) -> None:
        await self.world.heal()

    async def teardown(self) -> None:  # type: ignore[override]  # a step like the others
        if hasattr(self, "world") and not self.has_failed:
            await self.world.finish()


class AdapterMachine(WorldMachine):
    """Compares servers with an adapter to a `RoomModel`, through real clients; subclass it with one method.

    ::

        class MyAdapterMachine(AdapterMachine):
            def make_servers(self):
                return [Server(adapter=MyAdapter)]

        TestMyAdapter = MyAdapterMachine.TestCase

    Its rules connect and disconnect clients, join and leave rooms, emit from sockets and servers with every combination
    of filters, and use the utility methods, acknowledgements and server-side emits from any server; the ones after the
    others without a pause where the order matters. After each step both indexes of every adapter have to agree, there
    may be no empty rooms, the room events must tell of the same rooms, every client must have got what the model says,
    once, and nothing else; at the end nothing may be left. What fails is shrunk, and printed as a program.

    Attributes:
        max_clients: How many there are at most; for a class to assign.
        differences: What is known to be different, and allowed for; likewise.
        world: The servers, the clients and the model.
    """

    def make_servers(self) -> Sequence[Server[Any]]:
        """The servers to test; not running. Override this.

        If their names in the cluster are to be checked where silent servers are named, they are ``s0``, ``s1`` ...
        """
        raise NotImplementedError("an AdapterMachine needs the servers that it is to test: define make_servers()")

    def make_faults(self) -> MemoryCluster | None:
        """The bus that connects the servers of `make_servers`, if its delays and losses are to be used.

        Called after `make_servers`. Without one, nothing gets lost.
        """
        return None

    async def settle(self) -> None:
        """Wait until everything that was sent between the servers has arrived.

        By default every server has everybody in a room in which nobody is join another one, and waits for the others
        to have done so. For an adapter that cannot wait for that, override this.
        """
        await settle_by_joins(self._servers)

    async def make_world(self) -> World:
        self._servers = self.make_servers()
        servers = [LocalServer(io) for io in self._servers]
        return World(servers, self.enter, self.settle, self.make_faults(), self.differences)
