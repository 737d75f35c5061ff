"""Random histories: whatever clients, handlers and the server do, nothing is left, and nobody else is harmed.

Clients speak for themselves (`serving`): they send garbage, say what nobody in their state should, and read nothing.
"""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio
from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st

from trio_socketio import AckTimeout, ConnectionRefused, Server, SocketDisconnected

from ..wire_client import ConnectionLost, SessionLost, WebSocketClosed, settle
from .support import TRANSPORTS, Served, run, serving, warnings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_socketio import Socket

    from ..wire_client import SioClient

NAMESPACES = ("/", "/other")
ROOMS = ("r", "s")
SLOTS = range(3)
NOTHING: st.SearchStrategy[Any] = st.none()
GONE = (SessionLost, ConnectionLost, WebSocketClosed, trio.BrokenResourceError, trio.ClosedResourceError)


class Step(NamedTuple):
    """One thing that happens, and for how long nothing else does."""

    action: str
    slot: int
    choice: Any
    checkpoints: int


def step(
    action: str, choices: st.SearchStrategy[Any] = NOTHING, slots: Sequence[int] = SLOTS
) -> st.SearchStrategy[Step]:
    return st.builds(
        Step, st.just(action), st.sampled_from(slots), choices, st.sampled_from((0, 1, 2, 3, 5, 8, 13, 40))
    )


behaviours = st.fixed_dictionaries(
    {
        "middleware": st.sampled_from(("pass", "pass", "pass", "wait", "wait", "raise", "refuse", "wait and refuse")),
        "connection": st.sampled_from(("return", "return", "wait", "wait", "raise", "wait and raise", "disconnect")),
        "end": st.sampled_from(("return", "wait", "raise", "disconnect")),
    }
)
namespaces = st.sampled_from(NAMESPACES)
arrivals = st.tuples(st.sampled_from(TRANSPORTS), namespaces, behaviours)
steps = st.lists(
    st.one_of(
        step("open", arrivals),
        step("join namespace", st.tuples(namespaces, behaviours)),
        step("leave namespace", namespaces),
        step("events", st.lists(st.sampled_from(("plain", "wait", "raise", "ask", "unknown")), min_size=1, max_size=4)),
        step("answer", st.integers(0, 5)),
        step("garbage", st.sampled_from(("abc", "2", b"\x00", '52-["x"]', "0"))),
        step("close"),
        step("drop"),
        step("ask"),
        step("ask all", st.booleans()),
        step("join", st.sampled_from(ROOMS)),
        step("broadcast", st.sampled_from((None, *ROOMS))),
        step("disconnect", st.booleans()),
        step("disconnect room", st.tuples(st.sampled_from(ROOMS), st.booleans())),
        step("start task"),
        step("pass time", st.sampled_from((0.1, 1.0, 10.0))),
    ),
    min_size=5,
    max_size=40,
)
#: They begin with clients, because what happens to nobody shows nothing.
histories = st.tuples(st.tuples(*[step("open", arrivals, [slot]) for slot in SLOTS]), steps).map(
    lambda parts: [*parts[0], *parts[1]]
)


