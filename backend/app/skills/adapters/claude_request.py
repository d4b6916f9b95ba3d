"""A call as the body of a Messages request."""

from __future__ import annotations

from typing import Any, Final

from app.errors import InvalidInputError
from app.skills.adapters.base import Request
from app.skills.adapters.json_schema import CLAUDE, held
from app.skills.adapters.request import (
    PLAIN_TEXT,
    check_extra,
    check_messages,
    check_tools,
    effort_of,
    sampling_params,
    system_of,
    text_of_document,
    with_extra,
)
from app.skills.llm_invoke_v2 import (
    CacheMark,
    ContentBlock,
    DocumentBlock,
    ImageBlock,
    LLMConfig,
    Message,
    ReasoningBlock,
    TextBlock,
    Tool,
    ToolResultBlock,
    ToolUseBlock,
)
from app.skills.model_facts import ModelFacts
from app.skills.structured import json_schema_of

__all__ = ["encode_request"]

_TOOL_CHOICES: Final = {"auto": "auto", "required": "any", "none": "none"}
_TIERS: Final[dict[str, tuple[str, str]]] = {
    "auto": ("service_tier", "auto"),
    "default": ("service_tier", "standard_only"),
    "fast": ("speed", "fast"),
}
_FAST_MODE: Final = {"anthropic-beta": "fast-mode-2026-02-01"}
"""Some models need it for any ``speed``, says the SDK."""

_LEAST_THINKING: Final = 1024
_SHARE_OF_THINKING: Final = {"low": 0.25, "medium": 0.5, "high": 0.8}
"""How much of max_tokens an effort leaves to thinking, for models that are given a number of tokens."""


def encode_request(messages: tuple[Message, ...], config: LLMConfig, *, model: str, facts: ModelFacts) -> Request:
    """Return the body and headers, and the names of what the model would reject and is therefore not sent.

    Raises:
        InvalidInputError: what cannot be sent, and why.
    """
    check_messages(messages, facts=facts, model=model)
    check_tools(messages, config, facts=facts, model=model)
    check_extra(config)
    format_ = _format(config, facts)
    output_config: dict[str, Any] = {}
    thinking, effort = _thinking(config, facts)
    sampling, dropped = sampling_params(config, facts, effort=effort)
    if thinking is not None and thinking["type"] != "disabled" and sampling:
        # While it thinks, a model takes none of them.
        sampling, dropped = {}, tuple(name for name in ("temperature", "top_p") if getattr(config, name) is not None)
    system, turns = _split_system(messages, system_of(config, words=format_ is None))
    if not turns:
        raise InvalidInputError("the prompt has only system messages; Claude needs one of the user")
    if turns[-1].role == "assistant" and facts.reasoning == "adaptive":
        raise InvalidInputError(f"{model} does not go on with a turn of its own: end the prompt with one of the user")
    body: dict[str, Any] = {"model": model, "max_tokens": config.max_tokens, **sampling}
    body["messages"] = [{"role": turn.role, "content": _content(turn, facts)} for turn in turns]
    headers = dict(facts.sampling_headers) if sampling else {}
    if system is not None:
        body["system"] = system
    if config.stop:
        if any(not sequence.strip() for sequence in config.stop):
            raise InvalidInputError("Claude takes no stop sequence of white space only")
        body["stop_sequences"] = list(config.stop)
    if config.seed is not None:
        dropped = (*dropped, "seed")
    if config.tools:
        body["tools"] = [_tool(tool) for tool in config.tools]
        if (choice := _tool_choice(config)) is not None:
            body["tool_choice"] = choice
    elif config.parallel_tool_calls is not None:
        dropped = (*dropped, "parallel_tool_calls")
    if thinking is not None:
        body["thinking"] = thinking
    if config.reasoning_effort is not None and effort is None:
        dropped = (*dropped, "reasoning_effort")
    if effort not in {None, "none"} and facts.reasoning == "adaptive":
        output_config["effort"] = effort
    if format_ is not None:
        output_config["format"] = format_
    if output_config:
        body["output_config"] = output_config
    if config.cache:
        body["cache_control"] = _cache_control(config.cache)
    if config.service_tier in facts.tiers:
        name, value = _TIERS[str(config.service_tier)]
        body[name] = value
        headers |= _FAST_MODE if name == "speed" else {}
    elif config.service_tier is not None:
        dropped = (*dropped, "service_tier")
    return Request(body=with_extra(body, config), headers=headers, dropped=dropped)


def _thinking(config: LLMConfig, facts: ModelFacts) -> tuple[dict[str, Any] | None, str | None]:
    """Return the parameter ``thinking``, and the effort that is in force; None, None where nothing is to be said."""
    effort = effort_of(config, facts)
    if effort is None:
        return None, None
    if effort == "none":
        return ({"type": "disabled"} if facts.thinks_by_default else None), effort
    if config.tool_choice not in {None, "auto", "none"}:
        # A model that must call a tool does not think before; how much it does otherwise is still its effort.
        return None, effort if facts.reasoning == "adaptive" else None
    if facts.reasoning == "adaptive":
        return {"type": "adaptive"}, effort
    budget = int(config.max_tokens * _SHARE_OF_THINKING[effort])
    if config.max_tokens <= _LEAST_THINKING:
        return None, None  # thinking has to leave something of max_tokens to the answer
    return {"type": "enabled", "budget_tokens": max(budget, _LEAST_THINKING)}, effort


