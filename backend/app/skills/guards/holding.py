"""Holds from the caller's side: taken before a call, closed after it, whatever is cancelled or down meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final
from uuid import uuid4

from app.errors import (
    BudgetError,
    BudgetExceededError,
    BudgetStoppedError,
    BudgetStoreUnavailableError,
    HoldConflictError,
    StoreError,
    UnboundedCallError,
    UnknownHoldError,
)
from app.metrics import GuardMetrics, guard_metrics
from app.money import Microcents, format_usd, microcents_to_cents
from app.skills.guards.wrapper import Patience, persist, to_the_end
from app.skills.llm_invoke_v2 import CallContext, LLMConfig
from app.stores.budget.contract import BudgetStore, Hold, Refused, Stopped
from app.stores.budget.stop import global_stop, stopped_error

__all__ = ["LEASE_MARGIN", "HoldKeeper", "hold_id_of", "lease_of"]

LEASE_MARGIN: Final = timedelta(seconds=30)
"""How much longer than the call's deadline a hold lives: time to settle it."""

_LONGEST_LEASE: Final = timedelta(hours=24)
_LONGEST_KEY_BYTES: Final = 256
_NOT_SENT: Final = '{"outcome": "not_sent"}'

_log = logging.getLogger(__name__)


class HoldKeeper:
    """Takes holds and closes them.

    Args:
        budget: keeps the ceilings.
        patience: how long the closing of a hold is tried while the store does not answer.
    """

    def __init__(self, budget: BudgetStore, patience: Patience) -> None:
        self._budget = budget
        self._patience = patience

    async def take(
        self,
        hold_id: str,
        amount: Microcents,
        scopes: Sequence[str],
        *,
        lease: timedelta,
        tenant_id: str,
        unbounded: UnboundedCallError | None = None,
    ) -> Hold:
        """Take a hold, in one round trip; once a second another one asks whether all tenants are stopped.

        If it raises, cancelled or not, the call must not be made, and no hold stays.

        Args:
            unbounded: why ``amount`` is no bound; raised if one of the scopes has a limit.

        Raises:
            BudgetExceededError: it does not fit under a limit.
            BudgetStoppedError: the tenant is stopped, or all are.
            UnboundedCallError: ``unbounded``, where a limit applies.
            HoldConflictError: the id was used before.
            BudgetStoreUnavailableError: the store did not answer.
        """
        try:
            await global_stop(self._budget).check()
        except BudgetStoppedError:
            (await guard_metrics()).refusals.labels("stopped").inc()
            raise
        try:
            result = await to_the_end(self._budget.reserve(hold_id, amount, scopes, lease=lease, tenant_id=tenant_id))
        except (asyncio.CancelledError, BudgetStoreUnavailableError):
            # It may have been taken all the same, and nobody would ever close it.
            await to_the_end(self._take_back(hold_id, tenant_id))
            raise
        if isinstance(result, Stopped):
            (await guard_metrics()).refusals.labels("stopped").inc()
            raise stopped_error(result, tenant_id=tenant_id)
        if isinstance(result, Refused):
            window = "unbounded" if unbounded else result.blocking[0].window
            (await guard_metrics()).refusals.labels(window).inc()
            raise unbounded or _exceeded(result, tenant_id)
        if not result.hold.permits_call:
            raise HoldConflictError(
                f"the hold {hold_id!r} is {result.hold.state} already: a call was made under this name before",
                hold_id=hold_id,
            )
        if unbounded is not None and any(window.limit is not None for window in result.windows):
            await to_the_end(self._take_back(hold_id, tenant_id))
            (await guard_metrics()).refusals.labels("unbounded").inc()
            raise unbounded
        return result.hold

    async def settle(self, hold: Hold, amount: Microcents, *, detail: str | None = None) -> None:
        """Charge the bill."""

        async def verb() -> Hold:
            return await self._budget.settle(hold.hold_id, amount, detail=detail, tenant_id=hold.tenant_id)

        def count(families: GuardMetrics) -> None:
            if amount > hold.amount:
                families.overage_cents.inc(float(microcents_to_cents(amount - hold.amount)))

        await self._close(hold, verb, f"settled at {amount} microcents", count)

    async def release(self, hold: Hold, *, detail: str) -> None:
        """Drop the hold of a call that provably was not billed."""
        await self._close(
            hold, lambda: self._budget.release(hold.hold_id, detail=detail, tenant_id=hold.tenant_id), "released"
        )

    async def expire(self, hold: Hold, *, detail: str) -> None:
        """Charge the hold as uncertain; ``outcome`` in the detail says why."""

        async def verb() -> Hold:
            return await self._budget.expire(hold.hold_id, detail=detail, tenant_id=hold.tenant_id)

        def count(families: GuardMetrics) -> None:
            reason = json.loads(detail)["outcome"]
            families.uncertain.labels(reason).inc()
            families.uncertain_cents.labels(reason).inc(float(microcents_to_cents(hold.amount)))

        await self._close(hold, verb, "charged as uncertain", count)

    async def make_good(self, hold_id: str, amount: Microcents, *, tenant_id: str) -> None:
        """Settle what a call that ended long ago may have left open; what was closed otherwise meanwhile stays so."""
        try:
            await to_the_end(self._budget.settle(hold_id, amount, tenant_id=tenant_id))
        except (HoldConflictError, UnknownHoldError):
            return  # corrected by a person, or folded: both are final
        except StoreError as error:
            _log.warning(
                "the hold %r of a recorded call could not be settled: %s; a repeat tries again", hold_id, error
            )

    async def _close(
        self,
        hold: Hold,
        verb: Callable[[], Awaitable[Hold]],
        what: str,
        count: Callable[[GuardMetrics], None] | None = None,
    ) -> None:
        """Close the hold, cancelled or not. What cannot be delivered is logged: the end of the lease charges it."""
        await to_the_end(self._deliver(hold, verb, what, count))

    async def _deliver(
        self,
        hold: Hold,
        verb: Callable[[], Awaitable[Hold]],
        what: str,
        count: Callable[[GuardMetrics], None] | None,
    ) -> None:
        try:
            await persist(verb, self._patience)
            if count is not None:
                count(await guard_metrics())
        except (BudgetError, StoreError) as error:
            if isinstance(error, StoreError):
                (await guard_metrics()).undelivered.inc()
            _log.error(
                "the hold %r of tenant %r could not be %s: %s; if it is still open, the end of its lease charges it in "
                "full, until `nova budget correct`",
                hold.hold_id,
                hold.tenant_id,
                what,
                error,
            )

    async def _take_back(self, hold_id: str, tenant_id: str) -> None:
        """Release a hold that may or may not have been taken, once: if that fails, the end of its lease charges it."""
        try:
            await self._budget.release(hold_id, detail=_NOT_SENT, tenant_id=tenant_id)
        except UnknownHoldError:
            return
        except (BudgetError, StoreError) as error:
            _log.warning("the hold %r of a call that was not sent could not be released: %s", hold_id, error)