class Life:
    """What is known about a socket from its own listeners."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self.connected = 0
        self.told: list[str] = []
        self.events: list[int] = []


class World:
    """A server whose handlers do what the clients ask for, the clients, and a witness whom nobody may disturb."""

    def __init__(self, served: Served, nursery: trio.Nursery) -> None:
        self.served = served
        self.io = served.io
        self.nursery = nursery
        self.lives: dict[Socket, Life] = {}
        self.clients: dict[int, SioClient] = {}
        self.sent: dict[int, int] = {}
        self.broadcasts = 0
        self.questions = 0
        for name in NAMESPACES:
            self.io.of(name).use(self.admit)
            self.io.of(name).on("connection", self.note)
            self.io.of(name).on("connection", self.connected)
        self.io.on_error(lambda error: None)

    # The server's side

    async def admit(self, socket: Socket) -> None:
        life = self.lives[socket] = Life(socket)
        behaviour = socket.handshake.auth.get("middleware", "pass")
        socket.on("disconnecting", lambda: life.told.append("disconnecting"))
        socket.on("disconnect", lambda: life.told.append("disconnect"))
        socket.on("disconnecting", self.at_the_end(socket))
        socket.on("disconnect", self.at_the_end(socket))
        await socket.join("early")
        if "wait" in behaviour:
            await trio.sleep(1)
        if "refuse" in behaviour:
            raise ConnectionRefused
        if "raise" in behaviour:
            raise ValueError

    def note(self, socket: Socket) -> None:
        self.lives[socket].connected += 1

    async def connected(self, socket: Socket) -> None:
        behaviour = socket.handshake.auth.get("connection", "return")
        life = self.lives[socket]

        async def wait(number: int) -> None:
            life.events.append(number)
            await trio.sleep(number % 3)

        async def fail(number: int) -> None:
            life.events.append(number)
            raise ValueError

        async def ask(number: int) -> Any:
            life.events.append(number)
            return await socket.emit_with_ack("back")

        if "wait" in behaviour:
            await trio.sleep(1)
        socket.on("plain", life.events.append)
        socket.on("wait", wait)
        socket.on("raise", fail)
        socket.on("ask", ask)
        if "raise" in behaviour:
            raise ValueError
        if behaviour == "disconnect":
            await socket.disconnect()

    def at_the_end(self, socket: Socket) -> Any:
        behaviour = socket.handshake.auth.get("end", "return")

        async def handler() -> None:
            if behaviour == "wait":
                await trio.sleep(1)
            elif behaviour == "raise":
                raise ValueError
            elif behaviour == "disconnect":
                await socket.disconnect()

        return handler

    def sockets_of(self, slot: int) -> list[Socket]:
        sid = self.clients[slot].engine.sid if slot in self.clients else None
        return [life.socket for life in self.lives.values() if life.socket.conn.id == sid]

    # What may happen

    async def take(self, step: Step) -> None:
        method = getattr(self, step.action.replace(" ", "_"))
        try:
            await method(step.slot, step.choice)
        except GONE:
            self.clients.pop(step.slot, None)
        for _ in range(step.checkpoints):
            await trio.lowlevel.checkpoint()

    async def open(self, slot: int, choice: tuple[str, str, dict[str, str]]) -> None:
        transport, namespace, behaviour = choice
        if slot not in self.clients:
            self.clients[slot] = await self.served.net.open_socketio(transport)
            self.sent[slot] = 0
            await self.join_namespace(slot, (namespace, behaviour))

    async def join_namespace(self, slot: int, choice: tuple[str, dict[str, str]]) -> None:
        namespace, behaviour = choice
        if slot in self.clients:
            auth = ",".join(f'"{key}":"{value}"' for key, value in behaviour.items())
            await self.clients[slot].send_raw(f"0{namespace},{{{auth}}}")

    async def leave_namespace(self, slot: int, namespace: str) -> None:
        if slot in self.clients:
            await self.clients[slot].disconnect(namespace)

    async def events(self, slot: int, kinds: list[str]) -> None:
        if slot in self.clients:
            packets = []
            for kind in kinds:
                packets.append(f'2["{kind}",{self.sent[slot]}]')
                self.sent[slot] += 1
            await self.clients[slot].send_raw(*packets)

    async def answer(self, slot: int, id: int) -> None:
        if slot in self.clients:
            await self.clients[slot].ack(id, namespace="/")

    async def garbage(self, slot: int, packet: str | bytes) -> None:
        if slot in self.clients:
            await self.clients[slot].send_raw(packet)

    async def close(self, slot: int, _: None) -> None:
        if slot in self.clients:
            await self.clients.pop(slot).close()

    async def drop(self, slot: int, _: None) -> None:
        if slot in self.clients:
            await self.clients.pop(slot).drop()

    async def ask(self, slot: int, _: None) -> None:
        for socket in self.sockets_of(slot):
            self.nursery.start_soon(self.ask_one, socket)

    async def ask_one(self, socket: Socket) -> None:
        self.questions += 1
        try:
            await socket.timeout(5).emit_with_ack("question")
        except (AckTimeout, SocketDisconnected):
            self.questions -= 1
        else:
            self.questions -= 1

    async def ask_all(self, slot: int, early: bool) -> None:
        async with self.io.of("/other").timeout(0.5 if early else 5).acks("question") as replies:
            if not early:
                return
            try:
                async for _ in replies:
                    pass
            except AckTimeout:
                return

    async def join(self, slot: int, room: str) -> None:
        for socket in self.sockets_of(slot):
            try:
                await socket.join(room)
            except SocketDisconnected:
                assert not socket.connected or self.lives[socket].told or socket.state.name == "ENDING"

    async def broadcast(self, slot: int, room: str | None) -> None:
        operator = self.io.to([room, "witness"]) if room else self.io._operator()
        await operator.emit("broadcast", self.broadcasts)
        self.broadcasts += 1

    async def disconnect(self, slot: int, close: bool) -> None:
        for socket in self.sockets_of(slot):
            self.nursery.start_soon(socket.disconnect, close)

    async def disconnect_room(self, slot: int, choice: tuple[str, bool]) -> None:
        room, close = choice
        with trio.move_on_after(0.5):
            await self.io.to(room).disconnect_sockets(close)

    async def start_task(self, slot: int, _: None) -> None:
        for socket in self.sockets_of(slot):
            if socket.alive:
                socket.start_soon(trio.sleep_forever)

    async def pass_time(self, slot: int, seconds: float) -> None:
        await trio.sleep(seconds)

    # What has to be true

    def check(self, witness_packets: list[Any]) -> None:
        for life in self.lives.values():
            assert life.connected <= 1
            assert life.told == ["disconnecting", "disconnect"] * life.connected
            assert life.events == sorted(set(life.events)), "out of order, or twice"
            assert life.socket.state.name == "ENDED"
            assert (life.socket.rooms, life.socket.acks) == (frozenset(), {})
            assert (life.socket.statistics().queued_events, life.socket.statistics().tasks) == (0, 0)
        assert self.questions == 0
        assert witness_packets == [f'2["broadcast",{number}]' for number in range(self.broadcasts)]


@settings(max_examples=100, phases=set(Phase) - {Phase.explain})
@given(histories)
def test_after_any_history_every_socket_ended_once_and_nothing_is_left(history: list[Step]) -> None:
    async def main() -> None:
        async with serving(disconnect_timeout=3.0) as served, trio.open_nursery() as nursery:
            world = World(served, nursery)
            witness, socket = await served.connect()
            await socket.join("witness")
            packets: list[Any] = []

            async def watch() -> None:
                while True:
                    packets.append(await witness.recv())

            nursery.start_soon(watch)
            for step in history:
                await world.take(step)
            await settle()
            for client in world.clients.values():
                await client.drop()
            await trio.sleep(100)  # longer than everything that has begun may take
            assert socket.connected
            await socket.disconnect()
            world.check([packet for packet in packets if packet != "1"])
            nursery.cancel_scope.cancel()
            event(f"{sum(life.connected for life in world.lives.values()) - 1} sockets")

    run(main)


@pytest.mark.thorough
async def test_a_thousand_clients_come_and_go_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trio_socketio")
    chance = random.Random(1)
    io = Server()
    ends: list[str] = []

    @io.on("connection")
    async def connected(socket: Socket) -> None:
        socket.on("disconnect", ends.append)
        socket.on("ask", lambda value: value)
        await socket.join(["all", f"room {chance.randrange(10)}"])
        await trio.sleep(chance.random())
        await io.to("all").volatile.emit("hello", socket.id)

    async def visit(served: Served, limiter: trio.CapacityLimiter) -> None:
        async with limiter:
            client = await served.net.connect_socketio(transport=chance.choice(TRANSPORTS))
            await client.emit("ask", 1, id=1)
            await trio.sleep(chance.random())
            way = chance.choice(("close", "drop", "disconnect"))
            await getattr(client, way)()
            if way == "disconnect":
                await client.close()

    async with serving(io) as served:
        async with trio.open_nursery() as nursery:
            limiter = trio.CapacityLimiter(100)
            for _ in range(1000):
                nursery.start_soon(visit, served, limiter)
        await trio.sleep(60)  # who vanished between two polls is noticed by the heartbeat

    assert len(ends) == 1000
    assert set(ends) <= {"transport close", "transport error", "ping timeout", "client namespace disconnect"}
    assert not warnings(caplog)
