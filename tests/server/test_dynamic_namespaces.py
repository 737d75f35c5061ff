"""Namespaces that are made when clients ask for them (Socket.IO server API, "dynamic namespaces")."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from trio_socketio import (
    ConnectionRefused,
    EncodeError,
    LocalProtocolError,
    Namespace,
    ParentNamespace,
    Server,
    SocketDisconnected,
)
from trio_socketio.abc import MemoryAdapter

from ..wire_client import settle
from .support import TRANSPORTS, at_least, dismissed, open_server, run, warnings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_socketio import Socket
    from trio_socketio.testing import MemoryClient

DYNAMIC = re.compile(r"^/dynamic-\d+$")
INVALID = ("Invalid namespace", None)


class Life:
    """An adapter that notes when it is started and closed; the start waits for `gate`."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, str]] = []
        self.gate = trio.Event()
        self.gate.set()
        self.fails = ""

    def adapter(self, directory: Any) -> MemoryAdapter:
        life = self

        class Noting(MemoryAdapter):
            async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
                if directory.name != "/":
                    await life.gate.wait()
                    if life.fails == "start":
                        raise OSError("no bus")
                life.notes.append(("started", directory.name))
                try:
                    await super().run(task_status=task_status)
                finally:
                    if life.fails == "close" and directory.name != "/":
                        raise OSError("no bus")
                    life.notes.append(("closed", directory.name))

        return Noting(directory)


async def refusal(client: MemoryClient, namespace: str, auth: Any = None) -> tuple[str, Any]:
    """The message and the data with which a client is not let in; its session stays."""
    with pytest.raises(ConnectionRefused) as caught:
        await client.of(namespace, auth)
    return caught.value.message, caught.value.data


# Patterns


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_client_that_matches_a_pattern_is_connected_to_a_namespace_of_that_name(transport: str) -> None:
    async with open_server() as server:
        parent = server.io.of(DYNAMIC)
        connected: list[Socket] = []
        parent.on("connection", connected.append)
        pair = await server.connect("/dynamic-101", auth={"a": 1}, transport=transport)

        assert connected == [pair.socket]
        assert (pair.socket.namespace.name, pair.socket.handshake.auth) == ("/dynamic-101", {"a": 1})
        assert pair.socket.namespace is server.io.namespaces["/dynamic-101"] is parent.children["/dynamic-101"]
        assert pair.socket.namespace.parent is parent


async def test_a_pattern_is_searched_for_so_it_needs_no_beginning_and_no_end() -> None:
    async with open_server() as server:
        server.io.of(re.compile("room"))

        assert (await server.connect("/the-room-7")).socket.namespace.name == "/the-room-7"


async def test_what_nobody_wants_is_an_invalid_namespace_and_the_session_stays() -> None:
    async with open_server() as server:
        server.io.of(DYNAMIC)
        client = await server.client()

        assert await refusal(client, "/dynamic-abc") == INVALID
        assert (await client.of("/dynamic-1")).id
        assert list(server.io.namespaces) == ["/", "/dynamic-1"]


@given(st.text("ab", max_size=6).map(re.compile), st.lists(st.text("ab", max_size=4), max_size=12), st.booleans())
@example(re.compile("a"), ["ba", "a", "ba", "a"], True)
def test_what_a_pattern_has_matched_before_makes_no_difference(
    pattern: re.Pattern[str], names: list[str], by_hand: bool
) -> None:
    async def main() -> None:
        async with open_server() as server:
            parent = server.io.of(pattern)
            client = await server.client()
            for name in dict.fromkeys(f"/x{name}" for name in names):
                matches = re.search(pattern.pattern, name) is not None
                if by_hand:
                    assert (server.io.of(name).parent is parent) == matches
                elif matches:
                    assert (await client.of(name)).id
                else:
                    assert await refusal(client, name) == INVALID

    run(main)


def test_a_namespace_made_by_hand_that_matches_a_pattern_is_its_child() -> None:
    io = Server()
    parent = io.of(DYNAMIC)

    assert io.of("/dynamic-101").parent is parent
    assert io.of("dynamic-101") is io.of("/dynamic-101")
    assert io.of("/static").parent is None
    assert list(parent.children) == ["/dynamic-101"]


