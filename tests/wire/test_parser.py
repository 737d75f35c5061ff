from __future__ import annotations

import json as standard_json
import re
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_socketio import _errors
from trio_socketio._wire.packets import RESERVED_EVENTS, Packet, PacketType, check_event_name
from trio_socketio._wire.parser import MAX_ID_DIGITS, MAX_NAMESPACE_LENGTH, Decoder, DefaultParser, Parser

from .strategies import CODECS, ack_ids, bytes_in, golden, packets, texts, values_with_bytes
from .timing import assert_linear

CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR, BINARY_EVENT, BINARY_ACK = PacketType

PLACEHOLDER = '{"_placeholder":true,"num":0}'

#: Where this decoder differs from the reference on purpose: the packet, or the error.
DIFFERENT: dict[str, Packet | str] = {
    "": "unknown packet type NaN",  # taken for a CONNECT by accident
    " ": "unknown packet type NaN",  # likewise: JavaScript makes 0 of it
    '2 ["x"]': Packet(EVENT, "/", ["x"], None),  # likewise: an ack id of 0
    '2\n["x"]': Packet(EVENT, "/", ["x"], None),
    '2/admin["x"]': "invalid payload",  # an event without JSON, in a namespace with an odd name
    "41": "invalid payload",  # a CONNECT_ERROR without JSON
}


@pytest.fixture(params=CODECS)
def parser(request: pytest.FixtureRequest) -> Parser:
    return DefaultParser(json=CODECS[request.param])


def decode(parser: Parser, *messages: str | bytes) -> list[Packet]:
    decoder = parser.decoder()
    return [packet for message in messages if (packet := decoder.add_untrusted(message)) is not None]


def messages_of(parser: Parser, packet: Packet) -> list[str | bytes]:
    """What a transport delivers of a packet: Engine.IO message contents."""
    text, *attachments = parser.encode(packet).messages
    assert isinstance(text, str)
    assert text[0] == "4"
    return [text[1:], *attachments]


def as_packet(row: dict[str, Any]) -> Packet:
    return Packet(PacketType(row["type"]), row["nsp"], row.get("data"), row.get("id"))


class TestAgainstTheReference:
    @pytest.mark.parametrize("row", golden("socket.io-parser encode"), ids=lambda row: ascii(row["wire"][0][:40]))
    def test_a_packet_is_encoded_alike(self, parser: Parser, row: dict[str, Any]) -> None:
        assert messages_of(parser, as_packet(row["packet"])) == row["wire"]

    @pytest.mark.parametrize("row", golden("socket.io-parser decode"), ids=lambda row: ascii(row["messages"][0])[:60])
    def test_messages_are_decoded_alike(self, parser: Parser, row: dict[str, Any]) -> None:
        messages = row["messages"]
        expected, error = [as_packet(packet) for packet in row["packets"]], row.get("error")
        if messages[0] in DIFFERENT:
            different = DIFFERENT[messages[0]]
            expected, error = ([], different) if isinstance(different, str) else ([different], None)
        decoder = parser.decoder()
        decoded: list[Packet | None] = []
        if error is None:
            decoded = [decoder.add_untrusted(message) for message in messages]
        else:
            with pytest.raises(_errors.RemoteProtocolError, match=f"^{error}$"):
                decoded.extend(decoder.add_untrusted(message) for message in messages)
        assert [packet for packet in decoded if packet is not None] == expected


