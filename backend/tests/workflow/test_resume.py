"""Which runs are taken up, by whose code, and what is said of the others."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from app.errors import (
    InvalidInputError,
    RunBusyError,
    RunFinishedError,
    RunNotFoundError,
    WorkflowDefinitionError,
    WorkflowError,
)
from app.stores.checkpoint.codec import JsonValue
from app.stores.checkpoint.contract import CheckpointStorage, RunStatus
from app.stores.holder import Holder
from app.workflow import checkpoint, policies
from app.workflow.engine import Run, workflow
from app.workflow.policies import NO_RETRY, RetryPolicy, RunLimits, retry_policy

from .support import runner_on

ELSEWHERE = Holder(host="elsewhere", boot_id="b", pid=1, started="1")


@workflow(version="1")
async def count(run: Run, to: int) -> int:
    """Count."""
    return sum(await run.map("count", one, range(to)))


async def one(number: int) -> int:
    """Let others have their turn."""
    await asyncio.sleep(0)
    return 1


START: JsonValue = {"format": 1, "inputs": {"to": 3}, "stored": {}, "budget": None, "deadline_at": None, "flow": None}


async def test_every_run_that_can_go_on_is_resumed_and_the_others_are_reported(checkpoints: CheckpointStorage) -> None:
    """Interrupted runs end, a busy and an unknown one are reported with their reason, ended and waiting-for-signal ones
    are left alone.
    """
    for number in range(5):
        await checkpoints.create(f"interrupted-{number}", workflow="count", workflow_version="1", inputs=START)
    await checkpoints.create("busy", workflow="count", workflow_version="1", inputs=START)
    await checkpoints.claim("busy", holder=ELSEWHERE)
    await checkpoints.create("unknown", workflow="unknown", workflow_version="1", inputs=START)
    await checkpoints.create("foreign", inputs={"by": "hand"})
    for run_id, status in (("done", RunStatus.COMPLETED), ("failed", RunStatus.FAILED), ("aborted", RunStatus.ABORTED)):
        await checkpoints.create(run_id, workflow="count", workflow_version="1", inputs=START)
        await checkpoints.finish(run_id, status, expected_version=0)
    await checkpoints.create("signal", workflow="count", workflow_version="1", inputs=START)
    await checkpoints.finish("signal", RunStatus.WAITING, waiting_for="signal", expected_version=0)

    reports = await runner_on(checkpoints, workflows=[count]).resume_all(concurrency=2)

    outcomes = {report.run_id: report.outcome.result for report in reports if report.outcome is not None}
    errors = {report.run_id: type(report.error) for report in reports if report.error is not None}
    assert outcomes == {f"interrupted-{number}": 3 for number in range(5)}
    assert errors == {"busy": RunBusyError, "unknown": WorkflowDefinitionError, "foreign": WorkflowError}


async def test_a_run_that_another_finished_meanwhile_is_not_reported(checkpoints: CheckpointStorage) -> None:
    """Of two processes that resume everything the one that comes later has no error to tell of."""
    for run_id in ("r1", "r2"):
        await checkpoints.create(run_id, workflow="helped", workflow_version="1", inputs=START)

    @workflow(version="1")
    async def helped(run: Run, to: int) -> int:
        if to and run.id == first[0]:
            await another.resume_all(concurrency=1)
        return to

    first = [head.run_id for head in (await checkpoints.list_runs()).heads]
    another = runner_on(checkpoints, workflows=[helped], holder=ELSEWHERE)
    reports = await runner_on(checkpoints, workflows=[helped]).resume_all(concurrency=1)

    assert [(report.run_id, report.error) for report in reports] == [(first[0], None)]
    assert [head.status for head in (await checkpoints.list_runs()).heads] == [RunStatus.COMPLETED] * 2


async def test_a_run_that_somebody_holds_is_refused_by_name_or_stolen(checkpoints: CheckpointStorage) -> None:
    """The error names the holder; with `steal` the run is taken from it."""
    await checkpoints.create("r", workflow="count", workflow_version="1", inputs=START)
    await checkpoints.claim("r", holder=ELSEWHERE, lease=timedelta(hours=1))
    runner = runner_on(checkpoints, workflows=[count])

    with pytest.raises(RunBusyError) as caught:
        await runner.resume("r")
    outcome = await runner.resume("r", steal=True)

    assert caught.value.holder == "process 1 on elsewhere"
    assert outcome.value() == 3


async def test_runs_that_are_not_there_or_final_are_refused(checkpoints: CheckpointStorage) -> None:
    """A missing, a completed and an aborted run are not resumed, whatever is asked for."""
    runner = runner_on(checkpoints, workflows=[count])
    await runner.start(count, {"to": 1}, run_id="done")
    await checkpoints.create("gone", workflow="count", workflow_version="1", inputs=START)
    await checkpoints.abort("gone")

    with pytest.raises(RunNotFoundError, match="no run 'missing'"):
        await runner.resume("missing")
    for run_id in ("done", "gone"):
        with pytest.raises(RunFinishedError):
            await runner.resume(run_id, reopen=True, steal=True, allow_changed=True)


async def test_a_fork_goes_on_from_the_steps_that_it_copied(checkpoints: CheckpointStorage) -> None:
    """A fork of a run replays what it copied and does the rest itself; the original stays as it is."""
    runner = runner_on(checkpoints, workflows=[count])
    await runner.start(count, {"to": 5}, run_id="r")
    before = await checkpoints.head("r")

    await checkpoints.fork("r", "copy", steps=2)
    outcome = await runner.resume("copy")

    assert (outcome.value(), outcome.steps_replayed, outcome.steps_run) == (5, 2, 3)
    assert await checkpoints.head("r") == before


async def test_recorded_steps_that_are_not_asked_for_are_named(checkpoints: CheckpointStorage) -> None:
    """A run that completes without some of its recorded steps says which: its code is not what recorded them."""

    @workflow(version="1", name="count")
    async def shorter(run: Run, to: int) -> int:
        return sum(await run.map("count", one, range(to - 1)))

    await runner_on(checkpoints).start(count, {"to": 3}, run_id="r")
    await checkpoints.fork("r", "copy")
    outcome = await runner_on(checkpoints).resume("copy", shorter)

    assert outcome.unclaimed_steps == ("count/2",)


def test_the_promised_names_are_there() -> None:
    """The stores are importable from the workflow modules under their promised names."""
    from app.stores.budget.memory import InMemoryBudgetStore
    from app.stores.budget.redis import RedisBudgetStore
    from app.stores.checkpoint.memory import InMemoryCheckpointStore
    from app.stores.checkpoint.postgres import CheckpointStore

    assert policies.InMemoryBudgetStore is InMemoryBudgetStore
    assert policies.RedisBudgetStore is RedisBudgetStore
    assert checkpoint.InMemoryCheckpointStore is InMemoryCheckpointStore
    assert checkpoint.CheckpointStore is CheckpointStore
    for module in (policies, checkpoint):
        with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
            _ = module.Nothing


def test_rules_without_meaning_are_refused() -> None:
    """A policy or limit that means nothing is an error where it is made."""
    from datetime import datetime

    for wrong in (
        lambda: RetryPolicy(attempts=0),
        lambda: RetryPolicy(attempts=True),
        lambda: RetryPolicy(first_delay_s=-1),
        lambda: RetryPolicy(jitter=1.5),
        lambda: RetryPolicy(factor=0.5),
        lambda: retry_policy(-1),
        lambda: RunLimits(budget=-1),
        lambda: RunLimits(deadline_at=datetime(2026, 1, 1)),  # noqa: DTZ001 - wrong on purpose
    ):
        with pytest.raises(InvalidInputError):
            wrong()
    assert retry_policy(None) is NO_RETRY
    assert retry_policy(2).attempts == 3


def test_delays_grow_to_their_maximum_and_never_overflow() -> None:
    """However many attempts there were, the delay is at most the maximum."""
    policy = RetryPolicy(attempts=10_000, first_delay_s=1, factor=10, max_delay_s=60, jitter=0.5)

    delays = [policy.delay_s(ValueError(), attempt=attempt, random=lambda: 0) for attempt in (1, 2, 3, 9_999)]

    assert delays == [1, 10, 60, 60]
    assert policy.delay_s(ValueError(), attempt=3, random=lambda: 1) == 30
