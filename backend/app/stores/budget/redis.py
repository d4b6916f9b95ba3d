"""Budgets in Redis, Valkey or Upstash, shared by any number of machines.

A verb is one script and one round trip: it takes effect as a whole or not at all. The scripts report facts; the rules
that they kept to are those of :mod:`app.stores.budget.rules`, by which their answers are read here. They lie in
``redis_scripts``, and the first of them says how a tenant's budget is laid out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final, Literal
from uuid import uuid4

from app.errors import BudgetStoreUnavailableError
from app.money import Microcents, cents_to_microcents, check_amount, microcents_to_cents
from app.stores.budget import checks, ledger, redis_book, rules
from app.stores.budget.contract import (
    WINDOWS,
    AuditReport,
    Granted,
    Hold,
    HoldState,
    Limit,
    Refused,
    ReserveResult,
    Stopped,
    Window,
    WindowUsage,
)
from app.stores.budget.ledger import Adjustment, EntryKind
from app.stores.budget.redis_audit import audited
from app.stores.budget.redis_book import ALL_TENANTS, RedisBook, budget_script, packed_words
from app.stores.budget.redis_rows import (
    ShownUsage,
    damaged,
    entry_of,
    field_of,
    hold_of,
    limits_of,
    usages_of,
    windows_of,
)
from app.stores.clock import Clock, from_ms
from app.stores.names import DEFAULT_TENANT, check_name
from app.stores.redis.connection import DEFAULT_POOL_SIZE, DEFAULT_TIMEOUT_S

if TYPE_CHECKING:
    from app.credentials import CredentialSource

__all__ = ["RedisBudgetStore"]

_ADD: Final = budget_script("add", "rarely")
_USAGE: Final = budget_script("usage", "rarely")
_SET_LIMIT: Final = budget_script("set_limit", "rarely")
_NAMES: Final = budget_script("names")
_HOLD: Final = budget_script("hold")
_HOLDS: Final = budget_script("holds", "rarely")
_REPAIR: Final = budget_script("repair", "rarely")
_STOP: Final = budget_script("stop")
_REPAIR_TRIES: Final = 5
_MS: Final = timedelta(milliseconds=1)

_STATES: Final = {HoldState.HELD: "h", HoldState.SETTLED: "s", HoldState.RELEASED: "r", HoldState.EXPIRED: "e"}


class RedisBudgetStore:
    """Keeps ceilings on a server, by the server's clock.

    A verb takes one round trip, shared with what other tasks ask at the same time; more only where more leases have
    ended at once than one script writes down, and where a list or an audit is longer than one script reads. An
    acknowledged verb is as durable as the server: with
    ``appendfsync always`` it survives a crash, else up to a second may be forgotten.

    Args:
        url: gives ``REDIS_URL``.
        clock: the time, for tests; without it the server's.
        pool_size: the largest number of connections of one event loop.
        timeout_s: the longest that a verb may wait for the server.
    """

    def __init__(
        self,
        url: CredentialSource,
        *,
        clock: Clock | None = None,
        pool_size: int = DEFAULT_POOL_SIZE,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        self._book = RedisBook(url, clock=clock, pool_size=pool_size, timeout_s=timeout_s)

    async def reserve(
        self,
        hold_id: str,
        amount: Microcents,
        scopes: Sequence[str],
        *,
        lease: timedelta,
        tenant_id: str = DEFAULT_TENANT,
    ) -> ReserveResult:
        """Take a hold in every named scope, or in none; see the contract."""
        checks.check_key(tenant_id, hold_id)
        check_amount(amount)
        names = checks.check_scopes(scopes)
        lease = checks.check_lease(lease)

        lease_ms = lease // _MS
        words = (packed_words("reserve", 2 + len(names), lease_ms), amount, packed_words(*names))
        what, now_ms, rest = await self._book.change(tenant_id, hold_id, *words)
        if what == "stopped":
            return _stop(rest)
        if what == "known":
            hold, windows = _with_counters(tenant_id, hold_id, rest)
            rules.check_repeat(hold, amount, names)
            return Granted(hold=hold, windows=windows)
        hours, _, shown = rest.partition("\n")
        counted = windows_of(names, hours, now_ms)
        if what == "taken":
            # The same as rules.new_hold, whose windows are looked up here.
            now = from_ms(now_ms)
            hold = Hold(
                hold_id=hold_id,
                tenant_id=tenant_id,
                amount=amount,
                scopes=names,
                state=HoldState.HELD,
                charged=0,
                windows=counted,
                created_at=now,
                expires_at=now + lease,
            )
            return Granted(hold=hold, windows=ShownUsage(counted, shown))
        windows = usages_of(counted, shown)
        if what == "refused":
            return Refused(requested=amount, blocking=rules.blocking(windows, amount))
        rules.check_room(windows, amount)
        raise damaged("a counter")

    async def settle(
        self,
        hold_id: str,
        actual: Microcents,
        *,
        correction: bool = False,
        detail: str | None = None,
        tenant_id: str = DEFAULT_TENANT,
    ) -> Hold:
        """Replace the hold by the bill; see the contract."""
        checks.check_key(tenant_id, hold_id)
        check_amount(actual, what="actual")
        checks.check_text(detail, what="detail")

        return await self._close(
            "settle",
            hold_id,
            lambda hold, now: rules.settled(hold, actual, correction=correction, detail=detail, now=now),
            tenant_id=tenant_id,
            bill=actual,
            correction=correction,
            detail=detail,
        )

    async def release(self, hold_id: str, *, detail: str | None = None, tenant_id: str = DEFAULT_TENANT) -> Hold:
        """Drop the hold without a charge; see the contract."""
        checks.check_key(tenant_id, hold_id)
        checks.check_text(detail, what="detail")

        return await self._close(
            "release",
            hold_id,
            lambda hold, now: rules.released(hold, detail=detail, now=now),
            tenant_id=tenant_id,
            detail=detail,
        )

    async def expire(self, hold_id: str, *, detail: str | None = None, tenant_id: str = DEFAULT_TENANT) -> Hold:
        """Charge the hold in full as uncertain; see the contract."""
        checks.check_key(tenant_id, hold_id)
        checks.check_text(detail, what="detail")

        return await self._close(
            "expire",
            hold_id,
            lambda hold, now: rules.expired(hold, detail=detail, now=now),
            tenant_id=tenant_id,
            detail=detail,
        )

    async def set_limit(
        self, scope: str, limit: Microcents | None, *, window: Window = "total", tenant_id: str = DEFAULT_TENANT
    ) -> None:
        """Set or remove a ceiling; see the contract."""
        check_name(tenant_id, what="tenant_id")
        check_name(scope, what="scope")
        checks.check_window(window)
        if limit is not None:
            check_amount(limit, what="limit")

        of_window = WINDOWS.index(window) + 1
        await self._book.run(_SET_LIMIT, tenant_id, scope, of_window, "-" if limit is None else limit)

    async def limits(self, *, scope: str | None = None, tenant_id: str = DEFAULT_TENANT) -> tuple[Limit, ...]:
        """Return the limits; see the contract."""
        check_name(tenant_id, what="tenant_id")
        if scope is not None:
            check_name(scope, what="scope")
            _, _, rest = await self._book.ask(_USAGE, tenant_id, scope)
            return tuple(limits_of(scope, rest.split("\n")[3]))

        found = await self._names("book", tenant_id)
        return tuple(limit for name in sorted(found) for limit in limits_of(name, found[name]))

    async def usage(self, scope: str, *, tenant_id: str = DEFAULT_TENANT) -> tuple[WindowUsage, ...]:
        """Return the current windows of a scope; see the contract."""
        check_name(tenant_id, what="tenant_id")
        check_name(scope, what="scope")

        _, now_ms, rest = await self._book.ask(_USAGE, tenant_id, scope)
        return _current(scope, now_ms, rest)

    async def scopes(self, *, tenant_id: str = DEFAULT_TENANT) -> tuple[str, ...]:
        """Return the scopes that have a limit or a counter, sorted."""
        check_name(tenant_id, what="tenant_id")

        return tuple(sorted({**await self._names("book", tenant_id), **await self._names("ended", tenant_id)}))

    async def hold(self, hold_id: str, *, tenant_id: str = DEFAULT_TENANT) -> Hold:
        """Return one hold; see the contract."""
        checks.check_key(tenant_id, hold_id)

        what, now_ms, packed = await self._book.run(_HOLD, tenant_id, hold_id=hold_id)
        found = hold_of(tenant_id, hold_id, packed) if what == "hold" else None
        return rules.known(found, hold_id, from_ms(now_ms))

    async def holds(
        self,
        *,
        scope: str | None = None,
        state: HoldState | None = None,
        after: str | None = None,
        limit: int = 100,
        tenant_id: str = DEFAULT_TENANT,
    ) -> tuple[Hold, ...]:
        """Return a page of holds; see the contract. One that takes several scripts is not of one moment."""
        check_name(tenant_id, what="tenant_id")
        if scope is not None:
            check_name(scope, what="scope")
        if after is not None:
            check_name(after, what="after")
        state = checks.check_state(state)
        checks.check_page(limit)

        found: dict[str, Hold] = {}
        cursor: str | None = after or ""
        while cursor is not None and len(found) < limit:
            of_state = "" if state is None else _STATES[state]
            now_ms, following, *pairs = await self._book.texts(
                _HOLDS, tenant_id, cursor, redis_book.LOOKED_AT, limit - len(found), of_state, scope or ""
            )
            if now_ms == "damaged":
                raise damaged(f"the hold {following!r}")
            for hold_id, packed in zip(pairs[::2], pairs[1::2], strict=True):
                if after is None or hold_id > after:
                    found[hold_id] = rules.as_of(hold_of(tenant_id, hold_id, packed), from_ms(int(now_ms)))
            cursor = following or None
        return tuple(found[hold_id] for hold_id in sorted(found)[:limit])

    async def adjust(
        self,
        adjustment_id: str,
        scope: str,
        amount: Microcents,
        *,
        reason: str = "",
        tenant_id: str = DEFAULT_TENANT,
    ) -> bool:
        """Add an amount to a scope's current windows, once per id; see the contract."""
        check_name(tenant_id, what="tenant_id")
        check_name(adjustment_id, what="adjustment_id")
        check_name(scope, what="scope")
        checks.check_adjustment(amount)
        checks.check_text(reason, what="reason")

        what, windows_or_entry = await self._add(
            EntryKind.NAMED, adjustment_id, scope, amount, reason=reason, tenant_id=tenant_id
        )
        if isinstance(windows_or_entry, Adjustment):
            ledger.check_known(windows_or_entry, scope, amount)
            return False
        if what == "refused":
            ledger.check_applies(windows_or_entry, amount)
            rules.check_room(windows_or_entry, amount)
        return True

    async def audit(self, *, tenant_id: str = DEFAULT_TENANT) -> AuditReport:
        """Recompute every counter of the tenant; see the contract."""
        check_name(tenant_id, what="tenant_id")

        return (await audited(self._book, tenant_id)).report()

    async def repair(self, *, tenant_id: str = DEFAULT_TENANT) -> AuditReport:
        """Set each counter that differs to what its entries say; see the contract."""
        check_name(tenant_id, what="tenant_id")

        for _ in range(_REPAIR_TRIES):
            found = await audited(self._book, tenant_id)
            report = found.report()
            if report.clean:
                return report
            missing = [
                part
                for key, change in ledger.repairs(report).items()
                for part in (field_of(key), change.spent, change.held)
            ]
            # Only while nobody else has repaired since: a difference that is added twice is a difference again. And
            # what is missing in a counter that was not there is known only now that it is.
            what, _, _ = await self._book.run(_REPAIR, tenant_id, found.repairs, *missing)
            if what == "repaired":
                return report
        raise BudgetStoreUnavailableError(
            f"somebody else repairs the counters of tenant {tenant_id!r} at this moment; nothing was changed here. "
            "Look at what `nova budget audit` says now"
        )

    async def stop(self, *, reason: str = "", tenant_id: str | None = DEFAULT_TENANT) -> Stopped:
        """Stop a tenant, or all; see the contract."""
        checks.check_stoppable(tenant_id, reason)

        _, _, rest = await self._book.run(_STOP, tenant_id or ALL_TENANTS, "stop", reason)
        return _stop(rest)

    async def go(self, *, tenant_id: str | None = DEFAULT_TENANT) -> None:
        """Lift a stop; see the contract."""
        checks.check_stoppable(tenant_id)

        await self._book.run(_STOP, tenant_id or ALL_TENANTS, "go", "")

    async def stopped(self, *, tenant_id: str | None = DEFAULT_TENANT) -> Stopped | None:
        """Return a stop; see the contract."""
        checks.check_stoppable(tenant_id)

        what, _, rest = await self._book.run(_STOP, tenant_id or ALL_TENANTS, "look", "")
        return _stop(rest) if what == "stopped" else None

    async def get_workflow_cost(self, run_id: str, *, tenant_id: str = DEFAULT_TENANT) -> Decimal:
        """Return what the run has spent in all, in cents, exactly."""
        total, *_ = await self.usage(checks.run_scope(run_id), tenant_id=tenant_id)
        return microcents_to_cents(total.spent)

    async def add_workflow_cost(
        self, run_id: str, cost_cents: Decimal | float, *, tenant_id: str = DEFAULT_TENANT
    ) -> Decimal:
        """Add a cost in cents and return the new total; see the contract."""
        check_name(tenant_id, what="tenant_id")
        scope, cost = checks.run_scope(run_id), cents_to_microcents(cost_cents)

        windows = await self._cost(scope, cost, tenant_id)
        assert windows is not None, "without a ceiling none is passed"
        return microcents_to_cents(windows[0].spent + cost)

    async def add_workflow_cost_if_below(
        self, run_id: str, cost_cents: Decimal | float, ceiling: Decimal | float, *, tenant_id: str = DEFAULT_TENANT
    ) -> bool:
        """Add a cost if the total stays at or below ``ceiling``; see the contract."""
        check_name(tenant_id, what="tenant_id")
        scope, cost = checks.run_scope(run_id), cents_to_microcents(cost_cents)
        below = checks.ceiling_to_microcents(ceiling)

        return await self._cost(scope, cost, tenant_id, below=below) is not None

    async def reset_workflow_cost(self, run_id: str, *, tenant_id: str = DEFAULT_TENANT) -> None:
        """Set what the run has spent to zero; see the contract."""
        check_name(tenant_id, what="tenant_id")
        scope = checks.run_scope(run_id)

        await self._add(EntryKind.RESET, uuid4().hex, scope, 0, reason="reset", tenant_id=tenant_id)

    async def close(self) -> None:
        """Let go of the connections; a later verb opens them again."""
        await self._book.close()

    # --- what the verbs share ---------------------------------------------------------------------------------------

    async def _close(
        self,
        verb: Literal["settle", "release", "expire"],
        hold_id: str,
        rule: rules.Transition,
        *,
        tenant_id: str,
        bill: Microcents = 0,
        correction: bool = False,
        detail: str | None = None,
    ) -> Hold:
        note = "" if detail is None else f"={detail}"
        words = (packed_words(verb, 3, "1" if correction else ""), bill, note)
        what, now_ms, rest = await self._book.change(tenant_id, hold_id, *words)
        now = from_ms(now_ms)
        if what == "unknown":
            return rules.known(None, hold_id, now)
        windows: tuple[WindowUsage, ...] = ()
        if what == "full":
            hold, windows = _with_counters(tenant_id, hold_id, rest)
        else:
            hold = hold_of(tenant_id, hold_id, rest)
        # The hold as it was before: the rule says what became of it, or why nothing did, in the words of every backend.
        after, change = rule(hold, now)
        rules.check_room(windows, change.spent + change.held)
        return after

    async def _cost(
        self, scope: str, cost: Microcents, tenant_id: str, *, below: Microcents | None = None
    ) -> tuple[WindowUsage, ...] | None:
        """Add a cost; return the counters as they were before, None where ``below`` would have been passed."""
        what, windows = await self._add(
            EntryKind.COST, uuid4().hex, scope, cost, reason="workflow cost", tenant_id=tenant_id, below=below
        )
        assert not isinstance(windows, Adjustment), "an id that was just made up is not known"
        if what == "above":
            return None
        if what == "refused":
            rules.check_room(windows, cost)
        return windows

    async def _add(
        self,
        kind: EntryKind,
        entry_id: str,
        scope: str,
        amount: Microcents,
        *,
        reason: str,
        tenant_id: str,
        below: Microcents | None = None,
    ) -> tuple[str, tuple[WindowUsage, ...] | Adjustment]:
        most = "" if below is None else below
        what, now_ms, rest = await self._book.ask(_ADD, tenant_id, scope, kind.value, entry_id, amount, most, reason)
        if what == "known":
            return what, entry_of(entry_id, rest)
        return what, _current(scope, now_ms, rest)

    async def _names(self, of: Literal["book", "ended"], tenant_id: str) -> dict[str, str]:
        """Return scopes and their limits."""
        found: dict[str, str] = {}
        cursor = "0"
        while True:
            cursor, *words = await self._book.texts(_NAMES, tenant_id, of, cursor, redis_book.LOOKED_AT)
            found |= zip(words[::2], words[1::2], strict=True)
            if cursor == "0":
                return found


def _with_counters(tenant_id: str, hold_id: str, rest: str) -> tuple[Hold, tuple[WindowUsage, ...]]:
    """Return a hold and its counters, from how many lines these have, the lines, and those of the hold."""
    count, *lines = rest.split("\n")
    hold = hold_of(tenant_id, hold_id, "\n".join(lines[int(count) :]))
    return hold, usages_of(hold.windows, "\n".join(lines[: int(count)]))


def _current(scope: str, now_ms: int, rest: str) -> tuple[WindowUsage, ...]:
    """Return the current windows of a scope, from the line that says whether hours are counted, and its counters."""
    hours, _, shown = rest.partition("\n")
    return usages_of(windows_of((scope,), hours, now_ms), shown)


def _stop(rest: str) -> Stopped:
    since_ms, _, reason = rest.partition("\n")
    return Stopped(since=from_ms(int(since_ms)), reason=reason)
