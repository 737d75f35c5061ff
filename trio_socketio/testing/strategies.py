"""Hypothesis strategies for what goes through a Socket.IO server, and for what should not get through.

Everything that is drawn here, and not called malformed, comes out of the default parser as it went in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._wire.frames import BINARY, CLOSE, CONTINUATION, FIN, MASKED, PING, PONG, RSV1, TEXT, apply_mask
from .._wire.packets import RESERVED_EVENTS, Packet, PacketType

try:
    from hypothesis import strategies as st
except ImportError as _error:
    raise ImportError(
        "trio_socketio.testing.strategies needs Hypothesis: pip install trio-socketio[testing]"
    ) from _error

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = [
    "chunkings",
    "event_names",
    "json_values",
    "malformed_frames",
    "malformed_packets",
    "namespaces",
    "packets",
    "payloads",
    "rooms",
]

#: Names that a careless server trips over: of methods and attributes, of JavaScript's prototypes, of other layers, ...
_TRICKY = (
    "", " ", "message", "error", "close", "open", "end", "__class__", "__init__", "__proto__", "constructor",
    "toString", "emit", "to_dict", "on_connect", "disconnected", "Connect", "0", "42", "null", "*", "%s", "{}", "a,b",
    "/", "[", '"', "\\", "\x00", "\n", "\x1e", "\u2028", "\ufeff", "é", "e\u0301", "💬", "\u202eabc", "x" * 1000,
)  # fmt: skip
_MASK = b"\x37\xfa\x21\x3d"

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_integers = st.integers(-(2**63), 2**64 - 1)
_floats = st.floats(allow_nan=False, allow_infinity=False)
_scalars = st.none() | st.booleans() | _integers | _floats | _text
_keys = _text | st.sampled_from(["_placeholder", "num", "__proto__"])


def _is_plain(value: dict[str, Any]) -> bool:
    return value.get("_placeholder") is not True


def _bytes_in(value: Any) -> int:
    if isinstance(value, bytes):
        return 1
    return sum(map(_bytes_in, value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()))


def _nested(leaves: SearchStrategy[Any], max_leaves: int) -> SearchStrategy[Any]:
    def containers(children: SearchStrategy[Any]) -> SearchStrategy[Any]:
        return st.lists(children, max_size=5) | st.dictionaries(_keys, children, max_size=5).filter(_is_plain)

    return st.recursive(leaves, containers, max_leaves=max_leaves)


def event_names(*, tricky: bool = True) -> SearchStrategy[str]:
    """Names of events that an application may emit.

    Args:
        tricky: Whether there are names among them that trip a careless server.
    """
    plain = st.text("abcdefghijklmnopqrstuvwxyz:_-", min_size=1, max_size=12)
    return (plain | st.sampled_from(_TRICKY) | _text if tricky else plain).filter(lambda n: n not in RESERVED_EVENTS)


def rooms(*, count: int = 4, tricky: bool = False) -> SearchStrategy[str]:
    """Names of rooms: few of them, so that sockets meet.

    Args:
        count: How many there are.
        tricky: Whether any text will do as well.
    """
    plain = st.sampled_from([f"room-{number}" for number in range(count)])
    return plain | st.sampled_from(_TRICKY) | _text if tricky else plain


def namespaces() -> SearchStrategy[str]:
    """Names of namespaces: ``/``, and others that a packet can carry."""
    names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=",\x1e"), max_size=20)
    return st.just("/") | names.map(lambda name: f"/{name}")


def json_values(*, max_leaves: int = 20) -> SearchStrategy[Any]:
    """Values that JSON has, in lists and dicts.

    Args:
        max_leaves: How many scalars one of them has at most.
    """
    return _nested(_scalars, max_leaves)


def payloads(*, max_leaves: int = 20, max_attachments: int = 10) -> SearchStrategy[Any]:
    """The same with bytes anywhere inside: arguments of events and acknowledgements.

    Args:
        max_leaves: How many scalars and bytes one of them has at most.
        max_attachments: How many bytes.
    """
    values = _nested(_scalars | st.binary(max_size=20), max_leaves)
    return values.filter(lambda value: _bytes_in(value) <= max_attachments)


def packets(*, max_attachments: int = 10) -> SearchStrategy[Packet]:
    """Socket.IO packets of all types.

    Args:
        max_attachments: How many bytes there may be in the data of one.
    """
    absent = st.none()
    ids = st.integers(0, 2**53)
    values = st.lists(payloads(max_leaves=8), max_size=3).filter(lambda items: _bytes_in(items) <= max_attachments)
    objects = st.dictionaries(_text, json_values(max_leaves=5), max_size=3)
    events = st.builds(lambda name, args: [name, *args], event_names() | st.integers(0, 99), values)
    return st.one_of(
        st.builds(Packet, st.just(PacketType.EVENT), namespaces(), events, absent | ids),
        st.builds(Packet, st.just(PacketType.ACK), namespaces(), values, ids),
        st.builds(Packet, st.just(PacketType.CONNECT), namespaces(), absent | objects, absent),
        st.builds(Packet, st.just(PacketType.DISCONNECT), namespaces(), absent, absent),
        st.builds(Packet, st.just(PacketType.CONNECT_ERROR), namespaces(), _text | objects, absent),
    )


def malformed_packets() -> SearchStrategy[str]:
    """Engine.IO packets, as text, for which a server closes the session (`MemoryClient.send_raw`).

    They are of no known type, or messages that are no Socket.IO packets: of a wrong type, without or with broken JSON,
    with data that their type does not have, with a name of the protocol's own, with attachments that do not fit.
    """
    values = json_values(max_leaves=4)
    number = st.integers(11, 10**30)
    reserved = st.sampled_from(sorted(RESERVED_EVENTS))
    engine = st.sampled_from(["", "7", "x", "-1", "bA", "b=A=", "\x00"])
    broken = st.sampled_from(['["a"', "[", "]", '["a",]', "['a']", '["a",NaN]', "nul", "[" * 1000, '["\\ud8"]', "{]"])
    socketio = st.one_of(
        st.sampled_from(
            ["", "7", "9[]", "x", "2", "2[]", '2"a"', "2{}", "2[null]", "2[{}]", "2[true]", "3", "3{}", "0[]", "4[]"]
        ),
        st.builds("{0}{1}".format, st.sampled_from(["2", "3", "0", "4", "21", "2/a,", "31"]), broken),
        reserved.map('2["{}"]'.format),
        number.map('5{}-["a",{{"_placeholder":true,"num":0}}]'.format),
        number.map('51-["a",{{"_placeholder":true,"num":{}}}]'.format),
        st.sampled_from(['5-["a"]', '5x-["a"]', '51["a"]', '51-["a",{"_placeholder":true,"num":-1}]', "51-", "61-{}"]),
        st.integers(0, 99).map('51-["a",{{"_placeholder":true,"num":"{}"}}]'.format),
        st.integers(10**20, 10**40).map('2{}["a"]'.format),
        st.integers(1025, 2000).map(lambda size: f'2/{"n" * size},["a"]'),
        values.filter(lambda value: value is not None).map(lambda _: '1["a"]'),
    )
    return engine | socketio.map("4{}".format)


def malformed_frames() -> SearchStrategy[bytes]:
    """Bytes that break the rules of WebSocket frames, for which a server fails the connection
    (`MemoryClient.send_bytes`): without a mask, with reserved bits or types, control frames that are too long or in
    fragments, lengths in too many bytes, text that is no UTF-8, continuations of nothing, impossible close codes.
    """
    data = st.binary(max_size=30)
    long = st.binary(min_size=126, max_size=200)
    controls = st.sampled_from([CLOSE, PING, PONG])
    return st.one_of(
        st.builds(_frame, st.sampled_from([FIN | TEXT, FIN | BINARY, FIN | PING]), data, st.just(False)),
        st.builds(_frame, st.sampled_from([FIN | kind for kind in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)]), data),
        st.builds(_frame, st.sampled_from([FIN | RSV1 | TEXT, FIN | 0x20 | TEXT, FIN | 0x10 | BINARY]), data),
        st.builds(lambda kind, payload: _frame(FIN | kind, payload), controls, long),
        st.builds(_frame, controls, data),
        st.builds(_frame, st.sampled_from([CONTINUATION, FIN | CONTINUATION]), data),
        st.builds(_frame, st.just(FIN | TEXT), data.map(lambda payload: payload + b"\xff")),
        st.builds(lambda payload, width: _frame(FIN | BINARY, payload, width=width), data, st.sampled_from([2, 8])),
        st.builds(lambda byte: _frame(FIN | CLOSE, byte), st.binary(min_size=1, max_size=1)),
        st.builds(
            lambda code: _frame(FIN | CLOSE, code.to_bytes(2, "big")), st.sampled_from([0, 999, 1005, 1006, 1015])
        ),
    )


def chunkings(data: bytes) -> SearchStrategy[list[bytes]]:
    """Ways to cut bytes into chunks, none of them empty; whole, and byte by byte, among them.

    Args:
        data: What the chunks are together.
    """
    if len(data) < 2:
        return st.just([data] if data else [])
    cuts = st.lists(st.integers(1, len(data) - 1), unique=True, max_size=8).map(sorted)
    every = st.sampled_from([[], list(range(1, len(data)))])
    return (every | cuts).map(lambda at: [data[i:j] for i, j in zip([0, *at], [*at, len(data)], strict=True)])


def _frame(first: int, payload: bytes, masked: bool = True, *, width: int = 0) -> bytes:
    size = len(payload)
    bit = MASKED if masked else 0
    if width == 0:
        width = 0 if size < 126 else 2
    length = (
        bytes((bit | size,))
        if not width
        else bytes((bit | (126 if width == 2 else 127),)) + size.to_bytes(width, "big")
    )
    return bytes((first,)) + length + (_MASK + apply_mask(payload, _MASK) if masked else payload)