class TestEncoding:
    def test_the_commonest_event_is_as_small_as_can_be(self, parser: Parser) -> None:
        packet = parser.encode(Packet(EVENT, "/", ["hi"]))
        assert (packet.text, packet.attachments, packet.compress) == (b'42["hi"]', (), True)

    @pytest.mark.parametrize(
        "packet",
        [
            Packet(EVENT, "/", ["x"]),
            Packet(EVENT, "/", ["x"], 1),
            Packet(EVENT, "/a", ["x", b"x"]),
            Packet(DISCONNECT),
        ],
    )
    def test_compress_is_passed_on(self, parser: Parser, packet: Packet) -> None:
        assert [parser.encode(packet, compress).compress for compress in (True, False)] == [True, False]

    @pytest.mark.parametrize("value", [b"\1\2", bytearray(b"\1\2"), memoryview(b"\1\2"), memoryview(b"\1_\2_")[::2]])
    def test_all_that_is_bytes_becomes_an_attachment(self, parser: Parser, value: object) -> None:
        assert messages_of(parser, Packet(EVENT, "/", ["x", value])) == [f'51-["x",{PLACEHOLDER}]', b"\1\2"]

    def test_the_same_bytes_twice_are_two_attachments(self, parser: Parser) -> None:
        content = b"same"
        text, *attachments = messages_of(parser, Packet(ACK, "/", [content, [content]], 1))
        assert text == '62-1[{"_placeholder":true,"num":0},[{"_placeholder":true,"num":1}]]'
        assert attachments == [content, content]

    def test_attachments_are_counted_once_though_the_fast_way_gives_up(self, parser: Parser) -> None:
        text, *attachments = messages_of(parser, Packet(EVENT, "/", ["x", b"0", {1: b"1"}, "\ud800"]))
        assert text == ('52-["x",{"_placeholder":true,"num":0},{"1":{"_placeholder":true,"num":1}},"\\ud800"]')
        assert attachments == [b"0", b"1"]

    def test_a_binary_type_is_decided_by_the_data_alone(self, parser: Parser) -> None:
        assert parser.encode(Packet(BINARY_EVENT, "/", ["x"])).text == b'42["x"]'
        assert parser.encode(Packet(BINARY_ACK, "/", [b""], 1)).text == b"461-1[" + PLACEHOLDER.encode() + b"]"

    def test_encoding_does_not_touch_the_packet(self, parser: Parser) -> None:
        data = ["x", {"b": b"1", "l": [b"2"]}]
        parser.encode(Packet(EVENT, "/", data))
        assert data == ["x", {"b": b"1", "l": [b"2"]}]

    def test_as_many_attachments_as_allowed_and_no_more(self, parser: Parser) -> None:
        assert len(parser.encode(Packet(EVENT, "/", ["x", [b""] * 10])).attachments) == 10
        with pytest.raises(_errors.EncodeError, match=r"^too many attachments: 11, and max_attachments is 10$"):
            parser.encode(Packet(EVENT, "/", ["x", [b""] * 11]))

    def test_the_number_of_attachments_is_an_option(self) -> None:
        generous, none = DefaultParser(max_attachments=12), DefaultParser(max_attachments=0)
        packet = Packet(EVENT, "/", ["x", *[b"a"] * 12])
        assert decode(generous, *messages_of(generous, packet)) == [packet]
        with pytest.raises(_errors.EncodeError, match="too many attachments"):
            none.encode(Packet(EVENT, "/", ["x", b""]))
        with pytest.raises(_errors.RemoteProtocolError, match="too many attachments"):
            none.decoder().add_untrusted(f'51-["x",{PLACEHOLDER}]')

    @pytest.mark.parametrize("value", [Decimal(1), {1}, 2**64, object()])
    @pytest.mark.parametrize("packet_type", [EVENT, ACK, CONNECT, CONNECT_ERROR])
    def test_a_value_without_a_json_form_is_an_encode_error(
        self, parser: Parser, packet_type: PacketType, value: object
    ) -> None:
        with pytest.raises(_errors.EncodeError):
            parser.encode(Packet(packet_type, "/", ["x", value], 1))

    @pytest.mark.parametrize("packet_type", [CONNECT, CONNECT_ERROR])
    def test_only_events_and_acks_carry_bytes(self, parser: Parser, packet_type: PacketType) -> None:
        with pytest.raises(_errors.EncodeError, match=f"a {packet_type.name} packet cannot carry bytes"):
            parser.encode(Packet(packet_type, "/", {"message": b""}))

    def test_data_that_looks_like_a_placeholder_is_not_sent_together_with_bytes(self, parser: Parser) -> None:
        forged = {"_placeholder": True, "num": 5}
        for data in (["x", forged, b""], ["x", {"a": 1, **forged}, b""], ["x", b"", [{**forged, "num": 0}]]):
            with pytest.raises(_errors.EncodeError, match="_placeholder"):
                parser.encode(Packet(EVENT, "/", data))

    @pytest.mark.parametrize(
        "harmless",
        [
            {"_placeholder": False},
            {'x,"_placeholder': True},
            {'{"_placeholder': True},
            '{"_placeholder":true',
            {"a": '"_placeholder":true'},
        ],
    )
    def test_data_that_does_not_quite_look_like_a_placeholder_is_sent(self, parser: Parser, harmless: object) -> None:
        packet = Packet(EVENT, "/", ["x", b"", harmless])
        assert decode(parser, *messages_of(parser, packet)) == [packet]

    def test_without_bytes_there_are_no_placeholders_to_confuse(self, parser: Parser) -> None:
        packet = Packet(EVENT, "/", ["x", {"_placeholder": True, "num": 5}])
        assert decode(parser, *messages_of(parser, packet)) == [packet]


