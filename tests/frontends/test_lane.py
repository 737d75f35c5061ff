"""The lane under a real trio-websocket: its law, its order, its limits, and its ends."""

from __future__ import annotations

import socket
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import pytest
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio_websocket import ConnectionClosed, wrap_server_stream
from wsproto.connection import SERVER, Connection
from wsproto.events import CloseConnection, Message, TextMessage

from trio_socketio._errors import MessageTooLarge, RemoteProtocolError
from trio_socketio._frontends.listener import serve_connection
from trio_socketio._wire.encoded import EncodedPacket
from trio_socketio._wire.frames import BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, encode_frame

from .wire import (
    CLOSE_ANSWER,
    CLOSE_FRAME,
    TOO_LARGE_ANSWER,
    UPGRADE,
    App,
    Client,
    Talk,
    both_paths,
    client_frame,
    connect,
    memory_pair,
    play,
    socket_pair,
    text_frame,
)

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 1000


# The law


class Ending(NamedTuple):
    messages: list[str | bytes]
    violation: bool


async def through_the_lane(
    make_pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]], chunks: list[bytes]
) -> Ending:
    talk = Talk(limit=LIMIT)
    with trio.fail_after(20):
        async with connect(make_pair, talk) as client:
            await play(client.stream, chunks)
            await talk.ended.wait()
    # Sizes are for the lane alone: it refuses what is announced, the other refuses what has come.
    violation = isinstance(talk.error, RemoteProtocolError) and not isinstance(talk.error, MessageTooLarge)
    return Ending(talk.messages, violation)


async def without_the_lane(chunks: list[bytes]) -> Ending:
    ours, theirs = trio.testing.memory_stream_pair()
    messages: list[str | bytes] = []
    async with trio.open_nursery() as nursery:
        await theirs.send_all(UPGRADE)
        request = await wrap_server_stream(nursery, ours, max_message_size=LIMIT)
        websocket = await request.accept()
        nursery.start_soon(play, theirs, chunks)
        with suppress(ConnectionClosed):
            while True:
                messages.append(await websocket.get_message())
        nursery.cancel_scope.cancel()
    assert websocket.closed is not None
    return Ending(messages, websocket.closed.code in (1002, 1007))


def what_precedes_a_violation(stream: bytes) -> list[str | bytes]:
    """The messages that the protocol sees before a violation, a close, or one over the limit."""
    protocol = Connection(SERVER)
    protocol.receive_data(stream)
    messages: list[str | bytes] = []
    parts: list[bytes] = []
    for event in protocol.events():
        if isinstance(event, CloseConnection):
            break
        if isinstance(event, Message):
            is_text = isinstance(event, TextMessage)
            parts.append(event.data.encode() if isinstance(event, TextMessage) else bytes(event.data))
            if sum(map(len, parts)) > LIMIT:
                break
            if event.message_finished:
                whole = b"".join(parts)
                messages.append(whole.decode() if is_text else whole)
                parts = []
    return messages


masks = st.binary(min_size=4, max_size=4)
payloads = st.one_of(
    st.text(max_size=60).map(str.encode), st.binary(max_size=60), st.just(b"x" * 200), st.just(b"y" * 600)
)
good_frames = st.one_of(
    st.builds(client_frame, st.just(FIN | TEXT), st.text(max_size=200).map(str.encode), masks),
    st.builds(client_frame, st.just(FIN | BINARY), payloads, masks),
    st.builds(client_frame, st.sampled_from([FIN | PING, FIN | PONG]), st.binary(max_size=125), masks),
)
fragmented = st.builds(
    lambda opcode, parts, ping: b"".join(
        client_frame((opcode if i == 0 else CONTINUATION) | (FIN if i == len(parts) - 1 else 0), part)
        + (client_frame(FIN | PING, b"") if i == ping else b"")
        for i, part in enumerate(parts)
    ),
    st.sampled_from([TEXT, BINARY]),
    st.lists(payloads, min_size=2, max_size=4),
    st.integers(0, 4),
)
usual_bytes = st.sampled_from([FIN | TEXT, FIN | BINARY, TEXT, BINARY, CONTINUATION, FIN | CONTINUATION])
odd_frames = st.one_of(
    st.builds(client_frame, usual_bytes, payloads),
    st.builds(client_frame, usual_bytes, payloads, st.one_of(st.none(), masks), st.sampled_from([2, 8])),
    st.builds(client_frame, st.integers(0, 255), payloads, st.one_of(st.none(), masks), st.sampled_from([0, 2, 8])),
    st.builds(client_frame, st.just(FIN | CLOSE), st.binary(max_size=4)),
    st.just(CLOSE_FRAME),
    st.binary(max_size=20),
)
streams = st.one_of(
    st.lists(st.one_of(good_frames, fragmented), max_size=8),
    st.lists(st.one_of(good_frames, good_frames, fragmented, odd_frames), max_size=8),
).map(b"".join)


