"""`AdapterMachine` finds bugs: each of these adapters has one, and each bug is found and shrunk to a few steps."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from trio_socketio import Server
from trio_socketio.abc import (
    AckStream,
    BroadcastOptions,
    ClusterAdapter,
    MemoryAdapter,
    MemoryBus,
    MemoryCluster,
    Message,
    MessageType,
    SocketDetails,
)
from trio_socketio.testing import AdapterMachine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from trio_socketio.abc import Directory, EncodedPacket, Packet

SECONDS = 30
STEPS = 8


class LostPublish(ClusterAdapter):
    async def broadcast(self, packet: Packet, encoded: EncodedPacket, options: BroadcastOptions) -> None:
        await self.local.broadcast(packet, encoded, options)


class Duplicates(ClusterAdapter):
    """Who is in two of the rooms gets it twice."""

    def __init__(self, directory: Directory, bus: MemoryBus) -> None:
        super().__init__(directory, bus)
        self._connected = directory.connected

        def sockets(options: BroadcastOptions) -> list[str]:
            once = MemoryAdapter.sockets(self.local, options)
            twice = [id for room in options.rooms for id in self.local.rooms.get(room, ()) if id in once]
            return twice if options.rooms else once

        vars(self.local)["sockets"] = sockets


class ExceptIgnoredElsewhere(ClusterAdapter):
    def receive(self, message: Message) -> None:
        if message.target is not None:
            message = message._replace(target=message.target._replace(except_rooms=()))
        super().receive(message)


class LocalIsPublished(ClusterAdapter):
    async def broadcast(self, packet: Packet, encoded: EncodedPacket, options: BroadcastOptions) -> None:
        await super().broadcast(packet, encoded, replace(options, local=False))


class LeaveForgottenOnDisconnect(ClusterAdapter):
    async def delete_all(self, id: str) -> None:
        await trio.lowlevel.checkpoint()


class EmptyRoomsKept(ClusterAdapter):
    def __init__(self, directory: Directory, bus: MemoryBus) -> None:
        super().__init__(directory, bus)

        def remove(id: str, room: str) -> None:
            self.local.rooms.get(room, set()).discard(id)

        vars(self.local)["_remove"] = remove


class JoinsComeLate(ClusterAdapter):
    """A join is applied after the broadcast that followed it."""

    def receive(self, message: Message) -> None:
        if message.type is MessageType.SOCKETS_JOIN and message.request_id is None:
            trio.lowlevel.spawn_system_task(self._apply_later, message)
        else:
            super().receive(message)

    async def _apply_later(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        super().receive(message)


class AcksCountTwice(ClusterAdapter):
    def receive(self, message: Message) -> None:
        super().receive(message)
        if message.type is MessageType.BROADCAST_ACK:
            super().receive(message)


class OneServerIsNotFetched(ClusterAdapter):
    async def fetch_sockets(self, options: BroadcastOptions) -> list[SocketDetails]:
        return await self.local.fetch_sockets(options)


class EchoesAreDelivered(ClusterAdapter):
    async def broadcast(self, packet: Packet, encoded: EncodedPacket, options: BroadcastOptions) -> None:
        await super().broadcast(packet, encoded, options)
        if not options.local:
            await self.local.broadcast(packet, encoded, options)


class RoomsAreIntersected(ClusterAdapter):
    def __init__(self, directory: Directory, bus: MemoryBus) -> None:
        super().__init__(directory, bus)

        def sockets(options: BroadcastOptions) -> list[str]:
            found = MemoryAdapter.sockets(self.local, options)
            return [id for id in found if options.rooms <= self.local.sids[id]]

        vars(self.local)["sockets"] = sockets


class TheSenderHearsItself(ClusterAdapter):
    async def server_side_emit(self, args: Sequence[Any]) -> None:
        await super().server_side_emit(args)
        self._directory.on_server_side_emit(args, None)


class DisconnectsOnlyHere(ClusterAdapter):
    async def disconnect_sockets(self, options: BroadcastOptions, close: bool) -> None:
        await self.local.disconnect_sockets(options, close)


class EverybodyElsewhereLeaves(ClusterAdapter):
    def receive(self, message: Message) -> None:
        if message.type is MessageType.SOCKETS_LEAVE and message.target is not None and message.request_id is None:
            message = message._replace(target=message.target._replace(rooms=()))
        super().receive(message)


class RoomsOfASocketForgotten(ClusterAdapter):
    """The second index is not kept up when a socket leaves."""

    async def delete(self, id: str, room: str) -> None:
        await trio.lowlevel.checkpoint()
        self.local._remove(id, room)


class NobodyHasARoomOfItsOwn(ClusterAdapter):
    async def add_all(self, id: str, rooms: Iterable[str]) -> None:
        await super().add_all(id, [room for room in rooms if room != id])


class RequestsAreKept(ClusterAdapter):
    """What has been asked stays in the table after the answers have come."""

    async def fetch_sockets(self, options: BroadcastOptions) -> list[SocketDetails]:
        found = await super().fetch_sockets(options)
        if not options.local:
            self._requests["kept"] = AckStream(None)
        return found


class DisconnectedSocketsAnswer(ClusterAdapter):
    """A server says that it asks one client more than it does."""

    def __init__(self, directory: Directory, bus: MemoryBus) -> None:
        super().__init__(directory, bus)

    def receive(self, message: Message) -> None:
        if message.type is MessageType.BROADCAST_CLIENT_COUNT:
            message = message._replace(content=message.content + 1)
        super().receive(message)


FAULTS: list[Callable[[Directory, MemoryBus], ClusterAdapter]] = [
    LostPublish,
    Duplicates,
    ExceptIgnoredElsewhere,
    LocalIsPublished,
    LeaveForgottenOnDisconnect,
    EmptyRoomsKept,
    JoinsComeLate,
    AcksCountTwice,
    OneServerIsNotFetched,
    EchoesAreDelivered,
    RoomsAreIntersected,
    TheSenderHearsItself,
    DisconnectsOnlyHere,
    EverybodyElsewhereLeaves,
    RoomsOfASocketForgotten,
    NobodyHasARoomOfItsOwn,
    RequestsAreKept,
    DisconnectedSocketsAnswer,
]


def make_machine(fault: Callable[[Directory, MemoryBus], ClusterAdapter]) -> type[AdapterMachine]:
    class Machine(AdapterMachine):
        def make_servers(self) -> Sequence[Server[Any]]:
            cluster = MemoryCluster()

            def make_server(name: str) -> Server[Any]:
                return Server(adapter=lambda directory: fault(directory, MemoryBus(cluster, directory.name, name)))

            return [make_server("s0"), make_server("s1")]

        async def settle(self) -> None:
            await trio.testing.wait_all_tasks_blocked()  # nothing is delayed, so everything has arrived then

    return Machine


def find(fault: Callable[[Directory, MemoryBus], ClusterAdapter], *phases: Phase) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever it is that the fault leads to
        run_state_machine_as_test(
            make_machine(fault),
            settings=settings(
                max_examples=2000,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                derandomize=True,
                report_multiple_bugs=False,
                phases=phases,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
            ),
        )
    return caught.value


def history(error: BaseException) -> list[str]:
    """The steps of the example, but for the end."""
    program = "\n".join(getattr(error, "__notes__", ()))
    return re.findall(r"^state\.(?!teardown).*$", program, re.MULTILINE)


@pytest.mark.parametrize("fault", [LostPublish, Duplicates, EmptyRoomsKept], ids=lambda fault: fault.__name__)
def test_a_fault_is_found(fault: Callable[[Directory, MemoryBus], ClusterAdapter]) -> None:
    assert history(find(fault, Phase.generate))


@pytest.mark.thorough
@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_found_in_half_a_minute_and_shrunk_to_a_few_steps(
    fault: Callable[[Directory, MemoryBus], ClusterAdapter],
) -> None:
    begun = time.process_time()  # nothing here waits, but for a machine that is busy with something else

    steps = history(find(fault, Phase.generate, Phase.shrink))

    assert time.process_time() - begun < SECONDS
    assert 1 <= len(steps) <= STEPS, "\n".join(steps)


def test_an_adapter_without_a_fault_passes() -> None:
    run_state_machine_as_test(
        make_machine(ClusterAdapter), settings=settings(max_examples=20, stateful_step_count=15, deadline=None)
    )
