"""JSON, the same on every interpreter.

There are two back ends. The plain one is written here upon the standard library, and decides what is right. orjson is a
short cut past it, ten times faster, where it is installed; what orjson refuses goes the plain way before it is refused.
So the rules are these, with either:

Encoding is compact, in UTF-8, non-ASCII as it is.

* str, int, float, bool, None, list, tuple, dict and their subclasses (a named tuple is an array) are what they look
  like. NaN and the infinities are ``null``, as in JavaScript. Integers must fit into 64 bits, signed or not.
* datetime, date and time become their ISO text, UUID its text, an enum's member its value; a dataclass is an object of
  its fields, without those whose names begin with an underscore.
* Keys that are int, float, bool or None become the text that JavaScript would make of them: 1.0 is ``"1"``.
* A lone surrogate, which has no UTF-8, is written as its escape: what a JavaScript client sent can be sent back.
* All else is given to the ``default`` hook, or refused.

Decoding accepts JSON as RFC 8259 defines it: no NaN, no infinity, not even as 1e999. An integer beyond 64 bits becomes
a float, which is what it is in JavaScript; that also keeps long digit strings from costing quadratic time.

Both directions refuse more than `MAX_DEPTH` arrays and objects inside each other, so what came in can go out again, and
nothing that walks over a value needs a deep stack.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields, is_dataclass
from datetime import date, time
from decimal import Decimal
from enum import EnumMeta
from json.encoder import encode_basestring
from math import isfinite, isinf
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from .._errors import EncodeError, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    import orjson
else:
    try:
        import orjson
    except ImportError:  # it has no wheels for other interpreters than CPython
        orjson = None

#: Arrays and objects inside each other; a little above orjson's own limit for encoding, far above what people send.
MAX_DEPTH = 256

_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1
_SURROGATE = re.compile("[\ud800-\udfff]")


def plain_dumps(value: Any, default: Callable[[Any], Any] | None = None) -> bytes:
    """Encode a value.

    Args:
        value: What to encode.
        default: Asked for a value that has no JSON form; returns one that has, or raises. Asked once for each such
            value, depth-first, in the order of the text.

    Raises:
        EncodeError: A value has no JSON form (the text names its type), an integer is beyond 64 bits, or the value is
            nested too deep, as circular data is. What ``default`` raises passes through.
    """
    return _write_text(value, lambda unknown: to_json_type(unknown, default))


def plain_loads_untrusted(text: str) -> Any:
    """Decode a JSON text.

    Raises:
        RemoteProtocolError: It is not JSON, or nested too deep; always with the text ``invalid payload``.
    """
    try:
        value = _decoder.decode(text)
    except (ValueError, RecursionError):
        raise RemoteProtocolError("invalid payload") from None
    if brackets(text) > MAX_DEPTH:
        check_depth_untrusted(value)
    return value


def orjson_dumps(value: Any, default: Callable[[Any], Any] | None = None) -> bytes:
    """`plain_dumps`, faster."""
    answered: list[tuple[Any, Any]] = []

    def convert(unknown: Any) -> Any:
        answer = to_json_type(unknown, default)
        answered.append((unknown, answer))
        return answer

    try:
        return orjson.dumps(value, convert, _ORJSON_OPTIONS)
    except orjson.JSONEncodeError as error:
        # A cause is what `convert` has raised, or, in older versions, what a lone surrogate has.
        if error.__cause__ is not None and not isinstance(error.__cause__, UnicodeEncodeError):
            raise error.__cause__ from None

    # Starting over must not ask `default` again for what it has answered already: it counts attachments. Both back ends
    # go through the value in the same order, so the answers are used up in theirs.
    answers = iter(answered)

    def convert_again(unknown: Any) -> Any:
        known, answer = next(answers, (None, None))
        return answer if known is unknown else to_json_type(unknown, default)

    return _write_text(value, convert_again)


def orjson_dumps_plain(value: Any) -> bytes | None:
    """`plain_dumps` of what is made of JSON's own types; None for all else, which is `dumps`'s to encode or refuse."""
    try:
        return orjson.dumps(value, None, _ORJSON_OPTIONS)
    except TypeError:
        return None


def orjson_loads_untrusted(text: str) -> Any:
    """`plain_loads_untrusted`, faster."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return plain_loads_untrusted(text)
    if len(text) <= 2 * MAX_DEPTH or brackets(text) <= MAX_DEPTH:
        return value
    try:
        # What can be encoded is not too deep, and to try it is 3 to 10 times faster than to look (0.1 milliseconds for
        # 60 kB in small pieces).
        orjson.dumps(value)
    except orjson.JSONEncodeError:
        check_depth_untrusted(value)
    return value


if orjson is None:
    dumps, dumps_plain, loads_untrusted = plain_dumps, None, plain_loads_untrusted