def hold_id_of(context: CallContext, *, label: str) -> str:
    """Return ``key/fencing token/label/attempt``; what is not given is random, so that no two attempts share one."""
    key = context.idempotency_key or uuid4().hex
    if len(key.encode(errors="replace")) > _LONGEST_KEY_BYTES:
        key = f"sha256:{hashlib.sha256(key.encode(errors='replace')).hexdigest()}"
    fence = context.fence if context.fence is not None else uuid4().hex
    return f"{key}/{fence}/{label}/{context.attempt}"


def lease_of(config: LLMConfig, context: CallContext) -> timedelta:
    """Return how long a hold lives: to the deadline of the call, and the margin."""
    deadline = timedelta(seconds=config.timeout_s)
    if context.deadline is not None:
        deadline = min(deadline, max(context.deadline, timedelta()))
    return min(deadline + LEASE_MARGIN, _LONGEST_LEASE)


def _exceeded(refused: Refused, tenant_id: str) -> BudgetExceededError:
    blocking = refused.blocking[0]
    assert blocking.limit is not None, "a window without a limit cannot be in the way"
    until = f"; a new window begins at {blocking.resets_at:%Y-%m-%d %H:%M} UTC" if blocking.resets_at else ""
    return BudgetExceededError(
        f"the call can cost up to {format_usd(refused.requested)}, but of the {format_usd(blocking.limit)} for "
        f"{blocking.scope!r} ({blocking.window}) {format_usd(blocking.spent)} are spent and "
        f"{format_usd(blocking.held)} held: raise the limit (`nova budget set`), lower max_tokens, or shorten the "
        f"prompt{until}",
        scope=blocking.scope,
        window=blocking.window,
        limit=blocking.limit,
        spent=blocking.spent,
        held=blocking.held,
        requested=refused.requested,
        resets_at=blocking.resets_at,
        tenant_id=tenant_id,
    )
