"""The chat, tested without a network: once as an example, once in any order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition

from trio_socketio.testing import TrioStateMachine, initialize, open_client, open_cluster, rule

from .chat import CAPACITY, register

if TYPE_CHECKING:
    from trio_socketio.testing import Cluster, MemoryClient


async def test_who_is_in_a_room_hears_what_is_said_there(autojump_clock: Any) -> None:
    async with (
        open_cluster(2, setup=register) as cluster,
        open_client(cluster[0]) as ann,
        open_client(cluster[1]) as bob,
    ):
        assert await ann.emit_with_ack("join", "lobby") == "welcome"
        assert await bob.emit_with_ack("say", "lobby", "anybody there?") is False
        assert await bob.emit_with_ack("join", "lobby") == "welcome"
        assert await bob.emit_with_ack("say", "lobby", "hello") is True
        assert await ann.receive() == ("said", "lobby", "hello")


some_room = st.sampled_from(("lobby", "garden"))
some_client = st.runner().flatmap(lambda machine: st.integers(0, len(machine.clients) - 1))


class ChatMachine(TrioStateMachine):
    """Two servers, some clients, and what is known about who is where."""

    cluster: Cluster

    @initialize()
    async def start(self) -> None:
        self.cluster = await self.enter(open_cluster(2, setup=register))
        self.clients: list[MemoryClient] = []
        self.rooms: list[set[str]] = []

    def _has_clients(self) -> bool:
        return bool(self.clients)

    @precondition(lambda self: len(self.clients) < CAPACITY + 2)
    @rule(server=st.integers(0, 1))
    async def connect(self, server: int) -> None:
        self.clients.append(await self.enter(open_client(self.cluster[server])))
        self.rooms.append(set())

    @precondition(_has_clients)
    @rule(number=some_client, room=some_room)
    async def join(self, number: int, room: str) -> None:
        members = [rooms for rooms in self.rooms if room in rooms]
        is_welcome = room in self.rooms[number] or len(members) < CAPACITY
        assert await self.clients[number].emit_with_ack("join", room) == ("welcome" if is_welcome else "full")
        if is_welcome:
            self.rooms[number].add(room)

    @precondition(_has_clients)
    @rule(number=some_client, room=some_room)
    async def leave(self, number: int, room: str) -> None:
        await self.clients[number].emit_with_ack("leave", room)
        self.rooms[number].discard(room)

    @precondition(_has_clients)
    @rule(number=some_client, room=some_room, text=st.text(max_size=5))
    async def say(self, number: int, room: str, text: str) -> None:
        may_speak = room in self.rooms[number]
        assert await self.clients[number].emit_with_ack("say", room, text) is may_speak
        for other, client in enumerate(self.clients):
            hears = may_speak and other != number and room in self.rooms[other]
            assert await client.receive_all() == ([("said", room, text)] if hears else [])


TestChat = ChatMachine.TestCase
TestChat.settings = settings(max_examples=20, stateful_step_count=15, deadline=None)
