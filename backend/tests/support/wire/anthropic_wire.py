"""The Messages API as it is on the wire: what it refuses, and what its answers look like."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tests.support.wire.anthropic_schema import faults_of
from tests.support.wire.reply import Refused, Reply, make_reply, structured_text, tokens, tokens_in, tool_calls

__all__ = ["PATH", "body_of", "error_body", "events_of", "read_request"]

PATH = "/v1/messages"

_REASONS = {
    "end": "end_turn",
    "length": "max_tokens",
    "stop_sequence": "stop_sequence",
    "refusal": "refusal",
    "tools": "tool_use",
}
_SIGNATURE = "c2lnbmF0dXJl"


def read_request(body: Mapping[str, Any], headers: Mapping[str, str], *, text: str, context_tokens: int) -> Reply:
    """Return the answer to a request, or refuse it as the API does.

    Raises:
        Refused: it is not one that the API takes.
    """
    fault = next(faults_of(body, headers), None)
    if fault is not None:
        raise Refused(400, "invalid_request_error", fault)
    model, most = body["model"], body["max_tokens"]
    if not model.startswith("claude-"):
        raise Refused(404, "not_found_error", f"model: {model}")
    tools = body.get("tools", [])
    read = _prompt_tokens(body)
    if read + most > context_tokens:
        raise Refused(
            400, "invalid_request_error", f"prompt is too long: {read + most} tokens > {context_tokens} maximum"
        )
    asked, used = _asked(body["messages"])
    format_ = body.get("output_config", {}).get("format")
    if format_ is not None:
        text = structured_text(format_["schema"], asked=asked)
    reply = make_reply(text, model=model, max_tokens=most, stop=body.get("stop_sequences", []))
    choice = body.get("tool_choice", {"type": "auto"})
    if tools and choice["type"] != "none":
        calls = tool_calls(
            [(tool["name"], tool["input_schema"]) for tool in tools],
            asked=asked,
            used=used,
            forced={"any": "*", "tool": choice.get("name")}.get(choice["type"]),
            several=not choice.get("disable_parallel_tool_use", False),
        )
        reply = replace(reply, text="", calls=calls, reason="tools") if calls else reply
    if body.get("thinking", {}).get("type") in {"adaptive", "enabled"}:
        reply = replace(reply, thought="Let me think.")
    written = tokens(reply.text) + tokens(reply.thought) + sum(tokens(call.arguments) + 5 for call in reply.calls)
    usage: dict[str, Any] = {"input_tokens": read, "output_tokens": written}
    if reply.thought:
        usage["output_tokens_details"] = {"thinking_tokens": tokens(reply.thought)}
    return replace(reply, usage=_with_cache(usage, body, read))


def _with_cache(usage: dict[str, Any], body: Mapping[str, Any], read: int) -> dict[str, Any]:
    """Return the usage of a prompt with marks of the cache: half of it is written to the cache."""
    marked = json.dumps(body.get("messages")) + json.dumps(body.get("system")) + json.dumps(body.get("cache_control"))
    if '"ephemeral"' not in marked:
        return usage
    hour = read // 2 if '"ttl": "1h"' in marked else 0
    short = 0 if hour else read // 2
    return {
        **usage,
        "input_tokens": read - hour - short,
        "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": hour + short,
        "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": hour},
    }


def _asked(messages: list[dict[str, Any]]) -> tuple[str, set[str]]:
    """Return the last text of the user, and the tools that were called since."""
    asked, used = "", set[str]()
    for message in messages:
        blocks = message["content"] if isinstance(message["content"], list) else []
        text = message["content"] if isinstance(message["content"], str) else ""
        text = text or "".join(block["text"] for block in blocks if block["type"] == "text")
        if message["role"] == "user" and text:
            asked, used = text, set()
        used |= {block["name"] for block in blocks if block["type"] == "tool_use"}
    return asked, used


def _prompt_tokens(body: Mapping[str, Any]) -> int:
    total = sum(tokens_in(message["content"]) + 3 for message in body["messages"])
    if "system" in body:
        total += tokens_in(body["system"]) + 3
    for part in (*body.get("tools", ()), body.get("output_config", {}).get("format")):
        total += 0 if part is None else tokens(json.dumps(part)) + 3
    return total


def body_of(reply: Reply) -> dict[str, Any]:
    """Return the whole answer."""
    body: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": _content(reply),
        "stop_reason": _REASONS[reply.reason],
        "stop_sequence": None,
    }
    return body if reply.usage is None else {**body, "usage": reply.usage}


def events_of(reply: Reply) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Yield the events of a stream: name and data. Figures of usage are cumulative, as the API says."""
    started = {**body_of(replace(reply, text="", thought="", calls=())), "stop_reason": None}
    if reply.usage is not None:
        started["usage"] = {**reply.usage, "output_tokens": 1}
    yield "message_start", {"type": "message_start", "message": started}
    index = 0
    if reply.thought:
        empty = {"type": "thinking", "thinking": "", "signature": ""}
        yield "content_block_start", _at(0, "content_block_start", content_block=empty)
        for delta_ in (
            {"type": "thinking_delta", "thinking": reply.thought},
            {"type": "signature_delta", "signature": _SIGNATURE},
        ):
            yield "content_block_delta", _at(0, "content_block_delta", delta=delta_)
        yield "content_block_stop", _at(0, "content_block_stop")
        index = 1
    if reply.text or not reply.calls:
        yield "content_block_start", _at(index, "content_block_start", content_block={"type": "text", "text": ""})
        yield "ping", {"type": "ping"}
        for piece in reply.pieces:
            yield "content_block_delta", _at(index, "content_block_delta", delta={"type": "text_delta", "text": piece})
        yield "content_block_stop", _at(index, "content_block_stop")
        index += 1
    for call in reply.calls:
        block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        yield "content_block_start", _at(index, "content_block_start", content_block=block)
        half = len(call.arguments) // 2
        for piece in (call.arguments[:half], call.arguments[half:]):
            delta_ = {"type": "input_json_delta", "partial_json": piece}
            yield "content_block_delta", _at(index, "content_block_delta", delta=delta_)
        yield "content_block_stop", _at(index, "content_block_stop")
        index += 1
    delta: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": _REASONS[reply.reason]}}
    if reply.usage is not None:
        delta["usage"] = {"output_tokens": reply.usage.get("output_tokens")}
    yield "message_delta", delta
    yield "message_stop", {"type": "message_stop"}


def _content(reply: Reply) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if reply.thought:
        blocks.append({"type": "thinking", "thinking": reply.thought, "signature": _SIGNATURE})
    if reply.text:
        blocks.append({"type": "text", "text": reply.text})
    return blocks + [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.arguments)}
        for call in reply.calls
    ]


def error_body(kind: str, message: str, code: str | None = None) -> dict[str, Any]:
    """Return the body of an error."""
    details = {} if code is None else {"details": {"error_code": code}}
    return {"type": "error", "error": {"type": kind, "message": message, **details}, "request_id": "req_1"}


def _at(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "index": index, **fields}
