"""Say something to everybody, from a program that is no server: ``python examples/cluster/say.py REDIS_URL TEXT``."""

from __future__ import annotations

import sys

from trio_socketio.redis import SyncEmitter

if __name__ == "__main__":
    _, url, text = sys.argv
    with SyncEmitter(url) as emitter:
        emitter.emit("said", text, "say.py")