class TestDecoding:
    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("abc", "unknown packet type NaN"),
            ("", "unknown packet type NaN"),
            ("\u0662[]", "unknown packet type NaN"),
            ("999", "unknown packet type 9"),
            ("5", "Illegal attachments"),
            ("51", "Illegal attachments"),
            ("5a-", "Illegal attachments"),
            ("51.23-", "Illegal attachments"),
            ("5woooot", "Illegal attachments"),
            ('5-["x"]', "Illegal attachments"),
            ('5\u0661-["x"]', "Illegal attachments"),
            ('5 1-["x"]', "Illegal attachments"),
            ('5-1-["x"]', "Illegal attachments"),
            ('511-["x"]', "too many attachments"),
            ("51" + "0" * 5000 + '-["x"]', "too many attachments"),
            ("2", "invalid payload"),
            ("21", "invalid payload"),
            ("2/admin,", "invalid payload"),
            ("31", "invalid payload"),
            ("3", "invalid payload"),
            ("4", "invalid payload"),
            ("51-", "invalid payload"),
            ("61-1", "invalid payload"),
            ('2["some","data"', "invalid payload"),
            ('0/admin,"invalid"', "invalid payload"),
            ("0[]", "invalid payload"),
            ("0null", "invalid payload"),
            ("1/admin,{}", "invalid payload"),
            ("1null", "invalid payload"),
            ('2/admin,"invalid', "invalid payload"),
            ("2/admin,{}", "invalid payload"),
            ('2[{"toString":"foo"}]', "invalid payload"),
            ('2[true,"foo"]', "invalid payload"),
            ('2[null,"bar"]', "invalid payload"),
            ("2[]", "invalid payload"),
            ('2abc["x"]', "invalid payload"),
            ("2\u0661[1]", "invalid payload"),
            ("2\u00b2[1]", "invalid payload"),
            ("2-1[1]", "invalid payload"),
            ("2[NaN]", "invalid payload"),
            ("3{}", "invalid payload"),
            ('31"x"', "invalid payload"),
            ("4[]", "invalid payload"),
            ("2" + "[" * 100_000, "invalid payload"),
            (f"51-[{PLACEHOLDER}]", "invalid payload"),
            (f'50-["x",{PLACEHOLDER}]', "illegal attachments"),
            ('51-["x",{"_placeholder":true}]', "illegal attachments"),
        ],
        ids=lambda text: ascii(text[:30]),
    )
    def test_each_row_of_the_table_of_errors(self, parser: Parser, text: str, error: str) -> None:
        with pytest.raises(_errors.RemoteProtocolError, match=f"^{error}$"):
            parser.decoder().add_untrusted(text)

    @pytest.mark.parametrize("name", sorted(RESERVED_EVENTS))
    @pytest.mark.parametrize("text", ['2["{}"]', '212["{}",1]', '2/admin,["{}"]', '51-["{}"]'])
    def test_reserved_names_are_refused(self, parser: Parser, name: str, text: str) -> None:
        with pytest.raises(_errors.RemoteProtocolError, match=r"^invalid payload$"):
            parser.decoder().add_untrusted(text.replace("{}", name))

    def test_an_event_may_be_named_error_and_by_a_number(self, parser: Parser) -> None:
        assert decode(parser, '2["error"]', "2[5]", "2[-1.5]") == [
            Packet(EVENT, "/", ["error"]),
            Packet(EVENT, "/", [5]),
            Packet(EVENT, "/", [-1.5]),
        ]

    @pytest.mark.parametrize("num", ["1", "-1", "0.0", "0.5", "true", "null", '"0"', "[0]", "1e1", "9" * 500, "{}"])
    def test_a_placeholder_must_be_the_index_of_an_attachment(self, parser: Parser, num: str) -> None:
        for text in ('51-["x",{"_placeholder":true,"num":%s}]', '61-1[{"a":[{"num":%s,"_placeholder":true}]}]'):
            with pytest.raises(_errors.RemoteProtocolError, match=r"^(illegal attachments|invalid payload)$"):
                parser.decoder().add_untrusted(text % num)

    def test_one_attachment_may_be_at_several_places(self, parser: Parser) -> None:
        text = '52-["x",' + ",".join(PLACEHOLDER.replace("0", num) for num in "1011") + "]"
        assert decode(parser, text, b"a", b"b") == [Packet(EVENT, "/", ["x", b"b", b"a", b"b", b"b"])]

    def test_placeholders_mean_nothing_in_a_packet_without_attachments(self, parser: Parser) -> None:
        text = f'2["x",{PLACEHOLDER}]'
        assert decode(parser, text) == [Packet(EVENT, "/", ["x", {"_placeholder": True, "num": 0}])]

    def test_no_attachments_is_a_number_of_attachments(self, parser: Parser) -> None:
        assert decode(parser, '50-["x"]', '2["y"]') == [Packet(EVENT, "/", ["x"]), Packet(EVENT, "/", ["y"])]

    def test_text_while_attachments_are_awaited_is_refused_and_drops_the_packet(self, parser: Parser) -> None:
        decoder = parser.decoder()
        assert decoder.add_untrusted(f'51-["x",{PLACEHOLDER}]') is None
        with pytest.raises(_errors.RemoteProtocolError, match=r"^got plaintext data when reconstructing a packet$"):
            decoder.add_untrusted('2["y"]')
        assert decoder.pending_bytes == 0
        assert decoder.add_untrusted('2["y"]') == Packet(EVENT, "/", ["y"])

    def test_binary_while_none_is_awaited_is_refused(self, parser: Parser) -> None:
        expected = r"^got binary data when not reconstructing a packet$"
        decoder = parser.decoder()
        with pytest.raises(_errors.RemoteProtocolError, match=expected):
            decoder.add_untrusted(b"")
        assert decode_with(decoder, f'51-["x",{PLACEHOLDER}]', b"1") == Packet(EVENT, "/", ["x", b"1"])
        with pytest.raises(_errors.RemoteProtocolError, match=expected):
            decoder.add_untrusted(b"2")

    @pytest.mark.parametrize("awaited", [0, 1])
    @pytest.mark.parametrize("message", [None, 1, ["x"]])
    def test_what_is_neither_text_nor_binary_is_refused(self, parser: Parser, awaited: int, message: Any) -> None:
        decoder = parser.decoder()
        decoder.add_untrusted(f'5{awaited}-["x"]')
        with pytest.raises(_errors.RemoteProtocolError, match=r"^Unknown type: "):
            decoder.add_untrusted(message)

    def test_a_namespace_is_bounded(self, parser: Parser) -> None:
        longest = "/" + "n" * (MAX_NAMESPACE_LENGTH - 1)
        assert decode(parser, f'2{longest},["x"]', f"0{longest}") == [
            Packet(EVENT, longest, ["x"]),
            Packet(CONNECT, longest),
        ]
        for text in (f'2{longest}n,["x"]', f"0{longest}n", "0/" + "n" * 1_000_000):
            with pytest.raises(_errors.RemoteProtocolError, match=r"^invalid payload$"):
                parser.decoder().add_untrusted(text)

    def test_an_ack_id_is_bounded(self, parser: Parser) -> None:
        longest = "9" * MAX_ID_DIGITS
        assert decode(parser, f'2{longest}["x"]', f"3/a,{longest}[]") == [
            Packet(EVENT, "/", ["x"], int(longest)),
            Packet(ACK, "/a", [], int(longest)),
        ]
        for text in (f'29{longest}["x"]', f"3/a,9{longest}[]", "2" + "9" * 400 + '["x"]', "3" + "0" * 10_000 + "[]"):
            with pytest.raises(_errors.RemoteProtocolError, match=r"^invalid payload$"):
                parser.decoder().add_untrusted(text)

    def test_a_half_received_packet_is_accounted_for_and_can_be_dropped(self, parser: Parser) -> None:
        decoder = parser.decoder()
        text = f'52-["x",{PLACEHOLDER}]'
        assert decoder.pending_bytes == 0
        decoder.add_untrusted(text)
        assert decoder.pending_bytes == len(text)
        decoder.add_untrusted(b"12345")
        assert decoder.pending_bytes == len(text) + 5
        decoder.reset()
        assert decoder.pending_bytes == 0
        assert decoder.add_untrusted('2["y"]') == Packet(EVENT, "/", ["y"])

    def test_two_decoders_of_one_parser_know_nothing_of_each_other(self, parser: Parser) -> None:
        first, second = parser.decoder(), parser.decoder()
        first.add_untrusted(f'51-["x",{PLACEHOLDER}]')
        assert second.add_untrusted('2["y"]') == Packet(EVENT, "/", ["y"])
        assert first.add_untrusted(b"1") == Packet(EVENT, "/", ["x", b"1"])

    def test_decoding_is_linear(self, parser: Parser) -> None:
        for make in (
            lambda size: "2" * 100 * size,
            lambda size: "5" + "1" * 100 * size,
            lambda size: "0/" + "n" * 100 * size,
            lambda size: "51-[1" + f",{PLACEHOLDER}" * size + "]",
            lambda size: '51-["x",' + '{"a":[' * 10 * size,
        ):
            assert_linear(make, partial(ignoring_errors, parser))


