"""The examples of the page on testing, which are run."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import trio
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from trio_socketio import Server, Socket
from trio_socketio.testing import open_client

if TYPE_CHECKING:
    from trio_socketio.testing.pytest_plugin import OpenClient, OpenCluster

PAGE = (Path(__file__).parent.parent.parent / "docs" / "testing.rst").read_text(encoding="utf-8")
BLOCKS = re.findall(r"\.\. code-block:: python\n\n((?:    .*\n|\n)+)", PAGE)
CLIENT, TRICKS, FIXTURES, STEPPER, MACHINE, WIRE_MACHINE = [dedent(block) for block in BLOCKS]


def make_server() -> Server:
    io = Server()
    io.of("/admin")

    @io.handle("join")
    async def join(socket: Socket, room: str) -> str:
        await socket.join(room)
        return "welcome"

    io.handle("echo", lambda socket, value: value)
    return io


def make_counter() -> Server:
    io = Server()
    total = 0

    @io.handle("add")
    def add(socket: Socket, number: int) -> None:
        nonlocal total
        total += number

    io.handle("total", lambda socket: total)
    return io


def execute(code: str, **names: Any) -> dict[str, Any]:
    scope: dict[str, Any] = {"trio": trio, "open_client": open_client, "__name__": "docs", **names}
    exec(compile(code, "docs/testing.rst", "exec"), scope)
    return scope


async def test_the_client() -> None:
    test_chat = execute(CLIENT, make_server=make_server)["test_chat"]
    assert await test_chat(None) is None


async def test_what_a_client_can_do() -> None:
    body = "".join(f"    {line}\n" for line in TRICKS.splitlines())
    example = execute(f"async def example(client):\n{body}    return admin\n")["example"]
    async with open_client(make_server()) as client:
        admin = await example(client)
        assert admin.connected


async def test_the_fixtures(cluster: OpenCluster, memory_client: OpenClient) -> None:
    test_across_servers = execute(FIXTURES, register=lambda io: io.of("/admin"))["test_across_servers"]
    assert await test_across_servers(cluster, memory_client, None) is None


def test_the_stepper() -> None:
    assert execute(STEPPER, io=make_server())["stepper"].is_over


def test_the_machine() -> None:
    machine = execute(MACHINE, make_counter=make_counter)["Counting"]
    quick = settings(max_examples=10, stateful_step_count=10, deadline=None, database=None)
    run_state_machine_as_test(machine, settings=quick)
    assert machine.__name__ == "Counting"
