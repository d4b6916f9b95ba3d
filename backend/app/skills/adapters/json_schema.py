"""A JSON schema as a provider can hold a model to it.

Providers compile schemas into grammars, and each knows a part of the language: objects without other fields, no bounds
of numbers, no lengths. What they do not know is told to the model in the field's description, and is checked afterwards
all the same (:mod:`app.skills.structured`). A schema whose shape they cannot follow is not held at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["CLAUDE", "OPENAI", "Dialect", "held"]

_SAME: Final = frozenset({"type", "enum", "const", "title"})
_FORMATS: Final = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_SHAPES: Final = frozenset(
    {
        *("not", "if", "then", "else", "patternProperties", "propertyNames", "dependentRequired", "dependentSchemas"),
        *("prefixItems", "contains", "unevaluatedItems", "unevaluatedProperties", "$dynamicRef", "definitions"),
    }
)
"""Keywords that change which shapes are valid, and that no provider follows."""
_SILENT: Final = frozenset({"default", "$schema", "$id", "$comment", "examples", "deprecated", "readOnly", "writeOnly"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What a provider understands.

    Attributes:
        all_required: every field of an object must be required.
        keywords: bounds that it holds.
        recursive: whether a schema may refer to itself.
        all_of: whether several schemas can hold at once.
    """

    all_required: bool
    keywords: frozenset[str]
    recursive: bool
    all_of: bool


# https://developers.openai.com/api/docs/guides/structured-outputs (supported schemas), November 2026.
OPENAI: Final = Dialect(
    all_required=True,
    keywords=frozenset(
        {"pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems"}
    ),
    recursive=True,
    all_of=False,
)
# https://platform.claude.com/docs/en/build-with-claude/structured-outputs (limitations), November 2026.
CLAUDE: Final = Dialect(all_required=False, keywords=frozenset(), recursive=False, all_of=True)


def held(schema: Mapping[str, Any], dialect: Dialect) -> dict[str, Any] | None:
    """Return the schema as it is sent, or None where the provider cannot hold a model to its shape."""
    walk = _Walk(dialect)
    sent = walk.node(schema)
    if not walk.possible or (not dialect.recursive and _is_recursive(schema)):
        return None
    return sent


@dataclass(slots=True)
class _Walk:
    """One way through a schema; ``possible`` becomes False at a shape that cannot be held."""

    dialect: Dialect
    possible: bool = field(default=True)

    def node(self, schema: object) -> dict[str, Any]:
        """Return a schema and those inside of it, rewritten."""
        if not isinstance(schema, Mapping) or not schema or schema.keys() & _SHAPES:
            self.possible = False
            return {}
        sent: dict[str, Any] = {}
        if "$defs" in schema:
            sent["$defs"] = {name: self.node(part) for name, part in schema["$defs"].items()}
        if "$ref" in schema:
            return {**sent, "$ref": schema["$ref"]}  # a reference stands alone; what is beside it is checked afterwards
        merged = self._merged(schema)
        told: dict[str, Any] = {}
        for name, value in merged.items():
            if name in _SAME or name in self.dialect.keywords:
                sent[name] = value
            elif name in {"anyOf", "oneOf"}:
                sent["anyOf"] = [self.node(part) for part in value]
            elif name == "allOf":
                sent["allOf"] = [self.node(part) for part in value]
                self.possible = self.possible and self.dialect.all_of
            elif name == "items":
                sent["items"] = self.node(value)
            elif name == "format" and value in _FORMATS:
                sent["format"] = value
            elif name not in _SILENT and name not in {
                "$defs",
                "description",
                "properties",
                "required",
                "additionalProperties",
            }:
                told[name] = value
        if "properties" in merged or merged.get("type") == "object":
            sent.update(self._object(merged))
        words = [str(merged["description"])] if merged.get("description") else []
        if told:
            words.append(json.dumps(told, ensure_ascii=False, sort_keys=True))
        if words:
            sent["description"] = " ".join(words)
        return sent

    def _merged(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """Return the schema with an ``allOf`` of one part dissolved."""
        parts = schema.get("allOf")
        if isinstance(parts, list) and len(parts) == 1 and isinstance(parts[0], Mapping) and "$ref" not in parts[0]:
            return {**parts[0], **{name: value for name, value in schema.items() if name != "allOf"}}
        return dict(schema)

    def _object(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        fields = schema.get("properties") or {}
        if schema.get("additionalProperties", not fields) is not False:
            self.possible = False  # any name is a valid field: no grammar can close such an object
        required = list(fields) if self.dialect.all_required else list(schema.get("required", ()))
        return {
            "properties": {name: self.node(part) for name, part in fields.items()},
            "required": required,
            "additionalProperties": False,
        }


def _is_recursive(schema: Mapping[str, Any]) -> bool:
    """Whether a definition refers to itself, through others or not, or to the whole schema."""
    uses = {name: _references(part) for name, part in (schema.get("$defs") or {}).items()}
    if "#" in _references(schema):
        return True
    reached = uses
    for _ in uses:
        reached = {name: found.union(*(uses.get(other, set()) for other in found)) for name, found in reached.items()}
    return any(name in found for name, found in reached.items())


def _references(schema: object) -> set[str]:
    if isinstance(schema, Mapping):
        own = {str(schema["$ref"]).removeprefix("#/$defs/")} if "$ref" in schema else set()
        return own.union(*(_references(part) for part in schema.values()))
    if isinstance(schema, list):
        return set[str]().union(*(_references(part) for part in schema))
    return set()
