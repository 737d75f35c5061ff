"""Arguments of events, decoded into what a handler's annotations say."""

from __future__ import annotations

import logging
import subprocess
import sys
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import msgspec
import pydantic
import pytest
import trio

from trio_socketio import EventArgumentsError, EventValidationError, Server, event

from ..wire_client import settle
from .support import at_least, open_server, unanswered, warnings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trio_socketio import Socket
    from trio_socketio.testing import MemoryClient

T = TypeVar("T")

NOTHING = "no answer at all"


class Order(msgspec.Struct):
    item: str
    amount: Annotated[int, msgspec.Meta(gt=0)] = 1
    at: datetime | None = None
    picture: bytes = b""


class Page(msgspec.Struct, Generic[T]):
    items: list[T]


class User(pydantic.BaseModel):
    name: str
    tags: list[str] = []

    @pydantic.field_validator("name")
    @classmethod
    def check_name(cls, name: str) -> str:
        if name == "bug":
            raise LookupError("the validator's own")
        if name == "nobody":
            raise ValueError("nobody is called that")
        return name


class Ring(pydantic.BaseModel):
    inner: Ring | None = None


def told_errors(io: Server) -> list[Exception]:
    told: list[Exception] = []
    io.on_error(lambda error: told.append(error))
    return told


def count_answers(client: MemoryClient) -> int:
    """Acknowledgements of the server's, of which a second one for an event would be ignored."""
    return sum(packet.sender == "server" and str(packet.data).startswith("43") for packet in client.wire)


async def called_with(handler: Callable[..., Any], *args: Any) -> tuple[Any, list[Exception]]:
    """What a client is answered (or `NOTHING`) that sends these arguments to a handler of a namespace, and what
    `on_error` is told.
    """
    io = Server(handler_errors="raise")
    told = told_errors(io)
    io.handle("x", handler)
    answer: Any = NOTHING
    async with open_server(io) as server:
        client = await server.client()
        with trio.move_on_after(1):
            answer = await client.emit_with_ack("x", *args)
        assert await client.receive_all() == []
        assert count_answers(client) == (answer is not NOTHING)
        assert client.connected
    return answer, told


def failure(index: int, message: str) -> dict[str, Any]:
    return {"error": "invalid argument", "argument": index, "message": message}


# What is decoded


def order(socket: Socket, order: Order) -> Any:
    return [type(order).__name__, order.item, order.amount, order.at is not None and order.at.year]


async def slow_order(socket: Socket, it: Order) -> Any:
    return order(socket, it)


@pytest.mark.parametrize("handler", [order, slow_order])
async def test_an_argument_becomes_the_struct_of_its_annotation(handler: Callable[..., Any]) -> None:
    value = {"item": "tea", "amount": 2, "at": "2026-01-01T00:00:00Z"}

    assert await called_with(handler, value) == (["Order", "tea", 2, 2026], [])


async def test_an_argument_becomes_the_model_of_its_annotation() -> None:
    def handler(socket: Socket, user: User) -> Any:
        return [type(user).__name__, user.name, user.tags]

    assert await called_with(handler, {"name": "Ann", "tags": ["a"]}) == (["User", "Ann", ["a"]], [])


async def test_attachments_are_decoded_where_they_are() -> None:
    io = Server()
    pictures: list[bytes] = []
    io.handle("x", partial(_keep_picture, pictures))
    async with open_server(io) as server:
        client = await server.client()
        await client.emit("x", {"item": "tea", "picture": b"\x01\x02"})
        await settle()

        assert pictures == [b"\x01\x02"]


def _keep_picture(pictures: list[bytes], socket: Socket, order: Order) -> None:
    pictures.append(order.picture)


def optional(socket: Socket, order: Order | None) -> Any:
    return [order and order.item]


def several(socket: Socket, orders: list[Order]) -> Any:
    return [order.item for order in orders]


def by_name(socket: Socket, users: dict[str, User]) -> Any:
    return [user.name for user in users.values()]


def annotated(socket: Socket, orders: Annotated[list[Order], msgspec.Meta(max_length=2)]) -> Any:
    return len(orders)


def paged(socket: Socket, page: Page[Order]) -> Any:
    return page.items[0].item


def rest(socket: Socket, first: int, *users: User) -> Any:
    return [first, *(user.name for user in users)]


def mixed(socket: Socket, plain: dict[str, int], order: Order, more: Any, user: User) -> Any:
    return [plain, order.item, more, user.name]


