"""Is it linear? By ratios, so that the speed of the machine does not matter."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

SMALL = 2_000
FACTOR = 16


def assert_linear(make: Callable[[int], T], work: Callable[[T], object]) -> None:
    """Input `FACTOR` times as large takes about as many times as long; if it were quadratic, `FACTOR` squared."""
    small, large = make(SMALL), make(SMALL * FACTOR)
    ratio = min(_seconds(large, work) / _seconds(small, work) for _ in range(3))
    assert ratio < FACTOR * 4


def _seconds(value: T, work: Callable[[T], object]) -> float:
    best = float("inf")
    for _ in range(3):
        start = time.thread_time()  # not the time in which other processes had the core
        work(value)
        best = min(best, time.thread_time() - start)
    return best
