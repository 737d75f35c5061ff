"""A page that polls by scripts and posts by forms: the client of version 2 with ``forceJSONP``, in a real browser."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from trio_socketio import Server
from trio_socketio.engineio import Engine

from ..js_client import PROJECT
from .chromium import find_chromium, open_browser

if TYPE_CHECKING:
    from pathlib import Path

    from trio_socketio import Headers, Request, Socket

CLIENT = PROJECT / "node_modules" / "socket.io-client-v2" / "dist"
TEXTS = ["plain", "a\nb\\n\\\\nc", "\u2028\u2029 \x00\x1f", 'é€\U0001f600 "</script>', "1:4&d=x+y %20", "x" * 50_000]
BLOB = bytes(range(256))

PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><script src="/v2/socket.io.js"></script>
<script>
const socket = io("URL", { forceJSONP: true, transports: ["polling"] });
socket.on("ask", (...args) => args.pop()(...args));
socket.on("done", () => socket.close());
socket.on("disconnect", (reason) => { window.ended = reason; });
</script>"""


@pytest.mark.browser
@pytest.mark.skipif(find_chromium() is None, reason="no Chromium on PATH")
@pytest.mark.skipif(not CLIENT.is_dir(), reason=f"socket.io-client 2 is not installed: run `npm ci` in {PROJECT}")
@pytest.mark.parametrize("foreign", [False, True], ids=["page of the server", "page of an admitted origin"])
async def test_page_that_can_only_load_scripts_and_submit_forms_is_a_client_like_others(
    tmp_path: Path, foreign: bool
) -> None:
    public = tmp_path / "public"
    public.mkdir()
    files = {"/": public, "/v2": CLIENT}
    pages = Engine(static_files=files)
    async with trio.open_nursery() as nursery:
        [page_listener] = await nursery.start(partial(pages.serve_tcp, 0, host="127.0.0.1"))
        site = f"http://127.0.0.1:{page_listener.socket.getsockname()[1]}"
        io = Server(allow_eio3=True, static_files=files, cors=[site] if foreign else None)
        requests: set[tuple[str, bool]] = set()
        answers: list[object] = []

        @io.engine.on("headers")
        def note(headers: Headers, request: Request) -> None:
            requests.add((request.method, "j" in request.query))

        @io.on("connection")
        async def connected(socket: Socket) -> None:
            for text in TEXTS:
                answers.append(await socket.emit_with_ack("ask", text, {"deep": [text, BLOB]}))
            await socket.emit("done")

        [listener] = await nursery.start(partial(io.serve_tcp, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        (public / "index.html").write_text(PAGE.replace('"URL"', json.dumps(url)), encoding="utf-8")
        async with open_browser(tmp_path) as browser:
            page = await browser.new_page()
            await page.goto(f"{site if foreign else url}/")
            assert await page.until("window.ended") == "io client disconnect"
            assert page.complaints == []
        assert answers == [(text, {"deep": [text, BLOB]}) for text in TEXTS]
        assert requests == {("GET", True), ("POST", True)}
        nursery.cancel_scope.cancel()
