"""The transport of WebSockets (Engine.IO protocol, "WebSocket")."""

from __future__ import annotations

import pytest
import trio

from trio_socketio._engine.websocket import CLOSE_DEADLINE

from ..wire_client import WEBSOCKET_HEADERS, Exchange, SessionLost, settle
from .stage import WEBSOCKET, echo, open_stage, receive_all

TRANSPORT_CLOSE = ("transport close", None)
MASKED_HELLO = b"\x81\x86\x00\x00\x00\x004hello"


async def test_text_and_binary_messages_go_both_ways_one_per_frame() -> None:
    async with open_stage() as stage:
        echo(stage.engine)
        client = await stage.net.engine_websocket()
        for packet in ("4hello", "4", "4ÜÖ 日本 🎉", b"\x00\xff", b""):
            await client.send(packet)
            assert await client.recv() == packet


async def test_base64_is_understood_on_a_websocket_too() -> None:
    async with open_stage() as stage:
        client = await stage.net.engine_websocket()
        await client.send("bAQIDBA==")
        assert await stage.session.receive() == b"\x01\x02\x03\x04"


async def test_messages_arrive_in_order_in_both_directions() -> None:
    async with open_stage() as stage:
        echo(stage.engine)
        client = await stage.net.engine_websocket()
        await client.websocket.send_raw(b"".join(client.websocket.encode(f"4{number}") for number in range(500)))
        assert [await client.recv() for _ in range(500)] == [f"4{number}" for number in range(500)]


async def test_message_right_behind_the_opening_request_is_not_lost() -> None:
    async with open_stage() as stage:
        stream = stage.net.connect()
        lines = [f"GET {stage.net.target(WEBSOCKET)} HTTP/1.1", "host: example.com"]
        lines += [f"{name}: {value}" for name, value in WEBSOCKET_HEADERS.items()]
        await stream.send_all("\r\n".join([*lines, "", ""]).encode() + MASKED_HELLO)
        await settle()
        assert await stage.session.receive() == "hello"


async def test_message_of_exactly_the_limit_is_delivered() -> None:
    async with open_stage(max_http_buffer_size=1000) as stage:
        client = await stage.net.engine_websocket()
        await client.send("4" + "x" * 999, b"y" * 1000)
        assert await stage.session.receive() == "x" * 999
        assert await stage.session.receive() == b"y" * 1000


@pytest.mark.parametrize("packet", ["4" + "x" * 1000, b"y" * 1001, "4" + "€" * 334])
async def test_larger_message_is_closed_with_1009_and_described(packet: str | bytes) -> None:
    async with open_stage(max_http_buffer_size=1000) as stage:
        client = await stage.net.engine_websocket()
        await client.send("4before", packet)
        assert (await client.websocket.closed()).code == 1009
        reason, description = await stage.end()
        assert reason == "transport error"
        size = len(packet if isinstance(packet, bytes) else packet.encode())
        assert description == f"message of {size} bytes exceeds the limit of 1000 bytes"
        assert await receive_all(stage.session) == ["before"]


async def test_announced_length_over_the_limit_is_enough() -> None:
    async with open_stage(max_http_buffer_size=1000) as stage:
        client = await stage.net.engine_websocket()
        await client.websocket.send_raw(b"\x82\xff" + (2**40).to_bytes(8, "big"))
        assert (await client.websocket.closed()).code == 1009
        assert await stage.end() == ("transport error", f"message of {2**40} bytes exceeds the limit of 1000 bytes")


async def test_connection_is_cut_after_1009_even_if_the_client_goes_on_sending() -> None:
    async with open_stage(max_http_buffer_size=10) as stage:
        client = await stage.net.engine_websocket()
        await client.send("4" + "x" * 10)
        for _ in range(3):
            await client.send("4y")
            await settle()
        await trio.sleep(CLOSE_DEADLINE + 0.1)
        with pytest.raises(trio.BrokenResourceError):
            await client.send("4y")


async def test_close_by_the_client_is_answered_and_is_a_transport_close() -> None:
    async with open_stage() as stage:
        client = await stage.net.engine_websocket()
        assert (await client.websocket.close(1001)).code == 1001
        assert await stage.end() == TRANSPORT_CLOSE


async def test_lost_connection_is_a_transport_close() -> None:
    async with open_stage() as stage:
        client = await stage.net.engine_websocket()
        await client.drop()
        assert await stage.end() == TRANSPORT_CLOSE


async def test_connection_lost_in_the_middle_of_a_frame_is_a_transport_close() -> None:
    async with open_stage() as stage:
        client = await stage.net.engine_websocket()
        await client.websocket.send_raw(MASKED_HELLO[:-2])
        await settle()
        await client.drop()
        assert await stage.end() == TRANSPORT_CLOSE
        assert await receive_all(stage.session) == []


async def test_close_packet_on_a_websocket_is_a_transport_close() -> None:
    async with open_stage() as stage:
        client = await stage.net.engine_websocket()
        await client.send("4before", "1", "4after")
        assert (await client.websocket.closed()).code == 1000
        assert await stage.end() == TRANSPORT_CLOSE
        assert await receive_all(stage.session) == ["before"]


@pytest.mark.parametrize("packet", ["", "abc", "7", "{}", "b$$$"])
async def test_undecodable_packet_is_a_parse_error(packet: str) -> None:
    async with open_stage() as stage:
        client = await stage.net.engine_websocket()
        await client.send("4before", packet, "4after")
        assert (await client.websocket.closed()).code == 1000
        reason, description = await stage.end()
        assert reason == "parse error"
        assert description
        assert await receive_all(stage.session) == ["before"]


