"""Checkpoints in a SQLite file: one transaction for each verb, whose cost does not grow with the run.

Reads and writes go through the file's threads (``stores/sqlite/database.py``): appends that wait share a commit.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from app.errors import CheckpointStoreUnavailableError
from app.stores.checkpoint.embedded import EmbeddedCheckpointStore
from app.stores.checkpoint.sqlite_rows import SqliteRows
from app.stores.checkpoint.tables import ArchivedSteps, RunRows
from app.stores.clock import Clock
from app.stores.holder import Holder
from app.stores.sqlite.database import SqliteDatabase

__all__ = ["SqliteCheckpointStore"]

T = TypeVar("T")


class SqliteCheckpointStore(EmbeddedCheckpointStore):
    """Runs in one file, shared by every process of the host that opens it; a step that was acknowledged is on the disk.

    Args:
        path: the file; it and its directory are created at the first use, and nothing is opened before.
        clock: the time, for tests.
        is_gone: whether a lease's holder certainly does not run any more, for tests.
        archive: what reads the runs whose steps lie in the archive; None where there is none.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        clock: Clock | None = None,
        is_gone: Callable[[Holder], bool] = Holder.is_gone,
        archive: ArchivedSteps | None = None,
    ) -> None:
        super().__init__(is_gone=is_gone, archive=archive)
        self._database = SqliteDatabase(Path(path), unavailable=CheckpointStoreUnavailableError, clock=clock)

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    async def close(self) -> None:
        """Let go of the file; a later verb opens it again."""
        await asyncio.to_thread(self._database.close)
        if self._archive is not None:
            await self._archive.close()

    async def _read(self, work: Callable[[RunRows], T]) -> T:
        def on_thread(connection: sqlite3.Connection, _now_ms: int) -> T:
            return work(SqliteRows(connection))

        return await self._database.read(on_thread)

    async def _write(self, work: Callable[[RunRows, int], T]) -> T:
        def on_thread(connection: sqlite3.Connection, now_ms: int) -> T:
            return work(SqliteRows(connection), now_ms)

        return await self._database.write(on_thread)
