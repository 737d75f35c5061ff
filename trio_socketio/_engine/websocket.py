"""WebSockets of an engine: one that carries a session from its start, and one that probes a polling session.

Engine.IO protocol, "WebSocket" and "transport upgrading". The front end has a yes to each (an `Acceptance`), and runs
it when the 101 is written. Whatever ends the run, the WebSocket is closed here, within `CLOSE_DEADLINE` seconds.
"""

from __future__ import annotations

import enum
from math import inf
from typing import TYPE_CHECKING

import trio

from .._errors import MessageTooLarge, NotRunning, RemoteProtocolError
from .._wire.encoded import PROBE_PONG
from .._wire.phases import Change, Phase, next_phase
from .reasons import FORCED_CLOSE, TRANSPORT_CLOSE, TRANSPORT_ERROR
from .sending import Flow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .._wire.dialects import Dialect
    from .._wire.encoded import EncodedPacket
    from .config import EngineConfig
    from .contract import Headers, Receiver, WebSocket
    from .session import Session

#: Seconds a peer has to answer our close frame; then the TCP connection is cut.
CLOSE_DEADLINE = 2.0
#: Seconds between two releases of a poll while a WebSocket probes.
RELEASE_INTERVAL = 0.1

NORMAL, VIOLATION, TOO_LARGE = 1000, 1002, 1009


async def _pump(session: Session, websocket: WebSocket, receiver: Receiver) -> int:
    """Read until somebody closes; end the session if this WebSocket carries it. Returns the code for a close frame."""
    code, reason, description = NORMAL, FORCED_CLOSE, None
    try:
        await websocket.pump(receiver)
        reason = TRANSPORT_CLOSE
    except RemoteProtocolError as error:
        code = TOO_LARGE if isinstance(error, MessageTooLarge) else VIOLATION
        reason, description = TRANSPORT_ERROR, str(error)
    except trio.BrokenResourceError:
        reason = TRANSPORT_CLOSE
    finally:
        if session.websocket is websocket:
            session.finish(reason, description)
    return code


def _speaking(websocket: WebSocket, dialect: Dialect) -> WebSocket:
    return websocket if dialect.plain_frames else _Speaking(websocket, dialect)


class _Speaking:
    """A WebSocket whose frames are those of a session's dialect, where a front end would make others."""

    def __init__(self, websocket: WebSocket, dialect: Dialect) -> None:
        self.pump = websocket.pump
        self.drain = websocket.drain
        self.aclose = websocket.aclose
        self._websocket = websocket
        self._dialect = dialect

    def send_nowait(self, packets: Sequence[EncodedPacket]) -> bool:
        return self._websocket.send_nowait(self._dialect.for_websocket(packets))


class _Acceptance:
    def __init__(self, headers: Headers, config: EngineConfig) -> None:
        self.headers = headers
        self.max_message_size = config.max_http_buffer_size
        self.per_message_deflate = config.per_message_deflate


class RefusingAcceptance(_Acceptance):
    """For what the reference accepts, only to close it at once."""

    async def run(self, websocket: WebSocket) -> None:
        with trio.move_on_after(CLOSE_DEADLINE, shield=True):
            await websocket.aclose()


class SessionAcceptance(_Acceptance):
    """A session that begins on a WebSocket.

    Args:
        begin: Makes the session, when the WebSocket is open.
        greet: Sends the handshake, registers the session, and tells the application.
    """

    def __init__(
        self,
        headers: Headers,
        config: EngineConfig,
        begin: Callable[[], Session],
        greet: Callable[[Session], None],
    ) -> None:
        super().__init__(headers, config)
        self._begin = begin
        self._greet = greet

    async def run(self, websocket: WebSocket) -> None:
        try:
            session = self._begin()
        except NotRunning:
            with trio.move_on_after(CLOSE_DEADLINE, shield=True):
                await websocket.aclose()
            return
        code = NORMAL
        websocket = _speaking(websocket, session.dialect)
        try:
            await session.started.wait()
            with trio.CancelScope() as scope:
                session.carry(websocket, scope)
                self._greet(session)
                code = await _pump(session, websocket, session)
        finally:
            session.finish(FORCED_CLOSE)
            with trio.move_on_after(CLOSE_DEADLINE, shield=True):
                await websocket.aclose(code)


