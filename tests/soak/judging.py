"""What has grown: a server after a wave of clients next to itself after an earlier one, with nobody there."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

MIB = 1 << 20
#: What a server may have more of at the end than after its warm-up, whatever has happened in between. Tasks and files
#: are exact. Objects differ by what some caches hold; of memory the allocator gives back whole arenas only.
OBJECTS_ALLOWED = 500
RSS_ALLOWED = 8 * MIB


class Measurement(NamedTuple):
    """A server without clients.

    Attributes:
        statistics: Those of ``io.statistics()`` that are not zero.
        tasks: Trio's.
        files: Open file descriptors.
        objects: What the garbage collector knows.
        rss: Bytes of resident memory.
        errors: How many errors it has logged so far.
        kinds: Of which types the objects are.
    """

    statistics: dict[str, int]
    tasks: int
    files: int
    objects: int
    rss: int
    errors: int
    kinds: dict[str, int]


class Growth(NamedTuple):
    """One figure that has grown by more than it may have."""

    figure: str
    before: int
    after: int
    allowed: int


def judge(measurements: Sequence[Measurement], warm_up: int) -> list[Growth]:
    """What has grown.

    Args:
        measurements: After each wave, the first one's first.
        warm_up: How many of them to leave out: caches fill, modules are loaded, the allocator finds its size.
    """
    before, after = measurements[warm_up], measurements[-1]
    found = [Growth(f"statistics: {name}", 0, value, 0) for name, value in after.statistics.items()]
    # The least of the last two: objects that are about to go, with a task that is about to end, are no growth.
    objects, rss = (min(m.objects for m in measurements[-2:]), min(m.rss for m in measurements[-2:]))
    found += [
        Growth("errors in its log", 0, after.errors, 0),
        Growth("tasks", before.tasks, after.tasks, 0),
        Growth("files", before.files, after.files, 0),
        Growth("objects", before.objects, objects, OBJECTS_ALLOWED),
        Growth("resident bytes", before.rss, rss, RSS_ALLOWED),
    ]
    return [growth for growth in found if growth.after - growth.before > growth.allowed]


def kinds_that_grew(before: Measurement, after: Measurement, count: int = 8) -> dict[str, int]:
    """The types of which there are more, the most numerous first."""
    more: Counter[str] = Counter(after.kinds)
    more.subtract(before.kinds)
    return {kind: number for kind, number in more.most_common(count) if number > 0}


def as_table(growths: Sequence[Growth]) -> str:
    """For whoever has to find out why."""
    rows: list[tuple[Any, ...]] = [("figure", "after warm-up", "now", "more", "allowed")]
    rows += [(name, before, after, after - before, allowed) for name, before, after, allowed in growths]
    return "\n".join("{:<32}{:>16}{:>16}{:>12}{:>12}".format(*row) for row in rows)
