"""A packet, encoded once for everybody who gets it.

The same broadcast goes to a thousand sessions, some of them on WebSocket, some on long-polling. Each form is made when
the first recipient of its kind asks for it, and shared by all the others. A packet and its attachments are one unit:
they are queued, dropped and sent together, so that nothing can come between them (Socket.IO protocol, "binary events").
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .._errors import EncodeError
from .frames import BINARY, TEXT, encode_frame, encode_text_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .deflate import PerMessageDeflate

T = TypeVar("T")

SEPARATOR = b"\x1e"


class EncodedPacket:
    """One Engine.IO packet, or one Socket.IO packet with its attachments, ready for every transport. Immutable.

    Args:
        text: The Engine.IO packet in UTF-8, with its type digit (``b'42["hi"]'``), or None if there are only
            attachments.
        attachments: Binary Engine.IO messages that follow the text.
        compress: Whether a transport may compress it.
    """

    __slots__ = ("_deflated", "_forms", "_frames", "_payload", "attachments", "compress", "count", "size", "text")

    _forms: dict[Callable[[EncodedPacket], Any], Any]

    def __init__(self, text: bytes | None, attachments: tuple[bytes, ...] = (), compress: bool = True) -> None:
        self.text: bytes | None = text
        self.attachments: tuple[bytes, ...] = attachments
        self.compress: bool = compress
        #: Engine.IO packets in this unit.
        self.count: int = 0 if text is None else 1
        #: Bytes of content, without the framing of a transport.
        self.size: int = 0 if text is None else len(text)
        if attachments:
            self.count += len(attachments)
            self.size += sum(map(len, attachments))
        self._frames: bytes | None = None
        self._deflated: tuple[PerMessageDeflate, bytes] | None = None
        self._payload: bytes | None = None

    @classmethod
    def message(cls, message: str | bytes | bytearray | memoryview, compress: bool = True) -> EncodedPacket:
        """An Engine.IO message packet.

        The protocol has no escape for the record separator (U+001E): a text that contains one would be several packets
        to a client on long-polling. JSON never contains it.

        Raises:
            EncodeError: It is neither text nor bytes, or the text has a lone surrogate, and so no UTF-8.
        """
        if not isinstance(message, str):
            try:
                content = message if type(message) is bytes else bytes(memoryview(message))  # bytes(5) is five zeros
            except TypeError:
                raise EncodeError(f"a message is text or bytes, not {type(message).__name__}") from None
            return cls(None, (content,), compress)
        try:
            return cls(b"4" + message.encode(), (), compress)
        except UnicodeEncodeError as error:
            raise EncodeError(f"the message cannot be encoded: {error}") from None

    @property
    def frames(self) -> bytes:
        """Unmasked WebSocket frames, one for each Engine.IO packet."""
        frames = self._frames
        if frames is None:
            plain_text = None if self.attachments else self.text
            frames = self._encode_frames(encode_frame) if plain_text is None else encode_text_frame(plain_text)
            self._frames = frames
        return frames

    def deflated_frames(self, settings: PerMessageDeflate) -> bytes:
        """The same for clients that take compressed messages; plain if nothing of it is to be compressed."""
        if not self.compress or self.size < settings.threshold:
            return self.frames
        # One form is enough: all the recipients of a packet are clients of one server.
        if self._deflated is None or self._deflated[0] is not settings:
            self._deflated = (settings, self._encode_frames(settings.encode_frame))
        return self._deflated[1]

    def _encode_frames(self, encode: Callable[[int, bytes], bytes]) -> bytes:
        parts = [] if self.text is None else [encode(TEXT, self.text)]
        parts += [encode(BINARY, attachment) for attachment in self.attachments]
        return b"".join(parts)

    @property
    def payload(self) -> bytes:
        """The part of a polling body: packets joined by the record separator, binary ones as ``b`` and base64."""
        payload = self._payload
        if payload is None:
            parts = [] if self.text is None else [self.text]
            parts += [b"b" + b64encode(attachment) for attachment in self.attachments]
            self._payload = payload = SEPARATOR.join(parts)
        return payload

    @property
    def messages(self) -> list[str | bytes]:
        """The content of each WebSocket message, for a front end that frames by itself."""
        messages: list[str | bytes] = [] if self.text is None else [self.text.decode()]
        return messages + list(self.attachments)

    def form(self, make: Callable[[EncodedPacket], T]) -> T:
        """What a function makes of this unit, made once: the forms of older revisions of the protocol."""
        try:
            forms = self._forms
        except AttributeError:  # not in __init__, because most units never need it
            forms = self._forms = {}
        if make not in forms:
            forms[make] = make(self)
        return cast("T", forms[make])

    def __repr__(self) -> str:
        return f"<EncodedPacket {self.text!r} +{len(self.attachments)} attachments>"


class SharedPackets(list[EncodedPacket]):
    """Packets that go to many clients, together: their frames are joined once."""

    __slots__ = ("_frames",)

    _frames: bytes

    @property
    def frames(self) -> bytes:
        try:
            return self._frames
        except AttributeError:
            self._frames = frames = b"".join([packet.frames for packet in self])
            return frames


def join_frames(packets: Sequence[EncodedPacket]) -> bytes:
    """The bytes to write to a WebSocket for one or several packets."""
    if len(packets) == 1:
        return packets[0].frames
    if type(packets) is SharedPackets:
        return packets.frames
    return b"".join([packet.frames for packet in packets])


def join_payload(packets: Iterable[EncodedPacket]) -> bytes:
    """The body of a polling response for several packets."""
    return SEPARATOR.join([packet.payload for packet in packets])


PING = EncodedPacket(b"2")
PONG = EncodedPacket(b"3")
NOOP = EncodedPacket(b"6", compress=False)
CLOSE = EncodedPacket(b"1", compress=False)
PROBE_PONG = EncodedPacket(b"3probe")
