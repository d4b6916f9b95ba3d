"""How the values of a workflow become JSON, are told apart by a fingerprint, and become values again.

A step gives the same value when it runs and when it is replayed: both times what its function returned is turned into
JSON, and from there into the type that the function declares.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Callable, Sequence
from enum import Enum
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

from app.errors import StateNotStorableError, WorkflowDefinitionError
from app.stores.checkpoint.codec import MAX_DEPTH, JsonValue, canonical_json

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["annotation_of", "fingerprint", "plain_function", "restore", "to_json"]

_UNTYPED: Final = (Any, object, None, type(None))
_AS_THEY_ARE: Final = (str, int, float, bool)
_ENCODER: Final = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def to_json(value: object, *, what: str, path: str = "$", depth: int = 0) -> JsonValue:
    """Return a value as JSON: containers, dataclasses and Pydantic models recursively, a set in sorted order, dates,
    decimals, UUIDs, paths, bytes (UTF-8) and enums by their usual text.

    Args:
        value: the value.
        what: its name in an error.
        path: where it is inside of what the caller passed.
        depth: how deep that is.

    Raises:
        StateNotStorableError: it holds something that JSON cannot say, a secret, or is nested too deeply.
    """
    if depth > MAX_DEPTH:
        raise StateNotStorableError(f"{what} is nested more than {MAX_DEPTH} deep (does it contain itself?)")
    if value is None or type(value) in {str, int, float, bool}:
        return typing.cast("JsonValue", value)
    if isinstance(value, Enum):
        return to_json(value.value, what=what, path=path, depth=depth + 1)
    for kind in (str, int, float):
        if isinstance(value, kind):
            return typing.cast("JsonValue", kind(value))
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise StateNotStorableError(f"{what} has a key that is not a str at {path}: {key!r:.60}")
        return {
            str(key): to_json(item, what=what, path=f"{path}.{key:.40}", depth=depth + 1) for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [to_json(item, what=what, path=f"{path}[{n}]", depth=depth + 1) for n, item in enumerate(value)]
    if isinstance(value, set | frozenset):
        # The order of a set of strings differs between processes; a fingerprint must not.
        return sorted((to_json(item, what=what, path=f"{path}{{}}", depth=depth + 1) for item in value), key=_sort_key)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        return to_json(parts, what=what, path=path, depth=depth + 1)
    return _foreign(value, what=what, path=path, depth=depth)


def fingerprint(*values: object, what: str) -> str:
    """Return SHA-256 of values as canonical JSON, in hex: equal for equal values in every process.

    Lists and dicts are hashed piece by piece: however large they are, no second copy of them is made.

    Raises:
        StateNotStorableError: as for :func:`to_json`.
    """
    digest = hashlib.sha256(b"nova-input-1\n")
    inputs = [to_json(value, what=what) for value in values]
    # Most inputs are a few names and numbers; whole is three times as quick as piece by piece.
    whole = all(not isinstance(value, dict | list) for value in inputs)
    try:
        for piece in [_ENCODER.encode(inputs)] if whole else _ENCODER.iterencode(inputs):
            digest.update(piece.encode())
    except UnicodeEncodeError:
        raise StateNotStorableError(f"{what} has text that is not valid Unicode (a lone surrogate)") from None
    except ValueError:
        raise StateNotStorableError(f"{what} has a NaN or infinity, which JSON cannot express") from None
    return digest.hexdigest()


def restore(annotation: object, value: JsonValue, *, what: str) -> Any:
    """Return a recorded value as the type ``annotation``; without a type (or with None or Any) it stays JSON.

    Raises:
        WorkflowDefinitionError: the value does not fit the type, or the type is none that JSON can be turned into.
    """
    if annotation in _UNTYPED or (annotation in _AS_THEY_ARE and type(value) is annotation):
        return value
    from pydantic import PydanticUserError, ValidationError

    try:
        # By way of JSON text, not of Python objects: strict models take a tuple or a date from JSON only.
        return _adapter(annotation).validate_json(canonical_json(value, what=what))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the value itself"
        raise WorkflowDefinitionError(
            f"{what} cannot be turned back into {_name(annotation)} ({place}: {first['msg']}). "
            "Return what the annotation says, and a type that JSON can express"
        ) from None
    except PydanticUserError as error:
        raise WorkflowDefinitionError(f"{what}: {_name(annotation)} is not a type that JSON can express") from error


def annotation_of(function: Callable[..., object], name: str) -> object:
    """Return the annotation of a parameter, or of ``return``; None where there is none.

    Raises:
        WorkflowDefinitionError: it names something that cannot be found from the function's module.
    """
    plain = plain_function(function)
    annotations: dict[str, object] = getattr(plain, "__annotations__", {})
    if name not in annotations:
        return None
    holder = types.SimpleNamespace(__annotations__={name: annotations[name]})
    try:
        return typing.get_type_hints(holder, plain.__globals__, _closure(plain), include_extras=True)[name]
    except NameError as error:
        raise WorkflowDefinitionError(
            f"the annotation of {name!r} in {plain.__qualname__!r} cannot be resolved: {error}. "
            "Import or define the type at the top of the module"
        ) from error


def plain_function(function: Callable[..., object]) -> types.FunctionType:
    """Return the function inside of a partial, a bound method or a callable object.

    Raises:
        WorkflowDefinitionError: there is none, as for a builtin.
    """
    inner: Any = function
    while True:
        if isinstance(inner, types.FunctionType):
            wrapped = getattr(inner, "__wrapped__", None)
            if wrapped is None:
                return inner
            inner = wrapped
        elif isinstance(inner, partial):
            inner = inner.func
        elif isinstance(inner, types.MethodType):
            inner = inner.__func__
        elif isinstance(getattr(type(inner), "__call__", None), types.FunctionType):  # noqa: B004 - the method itself
            inner = type(inner).__call__
        else:
            raise WorkflowDefinitionError(f"{function!r} is not an async function: write `async def`")


def _closure(function: types.FunctionType) -> dict[str, object]:
    """Return the variables of the functions around it that have a value by now."""
    known: dict[str, object] = {}
    for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            known[variable] = cell.cell_contents
        except ValueError:
            continue  # assigned later than this
    return known


def _foreign(value: object, *, what: str, path: str, depth: int) -> JsonValue:
    """Handle what only Pydantic knows: its models, and the leaves of the standard library."""
    from pydantic import BaseModel, SecretBytes, SecretStr
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    if isinstance(value, SecretStr | SecretBytes):
        raise StateNotStorableError(
            f"{what} has a secret at {path}; secrets are not recorded, read them where they are used"
        )
    if isinstance(value, BaseModel):
        parts = value.model_dump(mode="python", by_alias=True, round_trip=True)
        return to_json(parts, what=what, path=path, depth=depth + 1)
    if not isinstance(value, Sequence | bytes | type) and not callable(value):
        try:
            leaf = to_jsonable_python(value)
        except PydanticSerializationError:
            leaf = value
        if isinstance(leaf, str | int | float):
            return leaf
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    raise StateNotStorableError(
        f"{what} has a {type(value).__name__} at {path}, which is not JSON. Use dicts, lists, strings, numbers, "
        "booleans, None, dataclasses or Pydantic models"
    )


@lru_cache(maxsize=256)
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(annotation)


def _sort_key(value: JsonValue) -> str:
    return json.dumps(value, sort_keys=True)


def _name(annotation: object) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
