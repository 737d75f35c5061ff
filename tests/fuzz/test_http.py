"""Requests through the recogniser of ordinary ones next to h11, and frames through the sorter next to wsproto."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_socketio._errors import RemoteProtocolError
from trio_socketio._frontends.plain import recognise
from trio_socketio._wire.frames import FrameSorter

from ..frontends.test_lane import LIMIT, mutated_streams, what_precedes_a_violation
from ..frontends.test_plain import DOUBTFUL, LIMITS, ORDINARY, check_against_h11, requests
from .damage import damaged

pytestmark = pytest.mark.fuzz

pieces = st.binary(max_size=2) | st.sampled_from(
    [
        *(b"\r\n", b"\r", b"\n", b" ", b"\t", b":", b",", b";", b"\0", b"\x7f", b"\x80", b"\x0b", b"\x0c", b"\x85"),
        *(b"Content-Length: 1\r\n", b"Content-Length: 0_1\r\n", b"content-length:1\r\n", b"Content-Length: \xb2\r\n"),
        *(
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: x, close\r\n",
            b"Connection: keep-alive\r\n",
            b"Host: b\r\n",
        ),
        *(b"Expect: 100-continue\r\n", b"HTTP/1.1", b"HTTP/1.10", b"GET /", b"POST * ", b"\r\n\r\n", b"0\r\n\r\n"),
    ]
)
known = st.sampled_from([*ORDINARY.values(), *(data for data in DOUBTFUL.values() if len(data) < 1000)])


@given(st.lists(known | requests, min_size=1, max_size=2).map(b"".join), st.data())
def test_what_is_recognised_h11_reads_the_same_and_no_part_of_it_is_a_request(
    whole: bytes, data: st.DataObject
) -> None:
    request = data.draw(damaged(st.just(whole), pieces))
    if not check_against_h11(request):
        return
    recognised = recognise(request, LIMITS)
    assert recognised is not None
    assert recognise(request[: recognised.end], LIMITS) is not None
    assert recognise(request[: data.draw(st.integers(0, recognised.end - 1))], LIMITS) is None


@given(mutated_streams(), st.lists(st.integers(0, 10_000), max_size=12))
def test_what_is_sorted_is_what_the_protocol_sees(stream: bytes, places: list[int]) -> None:
    """The law of the lane without Trio: messages that are taken out, and those in what is passed on, are all of them.

    What is passed on comes in whole frames, so that a message is complete when its last frame has been passed on.
    """
    cuts = sorted(place % (len(stream) + 1) for place in places)
    sorter = FrameSorter(LIMIT)
    messages: list[str | bytes] = []
    with suppress(RemoteProtocolError):
        sort_all(sorter, [stream[start:end] for start, end in pairwise([0, *cuts, len(stream)])], messages)
    assert messages == what_precedes_a_violation(stream)


def sort_all(sorter: FrameSorter, chunks: list[bytes], messages: list[str | bytes]) -> None:
    passed_on = b""
    came_back = 0
    for chunk in chunks:
        sorter.feed(chunk)
        while passed := sorter.sort(messages.append):
            passed_on += passed
            if sorter.message_follows:
                found = what_precedes_a_violation(passed_on)[came_back:]
                if not found:
                    return  # fragments of what was no text after all
                messages += found
                came_back += 1
