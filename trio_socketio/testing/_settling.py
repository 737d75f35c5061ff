"""When everything has arrived: the question that every test of several servers has to answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio.testing

from .. import AckTimeout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .. import Server

#: A room in which nobody is.
NOWHERE = "nobody is in this room"
#: Seconds, of virtual time as a rule, that servers which get no messages may delay a test.
PATIENCE = 1.0


async def settle_by_joins(servers: Sequence[Server[Any]]) -> None:
    """Wait until everything that was sent between servers has arrived, and what follows from it is done.

    Each server sends a message that the others confirm. As messages of one server arrive in their order, what it has
    sent before has arrived then.
    """
    if len(servers) > 1:
        for io in servers:
            try:
                await io.to(NOWHERE).timeout(PATIENCE).sockets_join(NOWHERE, wait=True)
            except AckTimeout:
                continue  # cut off from some of the others
    await trio.testing.wait_all_tasks_blocked()
