"""One Engine.IO session and its sockets: the session's sink.

Socket.IO protocol, "connection to a namespace". Packets are taken in their order, and everything that follows from one
happens before the next: only middlewares and handlers are tasks. A client that breaks the protocol is disconnected; its
session closes gracefully, so that it still gets what was queued for it.
"""

from __future__ import annotations

import logging
from contextvars import copy_context
from math import inf
from typing import TYPE_CHECKING, Any

import trio

from .._engine.handshake import new_id
from .._engine.sinks import NOWHERE
from .._errors import ConnectionRefused, EncodeError, RemoteProtocolError
from .._listeners import raise_cancellations
from .._wire.packets import Packet, PacketType
from .._wire.parser_v2 import ParserV2
from .events import is_in
from .queued import Backlog
from .recovery import Passport, split_claim
from .socket import CLIENT_LEFT, Socket, State

if TYPE_CHECKING:
    from .._engine.session import Session
    from .._wire.parser import Decoder, Parser
    from .config import ServerConfig
    from .namespace import Namespace
    from .server import Server

logger = logging.getLogger("trio_socketio.server")

# An attribute of an enum's class costs 60 nanoseconds.
_EVENT, _CONNECTED = PacketType.EVENT, State.CONNECTED

#: What the sockets are told when the server closes a session that cannot close at once.
FORCED_SERVER_CLOSE = "forced server close"


