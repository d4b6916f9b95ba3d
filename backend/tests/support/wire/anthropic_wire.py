"""The Messages API as it is on the wire: what it refuses, and what its answers look like."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tests.support.wire.reply import Refused, Reply, make_reply, text_in, tokens

__all__ = ["PATH", "body_of", "error_body", "events_of", "read_request"]

PATH = "/v1/messages"

_KNOWN = {
    *("model", "max_tokens", "messages", "system", "stop_sequences", "stream", "temperature", "top_p", "top_k"),
    *("metadata", "service_tier", "speed", "thinking", "cache_control", "inference_geo"),
}
_SAMPLING = ("temperature", "top_p", "top_k")
_BEFORE_4_7 = re.compile(r"claude-(\d|[a-z]+-4(-0|-1|-5|-6|-20\d{6})*$)")
_ONE_SAMPLING = re.compile(r"claude-[a-z]+-4-[156]")
_REASONS = {"end": "end_turn", "length": "max_tokens", "stop_sequence": "stop_sequence", "refusal": "refusal"}


def read_request(body: Mapping[str, Any], headers: Mapping[str, str], *, text: str, context_tokens: int) -> Reply:
    """Return the answer to a request, or refuse it as the API does.

    Raises:
        Refused: it is not one that the API takes.
    """
    version = headers.get("anthropic-version")
    if version not in {"2023-06-01", "2026-10-21"}:
        raise Refused(400, "invalid_request_error", "anthropic-version: header is required")
    for name in body:
        if name not in _KNOWN:
            raise Refused(400, "invalid_request_error", f"{name}: Extra inputs are not permitted")
    model, most = body.get("model"), body.get("max_tokens")
    if not isinstance(model, str) or not model:
        raise Refused(400, "invalid_request_error", "model: Field required")
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise Refused(400, "invalid_request_error", "max_tokens: Field required")
    if not model.startswith("claude-"):
        raise Refused(404, "not_found_error", f"model: {model}")
    _check_sampling(body, model, version)
    stop = body.get("stop_sequences", [])
    if not isinstance(stop, list) or any(not isinstance(found, str) or not found.strip() for found in stop):
        raise Refused(400, "invalid_request_error", "stop_sequences: each stop sequence must contain non-whitespace")
    read = _prompt_tokens(body)
    if read + most > context_tokens:
        raise Refused(
            400, "invalid_request_error", f"prompt is too long: {read + most} tokens > {context_tokens} maximum"
        )
    reply = make_reply(text, model=model, max_tokens=most, stop=stop)
    return replace(reply, usage={"input_tokens": read, "output_tokens": tokens(reply.text)})


def _check_sampling(body: Mapping[str, Any], model: str, version: str) -> None:
    used = [name for name in _SAMPLING if name in body]
    if used and (version != "2023-06-01" or not _BEFORE_4_7.match(model)):
        raise Refused(400, "invalid_request_error", f"{used[0]}: is not supported by this model")
    if {"temperature", "top_p"} <= set(used) and _ONE_SAMPLING.match(model):
        raise Refused(400, "invalid_request_error", "`temperature` and `top_p` cannot both be specified")
    if body.get("temperature", 0) > 1:
        raise Refused(400, "invalid_request_error", "temperature: range: 0..1")


def _prompt_tokens(body: Mapping[str, Any]) -> int:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "invalid_request_error", "messages: Field required")
    if any(message.get("role") not in {"user", "assistant", "system"} for message in messages):
        raise Refused(400, "invalid_request_error", "messages: unknown role")
    texts = [text_in(message.get("content")) for message in messages]
    if "system" in body:
        texts.append(text_in(body["system"]))
    return sum(tokens(found) + 3 for found in texts)


def body_of(reply: Reply) -> dict[str, Any]:
    """Return the whole answer."""
    body: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": [{"type": "text", "text": reply.text}] if reply.text else [],
        "stop_reason": _REASONS[reply.reason],
        "stop_sequence": None,
    }
    return body if reply.usage is None else {**body, "usage": reply.usage}


def events_of(reply: Reply) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Yield the events of a stream: name and data. Figures of usage are cumulative, as the API says."""
    started = {**body_of(replace(reply, text="")), "stop_reason": None}
    if reply.usage is not None:
        started["usage"] = {**reply.usage, "output_tokens": 1}
    yield "message_start", {"type": "message_start", "message": started}
    yield "content_block_start", _at(0, "content_block_start", content_block={"type": "text", "text": ""})
    yield "ping", {"type": "ping"}
    for piece in reply.pieces:
        yield "content_block_delta", _at(0, "content_block_delta", delta={"type": "text_delta", "text": piece})
    yield "content_block_stop", _at(0, "content_block_stop")
    delta: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": _REASONS[reply.reason]}}
    if reply.usage is not None:
        delta["usage"] = {"output_tokens": reply.usage.get("output_tokens")}
    yield "message_delta", delta
    yield "message_stop", {"type": "message_stop"}


def error_body(kind: str, message: str, code: str | None = None) -> dict[str, Any]:
    """Return the body of an error."""
    details = {} if code is None else {"details": {"error_code": code}}
    return {"type": "error", "error": {"type": kind, "message": message, **details}, "request_id": "req_1"}


def _at(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "index": index, **fields}
