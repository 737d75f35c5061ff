"""Functions that see every request before anything is checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio.engineio import ConnectionRefused, Headers, Response

from ..wire_client import WebSocketRefused
from .stage import POLLING, WEBSOCKET, on_both_transports, open_stage

if TYPE_CHECKING:
    from trio_socketio.engineio import Request

    from .stage import Stage


async def answer(stage: Stage, transport: str) -> tuple[int, Headers, str]:
    """Status, headers and body of the answer to a client that wants a session."""
    if transport == "polling":
        response = await stage.net.get(POLLING)
        return response.status, response.headers, response.text
    try:
        websocket = await stage.net.websocket(WEBSOCKET)
    except WebSocketRefused as refused:
        return refused.response.status, refused.response.headers, refused.response.text
    return 101, websocket.headers, ""


@on_both_transports
async def test_middlewares_run_in_order_sync_and_async(transport: str) -> None:
    async with open_stage() as stage:
        order: list[str] = []

        @stage.engine.use
        async def first(request: Request) -> None:
            await trio.sleep(1)
            order.append("first")

        @stage.engine.use
        def second(request: Request) -> None:
            order.append("second")

        status, _, _ = await answer(stage, transport)
        assert status in (200, 101)
        assert order == ["first", "second"]


@on_both_transports
async def test_headers_of_a_middleware_are_in_the_answer(transport: str) -> None:
    async with open_stage() as stage:

        @stage.engine.use
        def middleware(request: Request) -> None:
            request.response_headers["x-from"] = "middleware"
            request.response_headers.add("set-cookie", "a=1")
            request.response_headers.add("set-cookie", "b=2")

        _, headers, _ = await answer(stage, transport)
        assert headers["x-from"] == "middleware"
        assert headers.get_all("set-cookie") == ["a=1", "b=2"]


async def test_middlewares_see_every_request_of_a_session() -> None:
    async with open_stage() as stage:
        seen: list[tuple[str, str]] = []

        @stage.engine.use
        def middleware(request: Request) -> None:
            seen.append((request.method, request.query["transport"]))
            request.response_headers["x-seen"] = str(len(seen))

        client = await stage.net.polling()
        assert (await client.post("4x")).headers["x-seen"] == "2"
        await stage.session.send("x")
        assert (await stage.net.get(client.target)).headers["x-seen"] == "3"
        assert (await client.probe()).headers["x-seen"] == "4"
        assert seen == [("GET", "polling"), ("POST", "polling"), ("GET", "polling"), ("GET", "websocket")]


@on_both_transports
async def test_response_of_a_middleware_ends_the_matter(transport: str) -> None:
    async with open_stage() as stage:
        stage.engine.use(lambda request: Response(503, b"later", Headers([("retry-after", "9")])))

        @stage.engine.use
        def never(request: Request) -> None:
            raise AssertionError("it was asked")

        status, headers, text = await answer(stage, transport)
        assert (status, headers["retry-after"], text) == (503, "9", "later")
        assert not stage.errors
        assert not stage.sessions


@on_both_transports
@pytest.mark.parametrize("error", [ValueError("secret"), ConnectionRefused("not you")], ids=["failed", "refused"])
async def test_exception_of_a_middleware_is_a_bad_request(
    transport: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_stage() as stage:

        @stage.engine.use
        async def middleware(request: Request) -> None:
            raise error

        status, _, text = await answer(stage, transport)
        assert status == 400
        assert text == ("Bad request" if transport == "websocket" else '{"code":3,"message":"Bad request"}')
        (reported,) = stage.errors
        assert (reported.code, reported.message) == (3, "Bad request")
        assert reported.context == {"name": "MIDDLEWARE_FAILURE", "error": error}
        assert not stage.sessions
    assert len(caplog.records) == (type(error) is ValueError), "who refuses on purpose does not need a traceback"


async def test_exception_of_a_middleware_does_not_touch_the_session() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()

        @stage.engine.use
        def middleware(request: Request) -> None:
            if "bad" in request.query:
                raise ConnectionRefused

        assert (await stage.net.get(client.target + "&bad")).status == 400
        await client.send("4x")
        assert await stage.session.receive() == "x"


async def test_middleware_comes_before_every_check() -> None:
    async with open_stage(allow_request=lambda request: False) as stage:
        stage.engine.use(lambda request: Response(204))
        assert (await stage.net.get("?transport=tobi")).status == 204


async def test_cors_is_the_first_middleware() -> None:
    async with open_stage(cors="*") as stage:
        seen: list[Any] = []
        stage.engine.use(lambda request: seen.append(dict(request.response_headers)))
        await stage.net.get(POLLING, {"origin": "https://other.example"})
        assert (await stage.net.request("OPTIONS", POLLING)).status == 204
        assert seen == [{"access-control-allow-origin": "*"}]


@on_both_transports
async def test_middleware_that_returns_something_else_is_an_error_of_ours(
    transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_stage() as stage:
        stage.engine.use(lambda request: True)  # type: ignore[type-var]
        status, _, text = await answer(stage, transport)
        assert (status, text) == (500, "")
        assert not stage.sessions
    assert len(caplog.records) == 1


@on_both_transports
async def test_messages_that_are_too_large_are_refused_behind_a_middleware_too(transport: str) -> None:
    async with open_stage(max_http_buffer_size=5) as stage:
        stage.engine.use(lambda request: None)
        client = await stage.client(transport)
        await client.send("4a")
        assert await stage.session.receive() == "a"
        if transport == "polling":
            assert (await stage.net.post(f"{POLLING}&sid={client.sid}", "4" + "x" * 49)).status == 413
        else:
            await client.send("4" + "x" * 49)
            assert (await stage.end())[0] == "transport error"


async def test_client_that_leaves_during_a_middleware_leaves_nothing() -> None:
    async with open_stage() as stage:
        ended: list[bool] = []

        @stage.engine.use
        async def middleware(request: Request) -> None:
            try:
                await trio.sleep(100)
            finally:
                ended.append(True)

        exchange = await stage.net.start_get(POLLING)
        await exchange.drop()
        await trio.sleep(1)
        assert ended == [True]
        assert not stage.sessions