class ProbeAcceptance(_Acceptance):
    """A WebSocket for a session that is on polling."""

    def __init__(self, headers: Headers, config: EngineConfig, session: Session) -> None:
        super().__init__(headers, config)
        self._session = session
        self._timeout = config.upgrade_timeout

    async def run(self, websocket: WebSocket) -> None:
        session = self._session
        code = NORMAL
        websocket = _speaking(websocket, session.dialect)
        try:
            if session.phase is not Phase.POLLING:  # another one was faster, or the session is closing
                return
            session.phase = next_phase(session.phase, Change.PROBE)
            with trio.CancelScope(deadline=trio.current_time() + self._timeout) as session.probe:
                probe = _Probe(session, websocket, session.probe)
                try:
                    code = await _pump(session, websocket, probe)
                finally:
                    probe.over()
        finally:
            with trio.move_on_after(CLOSE_DEADLINE, shield=True):
                await websocket.aclose(code)


class _Stage(enum.Enum):
    OPEN = "nothing was heard yet"
    ANSWERING = "the answer to the probe is being written"
    ANSWERED = "the client knows that the WebSocket works"
    UPGRADED = "it carries the session"


class _Probe:
    """The receiver of a probing WebSocket; after the upgrade it only passes on."""

    def __init__(self, session: Session, websocket: WebSocket, scope: trio.CancelScope) -> None:
        self._session = session
        self._websocket = websocket
        self._scope = scope
        self._stage = _Stage.OPEN

    @property
    def paused(self) -> bool:
        return self._stage is _Stage.UPGRADED and self._session.paused

    async def resumed(self) -> None:
        await self._session.resumed()

    def end_batch(self) -> None:
        if self._stage is _Stage.UPGRADED:
            self._session.end_batch()

    def on_message(self, message: str | bytes) -> None:
        if self._stage is _Stage.UPGRADED:
            self._session.on_message(message)
        elif self._scope.cancel_called:
            return  # it has failed, or the session has closed; the rest of the batch is nobody's
        elif message == "2probe":
            self._answer()
        elif message == "5":
            flow = Flow.DRAINING if self._stage is _Stage.ANSWERING else Flow.IDLE
            self._stage = _Stage.UPGRADED
            self._scope.deadline = inf
            self._session.upgrade(self._websocket, self._scope, flow)
        else:
            self._scope.cancel()  # only this WebSocket fails; the session goes on polling

    def _answer(self) -> None:
        if self._stage is _Stage.OPEN:
            self._session.spawn(self._release_polls)
        elif self._stage is _Stage.ANSWERING:
            return
        try:
            complete = self._websocket.send_nowait([PROBE_PONG])
        except trio.BrokenResourceError:
            self._scope.cancel()
            return
        self._stage = _Stage.ANSWERED if complete else _Stage.ANSWERING
        if not complete and self._websocket.drain is not None:
            self._session.spawn(self._drain, self._websocket.drain)

    async def _drain(self, drain: Callable[[], Awaitable[None]]) -> None:
        await self._session.drain(self._websocket, drain)
        if self._stage is _Stage.ANSWERING:
            self._stage = _Stage.ANSWERED

    def on_drained(self) -> None:
        if self._stage is _Stage.UPGRADED:
            self._session.on_drained()
        elif self._stage is _Stage.ANSWERING:
            self._stage = _Stage.ANSWERED

    async def _release_polls(self) -> None:
        # The client waits for its poll to return before it upgrades; it may have sent another one meanwhile.
        while self._session.probe is self._scope:
            self._session.release_poll()
            await trio.sleep(RELEASE_INTERVAL)

    def over(self) -> None:
        """The WebSocket is done with; unless it was upgraded, the session goes on without it."""
        if self._session.probe is self._scope:
            self._session.probe = None
            if self._session.phase is not Phase.CLOSED:
                self._session.phase = next_phase(self._session.phase, Change.PROBE_FAILED)
