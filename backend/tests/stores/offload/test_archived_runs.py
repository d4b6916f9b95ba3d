"""A run whose steps lie in the archive is a run like any other, to whoever reads it, forks it or goes on with it."""

from __future__ import annotations

import pytest

from app.errors import (
    ArchiveUnavailableError,
    CheckpointCorruptError,
    ConfigurationError,
    RunFinishedError,
    StepConflictError,
)
from app.metrics import guard_metrics
from app.stores.archive.memory import MemoryArchive
from app.stores.archive.reader import ArchiveReader
from app.stores.checkpoint.contract import RunFilter, RunStatus

from .world import OLD, World, holder, same


class CountingArchive(MemoryArchive):
    """An archive that counts reads."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    async def get(self, key: str) -> bytes:
        """Count it."""
        self.reads.append("get")
        return await super().get(key)

    async def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Count it."""
        self.reads.append("range")
        return await super().get_range(key, offset, length)


async def test_a_purged_run_reads_as_before(world: World) -> None:
    """Load, history, verify, head and list show the run that was recorded; the database has none of its steps."""
    before = await world.run("r")
    records = await world.store.history("r")
    world.clock.advance(OLD)

    report = await world.offload()

    assert (report.outcome, report.runs, report.checkpoints, report.purged_runs) == ("done", 1, 3, 1)
    assert await world.steps_in_database() == 0
    after = await world.state("r")
    assert same(before, after)
    assert after.head.tier == "archived"
    assert await world.store.history("r") == records
    assert await world.store.history("r", after_index=0, limit=1) == records[1:2]
    assert await world.store.verify("r") == 3
    assert await world.store.head("r") == after.head
    page = await world.store.list_runs(RunFilter(status=RunStatus.COMPLETED))
    assert page.heads == (after.head,)


async def test_a_read_is_one_ranged_request(world: World) -> None:
    """An archived run is read in one ranged GET, and nothing else is asked of the archive."""
    world.archive = archive = CountingArchive()
    await world.archived("r")
    await world.run("hot")
    archive.reads.clear()

    await world.state("r")
    await world.store.head("r")
    await world.store.list_runs()
    await world.state("hot")

    assert archive.reads == ["range"]


async def test_frames_that_verified_are_kept_up_to_a_bound(world: World) -> None:
    """A reader asks once for what fits into its cache, and drops what was used least recently."""
    world.archive = archive = CountingArchive()
    for name in ("a", "b", "c"):
        await world.archived(name, ["x" * 1000 + name])
    (first, *_) = await world.ledger.placed(2)
    reader = ArchiveReader(lambda: archive, cache_bytes=2 * first.entry.length + 20)
    store = world.make_store_with(reader)
    archive.reads.clear()
    counted = (await guard_metrics()).archive_reads
    before = {result: counted.labels(result)._value.get() for result in ("memory", "archive")}

    for name, reads in (("a", 1), ("a", 1), ("b", 2), ("a", 2), ("c", 3), ("a", 3), ("b", 4)):
        await store.load(name)
        assert len(archive.reads) == reads
    await store.close()
    now = {result: counted.labels(result)._value.get() - before[result] for result in before}
    assert now == {"memory": 3, "archive": 4}


@pytest.mark.parametrize("steps", [None, 0, 2])
async def test_a_fork_of_an_archived_run(world: World, steps: int | None) -> None:
    """A fork copies steps out of the archive; the copy is in the database, and the original stays where it is."""
    before = await world.archived("r")

    head = await world.store.fork("r", "copy", steps=steps)

    count = 3 if steps is None else steps
    copy = await world.state("copy")
    assert (head.tier, head.next_step_index, copy.head.root_run_id) == ("hot", count, "r")
    assert [(step.step_id, step.output, step.hash) for step in copy.steps] == [
        (step.step_id, step.output, step.hash) for step in before.steps[:count]
    ]
    assert (await world.state("r")).head.tier == "archived"
    await world.store.append("copy", "next", 4, expected_version=0)
    assert await world.store.verify("copy") == count + 1


