"""The page "Property-test your rooms", whose blocks are executed in their order, and what it says of them is true."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

PAGE = (Path(__file__).parent.parent.parent / "docs" / "property-testing.rst").read_text(encoding="utf-8")
BLOCKS = re.findall(r"\.\. code-block:: (\w+)\n\n((?:    .*\n|\n)+)", PAGE)
APP, TWO, LATE, BROKER, CONFORMANCE, MACHINE, FIX, REGRESSION = [
    dedent(block) for kind, block in BLOCKS if kind == "python"
]
[PRINTED] = [dedent(block) for kind, block in BLOCKS if kind == "text"]


def execute(*blocks: str) -> dict[str, Any]:
    scope: dict[str, Any] = {"__name__": "docs"}
    for block in blocks:
        exec(compile(block, "docs/property-testing.rst", "exec"), scope)
    return scope


def run_tests(suite: type[Any]) -> int:
    """Run the tests of a class, as pytest would; how many they were."""
    names = [name for name in dir(suite) if name.startswith("test_")]
    for name in names:
        getattr(suite(), name)()
    return len(names)


async def test_the_application() -> None:
    scope = execute(APP, TWO, LATE)
    assert await scope["test_a_room_spans_servers"](None) is None
    assert await scope["test_a_message_is_late_or_lost"](None) is None


def test_one_example_of_each_rule_does_not_find_the_mistake() -> None:
    assert run_tests(execute(BROKER, CONFORMANCE)["TestBroker"]) >= 11


def printed() -> tuple[str, str]:
    """The error that was printed, and the program."""
    error, _, program = PRINTED.partition("\nFailing test case: <state machine>\n")
    return error.removeprefix("AssertionError: "), program


def test_the_program_that_was_printed_fails_as_the_page_says() -> None:
    scope = execute(BROKER, CONFORMANCE, MACHINE)
    error, program = printed()
    *steps, end = program.strip().splitlines()
    with pytest.raises(AssertionError) as caught:
        exec("\n".join(steps), scope)
    exec(end, scope)
    assert str(caught.value) == error


def test_with_the_correction_it_passes_and_so_do_all_others() -> None:
    scope = execute(BROKER, CONFORMANCE, MACHINE, FIX)
    exec(printed()[1], scope)
    assert run_tests(scope["TestBroker"]) >= 11
    quick = settings(scope["TestBrokerMachine"].settings, max_examples=10, database=None)
    run_state_machine_as_test(scope["BrokerMachine"], settings=quick)


def test_what_was_found_stays_found() -> None:
    with pytest.raises(AssertionError, match=r"c0 got \[\]"):
        run_tests(execute(BROKER, CONFORMANCE, MACHINE, REGRESSION)["TestBroker"])
    assert run_tests(execute(BROKER, CONFORMANCE, MACHINE, FIX, REGRESSION)["TestBroker"]) >= 12


@pytest.mark.thorough
@pytest.mark.timeout(120)
def test_the_machine_finds_the_mistake() -> None:
    scope = execute(BROKER, CONFORMANCE, MACHINE)
    own = settings(
        scope["TestBrokerMachine"].settings,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    with pytest.raises(AssertionError) as caught:
        run_state_machine_as_test(scope["BrokerMachine"], settings=own)
    steps = re.findall(r"^state\.(?!teardown).*$", "\n".join(caught.value.__notes__), re.MULTILINE)
    assert 1 <= len(steps) <= 8, "\n".join(steps)
