"""Compression without a connection: options, negotiation, packets, and the sorter that inflates."""

from __future__ import annotations

import os
from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import SERVER, Connection
from wsproto.events import CloseConnection, Message

from trio_socketio import PerMessageDeflate, Server
from trio_socketio._errors import MessageTooLarge, RemoteProtocolError
from trio_socketio._wire.deflate import InflatingSorter, choose_offer
from trio_socketio._wire.encoded import NOOP, EncodedPacket
from trio_socketio._wire.frames import BINARY, CONTINUATION, FIN, PING, RSV1, TEXT, Phase, encode_frame
from trio_socketio.engineio import Engine

from ..frontends.deflating import NO_CONTEXT, VIOLATIONS, split, squeeze, squeezed_frame, unsqueeze
from ..frontends.wire import client_frame, text_frame

if TYPE_CHECKING:
    from collections.abc import Iterable

LIMIT = 1000
DEFAULT = PerMessageDeflate()
PING_FRAME = client_frame(FIN | PING, b"p")

# Options


def test_nothing_is_compressed_unless_it_is_asked_for() -> None:
    assert Engine().config.per_message_deflate is None
    assert Engine(per_message_deflate=False).config.per_message_deflate is None
    assert Engine(per_message_deflate=None).config.per_message_deflate is None


def test_true_means_the_defaults_and_settings_mean_themselves() -> None:
    assert Engine(per_message_deflate=True).config.per_message_deflate == PerMessageDeflate(threshold=1024, level=6)
    chosen = PerMessageDeflate(threshold=0, level=1)
    assert Server(per_message_deflate=chosen).engine.config.per_message_deflate is chosen
    with pytest.raises(FrozenInstanceError):
        chosen.level = 2  # type: ignore[misc]


@pytest.mark.parametrize("option", [1, "true", {"threshold": 1024}])
def test_another_type_is_refused(option: Any) -> None:
    with pytest.raises(TypeError, match="per_message_deflate must be a bool or PerMessageDeflate"):
        Engine(per_message_deflate=option)


