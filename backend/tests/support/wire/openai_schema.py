"""What Chat Completions takes, as a JSON schema and the rules that no schema says.

Written from the types of openai 3.54 and the API reference, November 2026. Parameters that only other servers of this
API know (``top_k`` and such) are taken from models that are not OpenAI's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator

__all__ = ["faults_of"]

_NAME = {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"}
_BREAKPOINT = {
    "type": "object",
    "properties": {"mode": {"const": "explicit"}, "ttl": {"enum": ["30m", "12h"]}},
    "required": ["mode"],
    "additionalProperties": False,
}


def _part(kind: str, **fields: Any) -> dict[str, Any]:
    return _object({"type": {"const": kind}, **fields, "prompt_cache_breakpoint": _BREAKPOINT}, ["type", *fields])


def _object(fields: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}


_TEXT = _part("text", text={"type": "string"})
_IMAGE = _part(
    "image_url",
    image_url=_object(
        {
            "url": {"type": "string", "pattern": "^(https://|data:image/(png|jpeg|gif|webp);base64,)"},
            "detail": {"enum": ["auto", "low", "high", "original"]},
        },
        ["url"],
    ),
)
_FILE = _part(
    "file",
    file=_object(
        {
            "filename": {"type": "string", "minLength": 1},
            "file_data": {"type": "string", "pattern": "^data:application/pdf;base64,"},
        },
        ["filename", "file_data"],
    ),
)
_CALL = _object(
    {
        "id": {"type": "string", "minLength": 1},
        "type": {"const": "function"},
        "function": _object({"name": _NAME, "arguments": {"type": "string"}}, ["name", "arguments"]),
    },
    ["id", "type", "function"],
)


def _texts(*, least: int = 1) -> dict[str, Any]:
    return {"anyOf": [{"type": "string"}, {"type": "array", "items": _TEXT, "minItems": least}]}


_MESSAGE = {
    "oneOf": [
        _object({"role": {"enum": ["system", "developer"]}, "content": _texts()}, ["role", "content"]),
        _object(
            {
                "role": {"const": "user"},
                "content": {
                    "anyOf": [
                        {"type": "string"},
                        {"type": "array", "items": {"oneOf": [_TEXT, _IMAGE, _FILE]}, "minItems": 1},
                    ]
                },
            },
            ["role", "content"],
        ),
        {
            **_object(
                {
                    "role": {"const": "assistant"},
                    "content": {"anyOf": [_texts(), {"type": "null"}]},
                    "tool_calls": {"type": "array", "items": _CALL, "minItems": 1, "maxItems": 128},
                    "reasoning_content": {"type": "string"},
                },
                ["role"],
            ),
            "anyOf": [{"required": ["tool_calls"]}, {"properties": {"content": {"not": {"type": "null"}}}}],
        },
        _object(
            {"role": {"const": "tool"}, "tool_call_id": {"type": "string", "minLength": 1}, "content": _texts()},
            ["role", "tool_call_id", "content"],
        ),
    ]
}
_TOOL = _object(
    {
        "type": {"const": "function"},
        "function": _object(
            {
                "name": _NAME,
                "description": {"type": "string"},
                "parameters": {"type": "object", "properties": {"type": {"const": "object"}}, "required": ["type"]},
                "strict": {"type": "boolean"},
            },
            ["name"],
        ),
    },
    ["type", "function"],
)
_RESPONSE_FORMAT = {
    "oneOf": [
        _object({"type": {"enum": ["text", "json_object"]}}, ["type"]),
        _object(
            {
                "type": {"const": "json_schema"},
                "json_schema": _object(
                    {
                        "name": _NAME,
                        "description": {"type": "string"},
                        "schema": {"type": "object"},
                        "strict": {"type": "boolean"},
                    },
                    ["name"],
                ),
            },
            ["type", "json_schema"],
        ),
    ]
}
_COUNT = {"type": "integer", "minimum": 1}
_REQUEST = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    **_object(
        {
            "model": {"type": "string", "minLength": 1},
            "messages": {"type": "array", "items": _MESSAGE, "minItems": 1},
            "max_tokens": _COUNT,
            "max_completion_tokens": _COUNT,
            "temperature": {"type": "number", "minimum": 0, "maximum": 2},
            "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            "stop": {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
            "seed": {"type": "integer"},
            "stream": {"type": "boolean"},
            "stream_options": _object({"include_usage": {"type": "boolean"}}, []),
            "n": {"type": "integer", "minimum": 1, "maximum": 128},
            "user": {"type": "string"},
            "metadata": {"type": "object"},
            "store": {"type": "boolean"},
            "logit_bias": {"type": "object"},
            "top_k": {"type": "integer"},
            "prompt_cache_key": {"type": "string"},
            "reasoning_effort": {"enum": ["none", "minimal", "low", "medium", "high", "xhigh", "max"]},
            "verbosity": {"enum": ["low", "medium", "high"]},
            "service_tier": {"enum": ["auto", "default", "flex", "scale", "priority", "fast"]},
            "tools": {"type": "array", "items": _TOOL, "minItems": 1, "maxItems": 128},
            "tool_choice": {
                "oneOf": [
                    {"enum": ["none", "auto", "required"]},
                    _object(
                        {"type": {"const": "function"}, "function": _object({"name": _NAME}, ["name"])},
                        ["type", "function"],
                    ),
                ]
            },
            "parallel_tool_calls": {"type": "boolean"},
            "response_format": _RESPONSE_FORMAT,
        },
        ["model", "messages"],
    ),
}
_OURS = re.compile(r"(gpt-(?!oss)|o\d|chatgpt-|ft:)")
_REASONING = re.compile(r"o\d|gpt-5(?!-chat)|gpt-[6-9]")
_EFFORTS: tuple[tuple[str, str], ...] = (
    (r"o1-(mini|preview)", ""),
    (r"o\d", "low medium high"),
    (r"gpt-5-pro", "high"),
    (r"gpt-5(-|$)", "minimal low medium high"),
    (r"gpt-5\.\d-chat", "medium"),
    (r"gpt-5\.\d-pro", "medium high xhigh"),
    (r"gpt-5\.\d-codex", "low medium high xhigh"),
    (r"gpt-5\.1", "none low medium high"),
    (r"gpt-5\.[2-5]", "none low medium high xhigh"),
    (r"gpt-(5\.6|[6-9])", "none low medium high xhigh max"),
)


def faults_of(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what the API would refuse: a code, and a message as it would say it."""
    for error in _validator().iter_errors(body):
        path = ".".join(str(part) for part in error.absolute_path)
        if error.validator == "additionalProperties" and not path:
            yield "unknown_parameter", f"Unrecognized request argument supplied: {error.message}"
        else:
            yield "invalid_value", f"Invalid value at '{path}': {error.message[:300]}"
        return
    yield from _of_the_model(body, str(body["model"]))
    yield from _of_the_turns(body["messages"])
    yield from _of_the_tools(body)


