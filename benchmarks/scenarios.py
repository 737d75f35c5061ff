"""What is measured: the loads, the figures that come out of them, and what the figures have to be.

Rates are per second of the server's CPU, so that a server which waits for the generator, or for another process on its
core, is not the worse for it. `N` is the reference server, `P` python-socketio.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .generator import Run

MAIN = ("trio", "node", "python")
UNDER_HYPERCORN = ("hypercorn-trio", "hypercorn-python")
WITH_PLAIN_FUNCTIONS = ("trio-plain", "node")
SCALING = ("trio", "node")


@dataclass(frozen=True)
class Scenario:
    """One load.

    Attributes:
        name: What ``--only`` calls it; its beginning will do.
        mode: The generator's; see ``sioload.c``.
        clients: How many.
        keys: Further keys of the generator.
        servers: Whom it is put on.
        fresh: Whether each run has a server of its own: memory is measured, and the past shows in it.
        ping_interval: Seconds between heartbeats.
        only_full: Too long for ``--quick``.
        hold: Seconds to measure for at least.
    """

    name: str
    mode: str
    clients: int
    keys: Mapping[str, int] = field(default_factory=dict[str, int])
    servers: tuple[str, ...] = MAIN
    fresh: bool = False
    ping_interval: float = 25.0
    only_full: bool = False
    hold: float = 0.0


def _room(clients: int, *, only_full: bool = False) -> Scenario:
    return Scenario(f"room-{clients}", "fanout", clients, {"k": 4}, SCALING, only_full=only_full)


SCENARIOS = [
    Scenario("echo-50", "echo", 50),
    Scenario("echo-1", "echo", 1),
    Scenario("echo-500", "echo", 500),
    Scenario("echo-2000", "echo", 2000, hold=2.0),  # one answer for each client can take a second
    Scenario("flight-16", "echo", 50, {"w": 16}),
    Scenario("ack-50", "ack", 50),
    Scenario("broadcast-1", "fanout", 500, {"k": 4}),
    Scenario("broadcast-50", "fanout", 500, {"s": 50, "k": 50}),
    Scenario("connects", "connect", 1000),
    Scenario("polling", "poll", 50),
    Scenario("idle-2000", "idle", 2000, fresh=True),
    Scenario("idle-10000", "idle", 10_000, fresh=True, only_full=True),
    Scenario("plain-echo", "echo", 50, servers=WITH_PLAIN_FUNCTIONS),
    Scenario("plain-flight-16", "echo", 50, {"w": 16}, servers=WITH_PLAIN_FUNCTIONS),
    Scenario("plain-ack", "ack", 50, servers=WITH_PLAIN_FUNCTIONS),
    Scenario("hypercorn-echo", "echo", 50, servers=UNDER_HYPERCORN),
    Scenario("hypercorn-broadcast", "fanout", 500, {"k": 4}, servers=UNDER_HYPERCORN),
    Scenario("hypercorn-connects", "connect", 500, servers=UNDER_HYPERCORN),
    Scenario("hypercorn-polling", "poll", 50, servers=UNDER_HYPERCORN),
    _room(10),
    _room(100),
    _room(1000),
    _room(10_000, only_full=True),
    Scenario("heartbeat-100", "idle", 100, servers=SCALING, fresh=True, ping_interval=0.2, hold=1.5),
    Scenario("heartbeat-1000", "idle", 1000, servers=SCALING, fresh=True, ping_interval=1.0, hold=2.5),
    Scenario("heartbeat-10000", "idle", 10_000, {}, SCALING, fresh=True, ping_interval=5.0, only_full=True, hold=10.0),
]


def select(names: Iterable[str]) -> list[Scenario]:
    """The scenarios with these names, or else those whose names begin so; all, for none.

    Raises:
        ValueError: A name fits none.
    """
    wanted: set[str] = set()
    for name in names:
        every = [scenario.name for scenario in SCENARIOS]
        found = [name] if name in every else [other for other in every if other.startswith(name)]
        if not found:
            raise ValueError(f"no scenario is called {name!r}; there are {', '.join(every)}")
        wanted.update(found)
    return [scenario for scenario in SCENARIOS if not wanted or scenario.name in wanted]


def per_cpu_second(run: Run) -> float:
    return run["rate"] / run["server_cpu"]


def cpu_of_one(run: Run) -> float:
    """Microseconds of the server's CPU for each."""
    return 1e6 * run["server_cpu"] / run["rate"]


