"""Ways to a server: unix sockets, TLS, logging in, databases."""

from __future__ import annotations

import ssl
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from trio_socketio._errors import RedisUnavailable
from trio_socketio._redis.address import RedisAddress
from trio_socketio._redis.client import Redis
from trio_socketio._redis.health import Health

from ..redis_server import free_port, start_server, unique
from .support import Inbox, until_lost_and_ready

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from ..redis_server import RedisServer


async def test_a_unix_socket(redis_server: RedisServer) -> None:
    async with Redis(redis_server.unix_url).running() as client:
        inbox, channel = Inbox(), unique("channel")
        await client.subscribe(inbox, channels=[channel])
        assert await client.execute("PUBLISH", channel, "x") == 1
        assert await inbox.wait(1)


async def test_a_unix_socket_that_does_not_exist_is_named() -> None:
    with pytest.raises(RedisUnavailable, match="unix:///does/not/exist"):
        async with Redis("unix:///does/not/exist").running():
            raise AssertionError("never reached")


async def test_the_database_is_selected_on_every_connection(redis_server: RedisServer) -> None:
    key = unique("key")
    async with Redis(f"{redis_server.url}/2").running() as client, Redis(redis_server.url).running() as other:
        await client.execute("SET", key, "x")
        assert await other.execute("GET", key) is None
        async with client.blocking() as reader:
            assert await reader.execute("GET", key) == b"x"


async def test_a_database_that_does_not_exist_is_said(redis_server: RedisServer) -> None:
    with pytest.raises(RedisUnavailable, match="out of range"):
        async with Redis(f"{redis_server.url}/999").running():
            raise AssertionError("never reached")


async def test_the_connections_have_the_clients_name(redis_server: RedisServer) -> None:
    async with Redis(redis_server.url, client_name="my-client").running() as client, client.blocking() as reader:
        await client.subscribe(Inbox(), channels=[unique("channel")])
        await reader.execute("PING")
        named = [line for line in (await client.execute("CLIENT", "LIST")).splitlines() if b"name=my-client" in line]
        assert len(named) == 3


@pytest.fixture(scope="module")
def locked_server(redis_flavour: str) -> Iterator[RedisServer]:
    with start_server(redis_flavour, requirepass="secret", user="alice on >wonder ~* &* +@all") as server:
        yield server


@pytest.mark.parametrize("login", [":secret", "default:secret", "alice:wonder"])
async def test_a_right_password(locked_server: RedisServer, login: str) -> None:
    async with Redis(f"redis://{login}@127.0.0.1:{locked_server.port}").running() as client:
        await client.subscribe(Inbox(), channels=["channel"])
        assert await client.execute("ACL", "WHOAMI") == (b"alice" if "alice" in login else b"default")


@pytest.mark.parametrize("login", [":wrong", "alice:secret", "nobody:secret"])
async def test_a_wrong_password_is_said_and_not_shown(locked_server: RedisServer, login: str) -> None:
    with pytest.raises(RedisUnavailable, match="WRONGPASS") as caught:
        async with Redis(f"redis://{login}@127.0.0.1:{locked_server.port}").running():
            raise AssertionError("never reached")
    assert login.partition(":")[2] not in str(caught.value)


async def test_a_missing_password_is_said(locked_server: RedisServer) -> None:
    with pytest.raises(RedisUnavailable, match="NOAUTH"):
        async with Redis(locked_server.url).running():
            raise AssertionError("never reached")


@pytest.mark.parametrize("login", [":secret", "alice:wonder"])
async def test_a_password_without_hello(redis_flavour: str, login: str) -> None:
    options = {"requirepass": "secret", "user": "alice on >wonder ~* &* +@all", "rename_command": 'HELLO ""'}
    with start_server(redis_flavour, **options) as server:
        async with Redis(f"redis://{login}@127.0.0.1:{server.port}").running() as client:
            assert await client.execute("PING") == b"PONG"
        with pytest.raises(RedisUnavailable, match="WRONGPASS"):
            async with Redis(f"redis://alice:wrong@127.0.0.1:{server.port}").running():
                raise AssertionError("never reached")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def tls_port(redis_flavour: str, authority: trustme.CA, tmp_path: Path) -> AsyncIterator[int]:
    """The port of a server that speaks TLS; for one that was built without it, of a relay that does."""
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    port = free_port()
    options = {
        "tls_port": str(port),
        "tls_cert_file": str(tmp_path / "cert.pem"),
        "tls_key_file": str(tmp_path / "key.pem"),
        "tls_auth_clients": "no",
    }
    if redis_flavour == "redis":
        with start_server(redis_flavour, **options):
            yield port
        return
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    with start_server(redis_flavour) as server:
        async with trio.open_nursery() as nursery:
            relay = partial(relay_to, server.port)
            listeners = await nursery.start(partial(trio.serve_ssl_over_tcp, host="127.0.0.1"), relay, 0, context)
            yield listeners[0].transport_listener.socket.getsockname()[1]
            nursery.cancel_scope.cancel()


async def relay_to(port: int, client: trio.SSLStream[trio.SocketStream]) -> None:
    """Pass bytes on in both directions, until one side ends."""

    async def copy(source: trio.abc.Stream, sink: trio.abc.Stream) -> None:
        with suppress(trio.BrokenResourceError):
            async for chunk in source:
                await sink.send_all(chunk)
        nursery.cancel_scope.cancel()

    async with await trio.open_tcp_stream("127.0.0.1", port) as server, trio.open_nursery() as nursery:
        nursery.start_soon(copy, client, server)
        nursery.start_soon(copy, server, client)


async def test_tls(tls_port: int, authority: trustme.CA) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with Redis(f"rediss://127.0.0.1:{tls_port}", ssl_context=context).running() as client:
        inbox = Inbox()
        await client.subscribe(inbox, channels=["channel"])
        message = b"x" * 500_000
        for _ in range(5):
            client.execute_nowait("PUBLISH", "channel", message)
        assert await inbox.wait(5) == [(b"channel", message)] * 5
        await client.execute("CLIENT", "KILL", "TYPE", "pubsub")
        await until_lost_and_ready(client, 1)
        assert await client.execute("PUBLISH", "channel", "again") == 1
        async with client.blocking() as reader:
            assert await reader.execute("BLPOP", unique("list"), "0.01", blocks=0.01) is None


async def test_a_certificate_that_nobody_trusts_is_said(tls_port: int) -> None:
    with pytest.raises(RedisUnavailable, match="certificate verify failed"):
        async with Redis(f"rediss://127.0.0.1:{tls_port}").running():
            raise AssertionError("never reached")


async def test_tls_to_a_server_without_it_is_given_up(redis_server: RedisServer) -> None:
    with pytest.raises(RedisUnavailable, match="cannot use the Redis server at rediss://"):
        async with Redis(f"rediss://127.0.0.1:{redis_server.port}", connect_timeout=0.2).running():
            raise AssertionError("never reached")


async def test_an_address_needs_no_url(redis_server: RedisServer) -> None:
    client = Redis(RedisAddress(host="127.0.0.1", port=redis_server.port))
    assert client.health is Health.CLOSED
    async with client.running():
        assert client.statistics().health is Health.READY
        assert repr(client) == f"<Redis redis://127.0.0.1:{redis_server.port}/0 ready>"
