"""Idempotency in Redis, Valkey or Upstash, shared by the processes of many hosts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from app.credentials import CredentialSource
from app.errors import IdempotencyStoreUnavailableError, InvalidInputError, StoreDamagedError
from app.stores.clock import Clock
from app.stores.holder import Holder
from app.stores.idempotency import checks, record
from app.stores.idempotency.contract import (
    DEFAULT_LEASE,
    DEFAULT_TTL,
    KEEP_UNFINISHED,
    BeginResult,
    Completed,
    Started,
)
from app.stores.idempotency.record import Record, State
from app.stores.idempotency.results import aside, pack, unpack
from app.stores.names import DEFAULT_TENANT, check_name
from app.stores.redis.connection import DEFAULT_POOL_SIZE, DEFAULT_TIMEOUT_S, RedisConnection
from app.stores.redis.scripts import key_name, load_script

__all__ = ["RedisIdempotencyStore"]

_BEGIN: Final = load_script("idempotency", "begin")
_CHANGE: Final = load_script("idempotency", "change")

_KEEP_UNFINISHED_MS: Final = KEEP_UNFINISHED // timedelta(milliseconds=1)


class RedisIdempotencyStore:
    """Remembers results by key on a server.

    Each verb is one script and one round trip. A script decides whether the record may change and reports what it
    found; the rules then say of that, in the words of every backend, what the caller is told. Only where the holder
    that was found is a process of this host that is gone, which no script can know, ``begin`` asks once more, with the
    token of the dead: of several that found it only one takes the key.

    Redis removes expired records itself. A result lies inside its record, compressed, whatever its size: a result that
    was paid for and then refused could not be replayed. Larger ones block the server for longer (docs/how-to/redis.md).

    Args:
        url: gives ``REDIS_URL``.
        pool_size, timeout_s: as for :class:`~app.stores.redis.connection.RedisConnection`.
        clock: the time, for tests; None is the server's.
    """

    def __init__(
        self,
        url: CredentialSource,
        *,
        pool_size: int = DEFAULT_POOL_SIZE,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock
        self._connection = RedisConnection(
            url, unavailable=IdempotencyStoreUnavailableError, pool_size=pool_size, timeout_s=timeout_s
        )

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
        keys = _keys(tenant_id, key)
        check_name(fingerprint, what="fingerprint")
        checks.check_holder(holder)
        lease_ms = checks.lease_to_ms(lease)

        gone: int | str = ""
        while True:
            arguments = (fingerprint, holder.encode(), lease_ms, _KEEP_UNFINISHED_MS, gone, self._now())
            token, number, *found = await self._connection.run(_BEGIN, keys, arguments)
            if token is not None:
                return Started(token=int(token), attempt=number)
            known = _read(found, key=key, redis_key=keys[0])
            record.check_fingerprint(known, fingerprint, key=key)
            if known.state is State.COMPLETED:
                return Completed(result=await _result(known, found[-1], key=key, redis_key=keys[0]))
            if waiting := record.in_progress(known, now_ms=number):
                return waiting
            gone = known.token

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
        keys = _keys(tenant_id, key)
        checks.check_token(token)
        checks.check_result(result)
        ttl_ms = checks.ttl_to_ms(ttl)
        packed, digest = await aside(len(result), lambda: (pack(result), record.result_digest(result)))

        known, now_ms = await self._change(
            keys, token, State.COMPLETED, key=key, lease_ms="", kept_ms=ttl_ms, digest=digest, packed=packed
        )
        record.completed(known, token, digest=digest, ttl_ms=ttl_ms, now_ms=now_ms, key=key)

    async def abandon(self, key: str, token: int, *, tenant_id: str = DEFAULT_TENANT) -> None:
        """Free the key for the next ``begin``; see the contract."""
        keys = _keys(tenant_id, key)
        checks.check_token(token)

        known, now_ms = await self._change(keys, token, State.FREE, key=key, lease_ms=0, kept_ms=_KEEP_UNFINISHED_MS)
        record.abandoned(known, token, now_ms=now_ms, key=key)

    async def heartbeat(
        self, key: str, token: int, *, lease: timedelta = DEFAULT_LEASE, tenant_id: str = DEFAULT_TENANT
    ) -> None:
        """Prolong the lease to ``lease`` from now; see the contract."""
        keys = _keys(tenant_id, key)
        checks.check_token(token)
        lease_ms = checks.lease_to_ms(lease)

        kept_ms = lease_ms + _KEEP_UNFINISHED_MS
        known, now_ms = await self._change(keys, token, State.IN_PROGRESS, key=key, lease_ms=lease_ms, kept_ms=kept_ms)
        record.prolonged(known, token, lease_ms=lease_ms, now_ms=now_ms, key=key)

    async def close(self) -> None:
        """Close the connections of the running loop; a later verb opens them again."""
        await self._connection.close()

    async def _change(
        self,
        keys: tuple[str, str],
        token: int,
        state: State,
        *,
        key: str,
        lease_ms: int | str,
        kept_ms: int,
        digest: bytes = b"",
        packed: bytes = b"",
    ) -> tuple[Record | None, int]:
        """Let the owner change its record; return the record as it was before, and the time."""
        arguments = (token, state, lease_ms, kept_ms, digest, packed, self._now())
        now_ms, *found = await self._connection.run(_CHANGE, keys, arguments)
        return _read(found, key=key, redis_key=keys[0]) if found else None, now_ms

    def _now(self) -> int | str:
        return "" if self._clock is None else self._clock()


def _keys(tenant_id: str, key: str) -> tuple[str, str]:
    """Return the names of the record and of the tenant's last token, in one hash slot."""
    checks.check_key(tenant_id, key)
    return key_name(tenant_id, "idempotency", "key", key), key_name(tenant_id, "idempotency", "token")


def _read(found: Sequence[Any], *, key: str, redis_key: str) -> Record:
    """Return the record that a script found."""
    state, fingerprint, token, attempt, holder, lease_until_ms, expires_at_ms, digest = found[:8]
    try:
        return Record(
            fingerprint=fingerprint.decode(),
            state=State(state.decode()),
            token=int(token),
            attempt=int(attempt),
            holder=Holder.decode(holder.decode()),
            lease_until_ms=int(lease_until_ms),
            expires_at_ms=int(expires_at_ms),
            digest=digest,
        )
    except (AttributeError, InvalidInputError, TypeError, ValueError) as error:
        raise _damaged(key, redis_key) from error


async def _result(known: Record, packed: bytes | None, *, key: str, redis_key: str) -> bytes:
    """Return what a completed record holds."""
    # Without a digest nothing can be what it says.
    digest = known.digest or b""
    result = None if packed is None else await aside(len(packed), lambda: unpack(packed, digest))
    if result is None:
        raise _damaged(key, redis_key)
    return result


def _damaged(key: str, redis_key: str) -> StoreDamagedError:
    return StoreDamagedError(
        f"the record of the idempotency key {key!r} in Redis is damaged; the call was not made. Use a new key, or "
        f"delete the Redis key {redis_key!r}: the call can then be made again"
    )