async def test_a_namespace_that_exists_comes_before_every_parent() -> None:
    async with open_server() as server:
        static = server.io.of("/dynamic-1")
        parent = server.io.of(DYNAMIC)
        pair = await server.connect("/dynamic-1")

        assert pair.socket.namespace is static
        assert not parent.children


# Predicates


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_predicate_decides_by_name_and_auth(asynchronous: bool) -> None:
    asked = []

    def decide(name: str, auth: Any) -> bool:
        asked.append((name, auth))
        return bool(auth == {"token": "x"})

    async def decide_later(name: str, auth: Any) -> bool:
        await trio.sleep(1)
        return decide(name, auth)

    async with open_server() as server:
        parent = server.io.of(decide_later if asynchronous else decide)
        client = await server.client()

        assert await refusal(client, "/a") == INVALID
        assert (await client.of("/a", {"token": "x"})).id
        assert asked == [("/a", {}), ("/a", {"token": "x"})]
        assert list(parent.children) == ["/a"]


async def test_a_predicate_is_not_told_the_secret_of_a_client_that_comes_back() -> None:
    asked = []

    async def decide(name: str, auth: Any) -> bool:
        await trio.lowlevel.checkpoint()
        asked.append(auth)
        return True

    async with open_server(connection_state_recovery=True) as server:
        server.io.of(decide)
        await server.client("/a", auth={"token": "x", "pid": "secret", "offset": "1"})

        assert asked == [{"token": "x"}]


def test_a_predicate_may_take_the_name_alone() -> None:
    async def main() -> None:
        async with open_server() as server:
            server.io.of(lambda name: name == "/a")  # type: ignore[arg-type, misc]

            assert (await server.connect("/a")).socket.connected

    run(main)


async def test_parents_are_asked_in_order_one_at_a_time_and_the_first_yes_counts() -> None:
    asked: list[str] = []

    async def slow_no(name: str, auth: Any) -> bool:
        asked.append("slow begins")
        await trio.sleep(3)
        asked.append("slow ends")
        return False

    def failing(name: str, auth: Any) -> bool:
        asked.append("failing")
        raise ConnectionRefused("not me")

    def never(name: str, auth: Any) -> bool:
        asked.append("never")
        return True

    async with open_server() as server:
        server.io.of(slow_no)
        server.io.of(failing)
        server.io.of(re.compile("other"))
        second = server.io.of(DYNAMIC)
        server.io.of(never)
        pair = await server.connect("/dynamic-1")

        assert pair.socket.namespace.parent is second
        assert asked == ["slow begins", "slow ends", "failing"]


async def test_a_predicate_that_fails_has_said_no_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def cleans_up_badly(name: str, auth: Any) -> bool:
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.cancel()
            raise OSError("in a nursery")

    def fails(name: str, auth: Any) -> bool:
        raise KeyError(name)

    async with open_server() as server:
        server.io.of(cleans_up_badly)
        server.io.of(fails)
        client = await server.client()

        assert await refusal(client, "/a") == INVALID
        assert client.connected
    assert len(warnings(caplog)) == 2
    assert all("there is no namespace '/a'" in text for text in warnings(caplog))


async def test_a_predicate_that_refuses_on_purpose_alarms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def refuses(name: str, auth: Any) -> bool:
        raise ConnectionRefused("not today")

    caplog.set_level("INFO")
    async with open_server() as server:
        server.io.of(refuses)
        client = await server.client()

        assert await refusal(client, "/a") == INVALID
    assert warnings(caplog) == []
    assert any("not today" in text for text in at_least(caplog, 20))


async def test_two_clients_that_ask_at_once_get_one_namespace() -> None:
    made: list[str] = []

    async def slow(name: str, auth: Any) -> bool:
        await trio.sleep(auth["seconds"])
        return True

    async with open_server() as server:
        parent = server.io.of(slow)
        server.io.on("new_namespace", lambda namespace: made.append(namespace.name))

        async def join(seconds: int) -> None:
            client = await server.client("/a", auth={"seconds": seconds})
            await server.io.of("/a").emit("hello")
            assert await client.receive() == ("hello",)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(join, 1)
            nursery.start_soon(join, 2)

        assert made == ["/a"]
        assert len(parent.children["/a"].sockets) == 2


