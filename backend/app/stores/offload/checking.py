"""Checking segments: each is read whole and decoded, a few in every job, or all of them."""

from __future__ import annotations

import asyncio
import random
from typing import Final

from app.errors import ArchiveObjectMissingError, CheckpointCorruptError
from app.stores.archive.ledger import SegmentRow, SegmentState
from app.stores.archive.segment import decode_run, parse_segment
from app.stores.offload.job import Job
from app.stores.offload.purging import mark_suspect
from app.stores.offload.report import Progress

__all__ = ["COUNTED", "check_all", "check_segment", "check_some"]

COUNTED: Final[tuple[SegmentState, ...]] = ("live", "suspect")
"""The states in which a segment's object must be there."""

_PAGE: Final = 1_000


async def check_all(job: Job, *, tenant_id: str | None = None) -> int:
    """Check every segment, and return how many are right."""
    right = number = after = 0
    while page := await job.ledger.segments(states=COUNTED, tenant_id=tenant_id, after=after, limit=_PAGE):
        for segment in page:
            if job.out_of_time():
                return right
            right += await check_segment(job, segment)
            number += 1
            job.tell(Progress(phase="check", done=number, total=number))
        after = page[-1].segment_no
    return right


async def check_some(job: Job, count: int, *, generator: random.Random) -> None:
    """Check a few segments that ``generator`` draws, and every one that is suspect: it heals, or is told again."""
    suspects = list(await job.ledger.segments(states=("suspect",), limit=_PAGE))
    numbers: list[SegmentRow] = []
    seen = after = 0
    # Reservoir sampling: each segment has the same chance, however many there are.
    while page := await job.ledger.segments(states=("live",), after=after, limit=_PAGE):
        for segment in page:
            seen += 1
            if len(numbers) < count:
                numbers.append(segment)
            elif (place := generator.randrange(seen)) < count:
                numbers[place] = segment
        after = page[-1].segment_no
    for segment in [*suspects, *numbers]:
        if job.out_of_time():
            return
        await check_segment(job, segment)


async def check_segment(job: Job, segment: SegmentRow) -> bool:
    """Read a segment whole and decode every run of it; record whether it is right."""
    await job.ledger.renew(job.lease)
    for _ in range(2):  # an answer that was damaged on the way is not damage
        try:
            data = await job.archive.get(segment.object_key)
        except ArchiveObjectMissingError:
            break
        if await asyncio.to_thread(_is_right, data, segment):
            await job.ledger.checked(job.lease, segment.segment_no)
            return True
    await mark_suspect(job, segment)
    return False


def _is_right(data: bytes, segment: SegmentRow) -> bool:
    try:
        found = parse_segment(data)
        if found.sha256 != segment.sha256 or found.header.tenant_id != segment.tenant_id:
            return False
        for entry in found.entries:
            decode_run(
                data[entry.offset : entry.offset + entry.length],
                tenant_id=segment.tenant_id,
                sha256=bytes.fromhex(entry.sha256),
            )
    except (ValueError, CheckpointCorruptError):
        return False
    return True
