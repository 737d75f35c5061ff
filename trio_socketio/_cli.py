"""The command line.

``trio-socketio run module:io`` serves a `Server` or an `Engine` of a module. ``trio-socketio fetch-client`` gets the
JavaScript client for ``serve_client``.

Exit status: 0 after a signal, or when the client is there; 1 if it cannot listen or fetch, or if the module or the
server fails (with the traceback); 2 for a wrong argument, with one line that says which.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import gc
import importlib
import logging
import os
import signal
import socket
import ssl
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import trio

from . import Server, __version__
from ._errors import plain_exceptions
from ._fetch_client import DEFAULT_VERSION, FetchError, fetch_client
from .engineio import Engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    Application: TypeAlias = Server | Engine

#: Seconds for clients to be told and sent what is queued for them, after the first signal; the second one ends it.
DRAIN_DEADLINE = 10.0

#: Objects more than before, and how many collections of one generation come before one of the next.
GC_THRESHOLDS = (10_000, 20, 20)

WRONG_ARGUMENT, CANNOT_LISTEN, CANNOT_FETCH = 2, 1, 1


class CommandError(Exception):
    """What is told to the user in one line."""

    def __init__(self, message: str, status: int = WRONG_ARGUMENT) -> None:
        super().__init__(message)
        self.status = status


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Instead of those of the process.

    Returns:
        The exit status.
    """
    parser = _make_parser()
    options = parser.parse_args(arguments)
    try:
        options.command(options)
    except CommandError as error:
        parser.exit(error.status, f"{parser.prog}: error: {error}\n")
    return 0


def _run(options: argparse.Namespace) -> None:
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    ssl_context = _make_ssl_context(options.ssl_certfile, options.ssl_keyfile)
    application = load(options.application)
    _relax_garbage_collector()
    trio.run(_serve, application, options.host, options.port, ssl_context)