async def test_a_namespace_made_by_hand_while_a_predicate_thinks_is_the_one() -> None:
    async def slow(name: str, auth: Any) -> bool:
        await trio.sleep(5)
        return bool(auth)

    async with open_server() as server:
        parent = server.io.of(slow)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.client, "/a")
            nursery.start_soon(partial(server.client, "/a", auth={"yes": 1}))
            await settle()
            by_hand = server.io.of("/a")

        assert len(by_hand.sockets) == 2
        assert not parent.children


# What a client may send while its namespace is being decided about


@pytest.mark.parametrize("packet", ["0/a,", '2/a,["hello"]', "1/a,", "3/a,1[]"])
async def test_packets_for_a_namespace_that_is_being_decided_about_are_violations(packet: str) -> None:
    async def slow(name: str, auth: Any) -> bool:
        await trio.sleep(5)
        return True

    async with open_server() as server:
        parent = server.io.of(slow)
        client = await server.client()
        await client.send_raw("40/a,", f"4{packet}")

        assert await client.wait_disconnected() == "transport close"
        assert not parent.children


async def test_a_client_that_leaves_while_a_predicate_thinks_leaves_no_namespace() -> None:
    cancelled = []

    async def slow(name: str, auth: Any) -> bool:
        try:
            await trio.sleep(5)
        except trio.Cancelled:
            cancelled.append(name)
            raise
        return True

    async with open_server() as server:
        parent = server.io.of(slow)
        client = await server.client()
        await client.send_raw("40/a,")
        await settle()
        await client.drop()
        await trio.sleep(10)

        assert cancelled == ["/a"]
        assert not parent.children


async def test_other_namespaces_do_not_wait_for_a_slow_predicate() -> None:
    async def slow(name: str, auth: Any) -> bool:
        await trio.sleep(10 if name == "/slow" else 0)
        return True

    async with open_server() as server, trio.open_nursery() as nursery:
        server.io.of("/static")
        server.io.of(slow)
        client = await server.client()
        answered: list[str] = []

        async def join(name: str) -> None:
            await client.of(name)
            answered.append(name)

        nursery.start_soon(join, "/slow")
        await settle()
        await join("/static")
        await join("/fast")
        await trio.sleep(10.1)

        assert answered == ["/static", "/fast", "/slow"]


async def test_the_time_to_join_a_namespace_runs_while_a_predicate_thinks() -> None:
    async def never(name: str, auth: Any) -> bool:
        await trio.sleep_forever()
        return True

    async with open_server(connect_timeout=7) as server:
        server.io.of(never)
        start = trio.current_time()

        with pytest.raises(SocketDisconnected):
            await server.client("/a")
        assert trio.current_time() - start == pytest.approx(7)


async def test_what_no_packet_can_carry_is_not_made_for_a_client_either() -> None:
    async with open_server() as server:
        server.io.of(re.compile(""))
        client = await server.client()
        await client.send_raw("40/a\x1eb,")
        await settle()

        assert client.wire[-1].data == '44/a\x1eb,{"message":"Invalid namespace"}'
        assert list(server.io.namespaces) == ["/"]


@pytest.mark.parametrize("name", ["/a,b", "/a\x1eb", "/\ud800", "/" + "a" * 1024])
def test_a_name_that_no_packet_can_carry_is_refused_by_hand(name: str) -> None:
    with pytest.raises(ValueError, match="no packet can carry"):
        Server().of(name)


@pytest.mark.parametrize("name", ["/" + "a" * 1023, "/a?b=c", "/é\n", "//", "/a b"])
async def test_any_other_name_reaches_its_namespace(name: str) -> None:
    async with open_server() as server:
        by_hand = server.io.of(name)

        assert (await server.connect(name)).socket.namespace is by_hand


async def test_many_invalid_namespaces_leave_nothing_behind() -> None:
    async with open_server() as server:
        server.io.of(DYNAMIC)
        client = await server.client()
        for number in range(3000):
            assert await refusal(client, f"/no-{number}") == INVALID

        assert list(server.io.namespaces) == ["/"]
        connection = next(iter(server.io._connections))
        assert [socket.namespace.name for socket in connection.sockets] == ["/"]
        assert not connection._resolving


