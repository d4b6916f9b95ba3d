"""The settings of a flow's calls: as they are written, or made by templates from the inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, cast

from app.errors import InvalidInputError
from app.skills.llm_invoke_v2 import LLMConfig
from app.workflow.flow_model import FlowConfig, FlowModel, FlowStep
from app.workflow.flow_templates import Known, Template, TemplateProblemError, compile_template
from app.workflow.flow_yaml import Places
from app.workflow.run import MAX_CONCURRENCY

__all__ = ["FlowSettings", "template_at"]

_Path: TypeAlias = tuple[str | int, ...]

_NUMBERS: Final[Mapping[str, type[int | float]]] = MappingProxyType(
    {"max_tokens": int, "seed": int, "temperature": float, "top_p": float, "timeout_s": float}
)


class FlowSettings:
    """The settings of a flow; those that are templates are compiled and checked when it is made.

    Args:
        model: the flow.
        places: where its parts lie, for errors.

    Raises:
        WorkflowDefinitionError: a template is not valid; names its place.
    """

    def __init__(self, model: FlowModel, places: Places) -> None:
        self._model = model
        self._places = places
        # Settings are made before there are documents and outputs: they see the other inputs only.
        names = {name: Known() for name, says in model.inputs.items() if says.type != "documents"}
        self._templates = _templates_of(("defaults",), model.defaults, names, places)
        for position, step in enumerate(model.steps):
            self._templates |= _templates_of(("steps", position), step, names, places)
            self._templates |= _templates_of(("steps", position, "config"), step.config, names, places)

    def config(self, position: int, inputs: Mapping[str, object]) -> LLMConfig:
        """Return how the calls of a step are made: the step's own settings before the defaults of the flow.

        Raises:
            WorkflowDefinitionError: a setting is not valid, as it is or for these inputs.
        """
        step = self._model.steps[position]
        settings: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        own: tuple[str | int, ...] = ("steps", position, "config")
        for path, config in ((("defaults",), self._model.defaults), (own, step.config)):
            for name in config.model_fields_set - {"extra"}:
                value = self._setting((*path, name), getattr(config, name), inputs, number=_NUMBERS.get(name))
                if value is not None:
                    settings[name] = tuple(value) if name == "stop" else value
            for name, value in config.extra.items():
                filled = self._setting((*path, "extra", name), value, inputs, number=None)
                extra[name] = _scalar(filled) if (*path, "extra", name) in self._templates else filled
        try:
            return LLMConfig(**settings, extra={name: value for name, value in extra.items() if value is not None})
        except InvalidInputError as error:
            raise self._places.error(own, f"step {step.id!r}: {error}") from None

    def whole(
        self, position: int, name: Literal["concurrency", "max_chars"], inputs: Mapping[str, object]
    ) -> int | None:
        """Return a number of a step that is no setting of its calls; errors as for :meth:`config`."""
        path = ("steps", position, name)
        value = self._setting(path, getattr(self._model.steps[position], name), inputs, number=int)
        most = MAX_CONCURRENCY if name == "concurrency" else None
        if value is not None and (value < 1 or (most is not None and value > most)):
            limits = f"from 1 to {most}" if most is not None else "at least 1"
            raise self._places.error(path, f"{name} must be {limits} ({value} given)")
        return cast("int | None", value)

    def _setting(
        self, path: tuple[str | int, ...], value: Any, inputs: Mapping[str, object], *, number: type[int | float] | None
    ) -> Any:
        """Return a setting, filled in where it is a template; an empty text is None."""
        template = self._templates.get(path)
        if template is not None:
            value = template.render({name: "" if given is None else given for name, given in inputs.items()}).strip()
        if value is None or value == "":
            return None
        if number is None or (isinstance(value, int | float) and not (number is int and isinstance(value, float))):
            return value
        try:
            return number(value) if isinstance(value, str) else _whole_number(value)
        except ValueError:
            kind = "a whole number" if number is int else "a number"
            raise self._places.error(path, f"{path[-1]} must be {kind} ({value!r} given)") from None


def template_at(path: _Path, text: str, names: Mapping[str, Known], places: Places) -> Template:
    """Compile the template that lies at a path of a flow.

    Raises:
        WorkflowDefinitionError: it is not valid; names its line.
    """
    where = f"{places.source}: {'.'.join(str(part) for part in path)}"
    try:
        return compile_template(text, names=names, where=where)
    except TemplateProblemError as problem:
        raise places.error(path, str(problem), below=problem.line) from None


def _templates_of(
    path: _Path, says: FlowConfig | FlowStep, names: Mapping[str, Known], places: Places
) -> dict[_Path, Template]:
    """Return the settings that are templates, compiled, by their path."""
    keys = ("concurrency", "max_chars") if isinstance(says, FlowStep) else ("model", *_NUMBERS)
    found: dict[_Path, Any] = {(*path, key): getattr(says, key) for key in keys}
    if isinstance(says, FlowConfig):
        found |= {(*path, "extra", key): value for key, value in says.extra.items()}
    return {
        place: template_at(place, value, names, places)
        for place, value in found.items()
        if isinstance(value, str) and ("{{" in value or "{%" in value)
    }


def _scalar(text: str | None) -> str | int | float | None:
    """Return what a template made for a parameter of unknown type: a number where it reads as one that is finite."""
    for read in (int, float):
        try:
            number = None if text is None else read(text)
            if number is None or math.isfinite(number):
                return number
        except (ValueError, OverflowError):
            continue
    return text


def _whole_number(value: float) -> int:
    if not float(value).is_integer():
        raise ValueError("not whole")
    return int(value)
