"""One job on the archive: it has the lease, knows whose archive it is, and leaves a row in the database."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from app.errors import (
    ArchiveObjectExistsError,
    ArchiveObjectMissingError,
    ConfigurationError,
    OffloadFencedError,
    StoreDamagedError,
)
from app.stores.archive import keys
from app.stores.archive.contract import ObjectStore
from app.stores.archive.ledger import ArchiveLedger, JobLease
from app.stores.holder import Holder
from app.stores.offload.report import OffloadReport, Progress, Tally, Watch

__all__ = ["Job", "job", "read_store_id"]

_FORMAT: Final = 1


@dataclass(slots=True, kw_only=True)
class Job:
    """What the steps of a job share."""

    ledger: ArchiveLedger
    archive: ObjectStore
    lease: JobLease
    store_id: str
    tally: Tally = field(default_factory=Tally)
    watch: Watch | None = None
    deadline: float | None = None
    clock: Callable[[], float] = time.monotonic
    started: float = 0.0

    def out_of_time(self) -> bool:
        """Whether the job is to end before its next piece of work; noted as partial if so."""
        if self.deadline is None or self.clock() < self.deadline:
            return False
        self.tally.partial = True
        return True

    def tell(self, progress: Progress) -> None:
        """Let whoever looks on know."""
        if self.watch is not None:
            self.watch(progress)

    def report(self) -> OffloadReport:
        """Return what was done so far."""
        return self.tally.report(epoch=self.lease.epoch, seconds=self.clock() - self.started)


@asynccontextmanager
async def job(
    verb: str,
    *,
    ledger: ArchiveLedger,
    archive: ObjectStore,
    holder: Holder | None = None,
    watch: Watch | None = None,
    max_seconds: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    rebuilding: bool = False,
) -> AsyncIterator[Job]:
    """Take the lease, check whose archive it is, and complete the job's row at the end, however it ends.

    Args:
        verb: what the job's row says.
        ledger: the database's.
        archive: the objects.
        holder: who works; this process by default.
        watch: called with the progress.
        max_seconds: after which no further piece of work is begun.
        clock: of ``max_seconds``, for tests.
        rebuilding: take over the archive's identity where the database has none.

    Raises:
        OffloadBusyError: another job has the lease.
        OffloadFencedError: this one lost it.
        ConfigurationError: the archive belongs to another database, or its credentials are refused.
        ArchiveUnavailableError, CheckpointStoreUnavailableError: one of the two did not answer.
    """
    started = clock()
    # An instance of its own: a second job of this process must not pass for the first, and take the archive from it.
    holder = holder or Holder.current(instance=f"offload-{secrets.token_hex(4)}")
    lease = await ledger.begin(verb, holder=holder)
    running = Job(
        ledger=ledger,
        archive=archive,
        lease=lease,
        store_id="",
        watch=watch,
        deadline=None if max_seconds is None else started + max_seconds,
        clock=clock,
        started=started,
    )
    outcome = "failed"
    try:
        running.store_id = await _identified(running, rebuilding=rebuilding)
        yield running
        outcome = running.tally.outcome
    except OffloadFencedError:
        outcome = "fenced"
        raise
    finally:
        # Shielded: a job that is stopped gives its lease up, so that the next one need not wait for its end.
        await asyncio.shield(ledger.end(lease, outcome=outcome, report=running.report().document()))


async def read_store_id(archive: ObjectStore) -> str | None:
    """Return the id that an archive has, or None where it has none yet.

    Raises:
        StoreDamagedError: what is there is not Nova's, or a newer Nova's.
    """
    try:
        document = json.loads(await archive.get(keys.STORE))
    except ArchiveObjectMissingError:
        return None
    except ValueError as error:
        raise StoreDamagedError(f"{keys.STORE} in {archive.location} is not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise StoreDamagedError(
            f"{keys.STORE} in {archive.location} is not of a form that this version of Nova knows; upgrade Nova"
        )
    store_id = str(document.get("store_id"))
    if document.get("sha256") != _digest(store_id):
        raise StoreDamagedError(f"{keys.STORE} in {archive.location} is damaged, or was on the way; run the job again")
    return store_id


def _digest(store_id: str) -> str:
    return hashlib.sha256(store_id.encode()).hexdigest()


async def _identified(running: Job, *, rebuilding: bool) -> str:
    """Return the id that database and archive share; a new archive gets one.

    The database is bound first: an archive that got an id which no database knows would belong to nobody.
    """
    ledger, archive = running.ledger, running.archive
    found = await read_store_id(archive)
    known = await ledger.store_id()
    if known is None:
        if found is not None and not rebuilding:
            raise ConfigurationError(
                f"the archive {archive.location} belongs to another installation, or this database was lost: "
                f"{ledger.location} knows no archive. Name another bucket or directory, or take the archive over with "
                "`python3 -m app.stores.checkpoint_offload rebuild-index`",
                variable="R2_BUCKET",
            )
        known = await ledger.bind(running.lease, found or keys.new_id(running.lease.now_ms))
    if found is None:
        in_use = bool(await ledger.segments(states=("live", "suspect"), limit=1))
        # Another job may have begun the archive between the two reads, if this one slept: look once more.
        if in_use and await read_store_id(archive) is None:
            raise ConfigurationError(
                f"{archive.location} is not the archive of this database: it has no {keys.STORE}, and "
                f"{ledger.location} has runs in its archive. Name the right bucket or directory",
                variable="R2_BUCKET",
            )
        with contextlib.suppress(ArchiveObjectExistsError):  # an earlier try's, or somebody else's: reading it tells
            document = {"format": _FORMAT, "store_id": known, "sha256": _digest(known)}
            await archive.put_new(keys.STORE, json.dumps(document).encode())
        found = await read_store_id(archive)
    if found != known:
        raise ConfigurationError(
            f"the archive {archive.location} belongs to another installation (its id is {found}, that of "
            f"{ledger.location} is {known}); nothing was changed. Name the right bucket or directory",
            variable="R2_BUCKET",
        )
    return known
