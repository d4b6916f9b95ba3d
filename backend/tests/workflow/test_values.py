"""Values become JSON and come back equal; a fingerprint is the same in every process."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from app.errors import StateNotStorableError, WorkflowDefinitionError
from app.workflow.values import annotation_of, fingerprint, restore, to_json

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


class Mood(StrEnum):
    """An enum of texts."""

    GOOD = "good"


class Level(Enum):
    """An enum of numbers."""

    ONE = 1


@dataclass(frozen=True)
class Point:
    """A dataclass in a dataclass."""

    x: int
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Everything:
    """One of each type that the standard library brings."""

    point: Point
    day: date
    moment: datetime
    length: timedelta
    price: Decimal
    key: UUID
    mood: Mood
    level: Level
    path: Path
    raw: bytes
    names: frozenset[str] = field(default_factory=frozenset)


class Strict(BaseModel):
    """A model that takes no type for another."""

    model_config = ConfigDict(strict=True)

    when: datetime
    pair: tuple[int, str]
    words: set[str] = Field(alias="someWords")


EVERYTHING = Everything(
    point=Point(1, ("a", "b")),
    day=date(2026, 11, 24),
    moment=datetime(2026, 11, 24, 10, 20, tzinfo=UTC),
    length=timedelta(minutes=3),
    price=Decimal("0.10"),
    key=UUID(int=7),
    mood=Mood.GOOD,
    level=Level.ONE,
    path=Path("a/b.txt"),
    raw="é".encode(),
    names=frozenset({"x", "y"}),
)


@given(json_values)
def test_json_comes_back_as_it_is(value: Any) -> None:
    """What is JSON already is neither changed by recording nor by restoring."""
    recorded = to_json(value, what="it")

    assert recorded == value
    assert restore(Any, recorded, what="it") == value


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Everything, EVERYTHING),
        (list[Point], [Point(1), Point(2, ("x",))]),
        (dict[str, Point | None], {"a": Point(1), "b": None}),
        (tuple[int, ...], (1, 2)),
        (set[str], {"b", "a", "c"}),
        (Strict, Strict(when=EVERYTHING.moment, pair=(1, "a"), someWords={"q", "p"})),
        (Annotated[list[int], Field(min_length=1)], [1]),
        (bytes, b"abc"),
    ],
)
def test_typed_values_come_back_equal(annotation: Any, value: object) -> None:
    """A value of a declared type is equal after the way through JSON, strict models and aliases included."""
    recorded = to_json(value, what="it")

    assert restore(annotation, recorded, what="it") == value


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    """Sets of strings are ordered differently in each process; their fingerprints are not."""
    code = (
        "from app.workflow.values import fingerprint\n"
        "print(fingerprint({'b', 'a', 'zz', 'q'}, {'k': frozenset('xyz')}, what='it'))"
    )

    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert found == {fingerprint({"b", "a", "zz", "q"}, {"k": frozenset("xyz")}, what="it") + "\n"}


@given(json_values, json_values)
def test_fingerprints_differ_where_values_do(one: Any, other: Any) -> None:
    """Two inputs share a fingerprint only if they are the same JSON; how they are split into arguments counts too."""
    import json

    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)

    assert (fingerprint(one, what="it") == fingerprint(other, what="it")) is same
    assert fingerprint(one, other, what="it") != fingerprint([one, other], what="it")


def _cycle() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({1: "a"}, "a key that is not a str"),
        ({"a": {"b": object()}}, r"object at \$\.a\.b"),
        ([SecretStr("hunter2")], r"a secret at \$\[0\]"),
        (b"\xff", "bytes"),
        (lambda: None, "function"),
        (int, "type"),
        (_cycle(), "nested more than"),
        (range(3), "range"),
    ],
)
def test_what_json_cannot_say_is_refused_by_its_place(value: object, says: str) -> None:
    """A value that cannot be recorded is an error that says where it is; a secret's text is not in it."""
    with pytest.raises(StateNotStorableError, match=says) as caught:
        to_json(value, what="it")

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_values_without_canonical_json_have_no_fingerprint(value: object) -> None:
    """NaN, infinities and lone surrogates are refused as input too."""
    with pytest.raises(StateNotStorableError):
        fingerprint([value], what="it")


def test_a_result_that_does_not_fit_its_annotation_is_refused_without_its_content() -> None:
    """A record that cannot become the declared type is an error that names the place, not the value."""
    with pytest.raises(WorkflowDefinitionError, match=r"cannot be turned back into .*list.* \(1: ") as caught:
        restore(list[int], [1, "hunter2"], what="the output")

    assert "hunter2" not in str(caught.value)


def test_annotations_are_found_through_what_wraps_a_function() -> None:
    """The return type of a partial, a bound method, a callable object and a closure is the one of the function."""

    class Local:
        async def method(self) -> list[Point]:
            return []

        async def __call__(self) -> list[Point]:
            return []

    async def closure() -> Local:
        return Local()

    async def unknown() -> Nowhere:  # type: ignore[name-defined]  # noqa: F821 - a name that does not exist
        return None

    assert annotation_of(partial(Local().method), "return") == list[Point]
    assert annotation_of(Local(), "return") == list[Point]
    assert annotation_of(lambda: Local, "return") is None
    assert annotation_of(closure, "return") is Local
    with pytest.raises(WorkflowDefinitionError, match="top of the module"):
        annotation_of(unknown, "return")
