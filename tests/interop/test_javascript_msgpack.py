"""The JavaScript client with ``socket.io-msgpack-parser``, and the server with the same wire format."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from trio_socketio import ConnectionRefused, Server
from trio_socketio.abc import MsgpackParser

from ..js_client import ConnectError
from .serving import MODES, Record, on_one_front_end, record, until

if TYPE_CHECKING:
    from trio_socketio import Socket

    from ..js_client import Driver
    from .serving import Serve, Served

ARGUMENTS: list[tuple[Any, ...]] = [
    (),
    (None,),
    (1, "two", {"three": [3.5, None, True]}, -(2**53) + 1, 2**53 - 1),
    ("", b"", [], {}, 0, False),
    (b"\x00\xff\x1e", {"deep": [b"a", {"deeper": b"b"}]}, "text"),
    ('snow ☃ 日本語 𝄞 \u2028\u2029 \x00\x1e "quoted\\', {"ключ": "значение"}),
    tuple(bytes([number]) for number in range(100)),
    (bytes(range(256)) * 300, "é" * 50_000),
]


@pytest.fixture
async def served(serve: Serve) -> Served:
    return await serve(Server(parser=MsgpackParser()))


async def test_events_and_acknowledgements_arrive_whole_in_both_directions(
    js: Driver, served: Served, mode: str
) -> None:
    client, socket = await served.pair(js, mode, parser="msgpack")
    heard = record(socket, "event")
    socket.on("echo", lambda *args: args)
    await client.echo("echo")
    for args in ARGUMENTS:
        await socket.emit("event", *args)
        await client.emit("event", *args)
        assert await client.emit_with_ack("echo", *args) == args
        assert await socket.emit_with_ack("echo", *args) == (args[0] if len(args) == 1 else args or None)
    assert await client.wait_for_many("event", len(ARGUMENTS)) == ARGUMENTS
    assert await heard.reach(len(ARGUMENTS)) == ARGUMENTS


@on_one_front_end
async def test_a_date_is_a_datetime_and_the_other_way_round(js: Driver, served: Served, mode: str) -> None:
    client, socket = await served.pair(js, mode, parser="msgpack")
    heard = record(socket, "when")
    moment = datetime(2024, 2, 29, 12, 34, 56, 789000, tzinfo=UTC)
    await client.emit("when", {"$date": "2024-02-29T12:34:56.789Z"}, {"$date": "1899-12-31T00:00:00.000Z"})
    assert await heard.only() == (moment, datetime(1899, 12, 31, tzinfo=UTC))
    await socket.emit("when", moment, [datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)])
    assert await client.wait_for("when") == (
        {"$date": "2024-02-29T12:34:56.789Z"},
        [{"$date": "1969-12-31T23:59:59.000Z"}],
    )


@on_one_front_end
async def test_namespaces_rooms_and_auth(js: Driver, served: Served, mode: str) -> None:
    received = Record()
    admin = served.io.of("/admin")

    @admin.on("connection")
    async def connected(socket: Socket) -> None:
        received.add(socket.handshake.auth)
        await socket.join("operators")

    client, _ = await served.pair(js, mode, "/admin", parser="msgpack", auth={"key": b"\x01", "name": "é"})
    other, _ = await served.pair(js, mode, parser="msgpack")
    await admin.to("operators").emit("news", b"1")
    await served.io.emit("news", b"2")
    assert await received.only() == ({"key": b"\x01", "name": "é"},)
    assert await client.wait_for("news") == (b"1",)
    assert await other.wait_for("news") == (b"2",)


@on_one_front_end
async def test_a_refused_client_is_told_why(js: Driver, served: Served, mode: str) -> None:
    @served.io.use
    def refuse(socket: Socket) -> None:
        raise ConnectionRefused("not today", data={"until": [b"\x01"]})

    with pytest.raises(ConnectError) as refused:
        await js.connect(served.url, transports=MODES[mode], parser="msgpack")
    assert refused.value.args[:2] == ("not today", {"until": [b"\x01"]})
    with pytest.raises(ConnectError) as refused:
        await js.connect(served.url, "/unknown", transports=MODES[mode], parser="msgpack")
    assert refused.value.args[0] == "Invalid namespace"


@on_one_front_end
async def test_both_sides_can_disconnect(js: Driver, served: Served, mode: str) -> None:
    client, socket = await served.pair(js, mode, parser="msgpack")
    ended = record(socket, "disconnect")
    await client.disconnect()
    assert (await ended.only())[0] == "client namespace disconnect"
    client, socket = await served.pair(js, mode, parser="msgpack")
    await socket.disconnect()
    assert (await client.wait_for("disconnect"))[0] == "io server disconnect"
    await client.close_engine()
    await served.empty()


@on_one_front_end
async def test_a_client_with_another_parser_is_disconnected(
    js: Driver, served: Served, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "trio_socketio.server"):
        await js.open(served.url, transports=MODES[mode])
        await until(lambda: "every packet of msgpack is binary" in caplog.text, "a line in the log")
    await served.empty()
    assert not [entry for entry in caplog.records if entry.levelno >= logging.WARNING]
