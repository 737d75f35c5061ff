"""Damage: what is valid, with pieces cut out, repeated, replaced and put in. Most bugs are one step away from sense."""

from __future__ import annotations

from typing import AnyStr, Generic, NamedTuple

from hypothesis import strategies as st

MAX_POSITION = 10_000


class Edit(NamedTuple, Generic[AnyStr]):
    """One change: at a position (modulo the length) so much is removed, and something put in instead.

    Attributes:
        position: Where.
        size: How much is meant.
        piece: What to put there; None for what is there, once more.
    """

    position: int
    size: int
    piece: AnyStr | None


def damaged(whole: st.SearchStrategy[AnyStr], pieces: st.SearchStrategy[AnyStr]) -> st.SearchStrategy[AnyStr]:
    """Texts or bytes with up to four changes.

    Args:
        whole: What they were.
        pieces: What is put in.
    """
    positions = st.integers(0, MAX_POSITION) | st.integers(0, 8)
    sizes = st.integers(0, 3) | st.integers(0, 100)
    edits = st.lists(st.builds(Edit, positions, sizes, st.none() | pieces), max_size=4)
    return st.builds(apply, whole, edits)


def apply(data: AnyStr, edits: list[Edit[AnyStr]]) -> AnyStr:
    for position, size, piece in edits:
        at = position % (len(data) + 1)
        meant = data[at : at + size]
        data = data[:at] + (meant + meant if piece is None else piece) + data[at + size :]
    return data
