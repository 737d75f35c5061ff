"""Where servers meet, for each kind of bus."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ..redis_server import RedisServer, start_server, valkey_server
from .cluster_suite import KINDS, Kind, Place

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["own_server", "place", "valkey_server"]


@pytest.fixture(params=KINDS, ids=[kind.name for kind in KINDS])
def place(request: pytest.FixtureRequest, valkey_server: RedisServer) -> Place:
    """Where the servers of a test meet, once over each bus."""
    kind: Kind = request.param
    return Place(kind, valkey_server.url)


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server that the test may do everything to."""
    with start_server("valkey") as server:
        yield server
