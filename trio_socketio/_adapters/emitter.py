"""Emitting to a cluster from a process that is no server of it: a worker, a script, another application.

An emitter only publishes. It hears nothing, so nobody waits for it, and it gets no answers. What it publishes is
decided here without I/O: steps choose who is meant, and an operation makes one Redis command, in the form of
``@socket.io/redis-emitter`` or ``@socket.io/redis-streams-emitter``. `Emitter` and `SyncEmitter` have all of that in
common, and differ in who sends the command.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, Protocol, TypeAlias, TypeVar

from .._errors import LocalProtocolError, NotRunning, ReservedEventError
from .._redis.client import Redis
from .._redis.health import Health
from .._wire.cluster import EMITTER, Message, MessageType, Target
from .._wire.cluster_classic import ClassicChannels, ClassicCodec
from .._wire.cluster_newer import ClusterChannels, ClusterCodec
from .._wire.cluster_streams import StreamCodec, stream_names, stream_of
from .._wire.packets import RESERVED_SERVER_EVENTS, check_event_name
from .targets import one_or_more

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType
    from typing import Self

    from typing_extensions import Unpack

    from .._redis.config import RedisOptions

#: How the servers of the cluster talk to each other: by ``createAdapter`` of ``@socket.io/redis-adapter``, by its
#: ``createShardedAdapter``, or by ``@socket.io/redis-streams-adapter``.
EmitterProtocol: TypeAlias = Literal["classic", "sharded", "streams"]
#: The words of a Redis command.
Command: TypeAlias = tuple[str | bytes | int, ...]

MAX_LEN = 10_000

SentT = TypeVar("SentT")


class NamedEvent(Protocol):
    """An event that knows its name, such as an `EventType`."""

    @property
    def name(self) -> str: ...


def make_encode(
    protocol: EmitterProtocol, key: str, stream_count: int | None, max_len: int | None
) -> Callable[[Message], Command]:
    """What makes the command for a message.

    Raises:
        ImportError: The package ``msgpack`` is not installed.
        TypeError: Options for streams, and a protocol without them.
        ValueError: A protocol that does not exist, or an option out of its range.
    """
    if protocol == "streams":
        return _streams_encode(
            key, 1 if stream_count is None else stream_count, MAX_LEN if max_len is None else max_len
        )
    if stream_count is not None or max_len is not None:
        raise TypeError(f"stream_count and max_len are for streams, which the protocol {protocol!r} does not have")
    if protocol == "classic":
        return _classic_encode(key)
    if protocol == "sharded":
        return _sharded_encode(key)
    raise ValueError(f"a protocol is 'classic', 'sharded' or 'streams', not {protocol!r}")


def _classic_encode(key: str) -> Callable[[Message], Command]:
    codec = ClassicCodec()

    def encode(message: Message) -> Command:
        return "PUBLISH", ClassicChannels(message.namespace, key).of(message), codec.encode(message)

    return encode


def _sharded_encode(key: str) -> Callable[[Message], Command]:
    codec = ClusterCodec()

    def encode(message: Message) -> Command:
        # Never the channel of a room: on that of the namespace, servers of every subscription mode hear it.
        return "SPUBLISH", ClusterChannels(message.namespace, key).of(message), codec.encode(message)

    return encode


def _streams_encode(key: str, stream_count: int, max_len: int) -> Callable[[Message], Command]:
    if stream_count < 1 or max_len < 1:
        raise ValueError("stream_count and max_len must be positive")
    codec, names = StreamCodec(), stream_names(key, stream_count)

    def encode(message: Message) -> Command:
        # Some namespaces belong to a stream that servers in JavaScript do not read. All read all of the others.
        own = stream_of(message.namespace, key, stream_count)
        stream = own if own in names else names[0]
        return "XADD", stream, "MAXLEN", "~", max_len, "*", *codec.encode(message)

    return encode


class Emissions(ABC, Generic[SentT]):
    """The steps that choose who is meant, and what can be done at their end.

    Operations return when Redis has the message; when the servers do what it says, nobody tells an emitter. Those of an
    `Emitter` are awaited: ``await emitter.to("room").emit("news")``.
    """

    __slots__ = ()

    @abstractmethod
    def _operator(self) -> EmitterOperator[SentT]:
        """Where the steps begin."""

    # Filters and flags

    def to(self, rooms: str | Iterable[str]) -> EmitterOperator[SentT]:
        """Only sockets in this room, or in any of these; several calls add up."""
        operator = self._operator()
        return operator._with(rooms=_union(operator.target.rooms, rooms))

    def in_(self, rooms: str | Iterable[str]) -> EmitterOperator[SentT]:
        """The same as `to`."""
        return self.to(rooms)

    def except_(self, rooms: str | Iterable[str]) -> EmitterOperator[SentT]:
        """Not sockets in this room, or in any of these; several calls add up. A socket's id is a room."""
        operator = self._operator()
        return operator._with(except_rooms=_union(operator.target.except_rooms, rooms))

    @property
    def volatile(self) -> EmitterOperator[SentT]:
        """Drop the packet for those who cannot take it at once."""
        return self._flagged(volatile=True)

    def compress(self, compress: bool) -> EmitterOperator[SentT]:
        """Whether a transport may compress the packet; it may by default."""
        return self._flagged(compress=compress)

    def _flagged(self, **flags: bool) -> EmitterOperator[SentT]:
        operator = self._operator()
        return operator._with(flags={**operator.target.flags, **flags})

    # What can be done

    def emit(self, event: str | int | NamedEvent, *args: Any) -> SentT:
        """Send an event to everybody who is meant.

        Raises:
            EncodeError: A value that cannot be encoded; nothing was sent.
            ReservedEventError: The name is the protocol's own.
            LocalProtocolError: A function among the arguments: emitters get no acknowledgements.
            RedisConnectionLost: See `Emitter` and `SyncEmitter`.
        """
        name: Any = event if isinstance(event, str | int) else getattr(event, "name", event)
        check_event_name(name)
        return self._publish(MessageType.BROADCAST, _event(name, args))

    def sockets_join(self, rooms: str | Iterable[str]) -> SentT:
        """Have the servers put everybody who is meant into a room, or several."""
        return self._publish(MessageType.SOCKETS_JOIN, one_or_more(rooms))

    def sockets_leave(self, rooms: str | Iterable[str]) -> SentT:
        """Have the servers take everybody who is meant out of a room, or several."""
        return self._publish(MessageType.SOCKETS_LEAVE, one_or_more(rooms))

    def disconnect_sockets(self, close: bool = False) -> SentT:
        """Have the servers disconnect everybody who is meant; with `close`, their sessions in all namespaces."""
        return self._publish(MessageType.DISCONNECT_SOCKETS, close)

    def server_side_emit(self, event: str, *args: Any) -> SentT:
        """Emit to the servers, and not to clients: a listener of the namespace's ``on`` gets it.

        Raises:
            ReservedEventError: The name is one of a namespace's own events.
            LocalProtocolError: Rooms were chosen, which servers are not in; or a function is among the arguments.
        """
        if event in RESERVED_SERVER_EVENTS:
            raise ReservedEventError(event)
        target = self._operator().target
        if target.rooms or target.except_rooms:
            raise LocalProtocolError("servers are not in rooms: a server-side emit is for all of them")
        return self._publish(MessageType.SERVER_SIDE_EMIT, _event(event, args))

    def emit_with_ack(self, event: str | int | NamedEvent, *args: Any) -> NoReturn:
        """Nothing answers an emitter: this only says so.

        Raises:
            LocalProtocolError: Always; nothing was sent.
        """
        raise _no_acks()

    def server_side_emit_with_ack(self, event: str, *args: Any) -> NoReturn:
        """The same as `emit_with_ack`."""
        raise _no_acks()

    def _publish(self, type: MessageType, content: Any) -> SentT:
        operator = self._operator()
        target = None if type is MessageType.SERVER_SIDE_EMIT else operator.target
        message = Message(type, EMITTER, operator.namespace, content, target)
        return operator.send(operator.encode(message))


