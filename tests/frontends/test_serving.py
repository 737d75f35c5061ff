from __future__ import annotations

import asyncio
import ssl

import pytest

from trio_socketio import Server
from trio_socketio.engineio import Engine


@pytest.mark.parametrize("app", [Server(), Engine()])
def test_under_asyncio_serving_says_what_it_is_for(app: Server | Engine) -> None:
    with pytest.raises(RuntimeError, match="not on asyncio"):
        asyncio.run(app.serve_tcp(0))
    with pytest.raises(RuntimeError, match="not on asyncio"):
        asyncio.run(app.serve_ssl_over_tcp(0, ssl.create_default_context()))
    with pytest.raises(RuntimeError, match="not on asyncio"):
        asyncio.run(app.run())
