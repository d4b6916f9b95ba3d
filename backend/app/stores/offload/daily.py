"""The daily job: clean up, write deletions, copy, purge, check a little."""

from __future__ import annotations

import random
from datetime import timedelta

from app.errors import ConfigurationError
from app.stores.archive.contract import ObjectStore
from app.stores.archive.ledger import ArchiveLedger
from app.stores.holder import Holder
from app.stores.offload.checking import check_some
from app.stores.offload.copying import TARGET_BYTES, copy_old_runs
from app.stores.offload.job import job, read_store_id
from app.stores.offload.purging import purge_old_runs
from app.stores.offload.report import OffloadReport, Watch
from app.stores.offload.rewriting import rewrite_mostly_dead
from app.stores.offload.sweeping import sweep, write_tombstones

__all__ = ["run_daily"]


async def run_daily(
    ledger: ArchiveLedger,
    archive: ObjectStore,
    *,
    idle: timedelta,
    retention: timedelta,
    dry_run: bool = False,
    max_seconds: float | None = None,
    checked_segments: int = 0,
    target_bytes: int = TARGET_BYTES,
    generator: random.Random | None = None,
    holder: Holder | None = None,
    watch: Watch | None = None,
) -> OffloadReport:
    """Do a day's work; see ``offload_old_checkpoints``.

    Args:
        ledger, archive: the database and the objects.
        idle, retention: after which runs are copied, and purged.
        dry_run: only count.
        max_seconds: begin nothing more after this time.
        checked_segments: how many segments are read whole in the end.
        target_bytes: how large a segment grows.
        generator: draws them.
        holder: who works; this process by default.
        watch: called with the progress.
    """
    to_copy, to_purge = await ledger.candidate_count(idle=idle, retention=retention)
    if dry_run:
        await _check_answers(archive, ledger)
        return OffloadReport(dry_run=True, runs=to_copy, purged_runs=to_purge)
    async with job(
        "offload", ledger=ledger, archive=archive, holder=holder, watch=watch, max_seconds=max_seconds
    ) as running:
        await sweep(running)
        await write_tombstones(running)
        await copy_old_runs(running, idle=idle, total=to_copy, target_bytes=target_bytes)
        await purge_old_runs(running, retention=retention, total=to_purge)
        await rewrite_mostly_dead(running)
        await check_some(running, checked_segments, generator=generator or random.Random())
        await sweep(running)
    return running.report()


async def _check_answers(archive: ObjectStore, ledger: ArchiveLedger) -> None:
    """Let a dry run find out what a real one would fail at before it begins."""
    found, known = await read_store_id(archive), await ledger.store_id()
    if found is not None and found != known:
        raise ConfigurationError(
            f"the archive {archive.location} belongs to another installation (its id is {found}, that of "
            f"{ledger.location} is {known}). Name the right bucket or directory",
            variable="R2_BUCKET",
        )
