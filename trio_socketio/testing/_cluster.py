"""Several servers in one process, as a user's test wants them."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from .. import Server
from .._errors import plain_exceptions
from ..abc import MemoryCluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from ..abc import AdapterFactory


class Cluster:
    """Servers that run together; made by `open_cluster`.

    Attributes:
        servers: They.
    """

    def __init__(self, servers: Sequence[Server[Any]], names: Sequence[str], bus: MemoryCluster | None) -> None:
        self.servers: Sequence[Server[Any]] = servers
        self._names = names
        self._bus = bus

    def __getitem__(self, number: int) -> Server[Any]:
        return self.servers[number]

    def __iter__(self) -> Iterator[Server[Any]]:
        return iter(self.servers)

    def __len__(self) -> int:
        return len(self.servers)

    @property
    def bus(self) -> MemoryCluster:
        """What connects them; its ``delay`` and ``lose`` may be assigned at any time.

        Raises:
            RuntimeError: The servers have adapters of their own.
        """
        if self._bus is None:
            raise RuntimeError("these servers have adapters of their own, whose faults are theirs")
        return self._bus

    def partition(self, *groups: Sequence[int]) -> None:
        """Lose everything between servers of different groups of numbers.

        Raises:
            RuntimeError: The servers have adapters of their own.
        """
        self.bus.partition(*[[self._names[number] for number in group] for group in groups])

    def heal(self) -> None:
        """No delays, no losses.

        Raises:
            RuntimeError: The servers have adapters of their own.
        """
        self.bus.heal()


@asynccontextmanager
async def open_cluster(
    n: int = 2,
    adapter: Callable[[str], AdapterFactory] | None = None,
    *,
    setup: Callable[[Server[Any]], object] | None = None,
    **options: Any,
) -> AsyncIterator[Cluster]:
    """Run several servers, on one memory bus or on whatever is given.

    ::

        async with open_cluster(2) as cluster, open_client(cluster[0]) as a, open_client(cluster[1]) as b:
            cluster.bus.delay = 0.1

    Args:
        n: How many.
        adapter: Called with the name of each server (``"s0"``, ``"s1"`` ...) for its option ``adapter``.
        setup: Called with each server before it runs, to register handlers.
        options: For each `Server`.

    Raises:
        ValueError: Not a single one.
        Exception: What starting one of them raises.
    """
    if n < 1:
        raise ValueError(f"a cluster has at least one server, not {n}")
    names = [f"s{number}" for number in range(n)]
    bus = MemoryCluster() if adapter is None else None
    make = bus.adapter if bus is not None else adapter
    assert make is not None, "there is one or the other"
    servers = [Server(adapter=make(name), **options) for name in names]
    with plain_exceptions():
        async with AsyncExitStack() as stack:
            for server in servers:
                if setup is not None:
                    setup(server)
                await stack.enter_async_context(server.running())
            yield Cluster(servers, names, bus)
