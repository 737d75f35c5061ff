"""The connection for programs without Trio."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from trio_socketio._errors import RedisConnectionLost, RedisProtocolError, RedisReplyError, RedisUnavailable
from trio_socketio._redis.address import parse_url
from trio_socketio._redis.config import RedisConfig
from trio_socketio._redis.synchronous import SyncConnection

from ..redis_server import start_server, unique
from .test_connecting import authority, tls_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import trustme

    from ..redis_server import RedisServer

__all__ = ["authority", "tls_port"]


@contextmanager
def connection(
    url: str, timeout: float = 2.0, client_name: str | None = None, ssl_context: ssl.SSLContext | None = None
) -> Iterator[SyncConnection]:
    """A connection that is not opened yet."""
    config = RedisConfig(connect_timeout=timeout, client_name=client_name, ssl_context=ssl_context)
    made = SyncConnection(parse_url(url), config, timeout)
    try:
        yield made
    finally:
        made.close()


def test_commands_and_their_replies(redis_server: RedisServer) -> None:
    key = unique("key")
    with connection(redis_server.url, client_name="worker") as redis:
        assert redis.execute("SET", key, b"\x00\xff") == b"OK"
        assert redis.execute("GET", key) == b"\x00\xff"
        assert redis.execute("GET", "nothing") is None
        assert redis.execute("RPUSH", f"{key}-list", 1, "two", 2.5) == 3
        assert redis.execute("LRANGE", f"{key}-list", 0, -1) == [b"1", b"two", b"2.5"]
        assert redis.execute("CLIENT", "GETNAME") == b"worker"
        redis.execute("SET", key, b"x" * 3_000_000)
        assert len(redis.execute("GET", key)) == 3_000_000


def test_a_database_and_a_unix_socket(redis_server: RedisServer) -> None:
    key = unique("key")
    with connection(f"{redis_server.url}/3") as third, connection(f"{redis_server.unix_url}?db=3") as same:
        third.execute("SET", key, "value")
        assert same.execute("GET", key) == b"value"
    with connection(redis_server.unix_url) as first:
        assert first.execute("GET", key) is None


def test_a_password_with_and_without_a_user(redis_flavour: str) -> None:
    with start_server(redis_flavour, requirepass="secret") as server:
        address = f"127.0.0.1:{server.port}"
        with connection(f"redis://:secret@{address}") as redis:
            assert redis.execute("PING") == b"PONG"
            redis.execute("ACL", "SETUSER", "alice", "on", ">wonder", "~*", "+@all")
        with connection(f"redis://alice:wonder@{address}") as redis:
            assert redis.execute("ACL", "WHOAMI") == b"alice"
        for login, why in (("alice:wrong@", "WRONGPASS"), ("", "NOAUTH")):
            says_why = pytest.raises(RedisUnavailable, match=f"redis://{address}/0: {why}")
            with connection(f"redis://{login}{address}") as redis, says_why:
                redis.open()


def test_an_error_as_the_reply_leaves_the_connection_open(redis_server: RedisServer) -> None:
    with connection(redis_server.url) as redis:
        id = redis.execute("CLIENT", "ID")
        with pytest.raises(RedisReplyError, match="ERR unknown command"):
            redis.execute("NONSENSE")
        assert redis.execute("CLIENT", "ID") == id


async def test_tls(tls_port: int, authority: trustme.CA) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with connection(f"rediss://127.0.0.1:{tls_port}", ssl_context=context) as redis:
        for _ in range(3):
            assert await trio.to_thread.run_sync(redis.execute, "PING") == b"PONG"
    with (
        connection(f"rediss://127.0.0.1:{tls_port}") as redis,
        pytest.raises(RedisUnavailable, match="certificate verify failed"),
    ):
        await trio.to_thread.run_sync(redis.open)


@contextmanager
def stranger(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """The URL of something that is not Redis, and does this to each connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    answer(client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"redis://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def say(data: bytes, client: socket.socket) -> None:
    while client.recv(1000):
        client.sendall(data)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (partial(say, b"HTTP/1.1 400 Bad Request\r\n\r\n"), "cannot use the Redis server at redis://127"),
        (lambda client: client.recv(1000), "has closed the connection"),
        (lambda client: client.recv(1000) and client.recv(1000), "timed out"),
    ],
    ids=["another protocol", "nothing", "silence"],
)
def test_what_is_not_redis_is_said(answer: Callable[[socket.socket], object], why: str) -> None:
    with stranger(answer) as url, connection(url, 0.2) as redis, pytest.raises(RedisUnavailable, match=why):
        redis.execute("PING")


def test_a_connection_that_breaks_in_the_middle_is_not_used_again() -> None:
    answers = iter([b"+PONG\r\n", b"?nonsense\r\n", b"+PONG\r\n", b"+fine\r\n", b"$5\r\nab", b""])

    def one_by_one(client: socket.socket) -> None:
        while client.recv(1000) and (data := next(answers)):
            client.sendall(data)

    with stranger(one_by_one) as url, connection(url, 0.3) as redis:
        with pytest.raises(RedisProtocolError):
            redis.execute("GET", "x")
        assert redis.execute("GET", "x") == b"fine"
        with pytest.raises(RedisConnectionLost, match="may have got the command"):
            redis.execute("GET", "x")


def test_what_came_unasked_makes_the_connection_useless(redis_server: RedisServer) -> None:
    with connection(redis_server.url) as redis:
        id = redis.execute("CLIENT", "ID")
        with connection(redis_server.url) as other:
            other.execute("CLIENT", "KILL", "ID", id)
        assert redis.execute("CLIENT", "ID") != id
