"""Sweeping: what no job will finish and what nothing refers to is deleted; deletions are written beside the segments.

Nothing is found by its age. An object is deleted because a row of the database says that it never counted, or that
nothing refers to it any more.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from app.errors import ArchiveObjectExistsError, ArchiveObjectMissingError, ArchiveUnavailableError
from app.stores.archive import keys
from app.stores.archive.ledger import SegmentRow, Tombstone
from app.stores.checkpoint.codec import canonical_json
from app.stores.offload.job import Job

__all__ = ["delete_objects", "parse_tombstones", "sweep", "write_tombstones"]

_BATCH: Final = 1_000
_FORMAT: Final = 1


async def sweep(job: Job) -> None:
    """Delete the objects of abandoned segments, and of those that nothing refers to."""
    leftovers = await job.ledger.leftovers(job.lease)
    unused = [segment for segment in leftovers if segment.state == "deleting"]
    diverged = await _diverged(job, {segment.tenant_id for segment in unused})
    await delete_objects(
        job, [each for each in leftovers if each.state == "abandoned" or each.tenant_id not in diverged]
    )


async def delete_objects(job: Job, segments: Sequence[SegmentRow]) -> None:
    """Delete the objects of segments, each after the lease was renewed, and record it."""
    for segment in segments:
        await job.ledger.renew(job.lease)
        if await job.archive.size(segment.object_key) is not None:
            job.tally.swept += 1
        # Also where it is not there: the upload of a job that was thought dead may have left a part of it.
        await job.archive.delete(segment.object_key)
        await job.ledger.swept(job.lease, [segment.segment_no])


async def write_tombstones(job: Job) -> None:
    """Write what was deleted since the last job beside the segments, so that a rebuild obeys it too."""
    while batch := await job.ledger.unwritten_tombstones(limit=_BATCH):
        key = keys.tombstone_key(keys.new_id(job.lease.now_ms), epoch=job.lease.epoch, now_ms=job.lease.now_ms)
        await job.ledger.renew(job.lease)
        deleted = [asdict(each) for each in batch]
        document = {"format": _FORMAT, "store_id": job.store_id, "deleted": deleted, "sha256": _digest(deleted)}
        data = json.dumps(document, ensure_ascii=False).encode()
        with contextlib.suppress(ArchiveObjectExistsError, ArchiveUnavailableError):  # the read-back tells
            await job.archive.put_new(key, data)
        try:
            stored = await job.archive.get(key)
        except ArchiveObjectMissingError as error:
            raise ArchiveUnavailableError(
                f"{key} was not stored in {job.archive.location}; run the job again"
            ) from error
        if stored != data:
            job.tally.verify_failures += 1
            return
        await job.ledger.tombstones_written(job.lease, batch, key)


def parse_tombstones(data: bytes, *, store_id: str) -> list[Tombstone]:
    """Return what an object says was deleted.

    Raises:
        ValueError: it is not one of this archive's.
    """
    document = json.loads(data)
    if not isinstance(document, dict) or (document.get("format"), document.get("store_id")) != (_FORMAT, store_id):
        raise ValueError("it is not a list of deletions of this archive, or a newer Nova's")
    try:
        if document["sha256"] != _digest(document["deleted"]):
            raise ValueError("it is damaged")
        return [Tombstone(**each) for each in document["deleted"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"it is not complete: {error}") from error


def _digest(deleted: list[dict[str, Any]]) -> str:
    return hashlib.sha256(canonical_json(deleted)).hexdigest()


async def _diverged(job: Job, tenants: set[str]) -> set[str]:
    """Return the tenants below whose prefix there are segments that this database does not know.

    Another copy of this database may have written them, or this one was brought back to an earlier time. Whichever it
    is, its rows do not say what may be deleted until ``gc`` has taken them in.
    """
    diverged: set[str] = set()
    job.tally.unknown_objects = 0
    for tenant_id in sorted(tenants):
        found = [info.key async for info in job.archive.list(keys.tenant_prefix(tenant_id))]
        known = await job.ledger.known_keys(found)
        unknown = [key for key in found if key not in known]
        if unknown:
            job.tally.unknown_objects += len(unknown)
            diverged.add(tenant_id)
    return diverged
