"""The servers that are measured: how each is started, and that each is ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .machine import SERVER_CORE, bounded

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
START_PATIENCE = 20.0  # seconds until a server listens
STOP_PATIENCE = 5.0  # seconds between asking a server to end and killing it
LIFETIME = 1200  # seconds; no measurement keeps a server for so long

TRIO = "benchmarks.apps.trio_server"
TRIO_PLAIN = "benchmarks.apps.trio_plain"
PYTHON_SOCKETIO = "benchmarks.apps.python_socketio"
UVICORN = "uvicorn --loop uvloop --http httptools --ws websockets --backlog 4096 --log-level warning --no-access-log"
HYPERCORN = "hypercorn --workers 0 --backlog 4096 --log-level warning"

#: Name -> how it is started, with the port still to be filled in. `node` and `python` are found when they are needed.
COMMANDS = {
    "trio": f"python -m trio_socketio run {TRIO}:io --log-level warning --port {{port}}",
    "trio-plain": f"python -m trio_socketio run {TRIO_PLAIN}:io --log-level warning --port {{port}}",
    "node": f"node {HERE / 'apps' / 'node.mjs'} {{port}}",
    "python": f"python -m {UVICORN} --port {{port}} {PYTHON_SOCKETIO}:app",
    "hypercorn-trio": f"python -m {HYPERCORN} --worker-class trio --bind 127.0.0.1:{{port}} {TRIO}:app",
    "hypercorn-python": f"python -m {HYPERCORN} --worker-class asyncio --bind 127.0.0.1:{{port}} {PYTHON_SOCKETIO}:app",
}


class BenchmarkError(Exception):
    """What keeps it from measuring, in a sentence for who called it."""


class ServerProcess(NamedTuple):
    """A server that listens on 127.0.0.1."""

    name: str
    port: int
    pid: int

    def settle(self, patience: float = 3.0) -> None:
        """Wait until it has nothing more to do: what it does for clients that have left is not the next one's."""
        clock = _process_clock(self.pid)
        deadline, before = time.monotonic() + patience, time.clock_gettime(clock)
        while time.monotonic() < deadline:
            time.sleep(0.05)
            now = time.clock_gettime(clock)
            if now - before < 0.002:
                return
            before = now


def _process_clock(pid: int) -> int:
    """The id of the clock that counts another process's CPU, as ``clock_getcpuclockid`` makes it on Linux."""
    return ~pid << 3 | 2


def node_version() -> str:
    """That of Node.js; empty if there is none."""
    node = shutil.which("node")
    if node is None:
        return ""
    return subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()


@contextlib.contextmanager
def serve(name: str, ping_interval: float = 25.0) -> Iterator[ServerProcess]:
    """Start a server and wait until it listens; at the end, however that comes, it ends.

    Args:
        name: One of `COMMANDS`.
        ping_interval: Seconds between its heartbeats.

    Raises:
        BenchmarkError: It did not start; the text has what it said.
    """
    port = _free_port()
    command = COMMANDS[name].format(port=port)
    program, *arguments = command.split()
    found = sys.executable if program == "python" else shutil.which(program)
    if found is None:
        raise BenchmarkError(f"the server {name!r} needs {program}, which is not on PATH")
    environment = {**os.environ, "PING_INTERVAL": str(ping_interval), "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [found, *arguments],
            cwd=HERE.parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,  # Ctrl-C is ours; we end it
            preexec_fn=bounded(SERVER_CORE, LIFETIME),
        )
        try:
            if not _wait_listening(process, port):
                log.seek(0)
                said = log.read().decode(errors="replace").strip()[-4000:] or "nothing"
                raise BenchmarkError(f"the server {name!r} did not start ({command}); it said:\n{said}")
            yield ServerProcess(name, port, process.pid)
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process; kill it if it does not hurry."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_listening(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + START_PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False
