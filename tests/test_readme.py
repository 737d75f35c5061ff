from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_socketio import Server, Socket
from trio_socketio.testing import open_client, open_cluster

if TYPE_CHECKING:
    from collections.abc import Callable

    from .js_client import Driver

README = (Path(__file__).parent.parent / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def first_example() -> tuple[Any, list[tuple[Callable[..., Any], tuple[Any, ...]]]]:
    """The first example's server, and what it would have given to `trio.run`."""
    runs: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
    scope: dict[str, Any] = {}
    code = compile(EXAMPLES[0], "README.md", "exec")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trio, "run", lambda fn, *args: runs.append((fn, args)))
        exec(code, scope)
    return scope["io"], runs


def test_the_first_example_is_fifteen_lines() -> None:
    assert len(EXAMPLES[0].splitlines()) <= 15


def test_the_other_example_is_python() -> None:
    wrapped = "async def example():\n" + "".join(f"    {line}\n" for line in EXAMPLES[1].splitlines())
    assert compile(wrapped, "README.md", "exec").co_names


async def test_the_example_of_the_testing_kit_runs(autojump_clock: trio.testing.MockClock) -> None:
    def add_handlers(io: Server) -> None:
        @io.handle("chat")
        async def chat(socket: Socket, text: str) -> str:
            await io.emit("chat", socket.id, text)
            return "delivered"

    scope: dict[str, Any] = {"add_handlers": add_handlers, "open_client": open_client, "open_cluster": open_cluster}
    body = "".join(f"    {line}\n" for line in EXAMPLES[2].splitlines())
    exec(compile(f"async def example():\n{body}", "README.md", "exec"), scope)
    await scope["example"]()
    assert "assert await b.receive()" in body


async def test_the_first_example_serves_the_javascript_client(js: Driver) -> None:
    io, runs = first_example()
    [(serve, args)] = runs
    assert (serve, args) == (io.serve_tcp, (3000,))
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            lambda *, task_status: io.serve_tcp(0, host="127.0.0.1", task_status=task_status)
        )
        port = listeners[0].socket.getsockname()[1]
        assert listeners[0].socket.family == socket.AF_INET
        client = await js.connect(f"http://127.0.0.1:{port}")
        assert await client.emit_with_ack("chat", "hello") == ("delivered",)
        assert (await client.wait_for("chat"))[1] == "hello"
        await client.disconnect()
        nursery.cancel_scope.cancel()