async def test_a_session_has_no_more_than_max_namespaces_at_once() -> None:
    async def slow(name: str, auth: Any) -> bool:
        await trio.sleep(auth.get("seconds", 0))
        return True

    async with open_server(max_namespaces=3) as server, trio.open_nursery() as nursery:
        server.io.of("/static")
        server.io.of(slow)
        a = await server.client("/a")
        await a.of("/b")
        nursery.start_soon(a.of, "/c", {"seconds": 1})
        await settle()

        for name in ("/d", "/static"):
            assert await refusal(a, name) == ("Too many namespaces", None)
        await trio.sleep(1.1)
        assert len(server.io.of("/c").sockets) == 1
        await a.disconnect()
        assert (await a.of("/d")).connected


async def test_what_is_kept_of_namespaces_that_the_server_has_ended_is_bounded() -> None:
    async with open_server(max_namespaces=3, cleanup_empty_child_namespaces=True) as server:
        server.io.of(DYNAMIC)
        client = await server.client()
        for number in range(10):
            child = await client.of(f"/dynamic-{number}")
            await server.socket_of(child).disconnect()
            assert await dismissed(child)
        connection = next(iter(server.io._connections))

        assert 0 < len(connection._dismissed) <= 3


# What children get


async def test_children_copy_what_their_parent_has_by_then() -> None:
    calls: list[str] = []

    def noting(text: str) -> Callable[[Socket], None]:
        return lambda socket: calls.append(f"{socket.namespace.name} {text}")

    async with open_server() as server:
        parent = server.io.of(DYNAMIC)
        parent.use(noting("first"))
        parent.on("connect", noting("connected"))
        parent.once("connection", noting("once"))
        await server.connect("/dynamic-1")
        parent.use(noting("second"))
        parent.on("connection", noting("connected later"))
        await server.connect("/dynamic-1")
        await server.connect("/dynamic-2")

        assert calls == [
            *("/dynamic-1 first", "/dynamic-1 connected", "/dynamic-1 once"),
            *("/dynamic-1 first", "/dynamic-1 connected"),
            *("/dynamic-2 first", "/dynamic-2 second"),
            *("/dynamic-2 connected", "/dynamic-2 once", "/dynamic-2 connected later"),
        ]


async def test_what_a_child_registers_is_its_own() -> None:
    async with open_server() as server:
        parent = server.io.of(DYNAMIC)
        calls: list[str] = []
        child = server.io.of("/dynamic-1")
        child.on("connection", lambda socket: calls.append("child"))
        child.use(lambda socket: calls.append("middleware"))
        await server.connect("/dynamic-2")
        assert calls == []

        await server.connect("/dynamic-1")
        assert calls == ["middleware", "child"]
        assert list(parent.children) == ["/dynamic-1", "/dynamic-2"]


async def test_a_middleware_of_the_parent_refuses_for_its_children() -> None:
    async with open_server() as server:
        parent = server.io.of(DYNAMIC)

        @parent.use
        async def check(socket: Socket) -> None:
            raise ConnectionRefused("no", data=socket.namespace.name)

        assert await refusal(await server.client(), "/dynamic-1") == ("no", "/dynamic-1")


async def test_a_new_namespace_is_told_when_it_has_its_parents_listeners(caplog: pytest.LogCaptureFixture) -> None:
    made: list[tuple[Namespace, Namespace | None]] = []

    def fails(namespace: Namespace) -> None:
        raise KeyError("a listener")

    async with open_server() as server:
        server.io.on("new_namespace", fails)
        server.io.on("new_namespace", lambda namespace: made.append((namespace, namespace.parent)))
        parent = server.io.of(DYNAMIC)
        assert made == []

        pair = await server.connect("/dynamic-1")
        assert made == [(pair.socket.namespace, parent)]
    assert warnings(caplog) == ["a new_namespace listener failed"]


def test_an_async_listener_of_new_namespace_is_refused_when_it_is_registered() -> None:
    async def listener(namespace: Namespace) -> None:
        raise AssertionError("never called")

    with pytest.raises(TypeError, match="plain function"):
        Server().on("new_namespace", listener)


