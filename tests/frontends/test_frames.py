"""Frames: built as the protocol says, and sorted the same however the bytes are cut."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wsproto.connection import SERVER, Connection
from wsproto.events import CloseConnection

from trio_socketio._errors import MessageTooLarge, RemoteProtocolError
from trio_socketio._wire.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    TEXT,
    FrameSorter,
    Phase,
    answer_goodbye,
    apply_mask,
    apply_mask_in_python,
    encode_frame,
)

from .wire import CLOSE_ANSWER, CLOSE_FRAME, client_frame, text_frame

if TYPE_CHECKING:
    from collections.abc import Iterable

LIMIT = 1000
PING_FRAME = client_frame(FIN | PING, b"p")
PONG_FRAME = client_frame(FIN | PONG, b"")


def sort_all(chunks: Iterable[bytes], limit: int = LIMIT) -> tuple[list[str | bytes], list[tuple[bytes, bool]], Phase]:
    """Messages; what was passed on, and whether a message was to follow; and where it ended."""
    sorter = FrameSorter(limit)
    messages: list[str | bytes] = []
    passed_on = []
    for chunk in chunks:
        sorter.feed(chunk)
        while passed := sorter.sort(messages.append):
            passed_on.append((passed, sorter.message_follows))
    return messages, passed_on, sorter.phase


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 100_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_an_encoded_frame_carries_its_payload_in_the_shortest_form(opcode: int, size: int) -> None:
    payload = b"x" * size
    frame = encode_frame(opcode, payload)
    assert frame == client_frame(FIN | opcode, payload, mask=None)
    assert len(frame) - size == (2 if size < 126 else 4 if size < 65_536 else 10)


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_masking_is_exclusive_or_byte_by_byte_and_its_own_inverse(data: bytes, mask: bytes) -> None:
    masked = apply_mask_in_python(data, mask)
    assert masked == bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
    assert apply_mask_in_python(masked, mask) == data
    assert apply_mask(data, mask) == masked


def test_masking_is_done_in_c_where_that_is_installed() -> None:
    speedups = pytest.importorskip("websockets.speedups")
    assert apply_mask is speedups.apply_mask


STREAMS = {
    "texts": [text_frame("a"), text_frame("grüße"), text_frame("")],
    "long": [text_frame("x" * 126), client_frame(FIN | BINARY, b"y" * 900)],
    "exactly the limit": [client_frame(FIN | BINARY, b"y" * LIMIT)],
    "control frames between": [PING_FRAME, text_frame("a"), PONG_FRAME, PING_FRAME, text_frame("b")],
    "fragments": [client_frame(TEXT, b"a"), PING_FRAME, client_frame(FIN, b"b"), text_frame("c")],
    "close": [text_frame("a"), CLOSE_FRAME, text_frame("b")],
}


@pytest.mark.parametrize("name", STREAMS)
def test_sorting_does_not_depend_on_how_the_bytes_are_cut(name: str) -> None:
    stream = b"".join(STREAMS[name])
    messages, passed_on, phase = sort_all([stream])
    for chunks in (
        [stream[i : i + 1] for i in range(len(stream))],
        [stream[:7], stream[7:]],
        [stream[:-1], stream[-1:]],
    ):
        again, passed_again, phase_again = sort_all(chunks)
        assert (again, phase_again) == (messages, phase)
        assert b"".join(part for part, _ in passed_again) == b"".join(part for part, _ in passed_on)


def test_whole_data_frames_are_delivered_and_nothing_is_passed_on() -> None:
    messages, passed_on, phase = sort_all([b"".join(STREAMS["texts"] + STREAMS["long"])])
    assert messages == ["a", "grüße", "", "x" * 126, b"y" * 900]
    assert passed_on == []
    assert phase is Phase.MESSAGES


def test_an_unfinished_frame_stays_behind_a_finished_one() -> None:
    messages, passed_on, _ = sort_all([text_frame("a") + text_frame("b")[:-1]])
    assert (messages, passed_on) == (["a"], [])


def test_a_run_of_control_frames_is_passed_on_as_one() -> None:
    messages, passed_on, _ = sort_all([PING_FRAME * 3 + text_frame("a") + PONG_FRAME])
    assert passed_on == [(PING_FRAME * 3, False), (PONG_FRAME, False)]
    assert messages == ["a"]


def test_fragments_are_passed_on_up_to_the_end_of_their_message() -> None:
    first, last = client_frame(TEXT, b"a"), client_frame(FIN | CONTINUATION, b"b")
    sorter = FrameSorter(LIMIT)
    messages: list[str | bytes] = []
    sorter.feed(first + PING_FRAME + last + text_frame("c"))
    assert sorter.sort(messages.append) == first + PING_FRAME + last
    assert sorter.message_follows
    assert messages == []
    assert sorter.sort(messages.append) == b""
    assert messages == ["c"]


VIOLATIONS = {
    "unmasked": client_frame(FIN | TEXT, b"a", mask=None),
    "unmasked, only its head": b"\x88\x00",
    "a reserved bit": client_frame(FIN | TEXT | 0x40, b"a"),
    "a reserved opcode": client_frame(FIN | 3, b"a"),
    "a reserved control opcode": client_frame(FIN | 11, b"a"),
    "a fragmented control frame": client_frame(PING, b"a"),
    "a long control frame": client_frame(FIN | PING, b"a" * 126),
    "two bytes of length for a short frame": client_frame(FIN | TEXT, b"a", width=2),
    "eight bytes of length for a short frame": client_frame(FIN | TEXT, b"a" * 126, width=8),
    "a negative length": b"\x82\xff" + b"\xff" * 8,
    "a continuation of nothing": client_frame(FIN | CONTINUATION, b"a"),
    "text that is no UTF-8": client_frame(FIN | TEXT, b"\xff"),
    "text with a surrogate": client_frame(FIN | TEXT, b"\xed\xa0\x80"),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_from_a_violation_on_everything_is_passed_on(name: str) -> None:
    violation = VIOLATIONS[name]
    messages, passed_on, phase = sort_all([text_frame("a") + violation + text_frame("b"), b"rest"])
    assert messages == ["a"]
    assert b"".join(part for part, _ in passed_on) == violation + text_frame("b") + b"rest"
    assert phase is Phase.VIOLATION


def test_a_message_inside_a_fragmented_one_is_a_violation() -> None:
    messages, _, phase = sort_all([client_frame(TEXT, b"a") + text_frame("b")])
    assert (messages, phase) == ([], Phase.VIOLATION)


@pytest.mark.parametrize("size", [LIMIT + 1, 70_000, 2**40])
def test_a_message_over_the_limit_is_refused_by_its_announcement(size: int) -> None:
    sorter = FrameSorter(LIMIT)
    messages: list[str | bytes] = []
    width = 2 if size < 65_536 else 8
    sorter.feed(
        text_frame("a") + bytes((FIN | BINARY, 0x80 | (126 if width == 2 else 127))) + size.to_bytes(width, "big")
    )
    with pytest.raises(MessageTooLarge, match=f"message of {size} bytes exceeds the limit of {LIMIT} bytes"):
        sorter.sort(messages.append)
    assert messages == ["a"]


def test_a_limit_below_the_short_form_holds() -> None:
    assert sort_all([text_frame("12345")], limit=5)[0] == ["12345"]
    with pytest.raises(MessageTooLarge, match="message of 6 bytes exceeds the limit of 5 bytes"):
        sort_all([text_frame("123456")], limit=5)


def test_the_fragments_of_a_message_are_limited_by_their_sum_in_bytes() -> None:
    text = "ü" * 300  # 600 bytes, but trio-websocket counts characters
    with pytest.raises(MessageTooLarge, match="message of 1200 bytes"):
        sort_all([client_frame(TEXT, text.encode()) + client_frame(FIN, text.encode())])


def test_the_number_of_fragments_is_limited() -> None:
    flood = client_frame(TEXT, b"") + client_frame(CONTINUATION, b"") * 10_000
    with pytest.raises(RemoteProtocolError, match="message of more than 143 fragments"):
        sort_all([flood])


def test_after_our_close_only_the_answer_is_passed_on() -> None:
    sorter = FrameSorter(LIMIT)
    sorter.feed(text_frame("a")[:3])
    assert sorter.sort(lambda message: None) == b""
    sorter.end()
    assert sorter.rest() == b""
    sorter.feed(text_frame("a")[3:] + PING_FRAME + client_frame(FIN | BINARY, b"x" * 5000)[:2000])
    assert sorter.rest() == b""
    sorter.feed(client_frame(FIN | BINARY, b"x" * 5000)[2000:] + CLOSE_FRAME[:3])
    assert sorter.rest() == b""
    sorter.feed(CLOSE_FRAME[3:] + b"after")
    assert sorter.rest() == CLOSE_FRAME + b"after"
    assert sorter.phase is Phase.PEER_CLOSE


def test_a_violation_after_our_close_is_passed_on() -> None:
    sorter = FrameSorter(LIMIT)
    sorter.end()
    sorter.feed(PING_FRAME + b"\x00\x00")
    assert sorter.rest() == b"\x00\x00"
    assert sorter.phase is Phase.VIOLATION


def test_a_large_frame_in_small_pieces_takes_linear_time() -> None:
    def seconds(size: int) -> float:
        frame = client_frame(FIN | BINARY, bytes(size))
        begin = time.perf_counter()
        messages, _, _ = sort_all((frame[i : i + 1000] for i in range(0, len(frame), 1000)), limit=size)
        assert len(messages) == 1
        return time.perf_counter() - begin

    small, large = min(seconds(1_000_000) for _ in range(3)), min(seconds(8_000_000) for _ in range(3))
    assert large < 40 * small  # quadratic would be 64 times


def close_frames(payload: bytes) -> bytes:
    return client_frame(FIN | CLOSE, payload)


@given(st.one_of(st.binary(max_size=4), st.integers(0, 5000).map(lambda code: code.to_bytes(2, "big"))))
@example(b"")
@example((1001).to_bytes(2, "big"))
def test_a_goodbye_is_answered_as_the_protocol_answers_it(payload: bytes) -> None:
    answer = answer_goodbye(close_frames(payload))
    if answer is not None:
        protocol = Connection(SERVER)
        protocol.receive_data(close_frames(payload))
        (event,) = protocol.events()
        assert isinstance(event, CloseConnection)
        assert answer == protocol.send(event.response())


def test_only_those_who_leave_and_say_nothing_else_are_answered_at_once() -> None:
    assert answer_goodbye(CLOSE_FRAME) == CLOSE_ANSWER
    assert answer_goodbye(close_frames(b"")) == encode_frame(CLOSE, b"")
    assert answer_goodbye(close_frames((1001).to_bytes(2, "big"))) is not None
    for other in (
        b"",
        CLOSE_FRAME[:-1],
        CLOSE_FRAME + b"x",
        client_frame(FIN | PING, b""),
        client_frame(FIN | CLOSE, b"\x03\xe8", mask=None),
        close_frames(b"\x03"),
        close_frames((1002).to_bytes(2, "big")),
        close_frames(b"\x03\xe8why"),
    ):
        assert answer_goodbye(other) is None
