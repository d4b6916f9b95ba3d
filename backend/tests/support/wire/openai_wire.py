"""Chat Completions as it is on the wire: what it refuses, and what its answers look like."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tests.support.wire.reply import Refused, Reply, make_reply, text_in, tokens

__all__ = ["PATH", "body_of", "error_body", "events_of", "read_request"]

PATH = "/v1/chat/completions"

_KNOWN = {
    *("model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "seed", "stream"),
    *("stream_options", "n", "user", "metadata", "reasoning_effort", "service_tier", "logit_bias", "top_k", "store"),
}
_REASONING = re.compile(r"o\d|gpt-5(?!-chat)|gpt-[6-9]")
_REASONS = {"end": "stop", "length": "length", "stop_sequence": "stop", "refusal": "stop"}


def read_request(body: Mapping[str, Any], headers: Mapping[str, str], *, text: str, context_tokens: int) -> Reply:
    """Return the answer to a request, or refuse it as the API does.

    Raises:
        Refused: it is not one that the API takes.
    """
    del headers
    model = body.get("model")
    for name in body:
        if name not in _KNOWN:
            raise _bad(f"Unrecognized request argument supplied: {name}", None)
    if not isinstance(model, str) or not model:
        raise _bad("you must provide a model parameter", None)
    if model.startswith("unknown"):
        raise Refused(404, "invalid_request_error", f"The model `{model}` does not exist", code="model_not_found")
    _check_parameters(body, model)
    most = body.get("max_completion_tokens", body.get("max_tokens"))
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise _bad("max_tokens must be a positive integer", "invalid_value")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _bad("Missing required parameter: 'messages'.", "missing_required_parameter")
    if any(message.get("role") not in {"system", "developer", "user", "assistant"} for message in messages):
        raise _bad("Invalid value for role", "invalid_value")
    read = sum(tokens(text_in(message.get("content"))) + 3 for message in messages)
    if read + most > context_tokens:
        raise _bad(f"This model's maximum context length is {context_tokens} tokens", "context_length_exceeded")
    reply = make_reply(text, model=model, max_tokens=most, stop=body.get("stop") or [])
    written = tokens(reply.text)
    usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    return replace(reply, usage=usage)


def _check_parameters(body: Mapping[str, Any], model: str) -> None:
    if _REASONING.match(model):
        thinks = body.get("reasoning_effort") != "none"
        for name in ("max_tokens", *(("temperature", "top_p", "stop") if thinks else ())):
            if name in body:
                raise _bad(
                    f"Unsupported parameter: '{name}' is not supported with this model.", "unsupported_parameter"
                )
    stop = body.get("stop", [])
    if not isinstance(stop, list) or len(stop) > 4 or any(not isinstance(found, str) for found in stop):
        raise _bad("Invalid 'stop': array too long.", "array_above_max_length")
    if "stream_options" in body and not body.get("stream"):
        raise _bad("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "invalid_value")


def body_of(reply: Reply) -> dict[str, Any]:
    """Return the whole answer."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None}
    if reply.reason == "refusal":
        message = {"role": "assistant", "content": None, "refusal": reply.text}
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


def _bad(message: str, code: str | None) -> Refused:
    return Refused(400, "invalid_request_error", message, code=code)
