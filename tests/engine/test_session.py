"""A session as a `trio.abc.Channel`, and the bounds of what waits in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from trio_socketio._wire.encoded import EncodedPacket
from trio_socketio.engineio import Session, SessionClosed

from ..wire_client import SessionLost, settle
from .stage import on_both_transports, open_stage, receive_all

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .stage import Client


async def is_checkpoint(fn: Callable[[], Awaitable[object]]) -> bool:
    """Whether a call lets others run, and is cancelled where it may be."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await fn()
    return scope.cancelled_caught


@on_both_transports
async def test_messages_go_both_ways_as_through_any_channel(transport: str) -> None:
    async with open_stage() as stage:
        client = await stage.client(transport)
        channel: trio.abc.Channel[str | bytes] = stage.session
        await client.send("4hello")
        assert await channel.receive() == "hello"
        await channel.send(b"\x00")
        assert await client.recv() == b"\x00"


@on_both_transports
async def test_iteration_ends_with_the_session_after_what_had_arrived(transport: str) -> None:
    async with open_stage() as stage:
        client = await stage.client(transport)
        await client.send("4a", "4b")
        await client.close()
        await stage.end()
        assert [message async for message in stage.session] == ["a", "b"]
        with pytest.raises(trio.EndOfChannel):
            await stage.session.receive()


async def test_receive_waits_and_ends_when_the_session_does() -> None:
    async with open_stage() as stage, trio.open_nursery() as nursery:
        client = await stage.net.engine_websocket()
        received: list[list[str | bytes]] = []

        async def receiver() -> None:
            received.append(await receive_all(stage.session))

        for _ in range(3):
            nursery.start_soon(receiver)
        await settle()
        await client.send("4a", "4b", "4c", "4d")
        await client.close()
        await stage.end()
        await settle()
        assert len(received) == 3
        assert sorted(message for messages in received for message in messages) == ["a", "b", "c", "d"]


@on_both_transports
async def test_send_after_the_close_raises_with_the_reason(transport: str) -> None:
    async with open_stage() as stage:
        client = await stage.client(transport)
        await client.close()
        await stage.end()
        with pytest.raises(SessionClosed, match="transport close") as caught:
            await stage.session.send("x")
        assert caught.value.reason == "transport close"
        assert isinstance(caught.value, trio.BrokenResourceError)


async def test_send_and_receive_are_checkpoints() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        assert await is_checkpoint(lambda: stage.session.send("never queued"))
        await client.send("4kept")
        assert await is_checkpoint(stage.session.receive)
        assert await stage.session.receive() == "kept"
        await stage.session.send("sent")
        assert await client.poll() == ["4sent"]


async def test_cancelled_receive_loses_nothing() -> None:
    async with open_stage() as stage:
        client = await stage.net.engine_websocket()
        for number in range(5):
            with trio.move_on_after(1) as scope:
                await stage.session.receive()
            assert scope.cancelled_caught
            await client.send(f"4{number}")
            await settle()
            assert await stage.session.receive() == str(number)


async def test_cancelled_receiver_leaves_its_message_to_the_next() -> None:
    async with open_stage() as stage, trio.open_nursery() as nursery:
        client = await stage.net.engine_websocket()
        received: list[str | bytes] = []

        async def receive_one(scope: trio.CancelScope) -> None:
            with scope:
                received.append(await stage.session.receive())

        scopes = [trio.CancelScope(), trio.CancelScope()]
        for scope in scopes:
            nursery.start_soon(receive_one, scope)
            await settle()
        await client.send("4x")
        scopes[0].cancel()
        await settle()
        scopes[1].deadline = trio.current_time() + 1
        await trio.sleep(2)
        assert received == ["x"]


async def test_text_that_has_no_utf8_is_refused_and_the_session_lives() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        with pytest.raises(TypeError, match="cannot be encoded"):
            await stage.session.send("\ud800")
        await stage.session.send("x")
        assert await client.poll() == ["4x"]


