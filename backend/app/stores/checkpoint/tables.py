"""What a backend in this process brings: the rows of runs and steps inside one transaction. It decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.errors import CheckpointCorruptError, ConfigurationError
from app.stores.checkpoint import rules
from app.stores.checkpoint.arguments import ListQuery, Position
from app.stores.checkpoint.rows import StoredHead, StoredRun, StoredStep

__all__ = ["ArchivedCopy", "ArchivedSteps", "Located", "RunRows", "archived_steps"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A run, and its number: never used for another run, also not for a later one of the same id."""

    run_no: int
    run: StoredRun

    @property
    def head(self) -> StoredHead:
        """The head."""
        return self.run.head


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedCopy:
    """Where the archive has a run: the bytes of an object that are its frames, and their SHA-256."""

    object_key: str
    offset: int
    length: int
    steps: int
    sha256: bytes


class ArchivedSteps(Protocol):
    """What a store reads archived runs with."""

    async def steps(self, copy: ArchivedCopy, *, tenant_id: str, run_id: str) -> Sequence[StoredStep]:
        """Return a run's steps, verified against its chain.

        Raises:
            CheckpointCorruptError: the copy is missing or damaged; names run and key.
            ArchiveUnavailableError: the archive did not answer.
            ConfigurationError: no archive is configured.
        """
        ...

    async def close(self) -> None:
        """Let go of connections. A later call opens them again."""
        ...


class RunRows(Protocol):
    """The rows inside one transaction. A backend keeps them; it decides nothing."""

    def find(self, tenant_id: str, run_id: str) -> tuple[int, StoredHead] | None:
        """Return a run's number and head."""
        ...

    def find_for_append(
        self, tenant_id: str, run_id: str, step_id: str
    ) -> tuple[int, StoredHead, rules.Recorded | None] | None:
        """The same, with what is recorded of one step."""
        ...

    def find_whole(self, tenant_id: str, run_id: str) -> Located | None:
        """Return a run with the bodies of its inputs and its result."""
        ...

    def listed(self, tenant_id: str, query: ListQuery) -> Iterator[Located]:
        """Return the runs behind ``query.after`` that match, latest update first, by number where it is the same."""
        ...

    def lying(
        self,
        tenant_id: str,
        *,
        workflow: str | None,
        before_ms: int,
        now_ms: int,
        host: str,
        after: Position,
        limit: int,
    ) -> list[tuple[int, StoredHead]]:
        """Return running runs that were not written to since ``before_ms``, the one that lies longest first.

        Those only whose lease is none, has ended, or is that of a process of ``host``; behind ``after``, by number.
        """
        ...

    def steps(self, run_no: int, *, first: int, limit: int | None = None, bodies: bool = True) -> list[StoredStep]:
        """Return consecutive steps from the index ``first`` on, in the order of recording."""
        ...

    def digests(self, run_no: int) -> dict[str, bytes]:
        """Return the output digest of every step, by id, in the order of recording."""
        ...

    def insert(self, head: StoredHead, inputs: bytes) -> int:
        """Add a run and return its number."""
        ...

    def add_steps(self, run_no: int, steps: Iterable[StoredStep]) -> None:
        """Add steps behind the last."""
        ...

    def copy_steps(self, run_no: int, new_run_no: int, count: int) -> None:
        """Add copies of a run's first steps to another that has none, as of version 0."""
        ...

    def update(self, run_no: int, head: StoredHead) -> None:
        """Put a new head in the place of a run's."""
        ...

    def move(self, run_no: int, head: StoredHead) -> None:
        """The same where only what a step changes differs: neither status, error, result nor token."""
        ...

    def update_lease(self, run_no: int, head: StoredHead) -> None:
        """The same where only the lease differs."""
        ...

    def set_result(self, run_no: int, result: bytes | None) -> None:
        """Put the body of a result in the place of a run's."""
        ...

    def next_token(self) -> int:
        """Return a token above every earlier one of any run."""
        ...

    def remove(self, run_no: int, *, now_ms: int) -> None:
        """Delete a run, its values and its steps; where there is an archive, leave a tombstone for it."""
        ...

    def archived_copy(self, run_no: int) -> ArchivedCopy | None:
        """Return where the archive has a run."""
        ...

    def restore(self, run_no: int, steps: Sequence[StoredStep], *, now_ms: int) -> None:
        """Add the steps of a run that is archived, and make it a run of the database again; its copy stays."""
        ...


async def archived_steps(
    archive: ArchivedSteps | None, copy: ArchivedCopy | None, head: StoredHead
) -> Sequence[StoredStep]:
    """Return the steps of an archived run, verified against its chain.

    Raises:
        CheckpointCorruptError: the copy is missing or damaged, or where it lies is not known.
        ArchiveUnavailableError: the archive did not answer.
        ConfigurationError: the store was given no archive.
    """
    if copy is None:
        raise CheckpointCorruptError(
            f"run {head.run_id!r} is archived, and where is not known; rebuild the index: "
            "python3 -m app.stores.checkpoint_offload rebuild-index",
            run_id=head.run_id,
            step_id=None,
            tenant_id=head.tenant_id,
        )
    if archive is None:
        raise ConfigurationError(
            f"run {head.run_id!r} lies in the archive ({copy.object_key}), and this store was given none",
            variable="R2_ENDPOINT",
        )
    return await archive.steps(copy, tenant_id=head.tenant_id, run_id=head.run_id)
