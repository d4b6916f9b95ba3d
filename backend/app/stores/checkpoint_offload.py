"""The offload of old runs to an archive: copy, verify, purge.

``offload_old_checkpoints`` is the job as a call; ``python3 -m app.stores.checkpoint_offload`` is the same as a program,
for a daily schedule, with the verbs that look after the archive (``docs/offload.md``). It may be killed at any moment.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import timedelta

    from app.settings import Settings
    from app.stores.offload.report import OffloadReport, Watch

__all__ = ["main", "offload_old_checkpoints"]

_CHECKED_SEGMENTS: Final = 2
"""How many segments, drawn at random, every job reads whole and decodes."""


async def offload_old_checkpoints(
    older_than_days: float | None = None,
    *,
    retention_days: float | None = None,
    dry_run: bool = False,
    max_seconds: float | None = None,
    settings: Settings | None = None,
    watch: Watch | None = None,
) -> OffloadReport:
    """Copy runs untouched for ``older_than_days`` to the archive, and purge those untouched for ``retention_days``.

    Every run without a live lease is copied, whatever its status; only completed, failed and aborted runs are purged,
    and only where their copy was read back, decoded, and is what the database has. A purged run reads, forks and
    resumes as before.

    Args:
        older_than_days: None takes ``CHECKPOINT_OFFLOAD_OLDER_THAN_DAYS`` (3).
        retention_days: at least ``older_than_days``; None takes the larger of that and ``CHECKPOINT_RETENTION_DAYS``
            (7).
        dry_run: only count what would be copied and purged.
        max_seconds: begin nothing more after this time; the next job goes on.
        settings: None reads the environment now.
        watch: called with the progress.

    Raises:
        ConfigurationError: no archive or no database is configured, or the archive is not this database's.
        InvalidInputError: an argument is out of range.
        OffloadBusyError: another job has the lease.
        OffloadFencedError: the lease ran out, and another job may have it; nothing more of this one counts.
        ArchiveUnavailableError, CheckpointStoreUnavailableError: one of the two did not answer.
    """
    from app.stores.archive.choice import open_archive, open_ledger
    from app.stores.offload.daily import run_daily

    if settings is None:
        from app.settings import load_settings

        settings = load_settings()
    idle, retention = _ages(older_than_days, retention_days, settings)
    archive = open_archive(settings)
    ledger = open_ledger(settings)
    try:
        return await run_daily(
            ledger,
            archive,
            idle=idle,
            retention=retention,
            dry_run=dry_run,
            max_seconds=max_seconds,
            checked_segments=_CHECKED_SEGMENTS,
            watch=watch,
        )
    finally:
        await archive.close()
        await ledger.close()


def main() -> int:
    """Run the program on the arguments of the process, and return its exit code."""
    from app.stores.offload.command import run

    return run(sys.argv[1:])


def _ages(
    older_than_days: float | None, retention_days: float | None, settings: Settings
) -> tuple[timedelta, timedelta]:
    from datetime import timedelta

    from app.errors import InvalidInputError

    idle = settings.checkpoint_offload_older_than_days if older_than_days is None else older_than_days
    for value, name in ((idle, "older_than_days"), (retention_days, "retention_days")):
        if value is not None and (isinstance(value, bool) or not 0 <= value <= 36_500):
            raise InvalidInputError(f"{name} is {value!r}; it must be a number of days from 0 to 36,500")
    if retention_days is None:
        retention_days = max(settings.checkpoint_retention_days, idle)
    if retention_days < idle:
        raise InvalidInputError(
            f"retention_days is {retention_days:g} and older_than_days is {idle:g}: a run cannot leave the database "
            "before it is copied; raise the first or lower the second"
        )
    return timedelta(days=idle), timedelta(days=retention_days)


if __name__ == "__main__":
    sys.exit(main())