async def test_bytes_like_messages_are_copied() -> None:
    async with open_stage() as stage:
        client = await stage.net.engine_websocket()
        data = bytearray(b"abc")
        await stage.session.send(data)
        data[:] = b"xyz"
        assert await client.recv() == b"abc"


# aclose


@on_both_transports
async def test_aclose_waits_until_the_client_has_what_is_queued(transport: str) -> None:
    async with open_stage() as stage, trio.open_nursery() as nursery:
        client = await stage.client(transport)
        await stage.session.send("last words")
        nursery.start_soon(stage.session.aclose)
        assert await client.recv() == "4last words"
        if transport == "polling":
            assert await client.recv() == "6"
        assert await stage.end() == ("forced close", None)


@on_both_transports
async def test_aclose_of_a_closed_session_is_a_checkpoint(transport: str) -> None:
    async with open_stage() as stage:
        await stage.client(transport)
        await stage.session.aclose() if transport == "websocket" else stage.session.close(discard=True)
        await stage.end()
        assert await is_checkpoint(stage.session.aclose)
        await stage.session.aclose()


async def test_cancelled_aclose_closes_at_once() -> None:
    async with open_stage() as stage:
        await stage.net.polling()
        await stage.session.send("lost")
        with trio.move_on_after(1):
            await stage.session.aclose()
        assert stage.session.closed_because == ("forced close", None)
        assert trio.current_time() == 1


async def test_aclose_inside_the_connection_listener_ends_it() -> None:
    async with open_stage() as stage:
        after: list[bool] = []

        @stage.engine.on("connection")
        async def connected(session: Session) -> None:
            async with session:
                await session.send("bye")
            after.append(True)

        client = await stage.net.polling()
        assert await client.poll() == ["4bye"]
        assert await client.poll() == ["6", "1"]
        assert await stage.end() == ("forced close", None)
        assert not after, "the listener is one of the session's tasks"


# Back-pressure towards us


@on_both_transports
async def test_full_inbox_stops_the_reading_and_receive_resumes_it(transport: str) -> None:
    async with open_stage(max_inbox_messages=3) as stage, trio.open_nursery() as nursery:
        client = await stage.client(transport)

        async def send_all() -> None:
            for number in range(20):
                await client.send(f"4{number}")

        nursery.start_soon(send_all)
        await settle()
        assert stage.session.paused
        assert [await stage.session.receive() for _ in range(20)] == [str(number) for number in range(20)]
        await settle()
        assert not stage.session.paused


async def test_full_inbox_holds_no_more_than_what_was_read_at_once() -> None:
    async with open_stage(max_inbox_messages=3) as stage:
        client = await stage.net.engine_websocket()
        for number in range(100):
            await client.send(f"4{number}")
            await settle()
        stage.session.close(discard=True)
        assert await receive_all(stage.session) == ["0", "1", "2"]


@on_both_transports
async def test_client_may_leave_while_it_is_not_read(transport: str) -> None:
    async with open_stage(max_inbox_messages=1) as stage:
        client = await stage.client(transport)
        if transport == "polling":
            post = await stage.net.start("POST", f"?EIO=4&transport=polling&sid={client.sid}", body="4a")
            await settle()
            await post.drop()
            assert await stage.end() == ("transport error", "data request connection closed prematurely")
        else:
            await client.send("4a")
            await settle()
            await client.drop()
            await stage.session.receive()
            assert await stage.end() == ("transport close", None)
        assert await receive_all(stage.session) == (["a"] if transport == "polling" else [])


# Back-pressure towards the client

BOUNDS = [{"max_outbox_bytes": 1000}, {"max_outbox_packets": 10}]


