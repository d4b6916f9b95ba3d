"""Reserving and settling on SQLite beside bare transactions of as many inserts, and among 200,000 closed holds.

A call in two scopes writes one hold and six counters when it is reserved, and again when it is settled. Bare means one
transaction for each of the two, of one insert of the hold's bytes and six of a counter's, in the same file, by the same
thread, awaited in the same way. All sides take turns at every call; figures are medians of rounds with the lowest and
the highest, ratios are taken within a round.

Run it with ``python benchmarks/budget.py [--rounds N] [--calls N]``; ``--json`` prints the figures for programs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "backend"))

from app.errors import BudgetStoreUnavailableError
from app.stores.budget import rules
from app.stores.budget.contract import Granted, HoldState
from app.stores.budget.sqlite import SqliteBudgetStore
from app.stores.budget.sqlite_rows import HOLD_COLUMNS, hold_row
from app.stores.clock import from_ms, system_clock
from app.stores.sqlite.database import SqliteDatabase
from benchmarks.support.figures import Figure, over

TASKS: Final = 16
CLOSED_HOLDS: Final = 200_000
SCOPES: Final = ("run:nightly", "tenant")
COUNTERS: Final = 3 * len(SCOPES)
"""Of each scope its total, its month and its day."""
LEASE: Final = timedelta(minutes=5)
LIMIT: Final = 10**12
AMOUNT: Final = 1_000
BILL: Final = 900

_PLACES: Final = ", ".join("?" * len(HOLD_COLUMNS.split(",")))


class Side:
    """A store in a file of its own, and bare transactions beside it: a process has one thread that writes to a file.

    Args:
        path: of the file, which does not exist yet.
        seed: for the ids of the holds.
    """

    def __init__(self, path: Path, *, seed: int) -> None:
        self._store = SqliteBudgetStore(path)
        self._database = SqliteDatabase(path, unavailable=BudgetStoreUnavailableError)
        self._ids = hold_ids(seed)
        self._row = closed_row(system_clock())

    async def open(self) -> None:
        """Set a limit in each scope, and create the tables of the bare transactions."""
        await self._store.set_limit(SCOPES[0], LIMIT)
        await self._store.set_limit(SCOPES[1], LIMIT, window="day")
        await self._database.write(_create)

    async def close(self) -> None:
        """Let go of the file."""
        await self._store.close()
        await asyncio.to_thread(self._database.close)

    async def pair(self) -> tuple[float, float]:
        """Reserve and settle a call; return what each took in seconds."""
        hold_id = next(self._ids)
        start = time.perf_counter()
        answer = await self._store.reserve(hold_id, AMOUNT, SCOPES, lease=LEASE)
        reserved = time.perf_counter()
        await self._store.settle(hold_id, BILL)
        settled = time.perf_counter()
        assert isinstance(answer, Granted)
        return reserved - start, settled - reserved

    async def bare(self) -> float:
        """Run two bare transactions; return what they took in seconds."""
        start = time.perf_counter()
        for _ in range(2):
            await self._database.write(self._insert)
        return time.perf_counter() - start

    async def held(self) -> float:
        """List the open holds of a run, of which there are none, as every resumed run does; return what it took."""
        start = time.perf_counter()
        found = await self._store.holds(scope=SCOPES[0], state=HoldState.HELD)
        assert found == ()
        return time.perf_counter() - start

    async def fill(self) -> None:
        """Write closed holds, which are not old enough to be folded."""

        def write(connection: sqlite3.Connection, now_ms: int) -> None:
            row = closed_row(now_ms)
            rows = ((row[0], next(self._ids), *row[2:]) for _ in range(CLOSED_HOLDS))
            connection.executemany(f"INSERT INTO budget_holds ({HOLD_COLUMNS}) VALUES ({_PLACES})", rows)

        await self._database.write(write)

    def _insert(self, connection: sqlite3.Connection, now_ms: int) -> None:
        row = (self._row[0], next(self._ids), *self._row[2:])
        connection.execute(f"INSERT INTO bare_holds ({HOLD_COLUMNS}) VALUES ({_PLACES})", row)
        connection.executemany(
            "INSERT INTO bare_counters (scope, spent, held, changed_ms) VALUES (?, ?, ?, ?)",
            [(SCOPES[0], AMOUNT, BILL, now_ms)] * COUNTERS,
        )


def closed_row(now_ms: int) -> tuple[object, ...]:
    """Return the row of a settled hold: its tenant, its id, and the rest."""
    now = from_ms(now_ms)
    hold = rules.new_hold("default", "", AMOUNT, SCOPES, hourly=(), lease=LEASE, now=now)
    return hold_row(rules.settled(hold, BILL, detail=None, correction=False, now=now)[0])


def hold_ids(seed: int) -> Iterator[str]:
    """Give ids as long as those of guarded calls, spread like hashes: each goes to another place of the index."""
    generator = random.Random(seed)
    while True:
        yield f"default/{generator.randbytes(16).hex()}/1/openai/1"


def _create(connection: sqlite3.Connection, _now_ms: int) -> None:
    connection.execute(f"CREATE TABLE bare_holds ({HOLD_COLUMNS}, PRIMARY KEY (tenant_id, hold_id)) WITHOUT ROWID")
    connection.execute("CREATE TABLE bare_counters (id INTEGER PRIMARY KEY, scope, spent, held, changed_ms)")


async def in_turn(new: Side, full: Side, calls: int) -> dict[str, float]:
    """Let the sides take turns; return the p50 of each in ms."""
    taken: dict[str, list[float]] = {}
    for _ in range(calls):
        reserve, settle = await new.pair()
        listing = await new.held()
        among_reserve, among_settle = await full.pair()
        listing_among = await full.held()
        for name, seconds in {
            "bare": await new.bare(),
            "reserve": reserve,
            "settle": settle,
            "both": reserve + settle,
            "both among closed": among_reserve + among_settle,
            "list": listing,
            "list among closed": listing_among,
        }.items():
            taken.setdefault(name, []).append(seconds)
    return {name: statistics.median(seconds) * 1_000 for name, seconds in taken.items()}


async def together(once: Callable[[], Awaitable[object]], calls: int) -> float:
    """Return how many calls a second are made by 16 tasks, each of which waits for its own."""

    async def task(first: int) -> None:
        for _ in range(first, calls, TASKS):
            await once()

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for first in range(TASKS):
            group.create_task(task(first))
    return calls / (time.perf_counter() - start)


async def measure(rounds: int, calls: int) -> dict[str, Figure]:
    """Measure in rounds, after one that warms up."""
    seen: dict[str, list[float]] = {}
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nova-bench-")))
        new, full = Side(directory / "new.db", seed=1), Side(directory / "full.db", seed=2)
        for side in (new, full):
            stack.push_async_callback(side.close)
            await side.open()
        await full.fill()
        for number in range(rounds + 1):
            medians = await in_turn(new, full, calls)
            rates = {"calls at once": await together(new.pair, calls), "bare at once": await together(new.bare, calls)}
            if number == 0:
                continue
            for name, value in {**medians, **rates}.items():
                seen.setdefault(name, []).append(value)
    return {
        "two bare transactions, p50 ms": Figure.of(seen["bare"]),
        "reserve, p50 ms": Figure.of(seen["reserve"]),
        "settle, p50 ms": Figure.of(seen["settle"]),
        "reserve and settle / bare": over(seen["both"], seen["bare"]),
        "calls per s, 16 tasks": Figure.of(seen["calls at once"]),
        "calls / bare, 16 tasks": over(seen["calls at once"], seen["bare at once"]),
        f"{CLOSED_HOLDS:,} closed holds / none": over(seen["both among closed"], seen["both"]),
        "listing open holds, p50 ms": Figure.of(seen["list"]),
        f"listing, {CLOSED_HOLDS:,} closed / none": over(seen["list among closed"], seen["list"]),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count")
    parser.add_argument("--calls", type=int, default=300, help="calls of a round")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    figures = asyncio.run(measure(options.rounds, options.calls))
    if options.json:
        print(json.dumps({name: figure.as_json() for name, figure in figures.items()}, indent=2))
        return
    print(f"{options.rounds} rounds of {options.calls} calls, median (lowest-highest); SQLite {sqlite3.sqlite_version}")
    for name, figure in figures.items():
        print(f"{name:36}{figure.show(3)}")


if __name__ == "__main__":
    main()
