"""What the tests of the reference implementation ask of a server, where no other module here is about it."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from trio_socketio.engineio import Engine, HttpCompression

from ..wire_client import WEBSOCKET_HEADERS, EioWebSocket, Exchange, WebSocketRefused, open_app, settle
from .stage import WEBSOCKET, echo, on_both_transports, open_stage, run_to_the_end

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_socketio.engineio import Session

    from ..wire_client import EioPolling
    from .stage import Stage


# Options


def test_by_default_polls_are_compressed_from_1024_bytes_on_and_websockets_are_not() -> None:
    config = Engine().config
    assert config.http_compression == HttpCompression(threshold=1024)
    assert config.per_message_deflate is None


def test_old_clients_are_not_served_by_default() -> None:
    assert Engine().config.allow_eio3 is False


async def test_binary_initial_packet_rides_in_base64_in_the_polling_handshake() -> None:
    async with open_stage(initial_packet=b"\x01\x02\x03\x04") as stage:
        client = await stage.net.polling()
        assert client.opening.packets[1:] == ["bAQIDBA=="]


async def test_websocket_for_a_polling_session_is_refused_where_only_polling_is_enabled() -> None:
    async with open_stage(transports=["polling"]) as stage:
        client = await stage.net.polling()
        with pytest.raises(WebSocketRefused) as caught:
            await client.probe()
        assert (caught.value.response.status, caught.value.response.text) == (400, "Transport unknown")
        assert [error.context for error in stage.errors] == [{"transport": "websocket"}]
        await client.send("4still here")
        assert await stage.session.receive() == "still here"


# Verification


@pytest.mark.parametrize("query", ["", "?", "?transport"])
async def test_upgrade_request_without_parameters_is_400(query: str) -> None:
    async with open_stage() as stage:
        exchange = Exchange(stage.net.connect())
        await exchange.ask("GET", stage.net.target(query), WEBSOCKET_HEADERS)
        response = await exchange.response()
        assert (response.status, response.text) == (400, "Transport unknown")
        assert [error.code for error in stage.errors] == [0]


# Handshake


@on_both_transports
async def test_session_is_counted_and_complete_when_its_connection_listener_is_told(transport: str) -> None:
    async with open_stage() as stage:
        seen: list[tuple[int, bool, str | None, int, str]] = []

        @stage.engine.on("connection")
        def connected(session: Session) -> None:
            registered = stage.engine.sessions[session.id] is session
            query = session.request.query["transport"]
            seen.append((stage.engine.clients_count, registered, session.transport, session.protocol, query))

        await stage.client(transport)
        assert seen == [(1, True, transport, 4, transport)]


@pytest.mark.parametrize("agent", ["Mozilla/4.0 (compatible;MSIE 8.0; Windows NT 6.1)", "x (Trident/7.0; rv:11.0)"])
async def test_old_browsers_are_told_not_to_filter_later_polls_either(agent: str) -> None:
    async with open_stage() as stage:
        client = await stage.net.polling(headers={"user-agent": agent})
        await stage.session.send("x")
        response = await stage.net.get(client.target, {"user-agent": agent})
        assert response.headers["x-xss-protection"] == "0"
        assert response.headers["cache-control"] == "no-store"


async def test_address_of_a_websocket_client_is_known() -> None:
    engine = Engine()
    addresses: list[str] = []
    engine.on("connection", lambda session: addresses.append(session.remote_address))
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(lambda **kwargs: engine.serve_tcp(0, host="127.0.0.1", **kwargs))
        exchange = Exchange(await trio.testing.open_stream_to_socket_listener(listeners[0]))
        await exchange.ask("GET", "/engine.io/" + WEBSOCKET, WEBSOCKET_HEADERS)
        websocket = await exchange.websocket()
        assert str(await websocket.recv()).startswith("0{")
        assert addresses == ["127.0.0.1"]
        await exchange.drop()
        nursery.cancel_scope.cancel()


# Close


async def send_garbage(stage: Stage, client: EioPolling) -> None:
    assert (await client.post("abc")).status == 400


async def drop_a_poll(stage: Stage, client: EioPolling) -> None:
    await (await client.start_poll()).drop()


async def say_goodbye(stage: Stage, client: EioPolling) -> None:
    await client.close()


async def be_silent(stage: Stage, client: EioPolling) -> None:
    await trio.sleep(46)


async def be_closed(stage: Stage, client: EioPolling) -> None:
    stage.session.close(discard=True)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (send_garbage, "parse error"),
        (drop_a_poll, "transport error"),
        (say_goodbye, "transport close"),
        (be_silent, "ping timeout"),
        (be_closed, "forced close"),
    ],
)
async def test_session_that_has_ended_is_unknown_to_every_later_request(
    end: Callable[[Stage, EioPolling], Awaitable[None]], reason: str
) -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        await end(stage, client)
        assert (await stage.end())[0] == reason
        for response in (await stage.net.get(client.target), await client.post("4x")):
            assert (response.status, response.json()["code"]) == (400, 1)
        with pytest.raises(WebSocketRefused) as caught:
            await stage.net.websocket(f"{WEBSOCKET}&sid={client.sid}")
        assert (caught.value.response.status, caught.value.response.text) == (400, "Session ID unknown")


async def test_graceful_close_with_a_pending_poll_closes_the_probing_websocket_at_once() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        websocket = await client.probe()
        poll = await client.start_poll()
        stage.session.close()
        assert (await poll.response()).packets == ["1"]
        assert (await websocket.closed()).code == 1000
        assert await stage.end() == ("forced close", None)
        assert trio.current_time() < 1


@on_both_transports
async def test_messages_sent_with_and_without_pauses_all_arrive_in_order_before_the_close(transport: str) -> None:
    async with open_stage() as stage, trio.open_nursery() as nursery:
        client = await stage.client(transport)

        async def send_and_close() -> None:
            await stage.session.send("a")
            await trio.sleep(0.1)
            await stage.session.send("b")
            await stage.session.send("c")
            stage.session.close()

        nursery.start_soon(send_and_close)
        assert [await client.recv() for _ in range(3)] == ["4a", "4b", "4c"]
        while stage.session.transport is not None:
            await run_to_the_end(client)
        assert stage.session.closed_because == ("forced close", None)


async def test_engine_that_runs_again_takes_websockets_and_upgrades_again() -> None:
    engine = Engine()
    echo(engine)
    for _ in range(2):
        async with open_app(engine) as net:
            for client in (await net.engine_websocket(), await (await net.polling()).upgrade()):
                await client.send("4hello")
                assert await client.recv() == "4hello"
            assert engine.clients_count == 2
        assert engine.clients_count == 0


# Messages and buffers


@on_both_transports
async def test_listener_that_closes_its_session_handles_no_more_of_the_same_payload(transport: str) -> None:
    async with open_stage() as stage:
        handled: list[str | bytes] = []

        @stage.engine.on("connection")
        async def connected(session: Session) -> None:
            async for message in session:
                handled.append(message)
                session.close(discard=True)

        client = await stage.client(transport)
        if isinstance(client, EioWebSocket):
            await client.websocket.send_raw(b"".join(client.websocket.encode(f"4{letter}") for letter in "abc"))
        else:
            assert (await client.post("4a\x1e4b\x1e4c")).text == "ok"
        assert await stage.end() == ("forced close", None)
        assert handled == ["a"]


async def test_fifty_messages_each_way_at_their_own_pace_across_an_upgrade_stay_in_order() -> None:
    numbers = [str(number) for number in range(50)]
    async with open_stage() as stage, trio.open_nursery() as nursery:
        client = await stage.net.polling()

        async def send_from_the_server() -> None:
            for number in numbers:
                await stage.session.send(number)
                await trio.sleep(0.002)

        nursery.start_soon(send_from_the_server)
        received: list[str | bytes] = []
        for number in numbers[:20]:
            await client.send("4" + number)
            received.append(await client.recv())
        assert stage.session.transport == "polling"
        websocket = await client.upgrade()
        for number in numbers[20:]:
            await websocket.send("4" + number)
            received.append(await websocket.recv())
        assert received == ["4" + number for number in numbers]
        assert [await stage.session.receive() for _ in numbers] == numbers
        assert stage.session.request.query["transport"] == "polling"
        assert stage.session.transport == "websocket"


async def test_engines_on_two_paths_upgrade_side_by_side_even_with_equal_session_ids() -> None:
    async with open_stage() as one, open_stage(path="/two") as two:
        stages = (one, two)
        for stage in stages:
            stage.engine.generate_id = lambda request: "same"
        clients = [await stage.net.polling() for stage in stages]
        websockets = [await client.upgrade() for client in clients]
        for stage, websocket in zip(stages, websockets, strict=True):
            await websocket.send("4to " + stage.engine.config.path)
            await stage.session.send("from " + stage.engine.config.path)
        assert [await stage.session.receive() for stage in stages] == ["to /engine.io", "to /two"]
        assert [await websocket.recv() for websocket in websockets] == ["4from /engine.io", "4from /two"]
        await websockets[0].drop()
        assert await one.end() == ("transport close", None)
        assert await two.close_reason() is None


async def test_buffered_bytes_are_what_waits_for_a_poll_and_none_once_it_was_handed_over() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        assert stage.session.buffered_bytes == 0
        await stage.session.send("x" * 1000)
        before = stage.session.buffered_bytes
        await stage.session.send(b"y" * 500)
        assert 1000 <= before < stage.session.buffered_bytes
        await client.poll()
        assert stage.session.buffered_bytes == 0


async def test_nothing_is_buffered_for_a_websocket_that_takes_it() -> None:
    async with open_stage() as stage:
        client = await stage.net.engine_websocket()
        await stage.session.send("x" * 1000)
        await settle()
        assert stage.session.buffered_bytes == 0
        assert await client.recv() == "4" + "x" * 1000


@pytest.mark.parametrize(
    "view",
    [
        bytearray(b"\x00\x01\xfe"),
        memoryview(b"....\x00\x01\xfe....")[4:7],
        array("H", [1, 2, 0xFFFE]),
        array("d", [0.5, -1.25]),
        memoryview(array("i", range(6))),
    ],
    ids=["bytearray", "slice", "uint16", "float64", "int32"],
)
@on_both_transports
async def test_binary_of_any_view_arrives_as_its_bytes_in_memory(view: Any, transport: str) -> None:
    async with open_stage() as stage:
        client = await stage.client(transport)
        await stage.session.send(view)
        assert await client.recv() == memoryview(view).tobytes()


@on_both_transports
async def test_message_of_a_megabyte_in_many_pieces_arrives_whole_and_comes_back(transport: str) -> None:
    async with open_stage() as stage:
        echo(stage.engine)
        stage.net.chunk_size = lambda: 4096
        client = await stage.client(transport)
        packet = "4" + "0123456789" * 99_999
        await client.send(packet)
        assert await client.recv() == packet


async def test_posted_text_and_binary_messages_come_back_in_one_body() -> None:
    async with open_stage() as stage:
        echo(stage.engine)
        client = await stage.net.polling()
        body = "4test1\x1e4test2\x1ebAQIDBA==\x1e4test3"
        assert (await client.post(body)).text == "ok"
        await settle()
        assert (await stage.net.get(client.target)).text == body
