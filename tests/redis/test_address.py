"""URLs and options."""

from __future__ import annotations

from typing import Any

import pytest

from trio_socketio._redis.address import RedisAddress, parse_url
from trio_socketio._redis.client import Redis
from trio_socketio._redis.config import RedisConfig


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://localhost", RedisAddress()),
        ("redis://example.org:7000/3", RedisAddress(host="example.org", port=7000, db=3)),
        ("redis://example.org?db=3", RedisAddress(host="example.org", db=3)),
        ("redis://example.org/", RedisAddress(host="example.org")),
        ("rediss://[::1]:7000", RedisAddress(host="::1", port=7000, tls=True)),
        ("redis://:p%40ss@h", RedisAddress(host="h", password="p@ss")),
        ("redis://us%3Aer:pa:ss@h", RedisAddress(host="h", username="us:er", password="pa:ss")),
        ("unix:///run/redis.sock", RedisAddress(path="/run/redis.sock")),
        ("unix:///run/my%20redis.sock?db=2", RedisAddress(path="/run/my redis.sock", db=2)),
        ("unix://user:secret@/run/x", RedisAddress(path="/run/x", username="user", password="secret")),
    ],
)
def test_a_url_is_an_address(url: str, address: RedisAddress) -> None:
    assert parse_url(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://localhost",
        "redis://",
        "redis://h:port",
        "redis://h:99999",
        "redis://h/name",
        "redis://h/-1",
        "redis://h/1?db=2",
        "redis://h?timeout=5",
        "redis://h#x",
        "redis://user@h",
        "redis://[::1",
        "unix://",
        "unix://relative/path",
        "unix:///path?db=x",
    ],
)
def test_a_wrong_url_says_what_is_expected(url: str) -> None:
    with pytest.raises(ValueError, match="expected redis://"):
        parse_url(url)


def test_no_password_is_ever_shown() -> None:
    address = parse_url("redis://user:secret@h/1")
    client = Redis(address)
    assert str(address) == "redis://h:6379/1"
    assert not any("secret" in text for text in (repr(address), str(address), repr(client)))
    with pytest.raises(ValueError, match="the database") as caught:
        parse_url("redis://user:secret@h/x")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["redis://[::1]:7000/0", "rediss://h:6379/2", "unix:///path?db=0"])
def test_the_text_of_an_address_is_its_url(url: str) -> None:
    assert str(parse_url(url)) == url


@pytest.mark.parametrize(
    "options",
    [
        {"connect_timeout": 0},
        {"ping_idle": -1.0},
        {"ping_limit": float("inf")},
        {"max_buffer_bytes": 0},
        {"backoff_least": 10.0},
        {"client_name": "two words"},
        {"client_name": ""},
        {"client_name": "é"},
    ],
)
def test_an_option_out_of_its_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options)).split("_")[0]):
        RedisConfig(**options)


def test_an_unknown_option_is_refused() -> None:
    options: dict[str, Any] = {"retries": 3}
    with pytest.raises(TypeError, match="retries"):
        Redis("redis://localhost", **options)
