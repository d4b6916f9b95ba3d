"""Budgets in a SQLite file, shared by the processes of one host; they survive all of them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final, TypeVar

from app.errors import BudgetStoreUnavailableError
from app.money import Microcents, cents_to_microcents, check_amount, microcents_to_cents
from app.stores.budget import checks, ledger, rules
from app.stores.budget.contract import (
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
from app.stores.budget.ledger import EntryKind
from app.stores.budget.rules import Change
from app.stores.budget.sqlite_book import SqliteBook
from app.stores.clock import Clock
from app.stores.names import DEFAULT_TENANT, check_name
from app.stores.sqlite.database import SqliteDatabase

__all__ = ["SqliteBudgetStore"]

T = TypeVar("T")

_ALL_TENANTS: Final = ""
"""In whose book the stop of all tenants is: no name is empty."""


class SqliteBudgetStore:
    """Keeps ceilings in a file.

    Each verb is one transaction: it reads the rows, asks the rules and writes what they say, with no other writer in
    between. An acknowledged verb survives the loss of power.

    Args:
        path: the file; it and its directory are created at the first use.
        clock: the time, for tests.
    """

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        self._database = SqliteDatabase(path, unavailable=BudgetStoreUnavailableError, clock=clock)

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

        def work(book: SqliteBook) -> ReserveResult:
            if stop := book.stopped():
                return stop
            book.clear_portion()
            known = _unfolded(book, hold_id)
            if known is not None:
                rules.check_repeat(known, amount, names)
                return Granted(hold=rules.as_of(known, book.now), windows=book.of_hold(known))
            limits = {scope: book.limits_of(scope) for scope in names}
            hourly = [scope for scope in names if "hour" in limits[scope]]
            hold = rules.new_hold(tenant_id, hold_id, amount, names, hourly=hourly, lease=lease, now=book.now)
            windows = book.of_hold(hold, limits)
            if blocking := rules.blocking(windows, amount):
                return Refused(requested=amount, blocking=blocking)
            rules.check_room(windows, amount)
            book.insert(hold, rules.reserved(hold))
            return Granted(hold=hold, windows=tuple(rules.taken(window, amount) for window in windows))

        return await self._write(tenant_id, work)

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

        def work(book: SqliteBook) -> Hold:
            hold = _known(book, hold_id)
            after, change = rules.settled(hold, actual, correction=correction, detail=detail, now=book.now)
            if change.spent + change.held > 0:
                rules.check_room(book.of_hold(hold), change.spent + change.held)
            return _correct(book, hold, after, change)

        return await self._write(tenant_id, work)

    async def release(self, hold_id: str, *, detail: str | None = None, tenant_id: str = DEFAULT_TENANT) -> Hold:
        """Drop the hold without a charge; see the contract."""
        checks.check_key(tenant_id, hold_id)
        checks.check_text(detail, what="detail")

        def work(book: SqliteBook) -> Hold:
            hold = _known(book, hold_id)
            return _correct(book, hold, *rules.released(hold, detail=detail, now=book.now))

        return await self._write(tenant_id, work)

    async def expire(self, hold_id: str, *, detail: str | None = None, tenant_id: str = DEFAULT_TENANT) -> Hold:
        """Charge the hold in full as uncertain; see the contract."""
        checks.check_key(tenant_id, hold_id)
        checks.check_text(detail, what="detail")

        def work(book: SqliteBook) -> Hold:
            hold = _known(book, hold_id)
            return _correct(book, hold, *rules.expired(hold, detail=detail, now=book.now))

        return await self._write(tenant_id, work)

    async def set_limit(
        self, scope: str, limit: Microcents | None, *, window: Window = "total", tenant_id: str = DEFAULT_TENANT
    ) -> None:
        """Set or remove a ceiling; see the contract."""
        check_name(tenant_id, what="tenant_id")
        check_name(scope, what="scope")
        checks.check_window(window)
        if limit is not None:
            check_amount(limit, what="limit")

        await self._write(tenant_id, lambda book: book.set_limit(scope, window, limit))

    async def limits(self, *, scope: str | None = None, tenant_id: str = DEFAULT_TENANT) -> tuple[Limit, ...]:
        """Return the limits; see the contract."""
        check_name(tenant_id, what="tenant_id")
        if scope is not None:
            check_name(scope, what="scope")

        return await self._read(tenant_id, lambda book: book.limits(scope))

    async def usage(self, scope: str, *, tenant_id: str = DEFAULT_TENANT) -> tuple[WindowUsage, ...]:
        """Return the current windows of a scope; see the contract."""
        check_name(tenant_id, what="tenant_id")
        check_name(scope, what="scope")

        return await self._read(tenant_id, lambda book: book.current(scope))

    async def scopes(self, *, tenant_id: str = DEFAULT_TENANT) -> tuple[str, ...]:
        """Return the scopes that have a limit or a counter, sorted."""
        check_name(tenant_id, what="tenant_id")

        return await self._read(tenant_id, SqliteBook.scopes)

    async def hold(self, hold_id: str, *, tenant_id: str = DEFAULT_TENANT) -> Hold:
        """Return one hold; see the contract."""
        checks.check_key(tenant_id, hold_id)

        return await self._read(tenant_id, lambda book: rules.known(book.find(hold_id), hold_id, book.now))

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
        state = checks.check_state(state)
        checks.check_page(limit)

        return await self._read(tenant_id, lambda book: book.holds(scope=scope, state=state, after=after, limit=limit))

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

        def work(book: SqliteBook) -> bool:
            known = book.named(adjustment_id)
            if known is not None:
                ledger.check_known(known, scope, amount)
                return False
            windows = book.current(scope)
            ledger.check_applies(windows, amount)
            rules.check_room(windows, amount)
            book.enter(ledger.named(adjustment_id, scope, amount, windows, reason=reason, now=book.now))
            return True

        return await self._write(tenant_id, work)

    async def audit(self, *, tenant_id: str = DEFAULT_TENANT) -> AuditReport:
        """Recompute every counter of the tenant; see the contract."""
        check_name(tenant_id, what="tenant_id")

        def work(book: SqliteBook) -> AuditReport:
            return ledger.audit(book.all_counters(), book.all_holds(), book.all_entries(), now=book.now)

        return await self._read(tenant_id, work)

    async def repair(self, *, tenant_id: str = DEFAULT_TENANT) -> AuditReport:
        """Set each counter that differs to what its entries say; see the contract."""
        check_name(tenant_id, what="tenant_id")

        def work(book: SqliteBook) -> AuditReport:
            report = ledger.audit(book.all_counters(), book.all_holds(), book.all_entries(), now=book.now)
            book.repair(ledger.repairs(report))
            return report

        return await self._write(tenant_id, work)

    async def stop(self, *, reason: str = "", tenant_id: str | None = DEFAULT_TENANT) -> Stopped:
        """Stop a tenant, or all; see the contract."""
        checks.check_stoppable(tenant_id, reason)

        return await self._write(tenant_id or _ALL_TENANTS, lambda book: book.stop(reason))

    async def go(self, *, tenant_id: str | None = DEFAULT_TENANT) -> None:
        """Lift a stop; see the contract."""
        checks.check_stoppable(tenant_id)

        await self._write(tenant_id or _ALL_TENANTS, SqliteBook.go)

    async def stopped(self, *, tenant_id: str | None = DEFAULT_TENANT) -> Stopped | None:
        """Return a stop; see the contract."""
        checks.check_stoppable(tenant_id)

        return await self._read(tenant_id or _ALL_TENANTS, SqliteBook.stopped)

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

        return microcents_to_cents(await self._write(tenant_id, lambda book: _add_cost(book, scope, cost)))

    async def add_workflow_cost_if_below(
        self, run_id: str, cost_cents: Decimal | float, ceiling: Decimal | float, *, tenant_id: str = DEFAULT_TENANT
    ) -> bool:
        """Add a cost if the total stays at or below ``ceiling``; see the contract."""
        check_name(tenant_id, what="tenant_id")
        scope, cost = checks.run_scope(run_id), cents_to_microcents(cost_cents)
        below = checks.ceiling_to_microcents(ceiling)

        def work(book: SqliteBook) -> bool:
            total, *_ = book.current(scope)
            if rules.blocking([replace(total, limit=below)], cost):
                return False
            _add_cost(book, scope, cost)
            return True

        return await self._write(tenant_id, work)

    async def reset_workflow_cost(self, run_id: str, *, tenant_id: str = DEFAULT_TENANT) -> None:
        """Set what the run has spent to zero; see the contract."""
        check_name(tenant_id, what="tenant_id")
        scope = checks.run_scope(run_id)

        def work(book: SqliteBook) -> None:
            amounts = [(window.window_id, -window.spent) for window in book.current(scope)]
            book.enter(ledger.unnamed(EntryKind.RESET, scope, amounts, reason="reset", now=book.now))

        await self._write(tenant_id, work)

    async def close(self) -> None:
        """Let go of the file; a later verb opens it again."""
        # Closing waits for the file's threads and empties the write-ahead log.
        await asyncio.to_thread(self._database.close)

    async def _write(self, tenant_id: str, work: Callable[[SqliteBook], T]) -> T:
        def transaction(connection: sqlite3.Connection, now_ms: int) -> T:
            return work(SqliteBook(connection, tenant_id, now_ms))

        return await self._database.write(transaction)

    async def _read(self, tenant_id: str, work: Callable[[SqliteBook], T]) -> T:
        def snapshot(connection: sqlite3.Connection, now_ms: int) -> T:
            return work(SqliteBook(connection, tenant_id, now_ms))

        return await self._database.read(snapshot)


def _known(book: SqliteBook, hold_id: str) -> Hold:
    """Return a hold for a verb that closes or corrects it, in the state in which it counts now and is written down."""
    hold = rules.known(book.find(hold_id), hold_id, book.now)
    if hold.state is HoldState.EXPIRED:
        # Its own lease must be written down before it is corrected, and the others' before a counter is floored.
        book.expire_due()
    return hold


def _unfolded(book: SqliteBook, hold_id: str) -> Hold | None:
    """Return the hold of an id; one that no verb knows any more is removed, and its id is free again."""
    hold = book.find(hold_id)
    if hold is None or not rules.is_folded(hold, book.now):
        return hold
    book.expire_due()
    book.fold(rules.as_of(hold, book.now))
    return None


def _correct(book: SqliteBook, before: Hold, after: Hold, change: Change) -> Hold:
    """Write a closed hold, with entries for whatever would make a counter negative."""
    if after == before:
        return after
    if change.spent < 0:
        for scope in after.scopes:
            floors = [
                (of_window, amount)
                for of_scope, _, of_window in after.windows
                if of_scope == scope and (amount := rules.floor(book.counter(scope, of_window), change))
            ]
            if floors:
                reason = f"correction of {after.hold_id}"
                book.enter(ledger.unnamed(EntryKind.FLOOR, scope, floors, reason=reason, now=book.now))
    book.update(after, change)
    return after


def _add_cost(book: SqliteBook, scope: str, cost: Microcents) -> Microcents:
    windows = book.current(scope)
    rules.check_room(windows, cost)
    amounts = [(window.window_id, cost) for window in windows]
    book.enter(ledger.unnamed(EntryKind.COST, scope, amounts, reason="workflow cost", now=book.now))
    return windows[0].spent + cost
