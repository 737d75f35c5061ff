"""The ordinary JavaScript client, in Node, driven from Trio.

`open_driver` starts one Node process, in which any number of `socket.io-client` sockets live; `talk_to` takes one that
is there already, as the fixture ``js`` does: a process for each test would be a fifth of all that the tests do.

What a client sees is recorded in the order in which it saw it: the server's events under their own names, and besides
them ``connect``, ``connect_error`` (message, data, details), ``disconnect`` (reason, details), ``engine.upgrade``
(transport), ``manager.reconnect_attempt`` (number), ``manager.reconnect`` (number) and ``manager.reconnect_failed``.
`Client.wait_for` gives each record once, in order: nothing is missed between two waits, nothing is seen twice.

::

    async with open_driver() as js:
        client = await js.connect(url, transports=["websocket"])
        await client.emit("chat", "hello", b"bytes")
        assert await client.wait_for("chat") == ("hello", b"bytes")

Every wait ends after `PATIENCE` seconds, with an error that shows what did arrive and what Node wrote to stderr. Node
lives in real time, so this cannot be used under a `trio.testing.MockClock`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from base64 import b64decode, b64encode
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import trio
from trio.testing import MockClock

from trio_socketio._errors import plain_exceptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    DriverT = TypeVar("DriverT", bound="Driver")

PATIENCE = 20.0
PROJECT = Path(__file__).parent / "js"
NODE_VARIABLE = "TRIO_SOCKETIO_NODE"


class NodeMissing(Exception):
    """There is no Node.js, or the client is not installed; the text says what to do."""


class DriverError(Exception):
    """The driver refused a command, died, or what was waited for did not come."""


class AckError(Exception):
    """The client gave up waiting for an acknowledgement; the text is the client's."""


class ConnectError(Exception):
    """The server refused the client: ``args`` are (message, data, details)."""


class Event(NamedTuple):
    """Something that a client saw."""

    name: str
    args: tuple[Any, ...] = ()
    wants_ack: bool = False


class State(NamedTuple):
    """What the client says of itself."""

    connected: bool
    active: bool
    id: str | None
    recovered: bool
    transport: str | None


def find_node() -> str:
    """The Node.js to use: the one named by the environment, or else the first on PATH.

    Raises:
        NodeMissing: There is none, or ``npm ci`` has not run.
    """
    node = shutil.which(os.environ.get(NODE_VARIABLE, "node"))
    if node is None:
        raise NodeMissing(f"no Node.js: put `node` on PATH, or its path into {NODE_VARIABLE}")
    for package in json.loads((PROJECT / "package.json").read_text())["dependencies"]:
        if not (PROJECT / "node_modules" / package).is_dir():
            raise NodeMissing(f"{package} is not installed: run `npm ci` in {PROJECT}")
    return node


def to_json(value: Any) -> Any:
    """Bytes, at any depth, as ``{"$binary": base64}``."""
    if isinstance(value, bytes | bytearray | memoryview):
        return {"$binary": b64encode(value).decode()}
    if isinstance(value, list | tuple):
        return [to_json(entry) for entry in value]
    if isinstance(value, dict):
        return {key: to_json(entry) for key, entry in value.items()}
    return value


def from_json(value: Any) -> Any:
    """The inverse of `to_json`."""
    if isinstance(value, list):
        return [from_json(entry) for entry in value]
    if isinstance(value, dict):
        if "$binary" in value:
            return b64decode(value["$binary"])
        return {key: from_json(entry) for key, entry in value.items()}
    return value


@contextmanager
def start_node(script: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Node process, which outlives the runs of Trio that use it; it is gone when the context ends.

    Raises:
        NodeMissing: There is no Node.js, or ``npm ci`` has not run.
    """
    pipe = subprocess.PIPE
    command = [find_node(), str(PROJECT / script), *arguments]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


class Pipes:
    """A process and its pipes, for one run of Trio."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.stdin, self.stdout, self.stderr = (
            trio.lowlevel.FdStream(os.dup(cast("Any", pipe).fileno()))
            for pipe in (process.stdin, process.stdout, process.stderr)
        )

    async def wait(self) -> int:
        """Wait until the process has ended."""
        return await trio.to_thread.run_sync(self.process.wait, abandon_on_cancel=True)

    async def aclose(self) -> None:
        """Leave the process alone."""
        for stream in (self.stdin, self.stdout, self.stderr):
            await stream.aclose()


@asynccontextmanager
async def driving(process: subprocess.Popen[bytes], kind: type[DriverT]) -> AsyncIterator[DriverT]:
    """What commands a process, until the context ends; the process goes on."""
    if isinstance(trio.lowlevel.current_clock(), MockClock):
        raise RuntimeError("Node lives in real time: a test with the JavaScript client cannot have a MockClock")
    pipes = Pipes(process)
    try:
        with plain_exceptions():
            async with trio.open_nursery() as nursery:
                driver = kind(pipes)
                nursery.start_soon(driver._read_lines)
                nursery.start_soon(driver._read_stderr)
                yield driver
                nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await pipes.aclose()


