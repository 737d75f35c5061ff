"""How a session begins (Engine.IO protocol, "handshake")."""

from __future__ import annotations

import contextvars
import json
import math
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio.engineio import Cookie

from ..wire_client import EioPolling, settle
from .stage import POLLING, WEBSOCKET, Stage, on_both_transports, open_stage

if TYPE_CHECKING:
    from trio_socketio.engineio import Headers, Request, Session


async def handshake_text(stage: Stage, transport: str) -> str:
    """The ``open`` packet as it is on the wire."""
    if transport == "polling":
        return (await stage.net.get(POLLING)).text
    message = await (await stage.net.websocket(WEBSOCKET)).recv()
    assert isinstance(message, str)
    return message


@on_both_transports
async def test_open_packet_is_compact_json_in_the_order_of_the_protocol(transport: str) -> None:
    async with open_stage() as stage:
        text = await handshake_text(stage, transport)
        upgrades = '["websocket"]' if transport == "polling" else "[]"
        assert text == (
            f'0{{"sid":"{stage.session.id}","upgrades":{upgrades},'
            '"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}'
        )


@on_both_transports
async def test_open_packet_tells_the_options_in_milliseconds_and_bytes(transport: str) -> None:
    async with open_stage(ping_interval=0.3, ping_timeout=7, max_http_buffer_size=1234) as stage:
        handshake = json.loads((await handshake_text(stage, transport))[1:])
        assert (handshake["pingInterval"], handshake["pingTimeout"], handshake["maxPayload"]) == (300, 7000, 1234)
        assert type(handshake["pingTimeout"]) is int


@pytest.mark.parametrize("options", [{"transports": ["polling"]}, {"allow_upgrades": False}])
async def test_no_upgrades_are_offered_where_there_are_none(options: dict[str, Any]) -> None:
    async with open_stage(**options) as stage:
        assert (await stage.net.polling()).handshake["upgrades"] == []


async def test_polling_handshake_is_plain_text_that_no_cache_keeps() -> None:
    async with open_stage() as stage:
        response = await stage.net.get(POLLING)
        assert response.status == 200
        assert response.headers["content-type"] == "text/plain; charset=UTF-8"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["content-length"] == str(len(response.body))
        assert "x-xss-protection" not in response.headers


@pytest.mark.parametrize("agent", ["Mozilla/4.0 (compatible;MSIE 8.0; Windows NT 6.1)", "x (Trident/7.0; rv:11.0)"])
async def test_old_browsers_are_told_not_to_filter(agent: str) -> None:
    async with open_stage() as stage:
        assert (await stage.net.get(POLLING, {"user-agent": agent})).headers["x-xss-protection"] == "0"


@on_both_transports
async def test_clients_are_counted(transport: str) -> None:
    async with open_stage() as stage:
        assert stage.engine.clients_count == 0
        client = await stage.client(transport)
        assert stage.engine.clients_count == 1
        assert stage.engine.sessions == {client.sid: stage.session}
        await client.close()
        await stage.end()
        assert stage.engine.clients_count == 0


@on_both_transports
async def test_request_of_the_session_has_query_headers_and_transport(transport: str) -> None:
    async with open_stage() as stage:
        await stage.net.open_socketio(transport, query="&token=1&token=2&t=x", headers={"X-Custom": "yes"})
        session = stage.session
        assert (session.request.query["token"], session.request.headers["x-custom"]) == ("2", "yes")
        assert (session.request.query["transport"], session.transport) == (transport, transport)
        assert isinstance(session.remote_address, str)


# Session ids


async def test_session_ids_are_unique_and_have_120_random_bits() -> None:
    async with open_stage() as stage:
        ids = {(await stage.net.polling()).sid for _ in range(100)}
        assert len(ids) == 100
        alphabet = {character for sid in ids for character in sid}
        assert {len(sid) for sid in ids} == {20}
        assert len(alphabet) > 60, "all 64 characters of the URL's base64 are to be expected among 2000"
        assert 20 * math.log2(64) >= 120
        columns = zip(*ids, strict=True)
        assert all(len(set(column)) > 30 for column in columns), "no position may be constant, or count"


def plain_id(request: Request) -> str:
    return "id of " + request.query["transport"]


async def async_id(request: Request) -> str:
    await trio.sleep(1)
    return plain_id(request)


@pytest.mark.parametrize("generate", [plain_id, async_id])
@on_both_transports
async def test_generate_id_may_be_replaced(generate: Any, transport: str) -> None:
    async with open_stage() as stage:
        stage.engine.generate_id = generate
        client = await stage.client(transport)
        assert client.sid == f"id of {transport}"
        assert list(stage.engine.sessions) == [client.sid]


