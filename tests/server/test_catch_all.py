"""Catch-all listeners: every event of a socket, incoming before all else, outgoing in the middle of the emit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import ConnectionRefused, EncodeError, Server, SocketDisconnected

from ..wire_client import settle
from .support import dismissed, open_server, stop_polling, unanswered, warnings

if TYPE_CHECKING:
    from trio_socketio import Socket

    from .support import OpenServer

Calls = list[tuple[Any, ...]]


def recorder(calls: Calls) -> Callable[..., None]:
    return lambda *args: calls.append(args)


async def wait_a_moment(*args: Any) -> None:
    await trio.lowlevel.checkpoint()


# Incoming


async def test_every_event_is_told_with_its_name_and_arguments_whoever_else_listens() -> None:
    async with open_server() as server:
        client, socket = await server.connect()
        calls: Calls = []
        socket.on_any(recorder(calls))
        socket.on("known", lambda *args: None)

        await client.emit("known", 1, b"\x01")
        await client.emit("unknown")
        assert await unanswered(client, 7, {"a": [b"\x02"]})

        assert calls == [("known", 1, b"\x01"), ("unknown",), (7, {"a": [b"\x02"]})]


async def test_acknowledgements_are_not_told() -> None:
    async with open_server() as server, trio.open_nursery() as nursery:
        client, socket = await server.connect()
        calls: Calls = []
        socket.on_any(recorder(calls))
        nursery.start_soon(socket.emit_with_ack, "question")

        await (await client.receive()).ack("answer")
        await settle()

        assert calls == []


async def test_what_a_catch_all_listener_returns_is_no_acknowledgement() -> None:
    async with open_server() as server:
        client, socket = await server.connect()
        socket.on_any(lambda *args: "not this")
        socket.on("ask", lambda: "this")

        assert await client.emit_with_ack("ask") == "this"
        assert await unanswered(client, "unknown")


async def test_the_last_one_prepended_is_the_first_one_called() -> None:
    async with open_server() as server:
        client, socket = await server.connect()
        order: list[int] = []
        for number, add in enumerate((socket.on_any, socket.prepend_any, socket.on_any, socket.prepend_any)):
            add(lambda name, number=number: order.append(number))

        await client.emit("event")
        await settle()

        assert order == [3, 1, 0, 2]


def listening(socket: Socket, direction: str) -> tuple[Any, Any, Any, Any]:
    if direction == "incoming":
        return socket.on_any, socket.prepend_any, socket.off_any, socket.listeners_any
    return socket.on_any_outgoing, socket.prepend_any_outgoing, socket.off_any_outgoing, socket.listeners_any_outgoing


both_directions = pytest.mark.parametrize("direction", ["incoming", "outgoing"])


@both_directions
async def test_off_removes_the_first_registration_of_a_function_or_all(direction: str) -> None:
    async with open_server() as server:
        _, socket = await server.connect()
        on, prepend, off, listeners = listening(socket, direction)

        def one(name: Any) -> None: ...
        def two(name: Any) -> None: ...

        for register, fn in ((on, one), (on, two), (on, one), (prepend, two)):
            register(fn)
        assert listeners() == (two, one, two, one)
        off(one)
        assert listeners() == (two, two, one)
        off(print)
        assert listeners() == (two, two, one)
        off()
        assert listeners() == ()


async def test_they_are_registered_as_decorators_too() -> None:
    async with open_server() as server:
        _, socket = await server.connect()

        @socket.on_any
        @socket.on_any_outgoing
        def second(name: Any) -> None: ...

        @socket.on_any()
        @socket.on_any_outgoing()
        def third(name: Any) -> None: ...

        @socket.prepend_any()
        @socket.prepend_any_outgoing()
        def first(name: Any) -> None: ...

        assert socket.listeners_any() == (first, second, third)
        assert socket.listeners_any_outgoing() == (first, second, third)


@both_directions
async def test_a_listener_gets_as_many_arguments_as_it_takes(direction: str) -> None:
    async with open_server() as server:
        client, socket = await server.connect()
        calls: Calls = []
        on = listening(socket, direction)[0]
        on(lambda: calls.append(()))
        on(lambda name: calls.append((name,)))
        on(lambda name, first=None: calls.append((name, first)))

        await (client if direction == "incoming" else socket).emit("event", 1, 2)
        await settle()

        assert calls == [(), ("event",), ("event", 1)]


@both_directions
@pytest.mark.parametrize("fn", [3, lambda name, first: None, lambda name, *, key: None])
async def test_what_cannot_be_called_with_a_name_alone_is_refused_at_registration(direction: str, fn: Any) -> None:
    async with open_server() as server:
        _, socket = await server.connect()
        on, prepend, _, listeners = listening(socket, direction)

        for register in (on, prepend):
            with pytest.raises(TypeError, match="catch-all"):
                register(fn)

        assert listeners() == ()


async def test_catch_all_listeners_come_before_middlewares_and_see_what_the_client_sent() -> None:
    async with open_server() as server:
        client, socket = await server.connect()
        steps: list[Any] = []

        @socket.use
        def rename(event: list[Any]) -> None:
            steps.append(("use", *event))
            event[0] = "renamed"

        socket.on("renamed", lambda *args: steps.append(("handler", *args)))
        socket.on_any(lambda *args: steps.append(("any", *args)))

        await client.emit("event", 1)
        await settle()

        assert steps == [("any", "event", 1), ("use", "event", 1), ("handler", 1)]


async def test_an_event_that_a_middleware_refuses_was_told_all_the_same() -> None:
    async with open_server() as server:
        server.io.on_error(lambda error: None)
        client, socket = await server.connect()
        calls: Calls = []
        socket.on_any(recorder(calls))

        @socket.use
        def refuse(event: list[Any]) -> None:
            raise ValueError

        await client.emit("event")
        await settle()

        assert calls == [("event",)]


@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize("concurrent", [1, 2, 64])
@pytest.mark.parametrize("catch_all_is_async", [False, True])
async def test_a_catch_all_listener_starts_before_the_handler_and_events_keep_their_order(
    catch_all_is_async: bool, concurrent: int, checked: bool
) -> None:
    count = 20
    async with open_server(max_concurrent_events=concurrent) as server:
        client, socket = await server.connect()
        started: list[str] = []

        async def watch(name: Any) -> None:
            started.append(f"any {name}")
            await trio.sleep(1)

        async def handle(number: int) -> None:
            started.append(f"handler {number}")
            await trio.sleep(0.3)

        socket.on_any(watch if catch_all_is_async else lambda name: started.append(f"any {name}"))
        if checked:
            socket.use(lambda event: None)
        for number in range(count):
            socket.on(number, partial(handle, number))

        await client.send_raw(*[f"42[{number}]" for number in range(count)])
        await trio.sleep(count * 2)

        assert [step for step in started if step.startswith("any")] == [f"any {n}" for n in range(count)]
        assert [step for step in started if step.startswith("h")] == [f"handler {n}" for n in range(count)]
        for number in range(count):
            assert started.index(f"any {number}") < started.index(f"handler {number}")


async def test_with_one_event_at_a_time_the_handler_waits_until_an_async_catch_all_is_over() -> None:
    async with open_server(max_concurrent_events=1) as server:
        client, socket = await server.connect()
        steps: list[str] = []

        @socket.on_any
        async def watch(name: Any) -> None:
            await trio.sleep(1)
            steps.append("watched")

        @socket.on("event")
        async def handle() -> None:
            steps.append("handled")

        await client.emit("event")
        await trio.sleep(2)

        assert steps == ["watched", "handled"]


async def test_a_connection_handler_that_has_waited_can_still_hear_every_event() -> None:
    io = Server()
    calls: Calls = []

    @io.on("connection")
    async def connected(socket: Socket) -> None:
        await trio.sleep(1)
        socket.on_any(lambda *args: calls.append(("any", *args)))
        await trio.sleep(1)
        socket.on("first", lambda *args: calls.append(("handler", "first")))

    async with open_server(io) as server:
        client = await server.client()
        await client.emit("first", 1)
        await client.emit("second")

        await trio.sleep(1.5)
        assert calls == [("any", "first", 1)]  # the handler of the first may be yet to come; the second is behind it
        await trio.sleep(1)
        assert calls == [("any", "first", 1), ("handler", "first"), ("any", "second")]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_failing_catch_all_listener_is_reported_and_the_event_goes_on(asynchronous: bool) -> None:
    async with open_server() as server:
        told: list[Any] = []
        server.io.on_error(lambda error, socket, event: told.append((str(error), socket, event)))
        client, socket = await server.connect()

        async def fail(name: Any) -> None:
            raise ValueError("no")

        def fail_at_once(name: Any) -> None:
            raise ValueError("no")

        calls: Calls = []
        socket.on_any(fail if asynchronous else fail_at_once)
        socket.on_any(recorder(calls))
        socket.on("ask", lambda: "answer")

        assert await client.emit_with_ack("ask") == "answer"
        assert calls == [("ask",)]
        assert told == [("no", socket, "ask")]


async def test_a_catch_all_listener_that_costs_the_socket_its_life_is_the_last_to_be_called() -> None:
    async with open_server(handler_errors="disconnect") as server:
        client, socket = await server.connect()
        server.io.on_error(lambda error: None)
        calls: Calls = []

        def fail(name: Any) -> None:
            raise ValueError

        socket.on_any(fail)
        socket.on_any(recorder(calls))
        socket.on("event", recorder(calls))
        socket.use(recorder(calls))

        await client.emit("event")
        await socket.ended.wait()

        assert calls == []
        assert await dismissed(client)


async def test_a_listener_added_or_removed_by_another_counts_from_the_next_event_on() -> None:
    async with open_server() as server:
        client, socket = await server.connect()
        calls: Calls = []

        def late(name: Any) -> None:
            calls.append(("late", name))

        def early(name: Any) -> None:
            calls.append(("early", name))
            socket.on_any(late)
            socket.off_any(early)

        socket.on_any(early)
        await client.send_raw('42["one"]', '42["two"]')
        await settle()

        assert calls == [("early", "one"), ("late", "two")]


async def test_calls_of_catch_all_listeners_wait_in_the_queue_like_others_and_are_counted_once() -> None:
    async with open_server(max_queued_events=4, max_concurrent_events=1) as server:
        client, socket = await server.connect()
        gate = trio.Event()
        gate.set()

        @socket.on_any
        async def watch(name: Any) -> None:
            await gate.wait()

        await client.send_raw(*['42["event"]'] * 20)
        await settle()
        assert socket.statistics().queued_events == 0
        gate = trio.Event()
        await client.send_raw(*['42["event"]'] * 3)
        await settle()
        assert not socket.conn.paused  # all three wait for their handlers, the first behind its catch-all listener
        await client.emit("event")
        await settle()
        assert socket.conn.paused

        gate.set()
        await settle()
        assert not socket.conn.paused


async def test_async_catch_all_listeners_end_with_their_socket_and_count_as_its_tasks() -> None:
    async with open_server() as server:
        client, socket = await server.connect()
        ends: list[str] = []

        @socket.on_any
        async def stay(name: Any) -> None:
            try:
                await trio.sleep_forever()
            finally:
                ends.append(name)

        await client.emit("event")
        await settle()
        assert socket.statistics().tasks == 1
        await client.disconnect()
        await settle()

        assert ends == ["event"]


# Outgoing


async def emit_in_every_way(server: OpenServer, socket: Socket) -> list[Any]:
    """The names of what was emitted, in order."""
    await socket.join("room")
    await socket.emit("emit")
    socket.emit_nowait("emit_nowait")
    await socket.compress(False).emit("compress")
    socket.compress(False).emit_nowait("compress_nowait")
    await socket.volatile.emit("volatile")
    socket.volatile.emit_nowait("volatile_nowait")
    with trio.move_on_after(0.1):
        await socket.emit_with_ack("ask")
    with trio.move_on_after(0.1):
        await socket.volatile.emit_with_ack("ask volatile")
    await server.io.emit("all")
    await server.io.to("room").emit("room")
    await server.io.volatile.emit("all volatile")
    with trio.move_on_after(0.1):
        await server.io.to("room").emit_with_ack("ask room")
    return [
        *("emit", "emit_nowait", "compress", "compress_nowait", "volatile", "volatile_nowait", "ask", "ask volatile"),
        *("all", "room", "all volatile", "ask room"),
    ]


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_every_way_to_emit_is_told_once_in_order_also_what_is_dropped(transport: str) -> None:
    async with open_server() as server:
        client, socket = await server.connect(transport=transport)
        if transport == "polling":
            await stop_polling(client, socket)
        calls: Calls = []
        socket.on_any_outgoing(recorder(calls))

        names = await emit_in_every_way(server, socket)

        assert calls == [(name,) for name in names]


async def test_the_very_objects_are_told_without_the_id_of_an_acknowledgement() -> None:
    async with open_server() as server:
        client, socket = await server.connect()
        data, nested = b"\x01", {"deep": [bytearray(b"\x02")]}
        calls: Calls = []
        socket.on_any_outgoing(recorder(calls))

        await socket.emit("one", data, nested)
        await server.io.emit("all", data, nested)
        with trio.move_on_after(0.1):
            await server.io.emit_with_ack("ask", data, nested)

        assert [call[0] for call in calls] == ["one", "all", "ask"]
        assert all(call[1] is data and call[2] is nested for call in calls)
        assert await client.receive() == ("one", b"\x01", {"deep": [b"\x02"]})


async def test_only_the_recipients_that_listen_are_told_of_a_broadcast() -> None:
    async with open_server() as server:
        pairs = await server.connect_many(4)
        calls: Calls = []
        for number in (0, 1, 3):
            pairs[number].socket.on_any_outgoing(lambda *args, number=number: calls.append((number, *args)))
        for number in (0, 1, 2):
            await pairs[number].socket.join("room")

        await pairs[0].socket.to("room").emit("event", 1)

        assert calls == [(1, "event", 1)]
        assert [await pair.client.receive_all() for pair in pairs] == [[], [("event", 1)], [("event", 1)], []]


async def test_acknowledgements_to_the_client_are_not_told() -> None:
    async with open_server() as server:
        client, socket = await server.connect()
        calls: Calls = []
        socket.on_any_outgoing(recorder(calls))
        socket.on("ask", lambda: "answer")

        assert await client.emit_with_ack("ask") == "answer"
        assert calls == []


async def test_what_was_never_sent_is_not_told() -> None:
    async with open_server(max_outbox_packets=4) as server:
        client, socket = await server.connect(transport="polling")
        await stop_polling(client, socket)
        calls: Calls = []
        socket.on_any_outgoing(recorder(calls))

        with pytest.raises(EncodeError):
            await socket.emit("unsendable", object())
        for number in range(4):
            socket.emit_nowait(number)
        with pytest.raises(trio.WouldBlock):
            socket.emit_nowait(4)
        with trio.move_on_after(1):
            await socket.emit("waits for room")
        assert calls == [(0,), (1,), (2,), (3,)]

        await socket.disconnect()
        for emit in (socket.emit, socket.compress(True).emit):
            with pytest.raises(SocketDisconnected):
                await emit("late")
        await socket.volatile.emit("late")
        await server.io.emit("late")
        assert calls == [(0,), (1,), (2,), (3,)]


async def test_a_recipient_that_a_listener_has_cut_off_is_neither_told_nor_sent_the_event() -> None:
    async with open_server() as server:
        pairs = await server.connect_many(2)
        told: list[str] = []

        def cut_the_other(this: Socket, other: Socket) -> None:
            told.append(this.id)
            other.conn.close(discard=True)

        sockets = [pair.socket for pair in pairs]
        for this, other in (sockets, reversed(sockets)):
            this.on_any_outgoing(partial(cut_the_other, this, other))

        await server.io.emit("event")
        await settle()

        assert len(told) == 1
        assert [socket.connected for socket in sockets] == [socket.id in told for socket in sockets]


async def test_an_async_listener_for_outgoing_events_is_refused_at_registration() -> None:
    async with open_server() as server:
        _, socket = await server.connect()

        for register in (socket.on_any_outgoing, socket.prepend_any_outgoing):
            with pytest.raises(TypeError, match="plain function"):
                register(wait_a_moment)

        assert socket.listeners_any_outgoing() == ()


@pytest.mark.parametrize("broadcast", [False, True])
async def test_a_failing_listener_for_outgoing_events_is_reported_and_everybody_gets_the_event(broadcast: bool) -> None:
    async with open_server() as server:
        told: list[Any] = []
        server.io.on_error(lambda error, socket, event: told.append((str(error), socket, event)))
        pairs = await server.connect_many(3)
        calls: Calls = []

        def fail(*args: Any) -> None:
            raise ValueError("no")

        pairs[1].socket.on_any_outgoing(fail)
        pairs[1].socket.on_any_outgoing(recorder(calls))

        if broadcast:
            await server.io.emit("event")
        else:
            for pair in pairs:
                await pair.socket.emit("event")

        assert [await pair.client.receive_all() for pair in pairs] == [[("event",)]] * 3
        assert told == [("no", pairs[1].socket, "event")]
        assert calls == [("event",)]


async def test_a_listener_for_outgoing_events_that_costs_its_socket_its_life_costs_nobody_else_the_broadcast(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_server(handler_errors="disconnect") as server:
        server.io.of("/other")
        pairs = await server.connect_many(3)
        await pairs[1].client.of("/other")  # so its session stays

        def fail(*args: Any) -> None:
            raise ValueError("no")

        pairs[1].socket.on_any_outgoing(fail)
        await server.io.emit("event")
        with pytest.raises(SocketDisconnected):
            await pairs[1].socket.emit("event")

        assert await dismissed(pairs[1].client)
        assert pairs[1].client.wire[-1].data == "41"
        assert [await pair.client.receive_all() for pair in pairs] == [[("event",)], [], [("event",)]]
        assert len(warnings(caplog)) == 1


async def test_the_emit_whose_listener_costs_the_socket_its_life_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async with open_server(handler_errors="disconnect") as server:
        server.io.of("/other")
        client, socket = await server.connect()
        await client.of("/other")  # so the session stays

        def fail(*args: Any) -> None:
            raise ValueError("no")

        socket.on_any_outgoing(fail)
        with pytest.raises(SocketDisconnected):
            socket.emit_nowait("event")

        assert await dismissed(client)
        assert client.wire[-1].data == "41"
        assert len(warnings(caplog)) == 1


async def test_a_listener_that_returns_a_coroutine_is_an_error_and_not_a_silent_loss() -> None:
    async with open_server() as server:
        told: list[Exception] = []
        server.io.on_error(lambda error: told.append(error))
        _, socket = await server.connect()
        socket.on_any_outgoing(lambda *args: wait_a_moment())

        await socket.emit("event")

        assert [type(error) for error in told] == [TypeError]


@pytest.mark.parametrize("end", ["removed", "disconnected", "refused", "after the end"])
async def test_the_namespace_forgets_who_listens_no_more(end: str) -> None:
    io = Server()
    if end == "refused":

        @io.use
        def refuse(socket: Socket) -> None:
            socket.on_any_outgoing(print)
            raise ValueError

        io.on_error(lambda error: None)

    async with open_server(io) as server:
        if end == "refused":
            with pytest.raises(ConnectionRefused):
                await server.client()
        else:
            _, socket = await server.connect()
            socket.on_any_outgoing(print)
            assert io.sockets.tapped == {socket.id}
            if end == "removed":
                socket.off_any_outgoing(print)
            else:
                await socket.disconnect()
            if end == "after the end":
                socket.on_any_outgoing(print)

        assert io.sockets.tapped == set()


async def test_a_listener_that_a_middleware_registered_is_told_from_the_first_event_on() -> None:
    io = Server()
    calls: Calls = []
    io.use(lambda socket: socket.on_any_outgoing(recorder(calls)) and None)

    @io.on("connection")
    async def connected(socket: Socket) -> None:
        await socket.emit("hello")
        await io.emit("everybody")

    async with open_server(io) as server:
        await server.connect()
        await settle()

        assert calls == [("hello",), ("everybody",)]


async def test_with_connection_state_recovery_events_are_told_without_their_offsets() -> None:
    async with open_server(connection_state_recovery=True) as server:
        client, socket = await server.connect(transport="polling")
        await stop_polling(client, socket)
        calls: Calls = []
        data = b"\x01"
        socket.on_any_outgoing(recorder(calls))

        names = await emit_in_every_way(server, socket)
        await socket.emit("data", data)

        assert calls == [*[(name,) for name in names], ("data", data)]
        assert calls[-1][1] is data


async def test_what_is_replayed_to_a_client_that_has_come_back_is_not_told_again() -> None:
    io = Server(connection_state_recovery=True)
    told: Calls = []

    @io.on("connection")
    def connected(socket: Socket) -> None:
        socket.on_any_outgoing(lambda *args: told.append((socket.recovered, *args)))

    async with open_server(io) as server:
        client = await server.client()
        await io.emit("seen")
        assert (await client.receive()).name == "seen"
        await client.drop()
        await settle()
        for name in ("missed", "missed too"):
            await io.emit(name)

        await client.reconnect()
        replayed = [event.name for event in await client.receive_all()]
        await io.emit("again")

        assert replayed == ["missed", "missed too"]
        assert told == [(False, "seen"), (True, "again")]
