"""The contract on the memory backend."""

from __future__ import annotations

from typing import Any

import pytest

from app.stores.checkpoint.memory import InMemoryCheckpointStore, _Run
from app.stores.holder import Holder

from .contract import BackDoor, CheckpointContract, FakeClock


class MemoryBackDoor(BackDoor):
    """Changes the rows in place."""

    def __init__(self, store: InMemoryCheckpointStore) -> None:
        self._rows = store._rows

    def step_ids(self, run_id: str) -> list[str]:
        """Read them."""
        return [step.step_id for step in self._run(run_id).steps]

    def set_output(self, run_id: str, step_id: str, body: bytes) -> None:
        """Change the body alone."""
        self._replace(run_id, step_id, body=body)

    def set_fingerprint(self, run_id: str, step_id: str, fingerprint: str) -> None:
        """Change it alone."""
        self._replace(run_id, step_id, fingerprint=fingerprint)

    def swap(self, run_id: str, first: int, second: int) -> None:
        """Exchange their numbers."""
        steps = self._run(run_id).steps
        a, b = steps[first], steps[second]
        steps[first], steps[second] = b._replace(number=first), a._replace(number=second)

    def drop_last(self, run_id: str, *, lower_count: bool) -> None:
        """Delete it."""
        run = self._run(run_id)
        run.steps.pop()
        if lower_count:
            run.head = run.head._replace(next_step_index=len(run.steps))

    def set_inputs(self, run_id: str, body: bytes) -> None:
        """Change the body alone."""
        self._run(run_id).inputs = body

    def rows(self) -> int:
        """Count them."""
        return sum(1 + len(run.steps) for run in self._rows._runs.values())

    def _run(self, run_id: str) -> _Run:
        return self._rows._runs[self._rows._numbers["default", run_id]]

    def _replace(self, run_id: str, step_id: str, **changes: Any) -> None:
        steps = self._run(run_id).steps
        index = next(index for index, step in enumerate(steps) if step.step_id == step_id)
        steps[index] = steps[index]._replace(**changes)


class TestInMemoryCheckpointStore(CheckpointContract):
    """The memory backend."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        """Return the store's time."""
        return FakeClock()

    @pytest.fixture
    def gone(self) -> set[Holder]:
        """Return the holders that count as gone."""
        return set()

    @pytest.fixture
    def store(self, clock: FakeClock, gone: set[Holder]) -> InMemoryCheckpointStore:
        """Return an empty store."""
        return InMemoryCheckpointStore(clock=clock, is_gone=gone.__contains__)

    @pytest.fixture
    def back_door(self, store: InMemoryCheckpointStore) -> MemoryBackDoor:
        """Return the way around it."""
        return MemoryBackDoor(store)
