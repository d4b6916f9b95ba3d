"""What calls of a lost process had reserved is charged when its run goes on, and can still be corrected."""

from __future__ import annotations

from datetime import timedelta

from app.stores.budget.contract import Granted, HoldState
from app.stores.budget.memory import InMemoryBudgetStore
from app.stores.checkpoint.contract import RunStatus
from app.stores.checkpoint.memory import InMemoryCheckpointStore
from app.workflow.engine import Run, Runner, workflow

_LEASE = timedelta(minutes=2)


async def test_a_run_that_goes_on_charges_what_lost_calls_had_reserved() -> None:
    """Resuming charges every open hold of the run as uncertain, at once; a bill that comes late corrects it."""
    attempts: list[int] = []
    budget = InMemoryBudgetStore()

    async def work() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise RuntimeError("the first attempt fails")
        return "done"

    @workflow(version="1")
    async def once(run: Run) -> str:
        return await run.step("work", work)

    runner = Runner(checkpoints=InMemoryCheckpointStore(), budget=budget, workflows=[once])
    await runner.start(once, run_id="lost", budget=100)
    for hold_id, scope in (("lost/1", "run:lost"), ("lost/2", "run:lost"), ("other/1", "run:other")):
        assert isinstance(await budget.reserve(hold_id, 10, [scope, "tenant"], lease=_LEASE), Granted)

    outcome = await runner.resume("lost", reopen=True)
    total = (await budget.usage("run:lost"))[0]
    corrected = await budget.settle("lost/1", 3)

    assert outcome.status is RunStatus.COMPLETED
    assert (total.spent, total.held, total.uncertain) == (20, 0, 20)
    assert (await budget.hold("other/1")).state is HoldState.HELD
    assert corrected.charged == 3
    assert (await budget.usage("run:lost"))[0].spent == 13
