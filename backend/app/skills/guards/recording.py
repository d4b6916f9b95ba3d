"""A request as a fingerprint, and a response as bytes: what the idempotency guard keeps under a key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any, Final

from app.errors import InvalidInputError, StoreDamagedError
from app.skills.llm_invoke_v2 import (
    ContentBlock,
    DocumentBlock,
    ImageBlock,
    LLMConfig,
    LLMResponse,
    LLMUsage,
    Prompt,
    ReasoningBlock,
    ReasoningDelta,
    Schema,
    StreamEnd,
    StreamEvent,
    TextBlock,
    TextDelta,
    Tool,
    ToolCallDelta,
    ToolResultBlock,
    ToolUseBlock,
    as_messages,
)
from app.skills.structured import json_schema_of

__all__ = ["decode_response", "encode_response", "fingerprint", "replayed_events"]

_FINGERPRINT_VERSION: Final = 1
_RESPONSE_VERSION: Final = 1

_BLOCKS: Final[dict[str, type[ContentBlock]]] = {
    "text": TextBlock,
    "image": ImageBlock,
    "document": DocumentBlock,
    "tool_use": ToolUseBlock,
    "tool_result": ToolResultBlock,
    "reasoning": ReasoningBlock,
}
_BLOCK_NAMES: Final = {cls: name for name, cls in _BLOCKS.items()}
_TUPLES: Final = ("dropped_params", "warnings", "fallback_from")
_NOT_RECORDED: Final = frozenset({"output", "output_error"})
"""What follows from the content and the caller's schema: made anew at each replay, as the type that it asks for."""

_DEFAULTS: Final[dict[type[ContentBlock], dict[str, Any]]] = {
    ImageBlock: {"detail": None, "cache": False},
    DocumentBlock: {"cache": False},
    ToolUseBlock: {"malformed": None},
    ToolResultBlock: {"cache": False},
    ReasoningBlock: {"redacted": False},
}
"""Fields that came later, left away at their default: the fingerprints of what was recorded before do not change."""


def fingerprint(prompt: Prompt, config: LLMConfig | None) -> str:
    """Return what makes two requests the same: SHA-256 of the caller's request, before any default is filled in.

    Of the config only what differs from its defaults counts, so that None and ``LLMConfig()`` are the same, and a later
    default changes nothing; ``timeout_s`` does not count, since it says how long to wait and not what for.

    Raises:
        InvalidInputError: the prompt is empty, or a parameter in ``extra`` is not JSON.
    """
    request = {
        "v": _FINGERPRINT_VERSION,
        "messages": [[message.role, [_block(block) for block in message.blocks]] for message in as_messages(prompt)],
        "config": _asked_for(config or LLMConfig()),
    }
    try:
        canonical = json.dumps(request, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"a request with an idempotency key must be JSON, parameters in extra included: {error}"
        ) from error
    return f"{_FINGERPRINT_VERSION}:{hashlib.sha256(canonical.encode()).hexdigest()}"


def encode_response(response: LLMResponse) -> bytes:
    """Return a response as bytes, from which :func:`decode_response` with the same schema makes an equal one.

    Raises:
        InvalidInputError: a block or a figure in it is not JSON.
    """
    record = {name: value for name, value in _values(response).items() if name not in _NOT_RECORDED}
    record["usage"] = None if response.usage is None else _values(response.usage)
    record["blocks"] = [_block(block) for block in response.blocks]
    document = {"v": _RESPONSE_VERSION, "response": record}
    try:
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"the response cannot be recorded: {error}") from error
    return text.encode("utf-8", "surrogatepass")


def decode_response(record: bytes, *, schema: Schema | None = None) -> LLMResponse:
    """Read a response.

    Args:
        schema: what the caller wants its ``output`` to be.

    Raises:
        StoreDamagedError: the bytes are not one, or a later version of Nova wrote them.
    """
    try:
        document = json.loads(record.decode("utf-8", "surrogatepass"))
        version = document["v"]
        if version == _RESPONSE_VERSION:
            return _response(document["response"]).read_as(schema)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreDamagedError(
            f"the result recorded under the idempotency key is not a response: {type(error).__name__}"
        ) from error
    raise StoreDamagedError(
        f"the result recorded under the idempotency key has the version {version!r}, and this Nova reads version "
        f"{_RESPONSE_VERSION}: use the Nova that wrote it, or another key"
    )


def replayed_events(response: LLMResponse) -> Iterator[StreamEvent]:
    """Yield a response as a stream: the text, and each block that a stream shows, in one piece; then its end."""
    calls = 0
    for block in response.blocks or (TextBlock(response.content),):
        if isinstance(block, TextBlock) and block.text:
            yield TextDelta(block.text)
        elif isinstance(block, ReasoningBlock) and block.text:
            yield ReasoningDelta(block.text)
        elif isinstance(block, ToolUseBlock):
            arguments = json.dumps(dict(block.arguments)) if block.malformed is None else block.malformed
            yield ToolCallDelta(index=calls, id=block.id, name=block.name, arguments=arguments)
            calls += 1
    yield StreamEnd(response)


def _response(record: dict[str, Any]) -> LLMResponse:
    usage = record["usage"]
    record["usage"] = None if usage is None else LLMUsage(**usage)
    record["blocks"] = tuple(_BLOCKS[block.pop("type")](**block) for block in record["blocks"])
    for name in _TUPLES:
        record[name] = tuple(record[name])
    return LLMResponse(**record)


def _asked_for(config: LLMConfig) -> dict[str, Any]:
    defaults = _defaults()
    asked = {
        name: dict(value) if isinstance(value, Mapping) else value
        for name, value in _values(config).items()
        if name != "timeout_s" and value != getattr(defaults, name)
    }
    if config.tools:
        asked["tools"] = [_tool(tool) for tool in config.tools]
    if config.schema is not None:
        asked["schema"] = json_schema_of(config.schema)
    return asked


@lru_cache(maxsize=1)
def _defaults() -> LLMConfig:
    return LLMConfig()


def _tool(tool: Tool) -> dict[str, Any]:
    """Return what the model is told of a tool; the function behind it is the caller's own business."""
    return {
        **{name: value for name, value in _values(tool).items() if name != "function"},
        "parameters": dict(tool.parameters),
    }


def _block(block: ContentBlock) -> dict[str, Any]:
    later = _DEFAULTS.get(type(block), {})
    values = {name: value for name, value in _values(block).items() if name not in later or value != later[name]}
    if isinstance(block, ToolUseBlock):
        values["arguments"] = dict(block.arguments)
    return {"type": _BLOCK_NAMES[type(block)], **values}


def _values(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}
