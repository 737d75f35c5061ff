"""The options of a server besides those of its engine: checked once, immutable afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from .._adapters.memory import MemoryAdapter
from .._engine.config import EngineOptions
from .._engine.contract import require_positive
from .._wire.parser import DefaultParser

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from .._adapters.contract import AdapterFactory
    from .._wire.parser import Parser

HandlerErrors: TypeAlias = Literal["log", "disconnect", "raise"]


class ServerOptions(EngineOptions, total=False):
    """The keyword arguments of `Server`; `ServerConfig` and `EngineConfig` say what they mean."""

    connect_timeout: float
    disconnect_timeout: float
    max_concurrent_events: int
    max_queued_events: int
    max_attachments: int
    handler_errors: HandlerErrors
    adapter: AdapterFactory


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
        max_attachments: Binary values in one packet, in either direction; JavaScript clients take 10.
        handler_errors: What an exception of a handler does, besides ending its event: ``"log"`` nothing,
            ``"disconnect"`` disconnects its socket, ``"raise"`` leaves through the nursery that serves. With an
            ``on_error`` listener, that is told instead of the log.
        adapter: Called with each namespace for its rooms; `MemoryAdapter` by default.
        parser: The wire format, made from `max_attachments`.
    """

    connect_timeout: float = 45.0
    disconnect_timeout: float = 5.0
    max_concurrent_events: int = 64
    max_queued_events: int = 256
    max_attachments: int = 10
    handler_errors: HandlerErrors = "log"
    adapter: AdapterFactory = MemoryAdapter
    parser: Parser = field(init=False)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The options that there are."""
        return tuple(option.name for option in fields(cls) if option.init)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """Check options, all of which exist.

        Raises:
            TypeError: One of the wrong type.
            ValueError: One out of its range.
        """
        return cls(**options)

    def __post_init__(self) -> None:
        require_positive(self, "connect_timeout", "disconnect_timeout", "max_concurrent_events", "max_queued_events")
        require_positive(self, "max_attachments")
        if self.handler_errors not in ("log", "disconnect", "raise"):
            raise ValueError(f"handler_errors is 'log', 'disconnect' or 'raise', not {self.handler_errors!r}")
        if not callable(self.adapter):
            raise TypeError(f"adapter is called with each namespace, and {self.adapter!r} cannot be called")
        object.__setattr__(self, "parser", DefaultParser(self.max_attachments))