else:
    dumps, dumps_plain, loads_untrusted = orjson_dumps, orjson_dumps_plain, orjson_loads_untrusted
    # What these options keep from orjson comes to `to_json_type`, as it does in the plain back end.
    _ORJSON_OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS


def to_json_type(value: Any, default: Callable[[Any], Any] | None) -> Any:
    """One step towards JSON for a value of a type that orjson leaves to us.

    Raises:
        EncodeError: There is no such step, and no ``default``.
    """
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, tuple):
        return [*value]
    if isinstance(value, float):
        return float(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value) if field.name[0] != "_"}
    if default is not None:
        return default(value)
    raise no_json_form(value)


def no_json_form(value: Any) -> EncodeError:
    """The error for a value that cannot be encoded; for hooks to raise."""
    kind: type = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return EncodeError(f"a value of type {name} has no JSON form")


def _write_text(value: Any, convert: Callable[[Any], Any]) -> bytes:
    parts: list[str] = []
    try:
        _write(value, parts.append, convert, MAX_DEPTH)
    except RecursionError:  # a hook that answers with something new again and again, or a caller already deep
        raise EncodeError("the value is nested too deep to be encoded") from None
    return "".join(parts).encode()


def _write(value: Any, put: Callable[[str], object], convert: Callable[[Any], Any], depth_left: int) -> None:
    # The order of the questions is orjson's: a member of an enum is its value before it is a str or an int.
    if type(type(value)) is EnumMeta:
        _write(value.value, put, convert, depth_left)
    elif isinstance(value, str):
        put(_quote(value))
    elif value is None:
        put("null")
    elif isinstance(value, bool):
        put("true" if value else "false")
    elif isinstance(value, int):
        put(_integer_text(value))
    elif type(value) is float:
        put(repr(value).replace("e-0", "e-") if isfinite(value) else "null")
    elif isinstance(value, (list, dict)) or type(value) is tuple:
        if not depth_left:
            raise EncodeError(f"the value is circular, or nested deeper than {MAX_DEPTH} levels")
        _write_container(value, put, convert, depth_left - 1)
    elif type(value) is UUID:
        put(f'"{value}"')
    else:
        _write(convert(value), put, convert, depth_left)


def _write_container(value: Any, put: Callable[[str], object], convert: Callable[[Any], Any], depth_left: int) -> None:
    separator = ""
    key: Any
    item: Any
    if isinstance(value, dict):
        put("{")
        for key, item in value.items():
            put(f"{separator}{_quote(key_text(key))}:")
            _write(item, put, convert, depth_left)
            separator = ","
        put("}")
    else:
        put("[")
        for item in value:
            put(separator)
            _write(item, put, convert, depth_left)
            separator = ","
        put("]")


def _quote(text: str) -> str:
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", encode_basestring(text))


def _integer_text(value: int) -> str:
    if not _MIN_INT <= value <= _MAX_INT:
        raise EncodeError("an integer is beyond 64 bits")
    return int.__repr__(value)  # of an int's subclass too


def key_text(key: Any) -> str:
    """The text of an object's key.

    Raises:
        EncodeError: JavaScript has no key like it.
    """
    if isinstance(key, str):
        return str.__str__(key)
    if key is None:
        return "null"
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, int):
        return _integer_text(key)
    if isinstance(key, float):
        return _javascript_number(key)
    raise EncodeError(f"a key of an object is a str, or an int, float, bool or None, but not {type(key).__name__}")


def _javascript_number(value: float) -> str:
    """``String(value)`` in JavaScript: the digits are Python's, but the exponent begins at 1e21 and at 1e-7."""
    if not isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if value == 0:
        return "0"
    text = float.__repr__(value)
    if 1e-6 <= abs(value) < 1e21:
        return f"{Decimal(text):f}".removesuffix(".0")
    return text.replace("e-0", "e-")


def _parse_integer(digits: str) -> int | float:
    if len(digits) <= 20 and _MIN_INT <= (number := int(digits)) <= _MAX_INT:
        return number
    return _parse_float(digits)


def _parse_float(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise ValueError("beyond the range of a float")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_int=_parse_integer, parse_float=_parse_float, parse_constant=_refuse_constant)


def brackets(text: str) -> int:
    """A bound, and a cheap one, on how deep a text can be nested."""
    return text.count("[") + text.count("{")


def check_depth_untrusted(value: Any) -> None:
    """Check that lists and dicts are not nested deeper than `MAX_DEPTH`.

    Raises:
        RemoteProtocolError: They are.
    """
    level: list[Any] = [[value]]
    for _ in range(MAX_DEPTH + 1):
        children: list[Any] = [child for item in level for child in (item.values() if type(item) is dict else item)]
        level = [child for child in children if type(child) is list or type(child) is dict]
        if not level:
            return
    raise RemoteProtocolError("invalid payload")
