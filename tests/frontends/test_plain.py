"""What is read and written without h11, h11 would read and write the same."""

from __future__ import annotations

import h11
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trio_socketio._engine.contract import Headers, HttpLimits, Response
from trio_socketio._frontends import plain
from trio_socketio._frontends.plain import recognise, write_plain
from trio_socketio._frontends.waiting import noticing_wait

from .test_listener import MALFORMED, POST

LIMITS = HttpLimits()

ORDINARY = {
    "a poll": (
        b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: a:1\r\nAccept: */*\r\n"
        b"User-Agent: Mozilla/5.0 (X11)\r\nConnection: keep-alive\r\n\r\n"
    ),
    "a message": POST % (5, b"hello"),
    "an empty body": POST % (0, b""),
    "an opening request": (
        b"GET / HTTP/1.1\r\nhost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ),
}
DOUBTFUL = {
    "incomplete head": b"GET / HTTP/1.1\r\nHost: a\r\n",
    "incomplete body": POST % (6, b"hello"),
    "no host": b"GET / HTTP/1.1\r\nAccept: */*\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "another version": b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
    "another method": b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    "an absolute target": b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a body of a GET": b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
    "a POST without a length": b"POST / HTTP/1.1\r\nHost: a\r\n\r\n",
    "the same length twice": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    "a list of lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx",
    "a chunked body": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths": (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "an expectation": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\nx",
    "the last request": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n",
    "a folded line": b"GET / HTTP/1.1\r\nHost: a\r\nx: a\r\n b\r\n\r\n",
    "no space": b"GET / HTTP/1.1\r\nHost:a\r\n\r\n",
    "two spaces": b"GET / HTTP/1.1\r\nHost:  a\r\n\r\n",
    "a space at the end": b"GET / HTTP/1.1\r\nHost: a \r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost: a\r\nx : a\r\n\r\n",
    "no value": b"GET / HTTP/1.1\r\nHost: a\r\nx: \r\n\r\n",
    "a tab": b"GET / HTTP/1.1\r\nHost: a\r\nx: a\tb\r\n\r\n",
    "obs-text": b"GET / HTTP/1.1\r\nHost: a\r\nx: \xfc\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "bare LF in a value": b"GET / HTTP/1.1\r\nHost: a\nx: y\r\n\r\n",
    "bare CR": b"GET / HTTP/1.1\r\nHost: a\rx: y\r\n\r\n",
    "an empty line before": b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "too many lines": b"GET / HTTP/1.1\r\nHost: a\r\n" + b"a: b\r\n" * 100 + b"\r\n",
    "too long": b"GET / HTTP/1.1\r\nHost: a\r\nx: " + b"y" * 16_384 + b"\r\n\r\n",
} | MALFORMED


def read_by_h11(data: bytes) -> tuple[list[object], bytes]:
    """The whole request, and what is left; an error is one as well."""
    http = h11.Connection(h11.SERVER)
    http.receive_data(data)
    request = http.next_event()
    assert isinstance(request, h11.Request)
    assert request.http_version == b"1.1"
    body = b""
    while isinstance(event := http.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    http.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
    http.send(h11.EndOfMessage())
    assert http.our_state is h11.DONE  # the connection stays open
    headers = [(name.decode(), value.decode()) for name, value in request.headers]
    return [request.method.decode(), request.target.decode(), headers, body], http.trailing_data[0]


def check_against_h11(data: bytes) -> bool:
    """Whether it is recognised; if so, h11 must read the same."""
    request = recognise(data, LIMITS)
    if request is None:
        return False
    read = [request.method, request.target, request.headers.multi_items(), request.body]
    assert (read, data[request.end :]) == read_by_h11(data)
    return True


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_request_is_recognised_and_ends_where_the_next_begins(name: str) -> None:
    assert check_against_h11(ORDINARY[name])
    assert check_against_h11(ORDINARY[name] + ORDINARY["a poll"])


@pytest.mark.parametrize("name", DOUBTFUL)
def test_what_is_doubtful_is_left_to_h11(name: str) -> None:
    assert recognise(DOUBTFUL[name], LIMITS) is None


names = st.sampled_from(
    [
        "Host",
        "host",
        "Content-Length",
        "content-length",
        "Transfer-Encoding",
        "Connection",
        "Upgrade",
        "Expect",
        "x",
        "x y",
    ]
)
values = st.one_of(
    st.sampled_from(
        ["a", "5", "05", "+5", "5, 5", "chunked", "identity", "close", "keep-alive", "Upgrade", "", " a", "a\t"]
    ),
    st.text(st.characters(max_codepoint=255), max_size=8),
)
lines = st.builds(
    "{}{}{}{}".format, names, st.sampled_from([": ", ":", " : ", ":\t"]), values, st.sampled_from(["\r\n", "\n"])
)
requests = st.builds(
    lambda begin, fields, body: (begin + "".join(fields) + "\r\n").encode("latin-1") + body,
    st.sampled_from(["GET / HTTP/1.1\r\n", "POST /x?y=%20 HTTP/1.1\r\n", "POST / HTTP/1.0\r\n", "GET * HTTP/1.1\r\n"]),
    st.lists(st.one_of(st.just("Host: a\r\n"), st.just("Content-Length: 5\r\n"), lines), max_size=5),
    st.one_of(st.just(b"hello"), st.binary(max_size=20)),
)


@given(requests)
def test_what_is_recognised_h11_reads_the_same(data: bytes) -> None:
    check_against_h11(data)


@given(st.sampled_from(sorted(ORDINARY)), st.data())
def test_an_ordinary_request_with_a_few_bytes_changed_is_read_the_same_or_left_to_h11(
    name: str, data: st.DataObject
) -> None:
    request = bytearray(ORDINARY[name] + ORDINARY["a poll"])
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(request) - 1))
        odd = st.sampled_from([b"", b" ", b"\t", b"\r", b"\n", b"\r\n", b":", b"\0", b"\x80", b"x", b"1"])
        request[position : position + data.draw(st.integers(0, 2))] = data.draw(odd)
    check_against_h11(bytes(request))


