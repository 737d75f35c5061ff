"""Whom a broadcast reaches: operators are values, and every operation on them means the same sockets."""

from __future__ import annotations

import copy
from functools import reduce
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_socketio import BroadcastOperator, ReservedEventError, Server

from ..wire_client import settle
from .support import Connected, OpenServer, open_server, run

if TYPE_CHECKING:
    from collections.abc import Callable

ROOMS = ("r", "s", "t")
#: Why a session ends, on the server's side, that the server itself has closed.
CLOSED = ("forced close", None)

rooms = st.one_of(st.sampled_from(ROOMS), st.lists(st.sampled_from(ROOMS), max_size=2))
steps = st.one_of(
    st.tuples(st.sampled_from(("to", "in_", "except_")), rooms),
    st.tuples(st.just("compress"), st.booleans()),
    st.tuples(st.just("timeout"), st.floats(0, 10)),
    st.sampled_from(("local", "volatile")),
)


def apply(operator: Any, step: Any) -> Any:
    return getattr(operator, step) if isinstance(step, str) else getattr(operator, step[0])(step[1])


@given(st.lists(steps, max_size=8), st.lists(steps, max_size=3))
def test_no_chain_of_steps_ever_changes_what_it_came_from(chain: list[Any], branch: list[Any]) -> None:
    io = Server()
    operators: list[Any] = [io.to([])]
    snapshots: list[Any] = [copy.deepcopy(operators[0].options)]
    for step in chain:
        operators.append(apply(operators[-1], step))
        snapshots.append(copy.deepcopy(operators[-1].options))

    for operator in operators:
        reduce(apply, branch, operator)
    reduce(apply, branch, io)

    assert [operator.options for operator in operators] == snapshots
    assert io._operator().options == io.of("/other")._operator().options


@given(st.lists(steps, max_size=8))
def test_a_chain_is_the_sum_of_its_steps(chain: list[Any]) -> None:
    operator = reduce(apply, chain, Server()._operator())

    def union(*names: str) -> set[str]:
        chosen: list[Any] = [step[1] for step in chain if step[0] in names]
        return {room for some in chosen for room in ([some] if isinstance(some, str) else some)}

    options = operator.options
    assert options.rooms == union("to", "in_")
    assert options.except_rooms == union("except_")
    assert (options.local, options.volatile) == ("local" in chain, "volatile" in chain)


async def test_the_steps_of_a_socket_leave_it_as_it_is() -> None:
    async with open_server() as server:
        (first, socket), (second, _) = await server.connect_many(2)

        assert isinstance(socket.volatile.compress(False).to("r").local, BroadcastOperator)
        await socket.emit("direct")
        await server.io.emit("all")

        assert await first.receive_all() == [("direct",), ("all",)]
        assert await second.receive_all() == [("all",)]


async def test_flags_set_before_the_rooms_are_kept() -> None:
    async with open_server() as server:
        _, socket = await server.connect()

        for operator in (
            socket.volatile.compress(False).timeout(3).to("r"),
            socket.compress(False).timeout(3).volatile.in_("r"),
            socket.timeout(3).volatile.compress(False).broadcast.to("r"),
        ):
            options = operator.options
            assert (options.volatile, options.compress, options.timeout) == (True, False, 3)
            assert (set(options.rooms), set(options.except_rooms)) == ({"r"}, {socket.id})


# Whom it reaches

memberships = st.lists(st.sets(st.sampled_from(ROOMS)), min_size=1, max_size=5)
filters = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(("to", "in_", "except_")), rooms),
        st.tuples(st.just("except_"), st.integers(0, 4)),  # a socket's own room
        st.tuples(st.just("to"), st.integers(0, 4)),
        st.just("local"),
    ),
    max_size=3,
)


async def assemble(server: OpenServer, members: list[set[str]]) -> list[Connected]:
    pairs = await server.connect_many(len(members))
    for pair, own in zip(pairs, members, strict=True):
        await pair.socket.join(own)
    return pairs


