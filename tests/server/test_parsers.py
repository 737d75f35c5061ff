"""Other wire formats, and other JSON: as options, and what they do to those who use them.

Clients are raw where a parser is sloppy, or the wire is to be seen with other eyes: those of the testing kit have the
parser of their server.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import msgpack
import orjson
import pytest

from trio_socketio import EncodeError, RemoteProtocolError, Server
from trio_socketio.abc import Decoder, DefaultParser, EncodedPacket, MsgpackParser, Packet, PacketType, Parser

from ..wire_client import SessionLost, settle
from .support import TRANSPORTS, at_least, open_server, serving, warnings

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..wire_client import SioClient

pack: Any = msgpack.packb  # it says that it may return None


class ArrayParser(Parser):
    """Each packet is an array in JSON: type, namespace, data, id."""

    def encode(self, packet: Packet, compress: bool = True) -> EncodedPacket:
        return EncodedPacket.message(json.dumps(packet), compress)

    def decoder(self) -> Decoder:
        return ArrayDecoder()


class ArrayDecoder(Decoder):
    @property
    def pending_bytes(self) -> int:
        return 0

    def reset(self) -> None:
        pass

    def add_untrusted(self, message: str | bytes) -> Packet | None:
        packet_type, *fields = json.loads(message)
        return Packet(PacketType(packet_type), *fields)


class Sloppy(ArrayParser):
    """Decodes every message but a CONNECT to whatever a function returns."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make

    def decoder(self) -> Decoder:
        parser = self

        class SloppyDecoder(ArrayDecoder):
            def add_untrusted(self, message: str | bytes) -> Packet | None:
                packet = super().add_untrusted(message)
                return packet if packet and packet.type is PacketType.CONNECT else parser.make()

        return SloppyDecoder()


def fail(error: Exception) -> Any:
    raise error


async def connect_with_arrays(client: SioClient) -> str:
    """Connect; the socket's id."""
    await client.send_raw('[0, "/", {"token": "t"}, null]')
    packet_type, namespace, data, id = json.loads(await client.recv())
    assert (packet_type, namespace, id) == (0, "/", None)
    return str(data["sid"])


