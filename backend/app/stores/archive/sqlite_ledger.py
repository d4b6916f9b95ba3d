"""The archive's rows in the SQLite file of the checkpoints; every verb is one transaction of the file's threads."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

from app.errors import CheckpointStoreUnavailableError, OffloadBusyError
from app.stores.archive import sqlite_statements as sql
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
from app.stores.checkpoint.rows import StoredRun, rows_digest
from app.stores.checkpoint.sqlite_rows import SqliteRows
from app.stores.clock import Clock
from app.stores.holder import Holder
from app.stores.sqlite.database import SqliteDatabase

__all__ = ["SqliteLedger"]

T = TypeVar("T")

_MS: Final = timedelta(milliseconds=1)


class SqliteLedger:
    """The ledger of one file.

    Args:
        path: the file of the checkpoints.
        clock: the time, for tests.
        is_gone: whether a lease's holder certainly does not run any more, for tests.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        clock: Clock | None = None,
        is_gone: Callable[[Holder], bool] = Holder.is_gone,
    ) -> None:
        self._database = SqliteDatabase(Path(path), unavailable=CheckpointStoreUnavailableError, clock=clock)
        self._is_gone = is_gone

    @property
    def location(self) -> str:
        """The file."""
        return str(self._database.path)

    async def close(self) -> None:
        """Let go of the file."""
        await asyncio.to_thread(self._database.close)

    # --- whose turn it is ---------------------------------------------------------------------------------------------

    async def begin(self, verb: str, *, holder: Holder, lease: timedelta = JOB_LEASE) -> JobLease:
        """Take the lease; see :meth:`ArchiveLedger.begin`."""

        def work(connection: sqlite3.Connection, now_ms: int) -> JobLease:
            epoch, by, expires_ms = connection.execute(sql.LEASE).fetchone()
            before = None if by is None else Holder.decode(by)
            if before is not None and now_ms < expires_ms and before != holder and not self._is_gone(before):
                raise OffloadBusyError(
                    f"another job works on the archive: {before}, for {(expires_ms - now_ms) / 1000:.0f} s or longer; "
                    "wait for it",
                    holder=str(before),
                    expires_in=timedelta(milliseconds=expires_ms - now_ms),
                )
            connection.execute(sql.TAKE_LEASE, (epoch + 1, holder.encode(), now_ms + lease // _MS))
            connection.execute(sql.ADD_JOB, (epoch + 1, verb, holder.encode(), now_ms))
            return JobLease(epoch=epoch + 1, now_ms=now_ms)

        return await self._database.write(work)

    async def renew(self, lease: JobLease) -> None:
        """Prolong the lease; see :meth:`ArchiveLedger.renew`."""
        await self._fenced(lease, lambda _connection, _now_ms: None)

    async def end(self, lease: JobLease, *, outcome: str, report: Mapping[str, object]) -> None:
        """Complete the job's row; see :meth:`ArchiveLedger.end`."""

        def work(connection: sqlite3.Connection, now_ms: int) -> None:
            connection.execute(sql.END_JOB, (now_ms, outcome, json.dumps(report), lease.epoch))
            connection.execute(sql.GIVE_LEASE_UP, (lease.epoch,))

        await self._database.write(work)

    async def jobs(self, *, limit: int) -> Sequence[JobRow]:
        """Return the latest jobs; see :meth:`ArchiveLedger.jobs`."""
        rows = await self._all(sql.JOBS, (limit,))
        return [
            JobRow(**{**row, "report": None if row["report"] is None else json.loads(row["report"])}) for row in rows
        ]

    # --- whose archive it is ------------------------------------------------------------------------------------------

    async def store_id(self) -> str | None:
        """Return the archive's id; see :meth:`ArchiveLedger.store_id`."""
        rows = await self._all(sql.STORE_ID)
        return str(rows[0]["store_id"]) if rows else None

    async def bind(self, lease: JobLease, store_id: str) -> str:
        """Bind the database to an archive; see :meth:`ArchiveLedger.bind`."""

        def work(connection: sqlite3.Connection, _now_ms: int) -> str:
            connection.execute(sql.BIND, (store_id,))
            return str(connection.execute(sql.STORE_ID).fetchone()[0])

        return await self._fenced(lease, work)

    # --- copying ------------------------------------------------------------------------------------------------------

    async def tenants(self) -> Sequence[str]:
        """Return the tenants with runs here; see :meth:`ArchiveLedger.tenants`."""
        return [row["tenant_id"] for row in await self._all(sql.TENANTS)]

    async def candidates(
        self, tenant_id: str, *, idle: timedelta, after_run_no: int, limit: int, limit_bytes: int
    ) -> Sequence[HotRun]:
        """Return runs to be copied; see :meth:`ArchiveLedger.candidates`."""

        def work(connection: sqlite3.Connection, now_ms: int) -> list[HotRun]:
            rows = SqliteRows(connection)
            found: list[HotRun] = []
            size = 0
            until_ms = now_ms - idle // _MS
            for (run_no,) in connection.execute(
                sql.CANDIDATES,
                {"tenant": tenant_id, "after": after_run_no, "until": until_ms, "now": now_ms, "limit": limit},
            ):
                run = rows.whole(run_no)
                steps = rows.steps(run_no, first=0)
                found.append(HotRun(run_no=run_no, run=run, steps=steps))
                size += run.size_bytes + sum(len(step.body) + len(step.meta) for step in steps)
                if size >= limit_bytes:
                    break
            return found

        return await self._database.read(work)

    async def candidate_count(self, *, idle: timedelta, retention: timedelta) -> tuple[int, int]:
        """Count what a job would do; see :meth:`ArchiveLedger.candidate_count`."""

        def work(connection: sqlite3.Connection, now_ms: int) -> tuple[int, int]:
            values = {"until": now_ms - idle // _MS, "retained": now_ms - retention // _MS, "now": now_ms}
            copied, purged = connection.execute(sql.COUNT_CANDIDATES, values).fetchone()
            return int(copied), int(purged)

        return await self._database.read(work)

    async def begin_segment(self, lease: JobLease, *, tenant_id: str, object_key: str) -> int:
        """Record an intent; see :meth:`ArchiveLedger.begin_segment`."""

        def work(connection: sqlite3.Connection, now_ms: int) -> int:
            cursor = connection.execute(sql.ADD_SEGMENT, (tenant_id, object_key, lease.epoch, now_ms))
            assert cursor.lastrowid is not None
            return cursor.lastrowid

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

        def work(connection: sqlite3.Connection, now_ms: int) -> int:
            steps = sum(each.entry.steps for each in placed)
            values = (len(placed), steps, size_bytes, sha256, now_ms, now_ms, segment_no)
            if connection.execute(sql.COMMIT_SEGMENT, values).rowcount != 1:
                raise fenced_out(lease)
            taken = 0
            for each in placed:
                entry = _frame_values(each, segment_no)
                if replaces is None:
                    taken += connection.execute(sql.PLACE, entry).rowcount
                else:
                    taken += connection.execute(sql.MOVE, {**entry, "replaces": replaces}).rowcount
            if replaces is not None:
                connection.execute(sql.DROP_UNUSED, (now_ms, replaces))
            return taken

        return await self._fenced(lease, work)

    async def abandon_segment(self, lease: JobLease, segment_no: int) -> None:
        """Give a segment up; see :meth:`ArchiveLedger.abandon_segment`."""
        await self._fenced(
            lease, lambda connection, now_ms: connection.execute(sql.ABANDON, (now_ms, segment_no)) and None
        )

    # --- purging ------------------------------------------------------------------------------------------------------

    async def purgeable(
        self, tenant_id: str, *, idle: timedelta, after_run_no: int, limit: int
    ) -> Sequence[tuple[int, int]]:
        """Return what may be purged; see :meth:`ArchiveLedger.purgeable`."""

        def work(connection: sqlite3.Connection, now_ms: int) -> list[tuple[int, int]]:
            values = {
                "tenant": tenant_id,
                "after": after_run_no,
                "until": now_ms - idle // _MS,
                "now": now_ms,
                "limit": limit,
            }
            return [(row[0], row[1]) for row in connection.execute(sql.PURGEABLE, values)]

        return await self._database.read(work)

    async def purge(self, lease: JobLease, run_nos: Sequence[int], *, idle: timedelta) -> Purged:
        """Remove steps that the archive has; see :meth:`ArchiveLedger.purge`."""

        def work(connection: sqlite3.Connection, now_ms: int) -> Purged:
            rows = SqliteRows(connection)
            runs = steps = 0
            differing: list[tuple[str, str]] = []
            for run_no in run_nos:
                values = {"run_no": run_no, "until": now_ms - idle // _MS, "now": now_ms}
                found = connection.execute(sql.MAY_PURGE, values).fetchone()
                if found is None:
                    continue
                tenant_id, run_id, count, copied = found
                stored = rows.steps(run_no, first=0)
                if len(stored) != count or rows_digest(stored) != copied:
                    differing.append((tenant_id, run_id))
                    continue
                connection.execute(sql.PURGE_STEPS, (run_no,))
                connection.execute(sql.SET_TIER, ("archived", run_no))
                runs += 1
                steps += count
            return Purged(runs=runs, steps=steps, differing=tuple(differing))

        return await self._fenced(lease, work)

    # --- looking after the segments -----------------------------------------------------------------------------------

    async def segments(
        self, *, states: Sequence[SegmentState], tenant_id: str | None = None, after: int = 0, limit: int = 1000
    ) -> Sequence[SegmentRow]:
        """Return segments; see :meth:`ArchiveLedger.segments`."""
        values = {"states": json.dumps(list(states)), "tenant": tenant_id, "after": after, "limit": limit}
        return [_segment(row) for row in await self._all(sql.SEGMENTS, values)]

    async def placed(self, segment_no: int) -> Sequence[Placed]:
        """Return the runs of a segment; see :meth:`ArchiveLedger.placed`."""
        return [
            Placed(
                run_no=row.pop("run_no"),
                entry=SegmentEntry(
                    **{**row, "sha256": row["sha256"].hex(), "rows_sha256": row["rows_sha256"].hex()},
                ),
            )
            for row in await self._all(sql.PLACED, (segment_no,))
        ]

    async def leftovers(self, lease: JobLease) -> Sequence[SegmentRow]:
        """Return what is to be deleted; see :meth:`ArchiveLedger.leftovers`."""

        def work(connection: sqlite3.Connection, now_ms: int) -> list[SegmentRow]:
            connection.execute(sql.ABANDON_EARLIER, (now_ms, lease.epoch))
            connection.execute(sql.DROP_ALL_UNUSED, (now_ms,))
            return [_segment(row) for row in _dicts(connection.execute(sql.LEFTOVERS))]

        return await self._fenced(lease, work)

    async def swept(self, lease: JobLease, segment_nos: Sequence[int]) -> None:
        """Record deletions; see :meth:`ArchiveLedger.swept`."""

        def work(connection: sqlite3.Connection, now_ms: int) -> None:
            for segment_no in segment_nos:
                connection.execute(
                    sql.SWEPT, {"segment_no": segment_no, "now": now_ms, "until": now_ms - ABANDONED_FOR // _MS}
                )

        await self._fenced(lease, work)

    async def checked(self, lease: JobLease, segment_no: int) -> None:
        """Record that a segment is right; see :meth:`ArchiveLedger.checked`."""
        await self._fenced(
            lease, lambda connection, now_ms: connection.execute(sql.CHECKED, (now_ms, segment_no)) and None
        )

    async def suspect(self, lease: JobLease, segment_no: int) -> tuple[int, tuple[tuple[str, str], ...]]:
        """Record that a segment is not right; see :meth:`ArchiveLedger.suspect`."""

        def work(connection: sqlite3.Connection, now_ms: int) -> tuple[int, tuple[tuple[str, str], ...]]:
            lost = tuple(connection.execute(sql.ARCHIVED_ONLY_IN, (segment_no,)).fetchall())
            connection.execute(sql.SUSPECT, (now_ms, segment_no))
            return connection.execute(sql.DROP_HOT_COPIES, (segment_no,)).rowcount, lost

        return await self._fenced(lease, work)

    # --- deletions ----------------------------------------------------------------------------------------------------

    async def erase(self, lease: JobLease, tenant_id: str) -> Erased:
        """Remove a tenant; see :meth:`ArchiveLedger.erase`."""

        def work(connection: sqlite3.Connection, now_ms: int) -> Erased:
            counts = {"runs": 0, "steps": 0}
            connection.execute(sql.ADD_TOMBSTONE, (tenant_id, "", now_ms, now_ms, None))
            for name, statement in sql.ERASE:
                removed = connection.execute(statement, (tenant_id,)).rowcount
                if name in counts:
                    counts[name] = removed
            connection.execute(sql.DROP_TENANT_SEGMENTS, (now_ms, tenant_id))
            segments = tuple(_segment(row) for row in _dicts(connection.execute(sql.TENANT_LEFTOVERS, (tenant_id,))))
            return Erased(runs=counts["runs"], steps=counts["steps"], segments=segments)

        return await self._fenced(lease, work)

    async def unwritten_tombstones(self, *, limit: int) -> Sequence[Tombstone]:
        """Return tombstones that no object says; see :meth:`ArchiveLedger.unwritten_tombstones`."""
        return [Tombstone(**row) for row in await self._all(sql.UNWRITTEN_TOMBSTONES, (limit,))]

    async def tombstones_written(self, lease: JobLease, tombstones: Sequence[Tombstone], object_key: str) -> None:
        """Record the object of tombstones; see :meth:`ArchiveLedger.tombstones_written`."""

        def work(connection: sqlite3.Connection, _now_ms: int) -> None:
            for each in tombstones:
                connection.execute(sql.TOMBSTONE_WRITTEN, (object_key, each.tenant_id, each.run_id, each.created_ms))

        await self._fenced(lease, work)

    async def bury(self, lease: JobLease, tombstones: Sequence[Tombstone], object_key: str) -> None:
        """Take tombstones over; see :meth:`ArchiveLedger.bury`."""

        def work(connection: sqlite3.Connection, _now_ms: int) -> None:
            for each in tombstones:
                connection.execute(
                    sql.ADD_TOMBSTONE, (each.tenant_id, each.run_id, each.created_ms, each.deleted_ms, object_key)
                )

        await self._fenced(lease, work)

    # --- rebuilding ---------------------------------------------------------------------------------------------------

    async def known_keys(self, keys: Sequence[str]) -> Mapping[str, SegmentState]:
        """Return the states of keys; see :meth:`ArchiveLedger.known_keys`."""
        rows = await self._all(sql.KNOWN_KEYS, (json.dumps(list(keys)),))
        return {row["object_key"]: row["state"] for row in rows}

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

        def work(connection: sqlite3.Connection, now_ms: int) -> Adopted:
            steps = sum(entry.steps for _, entry in runs)
            cursor = connection.execute(
                sql.ADOPT_SEGMENT, (tenant_id, object_key, epoch, len(runs), steps, size_bytes, sha256, now_ms, now_ms)
            )
            assert cursor.lastrowid is not None
            adoption = _Adoption(connection, segment_no=cursor.lastrowid)
            for run, entry in runs:
                adoption.take(run, entry)
            return adoption.result()

        return await self._fenced(lease, work)

    # --- transactions -------------------------------------------------------------------------------------------------

    async def _fenced(self, lease: JobLease, work: Callable[[sqlite3.Connection, int], T]) -> T:
        def fenced(connection: sqlite3.Connection, now_ms: int) -> T:
            if connection.execute(sql.FENCE, (now_ms + JOB_LEASE // _MS, lease.epoch, now_ms)).rowcount != 1:
                raise fenced_out(lease)
            return work(connection, now_ms)

        return await self._database.write(fenced)

    async def _all(self, statement: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]:
        return await self._database.read(lambda connection, _now_ms: _dicts(connection.execute(statement, values)))


class _Adoption:
    """One segment's runs being taken into the index, in one transaction."""

    def __init__(self, connection: sqlite3.Connection, *, segment_no: int) -> None:
        self._connection = connection
        self._rows = SqliteRows(connection)
        self._segment_no = segment_no
        self._new = self._indexed = self._buried = 0
        self._newer: list[tuple[str, str]] = []

    def take(self, run: StoredRun, entry: SegmentEntry) -> None:
        """Take one run in, or leave it out."""
        head = run.head
        if self._connection.execute(
            sql.IS_BURIED, (head.tenant_id, head.run_id, head.created_ms, head.created_ms)
        ).fetchone():
            self._buried += 1
            return
        found = self._rows.find(head.tenant_id, head.run_id)
        if found is None:
            run_no = self._rows.insert(head._replace(tier="archived"), run.inputs)
            self._rows.set_result(run_no, run.result)
            self._place(run_no, entry)
            self._new += 1
            return
        run_no, known = found
        same_run = known.created_ms == head.created_ms
        if same_run and known.version == head.version:
            if self._connection.execute(sql.NEEDS_COPY, (run_no,)).fetchone() is None:
                self._place(run_no, entry)
                self._indexed += 1
        elif same_run and known.version < head.version and known.tier == "archived":
            self._rows.update(run_no, head)
            self._rows.set_result(run_no, run.result)
            self._place(run_no, entry)
            self._indexed += 1
        elif not same_run or known.version < head.version:
            self._newer.append((head.tenant_id, head.run_id))

    def result(self) -> Adopted:
        """Return what was done."""
        return Adopted(new=self._new, indexed=self._indexed, newer=tuple(self._newer), buried=self._buried)

    def _place(self, run_no: int, entry: SegmentEntry) -> None:
        self._connection.execute(sql.PLACE, _frame_values(Placed(run_no=run_no, entry=entry), self._segment_no))


def _frame_values(placed: Placed, segment_no: int) -> dict[str, Any]:
    entry = placed.entry
    return {
        "run_no": placed.run_no,
        "version": entry.version,
        "segment_no": segment_no,
        "offset": entry.offset,
        "length": entry.length,
        "steps": entry.steps,
        "sha256": bytes.fromhex(entry.sha256),
        "rows_sha256": bytes.fromhex(entry.rows_sha256),
    }


def _dicts(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def _segment(row: dict[str, Any]) -> SegmentRow:
    return SegmentRow(**{**row, "adopted": bool(row["adopted"])})