@pytest.mark.parametrize(
    ("handler", "args", "answer"),
    [
        (optional, (None,), [None]),
        (optional, ({"item": "tea"},), ["tea"]),
        (several, ([{"item": "a"}, {"item": "b"}],), ["a", "b"]),
        (by_name, ({"x": {"name": "Ann"}},), ["Ann"]),
        (annotated, ([{"item": "a"}],), 1),
        (paged, ({"items": [{"item": "tea"}]},), "tea"),
        (rest, (1,), [1]),
        (rest, (1, {"name": "Ann"}, {"name": "Bob"}), [1, "Ann", "Bob"]),
        (mixed, ({"a": 1}, {"item": "tea"}, [2], {"name": "Ann"}), [{"a": 1}, "tea", [2], "Ann"]),
    ],
)
async def test_models_may_stand_anywhere_in_an_annotation(
    handler: Callable[..., Any], args: tuple[Any, ...], answer: Any
) -> None:
    assert await called_with(handler, *args) == (answer, [])


async def test_other_annotations_mean_nothing() -> None:
    def handler(socket: Socket, number: int, times: list[datetime]) -> Any:
        return [number, times]

    assert await called_with(handler, "no number", {}) == (["no number", {}], [])


async def test_a_default_is_not_decoded() -> None:
    def handler(socket: Socket, order: Order = None) -> Any:  # type: ignore[assignment]  # pyright: ignore
        return [order]

    assert await called_with(handler) == ([None], [])


async def test_handlers_of_a_socket_and_methods_decode_too() -> None:
    class Shop:
        def on_order(self, socket: Socket, order: Order) -> str:
            return order.item

        @event("new user")
        async def user(self, socket: Socket, user: User) -> str:
            return user.name

    io = Server()
    io.add_handlers(Shop())

    @io.on("connection")
    def connected(socket: Socket) -> None:
        @socket.on("own")
        async def own(order: Order, user: User | None = None) -> str:
            return order.item

    async with open_server(io) as server:
        client = await server.client()
        assert await client.emit_with_ack("order", {"item": "a"}) == "a"
        assert await client.emit_with_ack("new user", {"name": "b"}) == "b"
        assert await client.emit_with_ack("own", {"item": "c"}) == "c"


class Callback:
    def __call__(self, socket: Socket, order: Order) -> str:
        return order.item

    def method(self, socket: Socket, order: Order) -> str:
        return order.item


def with_extra(extra: str, socket: Socket, order: Order) -> str:
    return order.item


@pytest.mark.parametrize("handler", [Callback(), Callback().method, partial(with_extra, "x")])
async def test_annotations_are_found_on_anything_that_can_be_called(handler: Callable[..., Any]) -> None:
    assert await called_with(handler, {"item": "tea"}) == ("tea", [])


async def test_each_handler_gets_an_object_of_its_own() -> None:
    io = Server()
    orders: list[Order] = []

    def handler(socket: Socket, order: Order) -> None:
        orders.append(order)

    io.handle("x", handler)
    io.handle("x", handler)
    async with open_server(io) as server:
        client = await server.client()
        await client.emit("x", {"item": "tea"})
        await settle()

        assert orders == [Order("tea"), Order("tea")]
        assert orders[0] is not orders[1]


# What does not fit


@pytest.mark.parametrize(
    ("handler", "args", "index", "message"),
    [
        (order, ({"item": 1},), 0, "Expected `str`, got `int` - at `$.item`"),
        (order, ({"item": "tea", "amount": 0},), 0, "Expected `int` >= 1 - at `$.amount`"),
        (order, ("tea",), 0, "Expected `object`, got `str`"),
        (several, ([{"item": "a"}, {}],), 0, "Object missing required field `item` - at `$[1]`"),
        (by_name, ({"x": {"name": 1}},), 0, "Input should be a valid string - at `$.x.name`"),
        (rest, (1, {"name": "Ann"}, {}), 2, "Field required - at `$.name`"),
        (rest, (1, {"name": "Ann", "tags": ["a", 2, 3]}), 1, "Input should be a valid string - at `$.tags[1]`"),
        (rest, (1, {"name": "nobody"}), 1, "Value error, nobody is called that - at `$.name`"),
        (mixed, (1, {"item": "tea"}, 2, None), 3, "Input should be a valid dictionary or instance of User - at `$`"),
    ],
)
async def test_an_argument_that_does_not_fit_is_answered_with_what_is_wrong(
    handler: Callable[..., Any], args: tuple[Any, ...], index: int, message: str
) -> None:
    answer, [error] = await called_with(handler, *args)

    assert answer == failure(index, message)
    assert isinstance(error, EventValidationError)
    assert (error.index, error.message) == (index, message)
    assert isinstance(error.__cause__, (msgspec.ValidationError, pydantic.ValidationError))


