"""Engine.IO packets and payloads in every dialect, and Socket.IO packets of every parser."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_socketio._errors import EncodeError, RemoteProtocolError
from trio_socketio._wire.dialects import OCTETS, V4, V4_BASE64
from trio_socketio._wire.encoded import EncodedPacket
from trio_socketio._wire.engine_packets import EnginePacket, EnginePacketType
from trio_socketio._wire.engine_packets_v3 import V3, V3_BASE64
from trio_socketio._wire.jsonp import JSONPDialect
from trio_socketio._wire.msgpack import MsgpackParser
from trio_socketio._wire.parser import DefaultParser, check_packet_untrusted
from trio_socketio._wire.parser_v2 import ParserV2
from trio_socketio.testing.strategies import malformed_packets, packets

from ..wire.strategies import CODECS
from .damage import damaged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_socketio._wire.dialects import Dialect
    from trio_socketio._wire.packets import Packet
    from trio_socketio._wire.parser import Decoder, Parser

pytestmark = pytest.mark.fuzz

# Engine.IO

DIALECTS: list[Dialect] = [V4, V4_BASE64, V3, V3_BASE64]
EVERY_DIALECT = [*DIALECTS, *(JSONPDialect(dialect, "0") for dialect in DIALECTS)]

messages = st.lists(st.text(max_size=20) | st.binary(max_size=20), max_size=4)
text_pieces = st.text(max_size=3) | st.sampled_from(
    ["\x1e", "b", "b4", ":", "4", "6", "=", "-_", "\ud83d", "😀", "%F0"]
)
byte_pieces = st.binary(max_size=3) | st.sampled_from(
    [b"\x1e", b"b4", b"b", b"9" * 309, b":", b"\x00\x01\xff", b"\x01\x01\xff", b"d=", b"&", b"\\n", b"%1E", b"\xf0\x9f"]
)


def bodies(dialect: Dialect) -> st.SearchStrategy[bytes]:
    def encode(contents: Sequence[str | bytes]) -> bytes:
        valid = [message for message in contents if isinstance(message, bytes) or message.isprintable()]
        return dialect.encode_body([EncodedPacket.message(message) for message in valid]).content

    return messages.map(encode)


any_bodies = damaged(st.one_of([bodies(dialect) for dialect in DIALECTS]) | st.binary(), byte_pieces)


def check_engine_packet(packet: EnginePacket) -> None:
    assert isinstance(packet.type, EnginePacketType)
    if packet.type is EnginePacketType.MESSAGE:
        assert type(packet.data) in (str, bytes)
    else:
        assert packet.data is None or (type(packet.data) is str and packet.data)


def read_body(dialect: Dialect, body: bytes, octets: bool) -> tuple[list[EnginePacket], bool]:
    """The packets of a body, and whether all of it was understood."""
    found: list[EnginePacket] = []
    with suppress(RemoteProtocolError):
        for packet in dialect.iter_body_untrusted(body, octets):
            check_engine_packet(packet)
            found.append(packet)
        return found, True
    return found, False


@given(any_bodies, st.booleans())
def test_any_body_is_packets_and_perhaps_a_protocol_error(body: bytes, octets: bool) -> None:
    for dialect in EVERY_DIALECT:
        found, _ = read_body(dialect, body, octets and dialect.takes_octets)
        assert sum(1 + len(packet.data or "") for packet in found) <= len(body)


@given(any_bodies, st.booleans())
def test_messages_of_any_body_can_be_sent_back_as_they_were(body: bytes, octets: bool) -> None:
    for dialect in DIALECTS:
        found, _ = read_body(dialect, body, octets and dialect.takes_octets)
        said = [packet for packet in found if packet.type is EnginePacketType.MESSAGE]
        # Version 4 separates packets by a character that no message may have in it.
        if said and not any("\x1e" in packet.data for packet in said if isinstance(packet.data, str)):
            units = [EncodedPacket.message(packet.data) for packet in said if packet.data is not None]
            content, content_type = dialect.encode_body(units)
            assert read_body(dialect, content, content_type == OCTETS) == (said, True)


@given(damaged(st.sampled_from(["2probe", "4hello", "bAQID", "b4AQID", "6", ""]), text_pieces) | st.binary())
def test_any_message_is_an_engine_packet_or_a_protocol_error(message: str | bytes) -> None:
    for dialect in DIALECTS:
        with suppress(RemoteProtocolError):
            check_engine_packet(dialect.decode_message_untrusted(message))


@given(st.text(), messages)
def test_the_script_of_an_answer_has_nothing_of_the_query_but_digits(index: str, contents: list[str | bytes]) -> None:
    units = [EncodedPacket.message(m) for m in contents if isinstance(m, bytes) or m.isprintable()]
    script = JSONPDialect(V4, index).encode_body(units).content.decode()
    head, _, rest = script.partition("](")
    assert not head.removeprefix("___eio[").strip("0123456789")
    assert rest.endswith(");")
    assert isinstance(json.loads(rest.removesuffix(");")), str)
    assert not set(rest) & {"\u2028", "\u2029", "\n"}


# Socket.IO

DEFAULTS = [DefaultParser(json=codec) for codec in CODECS.values()]
MSGPACK = MsgpackParser()

packet_pieces = st.text(max_size=3) | st.sampled_from(
    ["2", "51-", "0", "/", ",", "[", '{"_placeholder":true,"num":0}', "1e999", "9" * 20, '"\\ud800"', "null", "?a=1&a"]
)
binary_pieces = st.binary(max_size=3) | st.sampled_from(
    [b"\xd4\0\0", b"\xd7\0" + b"\x7f" * 8, b"\xc7\x01\x00x", b"\xd6\xff\0\0\0\0", b"\x91", b"\x81\xa0", b"\xa4type\x02"]
)


def messages_of(parser: Parser, packet: Packet) -> list[str | bytes]:
    encoded = parser.encode(packet)
    text = [] if encoded.text is None else [encoded.text[1:].decode()]
    return [*text, *encoded.attachments]


def packed(packet: Packet) -> bytes:
    return MSGPACK.encode(packet).attachments[0]


def in_disorder(*parts: st.SearchStrategy[list[str | bytes]]) -> st.SearchStrategy[list[str | bytes]]:
    return st.lists(st.one_of(parts), max_size=4).map(lambda lists: list(chain(*lists)))


def alone(message: str | bytes) -> list[str | bytes]:
    return [message]


in_text = packets().map(lambda packet: messages_of(DEFAULTS[0], packet))
text_streams = in_disorder(
    in_text,
    damaged(in_text.map(lambda sent: str(sent[0])), packet_pieces).map(alone),
    malformed_packets().map(lambda text: alone(text[1:])),
    st.binary(max_size=9).map(alone),
)
packed_streams = in_disorder(
    packets().map(packed).map(alone),
    damaged(packets().map(packed), binary_pieces).map(alone),
    st.sampled_from(["", '2["a"]']).map(alone),
)


def decode_all(decoder: Decoder, stream: Sequence[str | bytes]) -> list[Packet | str | None]:
    """What each message leads to: a packet, the text of an error, or nothing yet."""
    results: list[Packet | str | None] = []
    for message in stream:
        before = decoder.pending_bytes
        try:
            packet = decoder.add_untrusted(message)
        except RemoteProtocolError as error:
            assert decoder.pending_bytes == 0
            results.append(str(error))
            continue
        results.append(packet)
        assert decoder.pending_bytes == (before + len(message) if packet is None else 0)
    return results


@given(text_streams)
def test_any_messages_are_packets_or_protocol_errors_the_same_on_all_back_ends_of_json(stream: Any) -> None:
    results = [decode_all(parser.decoder(), stream) for parser in DEFAULTS]
    assert [repr(result) for result in results] == [repr(results[0])] * len(DEFAULTS)
    decode_all(ParserV2(DEFAULTS[0]).decoder(), stream)
    for parser in DEFAULTS:
        check_all_come_back(parser, results[0])


@given(packed_streams)
def test_any_messages_in_msgpack_are_packets_or_protocol_errors(stream: Any) -> None:
    decode_all(ParserV2(MSGPACK).decoder(), stream)
    check_all_come_back(MSGPACK, decode_all(MSGPACK.decoder(), stream))


def check_all_come_back(parser: Parser, results: list[Packet | str | None]) -> None:
    for packet in results:
        if packet is None or isinstance(packet, str):
            continue
        check_packet_untrusted(packet)
        # What looks like a placeholder cannot be sent beside an attachment; nor can eleven times the same one.
        with suppress(EncodeError):
            sent = messages_of(parser, packet)
            again = decode_all(parser.decoder(), sent)[-1]
            assert repr(again) == repr(packet)  # NaN, which msgpack has, is not equal to itself
