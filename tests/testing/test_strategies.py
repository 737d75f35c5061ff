from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_socketio import RemoteProtocolError, Server, SocketDisconnected
from trio_socketio._wire.engine_packets import EnginePacketType, decode_packet_untrusted
from trio_socketio.abc import DefaultParser, Packet
from trio_socketio.testing import open_client, strategies

from .conftest import run_on_virtual_clock


def through_the_parser(packet: Packet) -> Packet | None:
    parser = DefaultParser()
    decoder = parser.decoder()
    decoded = None
    for message in parser.encode(packet).messages:
        assert decoded is None
        decoded = decoder.add_untrusted(message[1:] if isinstance(message, str) else message)
    return decoded


@given(strategies.packets())
def test_packets_come_out_of_the_parser_as_they_went_in(packet: Packet) -> None:
    assert through_the_parser(packet) == packet


@given(strategies.malformed_packets())
def test_malformed_packets_are_refused(data: str) -> None:
    def decode() -> None:
        packet = decode_packet_untrusted(data)
        assert packet.type is EnginePacketType.MESSAGE
        assert isinstance(packet.data, str)
        DefaultParser().decoder().add_untrusted(packet.data)

    with pytest.raises(RemoteProtocolError):
        decode()


@given(st.binary(max_size=50).flatmap(lambda data: st.tuples(st.just(data), strategies.chunkings(data))))
def test_chunks_are_the_whole_together(drawn: tuple[bytes, list[bytes]]) -> None:
    data, chunks = drawn
    assert b"".join(chunks) == data
    assert all(chunks)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_whatever_names_rooms_and_payloads_there_are_a_server_delivers_them(data: st.DataObject) -> None:
    async def deliver() -> None:
        io = Server()
        async with open_client(io, data.draw(st.just("/"))) as client:
            name, room = data.draw(strategies.event_names()), data.draw(strategies.rooms(tricky=True))
            args: list[Any] = data.draw(st.lists(strategies.payloads(max_attachments=3), max_size=3))
            await io.in_(client.id).sockets_join(room)
            await io.to(room).emit(name, *args)
            assert await client.receive() == (name, *args)

    run_on_virtual_clock(deliver)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_malformed_frames_end_their_connection_and_no_other(data: st.DataObject) -> None:
    async def attack() -> None:
        io = Server()
        io.handle("echo", lambda socket, value: value)
        async with open_client(io) as other, open_client(io) as client:
            frame = data.draw(strategies.malformed_frames())
            with suppress(SocketDisconnected):  # a frame may be refused before its end
                await client.send_bytes(*data.draw(strategies.chunkings(frame)))
            with trio.fail_after(1):
                assert await client.wait_disconnected() in ("transport close", "transport error")
            assert await other.emit_with_ack("echo", 1) == 1

    run_on_virtual_clock(attack)


@settings(max_examples=50, deadline=None)
@given(strategies.malformed_packets())
def test_malformed_packets_end_their_session(packet: str) -> None:
    async def attack() -> None:
        io = Server()
        async with open_client(io) as client:
            await client.send_raw(packet)
            with trio.fail_after(1):
                assert await client.wait_disconnected() == "transport close"

    run_on_virtual_clock(attack)
