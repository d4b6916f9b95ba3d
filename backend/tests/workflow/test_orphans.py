"""What calls of a process that lost its run had reserved is charged when the run goes on, and can still be corrected."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.stores.budget.contract import HoldState
from app.stores.budget.memory import InMemoryBudgetStore
from app.stores.checkpoint.contract import RunStatus
from app.stores.holder import Holder
from app.stores.idempotency.memory import InMemoryIdempotencyStore
from app.workflow.engine import Run, workflow

from .support import forgiving_store, runner_on


@workflow(version="1")
async def nothing(run: Run) -> None:
    """Do nothing."""


async def _begun_elsewhere_and_lost(checkpoints: object, budget: InMemoryBudgetStore) -> None:
    """Leave a run with a call under way, whose process gave no sign of life any more."""


async def test_a_resumed_run_charges_what_its_lost_calls_had_reserved() -> None:
    """Resuming charges, as uncertain and at once, every open hold of the run; those of other runs stay held."""
    checkpoints, budget = forgiving_store(), InMemoryBudgetStore()
    runner = runner_on(
        checkpoints, budget=budget, idempotency=InMemoryIdempotencyStore(), adapter=None, workflows=[nothing]
    )
    assert checkpoints and budget and runner
    pytest.skip("draft")
