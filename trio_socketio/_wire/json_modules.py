"""JSON by another module: ``json`` of the standard library, or one that is used like it (simplejson, orjson).

Such a module has ``dumps(value, default=...)``, which gives text or bytes, and ``loads(text)``, which raises a
`ValueError` for what is not JSON. What they do about NaN and the infinities, which JSON does not have and for which a
JavaScript client would end its connection, is found out once, when the module is given:

* Some never write or read them. They are left to do that in their way: orjson writes ``null``.
* Some have to be told, as the standard library's: then NaN is an `EncodeError` at the emit, and from a client an
  invalid payload.
* A module that cannot be told either is refused.

Everything else about numbers and texts is the module's: how large an integer may be, what becomes of 1e999, the keys of
objects. Of the types without a JSON form those that the module ``json`` next to this one knows have the same form here;
and nothing is nested deeper than `MAX_DEPTH`, once it has been decoded.
"""

from __future__ import annotations

from abc import abstractmethod
from enum import Enum
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast
from uuid import UUID

from .._errors import EncodeError
from .json import MAX_DEPTH, brackets, check_depth_untrusted, to_json_type

if TYPE_CHECKING:
    from collections.abc import Callable

    from .parser import JSONCodec

_NAN = float("nan")


class JSONModule(Protocol):
    """What is used like the module ``json`` of the standard library."""

    @property
    @abstractmethod
    def dumps(self) -> Callable[..., str | bytes]:
        """Called with a value and ``default``; raises `TypeError` or `ValueError` for what it cannot encode."""

    @property
    @abstractmethod
    def loads(self) -> Callable[..., Any]:
        """Called with a text; raises `ValueError` for what is not JSON."""


def as_codec(json: JSONCodec | JSONModule) -> JSONCodec:
    """The codec of a module, or the codec itself.

    Raises:
        TypeError: It is neither, or a module that writes or reads NaN whatever it is told.
    """
    if callable(getattr(json, "dumps", None)):
        if callable(getattr(json, "loads_untrusted", None)):
            return cast("JSONCodec", json)
        if callable(getattr(json, "loads", None)):
            return ModuleCodec(cast("JSONModule", json))
    raise TypeError(f"json is a module with dumps and loads, or a JSONCodec; {json!r} is neither")


class ModuleCodec:
    """The `JSONCodec` of a module.

    Args:
        module: The module, or an object like it.

    Raises:
        TypeError: It does not take ``default``, or writes or reads NaN whatever it is told.
    """

    def __init__(self, module: JSONModule) -> None:
        self._dumps, self._loads = module.dumps, module.loads
        self._dumps_options = _first_that_works(_DUMPS_OPTIONS, self._writes_json, module)
        self._loads_options = _first_that_works(_LOADS_OPTIONS, self._reads_json, module)

    def dumps(self, value: Any, default: Callable[[Any], Any] | None = None) -> bytes:
        def convert(unknown: Any) -> Any:
            if isinstance(unknown, Enum):
                return unknown.value
            return str(unknown) if isinstance(unknown, UUID) else to_json_type(unknown, default)

        try:
            text = self._dumps(value, default=convert, **self._dumps_options)
        except EncodeError:
            raise
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            if isinstance(error.__cause__, EncodeError):  # orjson puts an error of its own before that of the hook
                raise error.__cause__ from None
            raise EncodeError(str(error)) from error
        return text.encode() if isinstance(text, str) else bytes(text)

    def loads_untrusted(self, text: str) -> Any:
        value = self._loads(text, **self._loads_options)
        if brackets(text) > MAX_DEPTH:
            check_depth_untrusted(value)
        return value

    def _writes_json(self, options: dict[str, Any]) -> bool:
        if self._dumps([1], default=_refuse, **options) not in ("[1]", b"[1]"):
            return False
        try:
            return self._dumps(_NAN, default=_refuse, **options) in ("null", b"null")
        except (ValueError, OverflowError):
            return True

    def _reads_json(self, options: dict[str, Any]) -> bool:
        if self._loads("[1]", **options) != [1]:
            return False
        try:
            self._loads("[NaN]", **options)
        except ValueError:
            return True
        return False


def _refuse(what: object) -> NoReturn:
    raise ValueError(f"{what!r} is not JSON")


#: What a module is told, if it takes it: compact, and no NaN.
_DUMPS_OPTIONS: tuple[dict[str, Any], ...] = ({"allow_nan": False, "separators": (",", ":")}, {"allow_nan": False}, {})
_LOADS_OPTIONS: tuple[dict[str, Any], ...] = ({}, {"parse_constant": _refuse})


def _first_that_works(
    candidates: tuple[dict[str, Any], ...], works: Callable[[dict[str, Any]], bool], module: JSONModule
) -> dict[str, Any]:
    for options in candidates:
        try:
            if works(options):
                return options
        except TypeError:  # it does not take these
            continue
    raise TypeError(f"{module!r} cannot be used for JSON: it takes no default=, or writes or reads NaN")
