"""What both wire formats share: reading JSON that may be anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from app.skills.llm_invoke_v2 import ToolUseBlock

__all__ = [
    "ErrorEventError",
    "UnreadableAnswerError",
    "adds_up",
    "count_of",
    "mapping_of",
    "sequence_of",
    "text_of",
    "tool_use",
]


class UnreadableAnswerError(ValueError):
    """An answer that is not what the API promises."""


class ErrorEventError(Exception):
    """An error that came inside a stream; ``body`` is what the event held."""

    def __init__(self, body: object) -> None:
        super().__init__("an error event in the stream")
        self.body = body


def mapping_of(value: object, *, what: str) -> Mapping[str, Any]:
    """Return a JSON object.

    Raises:
        UnreadableAnswerError: it is something else.
    """
    if not isinstance(value, dict):
        raise UnreadableAnswerError(f"{what} is {_kind(value)} where an object was expected")
    return value


def sequence_of(value: object, *, what: str) -> Sequence[Any]:
    """Return a JSON array.

    Raises:
        UnreadableAnswerError: it is something else.
    """
    if not isinstance(value, list):
        raise UnreadableAnswerError(f"{what} is {_kind(value)} where an array was expected")
    return value


def text_of(value: object, *, what: str) -> str:
    """Return a JSON string.

    Raises:
        UnreadableAnswerError: it is something else.
    """
    if not isinstance(value, str):
        raise UnreadableAnswerError(f"{what} is {_kind(value)} where a string was expected")
    return value


def count_of(value: object) -> int | None:
    """Return a number of tokens; None where it is absent or cannot be one: unknown, never zero."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return None
    return value


def adds_up(read: int | None, written: int | None, *, answered: bool) -> bool:
    """Whether the totals of a usage can be a bill: both are known, and no text came from or out of nothing.

    No prompt has zero tokens, so a zero there says that the server does not count. Zero tokens of output are a fact
    where nothing was written, and no count where something was.

    Args:
        answered: whether the answer holds anything that the model wrote.
    """
    return bool(read) and written is not None and (written > 0 or not answered)


def tool_use(call_id: object, name: object, arguments: str) -> ToolUseBlock:
    """Return a call of a tool; arguments that are not a JSON object (cut by max_tokens, mostly) are kept as written."""
    try:
        read = json.loads(arguments or "{}")
    except ValueError:
        read = None
    if isinstance(read, dict):
        return ToolUseBlock(id=str(call_id or ""), name=str(name or ""), arguments=read)
    return ToolUseBlock(id=str(call_id or ""), name=str(name or ""), arguments={}, malformed=arguments)


def _kind(value: object) -> str:
    return "missing" if value is None else f"of type {type(value).__name__}"
