"""A call as the body of a Chat Completions request."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from app.errors import InvalidInputError
from app.skills.adapters.base import Request
from app.skills.adapters.json_schema import OPENAI, held
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
from app.skills.structured import Schema, json_schema_of, name_of

__all__ = ["encode_request"]

_BREAKPOINT: Final = {"prompt_cache_breakpoint": {"mode": "explicit"}}
_TOOL_CHOICES: Final = ("auto", "required", "none")


def encode_request(messages: tuple[Message, ...], config: LLMConfig, *, model: str, facts: ModelFacts) -> Request:
    """Return the body, and the names of what the model would reject and is therefore not sent.

    Raises:
        InvalidInputError: what cannot be sent, and why.
    """
    check_messages(messages, facts=facts, model=model)
    check_tools(messages, config, facts=facts, model=model)
    check_extra(config)
    if config.stop and facts.max_stop is not None and len(config.stop) > facts.max_stop:
        raise InvalidInputError(f"{model} takes at most {facts.max_stop} stop sequences ({len(config.stop)} given)")
    effort, forced_off = effort_of(config, facts), bool(config.tools) and facts.tools_without_reasoning
    if forced_off:
        effort = "none" if "none" in facts.efforts and facts.thinks_by_default else None
    said = effort or config.extra.get("reasoning_effort")
    sampling, dropped = sampling_params(config, facts, effort=said)
    body: dict[str, Any] = {"model": model, facts.max_tokens_param: config.max_tokens, **sampling}
    body["messages"] = list(_messages(messages, config, facts))
    optional: tuple[tuple[str, object, bool], ...] = (
        ("stop", list(config.stop) or None, facts.accepts_stop),
        ("seed", config.seed, facts.accepts_seed),
        ("parallel_tool_calls", config.parallel_tool_calls, facts.accepts_parallel and bool(config.tools)),
        ("service_tier", config.service_tier, config.service_tier in facts.tiers),
    )
    for name, value, accepted in optional:
        if value is not None and accepted:
            body[name] = value
        elif value is not None:
            dropped = (*dropped, name)
    if effort is not None:
        body["reasoning_effort"] = effort
    if config.reasoning_effort is not None and (effort is None or (forced_off and config.reasoning_effort != "none")):
        dropped = (*dropped, "reasoning_effort")
    if config.tools:
        body["tools"] = [_tool(tool) for tool in config.tools]
        if config.tool_choice is not None:
            body["tool_choice"] = _tool_choice(config.tool_choice)
    if config.schema is not None and facts.structured != "words":
        body["response_format"] = _response_format(config.schema, facts)
    return Request(body=with_extra(body, config), dropped=dropped)


def _messages(messages: Sequence[Message], config: LLMConfig, facts: ModelFacts) -> Iterator[dict[str, Any]]:
    system = system_of(config, words=facts.structured != "schema")
    if system is not None:
        yield {"role": "system", "content": system}
    for message in messages:
        if isinstance(message.content, str):
            yield {"role": message.role, "content": message.content}
        elif message.role == "assistant":
            yield _assistant(message, facts)
        else:
            for block in message.blocks:
                if isinstance(block, ToolResultBlock):
                    text = f"error: {block.content}" if block.is_error else block.content
                    yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": text}
            parts = [
                _part(block, facts)
                for block in message.blocks
                if isinstance(block, TextBlock | ImageBlock | DocumentBlock)
            ]
            if parts:
                yield {"role": message.role, "content": parts}


def _assistant(message: Message, facts: ModelFacts) -> dict[str, Any]:
    texts = [{"type": "text", "text": block.text} for block in message.blocks if isinstance(block, TextBlock)]
    calls = [
        {
            "id": block.id,
            "type": "function",
            "function": {
                "name": block.name,
                "arguments": json.dumps(dict(block.arguments)) if block.malformed is None else block.malformed,
            },
        }
        for block in message.blocks
        if isinstance(block, ToolUseBlock)
    ]
    encoded: dict[str, Any] = {"role": "assistant", "content": texts or (None if calls else "")}
    if calls:
        encoded["tool_calls"] = calls
    # OpenAI's own models keep their reasoning to themselves; servers of open models want it back where tools are used.
    reasoning = "".join(block.text for block in message.blocks if isinstance(block, ReasoningBlock))
    if reasoning and facts.family in {"openai-compatible", "gpt-oss"}:
        encoded["reasoning_content"] = reasoning
    return encoded


def _part(block: TextBlock | ImageBlock | DocumentBlock, facts: ModelFacts) -> dict[str, Any]:
    mark = dict(_BREAKPOINT) if block.cache and facts.cache_breakpoints else {}
    if isinstance(block, TextBlock):
        return {"type": "text", "text": block.text, **mark}
    if isinstance(block, ImageBlock):
        url = block.url or f"data:{block.media_type};base64,{block.data}"
        # Without a detail newer models look at the original, whose number of tokens has no bound.
        return {"type": "image_url", "image_url": {"url": url, "detail": block.detail or "high"}, **mark}
    if block.media_type == PLAIN_TEXT:
        title = f"{block.title}\n\n" if block.title else ""
        return {"type": "text", "text": title + text_of_document(block), **mark}
    if block.url is not None:
        raise InvalidInputError("Chat Completions takes no document by its url: fetch it, and send its data")
    file = {"filename": block.title or "document.pdf", "file_data": f"data:{block.media_type};base64,{block.data}"}
    return {"type": "file", "file": file, **mark}


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": dict(tool.parameters)}
    if tool.description:
        function["description"] = tool.description
    if tool.strict:
        sent = held(tool.parameters, OPENAI)
        if sent is None:
            raise InvalidInputError(
                f"OpenAI cannot hold a model to the parameters of the tool {tool.name!r}: leave strict away"
            )
        function.update(parameters=sent, strict=True)
    return {"type": "function", "function": function}


def _tool_choice(choice: str) -> str | dict[str, Any]:
    return choice if choice in _TOOL_CHOICES else {"type": "function", "function": {"name": choice}}


def _response_format(schema: Schema, facts: ModelFacts) -> dict[str, Any]:
    if facts.structured == "json":
        return {"type": "json_object"}
    whole = json_schema_of(schema)
    sent = held(whole, OPENAI)
    described = {"name": name_of(schema), "schema": whole if sent is None else sent, "strict": sent is not None}
    return {"type": "json_schema", "json_schema": described}
