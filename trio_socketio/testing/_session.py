"""The client's side of an Engine.IO session: a transport, the change from one to the other, and what was said."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias
from urllib.parse import urlencode

import trio
import trio.testing

from .._errors import ConnectionRefused, SessionClosed
from .._wire.encoded import CLOSE, PONG, EncodedPacket
from .._wire.engine_packets import EnginePacketType, decode_packet_untrusted
from ._network import TRANSPORT_CLOSE, TRANSPORT_ERROR, ClientWebSocket, Network, RefusedByHttp

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ._network import HeaderItems

Transport: TypeAlias = Literal["websocket", "polling"]

_SEPARATOR = "\x1e"
_PROBE = EncodedPacket(b"2probe")
_UPGRADE = EncodedPacket(b"5")
#: Packets that ``wire`` keeps.
REMEMBERED = 100_000


class WirePacket(NamedTuple):
    """One Engine.IO packet: a WebSocket's frame, or a part of a polling body.

    Attributes:
        sender: Who sent it.
        transport: On what.
        data: As it was: text with its type digit, or a binary message, which is text with a ``b`` on long-polling.
    """

    sender: Literal["client", "server"]
    transport: Transport
    data: str | bytes


class Endpoint(NamedTuple):
    """Where sessions are opened, and how.

    Attributes:
        network: The way there.
        path: Of the Engine.IO requests, with a slash at its end.
        transport: To begin with.
        upgrade: Whether a session goes over to a WebSocket at once.
        query: Added to the query of the handshake.
        headers: Of every request.
    """

    network: Network
    path: str
    transport: Transport
    upgrade: bool
    query: Mapping[str, str]
    headers: HeaderItems


class Session:
    """A session, opened by `Session.open`.

    Attributes:
        transport: On which it is now.
        sid: Its id.
        handshake: What the server said when it was opened.
        wire: What was said; shared with the sessions that its client had before.
        closing: Whether this side has said goodbye.
    """

    def __init__(self, endpoint: Endpoint, wire: deque[WirePacket]) -> None:
        self.transport: Transport = endpoint.transport
        self.sid: str = ""
        self.handshake: dict[str, Any] = {}
        self.wire: deque[WirePacket] = wire
        self.closing: bool = False
        self._endpoint = endpoint
        self._network = endpoint.network
        self._websocket: ClientWebSocket | None = None
        self._received: deque[str | bytes] = deque()
        self._sending = trio.Lock()
        # Held while a poll pends. Both locks are fair, so that an upgrade comes in between two polls, or two posts.
        self._polling = trio.Lock()
        self._reading = trio.Event()
        self._reading.set()

    @classmethod
    async def open(cls, endpoint: Endpoint, wire: deque[WirePacket]) -> Session:
        """Make the handshake.

        Raises:
            ConnectionRefused: The server does not want it: its text, and as ``data`` the status, and the protocol's
                code if there is one.
            SessionClosed: The server has gone.
        """
        session = cls(endpoint, wire)
        try:
            if endpoint.transport == "websocket":
                session._websocket = await session._open_websocket(endpoint.query)
                session._take([await session._websocket.receive()])
            else:
                await session._poll(endpoint.query)
        except RefusedByHttp as error:
            raise _refusal(error) from error
        opening = session._received.popleft()
        if not isinstance(opening, str) or not opening.startswith("0"):
            raise SessionClosed(TRANSPORT_ERROR)
        session.handshake = json.loads(opening[1:])
        session.sid = session.handshake["sid"]
        return session

    async def send(self, *packets: EncodedPacket) -> None:
        """Send packets and their attachments, all of them together: in one write, or in one request.

        Raises:
            SessionClosed: The session has ended.
        """
        async with self._sending:
            await self._send(packets, self._websocket if self.transport == "websocket" else None)

    async def send_bytes(self, data: bytes) -> None:
        """Send bytes on the WebSocket as they are. Raises `RuntimeError` if there is none."""
        if self._websocket is None:
            raise RuntimeError("only a WebSocket takes bytes as they are")
        async with self._sending:
            await self._websocket.send_bytes(data)

    async def receive(self) -> str | bytes:
        """The content of the next message; what the protocol itself has to say is answered here.

        Raises:
            SessionClosed: There are no more.
        """
        while True:
            while not self._received:
                await self._receive_more()
            packet_type, data = decode_packet_untrusted(self._received.popleft())
            if packet_type is EnginePacketType.MESSAGE:
                return b"" if data is None else data
            if packet_type is EnginePacketType.PING:
                await self.send(PONG)
            elif packet_type is EnginePacketType.CLOSE:
                raise SessionClosed(TRANSPORT_CLOSE)

    async def upgrade(self) -> None:
        """Go over from long-polling to a WebSocket: probe, last poll, upgrade.

        Raises:
            ConnectionRefused: There is no WebSocket.
            SessionClosed: The session, or the probe, has ended.
        """
        try:
            websocket = await self._open_websocket({"sid": self.sid})
        except RefusedByHttp as error:
            raise _refusal(error) from error
        await self._send([_PROBE], websocket)
        answer = await websocket.receive()
        self._remember("server", "websocket", answer)
        if answer != "3probe":
            raise SessionClosed(TRANSPORT_ERROR)
        async with self._sending, self._polling:
            await self._send([_UPGRADE], websocket)
            self._websocket, self.transport = websocket, "websocket"

    async def close(self) -> None:
        """End the session as clients do."""
        if self.closing:
            await trio.lowlevel.checkpoint()
            return
        self.closing = True
        try:
            if self.transport == "polling":
                # A poll that is on its way would find no session any more, and the server would wonder about it.
                await trio.testing.wait_all_tasks_blocked()
                await self.send(CLOSE)
            elif self._websocket is not None:
                await self._websocket.close()
        except SessionClosed:
            pass  # it has ended already, which is what was wanted

    def stop_reading(self) -> None:
        """Poll no more, once the poll that pends is answered; take nothing more from the WebSocket."""
        self._reading = trio.Event()
        self._network.stop_reading()

    def resume_reading(self) -> None:
        self._reading.set()
        self._network.resume_reading()

    # The transports

    async def _receive_more(self) -> None:
        if self.closing and self.transport == "polling":
            raise SessionClosed(TRANSPORT_CLOSE)
        if self.transport == "polling":
            async with self._polling:
                if self.transport == "polling":
                    await self._reading.wait()
                    await self._poll({"sid": self.sid})
        elif self._websocket is not None:
            self._take([await self._websocket.receive()])

    async def _poll(self, query: Mapping[str, str]) -> None:
        try:
            self._take((await self._request("GET", query)).split(_SEPARATOR))
        except RefusedByHttp as error:
            if not self.sid:
                raise
            raise SessionClosed(TRANSPORT_ERROR) from error

    async def _send(self, packets: Sequence[EncodedPacket], websocket: ClientWebSocket | None) -> None:
        if websocket is not None:
            messages = [message for packet in packets for message in packet.messages]
            self._remember("client", "websocket", *messages)
            await websocket.send(messages)
            return
        payload = _SEPARATOR.encode().join(packet.payload for packet in packets)
        self._remember("client", "polling", *payload.decode().split(_SEPARATOR))
        try:
            await self._request("POST", {"sid": self.sid}, payload)
        except RefusedByHttp as error:
            raise SessionClosed(TRANSPORT_ERROR) from error

    async def _request(self, method: str, query: Mapping[str, str], body: bytes = b"") -> str:
        headers = [*self._endpoint.headers, ("content-type", "text/plain;charset=UTF-8")]
        answer = await self._network.request(method, self._target("polling", query), headers, body)
        text = answer.body.decode()
        if answer.status != 200:
            raise RefusedByHttp(answer.status, text)
        return text

    async def _open_websocket(self, query: Mapping[str, str]) -> ClientWebSocket:
        return await self._network.open_websocket(self._target("websocket", query), self._endpoint.headers)

    def _target(self, transport: Transport, query: Mapping[str, str]) -> str:
        return f"{self._endpoint.path}?{urlencode({'EIO': '4', 'transport': transport, **query})}"

    def _take(self, packets: Iterable[str | bytes]) -> None:
        for packet in packets:
            self._remember("server", self.transport, packet)
            self._received.append(packet)

    def _remember(self, sender: Literal["client", "server"], transport: Transport, *packets: str | bytes) -> None:
        self.wire.extend(WirePacket(sender, transport, packet) for packet in packets)


def _refusal(error: RefusedByHttp) -> ConnectionRefused:
    details: dict[str, Any] = {"status": error.status}
    message = error.body
    try:
        answer = json.loads(error.body)
    except ValueError:
        pass  # a WebSocket is refused in plain text
    else:
        if isinstance(answer, dict):
            message = answer.pop("message", message)
            details |= answer
    return ConnectionRefused(message or f"HTTP status {error.status}", details)
