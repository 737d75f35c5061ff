"""The machine for servers at URLs: ours behind TCP, Node's, and python-socketio's."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from examples.property_testing.trio_server import make_server
from examples.property_testing.wire import (
    CLUSTER_OF_NODE,
    PYTHON_SOCKETIO,
    PYTHON_SOCKETIO_SERVER,
    drive,
    node_server,
    started,
)
from trio_socketio import ConnectionRefused, Server
from trio_socketio.abc import MemoryAdapter, MemoryCluster
from trio_socketio.testing import TrioStepper, WireMachine, _wire_server, open_client_at
from trio_socketio.testing._under_test import QUESTION, Target
from trio_socketio.testing._wire_server import WireServer

from ..js_client import PROJECT
from ..redis_server import valkey_server
from .test_documentation import WIRE_MACHINE, execute

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from trio_socketio.abc import AdapterFactory, BroadcastOptions

    from ..redis_server import RedisServer

__all__ = ["valkey_server"]


@asynccontextmanager
async def listening(io: Server) -> AsyncIterator[str]:
    """Serve on TCP; the URL."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(io.serve_tcp, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


class OurServers(WireMachine):
    """Two of them on one memory bus, in this process, new ones for each example."""

    def make_adapters(self) -> Sequence[AdapterFactory]:
        bus = MemoryCluster()
        return [bus.adapter(name) for name in ("s0", "s1")]

    async def make_urls(self) -> Sequence[str]:
        return [await self.enter(listening(make_server(adapter))) for adapter in self.make_adapters()]


def run(machine: type[WireMachine], examples: int, steps: int, *phases: Phase) -> None:
    quiet = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
        phases=phases or (Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
    )
    run_state_machine_as_test(machine, settings=quiet)


def test_our_servers_behave_like_the_model() -> None:
    run(OurServers, examples=10, steps=15)


@pytest.mark.thorough
@pytest.mark.timeout(300)
def test_our_servers_behave_like_the_model_for_long() -> None:
    run(OurServers, examples=200, steps=30)


class ExceptIsIgnored(MemoryAdapter):
    def sockets(self, options: BroadcastOptions) -> list[str]:
        return super().sockets(replace(options, except_rooms=frozenset()))


class OurFaultyServer(OurServers):
    def make_adapters(self) -> Sequence[AdapterFactory]:
        return [ExceptIsIgnored]


def test_a_fault_is_found_over_the_wire() -> None:
    with pytest.raises(AssertionError, match=r"c\d") as caught:
        run(OurFaultyServer, 30, 15, Phase.generate)  # shrinking is the same as elsewhere, and slower
    assert "state.teardown()" in "".join(caught.value.__notes__)


def test_a_machine_needs_urls() -> None:
    with pytest.raises(NotImplementedError, match="assign urls"):
        run(WireMachine, examples=1, steps=1)


# What the driver says about servers that cannot be driven


def check_refused(io: Server, error: type[Exception], text: str, *, with_client: bool = False) -> None:
    async def scenario() -> None:
        url = await stepper.enter(listening(io))
        if with_client:
            await stepper.enter(open_client_at(url))
        with pytest.raises(error, match=text):
            await stepper.enter(WireServer(url).running(0))

    with TrioStepper(real_time=True) as stepper:
        stepper.run(scenario)


def test_a_server_without_the_control_protocol_is_refused() -> None:
    check_refused(Server(), ConnectionRefused, "Invalid namespace")


def test_a_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wire_server, "PATIENCE", 0.05)
    io = Server()
    io.of("/control")
    check_refused(io, TimeoutError, "has not answered 'start'")


def test_a_server_with_sockets_of_others_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wire_server, "PATIENCE", 0.05)
    check_refused(make_server(), RuntimeError, "has rooms from before", with_client=True)


# Node's servers


@pytest.fixture(scope="module")
def one_of_node(node: str) -> Iterator[list[str]]:
    with started(node_server(node=node), directory=PROJECT) as urls:
        yield urls


@pytest.fixture(scope="module")
def two_of_node(node: str, valkey_server: RedisServer) -> Iterator[list[str]]:
    with started(node_server(valkey_server.url, node), 2, PROJECT) as urls:
        yield urls


def test_a_server_of_node_behaves_like_the_model(one_of_node: list[str]) -> None:
    drive(one_of_node, examples=10, steps=15)


def test_a_cluster_of_node_differs_only_as_it_is_known_to(two_of_node: list[str]) -> None:
    drive(two_of_node, CLUSTER_OF_NODE, examples=5, steps=15)


def test_the_machine_of_the_documentation_works(two_of_node: list[str]) -> None:
    machine = execute(WIRE_MACHINE)["NodeMachine"]
    machine.urls = two_of_node
    run(machine, examples=2, steps=5)
    assert set(machine.differences) == set(CLUSTER_OF_NODE)


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_a_server_of_node_behaves_like_the_model_for_long(one_of_node: list[str]) -> None:
    drive(one_of_node, examples=200, steps=30)


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_a_cluster_of_node_differs_only_as_it_is_known_to_for_long(two_of_node: list[str]) -> None:
    drive(two_of_node, CLUSTER_OF_NODE, examples=100, steps=30)


def test_acknowledgements_of_one_server_of_a_cluster_of_node_take_all_the_time_that_they_have(
    two_of_node: list[str],
) -> None:
    """The difference that can be seen without luck: should Node.js lose it, the machine should forget it."""

    async def scenario() -> None:
        server = await start(two_of_node)
        await stepper.enter(server.open_client())
        began = trio.current_time()
        assert (await server.ask(Target(rooms=["nobody's"], local=True), QUESTION, 0)).silent == ()
        assert trio.current_time() - began > 0.9

    async def start(urls: Sequence[str]) -> WireServer:
        servers = [WireServer(url) for url in urls]
        for number, server in enumerate(servers):
            await stepper.enter(server.running(number))
        return servers[0]

    with TrioStepper(real_time=True) as stepper:
        stepper.run(scenario)


# The server of python-socketio


@pytest.fixture(scope="module")
def one_of_python_socketio() -> Iterator[list[str]]:
    with started(PYTHON_SOCKETIO_SERVER) as urls:
        yield urls


def test_a_server_of_python_socketio_differs_only_as_it_is_known_to(one_of_python_socketio: list[str]) -> None:
    drive(one_of_python_socketio, PYTHON_SOCKETIO, examples=8, steps=15)


@pytest.mark.thorough
@pytest.mark.timeout(300)
def test_a_server_of_python_socketio_differs_only_as_it_is_known_to_for_long(
    one_of_python_socketio: list[str],
) -> None:
    drive(one_of_python_socketio, PYTHON_SOCKETIO, examples=200, steps=30)
