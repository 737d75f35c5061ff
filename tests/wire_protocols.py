"""Clients of Engine.IO and Socket.IO, packet by packet, over the connections of a `Net`."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

import trio
import trio.testing

from .wire_http import SEPARATOR, WebSocketClosed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .wire_client import Net
    from .wire_http import Body, Exchange, HeaderItems, HttpResponse, WebSocketClient


class SessionLost(Exception):
    """The Engine.IO session has ended; `how` is what the client saw of that."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class ConnectError(Exception):
    """The server answered CONNECT with CONNECT_ERROR; `data` is its payload."""

    def __init__(self, data: Any) -> None:
        super().__init__(repr(data))
        self.data = data


class EioClient(Protocol):
    """An Engine.IO session, on either transport."""

    sid: str

    async def send(self, *packets: str | bytes) -> None:
        """Send packets: text with its type digit, or a binary message."""

    async def recv(self) -> str | bytes:
        """The next packet, pings included. Raises `SessionLost` when there are no more."""

    async def close(self) -> None:
        """End the session as a client does."""

    async def drop(self) -> None:
        """Vanish: cut the connection."""


class EioPolling:
    """A session on long-polling.

    Attributes:
        sid: Its id.
        handshake: The JSON of the ``open`` packet.
        opening: The answer to the handshake.
        target: Where it polls and posts.
    """

    def __init__(self, net: Net, opening: HttpResponse) -> None:
        first, *more = opening.packets
        assert first[0] == "0", opening
        self.opening = opening
        self.handshake: dict[str, Any] = json.loads(first[1:])
        self.sid: str = self.handshake["sid"]
        self.target = f"{net.path}?EIO=4&transport=polling&sid={self.sid}"
        self._net = net
        self._packets: deque[str | bytes] = deque(more)
        self._pending: Exchange | None = None

    @classmethod
    async def open(cls, net: Net, query: str = "", headers: HeaderItems = ()) -> EioPolling:
        opening = await net.get("?EIO=4&transport=polling" + query, headers)
        assert opening.status == 200, opening
        return cls(net, opening)

    async def start_poll(self) -> Exchange:
        """A GET; the server has seen it when this returns."""
        return await self._net.start_get(self.target)

    async def send_poll(self) -> Exchange:
        """A GET; the server may not have seen it yet."""
        return await self._net.start("GET", self.target)

    async def poll(self) -> list[str]:
        """The packets that a GET brings, as they are on the wire."""
        response = await self._net.get(self.target)
        assert response.status == 200, response
        return response.packets

    async def post(self, body: Body, headers: HeaderItems = ()) -> HttpResponse:
        return await self._net.post(self.target, body, headers)

    async def send(self, *packets: str | bytes) -> None:
        encoded = [packet if isinstance(packet, str) else "b" + b64encode(packet).decode() for packet in packets]
        response = await self.post(SEPARATOR.join(encoded))
        if response.status != 200:
            raise SessionLost(f"{response.status} {response.text}")
        assert response.body == b"ok", response

    async def recv(self) -> str | bytes:
        while not self._packets:
            if self._pending is None:
                self._pending = await self.send_poll()
            response = await self._pending.response()
            await self._pending.drop()
            self._pending = None
            if response.status != 200:
                raise SessionLost(f"{response.status} {response.text}")
            self._packets += [b64decode(p[1:]) if p[0] == "b" else p for p in response.packets]
        packet = self._packets.popleft()
        if packet == "1":
            raise SessionLost("closed by the server")
        return packet

    async def close(self) -> None:
        await self.send("1")

    async def drop(self) -> None:
        """Let go of a poll that pends: without one, nobody would notice. Those that bring something do not count."""
        while True:
            exchange, self._pending = self._pending or await self.start_poll(), None
            with trio.move_on_after(0.001):
                if (await exchange.response()).status != 200:
                    return
                continue
            await exchange.drop()
            return

    async def probe(self) -> WebSocketClient:
        """Open a WebSocket for this session; nothing is said on it yet."""
        return await self._net.websocket(f"?EIO=4&transport=websocket&sid={self.sid}")

    async def upgrade(self) -> EioWebSocket:
        """Go over to a WebSocket, as clients do: probe, end of polling, upgrade. Messages on the way are kept."""
        websocket = await self.probe()
        await websocket.send("2probe")
        assert await websocket.recv() == "3probe"
        if self._pending is not None:
            response = await self._pending.response()
            self._packets += [p for p in response.packets if p != "6"]
            self._pending = None
        await websocket.send("5")
        await trio.testing.wait_all_tasks_blocked()
        return EioWebSocket(websocket, self.handshake, self._packets)


class EioWebSocket:
    """A session on a WebSocket.

    Attributes:
        sid: Its id.
        handshake: The JSON of the ``open`` packet.
        websocket: The `WebSocketClient`.
    """

    def __init__(
        self, websocket: WebSocketClient, handshake: dict[str, Any], packets: Iterable[str | bytes] = ()
    ) -> None:
        self.websocket = websocket
        self.handshake = handshake
        self.sid: str = handshake["sid"]
        self._packets = deque(packets)

    @classmethod
    async def open(cls, websocket: WebSocketClient) -> EioWebSocket:
        first = await websocket.recv()
        assert isinstance(first, str), first
        assert first[0] == "0", first
        return cls(websocket, json.loads(first[1:]))

    async def send(self, *packets: str | bytes) -> None:
        for packet in packets:
            await self.websocket.send(packet)

    async def recv(self) -> str | bytes:
        if self._packets:
            return self._packets.popleft()
        try:
            return await self.websocket.recv()
        except WebSocketClosed as closed:
            raise SessionLost(str(closed)) from closed

    async def close(self) -> None:
        await self.websocket.close()

    async def drop(self) -> None:
        await self.websocket.drop()


