"""The options of a server besides those of its engine: checked once, immutable afterwards."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from .._adapters.memory import MemoryAdapter
from .._adapters.recovery import ConnectionStateRecovery, RecoveringMemoryAdapter, choose_recovery
from .._engine.config import EngineOptions
from .._engine.contract import require_positive
from .client_files import checked_client_directory
from .parsers import choose_parser
from .rate import RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from .._adapters.contract import AdapterFactory
    from .._wire.json_modules import JSONModule
    from .._wire.parser import JSONCodec, Parser

_BY_DEFAULT: Any = None  # what __post_init__ makes

HandlerErrors: TypeAlias = Literal["log", "disconnect", "raise"]


class ServerOptions(EngineOptions, total=False):
    """The keyword arguments of `Server` but ``data``; `ServerConfig` and `EngineConfig` say what they mean."""

    connect_timeout: float
    disconnect_timeout: float
    max_concurrent_events: int
    max_queued_events: int
    max_attachments: int
    max_namespaces: int
    cleanup_empty_child_namespaces: bool
    serve_client: bool | str | os.PathLike[str]
    rate_limit: RateLimit | None
    handler_errors: HandlerErrors
    connection_state_recovery: bool | ConnectionStateRecovery
    adapter: AdapterFactory
    parser: Parser
    json: JSONCodec | JSONModule


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Every option of a server that is not one of its engine.

    Args:
        connect_timeout: Seconds within which a client must have joined a namespace; else its session is closed.
        disconnect_timeout: Seconds that the cancelled tasks of an ending socket may take to end, then its
            ``disconnecting`` handlers together, and then its ``disconnect`` handlers; those are cancelled at the end of
            their time.
        max_concurrent_events: Async handlers of one socket at work at once; 1 is strictly one after the other.
        max_queued_events: Events of one session that wait for their handlers; above that the session stops reading,
            and the client is slowed down by TCP. What has been read already is kept, so a batch may exceed it.
        max_attachments: Binary values in one packet of the default parser, in either direction; JavaScript clients take
            10. Those of a client's have to come before its second heartbeat after their packet, or its session is
            closed (``forced close``).
        max_namespaces: Sockets of one session, in so many namespaces, that there may be at once, those included that
            are connecting or ending; more are refused (``Too many namespaces``).
        cleanup_empty_child_namespaces: Whether a namespace that a pattern or a predicate has made is removed, and its
            adapter closed, when its last socket is over; a client may have it made again. What its sockets could have
            recovered of a lost connection is gone with it.
        serve_client: Whether pages can load the client from below ``path`` (``/socket.io/socket.io.js``, ``.min.js``,
            ``.esm.min.js``, ``.msgpack.min.js``, and their source maps). True takes it from
            ``node_modules/socket.io-client/dist``, below the current directory, or else from what
            ``trio-socketio fetch-client`` has fetched; a directory from there. Without it they are answered 400.
        rate_limit: How much a client may send to each of its sockets: a `RateLimit`; None is no limit.
        handler_errors: What an exception of a handler does, besides ending its event: ``"log"`` nothing,
            ``"disconnect"`` disconnects its socket, ``"raise"`` leaves through the nursery that serves. With an
            ``on_error`` listener, that is told instead of the log.
        connection_state_recovery: Whether a client that has lost its connection may come back as the socket that it
            was, and gets what it has missed; `ConnectionStateRecovery` has for how long, and the bounds. Then events to
            clients have one argument more, an offset, unless they are volatile or ask for an acknowledgement; and what
            is emitted to a socket whose client is away is kept for it, instead of raising.
        data: Called without arguments for the ``data`` of each socket; ``dict`` by default. What other servers of a
            cluster are to read has to be encodable.
        adapter: Called with each namespace for its rooms; by default `MemoryAdapter`, or `RecoveringMemoryAdapter` with
            ``connection_state_recovery``, for which any other has to be a `RecoveringAdapter` as well; one that has a
            method ``with_recovery`` is asked for that with the `ConnectionStateRecovery`.
        recovery: Made of ``connection_state_recovery``; None if it is off.
        parser: The wire format, which all clients have to share; `DefaultParser` by default, made from
            `max_attachments` and ``json``, which are not for others. One that is not the library's is checked in all
            that it does, and this attribute is then the checked one.
        json: What the default parser uses for JSON: a module with ``dumps`` and ``loads`` like those of the standard
            library's, or a `JSONCodec`; by default orjson where it is installed.
    """

    connect_timeout: float = 45.0
    disconnect_timeout: float = 5.0
    max_concurrent_events: int = 64
    max_queued_events: int = 256
    max_attachments: int = 10
    max_namespaces: int = 1000
    cleanup_empty_child_namespaces: bool = False
    rate_limit: RateLimit | None = None
    serve_client: bool | str | os.PathLike[str] = True
    handler_errors: HandlerErrors = "log"
    connection_state_recovery: bool | ConnectionStateRecovery = False
    data: Callable[[], Any] = dict
    adapter: AdapterFactory = MemoryAdapter
    recovery: ConnectionStateRecovery | None = field(init=False)
    parser: Parser = _BY_DEFAULT
    json: JSONCodec | JSONModule | None = None

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The options that there are."""
        return tuple(option.name for option in fields(cls) if option.init)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """Check options, all of which exist.

        Raises:
            TypeError: One of the wrong type.
            ValueError: One out of its range, or one for the default parser next to another parser.
        """
        misplaced = [name for name in ("json", "max_attachments") if name in options]
        if misplaced and options.get("parser") is not None:
            raise ValueError(f"{' and '.join(misplaced)} is for the default parser, and parser= is another one")
        return cls(**options)

    def __post_init__(self) -> None:
        require_positive(self, "connect_timeout", "disconnect_timeout", "max_concurrent_events", "max_queued_events")
        require_positive(self, "max_attachments", "max_namespaces")
        if not isinstance(self.rate_limit, RateLimit | None):
            raise TypeError(f"rate_limit is a RateLimit or None, not {self.rate_limit!r}")
        if self.handler_errors not in ("log", "disconnect", "raise"):
            raise ValueError(f"handler_errors is 'log', 'disconnect' or 'raise', not {self.handler_errors!r}")
        if not isinstance(self.serve_client, bool):
            object.__setattr__(self, "serve_client", checked_client_directory(self.serve_client))
        if not callable(self.adapter):
            raise TypeError(f"adapter is called with each namespace, and {self.adapter!r} cannot be called")
        if not callable(self.data):
            raise TypeError(f"data is called for each socket, and {self.data!r} cannot be called")
        recovery = choose_recovery(self.connection_state_recovery)
        object.__setattr__(self, "recovery", recovery)
        if recovery is not None and self.adapter is MemoryAdapter:
            object.__setattr__(self, "adapter", partial(RecoveringMemoryAdapter, options=recovery))
        elif recovery is not None and (with_recovery := getattr(self.adapter, "with_recovery", None)) is not None:
            object.__setattr__(self, "adapter", with_recovery(recovery))
        object.__setattr__(self, "parser", choose_parser(self.parser, self.json, self.max_attachments))
