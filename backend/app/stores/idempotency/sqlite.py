"""Idempotency in a SQLite file, shared by the processes of one host; it survives all of them."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Final

from app.errors import IdempotencyStoreUnavailableError, InvalidInputError, StoreDamagedError
from app.stores.clock import Clock
from app.stores.holder import Holder
from app.stores.idempotency import checks, record
from app.stores.idempotency.contract import (
    DEFAULT_LEASE,
    DEFAULT_TTL,
    BeginResult,
    Completed,
    InProgress,
    Started,
)
from app.stores.idempotency.record import Record, State
from app.stores.idempotency.results import aside, pack, unpack
from app.stores.names import DEFAULT_TENANT, check_name
from app.stores.sqlite.database import SqliteDatabase

__all__ = ["SqliteIdempotencyStore"]

_SWEEP: Final = 8
"""How many expired rows each ``begin`` removes; each may hold a result of some megabytes."""

_FIND: Final = (
    "SELECT fingerprint, state, token, attempt, holder, lease_until_ms, expires_at_ms, digest"
    " FROM idempotency_records WHERE tenant_id = ? AND key = ? AND expires_at_ms > ?"
)
_RESULT: Final = "SELECT result FROM idempotency_records WHERE tenant_id = ? AND key = ?"
_PUT: Final = (
    "INSERT OR REPLACE INTO idempotency_records"
    " (tenant_id, key, fingerprint, state, token, attempt, holder, lease_until_ms, expires_at_ms, digest, result)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_REMOVE_EXPIRED: Final = (
    "DELETE FROM idempotency_records WHERE rowid IN"
    " (SELECT rowid FROM idempotency_records WHERE expires_at_ms <= ? ORDER BY expires_at_ms LIMIT ?)"
)


class SqliteIdempotencyStore:
    """Remembers results by key in a file.

    Each verb is one write transaction: it reads the record, asks the rules and writes the answer, with no other writer
    in between. The results are compressed.

    Args:
        path: the file; it and its directory are created at the first use.
        clock: the time, for tests.
    """

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        self._path = path
        self._database = SqliteDatabase(path, unavailable=IdempotencyStoreUnavailableError, clock=clock)

    async def begin(
        self,
        key: str,
        fingerprint: str,
        *,
        holder: Holder,
        lease: timedelta = DEFAULT_LEASE,
        tenant_id: str = DEFAULT_TENANT,
    ) -> BeginResult:
        """Own the key, or learn who does, or get the result; see the contract."""
        name = checks.check_key(tenant_id, key)
        check_name(fingerprint, what="fingerprint")
        checks.check_holder(holder)
        lease_ms = checks.lease_to_ms(lease)

        def work(connection: sqlite3.Connection, now_ms: int) -> Started | InProgress | tuple[bytes, bytes]:
            known = self._find(connection, name, now_ms)
            record.check_fingerprint(known, fingerprint, key=key)
            if known is not None and known.state is State.COMPLETED:
                packed: bytes = connection.execute(_RESULT, name).fetchone()[0]
                return packed, known.digest or b""
            if waiting := record.in_progress(known, now_ms=now_ms):
                return waiting
            connection.execute(_REMOVE_EXPIRED, (now_ms, _SWEEP))
            token = _take_token(connection, now_ms)
            owned = record.started(known, fingerprint, token=token, holder=holder, lease_ms=lease_ms, now_ms=now_ms)
            _put(connection, name, owned)
            return Started(token=owned.token, attempt=owned.attempt)

        answer = await self._database.write(work)
        if not isinstance(answer, tuple):
            return answer
        packed, digest = answer
        return Completed(result=await self._unpacked(packed, digest, key=key))

    async def complete(
        self,
        key: str,
        token: int,
        result: bytes,
        *,
        ttl: timedelta = DEFAULT_TTL,
        tenant_id: str = DEFAULT_TENANT,
    ) -> None:
        """Record the result for ``ttl``; see the contract."""
        name = checks.check_key(tenant_id, key)
        checks.check_token(token)
        checks.check_result(result)
        ttl_ms = checks.ttl_to_ms(ttl)
        packed, digest = await aside(len(result), lambda: (pack(result), record.result_digest(result)))

        def work(connection: sqlite3.Connection, now_ms: int) -> None:
            known = self._find(connection, name, now_ms)
            done = record.completed(known, token, digest=digest, ttl_ms=ttl_ms, now_ms=now_ms, key=key)
            if done is not known:
                _put(connection, name, done, packed)

        await self._database.write(work)

    async def abandon(self, key: str, token: int, *, tenant_id: str = DEFAULT_TENANT) -> None:
        """Free the key for the next ``begin``; see the contract."""
        name = checks.check_key(tenant_id, key)
        checks.check_token(token)

        def work(connection: sqlite3.Connection, now_ms: int) -> None:
            known = self._find(connection, name, now_ms)
            freed = record.abandoned(known, token, now_ms=now_ms, key=key)
            if freed is not known:
                _put(connection, name, freed)

        await self._database.write(work)

    async def heartbeat(
        self, key: str, token: int, *, lease: timedelta = DEFAULT_LEASE, tenant_id: str = DEFAULT_TENANT
    ) -> None:
        """Prolong the lease to ``lease`` from now; see the contract."""
        name = checks.check_key(tenant_id, key)
        checks.check_token(token)
        lease_ms = checks.lease_to_ms(lease)

        def work(connection: sqlite3.Connection, now_ms: int) -> None:
            known = self._find(connection, name, now_ms)
            _put(connection, name, record.prolonged(known, token, lease_ms=lease_ms, now_ms=now_ms, key=key))

        await self._database.write(work)

    async def close(self) -> None:
        """Let go of the file; a later verb opens it again."""
        # Closing waits for the file's threads and empties the write-ahead log.
        await asyncio.to_thread(self._database.close)

    def _find(self, connection: sqlite3.Connection, name: tuple[str, str], now_ms: int) -> Record | None:
        """Return the record of a key, None where there is none or it has expired."""
        row = connection.execute(_FIND, (*name, now_ms)).fetchone()
        if row is None:
            return None
        fingerprint, state, token, attempt, holder, lease_until_ms, expires_at_ms, digest = row
        try:
            return Record(
                fingerprint=fingerprint,
                state=State(state),
                token=token,
                attempt=attempt,
                holder=Holder.decode(holder),
                lease_until_ms=lease_until_ms,
                expires_at_ms=expires_at_ms,
                digest=digest,
            )
        except InvalidInputError as error:
            raise self._damaged(name[1]) from error

    async def _unpacked(self, packed: bytes, digest: bytes, *, key: str) -> bytes:
        result = await aside(len(packed), lambda: unpack(packed, digest))
        if result is None:
            raise self._damaged(key)
        return result

    def _damaged(self, key: str) -> StoreDamagedError:
        return StoreDamagedError(
            f"the record of the idempotency key {key!r} in {str(self._path)!r} is damaged; the call was not made. "
            "Restore the file from a backup, or use a new key"
        )


def _put(connection: sqlite3.Connection, name: tuple[str, str], kept: Record, packed: bytes | None = None) -> None:
    connection.execute(
        _PUT,
        (
            *name,
            kept.fingerprint,
            kept.state,
            kept.token,
            kept.attempt,
            kept.holder.encode(),
            kept.lease_until_ms,
            kept.expires_at_ms,
            kept.digest,
            packed,
        ),
    )


def _take_token(connection: sqlite3.Connection, now_ms: int) -> int:
    last: int = connection.execute("SELECT last FROM idempotency_tokens").fetchone()[0]
    token = record.next_token(last, now_ms=now_ms)
    connection.execute("UPDATE idempotency_tokens SET last = ?", (token,))
    return token
