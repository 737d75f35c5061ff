"""The adapter, held against what rooms mean: one example of each rule, all of them in any order, and what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import Phase, settings

from trio_socketio import Server
from trio_socketio.testing import AdapterConformance, AdapterMachine

from .broker import Broker, broker_adapter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_socketio.testing import World


def make_servers() -> Sequence[Server[Any]]:
    broker = Broker()
    return [Server(adapter=broker_adapter(broker, name)) for name in ("s0", "s1")]


class TestBroker(AdapterConformance):
    def make_servers(self) -> Sequence[Server[Any]]:
        return make_servers()

    def test_an_excepted_room_does_not_except_the_others(self) -> None:
        async def scenario(world: World, last: int) -> None:
            c0, c1 = await world.connect(last), await world.connect(0)
            await world.join(c0, ["r"])
            await world.emit_from(c1, ["r", c1])

        self.check(scenario)


class BrokerMachine(AdapterMachine):
    def make_servers(self) -> Sequence[Server[Any]]:
        return make_servers()


TestBrokerMachine = BrokerMachine.TestCase
TestBrokerMachine.settings = settings(
    max_examples=30, stateful_step_count=20, deadline=None, phases=set(Phase) - {Phase.explain}
)
