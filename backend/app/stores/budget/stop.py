"""The emergency stop of all tenants, as whoever makes calls sees it: asked for once a second, whatever is called.

A tenant's own stop is read by ``reserve`` itself, in its one atomic step. The stop of all tenants lies elsewhere on a
server that is split into slots, so it is polled: it takes effect within a second. Where it cannot be read for five,
calls are refused, since nobody could stop them.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable
from typing import Final

from app.errors import BudgetStoppedError, BudgetStoreUnavailableError
from app.stores.budget.contract import BudgetStore, Stopped

__all__ = ["GlobalStop", "global_stop", "stopped_error"]

_FRESH_S: Final = 1.0
"""How long an answer is gone by; a stop takes effect within this time."""

_PATIENCE_S: Final = 5.0
"""How long calls go on without an answer."""

_READ_S: Final = 1.0
"""How long one question may take. The first one, behind which there is no answer to go on with, may take as long as the
store lets it: it loads a driver and opens a connection, which takes more than this on a busy machine.
"""


class GlobalStop:
    """Knows whether all tenants are stopped. Safe for any number of tasks and event loops.

    Args:
        budget: where the stop is; whoever asks holds it.
        clock: seconds from a point that does not matter, for tests.
    """

    def __init__(self, budget: BudgetStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        # Not kept: the store would be, for ever, by its own entry among the known ones.
        self._budget = weakref.ref(budget)
        self._clock = clock
        self._asked_at: float | None = None
        self._answer: Stopped | None = None

    async def check(self) -> None:
        """Return where calls may be made.

        Raises:
            BudgetStoppedError: all tenants are stopped.
            BudgetStoreUnavailableError: that could not be asked for five seconds, or ever.
        """
        now = self._clock()
        if self._asked_at is None or now - self._asked_at >= _FRESH_S:
            await self._ask(now)
        if self._answer is not None:
            raise stopped_error(self._answer, tenant_id=None)

    async def _ask(self, now: float) -> None:
        budget = self._budget()
        assert budget is not None, "whoever asks for the stop of a store holds the store"
        # Several tasks may ask at the same time; each answer is true, and the one that was asked for last is kept.
        try:
            async with asyncio.timeout(None if self._asked_at is None else _READ_S):
                answer = await budget.stopped(tenant_id=None)
        except (BudgetStoreUnavailableError, TimeoutError) as error:
            if self._asked_at is None:
                raise  # the store's own words say what to do
            if self._clock() - self._asked_at >= _PATIENCE_S:
                raise BudgetStoreUnavailableError(
                    "it is not known whether an emergency stop is in force: the budget store could not be asked for "
                    f"{_PATIENCE_S:.0f} s. No call is made until it answers; nothing was changed"
                ) from error
            return
        if self._asked_at is None or now >= self._asked_at:
            self._asked_at, self._answer = now, answer


def stopped_error(stop: Stopped, *, tenant_id: str | None) -> BudgetStoppedError:
    """Return the error of a call that a stop refused."""
    whose, option = ("all tenants are", " --all") if tenant_id is None else (f"the tenant {tenant_id!r} is", "")
    reason = f" ({stop.reason})" if stop.reason else ""
    return BudgetStoppedError(
        f"{whose} stopped since {stop.since:%Y-%m-%d %H:%M:%S} UTC{reason}: no call is made until the stop is lifted "
        f"(`nova budget go{option}`)",
        tenant_id=tenant_id,
        reason=stop.reason,
        since=stop.since,
    )


_known: weakref.WeakKeyDictionary[BudgetStore, GlobalStop] = weakref.WeakKeyDictionary()


def global_stop(budget: BudgetStore) -> GlobalStop:
    """Return what knows the stop of a store: one for each store object, so that all who use it ask once a second."""
    found = _known.get(budget)
    if found is None:
        found = _known.setdefault(budget, GlobalStop(budget))
    return found
