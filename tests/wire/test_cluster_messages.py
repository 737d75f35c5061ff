"""Messages between servers: what is written is read again, and what is no message is refused, whoever has sent it."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_socketio import EncodeError, LocalProtocolError, RemoteProtocolError
from trio_socketio._wire import cluster_python
from trio_socketio._wire.cluster import EMITTER, Message, MessageType, Target
from trio_socketio._wire.cluster_classic import ONE_SOCKET, ClassicChannels, ClassicCodec
from trio_socketio._wire.cluster_newer import ClusterChannels, ClusterCodec, looks_private
from trio_socketio._wire.cluster_streams import (
    StreamCodec,
    StreamEntry,
    WireSession,
    next_stream_id,
    parse_stream_id,
    read_entry,
    stream_names,
    stream_of,
)
from trio_socketio._wire.packets import RESERVED_EVENTS

pack: Any = msgpack.packb

CLASSIC, NEWER, STREAMS = ClassicCodec(), ClusterCodec(), StreamCodec()
T = MessageType

# What Hypothesis makes

absent = st.none()
texts = st.text(max_size=12)
names = texts.filter(lambda name: name not in RESERVED_EVENTS) | st.integers(0, 2**53)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(texts, children, max_size=3),
    max_leaves=8,
)
values_with_bytes = values | st.binary(max_size=8) | st.lists(st.binary(max_size=8), max_size=2)
rooms = st.lists(texts, max_size=3).map(tuple)
flags = st.fixed_dictionaries(
    {}, optional={"volatile": st.just(True), "compress": st.booleans(), "timeout": st.integers(0, 10**6)}
)
targets = st.builds(Target, rooms, rooms, flags)
plain_targets = st.builds(Target, rooms, rooms)
events = st.builds(lambda name, rest: [name, *rest], names, st.lists(values_with_bytes, max_size=3))
uids = texts.filter(lambda uid: uid != EMITTER)
details = st.lists(st.dictionaries(texts, values_with_bytes, max_size=3), max_size=3)


def messages(
    type: MessageType,
    content: st.SearchStrategy[Any] = absent,
    target: st.SearchStrategy[Any] = absent,
    request_id: st.SearchStrategy[Any] = absent,
    uid: st.SearchStrategy[Any] = uids,
) -> st.SearchStrategy[Message]:
    """Messages of a type, in the main namespace."""
    return st.builds(Message, st.just(type), uid, st.just("/"), content, target, request_id, ack_id=absent)


perhaps = st.none() | texts
answers = [
    messages(T.FETCH_SOCKETS_RESPONSE, details, absent, texts),
    messages(T.SERVER_SIDE_EMIT_RESPONSE, values_with_bytes, absent, texts),
    messages(T.BROADCAST_CLIENT_COUNT, st.integers(0, 10**6), absent, texts),
    messages(T.BROADCAST_ACK, values_with_bytes, absent, texts),
    messages(T.APPLIED, absent, absent, texts),
]
classic_answers = [
    *answers,
    messages(T.ALL_ROOMS_RESPONSE, st.lists(texts, max_size=3), absent, texts, perhaps),
    messages(T.SOCKET_IDS_RESPONSE, st.lists(texts, min_size=1, max_size=3), absent, texts, perhaps),
]
one_socket = texts.map(lambda sid: Target((sid,), flags={ONE_SOCKET: True}))
classic_requests = [
    messages(T.BROADCAST, events, targets, texts),
    messages(T.SOCKETS_JOIN, rooms, plain_targets, perhaps, uids | st.none()),
    messages(T.SOCKETS_LEAVE, rooms, plain_targets, perhaps),
    messages(T.SOCKETS_JOIN, st.tuples(texts), one_socket, texts),
    messages(T.SOCKETS_LEAVE, st.tuples(texts), one_socket, texts),
    messages(T.DISCONNECT_SOCKETS, st.booleans(), plain_targets),
    messages(T.DISCONNECT_SOCKETS, st.booleans(), one_socket, texts),
    messages(T.FETCH_SOCKETS, absent, plain_targets, texts),
    messages(T.SERVER_SIDE_EMIT, events, absent, perhaps),
    messages(T.ALL_ROOMS, absent, absent, texts),
    messages(T.SOCKET_IDS, absent, st.builds(Target, rooms), texts),
]
durable = [
    messages(T.BROADCAST, events, targets),
    messages(T.SOCKETS_JOIN, rooms, targets, perhaps),
    messages(T.SOCKETS_LEAVE, rooms, targets, perhaps),
    messages(T.DISCONNECT_SOCKETS, st.booleans(), targets),
    messages(T.SERVER_SIDE_EMIT, events),
]
newer = [
    *durable,
    *answers,
    messages(T.BROADCAST, events, targets, texts),
    messages(T.FETCH_SOCKETS, absent, targets, texts),
    messages(T.SERVER_SIDE_EMIT, events, absent, texts),
    *(messages(kind) for kind in (T.INITIAL_HEARTBEAT, T.HEARTBEAT, T.ADAPTER_CLOSE)),
]


@given(messages(T.BROADCAST, events, targets, absent, uids | st.just(EMITTER)))
def test_classic_broadcasts_come_back(message: Message) -> None:
    assert CLASSIC.decode_broadcast_untrusted(CLASSIC.encode(message)) == message


@given(st.one_of(classic_requests))
def test_classic_requests_come_back(message: Message) -> None:
    assert CLASSIC.decode_request_untrusted(CLASSIC.encode(message)) == message


@given(st.one_of(classic_answers))
def test_classic_responses_come_back(message: Message) -> None:
    payload = CLASSIC.encode(message)
    assert CLASSIC.decode_response_untrusted(payload) == message
    anonymous = message._replace(uid=None)
    assert CLASSIC.decode_response_untrusted(CLASSIC.encode(anonymous)) == anonymous


@given(st.one_of(newer))
def test_newer_messages_come_back_in_either_form(message: Message) -> None:
    for payload in (NEWER.encode(message), NEWER.pack(message)):
        assert NEWER.decode_untrusted(payload) == message
        assert payload.endswith(NEWER.own_ends(message.uid or ""))


@given(st.one_of(durable), st.none() | st.integers(0, 2**53))
def test_stream_entries_come_back(message: Message, ack_id: int | None) -> None:
    if message.type is T.BROADCAST:
        message = message._replace(ack_id=ack_id)
    assert STREAMS.decode_untrusted(read_entry(STREAMS.encode(message))) == message


@given(st.builds(WireSession, texts, texts, rooms, values_with_bytes, st.just({"offset": "1-0"}) | st.just({})))
def test_sessions_come_back(session: WireSession) -> None:
    assert STREAMS.decode_session_untrusted(STREAMS.encode_session(session)) == session


python_messages = st.one_of(
    messages(T.BROADCAST, events.filter(lambda event: event[1:] != [None]), plain_targets),
    messages(
        T.BROADCAST,
        events.filter(lambda event: event[1:] != [None]),
        st.builds(Target, st.lists(texts, min_size=1, max_size=3).map(tuple)),
        st.integers(0, 9).map(str),
    ),
    messages(T.BROADCAST_ACK, st.lists(values, max_size=3), st.builds(Target, st.tuples(texts)), st.just("7")),
    messages(T.DISCONNECT_SOCKETS, st.just(False), st.builds(Target, st.tuples(texts))),
    messages(T.SOCKETS_JOIN, st.tuples(texts), st.builds(Target, st.tuples(texts))),
    messages(T.SOCKETS_LEAVE, st.tuples(texts), st.builds(Target, st.tuples(texts))),
)


@given(python_messages)
def test_messages_of_python_socketio_come_back(message: Message) -> None:
    assert cluster_python.decode_untrusted(cluster_python.encode(message)) == message


# What other senders are known to do

ROOMS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "a list": (["a", "b"], ("a", "b")),
    "nothing": (None, ()),
    "an empty map": ({}, ()),
    "numbers": ([1, "b", 1.5], ("1", "b", "1.5")),
    "an array with holes": ({"1": "a", "5": "b"}, ("a", "b")),
    "a set": ({"a": True, "b": True}, ("a", "b")),
}


@pytest.mark.parametrize(("written", "read"), ROOMS.values(), ids=ROOMS)
def test_rooms_are_read_in_every_form(written: Any, read: tuple[str, ...]) -> None:
    frame = ["emitter", {"type": 2, "data": ["x"], "nsp": "/"}, {"rooms": written, "except": written, "flags": []}]
    message = CLASSIC.decode_broadcast_untrusted(pack(frame))
    assert message.target == Target(read, read)


@pytest.mark.parametrize("options", [{}, {"rooms": [], "flags": []}, {"flags": None}, {"flags": {"json": True}}])
def test_options_may_be_missing(options: dict[str, Any]) -> None:
    message = CLASSIC.decode_broadcast_untrusted(pack(["emitter", {"type": 5, "data": ["x", b"\x01"]}, options]))
    assert message.content == ["x", b"\x01"]
    assert message.namespace == "/"
    assert message.target is not None
    assert message.target[:2] == ((), ())


def test_old_msgpack_without_bytes_and_short_texts_is_read() -> None:
    frame = ["emitter", {"type": 2, "data": ["x", "y" * 40], "nsp": "/"}, {"rooms": [], "flags": []}]
    message = CLASSIC.decode_broadcast_untrusted(pack(frame, use_bin_type=False))
    assert message.content == ["x", "y" * 40]


def test_an_emitter_has_its_own_order_and_no_name_in_joins() -> None:
    broadcast = Message(T.BROADCAST, EMITTER, "/", ["x"], Target(("a",)))
    frame = msgpack.unpackb(CLASSIC.encode(broadcast))
    assert list(frame[2]) == ["rooms", "flags", "except"]
    join = Message(T.SOCKETS_JOIN, EMITTER, "/", ("b",), Target(("a",)))
    assert CLASSIC.encode(join) == b'{"type":2,"opts":{"rooms":["a"],"except":[]},"rooms":["b"]}'
    data = json.loads(NEWER.encode(broadcast))["data"]
    assert data["packet"] == {"type": 2, "data": ["x"], "nsp": "/"}
    assert list(data["opts"]) == ["rooms", "flags", "except"]


OLD_REQUESTS: dict[str, tuple[dict[str, Any], Message]] = {
    "join": (
        {"uid": "a", "requestId": "r", "type": 2, "sid": "s", "room": "b"},
        Message(T.SOCKETS_JOIN, "a", "/", ("b",), Target(("s",), flags={ONE_SOCKET: True}), "r"),
    ),
    "leave": (
        {"uid": "a", "requestId": "r", "type": 3, "sid": "s", "room": "b"},
        Message(T.SOCKETS_LEAVE, "a", "/", ("b",), Target(("s",), flags={ONE_SOCKET: True}), "r"),
    ),
    "disconnect": (
        {"uid": "a", "requestId": "r", "type": 4, "sid": "s", "close": True},
        Message(T.DISCONNECT_SOCKETS, "a", "/", True, Target(("s",), flags={ONE_SOCKET: True}), "r"),
    ),
    "sockets": (
        {"uid": "a", "requestId": "r", "type": 0, "rooms": ["b"]},
        Message(T.SOCKET_IDS, "a", "/", None, Target(("b",)), "r"),
    ),
}


@pytest.mark.parametrize(("written", "message"), OLD_REQUESTS.values(), ids=OLD_REQUESTS)
def test_requests_of_older_servers_are_read_and_written(written: dict[str, Any], message: Message) -> None:
    payload = json.dumps(written, separators=(",", ":")).encode()
    assert CLASSIC.decode_request_untrusted(payload) == message
    assert CLASSIC.encode(message) == payload
    assert CLASSIC.decode_request_untrusted(pack(written)) == message


def test_bytes_in_classic_requests_make_them_msgpack() -> None:
    message = Message(T.SERVER_SIDE_EMIT, "uid", "/", ["x", b"\x01"], request_id="r")
    payload = CLASSIC.encode(message)
    assert payload.startswith(CLASSIC.own_starts("uid"))
    assert msgpack.unpackb(payload) == {"uid": "uid", "requestId": "r", "type": 6, "data": ["x", b"\x01"]}


def test_confirmations_are_what_others_ignore() -> None:
    applied = Message(T.APPLIED, "me", "/", request_id="r")
    assert CLASSIC.encode(applied) == b'{"requestId":"r","uid":"me"}'
    assert NEWER.encode(applied) == b'{"type":103,"data":{"requestId":"r"},"uid":"me","nsp":"/"}'
    join = Message(T.SOCKETS_JOIN, "me", "/", ("b",), Target(), "r")
    assert json.loads(NEWER.encode(join))["data"]["requestId"] == "r"
    assert json.loads(CLASSIC.encode(join))["requestId"] == "r"


@pytest.mark.parametrize("kind", [T.ALL_ROOMS, T.ALL_ROOMS_RESPONSE, T.SOCKET_IDS, T.SOCKET_IDS_RESPONSE])
def test_the_newer_protocol_does_not_have_everything(kind: MessageType) -> None:
    for encode in (NEWER.encode, NEWER.pack, STREAMS.encode, cluster_python.encode):
        with pytest.raises(LocalProtocolError):
            encode(Message(kind, "me", "/", [], Target(), "r"))


def test_the_older_protocol_has_no_heartbeats() -> None:
    with pytest.raises(LocalProtocolError):
        CLASSIC.encode(Message(T.HEARTBEAT, "me", "/"))


@pytest.mark.parametrize("encode", [CLASSIC.encode, NEWER.encode, NEWER.pack, STREAMS.encode, cluster_python.encode])
def test_what_cannot_be_encoded_is_an_error_of_the_application(encode: Callable[[Message], object]) -> None:
    with pytest.raises(EncodeError):
        encode(Message(T.BROADCAST, "me", "/", ["x", object()], Target()))


# python-socketio, as older versions send it

LEGACY: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "a bare value": ({"data": "a"}, ["x", "a"]),
    "a bare map": ({"data": {"a": 1}}, ["x", {"a": 1}]),
    "a list of one": ({"data": ["a"]}, ["x", "a"]),
    "several": ({"data": ["a", 2]}, ["x", "a", 2]),
    "no argument": ({"data": [None]}, ["x"]),
    "nothing at all": ({}, ["x"]),
    "bytes": ({"data": [[{"_placeholder": True, "num": 0}], "AQI="], "binary": True}, ["x", b"\x01\x02"]),
    "a bare placeholder": ({"data": [{"_placeholder": True, "num": 0}, "AQI="], "binary": True}, ["x", b"\x01\x02"]),
}


@pytest.mark.parametrize(("fields", "content"), LEGACY.values(), ids=LEGACY)
def test_emits_of_every_version_of_python_socketio_are_read(fields: dict[str, Any], content: list[Any]) -> None:
    payload = json.dumps({"method": "emit", "event": "x", "host_id": "h", **fields}).encode()
    assert cluster_python.decode_untrusted(payload) == Message(T.BROADCAST, "h", "/", content, Target())


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "eval"},
        {"method": ["emit"]},
        {"method": "emit", "event": None},
        {"method": "emit", "event": "connect"},
        {"method": "emit", "event": "x", "room": {"a": {}}},
        {"method": "emit", "event": "x", "room": True},
        {"method": "emit", "event": "x", "callback": "y", "room": "a"},
        {"method": "emit", "event": "x", "callback": ["a", "/", 1]},
        {"method": "emit", "event": "x", "callback": ["a", "/", -1], "room": "a"},
        {"method": "emit", "event": "x", "data": [[{"_placeholder": True, "num": 1}], "AQI="], "binary": True},
        {"method": "emit", "event": "x", "data": [[{"_placeholder": True, "num": True}], "AQI="], "binary": True},
        {"method": "emit", "event": "x", "data": [[], "A"], "binary": True},
        {"method": "emit", "event": "x", "data": [[], "é"], "binary": True},
        {"method": "emit", "event": "x", "data": "AQI=", "binary": True},
        {"method": "emit", "event": "x", "namespace": 1},
        {"method": "emit", "event": "x", "host_id": 1},
        {"method": "callback", "sid": "s", "id": 1},
        {"method": "callback", "sid": "s", "id": "1", "args": []},
        {"method": "disconnect"},
        {"method": "enter_room", "sid": "s"},
        {"method": "leave_room", "room": "r"},
        {"method": "close_room", "room": 1},
    ],
    ids=str,
)
def test_what_python_socketio_does_not_send_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        cluster_python.decode_untrusted(json.dumps(fields).encode())


def test_pickle_is_not_read() -> None:
    with pytest.raises(RemoteProtocolError):
        cluster_python.decode_untrusted(b"\x80\x04}\x94\x8c\x06method\x94\x8c\x04emit\x94s.")


# Channels and streams


def test_patterns_mean_their_characters() -> None:
    channels = ClassicChannels("/a[b]*?\\c")
    assert channels.pattern == rb"socket.io#/a\[b\]\*\?\\c#*"
    assert channels.request == rb"socket.io-request#/a[b]*?\c#"


def test_a_channel_says_its_room() -> None:
    channels = ClassicChannels("/", "prefix")
    for room in ("a", "a#b", "#", "é", "1"):
        assert channels.room_untrusted(channels.room(room)) == room
    assert channels.room_untrusted(b"prefix#/#") == ""
    for other in (b"prefix#/", b"other#/#a#", b"prefix#/#a", b"prefix#/#\xff#", b""):
        with pytest.raises(RemoteProtocolError):
            channels.room_untrusted(other)


def test_lone_surrogates_in_names_have_channels() -> None:
    assert ClassicChannels("/").room("\ud800") == ClusterChannels("/").room("\ud800") == "socket.io#/#\ufffd#".encode()


def test_rooms_have_channels_by_the_mode() -> None:
    channels = ClusterChannels("/")
    to_room = Message(T.BROADCAST, "me", "/", ["x"], Target(("room",)))
    to_socket = to_room._replace(target=Target(("a" * 20,)))
    assert channels.of(to_room, "dynamic") == channels.of(to_room, "dynamic-private") == channels.room("room")
    assert channels.of(to_socket, "dynamic") == channels.main
    assert channels.of(to_socket, "dynamic-private") == channels.room("a" * 20)
    for message in (
        to_room._replace(request_id="r"),
        to_room._replace(target=Target()),
        to_room._replace(target=Target(("a", "b"))),
        Message(T.SOCKETS_JOIN, "me", "/", ("b",), Target(("room",))),
    ):
        assert channels.of(message, "dynamic-private") == channels.main
    assert channels.of(to_room, "static") == channels.main


def test_the_length_of_a_private_room_is_in_code_units() -> None:
    assert looks_private("a" * 20)
    assert looks_private("😀" * 10)
    assert not looks_private("😀" * 20)
    assert not looks_private("a" * 19)


@pytest.mark.parametrize(
    ("namespace", "count", "stream"),
    [
        ("/", 1, "socket.io"),
        ("/", 4, "socket.io-3"),
        ("/admin", 3, "socket.io-1"),
        ("/notifications", 1, "socket.io"),
        ("/notifications", 4, "socket.io--3"),
        ("/😀é", 3, "socket.io-2"),
        ("/x" * 50, 3, "socket.io--1"),
    ],
)
def test_streams_are_those_of_javascript(namespace: str, count: int, stream: str) -> None:
    assert stream_of(namespace, count=count) == stream
    assert (stream in stream_names(count=count)) == ("--" not in stream)


def test_ids_of_entries() -> None:
    assert parse_stream_id("1795339851359-0") == (1795339851359, 0)
    assert next_stream_id("1795339851359-0") == "1795339851359-1"
    assert next_stream_id(f"1-{2**64 - 1}") == "2-0"
    for text in ("", "1", "-1", "1-", "1-2\n", "1-2-3", "١-١", "+1-1", "$", "9" * 21 + "-0", f"{2**64}-0"):
        assert parse_stream_id(text) is None
    for text in ("$", f"{2**64 - 1}-{2**64 - 1}"):
        with pytest.raises(ValueError, match="no id of an entry"):
            next_stream_id(text)


def test_entries_of_others_are_told_before_they_are_decoded() -> None:
    assert read_entry([b"a", b"b", b"odd"]).namespace is None
    assert read_entry([]) == StreamEntry(None, None, b"", b"")
    for entry in (
        StreamEntry(None, None, b"3", b"{}"),
        StreamEntry(b"u", b"/", b"03", b"{}"),
        StreamEntry(b"u", b"/", b"101", b"{}"),
        StreamEntry(b"\xff", b"/", b"1", b""),
        StreamEntry(b"u", b"/", b"3", b"not base64!"),
        StreamEntry(b"u", b"/", b"3", base64.b64encode(b"\xc1")),
        StreamEntry(b"u", b"/", b"3", b""),
    ):
        with pytest.raises(RemoteProtocolError):
            STREAMS.decode_untrusted(entry)


# What is no message

PACKET = {"type": 2, "data": ["x"], "nsp": "/"}
OPTIONS: dict[str, Any] = {"rooms": [], "except": [], "flags": {}}
BROADCASTS: dict[str, Any] = {
    "nil": None,
    "a map": {},
    "two parts": [PACKET, OPTIONS],
    "four parts": ["u", PACKET, OPTIONS, None],
    "no name": [None, PACKET, OPTIONS],
    "a number as name": [1, PACKET, OPTIONS],
    "no packet": ["u", None, OPTIONS],
    "no options": ["u", PACKET, None],
    "another type": ["u", {**PACKET, "type": 1}, OPTIONS],
    "true as a type": ["u", {**PACKET, "type": True}, OPTIONS],
    "no data": ["u", {"type": 2}, OPTIONS],
    "no event": ["u", {**PACKET, "data": []}, OPTIONS],
    "an event without a name": ["u", {**PACKET, "data": [None]}, OPTIONS],
    "an event named true": ["u", {**PACKET, "data": [True]}, OPTIONS],
    "a reserved event": ["u", {**PACKET, "data": ["disconnect"]}, OPTIONS],
    "a text as data": ["u", {**PACKET, "data": "x"}, OPTIONS],
    "a number as namespace": ["u", {**PACKET, "nsp": 1}, OPTIONS],
    "a negative ack id": ["u", {**PACKET, "id": -1}, OPTIONS],
    "true as ack id": ["u", {**PACKET, "id": True}, OPTIONS],
    "a text as rooms": ["u", PACKET, {"rooms": "abc"}],
    "nil as a room": ["u", PACKET, {"rooms": [None]}],
    "true as a room": ["u", PACKET, {"rooms": [True]}],
    "bytes as a room": ["u", PACKET, {"rooms": [b"a"]}],
    "a list as a room": ["u", PACKET, {"rooms": [["a"]]}],
    "a number as except": ["u", PACKET, {"except": 1}],
    "a text as flags": ["u", PACKET, {"flags": "volatile"}],
    "a list as flags": ["u", PACKET, {"flags": ["volatile"]}],
    "a text as timeout": ["u", PACKET, {"flags": {"timeout": "1"}}],
    "true as timeout": ["u", PACKET, {"flags": {"timeout": True}}],
    "a negative timeout": ["u", PACKET, {"flags": {"timeout": -1}}],
    "an endless timeout": ["u", PACKET, {"flags": {"timeout": math.inf}}],
    "no number as timeout": ["u", PACKET, {"flags": {"timeout": math.nan}}],
}


@pytest.mark.parametrize("frame", BROADCASTS.values(), ids=BROADCASTS)
def test_what_is_no_broadcast_is_refused(frame: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        CLASSIC.decode_broadcast_untrusted(pack(frame))


JOIN: dict[str, Any] = {"type": 2, "opts": OPTIONS, "rooms": ["a"]}
REQUESTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "true as a type": {**JOIN, "type": True},
    "a text as a type": {**JOIN, "type": "2"},
    "a large type": {**JOIN, "type": 10**30},
    "a type of a response": {"type": 8, "requestId": "r", "clientCount": 1},
    "a number as name": {**JOIN, "uid": 1},
    "a number as request id": {**JOIN, "requestId": 1},
    "neither options nor a socket": {"type": 2, "rooms": ["a"]},
    "no rooms": {"type": 2, "opts": OPTIONS},
    "no room": {"type": 2, "sid": "s", "requestId": "r"},
    "an old form without a request id": {"type": 2, "sid": "s", "room": "a"},
    "a number for close": {"type": 4, "opts": OPTIONS, "close": 1},
    "a fetch without options": {"type": 5, "requestId": "r"},
    "a fetch without a request id": {"type": 5, "opts": OPTIONS},
    "all rooms without a request id": {"type": 1},
    "an emit of nothing": {"type": 6, "data": []},
    "an emit of a reserved event": {"type": 6, "data": ["connect"]},
    "a broadcast without a request id": {"type": 7, "packet": PACKET, "opts": OPTIONS},
    "a broadcast without a packet": {"type": 7, "requestId": "r", "opts": OPTIONS},
}


@pytest.mark.parametrize("request_fields", REQUESTS.values(), ids=REQUESTS)
def test_what_is_no_request_is_refused(request_fields: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        CLASSIC.decode_request_untrusted(json.dumps(request_fields).encode())


RESPONSES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no request id": {"rooms": []},
    "a number as request id": {"requestId": 1},
    "no count": {"type": 8, "requestId": "r"},
    "true as count": {"type": 8, "requestId": "r", "clientCount": True},
    "a negative count": {"type": 8, "requestId": "r", "clientCount": -1},
    "a float as count": {"type": 8, "requestId": "r", "clientCount": 1.5},
    "nil as a room": {"requestId": "r", "rooms": [None]},
    "numbers as sockets": {"requestId": "r", "sockets": [1]},
    "ids and details as sockets": {"requestId": "r", "sockets": ["a", {}]},
}


@pytest.mark.parametrize("response", RESPONSES.values(), ids=RESPONSES)
def test_what_is_no_response_is_refused(response: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        CLASSIC.decode_response_untrusted(json.dumps(response).encode())


NEWER_FIELDS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "true as a type": {"type": True},
    "a type of ours": {"type": 101, "data": {"requestId": "r"}},
    "no data": {"type": 3},
    "a list as data": {"type": 3, "data": []},
    "a number as namespace": {"type": 2, "nsp": 1},
    "a number as name": {"type": 2, "uid": 1},
    "a broadcast without options": {"type": 3, "data": {"packet": PACKET}},
    "a join without rooms": {"type": 4, "data": {"opts": OPTIONS}},
    "a text for close": {"type": 6, "data": {"opts": OPTIONS, "close": "yes"}},
    "a fetch without a request id": {"type": 7, "data": {"opts": OPTIONS}},
    "numbers as sockets": {"type": 8, "data": {"requestId": "r", "sockets": [1]}},
    "an emit of a text": {"type": 9, "data": {"packet": "x"}},
    "an answer to nothing": {"type": 10, "data": {"packet": 1}},
    "no count": {"type": 11, "data": {"requestId": "r"}},
    "an ack to a number": {"type": 12, "data": {"requestId": 1}},
}


@pytest.mark.parametrize("fields", NEWER_FIELDS.values(), ids=NEWER_FIELDS)
def test_what_is_no_newer_message_is_refused(fields: dict[str, Any]) -> None:
    for payload in (json.dumps(fields).encode(), pack({"uid": "u", "nsp": "/"} | fields) if fields else b"\x80"):
        with pytest.raises(RemoteProtocolError):
            NEWER.decode_untrusted(payload)


@pytest.mark.parametrize("session", [None, [], {}, {"sid": "s"}, {"sid": 1, "pid": "p", "rooms": []}, {"pid": "p"}])
def test_what_is_no_session_is_refused(session: Any) -> None:
    for value in (base64.b64encode(pack(session)), pack(session), b"%%%"):
        with pytest.raises(RemoteProtocolError):
            STREAMS.decode_session_untrusted(value)


# Garbage: an error of the protocol, or a message as it should be

Decoder: TypeAlias = Callable[[bytes], Message]


def decode_entry(payload: bytes) -> Message:
    kind, _, data = payload.partition(b" ")
    return STREAMS.decode_untrusted(StreamEntry(b"u", b"/", kind, data))


DECODERS: dict[str, Decoder] = {
    "classic broadcast": CLASSIC.decode_broadcast_untrusted,
    "classic request": CLASSIC.decode_request_untrusted,
    "classic response": CLASSIC.decode_response_untrusted,
    "newer": NEWER.decode_untrusted,
    "stream": decode_entry,
    "python": cluster_python.decode_untrusted,
}


def check_message(message: Message) -> None:
    """That it is what the table of the module ``cluster`` says."""
    kind, uid, namespace, content, target, request_id, ack_id = message
    assert isinstance(kind, MessageType)
    assert uid is None or type(uid) is str
    assert type(namespace) is str
    assert request_id is None or type(request_id) is str
    assert ack_id is None or (type(ack_id) is int and ack_id >= 0)
    if kind in (T.BROADCAST, T.SERVER_SIDE_EMIT):
        assert type(content) is list
        assert type(content[0]) in (str, int, float)
    elif kind in (T.SOCKETS_JOIN, T.SOCKETS_LEAVE):
        assert type(content) is tuple
        assert all(type(room) is str for room in content)
    elif kind is T.DISCONNECT_SOCKETS:
        assert type(content) is bool
    elif kind is T.FETCH_SOCKETS_RESPONSE:
        assert all(type(details) is dict for details in content)
    elif kind in (T.ALL_ROOMS_RESPONSE, T.SOCKET_IDS_RESPONSE):
        assert type(content) is list
        assert all(type(name) is str for name in content)
    elif kind is T.BROADCAST_CLIENT_COUNT:
        assert type(content) is int
        assert content >= 0
    elif kind not in (T.BROADCAST_ACK, T.SERVER_SIDE_EMIT_RESPONSE):
        assert content is None
    if kind in (T.BROADCAST, T.SOCKETS_JOIN, T.SOCKETS_LEAVE, T.DISCONNECT_SOCKETS, T.FETCH_SOCKETS, T.SOCKET_IDS):
        assert isinstance(target, Target)
        assert type(target.rooms) is type(target.except_rooms) is tuple
        assert all(type(room) is str for room in (*target.rooms, *target.except_rooms))
        assert isinstance(target.flags, Mapping)
        timeout = target.flags.get("timeout", 0)
        assert timeout is None or (type(timeout) in (int, float) and 0 <= timeout < math.inf)


def decode_garbage(payload: bytes) -> None:
    for decode in DECODERS.values():
        try:
            message = decode(payload)
        except RemoteProtocolError:
            continue
        check_message(message)


@given(st.binary() | st.binary().map(lambda data: b"{" + data))
def test_random_bytes_are_no_surprise(payload: bytes) -> None:
    decode_garbage(payload)


field_names = st.sampled_from(
    [
        *("uid", "nsp", "type", "data", "packet", "opts", "rooms", "except", "flags", "requestId", "sockets"),
        *("clientCount", "close", "sid", "room", "timeout", "id", "method", "event", "namespace", "host_id"),
        *("skip_sid", "callback", "binary", "args", "_placeholder", "num"),
    ]
)
odd_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 13)
    | st.floats()
    | st.sampled_from(["x", "emit", "callback", "", "\ud800", 103, 10**30, 5e300, 1795339851359])
    | st.binary(max_size=4),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(field_names, children, max_size=6),
    max_leaves=25,
)


@given(odd_values)
def test_odd_values_are_no_surprise(value: Any) -> None:
    try:
        packed = CLASSIC._values.pack(value)
    except EncodeError:
        return
    decode_garbage(packed)
    decode_garbage(b"3 " + base64.b64encode(packed))
    text = json.dumps(value, default=lambda data: data.decode("latin-1")).encode()
    decode_garbage(text)
    decode_garbage(b"5 " + text)


def golden_payloads() -> list[bytes]:
    frames = json.loads(Path(__file__).with_name("golden_redis_frames.json").read_text("utf-8"))
    found = set[bytes]()
    for frame in frames:
        arguments = frame["args"]
        if frame["command"] in ("PUBLISH", "SPUBLISH"):
            text = arguments[1]
            found.add(bytes.fromhex(text[4:]) if text.startswith("hex:") else text.encode())
        elif frame["command"] == "XADD":
            found.add(f"{arguments[10]} {arguments[12]}".encode())
    return sorted(found)


@given(
    st.sampled_from(golden_payloads()),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 2), st.binary(min_size=1, max_size=3)), min_size=1),
)
def test_damaged_frames_are_no_surprise(payload: bytes, damages: list[tuple[int, int, bytes]]) -> None:
    for position, removed, added in damages:
        position %= len(payload) + 1
        payload = payload[:position] + added + payload[position + removed :]
    decode_garbage(payload)


@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
def test_deep_nests_are_refused(decode: Decoder) -> None:
    for depth in (257, 1_000, 100_000):
        nest = b"[" * depth + b"]" * depth
        packed_nest = b"\x91" * depth + b"\xc0"
        bombs = [
            *(nest, b'{"a":' + nest + b"}", b"3 {" + nest + b"}", b'{"type":3,"data":' + nest + b"}"),
            b'3 {"packet":{"type":2,"data":["x",' + nest + b"]}}",
            b'{"method":"emit","event":"x","data":' + nest + b"}",
            *(packed_nest, b"3 " + base64.b64encode(packed_nest)),
            b"\x93\xa1u\x82\xa4type\x02\xa4data\x92\xa1x" + packed_nest + b"\x80",
        ]
        for bomb in bombs:
            with pytest.raises(RemoteProtocolError):
                decode(bomb)
