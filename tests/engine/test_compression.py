"""Compressed answers to polls: when, in which coding, and that nobody else has to wait for them."""

from __future__ import annotations

import gzip
import logging
import random
import zlib
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trio_socketio._engine.compression import CODINGS, PIECE, Compressor, HttpCompression, negotiate
from trio_socketio._wire.encoded import EncodedPacket
from trio_socketio.engineio import Engine

from ..wire_client import settle
from .stage import POLLING, open_stage, run_in_virtual_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_socketio.engineio import Headers

    from ..wire_client import HttpResponse
    from .stage import Stage

DECODE: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "deflate": zlib.decompress}
GZIP = {"accept-encoding": "gzip"}
GONE = ("transport error", "poll connection closed prematurely")


def noise(size: int) -> bytes:
    """Bytes that do not become fewer."""
    return random.Random(size).randbytes(size)


def decoded(response: HttpResponse) -> bytes:
    coding = response.headers.get("content-encoding")
    return DECODE[coding](response.body) if coding else response.body


async def poll_for(stage: Stage, *packets: EncodedPacket, accept: str = "gzip, deflate") -> HttpResponse:
    """The answer that brings some packets to a new client."""
    client = await stage.net.polling()
    for packet in packets:
        assert stage.session.write(packet)
    return await stage.net.get(client.target, {"accept-encoding": accept})


# Which coding (RFC 9110, "Accept-Encoding")


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("br", None),
        ("br, gzip", "gzip"),
        ("GZIP", "gzip"),
        ("gzip,deflate,br", "gzip"),
        # of equal weights, the client's order
        ("deflate, gzip", "deflate"),
        ("gzip;q=0.8, deflate;q=0.8", "gzip"),
        ("deflate;q=1.0, gzip;q=1", "deflate"),
        # weights
        ("gzip;q=0.5, deflate;q=0.8", "deflate"),
        ("gzip;q=0.5, deflate", "deflate"),
        ("deflate;q=0.001, br", "deflate"),
        ("gzip ; Q=0.5 ,\tdeflate;\tq=0.4", "gzip"),
        # refusals
        ("gzip;q=0", None),
        ("gzip;q=0.000, deflate", "deflate"),
        ("gzip;q=0, *", "deflate"),
        ("*;q=0", None),
        ("*;q=0, gzip", "gzip"),
        # what the star stands for comes after what is named
        ("*", "gzip"),
        ("*;q=0.1", "gzip"),
        ("*, deflate", "deflate"),
        ("deflate;q=0.5, *", "gzip"),
        ("br, *;q=0.5, deflate;q=0.4", "gzip"),
        # as it is, if the client prefers that
        ("identity", None),
        ("identity, gzip", "gzip"),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.5, gzip;q=0.5", "gzip"),
        ("identity;q=0.5, gzip", "gzip"),
        ("identity;q=0", None),
        ("identity;q=0, gzip;q=0.1", "gzip"),
        # no weights
        ("gzip;q=2", None),
        ("gzip;q=-1", None),
        ("gzip;q=0.1234", None),
        ("gzip;q=", None),
        ("gzip;q=nan, deflate;q=0.1", "deflate"),
        ("gzip;q=٠", None),
        ("gzip;level=9", None),
        # no lists
        (",,gzip,,", "gzip"),
        ("gzip deflate", None),
        (";q=1", None),
    ],
)
def test_coding_is_what_the_client_accepts(accepted: str, coding: str | None) -> None:
    assert negotiate(accepted) == coding


@given(st.dictionaries(st.sampled_from([*CODINGS, "identity", "*", "br"]), st.integers(0, 1000)), st.randoms())
def test_no_coding_with_a_greater_weight_is_passed_over(thousandths: dict[str, int], order: random.Random) -> None:
    elements = [f"{name};q={weight / 1000:.3f}" for name, weight in thousandths.items()]
    order.shuffle(elements)

    def weight_of(coding: str) -> int:
        return thousandths.get(coding, thousandths.get("*", 0))

    chosen = negotiate(", ".join(elements))
    best = max(weight_of(coding) for coding in CODINGS)
    if chosen is None:
        assert best == 0 or best < thousandths["identity"]
    else:
        assert weight_of(chosen) == best > 0
        assert best >= thousandths.get("identity", 0)


@given(st.text() | st.text(alphabet="gzipdeflate*;q=01., "))
def test_any_header_leads_to_a_coding_or_to_none(accepted: str) -> None:
    assert negotiate(accepted) in (None, *CODINGS)


# The options


@pytest.mark.parametrize(
    ("option", "meaning"),
    [
        (True, HttpCompression(threshold=1024, level=6)),
        (False, None),
        (None, None),
        (HttpCompression(threshold=5), HttpCompression(threshold=5, level=6)),
    ],
)
def test_option_is_a_bool_or_the_details(option: Any, meaning: HttpCompression | None) -> None:
    assert Engine(http_compression=option).config.http_compression == meaning
    assert Engine().config.http_compression == HttpCompression()


