"""Whatever stops a run, what is recorded stands, and the run is left as the cause demands."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.errors import (
    BudgetStoreUnavailableError,
    LeaseLostError,
    RunAbortedError,
    RunDeadlineError,
    RunWaitingError,
    StepFailedError,
    StoreDamagedError,
    StoreError,
    WorkflowError,
)
from app.stores.checkpoint.contract import CheckpointStorage, RunStatus
from app.stores.holder import Holder
from app.workflow.engine import Run, RunListener, Workflow, workflow

from .support import Memory, forgiving_store, refused, runner_on


class Gate:
    """Step functions of which the first ones wait until they are let through."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.entered = 0
        self.all_in = asyncio.Event()
        self.open = asyncio.Event()
        self.cancelled = 0
        self.done: list[int] = []
        self.problem: Exception | None = None

    async def pass_through(self, number: int) -> int:
        """Wait at the gate; number 1 has the problem, if there is one."""
        self.entered += 1
        if self.entered == self.size:
            self.all_in.set()
        try:
            if number == 1 and self.problem is not None:
                await self.all_in.wait()
                raise self.problem
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.done.append(number)
        return number


def gated(gate: Gate, count: int = 10) -> Workflow[list[int]]:
    """Return a workflow that maps over the gate."""

    @workflow(version="1", name="gated")
    async def work(run: Run) -> list[int]:
        return await run.map("pass", gate.pass_through, range(count), concurrency=gate.size)

    return work


async def test_a_refused_budget_records_what_is_under_way_and_parks_the_run(checkpoints: CheckpointStorage) -> None:
    """When a budget refuses one item, the others are finished and recorded, none begins, and the lease is free."""
    gate, listener = Gate(4), Memory()
    gate.problem = refused()
    runner = runner_on(checkpoints, listener=listener, workflows=[gated(gate)])

    running = asyncio.create_task(runner.start(gated(gate), run_id="r"))
    await gate.all_in.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    still_under_way = not running.done()
    gate.open.set()
    parked = await running
    head = await checkpoints.head("r")
    recorded = [record.step_id for record in await checkpoints.history("r")]
    gate.problem = None
    (report,) = await runner.resume_all()

    assert still_under_way
    assert (parked.status, parked.waiting_for) == (RunStatus.WAITING, "budget")
    with pytest.raises(RunWaitingError, match="tenant"):
        parked.value()
    assert head is not None
    assert (head.status, head.waiting_for, head.lease) == (RunStatus.WAITING, "budget", None)
    assert sorted(recorded) == ["pass/0", "pass/2", "pass/3"]
    assert listener.counts["waiting"] == 1
    assert report.outcome is not None
    assert report.outcome.result == list(range(10))
    assert sorted(gate.done) == list(range(10))


async def test_a_workflow_cannot_catch_its_way_around_a_refused_budget(checkpoints: CheckpointStorage) -> None:
    """A step that a budget refused does not return to the workflow, not even as an exception."""
    reached: list[str] = []

    async def refuse() -> None:
        raise refused()

    @workflow(version="1")
    async def stubborn(run: Run) -> str:
        try:
            await run.step("refused", refuse)
        except Exception:  # noqa: BLE001 - the workflow that this is about
            reached.append("handler")
        return await run.step("next", asyncio.sleep, 0, "went on")

    outcome = await runner_on(checkpoints).start(stubborn, run_id="r")

    assert outcome.status is RunStatus.WAITING
    assert reached == []
    assert await checkpoints.history("r") == ()


