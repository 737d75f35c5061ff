"""The lifespan protocol of ASGI, around an `Application` and the lifespan of another ASGI app.

The other app starts first and stops last, because the sessions' handlers may use what it opened (a database). Between
its start and its stop, the application runs.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from .._errors import plain_exceptions
from .hypercorn_worker import contain_connections

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from .._engine.contract import Application

logger = logging.getLogger("trio_socketio.asgi")

Message: TypeAlias = "MutableMapping[str, Any]"
Receive: TypeAlias = "Callable[[], Awaitable[Message]]"
Send: TypeAlias = "Callable[[Message], Awaitable[None]]"
ASGI: TypeAlias = "Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]"

NOT_TRIO = "trio_socketio needs Trio; run hypercorn with --worker-class trio"


def in_trio() -> bool:
    """Whether the current task is one of Trio's."""
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


class _OtherLifespan:
    """Another app's lifespan: fed with the server's two messages, and asked for its two answers."""

    def __init__(self, app: ASGI, scope: MutableMapping[str, Any]) -> None:
        self._app = app
        self._scope = scope
        self._to_app, self._in_app = trio.open_memory_channel[Message](2)
        self._started = trio.Event()
        self._stopped = trio.Event()
        self._failure: str | None = None

    async def run(self) -> None:
        """Run the app; one without lifespan support returns or raises at once."""
        try:
            await self._app(self._scope, self._in_app.receive, self._take_answer)
        except Exception as error:
            if not self._started.is_set():
                logger.info("%r goes on without lifespan support: %r", self._app, error)
            elif self._failure is None:
                logger.exception("the lifespan of %r failed", self._app)
        finally:
            self._started.set()
            self._stopped.set()

    async def _take_answer(self, message: Message) -> None:
        kind = message["type"]
        if kind.endswith(".failed"):
            self._failure = message.get("message") or f"{self._app!r}: {kind}"
        if kind.startswith("lifespan.startup."):
            self._started.set()
        else:
            self._stopped.set()
        await trio.lowlevel.checkpoint()

    async def startup(self) -> str | None:
        """Start the app; returns why it failed."""
        self._to_app.send_nowait({"type": "lifespan.startup"})
        await self._started.wait()
        return self._failure

    async def shutdown(self) -> str | None:
        """Stop the app; returns why it failed."""
        self._to_app.send_nowait({"type": "lifespan.shutdown"})
        await self._stopped.wait()
        return self._failure


async def serve_lifespan(
    application: Application, other_app: ASGI | None, scope: MutableMapping[str, Any], receive: Receive, send: Send
) -> None:
    """Run the application between the server's ``lifespan.startup`` and ``lifespan.shutdown``."""
    await receive()
    if not in_trio():
        await send({"type": "lifespan.startup.failed", "message": NOT_TRIO})
        return
    contain_connections()
    running = False

    async def run_application() -> None:
        nonlocal running
        async with application.running():
            running = True
            await send({"type": "lifespan.startup.complete"})
            await receive()

    try:
        with plain_exceptions():
            failure = await _run_inside(run_application, other_app, scope)
    except Exception as error:
        # Were this to leave as it is, hypercorn would go on without us, and answer 503 to everybody for ever. An
        # answer that says "failed" is what ends it.
        logger.exception("the application failed")
        failure = f"{type(error).__name__}: {error}"
    phase = "shutdown" if running else "startup"
    if failure is None:
        await send({"type": "lifespan.shutdown.complete"})
    else:
        await send({"type": f"lifespan.{phase}.failed", "message": failure})


async def _run_inside(
    run_application: Callable[[], Awaitable[None]], other_app: ASGI | None, scope: MutableMapping[str, Any]
) -> str | None:
    """Run the application inside the other app's lifespan; returns why the other app failed."""
    if other_app is None:
        await run_application()
        return None
    other = _OtherLifespan(other_app, scope)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other.run)
        failure = await other.startup()
        if failure is None:
            try:
                await run_application()
            except Exception:
                await other.shutdown()  # noqa: ASYNC120  # cancelled here, nobody asks any more why we failed
                raise
            failure = await other.shutdown()
        nursery.cancel_scope.cancel()
    return failure