def _format(config: LLMConfig, facts: ModelFacts) -> dict[str, Any] | None:
    """Return the schema as Claude can be held to it; None where words have to do."""
    if config.schema is None or facts.structured != "schema":
        return None
    sent = held(json_schema_of(config.schema), CLAUDE)
    return None if sent is None else {"type": "json_schema", "schema": sent}


def _tool(tool: Tool) -> dict[str, Any]:
    described: dict[str, Any] = {"name": tool.name, "input_schema": dict(tool.parameters)}
    if tool.description:
        described["description"] = tool.description
    if tool.strict:
        sent = held(tool.parameters, CLAUDE)
        if sent is None:
            raise InvalidInputError(
                f"Claude cannot be held to the parameters of the tool {tool.name!r}: leave strict away"
            )
        described.update(input_schema=sent, strict=True)
    return described


def _tool_choice(config: LLMConfig) -> dict[str, Any] | None:
    choice = config.tool_choice
    one_at_a_time = {"disable_parallel_tool_use": True} if config.parallel_tool_calls is False else {}
    if choice is None:
        return {"type": "auto", **one_at_a_time} if one_at_a_time else None
    if choice == "none":
        return {"type": "none"}
    if choice in _TOOL_CHOICES:
        return {"type": _TOOL_CHOICES[choice], **one_at_a_time}
    return {"type": "tool", "name": choice, **one_at_a_time}


def _split_system(
    messages: tuple[Message, ...], system: str | None
) -> tuple[str | list[dict[str, Any]] | None, tuple[Message, ...]]:
    """Return the system prompt as the API takes it, in front of the messages, and the messages that are left."""
    leading = 0
    while leading < len(messages) and messages[leading].role == "system":
        leading += 1
    parts = [_text(block) for message in messages[:leading] for block in message.blocks if isinstance(block, TextBlock)]
    if not parts:
        return system, messages
    return ([{"type": "text", "text": system}] if system is not None else []) + parts, messages[leading:]


def _content(message: Message, facts: ModelFacts) -> str | list[dict[str, Any]]:
    if isinstance(message.content, str):
        return message.content
    # Results have to come before whatever else the user says.
    ordered = sorted(message.blocks, key=lambda block: not isinstance(block, ToolResultBlock))
    return [encoded for block in ordered if (encoded := _block(block, facts)) is not None]


def _block(block: ContentBlock, facts: ModelFacts) -> dict[str, Any] | None:
    """Return a block as the API takes it; None for one that it would reject and that says nothing to it."""
    if isinstance(block, TextBlock):
        return _text(block)
    if isinstance(block, ToolUseBlock):
        # The API takes objects only; what the model wrote instead is shown to it as what it was.
        given = dict(block.arguments) if block.malformed is None else {"INVALID_JSON": block.malformed}
        return {"type": "tool_use", "id": block.id, "name": block.name, "input": given}
    if isinstance(block, ReasoningBlock):
        return _reasoning(block, facts)
    if isinstance(block, ToolResultBlock):
        encoded: dict[str, Any] = {"type": "tool_result", "tool_use_id": block.tool_use_id, "content": block.content}
        if block.is_error:
            encoded["is_error"] = True
    elif isinstance(block, ImageBlock):
        encoded = {"type": "image", "source": _source(block)}
    else:
        encoded = {"type": "document", "source": _source(block)}
        if block.title is not None:
            encoded["title"] = block.title
    if block.cache:
        encoded["cache_control"] = _cache_control(block.cache)
    return encoded


def _text(block: TextBlock) -> dict[str, Any]:
    encoded: dict[str, Any] = {"type": "text", "text": block.text}
    if block.cache:
        encoded["cache_control"] = _cache_control(block.cache)
    return encoded


def _reasoning(block: ReasoningBlock, facts: ModelFacts) -> dict[str, Any] | None:
    """Return reasoning that is Claude's own; without its signature it is another provider's, and not sent."""
    if block.signature is None or facts.reasoning == "none":
        return None
    if block.redacted:
        return {"type": "redacted_thinking", "data": block.signature}
    return {"type": "thinking", "thinking": block.text, "signature": block.signature}


def _source(block: ImageBlock | DocumentBlock) -> dict[str, Any]:
    if block.url is not None:
        return {"type": "url", "url": block.url}
    if isinstance(block, DocumentBlock) and block.media_type == PLAIN_TEXT:
        return {"type": "text", "media_type": PLAIN_TEXT, "data": text_of_document(block)}
    return {"type": "base64", "media_type": block.media_type, "data": block.data}


def _cache_control(mark: CacheMark) -> dict[str, Any]:
    return {"type": "ephemeral"} if mark is True else {"type": "ephemeral", "ttl": mark}
