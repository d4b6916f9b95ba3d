"""Erasing a tenant: its runs leave the database and the archive, and a tombstone keeps them from coming back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from app.stores.archive import keys
from app.stores.archive.segment import parse_segment
from app.stores.offload.job import Job
from app.stores.offload.sweeping import write_tombstones

__all__ = ["ErasedObject", "Receipt", "erase_tenant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasedObject:
    """An object that was deleted, and asked for afterwards; ``sha256`` is None where it never counted."""

    key: str
    sha256: str | None
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What an erasure removed.

    Attributes:
        erased_ms: when, by the database's clock, in ms since 1970 UTC.
        objects: each was asked for after its deletion, and was not there.
        remaining: keys that are still there, or belong to somebody else; empty in a complete erasure.
    """

    tenant_id: str
    store_id: str
    epoch: int
    erased_ms: int
    runs: int
    checkpoints: int
    objects: tuple[ErasedObject, ...]
    remaining: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """Return the receipt for ``--json``."""
        return asdict(self)


async def erase_tenant(job: Job, tenant_id: str) -> Receipt:
    """Remove a tenant's runs from the database, then its objects, also those that the database does not know.

    It may be repeated after a crash: what is left is removed then.
    """
    erased = await job.ledger.erase(job.lease, tenant_id)
    await write_tombstones(job)
    known = {segment.object_key: segment for segment in erased.segments}
    sizes = {info.key: info.size_bytes async for info in job.archive.list(keys.tenant_prefix(tenant_id))}
    objects: list[ErasedObject] = []
    remaining: list[str] = []
    for key in sorted(sizes.keys() | known.keys()):
        await job.ledger.renew(job.lease)
        if key not in known and not await _is_of(job, key, tenant_id):
            remaining.append(key)
            continue
        await job.archive.delete(key)
        if await job.archive.size(key) is not None:
            remaining.append(key)
            continue
        row = known.get(key)
        if row is not None:
            await job.ledger.swept(job.lease, [row.segment_no])
        if key in sizes:
            sha256 = None if row is None or row.sha256 is None else row.sha256.hex()
            objects.append(ErasedObject(key=key, sha256=sha256, size_bytes=sizes[key]))
    job.tally.swept += len(objects)
    job.tally.unknown_objects = len(remaining)
    return Receipt(
        tenant_id=tenant_id,
        store_id=job.store_id,
        epoch=job.lease.epoch,
        erased_ms=job.lease.now_ms,
        runs=erased.runs,
        checkpoints=erased.steps,
        objects=tuple(objects),
        remaining=tuple(remaining),
    )


async def _is_of(job: Job, key: str, tenant_id: str) -> bool:
    """Whether an object below the tenant's prefix is not certainly another tenant's, whose prefix is the same."""
    try:
        return parse_segment(await job.archive.get(key)).header.tenant_id == tenant_id
    except ValueError:
        return True
