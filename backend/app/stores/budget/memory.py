"""Budgets in the memory of one process: for tests and small programs; what is counted ends with the process.

This is also the model that the other backends are held against, so it does the plainest thing: before each verb
everything that is due by now is done (leases end, closed holds are folded, old windows go), and then the verb.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal, TypeAlias

from app.money import Microcents, cents_to_microcents, check_amount, microcents_to_cents
from app.stores.budget import checks, ledger, rules
from app.stores.budget.contract import (
    KEEP_CLOSED,
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
from app.stores.budget.ledger import Adjustment, CounterKey, EntryKind
from app.stores.budget.rules import Change, Counter
from app.stores.budget.windows import KEEP_WINDOWS, ends_at, windows_at
from app.stores.clock import Clock, from_ms, system_clock
from app.stores.names import DEFAULT_TENANT, check_name

__all__ = ["InMemoryBudgetStore"]


@dataclass(slots=True)
class _Book:
    """What is kept of one tenant."""

    limits: dict[tuple[str, Window], Microcents] = field(default_factory=dict)
    counters: dict[CounterKey, Counter] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    named: dict[str, Adjustment] = field(default_factory=dict)
    unnamed: dict[str, Adjustment] = field(default_factory=dict)

    def usage(self, scope: str, window: Window, of_window: str) -> WindowUsage:
        counter = self.counters.get((scope, of_window), Counter())
        return rules.usage(scope, window, of_window, counter, self.limits.get((scope, window)))

    def current(self, scope: str, now: datetime) -> tuple[WindowUsage, ...]:
        windows = windows_at(now, hourly=(scope, "hour") in self.limits)
        return tuple(self.usage(scope, window, of_window) for window, of_window in windows)

    def of_hold(self, hold: Hold) -> tuple[WindowUsage, ...]:
        return tuple(self.usage(*counted) for counted in hold.windows)


_Task: TypeAlias = tuple[Literal["expire", "fold", "fold entry", "forget window"], _Book, str, str]
"""What is to be done, in which book, and two strings that say to what."""


class InMemoryBudgetStore:
    """Keeps ceilings until the process ends.

    Every verb runs without an await and under a lock, so it is atomic among tasks, event loops and threads.

    Args:
        clock: the time, for tests.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or system_clock
        self._lock = threading.Lock()
        self._books: dict[str, _Book] = {}
        self._agenda: list[tuple[datetime, int, _Task]] = []
        self._order = itertools.count()
        self._latest_ms = 0
        self._stops: dict[str | None, Stopped] = {}

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

        with self._at_now(tenant_id) as (book, now):
            if tenant_id in self._stops:
                return self._stops[tenant_id]
            known = book.holds.get(hold_id)
            if known is not None:
                rules.check_repeat(known, amount, names)
                return Granted(hold=known, windows=book.of_hold(known))
            hourly = [scope for scope in names if (scope, "hour") in book.limits]
            hold = rules.new_hold(tenant_id, hold_id, amount, names, hourly=hourly, lease=lease, now=now)
            windows = book.of_hold(hold)
            if blocking := rules.blocking(windows, amount):
                return Refused(requested=amount, blocking=blocking)
            rules.check_room(windows, amount)
            self._put(book, hold, rules.reserved(hold))
            return Granted(hold=hold, windows=book.of_hold(hold))

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

        with self._at_now(tenant_id) as (book, now):
            hold = rules.known(book.holds.get(hold_id), hold_id, now)
            after, change = rules.settled(hold, actual, correction=correction, detail=detail, now=now)
            rules.check_room(book.of_hold(hold), change.spent + change.held)
            return self._correct(book, after, change, now)

    async def release(self, hold_id: str, *, detail: str | None = None, tenant_id: str = DEFAULT_TENANT) -> Hold:
        """Drop the hold without a charge; see the contract."""
        checks.check_key(tenant_id, hold_id)
        checks.check_text(detail, what="detail")

        with self._at_now(tenant_id) as (book, now):
            hold = rules.known(book.holds.get(hold_id), hold_id, now)
            after, change = rules.released(hold, detail=detail, now=now)
            return self._correct(book, after, change, now)

    async def expire(self, hold_id: str, *, detail: str | None = None, tenant_id: str = DEFAULT_TENANT) -> Hold:
        """Charge the hold in full as uncertain; see the contract."""
        checks.check_key(tenant_id, hold_id)
        checks.check_text(detail, what="detail")

        with self._at_now(tenant_id) as (book, now):
            hold = rules.known(book.holds.get(hold_id), hold_id, now)
            return self._put(book, *rules.expired(hold, detail=detail, now=now))

    async def set_limit(
        self, scope: str, limit: Microcents | None, *, window: Window = "total", tenant_id: str = DEFAULT_TENANT
    ) -> None:
        """Set or remove a ceiling; see the contract."""
        check_name(tenant_id, what="tenant_id")
        check_name(scope, what="scope")
        checks.check_window(window)
        if limit is not None:
            check_amount(limit, what="limit")

        with self._at_now(tenant_id) as (book, _):
            if limit is None:
                book.limits.pop((scope, window), None)
            else:
                book.limits[scope, window] = limit

    async def limits(self, *, scope: str | None = None, tenant_id: str = DEFAULT_TENANT) -> tuple[Limit, ...]:
        """Return the limits; see the contract."""
        check_name(tenant_id, what="tenant_id")
        if scope is not None:
            check_name(scope, what="scope")

        with self._at_now(tenant_id) as (book, _):
            found = [
                Limit(scope=of_scope, window=window, amount=amount)
                for (of_scope, window), amount in book.limits.items()
                if scope is None or of_scope == scope
            ]
        return tuple(sorted(found, key=lambda limit: (limit.scope, WINDOWS.index(limit.window))))

    async def usage(self, scope: str, *, tenant_id: str = DEFAULT_TENANT) -> tuple[WindowUsage, ...]:
        """Return the current windows of a scope; see the contract."""
        check_name(tenant_id, what="tenant_id")
        check_name(scope, what="scope")

        with self._at_now(tenant_id) as (book, now):
            return book.current(scope, now)

    async def scopes(self, *, tenant_id: str = DEFAULT_TENANT) -> tuple[str, ...]:
        """Return the scopes that have a limit or a counter, sorted."""
        check_name(tenant_id, what="tenant_id")

        with self._at_now(tenant_id) as (book, _):
            return tuple(sorted({scope for scope, _ in (*book.limits, *book.counters)}))

    async def hold(self, hold_id: str, *, tenant_id: str = DEFAULT_TENANT) -> Hold:
        """Return one hold; see the contract."""
        checks.check_key(tenant_id, hold_id)

        with self._at_now(tenant_id) as (book, now):
            return rules.known(book.holds.get(hold_id), hold_id, now)

    async def holds(
        self,
        *,
        scope: str | None = None,
        state: HoldState | None = None,
        after: str | None = None,
        limit: int = 100,
        tenant_id: str = DEFAULT_TENANT,
    ) -> tuple[Hold, ...]:
        """Return a page of holds; see the contract."""
        check_name(tenant_id, what="tenant_id")
        if scope is not None:
            check_name(scope, what="scope")
        if after is not None:
            check_name(after, what="after")
        checks.check_state(state)
        checks.check_page(limit)

        with self._at_now(tenant_id) as (book, _):
            matching = (
                hold
                for hold in book.holds.values()
                if (after is None or hold.hold_id > after)
                and (scope is None or scope in hold.scopes)
                and (state is None or hold.state == state)
            )
            return tuple(heapq.nsmallest(limit, matching, key=lambda hold: hold.hold_id))

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

        with self._at_now(tenant_id) as (book, now):
            if adjustment_id in book.named:
                ledger.check_known(book.named[adjustment_id], scope, amount)
                return False
            windows = book.current(scope, now)
            ledger.check_applies(windows, amount)
            rules.check_room(windows, amount)
            self._enter(book, ledger.named(adjustment_id, scope, amount, windows, reason=reason, now=now))
            return True

    async def audit(self, *, tenant_id: str = DEFAULT_TENANT) -> AuditReport:
        """Recompute every counter of the tenant; see the contract."""
        check_name(tenant_id, what="tenant_id")

        with self._at_now(tenant_id) as (book, now):
            entries = itertools.chain(book.named.values(), book.unnamed.values())
            return ledger.audit(book.counters, book.holds.values(), entries, now=now)

    async def repair(self, *, tenant_id: str = DEFAULT_TENANT) -> AuditReport:
        """Set each counter that differs to what its entries say; see the contract."""
        check_name(tenant_id, what="tenant_id")

        with self._at_now(tenant_id) as (book, now):
            entries = itertools.chain(book.named.values(), book.unnamed.values())
            report = ledger.audit(book.counters, book.holds.values(), entries, now=now)
            for key, change in ledger.repairs(report).items():
                self._add(book, key, change)
            return report

    async def stop(self, *, reason: str = "", tenant_id: str | None = DEFAULT_TENANT) -> Stopped:
        """Stop a tenant, or all; see the contract."""
        checks.check_stoppable(tenant_id, reason)

        with self._at_now(tenant_id or DEFAULT_TENANT) as (_, now):
            return self._stops.setdefault(tenant_id, Stopped(since=now, reason=reason))

    async def go(self, *, tenant_id: str | None = DEFAULT_TENANT) -> None:
        """Lift a stop; see the contract."""
        checks.check_stoppable(tenant_id)

        with self._lock:
            self._stops.pop(tenant_id, None)

    async def stopped(self, *, tenant_id: str | None = DEFAULT_TENANT) -> Stopped | None:
        """Return a stop; see the contract."""
        checks.check_stoppable(tenant_id)

        with self._lock:
            return self._stops.get(tenant_id)

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

        with self._at_now(tenant_id) as (book, now):
            return microcents_to_cents(self._add_cost(book, scope, cost, now))

    async def add_workflow_cost_if_below(
        self, run_id: str, cost_cents: Decimal | float, ceiling: Decimal | float, *, tenant_id: str = DEFAULT_TENANT
    ) -> bool:
        """Add a cost if the total stays at or below ``ceiling``; see the contract."""
        check_name(tenant_id, what="tenant_id")
        scope, cost = checks.run_scope(run_id), cents_to_microcents(cost_cents)
        below = checks.ceiling_to_microcents(ceiling)

        with self._at_now(tenant_id) as (book, now):
            if rules.blocking([replace(book.usage(scope, "total", "total"), limit=below)], cost):
                return False
            self._add_cost(book, scope, cost, now)
            return True

    async def reset_workflow_cost(self, run_id: str, *, tenant_id: str = DEFAULT_TENANT) -> None:
        """Set what the run has spent to zero; see the contract."""
        check_name(tenant_id, what="tenant_id")
        scope = checks.run_scope(run_id)

        with self._at_now(tenant_id) as (book, now):
            amounts = [(window.window_id, -window.spent) for window in book.current(scope, now)]
            self._enter(book, ledger.unnamed(EntryKind.RESET, scope, amounts, reason="reset", now=now))

    async def close(self) -> None:
        """Do nothing: there is nothing to let go of, and what is counted stays."""

    def _add_cost(self, book: _Book, scope: str, cost: Microcents, now: datetime) -> Microcents:
        windows = book.current(scope, now)
        rules.check_room(windows, cost)
        amounts = [(window.window_id, cost) for window in windows]
        self._enter(book, ledger.unnamed(EntryKind.COST, scope, amounts, reason="workflow cost", now=now))
        return book.counters[scope, "total"].spent

    # --- what moves the books; the caller has the lock -------------------------------------------------------------

    @contextmanager
    def _at_now(self, tenant_id: str) -> Iterator[tuple[_Book, datetime]]:
        """Hold the lock, with everything done that is due by now; the time never goes back."""
        with self._lock:
            self._latest_ms = max(self._latest_ms, self._clock())
            now = from_ms(self._latest_ms)
            while self._agenda and self._agenda[0][0] <= now:
                self._do(heapq.heappop(self._agenda)[2], now)
            yield self._books.setdefault(tenant_id, _Book()), now

    def _do(self, task: _Task, now: datetime) -> None:
        kind, book, one, other = task
        if kind == "forget window":
            book.counters.pop((one, other), None)
        elif kind == "fold entry":
            entry = book.unnamed.pop(one)
            for of_window, amount in entry.amounts:
                self._add(book, (entry.scope, of_window), Change(base=amount))
        elif one in book.holds:
            # The hold may have been closed since this was noted.
            hold = book.holds[one]
            if kind == "expire" and rules.is_due(hold, now):
                _, change = rules.expired(hold, detail=None, now=now)
                self._put(book, rules.as_of(hold, now), change)
            elif kind == "fold" and rules.is_folded(hold, now):
                self._change(book, book.holds.pop(one), Change(base=hold.charged))

    def _put(self, book: _Book, hold: Hold, change: Change) -> Hold:
        before = book.holds.get(hold.hold_id)
        book.holds[hold.hold_id] = hold
        self._change(book, hold, change)
        if before is None:
            self._plan(hold.expires_at, ("expire", book, hold.hold_id, ""))
        elif before.closed_at is None and hold.closed_at is not None:
            self._plan(hold.closed_at + KEEP_CLOSED, ("fold", book, hold.hold_id, ""))
        return hold

    def _correct(self, book: _Book, hold: Hold, change: Change, now: datetime) -> Hold:
        """Put a closed hold, with entries for whatever would make a counter negative."""
        for scope in hold.scopes:
            floors = [
                (of_window, amount)
                for of_scope, _, of_window in hold.windows
                if of_scope == scope and (amount := rules.floor(book.counters[scope, of_window], change))
            ]
            if floors:
                reason = f"correction of {hold.hold_id}"
                self._enter(book, ledger.unnamed(EntryKind.FLOOR, scope, floors, reason=reason, now=now))
        return self._put(book, hold, change)

    def _enter(self, book: _Book, entry: Adjustment) -> None:
        if entry.kind is EntryKind.NAMED:
            book.named[entry.adjustment_id] = entry
        else:
            book.unnamed[entry.adjustment_id] = entry
            self._plan(entry.created_at + KEEP_CLOSED, ("fold entry", book, entry.adjustment_id, ""))
        for of_window, amount in entry.amounts:
            self._add(book, (entry.scope, of_window), Change(spent=amount))

    def _change(self, book: _Book, hold: Hold, change: Change) -> None:
        for scope, _, of_window in hold.windows:
            self._add(book, (scope, of_window), change)

    def _add(self, book: _Book, key: CounterKey, change: Change) -> None:
        end = ends_at(key[1])
        if key not in book.counters and end is not None:
            self._plan(end + KEEP_WINDOWS, ("forget window", book, *key))
        book.counters[key] = book.counters.get(key, Counter()).plus(change)

    def _plan(self, moment: datetime, task: _Task) -> None:
        heapq.heappush(self._agenda, (moment, next(self._order), task))
