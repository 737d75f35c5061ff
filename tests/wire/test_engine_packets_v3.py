from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_socketio import _errors
from trio_socketio._wire.dialects import OCTETS, TEXT, V4, V4_BASE64
from trio_socketio._wire.encoded import CLOSE, NOOP, PONG, EncodedPacket
from trio_socketio._wire.engine_packets import EnginePacket, EnginePacketType
from trio_socketio._wire.engine_packets_v3 import (
    MAX_LENGTH_DIGITS,
    V3,
    V3_BASE64,
    decode_packet_untrusted,
    iter_binary_payload_untrusted,
    iter_payload_untrusted,
)

from .timing import assert_linear

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MESSAGE = EnginePacketType.MESSAGE
EVENT = EncodedPacket('452-["é\U0001f600"]'.encode(), (b"\1\2\3", b""))

texts = st.text(st.characters(exclude_categories=["Cs"]))
messages = st.lists(texts | st.binary(), min_size=1)


def text(content: str) -> EnginePacket:
    return EnginePacket(MESSAGE, content)


def all_of(packets: Iterator[EnginePacket]) -> tuple[list[EnginePacket], str | None]:
    """The packets, and what is wrong after them."""
    found = []
    try:
        for packet in packets:
            found.append(packet)
    except _errors.RemoteProtocolError as error:
        return found, str(error)
    return found, None


def binary_part(kind: int, content: bytes) -> bytes:
    return bytes([kind, *map(int, str(len(content))), 255]) + content


@pytest.mark.parametrize(
    ("message", "packet"),
    [
        ("4hello", text("hello")),
        ("4", text("")),
        ("2probe", EnginePacket(EnginePacketType.PING, "probe")),
        ("3", EnginePacket(EnginePacketType.PONG)),
        ("5", EnginePacket(EnginePacketType.UPGRADE)),
        ("b4AQIDBA==", EnginePacket(MESSAGE, b"\1\2\3\4")),
        ("b4", EnginePacket(MESSAGE, b"")),
        (b"\4\1\2\3\4", EnginePacket(MESSAGE, b"\1\2\3\4")),
        (b"\4", EnginePacket(MESSAGE, b"")),
    ],
)
def test_packet_is_decoded(message: str | bytes, packet: EnginePacket) -> None:
    assert decode_packet_untrusted(message) == packet


@pytest.mark.parametrize("message", ["", "7", "a123", "{}", "b", "b2AQID", "bAQID", "b4!", b"", b"\2", b"4a", b"\xff"])
def test_what_is_no_packet_is_refused(message: str | bytes) -> None:
    with pytest.raises(_errors.RemoteProtocolError):
        decode_packet_untrusted(message)


@pytest.mark.parametrize(
    ("body", "packets"),
    [
        ("6:4hello2:4€", [text("hello"), text("€")]),
        ("1:21:1", [EnginePacket(EnginePacketType.PING), EnginePacket(EnginePacketType.CLOSE)]),
        ("3:4\U0001f6002:4x", [text("\U0001f600"), text("x")]),
        ("0:1:40:", [text("")]),
        ("0:", []),
        ("002:4x", [text("x")]),
        ("10:b4AQIDBA==", [EnginePacket(MESSAGE, b"\1\2\3\4")]),
        ("2:b4", [EnginePacket(MESSAGE, b"")]),
        ("4:41:2", [text("1:2")]),
    ],
)
def test_text_payload_is_decoded(body: str, packets: list[EnginePacket]) -> None:
    assert all_of(iter_payload_untrusted(body)) == (packets, None)


@pytest.mark.parametrize(
    "rest",
    [
        "4hello",
        ":4x",
        "x:4x",
        "-1:4x",
        "1e0:4",
        "1.0:4",
        " 1:4",
        "٣:4xy",
        "²:4x",
        "1",
        "12",
        "3:4x",
        "1:",
        "1:9",
        "0:7",
        "2:4\U0001f600",
        "0" * MAX_LENGTH_DIGITS + "1:4",
        "9" * MAX_LENGTH_DIGITS + ":4",
        "9" * 100_000 + ":4",
    ],
)
def test_text_payload_is_decoded_up_to_its_first_error(rest: str) -> None:
    packets, error = all_of(iter_payload_untrusted(f"2:4a{rest}"))
    assert packets == [text("a")]
    assert error


@pytest.mark.parametrize("payload", [iter_payload_untrusted(""), iter_binary_payload_untrusted(b"")])
def test_empty_payload_is_refused(payload: Iterator[EnginePacket]) -> None:
    packets, error = all_of(payload)
    assert packets == []
    assert error


