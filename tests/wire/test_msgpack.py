from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_socketio import EncodeError, RemoteProtocolError
from trio_socketio._wire.json import MAX_DEPTH
from trio_socketio._wire.msgpack import MsgpackParser
from trio_socketio._wire.packets import RESERVED_EVENTS, Packet, PacketType
from trio_socketio._wire.parser import MAX_NAMESPACE_LENGTH, check_packet_untrusted

from .timing import assert_linear

pack: Any = msgpack.packb  # it says that it may return None

CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR, BINARY_EVENT, BINARY_ACK = PacketType

#: What socket.io-msgpack-parser 3.0.2 (with notepack.io 2.2.0) makes of packets, in hexadecimal digits.
GOLDEN: dict[str, str] = json.loads(Path(__file__).with_name("golden_msgpack.json").read_text(encoding="utf-8"))

NAN, INFINITY = float("nan"), float("inf")
INTEGERS = [
    *(0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**53 - 1),
    *(-1, -32, -33, -128, -129, -(2**15), -(2**15) - 1, -(2**31), -(2**31) - 1, -(2**53) + 1),
]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)

#: Those packets here.
PACKETS = {
    "connect without data": Packet(CONNECT, "/"),
    "connect": Packet(CONNECT, "/admin", {"token": "123"}),
    "disconnect": Packet(DISCONNECT, "/"),
    "event": Packet(EVENT, "/", ["chat", "hello", 1]),
    "event with id": Packet(EVENT, "/admin", ["q"], 0),
    "ack": Packet(ACK, "/", [None, True, False], 456),
    "connect_error": Packet(CONNECT_ERROR, "/", {"message": "no"}),
    "numbers": Packet(EVENT, "/", ["n", *INTEGERS, 1.5, -0.5, NAN, INFINITY, -INFINITY]),
    "texts": Packet(EVENT, "/", ["t", "", "é☃𝄞", *("x" * length for length in (31, 32, 255, 256))]),
    "binary": Packet(EVENT, "/", ["b", b"", b"\x01\x02\x03", {"deep": [b"\x00\xff"]}]),
    "array buffers": Packet(EVENT, "/", ["b", b"", b"\0", b"\x01\x02", bytes(range(1, 9)), b"\x07" * 16]),
    "undefined": Packet(EVENT, "/", ["u", None, {"a": None}]),
    "dates": Packet(EVENT, "/", ["d", EPOCH, EPOCH + 1700000000123 * MILLISECOND, EPOCH - MILLISECOND]),
    "dates among array buffers": Packet(
        EVENT,
        "/",
        ["m", "text", b"\0", None, b"\0" * 7 + b"\1", EPOCH + MILLISECOND, b"\xd7\0", EPOCH + 2 * MILLISECOND],
    ),
    "nested": Packet(EVENT, "/", ["x", {"a": [{"b": []}], "c": {}}, [[[]]]]),
}
#: Those that both sides encode to the very same bytes: the others have options, or what only JavaScript sends.
ALIKE = ["connect", "disconnect", "connect_error", "numbers", "texts", "binary", "dates", "nested"]

texts = st.text(max_size=40)
dates = st.datetimes(timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | texts
    | st.binary(max_size=20)
    | dates
)
values = st.recursive(
    scalars,
    lambda children: st.lists(children, max_size=5) | st.dictionaries(texts, children, max_size=5),
    max_leaves=20,
)
namespaces = st.text(max_size=30).map(lambda name: f"/{name}")
ack_ids = st.integers(0, 2**64 - 1)
events = st.builds(
    lambda name, args: [name, *args],
    (texts | st.integers(-(2**63), 2**64 - 1)).filter(lambda name: name not in RESERVED_EVENTS),
    st.lists(values, max_size=4),
)
objects = st.dictionaries(texts, values, max_size=3)
packets = st.one_of(
    st.builds(Packet, st.just(EVENT), namespaces, events, st.none() | ack_ids),
    st.builds(Packet, st.just(ACK), namespaces, st.lists(values, max_size=4), ack_ids),
    st.builds(Packet, st.just(CONNECT), namespaces, st.none() | objects, st.none()),
    st.builds(Packet, st.just(DISCONNECT), namespaces, st.none(), st.none()),
    st.builds(Packet, st.just(CONNECT_ERROR), namespaces, texts | objects, st.none()),
)


