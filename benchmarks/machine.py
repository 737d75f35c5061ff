"""What it runs on: the cores, what a process may do, and what is installed."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGES = (
    *("trio-socketio", "trio", "h11", "trio-websocket", "wsproto", "orjson"),
    *("python-socketio", "python-engineio", "uvicorn", "uvloop", "httptools", "websockets", "hypercorn"),
)

PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>


def cores() -> tuple[int, int] | None:
    """A core for the servers and another one for the generator; None if this machine has no two."""
    present = sorted(os.sched_getaffinity(0))
    return (present[0], present[-1]) if len(present) > 1 else None


SERVER_CORE, GENERATOR_CORE = cores() or (None, None)


def bounded(core: int | None, seconds: int) -> Callable[[], None]:
    """What a new process does before its program starts: it moves to its core, and sets the end of its life.

    It ends with us, even if we are killed, and it ends when its time is over. The program knows of neither.
    """
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.alarm(seconds)
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        if core is not None:
            os.sched_setaffinity(0, {core})

    return prepare


def most_clients() -> int:
    """How many clients one process can have, by the limit of its open files."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 1_000_000 if limit == resource.RLIM_INFINITY else limit - 100


def describe() -> dict[str, object]:
    """The machine, for a reader of the figures."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "pinned": SERVER_CORE is not None,
        "system": f"{platform.system()} {platform.release()}",
        "load": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Those of the interpreter and of every package that is measured, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
