"""The archive's rows in the PostgreSQL database of the checkpoints; every verb is one transaction.

A fenced verb begins with an update of the lease's row, so that fenced transactions come one after another, and one
whose lease was taken over meanwhile finds that out before it changes anything.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from app.errors import CheckpointStoreUnavailableError, OffloadBusyError
from app.stores.archive import postgres_statements as sql
from app.stores.archive.ledger import (
    ABANDONED_FOR,
    JOB_LEASE,
    Adopted,
    Erased,
    HotRun,
    JobLease,
    JobRow,
    Placed,
    Purged,
    SegmentRow,
    SegmentState,
    Tombstone,
    fenced_out,
)
from app.stores.archive.segment import SegmentEntry
from app.stores.checkpoint import postgres_rows as pg
from app.stores.checkpoint.rows import StoredRun, StoredStep
from app.stores.clock import Clock
from app.stores.holder import Holder
from app.stores.postgres.database import Execute, PostgresDatabase, Row

if TYPE_CHECKING:
    from app.credentials import CredentialSource

__all__ = ["TIMEOUT_S", "PostgresLedger"]

T = TypeVar("T")

_MS: Final = timedelta(milliseconds=1)
_POOL_SIZE: Final = 4

TIMEOUT_S: Final = 300.0
"""Of a transaction: erasing a tenant of millions of checkpoints is one. Well below the lease of a job."""


class PostgresLedger:
    """The ledger of one database.

    Args:
        source: gives the URL; it is asked at each new connection.
        auto_migrate: create and change the tables at the first use.
        timeout_s: of a transaction.
        clock: the time instead of the database's, for tests.
        is_gone: whether a lease's holder certainly does not run any more, for tests.
    """

    def __init__(
        self,
        source: CredentialSource,
        *,
        auto_migrate: bool = True,
        timeout_s: float = TIMEOUT_S,
        clock: Clock | None = None,
        is_gone: Callable[[Holder], bool] = Holder.is_gone,
    ) -> None:
        self._database = PostgresDatabase(
            source,
            statements=pg.STATEMENTS,
            unavailable=CheckpointStoreUnavailableError,
            pool_size=_POOL_SIZE,
            auto_migrate=auto_migrate,
            timeout_s=timeout_s,
        )
        self._clock = clock
        self._is_gone = is_gone

    @property
    def location(self) -> str:
        """The database, without its password."""
        return self._database.shown

    async def close(self) -> None:
        """Close the connections of the running loop."""
        await self._database.close()

    # --- whose turn it is ---------------------------------------------------------------------------------------------

    async def begin(self, verb: str, *, holder: Holder, lease: timedelta = JOB_LEASE) -> JobLease:
        """Take the lease; see :meth:`ArchiveLedger.begin`."""

        async def work(execute: Execute) -> JobLease:
            ((epoch, by, expires_ms, now_ms),) = await execute(sql.LEASE, self._timed())
            before = None if by is None else Holder.decode(by)
            if before is not None and now_ms < expires_ms and before != holder and not self._is_gone(before):
                raise OffloadBusyError(
                    f"another job works on the archive: {before}, for {(expires_ms - now_ms) / 1000:.0f} s or longer; "
                    "wait for it",
                    holder=str(before),
                    expires_in=timedelta(milliseconds=expires_ms - now_ms),
                )
            values = {"epoch": epoch + 1, "holder": holder.encode(), "verb": verb, "now_ms": now_ms}
            await execute(sql.TAKE_LEASE, values | {"expires_ms": now_ms + lease // _MS})
            await execute(sql.ADD_JOB, values)
            return JobLease(epoch=epoch + 1, now_ms=now_ms)

        return await self._database.transaction(work)

    async def renew(self, lease: JobLease) -> None:
        """Prolong the lease; see :meth:`ArchiveLedger.renew`."""

        async def nothing(_execute: Execute, _now_ms: int) -> None:
            return None

        await self._fenced(lease, nothing)

    async def end(self, lease: JobLease, *, outcome: str, report: Mapping[str, object]) -> None:
        """Complete the job's row; see :meth:`ArchiveLedger.end`."""

        async def work(execute: Execute) -> None:
            values = {"epoch": lease.epoch, "outcome": outcome, "report": json.dumps(report)}
            await execute(sql.END_JOB, values | self._timed())
            await execute(sql.GIVE_LEASE_UP, {"epoch": lease.epoch})

        await self._database.transaction(work)

    async def jobs(self, *, limit: int) -> Sequence[JobRow]:
        """Return the latest jobs; see :meth:`ArchiveLedger.jobs`."""
        return [
            JobRow(
                epoch=epoch,
                verb=verb,
                holder=by,
                started_ms=started_ms,
                ended_ms=ended_ms,
                outcome=outcome,
                report=None if report is None else json.loads(report),
            )
            for epoch, verb, by, started_ms, ended_ms, outcome, report in await self._read(sql.JOBS, {"limit": limit})
        ]

    # --- whose archive it is ------------------------------------------------------------------------------------------

    async def store_id(self) -> str | None:
        """Return the archive's id; see :meth:`ArchiveLedger.store_id`."""
        rows = await self._read(sql.STORE_ID)
        return str(rows[0][0]) if rows else None

    async def bind(self, lease: JobLease, store_id: str) -> str:
        """Bind the database to an archive; see :meth:`ArchiveLedger.bind`."""

        async def work(execute: Execute, _now_ms: int) -> str:
            await execute(sql.BIND, {"store_id": store_id})
            return str((await execute(sql.STORE_ID, {}))[0][0])

        return await self._fenced(lease, work)

    # --- copying ------------------------------------------------------------------------------------------------------

    async def tenants(self) -> Sequence[str]:
        """Return the tenants with runs here; see :meth:`ArchiveLedger.tenants`."""
        return [row[0] for row in await self._read(sql.TENANTS)]

    async def candidates(
        self, tenant_id: str, *, idle: timedelta, after_run_no: int, limit: int, limit_bytes: int
    ) -> Sequence[HotRun]:
        """Return runs to be copied; see :meth:`ArchiveLedger.candidates`."""
        values = {
            "tenant_id": tenant_id,
            "after": after_run_no,
            "idle_ms": idle // _MS,
            "limit": limit,
            "limit_bytes": limit_bytes,
        }

        async def work(execute: Execute) -> list[HotRun]:
            rows = await execute(sql.CANDIDATES, values | self._timed())
            found = [pg.located(row)[0] for row in rows]
            steps: dict[int, list[StoredStep]] = {each.run_no: [] for each in found}
            for row in await execute(sql.STEPS_OF, {"run_nos": list(steps)}):
                steps[row[0]].append(StoredStep._make(row[1:]))
            return [HotRun(run_no=each.run_no, run=each.run, steps=steps[each.run_no]) for each in found]

        # One snapshot: a run that is deleted between the two statements is not a run without steps.
        return await self._database.transaction(work, snapshot=True)

    async def candidate_count(self, *, idle: timedelta, retention: timedelta) -> tuple[int, int]:
        """Count what a job would do; see :meth:`ArchiveLedger.candidate_count`."""
        values = {"idle_ms": idle // _MS, "retention_ms": retention // _MS} | self._timed()
        ((copied, purged),) = await self._read(sql.COUNT_CANDIDATES, values)
        return copied, purged

    async def begin_segment(self, lease: JobLease, *, tenant_id: str, object_key: str) -> int:
        """Record an intent; see :meth:`ArchiveLedger.begin_segment`."""

        async def work(execute: Execute, now_ms: int) -> int:
            values = {"tenant_id": tenant_id, "object_key": object_key, "epoch": lease.epoch, "now_ms": now_ms}
            return int((await execute(sql.ADD_SEGMENT, values))[0][0])

        return await self._fenced(lease, work)

    async def commit_segment(
        self,
        lease: JobLease,
        segment_no: int,
        *,
        size_bytes: int,
        sha256: bytes,
        placed: Sequence[Placed],
        replaces: int | None = None,
    ) -> int:
        """Let a segment count; see :meth:`ArchiveLedger.commit_segment`."""

        async def work(execute: Execute, now_ms: int) -> int:
            values = {
                "segment_no": segment_no,
                "runs": len(placed),
                "steps": sum(each.entry.steps for each in placed),
                "size_bytes": size_bytes,
                "sha256": sha256,
                "now_ms": now_ms,
            }
            if not await execute(sql.COMMIT_SEGMENT, values):
                raise fenced_out(lease)
            frames = {"segment_no": segment_no, "replaces": replaces, "now_ms": now_ms} | _frame_arrays(placed)
            if replaces is None:
                return len(await execute(sql.PLACE, frames))
            moved = await execute(sql.MOVE, frames)
            await execute(sql.DROP_UNUSED, {"segment_no": replaces, "now_ms": now_ms})
            return len(moved)

        return await self._fenced(lease, work)

    async def abandon_segment(self, lease: JobLease, segment_no: int) -> None:
        """Give a segment up; see :meth:`ArchiveLedger.abandon_segment`."""
        await self._change(lease, sql.ABANDON, {"segment_no": segment_no})

    # --- purging ------------------------------------------------------------------------------------------------------

    async def purgeable(
        self, tenant_id: str, *, idle: timedelta, after_run_no: int, limit: int
    ) -> Sequence[tuple[int, int]]:
        """Return what may be purged; see :meth:`ArchiveLedger.purgeable`."""
        values = {"tenant_id": tenant_id, "after": after_run_no, "retention_ms": idle // _MS, "limit": limit}
        return [(row[0], row[1]) for row in await self._read(sql.PURGEABLE, values | self._timed())]

    async def purge(self, lease: JobLease, run_nos: Sequence[int], *, idle: timedelta) -> Purged:
        """Remove steps that the archive has; see :meth:`ArchiveLedger.purge`."""

        async def work(execute: Execute, now_ms: int) -> Purged:
            values = {"run_nos": list(run_nos), "retention_ms": idle // _MS, "now_ms": now_ms}
            rows = await execute(sql.PURGE, values)
            return Purged(
                runs=sum(same for *_, same in rows),
                steps=sum(steps for _, _, steps, same in rows if same),
                differing=tuple((tenant_id, run_id) for tenant_id, run_id, _, same in rows if not same),
            )

        return await self._fenced(lease, work)

    # --- looking after the segments -----------------------------------------------------------------------------------

    async def segments(
        self, *, states: Sequence[SegmentState], tenant_id: str | None = None, after: int = 0, limit: int = 1000
    ) -> Sequence[SegmentRow]:
        """Return segments; see :meth:`ArchiveLedger.segments`."""
        values = {"states": list(states), "tenant_id": tenant_id, "after": after, "limit": limit}
        return _segments(await self._read(sql.SEGMENTS, values))

    async def placed(self, segment_no: int) -> Sequence[Placed]:
        """Return the runs of a segment; see :meth:`ArchiveLedger.placed`."""
        return [
            Placed(
                run_no=run_no,
                entry=SegmentEntry(
                    run_id=run_id,
                    created_ms=created_ms,
                    version=version,
                    steps=steps,
                    offset=offset,
                    length=length,
                    sha256=sha256.hex(),
                    rows_sha256=rows_sha256.hex(),
                ),
            )
            for run_no, run_id, created_ms, version, steps, offset, length, sha256, rows_sha256 in await self._read(
                sql.PLACED, {"segment_no": segment_no}
            )
        ]

    async def leftovers(self, lease: JobLease) -> Sequence[SegmentRow]:
        """Return what is to be deleted; see :meth:`ArchiveLedger.leftovers`."""

        async def work(execute: Execute, now_ms: int) -> Sequence[SegmentRow]:
            await execute(sql.ABANDON_EARLIER, {"epoch": lease.epoch, "now_ms": now_ms})
            await execute(sql.DROP_ALL_UNUSED, {"now_ms": now_ms})
            return _segments(await execute(sql.LEFTOVERS, {}))

        return await self._fenced(lease, work)

    async def swept(self, lease: JobLease, segment_nos: Sequence[int]) -> None:
        """Record deletions; see :meth:`ArchiveLedger.swept`."""
        values = {"segment_nos": list(segment_nos), "abandoned_ms": ABANDONED_FOR // _MS}
        await self._change(lease, sql.SWEPT, values)

    async def checked(self, lease: JobLease, segment_no: int) -> None:
        """Record that a segment is right; see :meth:`ArchiveLedger.checked`."""
        await self._change(lease, sql.CHECKED, {"segment_no": segment_no})

    async def suspect(self, lease: JobLease, segment_no: int) -> tuple[int, tuple[tuple[str, str], ...]]:
        """Record that a segment is not right; see :meth:`ArchiveLedger.suspect`."""

        async def work(execute: Execute, now_ms: int) -> tuple[int, tuple[tuple[str, str], ...]]:
            values = {"segment_no": segment_no, "now_ms": now_ms}
            lost = tuple((row[0], row[1]) for row in await execute(sql.ARCHIVED_ONLY_IN, values))
            await execute(sql.SUSPECT, values)
            return len(await execute(sql.DROP_HOT_COPIES, values)), lost

        return await self._fenced(lease, work)

    # --- deletions ----------------------------------------------------------------------------------------------------

    async def erase(self, lease: JobLease, tenant_id: str) -> Erased:
        """Remove a tenant; see :meth:`ArchiveLedger.erase`."""

        async def work(execute: Execute, now_ms: int) -> Erased:
            values = {"tenant_id": tenant_id, "now_ms": now_ms}
            await execute(sql.BURY_TENANT, values)
            ((runs, steps),) = await execute(sql.ERASE, values)
            await execute(sql.DROP_TENANT_SEGMENTS, values)
            return Erased(runs=runs, steps=steps, segments=_segments(await execute(sql.TENANT_LEFTOVERS, values)))

        return await self._fenced(lease, work)

    async def unwritten_tombstones(self, *, limit: int) -> Sequence[Tombstone]:
        """Return tombstones that no object says; see :meth:`ArchiveLedger.unwritten_tombstones`."""
        return [
            Tombstone(tenant_id=tenant_id, run_id=run_id, created_ms=created_ms, deleted_ms=deleted_ms)
            for tenant_id, run_id, created_ms, deleted_ms in await self._read(
                sql.UNWRITTEN_TOMBSTONES, {"limit": limit}
            )
        ]

    async def tombstones_written(self, lease: JobLease, tombstones: Sequence[Tombstone], object_key: str) -> None:
        """Record the object of tombstones; see :meth:`ArchiveLedger.tombstones_written`."""
        await self._change(lease, sql.TOMBSTONES_WRITTEN, _tombstone_arrays(tombstones) | {"object_key": object_key})

    async def bury(self, lease: JobLease, tombstones: Sequence[Tombstone], object_key: str) -> None:
        """Take tombstones over; see :meth:`ArchiveLedger.bury`."""
        await self._change(lease, sql.BURY, _tombstone_arrays(tombstones) | {"object_key": object_key})

    # --- rebuilding ---------------------------------------------------------------------------------------------------

    async def known_keys(self, keys: Sequence[str]) -> Mapping[str, SegmentState]:
        """Return the states of keys; see :meth:`ArchiveLedger.known_keys`."""
        return {row[0]: row[1] for row in await self._read(sql.KNOWN_KEYS, {"keys": list(keys)})}

    async def adopt(
        self,
        lease: JobLease,
        *,
        tenant_id: str,
        object_key: str,
        epoch: int,
        size_bytes: int,
        sha256: bytes,
        runs: Sequence[tuple[StoredRun, SegmentEntry]],
    ) -> Adopted:
        """Take an unknown segment in; see :meth:`ArchiveLedger.adopt`."""

        async def work(execute: Execute, now_ms: int) -> Adopted:
            values = {
                "tenant_id": tenant_id,
                "object_key": object_key,
                "epoch": epoch,
                "runs": len(runs),
                "steps": sum(entry.steps for _, entry in runs),
                "size_bytes": size_bytes,
                "sha256": sha256,
                "now_ms": now_ms,
            }
            ((segment_no,),) = await execute(sql.ADOPT_SEGMENT, values)
            taken = [await _adopted(execute, run, entry, segment_no=segment_no, now_ms=now_ms) for run, entry in runs]
            return Adopted(
                new=taken.count("new"),
                indexed=taken.count("indexed"),
                newer=tuple(
                    (run.head.tenant_id, run.head.run_id)
                    for (run, _), what in zip(runs, taken, strict=True)
                    if what == "newer"
                ),
                buried=taken.count("buried"),
            )

        return await self._fenced(lease, work)

    # --- transactions -------------------------------------------------------------------------------------------------

    def _timed(self) -> dict[str, object]:
        """The time to be taken instead of the database's, None for that."""
        return {"now_ms": None if self._clock is None else self._clock()}

    async def _fenced(self, lease: JobLease, work: Callable[[Execute, int], Awaitable[T]]) -> T:
        async def fenced(execute: Execute) -> T:
            values = {"epoch": lease.epoch, "lease_ms": JOB_LEASE // _MS} | self._timed()
            held = await execute(sql.FENCE, values)
            if not held:
                raise fenced_out(lease)
            return await work(execute, held[0][0])

        return await self._database.transaction(fenced)

    async def _change(self, lease: JobLease, statement: str, values: Mapping[str, object]) -> None:
        async def work(execute: Execute, now_ms: int) -> None:
            await execute(statement, {**values, "now_ms": now_ms})

        await self._fenced(lease, work)

    async def _read(self, statement: str, values: Mapping[str, object] | None = None) -> Sequence[Row]:
        return await self._database.transaction(lambda execute: execute(statement, values or {}), snapshot=True)


async def _adopted(execute: Execute, run: StoredRun, entry: SegmentEntry, *, segment_no: int, now_ms: int) -> str:
    """Take one run of an unknown segment in, or leave it out; return which."""
    head = run.head
    values: dict[str, object] = {**pg.head_values(head), "inputs": run.inputs, "result": run.result, "now_ms": now_ms}
    if await execute(sql.IS_BURIED, values):
        return "buried"
    frames = {"segment_no": segment_no, "now_ms": now_ms}
    found = await execute(sql.KNOWN_RUN, values)
    if not found:
        ((run_no,),) = await execute(sql.ADD_ARCHIVED, values)
        await execute(sql.PLACE, frames | _frame_arrays([Placed(run_no=run_no, entry=entry)]))
        return "new"
    ((run_no, created_ms, version, tier, has_copy),) = found
    place = frames | _frame_arrays([Placed(run_no=run_no, entry=entry)])
    same_run = created_ms == head.created_ms
    if same_run and version == head.version:
        if has_copy:
            return "known"
        await execute(sql.PLACE, place)
        return "indexed"
    if same_run and version < head.version and tier == "archived":
        await execute(sql.BRING_FORWARD, values | {"run_no": run_no})
        await execute(sql.PLACE, place)
        return "indexed"
    return "newer" if not same_run or version < head.version else "known"


def _frame_arrays(placed: Sequence[Placed]) -> dict[str, Any]:
    entries = [each.entry for each in placed]
    return {
        "run_nos": [each.run_no for each in placed],
        "versions": [entry.version for entry in entries],
        "offsets": [entry.offset for entry in entries],
        "lengths": [entry.length for entry in entries],
        "step_counts": [entry.steps for entry in entries],
        "hashes": [bytes.fromhex(entry.sha256) for entry in entries],
        "rows_hashes": [bytes.fromhex(entry.rows_sha256) for entry in entries],
    }


def _tombstone_arrays(tombstones: Sequence[Tombstone]) -> dict[str, Any]:
    return {
        "tenant_ids": [each.tenant_id for each in tombstones],
        "run_ids": [each.run_id for each in tombstones],
        "created": [each.created_ms for each in tombstones],
        "deleted": [each.deleted_ms for each in tombstones],
    }


def _segments(rows: Sequence[Row]) -> tuple[SegmentRow, ...]:
    names = tuple(SegmentRow.__dataclass_fields__)
    return tuple(SegmentRow(**dict(zip(names, row, strict=True))) for row in rows)
