"""The emitter for programs without Trio."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from .._redis.address import parse_url
from .._redis.config import RedisConfig
from .._redis.synchronous import SyncConnection
from .emitter import Command, EmitterBase, EmitterProtocol

if TYPE_CHECKING:
    import ssl
    from types import TracebackType
    from typing import Self


class SyncEmitter(EmitterBase[None]):
    """Emits to the clients of a cluster from a program without Trio: a Celery worker, a Django view, a script::

        emitter = SyncEmitter("redis://localhost")
        emitter.to("room").emit("news", {"text": "hello"})

    It blocks, so it is not for async programs. It may be shared by threads, which take turns, and be there before a
    process forks. It connects when it is first used, and again after it has lost its connection; or at the beginning of
    ``with SyncEmitter(...) as emitter``, at whose end it closes it. Nothing is sent twice.

    Args:
        url: ``redis://[[user]:password@]host[:port][/db]``, ``rediss://...`` for TLS, or ``unix://path``.
        key: The servers' option ``key`` (classic), ``channel_prefix`` (sharded) or ``stream_name`` (streams).
        protocol: What the servers speak: ``"classic"``, ``"sharded"`` or ``"streams"``.
        stream_count: For streams: how many the servers have (default: 1).
        max_len: For streams: about how many entries are kept in one (default: 10 000).
        timeout: Seconds for each operation, and as many to connect before it, if there is no connection.
        ssl_context: For ``rediss`` addresses; None takes Python's default, which checks certificates.
        client_name: What the connection is called in the server's ``CLIENT LIST``.

    Raises:
        ImportError: The package ``msgpack`` is not installed: install ``trio-socketio[redis]``.
        TypeError: An option that is not for this protocol.
        ValueError: The URL is wrong, or an option out of its range.

    Its operations raise `RedisUnavailable` if there is no connection and none can be made, so nothing was sent, and
    `RedisConnectionLost` if it broke, or the time was over, before Redis said that it has the message. The texts name
    the address.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str = "socket.io",
        protocol: EmitterProtocol = "classic",
        stream_count: int | None = None,
        max_len: int | None = None,
        timeout: float = 5.0,
        ssl_context: ssl.SSLContext | None = None,
        client_name: str | None = None,
    ) -> None:
        super().__init__(protocol, key, stream_count, max_len, self._send)
        if not (isfinite(timeout) and timeout > 0):
            raise ValueError(f"timeout must be positive and finite, not {timeout!r}")
        self._address = parse_url(url)
        config = RedisConfig(connect_timeout=timeout, ssl_context=ssl_context, client_name=client_name)
        self._connection = SyncConnection(self._address, config, timeout)

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            RedisUnavailable: The server cannot be used; the text names the address and the reason.
        """
        self._connection.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next operation opens another."""
        self._connection.close()

    def _send(self, command: Command) -> None:
        self._connection.execute(*command)

    def __repr__(self) -> str:
        return f"<SyncEmitter to {self._address}>"
