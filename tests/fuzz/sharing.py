"""Property tests for a time instead of a number of examples: a plugin for pytest (``-p tests.fuzz.sharing``).

It runs the property tests among those collected, and no others. Those marked ``fuzz`` share one half of the time (with
``fuzz(weight=5)`` a test gets five times as much as its neighbours), the others the other half. A failure is made as
small as Hypothesis can, however long that takes, and kept in ``.hypothesis``, so that the next run of the same test, of
whatever kind, begins with it.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings
from hypothesis.database import DirectoryBasedExampleDatabase
from hypothesis.errors import UnsatisfiedAssumption

if TYPE_CHECKING:
    from collections.abc import Callable

#: After so many, Hypothesis starts afresh: it remembers every example of a run.
EXAMPLES_OF_A_RUN = 5_000
#: Seconds for one test on top of all of the time. Hypothesis gives up shrinking after 300; who takes longer, hangs.
SHRINKING = 400


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fuzz")
    group.addoption("--seconds", type=float, default=120.0, help="of all tests together; default: 120")
    group.addoption("--only", default="", metavar="NAME", help="tests with this in their names: the same as -k")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    seconds: float = config.option.seconds
    config.option.keyword = config.option.keyword or config.option.only
    config.option.timeout = seconds + SHRINKING  # of pytest-timeout, which reads it after us
    config.pluginmanager.register(Sharing(seconds))
    settings.register_profile(
        "fuzz",
        max_examples=EXAMPLES_OF_A_RUN,
        deadline=None,
        derandomize=False,
        database=DirectoryBasedExampleDatabase(".hypothesis/examples"),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("fuzz")


def is_marked(item: pytest.Item) -> bool:
    return item.get_closest_marker("fuzz") is not None


def weight(item: pytest.Item) -> int:
    marker = item.get_closest_marker("fuzz")
    return 1 if marker is None else int(marker.kwargs.get("weight", 1))


class TimeIsUp(BaseException):
    """Ends a run of Hypothesis, which would take an `Exception` for a failure."""


class Sharing:
    """Shares the time out.

    Args:
        seconds: The time of all tests together.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._units: dict[bool, float] = {}
        self._lines: list[str] = []

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        others = [item for item in items if not is_hypothesis_test(getattr(item, "obj", None))]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        weights = Counter[bool]()
        for item in session.items:
            weights[is_marked(item)] += weight(item)
        self._units = {marked: self._seconds / len(weights) / total for marked, total in weights.items()}

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool:
        test = pyfuncitem.obj
        arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(test).parameters}
        handle = test.hypothesis  # whose `inner_test` is there for plugins to wrap: it is called for each example
        inner_test = handle.inner_test
        share = self._units[is_marked(pyfuncitem)] * weight(pyfuncitem)
        allowance = Allowance(time.monotonic() + share)
        handle.inner_test = allowance.bound(inner_test)
        try:
            while True:  # a test with settings of its own may end early
                test(**arguments)
                allowance.check_time()
        except TimeIsUp:
            return True
        finally:
            handle.inner_test = inner_test
            self._lines.append(f"{allowance.examples:>8} examples in {share:4.1f} s  {pyfuncitem.nodeid}")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("how far it came")
        for line in self._lines:
            terminalreporter.write_line(line)


class Allowance:
    """The time of one test. Once it has failed, time does not count any more: Hypothesis makes the failure smaller."""

    def __init__(self, until: float) -> None:
        self._until = until
        self._failed = False
        self.examples = 0

    def check_time(self) -> None:
        if not self._failed and time.monotonic() > self._until:
            raise TimeIsUp

    def bound(self, test: Callable[..., object]) -> Callable[..., None]:
        """The same test, which ends when the time is up."""

        @functools.wraps(test)
        def bounded(*args: Any, **kwargs: Any) -> None:
            self.examples += 1
            try:
                test(*args, **kwargs)
            except UnsatisfiedAssumption:
                raise
            except Exception:
                self._failed = True
                raise
            self.check_time()  # not before: an example that has not drawn all of its data is a flaky one

        return bounded
