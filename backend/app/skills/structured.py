"""Structured output: a schema in, a validated object out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from app.errors import InvalidInputError

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["Schema", "check_schema", "json_schema_of", "name_of", "read_output"]

Schema: TypeAlias = "type[BaseModel] | Mapping[str, Any]"
"""What an answer has to satisfy: a Pydantic model, or a JSON schema (draft 2020-12) of an object."""


def check_schema(schema: Schema) -> None:
    """Refuse what is not a schema of an object.

    Raises:
        InvalidInputError: what it is instead, or where it is wrong.
    """
    if not isinstance(schema, Mapping):
        if not hasattr(schema, "model_json_schema"):
            raise InvalidInputError(f"schema must be a Pydantic model or a JSON schema ({schema!r} given)")
        return
    try:
        wrong = _fault_in(json.dumps(schema))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"the schema is not JSON: {error}") from None
    if wrong is not None:
        raise InvalidInputError(f"the schema is not valid at {wrong}")
    if schema.get("type") != "object":
        raise InvalidInputError(
            'the schema must be of an object ("type": "object"): put other values into a field of one'
        )


def json_schema_of(schema: Schema) -> dict[str, Any]:
    """Return a schema as JSON; that of a model is made once, and not to be changed."""
    return dict(schema) if isinstance(schema, Mapping) else _of_model(schema)


def name_of(schema: Schema) -> str:
    """Return what a schema is called: letters, digits and ``_``, at most 64."""
    title = str(schema.get("title") or "output") if isinstance(schema, Mapping) else schema.__name__
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in title)
    return plain[:64] or "output"


def read_output(content: str, schema: Schema) -> tuple[Any, str | None]:
    """Return what an answer says: an instance of the model, or JSON that satisfies the schema.

    Returns:
        The object and None, or None and why the answer is not one.
    """
    if not isinstance(schema, Mapping):
        from pydantic import ValidationError

        try:
            return schema.model_validate_json(_bare(content)), None
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "the answer"
            return None, f"{place}: {first['msg']}"
    try:
        value = json.loads(_bare(content))
    except ValueError as error:
        return None, f"the answer is not JSON: {error}"
    from jsonschema import Draft202012Validator

    wrong = next(iter(Draft202012Validator(schema).iter_errors(value)), None)
    return (value, None) if wrong is None else (None, f"{wrong.json_path}: {wrong.message}")


@lru_cache(maxsize=256)
def _of_model(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


@lru_cache(maxsize=256)
def _fault_in(schema: str) -> str | None:
    """Return where a schema is none, and why. Remembered: a config is made anew at each guard of a call."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(json.loads(schema))
    except SchemaError as error:
        return f"{error.json_path}: {error.message}"
    return None


def _bare(content: str) -> str:
    """Return JSON without the fence that models put around it where nothing but words holds them to it."""
    text = content.strip()
    if text.startswith("```") and text.endswith("```"):
        text = text.removeprefix("```").removeprefix("json").removesuffix("```")
    return text
