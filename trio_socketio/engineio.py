"""The Engine.IO layer on its own: sessions that are channels of messages, without Socket.IO."""

from ._engine.compression import HttpCompression
from ._engine.config import EngineConfig
from ._engine.contract import Headers, HttpLimits, Request, Response
from ._engine.cookies import Cookie
from ._engine.cors import CORS
from ._engine.engine import Engine
from ._engine.session import Session
from ._errors import ConnectionRefused, HandshakeRefused, SessionClosed
from ._wire.deflate import PerMessageDeflate

__all__ = [
    "CORS",
    "ConnectionRefused",
    "Cookie",
    "Engine",
    "EngineConfig",
    "HandshakeRefused",
    "Headers",
    "HttpCompression",
    "HttpLimits",
    "PerMessageDeflate",
    "Request",
    "Response",
    "Session",
    "SessionClosed",
]
