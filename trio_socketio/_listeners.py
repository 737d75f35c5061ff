"""Named listeners: what engines, namespaces, sockets and adapters have in common.

A listener is inspected once, when it is registered: whether it is async, and how many arguments it takes. Nothing is
ever called to find that out, so a ``TypeError`` inside a listener is the listener's own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar, overload

import trio

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Sequence

F = TypeVar("F", bound=Callable[..., Any])
UNLIMITED = 1 << 30


class Listener(NamedTuple):
    """A function that was registered, with what its signature says.

    Attributes:
        bound: It is registered for many objects at once: called with the one that it is about, then the arguments.
        decode: Makes of the arguments what its annotations say.
    """

    fn: Callable[..., Any]
    is_async: bool
    least: int
    most: int
    once: bool = False
    bound: bool = False
    decode: Callable[[Sequence[Any]], Sequence[Any]] | None = None

    @property
    def name(self) -> str:
        return getattr(self.fn, "__qualname__", None) or repr(self.fn)

    def select(self, owner: object, args: Sequence[Any]) -> Sequence[Any]:
        """What it is called with: as many of the arguments as it takes."""
        return (owner, *args[: self.most]) if self.bound else args[: self.most]

    def call_sync(self, *args: Any) -> Any:
        """Call a plain function, with as many of the arguments as it takes."""
        return refuse_coroutine(self.fn(*args[: self.most]), self)


def refuse_coroutine(result: Any, listener: Listener) -> Any:
    """Pass a plain function's result on; a forgotten ``await`` inside is an error, not a silent loss."""
    if inspect.iscoroutine(result):
        result.close()
        raise TypeError(f"{listener.name} is a plain function that returned a coroutine: register the async one itself")
    return result


def raise_cancellations(group: BaseExceptionGroup[Any], report: Callable[[Exception], None]) -> NoReturn:
    """Report what is an error in a group, and let the rest of it pass.

    Whoever is cancelled inside a nursery of its own, and fails while cleaning up, raises a group of both; ``except
    Exception`` does not match it.
    """
    cancelled, failed = group.split(trio.Cancelled)
    if cancelled is None or not isinstance(failed, Exception):
        raise group
    report(failed)
    raise cancelled


def is_async_callable(fn: Callable[..., Any]) -> bool:
    """Whether calling this gives a coroutine: async functions, partials of them, objects with an async ``__call__``."""
    while isinstance(fn, partial):
        fn = fn.func
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004


def inspect_listener(fn: Callable[..., Any], *, what: str, given: int | None = None, once: bool = False) -> Listener:
    """Find out how a function can be called.

    Args:
        fn: The function.
        what: How an error calls it, such as ``listener of "disconnect"``.
        given: How many arguments it will be called with; None if the peer decides. It may take fewer.
        once: Whether it is to be called only once.

    Raises:
        TypeError: It cannot be called with positional arguments, or needs more than it will be given.
    """
    if not callable(fn):
        raise TypeError(f"{what}: {fn!r} is not callable")
    code = fn.__code__ if isinstance(fn, FunctionType) and not fn.__dict__ else None
    if code is not None and not code.co_kwonlyargcount:
        # The usual listener is a closure, made and registered once per client: 1 us instead of 9 (of 500 a connect).
        most = UNLIMITED if code.co_flags & inspect.CO_VARARGS else code.co_argcount
        least = code.co_argcount - len(fn.__defaults__ or ())
        is_async = bool(code.co_flags & inspect.CO_COROUTINE)
    else:
        least, most = _inspect_signature(fn, what)
        is_async = is_async_callable(fn)
    if given is not None and least > given:
        raise TypeError(f"{what} is called with {given} arguments, but {fn!r} needs {least}")
    return Listener(fn, is_async, least, most, once)


