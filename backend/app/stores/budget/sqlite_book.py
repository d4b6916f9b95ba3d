"""One tenant's budget in a SQLite file, as one transaction sees it: rows in, rows out, and what is due by its time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Final

from app.money import Microcents
from app.stores.budget import rules
from app.stores.budget.contract import (
    KEEP_CLOSED,
    WINDOWS,
    Hold,
    HoldState,
    Limit,
    Stopped,
    Window,
    WindowUsage,
)
from app.stores.budget.ledger import Adjustment, CounterKey
from app.stores.budget.rules import Change, Counter
from app.stores.budget.sqlite_rows import (
    ENTRY_COLUMNS,
    HOLD_COLUMNS,
    counter_of,
    entry_of,
    hold_of,
    hold_row,
    packed,
    remove_ms,
)
from app.stores.budget.windows import windows_at
from app.stores.clock import from_ms, to_ms

__all__ = [
    "ANYTHING_DUE",
    "COUNTERS",
    "DUE_HOLDS",
    "FOLDED_ENTRIES",
    "FOLDED_HOLDS",
    "OLD_COUNTERS",
    "PAGE_OF_HELD",
    "SqliteBook",
]

_PORTION: Final = 64
"""How many due rows of each kind a ``reserve`` clears away: no fewer than it can add, so that they never pile up."""

_ALL: Final = -1
_NOTHING: Final = Counter()

_KEEP_CLOSED_MS: Final = int(KEEP_CLOSED.total_seconds() * 1000)

_FIND_HOLD: Final = f"SELECT {HOLD_COLUMNS} FROM budget_holds WHERE tenant_id = ? AND hold_id = ?"
_INSERT_HOLD: Final = f"INSERT INTO budget_holds ({HOLD_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_UPDATE_HOLD: Final = (
    "UPDATE budget_holds SET state = ?, charged = ?, closed_ms = ?, detail = ? WHERE tenant_id = ? AND hold_id = ?"
)
_DELETE_HOLD: Final = "DELETE FROM budget_holds WHERE tenant_id = ? AND hold_id = ?"
_PAGE_OF_HOLDS: Final = (
    f"SELECT {HOLD_COLUMNS} FROM budget_holds WHERE tenant_id = :tenant_id AND hold_id > :after"
    " AND coalesce(closed_ms, expires_ms) > :folded_ms"
    " AND (:state IS NULL OR :state = CASE WHEN state = 'held' AND expires_ms <= :now_ms THEN 'expired' ELSE state END)"
    " AND (:scope IS NULL OR EXISTS (SELECT 1 FROM json_each(scopes) WHERE value = :scope))"
    " ORDER BY hold_id LIMIT :limit"
)
# The same for what is held, by the index of open holds: left to itself SQLite walks the tenant's holds by their ids.
PAGE_OF_HELD: Final = (
    f"SELECT {HOLD_COLUMNS} FROM budget_holds INDEXED BY budget_holds_to_expire"
    " WHERE state = 'held' AND expires_ms > :now_ms AND tenant_id = :tenant_id AND hold_id > :after"
    " AND (:scope IS NULL OR EXISTS (SELECT 1 FROM json_each(scopes) WHERE value = :scope))"
    " ORDER BY hold_id LIMIT :limit"
)
DUE_HOLDS: Final = (
    f"SELECT {HOLD_COLUMNS} FROM budget_holds WHERE state = 'held' AND expires_ms <= ? ORDER BY expires_ms LIMIT ?"
)
FOLDED_HOLDS: Final = (
    f"SELECT {HOLD_COLUMNS} FROM budget_holds WHERE closed_ms IS NOT NULL AND closed_ms <= ? ORDER BY closed_ms LIMIT ?"
)
FOLDED_ENTRIES: Final = (
    f"SELECT {ENTRY_COLUMNS} FROM budget_adjustments"
    " WHERE kind <> 'named' AND created_ms <= ? ORDER BY created_ms LIMIT ?"
)
OLD_COUNTERS: Final = (
    "SELECT tenant_id, scope, window_id FROM budget_counters"
    " WHERE remove_ms IS NOT NULL AND remove_ms <= ? ORDER BY remove_ms LIMIT ?"
)
ANYTHING_DUE: Final = (
    "SELECT EXISTS (SELECT 1 FROM budget_holds WHERE state = 'held' AND expires_ms <= :now_ms)"
    " OR EXISTS (SELECT 1 FROM budget_holds WHERE closed_ms IS NOT NULL AND closed_ms <= :folded_ms)"
    " OR EXISTS (SELECT 1 FROM budget_adjustments WHERE kind <> 'named' AND created_ms <= :folded_ms)"
    " OR EXISTS (SELECT 1 FROM budget_counters WHERE remove_ms IS NOT NULL AND remove_ms <= :now_ms)"
)
COUNTERS: Final = (
    "SELECT window_id, spent, held, uncertain, overage, base FROM budget_counters"
    " WHERE tenant_id = ? AND scope = ? AND window_id IN (?, ?, ?, ?)"
)
_OPEN_AND_ADD: Final = (
    "INSERT INTO budget_counters (tenant_id, scope, window_id, spent, held, uncertain, overage, base, remove_ms)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (tenant_id, scope, window_id) DO UPDATE SET spent = spent + excluded.spent,"
    " held = held + excluded.held, uncertain = uncertain + excluded.uncertain,"
    " overage = overage + excluded.overage, base = base + excluded.base"
)
_ADD: Final = (
    "UPDATE budget_counters SET spent = spent + ?, held = held + ?, uncertain = uncertain + ?,"
    " overage = overage + ?, base = base + ? WHERE tenant_id = ? AND scope = ? AND window_id = ?"
)


class SqliteBook:
    """One tenant's rows within one transaction.

    Args:
        connection: inside a transaction, which the caller ends.
        tenant_id: whose book it is; clearing away what is due is done for all tenants.
        now_ms: the transaction's time.
    """

    def __init__(self, connection: sqlite3.Connection, tenant_id: str, now_ms: int) -> None:
        self._connection = connection
        self._tenant_id = tenant_id
        self._now_ms = now_ms
        self.now = from_ms(now_ms)
        self._overdue: dict[CounterKey, Microcents] | None = None

    # --- reading ----------------------------------------------------------------------------------------------------

    def find(self, hold_id: str) -> Hold | None:
        """Return the hold as it is written down."""
        row = self._connection.execute(_FIND_HOLD, (self._tenant_id, hold_id)).fetchone()
        return None if row is None else hold_of(row)

    def holds(self, *, scope: str | None, state: HoldState | None, after: str | None, limit: int) -> tuple[Hold, ...]:
        """Return a page of holds as they count now, without the folded ones.

        Asking for ``HELD`` costs what the open holds of all tenants cost, however many closed ones are kept.
        """
        query = PAGE_OF_HELD if state is HoldState.HELD else _PAGE_OF_HOLDS
        values = {
            "tenant_id": self._tenant_id,
            "after": after or "",
            "folded_ms": self._now_ms - _KEEP_CLOSED_MS,
            "now_ms": self._now_ms,
            "state": state,
            "scope": scope,
            "limit": limit,
        }
        return tuple(rules.as_of(hold_of(row), self.now) for row in self._connection.execute(query, values))

    def all_holds(self) -> Iterator[Hold]:
        """Yield every hold of the tenant as it is written down."""
        rows = self._connection.execute(
            f"SELECT {HOLD_COLUMNS} FROM budget_holds WHERE tenant_id = ?", (self._tenant_id,)
        )
        return map(hold_of, rows)

    def all_entries(self) -> Iterator[Adjustment]:
        """Yield every adjustment of the tenant."""
        query = f"SELECT {ENTRY_COLUMNS} FROM budget_adjustments WHERE tenant_id = ?"
        return map(entry_of, self._connection.execute(query, (self._tenant_id,)))

    def all_counters(self) -> dict[CounterKey, Counter]:
        """Return every counter of the tenant as it is written down."""
        rows = self._connection.execute(
            "SELECT scope, window_id, spent, held, uncertain, overage, base FROM budget_counters WHERE tenant_id = ?",
            (self._tenant_id,),
        )
        return {(scope, of_window): counter_of(amounts) for scope, of_window, *amounts in rows}

    def limits(self, scope: str | None = None) -> tuple[Limit, ...]:
        """Return the limits of a scope, or of all, in their order."""
        rows = self._connection.execute(
            "SELECT scope, window, amount FROM budget_limits WHERE tenant_id = ? AND (? IS NULL OR scope = ?)",
            (self._tenant_id, scope, scope),
        )
        found = [Limit(scope=of_scope, window=window, amount=amount) for of_scope, window, amount in rows]
        return tuple(sorted(found, key=lambda limit: (limit.scope, WINDOWS.index(limit.window))))

    def limits_of(self, scope: str) -> dict[Window, Microcents]:
        """Return the limits of one scope by window."""
        return dict(
            self._connection.execute(
                "SELECT window, amount FROM budget_limits WHERE tenant_id = ? AND scope = ?", (self._tenant_id, scope)
            ).fetchall()
        )

    def scopes(self) -> tuple[str, ...]:
        """Return the scopes that have a limit or a counter, sorted."""
        rows = self._connection.execute(
            "SELECT scope FROM budget_limits WHERE tenant_id = :tenant_id"
            " UNION SELECT scope FROM budget_counters WHERE tenant_id = :tenant_id",
            {"tenant_id": self._tenant_id},
        )
        return tuple(sorted(scope for (scope,) in rows))

    def current(self, scope: str) -> tuple[WindowUsage, ...]:
        """Return the current windows of a scope."""
        limits = self.limits_of(scope)
        return tuple(self._usage(scope, windows_at(self.now, hourly="hour" in limits), limits))

    def of_hold(self, hold: Hold, limits: dict[str, dict[Window, Microcents]] | None = None) -> tuple[WindowUsage, ...]:
        """Return the windows of a hold; ``limits`` by scope, where they were read before."""
        found: list[WindowUsage] = []
        for scope, counted in groupby(hold.windows, key=itemgetter(0)):
            of_scope = self.limits_of(scope) if limits is None else limits[scope]
            found += self._usage(scope, [(window, of_window) for _, window, of_window in counted], of_scope)
        return tuple(found)

    def counter(self, scope: str, of_window: str) -> Counter:
        """Return one counter as it is written down."""
        values = (self._tenant_id, scope, of_window, None, None, None)
        row = self._connection.execute(COUNTERS, values).fetchone()
        return _NOTHING if row is None else counter_of(row[1:])

    def named(self, adjustment_id: str) -> Adjustment | None:
        """Return a caller's adjustment."""
        row = self._connection.execute(
            f"SELECT {ENTRY_COLUMNS} FROM budget_adjustments"
            " WHERE tenant_id = ? AND kind = 'named' AND adjustment_id = ?",
            (self._tenant_id, adjustment_id),
        ).fetchone()
        return None if row is None else entry_of(row)

    def _usage(
        self, scope: str, counted: Iterable[tuple[Window, str]], limits: dict[Window, Microcents]
    ) -> Iterator[WindowUsage]:
        windows = tuple(counted)
        ids = [of_window for _, of_window in windows]
        values = (self._tenant_id, scope, *ids, *[None] * (len(WINDOWS) - len(ids)))
        counters = {
            of_window: counter_of(amounts) for of_window, *amounts in self._connection.execute(COUNTERS, values)
        }
        for window, of_window in windows:
            counter = counters.get(of_window, _NOTHING)
            if late := self._late(scope, of_window):
                counter = counter.plus(Change(spent=late, held=-late, uncertain=late))
            yield rules.usage(scope, window, of_window, counter, limits.get(window))

    def _late(self, scope: str, of_window: str) -> Microcents:
        """Return what is written down as held in a window and counts as spent, because its lease has ended."""
        if self._overdue is None:
            self._overdue = {}
            for row in self._connection.execute(DUE_HOLDS, (self._now_ms, _ALL)):
                if row[0] == self._tenant_id:
                    hold = hold_of(row)
                    for of_scope, _, its_window in hold.windows:
                        key = (of_scope, its_window)
                        self._overdue[key] = self._overdue.get(key, 0) + hold.amount
        return self._overdue.get((scope, of_window), 0)

    def stopped(self) -> Stopped | None:
        """Return the emergency stop of the tenant."""
        query = "SELECT since_ms, reason FROM budget_stops WHERE tenant_id = ?"
        row = self._connection.execute(query, (self._tenant_id,)).fetchone()
        return None if row is None else Stopped(since=from_ms(row[0]), reason=row[1])

    # --- writing ----------------------------------------------------------------------------------------------------

    def set_limit(self, scope: str, window: Window, amount: Microcents | None) -> None:
        """Set a limit, or remove it."""
        if amount is None:
            self._connection.execute(
                "DELETE FROM budget_limits WHERE tenant_id = ? AND scope = ? AND window = ?",
                (self._tenant_id, scope, window),
            )
        else:
            self._connection.execute(
                "INSERT OR REPLACE INTO budget_limits (tenant_id, scope, window, amount) VALUES (?, ?, ?, ?)",
                (self._tenant_id, scope, window, amount),
            )

    def stop(self, reason: str) -> Stopped:
        """Stop the tenant, unless it is stopped; return the stop that is in force."""
        self._connection.execute(
            "INSERT INTO budget_stops (tenant_id, since_ms, reason) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (self._tenant_id, self._now_ms, reason),
        )
        found = self.stopped()
        assert found is not None, "it was just written"
        return found

    def go(self) -> None:
        """Lift the tenant's stop."""
        self._connection.execute("DELETE FROM budget_stops WHERE tenant_id = ?", (self._tenant_id,))

    def repair(self, changes: Mapping[CounterKey, Change]) -> None:
        """Add to counters what an audit found missing."""
        self._open_and_add(changes.items())

    def insert(self, hold: Hold, change: Change) -> None:
        """Write a new hold, and open its counters where they are new."""
        self._connection.execute(_INSERT_HOLD, hold_row(hold))
        keys = [(scope, of_window) for scope, _, of_window in hold.windows]
        self._open_and_add([(key, change) for key in keys])

    def update(self, hold: Hold, change: Change) -> None:
        """Write how a hold stands now, and what that changes in its counters."""
        closed_ms = None if hold.closed_at is None else to_ms(hold.closed_at)
        values = (hold.state, hold.charged, closed_ms, hold.detail, hold.tenant_id, hold.hold_id)
        self._connection.execute(_UPDATE_HOLD, values)
        self._add_to_windows(hold, change)

    def enter(self, entry: Adjustment) -> None:
        """Write an adjustment, and add it to its counters, opened where they are new."""
        self._connection.execute(
            f"INSERT INTO budget_adjustments ({ENTRY_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._tenant_id,
                entry.kind,
                entry.adjustment_id,
                entry.scope,
                entry.amount,
                packed(entry.amounts),
                entry.reason,
                to_ms(entry.created_at),
            ),
        )
        self._open_and_add([((entry.scope, of_window), Change(spent=amount)) for of_window, amount in entry.amounts])

    def _open_and_add(self, changes: Iterable[tuple[CounterKey, Change]]) -> None:
        self._connection.executemany(
            _OPEN_AND_ADD,
            [
                (
                    self._tenant_id,
                    *(scope, of_window),
                    *(change.spent, change.held, change.uncertain, change.overage, change.base),
                    remove_ms(of_window),
                )
                for (scope, of_window), change in changes
            ],
        )

    def _add_to_windows(self, hold: Hold, change: Change) -> None:
        if change == rules.NO_CHANGE:
            return
        amounts = (change.spent, change.held, change.uncertain, change.overage, change.base)
        # Only counters that are there: one that was removed after its 35 days must not come back with a part.
        self._connection.executemany(
            _ADD, [(*amounts, hold.tenant_id, scope, of_window) for scope, _, of_window in hold.windows]
        )

    # --- what is due ------------------------------------------------------------------------------------------------

    def clear_portion(self) -> None:
        """Write down a bounded number of ended leases, fold as many entries, and remove as many old counters."""
        moments = {"now_ms": self._now_ms, "folded_ms": self._now_ms - _KEEP_CLOSED_MS}
        if not self._connection.execute(ANYTHING_DUE, moments).fetchone()[0]:
            self._overdue = {}
            return
        self.expire_due(_PORTION)
        self._fold_holds()
        self._fold_entries()
        self._connection.executemany(
            "DELETE FROM budget_counters WHERE tenant_id = ? AND scope = ? AND window_id = ?",
            self._connection.execute(OLD_COUNTERS, (self._now_ms, _PORTION)).fetchall(),
        )

    def expire_due(self, portion: int = _ALL) -> None:
        """Write down leases that have ended, of all tenants, oldest first."""
        due = self._connection.execute(DUE_HOLDS, (self._now_ms, portion)).fetchall()
        for row in due:
            hold = hold_of(row)
            _, change = rules.expired(hold, detail=None, now=self.now)
            self.update(rules.as_of(hold, self.now), change)
        self._overdue = None

    def fold(self, hold: Hold) -> None:
        """Remove a closed hold; what it charged stays, as part of the base."""
        self._add_to_windows(hold, Change(base=hold.charged))
        self._connection.execute(_DELETE_HOLD, (hold.tenant_id, hold.hold_id))

    def _fold_holds(self) -> None:
        rows = self._connection.execute(FOLDED_HOLDS, (self._now_ms - _KEEP_CLOSED_MS, _PORTION)).fetchall()
        for row in rows:
            self.fold(hold_of(row))

    def _fold_entries(self) -> None:
        rows = self._connection.execute(FOLDED_ENTRIES, (self._now_ms - _KEEP_CLOSED_MS, _PORTION)).fetchall()
        for row in rows:
            tenant_id, entry = row[0], entry_of(row)
            self._connection.executemany(
                _ADD,
                [(0, 0, 0, 0, amount, tenant_id, entry.scope, of_window) for of_window, amount in entry.amounts],
            )
            self._connection.execute(
                "DELETE FROM budget_adjustments WHERE tenant_id = ? AND kind = ? AND adjustment_id = ?",
                (tenant_id, entry.kind, entry.adjustment_id),
            )
