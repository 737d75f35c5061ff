from __future__ import annotations

import pytest
import trio
from trio.testing import check_one_way_stream

from trio_socketio.testing._pipe import CAPACITY, Pipe, PipeReceiver, PipeSender, connect


async def make_ends() -> tuple[PipeSender, PipeReceiver]:
    await trio.lowlevel.checkpoint()
    pipe = Pipe(100)
    return PipeSender(pipe), PipeReceiver(pipe)


async def make_clogged_ends() -> tuple[PipeSender, PipeReceiver]:
    sender, receiver = await make_ends()
    await sender.send_all(b"x" * 100)
    return sender, receiver


async def test_each_direction_is_a_stream_as_trio_wants_one() -> None:
    await check_one_way_stream(make_ends, make_clogged_ends)
    sender, receiver = await make_ends()
    await sender.send_all(b"abc")
    assert await receiver.receive_some(2) == b"ab"
    assert await receiver.receive_some() == b"c"


async def test_a_connection_leads_both_ways() -> None:
    ours, theirs, _ = connect()
    await ours.send_all(b"ping")
    await theirs.send_all(b"pong")
    assert (await theirs.receive_some(), await ours.receive_some()) == (b"ping", b"pong")
    await ours.aclose()
    assert await theirs.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await theirs.send_all(b"more")


async def test_a_writer_waits_while_nobody_reads_and_the_pipe_is_full() -> None:
    ours, theirs, to_client = connect()
    to_client.stop_reading()
    await theirs.send_all(bytes(CAPACITY))
    with trio.move_on_after(10) as scope:
        await theirs.send_all(b"x")
    assert scope.cancelled_caught
    to_client.resume_reading()
    assert len(await ours.receive_some()) == CAPACITY


async def test_who_has_stopped_reading_gets_nothing_of_what_is_there() -> None:
    ours, theirs, to_client = connect()
    await theirs.send_all(b"x")
    to_client.stop_reading()
    with trio.move_on_after(10) as scope:
        await ours.receive_some()
    assert scope.cancelled_caught
