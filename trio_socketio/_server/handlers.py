"""Handlers registered once, for all sockets of a namespace; one by one, or as the methods of an object.

Nothing of them is copied into a socket: an event finds them in its namespace, by its name. So what a client can reach
is what was registered under the name that it sends, and never an attribute of an object.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar

from .._errors import ReservedEventError
from .._listeners import Listener, Listeners, inspect_listener
from .._wire.packets import check_event_name
from .validation import argument_decoder

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

F = TypeVar("F", bound="Callable[..., Any]")

#: What the end of a socket gives to its listeners: reason and description.
ENDINGS = {"disconnect": 2, "disconnecting": 2}

_PREFIX = "on_"
_MARK = "_trio_socketio_events"


def with_decoder(listener: Listener, name: Hashable) -> Listener:
    """A listener of a socket's, which decodes what the client sends."""
    return listener if name in ENDINGS else listener._replace(decode=argument_decoder(listener))


def for_all_sockets(listener: Listener, name: Hashable) -> Listener:
    """A listener of a namespace's, whose first argument is the socket."""
    if listener.most == 0:
        raise TypeError(f'handler of "{name}" is called with the socket first, but {listener.name} takes no arguments')
    return with_decoder(
        listener._replace(bound=True, least=max(listener.least - 1, 0), most=listener.most - 1),
        name,
    )


def new_handlers() -> Listeners:
    """The registry of a namespace's handlers."""
    return Listeners({name: 1 + count for name, count in ENDINGS.items()}, refine=for_all_sockets)


def check_handled_name(name: str | int) -> None:
    """Check the name of an event that is to be handled.

    Raises:
        ReservedEventError: Clients cannot send it. The end of a socket can be handled, its beginning is `Namespace.on`.
        TypeError: It is neither a str nor an int.
    """
    if name == "connection":
        raise ReservedEventError(name)
    if name not in ENDINGS:
        check_event_name(name)


def event(name: str | int) -> Callable[[F], F]:
    """Name the event that a method handles, where ``on_<event>`` cannot: a decorator for `Namespace.add_handlers`.

    It may be used several times on one method, which then handles several events; the method's own name means nothing
    then. A method that overrides this one handles the same events.

    Args:
        name: The event's, whatever a client may send.

    Raises:
        ReservedEventError: A name that clients cannot send.
    """
    check_handled_name(name)

    def mark(method: F) -> F:
        setattr(method, _MARK, (name, *getattr(method, _MARK, ())))
        return method

    return mark


def find_handlers(target: object) -> list[tuple[str | int, Callable[..., Any]]]:
    """The handlers among an object's methods, with the names of their events, each of them checked.

    Raises:
        TypeError: It is a class, it has no handlers, or one of them cannot be called as one.
        ReservedEventError: A name that clients cannot send.
    """
    if isinstance(target, type):
        raise TypeError(f"handlers are the methods of an object: add_handlers({target.__name__}(...))")
    found = [(name, getattr(target, method)) for method in dir(type(target)) for name in _events_of(target, method)]
    if not found:
        raise TypeError(f"{target!r} has no handlers: no methods on_<event>, and none with @event(...)")
    for name, fn in found:
        what = f'handler of "{name}"'
        if name == "connect":
            inspect_listener(fn, what=what, given=1)
        else:
            check_handled_name(name)
            for_all_sockets(inspect_listener(fn, what=what, given=3 if name in ENDINGS else None), name)
    return found


def _events_of(target: object, attribute: str) -> Iterator[str | int]:
    # The classes are asked, so that nothing of the object's runs, and an overriding method is found with its mark.
    definitions = [vars(base)[attribute] for base in type(target).__mro__ if attribute in vars(base)]
    marks = next((marks for definition in definitions if (marks := getattr(definition, _MARK, ()))), ())
    if not marks and (not attribute.startswith(_PREFIX) or attribute == _PREFIX):
        return
    if not inspect.isroutine(definitions[0]):
        raise TypeError(f"{type(target).__name__}.{attribute} is not a method, and cannot handle events")
    yield from marks or (attribute.removeprefix(_PREFIX),)
