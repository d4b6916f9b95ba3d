"""What a backend in this process brings: the rows of runs and steps inside one transaction. It decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from app.stores.checkpoint import rules
from app.stores.checkpoint.arguments import ListQuery
from app.stores.checkpoint.rows import StoredHead, StoredRun, StoredStep

__all__ = ["Located", "RunRows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A run, and its number: never used for another run, also not for a later one of the same id."""

    run_no: int
    run: StoredRun

    @property
    def head(self) -> StoredHead:
        """The head."""
        return self.run.head


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

    def update_lease(self, run_no: int, head: StoredHead) -> None:
        """The same where only the lease differs."""
        ...

    def set_result(self, run_no: int, result: bytes | None) -> None:
        """Put the body of a result in the place of a run's."""
        ...

    def next_token(self) -> int:
        """Return a token above every earlier one of any run."""
        ...

    def remove(self, run_no: int) -> None:
        """Delete a run, its values and its steps."""
        ...