@lru_cache(maxsize=1)
def _validator() -> Draft202012Validator:
    return Draft202012Validator(_REQUEST)


def _of_the_model(body: Mapping[str, Any], model: str) -> Iterator[tuple[str, str]]:
    effort = body.get("reasoning_effort")
    if ("max_tokens" in body) == ("max_completion_tokens" in body):
        yield "invalid_value", "max_tokens or max_completion_tokens must be given"
    if len(body.get("stop", ())) > 4 and _OURS.match(model):
        yield "array_above_max_length", "Invalid 'stop': array too long."
    if "stream_options" in body and not body.get("stream"):
        yield "invalid_value", "The 'stream_options' parameter is only allowed when 'stream' is enabled."
    if "top_k" in body and _OURS.match(model):
        yield "unknown_parameter", "Unrecognized request argument supplied: top_k"
    if not _REASONING.match(model):
        if effort is not None and _OURS.match(model):
            yield "unsupported_parameter", "Unsupported parameter: 'reasoning_effort' is not supported with this model."
        return
    levels = next(found.split() for pattern, found in _EFFORTS if re.match(pattern, model))
    if effort is not None and effort not in levels:
        yield "unsupported_value", f"Unsupported value: 'reasoning_effort' does not support '{effort}' with this model."
    quiet = effort == "none" or (effort is None and re.match(r"gpt-5\.[1-4](-20|$)", model))
    for name in (
        "max_tokens",
        *(() if quiet else ("temperature", "top_p")),
        *(("stop",) if not model.startswith("o1") else ()),
    ):
        if name in body and not (name == "stop" and effort == "none"):
            yield "unsupported_parameter", f"Unsupported parameter: '{name}' is not supported with this model."
    if "tools" in body and re.match(r"gpt-5\.[4-6](?!-pro|-chat|-codex)|gpt-[6-9]", model) and not quiet:
        yield "", f"Function tools with reasoning_effort are not supported for {model} in /v1/chat/completions."
    if "parallel_tool_calls" in body and model.startswith("o"):
        yield "unsupported_parameter", "Unsupported parameter: 'parallel_tool_calls' is not supported with this model."


