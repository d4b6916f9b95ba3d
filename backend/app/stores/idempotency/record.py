"""The state machine of one key, as functions from a record to the next one.

They decide and change nothing: a backend reads the record, asks, and writes the answer in one atomic step. ``None``
stands for a key without a record, and for one whose record has passed ``expires_at_ms``, removed or not.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Final

from app.errors import IdempotencyConflictError, IdempotencyLeaseLostError
from app.stores.holder import Holder
from app.stores.idempotency.contract import KEEP_UNFINISHED, InProgress

__all__ = [
    "Record",
    "State",
    "abandoned",
    "check_fingerprint",
    "completed",
    "in_progress",
    "next_token",
    "prolonged",
    "result_digest",
    "started",
]

_KEEP_UNFINISHED_MS: Final = KEEP_UNFINISHED // timedelta(milliseconds=1)


class State(StrEnum):
    """``in_progress -> completed | free``; ``free -> in_progress``."""

    IN_PROGRESS = "in_progress"
    FREE = "free"
    COMPLETED = "completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of a key; the result itself lies beside it.

    Attributes:
        token: of the latest ``begin``; whoever shows another is out.
        digest: the SHA-256 of the result, None until there is one.
    """

    fingerprint: str
    state: State
    token: int
    attempt: int
    holder: Holder
    lease_until_ms: int
    expires_at_ms: int
    digest: bytes | None = None


def check_fingerprint(record: Record | None, fingerprint: str, *, key: str) -> None:
    """Refuse a key that belongs to another request, whatever its state."""
    if record is not None and record.fingerprint != fingerprint:
        raise IdempotencyConflictError(
            f"the idempotency key {key!r} was used for a different request; use a new key for a new request", key=key
        )


def in_progress(record: Record | None, *, now_ms: int) -> InProgress | None:
    """Return what a second caller is told while the owner is at it, or None where the key may be taken."""
    if record is None or record.state is not State.IN_PROGRESS or record.lease_until_ms <= now_ms:
        return None
    if record.holder.is_gone():
        return None
    return InProgress(retry_after=timedelta(milliseconds=record.lease_until_ms - now_ms), holder=str(record.holder))


def next_token(last_token: int, *, now_ms: int) -> int:
    """Return a token above every earlier one of the store, and above those of a store that was lost."""
    return max(last_token + 1, now_ms)


def started(
    record: Record | None, fingerprint: str, *, token: int, holder: Holder, lease_ms: int, now_ms: int
) -> Record:
    """Return the record of a new owner."""
    return Record(
        fingerprint=fingerprint,
        state=State.IN_PROGRESS,
        token=token,
        attempt=1 if record is None else record.attempt + 1,
        holder=holder,
        lease_until_ms=now_ms + lease_ms,
        expires_at_ms=now_ms + lease_ms + _KEEP_UNFINISHED_MS,
    )


def completed(record: Record | None, token: int, *, digest: bytes, ttl_ms: int, now_ms: int, key: str) -> Record:
    """Return the record with its result; the same record where that result was recorded before."""
    owned = _owned(record, token, key=key)
    if owned.state is State.IN_PROGRESS:
        return replace(owned, state=State.COMPLETED, digest=digest, expires_at_ms=now_ms + ttl_ms)
    if owned.state is State.COMPLETED and owned.digest == digest:
        return owned
    raise _lost(key, f"it is {owned.state} under this token, with another result or none")


def abandoned(record: Record | None, token: int, *, now_ms: int, key: str) -> Record:
    """Return the record freed for the next ``begin``; the same record where it was freed before."""
    owned = _owned(record, token, key=key)
    if owned.state is State.FREE:
        return owned
    if owned.state is State.IN_PROGRESS:
        return replace(owned, state=State.FREE, lease_until_ms=now_ms, expires_at_ms=now_ms + _KEEP_UNFINISHED_MS)
    raise _lost(key, "it is completed already")


def prolonged(record: Record | None, token: int, *, lease_ms: int, now_ms: int, key: str) -> Record:
    """Return the record with its lease counted from now."""
    owned = _owned(record, token, key=key)
    if owned.state is not State.IN_PROGRESS:
        raise _lost(key, f"it is {owned.state} already")
    return replace(owned, lease_until_ms=now_ms + lease_ms, expires_at_ms=now_ms + lease_ms + _KEEP_UNFINISHED_MS)


def result_digest(result: bytes) -> bytes:
    """Return what tells one result from another, and a stored one from a damaged one."""
    return hashlib.sha256(result).digest()


def _owned(record: Record | None, token: int, *, key: str) -> Record:
    if record is None:
        raise _lost(key, "nothing is known of it any more")
    if record.token != token:
        raise _lost(key, f"it was taken over (token {record.token}, attempt {record.attempt}) by {record.holder}")
    return record


def _lost(key: str, why: str) -> IdempotencyLeaseLostError:
    return IdempotencyLeaseLostError(
        f"the idempotency key {key!r} is not this caller's: {why}. Discard the result and ask begin() again", key=key
    )
