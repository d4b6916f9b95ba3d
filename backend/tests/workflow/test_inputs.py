"""Inputs are recorded at the start, and never read from anywhere else afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from app.errors import (
    InvalidInputError,
    RunExistsError,
    StateNotStorableError,
    WorkflowDefinitionError,
    WorkflowError,
)
from app.stores.checkpoint.contract import CheckpointStorage, RunStatus
from app.stores.checkpoint.memory import InMemoryCheckpointStore
from app.workflow.engine import Document, Run, RunListener, Workflow, workflow

from .support import MortalStore, ProcessDiedError, forgiving_store, runner_on


@dataclass(frozen=True)
class Setting:
    """An input that is not plain JSON."""

    name: str
    values: tuple[int, ...]


BIG = "x" * 100_000
EVERY_KIND: dict[str, Any] = {
    "documents": [Document(f"{n}.txt", f"{n}" * 60_000) for n in range(10)],
    "settings": [Setting(str(n), tuple(range(2000))) for n in range(3)],
    "pair": (BIG, "b"),
    "text": BIG,
    "table": {"a": [BIG]},
    "small": Setting("s", (1,)),
    "empty": [],
}
PARTS = [
    "inputs/documents/0",
    "inputs/documents/1",
    "inputs/documents/2",
    "inputs/pair/0",
    "inputs/settings/0",
    "inputs/table",
    "inputs/text",
]


def looking(seen: list[dict[str, Any]], *, fails: bool = True) -> Workflow[int]:
    """Return a workflow that keeps what it was given, and fails so that it can be resumed."""

    @workflow(version="1", name="looking")
    async def look(  # noqa: PLR0917 - a workflow's inputs are given by name
        run: Run,
        documents: list[Document],
        settings: list[Setting],
        pair: tuple[str, ...],
        text: str,
        table: Mapping[str, list[str]],
        small: Setting,
        empty: Sequence[int],
        extra: int = 7,
    ) -> int:
        seen.append(
            {
                "documents": documents,
                "settings": settings,
                "pair": pair,
                "text": text,
                "table": table,
                "small": small,
                "empty": empty,
                "extra": extra,
            }
        )
        if fails:
            raise RuntimeError("boom")
        return extra

    return look


async def test_inputs_are_equal_at_the_start_and_after_a_resume(checkpoints: CheckpointStorage) -> None:
    """Whatever their size and type, the workflow is given equal inputs when it starts and when it is resumed."""
    seen: list[dict[str, Any]] = []
    runner = runner_on(checkpoints)

    await runner.start(looking(seen), EVERY_KIND, run_id="r")
    await runner.resume("r", looking(seen), reopen=True)

    assert seen[0] == seen[1] == {**EVERY_KIND, "extra": 7}
    assert [type(value) for value in seen[0].values()] == [type(value) for value in seen[1].values()]


async def test_large_inputs_lie_in_steps_and_the_head_stays_small(checkpoints: CheckpointStorage) -> None:
    """What is listed with every run, its head, holds digests of large inputs and not their content."""
    await runner_on(checkpoints).start(looking([]), EVERY_KIND, run_id="r")
    head = await checkpoints.head("r")
    steps = [(record.step_id, record.size_bytes) for record in await checkpoints.history("r")]

    assert head is not None
    assert len(str(head.inputs)) < 1500
    assert [step_id for step_id, _ in steps] == PARTS
    assert all(size < 400_000 for _, size in steps)


# The verbs of a start: create, claim, and an append for each of the seven parts of the inputs.
@pytest.mark.parametrize("dies_at", range(1, 10))
@pytest.mark.parametrize("after_effect", [False, True])
async def test_a_start_that_dies_anywhere_is_taken_up(dies_at: int, after_effect: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """However far the recording of the inputs came, the same start again ends it, and nothing is recorded twice.

    Once all of them are on record, the run is there, and is resumed like any other.
    """
    inner, seen = forgiving_store(), list[dict[str, Any]]()
    with pytest.raises(ProcessDiedError):
        await runner_on(MortalStore(inner, dies_at=dies_at, after_effect=after_effect)).start(
            looking(seen), EVERY_KIND, run_id="r"
        )
    complete = (dies_at, after_effect) == (9, True)

    again = looking(seen, fails=False)
    if complete:
        outcome = await runner_on(inner).resume("r", again)
    else:
        outcome = await runner_on(inner).start(again, EVERY_KIND, run_id="r")

    assert outcome.value() == 7
    assert seen == [{**EVERY_KIND, "extra": 7}]
    assert [record.step_id for record in await inner.history("r")] == PARTS
    assert await inner.verify("r") == len(PARTS)


async def test_a_start_that_was_cut_is_not_resumed_without_its_inputs() -> None:
    """A resume does not make up for inputs that were never recorded: it says that the start is to be repeated."""
    inner = forgiving_store()
    with pytest.raises(ProcessDiedError):
        await runner_on(MortalStore(inner, dies_at=4, after_effect=True)).start(looking([]), EVERY_KIND, run_id="r")

    with pytest.raises(WorkflowError, match="Start it again with the same run id"):
        await runner_on(inner).resume("r", looking([]))
    head = await inner.head("r")

    assert head is not None
    assert (head.status, head.lease) == (RunStatus.RUNNING, None)


async def store_of_a_begun_run() -> InMemoryCheckpointStore:
    """Return a store in which run ``r`` died right after its last input was recorded."""
    whole = forgiving_store()
    await runner_on(whole).start(looking([]), EVERY_KIND, run_id="r")
    complete = await whole.head("r")
    assert complete is not None
    for dies_at in range(1, 50):
        inner = forgiving_store()
        with suppress(ProcessDiedError):
            await runner_on(MortalStore(inner, dies_at=dies_at, after_effect=True)).start(
                looking([]), EVERY_KIND, run_id="r"
            )
        head = await inner.head("r")
        if head is not None and head.next_step_index == complete.next_step_index:
            assert head.status is RunStatus.RUNNING
            return inner
    raise AssertionError("no death came after the last input")


@pytest.mark.parametrize("change", ["input", "budget", "complete", "begun"])
async def test_another_start_under_the_same_id_is_refused(change: str) -> None:
    """A run id belongs to its first start: other inputs or budget, a complete or begun one: RunExistsError."""
    from app.stores.budget.memory import InMemoryBudgetStore

    inner, budget = forgiving_store(), InMemoryBudgetStore()
    if change == "complete":
        await runner_on(inner).start(looking([]), EVERY_KIND, run_id="r")
    elif change == "begun":
        inner = await store_of_a_begun_run()
    else:
        with pytest.raises(ProcessDiedError):
            await runner_on(MortalStore(inner, dies_at=4, after_effect=True)).start(looking([]), EVERY_KIND, run_id="r")
    before = await inner.head("r")

    inputs = {**EVERY_KIND, "text": "y" * 100_000} if change == "input" else EVERY_KIND
    with pytest.raises(RunExistsError):
        await runner_on(inner, budget=budget).start(
            looking([]), inputs, run_id="r", budget=5 if change == "budget" else None
        )

    assert await inner.head("r") == before


async def test_inputs_that_cannot_be_recorded_leave_no_run(checkpoints: CheckpointStorage) -> None:
    """A missing, unknown or unrecordable input is an error before there is a run."""

    @workflow(version="1")
    async def one(run: Run, first: Any, second: int = 2) -> None:
        return None

    runner = runner_on(checkpoints)
    for inputs, error, says in (
        ({}, InvalidInputError, "needs the input 'first'; its inputs are: first, second"),
        ({"first": 1, "frist": 2}, InvalidInputError, "no input 'frist'; its inputs are: first, second"),
        ({"first": object()}, StateNotStorableError, "the input 'first' has a object"),
        ({"first": "x" * 17_000_000}, StateNotStorableError, "the input 'first' has 17,000,002 bytes"),
        ({"first": [1, {"a": float("nan")}]}, StateNotStorableError, "the input 'first', item 1"),
    ):
        with pytest.raises(error, match=says):
            await runner.start(one, inputs, run_id="r")

    assert await checkpoints.head("r") is None


async def test_the_recording_of_inputs_shows_progress(checkpoints: CheckpointStorage) -> None:
    """A listener hears how many items of large inputs are recorded, up to all of them."""
    heard: list[tuple[int, int]] = []

    class Progress(RunListener):
        def inputs_recorded(self, *, run_id: str, recorded: int, total: int) -> None:
            heard.append((recorded, total))

    await runner_on(checkpoints, listener=Progress()).start(looking([]), EVERY_KIND, run_id="r")

    assert heard == [(4, 17), (8, 17), (10, 17), (12, 17), (15, 17), (16, 17), (17, 17)]


def test_a_workflow_that_cannot_be_run_is_refused_where_it_is_defined() -> None:
    """A function that is not async, takes no run, or takes inputs without names is an error at its definition."""

    def sync(run: Run) -> int:
        return 1

    async def no_run() -> None:
        return None

    async def many(run: Run, *rest: int) -> None:
        return None

    async def keywords(run: Run, **rest: int) -> None:
        return None

    for function, says in ((sync, "not async"), (no_run, "takes no run"), (many, r"\*rest"), (keywords, r"\*\*rest")):
        with pytest.raises(WorkflowDefinitionError, match=says):
            workflow(version="1")(function)  # type: ignore[arg-type]  # wrong on purpose
