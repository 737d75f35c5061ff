"""Namespaces that are made when JavaScript clients ask for them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import Server

from ..js_client import ConnectError
from .serving import MODES, Record, on_one_front_end, until

if TYPE_CHECKING:
    from trio_socketio import Socket

    from ..js_client import Client, Driver
    from .serving import Serve, Served

DYNAMIC = re.compile(r"^/dynamic-\d+$")


async def test_a_pattern_has_namespaces_with_its_middlewares_and_listeners(
    js: Driver, served: Served, mode: str
) -> None:
    parent = served.io.of(DYNAMIC)
    made = Record()
    served.io.on("new_namespace", made.add)

    @parent.use
    async def check(socket: Socket) -> None:
        socket.data["token"] = socket.handshake.auth["token"]

    @parent.on("connection")
    async def connected(socket: Socket) -> None:
        await socket.emit("welcome", socket.namespace.name, socket.data["token"])
        socket.on("echo", lambda *args: args)

    client, socket = await served.pair(js, mode, "/dynamic-101", auth={"token": "x"})
    assert await client.wait_for("welcome") == ("/dynamic-101", "x")
    assert await client.emit_with_ack("echo", "é", b"\x00") == ("é", b"\x00")
    assert await made.only() == (socket.namespace,)


@on_one_front_end
async def test_an_emit_of_the_parent_reaches_the_clients_of_every_namespace(js: Driver, served: Served) -> None:
    parent = served.io.of(DYNAMIC)
    first, first_socket = await served.pair(js, "websocket", "/dynamic-1")
    second, second_socket = await served.pair(js, "polling", "/dynamic-2")
    other, _ = await served.pair(js, "websocket", "/")
    await second_socket.join("room")
    await parent.to("room").emit("in the room", b"\xff")
    await parent.emit("everywhere", {"deep": [b"x"]})
    await served.io.emit("the end")

    assert await first.wait_for("everywhere") == await second.wait_for("everywhere") == ({"deep": [b"x"]},)
    assert await second.wait_for("in the room") == (b"\xff",)
    await other.wait_for("the end")
    assert "in the room" not in {event.name for event in first.events}
    assert {event.name for event in other.events}.isdisjoint({"everywhere", "in the room"})
    assert first_socket.namespace is not second_socket.namespace


@on_one_front_end
async def test_a_predicate_decides_and_clients_may_ask_again(js: Driver, served: Served) -> None:
    async def members_only(name: str, auth: Any) -> bool:
        await trio.sleep(0.01)
        return bool(auth.get("member"))

    served.io.of(members_only)
    with pytest.raises(ConnectError) as caught:
        await js.connect(served.url, "/club", transports=MODES["websocket"])
    assert caught.value.args[0] == "Invalid namespace"
    client, _ = await served.pair(js, "websocket", "/club", auth={"member": True})
    assert (await client.state()).connected
    assert list(served.io.namespaces) == ["/", "/club"]


@on_one_front_end
async def test_clients_that_ask_for_a_namespace_at_once_meet_in_it(js: Driver, served: Served) -> None:
    async def slow(name: str, auth: Any) -> bool:
        await trio.sleep(0.1)
        return True

    served.io.of(slow)
    clients: list[Client] = []

    async def come() -> None:
        clients.append(await js.connect(served.url, "/room", transports=MODES["websocket"]))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(come)
    room = served.io.namespaces["/room"]
    await room.emit("hello")
    for client in clients:
        assert await client.wait_for("hello") == ()
    assert len(room.sockets) == 3


@on_one_front_end
async def test_a_namespace_that_is_empty_goes_and_comes_back(js: Driver, serve: Serve) -> None:
    served = await serve(Server(cleanup_empty_child_namespaces=True))
    parent = served.io.of(DYNAMIC)
    for _ in range(2):
        client, _ = await served.pair(js, "websocket", "/dynamic-1")
        sibling = await client.join("/dynamic-2")
        await sibling.connected()
        assert list(parent.children) == ["/dynamic-1", "/dynamic-2"]
        await sibling.disconnect()
        await until(lambda: list(parent.children) == ["/dynamic-1"], "one namespace")
        await client.drop()
        await until(lambda: list(served.io.namespaces) == ["/"], "no dynamic namespace")