async def test_a_failed_run_is_restored_by_its_claim_and_goes_on(world: World) -> None:
    """A claim brings the steps back and gives a lease; the run goes on behind its last step."""
    before = await world.archived("r", status=RunStatus.FAILED)
    assert (await world.state("r")).head.tier == "archived"

    claim = await world.store.claim("r", holder=holder("w"), reopen=True)
    await world.store.append("r", "s/3", "four", token=claim.token)

    after = await world.state("r")
    assert claim.head.tier == after.head.tier == "hot"
    assert after.steps[:3] == before.steps
    assert list(after.step_outputs) == ["s/0", "s/1", "s/2", "s/3"]


async def test_a_restored_run_that_went_on_is_archived_anew(world: World) -> None:
    """Its new version replaces the old copy, and every step of both is there once."""
    await world.archived("r", status=RunStatus.FAILED)
    claim = await world.store.claim("r", holder=holder("w"), reopen=True)
    await world.store.append("r", "s/3", "four", token=claim.token)
    await world.store.finish("r", RunStatus.COMPLETED, token=claim.token)
    before = await world.state("r")
    world.clock.advance(OLD)

    report = await world.offload()

    assert (report.outcome, report.runs, report.purged_runs) == ("done", 1, 1)
    assert same(before, await world.state("r"))
    assert len([key for key in world.objects.objects if "/seg/" in key]) == 1


async def test_a_restored_run_is_purged_again_only_after_the_retention(world: World) -> None:
    """What was brought back to be looked at stays for as long as any run does, and is not copied again."""
    before = await world.archived("r")
    assert await world.store.restore("r") is True
    assert await world.store.restore("r") is False

    again = await world.offload()
    world.clock.advance(OLD)
    later = await world.offload()

    assert (again.runs, again.purged_runs) == (0, 0)
    assert (later.runs, later.purged_runs) == (0, 1)
    assert same(before, await world.state("r"))


async def test_writes_to_an_archived_run_are_answered_as_before(world: World) -> None:
    """A write is refused, or is a success, as it would be for the same run in the database."""
    before = await world.archived("r")

    with pytest.raises(RunFinishedError):
        await world.store.claim("r", holder=holder("w"))
    with pytest.raises(StepConflictError):
        await world.store.append("r", "s/0", "other", fingerprint="f0", expected_version=before.version)
    replayed = await world.store.append("r", "s/0", "one", fingerprint="f0", expected_version=before.version)
    with pytest.raises(RunFinishedError):
        await world.store.append("r", "s/9", 1, expected_version=before.version)
    with pytest.raises(RunFinishedError):
        await world.store.abort("r")

    assert replayed.replayed
    assert same(before, await world.state("r"))


async def test_a_claim_that_is_refused_brings_nothing_back(world: World) -> None:
    """A completed run stays in the archive when somebody tries to claim it."""
    await world.archived("r")

    with pytest.raises(RunFinishedError):
        await world.store.claim("r", holder=holder("w"))

    assert (await world.state("r")).head.tier == "archived"


async def test_a_failed_run_can_be_aborted_from_the_archive(world: World) -> None:
    """A verb that changes the head of an archived run brings the run back first."""
    before = await world.archived("r", status=RunStatus.FAILED)

    head = await world.store.abort("r", reason="enough")

    after = await world.state("r")
    assert (head.status, after.head.status, after.steps) == (RunStatus.ABORTED, RunStatus.ABORTED, before.steps)


async def test_a_deleted_run_is_gone_from_both(world: World) -> None:
    """A run that is deleted while it lies in the archive cannot be read, and a new one of its id is another run."""
    await world.archived("r")

    assert await world.store.delete("r") is True

    assert await world.store.load("r") is None
    again = await world.run("r", ["new"])
    assert again.step_outputs == {"s/0": "new"}


# --- what is wrong with the archive -----------------------------------------------------------------------------------


