"""Rewriting: a segment most of whose bytes nothing refers to is written anew with the rest, then deleted."""

from __future__ import annotations

from typing import Final

from app.errors import ArchiveObjectMissingError, CheckpointCorruptError
from app.stores.archive.ledger import SegmentRow
from app.stores.archive.segment import decode_run, parse_segment, unpacked_frames
from app.stores.offload.copying import OpenSegment, open_segment, store_segment
from app.stores.offload.job import Job
from app.stores.offload.purging import mark_suspect
from app.stores.offload.report import Progress

__all__ = ["rewrite_mostly_dead"]

_PAGE: Final = 1_000


async def rewrite_mostly_dead(job: Job, *, below: float = 0.5) -> None:
    """Rewrite every live segment of whose bytes less than the share ``below`` are still some run's copy."""
    after = done = 0
    while page := await job.ledger.segments(states=("live",), after=after, limit=_PAGE):
        for segment in page:
            if (
                not segment.adopted
                and 0 < segment.live_bytes < below * segment.size_bytes
                and segment.live_runs < segment.runs
            ):
                if job.out_of_time():
                    return
                await _rewrite(job, segment)
                done += 1
                job.tell(Progress(phase="rewrite", done=done, total=done))
        after = page[-1].segment_no


async def _rewrite(job: Job, segment: SegmentRow) -> None:
    placed = await job.ledger.placed(segment.segment_no)
    try:
        data = await job.archive.get(segment.object_key)
        if parse_segment(data).sha256 != segment.sha256:
            raise ValueError("it is not what was written")
    except (ArchiveObjectMissingError, ValueError):
        await mark_suspect(job, segment)
        return
    new: OpenSegment = await open_segment(job, segment.tenant_id)
    for each in placed:
        entry = each.entry
        frames = data[entry.offset : entry.offset + entry.length]
        try:
            decode_run(frames, tenant_id=segment.tenant_id, sha256=bytes.fromhex(entry.sha256))
        except (ValueError, CheckpointCorruptError):
            job.tally.lost_runs.append((segment.tenant_id, entry.run_id))
            continue
        new.writer.add_frames(
            [(frame, len(raw)) for frame, raw in unpacked_frames(frames)],
            run_id=entry.run_id,
            created_ms=entry.created_ms,
            version=entry.version,
            steps=entry.steps,
            rows_sha256=entry.rows_sha256,
        )
        new.run_nos.append(each.run_no)
    if await store_segment(job, new, replaces=segment.segment_no):
        job.tally.rewritten += 1
