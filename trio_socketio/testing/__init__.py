"""Tests without a network: clients and clusters in memory, on a virtual clock, and what rooms have to be like.

What needs Hypothesis (`AdapterMachine`, `WireMachine`, `TrioStateMachine`, and the module ``strategies``) is imported
when it is first used; what needs pytest is in ``pytest_plugin``.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ._client import MemoryClient
from ._cluster import Cluster, open_cluster
from ._conformance import AdapterConformance
from ._events import ReceivedEvent
from ._open import open_client, open_client_at
from ._rooms import RoomModel
from ._session import WirePacket
from ._stepper import TrioStepper
from ._under_test import Difference
from ._world import World

if TYPE_CHECKING:
    from ._machine import AdapterMachine
    from ._stateful import TrioStateMachine, initialize, invariant, rule
    from ._wire_machine import WireMachine

__all__ = [
    "AdapterConformance",
    "AdapterMachine",
    "Cluster",
    "Difference",
    "MemoryClient",
    "ReceivedEvent",
    "RoomModel",
    "TrioStateMachine",
    "TrioStepper",
    "WireMachine",
    "WirePacket",
    "World",
    "initialize",
    "invariant",
    "open_client",
    "open_client_at",
    "open_cluster",
    "rule",
]

_NEED_HYPOTHESIS = {
    "AdapterMachine": "_machine",
    "TrioStateMachine": "_stateful",
    "WireMachine": "_wire_machine",
    "initialize": "_stateful",
    "invariant": "_stateful",
    "rule": "_stateful",
}


def __getattr__(name: str) -> object:
    if name in _NEED_HYPOTHESIS:
        try:
            module = import_module(f".{_NEED_HYPOTHESIS[name]}", __name__)
        except ModuleNotFoundError as error:
            raise ImportError(f"{name} needs Hypothesis: pip install trio-socketio[testing]") from error
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
