"""Compressed WebSocket messages: the permessage-deflate extension (RFC 7692).

Every message is compressed on its own, in both directions: that is what our answer to a client's offer says, always. So
a broadcast is compressed once and shared by everybody who gets it, and no client costs the memory of a window between
two messages. The price is a lower ratio for many small messages that resemble each other; the threshold leaves those
alone anyway.

What comes in is inflated here, for trio-websocket is not told of the extension. Both forms of a message are held to the
limit: the compressed one as its frames are announced, the other while it is inflated, so that a few bytes which would
become gigabytes are given up as soon as they exceed it.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._errors import MessageTooLarge
from .frames import (
    BINARY,
    CONTROL,
    FIN,
    MASKED,
    OPCODE,
    OPCODES,
    RSV1,
    TEXT,
    FrameSorter,
    Violation,
    encode_frame,
    read_message,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

EXTENSION = "permessage-deflate"

#: Section 7.1: the parameters that an offer may have, with their values; None is to have none. A narrower window for
#: what we send would need compressed forms of each packet besides the one that is shared, so such an offer is declined.
PARAMETERS: dict[str, tuple[str | None, ...]] = {
    "server_no_context_takeover": (None,),
    "client_no_context_takeover": (None,),
    "server_max_window_bits": ("15",),
    "client_max_window_bits": (None, "8", "9", "10", "11", "12", "13", "14", "15"),
}
#: Sections 7.1.1.1 and 7.1.1.2: both may be in an answer without having been in the offer.
ANSWER = f"{EXTENSION}; server_no_context_takeover; client_no_context_takeover"
#: Section 7.1.2.1: to be repeated if offered.
WINDOW_ANSWER = "; server_max_window_bits=15"

WINDOW = -15  # bits; negative for what has no header of zlib's
#: Section 7.2.1: what ends each message, and is not sent.
TAIL = b"\x00\x00\xff\xff"
#: An empty last block: if zlib does not come to its end, then the message did not come to its own.
LAST_BLOCK = b"\x01\x00\x00\xff\xff"
#: What may be left over: nothing, or what follows the block that a sender has marked as its last (section 7.2.3.4).
LEFT_OVER = (b"", b"\x00" + TAIL + LAST_BLOCK)

#: The head of a compressed message, empty and not masked: to one who does not know the extension, a violation.
OPENING = bytes((RSV1 | TEXT, MASKED, 0, 0, 0, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class PerMessageDeflate:
    """How messages on WebSockets are compressed, for clients that offer it.

    Compressing takes its time in Trio's own thread, once for a broadcast: about 25 milliseconds for a megabyte of JSON
    at level 6, a third of that at level 1. Do not compress what contains a secret next to something that a stranger may
    choose: its size would tell.

    Args:
        threshold: Bytes of the smallest message that is compressed; smaller ones are sent as they are.
        level: From 1 (fast) to 9 (small).

    Raises:
        ValueError: A value out of its range.
    """

    threshold: int = 1024
    level: int = 6

    def __post_init__(self) -> None:
        if type(self.threshold) is not int or self.threshold < 0:
            raise ValueError(f"threshold must be a number of bytes, not {self.threshold!r}")
        if type(self.level) is not int or not 1 <= self.level <= 9:
            raise ValueError(f"level must be a whole number from 1 to 9, not {self.level!r}")

    @classmethod
    def from_option(cls, option: bool | PerMessageDeflate | None) -> PerMessageDeflate | None:
        """What the ``per_message_deflate`` option means: True is the defaults, False and None are no compression."""
        if option is None or isinstance(option, PerMessageDeflate):
            return option
        if not isinstance(option, bool):
            raise TypeError(f"per_message_deflate must be a bool or PerMessageDeflate, not {option!r}")
        return cls() if option else None

    def encode_frame(self, opcode: int, payload: bytes) -> bytes:
        """One whole message as one frame, compressed if it is large enough and gets smaller by it."""
        if len(payload) >= self.threshold:
            deflated = deflate(payload, self.level)
            if len(deflated) < len(payload):
                return encode_frame(RSV1 | opcode, deflated)
        return encode_frame(opcode, payload)


def choose_offer(offers: Iterable[str]) -> str | None:
    """Answer a client's offers of extensions.

    Args:
        offers: The elements of its ``sec-websocket-extensions``, in its order of preference.

    Returns:
        Our ``sec-websocket-extensions`` for the first offer of permessage-deflate that can be accepted. None if there
        is none; then messages are not compressed. What is not well-formed is an offer that cannot be accepted.
    """
    return next(filter(None, map(_answer, offers)), None)


def _answer(offer: str) -> str | None:
    name, *parameters = [part.strip() for part in offer.split(";")]
    if name != EXTENSION:
        return None
    accepted: set[str] = set()
    for parameter in parameters:
        key, equals, text = (part.strip() for part in parameter.partition("="))
        # RFC 6455, section 9.1: a quoted value must be a token without its quotes, so it cannot hold a separator.
        value = (text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text) if equals else None
        if key in accepted or value not in PARAMETERS.get(key, ()):
            return None
        accepted.add(key)
    return ANSWER + WINDOW_ANSWER if "server_max_window_bits" in accepted else ANSWER


def deflate(payload: bytes, level: int) -> bytes:
    """Compress a message."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, WINDOW)
    data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return data.removesuffix(TAIL)


def inflate(data: bytes, max_size: int) -> bytes:
    """Decompress a message.

    Raises:
        MessageTooLarge: It exceeds `max_size` bytes; by how much, nobody has looked.
        Violation: It is broken, or not complete.
    """
    decompressor = zlib.decompressobj(WINDOW)
    try:
        payload = decompressor.decompress(data + TAIL + LAST_BLOCK, max_size + 1)
    except zlib.error:
        raise Violation from None
    if len(payload) > max_size:
        raise MessageTooLarge(None, max_size)
    if not decompressor.eof or decompressor.unused_data not in LEFT_OVER:
        raise Violation
    return payload


class InflatingSorter(FrameSorter):
    """A `FrameSorter` that takes out compressed messages too, whole or in fragments.

    The fragments of a compressed message are kept here until the last has come; control frames between them are passed
    on. If something else follows, which is a violation, the other side has to be shown that a message was under way.
    """

    __slots__ = ("_opcode", "_parts")

    opcodes = (*OPCODES, RSV1 | TEXT, RSV1 | BINARY)

    def __init__(self, max_message_size: int) -> None:
        super().__init__(max_message_size)
        self._parts: list[bytes] = []  # of the compressed message that is under way
        self._opcode = TEXT

    def _takes_out(self, first: int) -> bool:
        if first & RSV1 or (self._parts and not first & CONTROL):
            return True
        return super()._takes_out(first)

    def _take_out(self, first: int, payload: bytes, deliver: Callable[[str | bytes], None]) -> None:
        if first & RSV1:
            self._opcode = first & OPCODE
        elif not self._parts:
            super()._take_out(first, payload, deliver)
            return
        self._parts.append(payload)
        self._count_fragment(first, len(payload))
        if first & FIN:
            message = read_message(FIN | self._opcode, inflate(b"".join(self._parts), self._max_size))
            self._parts.clear()
            deliver(message)

    def _violate(self, pos: int) -> bytes:
        return (OPENING if self._parts else b"") + super()._violate(pos)
