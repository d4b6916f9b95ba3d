"""What a checkpoint backend offers to the offload job: the rows that say what the archive holds.

The database is the only authority. Each verb is one transaction. Verbs that take a ``lease`` are **fenced**: where
another job has taken over, or the lease ran out, they do nothing and raise ``OffloadFencedError``; else they prolong
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Literal, Protocol

from app.errors import OffloadFencedError
from app.stores.archive.segment import SegmentEntry
from app.stores.checkpoint.rows import StoredRun, StoredStep
from app.stores.holder import Holder

__all__ = [
    "JOB_LEASE",
    "Adopted",
    "ArchiveLedger",
    "Erased",
    "HotRun",
    "JobLease",
    "JobRow",
    "Placed",
    "Purged",
    "SegmentRow",
    "SegmentState",
    "Tombstone",
    "fenced_out",
]

JOB_LEASE: Final = timedelta(minutes=15)
"""Longer than any upload with its retries; every fenced verb begins it anew."""

ABANDONED_FOR: Final = timedelta(days=7)
"""How long the key of an abandoned segment is deleted again by every job: an upload may arrive late."""

SegmentState = Literal["writing", "live", "suspect", "abandoned", "deleting", "deleted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLease:
    """The right to change the archive; ``now_ms`` is when it was taken, by the database's clock."""

    epoch: int
    now_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRow:
    """A run of the job, as the database remembers it; ``ended_ms`` is None while it runs, or where it was killed."""

    epoch: int
    verb: str
    holder: str
    started_ms: int
    ended_ms: int | None
    outcome: str | None
    report: Mapping[str, object] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentRow:
    """A segment as the database knows it; ``live_runs`` are those whose archived copy it is now.

    One that was ``adopted`` may hold what this database does not know; it is never rewritten or deleted as unused.
    """

    segment_no: int
    tenant_id: str
    object_key: str
    epoch: int
    adopted: bool
    state: SegmentState
    runs: int
    steps: int
    size_bytes: int
    sha256: bytes | None
    live_runs: int
    live_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HotRun:
    """A run in the database, whole, as of one moment."""

    run_no: int
    run: StoredRun
    steps: Sequence[StoredStep]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A run and where it lies in a segment."""

    run_no: int
    entry: SegmentEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """What a purge did: how many runs and steps left the database, and which runs are not what was copied."""

    runs: int = 0
    steps: int = 0
    differing: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """What a rebuild took from a segment.

    Attributes:
        new: runs that the database did not know.
        indexed: runs that it knew, and whose copy is this now.
        newer: (tenant, run) whose copy is newer than the run in the database, which was left as it is.
        buried: runs that were deleted.
    """

    new: int = 0
    indexed: int = 0
    newer: tuple[tuple[str, str], ...] = ()
    buried: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """Something that was deleted: a run; or, with an empty ``run_id``, what a tenant had up to ``created_ms``."""

    tenant_id: str
    run_id: str
    created_ms: int
    deleted_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What an erasure removed from the database, and the objects that are to be deleted."""

    runs: int
    steps: int
    segments: tuple[SegmentRow, ...] = field(default=())


