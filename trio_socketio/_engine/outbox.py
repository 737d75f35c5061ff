"""What waits to be sent to one client: bounded in bytes and in packets, whatever happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._wire.encoded import EncodedPacket


class Outbox:
    """A queue of encoded packets, each with its attachments a unit.

    Args:
        max_bytes: Bytes of content it holds. A single unit larger than that still fits while nothing else is queued.
        max_packets: Engine.IO packets it holds (an attachment counts as one).
    """

    __slots__ = ("_packets", "count", "max_bytes", "max_packets", "size")

    def __init__(self, max_bytes: int, max_packets: int) -> None:
        self._packets: list[EncodedPacket] = []
        self.max_bytes: int = max_bytes
        self.max_packets: int = max_packets
        self.size: int = 0
        self.count: int = 0

    def __len__(self) -> int:
        return len(self._packets)

    def __iter__(self) -> Iterator[EncodedPacket]:
        return iter(self._packets)

    def fits(self, packet: EncodedPacket) -> bool:
        """Whether a unit can be queued now."""
        return not self._packets or (
            self.size + packet.size <= self.max_bytes and self.count + packet.count <= self.max_packets
        )

    def put(self, packet: EncodedPacket) -> None:
        """Queue a unit that fits."""
        self._packets.append(packet)
        self.size += packet.size
        self.count += packet.count

    def takes_at_once(self, packet: EncodedPacket) -> bool:
        """Whether those who can wait need not: it is not `above_high_water`, and the unit fits."""
        size, count = self.size, self.count
        return (
            size * 2 <= self.max_bytes
            and count * 2 <= self.max_packets
            and (not count or (size + packet.size <= self.max_bytes and count + packet.count <= self.max_packets))
        )

    @property
    def above_high_water(self) -> bool:
        """Past half of a bound: those who can wait should."""
        return self.size * 2 > self.max_bytes or self.count * 2 > self.max_packets

    def copy(self, other: Outbox) -> None:
        """Queue what another one holds; for one that is empty."""
        self._packets = other._packets.copy()
        self.size = other.size
        self.count = other.count

    def take(self) -> list[EncodedPacket]:
        """Everything, in order; the queue is empty afterwards."""
        packets, self._packets = self._packets, []
        self.size = self.count = 0
        return packets
