"""The listener on the wire: what a client sends, byte by byte, and what it gets."""

from __future__ import annotations

import logging
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import h11
import pytest
import trio
import trio.testing
import trustme
from trio_websocket import open_websocket_url

from trio_socketio._engine.contract import Headers, HttpLimits, Response
from trio_socketio._frontends.listener import serve_connection
from trio_socketio._wire.frames import CLOSE, FIN, encode_frame

from .wire import ACCEPT, UPGRADE, App, Talk, client_frame, text_frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_socketio._engine.contract import Request, Verdict

GET = b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /app/echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """A raw client: writes bytes, reads answers with h11."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._received = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def read_answer(self, method: bytes = b"GET") -> Answer:
        http = h11.Connection(h11.CLIENT)
        http.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
        http.send(h11.EndOfMessage())
        if self._received:
            http.receive_data(self._received)
        answer: h11.Response | None = None
        body = b""
        while not isinstance(event := http.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                http.receive_data(bytes(await self.stream.receive_some()))
            elif isinstance(event, h11.Response):
                answer = event
            elif isinstance(event, h11.Data):
                body += event.data
        assert answer is not None
        self._received = http.trailing_data[0]
        headers = {name.decode(): value.decode() for name, value in answer.headers}
        return Answer(answer.status_code, headers, body)

    async def ask(self, data: bytes, method: bytes = b"GET") -> Answer:
        await self.send(data)
        return await self.read_answer(method)

    async def is_closed(self) -> bool:
        """Whether the server closes now, without another byte."""
        return not self._received and await self.stream.receive_some() == b""


@asynccontextmanager
async def connect(app: App) -> AsyncIterator[Client]:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery, theirs:
        nursery.start_soon(serve_connection, app, app.static_files, ours)
        yield Client(theirs)


# Keep-alive and pipelining


async def test_a_connection_serves_one_request_after_the_other() -> None:
    async with connect(App()) as client:
        for target in (b"/app/1", b"/app/2?x=y", b"/app/%20"):
            answer = await client.ask(GET % target)
            assert (answer.status, answer.body) == (200, target)
            assert answer.headers["content-type"] == "text/plain"
            assert answer.headers["content-length"] == str(len(target))
            assert answer.headers["date"].endswith(" GMT")


async def test_the_request_has_what_the_client_sent() -> None:
    app = App()
    async with connect(app) as client:
        await client.ask(b"GET /app/%C3%BC?a=1&a=2&b= HTTP/1.1\r\nHost: h\r\nX-A: \xfc\r\nX-A: 2\r\n\r\n")
    (request,) = app.requests
    assert (request.method, request.target, request.path) == ("GET", "/app/%C3%BC?a=1&a=2&b=", "/app/ü")
    assert request.query == {"a": "2", "b": ""}
    assert request.headers.get_all("x-a") == ["ü", "2"]
    assert (request.client, request.scheme) == (None, "http")


async def test_pipelined_requests_are_answered_in_order() -> None:
    app = App()
    async with connect(app) as client:
        await client.send(GET % b"/app/wait" + POST % (5, b"hello") + GET % b"/app/3")
        await trio.testing.wait_all_tasks_blocked()
        assert [request.path for request in app.requests] == ["/app/wait"]
        app.release.set()
        assert [(await client.read_answer()).body for _ in range(3)] == [b"released", b"hello", b"/app/3"]


async def test_requests_survive_being_sent_byte_by_byte() -> None:
    async with connect(App()) as client:
        for byte in POST % (5, b"hello") + GET % b"/app/2":
            await client.send(bytes((byte,)))
            await trio.testing.wait_all_tasks_blocked()
        assert [(await client.read_answer()).body for _ in range(2)] == [b"hello", b"/app/2"]


@pytest.mark.parametrize("line", [b"HTTP/1.1\r\nConnection: close", b"HTTP/1.0"])
async def test_a_connection_closes_after_the_answer_if_the_client_wants_it(line: bytes) -> None:
    async with connect(App()) as client:
        answer = await client.ask(b"GET /app/x " + line + b"\r\nHost: a\r\n\r\n")
        assert answer.headers["connection"] == "close"
        assert await client.is_closed()


async def test_head_has_the_length_but_not_the_body() -> None:
    async with connect(App()) as client:
        answer = await client.ask(b"HEAD /app/x HTTP/1.1\r\nHost: a\r\n\r\n", b"HEAD")
        assert (answer.headers["content-length"], answer.body) == ("6", b"")
        assert (await client.ask(GET % b"/app/x")).body == b"/app/x"


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_has_no_length(status: int) -> None:
    class Empty(App):
        async def handle_request(self, request: Request) -> Response:
            return Response(status, b"not for the wire", Headers([("content-length", "7")]))

    async with connect(Empty()) as client:
        for _ in range(2):
            answer = await client.ask(GET % b"/app/x")
            assert (answer.status, answer.body) == (status, b"")
            assert "content-length" not in answer.headers


async def test_an_absolute_target_means_its_path() -> None:
    async with connect(App()) as client:
        assert (await client.ask(GET % b"http://a:80/app/x?y")).body == b"/app/x?y"


async def test_an_upgrade_to_anything_but_a_websocket_is_ignored() -> None:
    async with connect(App()) as client:
        head = b"GET /app/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
        assert (await client.ask(head)).status == 200
        assert (await client.ask(GET % b"/app/y")).status == 200


# Waiting for an answer


async def test_after_an_answer_that_had_to_wait_the_connection_goes_on(autojump_clock: trio.testing.MockClock) -> None:
    app = App()
    async with connect(app) as client:
        for _ in range(3):
            app.release = trio.Event()
            await client.send(GET % b"/app/wait")
            await trio.sleep(100)  # longer than a connection may idle
            app.release.set()
            assert (await client.read_answer()).body == b"released"
            assert (await client.ask(POST % (5, b"hello"))).body == b"hello"
        begin = trio.current_time()
        assert await client.is_closed()
        assert trio.current_time() - begin == 75.0


async def test_a_client_that_leaves_after_several_waits_is_noticed_at_the_next() -> None:
    app = App()
    async with connect(app) as client:
        for _ in range(2):
            app.release = trio.Event()
            await client.send(GET % b"/app/wait")
            await trio.testing.wait_all_tasks_blocked()
            app.release.set()
            await client.read_answer()
        app.release = trio.Event()
        await client.send(GET % b"/app/wait")
        await trio.testing.wait_all_tasks_blocked()
    await trio.testing.wait_all_tasks_blocked()
    assert app.cancelled == 1


@pytest.mark.parametrize("pipelined", [True, False])
async def test_a_websocket_may_follow_an_answer_that_had_to_wait(pipelined: bool) -> None:
    class Hesitating(App):
        async def open_websocket(self, request: Request) -> Verdict:
            await self.release.wait()
            return await super().open_websocket(request)

    app, talk = Hesitating(), Talk()
    app.verdict = talk
    async with connect(app) as client:
        await client.send(GET % b"/app/wait" + (UPGRADE if pipelined else b""))
        await trio.testing.wait_all_tasks_blocked()
        app.release.set()
        assert (await client.read_answer()).body == b"released"
        app.release = trio.Event()
        if not pipelined:
            await client.send(UPGRADE)
        await trio.testing.wait_all_tasks_blocked()
        await client.send(text_frame("early"))
        await trio.testing.wait_all_tasks_blocked()
        app.release.set()
        await talk.started.wait()
        await client.send(text_frame("late"))
        await trio.testing.wait_all_tasks_blocked()
        assert talk.messages == ["early", "late"]


# Bodies


async def test_a_chunked_body_arrives_whole() -> None:
    head = b"POST /app/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with connect(App()) as client:
        answer = await client.ask(head + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n")
        assert answer.body == b"abcde"
        assert (await client.ask(GET % b"/app/x")).status == 200


async def test_the_client_is_told_to_go_on_when_the_body_is_wanted() -> None:
    async with connect(App()) as client:
        await client.send(b"POST /app/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 100 ")
        assert (await client.ask(b"hello")).body == b"hello"


async def test_a_client_that_waits_to_go_on_gets_the_refusal_instead() -> None:
    async with connect(App()) as client:
        answer = await client.ask(
            b"POST /app/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n"
        )
        assert answer.status == 413


async def test_a_client_that_leaves_before_it_can_be_told_to_go_on_has_left() -> None:
    app = App()
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b"POST /app/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    await trio.aclose_forcefully(theirs)
    await serve_connection(app, None, ours)
    assert app.disconnected == 1


async def test_a_body_over_the_limit_is_refused_while_the_client_still_sends(
    autojump_clock: trio.testing.MockClock,
) -> None:
    head = b"POST /app/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with connect(App()) as client:
        await client.send(head + b"400\r\n" + b"x" * 1024 + b"\r\n")
        assert (await client.read_answer()).status == 413
        begin = trio.current_time()
        await client.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
        assert await client.is_closed()
        await trio.testing.wait_all_tasks_blocked()
        with suppress(trio.BrokenResourceError):
            while True:
                await client.send(b"x")
                await trio.sleep(0.1)
        assert trio.current_time() - begin <= 2.2  # the server lingers, but not for ever


async def test_a_client_that_leaves_within_its_body_is_reported_as_disconnected() -> None:
    app = App()
    async with connect(app) as client:
        await client.send(POST % (500, b"hel"))
        await trio.testing.wait_all_tasks_blocked()
    assert (app.disconnected, app.cancelled) == (1, 0)


async def test_a_broken_chunk_is_answered_400(autojump_clock: trio.testing.MockClock) -> None:
    app = App()
    async with connect(app) as client:
        answer = await client.ask(b"POST /app/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        assert (answer.status, app.disconnected) == (400, 1)
        assert await client.is_closed()


# Time and size


async def test_a_slow_head_is_answered_408(autojump_clock: trio.testing.MockClock) -> None:
    async with connect(App(HttpLimits(header_timeout=7.0))) as client:
        begin = trio.current_time()
        for byte in b"GET /":
            await client.send(bytes((byte,)))
            await trio.sleep(1)
        answer = await client.read_answer()
        assert (answer.status, trio.current_time() - begin) == (408, 7.0)
        assert answer.body == b"the head of the request took too long\n"
        assert await client.is_closed()


async def test_a_slow_head_of_a_later_request_is_timed_from_its_first_byte(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with connect(App()) as client:
        await client.ask(GET % b"/app/1")
        await trio.sleep(50)
        begin = trio.current_time()
        await client.send(b"G")
        assert (await client.read_answer()).status == 408
        assert trio.current_time() - begin == 10.0


async def test_a_connection_without_a_request_is_closed_without_an_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with connect(App()) as client:
        begin = trio.current_time()
        assert await client.is_closed()
        assert trio.current_time() - begin == 10.0


async def test_an_idle_connection_is_closed_without_an_answer(autojump_clock: trio.testing.MockClock) -> None:
    async with connect(App()) as client:
        await client.ask(GET % b"/app/1")
        begin = trio.current_time()
        assert await client.is_closed()
        assert trio.current_time() - begin == 75.0


async def test_a_slow_body_is_answered_408(autojump_clock: trio.testing.MockClock) -> None:
    app = App()
    async with connect(app) as client:
        begin = trio.current_time()
        await client.send(POST % (500, b""))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip, client)
            assert (await client.read_answer()).status == 408
            nursery.cancel_scope.cancel()
        assert trio.current_time() - begin == 60.0
        assert (app.disconnected, app.lost) == (1, 1)


async def drip(client: Client) -> None:
    while True:
        await client.send(b"x")
        await trio.sleep(1)


@pytest.mark.parametrize(
    "head",
    [
        b"".join(b"a:b\r\n" for _ in range(10_000)),
        b"".join(b"h%d: x\r\n" % i for i in range(101)),
        b"x: " + b"y" * 16_384 + b"\r\n",
        b"x: " + b"y" * 1_000_000,
    ],
    ids=["10 000 lines", "101 lines", "one long line", "one line without an end"],
)
async def test_a_head_over_the_limits_is_answered_431(head: bytes, autojump_clock: trio.testing.MockClock) -> None:
    app = App()
    async with connect(app) as client:
        answer = await client.ask(b"GET /app/x HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n")
        assert (answer.status, answer.headers["connection"]) == (431, "close")
        assert answer.body.count(b"\n") == 1
        assert await client.is_closed()
    assert app.requests == []


async def test_a_head_within_the_limits_is_served() -> None:
    async with connect(App()) as client:
        answer = await client.ask(b"GET /app/x HTTP/1.1\r\nHost: a\r\nx: " + b"y" * 16_000 + b"\r\n\r\n")
        assert answer.status == 200


async def test_pipelining_beyond_the_bound_is_not_read_ahead() -> None:
    app = App()
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery, theirs:
        nursery.start_soon(serve_connection, app, None, ours)
        await theirs.send_all(GET % b"/app/wait" + GET % b"/app/x" * 100_000)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        unread = theirs.send_stream.get_data_nowait()
        assert len(unread) > 3_000_000 - 2 * 65_536
    assert [request.path for request in app.requests] == ["/app/wait"]


# Malformed requests


MALFORMED = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "the HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2.0": b"GET /app/x HTTP/2.0\r\nHost: a\r\n\r\n",
    "no version": b"GET /app/x\r\n\r\n",
    "no Host": b"GET /app/x HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /app/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "a relative target": b"GET app/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "an authority": b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "another scheme": b"GET ftp://a/app/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "a space before the colon": b"GET /app/x HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello",
    "NUL in a value": b"GET /app/x HTTP/1.1\r\nHost: a\r\nx: \0\r\n\r\n",
    "CR in a value": b"GET /app/x HTTP/1.1\r\nHost: a\r\nx: a\rb\r\n\r\n",
    "a folded first line": b"GET /app/x HTTP/1.1\r\n Host: a\r\n\r\n",
    "length and chunked": (
        b"POST /app/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "two lengths": b"POST /app/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a list of lengths": b"POST /app/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\nhello!",
    "a signed length": b"POST /app/echo HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    "a hexadecimal length": b"POST /app/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
    "a length of 400 digits": b"POST /app/echo HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 400 + b"\r\n\r\n",
    "chunked twice": b"POST /app/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "another coding": b"POST /app/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    "chunked and identity": (
        b"POST /app/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"
    ),
    "chunked in HTTP/1.0": b"POST /app/echo HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk with a bare LF": (
        b"POST /app/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxY\n0\r\n\r\n"
    ),
    "a chunk with a sign": (
        b"POST /app/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n"
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_request_gets_one_line_and_the_connection_closes(
    name: str, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    smuggled = GET % b"/app/smuggled"
    app = App()
    async with connect(app) as client:
        answer = await client.ask(MALFORMED[name] + smuggled)
        if answer.status == 413:  # the length is valid, and too long
            assert name == "a length of 400 digits"
        else:
            assert answer.status in (400, 501)
            assert (answer.headers["content-type"], answer.body.count(b"\n")) == ("text/plain; charset=utf-8", 1)
        assert answer.headers["connection"] == "close"
        assert await client.is_closed()
    assert "/app/smuggled" not in [request.path for request in app.requests]
    assert caplog.records == []


@pytest.mark.parametrize(
    "head",
    [
        b"POST /app/echo HTTP/1.1\r\nHost: a\r\nx: a\r\n  Content-Length: 40\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /app/echo HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello",
        b"POST /app/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /app/echo HTTP/1.1\r\nHost: a\r\ntransfer-encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
    ids=["a folded line", "bare LF", "the same length twice", "capitals"],
)
async def test_what_is_lawful_but_odd_means_exactly_one_request(head: bytes) -> None:
    app = App()
    async with connect(app) as client:
        assert (await client.ask(head + GET % b"/app/next")).body == b"hello"
        assert (await client.read_answer()).body == b"/app/next"
    assert len(app.requests) == 2


async def test_tls_on_a_plain_port_is_explained(autojump_clock: trio.testing.MockClock) -> None:
    async with connect(App()) as client:
        assert (await client.ask(MALFORMED["TLS"])).body == b"this port speaks plain HTTP, not TLS\n"


async def test_random_bytes_at_any_position_harm_nobody(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    requests = POST % (5, b"hello") + GET % b"/app/2"
    answered = 0
    for position in range(len(requests)):
        async with connect(App()) as client:
            await client.send(requests[:position] + bytes(((position * 37) % 256, 0xFE)) + requests[position:])
            assert isinstance(client.stream, trio.abc.HalfCloseableStream)
            await client.stream.send_eof()
            received = b""
            while more := await client.stream.receive_some():
                received += more
            answered += received.startswith(b"HTTP/1.1 ")
    assert answered > len(requests) / 2
    assert caplog.records == []


# Clients that leave


async def test_the_handler_is_cancelled_when_the_client_goes() -> None:
    app = App()
    async with connect(app) as client:
        await client.send(GET % b"/app/wait")
        await trio.testing.wait_all_tasks_blocked()
        assert app.cancelled == 0
        await client.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert app.cancelled == 1


async def test_an_answer_that_cannot_be_written_is_reported_as_lost() -> None:
    app = App()
    async with connect(app) as client:
        await client.send(GET % b"/app/wait")
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(client.stream, trio.StapledStream)
        client.stream.receive_stream.close()
        app.release.set()
        await trio.testing.wait_all_tasks_blocked()
        assert (app.lost, app.cancelled) == (1, 0)


async def test_a_client_that_does_not_read_its_answer_is_cut(autojump_clock: trio.testing.MockClock) -> None:
    app = App()
    ours, theirs = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery, theirs:
        nursery.start_soon(serve_connection, app, None, ours)
        await theirs.send_all(GET % b"/app/x")
        await trio.sleep(59.9)
        assert app.lost == 0
        await trio.sleep(0.2)
        assert app.lost == 1


async def test_an_answer_that_is_cancelled_by_the_server_is_reported_as_lost() -> None:
    app = App()
    ours, theirs = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery, theirs:
        nursery.start_soon(serve_connection, app, None, ours)
        await theirs.send_all(GET % b"/app/x")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert app.lost == 1


async def test_headers_that_cannot_be_sent_are_a_500_and_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class Wrong(App):
        async def handle_request(self, request: Request) -> Response:
            return Response(200, headers=Headers([("x-a", "\u20ac")]))

    async with connect(Wrong()) as client:
        assert (await client.ask(GET % b"/app/x")).status == 500
    assert len(caplog.records) == 1


async def test_a_bug_in_the_application_ends_its_connection_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(App):
        async def handle_request(self, request: Request) -> Response:
            raise ZeroDivisionError

    async with connect(Broken()) as client:
        await client.send(GET % b"/app/x")
        assert await client.is_closed()
    (record,) = caplog.records
    assert "this is a bug" in record.getMessage()
    assert record.exc_info is not None


async def test_what_nobody_owns_is_a_404_with_a_hint() -> None:
    async with connect(App()) as client:
        answer = await client.ask(GET % b"/socket.io/?EIO=4")
        assert answer.status == 404
        assert b"`path`" in answer.body
        assert (await client.ask(UPGRADE.replace(b"/ws", b"/sw"))).status == 404
        assert (await client.ask(GET % b"/app/x")).status == 200


# Upgrades


async def test_a_valid_opening_request_gets_its_101() -> None:
    app, talk = App(), Talk(echo=True)
    app.verdict = talk
    async with connect(app) as client:
        offer = UPGRADE[:-2] + b"Sec-WebSocket-Protocol: chat, superchat\r\n\r\n"
        await client.send(offer)
        await trio.testing.wait_all_tasks_blocked()
        head = (await client.stream.receive_some()).lower()
        assert head.startswith(b"http/1.1 101 ")
        for line in (ACCEPT.lower(), b"x-greeting: hello", b"sec-websocket-protocol: chat\r\n"):
            assert line in head
        assert b"extensions" not in head
        await client.send(text_frame("hi") + client_frame(FIN | CLOSE, b""))
        await talk.ended.wait()
    (request,) = app.requests
    assert (request.path, request.headers["upgrade"]) == ("/ws", "WebSocket")


INVALID_UPGRADES = {
    "a POST": (UPGRADE.replace(b"GET", b"POST"), 400),
    "HTTP/1.0": (UPGRADE.replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
    "no upgrade in connection": (UPGRADE.replace(b", Upgrade", b""), 400),
    "a body": (UPGRADE[:-2] + b"Content-Length: 3\r\n\r\nabc", 400),
    "another version": (UPGRADE.replace(b": 13", b": 8"), 426),
    "no version": (UPGRADE.replace(b"Version", b"Virgin"), 426),
    "no key": (UPGRADE.replace(b"-Key", b"-Cay"), 400),
    "a short key": (UPGRADE.replace(b"dGhl", b""), 400),
    "two keys": (UPGRADE[:-2] + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", 400),
    "a value beyond ASCII": (UPGRADE[:-2] + b"X-A: \xc3\xbc\r\n\r\n", 400),
    "a subprotocol that is no token": (UPGRADE[:-2] + b"Sec-WebSocket-Protocol: a b\r\n\r\n", 400),
}


@pytest.mark.parametrize("name", INVALID_UPGRADES)
async def test_an_invalid_opening_request_is_refused_before_the_application_sees_it(
    name: str, autojump_clock: trio.testing.MockClock
) -> None:
    request, status = INVALID_UPGRADES[name]
    app = App()
    app.verdict = Talk()
    async with connect(app) as client:
        answer = await client.ask(request)
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert answer.headers["content-type"].startswith("text/plain")
        assert ("sec-websocket-version" in answer.headers) == (status == 426)
        assert await client.is_closed()
    assert app.requests == []


@pytest.mark.parametrize("host", [b"xn--zz-", b"." * 70, b"a" * 70, b"[::1]:3000"])
async def test_no_host_is_too_strange_for_a_websocket(host: bytes) -> None:
    app, talk = App(), Talk()
    app.verdict = talk
    async with connect(app) as client:
        await client.send(UPGRADE.replace(b"Host: a", b"Host: " + host))
        await talk.started.wait()
        assert (await client.stream.receive_some()).startswith(b"HTTP/1.1 101 ")


async def test_a_refused_upgrade_is_an_http_answer_and_the_connection_closes() -> None:
    async with connect(App()) as client:
        answer = await client.ask(UPGRADE)
        assert (answer.status, answer.body, answer.headers["connection"]) == (400, b"no", "close")
        assert await client.is_closed()


async def test_headers_that_a_101_cannot_have_are_a_500(caplog: pytest.LogCaptureFixture) -> None:
    app, talk = App(), Talk()
    talk.headers = Headers([("x-a", "\u20ac")])
    app.verdict = talk
    async with connect(app) as client:
        assert (await client.ask(UPGRADE)).status == 500
    assert not talk.started.is_set()
    assert len(caplog.records) == 1


async def test_a_client_that_does_not_take_its_101_is_cut(autojump_clock: trio.testing.MockClock) -> None:
    app, talk = App(), Talk()
    app.verdict = talk
    ours, theirs = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery, theirs:
        nursery.start_soon(serve_connection, app, None, ours)
        await theirs.send_all(UPGRADE)
        await trio.sleep(59.9)
        assert nursery.child_tasks
        await trio.sleep(0.2)
        assert not nursery.child_tasks
    assert not talk.started.is_set()


async def test_a_reset_after_any_byte_of_an_upgrade_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = App()
    talks = []
    data = UPGRADE + text_frame("hello")
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        with trio.fail_after(20):
            async with trio.open_nursery() as connections:  # it ends when all of them have ended by themselves
                serve = partial(trio.serve_listeners, app.handle_stream, listeners, handler_nursery=connections)
                nursery.start_soon(serve)
                for size in range(len(data) + 1):
                    app.verdict = talk = Talk(close_deadline=0.05)
                    talks.append(talk)
                    client = await trio.testing.open_stream_to_socket_listener(listeners[0])
                    await client.send_all(data[:size])
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                    await client.aclose()
                await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    assert all(talk.ended.is_set() or not talk.started.is_set() for talk in talks)
    assert caplog.records == []


# Real sockets


async def test_the_client_address_is_known_and_the_port_serves_until_cancelled() -> None:
    app = App()
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(app.serve_tcp, 0, host="127.0.0.1"))
        assert app.is_running
        client = Client(await trio.testing.open_stream_to_socket_listener(listener))
        assert (await client.ask(GET % b"/app/x")).status == 200
        assert isinstance(client.stream, trio.SocketStream)
        assert app.requests[0].client == client.stream.socket.getsockname()
        await client.stream.aclose()
        nursery.cancel_scope.cancel()
    assert not app.is_running


async def test_two_ports_are_one_life() -> None:
    app = App()
    async with app.running(), trio.open_nursery() as nursery:
        for _ in range(2):
            (listener,) = await nursery.start(partial(app.serve_tcp, 0, host="127.0.0.1"))
            client = Client(await trio.testing.open_stream_to_socket_listener(listener))
            assert (await client.ask(GET % b"/app/x")).status == 200
            await client.stream.aclose()
        nursery.cancel_scope.cancel()
    assert len(app.requests) == 2


async def test_a_port_in_use_is_a_plain_oserror_and_the_application_is_not_started() -> None:
    app = App()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        with pytest.raises(OSError, match="in use"):
            await app.serve_tcp(listener.socket.getsockname()[1], host="127.0.0.1")
    assert not app.is_running


async def test_run_holds_the_application_without_a_listener() -> None:
    app = App()
    async with trio.open_nursery() as nursery:
        await nursery.start(app.run)
        assert app.is_running
        nursery.cancel_scope.cancel()
    assert not app.is_running


async def test_connections_can_live_in_a_nursery_of_the_caller() -> None:
    app = App()
    async with app.running(), trio.open_nursery() as connections:
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(app.serve_tcp, 0, host="127.0.0.1", handler_nursery=connections))
            client = Client(await trio.testing.open_stream_to_socket_listener(listener))
            await client.ask(GET % b"/app/1")
            nursery.cancel_scope.cancel()
        assert (await client.ask(GET % b"/app/2")).status == 200
        await client.stream.aclose()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


async def test_https_and_wss(authority: trustme.CA) -> None:
    app, talk = App(), Talk(echo=True)
    app.verdict = talk
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(ours)
    theirs = ssl.create_default_context()
    authority.configure_trust(theirs)
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(app.serve_ssl_over_tcp, 0, ours, host="127.0.0.1"))
        port = listener.transport_listener.socket.getsockname()[1]
        raw = await trio.open_tcp_stream("127.0.0.1", port)
        client = Client(trio.SSLStream(raw, theirs, server_hostname="localhost", https_compatible=True))
        assert (await client.ask(GET % b"/app/x")).status == 200
        assert (app.requests[0].scheme, app.requests[0].client) == ("https", raw.socket.getsockname())
        await client.stream.aclose()
        raw = await trio.open_tcp_stream("127.0.0.1", port)
        secure = Client(trio.SSLStream(raw, theirs, server_hostname="localhost", https_compatible=True))
        await secure.send(UPGRADE + text_frame("hi") * 3)
        received = b""
        while not received.endswith(encode_frame(1, b"hi") * 3):
            received += await secure.stream.receive_some()
        await secure.send(client_frame(FIN | CLOSE, b""))
        await talk.ended.wait()
        await secure.stream.aclose()
        nursery.cancel_scope.cancel()
    assert talk.messages == ["hi"] * 3


async def test_plain_http_on_a_tls_port_harms_nobody(authority: trustme.CA, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = App()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(app.serve_ssl_over_tcp, 0, context, host="127.0.0.1"))
        client = await trio.testing.open_stream_to_socket_listener(listener.transport_listener)
        await client.send_all(GET % b"/app/x")
        with suppress(trio.BrokenResourceError):
            while await client.receive_some():
                pass
        await client.aclose()
        nursery.cancel_scope.cancel()
    assert (app.requests, caplog.records) == ([], [])


async def test_a_real_client_talks_to_a_real_port() -> None:
    app, talk = App(), Talk(limit=100_000, echo=True)
    app.verdict = talk
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(app.serve_tcp, 0, host="127.0.0.1"))
        url = f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/ws"
        async with open_websocket_url(url) as websocket:
            messages: list[str | bytes] = ["hi", "ü" * 10_000, b"\0" * 50_000, ""]
            for message in messages:
                await websocket.send_message(message)
                assert await websocket.get_message() == message
            with trio.fail_after(20):
                await websocket.ping(b"are you there")
        nursery.cancel_scope.cancel()
