"""JSONP on the wire: scripts as answers, forms as requests, and who may load them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_socketio._wire.dialects import V4
from trio_socketio._wire.encoded import EncodedPacket
from trio_socketio._wire.jsonp import JSONPDialect

from ..wire.timing import assert_linear
from ..wire_client import EioWebSocket, settle
from .stage import echo, open_stage

if TYPE_CHECKING:
    from ..wire_client import HttpResponse
    from .stage import Stage

EVERYBODY: dict[str, Any] = {"cors": "*", "allow_eio3": True}
FORM = {"content-type": "application/x-www-form-urlencoded"}
SEPARATOR = "\x1e"
EIO = pytest.mark.parametrize("eio", [3, 4])


def script(response: HttpResponse, index: str = "0") -> str:
    """The payload in an answer."""
    head = f"___eio[{index}]("
    assert response.status == 200, response
    assert response.text.startswith(head), response
    assert response.text.endswith(");"), response
    payload = json.loads(response.text[len(head) : -2])
    assert isinstance(payload, str)
    return payload


async def open_session(stage: Stage, eio: int, j: str = "0") -> str:
    """A session by JSONP; where it polls and posts."""
    payload = script(await stage.net.get(f"?EIO={eio}&transport=polling&j={j}"), j)
    sid = json.loads(payload[payload.index("{") :])["sid"]
    return f"?EIO={eio}&transport=polling&j={j}&sid={sid}"


def as_form(payload: str) -> str:
    """What the JavaScript client submits."""
    return urlencode({"d": payload.replace("\\n", "\\\\n").replace("\n", "\\n")})


@EIO
async def test_answer_is_a_call_with_the_payload_as_a_string(eio: int) -> None:
    async with open_stage(**EVERYBODY) as stage:
        target = await open_session(stage, eio, "12")
        await stage.session.send('he said "hi" \\ €')
        response = await stage.net.get(target)
        assert response.headers["content-type"] == "text/plain; charset=UTF-8"
        assert "x-content-type-options" not in response.headers
        text = '4he said "hi" \\ €'
        assert script(response, "12") == (text if eio == 4 else f"{len(text)}:{text}")


async def test_line_separators_are_escaped() -> None:
    async with open_stage(**EVERYBODY) as stage:
        target = await open_session(stage, 4)
        await stage.session.send("a\u2028b\u2029c")
        response = await stage.net.get(target)
        assert response.body == rb'___eio[0]("4a\u2028b\u2029c");'


@pytest.mark.parametrize(
    ("j", "index"), [("7", "7"), ("", ""), ("alert(1)", "1"), ("0](x);//", "0"), ("%D9%A3", ""), ("1%0A2", "12")]
)
async def test_nothing_but_digits_of_the_index_is_written(j: str, index: str) -> None:
    async with open_stage(**EVERYBODY) as stage:
        response = await stage.net.get(f"?EIO=4&transport=polling&j={j}")
        assert response.text.startswith(f'___eio[{index}]("0{{')


@pytest.mark.parametrize(
    ("eio", "payload", "answer"),
    [
        (4, f"4hello{SEPARATOR}bAQID", f"4hello{SEPARATOR}bAQID"),
        (3, "6:4hello8:b4AQID==2:4€", "6:4hello6:b4AQID2:4€"),
        (4, "4a+b c&d=e%20f", "4a+b c&d=e%20f"),
        (4, "4line\nline", "4line\nline"),
        (4, '4{"text":"line\\nline"}', '4{"text":"line\\nline"}'),
    ],
)
async def test_form_brings_packets(eio: int, payload: str, answer: str) -> None:
    async with open_stage(**EVERYBODY) as stage:
        echo(stage.engine)
        target = await open_session(stage, eio)
        response = await stage.net.post(target, as_form(payload), FORM)
        assert (response.status, response.body) == (200, b"ok")
        await settle()
        assert script(await stage.net.get(target)) == answer


@EIO
@pytest.mark.parametrize("body", ["", "x=4hello", "4hello"])
async def test_form_without_its_field_brings_nothing(eio: int, body: str) -> None:
    async with open_stage(**EVERYBODY) as stage:
        target = await open_session(stage, eio)
        assert (await stage.net.post(target, body, FORM)).body == b"ok"
        assert await stage.close_reason() is None


@EIO
@pytest.mark.parametrize("payload", ["", "hello", "9:4hello"])
async def test_bad_payload_in_a_form_closes_the_session(eio: int, payload: str) -> None:
    async with open_stage(**EVERYBODY) as stage:
        target = await open_session(stage, eio)
        assert (await stage.net.post(target, as_form(payload), FORM)).status == 400
        assert (await stage.end())[0] == "parse error"


@EIO
async def test_form_is_no_binary_body(eio: int) -> None:
    async with open_stage(**EVERYBODY) as stage:
        target = await open_session(stage, eio)
        headers = {"content-type": "application/octet-stream"}
        assert (await stage.net.post(target, b"\0\2\xff4a", headers)).status == 400
        assert await stage.end() == ("transport error", "invalid content")


async def test_form_over_the_limit_is_refused() -> None:
    async with open_stage(**EVERYBODY, max_http_buffer_size=100) as stage:
        target = await open_session(stage, 4)
        assert (await stage.net.post(target, as_form("4" + "x" * 100), FORM)).status == 413


@pytest.mark.parametrize(("eio", "last"), [(4, f"6{SEPARATOR}1"), (3, "1:61:1")])
async def test_close_is_a_call_too(eio: int, last: str) -> None:
    async with open_stage(**EVERYBODY) as stage:
        target = await open_session(stage, eio)
        stage.session.close()
        assert script(await stage.net.get(target)) == last


@pytest.mark.parametrize(("eio", "binary"), [(4, b"\1\2"), (3, "b4AQI=")])
async def test_session_upgrades_to_a_websocket(eio: int, binary: str | bytes) -> None:
    async with open_stage(**EVERYBODY) as stage:
        target = await open_session(stage, eio)
        websocket = await stage.net.websocket(target.replace("transport=polling", "transport=websocket"))
        client = EioWebSocket(websocket, {"sid": stage.session.id})
        await client.send("2probe")
        assert await client.recv() == "3probe"
        await client.send("5")
        await stage.session.send("hello")
        await stage.session.send(b"\1\2")
        assert [await client.recv(), await client.recv()] == ["4hello", binary]


async def test_session_of_a_page_cannot_be_read_by_a_script() -> None:
    async with open_stage(**EVERYBODY) as stage:
        client = await stage.net.polling()
        await stage.session.send("secret")
        assert (await stage.net.get(client.target + "&j=0")).text == "4secret"


async def test_old_revision_needs_its_option() -> None:
    async with open_stage(cors="*") as stage:
        response = await stage.net.get("?EIO=3&transport=polling&j=0")
        assert (response.status, json.loads(response.body)["code"]) == (400, 5)


# Who may load them: a script has no Origin, and its answer no same-origin policy


@pytest.mark.parametrize(
    ("cors", "referer", "status"),
    [
        (None, None, 403),
        (None, "http://evil.example/page", 403),
        (None, "http://127.0.0.1.evil.example/", 403),
        (None, "garbage", 403),
        (None, "http://localhost/page?x=http://evil.example", 200),
        (None, "http://evil.example/?http://localhost/", 403),
        ("http://friend.example", "http://friend.example/page#x", 200),
        ("http://friend.example", "http://friend.example", 200),
        ("http://friend.example", "http://friend.example@evil.example/", 403),
        ("http://friend.example", None, 403),
        ("*", None, 200),
        ("*", "http://evil.example/", 200),
    ],
)
async def test_only_pages_that_may_use_the_server_get_scripts(
    cors: str | None, referer: str | None, status: int
) -> None:
    async with open_stage(cors=cors) as stage:
        headers = {} if referer is None else {"referer": referer}
        response = await stage.net.get("?EIO=4&transport=polling&j=0", {"host": "localhost", **headers})
        assert response.status == status
        assert len(stage.sessions) == (status == 200)
        assert [error.code for error in stage.errors] == ([] if status == 200 else [4])


async def test_index_means_nothing_on_a_websocket() -> None:
    async with open_stage() as stage:
        websocket = await EioWebSocket.open(await stage.net.websocket("?EIO=4&transport=websocket&j=0"))
        await stage.session.send(b"\1")
        assert await websocket.recv() == b"\1"


async def test_origin_that_may_not_is_refused_whatever_the_referer_says() -> None:
    async with open_stage() as stage:
        headers = {"host": "localhost", "origin": "http://evil.example", "referer": "http://localhost/"}
        assert (await stage.net.get("?EIO=4&transport=polling&j=0", headers)).status == 403


@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters=SEPARATOR)).filter(lambda t: "\\\n" not in t)
    | st.lists(st.sampled_from(["\\", "n", "x\n", "\\n", "\\\\n"])).map("".join)
)
def test_every_text_survives_the_form_and_the_script(text: str) -> None:
    dialect = JSONPDialect(V4, "0")
    packets = dialect.iter_body_untrusted(as_form("4" + text).encode(), octets=False)
    assert [packet.data for packet in packets] == [text]
    content = dialect.encode_body([EncodedPacket.message(text)]).content.decode()
    assert json.loads(content[len("___eio[0](") : -2]) == "4" + text


def test_decoding_is_linear() -> None:
    def decode(body: bytes) -> None:
        assert list(JSONPDialect(V4, "0").iter_body_untrusted(body, octets=False))

    assert_linear(lambda size: b"d=4" + b"\\" * 100 * size, decode)
    assert_linear(lambda size: b"d=4" + b"%5Cn" * size, decode)
    assert_linear(lambda size: b"&" * 100 * size + b"d=4", decode)
