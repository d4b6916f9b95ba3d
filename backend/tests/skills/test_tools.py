"""Tools from type hints: what a model is told, and how its arguments become those of the function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from app.errors import InvalidInputError, ToolError
from app.skills.llm_invoke_v2 import LLMConfig, Tool


class Area(BaseModel):
    """Where to look."""

    north: float
    name: str = "here"


@dataclass
class Pair:
    """Two numbers."""

    left: int
    right: int


async def search(
    query: Annotated[str, Field(description="What to look for.")],
    area: Area,
    pair: Pair,
    limit: Annotated[int, Field(ge=1, le=5)] = 3,
    order: Literal["new", "old"] = "new",
) -> dict[str, Any]:
    """Search the archive.

    It has everything since 1900.
    """
    return {"query": query, "area": area, "pair": pair, "limit": limit, "order": order}


def test_a_function_is_described_by_its_name_documentation_and_hints() -> None:
    """Types, defaults, bounds and descriptions are in the schema; what has a default is not required."""
    tool = Tool.of(search)

    assert tool.name == "search"
    assert tool.description == "Search the archive.\n\nIt has everything since 1900."
    properties = tool.parameters["properties"]
    assert list(properties) == ["query", "area", "pair", "limit", "order"]
    assert properties["query"]["description"] == "What to look for."
    assert (properties["limit"]["minimum"], properties["limit"]["default"]) == (1, 3)
    assert properties["order"]["enum"] == ["new", "old"]
    assert tool.parameters["required"] == ["query", "area", "pair"]
    assert tool.parameters["additionalProperties"] is False


async def test_arguments_become_what_the_hints_say() -> None:
    """Models and dataclasses are built, defaults filled in."""
    given = {"query": "tide", "area": {"north": 60}, "pair": {"left": 1, "right": 2}}

    found = await Tool.of(search).call(given)

    assert found == {
        "query": "tide",
        "area": Area(north=60.0),
        "pair": Pair(1, 2),
        "limit": 3,
        "order": "new",
    }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "query: Field required"),
        ({"query": 1, "area": {"north": 1}, "pair": {"left": 1, "right": 1}}, "query: Input should be a valid string"),
        ({"query": "a", "area": {"north": "x"}, "pair": {"left": 1, "right": 1}}, "area.north"),
        (
            {"query": "a", "area": {"north": 1}, "pair": {"left": 1, "right": 1}, "limit": 9},
            "limit.*less than or equal",
        ),
        ({"query": "a", "area": {"north": 1}, "pair": {"left": 1, "right": 1}, "more": 1}, "more: Extra inputs"),
    ],
)
async def test_arguments_that_do_not_fit_are_told_to_the_model(arguments: dict[str, Any], says: str) -> None:
    """By name and reason, without the function being called."""
    with pytest.raises(ToolError, match=says):
        await Tool.of(search).call(arguments)


async def test_what_the_model_does_not_give_is_given_by_the_caller() -> None:
    """A parameter that is left out is not in the schema, and is passed as it is."""

    async def deliver(city: str, model_config: str, context: object) -> object:
        """Deliver it."""
        return city, model_config, context

    tool, marker = Tool.of(deliver, leave_out=("context",)), object()

    assert list(tool.parameters["properties"]) == ["city", "model_config"]
    assert await tool.call({"city": "Bergen", "model_config": "m"}, context=marker) == ("Bergen", "m", marker)


def _not_async(city: str) -> str:
    return city


async def _untyped(city) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001  # the point of the test
    return str(city)


async def _by_position(*cities: str) -> str:
    return "".join(cities)


async def _of_no_schema(handle: type(NotImplemented)) -> str:  # type: ignore[valid-type]  # the point of the test
    return str(handle)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (_not_async, "async def"),
        (_untyped, "type hint on 'city'"),
        (_by_position, "cannot give by name"),
        (_of_no_schema, "none that JSON can express"),
    ],
)
def test_a_function_that_cannot_be_a_tool(function: Any, says: str) -> None:
    """It is refused with what to change."""
    with pytest.raises(InvalidInputError, match=says):
        Tool.of(function)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"name": "two words"}, "1 to 64 letters"),
        ({"name": ""}, "1 to 64 letters"),
        ({"name": "x" * 65}, "1 to 64 letters"),
        ({"name": "auto"}, "none of auto"),
        ({"name": "f", "parameters": {"type": "array"}}, "schema of an object"),
    ],
)
def test_a_description_that_no_provider_takes(fields: dict[str, Any], says: str) -> None:
    """A name that cannot be sent or told apart from a choice, and parameters that are no object."""
    with pytest.raises(InvalidInputError, match=says):
        Tool(**fields)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"tools": (Tool(name="f"), Tool(name="f"))}, "two tools are called 'f'"),
        ({"tool_choice": "auto"}, "needs tools"),
        ({"tools": (Tool(name="f"),), "tool_choice": "g"}, "or the name of a tool"),
        ({"reasoning_effort": "huge"}, "reasoning_effort must be one of"),
        ({"service_tier": "scale"}, "service_tier must be one of"),
        ({"cache": "2h"}, "cache must be one of"),
        ({"schema": int}, "Pydantic model or a JSON schema"),
        ({"schema": {"type": "array"}}, "must be of an object"),
        ({"schema": {"type": "object", "properties": 1}}, r"not valid at \$.properties"),
    ],
)
def test_a_config_that_no_provider_takes(fields: dict[str, Any], says: str) -> None:
    """Said when it is made, long before a call."""
    with pytest.raises(InvalidInputError, match=says):
        LLMConfig(**fields)


async def test_a_tool_without_a_function_is_only_described() -> None:
    """It cannot be called here."""
    with pytest.raises(InvalidInputError, match="no function"):
        await Tool(name="f").call({})