@pytest.mark.parametrize("option", [1, "gzip", {"threshold": 5}])
def test_option_of_another_type_is_refused(option: Any) -> None:
    with pytest.raises(TypeError, match="http_compression is a bool or an HttpCompression"):
        Engine(http_compression=option)


@pytest.mark.parametrize(
    "values", [{"threshold": -1}, {"threshold": 1.5}, {"threshold": True}, {"level": 0}, {"level": 10}, {"level": "6"}]
)
def test_values_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(values))} must be"):
        HttpCompression(**values)


# Which answers


@pytest.mark.parametrize(
    ("accept", "coding"), [("gzip, deflate, br", "gzip"), ("deflate", "deflate"), ("br", None), ("gzip;q=0", None)]
)
async def test_long_answer_is_compressed_as_the_client_accepts(accept: str, coding: str | None) -> None:
    async with open_stage() as stage:
        response = await poll_for(stage, EncodedPacket.message("x" * 2000), accept=accept)
        assert response.headers.get("content-encoding") == coding
        assert response.headers["vary"] == "Accept-Encoding"
        assert decoded(response) == b"4" + b"x" * 2000
        assert response.headers["content-length"] == str(len(response.body))
        assert (len(response.body) < 100) == (coding is not None)
        assert response.headers["content-type"] == "text/plain; charset=UTF-8"
        assert response.headers["cache-control"] == "no-store"


async def test_client_that_names_no_coding_gets_none() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        await stage.session.send("x" * 2000)
        response = await stage.net.get(client.target)
        assert "content-encoding" not in response.headers
        assert response.body == b"4" + b"x" * 2000


async def test_header_on_several_lines_is_one_list() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        await stage.session.send("x" * 2000)
        lines = [("accept-encoding", "gzip;q=0.1"), ("accept-encoding", "deflate")]
        assert (await stage.net.get(client.target, lines)).headers["content-encoding"] == "deflate"


@pytest.mark.parametrize(
    ("message", "compressed"),
    [("x" * 1022, False), ("x" * 1023, True), ("é" * 511, False), ("é" * 512, True), (b"x" * 766, True)],
)
async def test_threshold_is_for_the_encoded_bytes(message: str | bytes, compressed: bool) -> None:
    async with open_stage() as stage:
        response = await poll_for(stage, EncodedPacket.message(message))
        assert ("content-encoding" in response.headers) == compressed


async def test_threshold_is_for_the_whole_answer() -> None:
    async with open_stage() as stage:
        response = await poll_for(stage, *[EncodedPacket.message("x" * 511)] * 2)
        assert response.headers["content-encoding"] == "gzip"
        assert decoded(response) == b"\x1e".join([b"4" + b"x" * 511] * 2)


async def test_threshold_of_zero_compresses_ten_bytes_and_the_handshake() -> None:
    async with open_stage(http_compression=HttpCompression(threshold=0)) as stage:
        response = await poll_for(stage, EncodedPacket.message("123456789"))
        assert response.headers["content-encoding"] == "gzip"
        assert decoded(response) == b"4123456789"
        opening = await stage.net.get(POLLING, GZIP)
        assert opening.headers["content-encoding"] == "gzip"
        assert decoded(opening).startswith(b'0{"sid":')


async def test_long_first_message_is_compressed_with_the_handshake() -> None:
    async with open_stage(initial_packet="x" * 2000) as stage:
        opening = await stage.net.get(POLLING, GZIP)
        assert opening.headers["content-encoding"] == "gzip"
        assert decoded(opening).endswith(b"\x1e4" + b"x" * 2000)


@pytest.mark.parametrize("option", [False, None])
async def test_nothing_is_compressed_when_it_is_off(option: bool | None) -> None:
    async with open_stage(http_compression=option) as stage:
        response = await poll_for(stage, EncodedPacket.message("x" * 2000))
        assert "content-encoding" not in response.headers
        assert "vary" not in response.headers


@pytest.mark.parametrize(("wishes", "compressed"), [([False], False), ([False, False], False), ([False, True], True)])
async def test_one_packet_that_may_be_compressed_is_enough(wishes: list[bool], compressed: bool) -> None:
    async with open_stage() as stage:
        response = await poll_for(stage, *[EncodedPacket.message("x" * 2000, compress) for compress in wishes])
        assert ("content-encoding" in response.headers) == compressed
        assert decoded(response) == b"\x1e".join([b"4" + b"x" * 2000] * len(wishes))


@pytest.mark.parametrize("how", ["noop", "close"])
async def test_answers_of_the_engines_own_are_not_compressed(how: str) -> None:
    async with open_stage(http_compression=HttpCompression(threshold=0)) as stage:
        client = await stage.net.polling()
        poll = await stage.net.start_get(client.target, GZIP)
        if how == "noop":
            stage.session.release_poll()
        else:
            stage.session.close(discard=True)
        response = await poll.response()
        assert "content-encoding" not in response.headers
        assert response.body == {"noop": b"6", "close": b"1"}[how]


async def test_answers_to_posts_and_refusals_are_not_compressed() -> None:
    async with open_stage(http_compression=HttpCompression(threshold=0)) as stage:
        client = await stage.net.polling()
        for response in (await client.post("4x", GZIP), await stage.net.get("?EIO=4&transport=no", GZIP)):
            assert "content-encoding" not in response.headers


