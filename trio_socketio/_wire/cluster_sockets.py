"""What servers tell each other about a socket (Socket.IO, "fetchSockets").

The wire has JavaScript's units and names: milliseconds since 1970, and the text of a ``Date``. Here the fields are
those of `Handshake`, and so are the units: seconds.
"""

from __future__ import annotations

from datetime import timedelta
from math import isfinite
from typing import TYPE_CHECKING, Any

from .._errors import EncodeError, RemoteProtocolError
from .cluster_parts import read_rooms_untrusted
from .cluster_values import to_plain
from .json import MAX_DEPTH
from .msgpack import EPOCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

#: What a handshake consists of, in the order of the wire, and of which type each part is here.
_PARTS: dict[str, type] = {
    "headers": dict,
    "time": str,
    "address": str,
    "xdomain": bool,
    "secure": bool,
    "issued": float,
    "url": str,
    "query": dict,
}
#: Containers around the data of a socket in the message about it.
_ENVELOPE = 4
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def details_to_wire(
    id: str,
    handshake: Mapping[str, Any],
    rooms: Iterable[str],
    data: Any,
    on_bad_data: Callable[[EncodeError], object] = lambda _: None,
) -> dict[str, Any]:
    """The details of a socket, as other servers read them.

    Args:
        id: Its public id.
        handshake: The fields of its `Handshake`.
        rooms: The rooms it is in.
        data: Its data; None is an empty object, which it is for other servers.
        on_bad_data: Is told why the data cannot be encoded. They are an empty object, then: one socket must not keep
            all others from being found.
    """
    issued = round(handshake.get("issued", 0.0) * 1000)
    known = {**handshake, "time": javascript_date(issued), "issued": issued}
    described = {name: known.get(name, kind()) for name, kind in _PARTS.items()}
    described["auth"] = handshake.get("auth", {})
    return {"id": id, "handshake": described, "rooms": list(rooms), "data": _data_to_wire(data, on_bad_data)}


def _data_to_wire(data: Any, on_bad_data: Callable[[EncodeError], object]) -> Any:
    if data is None:
        return {}
    try:
        return to_plain(data, MAX_DEPTH - _ENVELOPE)
    except EncodeError as error:
        on_bad_data(error)
        return {}


def details_from_wire_untrusted(details: Mapping[str, Any]) -> tuple[str, dict[str, Any], frozenset[str], Any]:
    """What another server says about a socket: its id, the fields of its handshake, its rooms and its data.

    What is missing, is empty.

    Raises:
        RemoteProtocolError: Something is not of its type.
    """
    id: Any = details.get("id")
    handshake: Any = details.get("handshake")
    if type(id) is not str or not (handshake is None or type(handshake) is dict):
        raise RemoteProtocolError("invalid details of a socket")
    known = {} if handshake is None else handshake
    read = {name: _read_part_untrusted(name, kind, known.get(name)) for name, kind in _PARTS.items()}
    read["auth"] = known.get("auth", {})
    read["issued"] /= 1000
    rooms: Any = details.get("rooms")
    return id, read, frozenset(() if rooms is None else read_rooms_untrusted(rooms)), details.get("data")


def _read_part_untrusted(name: str, kind: type, value: Any) -> Any:
    if value is None:
        return kind()
    if kind is float and type(value) is int:
        return float(value)  # it has 64 bits at most
    if type(value) is not kind or (type(value) is float and not isfinite(value)):
        raise RemoteProtocolError(f"invalid {name} of a socket")
    return value


def javascript_date(milliseconds: int) -> str:
    """The text of a JavaScript ``Date`` in UTC, whatever the locale here."""
    moment = EPOCH + timedelta(milliseconds=milliseconds)
    day, month = _DAYS[moment.weekday()], _MONTHS[moment.month - 1]
    return f"{day} {month} {moment:%d} {moment.year:04} {moment:%H:%M:%S} GMT+0000 (Coordinated Universal Time)"
