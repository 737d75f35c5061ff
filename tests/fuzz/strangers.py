"""Strangers: connections whose bytes are nearly what clients send, for servers whose session ids can be guessed."""

from __future__ import annotations

import enum
import logging
from contextlib import contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote

from hypothesis import strategies as st

from trio_socketio import Server, SocketDisconnected
from trio_socketio._wire.frames import BINARY, FIN, PING, PONG, RSV1, TEXT
from trio_socketio.testing.strategies import malformed_frames, malformed_packets, packets

from ..frontends.test_lane import mutated_streams
from ..frontends.wire import CLOSE_FRAME, client_frame
from ..wire_client import WEBSOCKET_HEADERS
from .damage import damaged
from .test_packets import DEFAULTS, messages_of, packed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_socketio import Request, Socket

T = TypeVar("T")

# What they send

QUERIES = (
    "EIO=4&transport=polling", "EIO=4&transport=websocket", "EIO=3&transport=polling", "EIO=3&transport=websocket",
    "EIO=4&transport=polling&j=0", "EIO=4&transport=polling&b64=1", "EIO=3&transport=polling&b64=1",
    "transport=polling", "EIO=5&transport=polling", "EIO=4", "EIO=4&transport=polling&transport=websocket", "",
)  # fmt: skip
EXTRA_LINES = (
    "", "", "", "Origin: https://a.example\r\n", "Origin: null\r\n", "Accept-Encoding: gzip\r\n",
    "Connection: close\r\n", "Content-Type: application/octet-stream\r\n", "Content-Type: text/plain\r\n",
    "Expect: 100-continue\r\n", "Sec-WebSocket-Extensions: permessage-deflate\r\n", "Cookie: io=s1\r\n",
)  # fmt: skip
UPGRADE_LINES = "".join(f"{name}: {value}\r\n" for name, value in WEBSOCKET_HEADERS.items())
EVENTS = (
    '42["echo",1]', '421["echo","x"]', '42["ask"]', '42["shout",{"a":[]}]', '42["leave"]', '42["leave",1]', "430[1]",
    '451-["echo",{"_placeholder":true,"num":0}]', "bAQID", '42/other,["echo"]', '40/other,{"pid":"x","offset":"y"}',
)  # fmt: skip
CONTROLS = ("40", '40{"token":1}', "41", "2probe", "2", "3", "5", "6", "1", "4", '0{"sid":"x"}')

sids = st.sampled_from([*["&sid=s0"] * 6, "&sid=s1", "&sid=s2", "&sid=witness0", "&sid=", "", ""])


