"""How connections end, and what each side is told: the reasons on the server and in the JavaScript client."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from trio_socketio import Server

from ..js_client import open_driver
from .serving import MODES, Record, either_transport, on_one_front_end, own_listener, record, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_socketio import Socket

    from ..js_client import Client, Driver
    from .serving import FrontEnd, Serve, Served


@contextmanager
def frozen(js: Driver) -> Iterator[None]:
    """Meanwhile the client's process stands still: its connections are open, and nobody is at home."""
    js.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        js.process.send_signal(signal.SIGCONT)


async def reason_of(client: Client) -> str:
    reason, _ = await client.wait_for("disconnect")
    return str(reason)


async def test_client_that_disconnects_says_so(js: Driver, served: Served, mode: str) -> None:
    client, socket = await served.pair(js, mode)
    ends = record(socket, "disconnect")
    await client.disconnect()
    assert await reason_of(client) == "io client disconnect"
    assert await ends.only() == ("client namespace disconnect", None)
    await served.empty()


@on_one_front_end
async def test_client_that_leaves_one_namespace_stays_in_the_other(js: Driver, served: Served) -> None:
    served.io.of("/chat")
    main, socket = await served.pair(js)
    chat = await main.join("/chat")
    await chat.connected()
    ends = record(await served.socket_of(chat, "/chat"), "disconnect")
    await chat.disconnect()
    assert await ends.only() == ("client namespace disconnect", None)
    socket.on("still", lambda: "here")
    assert await main.emit_with_ack("still") == ("here",)
    await chat.reconnect()
    assert len(served.io.of("/chat").sockets) == 1


@either_transport
async def test_disconnected_client_is_told_who_did_it_and_may_come_back(js: Driver, served: Served, mode: str) -> None:
    client, socket = await served.pair(js, mode)
    ends = record(socket, "disconnect")
    await socket.disconnect()
    assert ends == [("server namespace disconnect", None)]
    assert await reason_of(client) == "io server disconnect"
    await client.reconnect()
    assert (await served.socket_of(client)).id != socket.id


@either_transport
async def test_disconnect_with_close_ends_every_namespace_of_the_session(js: Driver, served: Served, mode: str) -> None:
    served.io.of("/chat")
    main, socket = await served.pair(js, mode)
    chat = await main.join("/chat")
    await chat.connected()
    chat_socket = await served.socket_of(chat, "/chat")
    ends = [record(socket, "disconnect"), record(chat_socket, "disconnect")]
    await chat_socket.disconnect(close=True)
    assert ends == [[("server namespace disconnect", None)]] * 2
    assert [await reason_of(main), await reason_of(chat)] == ["io server disconnect"] * 2
    await served.empty()


@either_transport
async def test_closing_server_closes_the_transports(js: Driver, served: Served, mode: str) -> None:
    client, socket = await served.pair(js, mode)
    ends = record(socket, "disconnect")
    await until(lambda: socket.conn.writable, "writable: a poll is under way")
    await served.io.close()
    assert ends == [("server shutting down", None)]
    assert await reason_of(client) == "transport close"
    await served.empty()


async def test_draining_server_delivers_what_is_queued_first(js: Driver, served: Served, mode: str) -> None:
    client, socket = await served.pair(js, mode)
    ends = record(socket, "disconnect")
    for number in range(100):
        await socket.emit("event", number, b"x")
    await served.io.drain(5)
    assert ends == [("server shutting down", None)]
    assert await reason_of(client) == "transport close"
    assert len(await client.wait_for_many("event", 100)) == 100


@either_transport
async def test_client_that_closes_its_engine_is_a_transport_close(js: Driver, served: Served, mode: str) -> None:
    client, socket = await served.pair(js, mode)
    ends = record(socket, "disconnect")
    await client.close_engine()
    assert await reason_of(client) == "forced close"
    assert await ends.only() == ("transport close", None)
    await served.empty()


@either_transport
async def test_lost_network_ends_both_sides(js: Driver, serve: Serve, mode: str) -> None:
    served = await serve(Server(ping_interval=0.3, ping_timeout=0.2))
    client, socket = await served.pair(js, mode)
    ends = record(socket, "disconnect")
    await until(lambda: socket.conn.writable, "writable: a poll is under way")
    await client.drop()
    reason, description = await ends.only()
    if mode == "websocket":
        assert (reason, description) == ("transport close", None)
        assert await reason_of(client) == "transport close"
    else:
        assert (reason, description) == ("transport error", "poll connection closed prematurely")
        assert await reason_of(client) == "transport error"
    await served.empty()


@either_transport
async def test_silent_client_is_a_ping_timeout(js: Driver, serve: Serve, mode: str) -> None:
    served = await serve(Server(ping_interval=0.2, ping_timeout=0.15))
    client, socket = await served.pair(js, mode)
    ends = record(socket, "disconnect")
    with frozen(js):
        assert await ends.only() == ("ping timeout", None)
    # It depends on what the client sees first when it wakes up; its next request is for a session that has gone.
    assert await reason_of(client) in ("ping timeout", "transport error" if mode == "polling" else "transport close")
    await served.empty()


