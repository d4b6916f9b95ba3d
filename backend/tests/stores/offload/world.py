"""A database with runs, an archive, a clock, and jobs between them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.credentials import fixed
from app.stores.archive.contract import ObjectStore
from app.stores.archive.memory import MemoryArchive
from app.stores.archive.postgres_ledger import PostgresLedger
from app.stores.archive.reader import ArchiveReader
from app.stores.archive.sqlite_ledger import SqliteLedger
from app.stores.checkpoint.codec import JsonValue
from app.stores.checkpoint.contract import RunState, RunStatus
from app.stores.checkpoint.postgres import CheckpointStore
from app.stores.checkpoint.sqlite import SqliteCheckpointStore
from app.stores.holder import Holder
from app.stores.offload.daily import run_daily
from app.stores.offload.report import OffloadReport
from tests.stores.checkpoint.conftest import Database
from tests.support.clock import FakeClock

DAY = timedelta(days=1)
OLD = timedelta(days=8)


def holder(name: str) -> Holder:
    """Return a holder on a host that is not this one."""
    return Holder(host="elsewhere", boot_id="b", pid=7, started="1", instance=name)


_POSTGRES_WORDS = (
    ("checkpoint_", "nova_"),
    ("archive_", "nova_archive_"),
    ("?", "%s"),
    ("zeroblob(32)", "decode(repeat('00', 32), 'hex')"),
    (" x'", " '\\x"),
)
"""What differs between the databases in the statements of the tests' back door."""


@dataclass
class World:
    """What a test of the offload acts on; ``archive`` is what the job and the store's reader see.

    ``place`` is the file of SQLite, or a database of PostgreSQL.
    """

    place: Path | Database
    clock: FakeClock = field(default_factory=FakeClock)
    objects: Any = field(default_factory=MemoryArchive)
    archive: ObjectStore = field(init=False)

    def __post_init__(self) -> None:
        self.archive = self.objects
        self.store: Any = self.make_store()
        self.ledger: Any = self.make_ledger()

    @property
    def path(self) -> Path:
        """The file of SQLite."""
        assert isinstance(self.place, Path)
        return self.place

    def make_store(self, archive: ObjectStore | None = None) -> Any:
        """Return a store on the database, with a reader that keeps nothing."""
        reader = ArchiveReader(lambda: archive or self.archive, cache_bytes=0)
        return self.make_store_with(reader)

    def make_store_with(self, reader: ArchiveReader | None) -> Any:
        """Return a store on the database."""
        options: dict[str, Any] = {"clock": self.clock, "is_gone": lambda _: False, "archive": reader}
        if isinstance(self.place, Path):
            return SqliteCheckpointStore(self.place, **options)
        return CheckpointStore(fixed(self.place.dsn), **options)

    def make_ledger(self, is_gone: Callable[[Holder], bool] = lambda _: False) -> Any:
        """Return a ledger of the database."""
        if isinstance(self.place, Path):
            return SqliteLedger(self.place, clock=self.clock, is_gone=is_gone)
        return PostgresLedger(fixed(self.place.dsn), clock=self.clock, is_gone=is_gone)

    def rows(self, statement: str, *values: Any) -> list[Any]:
        """Read or change the database, not through the store."""
        if isinstance(self.place, Path):
            with closing(sqlite3.connect(self.place, isolation_level=None)) as connection:
                return connection.execute(statement, values).fetchall()
        for ours, theirs in _POSTGRES_WORDS:
            statement = statement.replace(ours, theirs)
        return self.place.rows(statement, *values)

    async def run(
        self,
        run_id: str,
        outputs: Sequence[JsonValue] = ("one", {"two": 2}, [3]),
        *,
        status: RunStatus = RunStatus.COMPLETED,
        tenant_id: str = "default",
    ) -> RunState:
        """Record a run of one step for each output, and end it."""
        await self.store.create(run_id, workflow="w", inputs={"of": run_id}, tenant_id=tenant_id)
        version = 0
        for number, output in enumerate(outputs):
            appended = await self.store.append(
                run_id,
                f"s/{number}",
                output,
                fingerprint=f"f{number}",
                meta={"n": number},
                expected_version=version,
                tenant_id=tenant_id,
            )
            version = appended.version
        if status is not RunStatus.RUNNING:
            await self.store.finish(
                run_id,
                status,
                result=["of", run_id] if status is RunStatus.COMPLETED else None,
                error="e" if status in {RunStatus.FAILED, RunStatus.ABORTED} else None,
                waiting_for="signal" if status is RunStatus.WAITING else None,
                expected_version=version,
                tenant_id=tenant_id,
            )
        return await self.state(run_id, tenant_id=tenant_id)

    async def state(self, run_id: str, *, tenant_id: str = "default") -> RunState:
        """Load a run that is there."""
        found: RunState | None = await self.store.load(run_id, tenant_id=tenant_id)
        assert found is not None
        return found

    async def offload(self, **options: Any) -> OffloadReport:
        """Run the daily job: copy after three days, purge after seven."""
        options = {"idle": 3 * DAY, "retention": 7 * DAY, "holder": holder("job"), **options}
        return await run_daily(self.ledger, self.archive, **options)

    async def archived(
        self, run_id: str, outputs: Sequence[JsonValue] = ("one", {"two": 2}, [3]), **options: Any
    ) -> RunState:
        """Record a run, let it grow old, and move it to the archive; return it as it was before."""
        before = await self.run(run_id, outputs, **options)
        self.clock.advance(OLD)
        await self.offload()
        return before

    async def steps_in_database(self) -> int:
        """Count the rows of steps, not through the store."""
        return int(self.rows("SELECT count(*) FROM checkpoint_steps")[0][0])

    async def close(self) -> None:
        """Let go of the database."""
        await self.store.close()
        await self.ledger.close()


def same(before: RunState, after: RunState) -> bool:
    """Whether two states are of the same run, wherever its steps lie."""
    return (
        before.steps == after.steps
        and before.head.head_hash == after.head.head_hash
        and before.head.version == after.head.version
        and before.head.inputs == after.head.inputs
        and before.head.result == after.head.result
        and before.head.status == after.head.status
    )
