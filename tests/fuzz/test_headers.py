"""What strangers put into the lines and the target of a request: origins, addresses, queries, and paths of files."""

from __future__ import annotations

import ipaddress
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_socketio._engine.contract import Headers, Request
from trio_socketio._engine.cors import CORS, origin_allowed, script_allowed, valid_origin
from trio_socketio._engine.handshake import choose_dialect
from trio_socketio._engine.proxies import parse_networks, see_through_proxies
from trio_socketio._frontends.static import StaticFiles

from .damage import damaged

pytestmark = pytest.mark.fuzz

FRIEND = "https://friend.example"
#: What is allowed, and the origins that this may let in, at most.
RULES: list[tuple[CORS, re.Pattern[str]]] = [
    (CORS([]), re.compile("(?!)")),
    (CORS(FRIEND), re.compile(re.escape(FRIEND))),
    (CORS([FRIEND, "null"]), re.compile(re.escape(FRIEND) + "|null")),
    (CORS(re.compile(r"https://.*\.friend\.example")), re.compile(r"https://[ -~]*\.friend\.example")),
    (CORS("*"), re.compile("[ -~]*")),
]
OWN = re.compile(r"(https?)://a\.example(:[0-9]+)?", re.IGNORECASE)

line_pieces = st.text(st.characters(max_codepoint=255), max_size=3) | st.sampled_from(
    [
        "\r\n",
        "\n",
        "\0",
        ",",
        "@",
        ":",
        "//",
        "https://",
        ".friend.example",
        "a.example",
        "null",
        "*",
        "[::1]",
        ":80",
        "\xa0",
    ]
)
origins = damaged(
    st.sampled_from([FRIEND, "https://x.friend.example", "http://a.example", "http://a.example:80", "null", "*"]),
    line_pieces,
)


def request(target: str = "/socket.io/", **lines: str) -> Request:
    headers = Headers([("host", "a.example"), *((name.replace("_", "-"), line) for name, line in lines.items())])
    return Request(method="OPTIONS", target=target, headers=headers, client=("127.0.0.1", 1))


@given(origins, origins)
def test_only_an_origin_of_the_rules_is_let_in_and_no_origin_adds_a_header(origin: str, asked: str) -> None:
    for cors, allowed in RULES:
        preflight = request(origin=origin, access_control_request_headers=asked, referer=origin)
        if origin_allowed(cors, preflight):
            assert allowed.fullmatch(origin) or OWN.fullmatch(origin)
        if script_allowed(cors, preflight):
            assert cors.origins == "*" or cors.allows(origin_of(origin)) or OWN.fullmatch(origin_of(origin))
        cors.apply(preflight)
        for header, value in preflight.response_headers.multi_items():
            assert re.fullmatch("[!-~]+", header)
            assert re.fullmatch("[ -~]*", value)
        if not valid_origin(origin):
            assert not cors.allows(origin)


def origin_of(url: str) -> str:
    scheme, slashes, rest = url.partition("://")
    return scheme + slashes + re.split("[/?#]", rest)[0]


hops = damaged(st.sampled_from(["203.0.113.7", "10.1.1.1, 203.0.113.7", "::1", "fe80::1%eth0", "unknown"]), line_pieces)
TRUSTED = parse_networks(["127.0.0.1", "10.0.0.0/8"])


@given(st.lists(hops, max_size=3), damaged(st.sampled_from(["https", "http, https", "wss"]), line_pieces))
def test_a_client_behind_proxies_has_an_address_and_a_scheme_whatever_they_say(lines: list[str], proto: str) -> None:
    behind = request(x_forwarded_proto=proto)
    for line in lines:
        behind.headers = Headers([*behind.headers.multi_items(), ("x-forwarded-for", line)])
    see_through_proxies(behind, TRUSTED)
    assert behind.client is not None
    ipaddress.ip_address(behind.client[0])  # or it raises
    assert behind.scheme in ("http", "https")


targets = damaged(
    st.sampled_from(["/socket.io/?EIO=4&transport=polling", "/socket.io/?EIO=3&b64=1&j=1", "/?a=1&a=2", "/x%2e%2e/y"]),
    st.sampled_from(["%", "%00", "%ff", "+", ";", "&", "=", "?", "#", "//", "..", "%2F", "[", "EIO=3"]),
)


@given(targets)
def test_any_target_has_a_path_a_query_and_a_dialect(target: str) -> None:
    anything = request(target)
    assert isinstance(anything.path, str)
    assert all(type(name) is type(value) is str for name, value in anything.query.items())
    assert choose_dialect(anything.query).protocol in (3, 4)


names = st.sampled_from(
    ["..", ".", "", "secret.txt", "shown.txt", "dir", "%2e%2e", "out", "CON", "a\0b", "x" * 300, "\\", "~"]
)


@pytest.fixture(scope="module")
def site() -> Any:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "root"
        (root / "dir").mkdir(parents=True)
        (root / "shown.txt").write_text("shown", encoding="utf-8")
        (root / "dir" / "shown.txt").write_text("shown", encoding="utf-8")
        (root / ".secret.txt").write_text("secret", encoding="utf-8")
        (Path(directory) / "secret.txt").write_text("secret", encoding="utf-8")
        (root / "out").symlink_to(directory)
        yield StaticFiles(root)


@given(st.lists(names, max_size=6).map("/".join) | st.text(max_size=20))
def test_no_path_leads_out_of_what_is_served(site: StaticFiles, path: str) -> None:
    found = site._locate(f"/{path}")
    if found is not None:
        root, below = found
        response = site._load(root, below, request(f"/{path}"))
        assert response is None or response.status == 308 or response.body == b"shown"