@either_transport
async def test_client_that_answers_pings_stays(js: Driver, serve: Serve, mode: str) -> None:
    served = await serve(Server(ping_interval=0.05, ping_timeout=0.3))
    client, socket = await served.pair(js, mode)
    await trio.sleep(0.4)
    assert socket.connected
    assert (await client.state()).connected


async def test_client_that_does_not_read_loses_its_session_and_nobody_else_notices(js: Driver, serve: Serve) -> None:
    served = await serve(Server(max_outbox_bytes=1_000_000))
    _, lazy = await served.pair(js)
    ends = record(lazy, "disconnect")
    async with open_driver() as other:
        eager, _ = await served.pair(other)
        sent = 0
        with frozen(js):
            while not ends:
                await served.io.emit("flood", sent, bytes(100_000))
                await eager.wait_for("flood")
                sent += 1
        reason, description = await ends.only()
        assert reason == "transport error"
        assert "max_outbox_bytes=1000000" in description
        await served.io.emit("end")
        await eager.wait_for("end")


@either_transport
async def test_packet_that_cannot_be_decoded_ends_only_its_own_session(js: Driver, served: Served, mode: str) -> None:
    client, socket = await served.pair(js, mode)
    other, other_socket = await served.pair(js, mode)
    ends = record(socket, "disconnect")
    await client.emit("parts", [b"part"] * 11)
    reason, description = await ends.only()
    # On polling the close may have to wait for the client's next poll.
    assert reason == "forced close" or (reason, mode) == ("forced server close", "polling")
    assert "attachments" in description
    assert await reason_of(client) == "transport close"
    other_socket.on("still", lambda: "here")
    assert await other.emit_with_ack("still") == ("here",)


async def test_too_large_frame_ends_with_a_reason_that_names_both_sizes(
    js: Driver, served: Served, front_end: FrontEnd
) -> None:
    client, socket = await served.pair(js, "websocket")
    ends = record(socket, "disconnect")
    await client.emit("big", "x" * 1_500_000)
    reason, description = await ends.only()
    assert reason == "transport error"
    assert "1500012 bytes" in description
    assert "1000000 bytes" in description
    reason, details = await client.wait_for("disconnect")
    assert reason == "transport close"
    if front_end is own_listener:
        assert details["closeCode"] == 1009
    await served.empty()


async def test_too_large_body_is_refused(js: Driver, served: Served) -> None:
    client, socket = await served.pair(js, "polling")
    ends = record(socket, "disconnect")
    await client.emit("big", "x" * 1_500_000)
    reason, details = await client.wait_for("disconnect")
    assert (reason, details["description"]) == ("transport error", 413)
    # The client goes in two ways at once: it says so, and it lets go of its poll.
    assert (await ends.only())[0] in ("transport close", "transport error")
    await served.empty()


@on_one_front_end
async def test_rooms_are_left_between_the_two_goodbyes(js: Driver, served: Served) -> None:
    client, socket = await served.pair(js)
    seen = Record()
    await socket.join("x")

    @socket.on("disconnecting")
    async def leaving(reason: str) -> None:
        await trio.lowlevel.checkpoint()
        seen.add("disconnecting", reason, sorted(socket.rooms - {socket.id}))

    @socket.on("disconnect")
    async def left(reason: str) -> None:
        await trio.lowlevel.checkpoint()
        seen.add("disconnect", reason, sorted(socket.rooms))

    await client.disconnect()
    await seen.reach(2)
    await served.empty()
    assert seen == [
        ("disconnecting", "client namespace disconnect", ["x"]),
        ("disconnect", "client namespace disconnect", []),
    ]


@either_transport
async def test_client_finds_its_way_back_after_a_restart(js: Driver, serve: Serve, mode: str) -> None:
    ids: list[str] = []

    def new_server() -> Server:
        io = Server()

        @io.on("connection")
        def connected(socket: Socket) -> None:
            ids.append(socket.id)
            socket.on("echo", lambda *args: args)

        return io

    served = await serve(new_server())
    client = await js.connect(
        served.url,
        transports=MODES[mode],
        reconnection=True,
        reconnectionDelay=20,
        reconnectionDelayMax=50,
        randomizationFactor=0,
    )
    assert await client.emit_with_ack("echo", 1) == (1,)
    await served.stop()
    assert await reason_of(client) in ("transport close", "transport error")
    await client.emit("echo", "while it was away")
    await serve(new_server(), served.port)
    await client.connected()
    assert await client.emit_with_ack("echo", b"2") == (b"2",)
    assert len(set(ids)) == len(ids) == 2
    assert (await client.state()).id == ids[1]