@pytest.mark.parametrize(
    ("cause", "status"),
    [("budget", RunStatus.WAITING), ("drain", RunStatus.RUNNING), ("deadline", RunStatus.FAILED)],
)
async def test_what_a_workflow_returns_that_swallowed_its_cancellation_is_not_its_result(
    checkpoints: CheckpointStorage, cause: str, status: RunStatus
) -> None:
    """A run that had to stop is not completed by a workflow that catches everything; resumed, it gets its result."""
    runner = runner_on(checkpoints)
    resumed = False

    async def stopping() -> str:
        if resumed:
            return "the result"
        if cause == "budget":
            raise refused()
        runner.drain()
        return "recorded"

    @workflow(version="1")
    async def stubborn(run: Run) -> str:
        try:
            if cause == "deadline":
                await run.step("late", asyncio.sleep, 0 if resumed else 30)
            return await run.step("stopping", stopping) if cause != "drain" else await both(run)
        except BaseException:  # noqa: BLE001 - the workflow that this is about
            return "made up"

    async def both(run: Run) -> str:
        await run.step("first", stopping)
        return await run.step("second", stopping)

    deadline = timedelta(milliseconds=20) if cause == "deadline" else None
    outcome = await runner.start(stubborn, run_id="r", deadline=deadline)
    resumed = True
    done = await runner.resume(
        "r", stubborn, reopen=True, allow_changed=True, deadline=None if deadline is None else timedelta(hours=1)
    )

    assert (outcome.status, outcome.result) == (status, None)
    assert done.value() == "the result"


async def test_a_step_of_a_parked_run_that_waits_for_its_retry_does_not_hold_it_up(
    checkpoints: CheckpointStorage,
) -> None:
    """The pause before a retry ends when the run stops; the step is tried again after the resume."""
    paused = asyncio.Event()
    tries = 0

    async def pause(seconds: float) -> None:
        paused.set()
        await asyncio.sleep(3600)

    async def flaky() -> int:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ConnectionError("not yet")
        return tries

    async def refuse() -> None:
        await paused.wait()
        if tries == 1:
            raise refused()

    @workflow(version="1")
    async def both(run: Run) -> int:
        async with asyncio.TaskGroup() as group:
            found = group.create_task(run.step("flaky", flaky, retries=3))
            group.create_task(run.step("refuse", refuse))
        return found.result()

    runner = runner_on(checkpoints, sleep=pause)
    parked = await asyncio.wait_for(runner.start(both, run_id="r"), 10)
    tries += 1
    outcome = await runner.resume("r", both)

    assert parked.status is RunStatus.WAITING
    assert outcome.value() == 3


async def test_draining_finishes_what_is_under_way(checkpoints: CheckpointStorage) -> None:
    """A drained run records the steps under way, begins no other, gives up its lease and can be resumed."""
    gate = Gate(3)
    runner = runner_on(checkpoints, workflows=[gated(gate)])

    running = asyncio.create_task(runner.start(gated(gate), run_id="r"))
    await gate.all_in.wait()
    runner.drain()
    gate.open.set()
    drained = await running
    head = await checkpoints.head("r")
    resumed = await runner.resume("r")

    assert (drained.status, drained.steps_run) == (RunStatus.RUNNING, 3)
    with pytest.raises(WorkflowError, match="resume it"):
        drained.value()
    assert head is not None
    assert (head.status, head.lease, head.next_step_index) == (RunStatus.RUNNING, None, 3)
    assert (resumed.result, resumed.steps_replayed) == (list(range(10)), 3)
    assert gate.cancelled == 0


async def test_cancelling_cuts_what_is_under_way_and_frees_the_lease(checkpoints: CheckpointStorage) -> None:
    """A cancelled start cancels its steps, writes nothing of them, and leaves a run that anybody can take up."""
    gate = Gate(3)
    runner = runner_on(checkpoints, workflows=[gated(gate)])

    running = asyncio.create_task(runner.start(gated(gate), run_id="r"))
    await gate.all_in.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    head = await checkpoints.head("r")
    gate.open.set()
    resumed = await runner.resume("r")

    assert gate.cancelled == 3
    assert head is not None
    assert (head.status, head.lease, head.next_step_index) == (RunStatus.RUNNING, None, 0)
    assert resumed.result == list(range(10))


async def test_a_cancellation_during_an_append_waits_for_the_append() -> None:
    """A write that began is known to stand or not before the cancellation goes on, however often one cancels."""
    inner = forgiving_store()
    writing, go_on = asyncio.Event(), asyncio.Event()

    class Slow:
        def __getattr__(self, name: str) -> Any:
            return getattr(inner, name)

        async def append(self, *args: Any, **options: Any) -> Any:
            writing.set()
            await go_on.wait()
            return await inner.append(*args, **options)

    @workflow(version="1")
    async def one(run: Run) -> str:
        return await run.step("step", asyncio.sleep, 0, "done")

    running = asyncio.create_task(runner_on(Slow()).start(one, run_id="r"))
    await writing.wait()
    for _ in range(3):
        running.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert [record.step_id for record in await inner.history("r")] == ["step"]


