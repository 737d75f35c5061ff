from __future__ import annotations

import re
from typing import Any

import pytest

from trio_socketio._engine.contract import Headers, Request, Response
from trio_socketio._engine.cors import CORS, origin_allowed, valid_origin

SITE = "https://site.example"
EVIL = "https://evil.example"


def make_request(method: str = "GET", *, scheme: str = "http", **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method=method, target="/socket.io/", headers=Headers(named), scheme=scheme)


def answer(cors: CORS, method: str = "GET", **headers: str) -> tuple[Response | None, dict[str, str]]:
    """What `apply` returns, and the headers that it adds."""
    request = make_request(method, **headers)
    response = cors.apply(request)
    return response, dict(request.response_headers)


# The option


@pytest.mark.parametrize("option", [None, False])
def test_no_cors_by_default(option: Any) -> None:
    assert CORS.from_option(option) is None


@pytest.mark.parametrize(
    ("option", "allowed", "refused"),
    [
        ("*", [SITE, EVIL, "null"], []),
        (SITE, [SITE], [EVIL, "http://site.example", SITE + ":8443", "null", ""]),
        ([SITE, "capacitor://localhost"], [SITE, "capacitor://localhost"], [EVIL, "*"]),
        ((SITE, re.compile(r"https://[a-z]+\.site\.example")), [SITE, "https://a.site.example"], [EVIL]),
        (re.compile(r"https://.*\.site\.example"), ["https://a.site.example"], [SITE, "https://a.site.example.evil"]),
        (re.compile(r".*"), [SITE], [SITE + "\n", "https://sité.example"]),
        (lambda origin: origin.endswith(".example"), [SITE, EVIL], ["null", "https://sité.example"]),
        ([], [], [SITE, "null"]),
        ("null", ["null"], [SITE]),
    ],
)
def test_option_says_which_origins_are_allowed(option: Any, allowed: list[str], refused: list[str]) -> None:
    cors = CORS.from_option(option)
    assert cors is not None
    assert [cors.allows(origin) for origin in allowed] == [True] * len(allowed)
    assert [cors.allows(origin) for origin in refused] == [False] * len(refused)


def test_option_may_be_the_finished_cors() -> None:
    cors = CORS(SITE, credentials=True)
    assert CORS.from_option(cors) is cors


async def judge_async(origin: str) -> bool:  # noqa: ASYNC124  # never called
    return False


@pytest.mark.parametrize(
    ("origins", "error", "text"),
    [
        (SITE + "/", ValueError, "without a slash"),
        ("https://Site.example", ValueError, "in lower case"),
        ("site.example", ValueError, "scheme://host"),
        (["*"], ValueError, "stands alone"),
        ([SITE, 5], ValueError, "not an origin: 5"),
        (5, TypeError, "not 5"),
        (judge_async, TypeError, "must not be async"),
    ],
)
def test_origins_that_could_never_match_are_refused(origins: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        CORS(origins)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"credentials": True}, ValueError),
        ({"methods": ["GET\r\nx: y"]}, ValueError),
        ({"methods": "GET"}, TypeError),
        ({"allowed_headers": ["x y"]}, ValueError),
        ({"exposed_headers": ["x,y"]}, ValueError),
        ({"max_age": -1}, ValueError),
        ({"max_age": 1.5}, ValueError),
        ({"options_success_status": 404}, ValueError),
    ],
)
def test_option_that_could_never_work_is_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        CORS(**options)


def test_true_is_refused_because_it_has_two_meanings() -> None:
    with pytest.raises(TypeError, match=re.escape("write cors='*'")):
        CORS.from_option(True)


def test_judge_that_does_not_answer_with_a_bool_lets_nobody_in() -> None:
    async def judge(origin: str) -> bool:  # noqa: ASYNC124  # never awaited
        return False

    coroutines = []

    def disguised(origin: str) -> Any:
        coroutines.append(judge(origin))
        return coroutines[-1]

    with pytest.raises(TypeError, match="must return a bool"):
        CORS(disguised).allows(SITE)
    coroutines[0].close()


# The headers


def test_any_origin_needs_no_vary() -> None:
    assert answer(CORS(), origin=SITE) == (None, {"access-control-allow-origin": "*"})


def test_fixed_origin_is_named_to_everybody() -> None:
    expected = {"vary": "Origin", "access-control-allow-origin": SITE}
    assert answer(CORS(SITE), origin=EVIL) == answer(CORS(SITE)) == (None, expected)


def test_origin_of_a_list_is_reflected_if_it_matches() -> None:
    cors = CORS([SITE])
    assert answer(cors, origin=SITE) == (None, {"vary": "Origin", "access-control-allow-origin": SITE})
    assert answer(cors, origin=EVIL) == answer(cors) == (None, {"vary": "Origin"})


