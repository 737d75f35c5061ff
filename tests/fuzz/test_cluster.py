"""Messages between servers, in all protocols, and replies of Redis, through our parser next to that of hiredis."""

from __future__ import annotations

import base64
import math
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trio_socketio._errors import EncodeError, RedisProtocolError, RedisReplyError, RemoteProtocolError
from trio_socketio._redis import parsing
from trio_socketio._redis.resp import PythonParser
from trio_socketio._wire import cluster_python
from trio_socketio._wire.cluster import Message
from trio_socketio._wire.cluster_streams import WireSession, next_stream_id, parse_stream_id, read_entry

from ..redis.test_resp import LIMIT, cut, needs_hiredis, plain, replies
from ..wire.test_cluster_messages import (
    CLASSIC,
    NEWER,
    STREAMS,
    check_message,
    classic_answers,
    classic_requests,
    decode_garbage,
    durable,
    events,
    golden_payloads,
    messages,
    newer,
    python_messages,
    rooms,
    targets,
    texts,
    values_with_bytes,
)
from ..wire.test_cluster_messages import T as MessageType
from .damage import damaged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

pytestmark = pytest.mark.fuzz

# Messages

pieces = st.binary(max_size=3) | st.sampled_from(
    [
        *(b'"type":3', b'"uid":null', b'"data":{}', b'"rooms":{"a":{}}', b'"except":[[]]', b'"timeout":1e308'),
        *(b"\xc0", b"\x80", b"\x90", b"\xa0", b"\xd4\0\0", b"\xc7\x08\x00", b"\xcb\x7f\xf0\0\0\0\0\0\0"),
        *(b"-1", b"1e400", b"null", b"[]", b"{}", b"9" * 25),
        *(b'"requestId":1', b"\xa4type\x05", b'"\\ud800"', b"AQI=", b"emitter", b"true"),
    ]
)  # fmt: skip
broadcasts = messages(MessageType.BROADCAST, events, targets)


def stream_entry(message: Message) -> bytes:
    entry = read_entry(STREAMS.encode(message))
    return entry.type + b" " + entry.data


payloads = st.one_of(
    st.one_of(classic_requests).map(CLASSIC.encode),
    st.one_of(classic_answers).map(CLASSIC.encode),
    st.one_of(newer).map(NEWER.encode),
    st.one_of(newer).map(NEWER.pack),
    st.one_of(durable).map(stream_entry),
    python_messages.map(cluster_python.encode),
    broadcasts.map(CLASSIC.encode),
    st.sampled_from(golden_payloads()),
)


@given(damaged(payloads, pieces))
def test_damaged_messages_of_every_protocol_are_messages_or_protocol_errors_for_every_protocol(payload: bytes) -> None:
    decode_garbage(payload)


ROUND_TRIPS: dict[str, tuple[st.SearchStrategy[bytes], Callable[[bytes], Message], Callable[[Message], bytes]]] = {
    "newer": (st.one_of(newer).map(NEWER.encode), NEWER.decode_untrusted, NEWER.encode),
    "packed": (st.one_of(newer).map(NEWER.pack), NEWER.decode_untrusted, NEWER.pack),
    "request": (st.one_of(classic_requests).map(CLASSIC.encode), CLASSIC.decode_request_untrusted, CLASSIC.encode),
    "broadcast": (broadcasts.map(CLASSIC.encode), CLASSIC.decode_broadcast_untrusted, CLASSIC.encode),
}


@pytest.mark.parametrize("name", ROUND_TRIPS)
@given(st.data())
def test_what_is_understood_of_a_damaged_message_can_be_said_again(name: str, data: st.DataObject) -> None:
    valid, decode, encode = ROUND_TRIPS[name]
    try:
        message = decode(data.draw(damaged(valid, pieces)))
    except RemoteProtocolError:
        return
    check_message(message)
    try:
        encoded = encode(message)
    except EncodeError:
        return
    assert repr(as_in_json(decode(encoded))) == repr(as_in_json(message))


