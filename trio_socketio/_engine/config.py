"""The options of an engine: checked once, immutable afterwards. Seconds are floats, sizes are bytes."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from .._wire.deflate import PerMessageDeflate
from .compression import HttpCompression
from .contract import HttpLimits, require_positive
from .cookies import Cookie
from .cors import CORS
from .proxies import parse_networks

if TYPE_CHECKING:
    from typing import Self

    from .contract import Request
    from .proxies import Network

TRANSPORTS = ("polling", "websocket")
AllowRequest: TypeAlias = "Callable[[Request], bool | Awaitable[bool]]"
GenerateId: TypeAlias = "Callable[[Request], str | Awaitable[str]]"
StaticFilesOption: TypeAlias = "str | Path | Mapping[str, str | Path]"


class EngineOptions(TypedDict, total=False):
    """The keyword arguments of `Engine`, which are also taken by `Server`; `EngineConfig` says what they mean."""

    path: str
    add_trailing_slash: bool
    ping_interval: float
    ping_timeout: float
    upgrade_timeout: float
    close_timeout: float
    max_http_buffer_size: int
    max_outbox_bytes: int
    max_outbox_packets: int
    max_inbox_messages: int
    per_message_deflate: bool | PerMessageDeflate | None
    transports: Iterable[str]
    allow_upgrades: bool
    allow_request: AllowRequest | None
    allow_eio3: bool
    initial_packet: str | bytes | None
    cors: Any
    cookie: bool | Cookie | None
    http_compression: bool | HttpCompression | None
    static_files: StaticFilesOption | None
    http_limits: HttpLimits
    trusted_proxies: str | Iterable[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Every option of an engine.

    Args:
        path: Where requests are answered: all paths that begin with it and a slash.
        add_trailing_slash: False also answers the path without its slash (and whatever begins with it).
        ping_interval: Seconds between a pong and the next ping. The client is told.
        ping_timeout: Seconds to wait for a pong before the session closes (``ping timeout``). The client is told.
        upgrade_timeout: Seconds that a probing WebSocket may take to complete the upgrade.
        close_timeout: Seconds that a gracefully closing session waits for its polling client to come by.
        max_http_buffer_size: Bytes of the largest message or polling body taken from a client, which is told. A
            compressed message is held to it in both its forms.
        max_outbox_bytes: Bytes that may wait to be sent to one client. Above half of it `send` and `emit` wait; a
            broadcast that would exceed it closes the session (``transport error``).
        max_outbox_packets: The same, in Engine.IO packets.
        max_inbox_messages: Messages that an engine used on its own keeps for `Session.receive`; then the session stops
            reading, and the client is slowed down by TCP.
        per_message_deflate: True or a `PerMessageDeflate` to compress larger messages on the WebSockets of clients that
            offer it (permessage-deflate). A packet with ``compress(False)`` stays as it is, other than in Node. Only
            for our own listener: an ASGI server negotiates compression by itself, and this has no effect there.
        transports: Any of ``"polling"`` and ``"websocket"``.
        allow_upgrades: Whether a polling client is told that it may upgrade.
        allow_request: Called with the `Request` of each handshake, sync or async: true lets it in; false, or
            `ConnectionRefused` with a message, answers 403.
        allow_eio3: Serve clients of Engine.IO 3 as well, such as ``socket.io-client`` 2: all whose query does not say
            ``EIO=4``. Their sockets' ids are the secret id of their session, as they expect it, or have it in them:
            do not tell them to other clients.
        initial_packet: A message for every client, sent with the handshake.
        cors: None (only pages of the same origin), ``"*"``, an origin, a list, a compiled pattern, a function from
            origin to bool, or `CORS`.
        cookie: True or a `Cookie` to set one with the session's id on a polling handshake.
        http_compression: Compress long answers to polls, if their clients accept that: True for the defaults of
            `HttpCompression`, or one with others; False or None never.
        static_files: A directory to serve at ``/``, or a mapping from URL prefixes to directories, for paths that are
            not the engine's.
        http_limits: What our own listener takes from a client.
        trusted_proxies: Addresses and networks (``"127.0.0.1"``, ``"10.0.0.0/8"``) whose ``x-forwarded-for`` and
            ``x-forwarded-proto`` are believed.
    """

    path: str = "/engine.io"
    add_trailing_slash: bool = True
    ping_interval: float = 25.0
    ping_timeout: float = 20.0
    upgrade_timeout: float = 10.0
    close_timeout: float = 30.0
    max_http_buffer_size: int = 1_000_000
    max_outbox_bytes: int = 4_000_000
    max_outbox_packets: int = 20_000
    max_inbox_messages: int = 1_000
    per_message_deflate: PerMessageDeflate | None = None
    transports: tuple[str, ...] = TRANSPORTS
    allow_upgrades: bool = True
    allow_request: AllowRequest | None = None
    allow_eio3: bool = False
    initial_packet: str | bytes | None = None
    cors: CORS | None = None
    cookie: Cookie | None = None
    http_compression: HttpCompression | None = field(default_factory=HttpCompression)
    static_files: StaticFilesOption | None = None
    http_limits: HttpLimits = field(default_factory=HttpLimits)
    trusted_proxies: tuple[Network, ...] = ()

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The options that there are."""
        return tuple(option.name for option in fields(cls))

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """Check and convert keyword options.

        Raises:
            TypeError: An option that does not exist, with the name that was probably meant.
            ValueError: A value out of its range.
        """
        for name in options:
            if name not in cls.names():
                raise TypeError(unknown_option(name, cls.names()))
        values = dict(options)
        values["cors"] = CORS.from_option(values.get("cors"))
        values["cookie"] = Cookie.from_option(values.get("cookie"))
        values["http_compression"] = HttpCompression.from_option(values.get("http_compression", True))
        values["per_message_deflate"] = PerMessageDeflate.from_option(values.get("per_message_deflate"))
        values["trusted_proxies"] = parse_networks(values.get("trusted_proxies", ()))
        if "transports" in values:
            chosen = values["transports"]
            values["transports"] = (chosen,) if isinstance(chosen, str) else tuple(chosen)
        return cls(**values)

    def __post_init__(self) -> None:
        require_positive(self, "ping_interval", "ping_timeout", "upgrade_timeout", "close_timeout")
        require_positive(self, "max_http_buffer_size", "max_outbox_bytes", "max_outbox_packets", "max_inbox_messages")
        for name in ("ping_interval", "ping_timeout"):
            if not isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be finite, because the client is told: a day is 86_400")
        if not isinstance(self.max_http_buffer_size, int):
            raise ValueError(f"max_http_buffer_size must be a whole number, not {self.max_http_buffer_size!r}")
        if not self.path.startswith("/"):
            raise ValueError(f"path must begin with a slash: {self.path!r}")
        object.__setattr__(self, "path", self.path.removesuffix("/"))
        if not self.path:
            raise ValueError("path must name at least one segment, such as '/socket.io'")
        if not self.transports:
            raise ValueError("transports must name at least one of 'polling' and 'websocket'")
        for transport in self.transports:
            if transport not in TRANSPORTS:
                raise ValueError(f"no such transport: {transport!r} (there are 'polling' and 'websocket')")
        if not isinstance(self.initial_packet, (str, bytes, type(None))):
            raise TypeError(f"initial_packet must be text or bytes, not {self.initial_packet!r}")
        if self.allow_request is not None and not callable(self.allow_request):
            raise TypeError("allow_request must be a function of the request")


def unknown_option(name: str, known: Iterable[str]) -> str:
    """The text of the error for an option that does not exist."""
    snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in name)
    close = difflib.get_close_matches(snake, list(known), n=1)
    return f"there is no option {name!r}" + (f"; did you mean {close[0]!r}?" if close else "")