class ArchiveLedger(Protocol):
    """The rows of one database. Safe for concurrent use by jobs, of which one at a time has the lease."""

    @property
    def location(self) -> str:
        """Which database it is, for people; never a credential."""
        ...

    # --- whose turn it is ---------------------------------------------------------------------------------------------

    async def begin(self, verb: str, *, holder: Holder, lease: timedelta = JOB_LEASE) -> JobLease:
        """Take the lease with a new epoch, and add the job's row.

        Raises:
            OffloadBusyError: another job holds it, and is not known to be gone.
        """
        ...

    async def renew(self, lease: JobLease) -> None:
        """Prolong the lease (fenced)."""
        ...

    async def end(self, lease: JobLease, *, outcome: str, report: Mapping[str, object]) -> None:
        """Complete the job's row and give the lease up, if it is still this job's."""
        ...

    async def jobs(self, *, limit: int) -> Sequence[JobRow]:
        """Return the latest jobs, the last one first."""
        ...

    # --- whose archive it is ------------------------------------------------------------------------------------------

    async def store_id(self) -> str | None:
        """Return the id of the archive that belongs to this database, or None where there is none yet."""
        ...

    async def bind(self, lease: JobLease, store_id: str) -> str:
        """Let the database belong to an archive, unless it does already; return the id that stands (fenced)."""
        ...

    # --- copying ------------------------------------------------------------------------------------------------------

    async def tenants(self) -> Sequence[str]:
        """Return the tenants that have runs in the database, sorted."""
        ...

    async def candidates(
        self, tenant_id: str, *, idle: timedelta, after_run_no: int, limit: int, limit_bytes: int
    ) -> Sequence[HotRun]:
        """Return runs that are to be copied, whole, by number: untouched for ``idle``, without a live lease, and not
        archived at their version.

        The list ends behind the run that passes ``limit_bytes``; empty means that there are no more.
        """
        ...

    async def candidate_count(self, *, idle: timedelta, retention: timedelta) -> tuple[int, int]:
        """Return how many runs would be copied, and how many purged that are archived now."""
        ...

    async def begin_segment(self, lease: JobLease, *, tenant_id: str, object_key: str) -> int:
        """Record the intent to write an object, before a byte of it is sent; return the segment's number (fenced)."""
        ...

    async def commit_segment(
        self,
        lease: JobLease,
        segment_no: int,
        *,
        size_bytes: int,
        sha256: bytes,
        placed: Sequence[Placed],
        replaces: int | None = None,
    ) -> int:
        """Let a segment count whose object was verified; return how many runs it is now the copy of (fenced).

        A run that was deleted or has moved on meanwhile is left out. With ``replaces`` only runs whose copy lies in
        that segment are taken over, which is then to be deleted if nothing else refers to it.

        Raises:
            OffloadFencedError: also where the segment is not in state ``writing`` any more.
        """
        ...

    async def abandon_segment(self, lease: JobLease, segment_no: int) -> None:
        """Give up a segment that was begun; the next sweep deletes its object (fenced)."""
        ...

    # --- purging ------------------------------------------------------------------------------------------------------

    async def purgeable(
        self, tenant_id: str, *, idle: timedelta, after_run_no: int, limit: int
    ) -> Sequence[tuple[int, int]]:
        """Return (run number, segment number) of runs that a purge may be tried on, by number."""
        ...

    async def purge(self, lease: JobLease, run_nos: Sequence[int], *, idle: timedelta) -> Purged:
        """Remove the steps of runs from the database, each only if in this very transaction it is completed, failed or
        aborted, untouched for ``idle``, without a live lease, archived at its version in a segment that is live, and
        its rows are, byte for byte, those that were copied (fenced).
        """
        ...

    # --- looking after the segments -----------------------------------------------------------------------------------

    async def segments(
        self, *, states: Sequence[SegmentState], tenant_id: str | None = None, after: int = 0, limit: int = 1000
    ) -> Sequence[SegmentRow]:
        """Return segments by number."""
        ...

    async def placed(self, segment_no: int) -> Sequence[Placed]:
        """Return the runs whose copy lies in a segment now, in the order of their frames."""
        ...

    async def leftovers(self, lease: JobLease) -> Sequence[SegmentRow]:
        """Abandon what earlier jobs left in state ``writing``, take segments that nothing refers to for deletion, and
        return every segment whose object is to be deleted now (fenced).
        """
        ...

    async def swept(self, lease: JobLease, segment_nos: Sequence[int]) -> None:
        """Record that objects were deleted (fenced)."""
        ...

    async def checked(self, lease: JobLease, segment_no: int) -> None:
        """Record that a segment was read whole and is right, also where it was suspect (fenced)."""
        ...

    async def suspect(self, lease: JobLease, segment_no: int) -> tuple[int, tuple[tuple[str, str], ...]]:
        """Record that a segment's object is missing or damaged (fenced).

        Returns:
            How many of its runs are still in the database and will be copied anew, and (tenant, run) of those that
            are not.
        """
        ...

    # --- deletions ----------------------------------------------------------------------------------------------------

    async def erase(self, lease: JobLease, tenant_id: str) -> Erased:
        """Remove everything of a tenant from the database, and leave a tombstone (fenced)."""
        ...

    async def unwritten_tombstones(self, *, limit: int) -> Sequence[Tombstone]:
        """Return tombstones that no object says yet."""
        ...

    async def tombstones_written(self, lease: JobLease, tombstones: Sequence[Tombstone], object_key: str) -> None:
        """Record the object that says them (fenced)."""
        ...

    async def bury(self, lease: JobLease, tombstones: Sequence[Tombstone], object_key: str) -> None:
        """Take over tombstones that an object of the archive says (fenced)."""
        ...

    # --- rebuilding ---------------------------------------------------------------------------------------------------

    async def known_keys(self, keys: Sequence[str]) -> Mapping[str, SegmentState]:
        """Return the state of each key that is a segment's."""
        ...

    async def adopt(
        self,
        lease: JobLease,
        *,
        tenant_id: str,
        object_key: str,
        epoch: int,
        size_bytes: int,
        sha256: bytes,
        runs: Sequence[tuple[StoredRun, SegmentEntry]],
    ) -> Adopted:
        """Take a segment that the database does not know into its index, its runs verified by the caller (fenced).

        A run that was deleted is left out. One that the database does not know is added, archived. One that it has
        archived in an earlier version is brought to this one; one at this version gets this copy if it lies nowhere
        else, or in a segment that is suspect. Everything else stays as it is.
        """
        ...

    async def close(self) -> None:
        """Let go of files and connections."""
        ...


def fenced_out(lease: JobLease) -> OffloadFencedError:
    """Return the error for a job that lost its lease."""
    return OffloadFencedError(
        f"the lease of this job (epoch {lease.epoch}) ended or was taken over; nothing more of it counts. "
        "Run it again: what it left is cleaned up"
    )
