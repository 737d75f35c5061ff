"""Compressed messages on connections: who gets them, and that they are messages like all others."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_socketio import PerMessageDeflate
from trio_socketio._errors import MessageTooLarge, RemoteProtocolError
from trio_socketio._wire.encoded import EncodedPacket
from trio_socketio._wire.frames import BINARY, FIN, PING, PONG, RSV1, TEXT, encode_frame

from .deflating import NO_CONTEXT, OFFERING, VIOLATIONS, opening_request, split, squeeze, squeezed_frame
from .wire import (
    CLOSE_ANSWER,
    CLOSE_FRAME,
    TOO_LARGE_ANSWER,
    UPGRADE,
    Talk,
    both_paths,
    client_frame,
    connect,
    memory_pair,
    play,
    text_frame,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    MakePair = Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]

LIMIT = 1000
DEFAULT = PerMessageDeflate()

# Negotiation


async def extensions_answered(talk: Talk, opening: bytes) -> list[str]:
    async with connect(memory_pair, talk, opening) as client:
        lines = client.head.decode().split("\r\n")
        return [line.partition(":")[2].strip() for line in lines if line.lower().startswith("sec-websocket-ext")]


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("permessage-deflate; client_max_window_bits", [NO_CONTEXT]),
        (
            "permessage-bzip2, permessage-deflate; server_max_window_bits=15",
            [f"{NO_CONTEXT}; server_max_window_bits=15"],
        ),
        ("permessage-deflate; server_max_window_bits=10", []),
        ('permessage-deflate; ;;,"', []),
    ],
)
async def test_what_is_offered_is_accepted_or_declined_and_never_an_error(offer: str, answer: list[str]) -> None:
    assert await extensions_answered(Talk(deflate=DEFAULT), opening_request(offer)) == answer
    assert await extensions_answered(Talk(), opening_request(offer)) == []


async def test_offers_may_be_in_several_lines() -> None:
    opening = opening_request("permessage-bzip2", "permessage-deflate")
    assert await extensions_answered(Talk(deflate=DEFAULT), opening) == [NO_CONTEXT]


@both_paths
async def test_only_clients_that_offered_it_get_compressed_frames(make_pair: MakePair) -> None:
    packet, small = EncodedPacket(b"4" + b"x" * 5000), EncodedPacket(b"4small")
    deflated = packet.deflated_frames(DEFAULT)
    for opening, large in ((OFFERING, deflated), (UPGRADE, packet.frames)):
        async with connect(make_pair, Talk(deflate=DEFAULT), opening) as client:
            await client.talk.started.wait()
            websocket = client.talk.websocket
            assert websocket is not None
            assert websocket.drain is not None
            expected = small.frames + large + large
            websocket.send_nowait([small, packet])
            await websocket.drain()
            websocket.send_nowait([packet])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(websocket.drain)
                assert await client.read_exactly(len(expected)) == expected


# Violations and limits


@pytest.mark.parametrize("violation", VIOLATIONS)
@both_paths
async def test_a_violation_ends_the_pump_with_an_error_after_what_preceded_it(
    make_pair: MakePair, violation: str
) -> None:
    async with connect(make_pair, Talk(deflate=DEFAULT), OFFERING) as client:
        await client.send(squeezed_frame("before") + VIOLATIONS[violation] + text_frame("after") + CLOSE_FRAME)
        await client.talk.ended.wait()
        assert client.talk.messages == ["before"]
        assert type(client.talk.error) is RemoteProtocolError


@both_paths
async def test_without_an_agreement_a_compressed_message_is_a_violation(make_pair: MakePair) -> None:
    for talk, opening in ((Talk(deflate=DEFAULT), UPGRADE), (Talk(), OFFERING)):
        async with connect(make_pair, talk, opening) as client:
            await client.send(text_frame("before") + squeezed_frame("compressed"))
            await talk.ended.wait()
            assert talk.messages == ["before"]
            assert type(talk.error) is RemoteProtocolError


@both_paths
async def test_a_bomb_is_refused_with_1009_and_the_answer_is_found_behind_compressed_frames(
    make_pair: MakePair,
) -> None:
    async with connect(make_pair, Talk(deflate=DEFAULT), OFFERING) as client:
        await client.send(client_frame(FIN | RSV1 | BINARY, squeeze(bytes(100_000))) + squeezed_frame("dropped"))
        assert await client.read_exactly(len(TOO_LARGE_ANSWER)) == TOO_LARGE_ANSWER
        await client.send(squeezed_frame("dropped") + CLOSE_FRAME)
        await client.talk.ended.wait()
        assert isinstance(client.talk.error, MessageTooLarge)
        assert client.talk.messages == []
        assert await client.read_all() == b""


# The law


class Sent(NamedTuple):
    """Frames of a client, and what they lead to."""

    data: bytes
    messages: tuple[str | bytes, ...] = ()
    pongs: bytes = b""


@st.composite
def sent_messages(draw: st.DrawFn) -> Sent:
    """A message: text or binary, compressed or not, whole or in fragments with pings between them."""
    message: str | bytes = draw(st.text(max_size=300) | st.binary(max_size=300) | st.just("long " * 150))
    content = message.encode() if isinstance(message, str) else message
    opcode = TEXT if isinstance(message, str) else BINARY
    if draw(st.booleans()):
        content, opcode = squeeze(content), opcode | RSV1
    frames = split(content, opcode, draw(st.lists(st.integers(0, len(content)), max_size=3)))
    pings = [draw(st.sampled_from([b"", b"", b"p"])) for _ in frames]
    data = b"".join(
        client_frame(FIN | PING, ping) + frame if ping else frame for ping, frame in zip(pings, frames, strict=True)
    )
    return Sent(data, (message,), b"".join(encode_frame(PONG, ping) for ping in pings if ping))


closes = st.just(Sent(CLOSE_FRAME))
violations = st.sampled_from(sorted(VIOLATIONS)).map(lambda name: Sent(VIOLATIONS[name] + text_frame("after")))


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    cuts = sorted(draw(st.sets(st.integers(0, len(data)), max_size=12)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]


@both_paths
@given(data=st.data(), parts=st.lists(sent_messages(), max_size=8), ending=closes | violations)
@settings(max_examples=150)
def test_the_law_of_the_lane_holds_for_any_mix_of_messages_and_any_chunking(
    make_pair: MakePair, data: st.DataObject, parts: list[Sent], ending: Sent
) -> None:
    """What was sent before the end is delivered, in order, and pings are answered; whatever shares a packet."""
    chunks = data.draw(cut(b"".join(part.data for part in [*parts, ending])))
    messages, answers, error = trio.run(through_the_lane, make_pair, chunks)
    assert messages == [message for part in parts for message in part.messages]
    if ending.data == CLOSE_FRAME:
        assert error is None
        assert answers == b"".join(part.pongs for part in parts) + CLOSE_ANSWER
    else:
        assert type(error) is RemoteProtocolError


@both_paths
@given(data=st.data(), parts=st.lists(sent_messages(), max_size=5))
@settings(max_examples=100)
def test_what_is_delivered_of_broken_bytes_does_not_depend_on_the_chunking(
    make_pair: MakePair, data: st.DataObject, parts: list[Sent]
) -> None:
    stream = bytearray(b"".join(part.data for part in parts) + CLOSE_FRAME)
    for _ in range(data.draw(st.integers(1, 3))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    messages, _, _ = trio.run(through_the_lane, make_pair, data.draw(cut(bytes(stream))))
    assert messages == trio.run(through_the_lane, make_pair, [bytes(stream)])[0]


async def through_the_lane(
    make_pair: MakePair, chunks: list[bytes]
) -> tuple[list[str | bytes], bytes, Exception | None]:
    talk = Talk(limit=LIMIT, deflate=DEFAULT)
    answers = b""

    with trio.fail_after(20):
        async with connect(make_pair, talk, OFFERING) as client, trio.open_nursery() as nursery:
            nursery.start_soon(play, client.stream, chunks)
            answers = await client.read_all()
            await talk.ended.wait()
    return talk.messages, answers, talk.error
