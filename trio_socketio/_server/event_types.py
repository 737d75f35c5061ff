"""Events with types: what Python can do for the event maps of TypeScript.

An `EventType` is a name that knows, for type checkers only, what is sent under it and what is answered. Wherever a name
is taken, one of these is taken too, and then the arguments and the handler are checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, TypeVarTuple

from .._wire.packets import check_event_name

AnswerT = TypeVar("AnswerT")
ArgsT = TypeVarTuple("ArgsT")

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    from .socket import Socket

    #: What a registration gives back: it takes a handler of these arguments, sync or async.
    Decorator: TypeAlias = Callable[[Callable[[*ArgsT], AnswerT | Awaitable[AnswerT]]], Callable[[*ArgsT], Any]]
    HandlerDecorator: TypeAlias = Callable[
        [Callable[[Socket[Any], *ArgsT], AnswerT | Awaitable[AnswerT]]], Callable[[Socket[Any], *ArgsT], Any]
    ]


class EventType(Generic[AnswerT, *ArgsT]):
    """The name of an event, with the type of its acknowledgement and those of its arguments::

        move = EventType[bool, int, int]("move")

        @socket.on(move)
        async def moved(x: int, y: int) -> bool: ...

        accepted = await socket.emit_with_ack(move, 3, 4)  # a bool

    Nothing is checked at run time: for what comes from clients, annotate with msgspec or pydantic models.

    Args:
        name: The event's name.

    Raises:
        ReservedEventError: The name is the protocol's own.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        check_event_name(name)
        self.name: str = name

    def __repr__(self) -> str:
        return f"EventType({self.name!r})"


def event_name(event: Any) -> Any:
    """The name itself."""
    return event.name if type(event) is EventType else event
