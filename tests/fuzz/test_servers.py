"""Whole servers among strangers: whoever is not one of them notices nothing, and nothing is left of any."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_socketio._adapters.cluster import ClusterAdapter
from trio_socketio._adapters.cluster_member import LONGEST_COLLECTION
from trio_socketio.abc import MemoryCluster

from ..server.support import run, serving
from ..wire.test_cluster_messages import NEWER, newer, odd_values
from .damage import damaged
from .strangers import Deed, Ending, histories, make_server, nothing_fails
from .test_cluster import pieces
from .test_packets import MSGPACK

if TYPE_CHECKING:
    from trio_socketio.abc import Parser

    from ..server.support import Served
    from ..wire_client import SioClient

pytestmark = pytest.mark.fuzz(weight=5)

#: A part of what there would be otherwise, as each example is a server.
some = settings(max_examples=settings().max_examples // 5)
GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


async def is_served(client: SioClient, number: int) -> bool:
    with trio.move_on_after(5):
        await client.emit("echo", "x", id=number)
        return await client.recv_event() == (number, ["x"])
    return False


async def play(served: Served, history: list[Deed]) -> None:
    streams: dict[int, trio.StapledStream[Any, Any]] = {}
    for who, sending, ending, pause in history:
        stream = streams.get(who) or served.net.connect()
        streams[who] = stream
        with suppress(*GONE):
            await stream.send_all(sending)
            if ending is Ending.HALF:
                await stream.send_stream.aclose()
        if ending is Ending.FULL:
            await trio.aclose_forcefully(stream)
        if ending is not Ending.NONE:
            del streams[who]
        await trio.sleep(pause)


async def live_among_strangers(history: list[Deed], parser: Parser | None) -> None:
    options = {} if parser is None else {"parser": parser}
    with nothing_fails():
        async with serving(make_server(**options)) as served:
            if parser is None:
                witness = await served.net.connect_socketio(query="&kind=witness")
                await play(served, history)
                assert await is_served(witness, 1)
                assert await is_served(await served.net.connect_socketio(query="&kind=witness", transport="polling"), 2)
            else:
                await play(served, history)
                assert (await served.net.get("?EIO=4&transport=polling")).status == 200


@some
@given(histories)
def test_whatever_comes_on_several_connections_others_are_served_and_nothing_is_left(history: list[Deed]) -> None:
    run(live_among_strangers, history, None)


@some
@given(histories)
def test_whatever_comes_to_a_server_with_msgpack_nothing_is_left(history: list[Deed]) -> None:
    run(live_among_strangers, history, MSGPACK)


# In a cluster


async def live_among_servers(payloads: list[bytes]) -> None:
    cluster = MemoryCluster()
    io = make_server(adapter=cluster.adapter("ours"), connection_state_recovery=False)
    with nothing_fails():
        async with serving(io) as served:
            await served.net.connect_socketio(transport="polling")  # they may make it leave
            for payload in payloads:
                cluster.members("/")["ours"].take("theirs", payload)
                await trio.sleep(0.1)
            assert await is_served(await served.net.connect_socketio(query="&kind=witness"), 1)
            await trio.sleep(2 * LONGEST_COLLECTION)
            assert isinstance(io.adapter, ClusterAdapter)
            statistics = io.adapter.statistics()
            assert (statistics.received + statistics.dropped, statistics.collecting) == (len(payloads), 0)


def say(kind: int, data: Any) -> bytes:
    message = {"uid": "theirs", "nsp": "/", "type": kind, "data": data}
    return json.dumps(message, default=lambda content: content.decode("latin-1")).encode()


valid = st.one_of(newer)
payloads = damaged(valid.map(NEWER.encode) | valid.map(NEWER.pack), pieces) | st.builds(
    say, st.integers(0, 14) | st.just(103), odd_values
)


@some
@given(st.lists(payloads, max_size=6))
def test_whatever_comes_from_other_servers_a_new_client_is_served_and_nothing_is_left(payloads: list[bytes]) -> None:
    run(live_among_servers, payloads)
