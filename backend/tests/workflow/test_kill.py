"""A process that is killed wherever it happens to be loses nothing that it had recorded, and no cent."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.stores.budget.contract import Hold, HoldState
from app.stores.budget.sqlite import SqliteBudgetStore
from app.stores.checkpoint.contract import RunStatus, Step
from app.stores.checkpoint.sqlite import SqliteCheckpointStore
from app.stores.clock import system_clock
from app.workflow.calls import read_response, recorded_cost

VICTIM = Path(__file__).with_name("victim.py")
DELAY_S = 0.004
LIFE_S = 0.12
"""The longest life of a victim; the forty steps take about three times as long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What the stores say about the run, long after its last hold ran out."""

    status: RunStatus
    result: object
    steps: dict[str, Step]
    holds: tuple[Hold, ...]
    spent: int
    held: int
    uncertain: int
    clean: bool


async def books_of(directory: Path) -> Books:
    """Read the stores, a day from now."""
    path = directory / "nova.db"
    checkpoints = SqliteCheckpointStore(path)
    budget = SqliteBudgetStore(path, clock=lambda: system_clock() + 86_400_000)
    try:
        state = await checkpoints.load("r")
        assert state is not None
        total = (await budget.usage("run:r"))[0]
        return Books(
            status=state.head.status,
            result=state.head.result,
            steps={step.step_id: step for step in state.steps},
            holds=await budget.holds(scope="run:r", limit=1000),
            spent=total.spent,
            held=total.held,
            uncertain=total.uncertain,
            clean=(await budget.audit()).clean,
        )
    finally:
        await checkpoints.close()
        await budget.close()


def start(directory: Path, *, delay_s: float = DELAY_S) -> subprocess.Popen[str]:
    """Start a victim and return when it is at work, or has ended."""
    log = directory / "log"
    begun = log.read_text().count("begin") if log.exists() else 0
    process = subprocess.Popen(
        [sys.executable, str(VICTIM), str(directory), str(delay_s)], stdout=subprocess.PIPE, text=True
    )
    while process.poll() is None and (not log.exists() or log.read_text().count("begin") == begun):
        time.sleep(0.002)
    return process


def run_to_its_end(directory: Path) -> str:
    """Let a victim live; return what it said."""
    return start(directory).communicate(timeout=60)[0]


def killed_again_and_again(directory: Path, *, kills: int, dice: random.Random) -> int:
    """Kill so many victims at random moments, then let one end; return how many were killed before their end."""
    hit = 0
    for _ in range(kills):
        process = start(directory)
        time.sleep(dice.uniform(0, LIFE_S))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        hit += process.returncode == -signal.SIGKILL
        if process.returncode == 0:
            break
    run_to_its_end(directory)
    return hit


def check_books(directory: Path, books: Books) -> None:
    """Hold what happened against the rules."""
    lines = [line.split(maxsplit=1) for line in (directory / "log").read_text().splitlines()]
    done: set[str] = set()
    for what, *rest in lines:
        if what == "ran":
            assert rest[0] not in done, f"{rest[0]} ran again after its record"
        elif what == "recorded":
            done.add(rest[0])
    calls = sum(what == "ran" for what, *_ in lines)
    costs = {step_id: recorded_cost(step.meta) for step_id, step in books.steps.items()}
    charged = Counter(hold.state for hold in books.holds)

    assert set(books.steps) == {f"notes/{n}" for n in range(30)} | {"join"} | {f"turn/{n}" for n in range(9)}
    assert books.clean
    assert books.held == 0
    assert calls <= charged[HoldState.SETTLED] + charged[HoldState.EXPIRED]
    assert None not in costs.values()
    assert books.spent == sum(cost or 0 for cost in costs.values()) + books.uncertain


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Books:
    """Give the books of a run that nobody disturbed."""
    directory = tmp_path_factory.mktemp("quiet")
    run_to_its_end(directory)
    return asyncio.run(books_of(directory))


def check_killed(directory: Path, quiet: Books, *, kills: int, seed: int) -> int:
    """Kill, and compare with the undisturbed run."""
    hit = killed_again_and_again(directory, kills=kills, dice=random.Random(seed))
    books = asyncio.run(books_of(directory))
    check_books(directory, books)

    assert (books.status, books.result) == (quiet.status, quiet.result) == (RunStatus.COMPLETED, quiet.result)
    for step_id, step in quiet.steps.items():
        # The time of a call, and the id of the hold that paid for it, are of the attempt that was recorded.
        if step_id.startswith("turn/"):
            assert read_response(books.steps[step_id].output).content == read_response(step.output).content
        else:
            assert books.steps[step_id].output == step.output
    return hit


def test_a_run_that_is_killed_at_random_moments_ends_as_if_it_was_not(tmp_path: Path, quiet: Books) -> None:
    """SIGKILL at random moments of forty steps: equal outputs, nothing recorded ran again, every cent has a place."""
    hits = 0
    for seed in range(2):
        directory = tmp_path / str(seed)
        directory.mkdir()
        hits += check_killed(directory, quiet, kills=6, seed=seed)

    assert hits >= 5


@pytest.mark.soak
def test_a_hundred_kills(tmp_path: Path, quiet: Books) -> None:
    """The same, a hundred times and more."""
    hits = 0
    for seed in range(100, 130):
        directory = tmp_path / str(seed)
        directory.mkdir()
        hits += check_killed(directory, quiet, kills=5, seed=seed)

    assert hits >= 90


def test_two_processes_that_resume_one_run_do_not_both_work(tmp_path: Path, quiet: Books) -> None:
    """Of two processes at one run, one works, and the other is told who does; nothing is recorded or paid twice."""
    first = start(tmp_path, delay_s=0.15)
    other = run_to_its_end(tmp_path)
    said = first.communicate(timeout=60)[0]
    books = asyncio.run(books_of(tmp_path))

    check_books(tmp_path, books)
    assert said.startswith("completed")
    assert re.fullmatch(rf"busy: process {first.pid} on {re.escape(socket.gethostname())} \(\w+\)", other)
    assert (books.spent, books.uncertain, books.result) == (quiet.spent, 0, quiet.result)
