from __future__ import annotations

import pytest

from trio_socketio._engine.contract import Headers, Request
from trio_socketio._engine.proxies import parse_networks, see_through_proxies

PROXIES = ("127.0.0.1", "10.0.0.0/8")


def seen(client: str | None, forwarded: list[str], trusted: tuple[str, ...] = PROXIES, proto: str = "") -> Request:
    headers = Headers([("x-forwarded-for", line) for line in forwarded])
    if proto:
        headers["x-forwarded-proto"] = proto
    request = Request(method="GET", target="/", headers=headers, client=None if client is None else (client, 1234))
    see_through_proxies(request, parse_networks(trusted))
    return request


@pytest.mark.parametrize(
    ("client", "forwarded", "address"),
    [
        ("127.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("127.0.0.1", ["203.0.113.7, 10.1.2.3"], "203.0.113.7"),
        ("127.0.0.1", ["203.0.113.7", "10.1.2.3"], "203.0.113.7"),
        ("::ffff:127.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("127.0.0.1", ["198.51.100.1, 203.0.113.7"], "203.0.113.7"),  # what the client itself wrote comes first
        ("127.0.0.1", ["10.9.9.9"], "10.9.9.9"),
        ("127.0.0.1", ["203.0.113.7, unknown"], "127.0.0.1"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("198.51.100.1", ["203.0.113.7"], "198.51.100.1"),  # nobody we trust
    ],
)
def test_the_client_is_the_last_address_that_is_no_trusted_proxy(
    client: str, forwarded: list[str], address: str
) -> None:
    request = seen(client, forwarded)
    assert request.client is not None
    assert request.client[0] == address


def test_without_trusted_proxies_headers_say_nothing() -> None:
    request = seen("127.0.0.1", ["203.0.113.7"], trusted=(), proto="https")
    assert (request.client, request.scheme) == (("127.0.0.1", 1234), "http")


def test_a_peer_without_an_address_is_not_trusted() -> None:
    assert seen(None, ["203.0.113.7"], proto="https").scheme == "http"


@pytest.mark.parametrize(
    ("proto", "scheme"),
    [("https", "https"), ("wss", "https"), ("http", "http"), ("http, https", "https"), ("x", "http")],
)
def test_the_scheme_is_the_one_that_the_nearest_proxy_names(proto: str, scheme: str) -> None:
    assert seen("127.0.0.1", [], proto=proto).scheme == scheme


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="proxy"):
        parse_networks("proxy.example")
