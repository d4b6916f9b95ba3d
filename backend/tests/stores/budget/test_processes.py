"""Several processes on one file: the budget is granted exactly, whoever dies."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from app.stores.budget.contract import HoldState
from app.stores.budget.sqlite import SqliteBudgetStore
from tests.support.clock import FakeClock

from .contract import LEASE, window

CALLS: Final = 100
BACKEND: Final = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a file that does not exist yet."""
    return tmp_path / "nova.db"


async def work_together(path: Path, clock: FakeClock, deaths_s: Sequence[float]) -> list[list[str]]:
    """Let one process per entry begin at once, and return which holds each of them was granted, by its own words."""
    command = [sys.executable, "-m", "tests.stores.budget.worker", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(BACKEND)}
    processes = [
        await asyncio.create_subprocess_exec(
            *command,
            *(f"w{number}", str(clock.now_ms), str(death_s)),
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for number, death_s in enumerate(deaths_s)
    ]
    printed = await asyncio.gather(*(process.communicate(b"\n") for process in processes))
    assert [process.returncode for process in processes] == [-signal.SIGKILL if death_s else 0 for death_s in deaths_s]
    return [out.decode().split() for out, _ in printed]


async def test_eight_processes_are_granted_exactly_the_budget(path: Path) -> None:
    """Each reserves until it is refused: 100 calls in all are granted, settled and found by the audit."""
    clock = FakeClock()
    store = SqliteBudgetStore(path, clock=clock)
    await store.set_limit("tenant", CALLS)

    granted = await work_together(path, clock, [0] * 8)

    usage = await window(store, "tenant")
    assert sum(map(len, granted)) == CALLS
    assert (usage.spent, usage.held, usage.uncertain) == (CALLS, 0, 0)
    for number, hold_ids in enumerate(granted):
        assert (await window(store, f"run:w{number}")).spent == len(hold_ids)
    assert (await store.audit()).clean
    await store.close()


async def killed_meanwhile(path: Path, chance: random.Random) -> None:
    """Kill four of eight processes at random moments, and check what the file says afterwards."""
    clock = FakeClock()
    store = SqliteBudgetStore(path, clock=clock)
    await store.set_limit("tenant", CALLS)
    await store.close()

    granted = await work_together(path, clock, [chance.uniform(0.001, 0.2) if n < 4 else 0 for n in range(8)])

    at_once = await window(store, "tenant")
    clock.advance(LEASE)
    later = await window(store, "tenant")
    holds = {hold.hold_id: hold for hold in await store.holds(limit=1_000)}
    # Of each killed process at most one call was under way; it may have been granted without having been told.
    assert at_once.spent + at_once.held == CALLS
    assert at_once.held <= 4
    assert (later.spent, later.held, later.uncertain) == (CALLS, 0, at_once.held)
    assert len(holds) == CALLS
    assert {hold_id for hold_ids in granted for hold_id in hold_ids} <= set(holds)
    assert sum(hold.state is HoldState.EXPIRED for hold in holds.values()) == at_once.held
    assert await store.holds(state=HoldState.HELD) == ()
    assert (await store.audit()).clean
    await store.close()


async def test_killed_processes_leave_nothing_held(path: Path) -> None:
    """The budget is granted exactly, and what the dead had held counts as uncertain after its lease."""
    await killed_meanwhile(path, random.Random(20261124))


@pytest.mark.soak
@pytest.mark.timeout(3_600)
async def test_killed_processes_leave_nothing_held_for_long(tmp_path: Path) -> None:
    """The same a hundred times, four kills each."""
    chance = random.Random(1)

    for number in range(100):
        await killed_meanwhile(tmp_path / f"{number}.db", chance)