@asynccontextmanager
async def open_driver() -> AsyncIterator[Driver]:
    """Start Node with the driver; it is gone, and all its clients with it, when the context ends.

    Raises:
        NodeMissing: There is no Node.js, or ``npm ci`` has not run.
        DriverError: It did not start.
    """
    with start_node("driver.mjs") as process:
        async with driving(process, Driver) as driver:
            await driver.call("ping")
            yield driver


@asynccontextmanager
async def talk_to(process: subprocess.Popen[bytes]) -> AsyncIterator[Driver]:
    """Use a driver that runs already; at the end all its clients are gone. If that is not certain, the process is."""
    clean = False
    try:
        async with driving(process, Driver) as driver:
            yield driver
            await driver.call("reset")
            clean = True
    finally:
        if not clean:
            process.kill()


#: Of all commands, in whichever process: an answer that nobody waits for any more is not taken for another one.
_calls = count(1)


class Driver:
    """A running Node process; made by `open_driver` and `talk_to`."""

    def __init__(self, pipes: Pipes) -> None:
        self.process = pipes.process
        self._pipes = pipes
        self._clients: list[Client] = []
        self._answers: dict[int, dict[str, Any]] = {}
        self._stderr = b""
        self._ended = False
        self._changed = trio.Event()
        self._writing = trio.Lock()

    async def open(self, url: str, namespace: str = "/", *, version: int = 4, **options: Any) -> Client:
        """Make a client, and do not wait for its connection.

        Args:
            url: The server's, such as ``http://127.0.0.1:3000``.
            namespace: What to connect to.
            version: That of the client library: 4, or 2, which has less: no times for acknowledgements, and ``error``
                (what it was told) when a namespace refuses it.
            **options: The JavaScript client's own options by their own names, times in milliseconds. Here, unless told
                otherwise, a client has a session of its own (``forceNew``) and does not reconnect (``reconnection``).
        """
        client = Client(self, len(self._clients))
        self._clients.append(client)
        options = {"forceNew": True, "reconnection": False} | options
        details = {"namespace": namespace, "options": to_json(options), "version": version}
        await client._command("open", url=url.rstrip("/"), **details)
        return client

    async def connect(self, url: str, namespace: str = "/", **options: Any) -> Client:
        """The same, and wait until it is connected.

        Raises:
            ConnectError: At once when the server refuses.
        """
        client = await self.open(url, namespace, **options)
        await client.connected()
        return client

    async def call(self, command: str, *, patience: float = PATIENCE, **details: Any) -> Any:
        """Have the driver do something, and wait for its answer.

        Raises:
            DriverError: The driver refused, has died, or did not answer in time.
        """
        call = next(_calls)
        line = json.dumps({"call": call, "do": command, **details}) + "\n"
        try:
            async with self._writing:
                await self._pipes.stdin.send_all(line.encode())
        except trio.BrokenResourceError:
            raise self._error(f"the driver is gone; it was to do {command!r}") from None
        await self._wait_until(lambda: call in self._answers, f"the answer to {command!r}", patience)
        answer = self._answers.pop(call)
        if "error" in answer:
            raise DriverError(f"{command}: {answer['error']}")
        return from_json(answer["result"]) if "result" in answer else None

    async def _wait_until(self, condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
        with trio.move_on_after(patience):
            while not condition():
                if self._ended:
                    raise self._error(f"the driver ended before {what} came")
                await self._changed.wait()
            return
        raise self._error(f"{what} did not come within {patience:g} seconds")

    def _error(self, text: str) -> DriverError:
        lines = [text, *(f"  {client!r} saw {client._summary()}" for client in self._clients)]
        if self._stderr:
            lines += ["  stderr of Node:", self._stderr.decode(errors="replace")]
        return DriverError("\n".join(lines))

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _read_lines(self) -> None:
        rest = b""
        async for chunk in self._pipes.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._dispatch(json.loads(line))
            self._notify()
        with trio.move_on_after(1):  # the last words on stderr explain the end
            await self._pipes.wait()
        self._ended = True
        self._notify()

    async def _read_stderr(self) -> None:
        async for chunk in self._pipes.stderr:
            self._stderr += chunk

    def _dispatch(self, line: dict[str, Any]) -> None:
        if "call" in line:
            self._answers[line["call"]] = line
        else:
            event = Event(line["event"], tuple(from_json(line["args"])), line["wantsAck"])
            self._clients[line["client"]]._record(event)


class Client:
    """One socket of the JavaScript client; made by `Driver.open`, `Driver.connect` and `Client.join`.

    Attributes:
        events: All that it saw so far, in order.
    """

    def __init__(self, driver: Driver, number: int) -> None:
        self.events: list[Event] = []
        self._driver = driver
        self._number = number
        self._unseen: dict[str, list[Event]] = {}

    async def join(self, namespace: str, **options: Any) -> Client:
        """Make a client of another namespace over the same session, and do not wait for its connection."""
        client = Client(self._driver, len(self._driver._clients))
        self._driver._clients.append(client)
        await client._command("join", sibling=self._number, namespace=namespace, options=to_json(options))
        return client

    async def connected(self) -> None:
        """Wait for ``connect``.

        Raises:
            ConnectError: ``connect_error`` came first.
        """
        first = await self._next("connect", "connect_error")
        if first.name == "connect_error":
            raise ConnectError(*first.args)

    async def emit(self, event: str, *args: Any, volatile: bool = False) -> None:
        """Emit; returns when the client has taken it, not when it has sent it."""
        await self._command("emit", event=event, args=to_json(args), volatile=volatile)

    async def emit_with_ack(self, event: str, *args: Any, ack_timeout: float | None = None) -> tuple[Any, ...]:
        """Emit, and wait for the acknowledgement.

        Args:
            event: The event's name.
            *args: Its arguments.
            ack_timeout: Seconds after which the client itself gives up; with None it never does.

        Returns:
            The arguments of the acknowledgement.

        Raises:
            AckError: The client gave up: its time was over, or it was disconnected (only if it has an `ack_timeout`).
        """
        milliseconds = None if ack_timeout is None else ack_timeout * 1000
        details = {"event": event, "args": to_json(args), "timeout": milliseconds}
        try:
            return tuple(await self._command("emitWithAck", **details))
        except DriverError as error:
            if ack_timeout is None:
                raise
            raise AckError(str(error)) from None

    async def bulk(self, event: str, count: int, *, interval: float | None = None) -> None:
        """Emit `count` events with the arguments 0, 1, 2 ...; returns when the last was emitted.

        Args:
            event: Their name.
            count: How many.
            interval: Seconds between two; None emits them all in one go.
        """
        milliseconds = None if interval is None else interval * 1000
        patience = PATIENCE + 2 * count * (interval or 0)
        await self._command("bulk", event=event, count=count, interval=milliseconds, patience=patience)

    async def reply(self, event: str, *args: Any) -> None:
        """From now on, acknowledge this event with these arguments; without a reply it is never acknowledged."""
        await self._command("reply", event=event, reply=to_json(args))

    async def echo(self, event: str) -> None:
        """From now on, acknowledge this event with its own arguments."""
        await self._command("reply", event=event, reply="echo")

    async def reconnect(self, url: str | None = None) -> None:
        """Connect again after a disconnection, to another server if a URL is given, and wait for it."""
        if url is not None:
            await self._command("move", url=url)
        await self._command("connect")
        await self.connected()

    async def disconnect(self) -> None:
        """Leave the namespace; the session ends with its last namespace."""
        await self._command("disconnect")

    async def close_engine(self) -> None:
        """Close the Engine.IO session, politely, under the feet of its namespaces."""
        await self._command("closeEngine")

    async def drop(self) -> None:
        """Cut the transport without a word, as a lost network does."""
        await self._command("drop")

    async def state(self) -> State:
        """What the client says of itself now."""
        return State(**await self._command("state"))

    async def wait_for(self, name: str, *, patience: float = PATIENCE) -> tuple[Any, ...]:
        """The arguments of the next event of this name that was not yet waited for.

        Raises:
            DriverError: It did not come within `patience` seconds, or Node died.
        """
        return (await self._next(name, patience=patience)).args

    async def wait_for_many(self, name: str, count: int, *, patience: float = PATIENCE) -> list[tuple[Any, ...]]:
        """The same for the next `count` events of this name, in order; `patience` is for all of them."""
        unseen = self._unseen.setdefault(name, [])
        await self._driver._wait_until(
            lambda: len(unseen) >= count, f"{count} events {name!r} for {self!r}", patience=patience
        )
        taken = unseen[:count]
        del unseen[:count]
        return [event.args for event in taken]

    async def _next(self, *names: str, patience: float = PATIENCE) -> Event:
        def arrived() -> str | None:
            return next((name for name in names if self._unseen.get(name)), None)

        what = " or ".join(map(repr, names))
        await self._driver._wait_until(lambda: arrived() is not None, f"{what} for {self!r}", patience)
        name = arrived()
        assert name is not None
        return self._unseen[name].pop(0)

    def _record(self, event: Event) -> None:
        self.events.append(event)
        self._unseen.setdefault(event.name, []).append(event)

    async def _command(self, command: str, **details: Any) -> Any:
        return await self._driver.call(command, client=self._number, **details)

    def _summary(self) -> str:
        if not self.events:
            return "nothing"
        counts = ", ".join(f"{name} x{count}" for name, count in Counter(event.name for event in self.events).items())
        last = "".join(f"\n    {event.name}{event.args!r:.200}" for event in self.events[-5:])
        return f"{counts}; the last ones:{last}"

    def __repr__(self) -> str:
        return f"<JS client {self._number}>"
