"""The connection for subscriptions: channels, patterns and shard channels, all on one.

Handlers are called inline by the reader: there is no queue between, so nothing can grow, and a message costs no task
switch. What is wanted is in one table, by kind and name; the server is told when a name gets its first handler, or has
lost its last. The server confirms each name in the order of the commands, so what is not confirmed yet is a queue.
After a loss everything in the table is subscribed again, and the connection counts as ready when all of it is
confirmed.

RESP2 has the same messages as plain arrays; on this connection nothing else is an array.
"""

from __future__ import annotations

import enum
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import trio

from .._errors import RedisConnectionLost, RedisError, RedisProtocolError, RedisReplyError
from .lines import Line
from .parsing import pack_command

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .address import RedisAddress
    from .config import RedisConfig
    from .resp import Reply

logger = logging.getLogger("trio_socketio.redis")

#: Called with the channel and the message.
Handler: TypeAlias = Callable[[bytes, bytes], object]

NAMES_PER_COMMAND = 500


class Kind(enum.Enum):
    """What can be subscribed: the word for it, and how many names go into one command."""

    CHANNEL = "SUBSCRIBE", NAMES_PER_COMMAND
    PATTERN = "PSUBSCRIBE", NAMES_PER_COMMAND
    SHARD_CHANNEL = "SSUBSCRIBE", 1  # a command for several is refused by a cluster, if their slots differ

    def __init__(self, word: str, names_per_command: int) -> None:
        self.begin = word
        self.end = word.replace("SUB", "UNSUB")
        self.names_per_command = names_per_command


class Topic(NamedTuple):
    """One name of one kind."""

    kind: Kind
    name: bytes


class Expected:
    """An answer that has to come: the confirmation of one name of a command, or the one to a ping.

    Attributes:
        topic: What is confirmed; None for a ping.
        word: What the server will say.
        is_last: Whether it is the command's last; an error answers all of a command.
    """

    __slots__ = ("is_last", "topic", "word")

    def __init__(self, topic: Topic | None, word: bytes, is_last: bool) -> None:
        self.topic = topic
        self.word = word
        self.is_last = is_last


class Confirmation:
    """What a task waits for that wants a name confirmed."""

    def __init__(self) -> None:
        self._event = trio.Event()
        self._error: str | None = None
        self._type: type[RedisError] = RedisConnectionLost

    def settle(self, error: RedisError | None = None) -> None:
        if error is not None:
            self._error, self._type = str(error), type(error)
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
        if self._error is not None:
            raise self._type(self._error)  # each task its own: an exception carries the way that it took


