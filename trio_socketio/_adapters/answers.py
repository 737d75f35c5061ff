"""Who has answered: what every wait for other servers has in common.

A request to a cluster is complete when each server that was there when it was asked has answered or left. Some buses
only know how many servers there are, some know their names, and the answers of some members do not say whose they are.
A `Roll` makes the best of it: the number decides when to stop waiting, the names say who is missing.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio

from .._errors import AckTimeout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping, Sequence
    from collections.abc import Set as AbstractSet
    from typing import Self

    from .._wire.cluster import MessageType
    from .contract import PendingAck

#: Seconds after which a wait asks the bus for the first time who is there now, and then again. It costs the bus more
#: than a count does, and a request is normally over within milliseconds.
RECHECK = 1.0


class Roll:
    """The servers that a request waits for.

    Args:
        expected: How many.
        names: Theirs, as far as they are known.

    Attributes:
        expected: How many it is now, those included that have answered.
        answered: The names of those that have answered and said who they are.
    """

    __slots__ = ("_anonymous", "_gone", "_names", "answered", "expected")

    def __init__(self, expected: int, names: AbstractSet[str] | None = None) -> None:
        self.expected: int = expected
        self.answered: set[str] = set()
        self._anonymous = 0
        self._names: set[str] | None = None if names is None else set(names)
        self._gone: set[str] = set()

    def note(self, uid: str | None) -> bool:
        """A server has answered; whether that counts, which it does once, and only for those who are waited for."""
        if uid is None:
            self._anonymous += 1
            return True
        if uid in self.answered or uid in self._gone:
            return False
        self.answered.add(uid)
        return True

    def forget(self, uid: str) -> None:
        """A server has left."""
        if self._names is not None and uid in self._names - self.answered:
            self._names.discard(uid)
            self._gone.add(uid)
            self.expected -= 1

    def update(self, present: AbstractSet[str]) -> None:
        """These servers are there now; those that have come since are not waited for."""
        if self._names is None:
            self._names = set(present)
            self.expected = min(self.expected, len(self._names | self.answered))
        else:
            for uid in self._names - present:
                self.forget(uid)

    @property
    def is_named(self) -> bool:
        """Whether anybody has said who is there."""
        return self._names is not None

    @property
    def complete(self) -> bool:
        """Whether nobody is waited for any more."""
        return len(self.answered) + self._anonymous >= self.expected

    @property
    def missing(self) -> tuple[str, ...]:
        """The names of those that have not answered, as far as they are known.

        With members in the cluster whose answers do not say whose they are, theirs may be among these.
        """
        if self.complete or self._names is None:
            return ()
        return tuple(sorted(self._names - self.answered))

    @property
    def missing_count(self) -> int:
        """How many have not answered."""
        return max(0, self.expected - len(self.answered) - self._anonymous)


class AckStream:
    """The answers of clients or servers, each as it arrives: an async iterator, made by ``acks(...)``.

    It ends when everybody who was asked has answered or left.

    Args:
        timeout: Seconds for all of them; None is no limit.

    Attributes:
        responses: The answers that were received through it so far.
    """

    __slots__ = (
        "_answer_types",
        "_answered",
        "_asked",
        "_complete",
        "_deadline",
        "_done",
        "_left",
        "_outstanding",
        "_receive",
        "_recheck",
        "_roll",
        "_send",
        "_tables",
        "responses",
    )

    def __init__(self, timeout: float | None) -> None:
        # Not bounded by a number, but by who was asked: each of them answers once at the most.
        self._send, self._receive = trio.open_memory_channel[Any](math.inf)
        self._deadline = math.inf if timeout is None else trio.current_time() + timeout
        self._asked = self._answered = self._left = 0
        self._complete = self._done = False
        self._tables: list[tuple[MutableMapping[Any, Any], int | str]] = []
        self._roll = Roll(0)
        self._answer_types: frozenset[MessageType] = frozenset()
        self._recheck: Callable[[], Awaitable[AbstractSet[str] | None]] | None = None
        self._outstanding: dict[str, int] = {}
        self.responses: list[Any] = []

    # Clients of this server

    def register(self, table: MutableMapping[int, PendingAck], id: int) -> None:
        """Expect the answer with this id of the owner of a table."""
        self._asked += 1
        table[id] = self
        self._tables.append((table, id))

    def all_asked(self) -> None:
        """Nobody else will be asked by this server."""
        self._complete = True
        self._close_if_done()

    def on_answer(self, answer: Any) -> None:
        if self._done:  # another server's clients have given more answers than it said that it would ask
            return
        self._answered += 1
        self._send.send_nowait(answer)
        self._close_if_done()

    def on_leave(self) -> None:
        self._left += 1
        self._close_if_done()

    # Other servers

    def expect_servers(
        self,
        requests: MutableMapping[str, Any],
        request_id: str,
        roll: Roll,
        recheck: Callable[[], Awaitable[AbstractSet[str] | None]],
        answer_types: frozenset[MessageType],
    ) -> None:
        """Expect other servers to say how many clients they ask, or to answer themselves.

        Args:
            requests: The table in which this is to be found under its id, for as long as somebody waits.
            request_id: The id.
            roll: Who is expected.
            recheck: Asks who is there; None if that cannot be told.
            answer_types: What an answer may be.
        """
        self._roll, self._recheck, self._answer_types = roll, recheck, answer_types
        requests[request_id] = self
        self._tables.append((requests, request_id))

    def expects(self, type: MessageType) -> bool:
        """Whether this is an answer to what was asked."""
        return type in self._answer_types

    def on_client_count(self, uid: str | None, count: int) -> None:
        """A server asks so many clients."""
        if self._roll.note(uid):
            self._asked += count
            if uid is not None:
                self._outstanding[uid] = count
            self._close_if_done()

    def on_remote_ack(self, uid: str | None, answer: Any) -> None:
        """The answer of a client of another server."""
        if uid is not None and uid in self._outstanding:
            if not self._outstanding[uid]:
                return  # more answers than it has clients
            self._outstanding[uid] -= 1
        self.on_answer(answer)

    def on_applied(self, uid: str | None) -> None:
        """A server has nothing (more) to say: it has done what it was told, or a client that it has asked has left."""
        if uid is not None and self._outstanding.get(uid):
            self._outstanding[uid] -= 1
            self.on_leave()
        else:
            self.on_server_answer(uid, ())

    def on_server_answer(self, uid: str | None, answers: Sequence[Any]) -> None:
        """What another server itself has to say, in any number of parts."""
        if self._roll.note(uid):
            self._asked += len(answers)
            for answer in answers:
                self.on_answer(answer)
            self._close_if_done()

    def on_member_left(self, uid: str) -> None:
        """A server has left, and its clients with it."""
        self._roll.forget(uid)
        self._left += self._outstanding.pop(uid, 0)
        self._close_if_done()

    # Whoever waits

    def abandon(self) -> None:
        """Expect nothing any more."""
        for table, id in self._tables:
            table.pop(id, None)
        self._tables.clear()
        self._receive.close()

    def _close_if_done(self) -> None:
        if self._complete and self._roll.complete and self._answered + self._left >= self._asked:
            self._done = True
            self._send.close()

    async def receive(self) -> Any:
        """The next answer.

        Raises:
            trio.EndOfChannel: Everybody has answered, or left.
            AckTimeout: The timeout of the operator has passed; ``.responses`` are the answers that did arrive, and
                ``.servers`` the names of the servers that did not answer.
        """
        while True:
            with trio.CancelScope(deadline=min(self._deadline, trio.current_time() + self._interval())):
                return self._keep(await self._receive.receive())
            try:
                return self._keep(self._receive.receive_nowait())  # it was in time, even if its reader was not
            except trio.WouldBlock:
                if trio.current_time() >= self._deadline:
                    missing = max(0, self._asked - self._answered - self._left) + self._roll.missing_count
                    raise AckTimeout(self.responses, missing, self._roll.missing) from None
                await self._ask_who_is_there()

    def _interval(self) -> float:
        """Seconds until the bus is asked who is there."""
        left = self._deadline - trio.current_time()
        if self._recheck is None or (self._roll.complete and not self._outstanding):
            return math.inf
        # The first one comes early if the time is short, so that there are names to tell at its end.
        return RECHECK if self._roll.is_named else max(min(RECHECK, left / 2), 0.02)

    async def _ask_who_is_there(self) -> None:
        assert self._recheck is not None, "there is no interval without it"
        present = None
        # A bus that is lost may come back before the deadline; and what has been answered is worth more than its error.
        with trio.CancelScope(deadline=self._deadline), suppress(ConnectionError):
            present = await self._recheck()
        if present is not None:
            for uid in self._outstanding.keys() - present:
                self._left += self._outstanding.pop(uid)
            self._roll.update(present)
            self._close_if_done()

    def _keep(self, response: Any) -> Any:
        self.responses.append(response)
        return response

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
