"""Drive a headless Chromium from Trio, over its DevTools protocol and a trio-websocket client.

    async with open_browser(tmp_path) as browser:
        page = await browser.new_page()
        await page.goto("http://127.0.0.1:3000/")
        await page.until("document.title === 'Parlour'")

Every wait has an end (`PATIENCE`), and the process that was started is ended by its id, whatever happens inside.
"""

from __future__ import annotations

import json
import shutil
from base64 import b64decode
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, connect_websocket_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PATIENCE = 30.0  # seconds, for everything that a page is expected to do
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-background-timer-throttling",  # the page behind must run as fast as the one in front
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--no-default-browser-check",
    "--no-first-run",
    "--remote-debugging-port=0",
)


def find_chromium() -> str | None:
    """The first browser on PATH that speaks the protocol, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class DevToolsError(Exception):
    """The browser refused a command, or an expression threw."""


class Page:
    """One tab, in a browser context (cookies, storage) of its own.

    Attributes:
        complaints: What the page reported as errors: to the console, by throwing, or as failed requests.
    """

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self.complaints: list[str] = []
        self._browser = browser
        self._target = target
        self._session = session

    async def command(self, method: str, **params: Any) -> Any:
        """One command of the protocol, to this tab."""
        return await self._browser.command(method, self._session, **params)

    async def goto(self, url: str) -> None:
        """Start to load a page; follow with `until`."""
        await self.command("Page.navigate", url=url)

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited.

        Raises:
            DevToolsError: It threw.
        """
        answer = await self.command("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise DevToolsError(describe(answer["exceptionDetails"]))
        return answer["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Wait for a JavaScript expression to be truthy, and give its value.

        Raises:
            AssertionError: It was not within `PATIENCE`; the text has what the page shows instead.
        """
        # Truth is JavaScript's: an element is true there, and an empty object here.
        boxed = f"(async () => {{ const value = await ({expression}); return value ? [value] : []; }})()"
        with trio.move_on_after(PATIENCE):
            while True:
                if box := await self._try(boxed):
                    return box[0]
                await trio.sleep(0.02)
        shown = await self.evaluate("document.body?.innerText")
        raise AssertionError(f"never true: {expression}\ncomplaints: {self.complaints}\nthe page shows:\n{shown}")

    async def _try(self, expression: str) -> Any:
        try:
            return await self.evaluate(expression)
        except DevToolsError:  # what it names is not there yet, or the page is just being replaced
            return []

    async def click(self, selector: str) -> None:
        """Click the middle of an element, as a mouse does: what covers it gets the click."""
        element = f"document.querySelector({json.dumps(selector)})"
        middle = f"(box => [box.x + box.width / 2, box.y + box.height / 2])({element}.getBoundingClientRect())"
        x, y = await self.until(f"{element}?.checkVisibility() && {middle}")
        for kind in ("mousePressed", "mouseReleased"):
            await self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def type(self, text: str) -> None:
        """Insert text where the focus is."""
        await self.command("Input.insertText", text=text)

    async def press(self, key: str, code: int, text: str = "", modifiers: int = 0) -> None:
        """Press and release a key: its name, its Windows key code, what it types, and 1 for Alt or 8 for Shift."""
        shared = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        await self.command("Input.dispatchKeyEvent", type="keyDown", text=text, **shared)
        await self.command("Input.dispatchKeyEvent", type="keyUp", **shared)

    async def look(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        """Set the size of the page (CSS pixels) and the colour scheme that the user prefers."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.command("Emulation.setEmulatedMedia", features=[scheme])
        metrics = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        await self.command("Emulation.setDeviceMetricsOverride", **metrics)

    async def screenshot(self, path: Path) -> None:
        """Write what is on show as a PNG, once its animations are over."""
        await self.until("document.getAnimations().every(a => a.effect.getTiming().iterations === Infinity)")
        image = await self.command("Page.captureScreenshot", format="png")
        await trio.Path(path).write_bytes(b64decode(image["data"]))

    async def close(self) -> None:
        """Close the tab, as a user would."""
        await self._browser.command("Target.closeTarget", targetId=self._target)


class Browser:
    """A running browser; made by `open_browser`."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self._connection = connection
        self._answers: dict[int, trio.MemorySendChannel[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}
        self._commands = 0

    async def command(self, method: str, session: str | None = None, **params: Any) -> Any:
        """One command of the protocol, and its result.

        Raises:
            DevToolsError: The browser refused it.
            trio.TooSlowError: No answer within `PATIENCE`.
        """
        self._commands += 1
        number = self._commands
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        self._answers[number], answers = trio.open_memory_channel[dict[str, Any]](1)
        try:
            with trio.fail_after(PATIENCE):
                await self._connection.send_message(json.dumps(message))
                answer = await answers.receive()
        finally:
            del self._answers[number]
        if "error" in answer:
            raise DevToolsError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    async def new_page(self) -> Page:
        """Open an empty tab in a new context."""
        context = (await self.command("Target.createBrowserContext"))["browserContextId"]
        target = (await self.command("Target.createTarget", url="about:blank", browserContextId=context))["targetId"]
        session = (await self.command("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        page = self._pages[session] = Page(self, target, session)
        for domain in ("Page", "Runtime", "Log"):
            await page.command(f"{domain}.enable")
        await page.command("Emulation.setFocusEmulationEnabled", enabled=True)
        return page

    async def read(self) -> None:
        """Hand out answers and complaints until the connection ends."""
        while True:
            try:
                message = json.loads(await self._connection.get_message())
            except ConnectionClosed:
                return
            if waiting := self._answers.get(message.get("id")):
                waiting.send_nowait(message)
            elif (page := self._pages.get(message.get("sessionId"))) and (text := complaint(message)):
                page.complaints.append(text)


def complaint(message: dict[str, Any]) -> str | None:
    """The text of an event that reports an error, else None."""
    params = message.get("params", {})
    match message.get("method"):
        case "Runtime.exceptionThrown":
            return describe(params["exceptionDetails"])
        case "Runtime.consoleAPICalled" if params["type"] in ("error", "assert"):
            return " ".join(str(value.get("value", value.get("description"))) for value in params["args"])
        case "Log.entryAdded" if params["entry"]["level"] == "error":
            return f"{params['entry']['text']} {params['entry'].get('url', '')}"
        case _:
            return None


def describe(details: dict[str, Any]) -> str:
    """The text of an exception in the page."""
    return str(details.get("exception", {}).get("description", details["text"]))


@asynccontextmanager
async def open_browser(directory: Path) -> AsyncIterator[Browser]:
    """Run a browser with a fresh profile in a directory, for as long as the block lasts.

    Raises:
        FileNotFoundError: There is none; ask `find_chromium` first.
        trio.TooSlowError: It did not start within `PATIENCE`.
    """
    executable = find_chromium()
    if executable is None:
        raise FileNotFoundError(f"none of {', '.join(NAMES)} is on PATH")
    profile = directory / "profile"
    command = [executable, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    with (directory / "chromium.log").open("wb") as log:
        run = partial(trio.run_process, command, stdout=log, stderr=log, check=False)
        async with trio.open_nursery() as nursery:
            await nursery.start(run)
            with trio.fail_after(PATIENCE):
                port, path = await _debugging_address(trio.Path(profile) / "DevToolsActivePort")
                url = f"ws://127.0.0.1:{port}{path}"
                connection = await connect_websocket_url(nursery, url, max_message_size=64 * 2**20)
            browser = Browser(connection)
            nursery.start_soon(browser.read)
            try:
                yield browser
            finally:
                with trio.move_on_after(2, shield=True):
                    await connection.aclose()
                # Ends the process too: Trio terminates it by its id, and kills it if that takes more than five seconds.
                nursery.cancel_scope.cancel()


async def _debugging_address(file: trio.Path) -> tuple[int, str]:
    """Wait for the browser to write down where it listens."""
    while True:
        if await file.exists() and len(lines := (await file.read_text()).split()) == 2:
            return int(lines[0]), lines[1]
        await trio.sleep(0.02)
