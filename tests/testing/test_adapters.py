"""The library's own adapters in memory, held against the model of rooms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import settings

from trio_socketio import Server
from trio_socketio.abc import ClusterAdapter, HeartbeatBus, MemoryBus, MemoryCluster
from trio_socketio.testing import AdapterConformance, AdapterMachine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_socketio.abc import Directory


class TestMemoryAdapter(AdapterConformance):
    def make_servers(self) -> Sequence[Server[Any]]:
        return [Server()]


class TestRecoveringMemoryAdapter(AdapterConformance):
    def make_servers(self) -> Sequence[Server[Any]]:
        return [Server(connection_state_recovery=True)]


class TestMemoryCluster(AdapterConformance):
    def make_servers(self) -> Sequence[Server[Any]]:
        cluster = MemoryCluster()
        return [Server(adapter=cluster.adapter(name)) for name in ("s0", "s1", "s2")]


class TestHeartbeats(AdapterConformance):
    def make_servers(self) -> Sequence[Server[Any]]:
        cluster = MemoryCluster()

        def make_adapter(directory: Directory, name: str) -> ClusterAdapter:
            bus = HeartbeatBus(MemoryBus(cluster, directory.name, name), directory.name)
            return ClusterAdapter(directory, bus)

        def make_server(name: str) -> Server[Any]:
            return Server(adapter=lambda directory: make_adapter(directory, name))

        return [make_server("s0"), make_server("s1")]


class OneServer(AdapterMachine):
    def make_servers(self) -> Sequence[Server[Any]]:
        return [Server()]


class TwoServers(AdapterMachine):
    """Half of all steps happen with messages that are late or lost."""

    def make_servers(self) -> Sequence[Server[Any]]:
        self.cluster = MemoryCluster()
        return [Server(adapter=self.cluster.adapter(name)) for name in ("s0", "s1")]

    def make_faults(self) -> MemoryCluster:
        return self.cluster


TestOneServer = OneServer.TestCase
TestTwoServers = TwoServers.TestCase
TestOneServer.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
TestTwoServers.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
