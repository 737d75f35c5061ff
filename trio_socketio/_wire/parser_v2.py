"""Socket.IO 2 over any parser: what its clients say otherwise than today's (Socket.IO protocol 4, "history").

The packets are the same but for two, and are translated here, so that nobody else needs to know:

* CONNECT has no payload, neither way. What a client has to say about itself is a query behind the namespace's name:
  ``0/admin?token=1,``.
* CONNECT_ERROR, then called ERROR, carries the details of a refusal, or else its message, as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from .packets import Packet, PacketType

if TYPE_CHECKING:
    from .encoded import EncodedPacket
    from .parser import Decoder, Parser


class ParserV2:
    """The `Parser` for one old client.

    Args:
        inner: The parser of the server.
    """

    def __init__(self, inner: Parser) -> None:
        self._inner = inner

    def encode(self, packet: Packet, compress: bool = True) -> EncodedPacket:
        if packet.type is PacketType.CONNECT:
            packet = packet._replace(data=None)
        elif packet.type is PacketType.CONNECT_ERROR and isinstance(packet.data, dict):
            data = packet.data.get("data")
            packet = packet._replace(data=packet.data["message"] if data is None else data)
        return self._inner.encode(packet, compress)

    def decoder(self) -> Decoder:
        return _DecoderV2(self._inner.decoder())


class _DecoderV2:
    def __init__(self, inner: Decoder) -> None:
        self._inner = inner
        self.reset = inner.reset

    @property
    def pending_bytes(self) -> int:
        return self._inner.pending_bytes

    def add_untrusted(self, message: str | bytes) -> Packet | None:
        packet = self._inner.add_untrusted(message)
        if packet is None:
            return None
        namespace, _, query = packet.namespace.partition("?")
        if packet.type is PacketType.CONNECT:
            return packet._replace(namespace=namespace, data=dict(parse_qsl(query, keep_blank_values=True)))
        return packet._replace(namespace=namespace)
