"""What the tests of the engine share: an engine that is running, a way to it, and notes of what it said."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_socketio.engineio import Engine

from ..wire_client import EioPolling, EioWebSocket, Net, SessionLost, open_app, settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from typing import TypeAlias

    from trio_socketio.engineio import HandshakeRefused, Session

    Client: TypeAlias = EioPolling | EioWebSocket


def run_on_virtual_clock(
    fn: Callable[[], Awaitable[Any]], *, clock: object = None, instruments: Sequence[trio.abc.Instrument] = ()
) -> Any:
    """`trio.run`, on a clock that jumps whenever all tasks wait."""
    return trio.run(fn, clock=trio.testing.MockClock(autojump_threshold=0), instruments=instruments)


on_both_transports = pytest.mark.parametrize("transport", ["polling", "websocket"])

POLLING = "?EIO=4&transport=polling"
WEBSOCKET = "?EIO=4&transport=websocket"


class Stage:
    """An engine that is running.

    Attributes:
        engine: It.
        net: The way to it.
        sessions: All that it has told its ``connection`` listeners of.
        errors: All that it has told its ``connection_error`` listeners of.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.net: Net
        self.sessions: list[Session] = []
        self.errors: list[HandshakeRefused] = []
        engine.on("connection", self.sessions.append)
        engine.on("connection_error", self.errors.append)

    @property
    def session(self) -> Session:
        """The newest session."""
        return self.sessions[-1]

    async def client(self, transport: str = "polling") -> Client:
        """A new client, whose session is `session`."""
        return await (self.net.polling() if transport == "polling" else self.net.engine_websocket())

    async def end(self) -> tuple[str, str | None]:
        """Wait for the end of the newest session; why it ended."""
        with trio.fail_after(1000):
            await self.session.ended.wait()
        assert self.session.closed_because is not None
        return self.session.closed_because

    async def close_reason(self) -> tuple[str, str | None] | None:
        """Why the newest session has ended by now; None if it has not."""
        await settle()
        return self.session.closed_because


@asynccontextmanager
async def open_stage(**options: Any) -> AsyncIterator[Stage]:
    """An engine with these options, running."""
    stage = Stage(Engine(**options))
    async with open_app(stage.engine) as stage.net:
        yield stage


def echo(engine: Engine) -> None:
    """Send every message back."""
    engine.on("connection", _echo)


async def _echo(session: Session) -> None:
    async for message in session:
        await session.send(message)


async def run_to_the_end(client: Client) -> str:
    """Take what still comes to a client; how it sees its session end."""
    while True:
        try:
            await client.recv()
        except SessionLost as lost:
            return lost.how


async def receive_all(session: Session) -> list[str | bytes]:
    """The messages up to the end of a session."""
    return [message async for message in session]


def run_in_virtual_time(fn: Callable[..., Awaitable[None]], *args: Any) -> None:
    """Run a coroutine function from a test that is not async, such as Hypothesis's."""
    run_on_virtual_clock(partial(fn, *args))