class Connection:
    """The sockets of one session.

    Args:
        server: The server.
        session: The session; `Connection` becomes its sink.
    """

    __slots__ = (
        "_decoder",
        "_dismissed",
        "_ending",
        "_parser",
        "_resolving",
        "_sockets",
        "_stalled_since",
        "backlog",
        "config",
        "server",
        "session",
    )

    def __init__(self, server: Server, session: Session) -> None:
        self.server: Server = server
        self.session: Session = session
        self.config: ServerConfig = server.config
        is_old = session.protocol == 3  # such clients speak Socket.IO 2, with what `on_greeted` and `_new_id` do for it
        self._parser: Parser = ParserV2(server.config.parser) if is_old else server.config.parser
        self._decoder: Decoder = self._parser.decoder()
        self._sockets: dict[str, Socket] = {}
        # Dicts, because an empty one is 150 bytes smaller than a set.
        self._ending: dict[Socket, None] = {}
        self._resolving: dict[str, None] = {}
        self._dismissed: frozenset[str] = frozenset()
        self.backlog: Backlog = Backlog(server.config.max_queued_events, session.resume_reading)
        self._stalled_since: float | None = None  # the first heartbeat within the packet that is half-received

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
        return self.backlog.full

    def on_open(self) -> None:
        self.session.expire_in(self.config.connect_timeout)

    def on_greeted(self) -> None:
        if self.session.protocol == 3:
            self._connect(Packet(PacketType.CONNECT))  # they are in the main namespace without asking

    def on_message(self, message: str | bytes) -> None:
        try:
            packet = self._decoder.add_untrusted(message)
            if packet is not None:
                self._stalled_since = None
                self._on_packet(packet)
            elif not self._sockets:  # attachments are not collected for those who have not introduced themselves
                self._on_violation("a packet with attachments, before it is connected to a namespace")
        except RemoteProtocolError as error:
            self._on_undecodable(str(error))

    def on_heartbeat(self) -> None:
        for socket in self._sockets.values():
            socket.on_heartbeat()
        # A client sends a packet with all its attachments at once, so its heartbeats come between packets. This needs
        # neither a task nor a clock for each packet, and what we do not read while we pause counts for nothing.
        if self._decoder.pending_bytes:
            now = trio.current_time()
            if self._stalled_since is None:
                self._stalled_since = now
            elif now >= self._stalled_since + self.server.engine.config.ping_interval:
                self._on_undecodable("the attachments of a packet have not come in time")

    def on_expiry(self) -> None:
        logger.debug("%s has joined no namespace in time", self.session)
        self._close("no namespace was joined in time")

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
            # Without this circle, and that of a socket and its queue, all that a client leaves is freed when it goes:
            # 70 objects fewer for the garbage collector, whose long pauses are the sum of them.
            self.session.deliver_to(NOWHERE)

    # Packets

    def _on_packet(self, packet: Packet) -> None:
        socket = self._sockets.get(packet.namespace)
        if packet.type is _EVENT and socket is not None and socket.state is _CONNECTED:
            socket.on_event(packet)  # nearly always
        elif packet.type is PacketType.CONNECT:
            if socket is not None or packet.namespace in self._resolving:
                self._on_violation(f"CONNECT to {packet.namespace}, where it is already")
            else:
                self._connect(packet)
        elif socket is None and packet.namespace in self._dismissed:
            pass  # sent before the client knew that we had ended its socket; the reference closes the session
        elif socket is None or socket.state is not State.CONNECTED:
            self._on_violation(f"{packet.type.name} for {packet.namespace}, where it is not connected")
        elif packet.type is PacketType.ACK:
            socket.on_ack(packet)
        elif packet.type is PacketType.DISCONNECT:
            socket.begin_end(CLIENT_LEFT)
            self.session.spawn(socket.finish_end)
        else:
            self._on_violation(f"{packet.type.name} from a client")

    def _on_undecodable(self, why: str) -> None:
        logger.info("%s broke the protocol and is disconnected: %s", self.session, why)
        self._decoder.reset()
        self.session.close(description=why)

    def _on_violation(self, what: str) -> None:
        logger.info("%s broke the protocol and is disconnected: %s", self.session, what)
        self._close(what)

    def _close(self, description: str) -> None:
        self.session.close(description=description)
        # A polling client may take its time to collect the close; its sockets do not wait for that.
        self._end_sockets(FORCED_SERVER_CLOSE, description, spawn=True)

    def _connect(self, packet: Packet) -> None:
        name, auth = packet.namespace, {} if packet.data is None else packet.data
        namespace = self.server.find_namespace(name)
        if len(self._sockets) + len(self._ending) + len(self._resolving) >= self.config.max_namespaces:
            self._refuse_namespace(name, "Too many namespaces")
        elif namespace is not None:
            self.session.spawn(self._admit, self._make_socket(namespace, auth))
        elif self.server.parents:
            self._resolving[name] = None
            self._dismissed -= {name}
            self.session.spawn(self._resolve, name, auth)
        else:
            self._refuse_namespace(name, "Invalid namespace")

    async def _resolve(self, name: str, auth: Any) -> None:
        """Ask the parents; what comes for this namespace meanwhile is a violation, as it is before any answer."""
        try:
            # What a client says of its lost connection is a secret, which is not for the application.
            shown = auth if self.config.recovery is None else split_claim(auth)[0]
            parent = await self.server.parents.find(name, shown)
        finally:
            self._resolving.pop(name, None)
        if not self.session.phase.open:
            return
        # Nothing waits between making the namespace and a socket for it, so no other client can find it empty.
        try:
            namespace = self.server.find_namespace(name, parent)
        except Exception:
            logger.exception("the namespace %r could not be made", name)
            self._refuse_namespace(name, "Internal server error")
            return
        if namespace is None:
            self._refuse_namespace(name, "Invalid namespace")
        else:
            self.session.spawn(self._admit, self._make_socket(namespace, auth))  # not in the context of the parents

    def _refuse_namespace(self, name: str, why: str) -> None:
        self.send(Packet(PacketType.CONNECT_ERROR, name, {"message": why}))

    def _make_socket(self, namespace: Namespace, auth: Any) -> Socket:
        passport = None
        if namespace.recovery is not None and self.session.protocol != 3:
            auth, claim = split_claim(auth)
            passport = Passport(namespace.recovery, claim)
        socket = Socket(self._new_id(namespace.name), namespace, self, auth, passport)
        self._sockets[namespace.name] = socket
        self._dismissed -= {namespace.name}
        return socket

    def _new_id(self, namespace: str) -> str:
        """A random id; an old client, which is not told its id, makes it of what it knows."""
        if self.session.protocol == 3:
            return self.session.id if namespace == "/" else f"{namespace}#{self.session.id}"
        return new_id()

    async def _admit(self, socket: Socket) -> None:
        """Let a socket in, or not; and then be the first of its tasks, which saves one: 1.05 times the connects."""
        context = copy_context()
        if not await self._let_in(socket):
            return
        if is_in(context):
            await socket.work()
        else:  # what a middleware has set is not for handlers
            self.session.spawn(socket.work)

    async def _let_in(self, socket: Socket) -> bool:
        """Run the middlewares, and open the socket if none refuses it; leave nothing behind if one does.

        Returns:
            Whether it is open, and there is work for a task of its own.
        """
        namespace = socket.namespace
        try:
            for old in [other for other in self._ending if other.id == socket.id]:  # of an old client
                await old.ended.wait()
            await namespace.wait_ready()
            passport = socket.passport
            if passport is None or not await passport.restore(socket):
                await namespace.run_middlewares(socket)
            await namespace.adapter.add_all(socket.id, (socket.id,))
            # The last wait before the socket is open: what is sent from now on reaches it.
            missed = () if passport is None else await passport.missed_packets(socket.rooms)
            if missed is None:
                self._close("what it has missed was dropped while its middlewares were running")
            elif self.session.phase.open and socket.state is State.CONNECTING:
                self.session.expire_in(inf)
                return socket.open(missed)
        except Exception as error:
            self._refuse(socket, error)
        except BaseExceptionGroup as group:
            raise_cancellations(group, lambda error: self.server.on_handler_error(error, socket, "middleware"))
        finally:
            if socket.state is State.CONNECTING:
                socket.refuse()
                with trio.move_on_after(self.config.disconnect_timeout, shield=True):
                    await namespace.adapter.delete_all(socket.id)
                    if socket.passport is not None:
                        await socket.passport.give_back()
                with trio.move_on_after(self.config.disconnect_timeout, shield=True):
                    await namespace.on_departure()
        return False

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
        self.session.write(self._parser.encode(packet))

    def release(self, socket: Socket) -> None:
        """A socket is ending, or was refused: its client may connect to the namespace again."""
        del self._sockets[socket.namespace.name]
        if socket.state is State.ENDING:
            self._ending[socket] = None

    def dismiss(self, socket: Socket) -> None:
        """Tell the client that the server ends its socket."""
        if len(self._dismissed) >= self.config.max_namespaces:  # where clients make the names, there is no end of them
            self._dismissed = frozenset()
        self._dismissed |= {socket.namespace.name}
        self.send(Packet(PacketType.DISCONNECT, socket.namespace.name))

    def forget(self, socket: Socket) -> None:
        """A socket has ended."""
        self._ending.pop(socket, None)

    def disconnect(self, description: str | None = None) -> None:
        """Disconnect every socket, then close the session."""
        for socket in list(self._sockets.values()):
            socket.begin_disconnect(description=description)
        self.session.close(description=description)

    def _end_sockets(self, reason: str, description: str | None, *, spawn: bool = False) -> None:
        for socket in list(self._sockets.values()):
            if socket.state is State.CONNECTED:
                socket.begin_end(reason, description)
                if spawn:
                    self.session.spawn(socket.finish_end)
