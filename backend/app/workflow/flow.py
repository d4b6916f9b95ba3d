r"""A workflow as a YAML file: inputs, prompts as templates, steps one after another, over documents in parallel.

::

    name: brief
    version: 1
    inputs:
      documents: {type: documents}
    steps:
      - id: notes
        map: documents
        as: document
        prompt: "Take notes on {{ document.name }}:\n{{ document.text }}"
      - id: brief
        prompt: "{% for note in notes %}{{ note.text }}\n{% endfor %}Write one brief from these notes."
"""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias, cast, overload

from app.errors import InvalidInputError, WorkflowDefinitionError
from app.skills.llm_invoke_v2 import LLMConfig
from app.stores.checkpoint.codec import canonical_json
from app.workflow.definition import Workflow
from app.workflow.documents import Document, cut_text, read_documents
from app.workflow.flow_model import FlowConfig, FlowInput, FlowModel, FlowStep, read_model
from app.workflow.flow_templates import Known, Template, TemplateProblemError, compile_template
from app.workflow.flow_yaml import MAX_FLOW_CHARS, Places, read_yaml
from app.workflow.run import MAX_CONCURRENCY, Run
from app.workflow.steps import StepContext

__all__ = ["SKILLS", "Flow", "Skill", "SkillCall", "load_flow", "parse_flow"]

