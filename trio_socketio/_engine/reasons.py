"""Why a session has ended, as its sink is told: Engine.IO protocol, and Socket.IO's "disconnect reasons"."""

from __future__ import annotations

TRANSPORT_CLOSE = "transport close"
TRANSPORT_ERROR = "transport error"
PING_TIMEOUT = "ping timeout"
PARSE_ERROR = "parse error"
FORCED_CLOSE = "forced close"
