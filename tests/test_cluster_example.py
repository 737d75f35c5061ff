"""The servers of `examples/cluster`, as they are started by people: processes, real sockets, a real Redis."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import trio

from .redis_server import ServerMissing, find_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .js_client import Driver

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "cluster"
LIMIT = 30.0  # seconds, for all that a test does
HAS_PACKAGES = (EXAMPLE / "node_modules" / "socket.io" / "client-dist").is_dir()


class Cluster(NamedTuple):
    """The example, running.

    Attributes:
        urls: Where each server is, by its name.
        page: The address of the page.
        process: What runs it.
    """

    urls: dict[str, str]
    page: str
    process: trio.Process


@asynccontextmanager
async def cluster(*options: str, **variables: str) -> AsyncIterator[Cluster]:
    """Start the example, and give it back when it has said where everything is."""
    try:
        find_server("valkey")
    except ServerMissing as reason:
        pytest.skip(str(reason))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, str(EXAMPLE / "cluster.py"), "--ports", "0", "--seconds", str(LIMIT), *options]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, env=environment)
    try:
        with trio.fail_after(LIMIT):
            urls, page = await read_addresses(process)
            yield Cluster(urls, page, process)
    finally:
        with trio.CancelScope(shield=True):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)  # with which it takes its Redis along
            with trio.move_on_after(5):
                await process.wait()
            if process.poll() is None:
                process.kill()
                await process.wait()
            assert process.stdout is not None
            await process.stdout.aclose()


async def read_addresses(process: trio.Process) -> tuple[dict[str, str], str]:
    assert process.stdout is not None
    text = ""
    while (found := re.search(r"one page: (\S+)", text)) is None:
        chunk = await process.stdout.receive_some()
        assert chunk, f"it has ended: {text}"
        text += chunk.decode()
    return dict(re.findall(r"^(.+) is on (\S+?)/$", text, re.MULTILINE)), found[1]


NODE_OR_NOT = [
    pytest.param((), {"Trio 1", "Trio 2", "Node.js"}, id="with Node.js"),
    pytest.param(("--without-node",), {"Trio 1", "Trio 2"}, id="without"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("options", "names"), NODE_OR_NOT)
async def test_what_is_said_to_one_server_arrives_from_all(
    js: Driver, options: tuple[str, ...], names: set[str]
) -> None:
    if "Node.js" in names and not HAS_PACKAGES:
        pytest.skip("run `npm ci --prefix examples/cluster`")
    async with cluster(*options) as running:
        assert set(running.urls) == names
        clients = {name: await js.connect(url) for name, url in running.urls.items()}
        for name, client in clients.items():
            assert await client.emit_with_ack("who") == (dict.fromkeys(names, 1),)
            await client.emit("say", f"hello from {name}")
            for other in clients.values():
                assert await other.wait_for("said") == (f"hello from {name}", name)
        for client in clients.values():
            await client.emit("join", "lobby")
        with trio.fail_after(LIMIT):
            speaker = clients["Trio 1"]
            await speaker.emit("say to", "lobby", "psst")
        for client in clients.values():
            assert await client.wait_for("said") == ("psst", "Trio 1")
            await client.disconnect()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no Redis server for Windows")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl+C", "SIGTERM"])
async def test_it_ends_at_once_and_leaves_nothing_behind(number: signal.Signals) -> None:
    async with cluster() as running:
        running.process.send_signal(number)
        assert await running.process.wait() == 0
        for url in running.urls.values():
            with pytest.raises(OSError, match=r"connect"):
                await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))


async def test_redis_of_the_environment_is_used_and_named_if_it_is_not_there() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "REDIS_URL": "redis://127.0.0.1:1"}
    command = [sys.executable, str(EXAMPLE / "cluster.py"), "--ports", "0", "--without-node"]
    with trio.fail_after(LIMIT):
        result = await trio.run_process(command, capture_stderr=True, capture_stdout=True, check=False, env=environment)
    assert result.returncode != 0
    assert b"cannot use the Redis server at redis://127.0.0.1:1/0" in result.stderr
