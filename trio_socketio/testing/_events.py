"""What a client gets, and how it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from typing import Self


class ReceivedEvent(tuple[Any, ...]):
    """An event of the server's: a tuple of its name and its arguments.

    ::

        assert await client.receive() == ("chat", "hello")

    With connection state recovery, its last argument is the offset that the server has added.
    """

    _send_ack: Callable[..., Awaitable[None]] | None

    def __new__(cls, values: Iterable[Any], send_ack: Callable[..., Awaitable[None]] | None = None) -> Self:
        event = super().__new__(cls, values)
        event._send_ack = send_ack
        return event

    @property
    def name(self) -> str | int:
        """Its name."""
        name: str | int = self[0]
        return name

    @property
    def args(self) -> tuple[Any, ...]:
        """Its arguments."""
        return tuple(self[1:])

    @property
    def wants_ack(self) -> bool:
        """Whether the server waits for an acknowledgement, and has not been sent one."""
        return self._send_ack is not None

    async def ack(self, *args: Any) -> None:
        """Acknowledge it.

        Args:
            args: What the server gets.

        Raises:
            RuntimeError: The server has not asked for it, or has had it.
            SocketDisconnected: The client is not connected.
        """
        send_ack, self._send_ack = self._send_ack, None
        if send_ack is None:
            raise RuntimeError(f"the server does not wait for an acknowledgement of {self.name!r}")
        await send_ack(*args)


def collapse(args: list[Any]) -> Any:
    """The arguments of an acknowledgement as one value: None for no argument, a tuple for several."""
    if len(args) > 1:
        return tuple(args)
    return args[0] if args else None


def expand(value: Any) -> tuple[Any, ...]:
    """And back: what a handler returns, as arguments."""
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)
