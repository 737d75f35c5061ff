"""What a `World` asks of a server, wherever that runs: in this process, or somewhere behind a URL."""

from __future__ import annotations

import enum
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from ._client import MemoryClient

#: Servers emit this to clients, and to each other, with a number that is not used again.
MESSAGE = "message"
#: Clients answer it with their names.
QUESTION = "question"


class Difference(enum.Enum):
    """A way in which servers are known to differ from the model; a `World` that knows it allows for it."""

    LATE_CHANGES = "late changes"
    """``sockets_join``, ``sockets_leave`` and ``disconnect_sockets`` happen after a while, even on the server that was
    told to do it; what it emits after that may be faster."""

    LOCAL_ACKS_TIME_OUT = "local acks time out"
    """Who emits to the sockets of one server and wants acknowledgements gets them, but has to wait until the time for
    those of the other servers is over."""

    OWN_ROOMS_ARE_FIXED = "own rooms are fixed"
    """The room that a socket has of its own is its address: nobody else may join it, nor the socket leave it."""


class Target(NamedTuple):
    """Whom something is for.

    Attributes:
        rooms: The union of these, or everybody without any.
        except_rooms: Nobody who is in one of these.
        local: Nobody on other servers.
    """

    rooms: Sequence[str] = ()
    except_rooms: Sequence[str] = ()
    local: bool = False


class Found(NamedTuple):
    """A socket that was fetched."""

    id: str
    rooms: Collection[str]


class Answers(NamedTuple):
    """What several have answered.

    Attributes:
        values: The answers.
        silent: None if all have answered; else the names of the servers that have not, as far as they are known.
    """

    values: Sequence[Any]
    silent: Collection[str] | None = None


class Snapshot(NamedTuple):
    """A server, at a moment.

    Attributes:
        rooms: The ids of the sockets in each room.
        heard: The numbers of other servers' messages that have come since the last time.
    """

    rooms: Mapping[str, Collection[str]]
    heard: Sequence[int]


class ServerUnderTest(Protocol):
    """A server, and how it is told what to do.

    What returns nothing may take place later, but in the order in which it was asked for.
    """

    @abstractmethod
    def running(self, number: int) -> AbstractAsyncContextManager[object]:
        """Inside, the server runs, nobody is connected, and it answers other servers with its number."""

    @abstractmethod
    def open_client(self) -> AbstractAsyncContextManager[MemoryClient]:
        """Connect a client."""

    @abstractmethod
    async def wait_gone(self, id: str) -> None:
        """Wait until the server knows that a client has gone."""

    @abstractmethod
    async def snapshot(self) -> Snapshot:
        """How things are now.

        Raises:
            AssertionError: They contradict each other.
        """

    @abstractmethod
    async def check_empty(self) -> None:
        """To be called when nobody is connected any more.

        Raises:
            AssertionError: Something is left of those who were.
        """

    # With one of its sockets

    @abstractmethod
    async def join(self, id: str, rooms: Sequence[str]) -> None: ...

    @abstractmethod
    async def leave(self, id: str, room: str) -> None: ...

    @abstractmethod
    async def disconnect(self, id: str) -> None: ...

    @abstractmethod
    async def emit_from(self, id: str, rooms: Sequence[str], event: str, *args: Any) -> None:
        """Emit to everybody in rooms, or everywhere, but the socket."""

    # With many sockets, on all servers

    @abstractmethod
    async def emit(self, target: Target, event: str, *args: Any) -> None: ...

    @abstractmethod
    async def ask(self, target: Target, event: str, *args: Any) -> Answers:
        """Emit with acknowledgements."""

    @abstractmethod
    async def sockets_join(self, target: Target, rooms: Sequence[str]) -> None: ...

    @abstractmethod
    async def sockets_leave(self, target: Target, rooms: Sequence[str]) -> None: ...

    @abstractmethod
    async def disconnect_sockets(self, target: Target) -> None: ...

    @abstractmethod
    async def fetch_sockets(self, target: Target) -> Answers:
        """The values are `Found`."""

    # With other servers

    @abstractmethod
    async def server_side_emit(self, event: str, number: int) -> None: ...

    @abstractmethod
    async def server_side_ask(self, event: str, number: int) -> Answers:
        """The same, with acknowledgements: the numbers of the servers."""
