"""A call with tools that is killed at random moments: no tool that is on record runs again, and no cent is lost."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.stores.budget.contract import HoldState
from app.stores.checkpoint.contract import RunStatus
from app.stores.checkpoint.sqlite import SqliteCheckpointStore
from app.workflow.calls import recorded_cost
from tests.workflow.test_kill import Books, books_of

VICTIM = Path(__file__).with_name("tool_victim.py")
DELAY_S = 0.01
LIFE_S = 0.35
"""The longest life of a victim; the whole takes about three times as long."""

STEPS = {
    *("four/1", "four/2", *(f"four/1/{n}-tool_{n:02}" for n in range(4))),
    *(f"ten/{number}" for number in range(1, 12)),
    *(f"ten/{number}/0-tool_{number + 3:02}" for number in range(1, 11)),
}


def start(directory: Path) -> subprocess.Popen[str]:
    """Start a victim and return when it is at work, or has ended."""
    log = directory / "log"
    begun = log.read_text().count("begin") if log.exists() else 0
    process = subprocess.Popen(
        [sys.executable, str(VICTIM), str(directory), str(DELAY_S)], stdout=subprocess.PIPE, text=True
    )
    while process.poll() is None and (not log.exists() or log.read_text().count("begin") == begun):
        time.sleep(0.002)
    return process


def lines_of(directory: Path) -> list[tuple[str, str]]:
    """Return what is in the log: what happened, and to which step."""
    lines = (line.partition(" ") for line in (directory / "log").read_text().splitlines())
    return [(what, step_id) for what, _, step_id in lines]


async def on_record(directory: Path) -> set[str]:
    """Return the steps that are on record."""
    store = SqliteCheckpointStore(directory / "nova.db")
    try:
        return {step.step_id for step in await store.history("r")}
    finally:
        await store.close()


def kill_until(directory: Path, *, kills: int, dice: random.Random) -> int:
    """Kill victims of one run at random moments, then let one end; return how many were killed before their end.

    What was on record when one was dead does not run in those after it.
    """
    hit = 0
    dead: list[tuple[int, set[str]]] = []
    while hit < kills:
        process = start(directory)
        time.sleep(dice.uniform(0, LIFE_S))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        if process.returncode == 0:
            break
        hit += process.returncode == -signal.SIGKILL
        dead.append((len(lines_of(directory)), asyncio.run(on_record(directory))))
    assert start(directory).communicate(timeout=60)[0].startswith("completed")
    for count, steps in dead:
        ran = {step_id for what, step_id in lines_of(directory)[count:] if what == "ran"}
        assert not ran & steps, "a step ran again that was on record"
    return hit


def check(directory: Path) -> Books:
    """Hold what happened against the rules."""
    recorded: set[str] = set()
    for what, step_id in lines_of(directory):
        if what == "ran":
            assert step_id not in recorded, f"{step_id} ran again after its record"
        elif what == "recorded":
            recorded.add(step_id)
    books = asyncio.run(books_of(directory))
    costs = [recorded_cost(step.meta) for step in books.steps.values()]
    assert books.status is RunStatus.COMPLETED
    assert set(books.steps) == STEPS
    assert recorded <= STEPS, "a kill between a record and its line in the log leaves the line away"
    assert books.clean
    assert books.held == 0
    assert None not in costs
    assert books.spent == sum(cost or 0 for cost in costs) + books.uncertain
    assert all(hold.state in {HoldState.SETTLED, HoldState.EXPIRED} for hold in books.holds)
    return books


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Books:
    """Give the books of a run that nobody disturbed."""
    directory = tmp_path_factory.mktemp("quiet")
    assert start(directory).communicate(timeout=60)[0].startswith("completed")
    return check(directory)


def killed(tmp_path: Path, quiet: Books, *, kills: int, seeds: range) -> int:
    """Kill runs at so many random moments in all, and compare each with the undisturbed one; return how many hit."""
    hits = 0
    for seed in seeds:
        directory = tmp_path / str(seed)
        directory.mkdir()
        hits += kill_until(directory, kills=min(5, kills - hits), dice=random.Random(seed))
        books = check(directory)
        assert books.result == quiet.result
        for step_id, step in quiet.steps.items():
            if "tool_" in step_id:
                assert books.steps[step_id].output == step.output
        if hits >= kills:
            return hits
    return hits


def test_a_tool_loop_that_is_killed_at_random_moments_runs_no_recorded_tool_again(tmp_path: Path, quiet: Books) -> None:
    """SIGKILL at six random moments: the same steps and results, every cent has a place."""
    assert killed(tmp_path, quiet, kills=6, seeds=range(20)) == 6


@pytest.mark.soak
def test_a_tool_loop_killed_at_thirty_random_moments(tmp_path: Path, quiet: Books) -> None:
    """The same at thirty."""
    assert killed(tmp_path, quiet, kills=30, seeds=range(100, 200)) == 30