@st.composite
def mutated_streams(draw: st.DrawFn) -> bytes:
    stream = bytearray(draw(streams))
    for _ in range(draw(st.integers(0, 2))):
        if stream:
            stream[draw(st.integers(0, len(stream) - 1))] = draw(st.integers(0, 255))
    return bytes(stream[: draw(st.integers(0, len(stream)))] if draw(st.booleans()) else stream)


@st.composite
def chunked_streams(draw: st.DrawFn) -> list[bytes]:
    stream = draw(mutated_streams())
    cuts = sorted(draw(st.sets(st.integers(0, len(stream)), max_size=12)))
    return [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) if a < b]


@both_paths
@given(chunks=chunked_streams())
@example(chunks=[client_frame(TEXT, b"a"), text_frame("inside"), client_frame(FIN, b"b")])
@example(chunks=[client_frame(FIN | TEXT, b"unmasked", mask=None) + text_frame("after")])
@example(chunks=[client_frame(TEXT, b"a") + client_frame(FIN, b"b") + text_frame("after")])
@settings(max_examples=250)
def test_the_law_of_the_lane(
    make_pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]], chunks: list[bytes]
) -> None:
    """The application gets through the lane what it would get without it, no later."""
    lane = trio.run(partial(through_the_lane, make_pair, chunks))
    plain = trio.run(without_the_lane, chunks)
    assert lane.messages[: len(plain.messages)] == plain.messages
    if not plain.violation:
        assert lane == plain
    # What precedes a violation is delivered, what follows it is not, and it does not matter what shares a packet.
    assert lane.messages == what_precedes_a_violation(b"".join(chunks))
    assert lane.messages == trio.run(partial(through_the_lane, make_pair, [b"".join(chunks)])).messages


# Messages


@both_paths
async def test_messages_of_every_kind_arrive_in_order(
    make_pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]],
) -> None:
    stream = b"".join(
        [
            text_frame("1"),
            client_frame(TEXT, b"2a"),
            client_frame(FIN | PING, b"ping"),
            client_frame(FIN, b"2b"),
            client_frame(FIN | BINARY, b"3"),
            client_frame(BINARY, b"4"),
            client_frame(FIN, b""),
            text_frame("5" * 500),
        ]
    )
    async with connect(make_pair, Talk()) as client:
        await client.send(stream * 20)
        await client.send(CLOSE_FRAME)
        await client.talk.ended.wait()
        assert client.talk.messages == ["1", "2a2b", b"3", b"4", "5" * 500] * 20
        assert await client.read_all() == encode_frame(PONG, b"ping") * 20 + CLOSE_ANSWER


@both_paths
async def test_frames_in_the_packet_of_the_upgrade_request_are_not_lost(
    make_pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]],
) -> None:
    app, talk = App(), Talk()
    app.verdict = talk
    ours, theirs = make_pair()
    async with trio.open_nursery() as nursery, theirs:
        await theirs.send_all(UPGRADE + text_frame("early") + text_frame("late")[:-1])
        nursery.start_soon(serve_connection, app, None, ours)
        await trio.testing.wait_all_tasks_blocked()
        await theirs.send_all(text_frame("late")[-1:] + CLOSE_FRAME)
        await talk.ended.wait()
    assert talk.messages == ["early", "late"]