def _union(chosen: tuple[str, ...], rooms: str | Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*chosen, *one_or_more(rooms))))


def _event(name: str | int, args: Sequence[Any]) -> list[Any]:
    if args and callable(args[-1]):
        raise _no_acks()
    return [name, *args]


def _no_acks() -> LocalProtocolError:
    return LocalProtocolError("an emitter hears nothing, so it gets no acknowledgements: ask for them on a server")


@dataclass(frozen=True, slots=True, repr=False)
class EmitterOperator(Emissions[SentT]):
    """A choice of sockets in a namespace of a cluster. Immutable; made by the steps of an emitter.

    Attributes:
        namespace: The namespace's name.
        target: Who is meant, and how it is sent.
        encode: Makes the command for a message.
        send: Sends a command.
    """

    namespace: str
    target: Target
    encode: Callable[[Message], Command]
    send: Callable[[Command], SentT]

    def _operator(self) -> EmitterOperator[SentT]:
        return self

    def _with(self, **changes: Any) -> EmitterOperator[SentT]:
        return replace(self, target=self.target._replace(**changes))

    def __repr__(self) -> str:
        return f"<EmitterOperator in {self.namespace}: {self.target}>"


class EmitterBase(Emissions[SentT]):
    """What `Emitter` and `SyncEmitter` have in common.

    Args:
        protocol: What the servers speak.
        key: What their channels begin with, or the name of their stream.
        stream_count: How many streams they have.
        max_len: How many entries of a stream are kept.
        send: Sends a command.
    """

    def __init__(
        self,
        protocol: EmitterProtocol,
        key: str,
        stream_count: int | None,
        max_len: int | None,
        send: Callable[[Command], SentT],
    ) -> None:
        encode = make_encode(protocol, key, stream_count, max_len)
        self._main = EmitterOperator("/", Target(), encode, send)

    def _operator(self) -> EmitterOperator[SentT]:
        return self._main

    def of(self, namespace: str) -> EmitterOperator[SentT]:
        """Another namespace than the main one; a missing slash at its beginning is added."""
        return replace(self._main, namespace=namespace if namespace.startswith("/") else f"/{namespace}")


