"""The table "Node to trio_socketio" of the documentation names nothing that does not exist."""

from __future__ import annotations

import csv
import dataclasses
import importlib
from pathlib import Path
from typing import Any

import pytest

TABLE = Path(__file__).parent.parent / "docs" / "node.csv"
with TABLE.open(encoding="utf-8", newline="") as lines:
    ROWS = list(csv.DictReader(lines))
NAMES = sorted({name.strip(" `") for row in ROWS for name in row["here"].split(";")} - {"-"})


def resolve(name: str) -> Any:
    """What a dotted name stands for: a module's, and from there by attribute, or the field of a dataclass."""
    parts = name.split(".")
    size = 2 if parts[1] in ("abc", "asgi", "engineio", "redis") else 1
    found: Any = importlib.import_module(".".join(parts[:size]))
    for part in parts[size:]:
        fields = {field.name for field in dataclasses.fields(found)} if dataclasses.is_dataclass(found) else set()
        found = part if part in fields else getattr(found, part)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_the_table_exists(name: str) -> None:
    assert resolve(name) is not None


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["Node.js"])
def test_what_has_no_counterpart_has_a_reason(row: dict[str, str]) -> None:
    assert row["here"] != "-" or row["remarks"]


def test_a_name_that_does_not_exist_is_found() -> None:
    with pytest.raises(AttributeError):
        resolve("trio_socketio.Server.sockets_jion")
