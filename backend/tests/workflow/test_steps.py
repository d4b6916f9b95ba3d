"""A step runs at least once, is recorded exactly once, and is never run again after its record."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from app.errors import (
    CheckpointStoreUnavailableError,
    InvalidInputError,
    RunFinishedError,
    StepFailedError,
    StepTimeoutError,
    WorkflowChangedError,
    WorkflowDefinitionError,
)
from app.stores.checkpoint.contract import CheckpointStorage, RunStatus
from app.workflow import writer
from app.workflow.engine import Run, Runner, StepContext, Workflow, workflow
from app.workflow.policies import RetryPolicy
from app.workflow.steps import StepFunction

from .support import Memory, MortalStore, ProcessDiedError, forgiving_store, refused, runner_on


@dataclass(frozen=True)
class Note:
    """An output that is not plain JSON."""

    title: str
    words: tuple[str, ...]


class Counter:
    """Step functions that count how often they ran."""

    def __init__(self, *, fails: int = 0) -> None:
        self.runs = 0
        self.keys: list[str] = []
        self.fails = fails

    async def note(self, title: str) -> Note:
        """Make a note."""
        self.runs += 1
        return Note(title, ("a", "b"))

    async def flaky(self, context: StepContext) -> int:
        """Fail so many times."""
        self.runs += 1
        self.keys.append(context.key)
        if self.runs <= self.fails:
            raise ConnectionError("not yet")
        return self.runs


def one_step(counter: Counter, title: str = "t", version: str = "1") -> Workflow[str]:
    """Return a workflow of one step."""

    @workflow(version=version, name="one")
    async def one(run: Run) -> str:
        note = await run.step("note", counter.note, title)
        await run.step("boom", explode)
        return note.title

    return one


async def explode() -> None:
    """Fail."""
    raise RuntimeError("boom")


async def test_a_recorded_step_is_returned_and_does_not_run_again(checkpoints: CheckpointStorage) -> None:
    """A run that failed after a step is reopened: the step's record is returned, as the same type, and nothing runs."""
    counter = Counter()
    seen: list[Note] = []

    @workflow(version="1")
    async def twice(run: Run) -> int:
        seen.append(await run.step("note", counter.note, "t"))
        if len(seen) == 1:
            raise RuntimeError("boom")
        return len(seen)

    runner = runner_on(checkpoints)
    first = await runner.start(twice, run_id="r")
    second = await runner.resume("r", twice, reopen=True)

    assert (first.status, second.status, second.result) == (RunStatus.FAILED, RunStatus.COMPLETED, 2)
    assert counter.runs == 1
    assert seen[0] == seen[1] == Note("t", ("a", "b"))
    assert (second.steps_run, second.steps_replayed) == (0, 1)


async def test_a_failed_run_keeps_its_error_and_resumes_on_request_only(checkpoints: CheckpointStorage) -> None:
    """A failing step fails the run with its message; it is resumed by `reopen`, and never by `resume_all`."""
    counter = Counter()
    runner = runner_on(checkpoints, workflows=[one_step(counter)])

    outcome = await runner.start(one_step(counter), run_id="r")
    head = await checkpoints.head("r")
    reports = await runner.resume_all()

    assert outcome.status is RunStatus.FAILED
    assert isinstance(outcome.error, StepFailedError)
    assert isinstance(outcome.error.__cause__, RuntimeError)
    assert head is not None
    assert head.error == "step 'boom' failed: RuntimeError: boom"
    assert head.lease is None
    assert reports == ()
    with pytest.raises(RunFinishedError):
        await runner.resume("r")
    with pytest.raises(StepFailedError, match="boom"):
        outcome.value()


async def test_a_changed_input_is_refused_on_replay_unless_allowed(checkpoints: CheckpointStorage) -> None:
    """A step that is asked for with another input than recorded stops the run; a flag takes what is recorded."""
    counter = Counter()
    runner = runner_on(checkpoints)
    await runner.start(one_step(counter, "old"), run_id="r")

    with pytest.raises(WorkflowChangedError, match="'note' of run 'r'"):
        await runner.resume("r", one_step(counter, "new"), reopen=True)
    head = await checkpoints.head("r")
    allowed = await runner.resume("r", one_step(counter, "new"), reopen=True, allow_changed=True)

    assert counter.runs == 1
    assert head is not None
    assert (head.status, head.lease) == (RunStatus.RUNNING, None)
    assert allowed.steps_replayed == 1