@pytest.mark.parametrize(
    "settings",
    [{"threshold": -1}, {"threshold": 1.5}, {"threshold": True}, {"level": 0}, {"level": 10}, {"level": "6"}],
)
def test_settings_out_of_their_range_are_refused(settings: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        PerMessageDeflate(**settings)


# Negotiation

OFFERS: list[tuple[str, str | None]] = [
    ("permessage-deflate", NO_CONTEXT),
    ("permessage-deflate; client_max_window_bits", NO_CONTEXT),
    ("permessage-deflate; client_max_window_bits=8", NO_CONTEXT),
    ('permessage-deflate ; client_max_window_bits = "15"', NO_CONTEXT),
    ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", NO_CONTEXT),
    ("permessage-deflate; server_max_window_bits=15", f"{NO_CONTEXT}; server_max_window_bits=15"),
    ("permessage-deflate; server_max_window_bits=10, permessage-deflate", NO_CONTEXT),
    ("x-webkit-deflate-frame, permessage-deflate; client_max_window_bits", NO_CONTEXT),
    (", ,permessage-deflate,", NO_CONTEXT),
    ("", None),
    ("permessage-bzip2", None),
    ("Permessage-Deflate-2; client_max_window_bits", None),
    ("permessage-deflate; server_max_window_bits=10", None),
    ("permessage-deflate; server_max_window_bits", None),
    ("permessage-deflate; client_max_window_bits=7", None),
    ("permessage-deflate; client_max_window_bits=16", None),
    ("permessage-deflate; client_max_window_bits=08", None),
    ("permessage-deflate; client_max_window_bits=", None),
    ('permessage-deflate; client_max_window_bits="', None),
    ('permessage-deflate; client_max_window_bits="15', None),
    ("permessage-deflate; client_max_window_bits=15=15", None),
    ("permessage-deflate; client_max_window_bits; client_max_window_bits", None),
    ("permessage-deflate; server_no_context_takeover=1", None),
    ("permessage-deflate; client_no_context_takeover=", None),
    ("permessage-deflate; level=9", None),
    ("permessage-deflate;", None),
    ("permessage-deflate client_max_window_bits", None),
    ("; client_max_window_bits", None),
]


@pytest.mark.parametrize(("offer", "answer"), OFFERS)
def test_what_is_offered_is_accepted_or_declined(offer: str, answer: str | None) -> None:
    assert choose_offer(offer.split(",")) == answer


@given(st.lists(st.text("permsag-dflt;=,\" _now15'").map(lambda text: "permessage-deflate" + text)))
def test_an_offer_of_any_text_is_answered_or_not(offers: list[str]) -> None:
    assert choose_offer(offers) in (None, NO_CONTEXT, f"{NO_CONTEXT}; server_max_window_bits=15")


# Writing


def read_frame(frame: bytes) -> tuple[int, bytes]:
    """The first byte and the payload of a frame of less than 64 KiB."""
    start = 2 if frame[1] < 126 else 4
    assert len(frame) - start == (frame[1] if start == 2 else int.from_bytes(frame[2:4], "big"))
    return frame[0], frame[start:]


@pytest.mark.parametrize(("size", "compressed"), [(1023, False), (1024, True), (60_000, True)])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_is_compressed_from_the_threshold_on(opcode: int, size: int, compressed: bool) -> None:
    content = b"x" * size
    packet = EncodedPacket(content) if opcode == TEXT else EncodedPacket(None, (content,))
    first, payload = read_frame(packet.deflated_frames(DEFAULT))
    assert first == FIN | opcode | (RSV1 if compressed else 0)
    assert (unsqueeze(payload) if compressed else payload) == content


def test_every_message_of_a_packet_has_the_threshold_for_itself() -> None:
    text, small, large = b'452-["x"]', b"s" * 1000, b"l" * 2000
    frames = EncodedPacket(text, (small, large)).deflated_frames(DEFAULT)
    rest = frames.removeprefix(encode_frame(TEXT, text) + encode_frame(BINARY, small))
    first, payload = read_frame(rest)
    assert (first, unsqueeze(payload)) == (FIN | RSV1 | BINARY, large)


def test_a_packet_that_may_not_be_compressed_is_not() -> None:
    packet = EncodedPacket(b"4" + b"x" * 5000, (b"y" * 5000,), compress=False)
    assert packet.deflated_frames(DEFAULT) == packet.frames
    assert NOOP.deflated_frames(PerMessageDeflate(threshold=0)) == NOOP.frames


def test_what_would_not_get_smaller_is_sent_as_it_is() -> None:
    packet = EncodedPacket(None, (os.urandom(2000),))
    assert packet.deflated_frames(DEFAULT) == packet.frames


def test_a_packet_is_compressed_once_for_all_clients_of_a_server() -> None:
    packet = EncodedPacket(b"4" + b"x" * 5000)
    assert packet.deflated_frames(DEFAULT) is packet.deflated_frames(DEFAULT)
    plain = packet.frames
    assert packet.deflated_frames(PerMessageDeflate(threshold=10_000)) is plain
    assert len(packet.deflated_frames(PerMessageDeflate(level=9))) < len(plain)


# Reading: the sorter


def sort_all(chunks: Iterable[bytes], limit: int = LIMIT) -> tuple[list[str | bytes], bytes, Phase]:
    sorter = InflatingSorter(limit)
    messages: list[str | bytes] = []
    passed_on = b""
    for chunk in chunks:
        sorter.feed(chunk)
        while passed := sorter.sort(messages.append):
            passed_on += passed
            assert not sorter.message_follows
    return messages, passed_on, sorter.phase


FLOWING = b"".join(
    [
        text_frame("plain"),
        squeezed_frame("compressed " * 50),
        client_frame(FIN | RSV1 | BINARY, squeeze(bytes(900))),
        PING_FRAME,
        squeezed_frame(""),
        *split(squeeze(b"in fragments"), RSV1 | TEXT, [3, 3, 8]),
        client_frame(FIN | RSV1 | TEXT, bytes.fromhex("f348cdc9c9070000")),  # RFC 7692, section 7.2.3.4
        client_frame(FIN | RSV1 | TEXT, bytes.fromhex("f248050000 00ffff cac9c90700")),  # section 7.2.3.5
        client_frame(FIN | BINARY, b"b" * 300),
    ]
)


@pytest.mark.parametrize("size", [len(FLOWING), 1, 2, 7, 100])
def test_compressed_messages_are_delivered_among_others_however_the_bytes_are_cut(size: int) -> None:
    messages, passed_on, phase = sort_all(FLOWING[i : i + size] for i in range(0, len(FLOWING), size))
    assert messages == [
        "plain", "compressed " * 50, bytes(900), "", "in fragments", "Hello", "Hello", b"b" * 300,
    ]  # fmt: skip
    assert (passed_on, phase) == (PING_FRAME, Phase.MESSAGES)


def test_control_frames_between_compressed_fragments_are_passed_on() -> None:
    first, second, third = split(squeeze(b"message"), RSV1 | BINARY, [2, 4])
    messages, passed_on, _ = sort_all([first + PING_FRAME + second + PING_FRAME * 2 + third + text_frame("next")])
    assert (messages, passed_on) == ([b"message", "next"], PING_FRAME * 3)


def test_a_message_at_the_limit_is_inflated_and_one_above_is_given_up() -> None:
    assert sort_all([client_frame(FIN | RSV1 | BINARY, squeeze(bytes(LIMIT)))])[0] == [bytes(LIMIT)]
    with pytest.raises(MessageTooLarge, match="compressed message exceeds the limit of 1000 bytes"):
        sort_all([client_frame(FIN | RSV1 | BINARY, squeeze(bytes(LIMIT + 1)))])


def test_a_bomb_is_given_up_at_the_limit() -> None:
    limit, bomb = 1_000_000, squeeze(bytes(100_000_000))
    assert len(bomb) < limit
    for frames in ([client_frame(FIN | RSV1 | BINARY, bomb)], split(bomb, RSV1 | BINARY, range(0, len(bomb), 10_000))):
        with pytest.raises(MessageTooLarge):
            sort_all(frames, limit)
    with pytest.raises(MessageTooLarge, match=f"message of {len(bomb)} bytes"):
        sort_all([client_frame(FIN | RSV1 | BINARY, bomb)[:20]])


def test_the_fragments_of_a_compressed_message_are_limited_in_bytes_and_number() -> None:
    noise = os.urandom(600)
    with pytest.raises(MessageTooLarge, match="message of 1200 bytes"):
        sort_all([client_frame(RSV1 | BINARY, noise), client_frame(CONTINUATION, noise)])
    with pytest.raises(RemoteProtocolError, match="more than 143 fragments"):
        sort_all([client_frame(RSV1 | TEXT, b"") + client_frame(CONTINUATION, b"") * 10_000])


@pytest.mark.parametrize("violation", VIOLATIONS)
def test_a_violation_stays_one_for_those_who_do_not_know_the_extension(violation: str) -> None:
    messages, passed_on, phase = sort_all([squeezed_frame("before") + VIOLATIONS[violation] + text_frame("after")])
    assert (messages, phase) == (["before"], Phase.VIOLATION)
    protocol = Connection(SERVER)
    protocol.receive_data(passed_on)
    *before, end = protocol.events()
    assert isinstance(end, CloseConnection)
    assert end.code in (1002, 1007)
    assert not any(isinstance(event, Message) and event.message_finished for event in before)
