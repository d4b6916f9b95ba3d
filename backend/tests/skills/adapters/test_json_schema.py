"""Schemas as providers can hold a model to them, and what they cannot."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from app.skills.adapters.json_schema import CLAUDE, OPENAI, Dialect, held
from app.skills.adapters.stub_json import draw
from tests.skills.adapters.conversations import Leaf, Tree

BOUNDED = {
    "type": "object",
    "properties": {
        "n": {"type": "integer", "minimum": 1, "description": "A rank."},
        "s": {"type": "string", "minLength": 2, "format": "date", "default": "x"},
        "u": {"type": "string", "format": "color"},
    },
    "required": ["n"],
}


def test_openai_requires_every_field_and_keeps_the_bounds_it_knows() -> None:
    """What it does not know is told in words."""
    assert held(BOUNDED, OPENAI) == {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 1, "description": "A rank."},
            "s": {"type": "string", "format": "date", "description": '{"minLength": 2}'},
            "u": {"type": "string", "description": '{"format": "color"}'},
        },
        "required": ["n", "s", "u"],
        "additionalProperties": False,
    }


def test_claude_keeps_optional_fields_and_knows_no_bounds() -> None:
    """A bound is said in words."""
    assert held(BOUNDED, CLAUDE) == {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "description": 'A rank. {"minimum": 1}'},
            "s": {"type": "string", "format": "date", "description": '{"minLength": 2}'},
            "u": {"type": "string", "description": '{"format": "color"}'},
        },
        "required": ["n"],
        "additionalProperties": False,
    }


def test_references_stand_alone_and_unions_have_one_name() -> None:
    """``$ref`` beside other keywords, and ``oneOf``, are rejected by both."""
    schema = {
        "type": "object",
        "properties": {"x": {"$ref": "#/$defs/n", "description": "d"}, "y": {"oneOf": [{"type": "null"}]}},
        "$defs": {"n": {"type": "number"}},
    }

    for dialect in (OPENAI, CLAUDE):
        sent = held(schema, dialect)
        assert sent is not None
        assert sent["properties"] == {"x": {"$ref": "#/$defs/n"}, "y": {"anyOf": [{"type": "null"}]}}
        assert sent["$defs"] == {"n": {"type": "number"}}


@pytest.mark.parametrize(
    ("schema", "dialect"),
    [
        ({"type": "object", "additionalProperties": {"type": "string"}}, OPENAI),
        ({"type": "object"}, CLAUDE),
        ({"type": "object", "properties": {"a": {"not": {"type": "null"}}}}, OPENAI),
        ({"type": "object", "properties": {"a": {"type": "array", "prefixItems": [{"type": "null"}]}}}, CLAUDE),
        ({"type": "object", "properties": {"a": {}}}, OPENAI),
        (
            {
                "type": "object",
                "properties": {"a": {"allOf": [{"$ref": "#/$defs/x"}]}},
                "$defs": {"x": {"type": "null"}},
            },
            OPENAI,
        ),
        (Tree.model_json_schema(), CLAUDE),
    ],
)
def test_a_shape_that_cannot_be_held(schema: dict[str, Any], dialect: Dialect) -> None:
    """Free names, negations, anything at all, and what contains itself where that is not known."""
    assert held(schema, dialect) is None


def test_a_schema_that_contains_itself_can_be_held_by_openai() -> None:
    """References may go round there."""
    assert held(Tree.model_json_schema(), OPENAI) is not None
    assert held(Leaf.model_json_schema(), CLAUDE) is not None


_leaves = st.sampled_from(
    [
        {"type": "string"},
        {"type": "string", "minLength": 3, "maxLength": 5},
        {"type": "string", "format": "date"},
        {"type": "integer", "minimum": 3, "maximum": 7},
        {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
        {"type": "integer", "minimum": 1, "maximum": 20, "multipleOf": 4},
        {"type": "boolean"},
        {"type": "null"},
        {"enum": ["a", 1, None]},
        {"const": {"x": 1}},
        {"type": ["string", "null"]},
    ]
)
_schemas = st.recursive(
    _leaves,
    lambda inner: (
        st.builds(lambda items, least: {"type": "array", "items": items, "minItems": least}, inner, st.integers(0, 3))
        | st.builds(lambda options: {"anyOf": options}, st.lists(inner, min_size=1, max_size=3))
        | st.builds(
            lambda fields: {"type": "object", "properties": fields, "required": sorted(fields)},
            st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        )
    ),
    max_leaves=8,
)


@given(schema=_schemas, seed=st.text(max_size=3))
def test_what_the_stub_draws_satisfies_the_schema(schema: dict[str, Any], seed: str) -> None:
    """The stub's objects are ones that the schema takes, the same for the same seed."""
    value = draw(schema, seed=seed, words=["tide", "pier"])

    assert Draft202012Validator(schema).is_valid(value)
    assert draw(schema, seed=seed, words=["tide", "pier"]) == value
