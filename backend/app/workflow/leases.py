"""Keeping leases: one task of a runner prolongs those of all its runs, in one statement for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from app.errors import CheckpointStoreUnavailableError
from app.metrics import track_checkpoint
from app.stores.checkpoint.contract import CheckpointStorage

if TYPE_CHECKING:
    from app.workflow.writer import RunWriter

__all__ = ["LeaseKeeper"]

_BEATS: Final = 3
"""Of a lease: two may fail before somebody else may take the run over."""


class LeaseKeeper:
    """Prolongs the leases of the runs that it is given, every third of a lease, until each is dropped.

    A store that does not answer is asked again at the next turn: the end of a lease permits a takeover, and only a
    takeover (which the next write notices) ends a writer.
    """

    def __init__(self, checkpoints: CheckpointStorage, *, tenant_id: str, lease: timedelta) -> None:
        self._checkpoints = checkpoints
        self._tenant_id = tenant_id
        self._lease = lease
        self._writers: set[RunWriter] = set()
        self._task: asyncio.Task[None] | None = None

    def keep(self, writer: RunWriter) -> None:
        """Begin to prolong the lease of a run."""
        self._writers.add(writer)
        # A loop that ended without dropping its runs took its task with it.
        if self._task is None or self._task.done() or self._task.get_loop() is not asyncio.get_running_loop():
            self._task = asyncio.create_task(self._beat())

    async def drop(self, writer: RunWriter) -> None:
        """Prolong the lease of a run no more; when it returns, no heartbeat of it is under way."""
        self._writers.discard(writer)
        task = self._task
        if task is not None and not self._writers:
            self._task = None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._lease.total_seconds() / _BEATS)
            for batch in _batches(self._writers):
                await self._prolong(batch)

    async def _prolong(self, writers: dict[str, RunWriter]) -> None:
        tokens = {run_id: writer.token for run_id, writer in writers.items()}
        try:
            async with track_checkpoint("heartbeat"):
                refused = await self._checkpoints.heartbeat_all(tokens, lease=self._lease, tenant_id=self._tenant_id)
        except CheckpointStoreUnavailableError:
            return
        for run_id in refused:
            if writers[run_id] in self._writers:  # it may have ended while its heartbeat was under way
                await writers[run_id].look_for_lease(lease=self._lease)


def _batches(writers: Iterable[RunWriter]) -> list[dict[str, RunWriter]]:
    """Return the writers by run; two of one run, of which one was superseded, are in two batches."""
    batches: list[dict[str, RunWriter]] = []
    for writer in writers:
        for batch in batches:
            if writer.run_id not in batch:
                batch[writer.run_id] = writer
                break
        else:
            batches.append({writer.run_id: writer})
    return batches
