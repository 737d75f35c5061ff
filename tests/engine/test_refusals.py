"""Who is refused, how, and in which order it is decided (Engine.IO protocol, "connection errors")."""

from __future__ import annotations

import logging
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from trio_socketio.engineio import ConnectionRefused, Engine

from ..wire_client import EioPolling, Exchange, HttpResponse, WebSocketRefused, settle
from .stage import POLLING, WEBSOCKET, Stage, on_both_transports, open_stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio_socketio.engineio import Headers, Request

MESSAGES = (
    "Transport unknown",
    "Session ID unknown",
    "Bad handshake method",
    "Bad request",
    "Forbidden",
    "Unsupported protocol version",
)
FOREIGN = {"origin": "https://evil.example"}
ILLEGAL = {"origin": "https://a\x01b"}
NO_HANDSHAKE = {"name": "TRANSPORT_HANDSHAKE_ERROR"}


class Row(NamedTuple):
    query: str
    code: int
    context: dict[str, Any]
    method: str = "GET"
    headers: Mapping[str, str] = MappingProxyType({})

    def __str__(self) -> str:
        return f"{self.method} {self.query} {self.code}"


ON_EITHER_WAY = [
    Row("?EIO=4", 0, {"transport": None}),
    Row("?EIO=4&transport=", 0, {"transport": ""}),
    Row("?EIO=4&transport=tobi", 0, {"transport": "tobi"}),
    Row("?EIO=4&transport=constructor", 0, {"transport": "constructor"}),
    Row("?EIO=4&transport=__proto__", 0, {"transport": "__proto__"}),
    Row("?EIO=4&transport=webtransport", 0, {"transport": "webtransport"}),
]
ON_HTTP = [
    *ON_EITHER_WAY,
    Row(POLLING + "&sid=nobody", 1, {"sid": "nobody"}),
    Row(POLLING + "&sid=nobody", 1, {"sid": "nobody"}, "POST"),
    Row(POLLING + "&sid=__class__", 1, {"sid": "__class__"}),
    Row(WEBSOCKET + "&sid=nobody", 1, {"sid": "nobody"}),
    *[Row(POLLING, 2, {"method": method}, method) for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS")],
    Row(POLLING + "&sid=", 2, {"method": "POST"}, "POST"),
    Row(POLLING, 3, {"name": "INVALID_ORIGIN", "origin": ILLEGAL["origin"]}, headers=ILLEGAL),
    Row(WEBSOCKET, 3, NO_HANDSHAKE),
    Row("?transport=polling", 5, {"protocol": 3}),
    Row("?EIO=abc&transport=polling", 5, {"protocol": 3}),
    Row("?EIO=3&transport=polling", 5, {"protocol": 3}),
    Row("?EIO=4&EIO=3&transport=polling", 5, {"protocol": 3}),
]
ON_UPGRADE = [
    *ON_EITHER_WAY,
    Row(WEBSOCKET + "&sid=nobody", 1, {"sid": "nobody"}),
    Row(POLLING + "&sid=nobody", 1, {"sid": "nobody"}),
    Row(WEBSOCKET, 3, {"name": "INVALID_ORIGIN", "origin": ILLEGAL["origin"]}, headers=ILLEGAL),
    Row("?transport=websocket", 5, {"protocol": 3}),
    Row("?EIO=abc&transport=websocket", 5, {"protocol": 3}),
    Row("?EIO=3&transport=websocket", 5, {"protocol": 3}),
]


def check_error(stage: Stage, code: int, context: dict[str, Any]) -> None:
    """The engine has said this once, and nothing else."""
    assert [(error.code, error.message, error.context) for error in stage.errors] == [(code, MESSAGES[code], context)]
    assert not stage.sessions
    assert stage.engine.clients_count == 0


def check_answer(response: HttpResponse, code: int, message: str | None = None) -> None:
    assert response.status == (403 if code == 4 else 400)
    assert response.headers["content-type"] == "application/json"
    assert response.text == f'{{"code":{code},"message":"{message or MESSAGES[code]}"}}'


async def refused_websocket(stage: Stage, query: str, headers: Mapping[str, str] | None = None) -> HttpResponse:
    with pytest.raises(WebSocketRefused) as caught:
        await stage.net.websocket(query, headers or {})
    return caught.value.response


@pytest.mark.parametrize("row", ON_HTTP, ids=str)
async def test_http_request_is_refused_with_its_code_and_reported_once(row: Row) -> None:
    async with open_stage() as stage:
        response = await stage.net.request(row.method, row.query, row.headers)
        if row.method == "HEAD":
            assert (response.status, response.body) == (400, b"")
        else:
            check_answer(response, row.code)
        check_error(stage, row.code, row.context)
        request = stage.errors[0].request
        assert (request.method, request.target) == (row.method, stage.net.target(row.query))


@pytest.mark.parametrize("row", ON_UPGRADE, ids=str)
async def test_websocket_is_refused_in_plain_text_before_the_101_and_cut(row: Row) -> None:
    async with open_stage() as stage:
        exchange = Exchange(stage.net.connect())
        upgrade = {
            "connection": "Upgrade",
            "upgrade": "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        await exchange.ask("GET", stage.net.target(row.query), {**upgrade, **row.headers})
        response = await exchange.response()
        assert (response.status, response.text) == (400, MESSAGES[row.code])
        assert response.headers["content-type"] == "text/html"
        assert response.headers["connection"].lower() == "close"
        assert await exchange.stream.receive_some() == b""
        check_error(stage, row.code, row.context)


@pytest.mark.parametrize("transports", [["polling"], ["websocket"]])
async def test_transport_that_is_not_enabled_is_unknown(transports: list[str]) -> None:
    async with open_stage(transports=transports) as stage:
        if transports == ["polling"]:
            response = await refused_websocket(stage, WEBSOCKET)
            assert (response.status, response.text) == (400, "Transport unknown")
            check_error(stage, 0, {"transport": "websocket"})
        else:
            check_answer(await stage.net.get(POLLING), 0)
            check_error(stage, 0, {"transport": "polling"})


# Requests for a session that exists


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_transport_mismatch_leaves_the_polling_session_alone(method: str) -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        response = await stage.net.request(method, f"{WEBSOCKET}&sid={client.sid}")
        check_answer(response, 3)
        context = {"name": "TRANSPORT_MISMATCH", "transport": "websocket", "previousTransport": "polling"}
        assert [error.context for error in stage.errors] == [context]
        await client.send("4still here")
        assert await stage.session.receive() == "still here"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_polling_for_a_websocket_session_is_a_mismatch_and_leaves_it_alone(method: str) -> None:
    async with open_stage() as stage:
        client = await stage.net.engine_websocket()
        response = await stage.net.request(method, f"{POLLING}&sid={client.sid}")
        check_answer(response, 3)
        context = {"name": "TRANSPORT_MISMATCH", "transport": "polling", "previousTransport": "websocket"}
        assert [error.context for error in stage.errors] == [context]
        await client.send("4still here")
        assert await stage.session.receive() == "still here"


async def test_plain_get_for_a_websocket_session_is_answered_400() -> None:
    async with open_stage() as stage:
        client = await stage.net.engine_websocket()
        check_answer(await stage.net.get(f"{WEBSOCKET}&sid={client.sid}"), 3)
        assert [error.context for error in stage.errors] == [NO_HANDSHAKE]
        await client.send("4still here")
        assert await stage.session.receive() == "still here"


async def test_session_id_of_a_closed_session_is_unknown() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        stage.session.close(discard=True)
        check_answer(await stage.net.get(client.target), 1)
        assert stage.errors[0].context == {"sid": client.sid}


# allow_request


def refuse(request: Request) -> bool:
    return False


async def refuse_async(request: Request) -> bool:
    return False


def refuse_with_text(request: Request) -> bool:
    raise ConnectionRefused("Thou shall not pass")


async def refuse_with_text_async(request: Request) -> bool:
    raise ConnectionRefused("Thou shall not pass")


REFUSALS = [(refuse, None), (refuse_async, None)] + [
    (fn, "Thou shall not pass") for fn in (refuse_with_text, refuse_with_text_async)
]


@pytest.mark.parametrize(("allow_request", "message"), REFUSALS)
async def test_allow_request_refuses_polling_with_403_and_its_message(allow_request: Any, message: str | None) -> None:
    async with open_stage(allow_request=allow_request) as stage:
        check_answer(await stage.net.get(POLLING), 4, message)
        check_error(stage, 4, {"message": message})


@pytest.mark.parametrize(("allow_request", "message"), REFUSALS)
async def test_allow_request_refuses_websocket_with_400_and_its_message(
    allow_request: Any, message: str | None
) -> None:
    async with open_stage(allow_request=allow_request) as stage:
        response = await refused_websocket(stage, WEBSOCKET)
        assert (response.status, response.text) == (400, message or "Forbidden")
        check_error(stage, 4, {"message": message})


async def test_allow_request_that_fails_refuses_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def broken(request: Request) -> bool:
        raise ZeroDivisionError

    async with open_stage(allow_request=broken) as stage:
        check_answer(await stage.net.get(POLLING), 4)
        check_error(stage, 4, {"message": None})
    assert [record.exc_info and record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]


@on_both_transports
async def test_allow_request_lets_in_and_is_asked_once_per_session(transport: str) -> None:
    asked: list[str] = []

    async def allow(request: Request) -> bool:
        asked.append(request.query["transport"])
        return True

    async with open_stage(allow_request=allow) as stage:
        client = await stage.client(transport)
        await client.send("4x")
        if isinstance(client, EioPolling):
            await client.upgrade()
        assert await stage.session.receive() == "x"
    assert asked == [transport]


# The order of the checks


def never(request: Request) -> bool:
    raise AssertionError("allow_request was asked")


async def test_unknown_transport_comes_before_an_illegal_origin() -> None:
    async with open_stage(allow_request=never) as stage:
        check_answer(await stage.net.get("?transport=tobi&sid=nobody", ILLEGAL), 0)
        assert len(stage.errors) == 1


async def test_illegal_origin_comes_before_an_unknown_session() -> None:
    async with open_stage(allow_request=never) as stage:
        check_answer(await stage.net.get(POLLING + "&sid=nobody", ILLEGAL), 3)
        assert len(stage.errors) == 1


async def test_unknown_session_comes_before_the_protocol_version() -> None:
    async with open_stage(allow_request=never) as stage:
        check_answer(await stage.net.get("?EIO=3&transport=polling&sid=nobody"), 1)
        assert len(stage.errors) == 1


@pytest.mark.parametrize(("method", "query", "code"), [("POST", POLLING, 2), ("GET", WEBSOCKET, 3)])
async def test_method_and_upgrade_are_checked_before_allow_request(method: str, query: str, code: int) -> None:
    async with open_stage(allow_request=never) as stage:
        check_answer(await stage.net.request(method, query), code)
        assert len(stage.errors) == 1


async def test_allow_request_comes_before_the_protocol_version() -> None:
    async with open_stage(allow_request=refuse) as stage:
        check_answer(await stage.net.get("?EIO=3&transport=polling"), 4)


async def test_protocol_version_comes_before_generate_id() -> None:
    async with open_stage() as stage:
        stage.engine.generate_id = broken_id
        check_answer(await stage.net.get("?EIO=3&transport=polling"), 5)


async def test_refusals_have_no_headers_events_but_keep_what_middlewares_added() -> None:
    async with open_stage(cors="*") as stage:
        seen: list[Headers] = []
        stage.engine.on("headers", seen.append)
        stage.engine.on("initial_headers", seen.append)
        response = await stage.net.get(WEBSOCKET, FOREIGN)
        check_answer(response, 3)
        assert response.headers["access-control-allow-origin"] == "*"
        await refused_websocket(stage, "?transport=websocket")
        assert not seen


# generate_id


def broken_id(request: Request) -> str:
    raise ZeroDivisionError


async def broken_id_async(request: Request) -> str:
    raise ZeroDivisionError


@pytest.mark.parametrize("generate", [broken_id, broken_id_async])
@on_both_transports
async def test_generate_id_that_fails_is_a_bad_request(
    generate: Any, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_stage() as stage:
        stage.engine.generate_id = generate
        if transport == "polling":
            check_answer(await stage.net.get(POLLING), 3)
        else:
            assert (await refused_websocket(stage, WEBSOCKET)).text == "Bad request"
        (error,) = stage.errors
        assert error.code == 3
        assert error.context["name"] == "ID_GENERATION_ERROR"
        assert isinstance(error.context["error"], ZeroDivisionError)
        assert not stage.sessions
    assert len(caplog.records) == 1


async def test_generate_id_that_returns_no_text_is_a_bad_request(caplog: pytest.LogCaptureFixture) -> None:
    async with open_stage() as stage:
        stage.engine.generate_id = lambda request: 7  # type: ignore[assignment, return-value]
        check_answer(await stage.net.get(POLLING), 3)
        assert isinstance(stage.errors[0].context["error"], TypeError)
    assert len(caplog.records) == 1


# Origins


async def open_in_every_way(stage: Stage, headers: dict[str, str]) -> list[int]:
    """The status of a polling handshake, of a POST without a session, and of a WebSocket."""
    statuses = [(await stage.net.request(method, POLLING, headers)).status for method in ("GET", "POST")]
    try:
        websocket = await stage.net.websocket(WEBSOCKET, headers)
        await websocket.close()
        return [*statuses, 101]
    except WebSocketRefused as refused:
        return [*statuses, refused.response.status]


async def test_pages_of_other_origins_get_no_session_by_default() -> None:
    async with open_stage() as stage:
        assert await open_in_every_way(stage, FOREIGN) == [403, 403, 400]
        assert [error.code for error in stage.errors] == [4, 4, 4]
        assert "cors" in stage.errors[0].context["message"]
        assert not stage.sessions


async def test_page_of_another_origin_cannot_post_into_a_session_that_it_knows() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        assert (await client.post("4evil", FOREIGN)).status == 403
        assert (await stage.net.get(client.target, FOREIGN)).status == 403
        await client.send("4good")
        assert await stage.session.receive() == "good"


async def test_page_of_another_origin_cannot_upgrade_a_session_that_it_knows() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        refused = await refused_websocket(stage, f"{WEBSOCKET}&sid={client.sid}", FOREIGN)
        assert refused.status == 400
        await client.send("4good")
        assert await stage.session.receive() == "good"


@pytest.mark.parametrize("headers", [{}, {"origin": "http://example.com"}])
async def test_programs_and_pages_of_the_same_origin_are_let_in(headers: dict[str, str]) -> None:
    async with open_stage() as stage:
        assert await open_in_every_way(stage, headers) == [200, 400, 101]
        assert [error.code for error in stage.errors] == [2]


async def test_origins_named_by_the_cors_option_are_let_in_and_others_are_not() -> None:
    async with open_stage(cors=["https://friend.example"]) as stage:
        assert await open_in_every_way(stage, {"origin": "https://friend.example"}) == [200, 400, 101]
        assert await open_in_every_way(stage, FOREIGN) == [403, 403, 400]
        assert len(stage.sessions) == 2


# Many at once


async def test_unknown_session_ids_by_the_dozen_are_one_warning_that_names_sticky_sessions(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_stage() as stage:
        for number in range(36):
            await stage.net.get(f"{POLLING}&sid={number}")
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "sticky" in record.getMessage()


async def test_few_unknown_session_ids_are_not_worth_a_line(caplog: pytest.LogCaptureFixture) -> None:
    async with open_stage() as stage:
        for number in range(5):
            await stage.net.get(f"{POLLING}&sid={number}")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_refusals_leave_no_task() -> None:
    async with open_stage() as stage:
        for row in ON_HTTP:
            await stage.net.request(row.method, row.query, row.headers)
        for row in ON_UPGRADE:
            await refused_websocket(stage, row.query, row.headers)
        await settle()
        assert len(stage.errors) == len(ON_HTTP) + len(ON_UPGRADE)


async def test_listener_of_connection_error_must_be_a_plain_function() -> None:
    async def listener(error: object) -> None:
        pass

    with pytest.raises(TypeError, match="plain function"):
        Engine().on("connection_error", listener)
