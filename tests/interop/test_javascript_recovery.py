"""Connection state recovery with the JavaScript client, which does by itself what it takes to come back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from trio_socketio import ConnectionRefused, ConnectionStateRecovery, Server

from ..js_client import DriverError
from .serving import MODES, either_transport, on_one_front_end, until

if TYPE_CHECKING:
    from trio_socketio import Socket

    from ..js_client import Client, Driver
    from .serving import Serve, Served

#: The client comes back this soon, in milliseconds, and without a random part.
RECONNECTING: dict[str, Any] = {"reconnection": True, "reconnectionDelay": 300, "randomizationFactor": 0}


def recovering(**options: Any) -> Server:
    # A lost long-polling client is found out by the ping timeout, before it is back.
    return Server(
        connection_state_recovery=ConnectionStateRecovery(**options),
        ping_interval=0.1,
        ping_timeout=0.1,
        transports=("polling", "websocket"),
    )


async def open_pair(js: Driver, served: Served, mode: str) -> tuple[Client, Socket]:
    return await served.pair(js, mode, **RECONNECTING)


async def gone(socket: Socket) -> None:
    await until(lambda: socket.ended.is_set(), "the end of the lost socket")


def without_offsets(events: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    assert all(isinstance(args[-1], str) for args in events)
    return [args[:-1] for args in events]


@either_transport
@pytest.mark.parametrize("way", ["drop", "close_engine"])
async def test_client_that_loses_its_connection_comes_back_as_it_was(
    js: Driver, serve: Serve, mode: str, way: str
) -> None:
    served = await serve(recovering())
    client, socket = await open_pair(js, served, mode)
    await socket.join("room")
    socket.data["name"] = "Ann"
    await socket.emit("event", "before")
    await client.wait_for("event")
    await (client.drop() if way == "drop" else client.close_engine())
    await gone(socket)
    await served.io.emit("event", 1)
    await served.io.to("room").emit("event", 2, b"bytes")
    await socket.emit("event", 3)
    await served.io.to("elsewhere").emit("event", "not for it")
    await served.io.except_("room").emit("event", "nor this")
    if way == "close_engine":
        await client.reconnect()
    else:
        await client.connected()
    back = await served.socket_of(client)
    assert back is not socket
    assert back.id == socket.id
    assert back.rooms == {socket.id, "room"}
    assert back.data == {"name": "Ann"}
    assert back.recovered
    assert (await client.state()).recovered
    await back.emit("event", "live")
    events = await client.wait_for_many("event", 4)
    assert without_offsets(events) == [(1,), (2, b"bytes"), (3,), ("live",)]


@either_transport
async def test_client_comes_back_again_and_again_and_gets_everything_once(js: Driver, serve: Serve, mode: str) -> None:
    served = await serve(recovering())
    client, socket = await open_pair(js, served, mode)
    number = 0
    for _ in range(3):
        for _ in range(3):
            await served.io.emit("event", number)
            number += 1
        await client.drop()
        await served.io.emit("event", number)  # perhaps before, perhaps after the server has noticed
        number += 1
        await gone(socket)
        await served.io.emit("event", number)
        number += 1
        await client.connected()
        sid, socket = socket.id, await served.socket_of(client)
        assert socket.id == sid
    events = await client.wait_for_many("event", number)
    assert without_offsets(events) == [(n,) for n in range(number)]


@either_transport
async def test_client_that_has_received_nothing_comes_back(js: Driver, serve: Serve, mode: str) -> None:
    served = await serve(recovering())
    client, socket = await open_pair(js, served, mode)
    await socket.join("room")
    await client.drop()
    await gone(socket)
    await served.io.to("room").emit("event", 1)
    await client.connected()
    state = await client.state()
    assert (state.id, state.recovered) == (socket.id, True)
    assert without_offsets([await client.wait_for("event")]) == [(1,)]


@on_one_front_end
async def test_refused_client_gets_nothing_of_what_it_has_missed(js: Driver, serve: Serve) -> None:
    io = recovering(skip_middlewares=False)
    refused = []

    @io.use
    def check(socket: Socket) -> None:
        if socket.recovered:
            refused.append(socket.id)
            raise ConnectionRefused("not again")

    served = await serve(io)
    client, socket = await open_pair(js, served, "websocket")
    await socket.emit("event", "before")
    await client.wait_for("event")
    await client.drop()
    await gone(socket)
    await io.emit("event", "missed")
    message, *_ = await client.wait_for("connect_error")
    assert message == "not again"
    assert refused == [socket.id]
    with pytest.raises(DriverError):
        await client.wait_for("event", patience=0.3)


@on_one_front_end
async def test_client_that_is_too_late_is_a_new_one(js: Driver, serve: Serve) -> None:
    served = await serve(recovering(max_disconnection_duration=0.01))
    client, socket = await open_pair(js, served, "websocket")
    await socket.emit("event", "before")
    await client.wait_for("event")
    await client.drop()
    await gone(socket)
    await client.connected()
    state = await client.state()
    assert state.id != socket.id
    assert not state.recovered


@on_one_front_end
async def test_without_recovery_a_client_is_always_a_new_one(js: Driver, serve: Serve) -> None:
    served = await serve(Server())
    client = await js.connect(served.url, transports=MODES["websocket"], **RECONNECTING)
    socket = await served.socket_of(client)
    await socket.emit("event", "before")
    assert await client.wait_for("event") == ("before",)
    await client.drop()
    await gone(socket)
    await client.connected()
    assert (await client.state()).id != socket.id
