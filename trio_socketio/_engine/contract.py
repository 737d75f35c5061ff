"""What the engine and a front end know of each other: everything, and nothing else, is on this page.

A front end turns bytes into a `Request` and hands it to an `Application`; it gets back a `Response`, or, for a
WebSocket, an `Acceptance`, whose `run` it calls with a `WebSocket` once the 101 is written. Four rules:

* Cancelling `Application.handle_request` says "the client has gone"; there is no other way to say it.
* `Acceptance.run` is the life of the WebSocket: when it returns, the front end closes what is still open.
* Messages go up through `Receiver`, synchronously and in order. They never raise.
* Packets go down through `WebSocket.send_nowait`, which never waits; one task at a time awaits `drain`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, cast, overload
from urllib.parse import parse_qsl, unquote

from .._errors import BodyTooLarge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager

    from .._wire.deflate import PerMessageDeflate
    from .._wire.encoded import EncodedPacket

T = TypeVar("T")


class Headers(MutableMapping[str, str]):
    """HTTP headers: a case-insensitive multi-mapping that keeps its order.

    ``headers[name]`` is the last value of that name, ``headers[name] = value`` replaces all of them, `add` adds one
    more, `get_all` gives them all. Names are kept in lower case. A name or value that HTTP does not allow is a
    `ValueError` at once, not a broken response later.
    """

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[tuple[str, str]] | Mapping[str, str] = ()) -> None:
        # A cast, because Mapping is Iterable too, and checkers cannot tell them apart here.
        pairs = cast("Iterable[tuple[str, str]]", items.items() if isinstance(items, Mapping) else items)
        self._items = [(name.lower(), value) for name, value in pairs]

    @classmethod
    def of_checked(cls, items: list[tuple[str, str]]) -> Headers:
        """Headers of a list whose names are in lower case already, and which is not used elsewhere."""
        headers = cls.__new__(cls)
        headers._items = items
        return headers

    def __getitem__(self, name: str) -> str:
        name = name.lower()
        for key, value in reversed(self._items):
            if key == name:
                return value
        raise KeyError(name)

    def __setitem__(self, name: str, value: str) -> None:
        entry = _checked(name, value)
        self._items = [item for item in self._items if item[0] != entry[0]]
        self._items.append(entry)

    def __delitem__(self, name: str) -> None:
        name = name.lower()
        kept = [item for item in self._items if item[0] != name]
        if len(kept) == len(self._items):
            raise KeyError(name)
        self._items = kept

    @overload
    def get(self, name: str, default: None = None, /) -> str | None: ...
    @overload
    def get(self, name: str, default: str | T, /) -> str | T: ...
    def get(self, name: str, default: Any = None, /) -> Any:
        """The last value of a name, or the default."""  # the inherited one costs 2 us where there is none
        name = name.lower()
        found = default
        for key, value in self._items:
            if key == name:
                found = value
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._items))

    def __len__(self) -> int:
        return len(dict(self._items))

    def add(self, name: str, value: str) -> None:
        """Add a value without replacing others of the same name (``set-cookie``)."""
        self._items.append(_checked(name, value))

    def get_all(self, name: str) -> list[str]:
        """All values of a name, in order."""
        name = name.lower()
        return [value for key, value in self._items if key == name]

    def multi_items(self) -> list[tuple[str, str]]:
        """Every (name, value), in order."""
        return list(self._items)

    def __repr__(self) -> str:
        return f"Headers({self._items!r})"


def _checked(name: str, value: str) -> tuple[str, str]:
    if not name or not name.isascii() or any(c in name for c in " \t\r\n:\0"):
        raise ValueError(f"not a header name: {name!r}")
    if any(c in value for c in "\r\n\0"):
        raise ValueError(f"not a value for the header {name}: {value!r}")
    return name.lower(), value


async def no_body() -> bytes:
    """What a request without a body receives."""
    return b""


def _parse_query(query: str) -> dict[str, str]:
    if "%" in query or "+" in query:
        return dict(parse_qsl(query, keep_blank_values=True))
    # Nothing is encoded, as in nearly all queries of clients: 1 us instead of 5.
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    return {name: value for name, _, value in pairs}


class Request:
    """One HTTP request, or the opening request of a WebSocket.

    Attributes:
        method: In capitals, such as ``"GET"``.
        target: The request target as sent: the path, percent-encoded, and the query.
        path: The path, decoded, below whatever the application is mounted at.
        query: The query parameters; of several with one name, the last.
        headers: The request's `Headers`.
        client: ``(address, port)`` of the peer, or None where that is not known.
        scheme: ``"http"`` or ``"https"`` (for a WebSocket too).
        response_headers: Headers to add to whatever the answer will be; a middleware may put some here.
    """

    __slots__ = (
        "_body",
        "_receive_body",
        "client",
        "headers",
        "method",
        "path",
        "query",
        "response_headers",
        "scheme",
        "target",
    )

    def __init__(
        self,
        *,
        method: str,
        target: str,
        headers: Headers,
        client: tuple[str, int] | None = None,
        scheme: str = "http",
        path: str | None = None,
        body: bytes | None = None,
        receive_body: Callable[[], Awaitable[bytes]] = no_body,
    ) -> None:
        raw_path, _, query = target.partition("?")
        self.method: str = method
        self.target: str = target
        if path is None:
            path = unquote(raw_path) if "%" in raw_path else raw_path
        self.path: str = path
        self.query: Mapping[str, str] = _parse_query(query)
        self.headers: Headers = headers
        self.client: tuple[str, int] | None = client
        self.scheme: str = scheme
        self.response_headers: Headers = Headers()
        self._body = body
        self._receive_body = receive_body

    def take_body(self) -> bytes | None:
        """The whole body, for one time, if it came together with the head; else None, and `read_body` waits for it."""
        body, self._body = self._body, None
        return body

    async def read_body(self, limit: int) -> bytes:
        """Read the whole body; to be called once.

        Args:
            limit: Bytes; counted as they arrive, whatever ``content-length`` says.

        Raises:
            BodyTooLarge: As soon as the body exceeds the limit. The rest is not read.
            ClientDisconnected: The connection ended first.
        """
        body = self.take_body()
        if body is not None:
            if len(body) > limit:
                raise BodyTooLarge(limit)
            return body
        if self.headers.get("content-length", "").isdecimal() and int(self.headers["content-length"][:20]) > limit:
            raise BodyTooLarge(limit)
        chunks: list[bytes] = []
        size = 0
        while chunk := await self._receive_body():
            size += len(chunk)
            if size > limit:
                raise BodyTooLarge(limit)
            chunks.append(chunk)
        return b"".join(chunks)

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target}>"


class Response:
    """The answer to a request; the front end adds ``content-length`` (bytes), and nothing else that has a meaning.

    Args:
        status: The HTTP status.
        body: The whole body.
        headers: The response's headers.
        on_lost: Called, without arguments, by the front end if the answer could not be written to the client.
    """

    __slots__ = ("body", "headers", "on_lost", "status")

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        headers: Headers | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self.status: int = status
        self.body: bytes = body
        self.headers: Headers = Headers() if headers is None else headers
        self.on_lost: Callable[[], None] | None = on_lost

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.body[:40]!r}>"


class Receiver(Protocol):
    """Where a front end delivers what arrives on a WebSocket."""

    @property
    def paused(self) -> bool:
        """True when no more should be read for now: then await `resumed`, and TCP slows the peer down."""

    def on_message(self, message: str | bytes) -> None:
        """One complete message. Never raises and never waits."""

    def end_batch(self) -> None:
        """Nothing more is at hand: now the replies to this very client may be written, if it is the only one."""

    def on_drained(self) -> None:
        """What `WebSocket.send_nowait` could not send has been sent, by a WebSocket that has no `WebSocket.drain`."""

    async def resumed(self) -> None:
        """Wait until reading may go on."""


class WebSocket(Protocol):
    """An open WebSocket, as a front end provides it."""

    async def pump(self, receiver: Receiver) -> None:
        """Read until the peer closes; then return. Awaited by `Acceptance.run`, in the request's own task.

        Every message goes to the receiver, in order; then `Receiver.end_batch`; and before the next read the pump
        honours `Receiver.paused`. Cancelled when our side closes.

        Raises:
            RemoteProtocolError: A violation, or a message over the limit (the text names both sizes).
            trio.BrokenResourceError: The connection broke.
        """

    def send_nowait(self, packets: Sequence[EncodedPacket]) -> bool:
        """Take packets to send, all of them whole, in order.

        Returns:
            True if all is with the kernel. False if `drain` must complete before the next call, or `pump` must call
            `Receiver.on_drained`.

        Raises:
            trio.BrokenResourceError: The connection broke.
        """

    @property
    def drain(self) -> Callable[[], Awaitable[None]] | None:
        """Sends what `send_nowait` could not. A cancelled drain leaves the WebSocket unusable but for `aclose`.

        None where `pump` does it, and tells the receiver.

        Raises:
            trio.BrokenResourceError: The connection broke.
        """

    async def aclose(self, code: int = 1000) -> None:
        """Send a close frame and wait for the peer's; cut the connection when cancelled. Deadlines are the caller's."""


class Acceptance(Protocol):
    """The engine's yes to a WebSocket."""

    @property
    def headers(self) -> Headers:
        """Headers to add to the 101."""

    @property
    def max_message_size(self) -> int:
        """Bytes; a larger message is a violation, by its announced length if it is announced."""

    @property
    def per_message_deflate(self) -> PerMessageDeflate | None:
        """How to compress messages if the client offers it. For front ends that frame by themselves."""

    async def run(self, websocket: WebSocket) -> None:
        """Carry the session (or the probe) on this WebSocket until either side closes. Closes the WebSocket itself."""