def as_in_json(value: Any) -> Any:
    """The same with None for what is no number in JSON, which a message without attachments is said in."""
    if isinstance(value, Message):
        return value._replace(content=as_in_json(value.content))
    if isinstance(value, list):
        return [as_in_json(entry) for entry in value]
    if isinstance(value, dict):
        return {key: as_in_json(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


sessions = st.builds(WireSession, texts, texts, rooms, values_with_bytes, st.just({"offset": "1-0"}))


packed_sessions = sessions.map(lambda session: base64.b64decode(STREAMS.encode_session(session)))


@given(damaged(packed_sessions, pieces))
def test_damaged_sessions_are_sessions_or_protocol_errors(packed: bytes) -> None:
    try:
        session = STREAMS.decode_session_untrusted(base64.b64encode(packed))
    except RemoteProtocolError:
        return
    assert type(session.sid) is type(session.pid) is str
    assert all(type(room) is str for room in session.rooms)


@given(damaged(st.sampled_from(["1-0", "1526919030474-55", f"{2**64 - 1}-{2**64 - 1}"]), st.text(max_size=3)))
def test_any_offset_is_an_entry_with_a_next_one_or_none(offset: str) -> None:
    numbers = parse_stream_id(offset)
    if numbers is None:
        with pytest.raises(ValueError, match="no id"):
            next_stream_id(offset)
    elif numbers != (2**64 - 1, 2**64 - 1):
        following = parse_stream_id(next_stream_id(offset))
        assert following is not None
        assert following > numbers


# Redis

reply_pieces = st.binary(max_size=3) | st.sampled_from(
    [
        b"\r\n",
        b"\r",
        b"\n",
        b"*2\r\n",
        b"%1\r\n",
        b"~1\r\n",
        b">1\r\n",
        b"$-1\r\n",
        b"$3\r\n",
        b"=5\r\ntxt:",
        b":-0",
        b",inf",
    ]
)
#: hiredis makes a list as long as a server says that it is going to be.
HUGE = re.compile(rb"[*~%>|$=][0-9]{6}")


def read_until_error(parser: Any, chunks: Sequence[bytes]) -> tuple[list[Any], bool]:
    """The replies, and whether an error came after them."""
    found: list[Any] = []
    try:
        for chunk in chunks:
            for reply in parser.feed(chunk):
                found.append(comparable(plain(reply)))
    except RedisProtocolError:
        return found, True
    return found, False


def comparable(value: Any) -> Any:
    return "nan" if isinstance(value, tuple) and isinstance(value[1], float) and math.isnan(value[1]) else value


@needs_hiredis
@given(
    damaged(st.lists(replies, max_size=3).map(lambda found: b"".join(wire for wire, _ in found)), reply_pieces),
    st.data(),
)
def test_our_parser_takes_what_that_of_hiredis_takes_the_same_and_perhaps_less(
    wire: bytes, data: st.DataObject
) -> None:
    assume(not HUGE.search(wire))
    chunks = cut(wire, data.draw(st.lists(st.integers(0, 10_000), max_size=4)))
    ours, refused = read_until_error(PythonParser(LIMIT), chunks)
    theirs, _ = read_until_error(parsing.HiredisParser(LIMIT), chunks)
    assert theirs[: len(ours)] == ours
    if not refused:
        assert len(ours) == len(theirs)


@given(damaged(replies.map(lambda reply: bytes(reply[0])), reply_pieces))
def test_an_error_of_the_server_is_a_reply_however_it_reads(wire: bytes) -> None:
    found, _ = read_until_error(PythonParser(LIMIT), [b"-" + wire])
    line = wire.partition(b"\r\n")[0]
    if found and not set(line) & set(b"\r\n"):
        assert found[0] == plain(RedisReplyError(line.decode("utf-8", "replace")))