async def test_a_changed_version_or_name_is_refused_before_anything_is_claimed(checkpoints: CheckpointStorage) -> None:
    """The code of another version, or of another workflow, does not touch the run."""
    counter = Counter()
    runner = runner_on(checkpoints)
    await runner.start(one_step(counter), run_id="r")
    before = await checkpoints.head("r")

    @workflow(version="1")
    async def other(run: Run) -> None:
        return None

    with pytest.raises(WorkflowChangedError, match="version '2'"):
        await runner.resume("r", one_step(counter, version="2"), reopen=True)
    with pytest.raises(WorkflowChangedError, match="not 'other'"):
        await runner.resume("r", other, reopen=True)

    assert await checkpoints.head("r") == before


async def test_a_failed_attempt_is_repeated_with_the_same_key_and_growing_delays(
    checkpoints: CheckpointStorage,
) -> None:
    """Retries wait exponentially longer, with jitter; every attempt of a step has one key; one output is recorded."""
    counter, listener = Counter(fails=3), Memory()
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    @workflow(version="1")
    async def retried(run: Run) -> int:
        policy = RetryPolicy(attempts=4, first_delay_s=1, factor=10, max_delay_s=50, jitter=0.5)
        return await run.step("flaky", counter.flaky, retries=policy)

    outcome = await runner_on(checkpoints, listener=listener, sleep=sleep).start(retried, run_id="r")

    assert outcome.result == 4
    assert waits == [0.75, 7.5, 37.5]
    assert len(set(counter.keys)) == 1
    (record,) = await checkpoints.history("r")
    assert record.meta["attempts"] == 4
    assert listener.counts["retrying"] == 3


async def test_a_key_is_stable_across_processes_and_unlike_any_other(checkpoints: CheckpointStorage) -> None:
    """The key of a step depends on tenant, run, step and input, and on nothing else."""
    counter = Counter()
    keys: list[str] = []

    @workflow(version="1")
    async def keyed(run: Run, other: str = "") -> None:
        await run.step("flaky", counter.flaky)
        keys.append(run.key("flaky"))
        keys.append(run.key("flaky", other))

    alike = "r" * 300  # longer than the part of a key that people can read
    runs = (("a", "r1", "x"), ("a", "r2", "x"), ("b", "r1", "x"), ("b", "r3", "y"), ("a", f"{alike}1", "x"))
    for tenant, run_id, other in (*runs, ("a", f"{alike}2", "x")):
        await runner_on(checkpoints, tenant_id=tenant).start(keyed, {"other": other}, run_id=run_id)

    assert counter.keys == keys[::2]
    assert len(set(keys)) == 12


async def test_an_error_that_cannot_pass_is_not_repeated(checkpoints: CheckpointStorage) -> None:
    """Nova's own errors say whether a repeat can help; where it cannot, the step fails at its first attempt."""
    runs = 0

    async def refuse() -> None:
        nonlocal runs
        runs += 1
        raise InvalidInputError("never")

    @workflow(version="1")
    async def refused(run: Run) -> None:
        await run.step("refuse", refuse, retries=5)

    outcome = await runner_on(checkpoints).start(refused, run_id="r")

    assert runs == 1
    assert outcome.status is RunStatus.FAILED


async def test_an_attempt_ends_at_its_timeout(checkpoints: CheckpointStorage) -> None:
    """An attempt that takes too long is cancelled and may be repeated; a TimeoutError of the function is its own."""
    attempts = 0

    async def slow_then_quick() -> str:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            await asyncio.sleep(60)
        return "done"

    async def own() -> None:
        raise TimeoutError("mine")

    @workflow(version="1")
    async def timed(run: Run) -> str:
        first = await run.step("slow", slow_then_quick, timeout=0.02, retries=1)
        with pytest.raises(StepFailedError) as caught:
            await run.step("own", own, timeout=5)
        assert type(caught.value.__cause__) is TimeoutError
        with pytest.raises(StepFailedError) as caught:
            await run.step("slower", asyncio.sleep, 60, timeout=0.02)
        assert type(caught.value.__cause__) is StepTimeoutError
        return first

    outcome = await runner_on(checkpoints).start(timed, run_id="r")

    assert outcome.value() == "done"
    assert attempts == 2


