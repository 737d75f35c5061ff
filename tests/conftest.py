from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import hypothesis
import pytest

from .js_client import NODE_VARIABLE, NodeMissing, find_node, start_node, talk_to
from .redis_server import FLAVOURS, installed_flavours

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator, Callable, Iterator

    from .js_client import Driver

# An example that takes long says something about the machine; a run that takes long has pytest's timeout.
hypothesis.settings.register_profile("trio_socketio", deadline=None)
hypothesis.settings.load_profile("trio_socketio")


def pytest_report_header() -> str:
    return f"Redis: {', '.join(installed_flavours()) or 'none'} (of {' and '.join(FLAVOURS)})"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "node" in getattr(item, "fixturenames", ()):
            item.add_marker("js")


@pytest.fixture(scope="session")
def node() -> str:
    """The path of Node.js; without it, or without the client from npm, the test is skipped.

    Where the environment names a Node.js, there has to be one: then its absence is an error.
    """
    try:
        return find_node()
    except NodeMissing as reason:
        if NODE_VARIABLE in os.environ:
            raise
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def driver_process(node: str) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Returns a Node process with the driver: the same each time, until it has ended."""
    process: subprocess.Popen[bytes] | None = None
    with ExitStack() as stack:

        def running() -> subprocess.Popen[bytes]:
            nonlocal process
            if process is None or process.poll() is not None:
                process = stack.enter_context(start_node("driver.mjs"))
            return process

        yield running


@pytest.fixture
async def js(driver_process: Callable[[], subprocess.Popen[bytes]]) -> AsyncIterator[Driver]:
    """The JavaScript client, in Node; without clients at the beginning of a test."""
    async with talk_to(driver_process()) as driver:
        yield driver
