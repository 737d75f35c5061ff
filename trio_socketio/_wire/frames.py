"""WebSocket frames (RFC 6455, section 5.2): building them, and sorting those that a client sends.

A `FrameSorter` stands in front of a complete implementation of the protocol and takes out what needs none: a whole,
unfragmented, masked data frame within the size limit, outside a fragmented message. That is nearly everything a client
ever sends. All else comes out as bytes *to be passed on*, frame by whole frame, so that it is always known whether a
message is still to come back; from the first violation on, every byte is passed on, because what follows a violation
has no frames. The sorter refuses nothing but sizes: a message over the limit by its announced length.
`trio_socketio._wire.deflate` has one that knows compressed messages.

::

    MESSAGES ──── our close frame ──▶ OUR_CLOSE ─── the peer's close frame ──▶ PEER_CLOSE
        ├──────────────── the peer's close frame ────────────────────────────▶ PEER_CLOSE
        └── a violation ──▶ VIOLATION ◀── a violation ── OUR_CLOSE
"""

from __future__ import annotations

import enum
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from .._errors import MessageTooLarge, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

CONTINUATION = 0
TEXT = 1
BINARY = 2
CLOSE = 8
PING = 9
PONG = 10

OPCODES = (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG)

FIN = 0x80
RSV1 = 0x40
MASKED = 0x80
OPCODE = 0x0F
CONTROL = 0x08
WHOLE_TEXT = FIN | TEXT
WHOLE_BINARY = FIN | BINARY

