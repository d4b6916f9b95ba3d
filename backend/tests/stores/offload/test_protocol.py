"""The job's rules: what is copied, what is purged, what is never touched, and whose archive it is."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest

from app.errors import (
    ArchiveUnavailableError,
    CheckpointCorruptError,
    ConfigurationError,
    OffloadBusyError,
    OffloadFencedError,
    StoreDamagedError,
)
from app.stores.archive import keys
from app.stores.archive.ledger import JOB_LEASE, JobLease, Purged
from app.stores.archive.memory import MemoryArchive
from app.stores.archive.segment import parse_segment
from app.stores.checkpoint.contract import RunStatus
from app.stores.offload.checking import check_all
from app.stores.offload.erasing import erase_tenant
from app.stores.offload.exporting import export_runs
from app.stores.offload.job import job
from app.stores.offload.report import OffloadReport, Progress
from app.stores.offload.scanning import Scan, scan
from tests.support.clock import FakeClock

from .conftest import MakeWorld
from .world import DAY, OLD, World, holder, same


def segment_keys(world: World) -> list[str]:
    """Return the keys of the segments in the archive."""
    return sorted(key for key in world.objects.objects if key.startswith(keys.SEGMENTS))


# --- what is copied and what is purged --------------------------------------------------------------------------------


async def test_runs_are_copied_after_one_age_and_purged_after_another(world: World) -> None:
    """Copied exactly from the first age on, purged exactly from the second, and both only once."""
    before = await world.run("r")

    async def at(age: timedelta) -> tuple[int, int]:
        report = await world.offload()
        assert report.outcome == "done"
        return report.runs, report.purged_runs

    world.clock.advance(3 * DAY - timedelta(milliseconds=1))
    assert await at(3 * DAY) == (0, 0)
    world.clock.advance(timedelta(milliseconds=1))
    assert await at(3 * DAY) == (1, 0)
    assert (await world.state("r")).head.tier == "hot"
    world.clock.advance(4 * DAY - timedelta(milliseconds=1))
    assert await at(7 * DAY) == (0, 0)
    world.clock.advance(timedelta(milliseconds=1))
    assert await at(7 * DAY) == (0, 1)
    assert await at(7 * DAY) == (0, 0)
    assert same(before, await world.state("r"))


@pytest.mark.parametrize("status", list(RunStatus))
async def test_every_status_is_copied_and_only_ended_runs_are_purged(world: World, status: RunStatus) -> None:
    """A run that may go on by itself stays in the database, copy or not."""
    before = await world.archived("r", status=status)

    ended = status in {RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.ABORTED}
    after = await world.state("r")
    assert len(segment_keys(world)) == 1
    assert after.head.tier == ("archived" if ended else "hot")
    assert same(before, after)


async def test_a_run_that_somebody_holds_is_not_copied(world: World) -> None:
    """A live lease keeps a run out of the archive, however old the run is."""
    await world.run("r", status=RunStatus.FAILED)
    world.clock.advance(OLD)
    await world.store.claim("r", holder=holder("w"), reopen=True, lease=timedelta(days=30))
    world.clock.advance(OLD)

    report = await world.offload()

    assert (report.runs, report.purged_runs, segment_keys(world)) == (0, 0, [])


async def test_a_lease_keeps_a_copied_run_in_the_database(world: World) -> None:
    """A run whose lease is live is not purged, also where its copy is of its present version."""
    await world.run("r")
    world.clock.advance(3 * DAY)
    await world.offload()
    world.clock.advance(OLD)
    world.rows("UPDATE checkpoint_runs SET lease_holder = 'h|b|1|1|', lease_expires_ms = ?", world.clock.now_ms + 1000)

    report = await world.offload()

    assert report.purged_runs == 0
    world.rows("UPDATE checkpoint_runs SET lease_expires_ms = ?", world.clock.now_ms)
    assert (await world.offload()).purged_runs == 1


async def test_a_run_that_went_on_after_its_copy_is_not_purged(world: World) -> None:
    """Only a copy of the very version is a reason to purge, also where the steps are the same."""
    await world.run("r", status=RunStatus.FAILED)
    world.clock.advance(3 * DAY)
    await world.offload()
    await world.store.abort("r", reason="enough")
    world.clock.advance(OLD)
    version = (await world.state("r")).version
    (found,) = await world.ledger.candidates("default", idle=DAY, after_run_no=0, limit=10, limit_bytes=10**6)
    lease = await world.ledger.begin("offload", holder=holder("job"))

    purged = await world.ledger.purge(lease, [found.run_no], idle=DAY)

    assert (found.run.head.version, purged) == (version, Purged())
    assert (await world.state("r")).head.tier == "hot"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE checkpoint_steps SET body = x'0131' WHERE idx = 1",
        "UPDATE checkpoint_steps SET meta = x'017b7d' WHERE idx = 2",
        "UPDATE checkpoint_steps SET hash = zeroblob(32) WHERE idx = 0",
        "DELETE FROM checkpoint_steps WHERE idx = 2",
    ],
)
async def test_rows_that_differ_from_their_copy_are_never_purged(world: World, change: str) -> None:
    """A purge compares the bytes of the rows with what was copied: one that differs is left, and reported."""
    await world.run("r")
    await world.run("other")
    world.clock.advance(3 * DAY)
    await world.offload()
    world.rows(f"{change} AND run_no = 1")
    count = world.rows("SELECT count(*) FROM checkpoint_steps WHERE run_no = 1")
    world.clock.advance(OLD)

    report = await world.offload()

    assert (report.outcome, report.corrupt_runs, report.purged_runs) == ("unverified", (("default", "r"),), 1)
    assert world.rows("SELECT count(*) FROM checkpoint_steps WHERE run_no = 1") == count


async def test_a_run_whose_chain_does_not_verify_is_left_where_it_is(world: World) -> None:
    """It is reported and not copied; the other runs are."""
    await world.run("bad")
    good = await world.run("good")
    world.rows("UPDATE checkpoint_steps SET output_digest = zeroblob(32) WHERE run_no = 1 AND idx = 1")
    world.clock.advance(OLD)

    report = await world.offload()

    assert (report.outcome, report.corrupt_runs) == ("unverified", (("default", "bad"),))
    assert (report.runs, report.purged_runs) == (1, 1)
    assert world.rows("SELECT count(*) FROM checkpoint_steps WHERE run_no = 1") == [(3,)]
    with pytest.raises(CheckpointCorruptError):
        await world.store.load("bad")
    assert same(good, await world.state("good"))


async def test_a_run_that_moves_on_while_it_is_copied_stays(world: World) -> None:
    """The commit takes only runs that are still what was copied; the next job copies the others again."""

    class Slow(MemoryArchive):
        async def put_new(self, key: str, data: bytes) -> None:
            await super().put_new(key, data)
            if key.startswith(keys.SEGMENTS) and not moved:
                moved.append(await world.store.abort("goes-on", reason="meanwhile"))
                await world.store.delete("goes")

    moved: list[Any] = []
    world.objects = world.archive = Slow()
    stays = await world.run("stays")
    await world.run("goes-on", status=RunStatus.FAILED)
    await world.run("goes")
    world.clock.advance(OLD)

    report = await world.offload()

    assert (report.runs, report.moved_on, report.purged_runs) == (1, 2, 1)
    assert same(stays, await world.state("stays"))
    assert (await world.state("goes-on")).head.tier == "hot"
    assert await world.store.load("goes") is None


async def test_segments_hold_runs_of_one_tenant(world: World) -> None:
    """Each tenant's runs lie in segments of their own, below a prefix of their own, and no tenant reads another's."""
    for tenant in ("a", "b"):
        await world.run("r", [tenant], tenant_id=tenant)
    world.clock.advance(OLD)

    report = await world.offload()

    found = {parse_segment(world.objects.objects[key]).header.tenant_id: key for key in segment_keys(world)}
    assert report.segments == 2
    assert all(key.startswith(keys.tenant_prefix(tenant)) for tenant, key in found.items())
    assert (await world.state("r", tenant_id="a")).step_outputs == {"s/0": "a"}
    assert (await world.state("r", tenant_id="b")).step_outputs == {"s/0": "b"}
    assert await world.store.load("r") is None


async def test_a_segment_ends_at_its_target_size(world: World) -> None:
    """Runs are put together until a segment is full, and the next one begins."""
    for number in range(8):
        await world.run(f"r{number}", [bytes([number]).hex() * 600])
    world.clock.advance(OLD)

    report = await world.offload(target_bytes=1)

    assert (report.runs, report.purged_runs) == (8, 8)
    assert report.segments == len(segment_keys(world)) == 8


async def test_a_dry_run_counts_and_changes_nothing(world: World) -> None:
    """It says what would be copied and purged; neither database nor archive is written to."""
    await world.run("old")
    world.clock.advance(5 * DAY)
    await world.run("new")
    dump = world.rows("SELECT * FROM archive_lease"), world.rows("SELECT * FROM archive_jobs")

    report = await world.offload(dry_run=True)

    assert (report.dry_run, report.runs, report.purged_runs) == (True, 1, 0)
    assert world.objects.objects == {}
    assert (world.rows("SELECT * FROM archive_lease"), world.rows("SELECT * FROM archive_jobs")) == dump


async def test_progress_is_told(world: World) -> None:
    """Whoever looks on is told how many runs are done of how many."""
    for number in range(3):
        await world.run(f"r{number}")
    world.clock.advance(OLD)
    told: list[Progress] = []

    await world.offload(watch=told.append)

    assert told[0] == Progress(phase="copy", done=3, total=3)
    assert Progress(phase="purge", done=3, total=3) in told


async def test_a_job_that_runs_out_of_time_says_that_there_is_more(world: World) -> None:
    """Nothing more is begun after the time; what is committed stands, and the next job goes on."""
    await world.run("r")
    world.clock.advance(OLD)

    report = await world.offload(max_seconds=0.0)

    assert (report.outcome, report.runs) == ("partial", 0)
    assert (await world.offload()).runs == 1


# --- one job at a time ------------------------------------------------------------------------------------------------


async def test_a_second_job_is_told_who_works(world: World) -> None:
    """The lease is exclusive until it ends or its holder gives it up."""
    first = await world.ledger.begin("offload", holder=holder("first"))

    with pytest.raises(OffloadBusyError, match="process 7 on elsewhere") as caught:
        await world.offload(holder=holder("second"))
    assert caught.value.expires_in == JOB_LEASE

    await world.ledger.end(first, outcome="done", report={})
    assert (await world.offload(holder=holder("second"))).epoch == first.epoch + 1


async def test_a_job_of_a_process_that_is_gone_is_superseded_at_once(world: World) -> None:
    """A killed job does not keep the next one waiting on the same host."""
    gone = holder("killed")
    ledger = world.make_ledger(gone.__eq__)
    first = await ledger.begin("offload", holder=gone)

    second = await ledger.begin("offload", holder=holder("second"))

    assert second.epoch == first.epoch + 1
    with pytest.raises(OffloadFencedError):
        await ledger.renew(first)
    await ledger.close()


async def _fenced_verbs(world: World) -> dict[str, Callable[[JobLease], Any]]:
    ledger = world.ledger
    return {
        "renew": ledger.renew,
        "bind": lambda lease: ledger.bind(lease, "x"),
        "begin_segment": lambda lease: ledger.begin_segment(lease, tenant_id="t", object_key="k"),
        "commit_segment": lambda lease: ledger.commit_segment(lease, 1, size_bytes=1, sha256=b"", placed=[]),
        "abandon_segment": lambda lease: ledger.abandon_segment(lease, 1),
        "purge": lambda lease: ledger.purge(lease, [1], idle=DAY),
        "leftovers": ledger.leftovers,
        "swept": lambda lease: ledger.swept(lease, [1]),
        "checked": lambda lease: ledger.checked(lease, 1),
        "suspect": lambda lease: ledger.suspect(lease, 1),
        "erase": lambda lease: ledger.erase(lease, "default"),
        "tombstones_written": lambda lease: ledger.tombstones_written(lease, [], "k"),
        "bury": lambda lease: ledger.bury(lease, [], "k"),
        "adopt": lambda lease: ledger.adopt(
            lease, tenant_id="t", object_key="k", epoch=1, size_bytes=1, sha256=b"", runs=[]
        ),
    }


@pytest.mark.parametrize("end", ["expired", "superseded"])
async def test_a_job_that_lost_its_lease_changes_nothing(world: World, end: str) -> None:
    """Every verb that changes the archive's rows is refused from the millisecond of the lease's end on."""
    await world.run("r")
    world.clock.advance(OLD)
    lease = await world.ledger.begin("offload", holder=holder("zombie"))
    await world.ledger.begin_segment(lease, tenant_id="default", object_key="v1/seg/k")
    world.clock.advance(JOB_LEASE)
    if end == "superseded":
        await world.ledger.begin("offload", holder=holder("next"))
    tables = ("archive_segments", "archive_store", "archive_tombstones", "checkpoint_runs", "checkpoint_steps")
    before = [world.rows(f"SELECT * FROM {table}") for table in tables]

    for verb in (await _fenced_verbs(world)).values():
        with pytest.raises(OffloadFencedError):
            await verb(lease)

    assert [world.rows(f"SELECT * FROM {table}") for table in tables] == before


async def test_two_jobs_of_one_process_do_not_take_the_archive_from_each_other(world: World) -> None:
    """A program that begins a second job while its first works is told so, and the first goes on."""
    async with job("offload", ledger=world.ledger, archive=world.archive) as first:
        with pytest.raises(OffloadBusyError):
            async with job("offload", ledger=world.ledger, archive=world.archive):
                pass

        await world.ledger.renew(first.lease)


async def test_a_lease_lives_to_its_last_millisecond_and_each_fence_prolongs_it(world: World) -> None:
    """A job that works has its lease for as long as it works."""
    lease = await world.ledger.begin("offload", holder=holder("job"))

    for _ in range(3):
        world.clock.advance(JOB_LEASE - timedelta(milliseconds=1))
        await world.ledger.renew(lease)


async def test_a_segment_that_was_abandoned_can_not_be_committed(world: World) -> None:
    """An intent that a sweep took away is not brought back, by whoever holds the lease now."""
    lease = await world.ledger.begin("offload", holder=holder("job"))
    number = await world.ledger.begin_segment(lease, tenant_id="default", object_key="v1/seg/k")
    await world.ledger.abandon_segment(lease, number)

    with pytest.raises(OffloadFencedError):
        await world.ledger.commit_segment(lease, number, size_bytes=1, sha256=b"", placed=[])


async def test_each_job_leaves_a_row(world: World) -> None:
    """Monitoring sees when a job ran last, how it ended, and one that did not end."""
    await world.offload()

    class Down(MemoryArchive):
        async def get(self, key: str) -> bytes:
            raise ArchiveUnavailableError("down")

    world.archive = Down()
    with pytest.raises(ArchiveUnavailableError):
        await world.offload()
    await world.ledger.begin("verify", holder=holder("killed"))

    found = await world.ledger.jobs(limit=10)

    assert [(each.verb, each.outcome) for each in found] == [
        ("verify", None),
        ("offload", "failed"),
        ("offload", "done"),
    ]
    assert found[-1].report is not None
    assert found[-1].report["outcome"] == "done"


# --- uploads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["lost answer", "exists"])
async def test_an_upload_whose_answer_was_lost_counts_if_it_reads_back(world: World, answer: str) -> None:
    """Only what is read back decides: a put that failed after it was stored is a success."""

    class Ambiguous(MemoryArchive):
        async def put_new(self, key: str, data: bytes) -> None:
            await super().put_new(key, data)
            if key.startswith(keys.SEGMENTS):
                if answer == "exists":
                    await super().put_new(key, data)
                raise ArchiveUnavailableError("no answer")

    world.objects = world.archive = Ambiguous()
    before = await world.archived("r")

    assert same(before, await world.state("r"))
    assert len(segment_keys(world)) == 1


@pytest.mark.parametrize("fault", ["lost", "flipped", "cut"])
async def test_an_upload_that_does_not_read_back_never_counts(world: World, fault: str) -> None:
    """What came back otherwise than it was sent is given up: the runs stay, the object goes, the next job succeeds."""

    class Faulty(MemoryArchive):
        faults = 1

        async def put_new(self, key: str, data: bytes) -> None:
            if key.startswith(keys.SEGMENTS) and self.faults:
                self.faults -= 1
                if fault == "lost":
                    return
                data = data[:-3] if fault == "cut" else data[:200] + bytes([data[200] ^ 1]) + data[201:]
            await super().put_new(key, data)

    world.objects = world.archive = Faulty()
    before = await world.run("r")
    world.clock.advance(OLD)

    report = await world.offload()

    assert (report.outcome, report.runs, report.verify_failures) == ("unverified", 0, 1)
    assert segment_keys(world) == []
    assert (await world.state("r")).head.tier == "hot"
    assert (await world.offload()).runs == 1
    assert same(before, await world.state("r"))


async def test_one_damaged_answer_is_no_damage(world: World) -> None:
    """A read-back that differs is read once more before the upload is given up."""

    class Flaky(MemoryArchive):
        flips = 1

        async def get(self, key: str) -> bytes:
            data = await super().get(key)
            if key.startswith(keys.SEGMENTS) and self.flips:
                self.flips -= 1
                return data[:-1]
            return data

    world.objects = world.archive = Flaky()
    before = await world.archived("r")

    assert same(before, await world.state("r"))


async def test_what_a_killed_job_left_is_deleted_by_the_next(world: World) -> None:
    """An object whose segment was never committed is known by its intent, and goes; also one that arrives late."""
    lease = await world.ledger.begin("offload", holder=holder("killed"))
    late, there = (f"{keys.tenant_prefix('default')}20261124/{number}" for number in (1, 2))
    for key in (late, there):
        await world.ledger.begin_segment(lease, tenant_id="default", object_key=key)
    world.objects.objects[there] = b"half"
    world.clock.advance(JOB_LEASE)

    assert (await world.offload()).swept == 1
    world.objects.objects[late] = b"late"
    assert (await world.offload()).swept == 1

    assert segment_keys(world) == []
    world.clock.advance(OLD)
    await world.offload()
    assert world.rows("SELECT DISTINCT state FROM archive_segments") == [("deleted",)]


async def test_a_segment_that_vanished_is_no_reason_to_purge(world: World) -> None:
    """Before a purge each segment is looked at once more: where it is gone, its runs stay and are copied anew."""
    before = await world.run("r")
    world.clock.advance(3 * DAY)
    await world.offload()
    (key,) = segment_keys(world)
    del world.objects.objects[key]
    world.clock.advance(OLD)

    report = await world.offload()

    assert (report.outcome, report.purged_runs, report.lost_runs) == ("unverified", 0, ())
    assert same(before, await world.state("r"))
    assert ((again := await world.offload()).runs, again.purged_runs) == (1, 1)
    assert same(before, await world.state("r"))


# --- whose archive it is ----------------------------------------------------------------------------------------------


async def test_an_archive_of_another_installation_is_refused(world: World, make_world: MakeWorld) -> None:
    """A database neither writes to nor deletes from an archive that another one began."""
    other = make_world(clock=FakeClock())
    other.archive = world.archive
    await other.archived("theirs")
    objects = dict(world.objects.objects)
    await world.run("mine")
    world.clock.advance(OLD)

    with pytest.raises(ConfigurationError, match="another installation"):
        await world.offload()
    with pytest.raises(ConfigurationError, match="another installation"):
        await world.offload(dry_run=True)

    assert world.objects.objects == objects
    await other.close()


async def test_a_wrong_bucket_is_refused(world: World, make_world: MakeWorld) -> None:
    """A database that has an archive does not begin another one, empty or not."""
    await world.archived("r")
    right, world.archive = world.archive, MemoryArchive()

    with pytest.raises(ConfigurationError, match="not the archive of this database"):
        await world.offload()

    assert world.archive.objects == {}
    other = make_world(clock=FakeClock())
    await other.archived("theirs")
    world.archive = other.archive
    with pytest.raises(ConfigurationError, match="another installation"):
        await world.offload()
    world.archive = right
    assert (await world.offload()).outcome == "done"
    await other.close()


async def test_an_archive_of_a_newer_nova_is_refused(world: World) -> None:
    """What says whose archive it is has a format of its own."""
    await world.offload()
    world.objects.objects[keys.STORE] = world.objects.objects[keys.STORE].replace(b'"format": 1', b'"format": 2')

    with pytest.raises(StoreDamagedError, match="upgrade"):
        await world.offload()


# --- deletions and dead bytes -----------------------------------------------------------------------------------------


async def test_a_segment_that_nothing_refers_to_is_deleted(world: World) -> None:
    """When the last run of a segment was deleted, the next job deletes the object."""
    await world.archived("r")
    await world.store.delete("r")

    report = await world.offload()

    assert (report.outcome, report.swept, segment_keys(world)) == ("done", 1, [])


async def test_a_mostly_dead_segment_is_written_anew(world: World) -> None:
    """The runs that are left move to a new segment, bytes unchanged, and the old object goes."""
    states = {}
    for number in range(10):
        states[f"r{number}"] = await world.run(f"r{number}", [f"{number}" * 300, {"n": number}])
    world.clock.advance(OLD)
    await world.offload()
    (old,) = segment_keys(world)
    for number in range(8):
        await world.store.delete(f"r{number}")

    report = await world.offload()

    (new,) = segment_keys(world)
    assert (report.outcome, report.rewritten, report.swept) == ("done", 1, 1)
    assert new != old
    assert [entry.run_id for entry in parse_segment(world.objects.objects[new]).entries] == ["r8", "r9"]
    for name in ("r8", "r9"):
        assert same(states[name], await world.state(name))


async def test_deletions_are_written_beside_the_segments(world: World) -> None:
    """Each deletion of a run is said by an object once a job has run, and by one object for all of them."""
    await world.archived("a")
    await world.archived("b")
    for name in ("a", "b"):
        await world.store.delete(name)

    await world.offload()
    await world.offload()

    (key,) = [key for key in world.objects.objects if key.startswith(keys.TOMBSTONES)]
    assert b'"run_id": "a"' in world.objects.objects[key]
    assert await world.ledger.unwritten_tombstones(limit=10) == []


async def test_a_store_without_an_archive_leaves_no_tombstones(world: World) -> None:
    """Deletions cost nothing more where no archive was ever used."""
    await world.run("r")
    await world.store.delete("r")

    assert world.rows("SELECT * FROM archive_tombstones") == []


async def test_an_erased_tenant_is_gone_everywhere(world: World) -> None:
    """Runs, steps, objects and copies of one tenant go; the receipt names each object; others are untouched."""
    kept = await world.archived("r", tenant_id="kept")
    await world.archived("r", tenant_id="gone")
    await world.run("hot", tenant_id="gone")
    stray = f"{keys.tenant_prefix('gone')}20261124/stray"
    world.objects.objects[stray] = b"a late upload"

    async with job("erase", ledger=world.ledger, archive=world.archive, holder=holder("job")) as running:
        receipt = await erase_tenant(running, "gone")

    assert (receipt.runs, receipt.checkpoints, receipt.remaining) == (2, 3, ())
    assert len(receipt.objects) == 2
    assert [each.sha256 is None for each in receipt.objects if each.key == stray] == [True]
    assert not [key for key in world.objects.objects if key.startswith(keys.tenant_prefix("gone"))]
    assert await world.store.load("r", tenant_id="gone") is None
    assert (await world.store.list_runs(tenant_id="gone")).heads == ()
    assert same(kept, await world.state("r", tenant_id="kept"))


# --- rebuilding -------------------------------------------------------------------------------------------------------


async def rescan(world: World, *, rebuilding: bool = False) -> tuple[Scan, OffloadReport]:
    """Bring database and archive together."""
    async with job(
        "gc", ledger=world.ledger, archive=world.archive, holder=holder("job"), rebuilding=rebuilding
    ) as running:
        found = await scan(running)
    return found, running.report()


async def test_an_index_is_rebuilt_from_the_archive_alone(world: World, make_world: MakeWorld) -> None:
    """Every archived run of a lost database is known again and reads as before; deleted ones stay deleted."""
    kept = {name: await world.run(name, [name, {"n": [1]}]) for name in ("a", "b", "c")}
    other = await world.run("a", tenant_id="t2")
    await world.run("deleted")
    await world.run("t3", tenant_id="erased")
    world.clock.advance(OLD)
    await world.offload()
    await world.store.delete("deleted")
    async with job("erase", ledger=world.ledger, archive=world.archive, holder=holder("job")) as running:
        backup = dict(world.objects.objects)
        await erase_tenant(running, "erased")
    await world.offload()
    world.objects.objects.update({key: data for key, data in backup.items() if key not in world.objects.objects})
    new = make_world(clock=world.clock, objects=world.objects)

    with pytest.raises(ConfigurationError, match="rebuild-index"):
        await new.offload()
    found, report = await rescan(new, rebuilding=True)

    assert (found.new_runs, found.buried_runs, found.quarantined) == (4, 2, ())
    assert report.outcome == "done"
    for name, state in kept.items():
        assert same(state, await new.state(name))
    assert same(other, await new.state("a", tenant_id="t2"))
    assert await new.store.load("deleted") is None
    assert await new.store.load("t3", tenant_id="erased") is None
    again, _ = await rescan(new)
    assert (again.new_runs, again.adopted) == (0, 0)
    assert (await new.offload()).outcome == "done"
    claim_refused = await new.state("a")
    assert claim_refused.head.status is RunStatus.COMPLETED
    await new.close()


async def test_the_latest_version_of_a_run_is_rebuilt(world: World, make_world: MakeWorld) -> None:
    """Where segments hold several versions of a run, the index has the latest, in whatever order they are found."""
    await world.run("r", status=RunStatus.FAILED)
    await world.run("beside", ["long " * 200, 2, 3])
    await world.run("beside too", [str(number) * 50 for number in range(20)])
    world.clock.advance(OLD)
    await world.offload()
    claim = await world.store.claim("r", holder=holder("w"), reopen=True)
    await world.store.append("r", "s/3", 4, token=claim.token)
    await world.store.finish("r", RunStatus.COMPLETED, token=claim.token)
    latest = await world.state("r")
    world.clock.advance(OLD)
    await world.offload()
    copies = [parse_segment(world.objects.objects[key]).entries for key in segment_keys(world)]
    assert sum(entry.run_id == "r" for entries in copies for entry in entries) == 2

    for reverse in (False, True):
        names = sorted(world.objects.objects, reverse=reverse)
        objects = MemoryArchive()
        objects.objects = {name: world.objects.objects[name] for name in names}
        new = make_world(clock=world.clock, objects=objects)
        await rescan(new, rebuilding=True)

        assert same(latest, await new.state("r"))
        assert len((await new.state("beside")).steps) == 3
        await new.close()


@pytest.mark.parametrize("make_world", ["sqlite"], indirect=True)  # whose earlier time is a copy of a file
async def test_a_database_that_was_brought_back_loses_nothing(world: World) -> None:
    """After the database was restored from before an offload, what it does not know is taken in and never deleted."""
    early = await world.run("early")
    await world.offload()
    backup = world.path.with_name("backup.db")
    with closing(sqlite3.connect(world.path)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    later = await world.run("later")
    world.clock.advance(OLD)
    await world.offload()
    (key,) = segment_keys(world)
    await world.close()
    for suffix in ("", "-wal", "-shm"):
        world.path.with_name(world.path.name + suffix).unlink(missing_ok=True)
    backup.rename(world.path)
    world.store, world.ledger = world.make_store(), world.make_ledger()
    assert await world.store.load("later") is None

    found, report = await rescan(world)

    assert (found.adopted, found.new_runs, found.indexed_runs, report.swept) == (1, 1, 1, 0)
    assert same(later, await world.state("later"))
    assert same(early, await world.state("early"))
    assert key in segment_keys(world)
    assert (await world.offload()).outcome == "done"
    assert same(early, await world.state("early"))


async def test_an_unknown_segment_stops_deletions_below_its_tenant(world: World) -> None:
    """Where another copy of the database wrote segments, this one deletes none that counted until gc took them in."""
    await world.archived("r")
    (key,) = segment_keys(world)
    unknown = key.replace("-e1.", "-e9.")
    world.objects.objects[unknown] = world.objects.objects[key]
    await world.store.delete("r")

    report = await world.offload()

    assert (report.outcome, report.unknown_objects, report.swept) == ("partial", 1, 0)
    assert segment_keys(world) == sorted([key, unknown])


async def test_objects_that_are_no_segments_are_left_and_told(world: World) -> None:
    """A cut object, one of another archive and one of a newer format stay where they are."""
    await world.archived("r")
    (key,) = segment_keys(world)
    data = world.objects.objects[key]
    strange = {
        key.replace("-e1.", "-e7."): data[:100],
        key.replace("-e1.", "-e8."): data.replace(b'"format":1', b'"format":9'),
    }
    world.objects.objects.update(strange)

    found, report = await rescan(world)

    assert sorted(found.quarantined) == sorted(strange)
    assert report.outcome == "partial"
    assert segment_keys(world) == sorted([key, *strange])


async def test_a_run_that_the_database_has_in_an_earlier_version_is_left_to_people(world: World) -> None:
    """A copy that is newer than a run in the database changes nothing; it is named."""
    await world.archived("r", status=RunStatus.WAITING)
    world.rows("UPDATE checkpoint_runs SET version = 1")
    world.rows("DELETE FROM archive_frames")
    world.rows("DELETE FROM archive_segments")

    found, _ = await rescan(world)

    assert found.newer_runs == (("default", "r"),)
    (key,) = segment_keys(world)
    await world.offload()
    assert key in segment_keys(world)
    assert world.rows("SELECT version, tier FROM checkpoint_runs") == [(1, "hot")]


# --- checks and exports -----------------------------------------------------------------------------------------------


async def test_verify_reads_every_segment(world: World) -> None:
    """A check counts what is right; what is not is suspect and told by every job, and heals when it is whole again."""
    await world.archived("a", tenant_id="t1")
    await world.archived("b", tenant_id="t2")
    (key,) = [key for key in segment_keys(world) if key.startswith(keys.tenant_prefix("t2"))]
    right = world.objects.objects[key]

    async def verify() -> tuple[int, OffloadReport]:
        async with job("verify", ledger=world.ledger, archive=world.archive, holder=holder("job")) as running:
            count = await check_all(running)
        return count, running.report()

    assert (await verify())[0] == 2
    world.objects.objects[key] = right[:60] + bytes([right[60] ^ 1]) + right[61:]
    count, report = await verify()
    assert (count, report.outcome, report.lost_runs) == (1, "unverified", (("t2", "b"),))
    assert (await world.offload()).lost_runs == (("t2", "b"),)
    world.objects.objects[key] = right
    assert (await world.offload()).outcome == "done"
    assert (await verify())[0] == 2
    assert world.rows("SELECT count(*) FROM archive_segments WHERE state = 'suspect'") == [(0,)]


async def test_an_export_has_the_lines_of_the_archived_runs(world: World) -> None:
    """Each archived run once, its present copy, and of one tenant or one run if asked."""
    await world.archived("a", ["x"], tenant_id="t1")
    await world.archived("b", ["y"], tenant_id="t2")
    await world.run("hot", tenant_id="t2")

    async def lines(**only: str) -> list[bytes]:
        found = [raw async for raw in export_runs(world.ledger, world.archive, **only)]
        return b"".join(found).splitlines()

    assert len(await lines()) == 4
    assert len(await lines(tenant_id="t2")) == len(await lines(run_id="a")) == 2
    assert await lines(tenant_id="t2", run_id="a") == []


async def test_a_job_that_is_stopped_gives_its_lease_up(world: World) -> None:
    """Cancelling a job leaves a row and no lease, so that the next one begins at once."""

    class Hanging(MemoryArchive):
        async def put_new(self, key: str, data: bytes) -> None:
            if key.startswith(keys.SEGMENTS):
                reached.set()
                await asyncio.Event().wait()
            await super().put_new(key, data)

    reached = asyncio.Event()
    world.objects = world.archive = Hanging()
    before = await world.run("r")
    world.clock.advance(OLD)
    task = asyncio.create_task(world.offload())
    await reached.wait()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    unhung = MemoryArchive()
    unhung.objects = world.objects.objects
    world.archive = unhung
    assert (await world.offload(holder=holder("next"))).purged_runs == 1
    assert same(before, await world.state("r"))
