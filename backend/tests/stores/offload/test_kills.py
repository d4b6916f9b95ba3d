"""A process that is killed by SIGKILL at every boundary of the daily job: SQL statements, puts, reads and deletions."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from app.stores.archive.directory import DirectoryArchive
from app.stores.checkpoint.contract import RunState, RunStatus
from tests.support.crash import CrashLab

from .world import OLD, World, holder, same

SCENARIO = "tests.stores.offload.crash_scenarios:daily_job"
STRIDE = 23
"""Every so many boundaries are tried in `make test`; `make soak` tries all of them."""


class KilledWorld(World):
    """A world whose archive is a directory, and whose job's process may be found gone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.archive = DirectoryArchive(self.path.with_suffix(".archive"))
        self.ledger._is_gone = lambda who: who.instance.startswith("offload-")


@pytest.fixture(autouse=True)
def may_block(blockbuster: BlockBuster) -> None:
    """Let the tests wait for processes and look at files."""
    blockbuster.deactivate()


async def _made(path: Path) -> dict[str, RunState]:
    """Make a database with old runs: some archived, one of them deleted since, one left by a killed job."""
    world = KilledWorld(path)
    expected = {name: await world.run(name) for name in ("archived", "deleted")}
    world.clock.advance(OLD)
    await world.offload()
    await world.store.delete("deleted")
    del expected["deleted"]
    for name, status in (("done", RunStatus.COMPLETED), ("waits", RunStatus.WAITING)):
        expected[name] = await world.run(name, status=status)
    lease = await world.ledger.begin("offload", holder=holder("killed before"))
    key = next(iter(world.path.with_suffix(".archive").rglob("*.zst"))).relative_to(world.path.with_suffix(".archive"))
    left = key.as_posix().replace("-e1.", "-e2.")
    await world.ledger.begin_segment(lease, tenant_id="default", object_key=left)
    await world.archive.put_new(left, b"left by a killed job")
    await world.ledger.end(lease, outcome="failed", report={})
    world.clock.advance(OLD)
    path.with_suffix(".clock").write_text(str(world.clock.now_ms))
    await world.close()
    return expected


async def _check(path: Path, expected: dict[str, RunState]) -> None:
    """Read every run, let one more job run, and read them again; compare what lies in the archive with the rows."""
    world = KilledWorld(path)
    world.clock.now_ms = int(path.with_suffix(".clock").read_text())
    for name, state in expected.items():
        assert same(state, await world.state(name)), name
    assert await world.store.load("deleted") is None
    report = await world.offload()
    assert report.outcome == "done"
    for name, state in expected.items():
        after = await world.state(name)
        assert same(state, after), name
        assert after.head.tier == ("hot" if name == "waits" else "archived")
    rows = await world.ledger.segments(states=("live", "suspect"))
    root = path.with_suffix(".archive")
    files = {file.relative_to(root).as_posix() for file in (root / "v1" / "seg").rglob("*") if file.is_file()}
    assert files == {row.object_key for row in rows}
    assert sum(row.live_runs for row in rows) == 3
    assert await world.ledger.unwritten_tombstones(limit=1) == []
    await world.close()


def _copy(made: Path, path: Path) -> None:
    path.parent.mkdir()
    shutil.copy(made, path)
    shutil.copy(made.with_suffix(".clock"), path.with_suffix(".clock"))
    shutil.copytree(made.with_suffix(".archive"), path.with_suffix(".archive"))


def _kill_at_each(tmp_path: Path, stride: int) -> int:
    made = tmp_path / "made.db"
    expected = asyncio.run(_made(made))
    with CrashLab() as lab:
        _copy(made, tmp_path / "whole" / "nova.db")
        whole = lab.run(SCENARIO, tmp_path / "whole" / "nova.db")
        asyncio.run(_check(tmp_path / "whole" / "nova.db", expected))
        boundaries = range(0, len(whole.boundaries), stride)
        for boundary in boundaries:
            path = tmp_path / f"killed-{boundary}" / "nova.db"
            _copy(made, path)
            outcome = lab.run(SCENARIO, path, kill_at=boundary)
            assert outcome.killed
            try:
                asyncio.run(_check(path, expected))
            except BaseException as error:
                error.add_note(f"killed at {boundary}: {whole.boundaries[boundary]}")
                raise
            shutil.rmtree(path.parent)
    assert {"before put", "inside put", "after put", "before delete"} <= set(whole.boundaries)
    return len(boundaries)


def test_a_kill_at_some_boundaries(tmp_path: Path) -> None:
    """Nothing is lost or left behind, and the next job takes over at once."""
    assert _kill_at_each(tmp_path, STRIDE) > 10


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_kill_at_every_boundary(tmp_path: Path) -> None:
    """The same at every one of them."""
    count = _kill_at_each(tmp_path, 1)

    print(f"\n{count} kills")  # noqa: T201 - a report