#: The largest payload whose size is in the second byte of its frame.
SHORT = 125
_SHORT_TEXT_HEADS = tuple(bytes((FIN | TEXT, size)) for size in range(SHORT + 1))
#: The codes (RFC 6455, section 7.4.1) of a client that has what it wanted, and of a page that is left.
_LEAVING = tuple(code.to_bytes(2, "big") for code in (1000, 1001))
#: What 4 bytes, as an integer, are multiplied by to repeat them so many times.
_REPETITIONS = tuple(sum(1 << 32 * word for word in range(words)) for words in range(SHORT // 4 + 2))


def encode_frame(opcode: int, payload: bytes) -> bytes:
    """One whole message as one frame, unmasked, as a server sends it."""
    size = len(payload)
    if size <= SHORT:
        return bytes((FIN | opcode, size)) + payload
    if size < 65_536:
        return bytes((FIN | opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((FIN | opcode, 127)) + size.to_bytes(8, "big") + payload


def encode_text_frame(payload: bytes) -> bytes:
    """`encode_frame` for text, which nearly every message is: 0.1 microseconds instead of 0.2."""
    return _SHORT_TEXT_HEADS[len(payload)] + payload if len(payload) <= SHORT else encode_frame(TEXT, payload)


def answer_goodbye(data: bytes) -> bytes | None:
    """What a client's last bytes are answered with: a close frame.

    Returns:
        None if they are more than a close frame, or it says more than that the client leaves.
    """
    payload = b""
    if len(data) == 8 and data[1] == MASKED | 2:
        payload = apply_mask(data[6:], data[2:6])
        if payload not in _LEAVING:
            return None
    elif len(data) != 6 or data[1] != MASKED:
        return None
    return encode_frame(CLOSE, payload) if data[0] == FIN | CLOSE else None


def apply_mask_in_python(data: bytes, mask: bytes) -> bytes:
    """Exclusive or with the repeated mask, as one operation on big integers: linear, and no loop in Python."""
    size = len(data)
    if size <= SHORT:  # a table for the repetition: 0.3 microseconds instead of 0.5
        words = size + 3 >> 2
        repeated = int.from_bytes(mask, "little") * _REPETITIONS[words]
        return (int.from_bytes(data, "little") ^ repeated).to_bytes(4 * words, "little")[:size]
    key = mask * (size // 4) + mask[: size % 4]
    return (int.from_bytes(data, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


def _find_apply_mask() -> Callable[[bytes, bytes], bytes]:
    """The C function of the `websockets` package where that is installed, as ``trio-socketio[speed]`` does.

    0.1 microseconds instead of 0.5 for 32 bytes, 2 instead of 100 for 64 kB.
    """
    try:
        speedups: Any = import_module("websockets.speedups")
    except ImportError:
        return apply_mask_in_python
    found: Callable[[bytes, bytes], bytes] = speedups.apply_mask
    return found


apply_mask = _find_apply_mask()


class Phase(enum.Enum):
    MESSAGES = "messages"  # messages are delivered, the rest is passed on
    OUR_CLOSE = "our close"  # we have said goodbye: nothing matters any more but the peer's close frame
    PEER_CLOSE = "peer close"  # the peer has: everything is passed on
    VIOLATION = "violation"  # everything is passed on


_MESSAGES = Phase.MESSAGES  # an attribute of an enum's class costs 60 nanoseconds


class Header(NamedTuple):
    """The head of a frame: its first byte, where its payload begins and ends in the buffer."""

    first: int
    start: int
    stop: int


class Violation(Exception):
    """What stands here is no frame that a client may send."""


def _read_header(data: bytes, pos: int, opcodes: tuple[int, ...]) -> Header | None:
    """The header at `pos`, or None if it is not all there; judged as early as its bytes allow."""
    have = len(data) - pos
    if have < 2:
        return None
    first, size = data[pos], data[pos + 1] ^ MASKED
    if size > 127 or first & ~FIN not in opcodes:  # unmasked; a reserved bit or opcode
        raise Violation
    if first & CONTROL and (not first & FIN or size > 125):
        raise Violation
    if size < 126:
        return Header(first, pos + 6, pos + 6 + size)
    width, least = (2, 126) if size == 126 else (8, 65_536)
    if have < 2 + width:
        return None
    size = int.from_bytes(data[pos + 2 : pos + 2 + width], "big")
    if size < least or size >> 63:
        raise Violation
    start = pos + 6 + width
    return Header(first, start, start + size)


def read_message(first: int, payload: bytes) -> str | bytes:
    """What the payload of a whole message says."""
    try:
        return payload.decode() if first == WHOLE_TEXT else payload
    except UnicodeDecodeError:
        raise Violation from None


class FrameSorter:
    """Sorts the bytes of one client: feed it, and sort until it wants more. The state of one connection, no I/O.

    Args:
        max_message_size: Bytes of payload of one message, in one frame or in fragments.
    """

    __slots__ = (
        "_data", "_fragments", "_max_fragments", "_max_size", "_partial", "_pos", "_short", "_size", "_skip", "_wanted",
        "message_follows", "phase",
    )  # fmt: skip

    #: What the first byte of a frame may be, apart from FIN.
    opcodes: ClassVar[tuple[int, ...]] = OPCODES

    def __init__(self, max_message_size: int) -> None:
        self.phase = Phase.MESSAGES
        #: Whether what was last passed on completes a message.
        self.message_follows = False
        self._max_size = max_message_size
        self._short = min(SHORT, max_message_size)
        # A fragment costs its receiver about 100 bytes besides its payload: a flood of tiny ones must end somewhere.
        self._max_fragments = 128 + max_message_size // 64
        self._fragments = 0  # of the message that is under way
        self._size = 0  # of its payload so far
        self._data = b""
        self._pos = 0
        # An incomplete frame grows in place, so that a large one in many pieces is not copied once for each piece.
        self._partial = bytearray()
        self._wanted = 0
        self._skip = 0

    def feed(self, data: bytes) -> None:
        """Add what has arrived; to be called when everything before is sorted."""
        if self._partial:
            self._partial += data
            if len(self._partial) < self._wanted:
                return
            data = bytes(self._partial)
            self._partial.clear()
        self._data = data
        self._pos = 0

    def sort(self, deliver: Callable[[str | bytes], None]) -> bytes:
        """Deliver the messages at hand, in order, up to the first bytes that must be passed on.

        Returns:
            The bytes to pass on before the next call; or ``b""``: all is sorted, feed more.

        Raises:
            MessageTooLarge: By the announced size of a frame, or by the sum of a message's fragments.
            RemoteProtocolError: A message in too many fragments. After either there is nothing left to do but to close.
        """
        if self.phase is not _MESSAGES:
            return self.rest()
        data, pos = self._data, self._pos
        end = len(data)
        while True:
            # Plainer than the rest, for nearly every message takes this way: 0.7 microseconds, the other way 1.6.
            short = -1 if self._fragments else self._short
            while end - pos >= 6:
                first = data[pos]
                size = data[pos + 1] ^ MASKED
                start = pos + 6
                stop = start + size
                if size > short or stop > end or (first != WHOLE_TEXT and first != WHOLE_BINARY):
                    break
                payload = apply_mask(data[start:stop], data[pos + 2 : start])
                if first == WHOLE_TEXT:
                    try:
                        message = payload.decode()
                    except UnicodeDecodeError:
                        break
                    deliver(message)
                else:
                    deliver(payload)
                pos = stop
            self._pos = pos
            if pos == end:
                return b""
            passed = self._sort_other(deliver)
            if passed is not None:
                return passed
            pos = self._pos

    def end(self) -> None:
        """Our close frame is on its way: from now on nothing is delivered, and only the peer's answer is passed on."""
        if self.phase is Phase.MESSAGES:
            self.phase = Phase.OUR_CLOSE

    def rest(self) -> bytes:
        """What there is to pass on when messages are not delivered any more; or ``b""``: feed more."""
        data = self._take(self._pos)
        return self._skip_to_close(data) if self.phase is Phase.OUR_CLOSE else data

    def _sort_other(self, deliver: Callable[[str | bytes], None]) -> bytes | None:
        """Sort what is no short message: take out one frame (then None), or pass on all that comes before the next."""
        data, begin = self._data, self._pos
        self.message_follows = False
        pos = wanted = begin
        while not self.message_follows:
            try:
                header = _read_header(data, pos, self.opcodes)
                if header is None:
                    wanted = len(data) + 1
                    break
                first, start, stop = header
                takes_out = self._takes_out(first)
                if takes_out and pos > begin:
                    break
                if not first & CONTROL:
                    self._check_data(first, stop - start)
                if stop > len(data):
                    wanted = stop
                    break
                if takes_out:
                    self._take_out(first, apply_mask(data[start:stop], data[start - 4 : start]), deliver)
                    self._pos = stop
                    return None
            except Violation:
                return self._violate(begin)
            if first == FIN | CLOSE:
                self.phase = Phase.PEER_CLOSE
                return self._take(begin)
            if not first & CONTROL:
                self._count_fragment(first, stop - start)
                self.message_follows = bool(first & FIN)
            pos = stop
        self._pos = pos
        if pos == begin:
            self._partial += self._take(pos)
            self._wanted = wanted - pos
        return data[begin:pos]

    def _takes_out(self, first: int) -> bool:
        return first in (WHOLE_TEXT, WHOLE_BINARY) and not self._fragments

    def _take_out(self, first: int, payload: bytes, deliver: Callable[[str | bytes], None]) -> None:
        deliver(read_message(first, payload))

    def _violate(self, pos: int) -> bytes:
        self.phase = Phase.VIOLATION
        return self._take(pos)

    def _check_data(self, first: int, size: int) -> None:
        # Section 5.4: fragments of one message are not interleaved with another message.
        if (first & OPCODE == CONTINUATION) != bool(self._fragments):
            raise Violation
        if self._size + size > self._max_size:
            raise MessageTooLarge(self._size + size, self._max_size)
        if self._fragments == self._max_fragments:
            raise RemoteProtocolError(f"message of more than {self._max_fragments} fragments")

    def _count_fragment(self, first: int, size: int) -> None:
        is_last = bool(first & FIN)
        self._fragments = 0 if is_last else self._fragments + 1
        self._size = 0 if is_last else self._size + size

    def _skip_to_close(self, data: bytes) -> bytes:
        pos = min(self._skip, len(data))
        self._skip -= pos
        while True:
            try:
                header = _read_header(data, pos, self.opcodes)
            except Violation:
                self.phase = Phase.VIOLATION
                return data[pos:]
            is_close = header is not None and header.first == FIN | CLOSE
            if header is None or (is_close and header.stop > len(data)):
                self._partial += data[pos:]
                return b""
            if is_close:
                self.phase = Phase.PEER_CLOSE
                return data[pos:]
            # Skipped as it comes, not collected: what was refused for its size may still be on its way.
            self._skip = max(0, header.stop - len(data))
            pos = min(header.stop, len(data))

    def _take(self, pos: int) -> bytes:
        data = bytes(self._partial) + self._data[pos:]
        self._data, self._pos, self._wanted = b"", 0, 0
        self._partial.clear()
        return data
