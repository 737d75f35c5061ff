from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_socketio.testing.pytest_plugin import contexts, memory_client

__all__ = ["contexts", "memory_client"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here runs on a virtual clock, without asking for it."""
    for item in items:
        if Path(__file__).parent in item.path.parents and inspect.iscoroutinefunction(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.trio(run=run_on_virtual_clock))


def run_on_virtual_clock(fn: Any, *args: Any, **options: Any) -> Any:
    options["clock"] = MockClock(autojump_threshold=0)
    return trio.run(fn, *args, **options)
