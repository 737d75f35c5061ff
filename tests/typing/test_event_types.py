"""What type checkers say about events with types. They check this file too; here it is seen that it runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, assert_type

import pytest
import trio
from trio.testing import MockClock

from trio_socketio import EventType, ReservedEventError, Server, Socket

from ..wire_client import open_app

move = EventType[bool, int, int]("move")
news = EventType[None, str]("news")

if TYPE_CHECKING:

    async def refused_by_type_checkers(io: Server, socket: Socket) -> None:
        await socket.emit(move, 1, "2")  # type: ignore[call-arg, misc]  # pyright: ignore
        await io.emit(news)  # type: ignore[call-arg, misc]  # pyright: ignore
        socket.emit_nowait(news, 3)  # type: ignore[misc]  # pyright: ignore

        @socket.on(move)  # type: ignore[arg-type]  # pyright: ignore
        async def moved(x: str) -> bool:
            return bool(x)


async def exchange() -> list[Any]:
    io = Server()
    seen: list[Any] = []

    @io.handle(news)
    def read(socket: Socket, text: str) -> None:
        seen.append(text)

    @io.on("connection")
    async def connected(socket: Socket) -> None:
        @socket.on(move)
        async def moved(x: int, y: int) -> bool:
            return x < y

        socket.emit_nowait(news, "a")
        await socket.volatile.emit(news, "b")
        await io.emit(news, "c")
        answer = await socket.emit_with_ack(move, 1, 2)
        answers = await io.emit_with_ack(move, 3, 4)
        seen.append((assert_type(answer, bool), assert_type(answers, list[bool])))

    async with open_app(io) as net:
        client = await net.connect_socketio()
        await client.emit("news", "from the client")
        await client.emit("move", 1, 2, id=7)
        while len(seen) < 3:  # what the client said, its acknowledgement, and the answers of the client
            packet = str(await client.recv())
            id, bracket, rest = packet[1:].partition("[")
            seen.extend([packet] if packet.startswith("3") else [])
            if packet.startswith("2") and id:
                await client.ack(int(id), json.loads(bracket + rest)[1] == 1)
            await trio.testing.wait_all_tasks_blocked()
        return seen


def test_names_with_types_are_names_wherever_a_name_is_taken() -> None:
    seen = trio.run(exchange, clock=MockClock(autojump_threshold=0))
    assert seen[0] == "from the client"
    assert "37[true]" in seen
    assert (True, [False]) in seen


def test_a_reserved_name_has_no_type() -> None:
    with pytest.raises(ReservedEventError):
        EventType[None]("disconnect")
    assert repr(move) == "EventType('move')"
