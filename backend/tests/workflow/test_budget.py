"""The budget of a run holds over its whole life, and every cent of it is found beside a step."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.errors import BudgetExceededError, ConfigurationError, RunExistsError, StepFailedError, UnboundedCallError
from app.money import parse_usd
from app.skills.adapters.stub_adapter import StubAdapter
from app.skills.llm_invoke_v2 import LLMConfig
from app.stores.budget.contract import BudgetStore
from app.stores.budget.memory import InMemoryBudgetStore
from app.stores.budget.sqlite import SqliteBudgetStore
from app.stores.checkpoint.contract import RunStatus
from app.stores.idempotency.memory import InMemoryIdempotencyStore
from app.workflow.engine import Run, Runner, StepContext, Workflow, workflow

from .support import MortalStore, ProcessDiedError, forgiving_store, runner_on

CONFIG = LLMConfig(max_tokens=50)


@pytest.fixture(params=["memory", "sqlite"])
async def budget(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BudgetStore]:
    """Give an empty budget store of each embedded backend."""
    store = InMemoryBudgetStore() if request.param == "memory" else SqliteBudgetStore(tmp_path / "nova.db")
    yield store
    await store.close()


@dataclass(frozen=True)
class Bench:
    """A runner with real guards around the stub, and the stores behind it."""

    budget: BudgetStore
    checkpoints: Any
    stub: StubAdapter

    def runner(self, *, checkpoints: Any = None, idempotency: Any = None) -> Runner:
        """Return a new runner, as a new process would have."""
        return runner_on(
            checkpoints or self.checkpoints,
            budget=self.budget,
            idempotency=idempotency or InMemoryIdempotencyStore(),
            adapter=self.stub,
            workflows=[ask],
        )

    async def spent(self, run_id: str = "r") -> int:
        """Return what the run has spent; nothing of it may be held or uncertain."""
        total = (await self.budget.usage(f"run:{run_id}"))[0]
        assert (total.held, total.uncertain) == (0, 0)
        return total.spent


@pytest.fixture
def bench(budget: BudgetStore) -> Bench:
    """Give a bench."""
    return Bench(budget, forgiving_store(), StubAdapter())


@workflow(version="1")
async def ask(run: Run, count: int) -> list[str]:
    """Ask so many times, one after another."""
    return [(await run.llm(f"ask/{n}", f"What about the number {n}?", CONFIG)).content for n in range(count)]


async def test_a_run_stops_at_its_budget_and_goes_on_when_it_is_raised(bench: Bench) -> None:
    """A run spends at most its budget, waits when the next call does not fit, and goes on after the limit is raised."""
    runner = bench.runner()
    limit = parse_usd("$0.0002")

    parked = await runner.start(ask, {"count": 8}, run_id="r", budget=limit)
    spent_when_parked = await bench.spent()
    again = await runner.resume("r")
    await bench.budget.set_limit("run:r", parse_usd("$1"))
    done = await runner.resume("r")

    assert (parked.status, parked.waiting_for) == (RunStatus.WAITING, "budget")
    assert isinstance(parked.error, BudgetExceededError)
    assert 0 < parked.steps_run < 8
    assert parked.cost == spent_when_parked <= limit
    assert (again.status, again.steps_run) == (RunStatus.WAITING, 0)
    assert (done.status, done.steps_replayed) == (RunStatus.COMPLETED, parked.steps_run)
    assert done.cost == await bench.spent()
    assert bench.stub.calls == 8


async def test_a_budget_that_the_first_call_exceeds_parks_the_run_before_it(bench: Bench) -> None:
    """A run whose budget is too small for one call makes none, and costs nothing."""
    parked = await bench.runner().start(ask, {"count": 2}, run_id="r", budget=1)

    assert (parked.status, parked.steps_run, parked.cost) == (RunStatus.WAITING, 0, 0)
    assert bench.stub.calls == 0
    assert await bench.spent() == 0


async def test_a_budget_is_used_up_however_many_calls_are_made_at_once(bench: Bench) -> None:
    """A call that does not fit beside the holds of others waits for their bills; the run parks when none is left.

    So a run in parallel gets as far with its money as one that makes its calls one by one.
    """

    async def call(number: int, context: StepContext) -> str:
        return (await context.llm(f"What about the number {number}?", CONFIG)).content

    def mapped(concurrency: int) -> Workflow[int]:
        @workflow(version="1", name="mapped")
        async def work(run: Run) -> int:
            return len(await run.map("call", call, range(10, 50), concurrency=concurrency))

        return work

    outcomes = [
        await bench.runner().start(mapped(concurrency), run_id=f"r{concurrency}", budget=parse_usd("$0.0006"))
        for concurrency in (1, 8)
    ]

    assert [outcome.status for outcome in outcomes] == [RunStatus.WAITING, RunStatus.WAITING]
    assert outcomes[0].steps_run == outcomes[1].steps_run > 5
    for outcome in outcomes:
        assert isinstance(outcome.error, BudgetExceededError)
        assert outcome.error.held == 0
        assert outcome.cost == await bench.spent(outcome.run_id)


@pytest.mark.parametrize("before", [None, 0, parse_usd("$1")])
async def test_a_new_run_is_held_to_the_budget_that_it_is_given(bench: Bench, before: int | None) -> None:
    """A start says what its run may spend, whatever limit its scope had before there was a run."""
    await bench.budget.set_limit("run:small", before)
    await bench.budget.set_limit("run:large", before)

    small = await bench.runner().start(ask, {"count": 2}, run_id="small", budget=1)
    large = await bench.runner().start(ask, {"count": 2}, run_id="large", budget=parse_usd("$1"))

    assert (small.status, small.steps_run) == (RunStatus.WAITING, 0)
    assert (large.status, large.steps_run) == (RunStatus.COMPLETED, 2)


async def test_a_start_without_a_budget_keeps_the_limit_that_was_set_for_it(bench: Bench) -> None:
    """A limit that somebody set for a run to come holds for it, where its start names no budget."""
    await bench.budget.set_limit("run:r", 1)

    outcome = await bench.runner().start(ask, {"count": 1}, run_id="r")

    assert outcome.status is RunStatus.WAITING
    assert bench.stub.calls == 0


async def test_a_limit_that_was_removed_stays_removed(bench: Bench) -> None:
    """Resuming a run does not set its budget again: whoever took the limit away meant it."""
    parked = await bench.runner().start(ask, {"count": 2}, run_id="r", budget=1)
    await bench.budget.set_limit("run:r", None)

    done = await bench.runner().resume("r")

    assert parked.status is RunStatus.WAITING
    assert done.status is RunStatus.COMPLETED
    assert await bench.budget.limits(scope="run:r") == ()


@workflow(version="1")
async def told(run: Run, text: str) -> str:
    """Ask once; the input is too large for the head, so that a start can be cut before it is on record."""
    return (await run.llm("ask", text[:10], CONFIG)).content


async def test_a_repeated_start_leaves_the_limit_as_it_is(bench: Bench) -> None:
    """A start that was cut is taken up under the limit that was raised meanwhile."""
    inputs = {"text": "x" * 10_000}
    # The verbs of a start with a budget: head, create, claim, append.
    mortal = MortalStore(bench.checkpoints, dies_at=3, after_effect=True)
    with pytest.raises(ProcessDiedError):
        await bench.runner(checkpoints=mortal).start(told, inputs, run_id="r", budget=1)
    await bench.budget.set_limit("run:r", parse_usd("$1"))

    outcome = await bench.runner().start(told, inputs, run_id="r", budget=1)

    assert outcome.status is RunStatus.COMPLETED


class LateStore:
    """A checkpoint store whose first answer about a run is that there is none: it was created right afterwards."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._asked = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def head(self, run_id: str, *, tenant_id: str) -> Any:
        """Return None once, and then the head."""
        if not self._asked:
            self._asked = True
            return None
        return await self._inner.head(run_id, tenant_id=tenant_id)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("given", "by_hand"), [(1, None), (None, 7), (None, None)])