# What parents can do


async def test_an_emit_of_a_parent_reaches_every_child_and_nobody_else() -> None:
    async with open_server() as server:
        parent = server.io.of(DYNAMIC)
        server.io.of("/static")
        one, two, other = [await server.connect(name) for name in ("/dynamic-1", "/dynamic-2", "/static")]
        await parent.emit("news", b"x", 1)
        await parent.compress(False).local.emit("more")

        for pair in (one, two):
            assert await pair.client.receive_all() == [("news", b"x", 1), ("more",)]
        assert await other.client.receive_all() == []


async def test_rooms_of_a_parents_emit_are_those_of_each_child() -> None:
    async with open_server() as server:
        parent = server.io.of(DYNAMIC)
        a, b, c = [await server.connect(name) for name in ("/dynamic-1", "/dynamic-1", "/dynamic-2")]
        for pair in (a, b, c):
            await pair.socket.join("room")
        await b.socket.join("quiet")
        await parent.to("room").except_("quiet").emit("news")
        await parent.in_(b.socket.id).emit("private")

        found = [await pair.client.receive_all() for pair in (a, b, c)]
        assert found == [[("news",)], [("private",)], [("news",)]]


async def test_what_needs_no_answer_reaches_the_sockets_of_every_child() -> None:
    async with open_server() as server:
        parent = server.io.of(DYNAMIC)
        a, b = [await server.connect(name) for name in ("/dynamic-1", "/dynamic-2")]
        await parent.sockets_join(["x", "y"])
        await parent.to("x").except_(a.socket.id).sockets_leave("y")
        assert a.socket.rooms == {a.socket.id, "x", "y"}
        assert b.socket.rooms == {b.socket.id, "x"}

        await parent.in_("y").disconnect_sockets()
        assert (a.socket.connected, b.socket.connected) == (False, True)


@pytest.mark.parametrize(
    ("member", "call"),
    [
        ("fetch_sockets", lambda parent: parent.fetch_sockets()),
        ("fetch_sockets", lambda parent: parent.to("room").fetch_sockets()),
        ("emit_with_ack", lambda parent: parent.emit_with_ack("question")),
        ("emit_with_ack", lambda parent: parent.to("room").timeout(5).emit_with_ack("question")),
        ("server_side_emit", lambda parent: parent.server_side_emit("news")),
        ("server_side_emit_with_ack", lambda parent: parent.server_side_emit_with_ack("question")),
    ],
)
async def test_what_needs_an_answer_of_several_namespaces_says_that_there_is_none(
    member: str, call: Callable[[ParentNamespace], Awaitable[Any]]
) -> None:
    with pytest.raises(LocalProtocolError, match=rf"^{member}\(\) is not supported on parent namespaces$"):
        await call(Server().of(DYNAMIC))


async def test_what_cannot_be_encoded_raises_at_a_parents_emit_even_without_children() -> None:
    with pytest.raises(EncodeError):
        await Server().of(DYNAMIC).emit("news", object())


# Registration


@pytest.mark.parametrize("pattern", [re.compile("^/a$"), lambda name, auth: True])
def test_the_same_parent_twice_is_an_error_that_says_so(pattern: Any) -> None:
    io = Server()
    io.of(pattern)
    with pytest.raises(ValueError, match="is registered already"):
        io.of(pattern)


def test_equal_patterns_are_the_same_and_other_flags_are_not() -> None:
    io = Server()
    first = io.of(re.compile("^/a$"))
    second = io.of(re.compile("^/a$", re.IGNORECASE))

    assert io.of("/A").parent is second
    assert io.of("/a").parent is first
    re.purge()
    with pytest.raises(ValueError, match="is registered already"):
        io.of(re.compile("^/a$"))


@pytest.mark.parametrize("wrong", [7, None, re.compile(b"/a"), lambda name, auth, third: True])
def test_what_is_neither_a_name_nor_a_pattern_nor_a_predicate_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError):
        Server().of(wrong)