@settings(max_examples=40)
@given(memberships, filters, st.booleans())
def test_every_operation_means_the_same_sockets_each_once(
    members: list[set[str]], chain: list[Any], from_socket: bool
) -> None:
    async def main() -> None:
        async with open_server() as server:
            pairs = await assemble(server, members)
            server.io.of("/elsewhere")
            for other in await server.connect_many(2, "/elsewhere"):
                await other.socket.join(ROOMS)
            ids = [pair.socket.id for pair in pairs]
            actual = [(step[0], ids[step[1] % len(ids)]) if isinstance(step[1], int) else step for step in chain]
            operator = reduce(apply, actual, pairs[0].socket.broadcast if from_socket else server.io)

            def union(*names: str) -> set[str]:
                chosen = [step[1] for step in actual if step[0] in names]
                return {room for some in chosen for room in ([some] if isinstance(some, str) else some)}

            chosen, left_out = union("to", "in_"), union("except_") | ({ids[0]} if from_socket else set())
            everything = [own | {id} for own, id in zip(members, ids, strict=True)]
            meant = [bool((not chosen or own & chosen) and not own & left_out) for own in everything]

            await operator.emit("x")
            assert [await pair.client.receive_all() for pair in pairs] == [[("x",)] * yes for yes in meant]

            fetched = await operator.fetch_sockets()
            assert sorted(socket.id for socket in fetched) == sorted(
                i for i, yes in zip(ids, meant, strict=True) if yes
            )

            await operator.sockets_join(["new", "newer"])
            assert [{"new", "newer"} <= pair.socket.rooms for pair in pairs] == meant

            await operator.sockets_leave("new")
            assert ["new" in pair.socket.rooms for pair in pairs] == [False] * len(pairs)
            assert ["newer" in pair.socket.rooms for pair in pairs] == meant

            await operator.disconnect_sockets()
            assert [not pair.socket.connected for pair in pairs] == meant

    run(main)


async def test_a_broadcast_stays_in_its_namespace() -> None:
    async with open_server() as server:
        server.io.of("/other")
        main, other = await server.connect(), await server.connect("/other")
        await main.socket.join("r")
        await other.socket.join("r")

        await server.io.to("r").emit("main")
        await server.io.of("/other").to("r").emit("other")

        assert await main.client.receive_all() == [("main",)]
        assert await other.client.receive_all() == [("other",)]


async def test_a_sockets_own_broadcast_never_reaches_it() -> None:
    async with open_server() as server:
        (first, socket), (second, other) = await server.connect_many(2)
        await socket.join("r")
        await other.join("r")

        await socket.broadcast.emit("1")
        await socket.to("r").emit("2")
        await socket.in_(["r", "s"]).emit("3")
        await socket.except_("s").emit("4")
        await socket.local.emit("5")
        await socket.to(socket.id).emit("6")

        assert await first.receive_all() == []
        assert await second.receive_all() == [(str(number),) for number in range(1, 6)]


async def test_a_socket_that_left_its_own_room_still_gets_what_is_for_everybody() -> None:
    async with open_server() as server:
        client, socket = await server.connect()
        await socket.leave(socket.id)

        await server.io.emit("all")
        await server.io.to(socket.id).emit("own room")

        assert await client.receive_all() == [("all",)]


async def test_joining_and_leaving_keep_the_rooms_exact() -> None:
    async with open_server() as server:
        _, socket = await server.connect()

        await socket.join("a")
        await socket.join(["a", "b", "c"])
        await socket.leave("b")
        await socket.leave("unknown")
        assert socket.rooms == {socket.id, "a", "c"}
        assert socket.statistics().rooms == 3

        await server.io.in_(socket.id).sockets_leave(["a", "c", socket.id])
        assert socket.rooms == set()


# What a room is


@pytest.mark.parametrize("room", [3, None, b"x", ["a", 3], [None]])
async def test_a_room_is_a_string(room: Any) -> None:
    async with open_server() as server:
        _, socket = await server.connect()
        before = socket.rooms

        for choose in (server.io.to, server.io.in_, server.io.except_, socket.to, socket.except_, socket.volatile.to):
            with pytest.raises(TypeError):
                choose(room)
        for use in (socket.join, server.io.sockets_join, server.io.sockets_leave):
            with pytest.raises(TypeError):
                await use(room)

        assert socket.rooms == before


# Disconnecting