async def test_a_refused_start_leaves_the_limit_of_the_run_that_is_there(
    bench: Bench, *, late: bool, given: int | None, by_hand: int | None
) -> None:
    """Also where the run was created between the look for it and the attempt to create it."""
    await bench.budget.set_limit("run:r", by_hand)
    await bench.runner().start(ask, {"count": 0}, run_id="r", budget=given)
    before = await bench.budget.limits(scope="run:r")
    checkpoints = LateStore(bench.checkpoints) if late else bench.checkpoints

    with pytest.raises(RunExistsError):
        await bench.runner(checkpoints=checkpoints).start(ask, {"count": 0}, run_id="r", budget=parse_usd("$1"))

    assert await bench.budget.limits(scope="run:r") == before


async def test_a_copy_of_a_run_has_its_budget_until_somebody_removes_it(bench: Bench) -> None:
    """A fork is held to the recorded budget under its own scope, from its first call on."""
    await bench.runner().start(ask, {"count": 2}, run_id="r", budget=1)
    await bench.checkpoints.fork("r", "copy")

    parked = await bench.runner().resume("copy")
    await bench.budget.set_limit("run:copy", None)
    done = await bench.runner().resume("copy")

    assert (parked.status, parked.steps_run) == (RunStatus.WAITING, 0)
    assert done.status is RunStatus.COMPLETED