def _inspect_signature(fn: Callable[..., Any], what: str) -> tuple[int, int]:
    """The least and the largest number of positional arguments."""
    least, most = 0, 0
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (ValueError, TypeError):  # some builtins have no signature
        parameters, most = [], UNLIMITED
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            most = UNLIMITED
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            most = min(most + 1, UNLIMITED)
            least += parameter.default is parameter.empty
        elif parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            raise TypeError(f"{what}: {fn!r} needs the keyword argument {parameter.name!r}, which nobody gives it")
    return least, most


class Listeners:
    """A registry of listeners by event name.

    Args:
        given: How many arguments the events named here are called with.
        sync_only: Names whose listeners must be plain functions, because they are called in the middle of things.
        known: If given, the only names that exist; others are a `ValueError`.
        refine: Makes more of a listener that was inspected; it gets the event's name as well.
    """

    __slots__ = ("_by_name", "_given", "_known", "_refine", "_sync_only")

    def __init__(
        self,
        given: dict[str, int] | None = None,
        *,
        sync_only: Collection[str] = (),
        known: Collection[str] | None = None,
        refine: Callable[[Listener, Hashable], Listener] | None = None,
    ) -> None:
        self._by_name: dict[Hashable, tuple[Listener, ...]] = {}
        self._given = given or {}
        self._sync_only = sync_only
        self._known = known
        self._refine = refine

    @overload
    def on(self, name: Hashable, fn: None = None, *, once: bool = False) -> Callable[[F], F]: ...
    @overload
    def on(self, name: Hashable, fn: F, *, once: bool = False) -> F: ...
    def on(self, name: Hashable, fn: F | None = None, *, once: bool = False) -> F | Callable[[F], F]:
        """Register a listener; without a function, as a decorator."""
        if self._known is not None and name not in self._known:
            raise ValueError(f"no such event: {name!r} (there are {', '.join(map(repr, sorted(self._known)))})")
        if fn is None:
            return lambda fn: self.on(name, fn, once=once)
        given = self._given.get(name) if isinstance(name, str) else None
        listener = inspect_listener(fn, what=f'listener of "{name}"', given=given, once=once)
        if listener.is_async and name in self._sync_only:
            raise TypeError(f'a listener of "{name}" must be a plain function: it is called in the middle of an answer')
        if self._refine is not None:
            listener = self._refine(listener, name)
        self._by_name[name] = (*self.get(name), listener)
        return fn

    def off(self, name: Hashable | None = None, fn: Callable[..., Any] | None = None) -> None:
        """Remove the first registration of a function, or all listeners of a name, or all."""
        if name is None:
            self._by_name.clear()
        elif fn is None:
            self._by_name.pop(name, None)
        else:
            self._remove(name, next((entry for entry in self.get(name) if entry.fn == fn), None))

    def _remove(self, name: Hashable, listener: Listener | None) -> None:
        kept = list(self.get(name))
        if listener is None or listener not in kept:
            return
        kept.remove(listener)
        if kept:
            self._by_name[name] = tuple(kept)
        else:
            del self._by_name[name]

    def get(self, name: Hashable) -> tuple[Listener, ...]:
        """The listeners of a name, a snapshot."""
        return self._by_name.get(name, ())

    def copy(self, name: Hashable, other: Listeners) -> None:
        """Have the listeners that another registry has for a name now."""
        if listeners := other.get(name):
            self._by_name[name] = listeners

    def copy_all(self, other: Listeners) -> None:
        """Have the listeners that another registry has now, and no others."""
        self._by_name = other._by_name.copy()

    def take(self, name: Hashable) -> Sequence[Listener]:
        """The listeners to call now: those for one time only are removed by this."""
        found = self._by_name.get(name, ())
        for listener in found:
            if listener.once:
                self._remove(name, listener)
        return found

    def call_sync(self, name: str, *args: Any) -> None:
        """Call every listener of a name; for names whose listeners are plain functions."""
        for listener in self.take(name):
            listener.call_sync(*args)
