from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import trio

from trio_socketio import Server

from .serving import MODES, Serve, Served, own_listener, under_hypercorn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from .serving import FrontEnd

#: Seconds for a whole test, whatever it waits for.
LIMIT = 50.0


@pytest.fixture(autouse=True)
async def limit(nursery: trio.Nursery) -> None:
    """End a test that hangs where no wait of its own ends."""

    async def expire() -> None:
        await trio.sleep(LIMIT)
        raise TimeoutError(f"the test has not ended within {LIMIT:g} seconds")

    nursery.start_soon(expire)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever clients do, it is no reason for a warning."""
    yield
    assert [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.WARNING] == []


@pytest.fixture(params=["listener", "hypercorn"])
def front_end(request: pytest.FixtureRequest) -> FrontEnd:
    """What brings the bytes."""
    return own_listener if request.param == "listener" else under_hypercorn


@pytest.fixture(params=list(MODES))
def mode(request: pytest.FixtureRequest) -> str:
    """How the JavaScript client gets to its transport."""
    return str(request.param)


@pytest.fixture
async def serve(front_end: FrontEnd) -> AsyncIterator[Serve]:
    """Serves what it is called with, until the test ends."""
    async with trio.open_nursery() as nursery:
        serve = Serve(nursery, front_end)
        yield serve
        await serve.stop_all()


@pytest.fixture
async def served(serve: Serve) -> Served:
    """A server with nothing but defaults."""
    return await serve(Server())
