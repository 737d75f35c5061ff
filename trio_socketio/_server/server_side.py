"""What other servers of the cluster emit to a namespace: events for the server itself, not for clients.

Handlers start in the order in which the events came, a bounded number of them at a time; the events that wait are
bounded as well, and one that comes on top of that is dropped, with a line in the log. Whoever has sent it learns of
that by its timeout, as it would if this server had gone.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from .._wire.packets import RESERVED_SERVER_EVENTS
from .events import EventQueue
from .queued import NO_BACKLOG, Event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .._listeners import Listener
    from .namespace import Namespace

logger = logging.getLogger("trio_socketio.server")


class ServerSideAck:
    """The answer to another server: given once, or never.

    Args:
        answer: Sends it.
    """

    __slots__ = ("_answer", "_handlers")

    def __init__(self, answer: Callable[[Any], None]) -> None:
        self._answer: Callable[[Any], None] | None = answer
        self._handlers = 1

    def expect(self, handlers: int) -> None:
        """So many handlers are called for the event."""
        self._handlers = handlers

    def answer(self, value: Any) -> None:
        """Send a handler's result, if it is the first that is not None, or that of the last handler."""
        self._handlers -= 1
        if self._answer is None or (value is None and self._handlers):
            return
        send, self._answer = self._answer, None
        send(value)


class ServerSideEvents:
    """The events of other servers that wait for their handlers, and what handles them; an `EventHost`.

    Args:
        namespace: Whose listeners are called.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        config = namespace.server.config
        self._limit = config.max_queued_events
        # Nobody is slowed down: the sender is another process, and the bus must not wait.
        self._queue = EventQueue(self, NO_BACKLOG, config.max_concurrent_events)

    def put(self, args: Sequence[Any], answer: Callable[[Any], None] | None) -> None:
        """Another server has emitted this."""
        event, *rest = args
        if not isinstance(event, str) or event in RESERVED_SERVER_EVENTS:
            logger.warning("another server has emitted %.80r to %r, which no server may", event, self._namespace)
        elif len(self._queue) >= self._limit:
            logger.warning("%r of another server was dropped: %d events wait already", event, self._limit)
        else:
            self._queue.put(Event(event, rest, None if answer is None else ServerSideAck(answer)))

    def close(self) -> None:
        """Drop what waits, and cancel the handlers."""
        self._queue.cancel()

    # What the queue asks of its host

    @property
    def alive(self) -> bool:
        return self._namespace.is_open

    def take_listeners(self, name: str | int) -> Sequence[Listener]:
        return self._namespace.take_listeners(str(name))

    def spawn(self, fn: Callable[..., Awaitable[Any]], *args: Any) -> None:
        self._namespace.server.spawn(fn, *args)

    def on_error(self, error: Exception, event: Event) -> None:
        self._namespace.server.on_server_side_error(error, self._namespace, event.name)

    def flush(self) -> None:
        """There is no client to write to."""

    def note(self, queue: EventQueue) -> None:
        self._namespace.server.engine.note(queue)
