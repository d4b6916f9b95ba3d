"""What the verbs take, checked before anything is touched; the same for every backend."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise
from typing import Final

from app.errors import InvalidInputError
from app.money import MAX_MICROCENTS, Microcents, cents_to_microcents, check_amount, microcents_to_cents
from app.stores.budget.contract import MAX_DETAIL_BYTES, MAX_LEASE, MAX_PAGE, MAX_SCOPES, WINDOWS, HoldState, Window
from app.stores.names import check_name

__all__ = [
    "ceiling_to_microcents",
    "check_adjustment",
    "check_key",
    "check_lease",
    "check_page",
    "check_scopes",
    "check_state",
    "check_stoppable",
    "check_text",
    "check_window",
    "run_scope",
]

_MS: Final = timedelta(milliseconds=1)


def check_key(tenant_id: str, hold_id: str) -> tuple[str, str]:
    """Return tenant and hold id, both names."""
    return check_name(tenant_id, what="tenant_id"), check_name(hold_id, what="hold_id")


def check_scopes(scopes: Sequence[str]) -> tuple[str, ...]:
    """Return the scopes of a hold, sorted: 1 to ``MAX_SCOPES`` different names.

    Raises:
        InvalidInputError: a single str, no sequence, none, too many, one named twice, or no name.
    """
    if not isinstance(scopes, (list, tuple)) and (isinstance(scopes, (str, bytes)) or not isinstance(scopes, Sequence)):
        raise InvalidInputError(f"scopes must be a list or tuple of names, not {type(scopes).__name__}")
    if not 1 <= len(scopes) <= MAX_SCOPES:
        raise InvalidInputError(f"a hold names 1 to {MAX_SCOPES} scopes ({len(scopes)} given)")
    names = tuple(scopes)
    try:
        return _sorted_before(names)
    except TypeError:
        # One of them cannot be hashed, and so is no str.
        return _sorted(names)


def _sorted(scopes: tuple[str, ...]) -> tuple[str, ...]:
    names = sorted(check_name(scope, what="scope") for scope in scopes)
    for earlier, later in pairwise(names):
        if earlier == later:
            raise InvalidInputError(f"the scope {later!r} is named twice")
    return tuple(names)


_sorted_before: Final = lru_cache(maxsize=1024)(_sorted)
"""Most calls of a program name the same scopes."""


def check_lease(lease: timedelta) -> timedelta:
    """Return a lease in whole milliseconds, rounded up: positive, at most ``MAX_LEASE``."""
    if not isinstance(lease, timedelta):
        raise InvalidInputError(f"lease must be a timedelta, not {type(lease).__name__}")
    if not timedelta(0) < lease <= MAX_LEASE:
        raise InvalidInputError(f"lease must be positive and at most {MAX_LEASE} ({lease} given)")
    return -(-lease // _MS) * _MS


def check_window(window: Window) -> Window:
    """Return ``window`` if it is one of ``WINDOWS``."""
    if window not in WINDOWS:
        raise InvalidInputError(f"window must be one of {', '.join(WINDOWS)} ({str(window)[:40]!r} given)")
    return window


def check_state(state: HoldState | None) -> HoldState | None:
    """Return the state to look for; None looks for all."""
    if state is None:
        return None
    try:
        return HoldState(state)
    except ValueError:
        raise InvalidInputError(f"state must be one of {', '.join(HoldState)} ({str(state)[:40]!r} given)") from None


def check_page(limit: int) -> int:
    """Return the length of a page, 1 to ``MAX_PAGE``."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_PAGE:
        raise InvalidInputError(f"limit must be an int from 1 to {MAX_PAGE} ({str(limit)[:40]} given)")
    return limit


def check_stoppable(tenant_id: str | None, reason: str = "") -> str | None:
    """Return the tenant that is to be stopped, None for all; the reason is a note."""
    if tenant_id is not None:
        check_name(tenant_id, what="tenant_id")
    if check_text(reason, what="reason") is None:
        raise InvalidInputError("reason must be a str, not None")
    return tenant_id


def check_text(text: str | None, *, what: str) -> str | None:
    """Return a note of at most ``MAX_DETAIL_BYTES`` of UTF-8, or None."""
    if text is None:
        return None
    if not isinstance(text, str):
        raise InvalidInputError(f"{what} must be a str, not {type(text).__name__}")
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidInputError(f"{what} has a lone surrogate and cannot be stored") from None
    if size_bytes > MAX_DETAIL_BYTES:
        raise InvalidInputError(f"{what} has {size_bytes} bytes; at most {MAX_DETAIL_BYTES} are kept")
    return text


def check_adjustment(amount: Microcents) -> Microcents:
    """Return the amount of an adjustment, which may be negative."""
    if isinstance(amount, int) and not isinstance(amount, bool) and -MAX_MICROCENTS <= amount < 0:
        return amount
    return check_amount(amount)


def ceiling_to_microcents(cents: Decimal | float) -> Microcents:
    """Convert a ceiling in cents, rounding down: rounded up it would admit a microcent too much."""
    above = cents_to_microcents(cents)
    return above - (microcents_to_cents(above) > Decimal(str(cents)))


def run_scope(run_id: str) -> str:
    """Return the scope in which a run is counted."""
    return check_name(f"run:{check_name(run_id, what='run_id')}", what="run_id")