def mostly(usual: st.SearchStrategy[T], odd: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """Three times the one, then the other: who is odd all the time is never listened to for long."""
    return st.integers(0, 3).flatmap(lambda number: usual if number < 3 else odd)


any_packets = packets().map(lambda packet: f"4{messages_of(DEFAULTS[0], packet)[0]!s}")
engine_packets = mostly(st.sampled_from(EVENTS), any_packets | st.sampled_from(CONTROLS) | malformed_packets())


def request(method: str, query: str, sid: str, lines: str, packets: list[str]) -> bytes:
    """A request, with a body if it is a POST; ``WS`` is a GET for a WebSocket."""
    body = "\x1e".join(packets).encode("utf-8", "replace") if method == "POST" else b""
    if "j=0" in query:
        body = b"d=" + quote(body).encode()
    if method == "POST":
        lines += f"Content-Length: {len(body)}\r\n"
    if method == "WS":
        method, lines = "GET", lines + UPGRADE_LINES
    return f"{method} /socket.io/?{query}{sid} HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n".encode() + body


def chunked(body: bytes) -> bytes:
    head = b"POST /socket.io/?EIO=4&transport=polling&sid=s0 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def frame(kind: int, content: bytes) -> bytes:
    return client_frame(FIN | kind, content)


methods = st.sampled_from(["GET", "POST", "POST", "POST", "WS", "OPTIONS", "PUT", "HEAD"])
queries = mostly(st.just(QUERIES[0]), st.sampled_from(QUERIES))
requests = st.builds(
    request, methods, queries, sids, st.sampled_from(EXTRA_LINES), st.lists(engine_packets, max_size=4)
) | engine_packets.map(lambda text: chunked(text.encode("utf-8", "replace")))
frames = mostly(
    st.builds(frame, st.just(TEXT), engine_packets.map(lambda text: text.encode("utf-8", "replace"))),
    st.builds(frame, st.just(BINARY), packets().map(packed) | st.binary(max_size=9))
    | st.builds(frame, st.sampled_from([PING, PONG, TEXT | RSV1, 0]), st.binary(max_size=9))
    | malformed_frames()
    | mutated_streams()
    | st.just(CLOSE_FRAME),
)


def sendings(parts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    whole = st.lists(parts, min_size=1, max_size=3).map(b"".join)
    return mostly(whole, damaged(whole, pieces))


pieces = st.binary(max_size=3) | st.sampled_from(
    [b"\r\n", b"s0", b"s1", b"\x1e", b"0", b"HTTP/1.0", b"%2e%2e/", b"\x81\x85", b"\x00" * 100]
)


class Ending(enum.Enum):
    """What becomes of a connection after its bytes."""

    NONE = "it stays"
    HALF = "it has said its last byte, and listens"
    FULL = "it is cut"


class Deed(NamedTuple):
    """What one of them does next.

    Attributes:
        who: Its number; a connection that is not there, or is over, is made anew.
        sending: The bytes to send.
        ending: And then.
        pause: Seconds until the next deed; without any, that may come before the server has seen this one.
    """

    who: int
    sending: bytes
    ending: Ending
    pause: float


def deed(who: int, parts: st.SearchStrategy[bytes]) -> st.SearchStrategy[Deed]:
    endings = st.sampled_from([*[Ending.NONE] * 6, Ending.HALF, Ending.FULL])
    return st.builds(Deed, st.just(who), sendings(parts), endings, st.sampled_from([0.0, 0.0, 0.01, 0.01, 3.0, 60.0]))


def opening(version: int, first: str) -> list[Deed]:
    """What most of them begin with: a session on each transport, in a namespace if it is a packet that leads there."""
    poll = request("GET", f"EIO={version}&transport=polling", "", "", [])
    say = request("POST", f"EIO={version}&transport=polling", "&sid=s0", "", [first if version == 4 else f"2:{first}"])
    websocket = request("WS", f"EIO={version}&transport=websocket", "", "", []) + frame(TEXT, first.encode())
    return [Deed(0, poll + say, Ending.NONE, 0.01), Deed(1, websocket, Ending.NONE, 0.01)]


openings = st.sampled_from(
    [opening(4, "40"), opening(4, "40"), opening(4, "40"), opening(3, "40"), opening(4, "5"), []]
)
more = st.lists(st.one_of(deed(0, requests), deed(1, frames), deed(1, frames), deed(2, requests | frames)), max_size=8)
histories = st.builds(lambda first, then: [*first, *then], openings, more)

# Whom they send it to


def make_server(**options: Any) -> Server:
    """A server with everything switched on, and small limits."""
    everything: dict[str, Any] = {
        "allow_eio3": True,
        "connection_state_recovery": True,
        "cookie": True,
        "cors": "https://a.example",
        "max_http_buffer_size": 3000,
        "max_outbox_packets": 50,
        "per_message_deflate": True,
        "ping_interval": 10_000,  # for the witness, who does nothing in between
        "serve_client": False,  # threads know nothing of the virtual clock
    }
    io = Server(**everything | options)
    numbers = {"witness": count(), "s": count()}

    def next_id(request: Request) -> str:
        kind = request.query.get("kind", "s")
        return f"{kind}{next(numbers[kind if kind == 'witness' else 's'])}"

    io.engine.generate_id = next_id
    for namespace in (io, io.of("/other")):
        namespace.handle("echo", echo)
        namespace.handle("ask", ask)
        namespace.handle("shout", shout)
        namespace.handle("leave", leave)
    return io


async def echo(socket: Socket, *args: Any) -> Any:
    return args


async def ask(socket: Socket, *args: Any) -> Any:
    with suppress(SocketDisconnected):
        return await socket.emit_with_ack("ask", b"\x00")


async def shout(socket: Socket, *args: Any) -> None:
    await socket.join("strangers")
    await socket.namespace.to("strangers").emit("shout", *args)


async def leave(socket: Socket, *args: Any) -> None:
    await socket.disconnect(close=len(args) > 0)


@contextmanager
def nothing_fails() -> Iterator[None]:
    """A context in which the library may log nothing as an error: that is how it says that something is a bug."""
    errors: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.append(self.format(record))

    keeper, library = Keeper(logging.ERROR), logging.getLogger("trio_socketio")
    library.addHandler(keeper)
    try:
        yield
    finally:
        library.removeHandler(keeper)
    assert not errors, errors[0]