async def test_open_noop_and_upgrade_packets_are_ignored() -> None:
    async with open_stage() as stage:
        client = await stage.net.engine_websocket()
        await client.send("0{}", "6", "5", "4x")
        assert await stage.session.receive() == "x"


VIOLATIONS = {
    "unmasked": b"\x81\x034hi",
    "reserved bit": b"\xc1\x82\x00\x00\x00\x004x",
    "unknown opcode": b"\x83\x80\x00\x00\x00\x00",
    "no utf-8": b"\x81\x82\x00\x00\x00\x004\xff",
    "continuation of nothing": b"\x80\x81\x00\x00\x00\x00x",
    "fragmented ping": b"\x09\x80\x00\x00\x00\x00",
}


@pytest.mark.parametrize("frame", VIOLATIONS.values(), ids=VIOLATIONS)
async def test_violation_of_the_websocket_protocol_is_a_transport_error(frame: bytes) -> None:
    async with open_stage() as stage:
        client = await stage.net.engine_websocket()
        await client.websocket.send_raw(MASKED_HELLO + frame + MASKED_HELLO)
        assert (await client.websocket.closed()).code != 1000
        reason, description = await stage.end()
        assert reason == "transport error"
        assert description
        assert await receive_all(stage.session) == ["hello"]


@pytest.mark.parametrize("garbage", [b"\x00" * 100, b"\xff" * 100, b"GET / HTTP/1.1\r\n\r\n", bytes(range(256))])
async def test_garbage_right_after_the_handshake_ends_that_session_only(garbage: bytes) -> None:
    async with open_stage() as stage:
        other = await stage.net.engine_websocket()
        client = await stage.net.engine_websocket()
        await client.websocket.send_raw(garbage)
        await stage.end()
        await other.send("4x")
        assert await stage.sessions[0].receive() == "x"


async def test_fragments_are_one_message() -> None:
    async with open_stage() as stage:
        client = await stage.net.engine_websocket()
        await client.websocket.send_raw(b"\x01\x83\x00\x00\x00\x004he" + b"\x80\x83\x00\x00\x00\x00llo")
        assert await stage.session.receive() == "hello"


async def test_ping_frames_are_answered_and_are_no_pongs_of_the_engine() -> None:
    async with open_stage(ping_interval=25, ping_timeout=20) as stage:
        client = await stage.net.engine_websocket()
        for _ in range(40):
            await client.websocket.ping(b"x")
            await trio.sleep(1)
        assert await client.recv() == "2"
        assert await stage.end() == ("ping timeout", None)


# Our close


async def test_our_close_is_a_close_frame_without_a_close_packet() -> None:
    async with open_stage() as stage:
        client = await stage.net.engine_websocket()
        stage.session.close()
        assert (await client.websocket.closed()).code == 1000


async def test_our_close_does_not_wait_for_the_client() -> None:
    async with open_stage() as stage:
        await stage.net.engine_websocket()
        stage.session.close()
        assert stage.session.closed_because == ("forced close", None)
        assert stage.engine.clients_count == 0
        await stage.end()
        assert trio.current_time() == 0


async def test_connection_is_cut_if_the_client_does_not_answer_our_close() -> None:
    async with open_stage() as stage:
        client = await stage.net.engine_websocket()
        stage.session.close()
        data = b""
        while chunk := await client.websocket.stream.receive_some():
            data += chunk
        assert data == b"\x88\x02\x03\xe8"
        assert trio.current_time() == pytest.approx(CLOSE_DEADLINE, abs=0.1)


async def test_connection_is_cut_if_the_client_does_not_even_read_our_close() -> None:
    async with open_stage() as stage:
        client = await stage.net.engine_websocket(unread=True)
        stage.session.close()
        await trio.sleep(2 * CLOSE_DEADLINE)
        with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
            await client.send("4x")


async def test_subprotocol_that_the_client_offers_first_is_accepted() -> None:
    async with open_stage() as stage:
        websocket = await stage.net.websocket(WEBSOCKET, {"sec-websocket-protocol": "one, two"})
        assert websocket.headers["sec-websocket-protocol"] == "one"


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("sec-websocket-key", "x", 400),
        ("sec-websocket-version", "8", 426),
        ("connection", "keep-alive", 400),
        ("content-length", "5", 400),
    ],
)
async def test_broken_opening_request_is_refused_without_a_session(name: str, value: str, status: int) -> None:
    async with open_stage() as stage:
        exchange = Exchange(stage.net.connect())
        await exchange.ask(
            "GET", stage.net.target(WEBSOCKET), {**WEBSOCKET_HEADERS, name: value}, b"xxxxx" if value == "5" else b""
        )
        assert (await exchange.response()).status == status
        assert not stage.sessions


async def test_client_that_leaves_before_the_101_leaves_no_session() -> None:
    async with open_stage() as stage:
        exchange = await stage.net.start("GET", WEBSOCKET, WEBSOCKET_HEADERS, unread=True)
        await exchange.drop()
        await trio.sleep(1)
        assert stage.engine.clients_count == 0


async def test_messages_sent_by_the_server_come_before_the_close_frame() -> None:
    async with open_stage() as stage:
        client = await stage.net.engine_websocket()
        for number in range(3):
            await stage.session.send(str(number))
        stage.session.close()
        assert [await client.recv() for _ in range(3)] == ["40", "41", "42"]
        with pytest.raises(SessionLost, match="1000"):
            await client.recv()
