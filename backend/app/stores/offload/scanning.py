"""Scanning the archive: what lies there and what the database knows of it are brought together.

An object that the database does not know is taken in or left where it is, never deleted: after the database was brought
back to an earlier time, or lost, it may be the only copy of a run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from app.errors import ArchiveObjectMissingError, CheckpointCorruptError
from app.stores.archive import keys
from app.stores.archive.ledger import SegmentRow
from app.stores.archive.segment import Segment, SegmentEntry, decode_run, parse_segment
from app.stores.checkpoint.rows import StoredRun
from app.stores.offload.checking import COUNTED
from app.stores.offload.job import Job
from app.stores.offload.purging import mark_suspect
from app.stores.offload.report import Progress
from app.stores.offload.sweeping import parse_tombstones

__all__ = ["Scan", "scan"]

_PAGE: Final = 500
_NEVER_COUNTED: Final = ("abandoned", "deleted", "deleting")


@dataclass(slots=True, kw_only=True)
class Scan:
    """What a scan found and did.

    Attributes:
        adopted: segments that were taken in.
        new_runs, indexed_runs: runs that the database did not know, and runs whose copy is now there.
        buried_runs: runs that were deleted, and stay so.
        newer_runs: (tenant, run) whose copy in the archive is newer than the run in the database, which is as it was.
        quarantined: keys of objects that are no segments of this archive, or damaged; they are left where they are.
    """

    adopted: int = 0
    new_runs: int = 0
    indexed_runs: int = 0
    buried_runs: int = 0
    newer_runs: tuple[tuple[str, str], ...] = ()
    quarantined: tuple[str, ...] = ()


async def scan(job: Job) -> Scan:
    """List the archive; take in what the database does not know, note what is missing, delete what never counted."""
    found = Scan()
    await _read_tombstones(job, found)
    listed = {info.key: info.size_bytes async for info in job.archive.list(keys.SEGMENTS)}
    await _note_missing(job, listed)
    done = 0
    for page in _pages(sorted(listed)):
        known = await job.ledger.known_keys(page)
        for key in page:
            if job.out_of_time():
                return found
            if key not in known:
                await _adopt(job, key, found)
            elif known[key] in _NEVER_COUNTED:
                await job.ledger.renew(job.lease)
                await job.archive.delete(key)
                job.tally.swept += 1
            done += 1
            job.tell(Progress(phase="rebuild", done=done, total=len(listed)))
    job.tally.unknown_objects = len(found.quarantined)
    return found


def _pages(names: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(names), _PAGE):
        yield names[start : start + _PAGE]


async def _read_tombstones(job: Job, found: Scan) -> None:
    async for info in job.archive.list(keys.TOMBSTONES):
        try:
            tombstones = parse_tombstones(await job.archive.get(info.key), store_id=job.store_id)
        except ValueError:
            found.quarantined += (info.key,)
            continue
        await job.ledger.bury(job.lease, tombstones, info.key)


async def _note_missing(job: Job, listed: dict[str, int]) -> None:
    after = 0
    while page := await job.ledger.segments(states=COUNTED, after=after, limit=_PAGE):
        for segment in page:
            if await _is_missing(job, segment, listed):
                await mark_suspect(job, segment)
        after = page[-1].segment_no


async def _is_missing(job: Job, segment: SegmentRow, listed: dict[str, int]) -> bool:
    # A list may lag behind; an object counts as missing only if asking for it says so too.
    if listed.get(segment.object_key) == segment.size_bytes:
        return False
    return await job.archive.size(segment.object_key) != segment.size_bytes


async def _adopt(job: Job, key: str, found: Scan) -> None:
    try:
        data = await job.archive.get(key)
        segment, runs = await asyncio.to_thread(_verified, data, key, job.store_id)
    except ArchiveObjectMissingError:
        return  # deleted since it was listed
    except (ValueError, CheckpointCorruptError):
        found.quarantined += (key,)
        return
    adopted = await job.ledger.adopt(
        job.lease,
        tenant_id=segment.header.tenant_id,
        object_key=key,
        epoch=segment.header.epoch,
        size_bytes=len(data),
        sha256=segment.sha256,
        runs=runs,
    )
    found.adopted += 1
    found.new_runs += adopted.new
    found.indexed_runs += adopted.indexed
    found.buried_runs += adopted.buried
    found.newer_runs += adopted.newer


def _verified(data: bytes, key: str, store_id: str) -> tuple[Segment, list[tuple[StoredRun, SegmentEntry]]]:
    """Return a segment and its runs, each decoded.

    Raises:
        ValueError: it is not a segment of this archive, or does not lie where it should.
        CheckpointCorruptError: a run of it does not verify.
    """
    segment = parse_segment(data)
    header = segment.header
    if header.store_id != store_id or not key.startswith(keys.tenant_prefix(header.tenant_id)):
        raise ValueError("it belongs to another archive or tenant")
    runs: list[tuple[StoredRun, SegmentEntry]] = []
    for entry in segment.entries:
        found = decode_run(
            data[entry.offset : entry.offset + entry.length],
            tenant_id=header.tenant_id,
            sha256=bytes.fromhex(entry.sha256),
        )
        runs.append((found.run, entry))
    return segment, runs