async def test_an_abort_from_outside_stops_the_holder_at_its_next_write(checkpoints: CheckpointStorage) -> None:
    """The holder of an aborted run is told at its next append: nothing more is recorded, and no step begins."""
    gate = Gate(2)
    runner = runner_on(checkpoints)

    running = asyncio.create_task(runner.start(gated(gate), run_id="r"))
    await gate.all_in.wait()
    await checkpoints.abort("r", reason="enough")
    gate.open.set()
    outcome = await running

    assert outcome.status is RunStatus.ABORTED
    with pytest.raises(RunAbortedError, match="enough"):
        outcome.value()
    assert await checkpoints.history("r") == ()
    assert gate.entered == 2


async def test_an_abort_from_outside_is_noticed_by_the_heartbeat(checkpoints: CheckpointStorage) -> None:
    """A holder whose step takes long learns of an abort by its heartbeat, and cancels the step."""
    gate = Gate(1)
    runner = runner_on(checkpoints, lease=timedelta(milliseconds=60))

    running = asyncio.create_task(runner.start(gated(gate), run_id="r"))
    await gate.all_in.wait()
    await checkpoints.abort("r")
    outcome = await asyncio.wait_for(running, 10)

    assert outcome.status is RunStatus.ABORTED
    assert gate.cancelled == 1


async def test_a_lost_lease_stops_the_work_at_once(checkpoints: CheckpointStorage) -> None:
    """A superseded holder cancels its steps at its next heartbeat, raises LeaseLostError and writes nothing more."""
    gate = Gate(2)
    runner = runner_on(checkpoints, lease=timedelta(milliseconds=60))

    running = asyncio.create_task(runner.start(gated(gate), run_id="r"))
    await gate.all_in.wait()
    claim = await checkpoints.claim("r", holder=Holder.current(instance="thief"), steal=True)
    with pytest.raises(LeaseLostError):
        await asyncio.wait_for(running, 10)
    head = await checkpoints.head("r")

    assert gate.cancelled == 2
    assert head is not None
    assert head.lease is not None
    assert head.lease.token == claim.token
    assert head.next_step_index == 0


async def test_a_lease_is_kept_while_a_step_takes_longer_than_it(checkpoints: CheckpointStorage) -> None:
    """Heartbeats keep the run this process's own, however long a step takes."""
    gate = Gate(1)
    runner = runner_on(checkpoints, lease=timedelta(milliseconds=90))
    other = Holder(host="elsewhere", boot_id="b", pid=1, started="1")

    running = asyncio.create_task(runner.start(gated(gate, count=1), run_id="r"))
    await gate.all_in.wait()
    from app.errors import RunBusyError

    for _ in range(8):
        await asyncio.sleep(0.03)
        with pytest.raises(RunBusyError):
            await checkpoints.claim("r", holder=other)
    gate.open.set()

    assert (await running).status is RunStatus.COMPLETED


async def test_a_run_fails_at_its_deadline_and_goes_on_with_a_later_one(checkpoints: CheckpointStorage) -> None:
    """Past its deadline a run is cut and fails, also when it is resumed; with a new deadline it goes on."""
    gate = Gate(1)
    now = datetime(2026, 11, 24, tzinfo=UTC)
    runner = runner_on(checkpoints, clock=lambda: now)

    late = await runner.start(gated(gate, count=1), run_id="r", deadline=timedelta(milliseconds=30))
    now += timedelta(hours=1)
    still_late = await runner.resume("r", gated(gate, count=1), reopen=True)
    gate.open.set()
    done = await runner.resume("r", gated(gate, count=1), reopen=True, deadline=timedelta(minutes=1))

    assert (late.status, still_late.status) == (RunStatus.FAILED, RunStatus.FAILED)
    assert isinstance(late.error, RunDeadlineError)
    assert done.result == [0]


