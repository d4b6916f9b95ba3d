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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias, cast, overload

from app.errors import InvalidInputError, WorkflowDefinitionError
from app.skills.llm_invoke_v2 import LLMConfig
from app.stores.checkpoint.codec import canonical_json
from app.workflow.definition import Workflow
from app.workflow.documents import Document, Item, cut_text
from app.workflow.flow_inputs import annotation_of_input, typed_input
from app.workflow.flow_model import FlowInput, FlowStep, read_model
from app.workflow.flow_settings import FlowSettings, template_at
from app.workflow.flow_templates import Known, Template
from app.workflow.flow_yaml import MAX_FLOW_CHARS, Places, read_yaml
from app.workflow.run import Run
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
    _steps: tuple[_Step, ...]
    _settings: FlowSettings
    _output: str

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
                inputs[name] = typed_input(name, says, given[name], base=Path())
            elif "default" in says.model_fields_set:
                inputs[name] = None if says.default is None else typed_input(name, says, says.default, base=self.base)
            else:
                raise InvalidInputError(
                    f"flow {self.name!r} needs the input {name!r} ({says.description or says.type}); "
                    f"its inputs are: {self._known()}"
                )
        for step in self._steps:
            self._settings.config(step.position, inputs)
            self._settings.whole(step.position, "concurrency", inputs)
            self._settings.whole(step.position, "max_chars", inputs)
        return inputs

    def workflow(self) -> Workflow[Any]:
        """Return the flow as a workflow, whose inputs are those of :meth:`read_inputs`."""
        parameters = {
            name: inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=annotation_of_input(says),
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
            config = self._settings.config(step.position, inputs)
            limit = says.timeout_s
            if says.map is None:
                call = SkillCall(prompt=step.prompt.render(values), config=_with_system(config, step, values))
                values[says.id] = await run.step(says.id, step.skill, call, retries=says.retries, timeout=limit)
                continue
            items = cast("Sequence[Document | Item]", values[says.map])
            max_chars = self._settings.whole(step.position, "max_chars", inputs)
            texts = await run.map(
                says.id,
                step.skill,
                _Calls(step, config, values, items, max_chars),
                concurrency=self._settings.whole(step.position, "concurrency", inputs) or 1,
                retries=says.retries,
                timeout=limit,
            )
            values[says.id] = [Item(name=item.name, text=text) for item, text in zip(items, texts, strict=True)]
        output = values[self._output]
        return [item.text for item in output] if isinstance(output, list) else str(output)

    def _known(self) -> str:
        return ", ".join(self.inputs) or "none"


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
    steps: list[_Step] = []
    for position, says in enumerate(model.steps):
        steps.append(_compiled(position, says, names, places, skills))
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
        _steps=tuple(steps),
        _settings=FlowSettings(model, places),
        _output=model.output or model.steps[-1].id,
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
        prompt=template_at((*path, "prompt"), says.prompt, visible, places),
        system=None if says.system is None else template_at((*path, "system"), says.system, visible, places),
    )


def _with_system(config: LLMConfig, step: _Step, values: Mapping[str, object]) -> LLMConfig:
    if step.system is None:
        return config
    return replace(config, system=step.system.render(values))
