"""A server under load, seen by py-spy."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import generator
from .servers import BenchmarkError, end, serve

if TYPE_CHECKING:
    from .scenarios import Scenario
    from .servers import ServerProcess

SAMPLES_PER_SECOND = 400
OWN_LOAD = 0.5  # seconds of load before py-spy looks
PATIENCE = 30.0  # seconds for py-spy to begin, and to draw


class Shares(NamedTuple):
    """Functions, and which share of the time is theirs, the greatest first.

    Attributes:
        own: What they do themselves.
        within: With all that they call.
    """

    own: list[tuple[float, str]]
    within: list[tuple[float, str]]


def profile(scenario: Scenario, server_name: str, seconds: int, graph: Path) -> Shares:
    """Draw the flame graph of a server under a load.

    Args:
        scenario: The load; one that ends by itself, such as connecting, is repeated.
        server_name: Whose graph; it has to be in Python.
        seconds: To sample for: once for the graph, and once for the result.
        graph: The file to write the graph to: SVG.

    Raises:
        BenchmarkError: py-spy is missing, or may not look; or the server did not start.
    """
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if spy is None:
        raise BenchmarkError("py-spy is not installed: `nox -s profile` has it")
    with serve(server_name, scenario.ping_interval) as server, tempfile.TemporaryDirectory() as directory:
        stacks = Path(directory) / "stacks"
        for kind, path in (("flamegraph", graph), ("raw", stacks)):
            command = [spy, "record", "--pid", str(server.pid), "--duration", str(seconds), "--format", kind]
            command += ["--rate", str(SAMPLES_PER_SECOND), "--output", str(path)]
            _run_under_load(command, scenario, server, seconds)
        return shares_of_time(stacks.read_text(encoding="utf-8"))


def _run_under_load(command: list[str], scenario: Scenario, server: ServerProcess, seconds: int) -> None:
    """Run a command to its end, with the load going on for as long."""
    with contextlib.ExitStack() as stack, tempfile.TemporaryFile() as log:

        def start_load() -> subprocess.Popen[bytes]:
            return stack.enter_context(generator.start(scenario, server, seconds=seconds + 5, warm=0))

        load = start_load()
        time.sleep(OWN_LOAD)
        spy = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0)
        stack.callback(end, spy)
        deadline = time.monotonic() + seconds + PATIENCE
        while spy.poll() is None and time.monotonic() < deadline:
            if load.poll():
                raise BenchmarkError(f"{scenario.name} on {server.name!r}: the generator lost clients")
            if load.poll() == 0:  # connecting has an end
                load = start_load()
            time.sleep(0.02)
        if spy.poll() != 0:
            log.seek(0)
            raise BenchmarkError(f"py-spy failed:\n{log.read().decode(errors='replace')[-2000:]}")


def shares_of_time(stacks: str) -> Shares:
    """Who is at the end of how many stacks, and in how many at all.

    Args:
        stacks: A line for each, ``outer;inner 12``, as py-spy's format ``raw`` has them.
    """
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        places = [_without_line(frame) for frame in stack.split(";")]
        own[places[-1]] += int(count)
        for place in set(places):
            within[place] += int(count)
    total = own.total() or 1
    return Shares(*([(count / total, place) for place, count in counts.most_common()] for counts in (own, within)))


def _without_line(frame: str) -> str:
    """``f (a/b.py:12)`` is ``f (a/b.py)``: a function is of interest as a whole."""
    place, colon, rest = frame.rpartition(":")
    return f"{place})" if colon and rest.rstrip(")").isdigit() else frame
