"""What producers of python-socketio publish, as raw messages on a real server."""

from __future__ import annotations

import json
import logging
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_socketio._adapters import python_socketio
from trio_socketio._errors import RedisUnavailable
from trio_socketio._redis.client import Redis
from trio_socketio.redis import PythonSocketIOListener

from ..redis_server import unique
from .cluster_suite import KINDS, LIMIT, Place, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..redis_server import RedisServer
    from .cluster_suite import User

MEMORY, CLASSIC = (next(kind for kind in KINDS if kind.name == name) for name in ("memory", "classic"))
HOST = "89026c0123456789abcdef0123456789"


class Scene:
    """Two servers with a client each, and a producer.

    Attributes:
        url: Redis's.
        users: The clients.
        listeners: Those of the servers that have one.
    """

    def __init__(self, client: Redis, channel: str, users: list[User], listeners: list[PythonSocketIOListener]) -> None:
        self.url = f"redis://{client.address.host}:{client.address.port}"
        self._client = client
        self._channel = channel
        self.users = users
        self.listeners = listeners

    async def publish(self, method: str, **fields: Any) -> None:
        """Publish a message as a producer would."""
        await self.publish_raw(json.dumps({"method": method, "host_id": HOST, **fields}))

    async def emit(self, event: str, *args: Any, **fields: Any) -> None:
        usual = {"binary": False, "namespace": "/", "room": None, "skip_sid": None, "callback": None}
        await self.publish("emit", event=event, data=list(args) or [None], **(usual | fields))

    async def publish_raw(self, payload: str | bytes) -> None:
        await self._client.execute("PUBLISH", self._channel, payload)

    async def heard(self) -> list[list[list[Any]]]:
        """What each client has heard until now."""
        last = unique("end")
        await self.emit(last)
        return [await user.hear_until(last) for user in self.users]

    @asynccontextmanager
    async def callbacks(self) -> AsyncIterator[list[dict[str, Any]]]:
        """The callback messages that are published."""
        found: list[dict[str, Any]] = []

        def hear(_channel: bytes, payload: bytes) -> None:
            if (fields := json.loads(payload))["method"] == "callback":
                found.append(fields)

        async with Redis(self.url).running() as client:
            await client.subscribe(hear, channels=[self._channel])
            yield found


@asynccontextmanager
async def scene(url: str, *, place: Place | None = None, listening: int = 2, **options: Any) -> AsyncIterator[Scene]:
    """Servers that meet in memory, unless told otherwise, of which so many have a listener."""
    place = place or Place(MEMORY, url)
    channel = unique("channel")
    async with Redis(url).running() as client, AsyncExitStack() as stack:
        users = await stack.enter_async_context(place.crowd("one", "two"))
        listeners = [PythonSocketIOListener(user.io, url, channel, **options) for user in users[:listening]]
        for listener in listeners:
            await stack.enter_async_context(listener.running())
        yield Scene(client, channel, users, listeners)


@pytest.fixture
async def two(valkey_server: RedisServer) -> AsyncIterator[Scene]:
    """Two servers, each with a listener."""
    async with scene(valkey_server.url) as made:
        yield made


# Emits


async def test_an_emit_reaches_every_client_once(two: Scene) -> None:
    await two.emit("hello", {"a": 1}, "é", None)
    await two.emit("nothing")
    assert await two.heard() == [[["hello", {"a": 1}, "é", None], ["nothing"]]] * 2


async def test_bytes_come_back_from_their_placeholders(two: Scene) -> None:
    arguments = [{"b": {"_placeholder": True, "num": 0}, "l": [{"_placeholder": True, "num": 1}]}]
    await two.publish("emit", event="bin", data=[arguments, "AQI=", "Aw=="], binary=True, namespace="/", room=None)
    assert await two.heard() == [[["bin", {"b": b"\x01\x02", "l": [b"\x03"]}]]] * 2