async def test_misuse_of_steps_is_refused(checkpoints: CheckpointStorage) -> None:
    """A step id twice, a step within a step, a function that is not async, an id of the inputs: typed errors."""
    counter = Counter()

    async def nested(run: Run) -> None:
        await run.step("inner", counter.note, "x")

    problems: list[BaseException] = []

    @workflow(version="1")
    async def wrong(run: Run) -> None:
        await run.step("twice", counter.note, "x")
        for step_id, function, args in (
            ("twice", counter.note, ("x",)),
            ("sync", lambda: 3, ()),
            ("inputs/x", counter.note, ("x",)),
            ("", counter.note, ("x",)),
            ("nested", lambda: nested(run), ()),
            ("result", lambda: asyncio.sleep(0, object()), ()),
        ):
            try:
                await run.step(step_id, function, *args)  # type: ignore[arg-type]  # wrong on purpose
            except (WorkflowDefinitionError, InvalidInputError) as error:
                problems.append(error)
            except StepFailedError as error:
                problems.append(error.__cause__ or error)

    outcome = await runner_on(checkpoints).start(wrong, run_id="r")

    outcome.value()
    assert [str(problem).split(":")[0].split(";")[0].split(",")[0] for problem in problems] == [
        "step 'twice' was asked for twice",
        "the step function 'test_misuse_of_steps_is_refused.<locals>.wrong.<locals>.<lambda>' is not async",
        "step 'inputs/x'",
        "the step id is empty",
        "step 'inner' was asked for inside of step 'nested'",
        "the output of step 'result' has a object at $",
    ]
    assert counter.runs == 1


async def test_a_store_that_does_not_answer_is_asked_again(checkpoints: CheckpointStorage) -> None:
    """An append whose acknowledgement was lost is repeated, and the step stands once."""

    class Deaf:
        """Loses the first two acknowledgements of an append."""

        def __init__(self) -> None:
            self.lost = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(checkpoints, name)

        async def append(self, *args: Any, **options: Any) -> Any:
            """Append, and lose the answer."""
            done = await checkpoints.append(*args, **options)
            if self.lost < 2:
                self.lost += 1
                raise CheckpointStoreUnavailableError("no answer")
            return done

    counter = Counter()
    deaf = Deaf()
    await runner_on(deaf).start(one_step(counter), run_id="r")

    assert deaf.lost == 2
    assert [record.step_id for record in await checkpoints.history("r")] == ["note"]


def step_that_its_type_refers_to() -> Callable[[int], Awaitable[object]]:
    """Return a new function, whose return type has a method that calls it."""

    @dataclass
    class Part:
        number: int

        async def next(self) -> Part:
            return await part(self.number + 1)

    async def part(number: int) -> Part:
        return Part(number)

    return part


def test_what_is_known_of_a_step_function_goes_with_it() -> None:
    """A program that makes its step functions anew for each run does not grow."""
    function = step_that_its_type_refers_to()
    assert StepFunction.of(function).name.endswith("part")
    seen = weakref.ref(function)

    del function
    gc.collect()

    assert seen() is None


def test_a_decorator_that_copies_attributes_is_looked_at_itself() -> None:
    """What is known of a function is not taken for that of another to which its attributes were copied."""

    async def inner(number: int) -> int:
        return number

    async def outer(number: int, context: StepContext) -> str:
        return str(await inner(number))

    assert StepFunction.of(inner).returns is int
    outer.__dict__.update(inner.__dict__)

    assert (StepFunction.of(outer).returns, StepFunction.of(outer).context_parameter) == (str, "context")


@workflow(version="1")
async def noted_once(run: Run) -> str:
    """Take one step."""
    return (await run.step("note", Counter().note, "a")).title


