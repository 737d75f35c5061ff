"""Which sockets are meant, as an adapter says it and as the wire does."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from .._wire.cluster import Target
from .contract import BroadcastOptions


def to_target(options: BroadcastOptions) -> Target:
    """Options, in the words of the wire."""
    flags: dict[str, Any] = {}
    if options.volatile:
        flags["volatile"] = True
    if not options.compress:
        flags["compress"] = False
    if options.timeout is not None and options.timeout < math.inf:
        flags["timeout"] = round(options.timeout * 1000)
    return Target(tuple(options.rooms), tuple(options.except_rooms), flags)


def read_target(target: Target | None) -> BroadcastOptions:
    """The options that another server has meant; what they do not know is no matter."""
    if target is None:
        return BroadcastOptions()
    flags = target.flags
    timeout = flags.get("timeout")
    return BroadcastOptions(
        rooms=frozenset(target.rooms),
        except_rooms=frozenset(target.except_rooms),
        volatile=flags.get("volatile") is True,
        compress=flags.get("compress") is not False,
        timeout=timeout / 1000 if isinstance(timeout, int | float) and timeout > 0 else None,
    )


def one_or_more(rooms: str | Iterable[str]) -> tuple[str, ...]:
    """A room, or several, as a tuple.

    Raises:
        TypeError: A room that is not a string.
    """
    if not isinstance(rooms, Iterable):
        raise TypeError(f"a room is a string, not {rooms!r}")
    chosen = (rooms,) if isinstance(rooms, str) else tuple(rooms)
    for room in chosen:
        if not isinstance(room, str):
            raise TypeError(f"a room is a string, not {room!r}")
    return chosen
