"""The idempotency contract: one key, one recorded result.

::

    absent ── begin ─▶ in progress ── complete ─▶ completed ── time to live ─▶ absent
                        │  ▲
       abandon, or the  │  │ begin: a new token, attempt + 1
       lease runs out   ▼  │
                       free

A key carries the fingerprint of the request that it was first used for; another fingerprint is a conflict in every
state. Tokens of a key only grow, also past the end of its record, so that a holder that lost its lease can change
nothing; a token is never below the time in milliseconds, so that they grow also where a store lost its data. A key that
was never completed is forgotten ``KEEP_UNFINISHED`` after its lease. A crash between a provider's answer and
``complete`` is the one place where a call is made again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol, TypeAlias

from app.stores.holder import Holder
from app.stores.names import DEFAULT_TENANT

__all__ = [
    "DEFAULT_LEASE",
    "DEFAULT_TTL",
    "KEEP_UNFINISHED",
    "MAX_LEASE",
    "MAX_RESULT_BYTES",
    "MAX_TTL",
    "BeginResult",
    "Completed",
    "IdempotencyStore",
    "InProgress",
    "Started",
]

DEFAULT_LEASE: Final = timedelta(seconds=30)
DEFAULT_TTL: Final = timedelta(hours=24)
"""How long a result is kept, counted from its completion."""

MAX_LEASE: Final = timedelta(hours=24)
MAX_TTL: Final = timedelta(days=366)

KEEP_UNFINISHED: Final = timedelta(hours=24)
"""How long a key that was not completed keeps its fingerprint and attempts, counted from the end of its lease."""

MAX_RESULT_BYTES: Final = 8 * 1024 * 1024
"""The largest result, before compression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The caller owns the key: do the work, then ``complete`` or ``abandon`` with this token.

    ``attempt`` is 1 at the first begin; above 1 an earlier attempt crashed, was abandoned or lost its lease.
    """

    token: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InProgress:
    """Somebody else is at it; ask again after ``retry_after`` at the latest (the end of their lease)."""

    retry_after: timedelta
    holder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The recorded result, byte for byte."""

    result: bytes


BeginResult: TypeAlias = Started | InProgress | Completed


class IdempotencyStore(Protocol):
    """Remembers results by key. Every verb is atomic.

    Raises, from every verb:
        InvalidInputError: a name, duration or result outside what the verb takes; nothing was changed.
        IdempotencyStoreUnavailableError: the backend did not answer; the call must not be made.
        StoreDamagedError: the backend holds something that is not Nova's, or a newer Nova's.
    """

    async def begin(
        self,
        key: str,
        fingerprint: str,
        *,
        holder: Holder,
        lease: timedelta = DEFAULT_LEASE,
        tenant_id: str = DEFAULT_TENANT,
    ) -> BeginResult:
        """Own the key, or learn who does, or get the result.

        An expired lease, and one whose holder is a process of this host that is gone, is taken over at once. The same
        holder asking again is told ``InProgress`` like everybody: a duplicate in flight waits. If the caller is
        cancelled while the store answers, the key may be owned all the same, until the lease runs out.

        Args:
            key: unique per tenant.
            fingerprint: of the caller's request, before defaults are filled in; 1 to 512 bytes.
            holder: the process that will do the work.
            lease: at least a millisecond, at most ``MAX_LEASE``; longer work sends a ``heartbeat``.
            tenant_id: the tenant whose key it is.

        Raises:
            IdempotencyConflictError: the key belongs to another fingerprint.
        """
        ...

    async def complete(
        self,
        key: str,
        token: int,
        result: bytes,
        *,
        ttl: timedelta = DEFAULT_TTL,
        tenant_id: str = DEFAULT_TENANT,
    ) -> None:
        """Record the result for ``ttl``. The same token and result again is a no-op (a lost acknowledgement).

        A lease that ran out but was not taken over is still the caller's.

        Args:
            key: as given to ``begin``.
            token: as ``begin`` gave it.
            result: at most ``MAX_RESULT_BYTES``.
            ttl: counted from now, at least a millisecond, at most ``MAX_TTL``; a repeat does not prolong it.
            tenant_id: the tenant whose key it is.

        Raises:
            IdempotencyLeaseLostError: the token was superseded or abandoned, it is completed with another result, or
                the key is forgotten.
        """
        ...

    async def abandon(self, key: str, token: int, *, tenant_id: str = DEFAULT_TENANT) -> None:
        """Free the key for the next ``begin``; again is a no-op.

        Raises:
            IdempotencyLeaseLostError: the token was superseded, or the key is completed or forgotten.
        """
        ...

    async def heartbeat(
        self, key: str, token: int, *, lease: timedelta = DEFAULT_LEASE, tenant_id: str = DEFAULT_TENANT
    ) -> None:
        """Prolong the lease to ``lease`` from now. A lease that ran out but was not taken over is still the caller's.

        Raises:
            IdempotencyLeaseLostError: the token was superseded, or the key is not in progress any more.
        """
        ...

    async def close(self) -> None:
        """Let go of files and connections. A later verb opens them again."""
        ...