async def test_rooms_are_one_or_several_and_sids_are_skipped(two: Scene) -> None:
    one, other = two.users
    await one.socket.join("a")
    await other.socket.join("b")
    await two.emit("in a", room="a")
    await two.emit("in both", room=["a", "b"])
    await two.emit("to one", room=one.socket.id)
    await two.emit("not one", skip_sid=one.socket.id)
    await two.emit("nobody", skip_sid=[one.socket.id, other.socket.id])
    assert await two.heard() == [[["in a"], ["in both"], ["to one"]], [["in both"], ["not one"]]]


async def test_messages_of_old_versions_are_understood(two: Scene) -> None:
    await two.publish("emit", event="bare", data="value")
    await two.publish("emit", event="none", data=None)
    await two.publish_raw(json.dumps({"method": "emit", "event": "hostless", "data": [1]}))
    assert await two.heard() == [[["bare", "value"], ["none"], ["hostless", 1]]] * 2


async def test_a_namespace_is_meant_if_the_server_has_it(two: Scene) -> None:
    io, member = two.users[0].io, two.users[0].member
    io.of("/news")
    reader = await member.connect("/news")
    await two.emit("extra", namespace="/news")
    await two.emit("elsewhere", namespace="/nowhere")
    assert await reader.hear() == ["extra"]
    assert await two.heard() == [[], []]
    assert "/nowhere" not in io.namespaces
    assert [listener.statistics().dropped for listener in two.listeners] == [0, 0]


# Sockets


async def test_sockets_enter_and_leave_rooms_which_may_be_closed(two: Scene) -> None:
    one, other = two.users
    await two.publish("enter_room", sid=one.socket.id, room="a", namespace="/")
    await two.publish("enter_room", sid=other.socket.id, room="a", namespace="/")
    await two.publish("enter_room", sid=one.socket.id, room="b", namespace="/")
    await two.publish("leave_room", sid=other.socket.id, room="a", namespace="/")
    await two.heard()
    assert one.socket.rooms == {one.socket.id, "a", "b"}
    assert other.socket.rooms == {other.socket.id}
    await two.publish("close_room", room="a", namespace="/")
    await two.heard()
    assert one.socket.rooms == {one.socket.id, "b"}


async def test_a_socket_is_disconnected_after_what_was_emitted_before(two: Scene) -> None:
    one, other = two.users
    handler_runs = trio.Event()

    @one.socket.on("disconnect")
    async def slow(_reason: str) -> None:
        handler_runs.set()
        await trio.sleep(0.05)

    await two.emit("bye")
    await two.publish("disconnect", sid=one.socket.id, namespace="/")
    await two.emit("gone")
    assert await one.hear() == ["bye"]
    with trio.fail_after(LIMIT):
        assert await one.client.wait_disconnected() == "io server disconnect"
        await handler_runs.wait()
    assert await other.hear() == ["bye"]
    assert await other.hear() == ["gone"]


# Callbacks


async def test_the_first_answer_goes_to_the_producer(two: Scene) -> None:
    one = two.users[0]
    async with two.callbacks() as found:
        await two.emit("question", 1, room=one.socket.id, callback=[one.socket.id, "/", 7])
        await one.reply("yes", {"n": 1})
        await until(lambda: found)
        answer = {"method": "callback", "host_id": HOST, "sid": one.socket.id, "namespace": "/", "id": 7}
        assert found == [{**answer, "args": ["yes", {"n": 1}]}]
        await two.emit("again", room=one.socket.id, callback=[one.socket.id, "/", 8])
        await one.reply()
        await until(lambda: len(found) == 2)
        assert found[1] == {**answer, "id": 8, "args": []}
    assert [listener.statistics().callbacks for listener in two.listeners] == [0, 0]


async def test_a_room_where_nobody_is_leaves_nothing_behind(two: Scene) -> None:
    async with two.callbacks() as found:
        await two.emit("question", room="nobody", callback=["nobody", "/", 1])
        await two.heard()
        await until(lambda: not any(listener.statistics().callbacks for listener in two.listeners))
        assert found == []


