"""Emitters: what they say byte for byte, who hears it, and what happens when Redis is not there."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import EncodeError, EventType, LocalProtocolError, NotRunning, ReservedEventError
from trio_socketio._adapters.emitter import EmitterBase, make_encode
from trio_socketio._errors import RedisConnectionLost, RedisReplyError, RedisUnavailable
from trio_socketio._redis.client import Redis
from trio_socketio.redis import Emitter, SyncEmitter

from ..redis_server import unique
from .cluster_suite import KINDS, LIMIT, Place, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio_socketio._adapters.emitter import Command, EmitterProtocol

    from ..redis_server import RedisServer
    from .cluster_suite import User

FRAMES: list[dict[str, Any]] = [
    frame
    for frame in json.loads((Path(__file__).parents[1] / "wire" / "golden_redis_frames.json").read_text("utf-8"))
    if frame["capture"] == "emitters"
]

#: What the emitters in JavaScript were told to do, in the order of the captured frames.
CLASSIC: list[Callable[[EmitterBase[Any]], Any]] = [
    lambda e: e.emit("hello", 1, "2", [3], b"\x01\x02\x03", bytearray(b"\x01\x02")),
    lambda e: e.to("room1").emit("x"),
    lambda e: e.to("room1").in_(["room2", "room1"]).except_("room3").volatile.compress(False).emit("x"),
    lambda e: e.of("admin").emit("x"),
    lambda e: e.emit("j", "1", ("2", 3), 4),
    lambda e: e.in_("room1").sockets_join("room2"),
    lambda e: e.in_("room1").sockets_leave(["room2", "room3"]),
    lambda e: e.disconnect_sockets(close=True),
    lambda e: e.to("room1").disconnect_sockets(),
    lambda e: e.server_side_emit("hello", "world", 1, "2"),
]
STREAMS: list[Callable[[EmitterBase[Any]], Any]] = [
    lambda e: e.emit("hello", 1, "2"),
    lambda e: e.to("room1").emit("x", b"\x01\x02"),
    lambda e: e.to("room1").sockets_join("room2"),
    lambda e: e.to("room1").sockets_leave("room2"),
    lambda e: e.to("room1").disconnect_sockets(True),
    lambda e: e.server_side_emit("hello", "world"),
]


class Recorder(EmitterBase[None]):
    """An emitter that keeps what it would send."""

    def __init__(self, protocol: EmitterProtocol = "classic", key: str = "socket.io", **options: int) -> None:
        self.commands: list[Command] = []
        super().__init__(
            protocol, key, options.get("stream_count"), options.get("max_len"), lambda c: self.commands.append(c)
        )

    def words(self) -> list[bytes]:
        [command] = self.commands
        return [word if isinstance(word, bytes) else str(word).encode() for word in command]


def golden(command: str) -> list[Any]:
    """The frames of a command, each with what leads to it."""
    found = [frame for frame in FRAMES if frame["command"] == command]
    acts = {"PUBLISH": CLASSIC, "XADD": STREAMS}[command]
    assert len(found) == len(acts)
    return [pytest.param(frame, act, id=frame["step"]) for frame, act in zip(found, acts, strict=True)]


def words_of(frame: dict[str, Any]) -> list[bytes]:
    words = [bytes.fromhex(word[4:]) if word.startswith("hex:") else word.encode() for word in frame["args"]]
    return [frame["command"].encode(), *words]


# Bytes


@pytest.mark.parametrize(("frame", "act"), golden("PUBLISH"))
def test_classic_commands_are_those_of_the_emitter_in_javascript(
    frame: dict[str, Any], act: Callable[[EmitterBase[Any]], Any]
) -> None:
    recorder = Recorder()
    act(recorder)
    assert recorder.words() == words_of(frame)


@pytest.mark.parametrize(("frame", "act"), golden("XADD"))
def test_stream_commands_are_those_of_the_emitter_in_javascript(
    frame: dict[str, Any], act: Callable[[EmitterBase[Any]], Any]
) -> None:
    recorder = Recorder("streams")
    act(recorder)
    assert recorder.words() == words_of(frame)


def test_sharded_commands_are_on_the_channel_that_servers_of_every_mode_hear() -> None:
    recorder = Recorder("sharded", key="app")
    recorder.of("/news").to("room").emit("x", 1)
    [(command, channel, payload)] = recorder.commands
    assert (command, channel) == ("SPUBLISH", b"app#/news#")
    assert isinstance(payload, bytes)
    assert json.loads(payload) == {
        "type": 3,
        "data": {
            "packet": {"type": 2, "data": ["x", 1], "nsp": "/news"},
            "opts": {"rooms": ["room"], "flags": {}, "except": []},
        },
        "uid": "emitter",
        "nsp": "/news",
    }


def test_a_key_is_the_prefix_of_channels_and_the_name_of_streams() -> None:
    classic, streams = Recorder(key="app"), Recorder("streams", key="app", max_len=5)
    classic.to("room").emit("x")
    classic.sockets_join("room")
    streams.emit("x")
    assert [command[1] for command in classic.commands] == [b"app#/#room#", b"app-request#/#"]
    assert streams.commands[0][:6] == ("XADD", "app", "MAXLEN", "~", 5, "*")


def test_with_several_streams_each_namespace_has_its_own_and_all_of_them_are_read() -> None:
    recorder = Recorder("streams", stream_count=4)
    recorder.emit("x")
    recorder.of("/notifications").emit("x")  # which would be number -3
    assert [command[1] for command in recorder.commands] == ["socket.io-3", "socket.io-0"]


# The operator


def test_every_step_returns_a_new_operator() -> None:
    recorder = Recorder()
    room = recorder.to("room")
    assert room.except_("other").volatile.target.except_rooms == ("other",)
    assert (room.target.rooms, room.target.except_rooms, dict(room.target.flags)) == (("room",), (), {})
    assert recorder.of("/a").namespace == "/a"
    assert "room" in repr(room)


def test_an_event_with_a_type_is_emitted_under_its_name() -> None:
    recorder = Recorder("sharded")
    recorder.emit(EventType[None, int]("move"), 1)
    assert b'["move",1]' in recorder.words()[-1]


@pytest.mark.parametrize("name", ["connect", "connect_error", "disconnect", "disconnecting", "newListener"])
def test_reserved_names_are_refused(name: str) -> None:
    recorder = Recorder()
    with pytest.raises(ReservedEventError):
        recorder.emit(name)
    assert not recorder.commands


@pytest.mark.parametrize("name", ["connection", "connect", "new_namespace"])
def test_names_of_a_namespace_s_own_events_are_refused_between_servers(name: str) -> None:
    with pytest.raises(ReservedEventError):
        Recorder().server_side_emit(name)


def test_servers_are_not_in_rooms() -> None:
    with pytest.raises(LocalProtocolError, match="not in rooms"):
        Recorder().to("room").server_side_emit("x")


@pytest.mark.parametrize(
    "act",
    [
        lambda e: e.emit("x", 1, print),
        lambda e: e.server_side_emit("x", print),
        lambda e: e.emit_with_ack("x"),
        lambda e: e.to("room").server_side_emit_with_ack("x"),
    ],
    ids=["emit", "server side", "emit_with_ack", "server_side_emit_with_ack"],
)
def test_acknowledgements_are_refused(act: Callable[[EmitterBase[Any]], Any]) -> None:
    recorder = Recorder()
    with pytest.raises(LocalProtocolError, match="no acknowledgements"):
        act(recorder)
    assert not recorder.commands


def test_what_cannot_be_encoded_is_refused() -> None:
    with pytest.raises(EncodeError):
        Recorder().emit("x", object())
    with pytest.raises(TypeError, match="a room is a string"):
        Recorder().to(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="name"):
        Recorder().emit(None)  # type: ignore[arg-type]


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="protocol"):
        make_encode("postgres", "socket.io", None, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="stream_count"):
        Emitter("redis://localhost", max_len=5)
    with pytest.raises(ValueError, match="positive"):
        Emitter("redis://localhost", protocol="streams", max_len=0)
    with pytest.raises(ValueError, match="URL"):
        SyncEmitter("localhost")
    with pytest.raises(ValueError, match="timeout"):
        SyncEmitter("redis://localhost", timeout=0)


# Clients of our own servers


class Speaker:
    """An emitter of either kind, that does what it is given and returns when Redis has it."""

    def __init__(self, emitter: EmitterBase[Any]) -> None:
        self._emitter = emitter

    async def __call__(self, act: Callable[[EmitterBase[Any]], Any]) -> None:
        with trio.fail_after(LIMIT):
            if isinstance(self._emitter, Emitter):
                await act(self._emitter)
            else:
                await trio.to_thread.run_sync(act, self._emitter)

    async def heard(self, *users: User) -> list[list[list[Any]]]:
        """What each of them has heard until now."""
        last = unique("end")
        await self(lambda e: e.emit(last))
        return [await user.hear_until(last) for user in users]


STREAM_COUNT = 5  # that of the kind "streams-several"
OVER_REDIS = [kind for kind in KINDS if kind.name != "memory"]


@pytest.fixture(params=OVER_REDIS, ids=[kind.name for kind in OVER_REDIS])
def redis_place(request: pytest.FixtureRequest, valkey_server: RedisServer) -> Place:
    """Where servers and emitters meet, for each protocol."""
    return Place(request.param, valkey_server.url)


@pytest.fixture(params=["trio", "sync"])
async def speaker(
    request: pytest.FixtureRequest, redis_place: Place, valkey_server: RedisServer
) -> AsyncIterator[Speaker]:
    """An emitter for that place."""
    name = redis_place.kind.name
    protocol: Any = name.partition("-")[0]
    stream_count = STREAM_COUNT if name == "streams-several" else None
    make: Any = Emitter if request.param == "trio" else SyncEmitter
    emitter = make(valkey_server.url, key=redis_place.prefix, protocol=protocol, stream_count=stream_count)
    if isinstance(emitter, Emitter):
        async with emitter:
            yield Speaker(emitter)
    else:
        with emitter:
            yield Speaker(emitter)


async def test_an_emit_reaches_every_client_of_every_server_once(redis_place: Place, speaker: Speaker) -> None:
    async with redis_place.crowd("one", "two") as users:
        await speaker(lambda e: e.emit("hello", 1, {"a": [None, "é"]}))
        await speaker(lambda e: e.emit("bytes", b"\x00\xff", {"deep": [b"more"]}))
        expected = [["hello", 1, {"a": [None, "é"]}], ["bytes", b"\x00\xff", {"deep": [b"more"]}]]
        assert await speaker.heard(*users) == [expected, expected]


async def test_rooms_are_chosen_and_excepted(redis_place: Place, speaker: Speaker) -> None:
    async with redis_place.crowd("one", "two", "three") as users:
        one, two, three = users
        await one.socket.join(["a", "b"])
        await two.socket.join("a")
        await speaker(lambda e: e.to("a").to("b").emit("both"))
        await speaker(lambda e: e.to("a").except_("b").emit("only a"))
        await speaker(lambda e: e.to("a").emit("a"))
        await speaker(lambda e: e.to(three.socket.id).emit("private"))
        await speaker(lambda e: e.to("nobody").emit("nobody"))
        assert await speaker.heard(*users) == [[["both"], ["a"]], [["both"], ["only a"], ["a"]], [["private"]]]


async def test_namespaces_are_told_apart(redis_place: Place, speaker: Speaker) -> None:
    async with redis_place.joined("one") as (one,):
        one.io.of("/news")
        user, reader = await one.connect(), await one.connect("/news")
        await speaker(lambda e: e.of("news").emit("extra"))
        assert await reader.hear() == ["extra"]
        assert await speaker.heard(user) == [[]]


async def test_sockets_join_leave_and_are_disconnected(redis_place: Place, speaker: Speaker) -> None:
    async with redis_place.crowd("one", "two") as users:
        one, two = users
        await one.socket.join("a")
        await speaker(lambda e: e.in_("a").sockets_join(["b", "c"]))
        await until(lambda: one.socket.rooms >= {"b", "c"})
        await speaker(lambda e: e.in_("b").sockets_leave("c"))
        await until(lambda: "c" not in one.socket.rooms)
        assert two.socket.rooms == {two.socket.id}
        await speaker(lambda e: e.in_("b").disconnect_sockets())
        await until(lambda: not one.socket.connected)
        assert two.socket.connected


async def test_servers_hear_a_server_side_emit(redis_place: Place, speaker: Speaker) -> None:
    heard: list[Any] = []
    async with redis_place.joined("one", "two") as members:
        for member in members:
            member.io.on("job", lambda *args, name=member.name: heard.append((name, *args)))
        await speaker(lambda e: e.server_side_emit("job", 1, {"deep": True}))
        await until(lambda: len(heard) == 2)
        assert sorted(heard) == [("one", 1, {"deep": True}), ("two", 1, {"deep": True})]


@pytest.mark.parametrize("kind", ["trio", "sync"])
async def test_what_is_on_the_wire_is_what_was_captured(own_server: RedisServer, kind: str) -> None:
    found: list[list[bytes]] = []
    protocols: tuple[tuple[EmitterProtocol, Any], ...] = (("classic", CLASSIC), ("streams", STREAMS))
    async with Redis(own_server.url).running() as client:
        await client.subscribe(lambda *words: found.append([b"PUBLISH", *words]), patterns=["socket.io*"])
        for protocol, acts in protocols:
            if kind == "trio":
                async with Emitter(own_server.url, protocol=protocol) as emitter:
                    for act in acts:
                        await act(emitter)
            else:
                with SyncEmitter(own_server.url, protocol=protocol) as blocking:
                    for act in acts:
                        await trio.to_thread.run_sync(act, blocking)
        await until(lambda: len(found) >= len(CLASSIC))
        entries = [fields for _, fields in await client.execute("XRANGE", "socket.io", "-", "+")]
    assert found == [words_of(frame) for frame in FRAMES if frame["command"] == "PUBLISH"]
    assert entries == [words_of(frame)[6:] for frame in FRAMES if frame["command"] == "XADD"]


# Life and faults of the one on Trio


async def test_an_emitter_outside_of_its_context_says_so(valkey_server: RedisServer) -> None:
    emitter = Emitter(valkey_server.url)
    with pytest.raises(NotRunning, match="async with"):
        await emitter.emit("x")
    async with emitter:
        await emitter.emit("x")
        assert "ready" in repr(emitter)
    with pytest.raises(NotRunning):
        await emitter.to("room").emit("x")


async def test_redis_that_is_not_there_is_named() -> None:
    emitter = Emitter("redis://127.0.0.1:1/3")
    with pytest.raises(RedisUnavailable, match=r"redis://127\.0\.0\.1:1/3"):
        await emitter.__aenter__()


async def test_what_is_emitted_while_redis_is_lost_raises_and_later_it_works_again(own_server: RedisServer) -> None:
    async with Emitter(own_server.url, ping_idle=0.1, ping_limit=0.2, backoff_most=0.1) as emitter:
        own_server.kill()
        await until(lambda: emitter.health.value == "lost")
        with pytest.raises(RedisConnectionLost, match=str(own_server.port)):
            await emitter.emit("x")
        own_server.start()
        await until(lambda: emitter.health.value == "ready")
        await emitter.emit("x")


# Life and faults of the one without


def published(server: RedisServer, key: str, act: Callable[[], object]) -> int:
    """How many messages have come to the channels of a key while something was done."""
    count = 0

    async def listen() -> int:
        nonlocal count

        def hear(_channel: bytes, _payload: bytes) -> None:
            nonlocal count
            count += 1

        async with Redis(server.url).running() as client:
            await client.subscribe(hear, patterns=[f"{key}#*"])
            await trio.to_thread.run_sync(act)
            marks = count

            def mark(_channel: bytes, _payload: bytes) -> None:
                nonlocal marks
                marks = -1

            await client.subscribe(mark, channels=["mark"])
            await client.execute("PUBLISH", "mark", "")
            await until(lambda: marks == -1)
        return count

    return trio.run(listen)


def test_threads_share_an_emitter_and_nothing_is_lost_or_sent_twice(valkey_server: RedisServer) -> None:
    key = unique("key")
    emitter = SyncEmitter(valkey_server.url, key=key)

    def work() -> None:
        for number in range(50):
            emitter.to("room").emit("x", number)

    def all_of_them() -> None:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)

    assert published(valkey_server, key, all_of_them) == 400
    emitter.close()


def test_a_connection_that_the_server_has_closed_is_replaced_unnoticed(own_server: RedisServer) -> None:
    with SyncEmitter(own_server.url, key="key") as emitter:
        emitter.emit("x")
        own_server.kill()
        own_server.start()
        assert published(own_server, "key", lambda: emitter.emit("x")) == 1


def test_a_frozen_server_costs_the_timeout_and_the_message_is_not_repeated(own_server: RedisServer) -> None:
    with SyncEmitter(own_server.url, key="key", timeout=0.2) as emitter:

        def emit() -> None:
            with own_server.frozen(), pytest.raises(RedisConnectionLost, match=f"no answer from .*{own_server.port}"):
                emitter.emit("first")
            emitter.emit("second")

        assert published(own_server, "key", emit) == 2


def test_the_next_operation_connects_again(own_server: RedisServer) -> None:
    emitter = SyncEmitter(own_server.url)
    emitter.emit("x")
    own_server.kill()
    for _ in range(2):
        with pytest.raises(RedisUnavailable, match=f"127.0.0.1:{own_server.port}"):
            emitter.emit("x")
    own_server.start()
    emitter.emit("x")
    emitter.close()
    emitter.emit("x")
    emitter.close()


def test_the_beginning_of_its_context_says_that_redis_is_not_there() -> None:
    with pytest.raises(RedisUnavailable, match=r"redis://127\.0\.0\.1:1/0"), SyncEmitter("redis://127.0.0.1:1"):
        pass


def test_an_error_of_the_server_leaves_the_connection_as_it_is(own_server: RedisServer) -> None:
    with SyncEmitter(own_server.url, key="taken") as plain:
        plain._connection.execute("SET", "taken", "by something else")
        id = plain._connection.execute("CLIENT", "ID")
        with SyncEmitter(own_server.url, protocol="streams", key="taken") as emitter:
            with pytest.raises(RedisReplyError, match="WRONGTYPE"):
                emitter.emit("x")
            assert emitter._connection.execute("CLIENT", "ID") == id + 1


SCRIPT = """
import os, sys
from trio_socketio.redis import SyncEmitter

emitter = SyncEmitter(sys.argv[1], key=sys.argv[2])
emitter.to("room").emit("before")
child = os.fork()
emitter.emit("parent" if child else "child")  # each over a connection of its own
if not child:
    os._exit(0)
os.waitpid(child, 0)
emitter.emit("after")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_plain_script_emits_before_and_after_a_fork(valkey_server: RedisServer) -> None:
    key = unique("key")
    command = [sys.executable, "-c", SCRIPT, valkey_server.url, key]
    run = partial(subprocess.run, command, check=True, timeout=30)
    assert published(valkey_server, key, run) == 4