def _of_the_turns(messages: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """The results of tools follow their calls at once, one for each."""
    waiting: set[str] = set()
    for message in messages:
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                yield (
                    "invalid_value",
                    "messages with role 'tool' must be a response to a preceding message with 'tool_calls'.",
                )
            waiting.discard(message["tool_call_id"])
        elif waiting:
            yield "invalid_value", f"tool_call_ids did not have response messages: {', '.join(sorted(waiting))}"
            return
        waiting |= {call["id"] for call in message.get("tool_calls", ())}
    if waiting:
        yield "invalid_value", f"tool_call_ids did not have response messages: {', '.join(sorted(waiting))}"


def _of_the_tools(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    names = [tool["function"]["name"] for tool in body.get("tools", ())]
    if len(set(names)) < len(names):
        yield "invalid_value", "Duplicate function name."
    choice = body.get("tool_choice")
    if choice is not None and not names:
        yield "invalid_value", "'tool_choice' is only allowed when 'tools' are specified."
    if isinstance(choice, dict) and choice["function"]["name"] not in names:
        yield "invalid_value", "Tool choice not found in 'tools' parameter."
    if "parallel_tool_calls" in body and not names:
        yield "invalid_value", "'parallel_tool_calls' is only allowed when 'tools' are specified."
    strict = [tool["function"]["parameters"] for tool in body.get("tools", ()) if tool["function"].get("strict")]
    described = body.get("response_format", {}).get("json_schema", {})
    strict += [described["schema"]] if described.get("strict") else []
    for schema in strict:
        yield from _strictness(schema)
    # In JSON mode the word has to occur in the prompt, or the API refuses.
    if body.get("response_format", {}).get("type") == "json_object" and "json" not in str(body["messages"]).lower():
        yield "invalid_value", "'messages' must contain the word 'json' in some form, to use 'response_format'."


def _strictness(schema: Any) -> Iterator[tuple[str, str]]:
    """What a strict schema has to be: closed objects, all of whose fields are required; references alone."""
    if isinstance(schema, list):
        for part in schema:
            yield from _strictness(part)
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            yield "invalid_value", "'additionalProperties' is required to be supplied and to be false"
        if set(schema.get("required", ())) != set(schema.get("properties", {})):
            yield "invalid_value", "'required' is required to be supplied and to be an array including every key"
    if "$ref" in schema and schema.keys() - {"$ref", "$defs"}:
        yield "invalid_value", "$ref cannot have keywords"
    unknown = schema.keys() & {"allOf", "oneOf", "not", "default", "minLength", "maxLength", "patternProperties"}
    if unknown and "properties" not in schema.get("type", ""):
        yield "invalid_value", f"{min(unknown)!r} is not permitted"
    for name, part in schema.items():
        if name in {"properties", "$defs"}:
            for each in part.values():
                yield from _strictness(each)
        elif name in {"items", "anyOf"}:
            yield from _strictness(part)