async def test_session_id_is_never_taken_from_the_request() -> None:
    async with open_stage(cookie=True) as stage:
        response = await stage.net.get(POLLING + "&io=mine", {"cookie": "io=mine; sid=mine"})
        assert "mine" not in response.text + response.headers["set-cookie"]


async def test_client_that_leaves_during_generate_id_leaves_no_session() -> None:
    async with open_stage() as stage:
        stage.engine.generate_id = async_id
        exchange = await stage.net.start_get(POLLING)
        await exchange.drop()
        await trio.sleep(5)
        assert not stage.sessions
        assert stage.engine.clients_count == 0


# The first message


async def test_initial_packet_rides_in_the_body_of_the_polling_handshake() -> None:
    async with open_stage(initial_packet="faster!") as stage:
        opening, *more = (await stage.net.get(POLLING)).packets
        assert opening[0] == "0"
        assert more == ["4faster!"]


@pytest.mark.parametrize(("packet", "wire"), [("faster!", "4faster!"), (b"\x01", b"\x01")])
async def test_initial_packet_is_a_frame_of_its_own_on_websocket(packet: str | bytes, wire: str | bytes) -> None:
    async with open_stage(initial_packet=packet) as stage:
        client = await stage.net.engine_websocket()
        assert await client.recv() == wire


async def test_what_the_connection_listener_sends_waits_for_the_next_poll() -> None:
    async with open_stage() as stage:

        @stage.engine.on("connection")
        async def connected(session: Session) -> None:
            await session.send("hello")

        client = await stage.net.polling()
        assert len(client.opening.packets) == 1
        assert await client.poll() == ["4hello"]


async def test_what_the_connection_listener_sends_follows_the_open_packet_on_websocket() -> None:
    async with open_stage() as stage:

        @stage.engine.on("connection")
        async def connected(session: Session) -> None:
            await session.send("hello")

        client = await stage.net.engine_websocket()
        assert await client.recv() == "4hello"