def ignoring_errors(parser: Parser, text: str) -> None:
    try:
        parser.decoder().add_untrusted(text)
    except _errors.RemoteProtocolError as error:
        assert str(error)  # noqa: PT017 - either outcome will do; it is the time that is measured


def decode_with(decoder: Decoder, *messages: str | bytes) -> Packet | None:
    *first, last = messages
    assert [decoder.add_untrusted(message) for message in first] == [None] * len(first)
    return decoder.add_untrusted(last)


class TestLaws:
    @given(packet=packets(values_with_bytes), tail=packets(values_with_bytes), codec=st.sampled_from([*CODECS]))
    def test_a_packet_comes_out_of_a_decoder_with_its_last_message_and_a_tail_after_it(
        self, packet: Packet, tail: Packet, codec: str
    ) -> None:
        parser = DefaultParser(json=CODECS[codec])
        decoder = parser.decoder()
        for each in (packet, tail):
            assert decode_with(decoder, *messages_of(parser, each)) == each
            assert decoder.pending_bytes == 0

    @given(packet=packets(values_with_bytes))
    def test_attachments_are_numbered_depth_first(self, packet: Packet) -> None:
        text, *attachments = messages_of(DefaultParser(), packet)
        assert attachments == bytes_in(packet.data)
        assert isinstance(text, str)
        numbers = [int(number) for number in re.findall(r'[{]"_placeholder":true,"num":([0-9]+)[}]', text)]
        assert numbers == list(range(len(attachments)))

    @given(st.lists(st.text(st.characters(exclude_categories=())) | st.binary()))
    def test_random_messages_are_packets_or_protocol_errors(self, messages: list[str | bytes]) -> None:
        feed(messages)

    @given(st.text(st.sampled_from('0123456789-,/[]{}":_placehodrnumtse ')), st.binary())
    def test_random_messages_of_the_right_characters_are_packets_or_protocol_errors(
        self, text: str, attachment: bytes
    ) -> None:
        feed([text, attachment, text])

    @given(packet=packets(values_with_bytes), data=st.data())
    def test_damaged_packets_are_packets_or_protocol_errors(self, packet: Packet, data: st.DataObject) -> None:
        text, *attachments = messages_of(DefaultParser(), packet)
        assert isinstance(text, str)
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(start + 3, len(text))))
        damaged = text[:start] + data.draw(st.text(st.sampled_from('0159-,/[]{}"\\'), max_size=3)) + text[end:]
        feed([damaged, *data.draw(st.permutations(attachments)), b"one too many"])

    @given(
        nums=st.lists(st.integers(-2, 12) | st.floats() | st.booleans() | texts | st.none(), max_size=5),
        count=st.integers(0, 12),
    )
    def test_placeholders_are_filled_or_refused(self, nums: list[Any], count: int) -> None:
        data = ["x", *[{"_placeholder": True, "num": num} for num in nums]]
        attachments = [bytes([number]) for number in range(count)]
        decoder = DefaultParser().decoder()
        text = f"5{count}-{standard_json.dumps(data)}"
        valid = count <= 10 and all(type(num) is int and 0 <= num < count for num in nums)
        if valid:
            packet = decode_with(decoder, text, *attachments)
            assert packet == Packet(EVENT, "/", ["x", *[attachments[num] for num in nums]])
        else:
            with pytest.raises(_errors.RemoteProtocolError):
                decoder.add_untrusted(text)


