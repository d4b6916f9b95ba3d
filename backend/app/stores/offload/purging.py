"""Purging: the steps of ended runs leave the database, where the archive certainly has them."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from app.stores.archive.ledger import SegmentRow
from app.stores.offload.job import Job
from app.stores.offload.report import Progress

__all__ = ["mark_suspect", "purge_old_runs"]

_BATCH_RUNS: Final = 100
"""A transaction of this size holds other writers up for some milliseconds."""


async def purge_old_runs(job: Job, *, retention: timedelta, total: int) -> None:
    """Remove the steps of every run that was untouched for ``retention`` and is verified in the archive.

    Each segment that a purge relies on is looked at once more before: it must still be there, at its size.
    """
    segments: dict[int, bool] = {}
    done = 0
    for tenant_id in await job.ledger.tenants():
        after = 0
        while not job.out_of_time():
            batch = await job.ledger.purgeable(tenant_id, idle=retention, after_run_no=after, limit=_BATCH_RUNS)
            if not batch:
                break
            after = batch[-1][0]
            for segment_no in {segment_no for _, segment_no in batch} - segments.keys():
                segments[segment_no] = await _is_there(job, segment_no)
            purged = await job.ledger.purge(
                job.lease, [run_no for run_no, segment_no in batch if segments[segment_no]], idle=retention
            )
            job.tally.purged_runs += purged.runs
            job.tally.purged_checkpoints += purged.steps
            job.tally.corrupt_runs += purged.differing
            done += len(batch)
            job.tell(Progress(phase="purge", done=done, total=max(done, total)))


async def mark_suspect(job: Job, segment: SegmentRow) -> None:
    """Record that a segment cannot be used: runs that are still in the database will be copied anew."""
    _, lost = await job.ledger.suspect(job.lease, segment.segment_no)
    job.tally.verify_failures += 1
    job.tally.lost_runs += lost


async def _is_there(job: Job, segment_no: int) -> bool:
    (segment,) = await job.ledger.segments(states=("live", "suspect"), after=segment_no - 1, limit=1)
    if await job.archive.size(segment.object_key) == segment.size_bytes:
        return True
    await mark_suspect(job, segment)
    return False
