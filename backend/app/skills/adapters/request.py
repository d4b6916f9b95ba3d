"""What the requests of all adapters have in common: content that can be sent, and parameters that the model takes."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.errors import InvalidInputError
from app.skills.llm_invoke_v2 import (
    DocumentBlock,
    ImageBlock,
    LLMConfig,
    Message,
    ReasoningBlock,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from app.skills.model_facts import ModelFacts
from app.skills.structured import json_schema_of

__all__ = [
    "IMAGE_TYPES",
    "PDF",
    "PLAIN_TEXT",
    "check_extra",
    "check_messages",
    "check_text",
    "check_tools",
    "effort_of",
    "sampling_params",
    "system_of",
    "text_of_document",
    "with_extra",
]

IMAGE_TYPES: Final = ("image/png", "image/jpeg", "image/gif", "image/webp")
PDF: Final = "application/pdf"
PLAIN_TEXT: Final = "text/plain"

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
_PLACES: Final[dict[type, frozenset[str]]] = {
    TextBlock: frozenset({"system", "user", "assistant"}),
    ImageBlock: frozenset({"user"}),
    DocumentBlock: frozenset({"user"}),
    ToolResultBlock: frozenset({"user"}),
    ToolUseBlock: frozenset({"assistant"}),
    ReasoningBlock: frozenset({"assistant"}),
}


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


def with_extra(body: Mapping[str, Any], config: LLMConfig) -> dict[str, Any]:
    """Return a body with the extra parameters in it.

    Raises:
        InvalidInputError: one of them is set by a field of the config already.
    """
    for name in config.extra:
        if name in body:
            raise InvalidInputError(
                f"extra may not hold {name!r} beside the field of LLMConfig that sets it: choose one"
            )
    return {**config.extra, **body}


def check_messages(messages: Sequence[Message], *, facts: ModelFacts, model: str) -> None:
    """Refuse content that the model cannot read, that stands where it cannot, or that cannot be sent.

    Raises:
        InvalidInputError: which message holds what, and what to do.
    """
    waiting: set[str] = set()
    for number, message in enumerate(messages, start=1):
        what = f"message {number}"
        _check_results(message, waiting, what=what)
        for block in message.blocks:
            if message.role not in _PLACES[type(block)]:
                raise InvalidInputError(
                    f"{what} is of the role {message.role!r} and holds a {type(block).__name__}, which belongs into "
                    f"one of the role {' or '.join(sorted(_PLACES[type(block)]))}"
                )
            if isinstance(block, TextBlock):
                check_text(block.text, what=what)
            elif isinstance(block, ImageBlock):
                _check_image(block, what=what, facts=facts, model=model)
            elif isinstance(block, DocumentBlock):
                _check_document(block, what=what, facts=facts, model=model)
            elif isinstance(block, ToolResultBlock):
                check_text(block.content, what=what)
        waiting = {block.id for block in message.blocks if isinstance(block, ToolUseBlock)}
    if waiting:
        raise InvalidInputError(
            f"the prompt ends with a call of a tool ({min(waiting)!r}): add a message of the user with its result"
        )


def _check_results(message: Message, waiting: set[str], *, what: str) -> None:
    """Refuse a turn that does not answer each call of a tool in the turn before it, and nothing else."""
    given = [block.tool_use_id for block in message.blocks if isinstance(block, ToolResultBlock)]
    unasked = next((found for found in given if found not in waiting or given.count(found) > 1), None)
    if unasked is not None:
        raise InvalidInputError(
            f"{what} has the result of the tool call {unasked!r}, which the message before it does not ask for once: "
            "put the response's message in front of its results"
        )
    missing = waiting - set(given)
    if missing:
        raise InvalidInputError(
            f"{what} has no result of the tool call {min(missing)!r} in the message before it: add one"
        )


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


def check_tools(messages: Sequence[Message], config: LLMConfig, *, facts: ModelFacts, model: str) -> None:
    """Refuse tools for a model that calls none, calls of tools that are not described, and what cannot be described.

    Raises:
        InvalidInputError: which.
    """
    used = any(isinstance(block, ToolUseBlock) for message in messages for block in message.blocks)
    if used and not config.tools:
        raise InvalidInputError("the prompt has calls of tools, and the config no tools: set the same tools again")
    if config.tools and not facts.tools:
        raise InvalidInputError(f"the model {model} calls no tools: choose another model")
    for tool in config.tools:
        try:
            json.dumps([tool.description, dict(tool.parameters)], ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInputError(f"the tool {tool.name!r} cannot be described in JSON: {error}") from error


def sampling_params(
    config: LLMConfig, facts: ModelFacts, *, effort: object
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return ``temperature`` and ``top_p`` as the model takes them, and the names of those it would reject."""
    asked = {
        name: value
        for name, value in (("temperature", config.temperature), ("top_p", config.top_p))
        if value is not None
    }
    if not facts.accepts_sampling(effort):
        return {}, tuple(asked)
    taken = dict(asked)
    if "temperature" in taken and taken["temperature"] > facts.max_temperature:
        del taken["temperature"]
    if facts.one_of_temperature_and_top_p and len(taken) > 1:
        del taken["top_p"]
    return taken, tuple(name for name in asked if name not in taken)


