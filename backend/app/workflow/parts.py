"""What a run is put together from, and what it has done so far."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from datetime import timedelta

from app.money import Microcents
from app.skills.llm_invoke_v2 import LLMAdapter
from app.stores.budget.contract import BudgetStore
from app.stores.checkpoint.contract import Step
from app.workflow.listener import RunListener
from app.workflow.policies import NO_POLICY, SpendPolicy
from app.workflow.stop import Stop
from app.workflow.writer import RunWriter, Sleep

__all__ = ["RunParts", "Tally"]


@dataclass(slots=True)
class Tally:
    """What a run has done so far; only its :class:`Run` changes it.

    Attributes:
        cost: of all recorded steps whose cost is known, replayed ones included, in microcents.
        unknown_cost: how many steps have a cost that is unknown.
    """

    steps_run: int = 0
    steps_replayed: int = 0
    cost: Microcents = 0
    unknown_cost: int = 0

    def add(self, cost: Microcents | None, *, replayed: bool) -> None:
        """Count a step."""
        if replayed:
            self.steps_replayed += 1
        else:
            self.steps_run += 1
        if cost is None:
            self.unknown_cost += 1
        else:
            self.cost += cost


@dataclass(frozen=True, slots=True, kw_only=True)
class RunParts:
    """What a run works with.

    Attributes:
        records: recorded steps that were not asked for yet; each is let go when it is.
        resumed: whether the run was begun by an earlier process, or claim.
        time_left: until the deadline; None without one.
        random: a number from 0 to 1, for jitter.
        policy: what may be spent by role.
    """

    run_id: str
    tenant_id: str
    writer: RunWriter
    records: MutableMapping[str, Step]
    stop: Stop
    listener: RunListener
    adapter: Callable[[], LLMAdapter]
    budget: BudgetStore | None
    resumed: bool
    time_left: Callable[[], timedelta | None]
    sleep: Sleep
    random: Callable[[], float]
    allow_changed: bool
    policy: SpendPolicy = NO_POLICY
