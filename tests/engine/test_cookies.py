from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_socketio._engine.cookies import Cookie


@pytest.mark.parametrize(
    ("cookie", "expected"),
    [
        (Cookie(), "io=abc; Path=/; HttpOnly; SameSite=Lax"),
        (Cookie(name="woot"), "woot=abc; Path=/; HttpOnly; SameSite=Lax"),
        (Cookie(path="/custom"), "io=abc; Path=/custom; HttpOnly; SameSite=Lax"),
        (Cookie(path=None), "io=abc; HttpOnly; SameSite=Lax"),
        (Cookie(http_only=False), "io=abc; Path=/; SameSite=Lax"),
        (Cookie(same_site="strict"), "io=abc; Path=/; HttpOnly; SameSite=Strict"),
        (Cookie(same_site=None), "io=abc; Path=/; HttpOnly"),
        (Cookie(same_site="none", secure=True), "io=abc; Path=/; HttpOnly; Secure; SameSite=None"),
        (Cookie(domain=".example.com"), "io=abc; Domain=.example.com; Path=/; HttpOnly; SameSite=Lax"),
        (Cookie(max_age=3600), "io=abc; Max-Age=3600; Path=/; HttpOnly; SameSite=Lax"),
        (Cookie(max_age=0), "io=abc; Max-Age=0; Path=/; HttpOnly; SameSite=Lax"),
        (
            Cookie(path=None, same_site=None, secure=True, partitioned=True, priority="high"),
            "io=abc; HttpOnly; Secure; Partitioned; Priority=High",
        ),
        (
            Cookie(expires=datetime(2030, 1, 2, 5, 0, tzinfo=timezone(timedelta(hours=2)))),
            "io=abc; Path=/; Expires=Wed, 02 Jan 2030 03:00:00 GMT; HttpOnly; SameSite=Lax",
        ),
        (Cookie(expires=datetime(2030, 1, 2, tzinfo=UTC), path=None, same_site=None, http_only=False),
         "io=abc; Expires=Wed, 02 Jan 2030 00:00:00 GMT"),
    ],
)  # fmt: skip
def test_header_has_the_attributes_that_are_set(cookie: Cookie, expected: str) -> None:
    assert cookie.header("abc") == expected


@pytest.mark.parametrize(
    "options",
    [
        {"name": ""},
        {"name": "a b"},
        {"name": "a=b"},
        {"name": "a;b"},
        {"name": "a\r\nset-cookie: x"},
        {"path": "/; Domain=evil.example"},
        {"path": "/\r\nx: y"},
        {"path": "relative"},
        {"domain": "example.com; Secure"},
        {"domain": "-example.com"},
        {"domain": "a..b"},
        {"same_site": "Lax; Secure"},
        {"priority": "urgent"},
        {"max_age": 1.5},
        {"max_age": "60; Secure"},
        {"max_age": True},
        {"expires": datetime(2030, 1, 1)},
        {"expires": "tomorrow"},
    ],
)
def test_attribute_that_is_not_one_is_refused_by_name(options: dict[str, Any]) -> None:
    (attribute,) = options
    with pytest.raises(ValueError, match=f"^not a cookie's {attribute}: "):
        Cookie(**options)


@pytest.mark.parametrize("options", [{"same_site": "none"}, {"partitioned": True}])
def test_cookie_that_every_browser_refuses_is_refused_here(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs secure=True"):
        Cookie(**options)


@given(st.text())
def test_no_value_adds_an_attribute_or_a_header(value: str) -> None:
    try:
        header = Cookie().header(value)
    except UnicodeEncodeError:  # a lone surrogate has no bytes
        return
    pair, *attributes = header.split("; ")
    assert attributes == ["Path=/", "HttpOnly", "SameSite=Lax"]
    assert pair.isascii()
    assert not set(pair) & set('\r\n;, "\\')


def test_option_true_is_the_default_cookie_and_false_is_none() -> None:
    cookie = Cookie(name="mine")
    assert Cookie.from_option(True) == Cookie()
    assert Cookie.from_option(False) is Cookie.from_option(None) is None
    assert Cookie.from_option(cookie) is cookie


def test_option_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="cookie must be True, False or a Cookie, not 'io'"):
        Cookie.from_option("io")  # type: ignore[arg-type]  # what is tested
