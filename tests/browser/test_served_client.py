"""A page that has nothing but a script tag: the server gives it the client, and compressed answers to its polls."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from trio_socketio import Server

from ..js_client import PROJECT
from .chromium import find_chromium, open_browser

if TYPE_CHECKING:
    from pathlib import Path

    from trio_socketio import Headers, Request, Socket

CLIENT = PROJECT / "node_modules" / "socket.io-client" / "dist"
TEXT = "snow ☃ 日本語 " * 20_000

CLASSIC = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><script src="/socket.io/FILE"></script>
<script>io({ transports: ["polling"] }).on("text", (text) => { window.length_of_text = text.length; });</script>"""
MODULE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><script type="module">
import { io } from "/socket.io/FILE";
io({ transports: ["polling"] }).on("text", (text) => { window.length_of_text = text.length; });</script>"""


@pytest.mark.browser
@pytest.mark.skipif(find_chromium() is None, reason="no Chromium on PATH")
@pytest.mark.skipif(not CLIENT.is_dir(), reason=f"socket.io-client is not installed: run `npm ci` in {PROJECT}")
async def test_page_gets_client_and_compressed_polls_from_its_server(tmp_path: Path) -> None:
    pages = {"socket.io.js": CLASSIC, "socket.io.min.js": CLASSIC, "socket.io.esm.min.js": MODULE}
    public = tmp_path / "public"
    public.mkdir()
    for name, text in pages.items():
        (public / f"{name}.html").write_text(text.replace("FILE", name), encoding="utf-8")
    io = Server(serve_client=CLIENT, static_files=public)
    codings: list[str | None] = []

    @io.on("connection")
    async def greet(socket: Socket) -> None:
        await socket.emit("text", TEXT)

    @io.engine.on("headers")
    def note(headers: Headers, request: Request) -> None:
        codings.append(headers.get("content-encoding"))

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(io.serve_tcp, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        async with open_browser(tmp_path) as browser:
            for name in pages:
                page = await browser.new_page()
                await page.goto(f"http://127.0.0.1:{port}/{name}.html")
                assert await page.until("window.length_of_text") == len(TEXT)
                assert page.complaints == []
        nursery.cancel_scope.cancel()
    assert codings.count("gzip") == len(pages)
