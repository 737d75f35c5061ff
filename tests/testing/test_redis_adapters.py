"""The adapters over Redis, held against the model of rooms, on a real server and in real time.

There is one difference, which is in the nature of channels that only those servers hear who have somebody in the room:
who is put into a room by another server hears what is said there when its server has subscribed it. ``wait=True`` waits
for that; who emits without it is early.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from trio_socketio import Server
from trio_socketio.redis import RedisAdapter, RedisStreamsAdapter, ShardedRedisAdapter
from trio_socketio.testing import AdapterConformance, AdapterMachine, Difference

from ..redis_server import RedisServer, unique, valkey_server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["valkey_server"]

NAMES = ("s0", "s1")


class Kind(NamedTuple):
    """An adapter.

    Attributes:
        name: What tests call it.
        make: Makes it, of a URL.
        prefix: The options that say what its names in Redis begin with.
        server_options: Those of the servers.
        differences: Those that are known.
    """

    name: str
    make: Callable[..., Any]
    prefix: Sequence[str] = ("channel_prefix",)
    server_options: Sequence[tuple[str, Any]] = ()
    differences: Sequence[Difference] = ()

    def make_servers(self, url: str) -> list[Server[Any]]:
        """Two servers in a cluster of their own."""
        prefix = dict.fromkeys(self.prefix, unique("machine"))
        options = dict(self.server_options)
        return [Server(adapter=self.make(url, name=name, **prefix), **options) for name in NAMES]


KINDS = [
    Kind("classic", RedisAdapter, ("key",)),
    Kind("classic-specific", partial(RedisAdapter, publish_on_specific_response_channel=True), ("key",)),
    Kind("sharded-static", partial(ShardedRedisAdapter, subscription_mode="static")),
    Kind(
        "sharded-dynamic",
        partial(ShardedRedisAdapter, subscription_mode="dynamic"),
        differences=[Difference.LATE_CHANGES],
    ),
    Kind(
        "sharded-private",
        partial(ShardedRedisAdapter, subscription_mode="dynamic-private"),
        differences=[Difference.LATE_CHANGES],
    ),
    Kind("streams", RedisStreamsAdapter, ("channel_prefix", "stream_name")),
    Kind(
        "streams-recovery",
        RedisStreamsAdapter,
        ("channel_prefix", "stream_name", "session_key_prefix"),
        [("connection_state_recovery", True)],
    ),
]


class Place(NamedTuple):
    """Where to run a kind of adapter."""

    kind: Kind
    url: str

    def make_servers(self) -> Sequence[Server[Any]]:
        return self.kind.make_servers(self.url)


@pytest.fixture(params=KINDS, ids=[kind.name for kind in KINDS])
def place(request: pytest.FixtureRequest, valkey_server: RedisServer) -> Place:
    return Place(request.param, valkey_server.url)


class TestRedisAdapters(AdapterConformance):
    real_time = True

    @pytest.fixture(autouse=True)
    def take(self, place: Place) -> None:
        self.place = place
        vars(self)["differences"] = place.kind.differences

    def make_servers(self) -> Sequence[Server[Any]]:
        return self.place.make_servers()


def run_machine(place: Place, examples: int, steps: int) -> int:
    """Run the machine with such servers; how many examples that were."""
    runs = 0

    class Machine(AdapterMachine):
        real_time = True
        differences = place.kind.differences

        def make_servers(self) -> Sequence[Server[Any]]:
            nonlocal runs
            runs += 1
            return place.make_servers()

    quick = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=set(Phase) - {Phase.explain},
        suppress_health_check=[HealthCheck.too_slow],
    )
    run_state_machine_as_test(Machine, settings=quick)
    return runs


def test_the_machine_finds_nothing(place: Place) -> None:
    assert run_machine(place, examples=4, steps=10) >= 4


@pytest.mark.thorough
@pytest.mark.timeout(300)
def test_the_machine_finds_nothing_for_a_long_time(place: Place) -> None:
    assert run_machine(place, examples=100, steps=30) >= 100
