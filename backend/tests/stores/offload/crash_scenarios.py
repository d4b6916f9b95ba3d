"""What a child process does while it is killed: the daily job, on a file and a directory."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.stores.archive.directory import DirectoryArchive
from app.stores.archive.sqlite_ledger import SqliteLedger
from app.stores.offload.daily import run_daily
from tests.support.crash import Child

DAY = timedelta(days=1)


class CountedArchive(DirectoryArchive):
    """A directory whose verbs are boundaries, and whose puts also have one in the middle of the file."""

    def __init__(self, root: os.PathLike[str], child: Child) -> None:
        super().__init__(root)  # type: ignore[arg-type]  # a path
        self._child = child

    async def put_new(self, key: str, data: bytes) -> None:
        """Count it; half a file is what a kill inside of a write leaves."""
        self._child.at("before put")
        path = self._root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_name(f".{path.name}.halfhalf.partial")
        half.write_bytes(data[: len(data) // 2])
        self._child.at("inside put")
        half.unlink()
        await super().put_new(key, data)
        self._child.at("after put")

    async def get(self, key: str) -> bytes:
        """Count it."""
        self._child.at("before get")
        return await super().get(key)

    async def delete(self, key: str) -> None:
        """Count it."""
        self._child.at("before delete")
        await super().delete(key)
        self._child.at("after delete")


async def daily_job(child: Child) -> None:
    """Copy and purge what is there, one segment for each run."""
    assert isinstance(child.database, Path), "a file"
    clock = int(child.database.with_suffix(".clock").read_text())
    ledger: Any = SqliteLedger(child.database, clock=lambda: clock)
    archive = CountedArchive(child.database.with_suffix(".archive"), child)
    await ledger.jobs(limit=1)
    child.arm()
    await run_daily(ledger, archive, idle=3 * DAY, retention=7 * DAY, target_bytes=1)
    child.disarm()
    await ledger.close()