@both_paths
async def test_frames_that_come_while_the_application_judges_are_not_lost(
    make_pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]],
) -> None:
    talk = Talk()

    class Slow(App):
        async def open_websocket(self, request: object) -> Talk:
            await self.release.wait()
            return talk

    app = Slow()
    ours, theirs = make_pair()
    async with trio.open_nursery() as nursery, theirs:
        nursery.start_soon(serve_connection, app, None, ours)
        await theirs.send_all(UPGRADE)
        await trio.testing.wait_all_tasks_blocked()
        await theirs.send_all(text_frame("early"))
        await trio.testing.wait_all_tasks_blocked(0.01)
        app.release.set()
        await theirs.send_all(CLOSE_FRAME)
        await talk.ended.wait()
    assert talk.messages == ["early"]


@both_paths
async def test_a_paused_receiver_stops_the_reading_and_tcp_slows_the_client(
    make_pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]],
) -> None:
    async with connect(make_pair, Talk()) as client:
        client.talk.paused = True
        await client.send(text_frame("first"))
        await trio.testing.wait_all_tasks_blocked(0.01)
        await client.send(text_frame("second"))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert client.talk.messages == ["first"]
        client.talk.paused = False
        client.talk.go_on.set()
        await client.send(CLOSE_FRAME)
        await client.talk.ended.wait()
        assert client.talk.messages == ["first", "second"]


@both_paths
async def test_the_batch_ends_once_for_many_frames(
    make_pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]],
) -> None:
    async with connect(make_pair, Talk()) as client:
        await trio.testing.wait_all_tasks_blocked()
        before = client.talk.batches
        await client.send(text_frame("x") * 500)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(client.talk.messages) == 500
        assert client.talk.batches == before + 1


@both_paths
async def test_a_flood_of_pings_starts_no_tasks_and_is_answered_only_as_fast_as_it_is_read(
    make_pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]],
) -> None:
    async with connect(make_pair, Talk()) as client:
        await client.send(client_frame(FIN | PING, b""))  # with which trio-websocket comes in, whose reader is a task
        assert await client.read_exactly(2) == encode_frame(PONG, b"")
        await trio.testing.wait_all_tasks_blocked()
        tasks = trio.lowlevel.current_statistics().tasks_living
        pings = [client_frame(FIN | PING, b"%d" % i) for i in range(3000)]
        await client.send(b"".join(pings[:2000]))
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        expected = b"".join(encode_frame(PONG, b"%d" % i) for i in range(2000))
        assert await client.read_exactly(len(expected)) == expected
        await client.send(text_frame("still here") + CLOSE_FRAME)
        await client.talk.ended.wait()
        assert client.talk.messages == ["still here"]


# Limits


@both_paths
async def test_an_announced_message_over_the_limit_is_refused_with_1009(
    make_pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]],
) -> None:
    async with connect(make_pair, Talk()) as client:
        frame = client_frame(FIN | BINARY, b"x" * 2000)
        await client.send(text_frame("before") + frame[:100])
        assert await client.read_exactly(len(TOO_LARGE_ANSWER)) == TOO_LARGE_ANSWER
        # The client is still sending when it reads the refusal; its answer comes behind the rest.
        await client.send(frame[100:] + text_frame("ignored") + CLOSE_FRAME)
        await client.talk.ended.wait()
        assert client.talk.messages == ["before"]
        assert isinstance(client.talk.error, MessageTooLarge)
        assert str(client.talk.error) == "message of 2000 bytes exceeds the limit of 1000 bytes"
        assert await client.read_all() == b""


@both_paths
async def test_a_fragmented_message_over_the_limit_is_refused_with_1009(
    make_pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]],
) -> None:
    async with connect(make_pair, Talk()) as client:
        await client.send(client_frame(TEXT, "ü".encode() * 300) + client_frame(FIN, "ü".encode() * 300))
        assert await client.read_exactly(len(TOO_LARGE_ANSWER)) == TOO_LARGE_ANSWER
        await client.send(CLOSE_FRAME)
        await client.talk.ended.wait()
        assert isinstance(client.talk.error, MessageTooLarge)


async def test_a_client_that_ignores_the_refusal_is_cut_at_the_deadline(autojump_clock: trio.testing.MockClock) -> None:
    async with connect(memory_pair, Talk(close_deadline=2.0)) as client:
        begin = trio.current_time()
        await client.send(client_frame(FIN | BINARY, b"x" * 2000))
        assert await client.read_all() == TOO_LARGE_ANSWER
        assert trio.current_time() - begin == 2.0
        await client.talk.ended.wait()


