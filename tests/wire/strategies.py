"""Values for the tests of the wire formats: what Hypothesis makes, and what the reference implementation answered."""

from __future__ import annotations

import base64
import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from trio_socketio._wire import json as codecs
from trio_socketio._wire.packets import RESERVED_EVENTS, Packet, PacketType

if TYPE_CHECKING:
    from trio_socketio._wire.parser import JSONCodec


class PlainCodec:
    """The JSON module's own back end, as a `JSONCodec`."""

    dumps = staticmethod(codecs.plain_dumps)
    loads_untrusted = staticmethod(codecs.plain_loads_untrusted)


class OrjsonCodec:
    """The JSON module's back end upon orjson, as a `JSONCodec`."""

    dumps = staticmethod(codecs.orjson_dumps)
    loads_untrusted = staticmethod(codecs.orjson_loads_untrusted)


#: The back ends that can be tested here.
CODECS: dict[str, JSONCodec] = {"plain": PlainCodec()}
if codecs.dumps is not codecs.plain_dumps:
    CODECS["orjson"] = OrjsonCodec()


def _joined_surrogates(text: str) -> str:
    """The same text with no surrogate pair left in it: on the wire a pair is one character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _is_placeholder(value: dict[str, Any]) -> bool:
    return value.get("_placeholder") is True


#: Every text that JavaScript can have, lone surrogates included.
texts = st.text(st.characters(exclude_categories=())).map(_joined_surrogates)
integers = st.integers(-(2**63), 2**64 - 1)
scalars = st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | texts
_keys = texts | st.sampled_from(["_placeholder", "num"])


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Lists and dicts of these leaves, but none that looks like a placeholder."""
    return st.recursive(
        leaves,
        lambda children: (
            st.lists(children, max_size=5)
            | st.dictionaries(_keys, children, max_size=5).filter(lambda value: not _is_placeholder(value))
        ),
        max_leaves=20,
    )


json_values = nested(scalars)
#: Values that fit into one packet: ten attachments at most.
values_with_bytes = nested(scalars | st.binary(max_size=20)).filter(lambda value: len(bytes_in(value)) <= 10)

namespaces = st.just("/") | st.text(st.characters(exclude_categories=["Cs"], exclude_characters=","), max_size=30).map(
    lambda name: "/" + name
)
ack_ids = st.integers(0, 2**64 - 1)
event_names = (texts | integers).filter(lambda name: name not in RESERVED_EVENTS)


def packets(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Packet]:
    """Packets of all kinds; the data of events and acks contains these values."""
    arguments = st.lists(values, max_size=4).filter(lambda value: len(bytes_in(value)) <= 10)
    events = st.builds(lambda name, rest: [name, *rest], event_names, arguments)
    objects = st.dictionaries(texts, json_values, max_size=3)
    absent = st.none()
    return st.one_of(
        st.builds(Packet, st.just(PacketType.EVENT), namespaces, events, absent | ack_ids),
        st.builds(Packet, st.just(PacketType.ACK), namespaces, arguments, ack_ids),
        st.builds(Packet, st.just(PacketType.CONNECT), namespaces, absent | objects, absent),
        st.builds(Packet, st.just(PacketType.DISCONNECT), namespaces, absent, absent),
        st.builds(Packet, st.just(PacketType.CONNECT_ERROR), namespaces, texts | objects, absent),
    )


def bytes_in(value: Any) -> list[bytes]:
    """All bytes in a value, depth-first."""
    if isinstance(value, bytes):
        return [value]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [found for child in children for found in bytes_in(child)]


@functools.cache
def golden(section: str) -> list[dict[str, Any]]:
    """Rows of ``golden.json``: what socket.io-parser 4.2.7 and engine.io-parser 5.2.3 made of the same input.

    Bytes are objects with the key ``$bytes`` and base64 in it.
    """
    text = Path(__file__).with_name("golden.json").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = json.loads(text, object_hook=_revive)[section]
    return rows


def _revive(value: dict[str, Any]) -> Any:
    return base64.b64decode(value["$bytes"]) if "$bytes" in value else value
