"""What extensions implement: adapters, parsers, and applications that a front end serves."""

from ._adapters.answers import AckStream, Roll
from ._adapters.bus import Bus
from ._adapters.bus import Receiver as BusReceiver
from ._adapters.cluster import ClusterAdapter
from ._adapters.cluster_member import ClusterStatistics
from ._adapters.contract import (
    AckCollector,
    Adapter,
    AdapterFactory,
    BroadcastOptions,
    Directory,
    PendingAck,
    PersistedSession,
    RecoveringAdapter,
    RunningFactory,
    SocketDetails,
)
from ._adapters.heartbeat import HeartbeatBus
from ._adapters.memory import MemoryAdapter
from ._adapters.memory_bus import MemoryBus, MemoryCluster
from ._adapters.recovery import RecoveringMemoryAdapter
from ._engine.contract import Acceptance, Application, Receiver, Request, Response, WebSocket
from ._wire.cluster import Message, MessageType, Target
from ._wire.encoded import EncodedPacket
from ._wire.json_modules import JSONModule
from ._wire.msgpack import MsgpackParser
from ._wire.packets import Packet, PacketType
from ._wire.parser import Decoder, DefaultParser, JSONCodec, Parser

__all__ = [
    "Acceptance",
    "AckCollector",
    "AckStream",
    "Adapter",
    "AdapterFactory",
    "Application",
    "BroadcastOptions",
    "Bus",
    "BusReceiver",
    "ClusterAdapter",
    "ClusterStatistics",
    "Decoder",
    "DefaultParser",
    "Directory",
    "EncodedPacket",
    "HeartbeatBus",
    "JSONCodec",
    "JSONModule",
    "MemoryAdapter",
    "MemoryBus",
    "MemoryCluster",
    "Message",
    "MessageType",
    "MsgpackParser",
    "Packet",
    "PacketType",
    "Parser",
    "PendingAck",
    "PersistedSession",
    "Receiver",
    "RecoveringAdapter",
    "RecoveringMemoryAdapter",
    "Request",
    "Response",
    "Roll",
    "RunningFactory",
    "SocketDetails",
    "Target",
    "WebSocket",
]
