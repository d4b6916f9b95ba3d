"""What an answer says, read by a schema."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from app.skills.structured import name_of, read_output


class Answer(BaseModel):
    """What an answer has to be."""

    good: bool
    score: int = 0


SCHEMA = {
    "type": "object",
    "properties": {"good": {"type": "boolean"}, "score": {"type": "integer", "maximum": 9}},
    "required": ["good"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("content", ['{"good": true}', ' {"good": true}\n', '```json\n{"good": true}\n```'])
def test_an_answer_that_satisfies_its_schema(content: str) -> None:
    """Also within the fence that models like to put around JSON."""
    assert read_output(content, Answer) == (Answer(good=True), None)
    assert read_output(content, SCHEMA) == ({"good": True}, None)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "JSON"),
        ('{"good": tr', "JSON"),
        ("I cannot help with that.", "JSON"),
        ("[]", "object"),
        ("{}", "good"),
        ('{"good": "perhaps"}', "good"),
    ],
)
@pytest.mark.parametrize("schema", [Answer, SCHEMA])
def test_an_answer_that_does_not(content: str, says: str, schema: Any) -> None:
    """It is no object, and the reason names the place."""
    output, error = read_output(content, schema)

    assert output is None
    assert error is not None
    assert says in error


@pytest.mark.parametrize("content", ['{"good": true, "score": 10}', '{"good": true, "more": 1}'])
def test_json_that_does_not_satisfy_a_schema(content: str) -> None:
    """Bounds that no provider holds are checked here."""
    output, error = read_output(content, SCHEMA)

    assert (output, bool(error)) == (None, True)


@pytest.mark.parametrize(
    ("schema", "name"),
    [(Answer, "Answer"), ({"title": "A verdict!"}, "A_verdict_"), ({}, "output"), ({"title": "x" * 99}, "x" * 64)],
)
def test_a_schema_has_a_name_that_can_be_sent(schema: Any, name: str) -> None:
    """Letters, digits and underscores, at most 64."""
    assert name_of(schema) == name
