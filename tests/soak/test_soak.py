"""The soak itself: that it runs, and that it would see what it looks for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ..js_client import PROJECT
from .judging import MIB, OBJECTS_ALLOWED, RSS_ALLOWED, Measurement, as_table, judge, kinds_that_grew

BASE = Measurement({}, tasks=8, files=12, objects=35_000, rss=50 * MIB, errors=0, kinds={"dict": 100, "Session": 1})


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a process sees its own files and memory in /proc on Linux")
def test_a_short_soak_finds_that_nothing_has_grown() -> None:
    command = [sys.executable, "-m", "tests.soak", "--seconds", "3", "--clients", "10"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=55, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "wave  2:" in done.stdout
    assert done.stdout.endswith("verdict: nothing has grown\n")


def test_what_grows_during_the_warm_up_or_within_the_margins_is_no_growth() -> None:
    less = BASE._replace(tasks=5, files=5, objects=1000, rss=10 * MIB)
    more = BASE._replace(objects=BASE.objects + OBJECTS_ALLOWED, rss=BASE.rss + RSS_ALLOWED)
    assert judge([less, BASE, BASE, more], warm_up=1) == []


@pytest.mark.parametrize(
    ("after", "figure"),
    [
        (BASE._replace(tasks=9), "tasks"),
        (BASE._replace(files=13), "files"),
        (BASE._replace(errors=1), "errors in its log"),
        (BASE._replace(statistics={"rooms": 1}), "statistics: rooms"),
    ],
)
def test_one_more_than_after_the_warm_up_is_growth(after: Measurement, figure: str) -> None:
    (growth,) = judge([BASE, BASE, after], warm_up=1)
    assert (growth.figure, growth.after - growth.before, growth.allowed) == (figure, 1, 0)
    assert figure in as_table([growth])


def test_objects_and_memory_have_grown_if_the_last_two_waves_say_so() -> None:
    large = BASE._replace(objects=BASE.objects + OBJECTS_ALLOWED + 1, rss=BASE.rss + RSS_ALLOWED + 1)
    assert judge([BASE, BASE, large], warm_up=0) == []
    assert [growth.figure for growth in judge([BASE, large, large], warm_up=0)] == ["objects", "resident bytes"]


def test_the_types_that_grew_are_named() -> None:
    assert kinds_that_grew(BASE, BASE._replace(kinds={"dict": 90, "Session": 3, "Task": 1})) == {
        "Session": 2,
        "Task": 1,
    }
