"""What real servers and emitters have sent to Redis is understood, and would have been sent by us in the same bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trio_socketio._wire import cluster_python
from trio_socketio._wire.cluster import EMITTER, Message, MessageType
from trio_socketio._wire.cluster_classic import ClassicChannels, ClassicCodec
from trio_socketio._wire.cluster_newer import ClusterChannels, ClusterCodec, SubscriptionMode
from trio_socketio._wire.cluster_sockets import details_from_wire_untrusted, details_to_wire
from trio_socketio._wire.cluster_streams import (
    StreamCodec,
    next_stream_id,
    parse_stream_id,
    read_entry,
    session_key,
    stream_names,
    stream_of,
)
from trio_socketio._wire.cluster_values import Values

#: Every command that was sent: by servers of ``@socket.io/redis-adapter`` 8.3.0 (classic and sharded) and
#: ``@socket.io/redis-streams-adapter`` 0.3.1, by the emitters of both, ``@socket.io/cluster-engine`` 0.1.0 and
#: python-socketio 5.18.1. Arguments that are no text are in hexadecimal digits after ``hex:``.
FRAMES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("golden_redis_frames.json").read_text("utf-8"))

MODES: dict[str, SubscriptionMode] = {"sharded": "dynamic", "sharded-private": "dynamic-private", "streams": "static"}
ANSWERS = (
    MessageType.FETCH_SOCKETS_RESPONSE,
    MessageType.SERVER_SIDE_EMIT_RESPONSE,
    MessageType.BROADCAST_CLIENT_COUNT,
    MessageType.BROADCAST_ACK,
)
CLASSIC = ("classic", "classic-specific")
VALUES = Values()


def frames(command: str, *captures: str) -> list[Any]:
    """The frames of a command from these captures, as parameters with names."""
    found = [frame for frame in FRAMES if frame["command"] == command and frame["capture"] in captures]
    assert found
    return [pytest.param(frame, id=f"{frame['capture']}: {frame['step']}") for frame in found]


def to_bytes(argument: str) -> bytes:
    return bytes.fromhex(argument[4:]) if argument.startswith("hex:") else argument.encode()


def namespace_of(channel: str) -> str:
    return "/admin" if "#/admin#" in channel else "/"


def decode_classic(frame: dict[str, Any]) -> Message:
    channel, payload = frame["args"][0], to_bytes(frame["args"][1])
    codec = ClassicCodec(namespace_of(channel))
    kind = channel.split("#")[0]
    if kind == "socket.io-request":
        return codec.decode_request_untrusted(payload)
    if kind == "socket.io-response":
        return codec.decode_response_untrusted(payload)
    return codec.decode_broadcast_untrusted(payload)


def decode_newer(frame: dict[str, Any]) -> Message:
    return ClusterCodec().decode_untrusted(to_bytes(frame["args"][1]))


@pytest.mark.parametrize("frame", frames("PUBLISH", *CLASSIC, "emitters"))
def test_classic_frames_come_back_byte_for_byte(frame: dict[str, Any]) -> None:
    message = decode_classic(frame)
    assert ClassicCodec().encode(message) == to_bytes(frame["args"][1])


@pytest.mark.parametrize("frame", frames("PUBLISH", *CLASSIC, "emitters"))
def test_classic_frames_are_where_they_belong(frame: dict[str, Any]) -> None:
    channel = frame["args"][0].encode()
    message = decode_classic(frame)
    channels = ClassicChannels(message.namespace)
    own_channel = channel.startswith(channels.response) and channel != channels.response
    assert channels.of(message) == (channels.response if own_channel else channel)


def test_classic_frames_mean_what_they_say() -> None:
    by_step = {
        f"{frame['step']} {MessageType(decode_classic(frame).type).name}": decode_classic(frame)
        for frame in FRAMES
        if frame["capture"] == "classic" and frame["command"] == "PUBLISH"
    }
    broadcast = by_step["emit 2 rooms except flags BROADCAST"]
    assert broadcast.target is not None
    assert broadcast.target.rooms == ("room1", "room2")
    assert broadcast.target.except_rooms == ("room3",)
    assert broadcast.target.flags == {"volatile": True, "compress": False}
    assert by_step["socketsJoin SOCKETS_JOIN"].content == ("room2", "room9")
    assert by_step["disconnectSockets DISCONNECT_SOCKETS"].content is True
    assert by_step["serverSideEmit ack SERVER_SIDE_EMIT"].content == ["ssa", 7]
    assert by_step["serverSideEmit ack SERVER_SIDE_EMIT_RESPONSE"].content == {"r": 7}
    assert by_step["emit with ack binary BROADCAST_ACK"].content == b"\x01\x02"
    assert by_step["emit with ack binary BROADCAST_CLIENT_COUNT"].content == 1
    assert "room1" in by_step["allRooms ALL_ROOMS_RESPONSE"].content
    assert by_step["of /admin BROADCAST"].namespace == "/admin"
    assert all(message.uid is None for step, message in by_step.items() if step.endswith("RESPONSE"))


@pytest.mark.parametrize("frame", frames("SPUBLISH", "sharded", "sharded-private") + frames("PUBLISH", "streams"))
def test_newer_frames_come_back_byte_for_byte(frame: dict[str, Any]) -> None:
    message = decode_newer(frame)
    codec = ClusterCodec()
    encode = codec.pack if frame["capture"] == "streams" else codec.encode
    assert encode(message) == to_bytes(frame["args"][1])


@pytest.mark.parametrize("frame", frames("SPUBLISH", "sharded", "sharded-private") + frames("PUBLISH", "streams"))
def test_newer_frames_are_where_they_belong(frame: dict[str, Any]) -> None:
    channel = frame["args"][0].encode()
    message = decode_newer(frame)
    channels = ClusterChannels(message.namespace)
    if message.type in ANSWERS:
        assert channel == channels.answers(asker(message.request_id, frame["capture"]))
    else:
        assert channel == channels.of(message, MODES[frame["capture"]])


def asker(request_id: str | None, capture: str) -> str:
    """Who has sent the request with this id."""
    for frame in FRAMES:
        if frame["capture"] == capture and frame["command"] in ("PUBLISH", "SPUBLISH"):
            message = decode_newer(frame)
            if message.request_id == request_id and message.type not in ANSWERS and message.uid is not None:
                return message.uid
    raise AssertionError(f"nobody has asked for {request_id}")


@pytest.mark.parametrize("frame", frames("XADD", "streams", "emitters"))
def test_stream_entries_come_back_byte_for_byte(frame: dict[str, Any]) -> None:
    name = frame["args"][0]
    fields = [argument.encode() for argument in frame["args"][5:]]
    entry = read_entry(fields)
    message = StreamCodec().decode_untrusted(entry)
    assert StreamCodec().encode(message) == fields
    assert entry.uid == (message.uid or "").encode()
    assert entry.namespace == message.namespace.encode()
    assert name == stream_of(message.namespace)
    assert stream_names() == [name]


@pytest.mark.parametrize("frame", frames("SET", "streams"))
def test_sessions_come_back_byte_for_byte(frame: dict[str, Any]) -> None:
    key, value, *_ = (argument.encode() for argument in frame["args"])
    session = StreamCodec().decode_session_untrusted(value)
    assert StreamCodec().encode_session(session) == value
    assert session_key(session.pid) == key
    assert session.rooms[0] == session.sid
    assert session.extra == {}


def test_ranges_begin_after_an_offset() -> None:
    first, second, _ = [frame["args"] for frame in FRAMES if frame["command"] == "XRANGE"]
    assert parse_stream_id(first[1]) is not None
    assert second[1] == next_stream_id(first[1])


@pytest.mark.parametrize("frame", frames("PUBLISH", "pysio"))
def test_frames_of_python_socketio_come_back_byte_for_byte(frame: dict[str, Any]) -> None:
    channel, payload = frame["args"][0], frame["args"][1].encode()
    assert channel == cluster_python.CHANNEL
    assert cluster_python.encode(cluster_python.decode_untrusted(payload)) == payload


@pytest.mark.parametrize("frame", frames("PUBLISH", "engine"))
def test_values_of_other_protocols_come_back_byte_for_byte(frame: dict[str, Any]) -> None:
    payload = to_bytes(frame["args"][1])
    assert VALUES.pack(VALUES.unpack_untrusted(payload)) == payload


@pytest.mark.parametrize("capture", [*CLASSIC, "emitters", "sharded", "sharded-private", "streams"])
def test_the_sender_is_known_before_a_frame_is_decoded(capture: str) -> None:
    for frame in FRAMES:
        if frame["capture"] != capture or frame["command"] not in ("PUBLISH", "SPUBLISH"):
            continue
        payload = to_bytes(frame["args"][1])
        if capture in MODES:
            newer = decode_newer(frame)
            codec = ClusterCodec(newer.namespace)
            assert newer.uid is not None
            assert payload.endswith(codec.own_ends(newer.uid))
            assert not payload.endswith(codec.own_ends(newer.uid[:-1]))
        else:
            message = decode_classic(frame)
            starts = ClassicCodec().own_starts(message.uid or EMITTER)
            assert payload.startswith(starts) == (message.uid is not None)
            assert not payload.startswith(ClassicCodec().own_starts("absent"))


@pytest.mark.parametrize("capture", CLASSIC)
def test_classic_subscriptions_are_ours(capture: str) -> None:
    expected = {"PSUBSCRIBE": set[bytes](), "PUNSUBSCRIBE": set[bytes](), "SUBSCRIBE": set[bytes]()}
    expected |= {"UNSUBSCRIBE": set[bytes](), "PUBSUB": set[bytes]()}
    found = {command: set[bytes]() for command in expected}
    uids = {channel.split("#")[2] for channel in arguments(capture, "SUBSCRIBE") if channel.count("#") == 3}
    for frame in FRAMES:
        if frame["capture"] == capture and frame["command"] in found:
            found[frame["command"]] |= {argument.encode() for argument in frame["args"] if "#" in argument}
    assert uids
    for namespace in ("/", "/admin"):
        channels = ClassicChannels(namespace)
        expected["PSUBSCRIBE"].add(channels.pattern)
        expected["SUBSCRIBE"] |= {channels.request, channels.response}
        expected["SUBSCRIBE"] |= {channels.answers(uid) for uid in uids}
        expected["PUBSUB"].add(channels.request)
    assert found["PSUBSCRIBE"] == expected["PSUBSCRIBE"] == found["PUNSUBSCRIBE"]
    assert found["SUBSCRIBE"] <= expected["SUBSCRIBE"]
    assert found["UNSUBSCRIBE"] <= expected["SUBSCRIBE"]
    assert found["PUBSUB"] <= expected["PUBSUB"]


@pytest.mark.parametrize("capture", MODES)
def test_newer_subscriptions_are_ours(capture: str) -> None:
    commands = ("SUBSCRIBE", "SSUBSCRIBE", "SUNSUBSCRIBE", "PUBSUB")
    subscribed = {channel for command in commands for channel in arguments(capture, command)}
    assert subscribed
    for channel in subscribed:
        channels = ClusterChannels(namespace_of(channel))
        parts = channel.split("#")
        name = parts[2] if len(parts) == 4 else ""
        ours = {channels.main, channels.answers(name), channels.room(name)} if name else {channels.main}
        assert channel.encode() in ours


def arguments(capture: str, command: str) -> list[str]:
    """The channels in the commands of a capture."""
    matching = [frame for frame in FRAMES if frame["capture"] == capture and frame["command"] == command]
    return [argument for frame in matching for argument in frame["args"] if "#" in argument]


def test_details_of_sockets_come_back_as_they_were() -> None:
    answers = [
        decode(frame)
        for frame in FRAMES
        for decode in ([decode_classic] if frame["capture"] == "classic" else [decode_newer])
        if frame["capture"] in ("classic", "sharded", "streams")
        and frame["command"] in ("PUBLISH", "SPUBLISH")
        and decode(frame).type is MessageType.FETCH_SOCKETS_RESPONSE
    ]
    assert len(answers) == 3
    for answer in answers:
        for details in answer.content:
            id, handshake, rooms, data = details_from_wire_untrusted(details)
            assert abs(handshake["issued"] - details["handshake"]["issued"] / 1000) < 1e-6
            again = details_to_wire(id, handshake, sorted(rooms), data)
            assert again == {**details, "rooms": sorted(details["rooms"])}
            assert list(again) == list(details)
            assert list(again["handshake"]) == list(details["handshake"])
