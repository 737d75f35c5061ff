"""The benchmarks' own machinery: what it makes of runs, and that no server outlives its measurement."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("the benchmarks are for Linux", allow_module_level=True)

from benchmarks import plot, report, servers
from benchmarks.measure import is_reached, ratio_of, value_of
from benchmarks.profiling import shares_of_time
from benchmarks.scenarios import SCENARIOS, TABLES, Figure, Gate, p50, select
from benchmarks.servers import BenchmarkError, serve

if TYPE_CHECKING:
    from benchmarks.generator import Run
    from benchmarks.measure import Runs

RATE = Figure("echo-50", "echo", gates=(Gate(0.5, "node"),))
LATENCY = Figure("echo-50", "p50", "µs", p50, less=True)


def a_run(rate: float = 1000.0, cpu: float = 1.0, p50_us: float = 50.0) -> Run:
    return {
        "mode": "echo", "clients": 50, "rate": rate, "p50_us": p50_us, "p99_us": 90.0, "generator_cpu": 0.5,
        "server_cpu": cpu, "kib_per_client": 20.0, "beats": 10, "idle_cpu_s": 0.001, "errors": 0,
    }  # fmt: skip


def test_a_rate_is_for_each_second_of_cpu() -> None:
    assert value_of(RATE, {"echo-50": {"trio": [a_run(1000, cpu=0.5)]}}, "trio") == 2000


def test_a_ratio_is_the_median_of_those_within_the_rounds() -> None:
    runs: Runs = {"echo-50": {"trio": [a_run(100), a_run(20), a_run(60)], "node": [a_run(200), a_run(10), a_run(100)]}}
    assert ratio_of(RATE, runs, "trio", "node") == 0.6


def test_a_run_that_failed_leaves_its_round_out() -> None:
    runs: Runs = {"echo-50": {"trio": [None, a_run(50)], "node": [a_run(1), a_run(100)]}}
    assert value_of(RATE, runs, "trio") == 50
    assert ratio_of(RATE, runs, "trio", "node") == 0.5
    assert value_of(RATE, {"echo-50": {"trio": [None]}}, "trio") is None


def test_a_run_in_which_nothing_happened_has_no_figures() -> None:
    assert value_of(RATE, {"echo-50": {"trio": [a_run(0), a_run(0, cpu=0), a_run(1, cpu=0)]}}, "trio") is None


@pytest.mark.parametrize(
    ("figure", "gate", "reached"),
    [
        (RATE, Gate(0.5, "node"), True),
        (RATE, Gate(0.6, "node"), False),
        (LATENCY, Gate(2.0, "node"), True),
        (LATENCY, Gate(1.9, "node"), False),
        (LATENCY, Gate(60.0, None), True),
        (LATENCY, Gate(40.0, None), False),
        (RATE, Gate(0.5, "python"), None),
    ],
)
def test_a_gate_is_a_least_value_or_a_greatest_one(figure: Figure, gate: Gate, reached: bool | None) -> None:
    runs: Runs = {"echo-50": {"trio": [a_run(50, p50_us=50.0)], "node": [a_run(100, p50_us=25.0)]}}
    assert is_reached(gate, figure, runs, "trio") is reached


def test_the_reports_have_a_place_for_every_figure() -> None:
    runs: Runs = {scenario.name: {server: [a_run()] for server in scenario.servers} for scenario in SCENARIOS}
    result = {
        "when": "2026-01-01T00:00:00+00:00",
        "machine": {"processor": "one", "cores": 2, "system": "Linux"},
        "versions": {"python": "3.11", "node": "v20"},
        "effort": {"rounds": 1, "seconds": 1.0},
        "runs": runs,
    }
    for text in (report.as_text(runs), report.as_rst(result)):
        assert all(figure.label in text for figures in TABLES.values() for figure in figures)
    assert len(ElementTree.fromstring(plot.draw(runs)).findall("{*}rect")) > 2 * len(TABLES["On its own listener"])


def test_what_was_not_measured_is_not_in_the_report() -> None:
    text = report.as_text({"echo-50": {"trio": [a_run()]}})
    assert "echo, 50 clients" in text
    assert "0.5 N ?" in text
    assert "500" not in text
    assert "hypercorn" not in text


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["echo-50"], ["echo-50"]),
        (["echo"], ["echo-50", "echo-1", "echo-500", "echo-2000"]),
        (["polling", "ack"], ["ack-50", "polling"]),
        ([], [scenario.name for scenario in SCENARIOS]),
    ],
)
def test_a_scenario_is_called_by_its_name_or_the_beginning_of_it(names: list[str], found: list[str]) -> None:
    assert [scenario.name for scenario in select(names)] == found


def test_a_name_that_fits_nothing_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="'ehco'; there are echo-50, echo-1,"):
        select(["ehco"])


def test_the_time_of_a_function_is_that_of_all_its_lines() -> None:
    stacks = "main (a.py:1);f (a.py:10) 30\nmain (a.py:1);f (a.py:12);f (a.py:10) 30\nmain (a.py:1) 40\n"
    own, within = shares_of_time(stacks)
    assert own == [(0.6, "f (a.py)"), (0.4, "main (a.py)")]
    assert within == [(1.0, "main (a.py)"), (0.6, "f (a.py)")]


def test_a_server_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(servers.COMMANDS, "broken", "python -m no_such_server {port}")
    with (
        pytest.raises(BenchmarkError, match=r"(?s)'broken' did not start.*No module named no_such_server"),
        serve("broken"),
    ):
        pytest.fail("it is said to have started")


def test_a_program_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(servers.COMMANDS, "absent", "no-such-program {port}")
    with pytest.raises(BenchmarkError, match="'absent' needs no-such-program"), serve("absent"):
        pytest.fail("it is said to have started")


def test_a_server_ends_with_its_measurement_even_if_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(servers.COMMANDS, "files", "python -m http.server --bind 127.0.0.1 {port}")
    pids: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        _interrupted_measurement(pids)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def _interrupted_measurement(pids: list[int]) -> None:
    with serve("files") as server:
        os.kill(server.pid, 0)
        pids.append(server.pid)
        raise KeyboardInterrupt
