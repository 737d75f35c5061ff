from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from trio_socketio._listeners import Listeners, inspect_listener, is_async_callable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def nothing(*args: Any) -> None:
    pass


class Plain:
    def __call__(self, a: Any) -> None:
        pass

    def method(self, a: Any, b: Any = None) -> None:
        pass


class Async:
    async def __call__(self) -> None:
        pass


async def coroutine_function(a: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (coroutine_function, True),
        (partial(coroutine_function, 1), True),
        (partial(partial(coroutine_function), 1), True),
        (Async(), True),
        (Plain(), False),
        (Plain().method, False),
        (nothing, False),
        (print, False),
        (lambda: coroutine_function(1), False),
    ],
)
def test_it_is_known_beforehand_whether_a_listener_is_async(fn: Callable[..., Any], expected: bool) -> None:
    assert is_async_callable(fn) is expected


@pytest.mark.parametrize(
    ("fn", "takes"),
    [
        (lambda: None, {0}),
        (lambda a: None, {1}),
        (lambda a, b=1: None, {1, 2}),
        (lambda *args: None, {0, 1, 2, 3}),
        (lambda a, *args: None, {1, 2, 3}),
        (lambda a, *, key=1: None, {1}),
        (Plain(), {1}),
        (Plain().method, {1, 2}),
        (partial(lambda a, b: None, 1), {1}),
        (dict.fromkeys, {1, 2}),
        (type("Unknown", (), {"__call__": nothing, "__signature__": 3})(), {0, 1, 2, 3}),
    ],
)
def test_the_number_of_arguments_is_read_off_the_signature(fn: Callable[..., Any], takes: set[int]) -> None:
    listener = inspect_listener(fn, what="listener")

    assert {count for count in range(4) if listener.least <= count <= listener.most} == takes


def test_a_listener_is_never_called_to_inspect_it() -> None:
    calls: list[int] = []

    def fn(a: int) -> None:
        calls.append(a)

    Listeners({"x": 1}).on("x", fn)

    assert not calls


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (3, 'listener of "x": 3 is not callable'),
        (lambda a, b, c: None, 'listener of "x" is called with 2 arguments, but .* needs 3'),
        (lambda *, key: None, "listener of \"x\": .* needs the keyword argument 'key', which nobody gives it"),
    ],
)
def test_what_cannot_be_called_is_refused_at_registration(fn: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Listeners({"x": 2}).on("x", fn)


def test_a_listener_may_take_fewer_arguments_than_it_is_given() -> None:
    listeners = Listeners({"x": 2})
    told: list[Any] = []
    listeners.on("x", lambda: told.append(()))
    listeners.on("x", lambda a: told.append((a,)))
    listeners.on("x", lambda a, b: told.append((a, b)))

    listeners.call_sync("x", 1, 2)

    assert told == [(), (1,), (1, 2)]


def test_a_name_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ValueError, match=r"no such event: 'z' \(there are 'x', 'y'\)"):
        Listeners(known=("y", "x")).on("z", nothing)


def test_an_async_listener_is_refused_where_nobody_can_wait_for_it() -> None:
    with pytest.raises(TypeError, match='listener of "x" must be a plain function'):
        Listeners(sync_only=("x",)).on("x", coroutine_function)


def test_a_plain_listener_that_forgot_its_await_is_an_error() -> None:
    listeners = Listeners()
    listeners.on("x", lambda: coroutine_function(1))

    with pytest.raises(TypeError, match="plain function that returned a coroutine"):
        listeners.call_sync("x")


def test_on_is_a_decorator_and_gives_the_function_back() -> None:
    listeners = Listeners()

    decorated = listeners.on("x")(nothing)

    assert decorated is nothing
    assert listeners.on("x", nothing) is nothing
    assert [listener.fn for listener in listeners.get("x")] == [nothing, nothing]


def test_off_removes_the_first_registration_of_a_function() -> None:
    listeners = Listeners()
    for fn in (nothing, print, nothing):
        listeners.on("x", fn)

    listeners.off("x", nothing)

    assert [listener.fn for listener in listeners.get("x")] == [print, nothing]


def test_off_removes_a_bound_method_although_it_is_another_object() -> None:
    listeners = Listeners()
    owner = Plain()
    listeners.on("x", owner.method)

    listeners.off("x", owner.method)

    assert listeners.get("x") == ()


def test_off_with_a_name_removes_all_of_it_and_without_one_everything() -> None:
    listeners = Listeners()
    for name in ("x", "x", "y", "z"):
        listeners.on(name, nothing)

    listeners.off("x")
    assert [len(listeners.get(name)) for name in ("x", "y", "z")] == [0, 1, 1]

    listeners.off()
    assert [len(listeners.get(name)) for name in ("x", "y", "z")] == [0, 0, 0]


def test_off_of_what_is_not_there_does_nothing() -> None:
    listeners = Listeners()
    listeners.on("x", nothing)

    listeners.off("x", print)
    listeners.off("y")
    listeners.off("y", print)

    assert len(listeners.get("x")) == 1


def test_a_listener_for_one_time_is_called_once_even_if_it_causes_the_event_again() -> None:
    listeners = Listeners()
    calls: list[str] = []

    def again() -> None:
        calls.append("once")
        listeners.call_sync("x")

    listeners.on("x", again, once=True)
    listeners.on("x", lambda: calls.append("always"))

    listeners.call_sync("x")

    assert calls == ["once", "always", "always"]


def test_listeners_that_are_changed_during_a_call_count_for_the_next_one() -> None:
    listeners = Listeners()
    calls: list[str] = []

    def first() -> None:
        calls.append("first")
        listeners.off("x", second)
        listeners.on("x", lambda: calls.append("third"))

    def second() -> None:
        calls.append("second")

    listeners.on("x", first, once=True)
    listeners.on("x", second)

    listeners.call_sync("x")
    assert calls == ["first", "second"]

    listeners.call_sync("x")
    assert calls == ["first", "second", "third"]


def test_plain_functions_are_seen_as_their_signatures_say() -> None:
    async def closure(a: object, b: object = 1, *rest: object) -> None: ...

    def none() -> None: ...
    def two(a: object, /, b: object) -> None: ...
    def defaults(a: object, b: object = 1) -> None: ...
    def keywords(a: object, *, b: object = 1, **rest: object) -> None: ...
    def named(**rest: object) -> None: ...
    def generator(a: object) -> Iterator[int]:
        yield 1

    for fn in (closure, none, two, defaults, keywords, named, generator):
        found = inspect_listener(fn, what="x")
        wrapped = inspect_listener(partial(fn), what="x")  # which has to be asked for its signature
        assert (found.least, found.most, found.is_async) == (wrapped.least, wrapped.most, wrapped.is_async)