#: Fields, the name of one more, values of which none is allowed there, and the error.
REFUSED: list[tuple[dict[str, Any], str, list[Any], str]] = [
    ({}, "type", [5, 6, 7, -1, 2**64 - 1, True, 2.0, "2", None, []], "invalid packet type"),
    ({}, "nsp", [None, 1, b"/", "", "admin", ["/"], "/" * (MAX_NAMESPACE_LENGTH + 1)], "invalid namespace"),
    ({}, "id", [-1, 1.0, "1", True, [], b"1"], "invalid packet id"),
    ({}, "data", [[name] for name in sorted(RESERVED_EVENTS)], "invalid payload"),
    ({}, "data", [[None], [True], [b"x"], [[]], [{}]], "invalid payload"),
    ({}, "data", [None, [], {}, "x", 1, b"x"], "invalid payload"),
    ({"type": 3}, "data", [None, {}, "x", 1], "invalid payload"),
    ({"type": 0}, "data", [[], "x", 1, b"x", False], "invalid payload"),
    ({"type": 1}, "data", [[], {}, "", 0], "invalid payload"),
    ({"type": 4}, "data", [None, [], 1, b"x"], "invalid payload"),
]


def encode(packet: Packet) -> bytes:
    (message,) = MsgpackParser().encode(packet).messages
    assert isinstance(message, bytes)
    return message


def decode(message: Any) -> Packet:
    packet = MsgpackParser().decoder().add_untrusted(message)
    assert packet is not None
    return packet


def packed(**fields: Any) -> bytes:
    """A message with these fields, and those that an event needs."""
    return bytes(pack({"type": 2, "nsp": "/", "data": ["x"]} | fields))


def event_of(argument: bytes) -> bytes:
    """An event whose argument is this, encoded."""
    return b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data\x92\xa1x" + argument


class TestAgainstTheReference:
    @pytest.mark.parametrize("name", GOLDEN)
    def test_a_packet_is_decoded_alike(self, name: str) -> None:
        assert repr(decode(bytes.fromhex(GOLDEN[name]))) == repr(PACKETS[name])  # NaN has no equal

    @pytest.mark.parametrize("name", ALIKE)
    def test_a_packet_is_encoded_alike(self, name: str) -> None:
        assert encode(PACKETS[name]).hex() == GOLDEN[name]


class TestEncoding:
    def test_a_packet_is_one_binary_message(self) -> None:
        encoded = MsgpackParser().encode(Packet(EVENT, "/", ["x", b"a", b"b"]), compress=False)
        assert (encoded.text, encoded.count, encoded.compress) == (None, 1, False)
        assert encoded.frames[0] == 0x82
        assert encoded.payload[:1] == b"b"

    def test_bytes_are_in_packets_of_every_type(self) -> None:
        for packet in (Packet(CONNECT, "/", {"a": b"1"}), Packet(CONNECT_ERROR, "/", {"message": "", "data": b"1"})):
            assert decode(encode(packet)) == packet

    def test_any_number_of_bytes_are_in_one_packet(self) -> None:
        packet = Packet(EVENT, "/", ["x", *[b"1"] * 1000])
        assert decode(encode(packet)) == packet

    def test_values_have_the_forms_that_they_have_in_json(self) -> None:
        class Point(NamedTuple):
            x: int
            y: int

        class Color(Enum):
            RED = "red"

        class Level(IntEnum):
            HIGH = 3

        class Name(str):
            pass

        @dataclass
        class User:
            name: str
            _secret: int = 0

        given: dict[Any, Any] = {
            "tuples": [(1,), Point(1, 2)],
            "enums": [Color.RED, Level.HIGH],
            "subclass": Name("n"),
            "dataclass": User("u"),
            "uuid": UUID(int=1),
            "date": date(2024, 1, 2),
            "naive": datetime(2024, 1, 2, 3, 4, 5),
            "bytes": [bytearray(b"a"), memoryview(b"abcd")[::2]],
            1: None,
            2.5: None,
            False: None,
            None: None,
        }
        assert decode(encode(Packet(EVENT, "/", ["x", given]))).data[1] == {
            "tuples": [[1], [1, 2]],
            "enums": ["red", 3],
            "subclass": "n",
            "dataclass": {"name": "u"},
            "uuid": "00000000-0000-0000-0000-000000000001",
            "date": "2024-01-02",
            "naive": "2024-01-02T03:04:05",
            "bytes": [b"a", b"ac"],
            "1": None,
            "2.5": None,
            "false": None,
            "null": None,
        }

    def test_a_datetime_of_any_zone_is_its_moment(self) -> None:
        noon = datetime(2024, 1, 2, 12, tzinfo=timezone(timedelta(hours=2)))
        (_, arrived) = decode(encode(Packet(EVENT, "/", ["x", noon]))).data
        assert arrived == noon
        assert arrived.tzinfo is UTC

    @pytest.mark.parametrize(
        ("value", "error"),
        [
            (2**64, "an integer is beyond 64 bits"),
            (-(2**63) - 1, "an integer is beyond 64 bits"),
            (Decimal(1), "a value of type decimal.Decimal has no JSON form"),
            ({1, 2}, "a value of type set has no JSON form"),
            ("\ud800", "surrogates not allowed"),
            ({b"key": 1}, "a key of an object is a str"),
            ({(1, 2): 1}, "a key of an object is a str"),
        ],
    )
    def test_what_has_no_form_is_refused(self, value: Any, error: str) -> None:
        with pytest.raises(EncodeError, match=error):
            MsgpackParser().encode(Packet(EVENT, "/", ["x", {"deep": [value]}]))

    def test_circular_data_is_refused(self) -> None:
        circular: list[Any] = []
        circular.append(circular)
        with pytest.raises(EncodeError, match="circular"):
            MsgpackParser().encode(Packet(EVENT, "/", ["x", circular]))

    def test_without_the_package_the_error_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "msgpack", None)
        with pytest.raises(ImportError, match=r"trio-socketio\[msgpack\]"):
            MsgpackParser()


