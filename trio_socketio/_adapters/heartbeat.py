"""Membership for buses that do not know who is there.

Socket.IO, "cluster adapter with heartbeat": every server says regularly that it is there, says so at once when a new
one asks, and says goodbye. Whoever has been silent for too long is gone.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from .._errors import plain_exceptions
from .._wire.cluster import EMITTER, Message, MessageType
from .answers import Roll

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from collections.abc import Set as AbstractSet

    from .bus import Bus, Receiver


class HeartbeatBus:
    """A bus that has been given a membership of its own; implements `Bus`.

    All servers of the cluster have to have it, with the same times.

    Args:
        bus: What carries the messages; it is not asked who is there.
        namespace: The namespace.
        interval: Seconds between two heartbeats.
        timeout: Seconds of silence after which a server is gone; several intervals.

    Raises:
        ValueError: The timeout is not longer than the interval.
    """

    def __init__(self, bus: Bus, namespace: str, *, interval: float = 5.0, timeout: float = 10.0) -> None:
        if not 0 < interval < timeout:
            raise ValueError(f"a heartbeat every {interval} s and a timeout of {timeout} s do not go together")
        self._bus = bus
        self._namespace = namespace
        self._interval = interval
        self._timeout = timeout
        self._receiver: Receiver | None = None
        self._last_seen: dict[str, float] = {}
        self._changed = trio.Event()

    @property
    def uid(self) -> str:
        """That of the bus underneath."""
        return self._bus.uid

    @asynccontextmanager
    async def opened(self, receiver: Receiver) -> AsyncIterator[None]:
        """See `Bus.opened`. Who is there is known when the first answers to our heartbeat have come."""
        self._receiver = receiver
        try:
            with plain_exceptions():
                async with self._bus.opened(self), trio.open_nursery() as nursery:
                    self._say(MessageType.INITIAL_HEARTBEAT)
                    nursery.start_soon(self._beat)
                    nursery.start_soon(self._sweep)
                    try:
                        yield
                    finally:
                        self._say(MessageType.ADAPTER_CLOSE)
                        nursery.cancel_scope.cancel()
        finally:
            self._receiver = None
            self._last_seen.clear()

    def _say(self, type: MessageType) -> None:
        self._bus.publish(self._bus.encode(Message(type, self.uid, self._namespace)))

    async def _beat(self) -> None:
        while True:
            await trio.sleep(self._interval)
            self._say(MessageType.HEARTBEAT)

    async def _sweep(self) -> None:
        while True:
            oldest = min(self._last_seen.values(), default=math.inf)
            with trio.move_on_at(oldest + self._timeout):
                self._changed = trio.Event()
                await self._changed.wait()
            now = trio.current_time()
            for uid in [uid for uid, seen in self._last_seen.items() if seen + self._timeout <= now]:
                self._drop(uid)

    def _drop(self, uid: str) -> None:
        if self._last_seen.pop(uid, None) is not None and self._receiver is not None:
            self._receiver.on_member_left(uid)

    # The receiver of the bus underneath

    def receive(self, message: Message) -> None:
        """Note who is there, and pass on what is not about that."""
        if self._receiver is None:
            return
        if message.type is MessageType.ADAPTER_CLOSE:
            self._drop(message.uid or "")
            return
        if message.uid is not None and message.uid != EMITTER:
            if message.uid not in self._last_seen:
                self._changed.set()  # the sweep may be waiting for nobody
            self._last_seen[message.uid] = trio.current_time()
        if message.type is MessageType.INITIAL_HEARTBEAT:
            self._say(MessageType.HEARTBEAT)
        elif message.type is not MessageType.HEARTBEAT:
            self._receiver.receive(message)

    def has_room(self, room: str) -> bool:
        return self._receiver is not None and self._receiver.has_room(room)

    def on_bad_message(self, why: Exception) -> None:
        if self._receiver is not None:
            self._receiver.on_bad_message(why)

    def on_member_left(self, uid: str) -> None:
        """The bus underneath has noticed it first."""
        self._drop(uid)

    # What the bus underneath does

    def encode(self, message: Message) -> Any:
        return self._bus.encode(message)

    async def writable(self) -> None:
        await self._bus.writable()

    def publish(self, encoded: Any) -> bool:
        return self._bus.publish(encoded)

    def answer(self, requester: str | None, encoded: Any) -> bool:
        return self._bus.answer(requester, encoded)

    async def follow(self, rooms: Iterable[str]) -> None:
        await self._bus.follow(rooms)

    def unfollow(self, room: str) -> None:
        self._bus.unfollow(room)

    # What it knows itself

    async def roll_call(self) -> Roll:
        others = await self.members()
        return Roll(len(others), others)

    async def members(self) -> AbstractSet[str]:
        await trio.lowlevel.checkpoint()
        return frozenset(self._last_seen)

    async def peers(self) -> AbstractSet[str]:
        """All of them: servers without this library do not speak over such a bus."""
        return await self.members()
