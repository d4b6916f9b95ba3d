"""What the Messages API takes, as a JSON schema and the rules that no schema says.

Written from the types of anthropic 2.12 and the API reference, November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator

__all__ = ["faults_of"]


def _object(fields: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}


_CACHE = _object({"type": {"const": "ephemeral"}, "ttl": {"enum": ["5m", "1h"]}}, ["type"])
_NAME = {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,128}$"}


def _block(kind: str, required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    fields = {"type": {"const": kind}, **required, **optional, "cache_control": _CACHE}
    return _object(fields, ["type", *required])


def _source(kind: str, **fields: Any) -> dict[str, Any]:
    return _object({"type": {"const": kind}, **fields}, ["type", *fields])


_URL = _source("url", url={"type": "string", "pattern": "^https://"})
_BASE64 = {"type": "string", "contentEncoding": "base64"}
_TEXT = _block("text", {"text": {"type": "string", "minLength": 1}})
_IMAGE = _block(
    "image",
    {
        "source": {
            "oneOf": [
                _URL,
                _source(
                    "base64",
                    media_type={"enum": ["image/jpeg", "image/png", "image/gif", "image/webp"]},
                    data=_BASE64,
                ),
            ]
        }
    },
)
_DOCUMENT = _block(
    "document",
    {
        "source": {
            "oneOf": [
                _URL,
                _source("base64", media_type={"const": "application/pdf"}, data=_BASE64),
                _source("text", media_type={"const": "text/plain"}, data={"type": "string"}),
            ]
        }
    },
    title={"type": "string"},
)
_RESULT = _block(
    "tool_result",
    {"tool_use_id": {"type": "string", "minLength": 1}},
    content={"type": "string"},
    is_error={"type": "boolean"},
)
_USE = _block("tool_use", {"id": {"type": "string", "minLength": 1}, "name": _NAME, "input": {"type": "object"}})
_THINKING = _object(
    {"type": {"const": "thinking"}, "thinking": {"type": "string"}, "signature": {"type": "string"}},
    ["type", "thinking", "signature"],
)
_REDACTED = _object({"type": {"const": "redacted_thinking"}, "data": {"type": "string"}}, ["type", "data"])


def _content(*blocks: dict[str, Any]) -> dict[str, Any]:
    listed = {"type": "array", "items": {"oneOf": list(blocks)}, "minItems": 1}
    return {"anyOf": [{"type": "string", "minLength": 1}, listed]}


def _turn(role: str, *blocks: dict[str, Any]) -> dict[str, Any]:
    return _object({"role": {"const": role}, "content": _content(*blocks)}, ["role", "content"])


_TOOL = _object(
    {
        "name": _NAME,
        "description": {"type": "string"},
        "input_schema": {"type": "object", "properties": {"type": {"const": "object"}}, "required": ["type"]},
        "strict": {"type": "boolean"},
        "cache_control": _CACHE,
    },
    ["name", "input_schema"],
)
_ONE_AT_A_TIME = {"disable_parallel_tool_use": {"type": "boolean"}}
_REQUEST = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    **_object(
        {
            "model": {"type": "string", "minLength": 1},
            "max_tokens": {"type": "integer", "minimum": 1},
            "messages": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "oneOf": [
                        _turn("user", _TEXT, _IMAGE, _DOCUMENT, _RESULT),
                        _turn("assistant", _TEXT, _USE, _THINKING, _REDACTED),
                        _turn("system", _TEXT),
                    ]
                },
            },
            "system": {"anyOf": [{"type": "string"}, {"type": "array", "items": _TEXT, "minItems": 1}]},
            "stop_sequences": {"type": "array", "items": {"type": "string", "pattern": r"\S"}},
            "stream": {"type": "boolean"},
            "temperature": {"type": "number", "minimum": 0, "maximum": 1},
            "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            "top_k": {"type": "integer"},
            "metadata": _object({"user_id": {"type": "string"}}, []),
            "service_tier": {"enum": ["auto", "standard_only"]},
            "speed": {"enum": ["standard", "fast"]},
            "inference_geo": {"type": "string"},
            "cache_control": _CACHE,
            "thinking": {
                "oneOf": [
                    _object({"type": {"enum": ["disabled", "between_tools"]}}, ["type"]),
                    _object({"type": {"const": "adaptive"}, "display": {"enum": ["summarized", "omitted"]}}, ["type"]),
                    _object(
                        {
                            "type": {"const": "enabled"},
                            "budget_tokens": {"type": "integer", "minimum": 1024},
                            "display": {"enum": ["summarized", "omitted"]},
                        },
                        ["type", "budget_tokens"],
                    ),
                ]
            },
            "output_config": _object(
                {
                    "effort": {"enum": ["low", "medium", "high", "xhigh", "max"]},
                    "format": _object(
                        {"type": {"const": "json_schema"}, "schema": {"type": "object"}}, ["type", "schema"]
                    ),
                },
                [],
            ),
            "tools": {"type": "array", "items": _TOOL, "minItems": 1},
            "tool_choice": {
                "oneOf": [
                    _object({"type": {"enum": ["auto", "any"]}, **_ONE_AT_A_TIME}, ["type"]),
                    _object({"type": {"const": "tool"}, "name": _NAME, **_ONE_AT_A_TIME}, ["type", "name"]),
                    _object({"type": {"const": "none"}}, ["type"]),
                ]
            },
        },
        ["model", "max_tokens", "messages"],
    ),
}
_SAMPLING = ("temperature", "top_p", "top_k")
_BEFORE_4_7 = re.compile(r"claude-(\d|[a-z]+-4(-0|-1|-5|-6|-20\d{6})*$)")
_ONE_SAMPLING = re.compile(r"claude-[a-z]+-4-[156]")
_HELD = re.compile(r"claude-([a-z]+-(4-[5-9]|5)|fable|mythos)")
_ADAPTIVE = re.compile(r"claude-([a-z]+-(4-[6-9]|5)|fable|mythos)")
_ADAPTIVE_ONLY = re.compile(r"claude-([a-z]+-(4-[78]|5)|fable|mythos)")
_ALWAYS_THINKS = re.compile(r"claude-([a-z]+-5-5|fable|mythos)")
_XHIGH = _ADAPTIVE_ONLY


def faults_of(body: Mapping[str, Any], headers: Mapping[str, str]) -> Iterator[str]:
    """Yield what the API would refuse, as it would say it."""
    version = headers.get("anthropic-version")
    if version not in {"2023-06-01", "2026-10-21"}:
        yield "anthropic-version: header is required"
        return
    for error in _validator().iter_errors(body):
        path = ".".join(str(part) for part in error.absolute_path)
        if error.validator == "additionalProperties" and not path:
            yield f"{error.message}: Extra inputs are not permitted"
        elif error.validator == "required" and not path:
            yield f"{error.message.split(chr(39))[1]}: Field required"
        else:
            yield f"{path}: {error.message[:300]}"
        return
    model = str(body["model"])
    yield from _of_sampling(body, model, version)
    yield from _of_thinking(body, model, headers)
    if body["messages"][-1]["role"] == "assistant" and _ADAPTIVE.match(model):
        yield "This model does not support assistant message prefill."
    yield from _of_the_turns(body["messages"])
    yield from _of_the_tools(body, model)


@lru_cache(maxsize=1)
def _validator() -> Draft202012Validator:
    return Draft202012Validator(_REQUEST)


def _of_sampling(body: Mapping[str, Any], model: str, version: str) -> Iterator[str]:
    used = [name for name in _SAMPLING if name in body]
    if used and (version != "2023-06-01" or not _BEFORE_4_7.match(model)):
        yield f"{used[0]}: is not supported by this model"
    if {"temperature", "top_p"} <= set(used) and _ONE_SAMPLING.match(model):
        yield "`temperature` and `top_p` cannot both be specified"


def _of_thinking(body: Mapping[str, Any], model: str, headers: Mapping[str, str]) -> Iterator[str]:
    kind = body.get("thinking", {}).get("type")
    if kind == "enabled":
        if _ADAPTIVE_ONLY.match(model) or (re.match(r"claude-(\d|instant|v1)", model) and "3-7" not in model):
            yield "thinking.type: enabled is not supported by this model"
        if body["thinking"]["budget_tokens"] >= body["max_tokens"]:
            yield "`max_tokens` must be greater than `thinking.budget_tokens`"
    if kind == "adaptive" and not _ADAPTIVE.match(model):
        yield "thinking.type: adaptive is not supported by this model"
    if kind == "disabled" and _ALWAYS_THINKS.match(model):
        yield "thinking.type: disabled is not supported by this model"
    if kind in {"enabled", "adaptive"}:
        if any(name in body for name in _SAMPLING):
            yield "`temperature` may only be set to 1 when thinking is enabled"
        if body.get("tool_choice", {}).get("type") in {"any", "tool"}:
            yield "Thinking may not be enabled when tool_choice forces tool use."
    effort = body.get("output_config", {}).get("effort")
    if effort is not None and not _ADAPTIVE.match(model):
        yield "This model does not support the effort parameter."
    if effort == "xhigh" and not _XHIGH.match(model):
        yield "output_config.effort: xhigh is not supported by this model"
    if body.get("speed") == "fast" and "fast-mode-2026-02-01" not in headers.get("anthropic-beta", ""):
        yield "speed: requires the fast-mode-2026-02-01 beta header"


def _of_the_turns(messages: list[dict[str, Any]]) -> Iterator[str]:
    """The results of tools are the first thing that the next turn has, one for each call."""
    waiting: set[str] = set()
    for number, message in enumerate(messages):
        content = message["content"] if isinstance(message["content"], list) else []
        results = [block["tool_use_id"] for block in content if block["type"] == "tool_result"]
        if waiting - set(results):
            yield f"messages.{number}: `tool_use` ids were found without `tool_result` blocks immediately after"
        if set(results) - waiting:
            yield f"messages.{number}: unexpected `tool_use_id` found in `tool_result` blocks"
        if any(block["type"] == "tool_result" for block in content[len(results) :]):
            yield f"messages.{number}: `tool_result` blocks must come first"
        waiting = {block["id"] for block in content if block["type"] == "tool_use"}
    if waiting:
        yield "`tool_use` ids were found without `tool_result` blocks immediately after"


def _of_the_tools(body: Mapping[str, Any], model: str) -> Iterator[str]:
    names = [tool["name"] for tool in body.get("tools", ())]
    if len(set(names)) < len(names):
        yield "tools: Tool names must be unique."
    choice = body.get("tool_choice")
    if choice is not None and not names:
        yield "tool_choice: may only be specified while providing tools"
    if choice is not None and choice["type"] == "tool" and choice["name"] not in names:
        yield f"tool_choice: Tool '{choice['name']}' not found in provided tools"
    uses = any(
        block["type"] == "tool_use"
        for message in body["messages"]
        if isinstance(message["content"], list)
        for block in message["content"]
    )
    if uses and not names:
        yield "Requests which include `tool_use` or `tool_result` blocks must define tools"
    held = [tool["input_schema"] for tool in body.get("tools", ()) if tool.get("strict")]
    if "format" in body.get("output_config", {}):
        held.append(body["output_config"]["format"]["schema"])
        if not _HELD.match(model):
            yield "output_config.format: is not supported by this model"
    for schema in held:
        yield from _grammar(schema)


def _grammar(schema: Any) -> Iterator[str]:
    """What a schema has to be for a grammar to be made of it: closed objects, no bounds."""
    if isinstance(schema, list):
        for part in schema:
            yield from _grammar(part)
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        yield "For 'object' type, 'additionalProperties' must be explicitly set to false"
    for name in ("minimum", "maximum", "multipleOf", "minLength", "maxLength", "maxItems", "oneOf", "not", "default"):
        if name in schema:
            yield f"For '{schema.get('type')}' type, property '{name}' is not supported"
    for name, part in schema.items():
        if name in {"properties", "$defs"}:
            for each in part.values():
                yield from _grammar(each)
        elif name in {"items", "anyOf", "allOf"}:
            yield from _grammar(part)
