"""Say something to everybody, from a program that is no server: ``python examples/cluster/say.py REDIS_URL TEXT``."""

from __future__ import annotations

import sys

from trio_socketio.redis import SyncEmitter

if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    url, text = sys.argv[1:]
    with SyncEmitter(url) as emitter:
        emitter.emit("said", text, "say.py")
