"""What a run has found, for people: tables for the terminal and for the documentation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .measure import is_reached, ratio_of, value_of
from .scenarios import MAIN, SCALING, TABLES, UNDER_HYPERCORN, WITH_PLAIN_FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .measure import Runs
    from .scenarios import Figure, Gate

OURS = ("trio", "trio-plain", "hypercorn-trio")
SHORT = {"node": "N", "python": "P", "hypercorn-python": "P"}
SERVERS = dict(zip(TABLES, (MAIN, WITH_PLAIN_FUNCTIONS, UNDER_HYPERCORN, SCALING), strict=True))
MARKS = {True: "✓", False: "✗", None: "?"}


class Table(NamedTuple):
    """Cells of text; the first row is the head."""

    title: str
    rows: list[list[str]]


def tables(runs: Runs) -> Iterator[Table]:
    """The tables, without the rows and the columns that were not measured."""
    for title, figures in TABLES.items():
        measured = {server for figure in figures for server in runs.get(figure.scenario, {})}
        if servers := [server for server in SERVERS[title] if server in measured]:
            rows = [_row(figure, runs, servers) for figure in figures if figure.scenario in runs]
            ratios = [f"/ {SHORT[server]}" for server in servers[1:]]
            yield Table(title, [["", "unit", *servers, *ratios, "must be", "aim"], *rows])


def _row(figure: Figure, runs: Runs, servers: Sequence[str]) -> list[str]:
    first, *others = servers
    values = [_number(value_of(figure, runs, server)) for server in servers]
    ratios = [_number(ratio_of(figure, runs, first, other)) for other in others]
    # The goals are ours; without us there is nothing to judge.
    goals = (figure.gates, figure.aims) if first in OURS else ((), ())
    judged = [" ".join(_goal(gate, figure, runs, first) for gate in gates) for gates in goals]
    return [figure.label, figure.unit, *values, *ratios, *judged]


def _goal(gate: Gate, figure: Figure, runs: Runs, server: str) -> str:
    mark = MARKS[is_reached(gate, figure, runs, server)]
    return f"{gate.bound:g}{' ' + SHORT[gate.of] if gate.of else ''} {mark}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 10_000:
        return f"{value / 1000:,.0f}k"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def as_text(runs: Runs) -> str:
    """For the terminal."""
    lines: list[str] = []
    for title, rows in tables(runs):
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines += ["", title, "", *("  ".join(_aligned(row, widths)).rstrip() for row in rows)]
    return "\n".join(lines)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    """Text to the left, figures to the right."""
    for i, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.ljust(width) if i == 0 or i >= len(row) - 2 else cell.rjust(width)


def as_rst(result: dict[str, Any]) -> str:
    """For the documentation."""
    machine, versions = result["machine"], result["versions"]
    effort, rounds = result["effort"], result["effort"]["rounds"]
    lines = [
        f"Measured on {result['when'][:10]}: {machine['processor']}, {machine['cores']} cores, {machine['system']}, "
        f"Python {versions['python']}, Node.js {versions['node']}; "
        f"{rounds} round{'s' if rounds > 1 else ''} of {effort['seconds']} seconds for each load.",
        "",
    ]
    for title, rows in tables(result["runs"]):
        lines += [f".. list-table:: {title}", "   :header-rows: 1", ""]
        for row in rows:
            lines += [f"   {'*' if i == 0 else ' '} - {cell}".rstrip() for i, cell in enumerate(row)]
        lines.append("")
    return "\n".join(lines)
