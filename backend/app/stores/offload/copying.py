"""Copying runs to the archive, one segment at a time: intent, upload, read-back, commit.

A crash between any two of these leaves the runs in the database, and at most an object that the intent names and the
next job deletes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from app.errors import (
    ArchiveObjectExistsError,
    ArchiveObjectMissingError,
    ArchiveUnavailableError,
    CheckpointCorruptError,
)
from app.stores.archive import keys
from app.stores.archive.ledger import HotRun, Placed
from app.stores.archive.segment import Segment, SegmentHeader, SegmentWriter, decode_run, parse_segment
from app.stores.checkpoint.rows import rows_digest
from app.stores.offload.job import Job
from app.stores.offload.report import Progress

__all__ = ["TARGET_BYTES", "OpenSegment", "copy_old_runs", "open_segment", "store_segment"]

TARGET_BYTES: Final = 16 * 1024 * 1024
"""A segment is finished behind the run with which it passes this."""

_BATCH_RUNS: Final = 500
_BATCH_BYTES: Final = 4 * 1024 * 1024
_READ_BACKS: Final = 2


@dataclass(slots=True, kw_only=True)
class OpenSegment:
    """A segment that is being written, and which run of the database each of its entries is."""

    segment_no: int
    object_key: str
    writer: SegmentWriter
    run_nos: list[int] = field(default_factory=list)
    checkpoints: int = 0
    bytes_raw: int = 0


async def copy_old_runs(job: Job, *, idle: timedelta, total: int, target_bytes: int = TARGET_BYTES) -> None:
    """Copy every run that was untouched for ``idle``, tenant by tenant."""
    done = 0
    batch_bytes = min(_BATCH_BYTES, target_bytes)
    for tenant_id in await job.ledger.tenants():
        segment: OpenSegment | None = None
        after = 0
        while not job.out_of_time():
            batch = await job.ledger.candidates(
                tenant_id, idle=idle, after_run_no=after, limit=_BATCH_RUNS, limit_bytes=batch_bytes
            )
            if not batch:
                break
            after = batch[-1].run_no
            segment = segment or await open_segment(job, tenant_id)
            await asyncio.to_thread(_add, job, segment, batch)
            if segment.writer.size_bytes >= target_bytes:
                await _store(job, segment)
                segment = None
            done += len(batch)
            job.tell(Progress(phase="copy", done=done, total=max(done, total)))
        if segment is not None:
            await _store(job, segment)


async def open_segment(job: Job, tenant_id: str) -> OpenSegment:
    """Record the intent to write a segment, under a key that nobody ever had."""
    segment_id = keys.new_id(job.lease.now_ms)
    key = keys.segment_key(tenant_id, segment_id, epoch=job.lease.epoch, now_ms=job.lease.now_ms)
    segment_no = await job.ledger.begin_segment(job.lease, tenant_id=tenant_id, object_key=key)
    header = SegmentHeader(
        segment_id=segment_id,
        epoch=job.lease.epoch,
        store_id=job.store_id,
        tenant_id=tenant_id,
        created_ms=job.lease.now_ms,
    )
    return OpenSegment(segment_no=segment_no, object_key=key, writer=SegmentWriter(header))


async def store_segment(job: Job, segment: OpenSegment, *, replaces: int | None = None) -> int | None:
    """Upload a segment, read it back whole, decode every row, and let it count.

    Returns:
        How many runs it is now the copy of; None where what came back is not what was sent: it was given up.

    Raises:
        ArchiveUnavailableError: the archive did not answer; the intent stays for the next job.
        OffloadFencedError: the lease was lost.
    """
    if segment.writer.runs == 0:
        await job.ledger.abandon_segment(job.lease, segment.segment_no)
        return 0
    written = await asyncio.to_thread(segment.writer.finish)
    await job.ledger.renew(job.lease)
    if not await _uploaded(job, segment.object_key, written):
        job.tally.verify_failures += 1
        await job.ledger.abandon_segment(job.lease, segment.segment_no)
        return None
    placed = [
        Placed(run_no=run_no, entry=entry) for run_no, entry in zip(segment.run_nos, written.entries, strict=True)
    ]
    taken = await job.ledger.commit_segment(
        job.lease,
        segment.segment_no,
        size_bytes=len(written.data),
        sha256=written.sha256,
        placed=placed,
        replaces=replaces,
    )
    job.tally.bytes_stored += len(written.data)
    return taken


async def _store(job: Job, segment: OpenSegment) -> None:
    runs = segment.writer.runs
    taken = await store_segment(job, segment)
    if taken:
        job.tally.segments += 1
        job.tally.runs += taken
        job.tally.checkpoints += segment.checkpoints
        job.tally.bytes_raw += segment.bytes_raw
    if taken is not None:
        job.tally.moved_on += runs - taken


def _add(job: Job, segment: OpenSegment, batch: Sequence[HotRun]) -> None:
    """Add runs; one that does not verify is left where it is."""
    for each in batch:
        try:
            segment.writer.add(each.run, each.steps, rows_sha256=rows_digest(each.steps))
        except (CheckpointCorruptError, ValueError):
            job.tally.corrupt_runs.append((each.run.head.tenant_id, each.run.head.run_id))
            continue
        segment.run_nos.append(each.run_no)
        segment.checkpoints += len(each.steps)
        segment.bytes_raw += each.run.size_bytes + sum(len(step.body) + len(step.meta) for step in each.steps)


async def _uploaded(job: Job, key: str, written: Segment) -> bool:
    """Put an object and read it back; whatever the put was answered, only what is read decides."""
    # It may be there whatever is answered: a lost answer, and a repeated try that meets its own object, look the same.
    with contextlib.suppress(ArchiveObjectExistsError, ArchiveUnavailableError):
        await job.archive.put_new(key, written.data)
    for attempt in range(_READ_BACKS):
        try:
            data = await job.archive.get(key)
        except ArchiveObjectMissingError:
            return False
        except ArchiveUnavailableError:
            if attempt == _READ_BACKS - 1:
                raise
            continue
        if await asyncio.to_thread(_is_whole, data, written):
            return True
    return False


def _is_whole(data: bytes, written: Segment) -> bool:
    """Whether an object is what was written, and every run of it decodes and verifies."""
    try:
        found = parse_segment(data)
        if (found.sha256, found.header, found.entries) != (written.sha256, written.header, written.entries):
            return False
        for entry in found.entries:
            decode_run(
                data[entry.offset : entry.offset + entry.length],
                tenant_id=found.header.tenant_id,
                sha256=bytes.fromhex(entry.sha256),
            )
    except (ValueError, CheckpointCorruptError):
        return False
    return True