class TestCustomParser:
    @pytest.mark.parametrize("transport", TRANSPORTS)
    async def test_an_application_may_bring_its_own_wire_format(self, transport: str) -> None:
        async with open_server(parser=ArrayParser()) as server:
            server.io.of("/chat")
            client, socket = await server.connect("/chat", auth={"token": "t"}, transport=transport)
            socket.on("add", lambda a, b: a + b)

            assert await client.emit_with_ack("add", 1, 2) == 3
            await socket.emit("hi", "é")
            assert await client.receive() == ("hi", "é")
            assert socket.handshake.auth == {"token": "t"}
            await socket.disconnect()
            assert await client.wait_disconnected() == "io server disconnect"

            messages = [str(packet.data)[1:] for packet in client.wire if str(packet.data)[0] == "4"]
            assert [json.loads(message) for message in messages] == [
                [0, "/chat", {"token": "t"}, None],
                [0, "/chat", {"sid": client.id}, None],
                [2, "/chat", ["add", 1, 2], 0],
                [3, "/chat", [3], 0],
                [2, "/chat", ["hi", "é"], None],
                [1, "/chat", None, None],
            ]

    async def test_what_it_cannot_encode_raises_at_the_emit(self) -> None:
        async with open_server(parser=ArrayParser()) as server:
            client, socket = await server.connect()

            for target in (socket, server.io):
                with pytest.raises(EncodeError, match="bytes is not JSON serializable"):
                    await target.emit("x", b"")
            assert await client.receive_all() == []
            assert client.connected

    async def test_text_with_a_record_separator_raises_at_the_emit(self) -> None:
        class Unescaped(ArrayParser):
            def encode(self, packet: Packet, compress: bool = True) -> EncodedPacket:
                text = json.dumps(packet).replace("\\u001e", "\x1e")
                return EncodedPacket.message(text, compress)

        async with open_server(parser=Unescaped()) as server:
            with pytest.raises(EncodeError, match="record separator"):
                await server.io.emit("x", "\x1e")

    @pytest.mark.parametrize(
        "packet",
        [
            Packet(PacketType.EVENT, "/", None),
            Packet(PacketType.EVENT, "/", []),
            Packet(PacketType.EVENT, "/", ["disconnect"]),
            Packet(PacketType.EVENT, "/", [["unhashable"]]),
            Packet(PacketType.EVENT, "/", ["x"], -1),
            Packet(PacketType.EVENT, "/", ["x"], "1"),  # type: ignore[arg-type]
            Packet(PacketType.EVENT, None, ["x"]),  # type: ignore[arg-type]
            Packet(PacketType.EVENT, ["/"], ["x"]),  # type: ignore[arg-type]
            Packet(PacketType.EVENT, "", ["x"]),
            Packet(PacketType.ACK, "/", None, 0),
            Packet(PacketType.ACK, "/", [], [0]),  # type: ignore[arg-type]
            Packet(PacketType.DISCONNECT, "/", {}),
            Packet(PacketType.BINARY_EVENT, "/", ["x"]),
            Packet(2, "/", ["x"]),  # type: ignore[arg-type]
        ],
        ids=repr,
    )
    async def test_a_packet_that_is_none_ends_its_connection_only(
        self, packet: Packet, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serving(parser=Sloppy(lambda: packet)) as served:
            heard: list[Any] = []
            client, other = [await served.net.open_socketio() for _ in range(2)]
            socket = served.io.sockets.sockets[await connect_with_arrays(client)]
            socket.on("disconnect", heard.append)
            socket.on("x", heard.append)
            await connect_with_arrays(other)

            await client.send_raw('[2, "/", ["x"], null]')
            assert isinstance(await client.lost(), SessionLost)
            await settle()
            assert heard == ["forced close"]
            assert served.io.statistics().sockets == 1
            await served.io.emit("hi")
            assert json.loads(await other.recv())[2] == ["hi"]
            assert warnings(caplog) == []

    @pytest.mark.parametrize("error", [ValueError("x"), RecursionError(), RemoteProtocolError("x")], ids=repr)
    async def test_a_decoder_that_refuses_ends_the_connection_in_silence(
        self, error: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serving(parser=Sloppy(lambda: fail(error))) as served:
            client = await served.net.open_socketio()
            await connect_with_arrays(client)

            await client.send_raw('[2, "/", ["x"], null]')
            await client.lost()
            assert warnings(caplog) == []

    @pytest.mark.parametrize(
        "make",
        [lambda: fail(KeyError("x")), lambda: fail(AttributeError("x")), lambda: (2, "/", ["x"], None), lambda: 1],
        ids=["KeyError", "AttributeError", "a tuple", "a number"],
    )
    async def test_a_decoder_that_fails_ends_the_connection_and_is_logged(
        self, make: Callable[[], Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serving(parser=Sloppy(make)) as served:
            client, other = [await served.net.open_socketio() for _ in range(2)]
            await connect_with_arrays(client)

            await client.send_raw('[2, "/", ["x"], null]')
            await client.lost()
            await connect_with_arrays(other)
        (line,) = at_least(caplog, logging.ERROR)
        assert "failed to decode a message" in line


class TestOption:
    def test_the_parser_is_an_option_of_the_server(self) -> None:
        parser = MsgpackParser()
        assert Server(parser=parser).config.parser is parser
        assert type(Server().config.parser) is DefaultParser
        assert "ArrayParser" in repr(Server(parser=ArrayParser()).config.parser)

    def test_a_parser_that_was_checked_is_not_checked_twice(self) -> None:
        parser = Server(parser=ArrayParser()).config.parser
        assert Server(parser=parser).config.parser is parser

    @pytest.mark.parametrize(
        ("parser", "error"),
        [
            (ArrayParser, r"such as ArrayParser\(\), not the class"),
            (json, "has no encode"),
            (DefaultParser().decoder(), "has no encode"),
            ("msgpack", "'msgpack' has no"),
        ],
    )
    def test_what_is_no_parser_is_refused(self, parser: Any, error: str) -> None:
        with pytest.raises(TypeError, match=error):
            Server(parser=parser)

    def test_a_parser_that_cannot_encode_what_the_server_says_is_refused(self) -> None:
        class Lists(ArrayParser):
            def encode(self, packet: Packet, compress: bool = True) -> Any:
                return [json.dumps(packet)]

        with pytest.raises(TypeError, match=r"cannot encode .*CONNECT.* encodes to an EncodedPacket, not list"):
            Server(parser=Lists())

    def test_a_parser_whose_decoder_is_none_is_refused(self) -> None:
        class Undecided(ArrayParser):
            def decoder(self) -> Any:
                return None

        with pytest.raises(TypeError, match="is None, which has no add_untrusted"):
            Server(parser=Undecided())

    @pytest.mark.parametrize(
        ("options", "names"),
        [
            ({"json": json}, "json is"),
            ({"max_attachments": 10}, "max_attachments is"),
            ({"json": json, "max_attachments": 5}, "json and max_attachments is"),
        ],
    )
    def test_options_of_the_default_parser_do_not_go_with_another(self, options: dict[str, Any], names: str) -> None:
        with pytest.raises(ValueError, match=f"{names} for the default parser"):
            Server(parser=ArrayParser(), **options)


class Upper:
    """A `JSONCodec` that shouts."""

    def dumps(self, value: Any, default: Callable[[Any], Any] | None = None) -> bytes:
        return json.dumps(value, default=default).upper().encode()

    def loads_untrusted(self, text: str) -> Any:
        return json.loads(text.lower())


class Careless:
    """Like the standard library's, but cannot be kept from NaN."""

    @staticmethod
    def dumps(value: Any, *, default: Callable[[Any], Any]) -> str:
        return json.dumps(value, default=default)

    @staticmethod
    def loads(text: str) -> Any:
        return json.loads(text)


class TestJson:
    @pytest.mark.parametrize("module", [json, orjson])
    @pytest.mark.parametrize("transport", TRANSPORTS)
    async def test_a_module_like_that_of_the_standard_library(self, module: Any, transport: str) -> None:
        async with serving(json=module) as served:
            client, socket = await served.connect(transport=transport)
            socket.on("echo", lambda *args: args)

            await client.emit("echo", 1, b"a", {"b": [b"b", None, "é"]}, id=3)
            assert await client.recv_event() == (3, [1, b"a", {"b": [b"b", None, "é"]}])
            await socket.emit("x", [1, 2])
            assert await client.recv() == '2["x",[1,2]]'

    async def test_a_codec(self) -> None:
        async with serving(json=Upper()) as served:
            client = await served.net.open_socketio()
            await client.send_raw("0")
            assert '{"SID":' in str(await client.recv())
            await served.io.emit("x", {"key": "value"})
            assert await client.recv() == '2["X", {"KEY": "VALUE"}]'

    async def test_each_server_has_its_own(self) -> None:
        async with open_server(json=Upper()) as shouting, open_server() as ordinary:
            assert shouting.io.config.parser.encode(Packet(PacketType.EVENT, "/", ["x"])).text == b'42["X"]'
            assert ordinary.io.config.parser.encode(Packet(PacketType.EVENT, "/", ["x"])).text == b'42["x"]'

    async def test_nan_is_refused_by_the_standard_library_and_null_for_orjson(self) -> None:
        async with serving(json=json) as served:
            with pytest.raises(EncodeError, match="JSON compliant"):
                await served.io.emit("x", float("nan"))
        async with open_server(json=orjson) as server:
            client, socket = await server.connect()
            await socket.emit("x", float("nan"))
            assert await client.receive() == ("x", None)

    @pytest.mark.parametrize("text", ["2[NaN]", '2["x",-Infinity]', "2[", '2["x",' + "[" * 300 + "]" * 301])
    @pytest.mark.parametrize("module", [json, orjson])
    async def test_what_is_not_json_ends_the_connection(
        self, module: Any, text: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serving(json=module) as served:
            client, _ = await served.connect()
            await client.send_raw(text)
            await client.lost()
        assert warnings(caplog) == []

    @pytest.mark.parametrize("module", [json, orjson])
    async def test_what_the_module_does_not_know_is_refused_at_the_emit(self, module: Any) -> None:
        async with open_server(json=module) as server:
            with pytest.raises(EncodeError, match="a value of type set has no JSON form"):
                await server.io.emit("x", {1})
            with pytest.raises(EncodeError, match="too many attachments"):
                await server.io.emit("x", *[b""] * 11)

    @pytest.mark.parametrize("module", [json, orjson])
    async def test_a_false_placeholder_beside_bytes_is_refused_with_any_module(self, module: Any) -> None:
        async with open_server(json=module) as server:
            with pytest.raises(EncodeError, match="_placeholder"):
                await server.io.emit("x", b"", {"a": 1, "_placeholder": True, "num": 9})

    async def test_a_codec_that_fails_ends_the_connection_and_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        class Fails(Upper):
            def loads_untrusted(self, text: str) -> Any:
                return fail(KeyError(text))

        async with serving(json=Fails()) as served:
            client = await served.net.open_socketio()
            await client.send_raw('0{"a":1}')
            await client.lost()
        (line,) = at_least(caplog, logging.ERROR)
        assert "failed to decode a message" in line

    @pytest.mark.parametrize(
        ("module", "error"),
        [
            (Careless(), "writes or reads NaN"),
            (object(), "a module with dumps and loads, or a JSONCodec"),
            ("json", "a module with dumps and loads, or a JSONCodec"),
        ],
    )
    def test_what_is_no_json_module_is_refused(self, module: Any, error: str) -> None:
        with pytest.raises(TypeError, match=error):
            Server(json=module)


class TestMsgpack:
    @pytest.mark.parametrize("transport", TRANSPORTS)
    async def test_packets_are_binary_messages(self, transport: str) -> None:
        async with serving(parser=MsgpackParser()) as served:
            client = await served.net.open_socketio(transport)
            await client.send_raw(pack({"type": 0, "nsp": "/", "data": {}}))
            answer = msgpack.unpackb(await client.recv())
            assert answer == {"type": 0, "nsp": "/", "data": {"sid": answer["data"]["sid"]}}
            socket = served.io.sockets.sockets[answer["data"]["sid"]]
            socket.on("echo", lambda *args: args)

            await client.send_raw(pack({"type": 2, "nsp": "/", "data": ["echo", b"a", [b"b"]], "id": 0}))
            assert msgpack.unpackb(await client.recv()) == {"type": 3, "nsp": "/", "data": [b"a", [b"b"]], "id": 0}
            await client.send_raw(pack({"type": 1, "nsp": "/", "data": None}))
            await settle()
            assert not socket.connected

    async def test_what_is_no_packet_ends_the_connection_in_silence(self, caplog: pytest.LogCaptureFixture) -> None:
        async with serving(parser=MsgpackParser()) as served:
            for message in (b"", b"\xc1", "0", pack({"type": 2, "nsp": "/", "data": ["disconnect"]})):
                client = await served.net.open_socketio()
                await client.send_raw(message)
                await client.lost()
        assert warnings(caplog) == []
