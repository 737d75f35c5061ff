"""The load generator, which is ``sioload.c``: building it, and running it against a server."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from .machine import GENERATOR_CORE, bounded
from .servers import BenchmarkError, end

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .scenarios import Scenario
    from .servers import ServerProcess

SOURCE = Path(__file__).with_name("sioload.c")
LIFETIME = 330  # seconds; the generator gives up by itself before that


class Run(TypedDict):
    """What a run of the generator has found: the line that it writes. CPU is in cores, that of idling in seconds."""

    mode: str
    clients: int
    rate: float
    p50_us: float
    p99_us: float
    generator_cpu: float
    server_cpu: float
    kib_per_client: float
    beats: int
    idle_cpu_s: float
    errors: int


def build() -> Path:
    """Build it, unless that is done.

    Raises:
        BenchmarkError: There is no C compiler, or it does not take the source.
    """
    program = SOURCE.parent / "build" / "sioload"
    if program.exists() and program.stat().st_mtime >= SOURCE.stat().st_mtime:
        return program
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise BenchmarkError(f"the load generator ({SOURCE}) is in C: install a C compiler, so that `cc` is on PATH")
    program.parent.mkdir(exist_ok=True)
    done = subprocess.run([compiler, "-O2", "-o", program, SOURCE], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"{compiler} does not take {SOURCE}:\n{done.stderr[-2000:]}")
    return program


@contextlib.contextmanager
def start(
    scenario: Scenario, server: ServerProcess, *, seconds: float, warm: float
) -> Iterator[subprocess.Popen[bytes]]:
    """Start it; at the end, however that comes, it ends."""
    keys = {"port": server.port, "pid": server.pid, "n": scenario.clients, "dur": seconds, "warm": warm}
    arguments = [f"{key}={value}" for key, value in {**keys, **scenario.keys}.items()]
    process = subprocess.Popen(
        [build(), scenario.mode, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
        preexec_fn=bounded(GENERATOR_CORE, LIFETIME),
    )
    try:
        yield process
    finally:
        end(process)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def run(scenario: Scenario, server: ServerProcess, *, seconds: float, warm: float) -> Run:
    """Put a scenario's load on a server.

    Args:
        scenario: What is to be done.
        server: Who has to do it.
        seconds: To measure for.
        warm: Seconds of the same load before that.

    Raises:
        BenchmarkError: Not all clients came through it.
    """
    with start(scenario, server, seconds=seconds, warm=warm) as process:
        out, errors = process.communicate()
    if process.returncode:
        said = errors.decode(errors="replace").strip()[-1000:] or f"status {process.returncode}"
        raise BenchmarkError(f"{scenario.name} on {server.name!r}: the generator lost clients: {said}")
    found: Run = json.loads(out)
    return found
