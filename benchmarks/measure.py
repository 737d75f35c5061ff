"""Measuring: every scenario on every server in turn, round after round."""

from __future__ import annotations

import contextlib
import statistics
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from . import generator
from .machine import most_clients
from .servers import BenchmarkError, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .generator import Run
    from .scenarios import Figure, Gate, Scenario
    from .servers import ServerProcess

#: Scenario -> server -> a run for each round; None for one that failed.
Runs: TypeAlias = dict[str, dict[str, list["Run | None"]]]


class Effort(NamedTuple):
    """How long to measure.

    Attributes:
        rounds: How often.
        seconds: Of each run.
        warm: Seconds of load before that.
    """

    rounds: int
    seconds: float
    warm: float


QUICK = Effort(rounds=1, seconds=0.8, warm=0.2)
FULL = Effort(rounds=3, seconds=2.5, warm=0.5)


def measure(scenarios: Sequence[Scenario], servers: Sequence[str], effort: Effort, say: Callable[[str], None]) -> Runs:
    """Measure.

    The servers take turns within a scenario, so that whatever else the machine does hits all of them, and each round
    begins with another one.

    Args:
        scenarios: On each of its servers.
        servers: The servers to leave it at; empty for all.
        effort: How long.
        say: Is told what happens.

    Raises:
        BenchmarkError: A server did not start.
    """
    runs: Runs = {}
    for scenario in scenarios:
        if scenario.clients > most_clients():
            say(f"{scenario.name} is left out: no process may have so many files open (see `ulimit -n`)")
        elif names := [name for name in scenario.servers if not servers or name in servers]:
            runs[scenario.name] = {name: [] for name in names}
    chosen = [scenario for scenario in scenarios if scenario.name in runs]
    for number in range(effort.rounds):
        say(f"round {number + 1} of {effort.rounds}")
        with contextlib.ExitStack() as stack:
            running: dict[str, ServerProcess] = {}
            for scenario in chosen:
                for name in _rotated(list(runs[scenario.name]), number):
                    if not scenario.fresh and name not in running:
                        running[name] = stack.enter_context(serve(name))
                    runs[scenario.name][name].append(_run(scenario, name, running, effort, say))
    return runs


def _rotated(names: list[str], by: int) -> list[str]:
    by %= len(names)
    return names[by:] + names[:by]


def _run(
    scenario: Scenario, name: str, running: dict[str, ServerProcess], effort: Effort, say: Callable[[str], None]
) -> Run | None:
    own = serve(name, scenario.ping_interval) if scenario.fresh else contextlib.nullcontext(running.get(name))
    with own as server:
        assert server is not None
        try:
            run = generator.run(scenario, server, seconds=max(effort.seconds, scenario.hold), warm=effort.warm)
        except BenchmarkError as error:  # a server that cannot take this load may well take the others
            say(str(error))
            return None
        if not scenario.fresh:
            server.settle()
    busy = f"the server {run['server_cpu']:.0%} and the generator {run['generator_cpu']:.0%} of a core"
    say(f"{scenario.name} on {name}: {run['rate']:,.0f}/s, {busy}")
    return run


def value_of(figure: Figure, runs: Runs, server: str) -> float | None:
    """A figure of a server: the median over the rounds; None where it was not measured."""
    values = [value for value in _values(figure, runs, server) if value is not None]
    return statistics.median(values) if values else None


def ratio_of(figure: Figure, runs: Runs, server: str, other: str) -> float | None:
    """A server's figure by another one's: the median of the ratios within each round."""
    pairs = zip(_values(figure, runs, server), _values(figure, runs, other), strict=False)
    ratios = [ours / theirs for ours, theirs in pairs if ours is not None and theirs]
    return statistics.median(ratios) if ratios else None


def is_reached(gate: Gate, figure: Figure, runs: Runs, server: str) -> bool | None:
    """Whether a server reaches a gate; None where that was not measured."""
    value = value_of(figure, runs, server) if gate.of is None else ratio_of(figure, runs, server, gate.of)
    if value is None:
        return None
    return value <= gate.bound if figure.less else value >= gate.bound


def _values(figure: Figure, runs: Runs, server: str) -> list[float | None]:
    """Those of each round; None where too little happened to have a figure."""
    return [_value(figure, run) for run in runs.get(figure.scenario, {}).get(server, [])]


def _value(figure: Figure, run: Run | None) -> float | None:
    try:
        return (figure.value(run) or None) if run else None
    except ZeroDivisionError:
        return None
