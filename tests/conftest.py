from __future__ import annotations

import os
from typing import TYPE_CHECKING

import hypothesis
import pytest

from .js_client import NODE_VARIABLE, NodeMissing, find_node, open_driver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .js_client import Driver

# An example that takes long says something about the machine; a run that takes long has pytest's timeout.
hypothesis.settings.register_profile("trio_socketio", deadline=None)
hypothesis.settings.load_profile("trio_socketio")


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


@pytest.fixture
async def js(node: str) -> AsyncIterator[Driver]:
    """A Node process for this test, with the JavaScript client in it."""
    async with open_driver() as driver:
        yield driver
