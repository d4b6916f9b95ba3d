"""What a child process does while it is killed: the daily job, on PostgreSQL and an S3 bucket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.credentials import fixed
from app.stores.archive.contract import ObjectInfo
from app.stores.archive.postgres_ledger import PostgresLedger
from app.stores.archive.r2 import R2Archive
from app.stores.offload.daily import run_daily
from tests.stores.archive.below import Below
from tests.support.crash import Child
from tests.support.servers.s3 import S3Server

DAY = timedelta(days=1)


class _Counted:
    """Something whose verbs lie between two boundaries."""

    def __init__(self, inner: Any, child: Child) -> None:
        self._inner = inner
        self._child = child

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._inner, name)
        if name in {"location", "close"}:
            return verb
        if name == "list":
            return self._list

        async def between(*args: Any, **kwargs: Any) -> Any:
            self._child.at(f"before {name}")
            result = await verb(*args, **kwargs)
            self._child.at(f"after {name}")
            return result

        return between

    async def _list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        self._child.at("before list")
        async for info in self._inner.list(prefix):
            yield info


async def daily_job(child: Child) -> None:
    """Copy and purge what is there, one segment for each run; the file says where database and bucket are."""
    where = json.loads(Path(child.database).read_text())
    archive = Below(
        R2Archive(
            where["bucket"],
            endpoint=where["endpoint"],
            access_key_id=fixed(S3Server.access_key_id),
            secret_access_key=fixed(S3Server.secret_access_key),
        ),
        prefix=where["prefix"],
    )
    ledger = PostgresLedger(fixed(where["dsn"]), clock=lambda: int(where["now_ms"]))
    child.arm()
    await run_daily(
        _Counted(ledger, child),
        _Counted(archive, child),
        idle=3 * DAY,
        retention=7 * DAY,
        target_bytes=1,
    )
    child.disarm()
    await ledger.close()