def test_ordinary_answer_has_credentials_and_exposed_headers_but_nothing_of_a_preflight() -> None:
    cors = CORS(SITE, credentials=True, exposed_headers=["x-a", "x-b"], max_age=5, allowed_headers=["x-c"])
    assert answer(cors, origin=SITE)[1] == {
        "vary": "Origin",
        "access-control-allow-origin": SITE,
        "access-control-allow-credentials": "true",
        "access-control-expose-headers": "x-a,x-b",
    }


def test_preflight_is_answered_with_everything() -> None:
    cors = CORS(SITE, credentials=True, methods=["GET", "POST"], allowed_headers=["x-a", "x-b"], max_age=123)
    response, headers = answer(cors, "OPTIONS", origin=SITE)
    assert response is not None
    assert (response.status, response.body) == (204, b"")
    assert headers == {
        "vary": "Origin",
        "access-control-allow-origin": SITE,
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": "GET,POST",
        "access-control-allow-headers": "x-a,x-b",
        "access-control-max-age": "123",
    }


def test_preflight_reflects_the_headers_that_it_asks_for() -> None:
    request = make_request("OPTIONS", origin=SITE, access_control_request_headers="x-a, x-b")
    assert CORS([SITE]).apply(request) is not None
    assert request.response_headers["access-control-allow-headers"] == "x-a, x-b"
    assert request.response_headers.get_all("vary") == ["Origin", "Access-Control-Request-Headers"]


def test_preflight_of_a_refused_origin_is_answered_without_an_allowed_one() -> None:
    response, headers = answer(CORS([SITE]), "OPTIONS", origin=EVIL)
    assert response is not None
    assert response.status == 204
    assert "access-control-allow-origin" not in headers


def test_preflight_has_the_status_that_was_asked_for() -> None:
    response, _ = answer(CORS(options_success_status=200), "OPTIONS", origin=SITE)
    assert response is not None
    assert response.status == 200


def test_preflight_may_be_left_to_others() -> None:
    response, headers = answer(CORS(preflight_continue=True), "OPTIONS", origin=SITE)
    assert response is None
    assert headers["access-control-allow-methods"] == "GET,HEAD,PUT,PATCH,POST,DELETE"


@pytest.mark.parametrize("hostile", ["a\r\nset-cookie: x=y", "a\0", "é", "\x7f"])
def test_nothing_hostile_is_reflected(hostile: str) -> None:
    cors = CORS(re.compile(r"(?s).*"))
    _, headers = answer(cors, "OPTIONS", origin=hostile, access_control_request_headers=hostile)
    assert not any(hostile in value for value in headers.values())


# May the request proceed?


@pytest.mark.parametrize("cors", [None, CORS([EVIL])])
@pytest.mark.parametrize(
    ("origin", "host", "scheme", "same"),
    [
        ("http://a.example", "a.example", "http", True),
        ("http://a.example:80", "a.example", "http", True),
        ("http://a.example", "a.example:80", "http", True),
        ("http://a.example:3000", "A.example:3000", "http", True),
        ("https://a.example", "a.example:443", "https", True),
        ("https://a.example", "a.example", "http", True),  # TLS ends at a proxy
        ("http://[::1]:3000", "[::1]:3000", "http", True),
        ("http://[::1]", "[::1]", "http", True),
        ("http://a.example", "a.example", "https", False),
        ("http://a.example:3000", "a.example:3001", "http", False),
        ("http://a.example", "b.example", "http", False),
        ("http://a.example.evil", "a.example", "http", False),
        ("http://evil@a.example", "a.example", "http", False),
        ("http://a.example/", "a.example", "http", False),
        ("http://a.example:٣٠", "a.example:30", "http", False),
        ("ftp://a.example", "a.example", "http", False),
        ("null", "null", "http", False),
        ("", "", "http", False),
        ("http://", "", "http", False),
        ("a.example", "a.example", "http", False),
    ],
)
def test_only_the_servers_own_origin_proceeds_by_itself(
    cors: CORS | None, origin: str, host: str, scheme: str, same: bool
) -> None:
    assert origin_allowed(cors, make_request(scheme=scheme, origin=origin, host=host)) is same


def test_request_without_an_origin_proceeds() -> None:
    assert origin_allowed(None, make_request(host="a.example"))


def test_request_without_a_host_has_no_own_origin() -> None:
    assert not origin_allowed(None, make_request(origin="http://a.example"))


def test_other_origins_proceed_if_cors_allows_them() -> None:
    cors = CORS([SITE])
    assert origin_allowed(cors, make_request(origin=SITE, host="a.example"))
    assert not origin_allowed(cors, make_request(origin=EVIL, host="a.example"))


@pytest.mark.parametrize(
    ("origin", "valid"),
    [(SITE, True), ("", True), ("a\tb", True), ("\xff", True), ("a\nb", False), ("\x7f", False), ("€", False)],
)
def test_origin_with_a_character_that_no_header_may_have_is_invalid(origin: str, valid: bool) -> None:
    assert valid_origin(origin) is valid
