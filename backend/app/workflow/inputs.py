"""What a run was started with, as it is recorded: the inputs, the limits, and the text of a flow.

Small inputs lie in the head of the run. Large ones, such as documents, are recorded as the run's first steps, in parts
of about a quarter of a megabyte, and the head holds their digest. Only when all of them are on record does the workflow
begin; a start that was cut before can be repeated with the same inputs, and nothing else. Resuming never reads an input
from anywhere but the record.
"""

from __future__ import annotations

import hashlib
import typing
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, cast

from app.errors import WorkflowError
from app.stores.checkpoint.codec import JsonValue, canonical_json
from app.stores.checkpoint.contract import Step
from app.workflow.documents import Document
from app.workflow.policies import RunLimits
from app.workflow.values import restore, to_json

__all__ = ["INPUTS_PREFIX", "InputPart", "StartRecord", "StoredInput", "input_parts", "read_inputs"]

INPUTS_PREFIX: Final = "inputs/"
"""In front of the ids of the steps that hold inputs; no step of a workflow may begin with it."""

_FORMAT: Final = 1
_INLINE_BYTES: Final = 4096
_PART_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredInput:
    """An input that lies in steps.

    Attributes:
        parts: the number of steps.
        count: the length of a list, of which each part holds a piece; None for a value that is one part as it is.
        sha256: of the value, in hex.
    """

    parts: int
    count: int | None
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InputPart:
    """A step to be recorded for an input, and how many items it holds."""

    step_id: str
    value: JsonValue
    items: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRecord:
    """What the head of a run says about its start."""

    inline: Mapping[str, JsonValue]
    stored: Mapping[str, StoredInput] = field(default_factory=dict)
    limits: RunLimits = field(default_factory=RunLimits)
    flow: str | None = None

    @classmethod
    def of(cls, inputs: Mapping[str, object], *, limits: RunLimits, flow: str | None) -> StartRecord:
        """Describe inputs.

        Raises:
            StateNotStorableError: an input, or an item of a list, is not JSON or too large.
        """
        inline: dict[str, JsonValue] = {}
        stored: dict[str, StoredInput] = {}
        for name, value in inputs.items():
            digest, size, parts = hashlib.sha256(), 0, 0
            for part in input_parts(name, value):
                encoded = canonical_json(part.value, what=f"the input {name!r}")
                digest.update(len(encoded).to_bytes(8, "big") + encoded)
                size += len(encoded)
                parts += 1
            if size <= _INLINE_BYTES:
                inline[name] = to_json(value, what=f"the input {name!r}")
            else:
                count = len(value) if isinstance(value, list | tuple) else None
                stored[name] = StoredInput(parts=parts, count=count, sha256=digest.hexdigest())
        return cls(inline=inline, stored=stored, limits=limits, flow=flow)

    @property
    def steps(self) -> int:
        """How many steps the inputs take."""
        return sum(stored.parts for stored in self.stored.values())

    def same_start(self, other: StartRecord) -> bool:
        """Whether both start the same work; the moment of the deadline may differ."""
        return (self.inline, self.stored, self.limits.budget, self.flow) == (
            other.inline,
            other.stored,
            other.limits.budget,
            other.flow,
        )

    def encode(self) -> JsonValue:
        """Return the JSON that is recorded as the run's inputs."""
        deadline = self.limits.deadline_at
        return {
            "format": _FORMAT,
            "inputs": dict(self.inline),
            "stored": {
                name: {"parts": stored.parts, "count": stored.count, "sha256": stored.sha256}
                for name, stored in self.stored.items()
            },
            "budget": self.limits.budget,
            "deadline_at": None if deadline is None else deadline.isoformat(),
            "flow": self.flow,
        }

    @classmethod
    def decode(cls, value: JsonValue, *, run_id: str) -> StartRecord:
        """Read what :meth:`encode` wrote.

        Raises:
            WorkflowError: the run was not started by a workflow runner, or by a newer one.
        """
        if not isinstance(value, dict) or value.get("format") != _FORMAT:
            raise WorkflowError(
                f"run {run_id!r} was not started by this version of Nova's workflow runner, so it cannot resume it"
            )
        record = cast("dict[str, Any]", value)
        deadline = record["deadline_at"]
        return cls(
            inline=record["inputs"],
            stored={name: StoredInput(**stored) for name, stored in record["stored"].items()},
            limits=RunLimits(
                budget=record["budget"], deadline_at=None if deadline is None else datetime.fromisoformat(deadline)
            ),
            flow=record["flow"],
        )