class Emitter(EmitterBase[Coroutine[Any, Any, None]]):
    """Emits to the clients of a cluster, without being a server of it; on Trio::

        async with Emitter("redis://localhost") as emitter:
            await emitter.to("room").except_("muted").emit("news", {"text": "hello"})

    Nothing is sent twice: an operation that raises `RedisConnectionLost` was not sent, or the connection broke before
    Redis said that it has it. The connection is opened again in the background. When an operation is cancelled, it may
    have been sent or not.

    Args:
        url: ``redis://[[user]:password@]host[:port][/db]``, ``rediss://...`` for TLS, or ``unix://path``.
        key: The servers' option ``key`` (classic), ``channel_prefix`` (sharded) or ``stream_name`` (streams).
        protocol: What the servers speak: ``"classic"``, ``"sharded"`` or ``"streams"``.
        stream_count: For streams: how many the servers have (default: 1).
        max_len: For streams: about how many entries are kept in one (default: 10 000).
        options: Those of the connection; `RedisConfig` documents each.

    Raises:
        ImportError: The package ``msgpack`` is not installed: install ``trio-socketio[redis]``.
        TypeError: An option that does not exist, or is not for this protocol.
        ValueError: The URL is wrong, or an option out of its range.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str = "socket.io",
        protocol: EmitterProtocol = "classic",
        stream_count: int | None = None,
        max_len: int | None = None,
        **options: Unpack[RedisOptions],
    ) -> None:
        super().__init__(protocol, key, stream_count, max_len, self._send)
        self._client = Redis(url, **options)
        self._life = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            RedisUnavailable: The server cannot be used; the text names the address and the reason.
        """
        await self._life.enter_async_context(self._client.running())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._life.__aexit__(kind, error, traceback)  # noqa: ASYNC102 - bounded by `close_timeout`

    @property
    def health(self) -> Health:
        """How the connection is."""
        return self._client.health

    async def _send(self, command: Command) -> None:
        if self._client.health is Health.CLOSED:
            raise NotRunning("the emitter is not connected: use it inside `async with Emitter(...)`")
        await self._client.execute(*command)

    def __repr__(self) -> str:
        return f"<Emitter to {self._client.address}, {self.health.value}>"
