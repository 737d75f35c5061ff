"""The details of sockets, as servers tell them each other."""

from __future__ import annotations

import math
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_socketio import EncodeError, RemoteProtocolError
from trio_socketio._wire.cluster import Message, MessageType
from trio_socketio._wire.cluster_classic import ClassicCodec
from trio_socketio._wire.cluster_newer import ClusterCodec
from trio_socketio._wire.cluster_sockets import details_from_wire_untrusted, details_to_wire, javascript_date

HANDSHAKE: dict[str, Any] = {
    "headers": {"host": "127.0.0.1:40955"},
    "query": {"EIO": "4", "transport": "websocket"},
    "auth": {"token": "abc"},
    "url": "/socket.io/?EIO=4&transport=websocket",
    "address": "127.0.0.1",
    "secure": True,
    "xdomain": False,
    "issued": 1795339819.523,
    "time": "Sun, 22 Nov 2026 09:30:19 GMT",
}


def test_the_wire_has_the_units_and_names_of_javascript() -> None:
    details = details_to_wire("id", HANDSHAKE, frozenset({"id"}), {"user": "bob"})
    assert details == {
        "id": "id",
        "handshake": {
            **HANDSHAKE,
            "issued": 1795339819523,
            "time": "Sun Nov 22 2026 09:30:19 GMT+0000 (Coordinated Universal Time)",
        },
        "rooms": ["id"],
        "data": {"user": "bob"},
    }


def test_details_come_back() -> None:
    wire = details_to_wire("id", HANDSHAKE, ["id", "room"], {"user": "bob"})
    id, handshake, rooms, data = details_from_wire_untrusted(wire)
    assert id == "id"
    assert handshake == {**HANDSHAKE, "time": wire["handshake"]["time"]}
    assert rooms == {"id", "room"}
    assert data == {"user": "bob"}


def test_what_is_missing_is_empty() -> None:
    for details in ({"id": "id"}, {"id": "id", "handshake": None, "rooms": None}, {"id": "id", "handshake": {}}):
        id, handshake, rooms, data = details_from_wire_untrusted(details)
        assert (id, rooms, data) == ("id", frozenset(), None)
        assert handshake["headers"] == handshake["query"] == handshake["auth"] == {}
        assert handshake["issued"] == 0.0
        assert handshake["secure"] is handshake["xdomain"] is False
    empty = details_to_wire("id", {}, [], None)
    assert empty["data"] == {}
    assert empty["handshake"]["time"] == "Thu Jan 01 1970 00:00:00 GMT+0000 (Coordinated Universal Time)"


def test_no_auth_is_no_auth() -> None:
    wire = details_to_wire("id", {**HANDSHAKE, "auth": None}, [], {})
    assert details_from_wire_untrusted(wire)[1]["auth"] is None


@pytest.mark.parametrize("data", [object(), {"a": {1, 2}}, {"a": [10**400]}, math.sin])
def test_data_that_cannot_be_encoded_are_left_out_and_reported(data: Any) -> None:
    errors: list[EncodeError] = []
    assert details_to_wire("id", {}, [], data, errors.append)["data"] == {}
    assert len(errors) == 1
    assert details_to_wire("id", {}, [], data)["data"] == {}


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize("depth", [252, 253, 1000])
def test_data_that_are_not_left_out_can_be_sent(depth: int) -> None:
    errors: list[EncodeError] = []
    details = details_to_wire("id", HANDSHAKE, ["id"], nested(depth), errors.append)
    assert bool(errors) == (depth > 252)
    message = Message(MessageType.FETCH_SOCKETS_RESPONSE, "uid", "/", [details], request_id="r")
    newer, classic = ClusterCodec(), ClassicCodec()
    assert newer.decode_untrusted(newer.encode(message)) == message
    assert newer.decode_untrusted(newer.pack(message)) == message
    assert classic.decode_response_untrusted(classic.encode(message)) == message


@pytest.mark.parametrize(
    "details",
    [
        {},
        {"id": 1},
        {"id": "id", "handshake": []},
        {"id": "id", "rooms": "room"},
        {"id": "id", "rooms": [None]},
        {"id": "id", "handshake": {"headers": []}},
        {"id": "id", "handshake": {"query": "a=b"}},
        {"id": "id", "handshake": {"url": 1}},
        {"id": "id", "handshake": {"secure": 1}},
        {"id": "id", "handshake": {"issued": True}},
        {"id": "id", "handshake": {"issued": "1"}},
        {"id": "id", "handshake": {"issued": math.inf}},
        {"id": "id", "handshake": {"issued": math.nan}},
    ],
    ids=str,
)
def test_details_of_wrong_types_are_refused(details: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        details_from_wire_untrusted(details)


@given(
    st.dictionaries(
        st.sampled_from(["id", "handshake", "rooms", "data"]),
        st.none() | st.text() | st.integers(-(2**63), 2**64 - 1) | st.lists(st.text() | st.integers()),
    )
    | st.fixed_dictionaries(
        {
            "id": st.text(),
            "handshake": st.dictionaries(
                st.sampled_from(["headers", "issued", "url", "auth", "secure", "time"]),
                st.none() | st.text() | st.floats() | st.booleans() | st.dictionaries(st.text(), st.text()),
            ),
        }
    )
)
def test_odd_details_are_no_surprise(details: dict[str, Any]) -> None:
    try:
        id, handshake, rooms, _ = details_from_wire_untrusted(details)
    except RemoteProtocolError:
        return
    assert type(id) is str
    assert type(handshake["headers"]) is type(handshake["query"]) is dict
    assert math.isfinite(handshake["issued"])
    assert all(type(room) is str for room in rooms)


def test_dates_are_those_of_javascript(node: str) -> None:
    moments = [0, 951782400_000, 1709164800_000, 1795339819_999, 4102444799_000]
    script = f"for (const moment of {moments}) console.log(new Date(moment).toString())"
    environment = {"TZ": "UTC", "LC_ALL": "C"}
    result = subprocess.run(
        [node, "-e", script], env=environment, capture_output=True, text=True, timeout=30, check=True
    )
    assert result.stdout.splitlines() == [javascript_date(moment) for moment in moments]
