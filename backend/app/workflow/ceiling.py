"""The budget of a run as the limit of its scope: when it is set, and when it is left alone.

It is set before the head of the run is created, so no crash leaves a run without it, and never again: what somebody
sets or removes later holds. A copy (a fork) has no start; its limit is set before its first record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.errors import ConfigurationError, WorkflowError
from app.workflow.inputs import StartRecord

if TYPE_CHECKING:
    from app.money import Microcents
    from app.stores.budget.contract import BudgetStore, Limit
    from app.stores.checkpoint.contract import RunHead

__all__ = ["RunCeiling"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCeiling:
    """Keeps the limit ``total`` of the scope ``run:<run_id>`` of a tenant's runs."""

    budget: BudgetStore | None
    tenant_id: str

    async def set(self, run_id: str, amount: Microcents) -> Microcents | None:
        """Set the limit of a run that is about to be created, in place of any that its scope has.

        Returns:
            The limit that it replaced, None where there was none.
        """
        before = await self._total(run_id)
        await self._set(run_id, amount)
        return before

    async def give_back(self, head: RunHead, *, ours: Microcents, before: Microcents | None) -> None:
        """Undo :meth:`set` for a run that another start created first.

        Two starts of one id may both find no run and both set the limit; the checkpoint store lets one of them create
        it. The other one, whose limit may have come last, puts back what the run was started with, and ``before``
        where it was started without a budget. Only while the limit is still the one that this start set: any other is
        the winner's, or a person's. This is not one atomic step with the creation, since the two stores need not share
        a database: a start that loses and dies right here leaves its own limit on the run.
        """
        if await self._total(head.run_id) != ours:
            return
        try:
            recorded = StartRecord.decode(head.inputs, run_id=head.run_id).limits.budget
        except WorkflowError:  # a head that a program wrote by itself has no budget of its own
            recorded = None
        right = before if recorded is None else recorded
        if right != ours:
            await self._set(head.run_id, right)

    async def check(self, head: RunHead, amount: Microcents | None) -> None:
        """See that a run which goes on is held to the budget that it was started with.

        A limit that was removed stays removed. Only a copy that nothing was recorded in yet is given the limit here:
        the copying does not know of budgets.

        Raises:
            ConfigurationError: it has a budget, and there is no store for it.
        """
        if amount is None:
            return
        if self.budget is None:
            raise ConfigurationError(
                f"run {head.run_id!r} has a budget, so it needs a budget store: pass budget= to the Runner"
            )
        copied = head.root_run_id != head.run_id or head.next_step_index > 0
        if head.version == 0 and copied and await self._total(head.run_id) is None:
            await self._set(head.run_id, amount)

    async def limits(self, run_id: str) -> tuple[Limit, ...]:
        """Return the limits of the run's scope, in every window."""
        return await self._store().limits(scope=_scope(run_id), tenant_id=self.tenant_id)

    async def remove(self, run_id: str, limits: tuple[Limit, ...]) -> None:
        """Remove the limits that a run had which was deleted; one that was changed since is a new run's, and stays."""
        for limit in await self.limits(run_id):
            if limit in limits:
                await self._store().set_limit(limit.scope, None, window=limit.window, tenant_id=self.tenant_id)

    async def _total(self, run_id: str) -> Microcents | None:
        return next((limit.amount for limit in await self.limits(run_id) if limit.window == "total"), None)

    async def _set(self, run_id: str, amount: Microcents | None) -> None:
        await self._store().set_limit(_scope(run_id), amount, window="total", tenant_id=self.tenant_id)

    def _store(self) -> BudgetStore:
        if self.budget is None:
            raise ConfigurationError("a run with a budget needs a budget store: pass budget= to the Runner")
        return self.budget


def _scope(run_id: str) -> str:
    return f"run:{run_id}"
