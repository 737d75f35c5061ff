"""What extensions implement: adapters, parsers, and applications that a front end serves."""

from ._adapters.contract import (
    Adapter,
    AdapterFactory,
    BroadcastOptions,
    Directory,
    PersistedSession,
    RecoveringAdapter,
    SocketDetails,
)
from ._adapters.memory import MemoryAdapter
from ._adapters.recovery import RecoveringMemoryAdapter
from ._engine.contract import Acceptance, Application, Receiver, Request, Response, WebSocket
from ._wire.encoded import EncodedPacket
from ._wire.json_modules import JSONModule
from ._wire.msgpack import MsgpackParser
from ._wire.packets import Packet, PacketType
from ._wire.parser import Decoder, DefaultParser, JSONCodec, Parser

__all__ = [
    "Acceptance",
    "Adapter",
    "AdapterFactory",
    "Application",
    "BroadcastOptions",
    "Decoder",
    "DefaultParser",
    "Directory",
    "EncodedPacket",
    "JSONCodec",
    "JSONModule",
    "MemoryAdapter",
    "MsgpackParser",
    "Packet",
    "PacketType",
    "Parser",
    "PersistedSession",
    "Receiver",
    "RecoveringAdapter",
    "RecoveringMemoryAdapter",
    "Request",
    "Response",
    "SocketDetails",
    "WebSocket",
]