class Away:
    """A store that takes no append, or no end of a run, for so many seconds, as its clients wait them."""

    def __init__(self, seconds: float, *, verb: str = "append") -> None:
        self._inner = forgiving_store()
        self._seconds = seconds
        self._verb = verb
        self.waited = 0.0
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def append(self, *args: Any, **options: Any) -> Any:
        """Append once the time is over."""
        self._answer("append")
        return await self._inner.append(*args, **options)

    async def finish(self, *args: Any, **options: Any) -> Any:
        """End the run once the time is over."""
        self._answer("finish")
        return await self._inner.finish(*args, **options)

    def _answer(self, verb: str) -> None:
        self.asked += verb == self._verb
        if verb == self._verb and self.waited < self._seconds:
            raise CheckpointStoreUnavailableError("it restarts")

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.waited += seconds
        await asyncio.sleep(0)


async def test_a_run_outlives_a_store_that_is_away_for_less_than_a_lease(caplog: pytest.LogCaptureFixture) -> None:
    """A restart or a failover of the store ends no run, and is told once."""
    store = Away(25.0)

    outcome = await runner_on(store, sleep=store.sleep).start(noted_once, run_id="r")

    assert outcome.status is RunStatus.COMPLETED
    assert 25 <= store.waited <= 30
    assert [record.getMessage() for record in caplog.records] == [
        "run r: it restarts; the append is tried again for 30 s"
    ]


@workflow(version="1")
async def over_budget(run: Run) -> None:
    """Take a step that its budget refuses."""
    await run.step("refused", refuse)


async def refuse() -> None:
    """Be refused by a budget."""
    raise refused()


@pytest.mark.parametrize(
    ("code", "status"), [(noted_once, RunStatus.COMPLETED), (over_budget, RunStatus.WAITING)], ids=["end", "park"]
)
async def test_the_end_of_a_run_waits_for_its_store_as_its_steps_do(code: Any, status: RunStatus) -> None:
    """A restart of the store in the moment when a run ends, or is parked, is waited for."""
    store = Away(25.0, verb="finish")

    outcome = await runner_on(store, sleep=store.sleep).start(code, run_id="r")
    head = await store.head("r")

    assert (outcome.status, head.status, head.lease) == (status, status, None)
    assert 25 <= store.waited <= 30


async def test_a_write_is_tried_again_also_where_a_try_takes_longer_than_a_lease() -> None:
    """A store that was silent for the length of a lease is asked anew: its successor may answer at once."""
    store = Away(1.0)

    outcome = await runner_on(store, sleep=store.sleep, lease=timedelta(milliseconds=10)).start(noted_once, run_id="r")

    assert outcome.status is RunStatus.COMPLETED


@pytest.mark.parametrize("verb", ["append", "finish"])
async def test_a_run_that_is_cancelled_waits_for_its_store_a_moment_only(verb: str) -> None:
    """Who cancels a run while its store is away is not made to wait for the length of a lease."""
    store = Away(1000.0, verb=verb)

    async def sleep(seconds: float) -> None:
        running.cancel()
        for _ in range(20):  # until the step has heard of it
            await asyncio.sleep(0)
        await store.sleep(seconds)

    running = asyncio.create_task(runner_on(store, sleep=sleep).start(noted_once, run_id="r"))

    with pytest.raises(asyncio.CancelledError):
        await running
    assert store.waited < 2


def draining(store: Away) -> Runner:
    """Return a runner on a store that is away, which is told to stop while it waits for it."""

    async def sleep(seconds: float) -> None:
        await store.sleep(seconds)
        runner.drain()

    runner = runner_on(store, sleep=sleep)
    return runner


@workflow(version="1")
async def noted_side_by_side(run: Run) -> None:
    """Take eight steps at once."""
    await run.map("note", Counter().note, "abcdefgh", concurrency=8)


async def test_a_run_that_is_to_stop_asks_its_store_for_one_of_its_steps_only() -> None:
    """Of the steps that wait for their turn while the store is away none is tried where somebody waits for the end."""
    store = Away(1000.0)

    runner = draining(store)
    outcome = await runner.start(noted_side_by_side, run_id="r")

    assert outcome.status is RunStatus.RUNNING
    assert store.asked == 4


