"""A process that is killed by SIGKILL before and after each verb of the daily job, on PostgreSQL and S3 servers."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from app.credentials import fixed
from app.stores.archive import keys
from app.stores.archive.r2 import R2Archive
from app.stores.checkpoint.contract import RunState, RunStatus
from tests.stores.archive.below import Below
from tests.stores.checkpoint.conftest import Database
from tests.support.crash import CrashLab
from tests.support.servers.postgres import PostgresServer
from tests.support.servers.s3 import S3Server

from .world import OLD, World, same

SCENARIO = "tests.stores.offload.server_scenarios:daily_job"
SOME = 3
"""How many boundaries are tried in `make test`; `make soak` tries all of them."""


@pytest.fixture
def s3(blockbuster: BlockBuster) -> Iterator[S3Server]:
    """Run an S3 server; the tests wait for processes."""
    blockbuster.deactivate()
    with S3Server().start() as server:
        yield server


async def _made(world: World) -> dict[str, RunState]:
    """Record runs, archive one, delete one, and let the others grow old."""
    expected = {name: await world.run(name) for name in ("archived", "deleted")}
    world.clock.advance(OLD)
    await world.offload()
    await world.store.delete("deleted")
    del expected["deleted"]
    for name, status in (("done", RunStatus.COMPLETED), ("waits", RunStatus.WAITING)):
        expected[name] = await world.run(name, status=status)
    world.clock.advance(OLD)
    await world.close()
    return expected


async def _check(world: World, expected: dict[str, RunState]) -> None:
    """Read every run, let one more job run, read again, and compare what lies in the archive with the rows."""
    for name, state in expected.items():
        assert same(state, await world.state(name)), name
    world.ledger._is_gone = lambda who: who.instance.startswith("offload-")
    assert (await world.offload()).outcome == "done"
    for name, state in expected.items():
        after = await world.state(name)
        assert same(state, after), name
        assert after.head.tier == ("hot" if name == "waits" else "archived")
    assert await world.store.load("deleted") is None
    rows = await world.ledger.segments(states=("live", "suspect"))
    assert {row.object_key for row in rows} == {info.key async for info in world.objects.list(keys.SEGMENTS)}
    assert sum(row.live_runs for row in rows) == 3
    await world.close()


class _Kills:
    """Kills a job on servers, each time on a database and below a prefix of its own."""

    def __init__(self, postgres: PostgresServer, s3: S3Server, folder: Path) -> None:
        self._postgres = postgres
        self._s3 = s3
        self._order = folder / "where.json"

    def kill(self, lab: CrashLab, boundary: int | None) -> list[str]:
        """Let a job run to a boundary, or to its end, and check what it left; return the boundaries that it passed."""
        database = Database(self._postgres, f"kills-{uuid.uuid4().hex[:8]}")
        archive = Below(
            R2Archive(
                self._s3.bucket,
                endpoint=self._s3.endpoint,
                access_key_id=fixed(self._s3.access_key_id),
                secret_access_key=fixed(self._s3.secret_access_key),
            )
        )
        world = World(database, objects=archive)
        try:
            expected = asyncio.run(_made(world))
            where = {
                "dsn": database.dsn,
                "now_ms": world.clock.now_ms,
                "endpoint": self._s3.endpoint,
                "bucket": self._s3.bucket,
                "prefix": archive.prefix,
            }
            self._order.write_text(json.dumps(where))
            outcome = lab.run(SCENARIO, self._order, kill_at=boundary)
            assert outcome.killed == (boundary is not None)
            asyncio.run(_check(world, expected))
        finally:
            database.close()
        return outcome.boundaries


def _kill_at(kills: _Kills, lab: CrashLab, boundaries: list[str], step: int) -> int:
    chosen = range(step // 2, len(boundaries), step)
    for boundary in chosen:
        try:
            kills.kill(lab, boundary)
        except BaseException as error:
            error.add_note(f"killed at {boundary}: {boundaries[boundary]}")
            raise
    return len(chosen)


def test_a_kill_at_some_boundaries(postgres_server: PostgresServer, s3: S3Server, tmp_path: Path) -> None:
    """Nothing is lost or left behind, and the next job takes over at once."""
    kills = _Kills(postgres_server, s3, tmp_path)
    with CrashLab() as lab:
        boundaries = kills.kill(lab, None)

        count = _kill_at(kills, lab, boundaries, len(boundaries) // SOME)

    assert count >= SOME
    verbs = {boundary.split()[-1] for boundary in boundaries}
    assert verbs >= {"begin", "begin_segment", "put_new", "get", "commit_segment", "purge", "delete", "swept", "end"}


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_kill_at_every_boundary(postgres_server: PostgresServer, s3: S3Server, tmp_path: Path) -> None:
    """The same before and after every verb."""
    kills = _Kills(postgres_server, s3, tmp_path)
    with CrashLab() as lab:
        count = _kill_at(kills, lab, kills.kill(lab, None), 1)

    print(f"\n{count} kills")  # noqa: T201 - a report