Verdict: TypeAlias = "Response | Acceptance"


class Application(Protocol):
    """What a front end serves."""

    def owns(self, path: str) -> bool:
        """Whether requests for this path are the application's (else the front end looks elsewhere, or answers 404)."""

    async def handle_request(self, request: Request) -> Response:
        """Answer one HTTP request. May wait long (long-polling). Never raises but for `trio.Cancelled`."""

    async def open_websocket(self, request: Request) -> Verdict:
        """Judge the opening request of a WebSocket, before the 101. Never raises but for `trio.Cancelled`."""

    def running(self) -> AbstractAsyncContextManager[object]:
        """The application's life: sessions live inside this context, and end with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """What the listener takes from a client before it refuses. Seconds and bytes.

    Args:
        max_header_bytes: The whole head of a request; more is answered 431.
        max_headers: The number of header lines; more is answered 431.
        header_timeout: For the head of a request, from its first byte (of a connection's first request: from its
            opening); then 408.
        keep_alive_timeout: How long a connection may idle between two requests; then it is closed.
        body_timeout: For the body of a request, from the end of its head; then 408.
        write_timeout: For the client to take a response; then the connection is cut.
    """

    max_header_bytes: int = 16_384
    max_headers: int = 100
    header_timeout: float = 10.0
    keep_alive_timeout: float = 75.0
    body_timeout: float = 60.0
    write_timeout: float = 60.0

    def __post_init__(self) -> None:
        require_positive(self, "max_header_bytes", "max_headers")
        require_positive(self, "header_timeout", "keep_alive_timeout", "body_timeout", "write_timeout")


def require_positive(config: object, *names: str) -> None:
    """Check that fields are numbers above zero."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise ValueError(f"{name} must be a number above zero, not {value!r}")
