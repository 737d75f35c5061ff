"""What type checkers say about the data of sockets. They check this file too; here it is seen that it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, assert_type

import pytest

from trio_socketio import Namespace, Server, Socket
from trio_socketio.testing import open_client


@dataclass
class Player:
    name: str = "nobody"
    scores: list[int] = field(default_factory=lambda: list[int]())


def name_of(socket: Socket[Player]) -> str:
    return assert_type(socket.data.name, str)


def any_name_of(socket: Socket) -> Any:
    return assert_type(socket.data, Any)


async def test_each_socket_has_data_of_its_own_of_the_type_that_the_server_was_made_with() -> None:
    io = Server(data=Player, ping_interval=5.0)
    assert_type(io, Server[Player])
    assert_type(io.of("/game"), Namespace[Player])
    assert_type(io.sockets.sockets["x"].data.scores, list[int]) if "x" in io.sockets.sockets else None

    @io.handle("name")
    def rename(socket: Socket[Player], name: str) -> str:
        socket.data.name = name
        return name_of(socket)

    async with open_client(io) as one, open_client(io) as two:
        assert await one.emit_with_ack("name", "Ann") == "Ann"
        assert io.sockets.sockets[one.id].data == Player("Ann")
        assert any_name_of(io.sockets.sockets[two.id]) == Player()
        assert (await io.fetch_sockets())[0].data.name == "Ann"


async def test_without_the_option_it_is_a_dict() -> None:
    io = Server()
    assert_type(io, Server[dict[str, Any]])

    @io.on("connection")
    def connected(socket: Socket[dict[str, Any]]) -> None:
        assert_type(socket.data, dict[str, Any])["name"] = "Ann"

    async with open_client(io) as client:
        assert await client.receive_all() == []
        assert io.sockets.sockets[client.id].data == {"name": "Ann"}


def test_data_that_nobody_can_make_is_refused() -> None:
    with pytest.raises(TypeError, match="data is called for each socket"):
        Server(data={})  # type: ignore[call-overload]  # pyright: ignore
