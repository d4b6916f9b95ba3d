"""The budget store in SQLite keeps the contract, and what only a file can promise."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from app.errors import StoreDamagedError, StoreError
from app.stores.budget import sqlite_book
from app.stores.budget.contract import KEEP_CLOSED, HoldState
from app.stores.budget.sqlite import SqliteBudgetStore
from tests.support.clock import FakeClock

from .contract import DAY, LEASE, BackDoor, BudgetContract, OneBookForAll, granted, spent_and_held

TABLES = ("budget_limits", "budget_counters", "budget_holds", "budget_adjustments", "budget_stops")


class SqliteBackDoor(BackDoor):
    """Opens the file with a connection of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def dump(self) -> object:
        """Return the rows of every table."""
        return {table: rows for table in TABLES if (rows := self.read(f"SELECT * FROM {table}"))}

    def add_to_counter(self, scope: str, window_id: str, *, spent: int = 0, held: int = 0) -> None:
        """Update a row."""
        self.change(
            "UPDATE budget_counters SET spent = spent + ?, held = held + ?"
            " WHERE tenant_id = 'default' AND scope = ? AND window_id = ?",
            *(spent, held, scope, window_id),
        )

    def holds_kept(self) -> int:
        """Count the rows."""
        return len(self.read("SELECT 1 FROM budget_holds"))

    def window_ids_kept(self, scope: str) -> set[str]:
        """Read the keys of the counters."""
        rows = self.read("SELECT window_id FROM budget_counters WHERE tenant_id = 'default' AND scope = ?", scope)
        return {str(of_window) for (of_window,) in rows}

    def read(self, query: str, *values: object) -> list[tuple[object, ...]]:
        """Return the rows of a query, none where there is no file yet."""
        if not self._path.exists():
            return []
        with closing(sqlite3.connect(self._path)) as connection:
            return connection.execute(query, values).fetchall()

    def plan(self, query: str, values: Sequence[object] | Mapping[str, object]) -> str:
        """Return how SQLite goes about a query."""
        with closing(sqlite3.connect(self._path)) as connection:
            return str(connection.execute(f"EXPLAIN QUERY PLAN {query}", values).fetchall())

    def change(self, statement: str, *values: object) -> None:
        """Run a statement and commit it."""
        with closing(sqlite3.connect(self._path)) as connection:
            assert connection.execute(statement, values).rowcount > 0
            connection.commit()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a file that does not exist yet."""
    return tmp_path / "state" / "nova.db"


class TestSqliteBudgetStore(OneBookForAll, BudgetContract):
    """The contract on a file, and more."""

    @pytest.fixture
    async def store(self, path: Path, clock: FakeClock) -> AsyncIterator[SqliteBudgetStore]:
        """Give a store on an empty file."""
        store = SqliteBudgetStore(path, clock=clock)
        yield store
        await store.close()

    @pytest.fixture
    def back_door(self, path: Path) -> SqliteBackDoor:
        """Give the look into the file."""
        return SqliteBackDoor(path)

    async def test_what_is_counted_survives_the_store(
        self, store: SqliteBudgetStore, path: Path, clock: FakeClock
    ) -> None:
        """Another store on the same file sees holds and limits at once, and after the first is closed."""
        await store.set_limit("s", 10)
        await granted(store)
        second = SqliteBudgetStore(path, clock=clock)

        at_once = await spent_and_held(second)
        await store.close()
        await second.settle("h", 7)
        await second.close()

        assert at_once == (0, 10)
        assert await spent_and_held(store) == (7, 0)

    async def test_a_clock_far_behind_the_file_is_refused(
        self, store: SqliteBudgetStore, back_door: SqliteBackDoor, clock: FakeClock
    ) -> None:
        """A host whose clock went back by a day would open yesterday's windows: it may read, and not write."""
        await granted(store)
        before = back_door.dump()
        clock.advance(-DAY)

        with pytest.raises(StoreError, match="clock"):
            await store.reserve("g", 1, ["s"], lease=DAY)

        assert back_door.dump() == before
        assert await spent_and_held(store) == (0, 10)

    @pytest.mark.parametrize(
        "damage",
        ["UPDATE budget_holds SET scopes = '[1'", "UPDATE budget_holds SET hourly = '7'"],
    )
    async def test_a_damaged_hold_is_told(
        self, store: SqliteBudgetStore, back_door: SqliteBackDoor, damage: str
    ) -> None:
        """A row that cannot be read is an error that names it; it is never settled by a guess."""
        await granted(store)
        back_door.change(damage)

        with pytest.raises(StoreDamagedError, match="'h'"):
            await store.settle("h", 1)

    async def test_looking_whether_anything_is_due_scans_nothing(
        self, store: SqliteBudgetStore, back_door: SqliteBackDoor
    ) -> None:
        """Every reserve asks this, so it may not grow with what is kept."""
        await granted(store)

        plan = back_door.plan(sqlite_book.ANYTHING_DUE, {"now_ms": 0, "folded_ms": 0})

        assert plan.count("SEARCH budget_") == 4
        assert "SCAN budget_" not in plan

    @pytest.mark.parametrize(
        ("query", "index"),
        [
            (sqlite_book.DUE_HOLDS, "budget_holds_to_expire"),
            (sqlite_book.FOLDED_HOLDS, "budget_holds_to_fold"),
            (sqlite_book.FOLDED_ENTRIES, "budget_adjustments_to_fold"),
            (sqlite_book.OLD_COUNTERS, "budget_counters_to_remove"),
        ],
    )
    async def test_looking_for_what_is_due_uses_an_index(
        self, store: SqliteBudgetStore, back_door: SqliteBackDoor, query: str, index: str
    ) -> None:
        """A reserve costs the same however many holds, entries and counters there are."""
        await granted(store)

        plan = back_door.plan(query, (0, 8))

        assert f"SEARCH {query.split(' FROM ')[1].split(maxsplit=1)[0]} USING" in plan
        assert index in plan
        assert "TEMP B-TREE" not in plan

    async def test_listing_what_is_held_reads_open_holds_alone(
        self, store: SqliteBudgetStore, back_door: SqliteBackDoor
    ) -> None:
        """Every resumed run asks this, so it may not grow with the holds that are closed."""
        await granted(store)
        values = {"now_ms": 0, "tenant_id": "default", "after": "", "scope": None, "limit": 100}
        asked: list[str] = []
        await store._database.read(lambda connection, _: connection.set_trace_callback(asked.append))

        await store.holds(state=HoldState.HELD)

        assert "SEARCH budget_holds USING INDEX budget_holds_to_expire" in back_door.plan(
            sqlite_book.PAGE_OF_HELD, values
        )
        assert any("INDEXED BY budget_holds_to_expire" in statement for statement in asked)

    async def test_a_reserve_clears_away_a_bounded_number(
        self, store: SqliteBudgetStore, back_door: SqliteBackDoor, clock: FakeClock
    ) -> None:
        """After a quiet week the first caller does not pay for everything that has fallen due: 64 holds each time."""
        await asyncio.gather(*(granted(store, f"h{number}", 1) for number in range(70)))
        clock.advance(LEASE)

        await granted(store, "first", 1, "other")
        still_open = back_door.read("SELECT count(*) FROM budget_holds WHERE scopes = '[\"s\"]' AND state = 'held'")
        await granted(store, "second", 1, "other")
        clock.advance(KEEP_CLOSED)
        await granted(store, "third", 1, "other")

        assert still_open == [(70 - 64,)]
        assert back_door.holds_kept() == 70 - 64 + 3
