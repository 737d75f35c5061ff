"""The real command, in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from trio_socketio._cli import main

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

MODULE = """
from trio_socketio import Server
from trio_socketio.engineio import Engine

io = Server()
engine = Engine(path="/eio")
number = 5

class Settings:
    server = io

def make():
    return Server()
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The current directory of the command."""
    (tmp_path / "chat.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("import no_such_module_at_all\n")
    (tmp_path / "failing.py").write_text("raise RuntimeError('not today')\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "app.py").write_text(MODULE)
    return tmp_path


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": ROOT, "PYTHONUNBUFFERED": "1"}


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [sys.executable, "-m", "trio_socketio", *arguments]
    return subprocess.run(
        command, cwd=directory, env=environment(), capture_output=True, text=True, timeout=30, check=False
    )


@asynccontextmanager
async def serving(directory: Path, *arguments: str) -> AsyncIterator[tuple[trio.Process, str]]:
    """Run the command until the test ends it; the first line of its output is the second value."""
    command = [sys.executable, "-m", "trio_socketio", "run", *arguments]
    start = partial(trio.run_process, command, cwd=directory, env=environment(), check=False, stdout=subprocess.PIPE)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            process = await nursery.start(start)
            line = b""
            while not line.endswith(b"\n"):
                part = await process.stdout.receive_some(1)
                assert part, "the command ended before it served"
                line += part
            yield process, line.decode()
            process.kill()  # a test that wants it to end by itself has waited


def port_of(line: str) -> int:
    return int(line.split("://")[1].split("/")[0].rpartition(":")[2])


async def handshake(port: int, path: str = "/socket.io/", context: ssl.SSLContext | None = None) -> bytes:
    target = f"{path}?EIO=4&transport=polling"
    stream: trio.abc.Stream
    if context is None:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    else:
        stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", port, ssl_context=context, https_compatible=True)
    async with stream:
        await stream.send_all(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return b"".join([part async for part in stream])


@pytest.mark.parametrize(
    ("application", "protocol", "path"),
    [
        ("chat:io", "Socket.IO", "/socket.io/"),
        ("chat:Settings.server", "Socket.IO", "/socket.io/"),
        ("package.app:io", "Socket.IO", "/socket.io/"),
        ("chat:engine", "Engine.IO", "/eio/"),
    ],
)
async def test_server_of_a_module_is_served(directory: Path, application: str, protocol: str, path: str) -> None:
    async with serving(directory, application, "--port", "0") as (_, line):
        answer = await handshake(port_of(line), path)
    assert line == f"Serving {protocol} on http://127.0.0.1:{port_of(line)}{path}\n"
    assert b'0{"sid":' in answer


async def test_garbage_collector_leaves_alone_what_was_there_before(directory: Path) -> None:
    program = (
        "import gc, chat\n"
        "from trio_socketio.engineio import Engine\n"
        "engine = Engine(initial_packet=None)\n"
        "engine.generate_id = lambda request: f'{gc.get_threshold()[0]}-{gc.get_freeze_count() > 1000}'\n"
    )
    (directory / "looking.py").write_text(program)
    async with serving(directory, "looking:engine", "--port", "0") as (_, line):
        answer = await handshake(port_of(line), "/engine.io/")
    assert b'"sid":"10000-True"' in answer


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signal_ends_it_with_status_0_and_clients_are_told(directory: Path, number: signal.Signals) -> None:
    async with serving(directory, "chat:io", "--port", "0") as (process, line):
        answer = await handshake(port_of(line))
        sid = answer.partition(b'"sid":"')[2].partition(b'"')[0].decode()
        async with await trio.open_tcp_stream("127.0.0.1", port_of(line)) as stream:
            target = f"/socket.io/?EIO=4&transport=polling&sid={sid}"
            await stream.send_all(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            await trio.sleep(0.2)  # for the poll to be there: another process
            process.send_signal(number)
            poll = await stream.receive_some(10_000)
        status = await process.wait()
    assert poll.endswith(b"\r\n\r\n1")
    assert status == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
async def test_second_signal_does_not_wait_for_clients(directory: Path) -> None:
    async with serving(directory, "chat:io", "--port", "0") as (process, line):
        await handshake(port_of(line))  # this client never polls, so it would be waited for
        process.send_signal(signal.SIGINT)
        with trio.move_on_after(0.3):
            await process.wait()
        assert process.returncode is None
        process.send_signal(signal.SIGINT)
        with trio.fail_after(20):
            assert await process.wait() == 0


async def test_https_is_served_with_a_certificate(directory: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(str(directory / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(directory / "key.pem"))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    files = ("--ssl-certfile", "cert.pem", "--ssl-keyfile", "key.pem")
    async with serving(directory, "chat:io", "--port", "0", *files) as (_, line):
        answer = await handshake(port_of(line), context=context)
    assert line == f"Serving Socket.IO on https://127.0.0.1:{port_of(line)}/socket.io/\n"
    assert b'0{"sid":' in answer


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "the following arguments are required: command"),
        (["run"], "the following arguments are required: module:io"),
        (["walk", "chat:io"], "invalid choice: 'walk'"),
        (["run", "chat:io", "--prot", "5"], "unrecognized arguments: --prot 5"),
        (["run", "chat"], "'chat' is not of the form module:attribute, such as chat:io"),
        (["run", "chat:"], "'chat:' is not of the form module:attribute"),
        (["run", ":io"], "':io' is not of the form module:attribute"),
        (["run", "../chat:io"], "'../chat:io' is not of the form module:attribute"),
        (["run", "chat:make()"], "'chat:make()' is not of the form module:attribute"),
        (["run", "chatt:io"], "there is no module 'chatt' in "),
        (["run", "package.missing:io"], "there is no module 'package.missing' in "),
        (["run", "missing.app:io"], "there is no module 'missing' in "),
        (["run", "chat.py:io"], "give the module without .py: chat:io"),
        (["run", "chat:engin"], "module 'chat' has no attribute 'engin'; did you mean 'engine'?"),
        (["run", "chat:application"], "module 'chat' has no attribute 'application'; did you mean 'engine' or 'io'?"),
        (["run", "chat:Settings.servr"], "'Settings' has no attribute 'servr'; did you mean 'server'?"),
        (["run", "chat:number"], "'chat:number' is not a Server or an Engine, but of type 'int'"),
        (["run", "chat:make"], "'chat:make' is not a Server or an Engine, but 'make', which is something to call"),
        (["run", "chat:io", "--port", "65536"], "argument --port: '65536' is not a port: 0 to 65535"),
        (["run", "chat:io", "--port", "-1"], "argument --port: '-1' is not a port: 0 to 65535"),
        (["run", "chat:io", "--port", "http"], "argument --port: 'http' is not a port: 0 to 65535"),
        (["run", "chat:io", "--host", "no such host"], "--host: cannot resolve 'no such host': "),
        (["run", "chat:io", "--host", "192.0.2.1"], "--host: '192.0.2.1' is not an address of this machine"),
        (["run", "chat:io", "--ssl-keyfile", "chat.py"], "HTTPS needs both --ssl-certfile and --ssl-keyfile"),
        (["run", "chat:io", "--ssl-certfile", "chat.py"], "HTTPS needs both --ssl-certfile and --ssl-keyfile"),
        (
            ["run", "chat:io", "--ssl-certfile", "missing.pem", "--ssl-keyfile", "chat.py"],
            "--ssl-certfile: cannot read 'missing.pem': No such file or directory",
        ),
        (
            ["run", "chat:io", "--ssl-certfile", "chat.py", "--ssl-keyfile", "chat.py"],
            "'chat.py' and 'chat.py' are not a certificate and its key",
        ),
        (["run", "chat:io", "--log-level", "loud"], "argument --log-level: invalid choice: 'loud'"),
    ],
)
def test_wrong_argument_is_one_line_and_status_2(directory: Path, arguments: list[str], text: str) -> None:
    ended = run(directory, *arguments)
    assert ended.stderr.startswith("trio-socketio: error: ")
    assert text in ended.stderr
    assert (ended.stderr.count("\n"), ended.stdout, ended.returncode) == (1, "", 2)


def test_port_in_use_is_one_line_and_status_1(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run(directory, "run", "chat:io", "--port", str(port))
    assert ended.stderr == f"trio-socketio: error: cannot listen on 127.0.0.1, port {port}: the port is in use\n"
    assert ended.returncode == 1


@pytest.mark.parametrize(
    ("module", "error"),
    [
        ("broken", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("failing", "RuntimeError: not today"),
    ],
)
def test_error_inside_the_module_shows_its_traceback(directory: Path, module: str, error: str) -> None:
    ended = run(directory, "run", f"{module}:io")
    assert "Traceback (most recent call last)" in ended.stderr
    assert f"{module}.py" in ended.stderr
    assert ended.stderr.endswith(f"{error}\n")
    assert ended.returncode == 1


def test_help_and_version_are_there(directory: Path) -> None:
    assert "module:io" in run(directory, "run", "--help").stdout
    assert run(directory, "--version").stdout.startswith("trio_socketio ")


def test_installed_command_is_the_same_function() -> None:
    commands = [command for command in entry_points(group="console_scripts") if command.name == "trio-socketio"]
    if not commands:
        pytest.skip("the project is not installed")
    assert commands[0].load() is main
