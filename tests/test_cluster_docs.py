"""The examples of docs/cluster.rst, executed one after the other, against a real Redis server."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import trio

from trio_socketio import AckTimeout, Server

from .redis_server import RedisServer, valkey_server

__all__ = ["valkey_server"]

PAGE = (Path(__file__).parent.parent / "docs" / "cluster.rst").read_text("utf-8")
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"\.\. code-block:: python\n\n((?:    .*\n|\n)+)", PAGE)]
ADDRESS = "redis://localhost:6379"


async def execute(block: str, scope: dict[str, Any]) -> None:
    """Execute a block, in which there may be an ``await``."""
    code = compile(block, "docs/cluster.rst", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, scope)
    if inspect.isawaitable(result):
        await result


async def test_the_examples_of_the_page_work_in_their_order(valkey_server: RedisServer) -> None:
    assert len(BLOCKS) >= 8
    scope: dict[str, Any] = {"AckTimeout": AckTimeout}
    first, *others = [block.replace(ADDRESS, valkey_server.url) for block in BLOCKS]
    await execute(first, scope)
    io = scope["io"]
    assert isinstance(io, Server)
    with trio.fail_after(20):
        async with io.running():
            for block in others:
                await execute(block, scope)
            scope["emitter"].close()
    assert scope["others"] == []
    assert scope["sockets"] == []
    assert "127.0.0.1" in repr(scope["adapter"])
