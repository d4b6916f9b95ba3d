"""Exporting archived runs as JSON lines, each run verified; the lines are those of the segments."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from app.errors import ArchiveObjectMissingError, CheckpointCorruptError
from app.stores.archive.contract import ObjectStore
from app.stores.archive.ledger import ArchiveLedger
from app.stores.archive.segment import decode_run, unpacked_frames
from app.stores.offload.checking import COUNTED

__all__ = ["export_runs"]

_PAGE: Final = 100


async def export_runs(
    ledger: ArchiveLedger, archive: ObjectStore, *, tenant_id: str | None = None, run_id: str | None = None
) -> AsyncIterator[bytes]:
    """Give the lines of every archived run of a tenant, or of all; read only, so no lease is taken.

    Raises:
        CheckpointCorruptError: a copy is missing or damaged; names run and key.
    """
    after = 0
    while page := await ledger.segments(states=COUNTED, tenant_id=tenant_id, after=after, limit=_PAGE):
        for segment in page:
            placed = [each.entry for each in await ledger.placed(segment.segment_no)]
            wanted = [entry for entry in placed if run_id in {None, entry.run_id}]
            if not wanted:
                continue
            try:
                data = await archive.get(segment.object_key)
            except ArchiveObjectMissingError:
                data = b""
            for entry in wanted:
                frames = data[entry.offset : entry.offset + entry.length]
                try:
                    decode_run(frames, tenant_id=segment.tenant_id, sha256=bytes.fromhex(entry.sha256))
                except (ValueError, CheckpointCorruptError) as error:
                    raise CheckpointCorruptError(
                        f"run {entry.run_id!r}: its copy in {segment.object_key} cannot be used: {error}",
                        run_id=entry.run_id,
                        step_id=None,
                        tenant_id=segment.tenant_id,
                    ) from error
                for _, raw in unpacked_frames(frames):
                    yield raw
        after = page[-1].segment_no
