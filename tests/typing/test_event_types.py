"""What type checkers say about events with types. They check this file too; here it is seen that it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type

import pytest

from trio_socketio import EventType, ReservedEventError, Server, Socket
from trio_socketio.testing import open_client

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


async def test_names_with_types_are_names_wherever_a_name_is_taken(autojump_clock: Any) -> None:
    io = Server()
    seen: list[str] = []

    @io.handle(news)
    def read(socket: Socket, text: str) -> None:
        seen.append(text)

    @io.handle("begin")
    async def begin(socket: Socket) -> tuple[bool, list[bool]]:
        @socket.on(move)
        async def moved(x: int, y: int) -> bool:
            return x < y

        await socket.volatile.emit(news, "a")
        socket.emit_nowait(news, "b")
        await io.emit(news, "c")
        answer = await socket.emit_with_ack(move, 1, 2)
        answers = await io.emit_with_ack(move, 3, 4)
        return assert_type(answer, bool), assert_type(answers, list[bool])

    async with open_client(io) as client:
        client.on("move", lambda x, y: x == 1)

        assert await client.emit_with_ack("begin") == (True, [False])
        assert await client.emit_with_ack("move", 1, 2) is True
        await client.emit("news", "from the client")

        assert await client.receive_all() == [("news", "a"), ("news", "b"), ("news", "c")]
        assert seen == ["from the client"]


def test_a_reserved_name_has_no_type() -> None:
    with pytest.raises(ReservedEventError):
        EventType[None]("disconnect")
    assert repr(move) == "EventType('move')"