fields = st.lists(
    st.tuples(
        st.sampled_from(["content-type", "set-cookie", "x", "content-length", "connection", "bad name", ""]),
        st.one_of(
            st.sampled_from(["text/plain", "a; b", "", " a", "close"]),
            st.text(st.characters(max_codepoint=300), max_size=6),
        ),
    ),
    max_size=4,
)


@given(st.sampled_from([100, 200, 204, 304, 400, 404, 503, 599]), fields, st.binary(max_size=20))
def test_what_is_written_h11_writes_the_same(status: int, items: list[tuple[str, str]], body: bytes) -> None:
    response = Response(status, body, Headers(items))
    written = write_plain(response)
    if written is None:
        return
    http = h11.Connection(h11.SERVER)
    http.receive_data(ORDINARY["a poll"])
    http.next_event()
    http.next_event()
    headers = [(name, value) for name, value in items if name != "content-length"]
    date = written.partition(b"date: ")[2].partition(b"\r\n")[0].decode()
    headers += [("content-length", str(len(body))), ("date", date)]
    reason = plain.REASONS.get(status, b"")
    head = http.send(h11.Response(status_code=status, headers=headers, reason=reason))
    assert written == (head or b"") + (http.send(h11.Data(data=body)) or b"")
    http.send(h11.EndOfMessage())
    assert http.our_state is h11.DONE


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_is_left_to_h11(status: int) -> None:
    assert write_plain(Response(status)) is None


def test_an_answer_that_ends_the_connection_is_left_to_h11() -> None:
    assert write_plain(Response(200, headers=Headers([("connection", "close")]))) is None


# Waiting


async def test_what_does_not_wait_is_not_noticed() -> None:
    async def no_wait() -> int:
        return 1

    noticed: list[int] = []
    assert await noticing_wait(no_wait(), lambda: noticed.append(1)) == 1
    assert noticed == []


async def test_a_wait_is_noticed_once_and_before_it_begins() -> None:
    event = trio.Event()
    noticed: list[float] = []

    async def wait_twice() -> str:
        await event.wait()
        await trio.lowlevel.checkpoint()
        return "done"

    def on_wait() -> None:
        noticed.append(1)
        event.set()

    assert await noticing_wait(wait_twice(), on_wait) == "done"
    assert noticed == [1]


async def test_what_ends_a_wait_reaches_the_one_who_waits() -> None:
    caught: list[BaseException] = []

    async def wait() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            caught.append(cancelled)
            raise

    with trio.CancelScope() as scope:
        await noticing_wait(wait(), scope.cancel)
    assert scope.cancelled_caught
    assert len(caught) == 1


async def test_an_error_before_or_after_the_wait_is_the_coroutines() -> None:
    async def fail(wait: bool) -> None:
        if wait:
            await trio.lowlevel.checkpoint()
        raise KeyError("x")

    for wait in (False, True):
        with pytest.raises(KeyError):
            await noticing_wait(fail(wait), lambda: None)
