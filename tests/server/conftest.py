from __future__ import annotations

import pytest
from trio.testing import MockClock


@pytest.fixture(autouse=True)
def clock() -> MockClock:
    """Everything here runs on a virtual clock."""
    return MockClock(autojump_threshold=0)
