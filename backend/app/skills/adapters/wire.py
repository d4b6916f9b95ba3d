"""What both wire formats share: reading JSON that may be anything, and choosing which parameters are sent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.errors import InvalidInputError
from app.skills.llm_invoke_v2 import LLMConfig, Message, TextBlock
from app.skills.models import ModelFacts

__all__ = [
    "ErrorEventError",
    "UnreadableAnswerError",
    "adds_up",
    "check_extra",
    "count_of",
    "mapping_of",
    "sampling_params",
    "sequence_of",
    "text_of",
    "text_only",
]

_OWN_FIELDS: Final = {
    "model": "model",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "stop": "stop",
    "stop_sequences": "stop",
    "seed": "seed",
    "system": "system",
}
_NOT_EXTRA: Final = frozenset({"messages", "input", "prompt", "stream", "stream_options"})


class UnreadableAnswerError(ValueError):
    """An answer that is not what the API promises."""


class ErrorEventError(Exception):
    """An error that came inside a stream; ``body`` is what the event held."""

    def __init__(self, body: object) -> None:
        super().__init__("an error event in the stream")
        self.body = body


def check_extra(config: LLMConfig) -> None:
    """Refuse extra parameters that would go around a field of the config or the adapter, or cannot be sent as JSON.

    Raises:
        InvalidInputError: which one, and where it belongs or what is wrong with it.
    """
    for name in config.extra:
        if name in _OWN_FIELDS:
            raise InvalidInputError(f"extra may not hold {name!r}: set LLMConfig.{_OWN_FIELDS[name]}")
        if name in _NOT_EXTRA:
            raise InvalidInputError(f"extra may not hold {name!r}: the adapter sets it")
        try:
            json.dumps({name: config.extra[name]}, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInputError(f"extra[{name!r}] cannot be sent as JSON: {error}") from error


def text_only(messages: Sequence[Message], *, adapter: str) -> None:
    """Refuse content that is not text, and text that cannot be sent.

    Raises:
        InvalidInputError: which message holds what.
    """
    for number, message in enumerate(messages, start=1):
        for block in message.blocks:
            if not isinstance(block, TextBlock):
                raise InvalidInputError(
                    f"message {number} holds a {type(block).__name__}; the {adapter} adapter sends only text so far"
                )
            check_text(block.text, what=f"message {number}")


def check_text(text: str, *, what: str) -> None:
    """Refuse text that has no UTF-8 form.

    Raises:
        InvalidInputError: it holds half of a surrogate pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{what} has half of a surrogate pair at character {error.start}, which cannot be sent as UTF-8"
        ) from None


def sampling_params(config: LLMConfig, facts: ModelFacts) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return ``temperature`` and ``top_p`` as the model takes them, and the names of those it would reject."""
    asked = {
        name: value
        for name, value in (("temperature", config.temperature), ("top_p", config.top_p))
        if value is not None
    }
    if not facts.accepts_sampling(config.extra):
        return {}, tuple(asked)
    taken = dict(asked)
    if "temperature" in taken and taken["temperature"] > facts.max_temperature:
        del taken["temperature"]
    if facts.one_of_temperature_and_top_p and len(taken) > 1:
        del taken["top_p"]
    return taken, tuple(name for name in asked if name not in taken)


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


def _kind(value: object) -> str:
    return "missing" if value is None else f"of type {type(value).__name__}"
