"""The transport of GETs and POSTs (Engine.IO protocol, "HTTP long-polling")."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

import pytest
import trio

from ..wire_client import SEPARATOR, Exchange, settle
from .stage import open_stage, receive_all

if TYPE_CHECKING:
    from trio_socketio.engineio import Headers

    from ..wire_client import EioPolling
    from .stage import Stage

GONE = ("transport error", "poll connection closed prematurely")


async def start_post(stage: Stage, client: EioPolling, body: bytes, announced: int) -> trio.abc.Stream:
    """A POST of which only a part has arrived."""
    stream = stage.net.connect()
    head = f"POST {client.target} HTTP/1.1\r\nhost: example.com\r\ncontent-length: {announced}\r\n\r\n"
    await stream.send_all(head.encode() + body)
    await settle()
    return stream


async def status_of(stream: trio.abc.Stream) -> bytes:
    """The first line of the answer, or nothing if the connection was cut."""
    return bytes(await stream.receive_some()).partition(b"\r\n")[0]


# GET


async def test_all_that_is_queued_comes_in_one_body() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        for message in ("a", "", b"\x01\x02\x03\x04", "€"):
            await stage.session.send(message)
        response = await stage.net.get(client.target)
        assert response.text == "4a\x1e4\x1ebAQIDBA==\x1e4€"
        assert response.headers["content-type"] == "text/plain; charset=UTF-8"
        assert response.headers["content-length"] == str(len(response.body))
        assert response.headers["cache-control"] == "no-store"


async def test_poll_pends_until_something_is_sent() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        poll = await client.start_poll()
        await trio.sleep(10)
        await stage.session.send("now")
        assert (await poll.response()).packets == ["4now"]
        assert trio.current_time() == pytest.approx(10, abs=0.01)


async def test_what_is_sent_in_one_tick_leaves_in_one_body() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        poll = await client.start_poll()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(stage.session.send, "x")
        assert (await poll.response()).packets == ["4x"] * 5


async def test_connection_may_be_kept_for_many_requests() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        exchange = Exchange(stage.net.connect())
        for number in range(3):
            await stage.session.send(f"{number}")
            await exchange.ask("GET", client.target)
            assert (await exchange.response()).packets == [f"4{number}"]
            await exchange.ask("POST", client.target, body="4back")
            assert (await exchange.response()).text == "ok"


async def test_connection_that_the_client_closes_after_each_request_is_normal() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        await stage.session.send("x")
        response = await stage.net.get(client.target, {"connection": "close"})
        assert response.packets == ["4x"]
        assert await stage.close_reason() is None


async def test_overlapping_get_closes_the_session_and_both_are_answered() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        first = await client.start_poll()
        second = await stage.net.get(client.target)
        assert (second.status, second.body) == (400, b"")
        answer = await first.response()
        assert (answer.status, answer.text) == (200, "1")
        assert await stage.end() == ("transport error", "overlap from client")
        assert (await stage.net.get(client.target)).json()["code"] == 1


async def test_get_that_the_client_drops_closes_the_session() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        poll = await client.start_poll()
        await poll.drop()
        assert await stage.end() == GONE
        assert (await stage.net.get(client.target)).json()["code"] == 1


async def test_session_closes_if_the_answer_to_a_get_cannot_be_written() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        poll = await stage.net.start("GET", client.target, unread=True)
        await settle()
        await stage.session.send("lost")
        await settle()
        await poll.drop()
        assert await stage.end() == GONE


async def test_session_closes_if_the_client_does_not_take_the_answer_in_time() -> None:
    async with open_stage(ping_interval=1000) as stage:
        client = await stage.net.polling()
        await stage.net.start("GET", client.target, unread=True)
        await settle()
        await stage.session.send("never taken")
        assert await stage.end() == GONE
        assert trio.current_time() == pytest.approx(stage.engine.http_limits.write_timeout, abs=0.1)


# POST


async def test_post_is_answered_ok_after_its_packets_were_delivered() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        response = await client.post("4hello\x1e4\x1ebAQIDBA==\x1e4world")
        assert (response.status, response.text) == (200, "ok")
        assert response.headers["content-type"] == "text/html"
        assert response.headers["content-length"] == "2"
        assert response.headers["cache-control"] == "no-store"
        stage.session.close(discard=True)
        assert await receive_all(stage.session) == ["hello", "", b"\x01\x02\x03\x04", "world"]


async def test_post_in_chunks_is_one_body() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        assert (await client.post([b"41", b"2", b"3"])).text == "ok"
        assert await stage.session.receive() == "123"


async def test_text_beyond_ascii_survives_in_both_directions_and_in_pieces() -> None:
    text = "ÜÖ äß 日本 🎉"
    async with open_stage() as stage:
        client = await stage.net.polling()
        await client.post([bytes([byte]) for byte in f"4{text}".encode()])
        assert await stage.session.receive() == text
        await stage.session.send(text)
        assert await client.poll() == [f"4{text}"]


async def test_binary_survives_in_both_directions() -> None:
    data = bytes(range(256))
    async with open_stage() as stage:
        client = await stage.net.polling()
        await client.send(data)
        assert await stage.session.receive() == data
        await stage.session.send(data)
        assert await client.poll() == ["b" + b64encode(data).decode()]


async def test_body_that_is_no_utf8_is_decoded_with_replacement() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        assert (await client.post(b"4a\xffb")).text == "ok"
        assert await stage.session.receive() == "a\N{REPLACEMENT CHARACTER}b"


async def test_ten_thousand_tiny_packets_in_one_body_arrive_in_order() -> None:
    async with open_stage() as stage, trio.open_nursery() as nursery:
        client = await stage.net.polling()
        nursery.start_soon(client.send, SEPARATOR.join(f"4{number}" for number in range(10_000)))
        assert [await stage.session.receive() for _ in range(10_000)] == [str(number) for number in range(10_000)]


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_of_exactly_the_limit_is_taken(chunked: bool) -> None:
    async with open_stage(max_http_buffer_size=1000) as stage:
        client = await stage.net.polling()
        body = b"4" + b"x" * 999
        assert (await client.post([body[:500], body[500:]] if chunked else body)).text == "ok"
        assert await stage.session.receive() == "x" * 999


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_of_one_byte_more_is_413_and_the_session_survives(chunked: bool) -> None:
    async with open_stage(max_http_buffer_size=1000) as stage:
        client = await stage.net.polling()
        body = b"4" + b"x" * 1000
        response = await client.post([body[:500], body[500:]] if chunked else body)
        assert (response.status, response.body) == (413, b"")
        await client.send("4small")
        assert await stage.session.receive() == "small"


async def test_limit_counts_bytes_and_not_characters() -> None:
    async with open_stage(max_http_buffer_size=10) as stage:
        client = await stage.net.polling()
        assert (await client.post("4€€€")).status == 200
        assert (await client.post("4€€€€")).status == 413


async def test_body_that_announces_too_much_is_refused_before_it_comes() -> None:
    async with open_stage(max_http_buffer_size=1000) as stage:
        client = await stage.net.polling()
        stream = await start_post(stage, client, b"4", 10**9)
        assert b" 413 " in await status_of(stream)


async def test_chunked_body_without_end_is_refused_at_the_limit() -> None:
    async with open_stage(max_http_buffer_size=1000) as stage:
        client = await stage.net.polling()
        stream = stage.net.connect()
        head = f"POST {client.target} HTTP/1.1\r\nhost: example.com\r\ntransfer-encoding: chunked\r\n\r\n"
        await stream.send_all(head.encode() + b"1f4\r\n" + b"4" * 500 + b"\r\n")
        await settle()
        await stream.send_all(b"1f5\r\n" + b"4" * 501 + b"\r\n")
        assert b" 413 " in await status_of(stream)


async def test_overlapping_post_closes_the_session_and_ends_the_first_and_the_poll() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        poll = await client.start_poll()
        first = await start_post(stage, client, b"4hal", 100)
        second = await client.post("4x")
        assert (second.status, second.body) == (400, b"")
        assert (await poll.response()).text == "1"
        assert b" 400 " in await status_of(first)
        assert await stage.end() == ("transport error", "data request overlap from client")
        assert await receive_all(stage.session) == []


async def test_post_that_the_client_drops_closes_the_session() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        poll = await client.start_poll()
        stream = await start_post(stage, client, b"4hal", 100)
        await trio.aclose_forcefully(stream)
        assert await stage.end() == ("transport error", "data request connection closed prematurely")
        assert (await poll.response()).text == "1"
        assert await receive_all(stage.session) == []


async def test_close_by_our_side_releases_a_post_that_is_still_coming() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        stream = await start_post(stage, client, b"4hal", 100)
        stage.session.close(discard=True)
        assert b" 400 " in await status_of(stream)
        assert await stage.end() == ("forced close", None)


async def test_close_packet_ends_the_session_and_the_rest_of_the_body_is_ignored() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        poll = await client.start_poll()
        response = await client.post("4before\x1e1\x1e4after")
        assert (response.status, response.text) == (200, "ok")
        assert (await poll.response()).packets == ["6"]
        assert await stage.end() == ("transport close", None)
        assert await receive_all(stage.session) == ["before"]


async def test_close_packet_without_a_pending_poll_is_answered_ok() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        assert (await client.post("1")).text == "ok"
        assert await stage.end() == ("transport close", None)


@pytest.mark.parametrize("body", ["abc", "a123", "{", "{}", '["a123"]', "", "4ok\x1e", "4ok\x1e7", "4ok\x1eb$$$", "-"])
async def test_undecodable_packet_is_a_parse_error_and_what_came_before_it_counts(body: str) -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        poll = await client.start_poll()
        response = await client.post(body)
        assert (response.status, response.body) == (400, b"")
        assert (await poll.response()).text == "1"
        reason, description = await stage.end()
        assert reason == "parse error"
        assert description
        assert await receive_all(stage.session) == (["ok"] if body.startswith("4ok") else [])
        assert (await stage.net.get(client.target)).json()["code"] == 1


@pytest.mark.parametrize("content_type", ["application/octet-stream", "Application/Octet-Stream; charset=x"])
async def test_octet_stream_is_an_error_in_this_protocol(content_type: str) -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        poll = await client.start_poll()
        response = await client.post(b"4x", {"content-type": content_type})
        assert (response.status, response.body) == (400, b"")
        assert (await poll.response()).text == "1"
        assert await stage.end() == ("transport error", "invalid content")


@pytest.mark.parametrize("content_type", ["", "text/plain;charset=UTF-8", "application/json", "x/y; =;;", "\xff"])
async def test_any_other_content_type_is_text(content_type: str) -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        assert (await client.post(b"4x", {"content-type": content_type})).text == "ok"
        assert await stage.session.receive() == "x"


async def test_open_noop_and_upgrade_packets_in_a_body_are_ignored() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        assert (await client.post('0{"sid":"x"}\x1e6\x1e5\x1e4x')).text == "ok"
        assert await stage.session.receive() == "x"


async def test_packets_beyond_the_bound_of_the_inbox_are_kept_if_they_came_in_one_body() -> None:
    async with open_stage(max_inbox_messages=1) as stage:
        client = await stage.net.polling()
        post = await stage.net.start("POST", client.target, body="4a\x1e4b\x1e4c")
        assert [await stage.session.receive() for _ in range(3)] == ["a", "b", "c"]
        assert (await post.response()).text == "ok"


async def test_post_waits_while_the_inbox_is_full() -> None:
    async with open_stage(max_inbox_messages=2) as stage:
        client = await stage.net.polling()
        post = await stage.net.start("POST", client.target, body="4a\x1e4b\x1e4c")
        with trio.move_on_after(5) as waited:
            await post.response()
        assert waited.cancelled_caught
        assert await stage.session.receive() == "a"
        assert await stage.session.receive() == "b"
        assert (await post.response()).text == "ok"


# Other methods


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
async def test_other_methods_for_a_session_are_500_and_it_is_kept(method: str) -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        headers: list[Headers] = []
        stage.engine.on("headers", headers.append)
        response = await stage.net.request(method, client.target)
        assert (response.status, response.body, headers) == (500, b"", [])
        assert not stage.errors
        await client.send("4x")
        assert await stage.session.receive() == "x"


async def test_preflight_for_a_session_is_answered_by_cors() -> None:
    async with open_stage(cors="*") as stage:
        client = await stage.net.polling()
        response = await stage.net.request("OPTIONS", client.target, {"origin": "https://other.example"})
        assert (response.status, response.body) == (204, b"")
        assert response.headers["access-control-allow-origin"] == "*"
        assert await stage.close_reason() is None