@pytest.mark.parametrize(
    "violation",
    [
        client_frame(FIN | TEXT, b"a", mask=None),
        client_frame(FIN | TEXT, b"\xff\xfe"),
        client_frame(TEXT, b"\xff") + client_frame(FIN, b""),
        client_frame(FIN | 5, b""),
        client_frame(FIN, b"of nothing"),
    ],
)
@both_paths
async def test_a_violation_ends_the_pump_with_an_error_after_what_preceded_it(
    make_pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]], violation: bytes
) -> None:
    async with connect(make_pair, Talk()) as client:
        await client.send(text_frame("before") + violation + text_frame("after"))
        await client.talk.ended.wait()
        assert client.talk.messages == ["before"]
        assert type(client.talk.error) is RemoteProtocolError


# Writing


@both_paths
async def test_frames_and_pongs_never_interleave(
    make_pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]],
) -> None:
    async with connect(make_pair, Talk()) as client:
        await client.talk.started.wait()
        websocket = client.talk.websocket
        assert websocket is not None
        assert websocket.drain is not None
        large = b"z" * 3_000_000
        await client.send(client_frame(FIN | PING, b"1") * 3)
        complete = websocket.send_nowait([EncodedPacket(None, (large,)), EncodedPacket(b"4end")])
        assert not complete
        async with trio.open_nursery() as nursery:
            nursery.start_soon(websocket.drain)
            expected = encode_frame(BINARY, large) + encode_frame(TEXT, b"4end")
            pongs = encode_frame(PONG, b"1") * 3
            received = await client.read_exactly(len(expected) + len(pongs))
        assert received.count(encode_frame(PONG, b"1")) == 3
        assert received.replace(encode_frame(PONG, b"1"), b"") == expected


async def test_what_the_kernel_does_not_take_is_kept_across_a_cancelled_drain() -> None:
    async with connect(socket_pair, Talk()) as client:
        await client.talk.started.wait()
        websocket = client.talk.websocket
        assert websocket is not None
        assert websocket.drain is not None
        large = EncodedPacket(None, (b"z" * 3_000_000,))
        assert not websocket.send_nowait([large])
        with trio.move_on_after(0):
            await websocket.drain()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(websocket.drain)
            assert await client.read_exactly(len(large.frames)) == large.frames


async def test_a_drain_cancelled_on_another_stream_leaves_nothing_but_the_close() -> None:
    async with connect(trio.testing.lockstep_stream_pair, Talk()) as client:
        await client.talk.started.wait()
        websocket = client.talk.websocket
        assert websocket is not None
        assert websocket.drain is not None
        assert not websocket.send_nowait([EncodedPacket(b"4a")])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(websocket.drain)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        with pytest.raises(trio.BrokenResourceError):
            websocket.send_nowait([EncodedPacket(b"4b")])
        with trio.fail_after(1):
            await websocket.aclose()
        await client.talk.ended.wait()


async def test_a_write_to_a_client_that_has_gone_raises() -> None:
    async with connect(socket_pair, Talk()) as client:
        await client.talk.started.wait()
        websocket = client.talk.websocket
        assert websocket is not None
        await client.stream.aclose()
        with pytest.raises(trio.BrokenResourceError):
            websocket.send_nowait([EncodedPacket(b"4a")])
        with trio.fail_after(1):  # nobody waits for the goodbye of a client that has gone
            await client.talk.ended.wait()
        with pytest.raises(trio.BrokenResourceError):
            websocket.send_nowait([EncodedPacket(b"4b")])


# Ends


@both_paths
async def test_the_peers_close_is_answered_and_ends_the_pump(
    make_pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]],
) -> None:
    async with connect(make_pair, Talk()) as client:
        await client.send(text_frame("last") + CLOSE_FRAME + text_frame("too late"))
        await client.talk.ended.wait()
        assert (client.talk.messages, client.talk.error) == (["last"], None)
        assert await client.read_all() in (
            CLOSE_ANSWER,
            b"",
        )  # a reset may overtake the answer: bytes came behind the close


