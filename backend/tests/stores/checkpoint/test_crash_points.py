"""SIGKILL at every boundary of every write path, and the rules of the contract afterwards."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster

from app.errors import LeaseLostError, RunFinishedError
from app.stores.checkpoint.contract import CheckpointStorage, RunStatus
from app.stores.checkpoint.sqlite import SqliteCheckpointStore
from tests.support.crash import CrashLab, Outcome

from .crash_scenarios import HOLDER, INPUTS, NEW, OUTPUTS

SCENARIOS = "tests.stores.checkpoint.crash_scenarios"
VERBS = ("append", "claim", "heartbeat", "finish", "fork", "delete")


@pytest.fixture(scope="module")
def lab() -> Iterator[CrashLab]:
    """Return what forks children."""
    with CrashLab() as lab:
        yield lab


@pytest.fixture(autouse=True)
def may_block(blockbuster: BlockBuster) -> None:
    """Let the tests wait for their children."""
    blockbuster.deactivate()


@pytest.mark.parametrize("verb", VERBS)
async def test_every_boundary(lab: CrashLab, tmp_path: Path, verb: str) -> None:
    """Killed at any boundary of a verb, a run is as before it or as after it; what was acknowledged stands."""
    await _campaign(lab, tmp_path, verb)


async def test_a_burst(lab: CrashLab, tmp_path: Path) -> None:
    """Killed among appends that share commits, every acknowledged one stands, and the chain verifies."""
    await _campaign(lab, tmp_path, "burst", sample=20)


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_five_hundred_kills(lab: CrashLab, tmp_path: Path) -> None:
    """The same at least 500 times, over files that earlier crashes left behind."""
    kills = 0
    for round_ in range(100):
        for verb in (*VERBS, "burst"):
            kills += await _campaign(lab, tmp_path, verb, sample=12, seed=round_, reuse=True)
        if kills >= 1000:
            break

    assert kills >= 500


async def _campaign(
    lab: CrashLab, directory: Path, verb: str, *, sample: int | None = None, seed: int = 0, reuse: bool = False
) -> int:
    """Kill a verb at each of its boundaries, or at some; return how many children died."""
    scenario = f"{SCENARIOS}:{verb}"
    whole = lab.run(scenario, _file(directory, "whole", fresh=True))
    assert not whole.killed
    assert whole.said[-1][0] == verb
    # A fork reads first, in a transaction of its own.
    assert whole.boundaries[0] == ("before BEGIN" if verb == "fork" else "before BEGIN IMMEDIATE")
    assert "after COMMIT" in whole.boundaries
    points = list(range(len(whole.boundaries)))
    if sample is not None:
        points = sorted(random.Random(seed).sample(points, min(sample, len(points))))

    kills = 0
    for point in points:
        database = _file(directory, "killed", fresh=not reuse)
        outcome = lab.run(scenario, database, kill_at=point)
        kills += outcome.killed
        await _check(verb, database, outcome)
    # A burst does not share its commits in the same way each time. The others write the same statements, but for the
    # time of the file, which is written once a second.
    assert kills >= len(points) - 2 or verb == "burst"
    return kills


def _file(directory: Path, name: str, *, fresh: bool) -> Path:
    folder = directory / name
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    return folder / "nova.db"


async def _check(verb: str, database: Path, outcome: Outcome) -> None:
    store = SqliteCheckpointStore(database)
    try:
        said = dict(outcome.said) if verb != "burst" else {"token": outcome.said[0][1]}
        await getattr(
            AfterCrash(store, outcome, said["token"], acknowledged=said.get(verb), rows=lambda: _rows(store)), verb
        )()
    finally:
        await store.close()
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


class AfterCrash:
    """The rules after a kill in each verb. What differs between before and after is asserted in both directions."""

    def __init__(
        self,
        store: CheckpointStorage,
        outcome: Outcome,
        token: int,
        *,
        acknowledged: Any,
        rows: Callable[[], Awaitable[int]],
    ) -> None:
        self._store = store
        self._outcome = outcome
        self._token = token
        self._acknowledged = acknowledged
        self._rows = rows

    async def append(self) -> None:
        """The step is there or not; the same append again stands once, whichever it was."""
        before = await self._steps()
        assert before in (OUTPUTS, {**OUTPUTS, "new": NEW})
        if self._acknowledged is not None:
            assert "new" in before

        again = await self._store.append("r", "new", NEW, fingerprint="f", token=self._token)

        assert again.replayed == ("new" in before)
        assert await self._steps() == {**OUTPUTS, "new": NEW}
        await self._end()

    async def claim(self) -> None:
        """The old token or a new one holds; what was acknowledged holds; tokens grow."""
        head = await self._store.head("r")
        assert head is not None
        assert head.lease is not None
        if self._acknowledged is not None:
            assert head.lease.token == self._acknowledged > self._token

        again = await self._store.claim("r", holder=HOLDER)

        assert again.token > head.lease.token >= self._token
        with pytest.raises(LeaseLostError):
            await self._store.append("r", "new", NEW, token=self._token)
        assert await self._steps() == OUTPUTS
        await self._end()

    async def finish(self) -> None:
        """The run is held and running, or completed with its result and free; finishing again completes it once."""
        head = await self._store.head("r")
        assert head is not None
        done = head.status is RunStatus.COMPLETED
        assert (head.status, head.result, head.lease is None, head.version) in (
            (RunStatus.RUNNING, None, False, head.version),
            (RunStatus.COMPLETED, NEW, True, head.version),
        )
        if self._acknowledged is not None:
            assert (done, head.version) == (True, self._acknowledged)

        again = await self._store.finish("r", RunStatus.COMPLETED, result=NEW, token=self._token)

        assert again.version == head.version + (0 if done else 1)
        with pytest.raises(RunFinishedError):
            await self._store.append("r", "new", NEW, token=self._token)
        assert await self._steps() == OUTPUTS
        await self._end()

    async def fork(self) -> None:
        """The copy is whole or not there, and the original as it was."""
        copy = await self._store.load("forked")
        if self._acknowledged is not None:
            assert copy is not None
        if copy is not None:
            assert copy.step_outputs == dict(list(OUTPUTS.items())[:2])
            assert copy.head.inputs == INPUTS
            assert await self._store.verify("forked") == 2
            assert await self._store.delete("forked")
        assert await self._steps() == OUTPUTS
        await self._end()

    async def delete(self) -> None:
        """The run is whole or not there; deleting again deletes it."""
        there = await self._store.head("r") is not None
        if there:
            assert await self._steps() == OUTPUTS
        assert not (there and self._acknowledged)

        assert await self._store.delete("r") == there
        await self._assert_empty()

    async def burst(self) -> None:
        """Every acknowledged step is there, once; the others may be."""
        steps = await self._steps()
        acknowledged = {what for kind, what in self._outcome.said if kind == "burst"}
        assert acknowledged <= set(steps)
        assert {step_id: output for step_id, output in steps.items() if step_id not in OUTPUTS} == {
            step_id: int(step_id[1:]) for step_id in steps if step_id not in OUTPUTS
        }

        for number in range(12):
            again = await self._store.append("r", f"n{number}", number, token=self._token)
            assert again.replayed == (f"n{number}" in steps)
        await self._end()

    async def _steps(self) -> dict[str, object]:
        state = await self._store.load("r")
        assert state is not None
        assert state.head.inputs == INPUTS
        assert await self._store.verify("r") == state.next_step_index == len(state.steps)
        assert list(state.step_outputs)[:3] == list(OUTPUTS)
        return dict(state.step_outputs)

    async def _end(self) -> None:
        """Leave the file empty, so that the next child can begin in it."""
        head = await self._store.head("r")
        assert head is not None
        if head.status is not RunStatus.COMPLETED:
            await self._store.abort("r")
        assert await self._store.delete("r")
        await self._assert_empty()

    async def heartbeat(self) -> None:
        """The lease is held by its token still; a heartbeat again prolongs it."""
        head = await self._store.head("r")
        assert head is not None
        assert head.lease is not None
        assert head.lease.token == self._token

        await self._store.heartbeat("r", self._token)

        assert await self._steps() == OUTPUTS
        await self._end()

    async def _assert_empty(self) -> None:
        assert await self._rows() == 0


async def _rows(store: SqliteCheckpointStore) -> int:
    def count(connection: sqlite3.Connection, _now_ms: int) -> int:
        tables = ("checkpoint_runs", "checkpoint_values", "checkpoint_steps")
        return sum(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables)

    return await store._database.read(count)
