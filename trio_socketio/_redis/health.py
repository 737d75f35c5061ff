"""How a client is: one enum, one table, for each of its connections; and the figures.

A client has as many kept connections as it needs (that of the subscriptions is opened by the first of them), and is as
well as the worst of them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Health(enum.Enum):
    """What a client, or one of its connections, is up to."""

    CLOSED = "closed"  # it does not run
    READY = "ready"  # connected, and every subscription confirmed
    CONNECTING = "connecting"  # for the first time
    LOST = "lost"  # it was, or could not be, connected; another attempt follows


class Change(enum.Enum):
    """What happens to a connection."""

    START = "start"
    UP = "up"
    DOWN = "down"
    STOP = "stop"


TRANSITIONS = {
    (Health.CLOSED, Change.START): Health.CONNECTING,
    (Health.CONNECTING, Change.UP): Health.READY,
    (Health.CONNECTING, Change.DOWN): Health.LOST,
    (Health.READY, Change.DOWN): Health.LOST,
    (Health.LOST, Change.UP): Health.READY,
    (Health.LOST, Change.DOWN): Health.LOST,
    (Health.CLOSED, Change.STOP): Health.CLOSED,
    (Health.CONNECTING, Change.STOP): Health.CLOSED,
    (Health.READY, Change.STOP): Health.CLOSED,
    (Health.LOST, Change.STOP): Health.CLOSED,
}

FROM_BEST_TO_WORST = tuple(Health)


def worst(healths: Iterable[Health]) -> Health:
    """That of the connection that is worst off; those that are closed count only if all are."""
    return max(healths, key=FROM_BEST_TO_WORST.index)


@dataclass(frozen=True, slots=True)
class RedisStatistics:
    """The figures of a client; those that count go on when it is started again.

    Args:
        health: How it is.
        connections: How many are open, without those of `Redis.blocking`.
        losses: How often one was lost.
        commands: How many were submitted.
        awaiting: Commands without an answer yet.
        buffered: Bytes of commands that the server has not taken yet.
        subscriptions: Channels, patterns and shard channels with a handler.
        messages: How many messages came in.
        error_replies: Errors that answered commands for which nobody waits.
        handler_errors: Exceptions that handlers and callbacks raised.
    """

    health: Health
    connections: int
    losses: int
    commands: int
    awaiting: int
    buffered: int
    subscriptions: int
    messages: int
    error_replies: int
    handler_errors: int