@pytest.mark.parametrize(
    ("body", "packets"),
    [
        (
            b"\0\6\xff4hello\1\5\xff\4\1\2\3\4",
            [text("hello"), EnginePacket(MESSAGE, b"\1\2\3\4")],
        ),
        (b"\0\4\xff4\xe2\x82\xac", [text("€")]),
        (b"\0\0\0\1\xff2", [EnginePacket(EnginePacketType.PING)]),
        (b"\0\1\0\xff4" + b"x" * 9, [text("x" * 9)]),
        (b"\1\1\xff\4", [EnginePacket(MESSAGE, b"")]),
    ],
)
def test_binary_payload_is_decoded(body: bytes, packets: list[EnginePacket]) -> None:
    assert all_of(iter_binary_payload_untrusted(body)) == (packets, None)


@pytest.mark.parametrize(
    "rest",
    [
        b"\0",
        b"\0\xff",
        b"\0\1",
        b"\0\2\xff4",
        b"\0\x0a\xff4",
        b"\0" + b"1" + b"\xff4",
        b"\0\0\xff",
        b"\1\0\xff",
        b"\2\1\xff4",
        b"4x",
        b"\1\2\xff\2x",
        b"\0\2\xff4\xff",
        b"\0" + b"\0" * MAX_LENGTH_DIGITS + b"\1\xff4",
        b"\0" + b"\x09" * MAX_LENGTH_DIGITS + b"\xff4",
        b"\0" + b"\x09" * 100_000 + b"\xff4",
    ],
)
def test_binary_payload_is_decoded_up_to_its_first_error(rest: bytes) -> None:
    packets, error = all_of(iter_binary_payload_untrusted(b"\0\2\xff4a" + rest))
    assert packets == [text("a")]
    assert error


def test_length_of_as_many_digits_as_javascript_has_numbers_is_read() -> None:
    assert all_of(iter_payload_untrusted("0" * (MAX_LENGTH_DIGITS - 1) + "1:4")) == ([text("")], None)
    body = b"\0" + b"\0" * (MAX_LENGTH_DIGITS - 1) + b"\1\xff4"
    assert all_of(iter_binary_payload_untrusted(body)) == ([text("")], None)


@given(messages)
def test_messages_survive_both_forms_of_a_payload(contents: list[str | bytes]) -> None:
    packets = [EncodedPacket.message(content) for content in contents]
    expected = [EnginePacket(MESSAGE, content) for content in contents]
    for dialect in (V3, V3_BASE64):
        body, content_type = dialect.encode_body(packets)
        assert list(dialect.iter_body_untrusted(body, content_type == OCTETS)) == expected


@given(st.lists(texts, min_size=1))
def test_lengths_of_a_text_payload_are_what_javascript_counts(contents: list[str]) -> None:
    body = V3.encode_body([EncodedPacket.message(content) for content in contents]).content.decode()
    expected = "".join(f"{1 + len(content.encode('utf-16-le')) // 2}:4{content}" for content in contents)
    assert body == expected


@given(messages)
def test_every_beginning_of_a_payload_brings_the_packets_that_are_whole(contents: list[str | bytes]) -> None:
    packets = [EncodedPacket.message(content) for content in contents]
    expected = [EnginePacket(MESSAGE, content) for content in contents]
    units = V3_BASE64.encode_body(packets).content.decode()
    octets = V3.encode_body(packets).content
    for size in range(1, len(units)):
        assert_beginning(all_of(iter_payload_untrusted(units[:size])), expected)
    if any(isinstance(content, bytes) for content in contents):
        for size in range(1, len(octets)):
            assert_beginning(all_of(iter_binary_payload_untrusted(octets[:size])), expected)


def assert_beginning(got: tuple[list[EnginePacket], str | None], whole: list[EnginePacket]) -> None:
    packets, error = got
    assert packets == whole[: len(packets)]
    assert error is not None or len(packets) < len(whole)


@given(messages, st.text(max_size=5))
def test_a_tail_leaves_the_packets_before_it_alone(contents: list[str | bytes], tail: str) -> None:
    packets = [EncodedPacket.message(content) for content in contents]
    expected = [EnginePacket(MESSAGE, content) for content in contents]
    body = V3_BASE64.encode_body(packets).content.decode()
    assert all_of(iter_payload_untrusted(body + tail))[0][: len(expected)] == expected


@given(st.text(st.characters(exclude_categories=())) | st.text(st.sampled_from("0123:4b\U0001f600\ud83d")))
def test_any_text_is_a_payload_or_a_protocol_error(body: str) -> None:
    packets, error = all_of(iter_payload_untrusted(body))
    assert all(isinstance(packet.type, EnginePacketType) for packet in packets)
    assert body or error


@given(st.binary() | st.lists(st.sampled_from([b"\0", b"\1", b"\4", b"\xff", b"4", b"b"])).map(b"".join))
def test_any_bytes_are_a_payload_or_a_protocol_error(body: bytes) -> None:
    packets, error = all_of(iter_binary_payload_untrusted(body))
    assert all(isinstance(packet.type, EnginePacketType) for packet in packets)
    assert body or error


