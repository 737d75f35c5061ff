"""What extensions implement: adapters, and applications that a front end serves."""

from ._adapters.contract import Adapter, AdapterFactory, BroadcastOptions, Directory, SocketDetails
from ._adapters.memory import MemoryAdapter
from ._engine.contract import Acceptance, Application, Receiver, Request, Response, WebSocket

__all__ = [
    "Acceptance",
    "Adapter",
    "AdapterFactory",
    "Application",
    "BroadcastOptions",
    "Directory",
    "MemoryAdapter",
    "Receiver",
    "Request",
    "Response",
    "SocketDetails",
    "WebSocket",
]