@both_paths
@pytest.mark.parametrize("code", [b"", b"\x03\xe8", b"\x03\xe9", b"\x03\xea", b"\x03\xe8why"])
async def test_a_close_alone_is_answered_with_the_same_and_the_stream_ends(
    make_pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]], code: bytes
) -> None:
    async with connect(make_pair, Talk()) as client:
        await client.send(client_frame(FIN | CLOSE, code))
        await client.talk.ended.wait()
        assert (client.talk.messages, client.talk.error) == ([], None)
        assert await client.read_all() == encode_frame(CLOSE, code)


@both_paths
async def test_an_end_without_a_close_ends_the_pump(
    make_pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]],
) -> None:
    async with connect(make_pair, Talk()) as client:
        await client.send(text_frame("last") + text_frame("cut")[:-1])
        await client.stream.aclose()
        await client.talk.ended.wait()
        assert (client.talk.messages, client.talk.error) == (["last"], None)


@both_paths
async def test_our_close_waits_for_the_peers_and_drops_what_comes_before_it(
    make_pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]],
) -> None:
    async with connect(make_pair, Talk()) as client:
        await client.send(text_frame("before"))
        await trio.testing.wait_all_tasks_blocked(0.01)
        client.talk.hang_up.cancel()
        assert await client.read_exactly(len(CLOSE_ANSWER)) == CLOSE_ANSWER
        # A ping between the two close frames makes trio-websocket fail, if it gets to see it.
        await client.send(text_frame("dropped") + client_frame(FIN | PING, b"") + CLOSE_FRAME)
        await client.talk.ended.wait()
        assert client.talk.messages == ["before"]
        assert await client.read_all() == b""


async def test_a_close_that_the_peer_does_not_answer_ends_at_the_callers_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with connect(memory_pair, Talk(close_deadline=3.0)) as client:
        await client.talk.started.wait()
        begin = trio.current_time()
        client.talk.hang_up.cancel()
        assert await client.read_all() == CLOSE_ANSWER
        assert trio.current_time() - begin == 3.0


async def test_a_close_behind_bytes_that_the_peer_does_not_read_ends_at_the_callers_deadline() -> None:
    async with connect(socket_pair, Talk(close_deadline=0.05)) as client:
        await client.talk.started.wait()
        websocket = client.talk.websocket
        assert websocket is not None
        assert not websocket.send_nowait([EncodedPacket(None, (b"z" * 3_000_000,))])
        client.talk.hang_up.cancel()
        with trio.fail_after(20):
            await client.talk.ended.wait()
        assert len(await client.read_all()) < 3_000_000


async def test_a_close_while_the_pump_still_runs_ends_both() -> None:
    async with connect(memory_pair, Talk()) as client:
        await client.talk.started.wait()
        websocket = client.talk.websocket
        assert websocket is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(websocket.aclose, 1000)
            assert await client.read_exactly(len(CLOSE_ANSWER)) == CLOSE_ANSWER
            await client.send(CLOSE_FRAME)
            await client.talk.ended.wait()
        assert client.talk.error is None


@both_paths
async def test_a_server_that_is_cancelled_says_goodbye_and_waits_for_the_answer(
    make_pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]],
) -> None:
    app, talk = App(), Talk()
    app.verdict = talk
    ours, theirs = make_pair()
    async with trio.open_nursery() as nursery, theirs:
        server = await nursery.start(serve_under_a_scope, app, ours)
        client = Client(theirs, talk)
        await client.send(UPGRADE)
        await client.read_head()
        await talk.started.wait()
        server.cancel()
        assert await client.read_exactly(len(CLOSE_ANSWER)) == CLOSE_ANSWER
        await client.send(text_frame("dropped") + client_frame(FIN | PING, b"") + CLOSE_FRAME)
        with trio.fail_after(1):
            await talk.ended.wait()
        assert await client.read_all() == b""
    assert talk.messages == []


async def serve_under_a_scope(
    app: App, stream: trio.abc.Stream, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.CancelScope() as scope:
        task_status.started(scope)
        await serve_connection(app, None, stream)


async def test_a_reset_ends_the_pump_as_broken() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    app, talk = App(), Talk()
    app.verdict = talk
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, app.handle_stream, listeners))
        client = await trio.testing.open_stream_to_socket_listener(listeners[0])
        await client.send_all(UPGRADE)
        await talk.started.wait()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        await client.aclose()
        await talk.ended.wait()
        nursery.cancel_scope.cancel()
    assert isinstance(talk.error, trio.BrokenResourceError)
