"""How the servers of a cluster reach each other.

A `Bus` carries the messages of one namespace between the servers that have it. It knows nothing of rooms and requests,
which are the business of `ClusterAdapter`; the adapter knows nothing of channels, streams and bytes. What a bus cannot
carry is lost, and said to be: a bus never repeats what may have arrived, and never blocks whoever broadcasts for longer
than there is no room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet
    from contextlib import AbstractAsyncContextManager

    from .._wire.cluster import Message
    from .answers import Roll


class Receiver(Protocol):
    """What a bus tells its adapter. Every call is made from a task of the bus, and does not wait."""

    def receive(self, message: Message) -> None:
        """A message has come, of another server or of an emitter; messages of one server come in their order."""

    def has_room(self, room: str) -> bool:
        """Whether somebody is in a room here: what is for others need not even be decoded."""

    def on_bad_message(self, why: Exception) -> None:
        """Something has come that is no message. It is counted and logged; nothing else happens."""

    def on_member_left(self, uid: str) -> None:
        """Another server has left, for buses that hear of it at once."""


class Bus(Protocol):
    """The way to the other servers, for one namespace.

    Attributes:
        uid: The name of this server on the bus.
    """

    @property
    def uid(self) -> str: ...

    def opened(self, receiver: Receiver) -> AbstractAsyncContextManager[None]:
        """Be a member: from the beginning of this context what others publish arrives; at its end, leave."""

    def encode(self, message: Message) -> Any:
        """A message in the form in which it travels.

        Raises:
            EncodeError: It cannot be encoded.
        """

    async def writable(self) -> None:
        """Wait until there is room to publish; a checkpoint, even if there is. A bus that is lost does not make
        anybody wait."""

    def publish(self, encoded: Any) -> bool:
        """Send a message to all others, in order, without waiting. False if it is lost for certain."""

    def answer(self, requester: str | None, encoded: Any) -> bool:
        """Send a message to the one who has asked; None if that is not known. False if it is lost for certain."""

    async def roll_call(self) -> Roll:
        """The other servers that there are now: how many, and their names if the bus need not ask for them.

        Raises:
            ConnectionError: The bus is lost.
        """

    async def members(self) -> AbstractSet[str] | None:
        """The names of the other servers that are there now; None if the bus cannot tell.

        Raises:
            ConnectionError: The bus is lost.
        """

    async def peers(self) -> AbstractSet[str]:
        """The names of the other servers that confirm joins and leaves, which are those with this library.

        Raises:
            ConnectionError: The bus is lost.
        """

    async def follow(self, rooms: Iterable[str]) -> None:
        """Rooms have members here, perhaps their first; return when what is sent to them arrives. May be cancelled:
        then it goes on in the background."""

    def unfollow(self, room: str) -> None:
        """The last member of a room here has left."""