@pytest.mark.parametrize("problem", [BudgetStoreUnavailableError, StoreDamagedError])
async def test_a_store_that_is_down_is_not_the_run_s_failure(
    checkpoints: CheckpointStorage, problem: type[StoreError]
) -> None:
    """A step whose call met a store that is down or damaged leaves the run resumable, and the error is raised."""
    down = True

    async def call() -> str:
        if down:
            raise problem("no answer")
        return "done"

    @workflow(version="1")
    async def one(run: Run) -> str:
        return await run.step("call", call)

    runner = runner_on(checkpoints)
    with pytest.raises(problem):
        await runner.start(one, run_id="r")
    head = await checkpoints.head("r")
    down = False
    outcome = await runner.resume("r", one)

    assert head is not None
    assert (head.status, head.lease) == (RunStatus.RUNNING, None)
    assert outcome.value() == "done"


async def test_a_record_that_meets_a_damaged_store_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A workflow that catches everything does not go on without the record of its step, and the damage is raised."""
    store = forgiving_store()
    reached: list[str] = []

    async def damaged(*_: object, **__: object) -> None:
        raise StoreDamagedError("the file is not a database")

    @workflow(version="1")
    async def stubborn(run: Run) -> None:
        try:
            await run.step("call", asyncio.sleep, 0)
        except Exception:  # noqa: BLE001 - the workflow that this is about
            reached.append("handler")

    monkeypatch.setattr(store, "append", damaged)
    with pytest.raises(StoreDamagedError):
        await runner_on(store).start(stubborn, run_id="r")
    head = await store.head("r")

    assert reached == []
    assert head is not None
    assert (head.status, head.lease) == (RunStatus.RUNNING, None)


async def test_a_listener_that_fails_stops_the_run_in_order(checkpoints: CheckpointStorage) -> None:
    """A closed terminal raises its error to the caller; what was under way is recorded, and the run is resumable."""

    class Closed(RunListener):
        def step_recorded(self, **facts: Any) -> None:
            raise BrokenPipeError("closed")

    gate = Gate(3)
    gate.open.set()
    with pytest.raises(BrokenPipeError):
        await runner_on(checkpoints, listener=Closed()).start(gated(gate), run_id="r")
    head = await checkpoints.head("r")
    outcome = await runner_on(checkpoints).resume("r", gated(gate))

    assert head is not None
    assert (head.status, head.lease, head.next_step_index) == (RunStatus.RUNNING, None, 3)
    assert outcome.steps_replayed == 3
    assert sorted(gate.done) == list(range(10))


async def test_a_workflow_that_swallows_its_cancellation_does_not_keep_the_run(
    checkpoints: CheckpointStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A workflow that catches its cancellation and goes on is cancelled again, until it has ended."""
    monkeypatch.setattr("app.workflow.execution._CANCEL_AGAIN_S", 0.01)

    async def refuse() -> None:
        raise refused()

    @workflow(version="1")
    async def deaf(run: Run) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await run.step("a", refuse)
        await run.step("b", refuse)
        return "unreachable"

    running = asyncio.create_task(runner_on(checkpoints).start(deaf, run_id="r"))
    await asyncio.wait([running], timeout=5)

    assert running.done()
    assert running.result().status is RunStatus.WAITING


async def test_steps_under_way_are_recorded_before_a_failed_run_is_left(checkpoints: CheckpointStorage) -> None:
    """A workflow that fails while another of its steps is under way is left only after that step is on record."""
    gate = Gate(1)

    async def fail() -> None:
        await gate.all_in.wait()
        raise RuntimeError("boom")

    @workflow(version="1")
    async def both(run: Run) -> None:
        other = asyncio.create_task(run.step("other", gate.pass_through, 0))
        try:
            await run.step("fail", fail)
        finally:
            asyncio.get_running_loop().call_later(0.01, gate.open.set)
        await other

    outcome = await runner_on(checkpoints).start(both, run_id="r")

    assert isinstance(outcome.error, StepFailedError)
    assert [record.step_id for record in await checkpoints.history("r")] == ["other"]
