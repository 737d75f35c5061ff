"""What the tests of compressed messages share: a client's frames, and everything that is wrong with some."""

from __future__ import annotations

import zlib
from itertools import pairwise
from typing import TYPE_CHECKING

from trio_socketio._wire.frames import CONTINUATION, FIN, PING, RSV1, TEXT

from .wire import UPGRADE, client_frame, text_frame

if TYPE_CHECKING:
    from collections.abc import Iterable

NO_CONTEXT = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


def opening_request(*offers: str) -> bytes:
    """A WebSocket's opening request with these offers, each in a line of its own."""
    lines = "".join(f"Sec-WebSocket-Extensions: {offer}\r\n" for offer in offers)
    return UPGRADE[:-2] + lines.encode() + b"\r\n"


OFFERING = opening_request("permessage-deflate; client_max_window_bits")


def squeeze(data: bytes) -> bytes:
    """A message as a client compresses it."""
    compressor = zlib.compressobj(wbits=-15)
    squeezed = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert squeezed.endswith(b"\x00\x00\xff\xff")
    return squeezed[:-4]


def unsqueeze(data: bytes) -> bytes:
    """And as it reads one."""
    return zlib.decompressobj(-15).decompress(data + b"\x00\x00\xff\xff")


def split(data: bytes, opcode: int, cuts: Iterable[int]) -> list[bytes]:
    """The frames of a message in fragments."""
    ends = [0, *sorted(cuts), len(data)]
    parts = [data[a:b] for a, b in pairwise(ends)]
    last = len(parts) - 1
    return [
        client_frame((opcode if i == 0 else CONTINUATION) | (FIN if i == last else 0), part)
        for i, part in enumerate(parts)
    ]


def squeezed_frame(text: str) -> bytes:
    return client_frame(FIN | RSV1 | TEXT, squeeze(text.encode()))


HELLO = squeeze(b"hello hello hello")
VIOLATIONS = {
    "no deflate data": client_frame(FIN | RSV1 | TEXT, b"\xff" * 20),
    "nothing": client_frame(FIN | RSV1 | TEXT, b""),
    "cut off": client_frame(FIN | RSV1 | TEXT, HELLO[:-1]),
    "cut off at a fragment": b"".join(split(HELLO[:-1], RSV1 | TEXT, [3])),
    "more than the message": client_frame(FIN | RSV1 | TEXT, bytes.fromhex("f348cdc9c9070000") + HELLO),
    "no UTF-8": client_frame(FIN | RSV1 | TEXT, squeeze(b"\xff")),
    "no UTF-8, in fragments": b"".join(split(squeeze(b"\xff"), RSV1 | TEXT, [1])),
    "the bit on a continuation": client_frame(RSV1 | TEXT, HELLO[:3])
    + client_frame(FIN | RSV1 | CONTINUATION, HELLO[3:]),
    "the bit on a control frame": client_frame(FIN | RSV1 | PING, b""),
    "another bit": client_frame(FIN | 0x20 | TEXT, b"a"),
    "a message inside": client_frame(RSV1 | TEXT, HELLO[:3]) + text_frame("inside"),
    "a fragment of another message inside": client_frame(RSV1 | TEXT, HELLO[:3]) + client_frame(TEXT, b"inside"),
    "a compressed message inside": client_frame(RSV1 | TEXT, HELLO[:3]) + squeezed_frame("inside"),
    "a compressed message inside a plain one": client_frame(TEXT, b"a") + squeezed_frame("inside"),
    "a compressed message inside a broken one": client_frame(TEXT, b"\xff") + squeezed_frame("inside"),
    "a continuation of nothing": client_frame(FIN | CONTINUATION, b""),
}