async def test_failing_connection_listener_is_logged_and_closes_its_session(caplog: pytest.LogCaptureFixture) -> None:
    async with open_stage() as stage:

        @stage.engine.on("connection")
        async def connected(session: Session) -> None:
            raise ZeroDivisionError

        client = await stage.net.engine_websocket()
        assert (await client.websocket.closed()).code == 1000
        assert await stage.end() == ("forced close", None)
        await stage.net.engine_websocket()
    assert [record.exc_info and record.exc_info[0] for record in caplog.records] == [ZeroDivisionError] * 2


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_failing_plain_connection_listener_is_logged_and_closes_its_session(
    transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_stage() as stage:

        @stage.engine.on("connection")
        def connected(session: Session) -> None:
            raise ZeroDivisionError

        client = await stage.client(transport)
        if isinstance(client, EioPolling):
            assert await client.poll() == ["6", "1"]
        assert await stage.end() == ("forced close", None)
        assert stage.engine.clients_count == 0
    assert [record.exc_info and record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]


async def test_once_is_told_of_one_session_only() -> None:
    async with open_stage() as stage:
        seen: list[Session] = []
        stage.engine.once("connection", seen.append)
        await stage.net.polling()
        await stage.net.polling()
        assert seen == stage.sessions[:1]


async def test_off_removes_a_listener() -> None:
    async with open_stage() as stage:
        seen: list[Session] = []
        stage.engine.on("connection", seen.append)
        stage.engine.off("connection", seen.append)
        await stage.net.polling()
        assert seen == []


# The cookie


async def test_no_cookie_by_default() -> None:
    async with open_stage() as stage:
        assert "set-cookie" not in (await stage.net.get(POLLING)).headers


async def test_cookie_has_the_session_id_and_comes_with_the_polling_handshake_only() -> None:
    async with open_stage(cookie=True) as stage:
        client = await stage.net.polling()
        assert client.opening.headers.get_all("set-cookie") == [f"io={client.sid}; Path=/; HttpOnly; SameSite=Lax"]
        stage.session.close()
        later = [await stage.net.get(client.target), await client.post("4x")]
        websocket = await stage.net.websocket(WEBSOCKET)
        assert not any("set-cookie" in headers for headers in [*[r.headers for r in later], websocket.headers])


async def test_cookie_that_a_listener_sets_is_one_more() -> None:
    async with open_stage(cookie=Cookie(name="woot")) as stage:
        stage.engine.on("initial_headers", lambda headers: headers.add("set-cookie", "mine=1"))
        client = await stage.net.polling()
        cookies = client.opening.headers.get_all("set-cookie")
        assert [cookie.partition(";")[0] for cookie in cookies] == [f"woot={client.sid}", "mine=1"]


async def test_cookie_of_a_listener_is_the_only_one_on_a_websocket() -> None:
    async with open_stage(cookie=True) as stage:
        stage.engine.on("initial_headers", lambda headers: headers.add("set-cookie", "mine=1"))
        websocket = await stage.net.websocket(WEBSOCKET)
        assert websocket.headers.get_all("set-cookie") == ["mine=1"]


# The events for headers


def mark_headers(stage: Stage) -> list[str]:
    """Add a header in each event; the list tells which have fired, and for which method and transport."""
    fired: list[str] = []

    def initial(headers: Headers, request: Request) -> None:
        fired.append(f"initial {request.method} {request.query['transport']}")
        headers["x-initial"] = "1"

    def every(headers: Headers, request: Request) -> None:
        fired.append(f"every {request.method} {request.query['transport']}")
        headers["x-every"] = "1"

    stage.engine.on("initial_headers", initial)
    stage.engine.on("headers", every)
    return fired


async def test_header_events_on_polling_are_initial_once_and_then_every_poll_and_post() -> None:
    async with open_stage() as stage:
        fired = mark_headers(stage)
        client = await stage.net.polling()
        assert (client.opening.headers["x-initial"], client.opening.headers["x-every"]) == ("1", "1")
        posted = await client.post("4x")
        await stage.session.send("y")
        polled = await stage.net.get(client.target)
        for response in (posted, polled):
            assert response.headers["x-every"] == "1"
            assert "x-initial" not in response.headers
        assert fired == ["initial GET polling", "every GET polling", "every POST polling", "every GET polling"]


async def test_header_events_on_websocket_are_in_the_101() -> None:
    async with open_stage() as stage:
        fired = mark_headers(stage)
        websocket = await stage.net.websocket(WEBSOCKET)
        assert (websocket.headers["x-initial"], websocket.headers["x-every"]) == ("1", "1")
        assert fired == ["initial GET websocket", "every GET websocket"]


async def test_header_event_of_an_upgrade_is_in_the_101_and_not_initial() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        fired = mark_headers(stage)
        websocket = await client.probe()
        assert websocket.headers["x-every"] == "1"
        assert "x-initial" not in websocket.headers
        assert fired == ["every GET websocket"]


async def test_header_with_a_line_break_is_an_error_of_the_listener_and_nothing_is_split(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_stage() as stage:
        stage.engine.on("headers", lambda headers: headers.add("x-bad", "a\r\nset-cookie: evil=1"))
        client_response = await stage.net.get(POLLING)
        assert client_response.status == 500
        assert "set-cookie" not in client_response.headers
    assert len(caplog.records) == 1


@on_both_transports
async def test_failing_header_listener_costs_that_request_only(
    transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_stage() as stage:
        stage.engine.once("initial_headers", lambda headers: 1 // 0)
        query = f"?EIO=4&transport={transport}"
        refused = await stage.net.request("GET", query, {} if transport == "polling" else UPGRADE)
        assert refused.status == 500
        await settle()
        assert stage.engine.clients_count == 0
        await stage.client(transport)
        assert stage.engine.clients_count == 1
    assert len(caplog.records) == 1


async def test_session_whose_handshake_or_poll_could_not_be_answered_ends(caplog: pytest.LogCaptureFixture) -> None:
    async with open_stage() as stage:
        stage.engine.once("headers", lambda headers: 1 // 0)
        assert (await stage.net.get(POLLING)).status == 500
        assert stage.engine.clients_count == 0
        client = await stage.net.polling()
        await stage.session.send("lost")
        stage.engine.once("headers", lambda headers: 1 // 0)
        assert (await stage.net.get(client.target)).status == 500
        assert (await stage.end())[0] == "transport error"
    assert len(caplog.records) == 2


UPGRADE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}

# Context variables

who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


@on_both_transports
async def test_context_variables_of_the_first_request_do_not_leak_into_the_session(transport: str) -> None:
    async with open_stage() as stage:
        seen: list[str] = []

        @stage.engine.use
        def middleware(request: Request) -> None:
            who.set("the first request")

        @stage.engine.on("connection")
        async def connected(session: Session) -> None:
            seen.append(who.get())

        await stage.client(transport)
        await settle()
        assert seen == ["nobody"]
