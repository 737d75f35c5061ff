from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from trio_socketio import Server, ServerStatistics

if TYPE_CHECKING:
    from pathlib import Path

    from trio_socketio import Socket
    from trio_socketio.testing.pytest_plugin import OpenClient, OpenCluster

TESTS = """
import pytest
from trio_socketio import Server

async def test_echo(memory_client, autojump_clock):
    io = Server()
    io.handle("echo", lambda socket, text: text)
    client = await memory_client(io, transport="polling")
    assert await client.emit_with_ack("echo", "hi") == "hi"

@pytest.mark.xfail(strict=True)
async def test_a_handler_that_raises(memory_client, autojump_clock):
    def fail():
        raise ValueError
    io = Server()
    client = await memory_client(io)
    client.on("fail", fail)
    await io.emit("fail")
    await client.wait_disconnected()
"""


async def test_clients_stay_until_the_end_of_the_test(memory_client: OpenClient) -> None:
    io = Server()
    first, second = await memory_client(io), await memory_client(io, transport="polling")
    assert first.connected
    assert second.transport == "polling"
    assert io.statistics() != ServerStatistics()


def test_it_works_where_it_is_asked_for_and_only_there(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "pytest.ini", "test_it.py"]
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n")

    def run() -> str:
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=50).stdout

    assert "fixture 'memory_client' not found" in run()
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["trio_socketio.testing.pytest_plugin"]\n')
    assert "1 passed, 1 xfailed" in run()


def join_on_request(io: Server) -> None:
    @io.handle("join")
    async def join(socket: Socket, room: str) -> None:
        await socket.join(room)


async def test_a_cluster_with_its_faults_stays_until_the_end_of_the_test(
    cluster: OpenCluster, memory_client: OpenClient
) -> None:
    servers = await cluster(3, setup=join_on_request)
    clients = [await memory_client(io) for io in servers]
    for client in clients:
        await client.emit_with_ack("join", "r")
    servers.partition([0, 1], [2])
    await servers[0].to("r").emit("news", 1)
    assert [await client.receive_all() for client in clients] == [[("news", 1)], [("news", 1)], []]
    servers.heal()
    await servers[2].to("r").emit("news", 2)
    assert [await client.receive_all() for client in clients] == [[("news", 2)]] * 3