def _relax_garbage_collector() -> None:
    """Have what is there left alone, and the rest looked at less often.

    Nearly everything of a server is freed without the collector, or lives long: on its defaults it looks at every
    session again and again (8 % of the CPU time of a connect, 6 % of that of an event with 16 in flight).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _fetch(options: argparse.Namespace) -> None:
    try:
        directory = fetch_client(options.to, options.version)
    except FetchError as error:
        raise CommandError(str(error), CANNOT_FETCH) from error
    print(f"The client is in {directory}")
    if options.to is not None:
        print(f"Server(serve_client={os.fspath(directory)!r}) serves it")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_ARGUMENT, f"trio-socketio: error: {message}\n")


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="trio-socketio", description="A Socket.IO server for Trio.")
    parser.add_argument("--version", action="version", version=f"trio_socketio {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    run = commands.add_parser("run", help="serve a Server of a module")
    run.set_defaults(command=_run)
    run.add_argument("application", metavar="module:io", help="where the Server (or Engine) is; seen from here")
    run.add_argument("--host", default="127.0.0.1", help="the interface; 0.0.0.0 is all of them (default: %(default)s)")
    run.add_argument("--port", default=3000, type=_port, help="0 lets the system choose (default: %(default)s)")
    run.add_argument("--ssl-certfile", metavar="FILE", help="serve HTTPS with this certificate (PEM)")
    run.add_argument("--ssl-keyfile", metavar="FILE", help="and this key (PEM)")
    levels = ("debug", "info", "warning", "error", "critical")
    run.add_argument("--log-level", default="info", choices=levels, help="default: %(default)s")
    fetch = commands.add_parser("fetch-client", help="get the JavaScript client, for servers to serve it (needs npm)")
    fetch.set_defaults(command=_fetch)
    fetch.add_argument("--to", type=Path, metavar="DIR", help="where to; else where all servers of this user look")
    fetch.add_argument("--version", default=DEFAULT_VERSION, help="of socket.io-client (default: %(default)s)")
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 0 to 65535")
    return int(text)


def _make_ssl_context(certfile: str | None, keyfile: str | None) -> ssl.SSLContext | None:
    if certfile is None and keyfile is None:
        return None
    if certfile is None or keyfile is None:
        raise CommandError("HTTPS needs both --ssl-certfile and --ssl-keyfile")
    for option, path in (("--ssl-certfile", certfile), ("--ssl-keyfile", keyfile)):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise CommandError(f"{option}: cannot read {path!r}: {error.strerror}") from error
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certfile, keyfile)
    except ssl.SSLError as error:
        raise CommandError(f"{certfile!r} and {keyfile!r} are not a certificate and its key: {error}") from error
    return context


def load(spec: str) -> Application:
    """Find ``module:attribute``; the attribute may be dotted. Modules are looked for in the current directory first.

    Raises:
        CommandError: There is no such thing, or it is not a server.
        Exception: Whatever the module raises when it is imported.
    """
    module_name, _, attributes = spec.partition(":")
    if module_name.endswith(".py"):
        raise CommandError(f"give the module without .py: {module_name.removesuffix('.py')}:{attributes or 'io'}")
    if not all(name.isidentifier() for part in (module_name, attributes) for name in part.split(".")):
        raise CommandError(f"{spec!r} is not of the form module:attribute, such as chat:io")
    sys.path.insert(0, os.getcwd())
    found: Any = _import(module_name)
    reached = f"module {module_name!r}"
    for name in attributes.split("."):
        if not hasattr(found, name):
            raise CommandError(f"{reached} has no attribute {name!r}{_suggest(name, found)}")
        found = getattr(found, name)
        reached = repr(name)
    if not isinstance(found, Server | Engine):
        raise CommandError(f"{spec!r} is not a Server or an Engine, but {_describe(found)}")
    return found


def _import(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Only if it is this module, or a package it should be in; else it is an import inside the module that failed.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise CommandError(f"there is no module {error.name!r} in {os.getcwd()!r} or on the path") from error


def _suggest(name: str, owner: object) -> str:
    names = [each for each in dir(owner) if not each.startswith("_")]
    close = difflib.get_close_matches(name, names, n=1)
    candidates = close or [each for each in names if isinstance(getattr(owner, each, None), Server | Engine)]
    return f"; did you mean {' or '.join(map(repr, candidates))}?" if candidates else ""


def _describe(value: object) -> str:
    if isinstance(value, type) or callable(value):
        return f"{getattr(value, '__name__', value)!r}, which is something to call"
    return f"of type {type(value).__name__!r}"


async def _serve(application: Application, host: str, port: int, ssl_context: ssl.SSLContext | None) -> None:
    """Serve until a signal comes, or the application ends by itself."""
    if ssl_context is None:
        serve = partial(application.serve_tcp, port, host=host)
    else:
        serve = partial(application.serve_ssl_over_tcp, port, ssl_context, host=host)

    async def serve_and_end(  # noqa: ASYNC114, ASYNC128  # `serve` calls started()
        scope: trio.CancelScope, *, task_status: trio.TaskStatus[Any]
    ) -> None:
        await serve(task_status=task_status)
        scope.cancel()

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals, plain_exceptions():
        async with trio.open_nursery() as nursery:
            try:
                listeners = await nursery.start(serve_and_end, nursery.cancel_scope)
            except OSError as error:
                if (complaint := _complaint(error, host, port)) is None:
                    raise
                raise complaint from error
            scheme = "http" if ssl_context is None else "https"
            print(f"Serving {_protocol_and_url(application, scheme, listeners[0])}", flush=True)
            await anext(signals)
            await _drain(application, signals)
            nursery.cancel_scope.cancel()


async def _drain(application: Application, signals: AsyncIterator[int]) -> None:
    async def give_up(draining: trio.CancelScope) -> None:
        await anext(signals)
        draining.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give_up, nursery.cancel_scope)
        await application.drain(DRAIN_DEADLINE)
        nursery.cancel_scope.cancel()


def _complaint(error: OSError, host: str, port: int) -> CommandError | None:
    """What to say when serving did not start; None if the reason is not the address."""
    if isinstance(error, socket.gaierror):
        return CommandError(f"--host: cannot resolve {host!r}: {error.strerror}")
    if error.errno == errno.EADDRNOTAVAIL:
        return CommandError(f"--host: {host!r} is not an address of this machine")
    if error.errno == errno.EADDRINUSE:
        return CommandError(f"cannot listen on {host}, port {port}: the port is in use", CANNOT_LISTEN)
    if error.errno == errno.EACCES:
        return CommandError(f"cannot listen on {host}, port {port}: permission denied", CANNOT_LISTEN)
    return None


def _protocol_and_url(application: Application, scheme: str, listener: Any) -> str:
    plain: Any = listener.transport_listener if isinstance(listener, trio.SSLListener) else listener
    host, port = plain.socket.getsockname()[:2]
    if ":" in host:
        host = f"[{host}]"
    if isinstance(application, Server):
        protocol, path = "Socket.IO", application.engine.config.path
    else:
        protocol, path = "Engine.IO", application.config.path
    return f"{protocol} on {scheme}://{host}:{port}{path}/"
