"""The law of the upgrade: what is delivered is what was emitted, in both directions, whenever it happens.

A correct client (it lets its poll and its POST end before it sends the upgrade packet) says and polls in any order,
tries to upgrade and fails in any step, while the server emits at any time, and the client's bytes arrive in any pieces.
"""

from __future__ import annotations

import enum
from base64 import b64decode
from itertools import cycle
from typing import TYPE_CHECKING

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from ..wire_client import SEPARATOR, WebSocketClosed
from .stage import open_stage, receive_all, run_in_virtual_time

if TYPE_CHECKING:
    from trio_socketio.engineio import Session

    from ..wire_client import EioPolling, Exchange, WebSocketClient


class Step(enum.Enum):
    """What the client does next."""

    SAY = "say something, in one request or frame"
    SAY_MUCH = "say several things at once"
    POLL = "send a GET"
    COLLECT = "wait a moment for its answer"
    UPGRADE = "take the next step towards the WebSocket"
    DROP = "cut the probing WebSocket"
    SPOIL = "send garbage on it"
    PAUSE = "let the others go on"


class State(enum.Enum):
    """Where the client is in its upgrade."""

    POLLING = 0
    OPENED = 1
    PROBED = 2
    ANSWERED = 3
    UPGRADED = 4


def message(number: int) -> str | bytes:
    """Every third message is binary."""
    return f"{number} €" if number % 3 else str(number).encode()


class UpgradingClient:
    """The client of the law."""

    def __init__(self, polling: EioPolling) -> None:
        self.received: list[str | bytes] = []
        self.said = 0
        self.state = State.POLLING
        self._polling = polling
        self._poll: Exchange | None = None
        self._websocket: WebSocketClient | None = None

    async def take(self, step: Step) -> None:
        if step in (Step.SAY, Step.SAY_MUCH):
            await self._say(1 if step is Step.SAY else 3)
        elif step is Step.PAUSE:
            await trio.sleep(0.01)
        elif step is Step.UPGRADE:
            await self.advance()
        elif step in (Step.DROP, Step.SPOIL):
            await self._fail(step)
        elif self.state is State.UPGRADED:
            await self._receive(0.05)
        elif step is Step.POLL:
            await self._start_poll()
        elif self._poll is not None:
            with trio.move_on_after(0.05):
                await self._collect()

    async def advance(self) -> None:
        """One step towards the upgrade; a WebSocket that the server closes is given up."""
        try:
            if self.state is State.POLLING:
                self._websocket = await self._polling.probe()
                self.state = State.OPENED
            elif self.state is State.OPENED:
                await self.websocket.send("2probe")
                self.state = State.PROBED
            elif self.state is State.PROBED:
                assert await self.websocket.recv() == "3probe"
                self.state = State.ANSWERED
            elif self.state is State.ANSWERED:
                if self._poll is not None:
                    await self._collect()
                await self.websocket.send("5")
                self.state = State.UPGRADED
        except WebSocketClosed:
            self.state = State.POLLING

    @property
    def websocket(self) -> WebSocketClient:
        assert self._websocket is not None
        return self._websocket

    async def finish(self) -> None:
        """Take all that still comes, until the server has closed."""
        if self.state is State.UPGRADED:
            await self._receive(1000)
        while self.state is not State.UPGRADED:
            await self._start_poll()
            if await self._collect():
                break

    async def _say(self, count: int) -> None:
        messages = [message(number) for number in range(self.said, self.said + count)]
        self.said += count
        packets = [f"4{item}" if isinstance(item, str) else item for item in messages]
        if self.state is State.UPGRADED:
            await self.websocket.send_raw(b"".join(self.websocket.encode(packet) for packet in packets))
        else:
            await self._polling.send(*packets)

    async def _start_poll(self) -> None:
        if self._poll is None:
            self._poll = await self._polling.send_poll()

    async def _collect(self) -> bool:
        """Take the answer to the poll; true if the server has closed."""
        assert self._poll is not None
        text = (await self._poll.response()).text
        self._poll = None
        for packet in text.split(SEPARATOR):
            if packet[0] in "4b":
                self.received.append(packet[1:] if packet[0] == "4" else b64decode(packet[1:]))
        return text.split(SEPARATOR)[-1] == "1"

    async def _receive(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            try:
                while True:
                    packet = await self.websocket.recv()
                    self.received.append(packet if isinstance(packet, bytes) else packet[1:])
            except WebSocketClosed:
                return

    async def _fail(self, step: Step) -> None:
        if self.state in (State.POLLING, State.UPGRADED):
            return
        await (self.websocket.drop() if step is Step.DROP else self.websocket.send("garbage"))
        self.state = State.POLLING


async def check_law(steps: list[Step], gaps: list[float], sizes: list[int], upgrade_at_last: bool) -> None:
    async with open_stage(ping_interval=10_000) as stage, trio.open_nursery() as nursery:
        stage.net.chunk_size = cycle(sizes).__next__
        heard: list[str | bytes] = []

        async def emit(session: Session) -> None:
            for number, gap in enumerate(gaps):
                await session.send(message(number))
                await trio.sleep(gap)

        async def hear(session: Session) -> None:
            heard.extend(await receive_all(session))

        client = UpgradingClient(await stage.net.polling())
        nursery.start_soon(hear, stage.session)
        async with trio.open_nursery() as emitting:
            emitting.start_soon(emit, stage.session)
            for step in steps:
                await client.take(step)
            while upgrade_at_last and client.state is not State.UPGRADED:
                await client.advance()
        await client.take(Step.SAY)
        await trio.testing.wait_all_tasks_blocked()
        stage.session.close()
        await client.finish()
        assert await stage.end() == ("forced close", None)
    assert client.received == [message(number) for number in range(len(gaps))]
    assert heard == [message(number) for number in range(client.said)]


@settings(max_examples=150)
@given(
    st.lists(st.sampled_from(Step), max_size=30),
    st.lists(st.sampled_from([0.0, 0.001, 0.03, 0.15]), max_size=20),
    st.lists(st.integers(1, 300), min_size=1, max_size=6),
    st.booleans(),
)
def test_delivered_is_emitted_in_both_directions_across_an_upgrade_at_any_step(
    steps: list[Step], gaps: list[float], sizes: list[int], upgrade_at_last: bool
) -> None:
    run_in_virtual_time(check_law, steps, gaps, sizes, upgrade_at_last)
