"""A server of this library with the control protocol of `WireMachine`: the twin of `node_server.mjs`.

Nobody would test it like this, as `AdapterMachine` sees more and is faster; it shows what the protocol asks for. See
`wire.py` for how it is driven.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trio_socketio import AckTimeout, Server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from trio_socketio import BroadcastOperator, Socket
    from trio_socketio.abc import AdapterFactory


def make_server(adapter: AdapterFactory | None = None) -> Server:
    """A server to be driven.

    Args:
        adapter: Of its cluster; without, it is alone.
    """
    # One handler at a time, because orders are to be carried out in their order.
    options: dict[str, Any] = {} if adapter is None else {"adapter": adapter}
    io: Server = Server(max_concurrent_events=1, **options)
    number = -1
    heard: list[int] = []

    io.handle("echo", lambda socket: None)

    @io.on("message")
    def hear(value: int) -> int:
        heard.append(value)
        return number

    def meant(target: dict[str, Any]) -> BroadcastOperator:
        operator = io.to(target["rooms"]).except_(target["except"])
        return operator.local if target["local"] else operator

    def the(id: str) -> Socket:
        return io.sockets.sockets[id]

    control = io.of("/control")

    @control.handle("start")
    def start(_: Socket, value: int) -> None:
        nonlocal number
        number = value
        heard.clear()

    @control.handle("join")
    async def join(_: Socket, id: str, rooms: list[str]) -> None:
        await the(id).join(rooms)

    @control.handle("leave")
    async def leave(_: Socket, id: str, room: str) -> None:
        await the(id).leave(room)

    @control.handle("disconnect_socket")
    async def disconnect_socket(_: Socket, id: str) -> None:
        await the(id).disconnect()

    @control.handle("emit_from")
    async def emit_from(_: Socket, id: str, rooms: list[str], event: str, args: list[Any]) -> None:
        await the(id).broadcast.to(rooms).emit(event, *args)

    @control.handle("emit")
    async def emit(_: Socket, target: dict[str, Any], event: str, args: list[Any]) -> None:
        await meant(target).emit(event, *args)

    @control.handle("ask")
    async def ask(_: Socket, target: dict[str, Any], event: str, args: list[Any]) -> list[Any]:
        return await collected(meant(target).timeout(1).emit_with_ack(event, *args))

    @control.handle("sockets_join")
    async def sockets_join(_: Socket, target: dict[str, Any], rooms: list[str]) -> None:
        await meant(target).sockets_join(rooms)

    @control.handle("sockets_leave")
    async def sockets_leave(_: Socket, target: dict[str, Any], rooms: list[str]) -> None:
        await meant(target).sockets_leave(rooms)

    @control.handle("disconnect_sockets")
    async def disconnect_sockets(_: Socket, target: dict[str, Any]) -> None:
        await meant(target).disconnect_sockets()

    @control.handle("fetch_sockets")
    async def fetch_sockets(_: Socket, target: dict[str, Any]) -> list[Any]:
        sockets, complete = await collected(meant(target).fetch_sockets())
        return [[[socket.id, sorted(socket.rooms)] for socket in sockets], complete]

    @control.handle("server_side_emit")
    async def server_side_emit(_: Socket, event: str, args: list[Any]) -> None:
        await io.server_side_emit(event, *args)

    @control.handle("server_side_ask")
    async def server_side_ask(_: Socket, event: str, args: list[Any]) -> list[Any]:
        return await collected(io.server_side_emit_with_ack(event, *args))

    @control.handle("snapshot")
    def snapshot(_: Socket) -> list[Any]:
        rooms = {room: list(ids) for room, ids in io.sockets.adapter.rooms.items()}
        news = heard.copy()
        heard.clear()
        return [rooms, news]

    @control.handle("settle")
    async def settle(_: Socket) -> None:
        await io.fetch_sockets()  # behind everything else that is on its way between the servers

    return io


async def collected(answers: Awaitable[Sequence[Any]]) -> list[Any]:
    """The answers that there are, and whether these are all."""
    try:
        return [await answers, True]
    except AckTimeout as error:
        return [error.responses, False]