async def test_disconnecting_sockets_with_close_ends_the_matching_clients_alone() -> None:
    async with open_server() as server:
        server.io.of("/other")
        leaving, staying = await server.connect_many(2)
        others = [await pair.client.of("/other") for pair in (leaving, staying)]
        sockets = [leaving.socket, staying.socket, *map(server.socket_of, others)]
        await leaving.socket.join("r")

        await server.io.in_("r").disconnect_sockets(close=True)

        assert [socket.connected for socket in sockets] == [False, True, False, True]
        for client in (leaving.client, others[0]):
            assert await client.wait_disconnected() == "io server disconnect"
        assert await staying.client.receive_all() == await others[1].receive_all() == []
        assert staying.client.connected
        assert others[1].connected
        assert leaving.socket.conn.closed_because == CLOSED


async def test_an_emit_before_disconnecting_everybody_arrives_first() -> None:
    async with open_server() as server:
        pairs = await server.connect_many(3)

        await server.io.emit("goodbye")
        await server.io.disconnect_sockets(close=True)

        for client, socket in pairs:
            assert await client.receive_all() == [("goodbye",)]
            assert await client.wait_disconnected() == "io server disconnect"
            assert socket.conn.closed_because == CLOSED


async def test_a_handler_that_disconnects_everybody_goes_on_itself() -> None:
    io = Server()
    steps: list[str] = []

    @io.on("connection")
    def connected(socket: Any) -> None:
        async def all_out() -> None:
            await io.disconnect_sockets()
            await trio.sleep(1)
            steps.append("after")

        socket.on("all out", all_out)

    io.of("/other")
    async with open_server(io) as server:
        clients = [await server.client() for _ in range(3)]
        others = [await client.of("/other") for client in clients]  # which keeps the sessions open
        await clients[0].emit("all out")
        await trio.sleep(2)

        assert steps == ["after"]
        assert not any(client.connected for client in clients)
        assert all(other.connected for other in others)
        assert not io.sockets.sockets


# Atomicity


async def test_a_cancelled_broadcast_reaches_all_or_nobody() -> None:
    async with open_server() as server:
        pairs = await server.connect_many(20)

        for delay in range(6):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def cancel(scope: trio.CancelScope = scope, delay: int = delay) -> None:
                        for _ in range(delay):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()

                    nursery.start_soon(cancel)
                    for _ in range(3):
                        await server.io.emit("x")
            counts = {len(await pair.client.receive_all()) for pair in pairs}
            assert len(counts) == 1


OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "emit": lambda io: io.emit("x"),
    "sockets_join": lambda io: io.sockets_join("r"),
    "sockets_leave": lambda io: io.sockets_leave("r"),
    "fetch_sockets": lambda io: io.fetch_sockets(),
    "disconnect_sockets": lambda io: io.disconnect_sockets(),
    "server_side_emit": lambda io: io.server_side_emit("x"),
    "server_side_emit_with_ack": lambda io: io.server_side_emit_with_ack("x"),
}


@pytest.mark.parametrize("name", OPERATIONS)
async def test_every_operation_is_a_checkpoint(name: str) -> None:
    async with open_server() as server:
        await server.connect()
        with trio.testing.assert_checkpoints():
            await OPERATIONS[name](server.io)
        await settle()
        assert len(server.io.sockets.sockets) == (name != "disconnect_sockets")


async def test_a_join_is_seen_by_the_very_next_broadcast() -> None:
    async with open_server() as server:
        client, socket = await server.connect()

        async def join_and_emit() -> None:
            await socket.join("r")
            await server.io.to("r").emit("x")
            await socket.leave("r")
            await server.io.to("r").emit("y")

        await join_and_emit()

        assert await client.receive_all() == [("x",)]


# Other servers


@pytest.mark.parametrize("name", ["connect", "connection", "new_namespace"])
async def test_some_names_cannot_be_emitted_to_other_servers(name: str) -> None:
    io = Server()

    with pytest.raises(ReservedEventError, match=f'"{name}" is a reserved event name'):
        await io.server_side_emit(name)
    with pytest.raises(ReservedEventError):
        await io.of("/a").server_side_emit_with_ack(name)


async def test_a_single_server_has_nobody_to_answer() -> None:
    io = Server()
    called: list[Any] = []
    io.on("ping", called.append)

    assert await io.server_side_emit_with_ack("ping", 1) == []
    await io.server_side_emit("ping", 1)

    assert called == []