def effort_of(config: LLMConfig, facts: ModelFacts) -> str | None:
    """Return the reasoning effort that the model is asked for; None where nothing is said, or it has no such thing."""
    if config.reasoning_effort is None or facts.reasoning == "none":
        return None
    return facts.nearest_effort(config.reasoning_effort)


def system_of(config: LLMConfig, *, words: bool) -> str | None:
    """Return the system text; with the schema in words, where nothing else holds the model to it."""
    if config.system is not None:
        check_text(config.system, what="system")
    if config.schema is None or not words:
        return config.system
    schema = json.dumps(json_schema_of(config.schema), ensure_ascii=False, separators=(",", ":"))
    told = f"Answer with one JSON object and nothing else. It has to satisfy this JSON schema:\n{schema}"
    return told if config.system is None else f"{config.system}\n\n{told}"


def text_of_document(block: DocumentBlock) -> str:
    """Return the text of a document of plain text."""
    return base64.b64decode(block.data or "").decode()


def _check_image(block: ImageBlock, *, what: str, facts: ModelFacts, model: str) -> None:
    if not facts.images:
        raise InvalidInputError(f"{what} holds an image, and the model {model} reads none: choose another model")
    _check_source(block, what=f"the image in {what}")
    if block.url is None and block.media_type not in IMAGE_TYPES:
        raise InvalidInputError(
            f"the image in {what} is of the type {block.media_type!r}; use one of {', '.join(IMAGE_TYPES)}"
        )


def _check_document(block: DocumentBlock, *, what: str, facts: ModelFacts, model: str) -> None:
    _check_source(block, what=f"the document in {what}")
    if block.media_type == PLAIN_TEXT and block.data is not None:
        try:
            text_of_document(block)
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"the document in {what} is no UTF-8 text: {error}") from None
        return
    if block.media_type != PDF:
        raise InvalidInputError(
            f"the document in {what} is of the type {block.media_type!r}; use {PDF}, or {PLAIN_TEXT} with data"
        )
    if not facts.documents:
        raise InvalidInputError(
            f"{what} holds a PDF document, and the model {model} reads none: choose another model, or send its text"
        )


def _check_source(block: ImageBlock | DocumentBlock, *, what: str) -> None:
    if (block.data is None) == (block.url is None):
        raise InvalidInputError(f"{what} needs either data (in base64) or a url")
    if block.url is not None and not block.url.startswith("https://"):
        raise InvalidInputError(f"{what} has the url {block.url!r}; providers fetch https:// only, so send its data")
    try:
        base64.b64decode(block.data or "", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInputError(f"{what} has data that is not base64") from None