@pytest.mark.parametrize("dies_at", [2, 3])
async def test_a_crash_during_a_start_does_not_lift_its_limit(bench: Bench, dies_at: int) -> None:
    """The limit is set before there is a run that could be resumed."""
    mortal = MortalStore(bench.checkpoints, dies_at=dies_at, after_effect=True)
    with pytest.raises(ProcessDiedError):
        await bench.runner(checkpoints=mortal).start(ask, {"count": 2}, run_id="r", budget=1)

    outcome = await bench.runner().resume("r")

    assert outcome.status is RunStatus.WAITING
    assert bench.stub.calls == 0


async def test_a_bill_whose_answer_a_crash_lost_is_counted_with_its_step(bench: Bench) -> None:
    """A call that was billed, but whose answer was recorded nowhere, is made again; the step's cost is both bills."""
    for name, code in (("direct", ask), ("inside", inside)):
        # The verbs of a start: create, claim, append. With the process goes what its idempotency store remembered.
        mortal = MortalStore(bench.checkpoints, dies_at=3, after_effect=False)
        with pytest.raises(ProcessDiedError):
            await bench.runner(checkpoints=mortal).start(code, {"count": 1}, run_id=name)
        billed = await bench.spent(name)

        outcome = await bench.runner().resume(name, code)

        (record,) = await bench.checkpoints.history(name)
        assert record.meta["lost_cost"] == billed > 0
        assert record.meta["cost"] == outcome.cost == await bench.spent(name) == 2 * billed


@workflow(version="1")
async def inside(run: Run, count: int) -> str:
    """Call from inside of a step."""

    async def call(context: StepContext) -> str:
        return (await context.llm(f"What about the number {count}?", CONFIG)).content

    return await run.step("inside", call)


async def test_bills_of_another_step_or_run_are_not_counted(bench: Bench) -> None:
    """A resumed step counts its own bills only, though other steps' and runs' keys begin like its own."""
    runner = bench.runner()
    for run_id in ("r", "r/ask", "rr"):
        await runner.start(ask, {"count": 12}, run_id=run_id, budget=parse_usd("$0.0002"))
        await bench.budget.set_limit(f"run:{run_id}", parse_usd("$1"))

    outcomes = [await runner.resume(run_id) for run_id in ("r", "r/ask", "rr")]

    for outcome in outcomes:
        assert outcome.value()
        assert outcome.cost == await bench.spent(outcome.run_id)
        assert all("lost_cost" not in record.meta for record in await bench.checkpoints.history(outcome.run_id))


async def test_an_unpriced_model_under_a_budget_fails_the_run_before_the_call(bench: Bench) -> None:
    """A call that has no upper bound is refused where the run has a budget; the run says which model."""

    @workflow(version="1")
    async def unpriced(run: Run) -> str:
        return (await run.llm("ask", "hello", LLMConfig(model="no-such-model"))).content

    outcome = await bench.runner().start(unpriced, run_id="r", budget=parse_usd("$1"))

    assert outcome.status is RunStatus.FAILED
    assert isinstance(outcome.error, StepFailedError)
    assert isinstance(outcome.error.__cause__, UnboundedCallError)
    assert "no-such-model" in str(outcome.error)
    assert bench.stub.calls == 0


async def test_a_budget_is_not_forgotten_by_a_runner_without_a_store_for_it(bench: Bench) -> None:
    """A run that was given a budget is not resumed where nothing would hold it to that."""
    parked = await bench.runner().start(ask, {"count": 1}, run_id="r", budget=1)

    with pytest.raises(ConfigurationError, match="has a budget"):
        await runner_on(bench.checkpoints, workflows=[ask]).resume("r")

    assert parked.status is RunStatus.WAITING
