"""The small print of the reference: single words of its options, answers and members that no other module tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio._wire.frames import encode_frame
from trio_socketio.engineio import (
    CORS,
    ConnectionRefused,
    Cookie,
    Engine,
    Headers,
    HttpCompression,
    Request,
    Response,
)

from ..wire_client import WEBSOCKET_HEADERS, Exchange, count_tasks, settle
from .stage import POLLING, WEBSOCKET, on_both_transports, open_stage

if TYPE_CHECKING:
    from trio_socketio.engineio import Session

    from ..wire_client import EioPolling, WebSocketClient
    from .stage import Stage

INTERNET_EXPLORER = {"user-agent": "Mozilla/5.0 (Windows NT 10.0; Trident/7.0; rv:11.0) like Gecko"}
DEFLATE = {"sec-websocket-extensions": "permessage-deflate"}
FORCED = ("forced close", None)


# Members


async def test_engine_answers_requests_that_no_front_end_has_made() -> None:
    engine = Engine()
    async with engine.running():
        target = engine.config.path + "/" + POLLING
        opening = await engine.handle_request(Request(method="GET", target=target, headers=Headers()))
        assert (opening.status, opening.body[:8]) == (200, b'0{"sid":')
        assert engine.clients_count == 1
        request = Request(method="GET", target=engine.config.path + "/" + WEBSOCKET, headers=Headers())
        verdict = await engine.open_websocket(request)
        assert not isinstance(verdict, Response)
        assert verdict.max_message_size == 1_000_000
        target = target.replace("polling", "tobi")
        refusal = await engine.open_websocket(Request(method="GET", target=target, headers=Headers()))
        assert isinstance(refusal, Response)
        assert (refusal.status, refusal.body) == (400, b"Transport unknown")


async def test_first_request_may_be_forgotten_and_the_address_of_its_client_stays() -> None:
    async with open_stage() as stage:

        @stage.engine.on("connection")
        def connected(session: Session) -> None:
            session.request.client = ("203.0.113.7", 1)
            del session.request

        client = await stage.net.polling()
        assert stage.session.remote_address == ""
        await client.send("4up")
        await stage.session.send("down")
        assert await client.poll() == ["4down"]
        websocket = await client.upgrade()
        await websocket.send("4on")
        assert [await stage.session.receive() for _ in range(2)] == ["up", "on"]


@on_both_transports
@pytest.mark.parametrize("value", [None, 5, 0, True, 1.5, [1, 2], ["a"], {}], ids=repr)
async def test_what_is_neither_text_nor_bytes_is_refused_and_nothing_is_queued(value: Any, transport: str) -> None:
    async with open_stage() as stage:
        client = await stage.client(transport)
        with pytest.raises(TypeError, match=f"text or bytes, not {type(value).__name__}"):
            await stage.session.send(value)
        assert stage.session.buffered_bytes == 0
        await stage.session.send("next")
        assert await client.recv() == "4next"


@pytest.mark.parametrize("compress", [True, False])
async def test_message_is_compressed_on_polling_unless_its_sender_minds(compress: bool) -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        await stage.session.send("x" * 2000, compress=compress)
        response = await stage.net.get(client.target, {"accept-encoding": "gzip"})
        assert ("content-encoding" in response.headers) == compress
        assert len(response.body) < 100 or response.text == "4" + "x" * 2000


@pytest.mark.parametrize("compress", [True, False])
async def test_message_is_compressed_on_a_websocket_unless_its_sender_minds(compress: bool) -> None:
    async with open_stage(per_message_deflate=True) as stage:
        websocket = await stage.net.websocket(WEBSOCKET, DEFLATE)
        assert websocket.headers["sec-websocket-extensions"].startswith("permessage-deflate")
        assert str(await websocket.recv()).startswith("0{")
        await stage.session.send("x" * 2000, compress=compress)
        frame = await websocket.stream.receive_some()
        if compress:
            assert frame[0] == 0b1100_0001, "text, and the bit that says that it is compressed"
            assert len(frame) < 100
        else:
            assert frame == encode_frame(1, b"4" + b"x" * 2000)


# Options


def test_any_true_value_hides_the_cookie_from_scripts() -> None:
    yes: Any = "no"
    assert Cookie(http_only=yes).header("abc") == "io=abc; Path=/; HttpOnly; SameSite=Lax"


async def test_compression_of_everything_leaves_what_says_goodbye_as_it_is() -> None:
    async with open_stage(http_compression=HttpCompression(threshold=0)) as stage:
        client = await stage.net.polling()
        stage.session.close()
        response = await stage.net.get(client.target, {"accept-encoding": "gzip"})
        assert "content-encoding" not in response.headers
        assert response.packets == ["6", "1"]


# Routing and verification


@on_both_transports
async def test_query_is_decoded_as_that_of_a_form_and_keeps_what_is_empty(transport: str) -> None:
    async with open_stage() as stage:
        await stage.net.open_socketio(transport, query="&name=J%C3%BCrgen+%26%3D%2B&none=&t=a.1&t=a.2&bare")
        query = {name: stage.session.request.query[name] for name in ("name", "none", "t", "bare")}
        assert query == {"name": "Jürgen &=+", "none": "", "t": "a.2", "bare": ""}


@pytest.mark.parametrize("refused", ["?transport=tobi", WEBSOCKET + "&sid=nobody", "?transport=websocket"])
async def test_refused_websocket_is_reported_with_its_request_and_answered_with_its_length(refused: str) -> None:
    async with open_stage() as stage:
        exchange = Exchange(stage.net.connect())
        await exchange.ask("GET", stage.net.target(refused), {**WEBSOCKET_HEADERS, "x-mine": "yes"})
        response = await exchange.response()
        assert response.headers["content-length"] == str(len(response.body)) != "0"
        (error,) = stage.errors
        assert (error.request.headers["x-mine"], error.request.target) == ("yes", stage.net.target(refused))
        assert error.message == response.text


async def test_refusal_with_an_empty_message_says_what_the_protocol_says() -> None:
    def refuse(request: Request) -> bool:
        raise ConnectionRefused("")

    async with open_stage(allow_request=refuse) as stage:
        assert (await stage.net.get(POLLING)).json() == {"code": 4, "message": "Forbidden"}
        assert [(error.message, error.context) for error in stage.errors] == [("Forbidden", {"message": ""})]


async def test_of_two_sessions_with_one_id_requests_reach_the_newer_whatever_becomes_of_the_older() -> None:
    async with open_stage() as stage:
        stage.engine.generate_id = lambda request: "same"
        older = await stage.net.engine_websocket()
        newer = await stage.net.polling()
        await newer.send("4a")
        await older.close()
        await settle()
        await newer.send("4b")
        assert [await stage.session.receive() for _ in range(2)] == ["a", "b"]
        assert [session.closed_because for session in stage.sessions] == [("transport close", None), None]
        assert stage.engine.sessions == {"same": stage.sessions[1]}


# Answers


async def test_each_answer_goes_by_the_browser_that_asked_for_it() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        protected = []
        for headers in ({}, INTERNET_EXPLORER, {"user-agent": "Mozilla/5.0 (X11) MSIE"}):
            await stage.session.send("x")
            for response in (await stage.net.get(client.target, headers), await client.post("4x", headers)):
                assert response.status == 200
                assert response.headers["cache-control"] == "no-store"
                protected.append(response.headers.get("x-xss-protection"))
        assert protected == [None, None, "0", "0", None, None]


async def test_answer_to_a_poll_may_be_larger_than_what_a_client_may_send() -> None:
    async with open_stage(max_http_buffer_size=10) as stage:
        client = await stage.net.polling()
        for letter in "abc":
            await stage.session.send(letter * 1000)
        assert await client.poll() == ["4" + letter * 1000 for letter in "abc"]


async def test_listeners_for_headers_may_change_what_the_engine_has_set() -> None:
    async with open_stage(cookie=True) as stage:

        @stage.engine.on("initial_headers")
        def initial(headers: Headers, request: Request) -> None:
            headers["set-cookie"] = headers["set-cookie"] + "; Secure"

        @stage.engine.on("headers")
        def every(headers: Headers, request: Request) -> None:
            headers["cache-control"] = "no-store, no-transform"

        client = await stage.net.polling()
        assert client.opening.headers.get_all("set-cookie") == [
            f"io={client.sid}; Path=/; HttpOnly; SameSite=Lax; Secure"
        ]
        assert (await client.post("4x")).headers.get_all("cache-control") == ["no-store, no-transform"]


PREFLIGHT = {
    "origin": "https://site.example",
    "access-control-request-method": "GET",
    "access-control-request-headers": "x-mine",
}


async def test_preflight_and_request_of_a_page_have_their_headers_on_the_wire() -> None:
    cors = CORS("https://site.example", methods=["GET", "POST"], credentials=True, exposed_headers=["x-b"], max_age=123)
    async with open_stage(cors=cors) as stage:
        preflight = await stage.net.request("OPTIONS", POLLING, PREFLIGHT)
        actual = await stage.net.get(POLLING, PREFLIGHT)
        assert (preflight.status, preflight.body, actual.status) == (204, b"", 200)
        names = ["origin", "credentials", "methods", "headers", "max-age", "expose-headers"]
        found = [[r.headers.get(f"access-control-{wanted(name)}") for name in names] for r in (preflight, actual)]
        assert found == [
            ["https://site.example", "true", "GET,POST", "x-mine", "123", "x-b"],
            ["https://site.example", "true", None, None, None, "x-b"],
        ]
        assert len(stage.sessions) == 1
        assert not stage.errors


def wanted(name: str) -> str:
    """The rest of a header's name."""
    return name if name in ("max-age", "expose-headers") else f"allow-{name}"


