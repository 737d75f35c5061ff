"""A Socket.IO server for Trio."""

from ._adapters.contract import BroadcastOptions, SocketDetails
from ._adapters.recovery import ConnectionStateRecovery
from ._engine.compression import HttpCompression
from ._engine.config import EngineConfig
from ._engine.contract import Headers, HttpLimits, Request, Response
from ._engine.cookies import Cookie
from ._engine.cors import CORS
from ._errors import (
    AckTimeout,
    ConnectionRefused,
    EncodeError,
    EventArgumentsError,
    EventValidationError,
    HandshakeRefused,
    LocalProtocolError,
    NotRunning,
    RemoteProtocolError,
    ReservedEventError,
    SessionClosed,
    SocketDisconnected,
    TrioSocketIOError,
)
from ._server.config import ServerConfig
from ._server.event_types import EventType
from ._server.handlers import event
from ._server.handshake import Handshake
from ._server.namespace import Namespace
from ._server.operator import BroadcastOperator, SocketOperator
from ._server.parent import ParentNamespace
from ._server.rate import RateLimit
from ._server.remote import AnySocket, RemoteOperator, RemoteSocket
from ._server.server import Server
from ._server.socket import Socket
from ._server.statistics import ServerStatistics, SocketStatistics
from ._wire.deflate import PerMessageDeflate

__version__ = "0.1.0"

__all__ = [
    "CORS",
    "AckTimeout",
    "AnySocket",
    "BroadcastOperator",
    "BroadcastOptions",
    "ConnectionRefused",
    "ConnectionStateRecovery",
    "Cookie",
    "EncodeError",
    "EngineConfig",
    "EventArgumentsError",
    "EventType",
    "EventValidationError",
    "Handshake",
    "HandshakeRefused",
    "Headers",
    "HttpCompression",
    "HttpLimits",
    "LocalProtocolError",
    "Namespace",
    "NotRunning",
    "ParentNamespace",
    "PerMessageDeflate",
    "RateLimit",
    "RemoteOperator",
    "RemoteProtocolError",
    "RemoteSocket",
    "Request",
    "ReservedEventError",
    "Response",
    "Server",
    "ServerConfig",
    "ServerStatistics",
    "SessionClosed",
    "Socket",
    "SocketDetails",
    "SocketDisconnected",
    "SocketOperator",
    "SocketStatistics",
    "TrioSocketIOError",
    "event",
]
