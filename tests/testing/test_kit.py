"""The model of rooms, clusters of servers, and what the suites say if they are used in a wrong way."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from trio_socketio import AckTimeout, Server, Socket
from trio_socketio.abc import MemoryAdapter, MemoryCluster
from trio_socketio.testing import AdapterConformance, AdapterMachine, RoomModel, open_client, open_cluster

if TYPE_CHECKING:
    from collections.abc import Sequence

SECONDS = 5.0  # of a processor, for 100 examples of 30 steps on two servers
MARGIN = 2.0  # for a processor that shares its core with another one's work, or is a slow one


class TestRoomModel:
    def make(self) -> RoomModel:
        model = RoomModel()
        model.connect("a", 0)
        model.connect("b", 0)
        model.connect("c", 1)
        model.join(["a", "c"], ["r"])
        model.join(["a", "b"], ["s"])
        return model

    def test_rooms_are_a_union_and_none_means_everybody(self) -> None:
        model = self.make()
        assert model.chosen([], [], [0, 1]) == {"a", "b", "c"}
        assert model.chosen(["r"], [], [0, 1]) == {"a", "c"}
        assert model.chosen(["r", "s"], [], [0, 1]) == {"a", "b", "c"}
        assert model.chosen(["unknown"], [], [0, 1]) == set()

    def test_excepted_rooms_win(self) -> None:
        model = self.make()
        assert model.chosen(["r", "s"], ["s"], [0, 1]) == {"c"}
        assert model.chosen([], ["a"], [0, 1]) == {"b", "c"}

    def test_only_sockets_of_the_servers_that_are_reached_are_meant(self) -> None:
        assert self.make().chosen(["r"], [], [1]) == {"c"}

    def test_a_socket_has_a_room_of_its_own_until_it_leaves_that(self) -> None:
        model = self.make()
        assert model.chosen(["b"], [], [0]) == {"b"}
        model.leave(["b"], ["b", "unknown"])
        assert model.chosen(["b"], [], [0]) == set()
        assert model.rooms["b"] == {"s"}

    def test_the_index_has_no_empty_rooms(self) -> None:
        model = self.make()
        assert model.index(1) == {"c": {"c"}, "r": {"c"}}
        model.disconnect("c")
        assert model.index(1) == {}
        assert model.index(0) == {"a": {"a"}, "b": {"b"}, "r": {"a"}, "s": {"a", "b"}}


def register(io: Server[Any]) -> None:
    @io.handle("join")
    async def join(socket: Socket[Any], room: str) -> None:
        await socket.join(room)


async def test_a_cluster_is_one_server_to_its_clients() -> None:
    async with open_cluster(3, setup=register, ping_interval=7.0) as cluster:
        assert len(cluster) == len(cluster.servers) == 3
        assert all(io.is_running and io.engine.config.ping_interval == 7.0 for io in cluster)
        async with open_client(cluster[0]) as a, open_client(cluster[2]) as b:
            await b.emit_with_ack("join", "r")
            await cluster[1].to("r").emit("news")
            assert await b.receive() == ("news",)
            assert await a.receive_all() == []
    assert not any(io.is_running for io in cluster)


async def test_what_is_sent_takes_as_long_as_was_said() -> None:
    async with open_cluster() as cluster, open_client(cluster[1]) as client:
        cluster.bus.delay = 3.0
        begun = trio.current_time()
        await cluster[0].emit("news")
        assert await client.receive() == ("news",)
        assert trio.current_time() - begun == pytest.approx(3.0)


async def test_servers_that_are_cut_off_miss_things_until_that_is_healed_and_are_named() -> None:
    async with open_cluster(3) as cluster, open_client(cluster[1]) as near, open_client(cluster[2]) as far:
        cluster.partition([0, 1], [2])
        await cluster[0].emit("news", 1)
        with pytest.raises(AckTimeout) as caught:
            await cluster[0].timeout(1).fetch_sockets()
        assert caught.value.servers == ("s2",)
        assert [socket.id for socket in caught.value.responses] == [near.id]
        cluster.heal()
        await cluster[0].emit("news", 2)
        assert await near.receive_all() == [("news", 1), ("news", 2)]
        assert await far.receive_all() == [("news", 2)]


async def test_a_cluster_on_something_else_has_no_faults_to_switch() -> None:
    elsewhere = MemoryCluster()
    async with open_cluster(2, elsewhere.adapter) as cluster, open_client(cluster[1]) as client:
        await cluster[0].emit("news")
        assert await client.receive() == ("news",)
        for use in (lambda: cluster.bus, cluster.heal, lambda: cluster.partition([0], [1])):
            with pytest.raises(RuntimeError, match="adapters of their own"):
                use()


async def test_a_cluster_of_nobody_or_of_options_that_do_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one server, not 0"):
        async with open_cluster(0):
            pass
    with pytest.raises(TypeError, match="no_such_option"):
        async with open_cluster(2, no_such_option=1):
            pass
    async with open_cluster(2) as cluster:
        with pytest.raises(IndexError):
            cluster.partition([0], [2])


async def test_a_server_that_cannot_begin_ends_the_others() -> None:
    begun: list[Server[Any]] = []

    def refuse_the_second(io: Server[Any]) -> None:
        if begun:
            raise ValueError("not this one")
        begun.append(io)

    with pytest.raises(ValueError, match="not this one"):
        async with open_cluster(2, setup=refuse_the_second):
            pass
    assert not begun[0].is_running


def test_a_suite_without_servers_says_what_is_missing() -> None:
    with pytest.raises(NotImplementedError, match=r"define make_servers\(\)"):
        AdapterConformance().test_a_socket_is_in_a_room_of_its_own()
    with pytest.raises(NotImplementedError, match=r"define make_servers\(\)"):
        run_state_machine_as_test(AdapterMachine, settings=settings(max_examples=1, database=None))


def test_a_suite_names_what_is_wrong() -> None:
    class Forgetful(MemoryAdapter):
        async def delete_all(self, id: str) -> None:
            await trio.lowlevel.checkpoint()

    class Suite(AdapterConformance):
        def make_servers(self) -> Sequence[Server[Any]]:
            return [Server(adapter=Forgetful)]

    with pytest.raises(AssertionError, match=r"server 0 has the rooms .* instead of"):
        Suite().test_nothing_is_left_of_a_client_however_it_goes()


WITHOUT = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("hypothesis", "pytest"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
import trio_socketio.testing as kit

missing = []
for name in kit.__all__:
    try:
        getattr(kit, name)
    except ImportError as error:
        assert "pip install trio-socketio[testing]" in str(error), error
        missing.append(name)
print(*sorted(missing))

from trio_socketio import Server

class Suite(kit.AdapterConformance):
    def make_servers(self):
        return [Server()]

Suite().test_rooms_add_up_and_nobody_gets_anything_twice()
print("passed")
"""


def test_what_does_not_need_hypothesis_works_without_it() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False, timeout=40)
    assert done.stderr == ""
    missing, passed = done.stdout.splitlines()
    assert missing.split() == [
        "AdapterMachine",
        "TrioStateMachine",
        "WireMachine",
        "initialize",
        "invariant",
        "rule",
    ]
    assert passed == "passed"


@pytest.mark.thorough
@pytest.mark.timeout(120)
def test_a_hundred_examples_of_thirty_steps_take_seconds() -> None:
    examples = 0

    class Machine(AdapterMachine):
        def make_servers(self) -> Sequence[Server[Any]]:
            nonlocal examples
            examples += 1
            cluster = MemoryCluster()
            return [Server(adapter=cluster.adapter(name)) for name in ("s0", "s1")]

    quick = settings(
        max_examples=100,
        stateful_step_count=30,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    begun = time.process_time()
    run_state_machine_as_test(Machine, settings=quick)
    assert examples >= 100
    assert time.process_time() - begun < SECONDS * MARGIN
