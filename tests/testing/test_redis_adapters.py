"""The adapters over Redis, held against the model of rooms, on a real server and in real time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from trio_socketio import Server
from trio_socketio.redis import RedisAdapter, RedisStreamsAdapter, ShardedRedisAdapter
from trio_socketio.testing import AdapterConformance, AdapterMachine

from ..redis_server import RedisServer, unique, valkey_server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["valkey_server"]

NAMES = ("s0", "s1")


class Kind(NamedTuple):
    """An adapter.

    Attributes:
        name: What tests call it.
        make: Makes it, of a URL; `prefix` is the name of its option with what its names in Redis begin with.
        prefix: That option's name.
        server_options: Those of the servers.
    """

    name: str
    make: Callable[..., Any]
    prefix: Sequence[str] = ("channel_prefix",)
    server_options: Sequence[tuple[str, Any]] = ()

    def make_servers(self, url: str) -> list[Server[Any]]:
        """Two servers in a cluster of their own."""
        prefix = dict.fromkeys(self.prefix, unique("machine"))
        options = dict(self.server_options)
        return [Server(adapter=self.make(url, name=name, **prefix), **options) for name in NAMES]


KINDS = [
    Kind("classic", RedisAdapter, ("key",)),
    Kind("classic-specific", partial(RedisAdapter, publish_on_specific_response_channel=True), ("key",)),
    Kind("sharded-static", partial(ShardedRedisAdapter, subscription_mode="static")),
    Kind("sharded-dynamic", partial(ShardedRedisAdapter, subscription_mode="dynamic")),
    Kind("sharded-private", partial(ShardedRedisAdapter, subscription_mode="dynamic-private")),
    Kind("streams", RedisStreamsAdapter, ("channel_prefix", "stream_name")),
    Kind(
        "streams-recovery",
        RedisStreamsAdapter,
        ("channel_prefix", "stream_name", "session_key_prefix"),
        [("connection_state_recovery", True)],
    ),
]


@pytest.fixture(params=KINDS, ids=[kind.name for kind in KINDS])
def make_servers(request: pytest.FixtureRequest, valkey_server: RedisServer) -> Callable[[], Sequence[Server[Any]]]:
    kind: Kind = request.param
    return lambda: kind.make_servers(valkey_server.url)


class TestRedisAdapters(AdapterConformance):
    real_time = True

    @pytest.fixture(autouse=True)
    def _take(self, make_servers: Callable[[], Sequence[Server[Any]]]) -> None:
        self._make_servers = make_servers

    def make_servers(self) -> Sequence[Server[Any]]:
        return self._make_servers()


def run_machine(make: Callable[[], Sequence[Server[Any]]], examples: int, steps: int) -> int:
    """Run the machine with these servers; how many examples that were."""
    runs = 0

    class Machine(AdapterMachine):
        real_time = True

        def make_servers(self) -> Sequence[Server[Any]]:
            nonlocal runs
            runs += 1
            return make()

    quick = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Machine, settings=quick)
    return runs


def test_the_machine_finds_nothing(make_servers: Callable[[], Sequence[Server[Any]]]) -> None:
    assert run_machine(make_servers, examples=5, steps=12) >= 5


@pytest.mark.thorough
@pytest.mark.timeout(300)
def test_the_machine_finds_nothing_for_a_long_time(make_servers: Callable[[], Sequence[Server[Any]]]) -> None:
    assert run_machine(make_servers, examples=100, steps=30) >= 100
