"""What a job did, as it tells it while it works and at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

__all__ = ["OffloadReport", "Outcome", "Progress", "Tally", "Watch"]

Outcome = Literal["done", "partial", "unverified"]
"""``partial``: there is more to do, because the time ran out or something is in the way. ``unverified``: something in
the database or in the archive is not what it should be; nothing of it was removed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a job is: runs done of those that were found at its start."""

    phase: Literal["copy", "purge", "check", "rewrite", "rebuild"]
    done: int
    total: int


Watch: TypeAlias = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadReport:
    """What a job did.

    Attributes:
        outcome: whether all was done.
        dry_run: whether the counts are of what would be done.
        epoch: the job's number in this database; 0 in a dry run.
        runs, checkpoints: copied and verified in the archive by this job; a checkpoint is a recorded step.
        segments: objects that were written for them.
        bytes_raw, bytes_stored: of these runs as rows, and of the objects.
        purged_runs, purged_checkpoints: what left the database.
        moved_on: runs that went on while they were copied; the next job copies them again.
        swept: objects of unfinished or unused segments that were deleted.
        rewritten: segments that were mostly dead, and were written anew.
        verify_failures: objects that were not what was written.
        corrupt_runs: (tenant, run) whose chain does not verify, or whose rows differ from their copy: left as they are.
        lost_runs: (tenant, run) whose only copy is missing or damaged.
        unknown_objects: segments in the archive that this database does not know; ``gc`` takes them in.
        seconds: how long it took.
    """

    outcome: Outcome = "done"
    dry_run: bool = False
    epoch: int = 0
    runs: int = 0
    checkpoints: int = 0
    segments: int = 0
    bytes_raw: int = 0
    bytes_stored: int = 0
    purged_runs: int = 0
    purged_checkpoints: int = 0
    moved_on: int = 0
    swept: int = 0
    rewritten: int = 0
    verify_failures: int = 0
    corrupt_runs: tuple[tuple[str, str], ...] = ()
    lost_runs: tuple[tuple[str, str], ...] = ()
    unknown_objects: int = 0
    seconds: float = 0.0

    def document(self) -> dict[str, Any]:
        """Return the report for ``--json`` and for the job's row."""
        return asdict(self)


@dataclass(slots=True, kw_only=True)
class Tally:
    """The counts of a job while it works; the job alone changes it."""

    runs: int = 0
    checkpoints: int = 0
    segments: int = 0
    bytes_raw: int = 0
    bytes_stored: int = 0
    purged_runs: int = 0
    purged_checkpoints: int = 0
    moved_on: int = 0
    swept: int = 0
    rewritten: int = 0
    verify_failures: int = 0
    corrupt_runs: list[tuple[str, str]] = field(default_factory=list)
    lost_runs: list[tuple[str, str]] = field(default_factory=list)
    unknown_objects: int = 0
    partial: bool = False

    @property
    def outcome(self) -> Outcome:
        """How the job ended."""
        if self.verify_failures or self.corrupt_runs or self.lost_runs:
            return "unverified"
        return "partial" if self.partial or self.unknown_objects else "done"

    def report(self, *, epoch: int, seconds: float) -> OffloadReport:
        """Return what was done."""
        counts: dict[str, Any] = asdict(self)
        del counts["partial"]
        counts |= {name: tuple(map(tuple, counts[name])) for name in ("corrupt_runs", "lost_runs")}
        return OffloadReport(outcome=self.outcome, epoch=epoch, seconds=round(seconds, 3), **counts)
