"""Chat Completions as it is on the wire: what it refuses, and what its answers look like."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tests.support.wire.openai_schema import faults_of
from tests.support.wire.reply import (
    Refused,
    Reply,
    ToolCall,
    make_reply,
    structured_text,
    text_in,
    tokens,
    tokens_in,
    tool_calls,
)

__all__ = ["PATH", "body_of", "error_body", "events_of", "read_request"]

PATH = "/v1/chat/completions"

_REASONS = {"end": "stop", "length": "length", "stop_sequence": "stop", "refusal": "stop", "tools": "tool_calls"}


def read_request(body: Mapping[str, Any], headers: Mapping[str, str], *, text: str, context_tokens: int) -> Reply:
    """Return the answer to a request, or refuse it as the API does.

    Raises:
        Refused: it is not one that the API takes.
    """
    del headers
    fault = next(faults_of(body), None)
    if fault is not None:
        raise Refused(400, "invalid_request_error", fault[1], code=fault[0] or None)
    model = body["model"]
    if model.startswith("unknown"):
        raise Refused(404, "invalid_request_error", f"The model `{model}` does not exist", code="model_not_found")
    most = body.get("max_completion_tokens", body.get("max_tokens"))
    tools = body.get("tools", [])
    read = sum(_message_tokens(message) for message in body["messages"])
    read += sum(tokens(json.dumps(part)) for part in (*tools, body.get("response_format", "")) if part)
    if read + most > context_tokens:
        message = f"This model's maximum context length is {context_tokens} tokens"
        raise Refused(400, "invalid_request_error", message, code="context_length_exceeded")
    asked, used = _asked(body["messages"])
    described = body.get("response_format", {}).get("json_schema")
    if described is not None:
        text = structured_text(described["schema"], asked=asked)
    reply = make_reply(text, model=model, max_tokens=most, stop=body.get("stop") or [])
    choice = body.get("tool_choice", "auto")
    if tools and choice != "none":
        forced = choice["function"]["name"] if isinstance(choice, dict) else {"required": "*"}.get(choice)
        calls = tool_calls(
            [(tool["function"]["name"], tool["function"].get("parameters", {})) for tool in tools],
            asked=asked,
            used=used,
            forced=forced,
            several=body.get("parallel_tool_calls", True),
        )
        reply = replace(reply, text="", calls=calls, reason="tools") if calls else reply
    reasoned = 7 if body.get("reasoning_effort", "none") != "none" else 0
    written = tokens(reply.text) + reasoned + sum(tokens(call.arguments) + 5 for call in reply.calls)
    usage: dict[str, Any] = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    if reasoned:
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoned}
    if "prompt_cache_breakpoint" in json.dumps(body["messages"]):
        usage["prompt_tokens_details"] = {"cached_tokens": 0, "cache_write_tokens": read // 2}
    return replace(reply, usage=usage)


def _message_tokens(message: Mapping[str, Any]) -> int:
    calls = sum(tokens(json.dumps(call["function"])) for call in message.get("tool_calls", ()))
    return tokens_in(message.get("content")) + calls + 3


def _asked(messages: list[dict[str, Any]]) -> tuple[str, set[str]]:
    """Return the last text of the user, and the tools that were called since."""
    asked, used = "", set[str]()
    for message in messages:
        if message["role"] == "user" and (text := text_in(message["content"])):
            asked, used = text, set()
        used |= {call["function"]["name"] for call in message.get("tool_calls", ())}
    return asked, used


def body_of(reply: Reply) -> dict[str, Any]:
    """Return the whole answer."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None}
    if reply.reason == "refusal":
        message = {"role": "assistant", "content": None, "refusal": reply.text}
    if reply.calls:
        message["content"] = reply.text or None
        message["tool_calls"] = [_call(call) for call in reply.calls]
    body: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": reply.model,
        "choices": [{"index": 0, "message": message, "finish_reason": _REASONS[reply.reason], "logprobs": None}],
    }
    return body if reply.usage is None else {**body, "usage": reply.usage}


def events_of(reply: Reply) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Yield the chunks of a stream; the usage comes last, in one without choices."""
    name = "refusal" if reply.reason == "refusal" else "content"
    yield None, _chunk(reply, {"role": "assistant", "content": ""}, None)
    for piece in reply.pieces:
        yield None, _chunk(reply, {name: piece}, None)
    for index, call in enumerate(reply.calls):
        half = len(call.arguments) // 2
        first = {"index": index, **_call(call)}
        first["function"] = {"name": call.name, "arguments": ""}
        yield None, _chunk(reply, {"tool_calls": [first]}, None)
        for piece in (call.arguments[:half], call.arguments[half:]):
            delta = {"index": index, "function": {"arguments": piece}}
            yield None, _chunk(reply, {"tool_calls": [delta]}, None)
    yield None, _chunk(reply, {}, _REASONS[reply.reason])
    if reply.usage is not None:
        yield None, {**_chunk(reply, {}, None), "choices": [], "usage": reply.usage}


def error_body(kind: str, message: str, code: str | None = None) -> dict[str, Any]:
    """Return the body of an error."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _chunk(reply: Reply, delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": reply.model}
    return {**head, "choices": [choice], "usage": None}


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