async def test_a_client_that_leaves_or_says_nothing_is_not_waited_for_any_longer(
    two: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two.users
    for user, limit in ((one, 60.0), (other, 0.05)):
        monkeypatch.setattr(python_socketio, "CALLBACK_TIMEOUT", limit)
        await two.emit("question", room=user.socket.id, callback=[user.socket.id, "/", 1])
        assert await user.hear() == ["question"]
    await one.socket.disconnect()
    await until(lambda: not any(listener.statistics().callbacks for listener in two.listeners))
    assert (len(one.socket.acks), len(other.socket.acks)) == (0, 0)


async def test_callbacks_are_bounded_and_the_event_arrives_in_any_case(
    two: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(python_socketio, "MAX_CALLBACKS", 1)
    one, listener = two.users[0], two.listeners[0]
    for number in range(2):
        await two.emit("question", room=one.socket.id, callback=[one.socket.id, "/", number])
    with trio.fail_after(LIMIT):
        first, second = [await one.client.receive() for _ in range(2)]
    assert first.wants_ack
    assert not second.wants_ack
    assert (listener.statistics().callbacks, listener.statistics().dropped) == (1, 1)
    await first.ack()
    await until(lambda: not listener.statistics().callbacks)


async def test_an_answer_with_bytes_which_the_channel_cannot_say_is_dropped(two: Scene) -> None:
    one, listener = two.users[0], two.listeners[0]
    await two.emit("question", room=one.socket.id, callback=[one.socket.id, "/", 1])
    await one.reply(b"bytes")
    await until(lambda: listener.statistics().dropped == 1)
    assert await two.heard() == [[], []]


# In a cluster


async def test_with_a_listener_beside_every_server_of_a_cluster_everybody_gets_it_once(
    valkey_server: RedisServer,
) -> None:
    async with scene(valkey_server.url, place=Place(CLASSIC, valkey_server.url)) as two:
        await two.emit("hello", 1)
        assert await two.heard() == [[["hello", 1]]] * 2


async def test_one_listener_that_is_not_local_reaches_the_whole_cluster(valkey_server: RedisServer) -> None:
    place = Place(CLASSIC, valkey_server.url)
    async with scene(valkey_server.url, place=place, listening=1, local=False) as two:
        one, other = two.users
        await two.emit("hello", 1)
        await two.publish("enter_room", sid=other.socket.id, room="a", namespace="/")
        await two.emit("in a", room="a")
        assert await two.heard() == [[["hello", 1]], [["hello", 1], ["in a"]]]
        async with two.callbacks() as found:
            await two.emit("question", room=other.socket.id, callback=[other.socket.id, "/", 1])
            await other.reply("far")
            await until(lambda: found)
            assert found[0]["args"] == ["far"]
        await two.publish("disconnect", sid=other.socket.id, namespace="/")
        await until(lambda: not other.socket.connected)
        assert one.socket.connected


# What is no message


BAD = [
    b"",
    b"\x80\x04\x95",  # a pickle
    b"\xff",
    b"[1]",
    b"nonsense",
    b"[" * 100_000,
    b'{"method":"emit"}',
    b'{"method":"drop_tables"}',
    b'{"method":["emit"]}',
    b'{"method":"emit","event":"connect","data":[]}',
    b'{"method":"emit","event":{"a":1},"data":[]}',
    b'{"method":"emit","event":"x","data":[],"room":{}}',
    b'{"method":"emit","event":"x","data":[],"namespace":5}',
    b'{"method":"emit","event":"x","data":[],"host_id":5}',
    b'{"method":"emit","event":"x","data":[],"callback":["r","/",1]}',
    b'{"method":"emit","event":"x","data":[],"room":"r","callback":"c"}',
    b'{"method":"emit","event":"x","data":[[{"_placeholder":true,"num":5}],"AQI="],"binary":true}',
    b'{"method":"emit","event":"x","data":[["x"],"no base64!"],"binary":true}',
    json.dumps(
        {
            "method": "emit",
            "event": "too many",
            "data": [[{"_placeholder": True, "num": number} for number in range(11)], *["AQI="] * 11],
            "binary": True,
        }
    ).encode(),
    b'{"method":"disconnect"}',
    b'{"method":"enter_room","sid":"x"}',
    b'{"method":"close_room","room":[]}',
    b'{"method":"callback","id":-1,"args":[]}',
]


async def test_what_is_no_message_costs_one_line_in_the_log(two: Scene, caplog: pytest.LogCaptureFixture) -> None:
    for payload in BAD:
        await two.publish_raw(payload)
    await two.emit("good")
    assert await two.heard() == [[["good"]]] * 2
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == len(two.listeners) * len(BAD)
    assert all("python-socketio was dropped" in line for line in lines)
    for listener in two.listeners:
        figures = listener.statistics()
        assert (figures.dropped, figures.received, figures.waiting) == (len(BAD), len(BAD) + 2, 0)


async def test_callbacks_for_producers_are_nobody_s_business_here(two: Scene) -> None:
    await two.publish("callback", sid="x", namespace="/", id=1, args=[1])
    assert await two.heard() == [[], []]
    assert [listener.statistics().dropped for listener in two.listeners] == [0, 0]


async def test_what_comes_faster_than_it_can_be_executed_is_dropped(
    two: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = two.listeners[0]
    await two.heard()
    await wait_all_tasks_blocked(0.01)  # its task waits for the next one, which it will get past the queue
    payload = json.dumps({"method": "leave_room", "sid": "x", "room": "y"}).encode()
    for _ in range(1 + python_socketio.MAX_WAITING + 5):
        listener._take(b"", payload)
    assert listener.statistics().waiting == python_socketio.MAX_WAITING
    assert listener.statistics().dropped == 5
    await until(lambda: not listener.statistics().waiting)
    await wait_all_tasks_blocked(0.01)
    monkeypatch.setattr(python_socketio, "MAX_WAITING_BYTES", 3 * len(payload))
    for _ in range(5):
        listener._take(b"", payload)
    assert listener.statistics().dropped == 7
    await until(lambda: not listener.statistics().waiting)


# Life


async def test_it_runs_in_a_nursery_and_can_be_run_again(two: Scene) -> None:
    listener = PythonSocketIOListener(two.users[0].io, two.url)
    for _ in range(2):
        async with trio.open_nursery() as inner:
            await inner.start(listener.run)
            assert listener.health.value == "ready"
            with pytest.raises(RuntimeError, match="running"):
                await listener.run()
            inner.cancel_scope.cancel()
        assert listener.health.value == "closed"
        assert "closed" in repr(listener)


async def test_redis_that_is_not_there_is_named(two: Scene) -> None:
    listener = PythonSocketIOListener(two.users[0].io, "redis://127.0.0.1:1")
    with pytest.raises(RedisUnavailable, match=r"redis://127\.0\.0\.1:1/0"):
        await listener.run()


async def test_it_listens_again_after_redis_was_lost(own_server: RedisServer) -> None:
    place = Place(MEMORY, own_server.url)
    async with place.crowd("one") as [one]:
        options: Any = {"ping_idle": 0.1, "ping_limit": 0.2, "backoff_most": 0.05}
        async with PythonSocketIOListener(one.io, own_server.url, "c", **options).running() as listener:
            own_server.kill()
            await until(lambda: listener.health.value == "lost")
            own_server.start()
            await until(lambda: listener.health.value == "ready")
            async with Redis(own_server.url).running() as client:
                await client.execute("PUBLISH", "c", json.dumps({"method": "emit", "event": "back", "data": [1]}))
            assert await one.hear() == ["back", 1]
