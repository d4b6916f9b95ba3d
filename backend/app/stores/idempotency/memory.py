"""Idempotency in the memory of one process: for tests and small programs; what it knows ends with the process."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Final

from app.stores.clock import Clock, system_clock
from app.stores.holder import Holder
from app.stores.idempotency import checks, record
from app.stores.idempotency.contract import DEFAULT_LEASE, DEFAULT_TTL, BeginResult, Completed, Started
from app.stores.idempotency.record import Record
from app.stores.names import DEFAULT_TENANT, check_name

__all__ = ["InMemoryIdempotencyStore"]

_SWEEP: Final = 8
"""How many records each ``begin`` looks at for expired ones."""


@dataclass(frozen=True, slots=True)
class _Entry:
    record: Record
    result: bytes | None = None


class InMemoryIdempotencyStore:
    """Remembers results by key until the process ends.

    Every verb runs without an await and under a lock, so it is atomic among tasks, event loops and threads.

    Args:
        clock: the time, for tests; a time before an earlier one reads as the earlier one.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or system_clock
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._last_token = 0
        self._latest_ms = 0

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

        with self._lock:
            now_ms = self._now()
            entry = self._live(name, now_ms)
            known = entry.record if entry else None
            record.check_fingerprint(known, fingerprint, key=key)
            if entry is not None and entry.result is not None:
                return Completed(result=entry.result)
            if waiting := record.in_progress(known, now_ms=now_ms):
                return waiting
            self._sweep(now_ms)
            self._last_token = record.next_token(self._last_token, now_ms=now_ms)
            owned = record.started(
                known, fingerprint, token=self._last_token, holder=holder, lease_ms=lease_ms, now_ms=now_ms
            )
            self._entries[name] = _Entry(owned)
            return Started(token=owned.token, attempt=owned.attempt)

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
        digest = record.result_digest(result)

        with self._lock:
            now_ms = self._now()
            done = record.completed(
                self._known(name, now_ms), token, digest=digest, ttl_ms=ttl_ms, now_ms=now_ms, key=key
            )
            self._entries[name] = _Entry(done, result)

    async def abandon(self, key: str, token: int, *, tenant_id: str = DEFAULT_TENANT) -> None:
        """Free the key for the next ``begin``; see the contract."""
        name = checks.check_key(tenant_id, key)
        checks.check_token(token)

        with self._lock:
            now_ms = self._now()
            self._entries[name] = _Entry(record.abandoned(self._known(name, now_ms), token, now_ms=now_ms, key=key))

    async def heartbeat(
        self, key: str, token: int, *, lease: timedelta = DEFAULT_LEASE, tenant_id: str = DEFAULT_TENANT
    ) -> None:
        """Prolong the lease to ``lease`` from now; see the contract."""
        name = checks.check_key(tenant_id, key)
        checks.check_token(token)
        lease_ms = checks.lease_to_ms(lease)

        with self._lock:
            now_ms = self._now()
            self._entries[name] = _Entry(
                record.prolonged(self._known(name, now_ms), token, lease_ms=lease_ms, now_ms=now_ms, key=key)
            )

    async def close(self) -> None:
        """Do nothing: there is nothing to let go of, and what is known stays."""

    def _now(self) -> int:
        self._latest_ms = max(self._latest_ms, self._clock())
        return self._latest_ms

    def _live(self, name: tuple[str, str], now_ms: int) -> _Entry | None:
        entry = self._entries.get(name)
        return entry if entry is not None and entry.record.expires_at_ms > now_ms else None

    def _known(self, name: tuple[str, str], now_ms: int) -> Record | None:
        entry = self._live(name, now_ms)
        return entry.record if entry else None

    def _sweep(self, now_ms: int) -> None:
        """Look at the few records that were not looked at for longest: drop the expired ones, put the others last."""
        for name in tuple(islice(self._entries, _SWEEP)):
            entry = self._entries.pop(name)
            if entry.record.expires_at_ms > now_ms:
                self._entries[name] = entry
