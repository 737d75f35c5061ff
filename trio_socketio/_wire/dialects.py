"""What differs between the revisions and variants of Engine.IO: one `Dialect` for each session.

A session asks its dialect how packets look on its transports, and who sends the pings. Everything else, from the phases
to the limits, is the same for all of them. The revisions:

* `DialectV4`, the current one, here;
* `DialectV3`, for clients of the years before 2020, in `engine_packets_v3`;
* `JSONPDialect`, around either of them, for pages that cannot make requests but by ``<script>``, in `jsonp`.
"""

from __future__ import annotations

from abc import abstractmethod
from base64 import b64encode
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .encoded import EncodedPacket, join_payload
from .engine_packets import EnginePacketType, decode_packet_untrusted, iter_payload_untrusted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .engine_packets import EnginePacket

TEXT = "text/plain; charset=UTF-8"
OCTETS = "application/octet-stream"


class Body(NamedTuple):
    """The body of a polling response, and its content type."""

    content: bytes
    content_type: str


class Dialect(Protocol):
    """How the packets of one session look on the wire. Immutable, and without a state of its own."""

    @property
    @abstractmethod
    def protocol(self) -> int:
        """The revision of Engine.IO: 3 or 4."""

    @property
    @abstractmethod
    def heartbeat(self) -> EnginePacketType:
        """What the client sends to show that it lives: PONG if the server pings, PING if the client does."""

    @property
    @abstractmethod
    def takes_octets(self) -> bool:
        """Whether a POST may be ``application/octet-stream``."""

    @property
    @abstractmethod
    def plain_frames(self) -> bool:
        """Whether the frames that an `EncodedPacket` makes by itself are right, and `for_websocket` is not needed."""

    @abstractmethod
    def decode_message_untrusted(self, message: str | bytes) -> EnginePacket:
        """The packet in a WebSocket message.

        Raises:
            RemoteProtocolError: It is none.
        """

    @abstractmethod
    def iter_body_untrusted(self, body: bytes, octets: bool) -> Iterator[EnginePacket]:
        """The packets in the body of a POST, one by one.

        Args:
            body: It.
            octets: Whether it came as ``application/octet-stream``; only if `takes_octets`.

        Raises:
            RemoteProtocolError: When the iteration comes to what is no packet.
        """

    @abstractmethod
    def encode_body(self, packets: Sequence[EncodedPacket]) -> Body:
        """The answer to a poll."""

    @abstractmethod
    def for_websocket(self, packets: Sequence[EncodedPacket]) -> Sequence[EncodedPacket]:
        """Units whose own frames are what this dialect has for these ones."""


class DialectV4:
    """The current revision.

    Args:
        base64: The client takes no binary WebSocket messages (``b64`` in the query).
    """

    protocol = 4
    heartbeat = EnginePacketType.PONG
    takes_octets = False

    decode_message_untrusted = staticmethod(decode_packet_untrusted)

    def __init__(self, base64: bool = False) -> None:
        self.plain_frames = not base64

    def iter_body_untrusted(self, body: bytes, octets: bool) -> Iterator[EnginePacket]:
        return iter_payload_untrusted(body.decode("utf-8", "replace"))

    def encode_body(self, packets: Sequence[EncodedPacket]) -> Body:
        return Body(join_payload(packets), TEXT)

    def for_websocket(self, packets: Sequence[EncodedPacket]) -> Sequence[EncodedPacket]:
        return packets if self.plain_frames else split_attachments(packets, _base64_messages)


def split_attachments(
    packets: Sequence[EncodedPacket], split: Callable[[EncodedPacket], list[EncodedPacket]]
) -> list[EncodedPacket]:
    """The same packets, those with attachments split into others; those without are the same in every dialect."""
    return [part for packet in packets for part in (packet.form(split) if packet.attachments else [packet])]


def base64_messages(packet: EncodedPacket, prefix: bytes) -> list[EncodedPacket]:
    """Split a unit into its text and its attachments, those in base64 behind a prefix."""
    texts = [] if packet.text is None else [packet.text]
    texts += [prefix + b64encode(attachment) for attachment in packet.attachments]
    return [EncodedPacket(text, (), packet.compress) for text in texts]


def _base64_messages(packet: EncodedPacket) -> list[EncodedPacket]:
    return base64_messages(packet, b"b")


V4 = DialectV4()
V4_BASE64 = DialectV4(base64=True)
