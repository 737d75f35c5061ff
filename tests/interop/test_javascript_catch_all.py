"""Catch-all listeners and rate limits, with the JavaScript client at the other end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trio_socketio import RateLimit, Server

from .serving import Record, either_transport, on_one_front_end, record, until

if TYPE_CHECKING:
    from trio_socketio import Socket

    from ..js_client import Driver
    from .serving import Serve, Served

EVENTS: list[tuple[Any, ...]] = [("text", "one", 2), ("data", b"\x00\xff", {"deep": [b"\x1e"]}), ("nothing",)]


async def test_every_event_is_told_in_both_directions_whole_and_in_order(js: Driver, served: Served, mode: str) -> None:
    client, socket = await served.pair(js, mode)
    incoming, outgoing = Record(), Record()
    socket.on_any(incoming.add)
    socket.on_any_outgoing(outgoing.add)
    await client.echo("question")

    for name, *args in EVENTS:
        await client.emit(name, *args)
        await socket.emit(name, *args)
        await served.io.emit(name, *args)
    assert await socket.emit_with_ack("question", b"?") == b"?"  # its answer is no event

    assert await incoming.reach(len(EVENTS)) == EVENTS
    assert outgoing == [*[event for event in EVENTS for _ in range(2)], ("question", b"?")]
    for name, *args in EVENTS:
        assert await client.wait_for_many(name, 2) == [tuple(args)] * 2


@on_one_front_end
@either_transport
async def test_a_client_that_sends_too_fast_is_slowed_down_and_loses_nothing(
    js: Driver, serve: Serve, mode: str
) -> None:
    served = await serve(Server(rate_limit=RateLimit(events=200, burst=0.1)))
    client, socket = await served.pair(js, mode)
    heard = record(socket, "event")

    await client.bulk("event", 100)
    await until(lambda: socket.conn.paused, "a pause")
    await heard.reach(100)

    assert [args[0] for args in heard] == list(range(100))
    await until(lambda: not socket.conn.paused, "the end of the pause")
    assert socket.connected


@on_one_front_end
@either_transport
async def test_a_client_that_is_disconnected_for_sending_too_much_does_not_come_back_by_itself(
    js: Driver, serve: Serve, mode: str
) -> None:
    io = Server(rate_limit=RateLimit(events=10, on_excess="disconnect"))
    arrivals: list[Socket] = []
    io.on("connection", arrivals.append)
    served = await serve(io)
    client, socket = await served.pair(js, mode, reconnectionDelay=1)
    ended = record(socket, "disconnect")

    await client.bulk("event", 50)

    assert (await client.wait_for("disconnect"))[0] == "io server disconnect"
    assert await ended.only() == (
        "server namespace disconnect",
        "rate limit: more than 10 events a second (burst: 10)",
    )
    await served.empty()
    assert not (await client.state()).connected
    assert arrivals == [socket]
