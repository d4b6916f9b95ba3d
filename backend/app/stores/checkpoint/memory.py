"""Checkpoints in the memory of one process: the model that the other backends are held against.

What is kept are encoded bytes, as in a database: what is loaded is what was recorded, never an alias of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from app.stores.checkpoint import rules
from app.stores.checkpoint.arguments import ListQuery, Position
from app.stores.checkpoint.contract import RunStatus
from app.stores.checkpoint.embedded import EmbeddedCheckpointStore
from app.stores.checkpoint.rows import StoredHead, StoredRun, StoredStep
from app.stores.checkpoint.tables import ArchivedCopy, Located, RunRows
from app.stores.clock import Clock, system_clock
from app.stores.holder import Holder

__all__ = ["InMemoryCheckpointStore"]

T = TypeVar("T")


class InMemoryCheckpointStore(EmbeddedCheckpointStore):
    """Runs that live as long as this object.

    Every verb changes the rows without an await and under a lock, so it is atomic among tasks, event loops and threads.

    Args:
        clock: the time, for tests; a time before an earlier one reads as the earlier one.
        is_gone: whether a lease's holder certainly does not run any more, for tests.
    """

    def __init__(self, *, clock: Clock | None = None, is_gone: Callable[[Holder], bool] = Holder.is_gone) -> None:
        super().__init__(is_gone=is_gone)
        self._clock = clock or system_clock
        self._latest_ms = 0
        self._lock = threading.Lock()
        self._rows = _MemoryRows()

    async def close(self) -> None:
        """Do nothing: the runs live as long as this object."""

    async def _read(self, work: Callable[[RunRows], T]) -> T:
        with self._lock:
            return work(self._rows)

    async def _write(self, work: Callable[[RunRows, int], T]) -> T:
        # Nothing is undone where work raises: the verbs decide before they write, and rows do not fail.
        with self._lock:
            self._latest_ms = max(self._latest_ms, self._clock())
            return work(self._rows, self._latest_ms)


@dataclass(slots=True)
class _Run:
    head: StoredHead
    inputs: bytes
    result: bytes | None = None
    steps: list[StoredStep] = field(default_factory=list)
    by_id: dict[str, StoredStep] = field(default_factory=dict)


class _MemoryRows:
    def __init__(self) -> None:
        self._runs: dict[int, _Run] = {}
        self._numbers: dict[tuple[str, str], int] = {}
        self._last_number = 0
        self._last_token = 0

    def find(self, tenant_id: str, run_id: str) -> tuple[int, StoredHead] | None:
        number = self._numbers.get((tenant_id, run_id))
        return None if number is None else (number, self._runs[number].head)

    def find_for_append(
        self, tenant_id: str, run_id: str, step_id: str
    ) -> tuple[int, StoredHead, rules.Recorded | None] | None:
        number = self._numbers.get((tenant_id, run_id))
        if number is None:
            return None
        run = self._runs[number]
        step = run.by_id.get(step_id)
        if step is None:
            return number, run.head, None
        recorded = rules.Recorded(
            fingerprint=step.fingerprint, digest=step.digest, hash=step.hash, version=step.version
        )
        return number, run.head, recorded

    def find_whole(self, tenant_id: str, run_id: str) -> Located | None:
        number = self._numbers.get((tenant_id, run_id))
        return None if number is None else self._located(number)

    def listed(self, tenant_id: str, query: ListQuery) -> Iterator[Located]:
        matching = (
            (run.head.updated_ms, number)
            for number, run in self._runs.items()
            if run.head.tenant_id == tenant_id and _matches(run.head, query)
        )
        behind = None if query.after is None else (query.after.updated_ms, query.after.run_no)
        for place in sorted(matching, reverse=True):
            if behind is None or place < behind:
                yield self._located(place[1])

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
        def lies(head: StoredHead) -> bool:
            return (
                (head.tenant_id, head.status) == (tenant_id, RunStatus.RUNNING)
                and workflow in {None, head.workflow}
                and head.updated_ms <= before_ms
                and (
                    head.lease_expires_ms is None
                    or head.lease_expires_ms <= now_ms
                    or (head.lease_holder or "").startswith(f"{host}|")
                )
            )

        lying = ((run.head.updated_ms, number) for number, run in self._runs.items() if lies(run.head))
        behind = sorted(place for place in lying if place > (after.updated_ms, after.run_no))
        return [(number, self._runs[number].head) for _, number in behind[:limit]]

    def steps(self, run_no: int, *, first: int, limit: int | None = None, bodies: bool = True) -> list[StoredStep]:
        steps = self._runs[run_no].steps
        end = len(steps) if limit is None else first + limit
        return [step if bodies else step._replace(body=b"") for step in steps[first:end]]

    def digests(self, run_no: int) -> dict[str, bytes]:
        return {step.step_id: step.digest for step in self._runs[run_no].steps}

    def insert(self, head: StoredHead, inputs: bytes) -> int:
        self._last_number += 1
        self._numbers[head.tenant_id, head.run_id] = self._last_number
        self._runs[self._last_number] = _Run(head, inputs)
        return self._last_number

    def add_steps(self, run_no: int, steps: Iterable[StoredStep]) -> None:
        run = self._runs[run_no]
        for step in steps:
            run.steps.append(step)
            run.by_id[step.step_id] = step

    def copy_steps(self, run_no: int, new_run_no: int, count: int) -> None:
        self.add_steps(new_run_no, [step._replace(version=0) for step in self._runs[run_no].steps[:count]])

    def update(self, run_no: int, head: StoredHead) -> None:
        self._runs[run_no].head = head

    def move(self, run_no: int, head: StoredHead) -> None:
        self._runs[run_no].head = head

    def update_lease(self, run_no: int, head: StoredHead) -> None:
        self._runs[run_no].head = head

    def set_result(self, run_no: int, result: bytes | None) -> None:
        self._runs[run_no].result = result

    def next_token(self) -> int:
        self._last_token += 1
        return self._last_token

    def remove(self, run_no: int, *, now_ms: int) -> None:  # noqa: ARG002 - nothing is archived
        head = self._runs.pop(run_no).head
        del self._numbers[head.tenant_id, head.run_id]

    def archived_copy(self, run_no: int) -> ArchivedCopy | None:  # noqa: ARG002 - only databases have an archive
        return None

    def restore(self, run_no: int, steps: Sequence[StoredStep], *, now_ms: int) -> None:  # noqa: ARG002 - as above
        raise AssertionError("no run in memory is archived")

    def _located(self, number: int) -> Located:
        run = self._runs[number]
        return Located(run_no=number, run=StoredRun(head=run.head, inputs=run.inputs, result=run.result))


def _matches(head: StoredHead, query: ListQuery) -> bool:
    return (
        query.workflow in {None, head.workflow}
        and query.status in {None, head.status}
        and (query.from_ms is None or head.updated_ms >= query.from_ms)
        and (query.to_ms is None or head.updated_ms < query.to_ms)
    )