class Subscriptions(Line):
    """See above.

    Attributes:
        messages: How many came in.
        refused: How many names the server did not want to subscribe.
    """

    PURPOSE = "subscriptions"

    def __init__(
        self, address: RedisAddress, config: RedisConfig, on_change: Callable[[RedisError | None], None]
    ) -> None:
        super().__init__(address, config, on_change)
        self.messages = 0
        self.refused = 0
        self._handlers: dict[Kind, dict[bytes, tuple[Handler, ...]]] = {kind: {} for kind in Kind}
        self._expected: deque[Expected] = deque()
        self._latest: dict[Topic, Expected] = {}
        self._confirmed: set[Topic] = set()  # on this connection
        self._established: set[Topic] = set()  # on this one or one before
        self._confirmations: dict[Topic, Confirmation] = {}

    def __len__(self) -> int:
        """How many names have a handler."""
        return sum(map(len, self._handlers.values()))

    def add(self, topics: Iterable[Topic], handler: Handler) -> list[Topic]:
        """Have a handler called from now on; the server is told of names that are new.

        Returns:
            What the handler did not have before.
        """
        added, new = [], []
        for topic in topics:
            handlers = self._handlers[topic.kind].get(topic.name, ())
            if handler in handlers:
                continue
            self._handlers[topic.kind][topic.name] = (*handlers, handler)
            added.append(topic)
            if not handlers:
                new.append(topic)
        self._tell(new, ending=False)
        return added

    def clear(self) -> None:
        """Forget all handlers; the connection is about to end."""
        for names in self._handlers.values():
            names.clear()
        self._established.clear()

    def remove(self, topics: Sequence[Topic], handler: Handler) -> None:
        """Do not call a handler any more; the server is told of names that nobody wants now."""
        ended = []
        for topic in topics:
            handlers = self._handlers[topic.kind].get(topic.name, ())
            if handler not in handlers:
                continue
            if rest := tuple(kept for kept in handlers if kept != handler):
                self._handlers[topic.kind][topic.name] = rest
            else:
                self._forget(topic, RedisConnectionLost("unsubscribed before it was confirmed"))
                ended.append(topic)
        self._tell(ended, ending=True)

    def _forget(self, topic: Topic, error: RedisError) -> None:
        self._handlers[topic.kind].pop(topic.name, None)
        self._confirmed.discard(topic)
        self._established.discard(topic)
        self._latest.pop(topic, None)
        self._settle(topic, error)

    async def confirm(self, topics: Iterable[Topic]) -> None:
        """Wait until the server has confirmed all of these names.

        Raises:
            RedisConnectionLost: The connection was lost before.
            RedisReplyError: The server refused a name.
        """
        missing = [
            self._confirmations.setdefault(topic, Confirmation()) for topic in topics if topic not in self._confirmed
        ]
        await trio.lowlevel.checkpoint()
        for confirmation in missing:
            await confirmation.wait()

    # Telling the server

    def _tell(self, topics: Iterable[Topic], *, ending: bool) -> None:
        if self.link is None:
            return
        by_kind: dict[Kind, list[Topic]] = {}
        for topic in topics:
            by_kind.setdefault(topic.kind, []).append(topic)
        for kind, of_kind in by_kind.items():
            size = kind.names_per_command
            for start in range(0, len(of_kind), size):
                self._send(kind.end if ending else kind.begin, of_kind[start : start + size], ending)

    def _send(self, word: str, topics: Sequence[Topic], ending: bool) -> None:
        assert self.link is not None
        answer = word.lower().encode()
        for topic in topics:
            expected = Expected(topic, answer, topic is topics[-1])
            self._expected.append(expected)
            if not ending:
                self._latest[topic] = expected
        self.link.write(pack_command((word, *(topic.name for topic in topics))))

    def _ping(self) -> None:
        if self.link is not None:
            self._expected.append(Expected(None, b"pong", is_last=True))
            self.link.write(pack_command(("PING",)))

    async def _prepare(self) -> None:
        topics = [Topic(kind, name) for kind, names in self._handlers.items() for name in names]
        self._tell(topics, ending=False)
        for topic in topics:
            while topic.name in self._handlers[topic.kind] and topic not in self._confirmed:
                with suppress(RedisError):  # refused; or unsubscribed meanwhile, and perhaps subscribed again
                    await self._confirmations.setdefault(topic, Confirmation()).wait()

    def _on_lost(self, reason: str) -> None:
        self._expected.clear()
        self._latest.clear()
        self._confirmed.clear()
        for topic in list(self._confirmations):
            self._settle(topic, RedisConnectionLost(reason))

    # Hearing from it

    def _deliver(self, replies: Iterator[Reply]) -> None:
        channels, patterns, shard_channels = (self._handlers[kind] for kind in Kind)
        for reply in replies:
            match reply:
                case [b"message", channel, message]:
                    handlers = channels.get(channel, ())
                case [b"smessage", channel, message]:
                    handlers = shard_channels.get(channel, ())
                case [b"pmessage", pattern, channel, message]:
                    handlers = patterns.get(pattern, ())
                case _:
                    self._take_answer(reply)
                    continue
            self.messages += 1
            for handler in handlers:
                try:
                    handler(channel, message)
                except Exception:  # its author's mistake must not make all others deaf
                    self.failures += 1
                    logger.exception("the handler of a message on %r failed", channel)

    def _take_answer(self, reply: Reply) -> None:
        match reply:
            case RedisReplyError():
                self._refuse(reply)
            case b"PONG" | [b"pong", _]:
                self._next_expected(b"pong", None)
            case [word, name, _] if isinstance(word, bytes):
                self._confirm(self._next_expected(word, name))
            case _:
                raise RedisProtocolError(f"an unexpected reply among the messages: {reply!r:.100}")

    def _next_expected(self, word: bytes, name: bytes | None) -> Expected:
        expected = self._expected.popleft() if self._expected else None
        if expected is None or expected.word != word or (expected.topic and expected.topic.name) != name:
            # A cluster ends subscriptions by itself, for one; the next connection will have them all.
            raise RedisProtocolError(f"the server says {word!r} of {name!r:.100}, which nobody has asked for")
        return expected

    def _confirm(self, expected: Expected) -> None:
        topic = expected.topic
        if topic is not None and self._latest.get(topic) is expected:
            del self._latest[topic]
            self._confirmed.add(topic)
            self._established.add(topic)
            self._settle(topic)

    def _refuse(self, error: RedisReplyError) -> None:
        """An error answers a whole command: none of its names is subscribed.

        A new name is given up. One that was confirmed before is not: nobody would know that its handlers are deaf, so
        the connection is lost, until the server changes its mind.
        """
        while self._expected:
            expected = self._expected.popleft()
            topic = expected.topic
            if topic is not None and self._latest.get(topic) is expected:
                self.refused += 1
                if topic in self._established:
                    raise error
                logger.error("%s refused to subscribe %r: %s", self._address, topic.name, error)
                self._forget(topic, error)
            if expected.is_last:
                return

    def _settle(self, topic: Topic, error: RedisError | None = None) -> None:
        confirmation = self._confirmations.pop(topic, None)
        if confirmation is not None:
            confirmation.settle(error)