def test_a_parent_shows_what_it_is() -> None:
    io = Server()
    parent = io.of(DYNAMIC)
    io.of("/dynamic-1")

    assert isinstance(parent, ParentNamespace)
    assert repr(parent) == f"<ParentNamespace {DYNAMIC!r}, 1 children>"


# The adapters of namespaces that are made while the server runs


async def test_the_adapter_of_a_child_is_started_before_its_first_middleware_runs() -> None:
    life = Life()
    async with open_server(adapter=life.adapter) as server:
        parent = server.io.of(DYNAMIC)
        parent.use(lambda socket: life.notes.append(("middleware", socket.namespace.name)))
        life.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.client, "/dynamic-1")
            await trio.sleep(1)
            assert life.notes == [("started", "/")]
            life.gate.set()
        assert life.notes[1:] == [("started", "/dynamic-1"), ("middleware", "/dynamic-1")]
    assert sorted(life.notes[3:]) == [("closed", "/"), ("closed", "/dynamic-1")]


async def test_a_namespace_made_by_hand_while_the_server_runs_is_started_once() -> None:
    life = Life()
    async with open_server(adapter=life.adapter) as server:
        server.io.of("/a")
        await settle()
    assert life.notes[:2] == [("started", "/"), ("started", "/a")]
    assert sorted(life.notes[2:]) == [("closed", "/"), ("closed", "/a")]


async def test_an_adapter_that_cannot_be_started_is_logged_and_serves_locally(caplog: pytest.LogCaptureFixture) -> None:
    life = Life()
    life.fails = "start"
    async with open_server(adapter=life.adapter) as server:
        server.io.of(DYNAMIC)
        assert (await server.connect("/dynamic-1")).socket.connected
    assert warnings(caplog) == ["the adapter of <Namespace /dynamic-1, 0 sockets> has failed"]


async def test_an_adapter_that_cannot_be_closed_is_logged_and_its_last_socket_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    life = Life()
    async with open_server(adapter=life.adapter, cleanup_empty_child_namespaces=True) as server:
        parent = server.io.of(DYNAMIC)
        server.io.of("/static")
        client = await server.client()
        child = await client.of("/dynamic-1")
        socket = server.socket_of(child)
        life.fails = "close"
        await socket.disconnect()
        life.fails = ""

        assert socket.ended.is_set()
        assert not parent.children
        assert await dismissed(child)
        assert (await client.of("/static")).connected
    assert warnings(caplog) == ["the adapter of <Namespace /dynamic-1, 0 sockets> has failed"]


async def test_a_namespace_that_cannot_be_made_refuses_its_client_only(caplog: pytest.LogCaptureFixture) -> None:
    def adapter(directory: Any) -> MemoryAdapter:
        if directory.name != "/":
            raise OSError("no bus")
        return MemoryAdapter(directory)

    async with open_server(adapter=adapter) as server:
        server.io.of(DYNAMIC)
        client = await server.client()

        assert await refusal(client, "/dynamic-1") == ("Internal server error", None)
        assert client.connected
        assert list(server.io.namespaces) == ["/"]
    assert warnings(caplog) == ["the namespace '/dynamic-1' could not be made"]


# Children without sockets


async def test_a_child_is_removed_and_its_adapter_closed_when_its_last_socket_has_left() -> None:
    life = Life()
    async with open_server(adapter=life.adapter, cleanup_empty_child_namespaces=True) as server:
        parent = server.io.of(DYNAMIC)
        first, second = await server.connect_many(2, "/dynamic-1")
        seen: list[bool] = []
        second.socket.on("disconnect", lambda: seen.append("/dynamic-1" in server.io.namespaces))
        await first.client.disconnect()
        await settle()
        assert list(parent.children) == ["/dynamic-1"]

        await second.client.drop()
        await second.socket.ended.wait()
        assert seen == [True]
        assert not parent.children
        assert list(server.io.namespaces) == ["/"]
        assert life.notes[1:] == [("started", "/dynamic-1"), ("closed", "/dynamic-1")]

        again = await server.connect("/dynamic-1")
        assert again.socket.namespace is parent.children["/dynamic-1"] is not first.socket.namespace