async def damage(world: World, kind: str) -> str:
    """Damage the one segment there is, and return its key."""
    (key,) = [key for key in world.objects.objects if "/seg/" in key]
    data = world.objects.objects[key]
    if kind == "missing":
        del world.objects.objects[key]
    elif kind == "cut":
        world.objects.objects[key] = data[:150]
    else:
        (placed, *_) = await world.ledger.placed(1)
        flipped = bytearray(data)
        flipped[placed.entry.offset + 20] ^= 1
        world.objects.objects[key] = bytes(flipped)
    return str(key)


@pytest.mark.parametrize("kind", ["missing", "cut", "flipped"])
async def test_a_copy_that_cannot_be_used_names_run_and_key(world: World, kind: str) -> None:
    """A missing or damaged segment is told with run and key, changes nothing, and other runs stay readable."""
    await world.archived("r", status=RunStatus.FAILED)
    other = await world.run("hot")
    key = await damage(world, kind)

    for verb in (
        world.store.load("r"),
        world.store.history("r"),
        world.store.verify("r"),
        world.store.fork("r", "copy"),
        world.store.claim("r", holder=holder("w"), reopen=True),
    ):
        with pytest.raises(CheckpointCorruptError) as caught:
            await verb
        assert caught.value.run_id == "r"
        assert key in str(caught.value)

    head = await world.store.head("r")
    assert (head.tier, head.lease, head.status) == ("archived", None, RunStatus.FAILED)
    assert await world.store.load("copy") is None
    assert same(other, await world.state("hot"))


async def test_an_archive_that_does_not_answer_is_unavailable(world: World) -> None:
    """A read that the archive does not answer may be repeated; it is not damage."""

    class Down(MemoryArchive):
        async def get_range(self, key: str, offset: int, length: int) -> bytes:
            raise ArchiveUnavailableError("down")

    before = await world.archived("r")
    world.archive = Down()
    await world.store.close()
    world.store = world.make_store()

    with pytest.raises(ArchiveUnavailableError):
        await world.store.load("r")

    world.archive = world.objects
    await world.store.close()
    world.store = world.make_store()
    assert same(before, await world.state("r"))


async def test_a_store_without_an_archive_says_so(world: World) -> None:
    """A store that was given no archive tells where the run lies; everything else of it works."""
    await world.archived("r")
    store = world.make_store_with(None)

    with pytest.raises(ConfigurationError, match="v1/seg/"):
        await store.load("r")

    head = await store.head("r")
    assert head is not None
    assert head.result == ["of", "r"]
    await store.close()


async def test_a_segment_that_was_rewritten_between_two_reads_is_looked_up_again(world: World) -> None:
    """A reader that finds the object gone looks once more where the run lies now."""
    before = await world.archived("r")
    moved: dict[str, bytes] = {}

    class Moving(MemoryArchive):
        async def get_range(self, key: str, offset: int, length: int) -> bytes:
            if key not in moved:
                moved[key + "-new"] = world.objects.objects[key]
                world.rows("UPDATE archive_segments SET object_key = ?", key + "-new")
                return await super().get_range(key, offset, length)
            return moved[key][offset : offset + length]

    world.archive = Moving()
    await world.store.close()
    world.store = world.make_store()

    assert same(before, await world.state("r"))


async def test_a_damaged_answer_is_not_given_again(world: World) -> None:
    """A reader keeps only what verified: an answer that was damaged on the way is asked for anew."""
    before = await world.archived("r")

    class Flaky(MemoryArchive):
        flips = 1

        async def get_range(self, key: str, offset: int, length: int) -> bytes:
            data = await world.objects.get_range(key, offset, length)
            if not self.flips:
                return bytes(data)
            self.flips -= 1
            return bytes(data[:-1])

    archive = Flaky()
    store = world.make_store_with(ArchiveReader(lambda: archive))

    try:
        found = await store.load("r")
    except CheckpointCorruptError:
        found = await store.load("r")

    assert same(before, found)
    await store.close()
