"""One connection for programs without Trio: blocking, one command at a time, from any thread.

It speaks RESP2, for which no greeting is needed. A command is written once and never again: if the connection breaks
before the answer is there, nobody knows whether the server has executed it, and whoever asked is told so. A connection
that the server has closed while nobody used it is noticed before anything is written, and replaced.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING

from .._errors import RedisConnectionLost, RedisError, RedisReplyError, RedisUnavailable
from .parsing import make_parser, pack_command

if TYPE_CHECKING:
    from .address import RedisAddress
    from .config import RedisConfig
    from .parsing import Parser
    from .resp import Argument, Reply

READ_SIZE = 16 * 1024


class SyncConnection:
    """It is opened by its first command, and by the next one after it was lost.

    Args:
        address: Where the server is.
        config: Of a client's options, those for opening a connection, and ``max_reply_bytes``.
        timeout: Seconds for each command and its answer.
    """

    def __init__(self, address: RedisAddress, config: RedisConfig, timeout: float) -> None:
        self._address = address
        self._config = config
        self._timeout = timeout
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._parser: Parser = make_parser(config.max_reply_bytes)
        self._process = 0

    def open(self) -> None:
        """Open it now, if it is not open already.

        Raises:
            RedisUnavailable: The server cannot be used; the text names the address and the reason.
        """
        with self._lock:
            self._usable_socket()

    def execute(self, *args: Argument) -> Reply:
        """Execute a command. Threads take turns.

        Args:
            args: The command's words.

        Raises:
            RedisReplyError: The server's answer is an error; the connection is kept.
            RedisUnavailable: There was no connection, and none could be opened: nothing was sent.
            RedisConnectionLost: It broke before the answer came, or the time is over.
            RedisProtocolError: What came is no reply.
        """
        command = pack_command(args)
        with self._lock:
            connected = self._usable_socket()
            try:
                return self._exchange(connected, command, time.monotonic() + self._timeout)
            except RedisReplyError:
                raise
            except OSError as error:
                self._drop()
                raise RedisConnectionLost(
                    f"no answer from {self._address}: {error}; it may have got the command"
                ) from error
            except BaseException:  # an interrupt, too, leaves an answer behind that belongs to nobody
                self._drop()
                raise

    def close(self) -> None:
        """Close it; the next command opens another."""
        with self._lock:
            self._drop()

    def _usable_socket(self) -> socket.socket:
        if self._socket is not None and (self._process != os.getpid() or self._is_stale(self._socket)):
            self._drop()  # of a process that was forked, the original goes on using it
        if self._socket is None:
            self._connect()
        assert self._socket is not None
        return self._socket

    def _is_stale(self, connected: socket.socket) -> bool:
        connected.settimeout(0.0)
        try:
            connected.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True
        return True  # its end, or an answer to no command

    def _connect(self) -> None:
        deadline = time.monotonic() + self._config.connect_timeout
        self._parser, self._process = make_parser(self._config.max_reply_bytes), os.getpid()
        try:
            self._socket = self._open_socket()
            for command in self._introduction():
                self._exchange(self._socket, pack_command(command), deadline)
        except (OSError, RedisError) as error:
            self._drop()
            raise RedisUnavailable(f"cannot use the Redis server at {self._address}: {error}") from error
        except BaseException:
            self._drop()
            raise

    def _open_socket(self) -> socket.socket:
        address, timeout = self._address, self._config.connect_timeout
        if address.path is not None:
            connected = socket.socket(socket.AF_UNIX)
            try:
                connected.settimeout(timeout)
                connected.connect(address.path)
            except BaseException:
                connected.close()
                raise
            return connected
        connected = socket.create_connection((address.host, address.port), timeout)
        if not address.tls:
            return connected
        context = self._config.ssl_context or ssl.create_default_context()
        try:
            return context.wrap_socket(connected, server_hostname=address.host)
        except BaseException:
            connected.close()
            raise

    def _introduction(self) -> list[tuple[Argument, ...]]:
        address, commands = self._address, list[tuple["Argument", ...]]()
        if address.password is not None:
            user = () if address.username is None else (address.username,)
            commands.append(("AUTH", *user, address.password))
        if self._config.client_name is not None:
            commands.append(("CLIENT", "SETNAME", self._config.client_name))
        # Even without a database to choose, something has to be asked, to know that this is Redis.
        commands.append(("SELECT", address.db) if address.db else ("PING",))
        return commands

    def _exchange(self, connected: socket.socket, command: bytes, deadline: float) -> Reply:
        connected.settimeout(_left(deadline))
        connected.sendall(command)
        while True:
            connected.settimeout(_left(deadline))
            data = connected.recv(READ_SIZE)
            if not data:
                raise RedisConnectionLost(f"{self._address} has closed the connection before its answer")
            for reply in self._parser.feed(data):
                if isinstance(reply, RedisReplyError):
                    raise reply
                return reply

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left