_ITEM: Final = frozenset({"name", "text", "cut"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SkillCall:
    """What a step asks of its skill: a prompt that is filled in, and how calls are made."""

    prompt: str
    config: LLMConfig


Skill: TypeAlias = Callable[..., Awaitable[str]]
"""An async function of a :class:`SkillCall` (and a ``StepContext``, where it asks for one) that returns a text."""


async def _llm(call: SkillCall, context: StepContext) -> str:
    """Ask the model."""
    return (await context.llm(call.prompt, call.config)).content


async def _template(call: SkillCall) -> str:
    """Give the prompt itself: to put texts together without a model."""
    return call.prompt


SKILLS: Final[Mapping[str, Skill]] = MappingProxyType({"llm": _llm, "template": _template})
"""The skills that every flow may use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What a mapped step's prompt sees as its item, and later steps as its output; ``cut`` where text was left off."""

    name: str
    text: str
    cut: bool = False

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """A step whose templates are compiled."""

    position: int
    says: FlowStep
    skill: Skill
    prompt: Template
    system: Template | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A flow file that was read and checked.

    Attributes:
        version: what is recorded with its runs: the declared version and the hash of what the file says; comments and
            layout do not count.
        text: the file; recorded with its runs too.
        base: the folder that default paths of documents are relative to.
    """

    name: str
    version: str
    description: str
    inputs: Mapping[str, FlowInput]
    text: str
    base: Path
    _model: FlowModel
    _steps: tuple[_Step, ...]
    _places: Places
    _settings: Mapping[tuple[str | int, ...], Template]

    def read_inputs(self, given: Mapping[str, object]) -> dict[str, object]:
        """Return the inputs of a run: what is given, as its type says, and defaults for the rest.

        Texts, as from a command line, are turned into numbers and booleans, and paths of documents are read. Everything
        that the inputs decide is checked here, before anything is recorded.

        Raises:
            InvalidInputError: an input is missing, unknown, or not of its type.
            DocumentError: a document cannot be read.
            WorkflowDefinitionError: a setting that a template makes of them is not valid.
        """
        inputs: dict[str, object] = {}
        for name in given:
            if name not in self.inputs:
                raise InvalidInputError(f"flow {self.name!r} has no input {name!r}; its inputs are: {self._known()}")
        for name, says in self.inputs.items():
            if name in given:
                inputs[name] = _typed(name, says, given[name], base=Path())
            elif "default" in says.model_fields_set:
                inputs[name] = None if says.default is None else _typed(name, says, says.default, base=self.base)
            else:
                raise InvalidInputError(
                    f"flow {self.name!r} needs the input {name!r} ({says.description or says.type}); "
                    f"its inputs are: {self._known()}"
                )
        for step in self._steps:
            self._config(step, inputs)
            self._whole(step, "concurrency", inputs)
            self._whole(step, "max_chars", inputs)
        return inputs

    def workflow(self) -> Workflow[Any]:
        """Return the flow as a workflow, whose inputs are those of :meth:`read_inputs`."""
        parameters = {
            name: inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=_annotation(says),
                default=says.default
                if "default" in says.model_fields_set and says.type != "documents"
                else inspect.Parameter.empty,
            )
            for name, says in self.inputs.items()
        }
        return Workflow(name=self.name, version=self.version, function=self._run, inputs=parameters, source=self.text)

    async def _run(self, run: Run, **inputs: object) -> str | list[str]:
        values: dict[str, object] = dict(inputs)
        for step in self._steps:
            says = step.says
            config = self._config(step, inputs)
            limit = says.timeout_s
            if says.map is None:
                call = SkillCall(prompt=step.prompt.render(values), config=_with_system(config, step, values))
                values[says.id] = await run.step(says.id, step.skill, call, retries=says.retries, timeout=limit)
                continue
            items = cast("Sequence[Document | Item]", values[says.map])
            max_chars = self._whole(step, "max_chars", inputs)
            texts = await run.map(
                says.id,
                step.skill,
                _Calls(step, config, values, items, max_chars),
                concurrency=self._whole(step, "concurrency", inputs) or 1,
                retries=says.retries,
                timeout=limit,
            )
            values[says.id] = [Item(name=item.name, text=text) for item, text in zip(items, texts, strict=True)]
        output = values[self._model.output or self._steps[-1].says.id]
        return [item.text for item in output] if isinstance(output, list) else str(output)

    def _known(self) -> str:
        return ", ".join(self.inputs) or "none"

    def _config(self, step: _Step, inputs: Mapping[str, object]) -> LLMConfig:
        """Return how the calls of a step are made: the step's own settings before the defaults of the flow."""
        settings: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        own: tuple[str | int, ...] = ("steps", step.position, "config")
        for path, config in ((("defaults",), self._model.defaults), (own, step.says.config)):
            for name in config.model_fields_set - {"extra"}:
                value = self._setting((*path, name), getattr(config, name), inputs, number=_NUMBERS.get(name))
                if value is not None:
                    settings[name] = tuple(value) if name == "stop" else value
            for name, value in config.extra.items():
                filled = self._setting((*path, "extra", name), value, inputs, number=None)
                extra[name] = _scalar(filled) if (*path, "extra", name) in self._settings else filled
        try:
            return LLMConfig(**settings, extra={name: value for name, value in extra.items() if value is not None})
        except InvalidInputError as error:
            raise self._places.error(own, f"step {step.says.id!r}: {error}") from None

    def _whole(self, step: _Step, name: str, inputs: Mapping[str, object]) -> int | None:
        """Return ``concurrency`` or ``max_chars`` of a step."""
        path = ("steps", step.position, name)
        value = self._setting(path, getattr(step.says, name), inputs, number=int)
        most = MAX_CONCURRENCY if name == "concurrency" else None
        if value is not None and (value < 1 or (most is not None and value > most)):
            limits = f"from 1 to {most}" if most is not None else "at least 1"
            raise self._places.error(path, f"{name} must be {limits} ({value} given)")
        return cast("int | None", value)

    def _setting(
        self, path: tuple[str | int, ...], value: Any, inputs: Mapping[str, object], *, number: type[int | float] | None
    ) -> Any:
        """Return a setting, filled in where it is a template; an empty text is None."""
        template = self._settings.get(path)
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


_NUMBERS: Final[Mapping[str, type[int | float]]] = MappingProxyType(
    {"max_tokens": int, "seed": int, "temperature": float, "top_p": float, "timeout_s": float}
)


class _Calls(Sequence[SkillCall]):
    """The calls of a mapped step, each made when it is asked for: a thousand prompts are never in memory at once."""

    def __init__(
        self,
        step: _Step,
        config: LLMConfig,
        values: Mapping[str, object],
        items: Sequence[Document | Item],
        max_chars: int | None,
    ) -> None:
        self._step = step
        self._config = config
        self._values = values
        self._items = items
        self._max_chars = max_chars

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, position: int) -> SkillCall: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[SkillCall]: ...
    def __getitem__(self, position: int | slice) -> SkillCall | Sequence[SkillCall]:
        if isinstance(position, slice):
            return [self[each] for each in range(*position.indices(len(self)))]
        source = self._items[position]
        text = source.text if self._max_chars is None else cut_text(source.text, self._max_chars)
        item = Item(name=source.name, text=text, cut=len(text) < len(source.text))
        values = {**self._values, self._step.says.as_: item}
        return SkillCall(prompt=self._step.prompt.render(values), config=_with_system(self._config, self._step, values))


def load_flow(path: str | Path, *, skills: Mapping[str, Skill] = SKILLS) -> Flow:
    """Read and check a flow file.

    Raises:
        WorkflowDefinitionError: it cannot be read, or is no valid flow; names file, line and column.
    """
    file = Path(path)
    try:
        with file.open("rb") as opened:
            text = opened.read(4 * MAX_FLOW_CHARS + 1).decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise WorkflowDefinitionError(f"the flow {str(file)!r} cannot be read: {reason}; check the path") from error
    except UnicodeDecodeError as error:
        raise WorkflowDefinitionError(f"the flow {str(file)!r} is not UTF-8 (byte {error.start}); convert it") from None
    return parse_flow(text, source=str(file), base=file.parent, skills=skills)


def parse_flow(
    text: str, *, source: str = "flow", base: Path | None = None, skills: Mapping[str, Skill] = SKILLS
) -> Flow:
    """Check the text of a flow: its keys, its skills, and every variable of its templates.

    Args:
        text: the YAML.
        source: its name in errors.
        base: the folder that default paths of documents are relative to; None is the current one.
        skills: what ``skill:`` may name.

    Raises:
        WorkflowDefinitionError: it is no valid flow; names line and column.
    """
    data, places = read_yaml(text, source=source)
    model = read_model(data, places)
    names: dict[str, Known] = {
        name: Known(items=_ITEM - {"cut"} if says.type == "documents" else None) for name, says in model.inputs.items()
    }
    plain = {name: Known() for name, says in model.inputs.items() if says.type != "documents"}
    settings = dict(_settings_of(("defaults",), model.defaults, plain, places))
    steps: list[_Step] = []
    for position, says in enumerate(model.steps):
        steps.append(_compiled(position, says, names, places, skills))
        settings.update(_settings_of(("steps", position), says, plain, places))
        settings.update(_settings_of(("steps", position, "config"), says.config, plain, places))
        names[says.id] = Known(items=_ITEM if says.map is not None else None)
    if model.output is not None and model.output not in {says.id for says in model.steps}:
        raise places.error(("output",), f"there is no step {model.output!r}; name the step whose output is the result")
    digest = hashlib.sha256(canonical_json(data, what="the flow")).hexdigest()
    return Flow(
        name=model.name,
        version=f"{model.version}+{digest[:16]}",
        description=model.description,
        inputs=model.inputs,
        text=text,
        base=base or Path(),
        _model=model,
        _steps=tuple(steps),
        _places=places,
        _settings=settings,
    )


def _compiled(
    position: int, says: FlowStep, names: Mapping[str, Known], places: Places, skills: Mapping[str, Skill]
) -> _Step:
    path: tuple[str | int, ...] = ("steps", position)
    if says.skill not in skills:
        raise places.error((*path, "skill"), f"unknown skill {says.skill!r}; there are: {', '.join(sorted(skills))}")
    for key, name in (("id", says.id), ("as", says.as_ if says.map is not None else "")):
        if name in names or name == "loop" or (key == "as" and name == says.id):
            raise places.error((*path, key), f"the name {name!r} is taken; each input, step and item needs its own")
    visible = dict(names)
    if says.map is not None:
        if says.map not in names or names[says.map].items is None:
            lists = ", ".join(sorted(name for name, known in names.items() if known.items is not None))
            raise places.error(
                (*path, "map"), f"{says.map!r} is no list of documents or outputs; there are: {lists or 'none'}"
            )
        visible[says.as_] = Known(attributes=_ITEM)
    elif says.max_chars is not None:
        raise places.error(
            (*path, "max_chars"), "max_chars cuts the item of a step with `map:`; here use the filter cut(…)"
        )
    return _Step(
        position=position,
        says=says,
        skill=skills[says.skill],
        prompt=_template_at((*path, "prompt"), says.prompt, visible, places),
        system=None if says.system is None else _template_at((*path, "system"), says.system, visible, places),
    )


def _settings_of(
    path: tuple[str | int, ...], says: FlowConfig | FlowStep, names: Mapping[str, Known], places: Places
) -> dict[tuple[str | int, ...], Template]:
    """Return the settings that are templates, compiled, by their path."""
    keys = ("concurrency", "max_chars") if isinstance(says, FlowStep) else ("model", *_NUMBERS)
    found: dict[tuple[str | int, ...], Any] = {(*path, key): getattr(says, key) for key in keys}
    if isinstance(says, FlowConfig):
        found |= {(*path, "extra", key): value for key, value in says.extra.items()}
    return {
        place: _template_at(place, value, names, places)
        for place, value in found.items()
        if isinstance(value, str) and ("{{" in value or "{%" in value)
    }


def _template_at(path: tuple[str | int, ...], text: str, names: Mapping[str, Known], places: Places) -> Template:
    where = f"{places.source}: {'.'.join(str(part) for part in path)}"
    try:
        return compile_template(text, names=names, where=where)
    except TemplateProblemError as problem:
        raise places.error(path, str(problem), below=problem.line) from None


def _with_system(config: LLMConfig, step: _Step, values: Mapping[str, object]) -> LLMConfig:
    if step.system is None:
        return config
    return replace(config, system=step.system.render(values))


def _annotation(says: FlowInput) -> object:
    types: dict[str, Any] = {
        "documents": list[Document],
        "string": str,
        "integer": int,
        "number": float,
        "boolean": bool,
    }
    optional = "default" in says.model_fields_set and says.default is None
    return types[says.type] | None if optional else types[says.type]


def _typed(name: str, says: FlowInput, value: object, *, base: Path) -> object:
    """Return a value as the input's type.

    Raises:
        InvalidInputError: it is none.
    """
    if says.type == "documents":
        if isinstance(value, str | Path):
            return read_documents(base / Path(value).expanduser())
        if isinstance(value, list) and value and all(isinstance(each, Document) for each in value):
            return value
        raise InvalidInputError(f"the input {name!r} must be the path of a text file or a folder of them")
    if says.type == "string" and isinstance(value, str):
        return value
    if says.type == "boolean":
        words: dict[object, bool] = {True: True, False: False, "true": True, "yes": True, "false": False, "no": False}
        known = value.lower() if isinstance(value, str) else value
        if isinstance(known, str | bool) and known in words:
            return words[known]
    elif says.type in {"integer", "number"} and not isinstance(value, bool):
        try:
            number = float(value) if isinstance(value, str | int | float) else None
            if number is not None and math.isfinite(number):
                return int(str(value)) if says.type == "integer" else number
        except ValueError:
            pass
    kinds = {"string": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false"}
    raise InvalidInputError(f"the input {name!r} must be {kinds[says.type]} ({value!r:.60} given)")


def _scalar(text: str | None) -> str | int | float | None:
    """Return what a template made for a parameter of unknown type: a number where it reads as one."""
    for number in (int, float):
        try:
            return None if text is None else number(text)
        except ValueError:
            continue
    return text


def _whole_number(value: float) -> int:
    if not float(value).is_integer():
        raise ValueError("not whole")
    return int(value)
