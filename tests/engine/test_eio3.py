"""Clients of Engine.IO 3, byte by byte (``allow_eio3``): the payloads, the heartbeat, the upgrade."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_socketio import ConnectionRefused, Server

from ..wire_client import EioWebSocket, SessionLost, WebSocketClosed, WebSocketRefused, open_app, settle
from .stage import echo, open_stage, run_to_the_end

if TYPE_CHECKING:
    from trio_socketio import Socket

    from ..wire_client import HttpResponse, Net
    from .stage import Stage

PING_TIMEOUT = ("ping timeout", None)
OCTETS = {"content-type": "application/octet-stream"}
OLD_QUERIES = ["EIO=3", "EIO=2", "EIO=abc", "EIO=", "t=1"]


class Poller:
    """A session on long-polling, whose bodies are not looked into."""

    def __init__(self, net: Net, opening: HttpResponse) -> None:
        length, colon, packet = opening.text.partition(":")
        assert colon, opening
        assert int(length) == len(packet), opening
        assert packet[0] == "0", opening
        self.opening = opening
        self.handshake: dict[str, Any] = json.loads(packet[1:])
        self.sid: str = self.handshake["sid"]
        self.target = f"?EIO=3&transport=polling&sid={self.sid}"
        self.net = net

    async def poll(self) -> HttpResponse:
        return await self.net.get(self.target)

    async def post(self, body: str | bytes, headers: dict[str, str] | None = None) -> HttpResponse:
        return await self.net.post(self.target, body, headers or {})


async def open_poller(net: Net, query: str = "EIO=3") -> Poller:
    opening = await net.get(f"?{query}&transport=polling")
    assert opening.status == 200, opening
    return Poller(net, opening)


async def open_websocket(net: Net, query: str = "EIO=3") -> EioWebSocket:
    return await EioWebSocket.open(await net.websocket(f"?{query}&transport=websocket"))


# The handshake


@pytest.mark.parametrize("query", OLD_QUERIES)
async def test_other_revisions_are_refused_by_default(query: str) -> None:
    async with open_stage() as stage:
        response = await stage.net.get(f"?{query}&transport=polling")
        assert (response.status, json.loads(response.body)) == (
            400,
            {"code": 5, "message": "Unsupported protocol version"},
        )
        with pytest.raises(WebSocketRefused):
            await stage.net.websocket(f"?{query}&transport=websocket")
        assert [error.context for error in stage.errors] == [{"protocol": 3}] * 2
        assert stage.sessions == []


@pytest.mark.parametrize("query", OLD_QUERIES)
async def test_every_other_revision_is_taken_for_the_third(query: str) -> None:
    async with open_stage(allow_eio3=True) as stage:
        client = await open_poller(stage.net, query)
        assert client.handshake == {
            "sid": stage.session.id,
            "upgrades": ["websocket"],
            "pingInterval": 25000,
            "pingTimeout": 20000,
            "maxPayload": 1_000_000,
        }
        assert client.opening.headers["content-type"] == "text/plain; charset=UTF-8"
        assert stage.session.protocol == 3


async def test_current_clients_are_served_next_to_old_ones() -> None:
    async with open_stage(allow_eio3=True) as stage:
        echo(stage.engine)
        client = await stage.client()
        assert stage.session.protocol == 4
        await client.send("4hello", b"\1")
        assert [await client.recv(), await client.recv()] == ["4hello", b"\1"]


async def test_websocket_opens_with_the_handshake_alone_in_its_frame() -> None:
    async with open_stage(allow_eio3=True) as stage:
        client = await open_websocket(stage.net)
        assert (client.sid, client.handshake["upgrades"]) == (stage.session.id, [])
        assert stage.session.protocol == 3


@pytest.mark.parametrize(("packet", "body"), [("hi", b"3:4hi"), (b"\1\2", b"6:b4AQI=")])
async def test_initial_packet_follows_the_handshake(packet: str | bytes, body: bytes) -> None:
    async with open_stage(allow_eio3=True, initial_packet=packet) as stage:
        opening = await stage.net.get("?EIO=3&b64=1&transport=polling")
        assert opening.body.endswith(b"}" + body)


# Messages


async def test_posted_messages_come_back_with_their_lengths_in_code_units() -> None:
    async with open_stage(allow_eio3=True) as stage:
        echo(stage.engine)
        client = await open_poller(stage.net)
        response = await client.post("6:4hello2:4€3:4\U0001f60010:b4AQIDBA==")
        assert (response.status, response.body) == (200, b"ok")
        await settle()
        response = await client.poll()
        assert response.headers["content-type"] == "application/octet-stream"
        assert response.body == (
            b"\0\6\xff4hello" + b"\0\4\xff4\xe2\x82\xac" + b"\0\5\xff4\xf0\x9f\x98\x80" + b"\1\5\xff\4\1\2\3\4"
        )


async def test_client_without_binary_support_gets_base64() -> None:
    async with open_stage(allow_eio3=True) as stage:
        echo(stage.engine)
        client = await open_poller(stage.net, "EIO=3&b64=1")
        await client.post("2:4€10:b4AQIDBA==3:4\U0001f600")
        await settle()
        response = await client.poll()
        assert response.headers["content-type"] == "text/plain; charset=UTF-8"
        assert response.text == "2:4€10:b4AQIDBA==3:4\U0001f600"


@pytest.mark.parametrize("content_type", ["application/octet-stream", "Application/Octet-Stream; x=y"])
async def test_binary_body_is_taken(content_type: str) -> None:
    async with open_stage(allow_eio3=True) as stage:
        echo(stage.engine)
        client = await open_poller(stage.net)
        body = b"\0\6\xff4hello\1\5\xff\4\1\2\3\4"
        assert (await client.post(body, {"content-type": content_type})).body == b"ok"
        await settle()
        assert (await client.poll()).body == body


@pytest.mark.parametrize("query", ["EIO=3", "EIO=3&b64=1"])
async def test_binary_messages_on_a_websocket_have_their_type(query: str) -> None:
    async with open_stage(allow_eio3=True) as stage:
        echo(stage.engine)
        client = await open_websocket(stage.net, query)
        await client.send("4hello", b"\4\1\2\3", "b4AQID")
        expected = b"\4\1\2\3" if query == "EIO=3" else "b4AQID"
        assert [await client.recv() for _ in range(3)] == ["4hello", expected, expected]


async def test_current_client_without_binary_support_gets_base64_on_a_websocket() -> None:
    async with open_stage() as stage:
        echo(stage.engine)
        client = await open_websocket(stage.net, "EIO=4&b64=1")
        await client.send(b"\1\2\3", "bAQID")
        assert [await client.recv(), await client.recv()] == ["bAQID", "bAQID"]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ("", {}),
        ("4hello", {}),
        ("9:4hello", {}),
        ("2:4a1", {}),
        ("1:9", {}),
        ("9" * 311 + ":4a", {}),
        (b"", OCTETS),
        (b"\0\2\xff4", OCTETS),
        (b"\2\1\xff4", OCTETS),
        (b"2:4a", OCTETS),
    ],
)
async def test_bad_payload_closes_the_session(body: str | bytes, headers: dict[str, str]) -> None:
    async with open_stage(allow_eio3=True) as stage:
        client = await open_poller(stage.net)
        poll = await stage.net.start_get(client.target)
        assert (await client.post(body, headers)).status == 400
        assert (await poll.response()).text == "1:1"
        reason, description = await stage.end()
        assert reason == "parse error"
        assert description
        assert (await client.post("1:2")).status == 400


async def test_packets_before_a_bad_one_are_delivered() -> None:
    async with open_stage(allow_eio3=True) as stage:
        client = await open_poller(stage.net)
        await client.post("2:4a2:4bx")
        assert [message async for message in stage.session] == ["a", "b"]


@pytest.mark.parametrize("message", ["x", "b2AQID", b"", b"\2", b"hello"])
async def test_bad_websocket_message_closes_the_session(message: str | bytes) -> None:
    async with open_stage(allow_eio3=True) as stage:
        client = await open_websocket(stage.net)
        await client.send(message)
        assert (await stage.end())[0] == "parse error"


async def test_current_revision_still_takes_no_binary_body() -> None:
    async with open_stage(allow_eio3=True) as stage:
        client = await stage.net.polling()
        assert (await client.post(b"\0\2\xff4a", OCTETS)).status == 400
        assert await stage.end() == ("transport error", "invalid content")


# Closing


async def test_close_packet_of_the_client_releases_its_poll() -> None:
    async with open_stage(allow_eio3=True) as stage:
        client = await open_poller(stage.net)
        poll = await stage.net.start_get(client.target)
        assert (await client.post("1:1")).body == b"ok"
        assert (await poll.response()).text == "1:6"
        assert await stage.end() == ("transport close", None)


async def test_pending_poll_is_told_of_the_close() -> None:
    async with open_stage(allow_eio3=True) as stage:
        client = await open_poller(stage.net)
        poll = await stage.net.start_get(client.target)
        stage.session.close()
        assert (await poll.response()).text == "1:1"


async def test_graceful_close_delivers_what_was_queued_then_says_so() -> None:
    async with open_stage(allow_eio3=True) as stage:
        client = await open_poller(stage.net)
        await stage.session.send("a")
        stage.session.close()
        assert (await client.poll()).text == "2:4a"
        assert (await client.poll()).text == "1:61:1"
        assert await stage.end() == ("forced close", None)


# The heartbeat


async def test_server_answers_pings_and_sends_none() -> None:
    async with open_stage(allow_eio3=True) as stage:
        client = await open_poller(stage.net)
        for _ in range(3):
            await trio.sleep(44)
            await client.post("1:2")
            assert (await client.poll()).text == "1:3"
        assert await stage.close_reason() is None


async def test_pings_keep_a_websocket_alive() -> None:
    async with open_stage(allow_eio3=True) as stage:
        client = await open_websocket(stage.net)
        for _ in range(3):
            await trio.sleep(44)
            await client.send("2")
            assert await client.recv() == "3"
        assert await stage.close_reason() is None


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_session_without_pings_ends_after_interval_and_timeout(transport: str) -> None:
    async with open_stage(allow_eio3=True, ping_interval=25, ping_timeout=20) as stage:
        if transport == "polling":
            await open_poller(stage.net)
        else:
            await open_websocket(stage.net)
        await trio.sleep(44.9)
        assert await stage.close_reason() is None
        assert await stage.end() == PING_TIMEOUT
        assert trio.current_time() == pytest.approx(45, abs=0.01)


async def test_each_ping_gives_the_whole_time_again_and_messages_give_none() -> None:
    async with open_stage(allow_eio3=True) as stage:
        client = await open_websocket(stage.net)
        await trio.sleep(30)
        await client.send("2")
        await trio.sleep(40)
        await client.send("4hello")
        await stage.end()
        assert trio.current_time() == pytest.approx(30 + 45, abs=0.01)


async def test_client_that_we_do_not_read_from_is_not_taken_for_silent() -> None:
    async with open_stage(allow_eio3=True, max_inbox_messages=1) as stage:
        client = await open_websocket(stage.net)
        await client.send("4a")
        await trio.sleep(40)
        await client.send("2")
        await trio.sleep(100)
        assert await stage.close_reason() is None
        assert await stage.session.receive() == "a"
        assert await client.recv() == "3"
        await trio.sleep(44)
        assert await stage.close_reason() is None


async def test_client_that_we_did_not_read_from_has_the_whole_time_for_its_next_ping() -> None:
    async with open_stage(allow_eio3=True, max_inbox_messages=1) as stage:
        client = await open_websocket(stage.net)
        await client.send("4a")
        await trio.sleep(50)
        assert await stage.session.receive() == "a"
        await trio.sleep(44)
        assert await stage.close_reason() is None
        assert await stage.end() == PING_TIMEOUT
        assert trio.current_time() == pytest.approx(50 + 45, abs=0.01)


async def test_pong_of_the_client_is_the_wrong_direction() -> None:
    async with open_stage(allow_eio3=True) as stage:
        client = await open_websocket(stage.net)
        await client.send("3")
        assert await stage.end() == ("transport error", "invalid heartbeat direction")


# The upgrade


async def upgrade(stage: Stage, client: Poller) -> EioWebSocket:
    websocket = await stage.net.websocket(f"?EIO=3&transport=websocket&sid={client.sid}")
    poll = await stage.net.start_get(client.target)
    await websocket.send("2probe")
    assert await websocket.recv() == "3probe"
    assert (await poll.response()).text == "1:6"
    await websocket.send("5")
    await settle()
    return EioWebSocket(websocket, client.handshake)


async def test_upgrade_keeps_the_session_and_its_dialect() -> None:
    async with open_stage(allow_eio3=True) as stage:
        echo(stage.engine)
        client = await upgrade(stage, await open_poller(stage.net))
        assert stage.session.transport == "websocket"
        await client.send("4hello", b"\4\1")
        assert [await client.recv(), await client.recv()] == ["4hello", b"\4\1"]


async def test_what_waits_at_the_upgrade_goes_out_on_the_websocket() -> None:
    async with open_stage(allow_eio3=True) as stage:
        poller = await open_poller(stage.net)
        websocket = await stage.net.websocket(f"?EIO=3&transport=websocket&sid={poller.sid}")
        await websocket.send("2probe")
        assert await websocket.recv() == "3probe"
        await stage.session.send(b"\1\2")
        await websocket.send("5")
        assert await websocket.recv() == b"\4\1\2"


async def test_upgrade_leaves_the_client_its_time_for_the_next_ping() -> None:
    async with open_stage(allow_eio3=True) as stage:
        poller = await open_poller(stage.net)
        await trio.sleep(40)
        client = await upgrade(stage, poller)
        assert await run_to_the_end(client)
        assert trio.current_time() == pytest.approx(85, abs=0.2)
        assert await stage.end() == PING_TIMEOUT


async def test_failed_probe_leaves_the_session_on_polling() -> None:
    async with open_stage(allow_eio3=True) as stage:
        client = await open_poller(stage.net)
        websocket = await stage.net.websocket(f"?EIO=3&transport=websocket&sid={client.sid}")
        await websocket.send("4hello")
        with pytest.raises(WebSocketClosed):
            await websocket.recv()
        await stage.session.send("still here")
        assert (await client.poll()).text == "11:4still here"


# Socket.IO 2 on top


async def receive(client: EioWebSocket, count: int = 1) -> list[str | bytes]:
    packets: list[str | bytes] = []
    with trio.fail_after(5):
        while len(packets) < count:
            packets.append(await client.recv())
    return packets


async def test_old_client_is_in_the_main_namespace_without_asking() -> None:
    io = Server(allow_eio3=True)
    sockets: list[Socket] = []
    io.on("connection", sockets.append)
    async with open_app(io) as net:
        client = await open_websocket(net)
        assert await receive(client) == ["40"]
        (socket,) = sockets
        assert socket.id == client.sid
        assert socket.handshake.auth == {}
        assert socket.rooms == {client.sid}
        poller = await open_poller(net)
        assert (await poller.poll()).text == "2:40"
        assert set(io.sockets.sockets) == {client.sid, poller.sid}


async def test_query_of_a_namespace_is_its_auth_and_not_part_of_its_name() -> None:
    io = Server(allow_eio3=True)
    sockets: list[Socket] = []
    io.of("/admin").on("connection", sockets.append)
    async with open_app(io) as net:
        client = await open_websocket(net)
        await client.send("40/admin?token=1&name=a%20b,")
        assert await receive(client, 2) == ["40", "40/admin,"]
        (socket,) = sockets
        assert socket.id == f"/admin#{client.sid}"
        assert socket.handshake.auth == {"token": "1", "name": "a b"}
        await socket.emit("hello", b"\1")
        assert await receive(client, 2) == ['451-/admin,["hello",{"_placeholder":true,"num":0}]', b"\4\1"]


@pytest.mark.parametrize("packet", ["40/admin", "40/admin,", '40/admin,{"token":"1"}'])
async def test_namespace_without_a_query_has_no_auth(packet: str) -> None:
    io = Server(allow_eio3=True)
    sockets: list[Socket] = []
    io.of("/admin").on("connection", sockets.append)
    async with open_app(io) as net:
        client = await open_websocket(net)
        await client.send(packet)
        assert await receive(client, 2) == ["40", "40/admin,"]
        assert [socket.handshake.auth for socket in sockets] == [{}]


@pytest.mark.parametrize(
    ("error", "packet"),
    [
        (ConnectionRefused("go away"), '44/admin,"go away"'),
        (ConnectionRefused("go away", {"code": 7}), '44/admin,{"code":7}'),
        (ConnectionRefused("go away", "details"), '44/admin,"details"'),
    ],
)
async def test_refusal_is_the_data_or_the_message(error: ConnectionRefused, packet: str) -> None:
    io = Server(allow_eio3=True)

    @io.of("/admin").use
    def refuse(socket: Socket) -> None:
        raise error

    async with open_app(io) as net:
        client = await open_websocket(net)
        await client.send("40/admin,")
        assert await receive(client, 2) == ["40", packet]
        await client.send("40/nowhere,")
        assert await receive(client) == ['44/nowhere,"Invalid namespace"']


async def test_refusal_of_the_main_namespace_reaches_the_client() -> None:
    io = Server(allow_eio3=True)

    @io.use
    def refuse(socket: Socket) -> None:
        raise ConnectionRefused("not you")

    async with open_app(io) as net:
        assert await receive(await open_websocket(net)) == ['44"not you"']
        assert io.statistics().sockets == 0


async def test_events_and_acks_are_those_of_new_clients() -> None:
    io = Server(allow_eio3=True)

    @io.on("connection")
    def connected(socket: Socket) -> None:
        socket.on("double", lambda text: text * 2)

    async with open_app(io) as net:
        old = await open_websocket(net)
        new = await net.connect_socketio()
        await receive(old)
        await old.send('4212["double","ab"]')
        assert await receive(old) == ['4312["abab"]']
        await io.emit("news", b"\7")
        assert await receive(old, 2) == ['451-["news",{"_placeholder":true,"num":0}]', b"\4\7"]
        assert await new.recv_event() == (None, ["news", b"\7"])


async def test_old_client_comes_back_to_a_namespace_only_after_it_has_left_it() -> None:
    # Its id is the same again, and what the end of the first socket removes must not be the second one's.
    io = Server(allow_eio3=True)
    log: list[str] = []

    @io.of("/admin").on("connection")
    def connected(socket: Socket) -> None:
        log.append("connect")

        @socket.on("disconnect")
        async def left(reason: str) -> None:
            await trio.sleep(1)
            log.append(reason)

    async with open_app(io) as net:
        client = await open_websocket(net)
        await client.send("40/admin,", "41/admin,", "40/admin,")
        assert await receive(client, 3) == ["40", "40/admin,", "40/admin,"]
        await settle()
        assert log == ["connect", "client namespace disconnect", "connect"]
        (socket,) = io.of("/admin").sockets.values()
        assert socket.rooms == {f"/admin#{client.sid}"}


async def test_second_connect_to_the_main_namespace_is_a_violation() -> None:
    io = Server(allow_eio3=True)
    async with open_app(io) as net:
        client = await open_websocket(net)
        await receive(client)
        await client.send("40")
        with pytest.raises(SessionLost):
            await receive(client)


async def test_old_client_whose_middleware_hangs_is_closed_in_time() -> None:
    io = Server(allow_eio3=True, connect_timeout=3)

    @io.use
    async def hang(socket: Socket) -> None:
        await trio.sleep_forever()

    async with open_app(io) as net:
        client = await open_websocket(net)
        with pytest.raises(SessionLost):
            await client.recv()
        assert trio.current_time() == pytest.approx(3, abs=0.01)