@pytest.mark.parametrize(("status", "length"), [(200, "0"), (204, None)])
async def test_preflight_is_empty_whatever_its_status_is(status: int, length: str | None) -> None:
    async with open_stage(cors=CORS(options_success_status=status)) as stage:
        preflight = await stage.net.request("OPTIONS", POLLING, PREFLIGHT)
        # HTTP forbids the length with a 204; the reference sends it.
        assert (preflight.status, preflight.body, preflight.headers.get("content-length")) == (status, b"", length)


async def test_preflight_that_cors_leaves_to_others_is_refused_with_its_headers() -> None:
    async with open_stage(cors=CORS(preflight_continue=True)) as stage:
        preflight = await stage.net.request("OPTIONS", POLLING, PREFLIGHT)
        assert (preflight.status, preflight.json()["code"]) == (400, 2)
        assert preflight.headers["access-control-allow-headers"] == "x-mine"


# Heartbeat


async def test_pong_to_a_closing_session_is_no_sign_of_life() -> None:
    async with open_stage(close_timeout=30, ping_interval=10, ping_timeout=5) as stage:
        client = await stage.net.polling()
        stage.session.close()
        await trio.sleep(12)
        await client.send("3")
        assert await stage.end() == ("ping timeout", None)
        assert trio.current_time() == pytest.approx(15, abs=0.01)