async def test_listener_for_headers_sees_the_coding() -> None:
    async with open_stage() as stage:
        codings: list[str | None] = []
        stage.engine.on("headers", lambda headers, request: codings.append(headers.get("content-encoding")))
        await poll_for(stage, EncodedPacket.message("x" * 2000))
        assert codings == [None, "gzip"]


async def test_varies_with_the_origin_as_well() -> None:
    async with open_stage(cors=["https://a.example"]) as stage:
        response = await poll_for(stage, EncodedPacket.message("x" * 2000))
        assert sorted(response.headers.get_all("vary")) == ["Accept-Encoding", "Origin"]


async def test_the_smaller_the_level_the_larger_the_answer() -> None:
    words = ["lorem", "ipsum", "dolor", "sit", "amet"]
    text = " ".join(random.Random(5).choices(words, k=3000))
    sizes = []
    for level in (1, 9):
        async with open_stage(http_compression=HttpCompression(level=level)) as stage:
            response = await poll_for(stage, EncodedPacket.message(text))
            assert decoded(response) == b"4" + text.encode()
            sizes.append(len(response.body))
    assert sizes[0] > sizes[1]


# Long bodies


@given(st.integers(0, 4 * PIECE), st.sampled_from(list(CODINGS)), st.integers(1, 9))
def test_what_is_compressed_can_be_read_again(size: int, coding: str, level: int) -> None:
    async def check() -> None:
        body = noise(size)
        assert DECODE[coding](await Compressor(HttpCompression(level=level)).compress(body, coding)) == body

    run_in_virtual_time(check)


async def test_others_run_between_the_pieces_and_bodies_wait_for_each_other() -> None:
    compressor = Compressor(HttpCompression(level=1))
    ticks = 0
    done_at: list[int] = []

    async def compress() -> None:
        await compressor.compress(bytes(20 * PIECE), "gzip")
        done_at.append(ticks)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(compress)
        while len(done_at) < 3:
            await trio.lowlevel.checkpoint()
            ticks += 1
    # In one tick there is one piece, whoever's it is.
    assert done_at == [pytest.approx(expected, abs=5) for expected in (20, 40, 60)]


async def test_virtual_clock_stands_still_while_a_body_is_compressed() -> None:
    before = trio.current_time()
    await Compressor(HttpCompression()).compress(noise(20 * PIECE), "gzip")
    assert trio.current_time() == before


async def test_body_that_is_not_wanted_any_more_does_not_hold_up_the_next() -> None:
    compressor = Compressor(HttpCompression())
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(compressor.compress, bytes(100 * PIECE), "gzip")
            await trio.lowlevel.checkpoint()
            scope.cancel()
    assert gzip.decompress(await compressor.compress(bytes(2 * PIECE), "gzip")) == bytes(2 * PIECE)


async def test_client_that_leaves_while_its_answer_is_compressed_ends_its_session() -> None:
    async with open_stage() as stage:
        answers: list[Headers] = []
        client = await stage.net.polling()
        stage.engine.on("headers", lambda headers, request: answers.append(headers))
        poll = await stage.net.start_get(client.target, GZIP)
        assert stage.session.write(EncodedPacket(b"4" + bytes(200 * PIECE)))
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        await poll.drop()
        assert await stage.end() == GONE
        assert not answers


async def test_answer_arrives_though_its_session_closes_while_it_is_compressed() -> None:
    async with open_stage() as stage:
        client = await stage.net.polling()
        poll = await stage.net.start_get(client.target, GZIP)
        assert stage.session.write(EncodedPacket(b"4" + bytes(50 * PIECE)))
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        stage.session.close(discard=True)
        assert decoded(await poll.response()) == b"4" + bytes(50 * PIECE)


async def test_failure_of_zlib_is_answered_500_and_ends_the_session(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object) -> None:
        raise zlib.error("no luck")

    monkeypatch.setattr(zlib, "compressobj", fail)
    async with open_stage() as stage:
        response = await poll_for(stage, EncodedPacket.message("x" * 2000))
        assert response.status == 500
        assert await stage.end() == ("transport error", "the answer to a poll could not be compressed: no luck")
        assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_handshake_that_cannot_be_compressed_leaves_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise zlib.error("no luck")

    monkeypatch.setattr(zlib, "compressobj", fail)
    async with open_stage(initial_packet="x" * 2000) as stage:
        assert (await stage.net.get(POLLING, GZIP)).status == 500
        await settle()
        assert not stage.engine.sessions
        assert not stage.sessions


async def test_many_long_answers_at_once_all_arrive() -> None:
    async with open_stage() as stage:
        polls = []
        for number in range(10):
            client = await stage.net.polling()
            polls.append(await stage.net.start_get(client.target, GZIP))
            await stage.session.send(f"{number}" * 5 * PIECE)
        texts = [decoded(await poll.response()) for poll in polls]
        assert texts == [b"4" + f"{number}".encode() * 5 * PIECE for number in range(10)]