async def test_a_child_whose_only_socket_was_refused_is_removed() -> None:
    async with open_server(cleanup_empty_child_namespaces=True) as server:
        parent = server.io.of(DYNAMIC)

        @parent.use
        async def check(socket: Socket) -> None:
            await socket.join("room")
            raise ConnectionRefused("no")

        assert await refusal(await server.client(), "/dynamic-1") == ("no", None)
        await settle()
        assert list(server.io.namespaces) == ["/"]
        assert not parent.children


async def test_a_child_with_a_socket_in_its_middlewares_is_not_empty() -> None:
    async with open_server(cleanup_empty_child_namespaces=True) as server:
        parent = server.io.of(DYNAMIC)
        parent.use(lambda socket: None)

        @parent.use
        async def wait(socket: Socket) -> None:
            await trio.sleep(socket.handshake.auth.get("seconds", 0))

        async def come() -> None:
            comer = await server.client("/dynamic-1", auth={"seconds": 5})
            await parent.emit("news")
            assert await comer.receive() == ("news",)

        leaver = await server.client("/dynamic-1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(come)
            await settle()
            await leaver.disconnect()
            await trio.sleep(1)
            assert list(parent.children) == ["/dynamic-1"]


async def test_empty_children_stay_unless_the_option_says_otherwise() -> None:
    async with open_server() as server:
        parent = server.io.of(DYNAMIC)
        pair = await server.connect("/dynamic-1")
        await pair.client.disconnect()
        await settle()

        assert pair.socket.namespace is server.io.of("/dynamic-1")
        assert list(parent.children) == ["/dynamic-1"]


async def test_namespaces_that_were_not_made_by_a_parent_always_stay() -> None:
    async with open_server(cleanup_empty_child_namespaces=True) as server:
        server.io.of("/static")
        for name in ("/", "/static"):
            pair = await server.connect(name)
            await pair.client.disconnect()
        await settle()

        assert list(server.io.namespaces) == ["/", "/static"]


async def test_a_server_that_stops_removes_its_children_and_can_run_again() -> None:
    life = Life()
    io = Server(adapter=life.adapter, cleanup_empty_child_namespaces=True)
    parent = io.of(DYNAMIC)
    for _ in range(2):
        async with open_server(io) as server:
            await server.connect("/dynamic-1")
        assert not parent.children
        assert sorted(life.notes) == sorted(
            [("started", "/"), ("started", "/dynamic-1"), ("closed", "/dynamic-1"), ("closed", "/")]
        )
        life.notes.clear()


CHURN = ("/dynamic-1", "/dynamic-2", "/dynamic-3")


@given(st.lists(st.tuples(st.sampled_from(CHURN), st.sampled_from(["join", "refused", "leave", "drop"]))))
def test_with_the_option_there_are_just_the_children_that_have_sockets(steps: list[tuple[str, str]]) -> None:
    async def main() -> None:
        async with open_server(cleanup_empty_child_namespaces=True) as server:
            parent = server.io.of(DYNAMIC)

            @parent.use
            async def check(socket: Socket) -> None:
                await trio.lowlevel.checkpoint()
                if socket.handshake.auth:
                    raise ConnectionRefused("no")

            clients: dict[str, list[Any]] = {name: [] for name in CHURN}
            for name, step in steps:
                if step == "join":
                    clients[name].append(await server.connect(name))
                elif step == "refused":
                    assert await refusal(await server.client(), name, {"a": 1}) == ("no", None)
                elif clients[name]:
                    pair = clients[name].pop()
                    await (pair.client.disconnect() if step == "leave" else pair.client.drop())
                await settle()
                assert set(parent.children) == {name for name in clients if clients[name]}
                assert set(server.io.namespaces) == {"/", *parent.children}

    run(main)


async def test_the_last_violation_closes_the_session_and_not_the_namespace_of_others() -> None:
    async with open_server(cleanup_empty_child_namespaces=True) as server:
        parent = server.io.of(DYNAMIC)
        good = await server.connect("/dynamic-1")
        bad = await server.connect("/dynamic-1")
        await bad.client.send_raw("40/dynamic-1,")
        assert await bad.client.wait_disconnected() == "transport close"
        await bad.socket.ended.wait()
        await parent.emit("news")

        assert await good.client.receive() == ("news",)
