"""What a flow file may say: the keys, their types and their limits."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from app.workflow.flow_yaml import Places

__all__ = ["FlowConfig", "FlowInput", "FlowModel", "FlowStep", "InputType", "read_model"]

InputType = Literal["documents", "string", "integer", "number", "boolean"]

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Text = Annotated[str, StringConstraints(min_length=1)]
Number = int | float | str | None
"""A number, or a template that gives one."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class FlowInput(_Strict):
    """An input. Without a default it must be given; a default of documents is a path beside the flow file."""

    type: InputType
    description: str = ""
    default: str | int | float | bool | None = None


class FlowConfig(_Strict):
    """How calls are made; each text and number may be a template over the inputs, and an empty one counts as unset."""

    model: str | None = None
    max_tokens: Number = None
    temperature: Number = None
    top_p: Number = None
    seed: Number = None
    timeout_s: Number = None
    stop: list[Text] = Field(default_factory=list)
    extra: dict[str, str | int | float | bool | list[str | int | float | bool]] = Field(default_factory=dict)


class FlowStep(_Strict):
    """A step: one prompt, or with ``map`` one for each document or earlier output.

    ``as`` names the item in the prompt (``name``, ``text``); ``max_chars`` cuts its text.
    """

    id: Name
    skill: str = "llm"
    map: Name | None = None
    as_: Name = Field(default="item", alias="as")
    concurrency: Number = 4
    max_chars: Number = None
    prompt: Text
    system: Text | None = None
    config: FlowConfig = Field(default_factory=FlowConfig)
    retries: Annotated[int, Field(ge=0, le=20)] = 0
    timeout_s: Annotated[int | float | None, Field(gt=0)] = None


class FlowModel(_Strict):
    """A flow."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,99}$")]
    version: str | int | float = "1"
    description: str = ""
    inputs: dict[Name, FlowInput] = Field(default_factory=dict)
    defaults: FlowConfig = Field(default_factory=FlowConfig)
    steps: Annotated[list[FlowStep], Field(min_length=1, max_length=100)]
    output: Name | None = None


_PATTERNS: Final = {
    r"^[a-z][a-z0-9_]{0,63}$": "a name is up to 64 small letters, digits and underscores, and begins with a letter",
    r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,99}$": "it is up to 100 letters, digits, spaces and . _ -",
}


def read_model(data: Any, places: Places) -> FlowModel:
    """Return the flow that YAML data describes.

    Raises:
        WorkflowDefinitionError: the first thing that is wrong, with its place and what to write.
    """
    if not isinstance(data, dict):
        raise places.error((), "a flow is a mapping that begins with its `name:`")
    try:
        return FlowModel.model_validate(data)
    except ValidationError as error:
        # The unknown key first: where one is misspelt, the right one is missing too, and that is no help.
        problems = error.errors(include_url=False, include_input=False)
        problem = next((each for each in problems if each["type"] == "extra_forbidden"), problems[0])
        path = [part for part in problem["loc"] if part != "[key]"]
        raise places.error(path, _explain(problem["type"], problem["msg"], path, problem.get("ctx") or {})) from None


def _explain(kind: str, message: str, path: Sequence[str | int], context: Mapping[str, Any]) -> str:
    name = str(path[-1]) if path else ""
    if kind == "extra_forbidden":
        known = _keys_at(path)
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known)}"
        return f"unknown key {name!r}; {hint}"
    if kind == "missing":
        return f"the key {name!r} is missing"
    if kind == "string_pattern_mismatch":
        return f"{name!r} is not valid: {_PATTERNS.get(context.get('pattern', ''), message)}"
    return f"{'.'.join(str(part) for part in path)}: {message}"


def _keys_at(path: Sequence[str | int]) -> list[str]:
    """Return the keys that the mapping around ``path`` may have."""
    model: type[BaseModel] = FlowModel
    above = list(path[:-1])
    if above[:1] == ["steps"]:
        model = FlowConfig if "config" in above else FlowStep
    elif above[:1] == ["inputs"]:
        model = FlowInput
    elif above[:1] == ["defaults"]:
        model = FlowConfig
    return [field.alias or name for name, field in model.model_fields.items()]