@pytest.mark.parametrize(
    ("packets", "body"),
    [
        ([PONG], "1:3"),
        ([NOOP, CLOSE], "1:61:1"),
        ([EncodedPacket(b"4hello"), EncodedPacket("4€".encode())], "6:4hello2:4€"),
        ([EVENT], '11:452-["é\U0001f600"]6:b4AQID2:b4'),
    ],
)
def test_text_payload_is_encoded(packets: list[EncodedPacket], body: str) -> None:
    assert V3_BASE64.encode_body(packets) == (body.encode(), TEXT)


def test_payload_with_bytes_is_binary_as_a_whole_for_clients_that_take_it() -> None:
    assert EVENT.text is not None
    parts = [(0, EVENT.text), (1, b"\4\1\2\3"), (1, b"\4"), (0, b"3")]
    body = b"".join(binary_part(*part) for part in parts)
    assert V3.encode_body([EVENT, PONG]) == (body, OCTETS)
    assert V3.encode_body([PONG]) == (b"1:3", TEXT)


def messages_of(packets: Iterable[EncodedPacket]) -> list[str | bytes]:
    return [message for packet in packets for message in packet.messages]


@pytest.mark.parametrize(
    ("dialect", "attachments"),
    [
        (V3, [b"\4\1\2\3", b"\4"]),
        (V3_BASE64, ["b4AQID", "b4"]),
        (V4, [b"\1\2\3", b""]),
        (V4_BASE64, ["bAQID", "b"]),
    ],
)
def test_websocket_messages_are_those_of_the_dialect(dialect: Any, attachments: list[str | bytes]) -> None:
    assert messages_of(dialect.for_websocket([EVENT, PONG])) == ['452-["é\U0001f600"]', *attachments, "3"]
    assert messages_of(dialect.for_websocket([EncodedPacket(None, (b"\1\2\3", b""))])) == attachments


@given(messages)
def test_messages_survive_websockets(contents: list[str | bytes]) -> None:
    packets = [EncodedPacket.message(content) for content in contents]
    for dialect in (V3, V3_BASE64, V4, V4_BASE64):
        sent = messages_of(dialect.for_websocket(packets))
        assert [dialect.decode_message_untrusted(message).data for message in sent] == contents
        assert not dialect.plain_frames or sent == messages_of(packets)


def test_each_form_is_made_once_for_all_clients() -> None:
    packet = EncodedPacket(b"451-[]", (b"x",))
    (first,), (second,) = V3.for_websocket([packet]), V3.for_websocket([packet])
    assert first is second
    assert first.frames is second.frames
    made: list[EncodedPacket] = []
    make = made.append
    packet.form(make)
    packet.form(make)
    assert made == [packet]


def test_packet_without_bytes_is_the_same_for_old_and_new_clients() -> None:
    packet = EncodedPacket(b"42[]")
    assert list(V3.for_websocket([packet])) == [packet]


def test_what_may_not_be_compressed_is_not_in_any_form() -> None:
    packet = EncodedPacket(b"451-[]", (b"x",), compress=False)
    for dialect in (V3, V3_BASE64, V4_BASE64):
        assert not any(part.compress for part in dialect.for_websocket([packet]))


def test_decoding_is_linear() -> None:
    assert_linear(lambda size: "1:4" * size, lambda body: all_of(iter_payload_untrusted(body)))
    assert_linear(lambda size: "3:4\U0001f600" * size, lambda body: all_of(iter_payload_untrusted(body)))
    assert_linear(lambda size: "9" * 100 * size, lambda body: all_of(iter_payload_untrusted(body)))
    assert_linear(lambda size: "0:" * size, lambda body: all_of(iter_payload_untrusted(body)))
    assert_linear(lambda size: b"\0\1\xff4" * size, lambda body: all_of(iter_binary_payload_untrusted(body)))
    assert_linear(lambda size: b"\x09" * 100 * size, lambda body: all_of(iter_binary_payload_untrusted(body)))


def test_ten_thousand_packets_arrive_in_order() -> None:
    packets = [EncodedPacket.message(str(number)) for number in range(10_000)]
    body = V3.encode_body(packets).content
    assert [packet.data for packet in V3.iter_body_untrusted(body, octets=False)] == list(map(str, range(10_000)))


@given(st.binary())
def test_base64_of_a_binary_packet_is_the_standard_one(content: bytes) -> None:
    packet = EncodedPacket.message(content)
    part = f"b4{b64encode(content).decode()}"
    assert V3_BASE64.encode_body([packet]).content.decode() == f"{len(part)}:{part}"