async def test_a_silent_store_is_not_waited_for_to_take_a_lease_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that gave its store up while somebody waits tries for a moment only to give its lease up too."""
    monkeypatch.setattr(writer, "_LONGEST_WAIT_S", 0.01)
    store = Away(1000.0)

    waited = False

    async def silent(*_: Any, **__: Any) -> None:
        nonlocal waited
        await asyncio.sleep(2)
        waited = True

    store.release = silent  # type: ignore[attr-defined]
    runner = draining(store)
    outcome = await runner.start(noted_once, run_id="r")

    assert outcome.status is RunStatus.RUNNING
    assert not waited


async def test_a_store_is_not_waited_for_longer_than_a_lease_lasts() -> None:
    """The run stops with the store's error when somebody else may have its lease."""
    store = Away(1000.0)
    runner = runner_on(store, sleep=store.sleep, lease=timedelta(seconds=10))

    with pytest.raises(CheckpointStoreUnavailableError, match="it restarts"):
        await runner.start(noted_once, run_id="r")

    assert 7 <= store.waited <= 10


async def test_a_run_that_is_to_stop_waits_for_its_store_a_moment_only() -> None:
    """Who presses Ctrl-C while the store is away is not made to wait for the length of a lease."""
    store = Away(1000.0)

    runner = draining(store)
    outcome = await runner.start(noted_once, run_id="r")

    assert outcome.status is RunStatus.RUNNING
    assert store.waited < 2


async def test_a_store_that_stays_down_leaves_the_run_resumable() -> None:
    """A run whose store is gone for good raises that, is not marked as failed, and runs no step again later."""
    inner = forgiving_store()
    counter = Counter()

    class Down:
        """Refuses the second append and all after it."""

        appends = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(inner, name)

        async def append(self, *args: Any, **options: Any) -> Any:
            """Append the first step only."""
            self.appends += 1
            if self.appends > 1:
                raise CheckpointStoreUnavailableError("the disk is full")
            return await inner.append(*args, **options)

    @workflow(version="1")
    async def two(run: Run) -> str:
        await run.step("one", counter.note, "1")
        return (await run.step("two", counter.note, "2")).title

    with pytest.raises(CheckpointStoreUnavailableError, match="disk is full"):
        await runner_on(Down()).start(two, run_id="r")
    head = await inner.head("r")
    outcome = await runner_on(inner).resume("r", two)

    assert head is not None
    assert (head.status, head.next_step_index, head.lease) == (RunStatus.RUNNING, 1, None)
    assert outcome.value() == "2"
    assert counter.runs == 3


async def test_two_runs_at_once_in_one_process_do_not_share_a_lease(checkpoints: CheckpointStorage) -> None:
    """A second resume within the same process is told that the run is busy; it does not pass for the holder."""
    from app.errors import RunBusyError

    entered, leave = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        entered.set()
        await leave.wait()

    @workflow(version="1")
    async def waiting(run: Run) -> None:
        await run.step("wait", wait)

    runner = runner_on(checkpoints)
    first = asyncio.create_task(runner.start(waiting, run_id="r"))
    await entered.wait()
    with pytest.raises(RunBusyError):
        await runner.resume("r", waiting)
    leave.set()

    assert (await first).status is RunStatus.COMPLETED


@pytest.mark.parametrize(("after_effect", "runs"), [(False, 2), (True, 1)])
async def test_the_append_is_the_line_between_running_again_and_not(after_effect: bool, runs: int) -> None:  # noqa: FBT001 - a parameter of the test
    """Dying before the append repeats the step; dying right after it, unacknowledged, does not."""
    inner = forgiving_store()
    counter = Counter()

    @workflow(version="1")
    async def one(run: Run) -> str:
        return (await run.step("note", counter.note, "t")).title

    # The verbs of a start: create, claim, append.
    mortal = MortalStore(inner, dies_at=3, after_effect=after_effect)
    with pytest.raises(ProcessDiedError):
        await runner_on(mortal).start(one, run_id="r")
    outcome = await runner_on(inner).resume("r", one)

    assert outcome.value() == "t"
    assert counter.runs == runs