@pytest.mark.parametrize("handler_errors", ["log", "disconnect", "raise"])
async def test_it_is_the_clients_fault_and_disturbs_nobody(
    handler_errors: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    io = Server(handler_errors=handler_errors)
    calls: list[Any] = []

    def handler(socket: Socket, order: Order) -> None:
        calls.append(order)

    io.handle("x", handler)
    async with open_server(io) as server:
        client, socket = await server.connect()

        await client.emit("x", {})

        assert await client.receive_all() == []
        assert socket.connected
    assert calls == []
    assert warnings(caplog) == []
    assert any("argument 0 is invalid" in line for line in at_least(caplog, logging.INFO))
    assert not [record for record in caplog.records if record.exc_info]


async def test_too_few_arguments_are_told_from_invalid_ones() -> None:
    answer, [error] = await called_with(order)

    assert answer is NOTHING
    assert type(error) is EventArgumentsError


async def test_of_several_handlers_the_others_are_called() -> None:
    io = Server()
    calls: list[Any] = []
    io.handle("x", order)
    io.handle("x", lambda socket, value: calls.append(value))
    async with open_server(io) as server:
        client = await server.client()
        assert await client.emit_with_ack("x", 5) == failure(0, "Expected `object`, got `int`")
        await settle()
        assert calls == [5]
        assert count_answers(client) == 1


async def test_what_is_said_about_an_argument_is_bounded() -> None:
    def handler(socket: Socket, users: dict[str, User]) -> None: ...

    answer, [error] = await called_with(handler, {"k" * 10_000: {}})

    assert isinstance(error, EventValidationError)
    assert len(error.message) == 500
    assert len(str(answer)) < 600
    assert len(str(error)) < 600


async def test_an_error_of_a_validators_own_is_the_applications() -> None:
    io = Server()
    told = told_errors(io)

    def handler(socket: Socket, user: User) -> None: ...

    io.handle("x", handler)
    async with open_server(io) as server:
        client = await server.client()
        assert await unanswered(client, "x", {"name": "bug"})
        assert [type(error) for error in told] == [LookupError]


async def test_what_a_handler_validates_by_itself_is_an_error_of_its_own() -> None:
    def handler(socket: Socket, value: Any) -> None:
        msgspec.convert(value, Order)

    io = Server()
    told = told_errors(io)
    io.handle("x", handler)
    async with open_server(io) as server:
        client = await server.client()
        assert await unanswered(client, "x", {})
        assert [type(error) for error in told] == [msgspec.ValidationError]


@pytest.mark.parametrize("depth", [10, 200])
async def test_the_deepest_values_alarm_nobody(depth: int) -> None:
    def handler(socket: Socket, ring: Ring) -> str:
        return "whole"

    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"inner": value}

    assert await called_with(handler, value) == ("whole", [])


# Registering


def unresolvable(socket: Socket, texts: Sequence[str]) -> None: ...


def both(socket: Socket, values: Order | User) -> None: ...


class Other(msgspec.Struct):
    name: str


def ambiguous(socket: Socket, it: Order | Other) -> None: ...


class Strange:
    pass


def undecodable(socket: Socket, it: dict[str, User | Strange]) -> None: ...


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (unresolvable, r"'texts' of unresolvable: its annotation 'Sequence\[str\]' cannot be resolved"),
        (both, r"'values' of both: one annotation cannot have both"),
        (ambiguous, r"'it' of ambiguous: .* cannot be decoded"),
        (undecodable, r"'it' of undecodable: .* cannot be decoded"),
    ],
)
def test_an_annotation_without_a_clear_meaning_is_refused_when_it_is_registered(
    handler: Callable[..., Any], why: str
) -> None:
    with pytest.raises(TypeError, match=why):
        Server().handle("x", handler)


def test_the_annotations_of_the_socket_and_of_the_result_are_not_looked_at() -> None:
    def handler(socket: Socket, order: Order) -> Sequence[str]:
        raise NotImplementedError

    assert "Socket" not in globals()
    assert Server().handle("x", handler) is handler


def test_the_end_of_a_socket_is_not_what_a_client_sends() -> None:
    def handler(socket: Socket, reason: Sequence[str]) -> None: ...

    assert Server().handle("disconnect", handler) is handler


def test_neither_library_is_imported_by_ours() -> None:
    script = """
import sys
from trio_socketio import Server

def handler(socket, text: "list[str] | None", numbers: dict[str, int]): ...

Server().handle("x", handler)
print(sorted({"msgspec", "pydantic"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)

    assert done.stdout == "[]\n"
