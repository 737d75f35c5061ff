"""The table of a session's life: every phase with every change."""

from __future__ import annotations

from itertools import product

import pytest

from trio_socketio import LocalProtocolError
from trio_socketio._wire.phases import TRANSITIONS, Change, Phase, next_phase

#: The table once more, as a reader of the protocol would write it: rows of phases, columns of changes.
COLUMNS = (Change.PROBE, Change.PROBE_FAILED, Change.UPGRADE, Change.CLOSE, Change.END)
TABLE = {
    "POLLING": ("PROBING", None, None, "CLOSING_POLLING", "CLOSED"),
    "PROBING": (None, "POLLING", "WEBSOCKET", "CLOSING_PROBING", "CLOSED"),
    "WEBSOCKET": (None, None, None, "CLOSING_WEBSOCKET", "CLOSED"),
    "CLOSING_POLLING": (None, None, None, None, "CLOSED"),
    "CLOSING_PROBING": (None, "CLOSING_POLLING", "CLOSING_WEBSOCKET", None, "CLOSED"),
    "CLOSING_WEBSOCKET": (None, None, None, None, "CLOSED"),
    "CLOSED": (None, None, None, None, None),
}


@pytest.mark.parametrize(("phase", "change"), list(product(Phase, Change)))
def test_every_phase_and_change_is_as_the_protocol_says(phase: Phase, change: Change) -> None:
    expected = TABLE[phase.name][COLUMNS.index(change)]
    if expected is None:
        with pytest.raises(LocalProtocolError, match=f"impossible while {phase.name}"):
            next_phase(phase, change)
    else:
        assert next_phase(phase, change) is Phase[expected]


def test_table_is_complete_and_has_no_more() -> None:
    assert {phase.name for phase in Phase} == set(TABLE)
    assert set(COLUMNS) == set(Change)
    assert len(TRANSITIONS) == sum(cell is not None for row in TABLE.values() for cell in row)


@pytest.mark.parametrize("phase", Phase)
def test_no_phase_but_the_last_is_a_dead_end(phase: Phase) -> None:
    assert (phase is Phase.CLOSED) == all((phase, change) not in TRANSITIONS for change in Change)


def test_nothing_reopens() -> None:
    for (phase, _), after in TRANSITIONS.items():
        assert phase.open or not after.open


def test_nothing_goes_back_from_websocket_to_polling() -> None:
    for (phase, _), after in TRANSITIONS.items():
        assert not (phase.transport == "websocket" and after.transport == "polling")


@pytest.mark.parametrize("phase", Phase)
def test_transport_and_openness_follow_from_the_name(phase: Phase) -> None:
    closing = phase.name.startswith("CLOS")
    assert phase.open is not closing
    expected = None if phase is Phase.CLOSED else "websocket" if "WEBSOCKET" in phase.name else "polling"
    assert phase.transport == expected