class SioClient:
    """A Socket.IO client: packets as text, without Engine.IO's ``4``, and attachments as bytes.

    Attributes:
        engine: The session underneath.
        namespace: Where `emit`, `disconnect` and `recv_event` are.
        sid: The id of its socket there.
        answer_pings: Whether `recv` answers the engine's pings, or (false) returns them as ``"2"``, with their digit.
    """

    def __init__(self, engine: EioClient) -> None:
        self.engine = engine
        self.namespace = "/"
        self.sid = ""
        self.answer_pings = True

    def _prefix(self, namespace: str | None = None) -> str:
        name = self.namespace if namespace is None else namespace
        return "" if name == "/" else f"{name},"

    async def join(self, namespace: str, auth: Any = None) -> dict[str, Any]:
        """Connect to a namespace, as the next thing that happens; returns the payload of the answer.

        Raises:
            ConnectError: The server refused.
        """
        await self.send_raw(f"0{self._prefix(namespace)}" + ("" if auth is None else _to_json(auth)))
        answer = await self.recv()
        assert isinstance(answer, str), answer
        start = 1 + len(self._prefix(namespace))
        assert answer[:start] in (f"0{self._prefix(namespace)}", f"4{self._prefix(namespace)}"), answer
        payload = json.loads(answer[start:])
        if answer[0] == "4":
            raise ConnectError(payload)
        assert isinstance(payload, dict), answer
        return payload

    async def send_raw(self, *packets: str | bytes) -> None:
        """Send packets, or attachments, as they are; on long-polling all of them in one body."""
        await self.engine.send(*[f"4{packet}" if isinstance(packet, str) else packet for packet in packets])

    async def emit(self, event: str | int, *args: Any, id: int | None = None, namespace: str | None = None) -> None:
        """Emit an event, whose arguments may have bytes in them; with an id, the server is to acknowledge it."""
        await self._send_packet("2", "5", [event, *args], id, namespace)

    async def ack(self, id: int, *args: Any, namespace: str | None = None) -> None:
        """Acknowledge an event of the server."""
        await self._send_packet("3", "6", list(args), id, namespace)

    async def _send_packet(self, plain: str, binary: str, data: Any, id: int | None, namespace: str | None) -> None:
        attachments: list[bytes] = []
        text = _to_json(_with_placeholders(data, attachments))
        kind = f"{binary}{len(attachments)}-" if attachments else plain
        await self.send_raw(kind + self._prefix(namespace) + ("" if id is None else str(id)) + text, *attachments)

    async def recv(self) -> str | bytes:
        """The next packet or attachment. May be cancelled and awaited again.

        Raises:
            SessionLost: The session has ended.
        """
        while True:
            packet = await self.engine.recv()
            if isinstance(packet, bytes):
                return packet
            if packet[0] == "4":
                return packet[1:]
            if packet == "2" and self.answer_pings:
                await self.engine.send("3")
            elif packet != "6":
                return packet

    async def recv_event(self) -> tuple[int | None, list[Any]]:
        """The next packet, which has to be an event (or an ack) of this namespace: its id, and its values."""
        packet = await self.recv()
        assert isinstance(packet, str), packet
        assert packet[0] in "2356", packet
        count, _, rest = packet[1:].partition("-") if packet[0] in "56" else ("0", "", packet[1:])
        prefix = self._prefix()
        assert rest.startswith(prefix), packet
        digits, bracket, values = rest[len(prefix) :].partition("[")
        attachments = [await self.recv() for _ in range(int(count))]
        data = _with_attachments(json.loads(bracket + values), attachments)
        return (int(digits) if digits else None), data

    async def recv_nothing(self, seconds: float = 1.0) -> None:
        """Make sure that nothing but heartbeats comes for some time."""
        with trio.move_on_after(seconds):
            raise AssertionError(f"unexpected: {await self.recv()!r}")

    async def lost(self) -> SessionLost:
        """How the session ends: the next thing that comes has to be that."""
        try:
            packet = await self.recv()
        except SessionLost as lost:
            return lost
        raise AssertionError(f"unexpected: {packet!r}")

    async def disconnect(self, namespace: str | None = None) -> None:
        """Leave a namespace."""
        await self.send_raw("1" + self._prefix(namespace))

    async def close(self) -> None:
        """End the session as a client does."""
        await self.engine.close()

    async def drop(self) -> None:
        """Vanish: cut the connection."""
        await self.engine.drop()


def _to_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _with_placeholders(value: Any, attachments: list[bytes]) -> Any:
    if isinstance(value, bytes):
        attachments.append(value)
        return {"_placeholder": True, "num": len(attachments) - 1}
    if isinstance(value, dict):
        return {name: _with_placeholders(item, attachments) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_placeholders(item, attachments) for item in value]
    return value


def _with_attachments(value: Any, attachments: Sequence[str | bytes]) -> Any:
    if isinstance(value, dict):
        if value.get("_placeholder") is True:
            return attachments[value["num"]]
        return {name: _with_attachments(item, attachments) for name, item in value.items()}
    return [_with_attachments(item, attachments) for item in value] if isinstance(value, list) else value
