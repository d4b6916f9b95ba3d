"""Rows of PostgreSQL to and from what the verbs speak, and the statements of ``postgres_sql`` by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final

from app.stores.checkpoint import rules
from app.stores.checkpoint.arguments import ListQuery
from app.stores.checkpoint.contract import Appended, RunStatus
from app.stores.checkpoint.rows import StoredHead, StoredRun, StoredStep
from app.stores.checkpoint.tables import Located
from app.stores.postgres.statements import Statements

__all__ = [
    "STATEMENTS",
    "Found",
    "appended",
    "archived_arrays",
    "claim_values",
    "created_values",
    "found",
    "head_values",
    "list_values",
    "list_where",
    "listed",
    "located",
    "lying",
    "seen",
    "step_arrays",
]

Row = Sequence[Any]

_HEAD: Final = StoredHead._fields
_WIDTH: Final = 1 + len(_HEAD)
_MAX: Final = 2**62
"""Above every time and number; the minutes of it are a bigint too."""

STATEMENTS: Final = Statements("checkpoint/postgres_sql", {"head": ", ".join(f"r.{name}" for name in _HEAD)})

_APPENDED: Final = Struct(">qq32s")
_ARRAYS: Final = ("idx", "size_bytes", "step_id", "output_digest", "hash", "meta", "body")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A run, the database's time when it was read, and what is recorded of the step that was asked about."""

    run_no: int
    head: StoredHead
    now_ms: int
    recorded: rules.Recorded | None


def list_where(query: ListQuery) -> str:
    """Return the conditions of a list: those only that it has, so that the plan is made for them."""
    where = ""
    if query.workflow is not None:
        where += " AND n.workflow = %(workflow)s"
    if query.status is not None:
        where += " AND n.status = %(status)s"
    return where


def list_values(tenant_id: str, query: ListQuery, *, page_bytes: int) -> dict[str, object]:
    """Return the values of a list."""
    return {
        "tenant_id": tenant_id,
        "from_ms": 0 if query.from_ms is None else max(0, query.from_ms),
        "to_ms": _MAX if query.to_ms is None else query.to_ms,
        "after_ms": _MAX if query.after is None else query.after.updated_ms,
        "after_no": _MAX if query.after is None else query.after.run_no,
        "workflow": query.workflow,
        "status": query.status,
        "count": query.limit + 1,
        "page_bytes": page_bytes,
    }


def appended(row: Row) -> Appended:
    """Read the row of an ``append`` that recorded its step: 48 bytes."""
    version, count, step_hash = _APPENDED.unpack(row[0])
    return Appended(version=version, next_step_index=count, hash=step_hash, replayed=False)


def found(row: Row) -> Found:
    """Read a row of ``find``."""
    now_ms, fingerprint, digest, step_hash, version = row[_WIDTH:]
    recorded = None
    if version is not None:
        recorded = rules.Recorded(fingerprint=fingerprint, digest=digest, hash=step_hash, version=version)
    return Found(run_no=row[0], head=_head(row), now_ms=now_ms, recorded=recorded)


def located(row: Row) -> tuple[Located, int]:
    """Read a row of ``find_whole``: the run, and the database's time."""
    now_ms, inputs, result = row[_WIDTH:]
    return Located(run_no=row[0], run=StoredRun(head=_head(row), inputs=inputs or b"", result=result)), now_ms


def listed(rows: Sequence[Row], *, limit: int) -> tuple[list[Located], bool]:
    """Read the rows of ``list``: the runs of the page, and whether there are more."""
    page: list[Located] = []
    for row in rows[:limit]:
        inputs, result, _ = row[_WIDTH:]
        page.append(Located(run_no=row[0], run=StoredRun(head=_head(row), inputs=inputs or b"", result=result)))
    return page, bool(rows) and len(page) < rows[0][-1]


def lying(rows: Sequence[Row]) -> list[tuple[int, StoredHead, int]]:
    """Read the rows of ``lying``: number and head, and the database's time."""
    return [(row[0], _head(row), row[_WIDTH]) for row in rows]


def seen(run_no: int, head: StoredHead) -> dict[str, object]:
    """Return the values by which a write knows that the head is still the one that was read.

    Whatever changes a head changes its version, or the token or end of its lease.
    """
    return {
        "run_no": run_no,
        "seen_version": head.version,
        "seen_token": head.lease_token,
        "seen_expires_ms": head.lease_expires_ms,
    }


def head_values(head: StoredHead) -> dict[str, object]:
    """Return the columns of a head by name."""
    return {**head._asdict(), "status": head.status.value}


def claim_values(head: StoredHead) -> dict[str, object]:
    """Return the values of a claim: the head as it is after it, but for the token, which the statement draws."""
    return head_values(head) | {"holder": head.lease_holder, "expires_ms": head.lease_expires_ms}


def created_values(head: StoredHead, *, inputs: bytes, now_ms: int | None) -> dict[str, object]:
    """Return the values of a new run."""
    return {**head_values(head), "inputs": inputs, "now_ms": now_ms}


def step_arrays(steps: Sequence[StoredStep]) -> dict[str, object]:
    """Return the columns of steps as arrays side by side."""
    columns: dict[str, list[object]] = {name: [] for name in _ARRAYS}
    for step in steps:
        values = (step.number, step.size_bytes, step.step_id, step.digest, step.hash, step.meta, step.body)
        for name, value in zip(_ARRAYS, values, strict=True):
            columns[name].append(value)
    return dict(columns)


def archived_arrays(steps: Sequence[StoredStep]) -> dict[str, object]:
    """Return every column of steps that come out of the archive, as arrays side by side."""
    return {
        "recorded_ms": [step.recorded_ms for step in steps],
        "version": [step.version for step in steps],
        "fingerprint": [step.fingerprint for step in steps],
        **step_arrays(steps),
    }


def _head(row: Row) -> StoredHead:
    head = StoredHead._make(row[1:_WIDTH])
    return head._replace(status=RunStatus(head.status))