def cpu_of_heartbeat(run: Run) -> float:
    return 1e6 * run["idle_cpu_s"] / run["beats"]


def p50(run: Run) -> float:
    return run["p50_us"]


def p99(run: Run) -> float:
    return run["p99_us"]


def memory(run: Run) -> float:
    """KiB of the server's for each client."""
    return run["kib_per_client"]


@dataclass(frozen=True)
class Gate:
    """What a ratio, or the figure itself, has to reach.

    Attributes:
        bound: At least, or at most where less is better.
        of: The server to whose figure the ratio is; None for the figure itself.
    """

    bound: float
    of: str | None


@dataclass(frozen=True)
class Figure:
    """A row of a table.

    Attributes:
        scenario: Where it comes from.
        label: What it is.
        unit: Of its values.
        value: Takes it out of a run.
        gates: What it must reach.
        aims: What it should.
        less: Whether less is better.
    """

    scenario: str
    label: str
    unit: str = "1/CPU s"
    value: Callable[[Run], float] = per_cpu_second
    gates: tuple[Gate, ...] = ()
    aims: tuple[Gate, ...] = ()
    less: bool = False


def _n(bound: float) -> Gate:
    return Gate(bound, "node")


def _p(bound: float) -> Gate:
    return Gate(bound, "python")


_MEMORY_GATES, _MEMORY_AIMS = (Gate(22.0, None), _n(1.0)), (Gate(10.0, None),)

#: Title -> rows.
TABLES: dict[str, list[Figure]] = {
    "On its own listener": [
        Figure("echo-1", "echo, 1 client"),
        Figure("echo-50", "echo, 50 clients", gates=(_n(0.5), _p(3.0)), aims=(_n(1.0),)),
        Figure("echo-500", "echo, 500 clients", gates=(_n(0.5), _p(3.0)), aims=(_n(1.0),)),
        Figure("echo-2000", "echo, 2000 clients"),
        Figure("flight-16", "echo, 50 clients, 16 in flight", gates=(_n(0.9),), aims=(_n(2.0),)),
        Figure("ack-50", "acknowledgements, 50 clients", gates=(_n(0.5),), aims=(_n(1.0),)),
        Figure("broadcast-1", "deliveries to 500, 1 sender", gates=(_n(3.5), _p(25.0)), aims=(_n(5.0),)),
        Figure("broadcast-50", "deliveries to 500, 50 senders", gates=(_n(25.0),), aims=(_n(40.0),)),
        Figure("connects", "connects", gates=(_n(0.45), _p(2.5)), aims=(_n(1.0),)),
        Figure("polling", "echo by long-polling, 50 clients", gates=(_p(1.0),), aims=(_n(1.0),)),
        Figure("echo-1", "latency, 1 client, p50", "µs", p50, gates=(_n(1.5),), aims=(_n(1.0),), less=True),
        Figure("echo-1", "latency, 1 client, p99", "µs", p99, less=True),
        Figure("echo-50", "latency, 50 clients, p50", "µs", p50, less=True),
        Figure("echo-50", "latency, 50 clients, p99", "µs", p99, less=True),
        Figure("idle-2000", "memory, each of 2000", "KiB", memory, _MEMORY_GATES, _MEMORY_AIMS, less=True),
        Figure("idle-10000", "memory, each of 10 000", "KiB", memory, _MEMORY_GATES, _MEMORY_AIMS, less=True),
    ],
    "With plain functions": [
        Figure("plain-echo", "echo, 50 clients"),
        Figure("plain-flight-16", "echo, 50 clients, 16 in flight"),
        Figure("plain-ack", "acknowledgements, 50 clients"),
    ],
    "Under hypercorn": [
        Figure("hypercorn-echo", "echo, 50 clients", gates=(Gate(1.0, "hypercorn-python"),)),
        Figure("hypercorn-broadcast", "deliveries to 500, 1 sender"),
        Figure("hypercorn-connects", "connects"),
        Figure("hypercorn-polling", "echo by long-polling, 50 clients"),
    ],
    "Scaling": [
        *(
            Figure(f"room-{size}", f"CPU of a delivery, room of {size}", "µs", cpu_of_one, less=True)
            for size in (10, 100, 1000, 10_000)
        ),
        *(
            Figure(f"heartbeat-{size}", f"CPU of a heartbeat, {size} idle clients", "µs", cpu_of_heartbeat, less=True)
            for size in (100, 1000, 10_000)
        ),
    ],
}
