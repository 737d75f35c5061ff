"""One Engine.IO session and its sockets: the session's sink.

Socket.IO protocol, "connection to a namespace". Packets are taken in their order, and everything that follows from one
happens before the next: only middlewares and handlers are tasks. A client that breaks the protocol is disconnected; its
session closes gracefully, so that it still gets what was queued for it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from .._engine.handshake import new_id
from .._errors import ConnectionRefused, EncodeError, RemoteProtocolError
from .._listeners import raise_cancellations
from .._wire.packets import Packet, PacketType
from .socket import CLIENT_LEFT, Socket, State

if TYPE_CHECKING:
    from .._engine.session import Session
    from .._wire.parser import Decoder
    from .server import Server

logger = logging.getLogger("trio_socketio.server")

#: What the sockets are told when the server closes a session that cannot close at once.
FORCED_SERVER_CLOSE = "forced server close"


class Connection:
    """The sockets of one session.

    Args:
        server: The server.
        session: The session; `Connection` becomes its sink.
    """

    __slots__ = ("_decoder", "_dismissed", "_ending", "_expiry", "_queued", "_sockets", "config", "server", "session")

    def __init__(self, server: Server, session: Session) -> None:
        self.server = server
        self.session = session
        self.config = server.config
        self._decoder: Decoder = server.config.parser.decoder()
        self._sockets: dict[str, Socket] = {}
        self._ending: set[Socket] = set()
        self._dismissed: frozenset[str] = frozenset()
        self._queued = 0
        self._expiry: trio.CancelScope | None = None

    # Figures

    @property
    def sockets(self) -> list[Socket]:
        """Those that connect, are connected, or are ending."""
        return [*self._sockets.values(), *self._ending]

    @property
    def half_received_bytes(self) -> int:
        """Attachments whose packet is not complete."""
        return self._decoder.pending_bytes

    # The sink

    @property
    def full(self) -> bool:
        """Whether too many events wait for their handlers."""
        return self._queued >= self.config.max_queued_events

    def on_queued(self, change: int) -> None:
        """So many more events wait."""
        was_full = self.full
        self._queued += change
        if was_full and not self.full:
            self.session.resume_reading()

    def on_open(self) -> None:
        self.session.spawn(self._expire)

    def on_message(self, message: str | bytes) -> None:
        try:
            packet = self._decoder.add_untrusted(message)
            if packet is not None:
                self._on_packet(packet)
            elif not self._sockets:  # attachments are not collected for those who have not introduced themselves
                self._on_violation("a packet with attachments, before it is connected to a namespace")
        except RemoteProtocolError as error:
            logger.info("%s broke the protocol and is disconnected: %s", self.session, error)
            self._decoder.reset()
            self.session.close(description=str(error))

    def on_close(self, reason: str, description: str | None) -> None:
        self._decoder.reset()
        self._end_sockets(self.server.close_reason or reason, description)

    async def aftermath(self) -> None:
        try:
            ending = list(self._ending)
            if len(ending) == 1:
                await ending[0].finish_end()
            elif ending:
                async with trio.open_nursery() as nursery:
                    for socket in ending:
                        nursery.start_soon(socket.finish_end)
        finally:
            self.server.forget(self)

    async def _expire(self) -> None:
        with trio.CancelScope() as self._expiry:
            await trio.sleep(self.config.connect_timeout)
            logger.debug("%s has joined no namespace in time", self.session)
            self._close("no namespace was joined in time")

    # Packets

    def _on_packet(self, packet: Packet) -> None:
        socket = self._sockets.get(packet.namespace)
        if packet.type is PacketType.CONNECT:
            if socket is not None:
                self._on_violation(f"CONNECT to {packet.namespace}, where it is already")
            else:
                self._connect(packet)
        elif socket is None and packet.namespace in self._dismissed:
            pass  # sent before the client knew that we had ended its socket; the reference closes the session
        elif socket is None or socket.state is not State.CONNECTED:
            self._on_violation(f"{packet.type.name} for {packet.namespace}, where it is not connected")
        elif packet.type is PacketType.EVENT:
            socket.on_event(packet)
        elif packet.type is PacketType.ACK:
            socket.on_ack(packet)
        elif packet.type is PacketType.DISCONNECT:
            socket.begin_end(CLIENT_LEFT)
            self.session.spawn(socket.finish_end)
        else:
            self._on_violation(f"{packet.type.name} from a client")

    def _on_violation(self, what: str) -> None:
        logger.info("%s broke the protocol and is disconnected: %s", self.session, what)
        self._close(what)

    def _close(self, description: str) -> None:
        self.session.close(description=description)
        # A polling client may take its time to collect the close; its sockets do not wait for that.
        self._end_sockets(FORCED_SERVER_CLOSE, description, spawn=True)

    def _connect(self, packet: Packet) -> None:
        namespace = self.server.find_namespace(packet.namespace)
        if namespace is None:
            self.send(Packet(PacketType.CONNECT_ERROR, packet.namespace, {"message": "Invalid namespace"}))
            return
        socket = Socket(new_id(), namespace, self, {} if packet.data is None else packet.data)
        self._sockets[packet.namespace] = socket
        self._dismissed -= {packet.namespace}
        self.session.spawn(self._admit, socket)

    async def _admit(self, socket: Socket) -> None:
        """Run the middlewares, and open the socket if none refuses it; leave nothing behind if one does."""
        namespace = socket.namespace
        try:
            await namespace.run_middlewares(socket)
            await namespace.adapter.add_all(socket.id, (socket.id,))
            if self.session.phase.open and socket.state is State.CONNECTING:
                if self._expiry is not None:
                    self._expiry.cancel()
                socket.open()
        except Exception as error:
            self._refuse(socket, error)
        except BaseExceptionGroup as group:
            raise_cancellations(group, lambda error: self.server.on_handler_error(error, socket, "middleware"))
        finally:
            if socket.state is State.CONNECTING:
                socket.refuse()
                with trio.move_on_after(self.config.disconnect_timeout, shield=True):
                    await namespace.adapter.delete_all(socket.id)

    def _refuse(self, socket: Socket, error: Exception) -> None:
        """Tell the client why; of what is not meant for its eyes, only that there was something."""
        name = socket.namespace.name
        if isinstance(error, ConnectionRefused):
            data = {"message": error.message} | ({} if error.data is None else {"data": error.data})
            try:
                self.send(Packet(PacketType.CONNECT_ERROR, name, data))
            except EncodeError as unsendable:
                error = unsendable
            else:
                return
        self.server.on_handler_error(error, socket, "middleware")
        self.send(Packet(PacketType.CONNECT_ERROR, name, {"message": "Internal server error"}))

    # What its sockets ask of it

    def send(self, packet: Packet) -> None:
        """Queue a packet of the protocol's own, or an acknowledgement."""
        self.session.write(self.config.parser.encode(packet))

    def release(self, socket: Socket) -> None:
        """A socket is ending, or was refused: its client may connect to the namespace again."""
        del self._sockets[socket.namespace.name]
        if socket.state is State.ENDING:
            self._ending.add(socket)

    def dismiss(self, socket: Socket) -> None:
        """Tell the client that the server ends its socket."""
        self._dismissed |= {socket.namespace.name}
        self.send(Packet(PacketType.DISCONNECT, socket.namespace.name))

    def forget(self, socket: Socket) -> None:
        """A socket has ended."""
        self._ending.discard(socket)

    def disconnect(self) -> None:
        """Disconnect every socket, then close the session."""
        for socket in list(self._sockets.values()):
            socket.begin_disconnect()
        self.session.close()

    def _end_sockets(self, reason: str, description: str | None, *, spawn: bool = False) -> None:
        for socket in list(self._sockets.values()):
            if socket.state is State.CONNECTED:
                socket.begin_end(reason, description)
                if spawn:
                    self.session.spawn(socket.finish_end)