class TestDecoding:
    def test_nothing_is_ever_half_received(self) -> None:
        decoder = MsgpackParser().decoder()
        assert decoder.pending_bytes == 0
        with pytest.raises(RemoteProtocolError):
            decoder.add_untrusted(packed()[:-1])
        decoder.reset()
        assert decoder.add_untrusted(packed()) == Packet(EVENT, "/", ["x"])

    def test_any_buffer_is_a_message(self) -> None:
        assert decode(bytearray(packed())) == decode(memoryview(packed())) == Packet(EVENT, "/", ["x"])

    def test_data_and_id_may_be_nil(self) -> None:
        assert decode(packed(type=1, data=None, id=None)) == Packet(DISCONNECT, "/")

    def test_other_fields_are_ignored(self) -> None:
        assert decode(packed(options={"compress": True}, attachments=3)) == Packet(EVENT, "/", ["x"])

    def test_standard_timestamps_are_datetimes(self) -> None:
        moment = datetime(2024, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
        stamp = bytes(pack(moment, datetime=True))
        assert decode(event_of(b"\x93\xd7\0" + b"\0" * 8 + stamp + b"\xd4\0\0")).data[1] == [EPOCH, moment, None]

    @pytest.mark.parametrize(
        ("fields", "error"),
        [({**given, name: value}, error) for given, name, values, error in REFUSED for value in values],
    )
    def test_a_packet_that_is_none_is_refused(self, fields: dict[str, Any], error: str) -> None:
        with pytest.raises(RemoteProtocolError, match=f"^{error}$"):
            decode(packed(**fields))

    @pytest.mark.parametrize(
        "message",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"\x02", id="a number"),
            pytest.param(b"\x93\x02\xa1/\x90", id="an array"),
            pytest.param(packed() + b"\0", id="trailing bytes"),
            pytest.param(packed()[:-1], id="cut off"),
            pytest.param(b"\xc1", id="the unused byte"),
            pytest.param(event_of(b"\xdd\xff\xff\xff\xff"), id="an array of 4 billion"),
            pytest.param(event_of(b"\xdf\xff\xff\xff\xff"), id="a map of 4 billion"),
            pytest.param(event_of(b"\xc6\xff\xff\xff\xff"), id="4 gigabytes"),
            pytest.param(event_of(b"\xa1\xff"), id="not UTF-8"),
            pytest.param(event_of(b"\xa3\xed\xa0\x80"), id="a surrogate"),
            pytest.param(event_of(b"\x81\x01\x01"), id="a number as key"),
            pytest.param(event_of(b"\x81\xc4\x01x\x01"), id="bytes as key"),
            pytest.param(event_of(b"\x81\xd4\x00\x00\x01"), id="undefined as key"),
            pytest.param(event_of(b"\x81\x90\x01"), id="an array as key"),
            pytest.param(event_of(b"\xd4\x01\x00"), id="an unknown extension"),
            pytest.param(event_of(b"\xc7\x00\x7f"), id="an unknown extension without content"),
            pytest.param(event_of(b"\xd7\xfe" + b"\0" * 8), id="a negative extension"),
            pytest.param(event_of(b"\xd5\xff\0\0"), id="a timestamp of odd size"),
            pytest.param(event_of(b"\xc7\x0c\xff\0\0\0\0\x7f" + b"\xff" * 7), id="a timestamp in the far future"),
            pytest.param(event_of(b"\xd7\x00\x7f" + b"\xff" * 7), id="a date in the far future"),
            pytest.param(event_of(b"\xd7\x00\x80" + b"\x00" * 7), id="a date in the far past"),
        ],
    )
    def test_what_is_not_msgpack_as_clients_send_it_is_refused(self, message: bytes) -> None:
        with pytest.raises(RemoteProtocolError, match=r"^invalid payload$"):
            decode(message)

    @pytest.mark.parametrize("message", ['2["x"]', "", "\x82"])
    def test_text_is_refused(self, message: str) -> None:
        with pytest.raises(RemoteProtocolError, match="text"):
            decode(message)

    @pytest.mark.parametrize("container", [b"\x91", b"\x81\xa0"], ids=["arrays", "maps"])
    def test_depth_is_bounded(self, container: bytes) -> None:
        allowed = decode(event_of(container * (MAX_DEPTH - 1) + b"\x01"))
        assert decode(encode(allowed)) == allowed
        for depth in (MAX_DEPTH, 1_000, 100_000):
            with pytest.raises(RemoteProtocolError):
                decode(event_of(container * depth + b"\x01"))
        with pytest.raises(EncodeError, match="nested deeper"):
            MsgpackParser().encode(Packet(ACK, "/", [allowed.data], 1))

    def test_many_containers_side_by_side_are_not_depth(self) -> None:
        assert len(decode(packed(data=["x", *[[]] * 1000])).data) == 1001

    def test_time_is_linear(self) -> None:
        decoder = MsgpackParser().decoder()
        assert_linear(lambda n: packed(data=["x", [[{}] * n, EPOCH.isoformat()]]), decoder.add_untrusted)
        assert_linear(lambda n: event_of(b"\xdd" + n.to_bytes(4) + b"\xd4\0\0" * n), decoder.add_untrusted)


