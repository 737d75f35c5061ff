"""Parsers of an application's own: checked when they are given, and kept from doing harm afterwards.

Our parsers raise what they may raise, and deliver what a socket can take. Another one may fail in ways of its own, or
deliver what no client should be able to say, such as an event named ``disconnect``: it is at work behind a
`CheckedParser`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from .._errors import EncodeError, RemoteProtocolError
from .._wire.encoded import SEPARATOR, EncodedPacket
from .._wire.msgpack import MsgpackParser
from .._wire.packets import Packet, PacketType
from .._wire.parser import Decoder, DefaultParser, Parser, check_packet_untrusted

if TYPE_CHECKING:
    from .._wire.json_modules import JSONModule
    from .._wire.parser import JSONCodec

logger = logging.getLogger("trio_socketio.server")

#: What every server says by itself.
_OWN_PACKETS = (
    Packet(PacketType.CONNECT, "/", {"sid": "1"}),
    Packet(PacketType.CONNECT_ERROR, "/unknown", {"message": "Invalid namespace"}),
    Packet(PacketType.DISCONNECT, "/other"),
)


def choose_parser(parser: Parser | None, json: JSONCodec | JSONModule | None, max_attachments: int) -> Parser:
    """The parser of a server, from the options of these names.

    Raises:
        TypeError: ``parser`` is none, or ``json`` is neither a codec nor a module like that of the standard library.
    """
    if parser is None:
        return DefaultParser(max_attachments) if json is None else CheckedParser(DefaultParser(max_attachments, json))
    return parser if type(parser) in (MsgpackParser, CheckedParser) else CheckedParser(parser)


class CheckedParser(Parser):
    """A parser that does what is asked of one, whatever the parser does that it wraps.

    Args:
        parser: The other one. It encodes three packets and makes a decoder at once, to show that it can.

    Raises:
        TypeError: It cannot.
    """

    def __init__(self, parser: Parser) -> None:
        if isinstance(parser, type):
            raise TypeError(f"parser is an object, such as {parser.__name__}(), not the class")
        for name in ("encode", "decoder"):
            if not callable(getattr(parser, name, None)):
                raise TypeError(f"parser implements trio_socketio.abc.Parser, and {parser!r} has no {name}")
        self._parser = parser
        for packet in _OWN_PACKETS:
            try:
                self.encode(packet)
            except EncodeError as error:
                raise TypeError(f"{parser!r} cannot encode {packet!r}: {error}") from error
        decoder: Any = parser.decoder()
        for name in ("add_untrusted", "reset", "pending_bytes"):
            if not hasattr(decoder, name):
                raise TypeError(f"a decoder of {parser!r} is {decoder!r}, which has no {name}")

    def encode(self, packet: Packet, compress: bool = True) -> EncodedPacket:
        try:
            encoded: Any = self._parser.encode(packet, compress)
        except EncodeError:
            raise
        except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise EncodeError(str(error)) from error
        if not isinstance(encoded, EncodedPacket):
            raise EncodeError(f"{self._parser!r} encodes to an EncodedPacket, not {type(encoded).__name__}")
        if encoded.text is not None and SEPARATOR in encoded.text:
            raise EncodeError("a record separator cannot be sent in the text of a packet")
        return encoded

    def decoder(self) -> Decoder:
        return _CheckedDecoder(self._parser)

    def __repr__(self) -> str:
        return f"<CheckedParser {self._parser!r}>"


class _CheckedDecoder(Decoder):
    def __init__(self, parser: Parser) -> None:
        self._parser = parser
        self._decoder = parser.decoder()

    @property
    def pending_bytes(self) -> int:
        return self._decoder.pending_bytes

    def reset(self) -> None:
        self._decoder.reset()

    def add_untrusted(self, message: str | bytes) -> Packet | None:
        try:
            packet = self._decoder.add_untrusted(message)
            if packet is None:
                return None
            if type(packet) is not Packet:
                raise TypeError(f"a packet is a Packet, not {type(packet).__name__}")
        except RemoteProtocolError:
            raise
        except (ValueError, RecursionError):  # what decoders raise for what they cannot decode
            raise RemoteProtocolError("invalid payload") from None
        except Exception as error:
            logger.exception("%r failed to decode a message", self._parser)
            raise RemoteProtocolError("invalid payload") from error
        check_packet_untrusted(packet)
        return packet
