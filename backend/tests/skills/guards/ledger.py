"""A budget store under observation: which verbs were called, which do not answer, and what every hold became."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from app.errors import BudgetStoreUnavailableError
from app.stores.budget.contract import BudgetStore, Granted, Hold, HoldState, WindowUsage

__all__ = ["ObservedStore", "all_holds", "total"]


class ObservedStore:
    """A budget store that counts its verbs, takes its time, and fails on request.

    Attributes:
        verbs: how often each was called.
        broken: by verb: ``before`` it takes effect or ``after`` it, for ever; ``once`` after it took effect, one time.
        grants: every grant, to check the ceiling by.
    """

    def __init__(self, inner: BudgetStore, *, awaits: int = 0, **broken: str) -> None:
        self._inner = inner
        self._awaits = awaits
        self.verbs: Counter[str] = Counter()
        self.broken = broken
        self.grants: list[Granted] = []

    def __getattr__(self, verb: str) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            self.verbs[verb] += 1
            await self._yield()
            if self.broken.get(verb) == "before":
                raise BudgetStoreUnavailableError("no answer")
            result = await getattr(self._inner, verb)(*args, **kwargs)
            if isinstance(result, Granted):
                self.grants.append(result)
            await self._yield()
            if self.broken.get(verb) == "after" or (self.broken.get(verb) == "once" and self.broken.pop(verb)):
                raise BudgetStoreUnavailableError("no answer")
            return result

        return call

    async def _yield(self) -> None:
        for _ in range(self._awaits):
            await asyncio.sleep(0)


async def all_holds(store: BudgetStore, *, state: HoldState | None = None) -> tuple[Hold, ...]:
    """Return the holds of the default tenant."""
    return await store.holds(state=state, limit=1_000)


async def total(store: BudgetStore, scope: str = "tenant") -> WindowUsage:
    """Return what a scope has used in all."""
    return (await store.usage(scope))[0]
