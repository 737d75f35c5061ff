from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_socketio import _errors
from trio_socketio._wire.encoded import EncodedPacket, join_payload
from trio_socketio._wire.engine_packets import (
    EnginePacket,
    EnginePacketType,
    decode_packet_untrusted,
    encode_open,
    iter_payload_untrusted,
)

from .strategies import golden
from .timing import assert_linear

MESSAGE = EnginePacketType.MESSAGE

#: Not base64. The reference takes from it what it can.
STRICTER = {"bA", "b!!!!", "bAQ ID", "bé"}


def packets_before_error(body: str) -> tuple[list[EnginePacket], str | None]:
    packets = []
    try:
        for packet in iter_payload_untrusted(body):
            packets.append(packet)
    except _errors.RemoteProtocolError as error:
        return packets, str(error)
    return packets, None


def as_golden(packet: EnginePacket) -> dict[str, Any]:
    # The reference has no data for an empty message; here it is the empty text.
    without_data = packet.data is None or (packet.type is MESSAGE and packet.data == "")
    content = {} if without_data else {"data": packet.data}
    return {"type": packet.type.name.lower(), **content}


@pytest.mark.parametrize("row", golden("engine.io-parser packet"), ids=lambda row: row["message"])
def test_a_packet_is_what_the_reference_makes_of_it(row: dict[str, Any]) -> None:
    message = row["message"]
    if row["type"] == "error" or message in STRICTER:
        with pytest.raises(_errors.RemoteProtocolError):
            decode_packet_untrusted(message)
    else:
        assert {"message": message, **as_golden(decode_packet_untrusted(message))} == row


@pytest.mark.parametrize("row", golden("engine.io-parser payload"), ids=lambda row: repr(row["body"]))
def test_a_payload_is_what_the_reference_makes_of_it(row: dict[str, Any]) -> None:
    packets, error = packets_before_error(row["body"])
    expected = [packet for packet in row["packets"] if packet["type"] != "error"]
    assert [as_golden(packet) for packet in packets] == expected
    assert (error is not None) == (len(expected) < len(row["packets"]))


@pytest.mark.parametrize(
    ("message", "packet"),
    [
        ("4", EnginePacket(MESSAGE, "")),
        ("2", EnginePacket(EnginePacketType.PING, None)),
        ("2probe", EnginePacket(EnginePacketType.PING, "probe")),
        (b"", EnginePacket(MESSAGE, b"")),
        (b"4hello", EnginePacket(MESSAGE, b"4hello")),
        ("b", EnginePacket(MESSAGE, b"")),
    ],
)
def test_absent_data_is_empty_for_a_message_and_none_otherwise(message: str | bytes, packet: EnginePacket) -> None:
    assert decode_packet_untrusted(message) == packet


@given(st.binary())
def test_base64_needs_neither_padding_nor_the_standard_alphabet(content: bytes) -> None:
    for encoded in (b64encode(content), urlsafe_b64encode(content)):
        for text in (encoded.decode(), encoded.decode().rstrip("="), encoded.decode() + "="):
            assert decode_packet_untrusted("b" + text) == EnginePacket(MESSAGE, content)


@pytest.mark.parametrize("text", ["A", "AAAAA", "AA=AA", "A A=", "AQID\n", "AQ\u00e9D", "\ud800", "*"])
def test_what_is_not_base64_is_refused(text: str) -> None:
    with pytest.raises(_errors.RemoteProtocolError, match="invalid base64"):
        decode_packet_untrusted("b" + text)


@given(st.text(st.characters(exclude_categories=())) | st.binary())
def test_any_message_is_a_packet_or_a_protocol_error(message: str | bytes) -> None:
    try:
        packet = decode_packet_untrusted(message)
    except _errors.RemoteProtocolError:
        assert isinstance(message, str)
    else:
        assert isinstance(packet.type, EnginePacketType)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x1e")) | st.binary(), min_size=1))
def test_messages_survive_a_polling_body(messages: list[str | bytes]) -> None:
    body = join_payload([EncodedPacket.message(message) for message in messages]).decode()
    assert list(iter_payload_untrusted(body)) == [EnginePacket(MESSAGE, message) for message in messages]


@given(st.lists(st.text(st.sampled_from("4b2 xA=\x1e"))).map("\x1e".join))
def test_packets_before_the_first_bad_one_are_yielded(body: str) -> None:
    parts = body.split("\x1e")
    packets, error = packets_before_error(body)
    assert packets == [decode_packet_untrusted(part) for part in parts[: len(packets)]]
    if error is None:
        assert len(packets) == len(parts)
    else:
        with pytest.raises(_errors.RemoteProtocolError):
            decode_packet_untrusted(parts[len(packets)])


def test_a_payload_is_decoded_no_further_than_it_is_asked_for() -> None:
    payload = iter_payload_untrusted("4a\x1ex")
    assert next(payload) == EnginePacket(MESSAGE, "a")
    with pytest.raises(_errors.RemoteProtocolError):
        next(payload)
    with pytest.raises(StopIteration):
        next(payload)


def test_ten_thousand_packets_arrive_in_order() -> None:
    body = "\x1e".join(f"4{number}" for number in range(10_000))
    assert [packet.data for packet in iter_payload_untrusted(body)] == [str(number) for number in range(10_000)]


def test_decoding_is_linear() -> None:
    assert_linear(lambda size: "\x1e".join(["4"] * size), packets_before_error)
    assert_linear(lambda size: "b" + "A" * 100 * size, packets_before_error)
    assert_linear(lambda size: "b" + "=" * 100 * size, packets_before_error)


def test_open_packet_has_the_order_and_the_units_of_the_protocol() -> None:
    assert encode_open("lv_VI97HAXpY6yYWAAAC", ["websocket"], 25.0, 20.0, 1_000_000) == (
        b'0{"sid":"lv_VI97HAXpY6yYWAAAC","upgrades":["websocket"],'
        b'"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}'
    )


@given(st.text(), st.lists(st.text()), st.floats(0.001, 1e6), st.floats(0.001, 1e6), st.integers(1, 10**9))
def test_open_packet_is_json_with_whole_milliseconds(
    sid: str, upgrades: list[str], interval: float, timeout: float, size: int
) -> None:
    packet = encode_open(sid, tuple(upgrades), interval, timeout, size)
    assert packet[:1] == b"0"
    handshake = json.loads(packet[1:])
    assert handshake == {
        "sid": sid,
        "upgrades": upgrades,
        "pingInterval": pytest.approx(interval * 1000, abs=0.5),
        "pingTimeout": pytest.approx(timeout * 1000, abs=0.5),
        "maxPayload": size,
    }
    assert all(isinstance(handshake[key], int) for key in ("pingInterval", "pingTimeout"))
