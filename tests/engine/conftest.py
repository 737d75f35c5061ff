from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from .stage import run_on_virtual_clock


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run every async test of this folder on the virtual clock; its own marker goes before that of pytest-trio."""
    for item in items:
        if Path(__file__).parent in item.path.parents and inspect.iscoroutinefunction(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.trio(run=run_on_virtual_clock), append=False)
