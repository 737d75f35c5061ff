from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_socketio import _errors
from trio_socketio._wire.encoded import (
    CLOSE,
    NOOP,
    PING,
    PROBE_PONG,
    EncodedPacket,
    join_frames,
    join_payload,
)
from trio_socketio._wire.frames import BINARY, TEXT, encode_frame

WITH_ATTACHMENTS = EncodedPacket('452-["é"]'.encode(), (b"\1\2", b""))

encoded_packets = st.builds(
    EncodedPacket,
    st.none() | st.text(min_size=1).map(str.encode),
    st.lists(st.binary(), max_size=3).map(tuple),
)


def test_a_text_alone_is_one_frame_and_one_part_of_a_payload() -> None:
    packet = EncodedPacket(b'42["hi"]')
    assert packet.frames == b'\x81\x0842["hi"]'
    assert packet.payload == b'42["hi"]'
    assert packet.messages == ['42["hi"]']
    assert (packet.count, packet.size) == (1, 8)


def test_a_text_and_its_attachments_are_one_unit_in_order() -> None:
    assert WITH_ATTACHMENTS.frames == b"\x81\x0a" + '452-["é"]'.encode() + b"\x82\x02\1\2" + b"\x82\x00"
    assert WITH_ATTACHMENTS.payload == '452-["é"]'.encode() + b"\x1ebAQI=\x1eb"
    assert WITH_ATTACHMENTS.messages == ['452-["é"]', b"\1\2", b""]
    assert (WITH_ATTACHMENTS.count, WITH_ATTACHMENTS.size) == (3, 12)


def test_each_form_is_made_once_and_shared() -> None:
    packet = EncodedPacket(b"42[]", (b"x",))
    assert packet.frames is packet.frames
    assert packet.payload is packet.payload


@pytest.mark.parametrize(
    ("message", "frame"), [("", b"\x81\x014"), ("é", b"\x81\x034\xc3\xa9"), (b"\0", b"\x82\x01\0")]
)
def test_an_engine_message_is_text_with_its_type_or_plain_binary(message: str | bytes, frame: bytes) -> None:
    assert EncodedPacket.message(message).frames == frame
    assert EncodedPacket.message(message, compress=False).compress is False


def test_mutable_bytes_are_copied() -> None:
    content = bytearray(b"before")
    packet = EncodedPacket.message(content)
    content[:] = b"after!"
    assert packet.attachments == (b"before",)


def test_a_text_without_utf_8_is_an_encode_error() -> None:
    with pytest.raises(_errors.EncodeError, match="surrogates not allowed"):
        EncodedPacket.message("\ud83d")


@pytest.mark.parametrize(("packet", "text"), [(PING, b"2"), (NOOP, b"6"), (CLOSE, b"1"), (PROBE_PONG, b"3probe")])
def test_the_packets_of_the_engine_are_their_digit(packet: EncodedPacket, text: bytes) -> None:
    assert (packet.payload, packet.attachments) == (text, ())


@given(st.lists(encoded_packets))
def test_the_joined_forms_hold_every_message_in_order(packets: list[EncodedPacket]) -> None:
    messages = [message for packet in packets for message in packet.messages]
    assert join_frames(packets) == b"".join(
        encode_frame(TEXT, message.encode()) if isinstance(message, str) else encode_frame(BINARY, message)
        for message in messages
    )
    filled = [packet for packet in packets if packet.count]
    assert join_payload(filled) == b"\x1e".join(
        message.encode() if isinstance(message, str) else b"b" + b64encode(message) for message in messages
    )
    assert sum(packet.count for packet in packets) == len(messages)
    assert sum(packet.size for packet in packets) == sum(
        len(message.encode() if isinstance(message, str) else message) for message in messages
    )
