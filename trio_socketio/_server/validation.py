"""Arguments of events, decoded into what a handler's annotations say: msgspec structs and pydantic models.

Neither library is a dependency, and neither is imported here: a class of theirs can only stand in an annotation if
somebody has imported its library already. All that is asked of annotations is asked once, at registration; what is left
for an event is to call a decoder for each argument that has one.
"""

from __future__ import annotations

import inspect
import re
import sys
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeAlias, get_args, get_type_hints

from .._errors import EventValidationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._listeners import Listener

Decode: TypeAlias = "Callable[[Any], Any]"

#: Annotations without a model in them: most handlers have no others. To find that out here and not by resolving them
#: saves 30 to 150 us of a registration, and many are registered anew for every socket.
_PLAIN = frozenset((bool, bytes, dict, float, int, list, object, str))
_PLAIN_NAMES = frozenset(("Any", "None", *(plain.__name__ for plain in _PLAIN)))
_NAME = re.compile(r"[^\W\d]\w*")


def argument_decoder(listener: Listener) -> Callable[[Sequence[Any]], Sequence[Any]] | None:
    """What decodes the arguments of a handler, or None if it has no annotation with a model in it.

    Raises:
        TypeError: An annotation cannot be resolved, or its library cannot decode into it.
    """
    if _has_only_plain_annotations(listener.fn):
        return None
    parameters = _positional(listener)
    decoders = [_decoder_of(listener, parameter) for parameter in parameters]
    if not any(decoders):
        return None
    rest = decoders.pop() if parameters[-1].kind is inspect.Parameter.VAR_POSITIONAL else None
    return partial(_decode, tuple(decoders), rest)


def _decode(decoders: Sequence[Decode | None], rest: Decode | None, args: Sequence[Any]) -> list[Any]:
    decoded = list(args)
    for index, arg in enumerate(args):
        decode = decoders[index] if index < len(decoders) else rest
        if decode is not None:
            try:
                decoded[index] = decode(arg)
            except _Invalid as error:
                raise EventValidationError(index, str(error)) from error.__cause__
    return decoded


class _Invalid(Exception):
    """What a library has found wrong with an argument."""


def _positional(listener: Listener) -> list[inspect.Parameter]:
    """The parameters that the arguments of an event go to."""
    try:
        parameters = inspect.signature(listener.fn).parameters.values()
    except (ValueError, TypeError):  # some builtins have no signature
        return []
    kinds = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    )
    positional = [parameter for parameter in parameters if parameter.kind in kinds]
    takes_socket = listener.bound and positional[0].kind is not inspect.Parameter.VAR_POSITIONAL
    return positional[1:] if takes_socket else positional


def _decoder_of(listener: Listener, parameter: inspect.Parameter) -> Decode | None:
    annotation = parameter.annotation
    if annotation is parameter.empty or _is_plain(annotation):
        return None
    where = f"parameter {parameter.name!r} of {listener.name}"
    try:
        annotation = _resolve(annotation, listener.fn)
    except Exception as error:
        raise TypeError(f"{where}: its annotation {annotation!r} cannot be resolved here: {error}") from error
    models = set(_libraries_in(annotation))
    if len(models) > 1:
        raise TypeError(f"{where}: one annotation cannot have both msgspec structs and pydantic models in it")
    try:
        return models.pop()(annotation) if models else None
    except Exception as error:
        raise TypeError(f"{where}: {annotation!r} cannot be decoded: {error}") from error


def _has_only_plain_annotations(fn: Any) -> bool:
    if not isinstance(fn, FunctionType) or hasattr(fn, "__wrapped__"):
        return False
    try:
        annotations = fn.__annotations__
    except NameError:  # since Python 3.14 they are evaluated when they are read
        return False
    return all(name == "return" or _is_plain(annotation) for name, annotation in annotations.items())


def _is_plain(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return _PLAIN_NAMES.issuperset(_NAME.findall(annotation))
    return isinstance(annotation, type) and annotation in _PLAIN


def _resolve(annotation: Any, fn: Any) -> Any:
    """An annotation that may be text, or have text in it.

    Alone, not with the others of its function: that of the socket, or of the result, is often imported for type
    checkers only, and does not matter.
    """
    while isinstance(fn, partial):
        fn = fn.func
    fn = fn if hasattr(fn, "__globals__") or hasattr(fn, "__func__") else type(fn).__call__
    fn = inspect.unwrap(getattr(fn, "__func__", fn))

    def stand_in() -> None: ...

    stand_in.__annotations__ = {"it": annotation}
    return get_type_hints(stand_in, getattr(fn, "__globals__", None), include_extras=True)["it"]


def _libraries_in(annotation: Any) -> list[Callable[[Any], Decode]]:
    """For each model in an annotation, what makes a decoder of its library's."""
    if isinstance(annotation, type) and not get_args(annotation):
        for module, base, make in (
            ("msgspec", "Struct", _msgspec_decoder),
            ("pydantic.main", "BaseModel", _pydantic_decoder),
        ):
            if issubclass(annotation, getattr(sys.modules.get(module), base, ())):
                return [make]
        return []
    # The origin too: of a generic struct, and of what is `Annotated`.
    parts = (getattr(annotation, "__origin__", None), *get_args(annotation))
    return [make for part in parts if part is not None for make in _libraries_in(part)]


def _msgspec_decoder(annotation: Any) -> Decode:
    msgspec: Any = sys.modules["msgspec"]
    msgspec.json.Decoder(annotation)  # says now what `convert` would say at the first event

    def decode(value: Any) -> Any:
        try:
            return msgspec.convert(value, annotation)
        except msgspec.ValidationError as error:
            raise _Invalid(str(error)) from error

    return decode


def _pydantic_decoder(annotation: Any) -> Decode:
    pydantic: Any = sys.modules["pydantic"]
    validate = pydantic.TypeAdapter(annotation).validate_python

    def decode(value: Any) -> Any:
        try:
            return validate(value)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
            raise _Invalid(f"{first['msg']} - at `${path}`") from error

    return decode