def feed(messages: list[str | bytes]) -> None:
    """Any message is taken, or refused with the one error; the state stays sound."""
    decoder = DefaultParser().decoder()
    for message in messages:
        try:
            packet = decoder.add_untrusted(message)
        except _errors.RemoteProtocolError:
            assert decoder.pending_bytes == 0
        else:
            assert (packet is None) == (decoder.pending_bytes > 0)
            if packet is not None:
                assert packet.type not in (BINARY_EVENT, BINARY_ACK)
                assert packet.namespace.startswith("/")


class StandardLibrary:
    """A codec that an application might write, with the errors of the standard library."""

    def dumps(self, value: Any, default: Any = None) -> bytes:
        return standard_json.dumps(value, default=default).encode()

    def loads_untrusted(self, text: str) -> Any:
        return standard_json.loads(text)


class TestOtherCodecs:
    def test_packets_survive_another_codec(self) -> None:
        parser = DefaultParser(json=StandardLibrary())
        packet = Packet(EVENT, "/a", ["x", {"b": b"1"}], 3)
        assert decode(parser, *messages_of(parser, packet)) == [packet]

    def test_a_codec_of_the_applications_need_not_know_our_errors(self) -> None:
        parser = DefaultParser(json=StandardLibrary())
        loop: list[Any] = ["x"]
        loop.append(loop)
        for data in (loop, ["x", {(1, 2): 3}], ["x", object()]):
            with pytest.raises(_errors.EncodeError):
                parser.encode(Packet(EVENT, "/", data))
        for text in ("2[", "2" + "[" * 100_000, '2/a,["x'):
            with pytest.raises(_errors.RemoteProtocolError, match=r"^invalid payload$"):
                parser.decoder().add_untrusted(text)


class TestNames:
    @pytest.mark.parametrize("name", ["x", "", "error", "message", "constructor", 0, -1, 2**60])
    def test_a_name_is_a_text_or_an_integer(self, name: object) -> None:
        assert check_event_name(name) is None  # type: ignore[func-returns-value]

    @pytest.mark.parametrize("name", sorted(RESERVED_EVENTS))
    def test_the_names_of_the_protocol_are_refused(self, name: str) -> None:
        with pytest.raises(_errors.ReservedEventError, match=f'^"{name}" is a reserved event name$'):
            check_event_name(name)

    @pytest.mark.parametrize("name", [None, True, 1.5, b"x", ["x"], object()])
    def test_anything_else_is_a_type_error(self, name: object) -> None:
        with pytest.raises(TypeError, match="an event's name is a str or an int"):
            check_event_name(name)

    @given(ack_ids)
    def test_every_id_that_can_be_an_integer_of_64_bits_fits(self, ack_id: int) -> None:
        parser = DefaultParser()
        assert decode(parser, *messages_of(parser, Packet(ACK, "/", [], ack_id))) == [Packet(ACK, "/", [], ack_id)]