@on_both_transports
@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
async def test_send_waits_above_half_of_the_bounds_and_goes_on_when_the_client_reads(
    transport: str, bounds: dict[str, int]
) -> None:
    async with open_stage(ping_interval=1000, **bounds) as stage, trio.open_nursery() as nursery:
        client = await (stage.net.polling() if transport == "polling" else stage.net.engine_websocket(unread=True))
        sent: list[int] = []

        async def send_all() -> None:
            for number in range(100):
                await stage.session.send(f"{number:99}")
                sent.append(number)

        nursery.start_soon(send_all)
        await trio.sleep(10)
        assert 5 <= len(sent) <= 8, "six to pass the half, and on a WebSocket one or two on their way"
        assert stage.session.buffered_bytes <= 700
        received = [await client.recv() for _ in range(100)]
        assert received == [f"4{number:99}" for number in range(100)]
        assert len(sent) == 100


@on_both_transports
async def test_waiting_send_ends_with_the_session(transport: str) -> None:
    async with open_stage(max_outbox_bytes=1000) as stage, trio.open_nursery() as nursery:
        await (stage.net.polling() if transport == "polling" else stage.net.engine_websocket(unread=True))
        closed: list[SessionClosed] = []

        async def send_forever() -> None:
            try:
                while True:
                    await stage.session.send("x" * 99)
            except SessionClosed as error:
                closed.append(error)

        for _ in range(3):
            nursery.start_soon(send_forever)
        await settle()
        stage.session.close(discard=True)
        await settle()
        assert [error.reason for error in closed] == ["forced close"] * 3


@on_both_transports
async def test_cancelled_send_that_waits_sends_nothing(transport: str) -> None:
    async with open_stage(max_outbox_bytes=1000, ping_interval=1000) as stage:
        client = await (stage.net.polling() if transport == "polling" else stage.net.engine_websocket(unread=True))
        with trio.move_on_after(1):
            while True:
                await stage.session.send("x" * 99)
        with trio.move_on_after(1) as scope:
            await stage.session.send("cancelled")
        assert scope.cancelled_caught
        stage.session.close()
        received = await client.recv()
        while received == "4" + "x" * 99:
            received = await recv_or_end(client)
        assert received != "4cancelled"


async def recv_or_end(client: Client) -> str | bytes:
    try:
        return await client.recv()
    except SessionLost:
        return "end"


@on_both_transports
@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
async def test_client_that_does_not_read_cannot_grow_the_memory(transport: str, bounds: dict[str, int]) -> None:
    async with open_stage(**bounds) as stage:
        await (stage.net.polling() if transport == "polling" else stage.net.engine_websocket(unread=True))
        packet = EncodedPacket.message("x" * 99)
        written = 0
        while stage.session.write(packet):  # as a broadcast does, which never waits
            written += 1
            if written % 3 == 0:
                await settle()
            assert stage.session.buffered_bytes <= 1000
            assert written < 20
        reason, description = await stage.end()
        assert reason == "transport error"
        assert description is not None
        (bound, value), *_ = bounds.items()
        assert f"{bound}={value}" in description
        assert stage.session.buffered_bytes == 0


async def test_single_message_beyond_the_bounds_is_sent_when_nothing_else_waits() -> None:
    async with open_stage(max_outbox_bytes=1000) as stage:
        client = await stage.net.engine_websocket()
        for _ in range(3):
            await stage.session.send("x" * 5000)
        assert [await client.recv() for _ in range(3)] == ["4" + "x" * 5000] * 3


async def test_writable_is_false_from_the_write_until_it_is_done() -> None:
    async with open_stage() as stage:
        client = await stage.net.engine_websocket(unread=True)
        await settle()
        assert stage.session.writable
        await stage.session.send("x")
        assert not stage.session.writable
        await settle()
        assert not stage.session.writable
        assert await client.recv() == "4x"
        await settle()
        assert stage.session.writable


async def test_writable_on_polling_is_whether_a_poll_pends() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        assert not stage.session.writable
        poll = await client.start_poll()
        assert stage.session.writable
        await stage.session.send("x")
        await poll.response()
        assert not stage.session.writable


async def test_repr_tells_the_state_and_not_the_secret() -> None:
    async with open_stage() as stage:
        await stage.net.polling()
        assert "polling" in repr(stage.session)
        assert stage.session.id not in repr(stage.session)
