"""The rules of `AdapterMachine`, one example for each, as plain pytest tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ._local_server import LocalServer
from ._settling import settle_by_joins
from ._stepper import TrioStepper
from ._world import World

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from .. import Server
    from ._under_test import Difference


class AdapterConformance:
    """What every adapter has to do; for pytest, without Hypothesis. Subclass it with one method.

    ::

        class TestMyAdapter(AdapterConformance):
            def make_servers(self):
                return [Server(adapter=MyAdapter)]

    Each test runs its own servers, on a virtual clock, with real clients. What needs a second server is true of a
    single one as well. `AdapterMachine` looks further.

    Attributes:
        real_time: See `TrioStepper`; for adapters that reach other processes.
        differences: What is known to be different, and allowed for.
    """

    real_time: ClassVar[bool] = False
    differences: ClassVar[Collection[Difference]] = ()

    def make_servers(self) -> Sequence[Server[Any]]:
        """The servers to test; not running. Override this."""
        raise NotImplementedError("an AdapterConformance needs the servers that it is to test: define make_servers()")

    async def settle(self, servers: Sequence[Server[Any]]) -> None:
        """Wait until everything that was sent between the servers has arrived; see `AdapterMachine.settle`."""
        await settle_by_joins(servers)

    def check(self, scenario: Callable[[World, int], Awaitable[None]]) -> None:
        """Run servers, do something with them, and see that nothing is left of it.

        Args:
            scenario: Called with the world and the number of the last server, which is 0 if there is one.
        """
        servers = self.make_servers()
        with TrioStepper(real_time=self.real_time) as stepper:
            world = World(
                [LocalServer(io) for io in servers],
                stepper.enter,
                lambda: self.settle(servers),
                differences=self.differences,
            )
            stepper.run(world.start)
            stepper.run(scenario, world, len(servers) - 1)
            stepper.run(world.finish)

    def test_a_socket_is_in_a_room_of_its_own(self) -> None:
        async def scenario(world: World, last: int) -> None:
            a, b = await world.connect(0), await world.connect(last)
            await world.emit(0, [a], [], False)
            await world.emit(0, [b], [], False)
            await world.emit(last, [], [a], False)
            await world.leave(a, a)
            await world.emit(last, [a], [], False)

        self.check(scenario)

    def test_rooms_add_up_and_nobody_gets_anything_twice(self) -> None:
        async def scenario(world: World, last: int) -> None:
            a, b, _ = await world.connect(0), await world.connect(last), await world.connect(last)
            await world.join(a, ["r", "s"])
            await world.join(b, ["s", "t"])
            for rooms in (["r"], ["s"], ["r", "s", "t"], ["nobody's"], []):
                await world.emit(0, rooms, [], False)
                await world.emit(last, rooms, [], False)

        self.check(scenario)

    def test_members_of_excepted_rooms_are_left_out(self) -> None:
        async def scenario(world: World, last: int) -> None:
            a, b, _ = await world.connect(0), await world.connect(last), await world.connect(last)
            await world.join(a, ["r", "s"])
            await world.join(b, ["r"])
            for except_rooms in (["s"], ["r"], [b], ["r", b], ["nobody's"]):
                await world.emit(0, ["r"], except_rooms, False)
                await world.emit(last, [], except_rooms, False)

        self.check(scenario)

    def test_what_is_local_stays_on_its_server(self) -> None:
        async def scenario(world: World, last: int) -> None:
            await world.connect(0)
            await world.connect(last)
            await world.emit(0, [], [], True)
            await world.sockets_join(0, [], [], True, ["r"])
            await world.fetch_sockets(0, [], [], True)
            await world.ask(last, [], [], True)
            await world.sockets_leave(last, [], [], True, ["r"])
            await world.disconnect_sockets(last, [], [], True)

        self.check(scenario)

    def test_a_socket_that_emits_is_left_out(self) -> None:
        async def scenario(world: World, last: int) -> None:
            a, b = await world.connect(0), await world.connect(last)
            await world.join(a, ["r"])
            await world.join(b, ["r"])
            await world.emit_from(a, ["r"])
            await world.emit_from(b, [])

        self.check(scenario)

    def test_sockets_are_moved_in_and_out_of_rooms_in_order_with_what_is_emitted(self) -> None:
        async def scenario(world: World, last: int) -> None:
            a, _ = await world.connect(0), await world.connect(last)
            await world.sockets_join(0, [], [], False, ["r", "s"])
            await world.sockets_join(last, ["r"], [a], False, ["t"])
            await world.sockets_leave(0, ["t"], [], False, ["r"])
            await world.sockets_leave(last, [], [], False, ["s", "unknown"])

        self.check(scenario)

    def test_disconnected_sockets_have_had_what_was_emitted_before(self) -> None:
        async def scenario(world: World, last: int) -> None:
            a, b = await world.connect(0), await world.connect(last)
            await world.connect(last)
            await world.join(a, ["r"])
            await world.join(b, ["r"])
            await world.disconnect_sockets(0, ["r"], [], False)
            await world.disconnect_sockets(last, [], [], False)

        self.check(scenario)

    def test_nothing_is_left_of_a_client_however_it_goes(self) -> None:
        async def scenario(world: World, last: int) -> None:
            departures: Sequence[Any] = ("goodbye", "lost", "dismissed")
            for how in departures:
                a, b = await world.connect(0), await world.connect(last)
                await world.join(a, ["r"])
                await world.join(b, ["r", "s"])
                await world.depart(b, how)
                await world.emit(0, ["r"], [], False)

        self.check(scenario)

    def test_sockets_are_fetched_with_their_rooms(self) -> None:
        async def scenario(world: World, last: int) -> None:
            a, b = await world.connect(0), await world.connect(last)
            await world.join(a, ["r"])
            await world.join(b, ["r", "s"])
            await world.fetch_sockets(0, [], [], False)
            await world.fetch_sockets(last, ["r"], ["s"], False)
            await world.fetch_sockets(0, ["nobody's"], [], False)

        self.check(scenario)

    def test_everybody_who_is_asked_answers_once(self) -> None:
        async def scenario(world: World, last: int) -> None:
            a, b = await world.connect(0), await world.connect(last)
            await world.connect(last)
            await world.join(a, ["r", "s"])
            await world.join(b, ["r", "s"])
            await world.ask(0, ["r", "s"], [], False)
            await world.ask(last, [], [a], False)
            await world.ask(0, ["nobody's"], [], False)

        self.check(scenario)

    def test_server_side_emits_reach_the_others_and_are_answered(self) -> None:
        async def scenario(world: World, last: int) -> None:
            await world.server_side_emit(0, ask=False)
            await world.server_side_emit(last, ask=True)

        self.check(scenario)
