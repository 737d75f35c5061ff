"""The options of a client: checked once, immutable afterwards. Seconds are floats, sizes are bytes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import isfinite
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    import ssl


class RedisOptions(TypedDict, total=False):
    """The keyword arguments of `Redis`; `RedisConfig` says what they mean."""

    ssl_context: ssl.SSLContext | None
    client_name: str | None
    connect_timeout: float
    ping_idle: float
    ping_limit: float
    close_timeout: float
    backoff_least: float
    backoff_most: float
    max_buffer_bytes: int
    max_reply_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisConfig:
    """Every option of a client.

    Args:
        ssl_context: For ``rediss`` addresses; None takes Python's default, which checks certificates.
        client_name: What the connections are called in the server's ``CLIENT LIST``; no spaces.
        connect_timeout: Seconds for opening a connection, with everything that is said before it can be used.
        ping_idle: Seconds without a byte from the server, after which it is asked for a sign of life.
        ping_limit: Seconds in which that must come; then the connection is given up.
        close_timeout: Seconds for which the end of the client waits for what was submitted.
        backoff_least: Seconds to wait, at the least, before a lost connection is opened again. The first wait is
            between this and twice this, by chance; each failure doubles both, each success begins anew.
        backoff_most: The most seconds of that wait.
        max_buffer_bytes: Commands that the server has not taken yet: above it, `Redis.execute` waits and
            `Redis.execute_nowait` raises. A single larger command goes when nothing else waits.
        max_reply_bytes: The largest reply that is taken, to within one read; beyond it the connection is given up.

    Raises:
        ValueError: A value out of its range.
    """

    ssl_context: ssl.SSLContext | None = None
    client_name: str | None = None
    connect_timeout: float = 5.0
    ping_idle: float = 5.0
    ping_limit: float = 2.0
    close_timeout: float = 1.0
    backoff_least: float = 0.05
    backoff_most: float = 5.0
    max_buffer_bytes: int = 16 * 1024 * 1024
    max_reply_bytes: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        for name in fields(self):
            value = getattr(self, name.name)
            if isinstance(value, int | float) and not (isfinite(value) and value > 0):
                raise ValueError(f"{name.name} must be positive and finite, not {value!r}")
        if self.backoff_most < self.backoff_least:
            raise ValueError("backoff_most must not be less than backoff_least")
        if self.client_name is not None and not (self.client_name.isascii() and self.client_name.isprintable()):
            raise ValueError(f"client_name must be printable ASCII, not {self.client_name!r}")
        if self.client_name is not None and (" " in self.client_name or not self.client_name):
            raise ValueError("client_name must be one word")