def input_parts(name: str, value: object) -> Iterator[InputPart]:
    """Yield the parts of an input, made one at a time: a list in pieces of about ``_PART_BYTES``, else the value."""
    what = f"the input {name!r}"
    if not isinstance(value, list | tuple):
        yield InputPart(step_id=f"{INPUTS_PREFIX}{name}", value=to_json(value, what=what), items=1)
        return
    piece: list[JsonValue] = []
    size = number = 0
    for position, item in enumerate(value):
        plain = to_json(item, what=what, path=f"$[{position}]")
        length = len(canonical_json(plain, what=f"{what}, item {position},"))
        if piece and size + length > _PART_BYTES:
            yield InputPart(step_id=f"{INPUTS_PREFIX}{name}/{number}", value=piece, items=len(piece))
            piece, size, number = [], 0, number + 1
        piece.append(plain)
        size += length
    yield InputPart(step_id=f"{INPUTS_PREFIX}{name}/{number}", value=piece, items=len(piece))


def read_inputs(
    record: StartRecord,
    annotations: Mapping[str, object],
    steps: MutableMapping[str, Step],
    *,
    given: Mapping[str, object] | None,
    run_id: str,
) -> dict[str, object]:
    """Return the inputs as the workflow takes them, and take their steps out of ``steps``.

    Args:
        record: what the head says.
        annotations: the types of the inputs by name.
        steps: the recorded steps by id.
        given: the inputs of a start that was just recorded. Documents are taken from there, as they hold nothing that
            JSON changes; so the run keeps one copy of them. None when resuming.
        run_id: for errors.

    Raises:
        WorkflowError: the start was cut before all of them were recorded.
        WorkflowDefinitionError: a value does not fit its type any more.
    """
    inputs: dict[str, object] = {}
    for name, value in record.inline.items():
        inputs[name] = restore(annotations.get(name), value, what=f"the input {name!r}")
    for name, stored in record.stored.items():
        annotation = annotations.get(name)
        recorded = _recorded_parts(name, stored, steps, run_id=run_id)
        if given is not None:
            recorded = (part.value for part in input_parts(name, given[name]))
            _drop(name, stored, steps)
        if given is not None and _only_documents(annotation, given[name]):
            inputs[name] = given[name]
        elif stored.count is None:
            inputs[name] = restore(annotation, next(recorded), what=f"the input {name!r}")
        else:
            inputs[name] = _read_list(name, recorded, annotation)
    return inputs


def _read_list(name: str, parts: Iterator[JsonValue], annotation: object) -> object:
    """Restore a list part by part; each part is let go before the next is looked at."""
    item_type = _item_type(annotation)
    items: list[object] = []
    for part in parts:
        items.extend(_read_item(name, item_type, item) for item in cast("list[JsonValue]", part))
    return tuple(items) if typing.get_origin(annotation) is tuple else items


def _read_item(name: str, item_type: object, item: JsonValue) -> object:
    if item_type is Document and isinstance(item, dict) and item.keys() == {"name", "text"}:
        # Made of the very strings that were loaded: a thousand documents are not copied.
        return Document(str(item["name"]), str(item["text"]))
    return restore(item_type, item, what=f"an item of the input {name!r}")


def _recorded_parts(
    name: str, stored: StoredInput, steps: MutableMapping[str, Step], *, run_id: str
) -> Iterator[JsonValue]:
    for number in range(stored.parts):
        step = steps.pop(_part_id(name, number if stored.count is not None else None), None)
        if step is None:
            raise WorkflowError(
                f"run {run_id!r} was cut before its inputs were recorded (part {number + 1} of {stored.parts} of the "
                f"input {name!r} is missing), so its work never began. Start it again with the same run id and inputs"
            )
        yield step.output


def _drop(name: str, stored: StoredInput, steps: MutableMapping[str, Step]) -> None:
    for number in range(stored.parts):
        steps.pop(_part_id(name, number if stored.count is not None else None), None)


def _part_id(name: str, number: int | None) -> str:
    return f"{INPUTS_PREFIX}{name}" if number is None else f"{INPUTS_PREFIX}{name}/{number}"


def _item_type(annotation: object) -> object:
    arguments = typing.get_args(annotation)
    return arguments[0] if arguments and typing.get_origin(annotation) is not None else None


def _only_documents(annotation: object, value: object) -> bool:
    return (
        typing.get_origin(annotation) is list
        and _item_type(annotation) is Document
        and isinstance(value, list)
        and all(type(item) is Document for item in value)
    )
