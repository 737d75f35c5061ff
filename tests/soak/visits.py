"""What clients do, each for a moment: some behave, some do not, some just vanish."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import trio

from trio_socketio import ConnectionRefused, SocketDisconnected
from trio_socketio.testing import open_client_at

from ..wire_http import WEBSOCKET_HEADERS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random
    from typing import TypeAlias

    from trio_socketio.testing import MemoryClient

    Visit: TypeAlias = "Callable[[str, Random], Awaitable[None]]"

#: Seconds for one visit; who is still there is cut off.
PATIENCE = 5.0
WAYS: tuple[dict[str, Any], ...] = (
    {"transport": "websocket"},
    {"transport": "polling"},
    {"transport": "polling", "upgrade": True},
)
HANDSHAKE = "/socket.io/?EIO=4&transport="


async def visit(url: str, random: Random) -> str:
    """One client, from its coming to its end; returns what it has done."""
    chosen = random.choice(VISITS)
    with trio.move_on_after(PATIENCE), suppress(SocketDisconnected, OSError, trio.BrokenResourceError):
        await chosen(url, random)
    return chosen.__name__


async def chat(url: str, random: Random) -> None:
    """Come, on any transport, be in rooms, talk, leave."""
    async with open_client_at(url, **random.choice(WAYS)) as client:
        client.on("question", lambda number: number)
        room = f"room {random.randrange(5)}"
        assert await client.emit_with_ack("join", room) is None
        for number in range(random.randrange(1, 10)):
            assert await client.emit_with_ack("echo", number, b"\x01" * number) == (number, b"\x01" * number)
            await client.emit("say", room, "hello" * random.choice([1, 1000]))
        await client.emit("ask", 3)
        assert await client.emit_with_ack("ask all", room) >= 0
        await client.emit_with_ack("leave", room)


async def be_in_many_namespaces(url: str, random: Random) -> None:
    """Namespaces that are made for somebody, and go with the last one in them."""
    async with open_client_at(url, **random.choice(WAYS)) as client:
        others = [await client.of(f"/room-{number}") for number in random.sample(range(1000), 3)]
        for other in others:
            assert await other.emit_with_ack("echo", "x") == "x"
        await others[0].disconnect()


async def vanish(url: str, random: Random) -> None:
    """Be cut off, in the middle of everything."""
    async with open_client_at(url, **random.choice(WAYS)) as client:
        await client.emit("join", f"room {random.randrange(5)}")
        await client.emit("ask", 5)
        await trio.sleep(random.random() / 10)
        await client.drop()


async def come_back(url: str, random: Random) -> None:
    """Be cut off, and be back at once, or too late to be known."""
    async with open_client_at(url, **random.choice(WAYS)) as client:
        await client.emit_with_ack("join", f"room {random.randrange(5)}")
        await client.receive()
        await client.drop()
        await trio.sleep(random.choice([0.0, 0.0, 1.2]))
        await client.reconnect()
        await client.emit_with_ack("echo")


async def stop_reading(url: str, random: Random) -> None:
    """Ask for much, take none of it, and be thrown out for that, or leave."""
    async with open_client_at(url) as client:
        await client.emit_with_ack("join", f"room {random.randrange(5)}")
        client.stop_reading()
        await client.emit("flood", random.choice([10, 1000]), 10_000)
        await trio.sleep(random.random())
        await client.drop()


async def never_answer(url: str, random: Random) -> None:
    """Be asked, and leave without a word about it."""
    async with open_client_at(url, **random.choice(WAYS)) as client:
        await client.emit("ask", 20)
        await client.receive()


async def be_refused(url: str, random: Random) -> None:
    with suppress(ConnectionRefused):
        async with open_client_at(url, auth={"refuse": True}, **random.choice(WAYS)):
            raise AssertionError("the middleware has let it in")


async def talk_nonsense(url: str, random: Random) -> None:
    """Have the session closed for what it says."""
    async with open_client_at(url, **random.choice(WAYS)) as client:
        await client.send_raw(random.choice(["42[", "9", "451-[]", '42["connect"]', "4" + "5" * 50]))
        await wait_for_the_end(client)


async def throw_out(url: str, random: Random) -> None:
    """Have everybody of a room disconnected, oneself perhaps among them."""
    room = f"room {random.randrange(5)}"
    async with open_client_at(url, **random.choice(WAYS)) as client:
        if random.random() < 0.5:
            await client.emit_with_ack("join", room)
        await client.emit("throw out", room)


async def wait_for_the_end(client: MemoryClient) -> None:
    with suppress(SocketDisconnected):
        while True:
            await client.receive()


# Without a client


async def open_stream(url: str) -> trio.SocketStream:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return await trio.open_tcp_stream(parts.hostname, parts.port)


def request(target: str, headers: dict[str, str] | None = None, method: str = "GET") -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode()


async def give_up_a_poll(url: str, random: Random) -> None:
    """Open a session, begin to poll, and go; or do not even poll."""
    async with await open_stream(url) as stream:
        await stream.send_all(request(f"{HANDSHAKE}polling"))
        answer = bytes(await stream.receive_some())
        match = re.search(rb'"sid":"([^"]+)"', answer)
        if match is None or random.random() < 0.3:
            return
        await stream.send_all(request(f"{HANDSHAKE}polling&sid={match[1].decode()}"))
        with trio.move_on_after(random.random() / 5):
            await stream.receive_some()


async def say_half_a_thing(url: str, random: Random) -> None:
    """Send the beginning of a request, of an upgrade, or of a frame after it; then go, or wait until it is too late."""
    whole = request(f"{HANDSHAKE}websocket", WEBSOCKET_HEADERS) + b"\x81\x85\x00\x00\x00\x0040{}x"
    async with await open_stream(url) as stream:
        await stream.send_all(whole[: random.randrange(len(whole))])
        with trio.move_on_after(random.choice([0.0, 0.1, 1.5])):
            while await stream.receive_some():
                pass


VISITS: tuple[Visit, ...] = (
    chat,
    be_in_many_namespaces,
    vanish,
    come_back,
    stop_reading,
    never_answer,
    be_refused,
    talk_nonsense,
    throw_out,
    give_up_a_poll,
    say_half_a_thing,
)