async def test_ping_of_an_old_client_is_answered_without_its_text() -> None:
    async with open_stage(allow_eio3=True) as stage:
        websocket = await stage.net.websocket("?EIO=3&transport=websocket")
        await websocket.recv()
        await websocket.send("2text")
        assert await websocket.recv() == "3"


async def test_post_to_an_old_session_that_has_expired_is_400() -> None:
    async with open_stage(allow_eio3=True) as stage:
        opening = await stage.net.get("?EIO=3&transport=polling")
        assert opening.status == 200
        assert await stage.end() == ("ping timeout", None)
        response = await stage.net.post(f"?EIO=3&transport=polling&sid={stage.session.id}", "1:2")
        assert (response.status, response.json()["code"]) == (400, 1)


# WebSocket


@pytest.mark.parametrize("unread", [False, True])
async def test_write_that_fails_is_a_transport_error(unread: bool) -> None:
    async with open_stage() as stage:
        client = await stage.net.engine_websocket(unread=unread)
        stream: Any = client.websocket.stream
        if unread:
            await stage.session.send("a")
            await settle()
        stream.receive_stream.close()  # what the client sends can still arrive
        await stage.session.send("b")
        assert await stage.end() == ("transport error", "write error")


# The upgrade


async def test_upgrading_request_does_not_change_the_revision_of_its_session() -> None:
    async with open_stage(allow_eio3=True) as stage:
        client = await stage.net.polling()
        websocket = await stage.net.websocket(f"?EIO=3&b64=1&transport=websocket&sid={client.sid}")
        await websocket.send("2probe")
        assert await websocket.recv() == "3probe"
        await websocket.send("5")
        await stage.session.send(b"\1\2")
        assert await websocket.recv() == b"\1\2"
        await websocket.send(b"\4\1\2")
        assert await stage.session.receive() == b"\4\1\2"
        assert stage.session.protocol == 4


async def test_upgrade_ends_the_task_that_released_the_polls() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        websocket = await client.probe()
        await websocket.send("2probe")
        assert await websocket.recv() == "3probe"
        await settle()
        tasks = count_tasks()
        await websocket.send("5")
        await trio.sleep(1)
        assert count_tasks() == tasks - 1


async def closing_while_probed(stage: Stage) -> tuple[EioPolling, WebSocketClient]:
    """A client whose probe was answered, and which has not polled again when its session is closed."""
    client = await stage.net.polling()
    websocket = await client.probe()
    await websocket.send("2probe")
    assert await websocket.recv() == "3probe"
    await settle()
    stage.session.close()
    # The goodbye must wait for the client's next step: it has stopped polling, and a WebSocket that closes under it
    # now would leave it with no transport at all.
    assert await stage.close_reason() is None
    return client, websocket


async def test_closing_session_whose_probe_was_answered_says_so_to_the_next_poll_and_closes_the_websocket() -> None:
    async with open_stage() as stage:
        client, websocket = await closing_while_probed(stage)
        assert await client.poll() == ["6", "1"]
        assert (await websocket.closed()).code == 1000
        assert await stage.end() == FORCED
        assert trio.current_time() == 0


async def test_closing_session_whose_probe_was_answered_is_over_with_the_upgrade() -> None:
    async with open_stage() as stage:
        _, websocket = await closing_while_probed(stage)
        await websocket.send("5")
        assert (await websocket.closed()).code == 1000
        assert await stage.end() == FORCED
        assert trio.current_time() == 0


async def test_closing_session_whose_client_has_vanished_gives_up_the_websocket_and_then_itself() -> None:
    async with open_stage(upgrade_timeout=10, close_timeout=30, ping_interval=100) as stage:
        _, websocket = await closing_while_probed(stage)
        assert (await websocket.closed()).code == 1000
        assert trio.current_time() == pytest.approx(10, abs=0.01)
        assert await stage.end() == FORCED
        assert trio.current_time() == pytest.approx(30, abs=0.01)
