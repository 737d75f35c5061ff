"""Several servers as one, over Redis or Valkey: ``pip install trio-socketio[redis]``."""

from ._adapters.emitter import Emitter, EmitterOperator, EmitterProtocol
from ._adapters.emitter_sync import SyncEmitter
from ._adapters.python_socketio import PythonSocketIOListener, PythonSocketIOStatistics
from ._adapters.redis_classic import RedisAdapter
from ._adapters.redis_sharded import ShardedRedisAdapter
from ._adapters.redis_streams import RedisStreamsAdapter
from ._adapters.redis_streams_recovery import RecoveringStreamsAdapter
from ._adapters.stream_reader import StreamStatistics
from ._errors import RedisConnectionLost, RedisError, RedisReplyError, RedisUnavailable
from ._redis.config import RedisConfig
from ._redis.health import Health, RedisStatistics
from ._wire.cluster_newer import SubscriptionMode

__all__ = [
    "Emitter",
    "EmitterOperator",
    "EmitterProtocol",
    "Health",
    "PythonSocketIOListener",
    "PythonSocketIOStatistics",
    "RecoveringStreamsAdapter",
    "RedisAdapter",
    "RedisConfig",
    "RedisConnectionLost",
    "RedisError",
    "RedisReplyError",
    "RedisStatistics",
    "RedisStreamsAdapter",
    "RedisUnavailable",
    "ShardedRedisAdapter",
    "StreamStatistics",
    "SubscriptionMode",
    "SyncEmitter",
]
