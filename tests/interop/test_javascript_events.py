"""Events and acknowledgements between the JavaScript client and the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import AckTimeout, EncodeError, SocketDisconnected

from ..js_client import AckError
from .serving import Record, either_transport, on_one_front_end, record, until

if TYPE_CHECKING:
    from ..js_client import Driver
    from .serving import Served

ARGUMENTS: list[tuple[Any, ...]] = [
    (),
    ("one",),
    (None,),
    (1, "two", {"three": [3.5, None, True]}, -(2**53) + 1),
    ("", b"", [], {}, 0, False),
    (b"\x00\xff\x1e",),
    ({"deep": [b"a", {"deeper": b"b"}]}, "text", b"c"),
    ('snow ☃ 日本語 𝄞 \u2028\u2029 \x00\x1e "quoted\\', {"ключ": "значение"}),
    tuple(bytes([number]) for number in range(10)),
]


async def test_events_arrive_whole_in_both_directions(js: Driver, served: Served, mode: str) -> None:
    client, socket = await served.pair(js, mode)
    heard = record(socket, "event")
    for args in ARGUMENTS:
        await socket.emit("event", *args)
        await client.emit("event", *args)
    assert await client.wait_for_many("event", len(ARGUMENTS)) == ARGUMENTS
    assert await heard.reach(len(ARGUMENTS)) == ARGUMENTS


async def test_acknowledgements_arrive_whole_in_both_directions(js: Driver, served: Served, mode: str) -> None:
    client, socket = await served.pair(js, mode)
    await client.echo("event")

    @socket.on("event")
    async def echo(*args: Any) -> tuple[Any, ...]:
        await trio.lowlevel.checkpoint()
        return args

    for args in ARGUMENTS:
        assert await client.emit_with_ack("event", *args) == args
        reply = await socket.emit_with_ack("event", *args)
        assert reply == (args[0] if len(args) == 1 else args or None)


@on_one_front_end
async def test_handler_that_returns_nothing_acknowledges_without_arguments(js: Driver, served: Served) -> None:
    client, socket = await served.pair(js)
    heard = record(socket, "save")
    assert await client.emit_with_ack("save", 1) == ()
    assert heard == [(1,)]


async def test_large_messages_pass_in_both_directions(js: Driver, served: Served, mode: str) -> None:
    client, socket = await served.pair(js, mode)
    await client.echo("big")
    socket.on("big", lambda *args: args)
    for big in ("é" * 250_000, bytes(range(256)) * 2_000):
        assert await client.emit_with_ack("big", big) == (big,)
        assert await socket.emit_with_ack("big", big) == big


@on_one_front_end
async def test_silent_client_lets_the_wait_time_out(js: Driver, served: Served) -> None:
    _, socket = await served.pair(js)
    with pytest.raises(AckTimeout):
        await socket.timeout(0.05).emit_with_ack("question")
    assert socket.statistics().pending_acks == 0


@either_transport
async def test_wait_for_an_ack_ends_when_the_client_goes(js: Driver, served: Served, mode: str) -> None:
    client, socket = await served.pair(js, mode)

    async def leave() -> None:
        await client.wait_for("question")
        await client.disconnect()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        with pytest.raises(SocketDisconnected) as caught:
            await socket.emit_with_ack("question")
    assert caught.value.reason == "client namespace disconnect"


@on_one_front_end
async def test_failing_handler_acknowledges_nothing_and_ends_nothing_else(js: Driver, served: Served) -> None:
    errors = Record()
    served.io.on_error(errors.add)
    client, socket = await served.pair(js)

    @socket.on("divide")
    async def divide(a: int, b: int) -> float:
        return a / b

    with pytest.raises(AckError, match="timed out"):
        await client.emit_with_ack("divide", 1, 0, ack_timeout=0.1)
    with pytest.raises(AckError, match="timed out"):
        await client.emit_with_ack("divide", "too", "many", "arguments", ack_timeout=0.1)
    assert await client.emit_with_ack("divide", 1, 4) == (0.25,)
    assert [type(error).__name__ for error, _, _ in errors] == ["ZeroDivisionError", "EventArgumentsError"]


@on_one_front_end
async def test_more_attachments_than_clients_take_fail_where_they_are_emitted(js: Driver, served: Served) -> None:
    client, socket = await served.pair(js)
    with pytest.raises(EncodeError):
        await socket.emit("parts", [b"part"] * 11)
    await socket.emit("parts", [b"part"] * 10)
    assert await client.wait_for("parts") == ([b"part"] * 10,)


@on_one_front_end
async def test_socket_middlewares_change_and_refuse_events(js: Driver, served: Served) -> None:
    errors = Record()
    served.io.on_error(errors.add)
    client, socket = await served.pair(js)

    @socket.use
    def shout(event: list[Any]) -> None:
        event[1:] = [text.upper() for text in event[1:]]

    @socket.use
    async def check(event: list[Any]) -> None:
        await trio.lowlevel.checkpoint()
        if "SPAM" in event:
            raise PermissionError("no spam")

    socket.on("chat", lambda *args: args)
    assert await client.emit_with_ack("chat", "hello", "there") == ("HELLO", "THERE")
    with pytest.raises(AckError):
        await client.emit_with_ack("chat", "spam", ack_timeout=0.1)
    assert await client.emit_with_ack("chat", "again") == ("AGAIN",)
    assert [(type(error), event) for error, _, event in errors] == [(PermissionError, "chat")]


@either_transport
async def test_volatile_events_come_only_if_they_can_leave_at_once(js: Driver, served: Served, mode: str) -> None:
    client, socket = await served.pair(js, mode)
    await until(lambda: socket.conn.writable, "writable")
    socket.emit_nowait("event", "first")
    socket.volatile.emit_nowait("event", "dropped", b"with an attachment")
    await client.wait_for("event")
    await until(lambda: socket.conn.writable, "writable")
    await socket.volatile.emit("event", "alone", b"with an attachment")
    await served.io.emit("event", "last")
    assert await client.wait_for_many("event", 2) == [("alone", b"with an attachment"), ("last",)]


async def test_volatile_and_compress_change_nothing_for_a_client_that_is_ready(js: Driver, served: Served) -> None:
    client, socket = await served.pair(js)
    heard = record(socket, "up")
    await client.emit("up", volatile=True)
    await heard.reach(1)
    await socket.compress(False).emit("down", "é" * 2_000)
    await served.io.compress(True).emit("down", b"x")
    assert await client.wait_for_many("down", 2) == [("é" * 2_000,), (b"x",)]
