"""What the verbs take, checked before anything is touched; the same for every backend."""

from __future__ import annotations

from datetime import timedelta

from app.errors import InvalidInputError
from app.stores.holder import Holder
from app.stores.idempotency.contract import MAX_LEASE, MAX_RESULT_BYTES, MAX_TTL
from app.stores.names import check_name

__all__ = ["check_holder", "check_key", "check_result", "check_token", "lease_to_ms", "ttl_to_ms"]


def check_key(tenant_id: str, key: str) -> tuple[str, str]:
    """Return tenant and key, both names."""
    return check_name(tenant_id, what="tenant_id"), check_name(key, what="the idempotency key")


def check_holder(holder: Holder) -> Holder:
    """Return ``holder`` if it is one."""
    if not isinstance(holder, Holder):
        raise InvalidInputError(f"holder must be a Holder, not {type(holder).__name__}; use Holder.current()")
    return holder


def check_token(token: int) -> int:
    """Return ``token`` if ``begin`` can have given it."""
    if isinstance(token, bool) or not isinstance(token, int):
        raise InvalidInputError(f"token must be the int that begin() gave, not {type(token).__name__}")
    if not 0 < token < 2**63:
        raise InvalidInputError(f"token must be the int that begin() gave ({token} given)")
    return token


def check_result(result: bytes) -> bytes:
    """Return ``result`` if it is bytes and not too large."""
    if not isinstance(result, bytes):
        raise InvalidInputError(f"result must be bytes, not {type(result).__name__}")
    if len(result) > MAX_RESULT_BYTES:
        raise InvalidInputError(
            f"result has {len(result):,} bytes; at most {MAX_RESULT_BYTES:,} are kept. "
            "Keep large data elsewhere and record where it lies"
        )
    return result


def lease_to_ms(lease: timedelta) -> int:
    """Return a lease in whole milliseconds."""
    return _to_ms(lease, longest=MAX_LEASE, what="lease")


def ttl_to_ms(ttl: timedelta) -> int:
    """Return a time to live in whole milliseconds."""
    return _to_ms(ttl, longest=MAX_TTL, what="ttl")


def _to_ms(duration: timedelta, *, longest: timedelta, what: str) -> int:
    if not isinstance(duration, timedelta):
        raise InvalidInputError(f"{what} must be a timedelta, not {type(duration).__name__}")
    if not timedelta(milliseconds=1) <= duration <= longest:
        raise InvalidInputError(f"{what} must be from a millisecond to {longest} ({duration} given)")
    return duration // timedelta(milliseconds=1)
