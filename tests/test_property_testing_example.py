"""The project in `examples/property_testing`, whose tests are run as its README says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "property_testing"


@pytest.mark.slow
def test_its_tests_pass(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:valkey", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"--basetemp={tmp_path / 'tests'}", str(EXAMPLE)],
        cwd=tmp_path,  # where Hypothesis keeps what it finds
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=55,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 15


def test_its_readme_names_files_that_there_are() -> None:
    names = re.findall(r"^\| `(.*?)`", (EXAMPLE / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(names) >= 4
    assert [name for name in names if not (EXAMPLE / name).exists()] == []