#: Encoded values and what they are, of all the forms of notepack.
forms = st.one_of(
    st.tuples(st.just(b"\xd4\0\0"), st.none()),
    st.integers(-(10**13), 10**13).map(lambda n: (b"\xd7\0" + n.to_bytes(8, signed=True), EPOCH + n * MILLISECOND)),
    st.binary(max_size=20).map(lambda buffer: (b"\xc7" + bytes([len(buffer), 0]) + buffer, buffer)),
    st.sampled_from([b"12345678", b"1"]).map(
        lambda buffer: (b"\xc8" + len(buffer).to_bytes(2) + b"\0" + buffer, buffer)
    ),
    st.sampled_from([b"12345678", b"1"]).map(
        lambda buffer: (b"\xc9" + len(buffer).to_bytes(4) + b"\0" + buffer, buffer)
    ),
    values.map(lambda value: (encode(Packet(ACK, "/", [value]))[19:], value)),
)


class TestProperties:
    @given(packets)
    def test_what_is_encoded_is_decoded_to_the_same(self, packet: Packet) -> None:
        assert decode(encode(packet)) == packet

    @given(st.lists(forms))
    def test_forms_of_extensions_are_told_apart_wherever_they_are(self, items: list[tuple[bytes, Any]]) -> None:
        array = b"\xdc" + len(items).to_bytes(2) + b"".join(encoded for encoded, _ in items)
        assert decode(event_of(array)).data[1] == [value for _, value in items]

    @given(st.binary(max_size=60))
    def test_garbage_raises_nothing_but_the_peers_fault(self, message: bytes) -> None:
        with pytest.raises(RemoteProtocolError):
            decode(message)

    @given(packets.map(encode), st.data())
    def test_spoilt_packets_are_refused_or_sound(self, message: bytes, data: st.DataObject) -> None:
        spoilt = bytearray(message)
        for _ in range(data.draw(st.integers(1, 3))):
            spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(st.integers(0, 255))
        try:
            packet = decode(bytes(spoilt))
        except RemoteProtocolError:
            return
        check_packet_untrusted(packet)
        assert decode(encode(packet))._replace(data=None) == packet._replace(data=None)
