"""Catch-all listeners: told of every event of a socket, in either direction, whatever its name.

They come before everything else that is called for an event. Those for incoming events are calls like a handler's, in
the socket's queue, so an async one *starts* before the event's middlewares and handlers. Those for outgoing events are
plain functions, because they are called in the middle of an emit; what they raise is reported, and the emit goes on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .._listeners import Listener, inspect_listener

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .events import EventQueue

F = TypeVar("F", bound="Callable[..., Any]")


def _inspect(fn: Callable[..., Any], *, plain_only: bool = False) -> Listener:
    listener = inspect_listener(fn, what="catch-all listener of an event without arguments", given=1)
    if plain_only and listener.is_async:
        raise TypeError(f"{listener.name} must be a plain function: it is called in the middle of an emit")
    return listener


def _without(listeners: tuple[Listener, ...], fn: Callable[..., Any] | None) -> tuple[Listener, ...]:
    """What is left without the first registration of a function, or (None) without any."""
    if fn is None:
        return ()
    index = next((index for index, listener in enumerate(listeners) if listener.fn == fn), len(listeners))
    return listeners[:index] + listeners[index + 1 :]


class CatchAllListening(ABC):
    """The catch-all listeners of a `Socket`."""

    _events: EventQueue
    _outgoing: tuple[Listener, ...] = ()

    # Incoming

    @overload
    def on_any(self, fn: None = None) -> Callable[[F], F]: ...
    @overload
    def on_any(self, fn: F) -> F: ...
    def on_any(self, fn: F | None = None) -> Any:
        """Listen to every event of this client, before its middlewares and handlers; as a decorator, or with `fn`.

        Its result means nothing; what it raises is treated like an error of a handler, and the event goes on. Events
        that wait while ``connection`` handlers run are told to a listener that these register.

        Args:
            fn: Called with the event's name and its arguments, or as many of them as it takes. Async, or plain. Async
                ones run like handlers: each starts before what comes after it, and counts for `max_concurrent_events`;
                with 1, the event's handlers wait until it is over.

        Raises:
            TypeError: The function cannot be called with a name alone, which is all that some events have.
        """
        if fn is None:
            return self.on_any
        self._change_incoming((*self._events.catch_alls, _inspect(fn)))
        return fn

    @overload
    def prepend_any(self, fn: None = None) -> Callable[[F], F]: ...
    @overload
    def prepend_any(self, fn: F) -> F: ...
    def prepend_any(self, fn: F | None = None) -> Any:
        """Like `on_any`, before those that are registered already."""
        if fn is None:
            return self.prepend_any
        self._change_incoming((_inspect(fn), *self._events.catch_alls))
        return fn

    def off_any(self, fn: Callable[..., Any] | None = None) -> None:
        """Remove the first registration of a function, or every catch-all listener for incoming events."""
        self._change_incoming(_without(self._events.catch_alls, fn))

    def listeners_any(self) -> tuple[Callable[..., Any], ...]:
        """The catch-all listeners for incoming events, in the order in which they are called."""
        return tuple(listener.fn for listener in self._events.catch_alls)

    def _change_incoming(self, listeners: tuple[Listener, ...]) -> None:
        self._events.catch_alls = listeners
        self._events.advance()

    # Outgoing

    @overload
    def on_any_outgoing(self, fn: None = None) -> Callable[[F], F]: ...
    @overload
    def on_any_outgoing(self, fn: F) -> F: ...
    def on_any_outgoing(self, fn: F | None = None) -> Any:
        """Listen to every event that is sent to this client, by itself or in a broadcast; as a decorator, or with `fn`.

        It is told just before the event is queued, and of volatile events that are then dropped as well; not of
        acknowledgements. What it raises is treated like an error of a handler; the emit does not see it.

        Args:
            fn: A plain function, called with the event's name and its arguments, or as many of them as it takes: the
                very objects that were emitted. It must not change them, and should be quick: a broadcast calls it for
                every recipient that listens.

        Raises:
            TypeError: The function is async, or cannot be called with a name alone.
        """
        if fn is None:
            return self.on_any_outgoing
        self._change_outgoing((*self._outgoing, _inspect(fn, plain_only=True)))
        return fn

    @overload
    def prepend_any_outgoing(self, fn: None = None) -> Callable[[F], F]: ...
    @overload
    def prepend_any_outgoing(self, fn: F) -> F: ...
    def prepend_any_outgoing(self, fn: F | None = None) -> Any:
        """Like `on_any_outgoing`, before those that are registered already."""
        if fn is None:
            return self.prepend_any_outgoing
        self._change_outgoing((_inspect(fn, plain_only=True), *self._outgoing))
        return fn

    def off_any_outgoing(self, fn: Callable[..., Any] | None = None) -> None:
        """Remove the first registration of a function, or every catch-all listener for outgoing events."""
        self._change_outgoing(_without(self._outgoing, fn))

    def listeners_any_outgoing(self) -> tuple[Callable[..., Any], ...]:
        """The catch-all listeners for outgoing events, in the order in which they are called."""
        return tuple(listener.fn for listener in self._outgoing)

    def _change_outgoing(self, listeners: tuple[Listener, ...]) -> None:
        self._outgoing = listeners
        self.on_tapped()

    def tell_outgoing(self, event: str | int, args: Sequence[Any]) -> None:
        """An event is about to be sent."""
        for listener in self._outgoing:
            try:
                listener.call_sync(event, *args)
            except Exception as error:
                self.on_outgoing_error(error, event)

    @abstractmethod
    def on_tapped(self) -> None:
        """The listeners for outgoing events have changed."""

    @abstractmethod
    def on_outgoing_error(self, error: Exception, event: str | int) -> None:
        """A listener for outgoing events has failed."""
