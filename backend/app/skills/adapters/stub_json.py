"""Values that satisfy a JSON schema, drawn by a hash: the stub's structured output and arguments of tools."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["draw"]

_DEEPEST: Final = 12
_BY_FORMAT: Final = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "PT1H",
    "email": "stub@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def draw(schema: Mapping[str, Any], *, seed: str, words: list[str]) -> Any:
    """Return a value, the same for the same schema, seed and words.

    It satisfies types, enumerations, required fields, and bounds of numbers, lengths and items; it knows no pattern.

    Args:
        words: what texts are made of.
    """
    return _value(schema, root=schema, seed=seed, words=words or ["stub"], depth=0)


def _value(schema: Any, *, root: Mapping[str, Any], seed: str, words: list[str], depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return None
    if "$ref" in schema:
        target = _resolved(str(schema["$ref"]), root)
        return _value(target, root=root, seed=seed, words=words, depth=depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][_number(seed) % len(schema["enum"])]
    for name in ("anyOf", "oneOf"):
        if schema.get(name):
            # The deeper, the simpler: a schema that contains itself has an end.
            options = sorted(schema[name], key=lambda option: depth > 3 and option.get("type") != "null")
            index = 0 if depth > 3 else _number(seed) % len(options)
            return _value(options[index], root=root, seed=seed + name, words=words, depth=depth + 1)
    if schema.get("allOf"):
        merged: dict[str, Any] = {}
        for part in schema["allOf"]:
            found = _value(part, root=root, seed=seed, words=words, depth=depth + 1)
            merged = {**merged, **found} if isinstance(found, dict) else found
        return merged
    kind = schema.get("type", "object" if "properties" in schema else "null")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return _object(schema, root=root, seed=seed, words=words, depth=depth)
    if kind == "array":
        least, most = schema.get("minItems", 0), schema.get("maxItems", 3)
        count = max(least, 0 if depth > 3 else min(most, 1 + _number(seed) % 2))
        items = schema.get("items", {"type": "string"})
        return [
            _value(items, root=root, seed=f"{seed}/{index}", words=words, depth=depth + 1) for index in range(count)
        ]
    return _leaf(str(kind), schema, seed=seed, words=words)


def _object(schema: Mapping[str, Any], *, root: Mapping[str, Any], seed: str, words: list[str], depth: int) -> Any:
    fields = schema.get("properties") or {}
    wanted = [name for name in fields if depth <= 3 or name in schema.get("required", ())]
    return {
        name: _value(fields[name], root=root, seed=f"{seed}/{name}", words=words, depth=depth + 1) for name in wanted
    }


def _leaf(kind: str, schema: Mapping[str, Any], *, seed: str, words: list[str]) -> Any:
    if kind == "string":
        text = _BY_FORMAT.get(str(schema.get("format"))) or words[_number(seed) % len(words)]
        text = text.ljust(schema.get("minLength", 0), ".")
        return text[: schema.get("maxLength", len(text))]
    if kind in {"integer", "number"}:
        least = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1 if "exclusiveMinimum" in schema else 0)
        most = schema.get(
            "maximum", schema.get("exclusiveMaximum", 0) - 1 if "exclusiveMaximum" in schema else least + 9
        )
        step = schema.get("multipleOf", 1)
        first = -(-least // step) * step
        return first + step * (_number(seed) % (max(0, int((most - first) // step)) + 1))
    return bool(_number(seed) % 2) if kind == "boolean" else None


def _resolved(reference: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        found = found.get(part, {}) if part and isinstance(found, Mapping) else found
    return found


def _number(seed: str) -> int:
    return int.from_bytes(hashlib.sha256(seed.encode("utf-8", "surrogatepass")).digest()[:8], "big")
