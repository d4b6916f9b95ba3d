"""The statements on the tables of ``sqlite_schema``, and rows to and from what the verbs speak.

Every lookup of a run or a step goes by a unique index, every list by the index of updates; a test reads the plans.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, cast

from app.stores.checkpoint import rules
from app.stores.checkpoint.arguments import ListQuery, Position
from app.stores.checkpoint.contract import RunStatus
from app.stores.checkpoint.rows import StoredHead, StoredRun, StoredStep, rows_digest
from app.stores.checkpoint.tables import ArchivedCopy, Located

__all__ = ["STATEMENTS", "SqliteRows"]

_HEAD: Final = (
    "r.run_no, r.tenant_id, r.run_id, r.root_run_id, r.workflow, r.workflow_version, r.status, r.waiting_for, r.error,"
    " r.version, r.next_step_index, r.head_hash, r.inputs_digest, r.result_digest, r.lease_token, r.lease_holder,"
    " r.lease_expires_ms, r.created_ms, r.updated_ms, r.tier, r.crashes"
)
_STEP: Final = "idx, step_id, fingerprint, output_digest, hash, version, size_bytes, recorded_ms, meta"
_VALUES: Final = (
    " LEFT JOIN checkpoint_values i ON i.run_no = r.run_no AND i.kind = 'inputs'"
    " LEFT JOIN checkpoint_values o ON o.run_no = r.run_no AND o.kind = 'result'"
)

_FIND: Final = f"SELECT {_HEAD} FROM checkpoint_runs r WHERE r.tenant_id = ? AND r.run_id = ?"
_FIND_FOR_APPEND: Final = (
    f"SELECT {_HEAD}, s.fingerprint, s.output_digest, s.hash, s.version FROM checkpoint_runs r"
    " LEFT JOIN checkpoint_steps s ON s.run_no = r.run_no AND s.step_id = ?"
    " WHERE r.tenant_id = ? AND r.run_id = ?"
)
_FIND_WHOLE: Final = (
    f"SELECT {_HEAD}, i.body, o.body FROM checkpoint_runs r{_VALUES} WHERE r.tenant_id = ? AND r.run_id = ?"
)
_LIST: Final = (
    f"SELECT {_HEAD}, i.body, o.body FROM checkpoint_runs r{_VALUES}"
    " WHERE r.tenant_id = :tenant AND r.updated_ms >= :from AND r.updated_ms < :to"
    " AND (r.updated_ms, r.run_no) < (:after_ms, :after_no)"
    " AND (:workflow IS NULL OR r.workflow = :workflow) AND (:status IS NULL OR r.status = :status)"
    " ORDER BY r.updated_ms DESC, r.run_no DESC LIMIT :limit"
)
_LYING: Final = (
    # By name: left to itself the planner walks every run by its update, so as not to sort the few that are running.
    f"SELECT {_HEAD} FROM checkpoint_runs r INDEXED BY checkpoint_runs_running"
    " WHERE r.tenant_id = :tenant AND r.status = 'running' AND r.updated_ms <= :before"
    " AND (r.lease_expires_ms IS NULL OR r.lease_expires_ms <= :now"
    "  OR substr(r.lease_holder, 1, length(:host)) = :host)"
    " AND (r.updated_ms, r.run_no) > (:after_ms, :after_no)"
    " AND (:workflow IS NULL OR r.workflow = :workflow) ORDER BY r.updated_ms, r.run_no LIMIT :limit"
)
_STEPS: Final = f"SELECT {_STEP}, body FROM checkpoint_steps WHERE run_no = ? AND idx >= ? ORDER BY idx LIMIT ?"
_RECORDS: Final = f"SELECT {_STEP}, x'' FROM checkpoint_steps WHERE run_no = ? AND idx >= ? ORDER BY idx LIMIT ?"
_DIGESTS: Final = "SELECT step_id, output_digest FROM checkpoint_steps WHERE run_no = ? ORDER BY idx"

_INSERT: Final = (
    "INSERT INTO checkpoint_runs (tenant_id, run_id, root_run_id, workflow, workflow_version, status, waiting_for,"
    " error, version, next_step_index, head_hash, inputs_digest, result_digest, lease_token, lease_holder,"
    " lease_expires_ms, created_ms, updated_ms, tier, crashes)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_UPDATE: Final = (
    "UPDATE checkpoint_runs SET status = ?, waiting_for = ?, error = ?, version = ?, next_step_index = ?,"
    " head_hash = ?, result_digest = ?, lease_token = ?, lease_holder = ?, lease_expires_ms = ?, updated_ms = ?,"
    " crashes = ? WHERE run_no = ?"
)
_MOVE: Final = (
    "UPDATE checkpoint_runs SET version = ?, next_step_index = ?, head_hash = ?, lease_holder = ?,"
    " lease_expires_ms = ?, updated_ms = ?, crashes = ? WHERE run_no = ?"
)
_UPDATE_LEASE: Final = "UPDATE checkpoint_runs SET lease_holder = ?, lease_expires_ms = ? WHERE run_no = ?"
_NEXT_TOKEN: Final = "UPDATE checkpoint_token SET last = last + 1 RETURNING last"  # noqa: S105 - a lease's number
_ADD_STEP: Final = f"INSERT INTO checkpoint_steps (run_no, {_STEP}, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_COPY_STEPS: Final = (
    "INSERT INTO checkpoint_steps (run_no, idx, step_id, fingerprint, output_digest, hash, version, size_bytes,"
    " recorded_ms, meta, body) SELECT ?, idx, step_id, fingerprint, output_digest, hash, 0, size_bytes, recorded_ms,"
    " meta, body FROM checkpoint_steps WHERE run_no = ? AND idx < ? ORDER BY idx"
)
_SET_VALUE: Final = "INSERT INTO checkpoint_values (run_no, kind, body) VALUES (?, ?, ?)"
_DROP_VALUE: Final = "DELETE FROM checkpoint_values WHERE run_no = ? AND kind = ?"
_FIND_NUMBER: Final = f"SELECT {_HEAD}, i.body, o.body FROM checkpoint_runs r{_VALUES} WHERE r.run_no = ?"
_COPY: Final = (
    "SELECT s.object_key, f.offset, f.length, f.steps, f.sha256 FROM archive_frames f"
    " JOIN archive_segments s ON s.segment_no = f.segment_no WHERE f.run_no = ?"
)
_RESTORED: Final = "UPDATE archive_frames SET rows_sha256 = ?, restored_ms = ? WHERE run_no = ?"
_SET_HOT: Final = "UPDATE checkpoint_runs SET tier = 'hot' WHERE run_no = ?"
_BURY: Final = (
    "INSERT INTO archive_tombstones (tenant_id, run_id, created_ms, deleted_ms)"
    " SELECT tenant_id, run_id, created_ms, ? FROM checkpoint_runs WHERE run_no = ?"
    " AND EXISTS (SELECT 1 FROM archive_store) ON CONFLICT DO NOTHING"
)
_REMOVE: Final = (
    "DELETE FROM archive_frames WHERE run_no = ?",
    "DELETE FROM checkpoint_steps WHERE run_no = ?",
    "DELETE FROM checkpoint_values WHERE run_no = ?",
    "DELETE FROM checkpoint_runs WHERE run_no = ?",
)

STATEMENTS: Final = (
    _FIND,
    _FIND_FOR_APPEND,
    _FIND_WHOLE,
    _LIST,
    _LYING,
    _STEPS,
    _RECORDS,
    _DIGESTS,
    _UPDATE,
    _MOVE,
    _UPDATE_LEASE,
    _COPY_STEPS,
    _DROP_VALUE,
    _FIND_NUMBER,
    _COPY,
    _RESTORED,
    _SET_HOT,
    *_REMOVE,
)
"""Every statement that looks something up."""

_MAX: Final = 2**63 - 1
_HEAD_COLUMNS: Final = 21


class SqliteRows:
    """The rows inside one transaction of a connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def find(self, tenant_id: str, run_id: str) -> tuple[int, StoredHead] | None:
        """Look a run up by its unique index."""
        row = self._connection.execute(_FIND, (tenant_id, run_id)).fetchone()
        return None if row is None else (row[0], _head(row))

    def find_for_append(
        self, tenant_id: str, run_id: str, step_id: str
    ) -> tuple[int, StoredHead, rules.Recorded | None] | None:
        """Look a run and one of its steps up, each by its unique index, in one statement."""
        row = self._connection.execute(_FIND_FOR_APPEND, (step_id, tenant_id, run_id)).fetchone()
        if row is None:
            return None
        fingerprint, digest, step_hash, version = row[_HEAD_COLUMNS:]
        recorded = None
        if version is not None:
            recorded = rules.Recorded(fingerprint=fingerprint, digest=digest, hash=step_hash, version=version)
        return row[0], _head(row), recorded

    def find_whole(self, tenant_id: str, run_id: str) -> Located | None:
        """Look a run and its values up, each by its unique index."""
        row = self._connection.execute(_FIND_WHOLE, (tenant_id, run_id)).fetchone()
        return None if row is None else _located(row)

    def whole(self, run_no: int) -> StoredRun:
        """Return a run that is there, and its values, by its number."""
        row = self._connection.execute(_FIND_NUMBER, (run_no,)).fetchone()
        return _located(row).run

    def listed(self, tenant_id: str, query: ListQuery) -> Iterator[Located]:
        """Walk the index of updates backwards from behind the cursor."""
        rows = self._connection.execute(
            _LIST,
            {
                "tenant": tenant_id,
                "from": 0 if query.from_ms is None else query.from_ms,
                "to": _MAX if query.to_ms is None else query.to_ms,
                "after_ms": _MAX if query.after is None else query.after.updated_ms,
                "after_no": _MAX if query.after is None else query.after.run_no,
                "workflow": query.workflow,
                "status": query.status,
                "limit": query.limit + 1,
            },
        )
        return map(_located, rows)

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
        """Walk the index of running runs, and sort them by how long they lie."""
        values = {
            "tenant": tenant_id,
            "workflow": workflow,
            "before": before_ms,
            "now": now_ms,
            "host": f"{host}|",
            "after_ms": after.updated_ms,
            "after_no": after.run_no,
            "limit": limit,
        }
        return [(row[0], _head(row)) for row in self._connection.execute(_LYING, values)]

    def steps(self, run_no: int, *, first: int, limit: int | None = None, bodies: bool = True) -> list[StoredStep]:
        """Walk the index of a run's steps."""
        statement = _STEPS if bodies else _RECORDS
        rows = self._connection.execute(statement, (run_no, first, -1 if limit is None else limit))
        return [StoredStep._make(row) for row in rows]

    def digests(self, run_no: int) -> dict[str, bytes]:
        """Walk the index of a run's steps."""
        return dict(self._connection.execute(_DIGESTS, (run_no,)).fetchall())

    def insert(self, head: StoredHead, inputs: bytes) -> int:
        """Add a head, and its inputs beside it."""
        run_no = cast("int", self._connection.execute(_INSERT, head).lastrowid)
        self._connection.execute(_SET_VALUE, (run_no, "inputs", inputs))
        return run_no

    def add_steps(self, run_no: int, steps: Iterable[StoredStep]) -> None:
        """Add one row for each."""
        for step in steps:
            self._connection.execute(_ADD_STEP, (run_no, *step))

    def copy_steps(self, run_no: int, new_run_no: int, count: int) -> None:
        """Copy rows inside the file."""
        self._connection.execute(_COPY_STEPS, (new_run_no, run_no, count))

    def update(self, run_no: int, head: StoredHead) -> None:
        """Move a head in its place."""
        self._connection.execute(
            _UPDATE,
            (
                head.status,
                head.waiting_for,
                head.error,
                head.version,
                head.next_step_index,
                head.head_hash,
                head.result_digest,
                head.lease_token,
                head.lease_holder,
                head.lease_expires_ms,
                head.updated_ms,
                head.crashes,
                run_no,
            ),
        )

    def move(self, run_no: int, head: StoredHead) -> None:
        """Touch one index, that of updates: a column that is named is written, whether its value differs or not."""
        self._connection.execute(
            _MOVE,
            (
                head.version,
                head.next_step_index,
                head.head_hash,
                head.lease_holder,
                head.lease_expires_ms,
                head.updated_ms,
                head.crashes,
                run_no,
            ),
        )

    def update_lease(self, run_no: int, head: StoredHead) -> None:
        """Touch no index and nothing but the lease."""
        self._connection.execute(_UPDATE_LEASE, (head.lease_holder, head.lease_expires_ms, run_no))

    def set_result(self, run_no: int, result: bytes | None) -> None:
        """Replace the body of the result."""
        self._connection.execute(_DROP_VALUE, (run_no, "result"))
        if result is not None:
            self._connection.execute(_SET_VALUE, (run_no, "result", result))

    def next_token(self) -> int:
        """Count on."""
        # fetchall: the statement must have ended before the transaction commits.
        return int(self._connection.execute(_NEXT_TOKEN).fetchall()[0][0])

    def archived_copy(self, run_no: int) -> ArchivedCopy | None:
        """Look the copy up by the run's number, and its segment by its own."""
        row = self._connection.execute(_COPY, (run_no,)).fetchone()
        if row is None:
            return None
        object_key, offset, length, steps, sha256 = row
        return ArchivedCopy(object_key=object_key, offset=offset, length=length, steps=steps, sha256=sha256)

    def restore(self, run_no: int, steps: Sequence[StoredStep], *, now_ms: int) -> None:
        """Add the steps; the digest of the rows becomes theirs, since they may be compressed otherwise than before."""
        self.add_steps(run_no, steps)
        self._connection.execute(_RESTORED, (rows_digest(steps), now_ms, run_no))
        self._connection.execute(_SET_HOT, (run_no,))

    def remove(self, run_no: int, *, now_ms: int) -> None:
        """Delete the rows of a run, the head last, in place of which a tombstone stays if there is an archive."""
        self._connection.execute(_BURY, (now_ms, run_no))
        for statement in _REMOVE:
            self._connection.execute(statement, (run_no,))


def _located(row: tuple[Any, ...]) -> Located:
    inputs, result = row[_HEAD_COLUMNS:]
    return Located(run_no=row[0], run=StoredRun(head=_head(row), inputs=inputs or b"", result=result))


def _head(row: tuple[Any, ...]) -> StoredHead:
    return StoredHead._make((*row[1:6], RunStatus(row[6]), *row[7:_HEAD_COLUMNS]))
