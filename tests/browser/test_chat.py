"""The chat of `examples/chat`, used by people: two pages in a real browser, over real sockets."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
import trio

from .chromium import PATIENCE, find_chromium, open_browser

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .chromium import Browser, Page

ROOT = Path(__file__).parents[2]
CHAT = ROOT / "examples" / "chat"
SCREENSHOTS = "TRIO_SOCKETIO_SCREENSHOTS"  # names a directory that gets the screenshots as well
ENTER = ("Enter", 13, "\r")
BUNDLE = "node_modules/socket.io-client/dist"
CLIENTS = [
    directory
    for directory in (CHAT / BUNDLE, ROOT / "tests" / "js" / BUNDLE)
    if (directory / "socket.io.esm.min.js").is_file()
]

needs_client = pytest.mark.skipif(not CLIENTS, reason="no socket.io-client: `npm ci --prefix examples/chat` gets it")
needs_browser = pytest.mark.skipif(find_chromium() is None, reason="no Chromium on PATH")


def environment(client: Path) -> dict[str, str]:
    """What the script needs to run from this tree, installed or not, with the client of a directory."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "CHAT_CLIENT_DIR": str(client)}


def load_server(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, executed afresh, so that no test sees the people of another one."""
    monkeypatch.setenv("CHAT_CLIENT_DIR", str(CLIENTS[0]))
    spec = importlib.util.spec_from_file_location("chat_server", CHAT / "server.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@asynccontextmanager
async def serving(chat: Any, port: int = 0) -> AsyncIterator[int]:
    """Serve the chat on loopback; the value is the port."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(chat.io.serve_tcp, port, host="127.0.0.1"))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def shows(selector: str, text: str) -> str:
    """The expression for: one of these elements has exactly this text."""
    elements = f"[...document.querySelectorAll({json.dumps(selector)})]"
    return f"{elements}.some(element => element.textContent.trim() === {json.dumps(text)})"


def texts(selector: str) -> str:
    """The expression for the texts of these elements."""
    return f"[...document.querySelectorAll({json.dumps(selector)})].map(element => element.textContent)"


async def enter(browser: Browser, port: int, **query: str) -> Page:
    """Open the chat as the person, and in the room, that the query names."""
    page = await browser.new_page()
    await page.look(1280, 800)
    await page.goto(f"http://127.0.0.1:{port}/?{urlencode(query)}")
    await page.until(shows("#people .label", query["name"]))
    return page


async def say(page: Page, text: str) -> None:
    await page.click("#draft")
    await page.type(text)
    await page.press(*ENTER)
    await page.until(f"{shows('.own .bubble', text)} && !document.querySelector('.sending')")


async def keep(page: Page, directory: Path, name: str) -> None:
    """Take a screenshot into the test's directory, and where the environment wants it."""
    for place in (directory, *map(Path, filter(None, [os.environ.get(SCREENSHOTS)]))):
        await trio.Path(place).mkdir(parents=True, exist_ok=True)
        await page.screenshot(place / name)


@pytest.mark.browser
@needs_browser
@needs_client
async def test_two_pages_talk_to_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(load_server(monkeypatch)) as port, open_browser(tmp_path) as browser:
        ada = await enter(browser, port, name="Ada Lovelace", room="general")
        grace = await enter(browser, port, name="Grace Hopper", room="general")

        # Who is here.
        await ada.until(shows(".notice", "Grace Hopper joined"))
        await ada.until(shows("#room-summary", "2 people here"))
        assert await ada.evaluate(texts("#people .label")) == ["Ada Lovelace", "Grace Hopper"]
        assert await grace.evaluate(texts("#people .label")) == ["Grace Hopper", "Ada Lovelace"]

        # Both ways, in order; what looks like markup is text.
        await say(ada, "Has anybody looked at the card reader yet?")
        await grace.until(shows(".bubble", "Has anybody looked at the card reader yet?"))
        await say(grace, "Yes. It was a moth.")
        await say(grace, "It is taped into the log book now, <img src=x onerror=alert(1)> and all.")
        await ada.until(f"{texts('.bubble')}.length === 3")
        expected = [
            "Has anybody looked at the card reader yet?",
            "Yes. It was a moth.",
            "It is taped into the log book now, <img src=x onerror=alert(1)> and all.",
        ]
        assert await ada.evaluate(texts(".bubble")) == await grace.evaluate(texts(".bubble")) == expected
        assert await ada.evaluate(texts(".group:not(.own) .author")) == ["Grace Hopper"]
        assert await ada.evaluate("document.querySelectorAll('img').length") == 0

        # Who is typing; a message ends it.
        await grace.click("#draft")
        await grace.type("Wait, there")
        await ada.until(shows("#typing", "Grace Hopper is typing…"))
        for name, size, options in (
            ("light.png", (1280, 800), {}),
            ("dark.png", (1280, 800), {"dark": True}),
            ("phone.png", (390, 844), {"phone": True}),
        ):
            await ada.look(*size, **options)
            await keep(ada, tmp_path, name)
        await ada.look(1280, 800)
        await grace.press(*ENTER)
        await ada.until(shows(".bubble", "Wait, there"))
        await ada.until(shows("#typing", ""))

        # Another room: what is said in the first one is counted, and still there on return.
        await grace.type("one mo")
        await ada.until(shows("#typing", "Grace Hopper is typing…"))
        await grace.click("#room-name")
        await grace.type("Moth Hunting")
        await grace.press(*ENTER)
        await grace.until(shows("#room-title", "# moth-hunting"))
        await ada.until(shows("#other-rooms .label", "moth-hunting"))
        await say(ada, "And the relay?")
        await grace.until(shows("#your-rooms .badge", "1 unread"))
        await grace.press("ArrowUp", 38, modifiers=1)
        await grace.until(shows("#room-title", "# general"))
        assert await grace.evaluate(texts(".bubble")) == [*expected, "Wait, there", "And the relay?"]
        assert await grace.evaluate("document.querySelector('#draft').value") == "one mo"
        assert await grace.evaluate("document.querySelector('.badge')") is None
        await ada.until(shows("#typing", ""))  # nothing was sent: believed for a while, then forgotten

        # One goes.
        assert grace.complaints == []
        await grace.close()
        await ada.until(shows(".notice", "Grace Hopper left"))
        await ada.until(shows("#room-summary", "Only you so far"))
        await ada.until(f"!{shows('#other-rooms .label', 'moth-hunting')}")  # a room that nobody is in is gone
        assert ada.complaints == []


@pytest.mark.browser
@needs_browser
@needs_client
async def test_a_name_is_asked_for_and_refused_while_somebody_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(load_server(monkeypatch)) as port, open_browser(tmp_path) as browser:
        first = await enter(browser, port, name="Ada", room="general")
        second = await browser.new_page()
        await second.look(1280, 800)
        await second.goto(f"http://127.0.0.1:{port}/?room=help")
        await second.until("document.activeElement.id === 'name'")
        await keep(second, tmp_path, "card.png")
        await second.type("  ADA ")
        await second.press(*ENTER)
        await second.until(shows("#join-error", "Somebody here is already called ADA. Choose another name?"))

        await second.evaluate("document.querySelector('#name').select()")
        await second.type("Grace")
        await second.click("#join .primary")
        await second.until(shows("#room-title", "# help"))
        await first.until(shows("#other-rooms button", "#help1 here"))

        await second.command("Page.reload")  # the same tab is the same person
        await second.until(shows("#people .label", "Grace"))
        assert await second.evaluate("document.querySelector('#room-title').textContent") == "# help"
        assert first.complaints == []
        # A client that is refused hangs up in the middle of its upgrade; a poll of its may then find no session.
        assert [text for text in second.complaints if "transport=polling" not in text] == []


@pytest.mark.browser
@needs_browser
@needs_client
async def test_a_copy_of_a_tab_takes_its_name_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(load_server(monkeypatch)) as port, open_browser(tmp_path) as browser:
        original = await enter(browser, port, name="Ada", room="general")
        copy = await browser.new_page()
        await copy.goto(f"http://127.0.0.1:{port}/")
        await copy.until("document.activeElement.id === 'name'")
        storage = await original.evaluate("JSON.stringify(sessionStorage)")
        await copy.evaluate(f"Object.assign(sessionStorage, {storage})")
        await copy.command("Page.reload")
        await copy.until(shows("#people .label", "Ada"))

        await original.until(shows("#banner-text", "You have come in from another tab."))
        assert await copy.evaluate(texts("#people .label")) == ["Ada"]
        await original.click("#banner-action")
        await original.until(shows("#state", "Online"))
        await copy.until(shows("#state", "Signed out"))
        assert original.complaints == copy.complaints == []


@pytest.mark.browser
@needs_browser
@needs_client
async def test_a_page_finds_its_rooms_again_when_the_server_has_been_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_browser(tmp_path) as browser:
        async with serving(load_server(monkeypatch)) as port:
            ada = await enter(browser, port, name="Ada", room="general")
            await ada.click("#room-name")
            await ada.type("engine")
            await ada.press(*ENTER)
            await ada.until(shows("#room-title", "# engine"))
        await ada.until(shows("#banner", "The connection is lost. Trying again…Use it here"))
        await ada.click("#draft")
        await ada.type("Written while away")
        await ada.press(*ENTER)  # kept, not sent

        async with serving(load_server(monkeypatch), port):
            await ada.until(shows("#state", "Online"))
            grace = await enter(browser, port, name="Grace", room="engine")
            await ada.until(shows(".notice", "Grace joined"))
            await ada.click("#send")
            await grace.until(shows(".bubble", "Written while away"))
            assert await grace.evaluate(texts("#people .label")) == ["Grace", "Ada"]
            assert await ada.evaluate(texts("#your-rooms .label")) == ["general", "engine"]
            assert grace.complaints == []


@needs_client
async def test_the_script_serves_the_page_at_the_address_that_it_prints() -> None:
    command = [sys.executable, str(CHAT / "server.py"), "--port", "0", "--host", "127.0.0.1"]
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            partial(trio.run_process, command, stdout=subprocess.PIPE, env=environment(CLIENTS[0]), check=False)
        )
        assert process.stdout is not None
        with trio.fail_after(PATIENCE):
            line = (await process.stdout.receive_some()).decode()
            port = int(line.split("http://127.0.0.1:")[1].split("/")[0])
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with stream:
                await stream.send_all(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
                answer = b"".join([chunk async for chunk in stream])
        nursery.cancel_scope.cancel()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"<title>Parlour</title>" in answer


async def test_without_the_client_bundle_the_script_says_how_to_get_it(tmp_path: Path) -> None:
    with trio.fail_after(PATIENCE):
        result = await trio.run_process(
            [sys.executable, str(CHAT / "server.py")],
            env=environment(tmp_path),
            capture_stderr=True,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr.decode().count("\n") == 1
    assert "npm ci --prefix" in result.stderr.decode()
