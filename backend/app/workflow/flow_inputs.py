"""The inputs of a flow: what a command line or a program gives, as the types that the flow declares."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from app.errors import InvalidInputError
from app.workflow.documents import Document, read_documents
from app.workflow.flow_model import FlowInput

__all__ = ["annotation_of_input", "typed_input"]


def annotation_of_input(says: FlowInput) -> object:
    """Return the Python type of an input."""
    types: dict[str, Any] = {
        "documents": list[Document],
        "string": str,
        "integer": int,
        "number": float,
        "boolean": bool,
    }
    optional = "default" in says.model_fields_set and says.default is None
    return types[says.type] | None if optional else types[says.type]


def typed_input(name: str, says: FlowInput, value: object, *, base: Path) -> object:
    """Return a value as the input's type; documents are read, from a path that is relative to ``base``.

    Raises:
        InvalidInputError: the value is none of that type, or a path that is blank; names the input.
        DocumentError: a document cannot be read.
    """
    if says.type == "documents":
        if isinstance(value, str | Path):
            return read_documents(_path(name, value, base))
        if isinstance(value, list) and value and all(isinstance(each, Document) for each in value):
            return value
        raise InvalidInputError(f"the input {name!r} must be the path of a text file or a folder of them")
    if says.type == "string" and isinstance(value, str):
        return value
    if says.type == "boolean":
        words: dict[object, bool] = {True: True, False: False, "true": True, "yes": True, "false": False, "no": False}
        known = value.lower() if isinstance(value, str) else value
        if isinstance(known, str | bool) and known in words:
            return words[known]
    elif says.type in {"integer", "number"} and not isinstance(value, bool):
        try:
            number = float(value) if isinstance(value, str | int | float) else None
            if number is not None and math.isfinite(number):
                return int(str(value)) if says.type == "integer" else number
        except (ValueError, OverflowError):
            pass
    kinds = {"string": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false"}
    raise InvalidInputError(f"the input {name!r} must be {kinds[says.type]} ({value!r:.60} given)")


def _path(name: str, value: str | Path, base: Path) -> Path:
    if not str(value).strip() or "\0" in str(value):
        # An empty path would mean the current folder, and read whatever lies there.
        raise InvalidInputError(f"the input {name!r} must be a path ({str(value)!r:.60} given); '.' is this folder")
    try:
        return base / Path(value).expanduser()
    except RuntimeError as error:
        raise InvalidInputError(f"the input {name!r} is {str(value)!r:.200}: {error}; write the path out") from None
