"""Rows of the budget's tables as values, and values as rows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

from app.errors import StoreDamagedError
from app.stores.budget.contract import Hold, HoldState
from app.stores.budget.ledger import Adjustment, EntryKind
from app.stores.budget.rules import Counter
from app.stores.budget.windows import KEEP_WINDOWS, ends_at, windows_at
from app.stores.clock import from_ms, to_ms

__all__ = ["ENTRY_COLUMNS", "HOLD_COLUMNS", "counter_of", "entry_of", "hold_of", "hold_row", "packed", "remove_ms"]

HOLD_COLUMNS: Final = (
    "tenant_id, hold_id, amount, scopes, hourly, state, charged, created_ms, expires_ms, closed_ms, detail"
)
ENTRY_COLUMNS: Final = "tenant_id, kind, adjustment_id, scope, amount, amounts, reason, created_ms"


@lru_cache(maxsize=1024)
def remove_ms(of_window: str) -> int | None:
    """Return when a window's counter may be removed; None for ``total``, which stays."""
    end = ends_at(of_window)
    return None if end is None else to_ms(end + KEEP_WINDOWS)


def counter_of(amounts: Iterable[int]) -> Counter:
    """Return a counter from its amounts, in the order of the table."""
    spent, held, uncertain, overage, base = amounts
    return Counter(spent=spent, held=held, uncertain=uncertain, overage=overage, base=base)


def hold_row(hold: Hold) -> tuple[object, ...]:
    """Return the values of ``HOLD_COLUMNS``."""
    return (
        hold.tenant_id,
        hold.hold_id,
        hold.amount,
        packed(hold.scopes),
        packed([scope for scope, window, _ in hold.windows if window == "hour"]),
        hold.state,
        hold.charged,
        to_ms(hold.created_at),
        to_ms(hold.expires_at),
        None if hold.closed_at is None else to_ms(hold.closed_at),
        hold.detail,
    )


def hold_of(row: tuple[Any, ...]) -> Hold:
    """Return the hold of a row of ``HOLD_COLUMNS``, as it is written down.

    Raises:
        StoreDamagedError: its lists cannot be read.
    """
    tenant_id, hold_id, amount, scopes, hourly, state, charged, created_ms, expires_ms, closed_ms, detail = row
    created_at = from_ms(created_ms)
    try:
        names, with_hour = tuple(json.loads(scopes)), frozenset(json.loads(hourly))
        windows = tuple(
            (scope, window, of_window)
            for scope in names
            for window, of_window in windows_at(created_at, hourly=scope in with_hour)
        )
    except (ValueError, TypeError) as error:
        raise _damaged(f"the hold {hold_id!r}") from error
    return Hold(
        hold_id=hold_id,
        tenant_id=tenant_id,
        amount=amount,
        scopes=names,
        state=HoldState(state),
        charged=charged,
        windows=windows,
        created_at=created_at,
        expires_at=from_ms(expires_ms),
        closed_at=None if closed_ms is None else from_ms(closed_ms),
        detail=detail,
    )


def entry_of(row: tuple[Any, ...]) -> Adjustment:
    """Return the adjustment of a row of ``ENTRY_COLUMNS``.

    Raises:
        StoreDamagedError: its amounts cannot be read.
    """
    _, kind, adjustment_id, scope, amount, amounts, reason, created_ms = row
    try:
        by_window = tuple((str(of_window), int(part)) for of_window, part in json.loads(amounts))
    except (ValueError, TypeError) as error:
        raise _damaged(f"the adjustment {adjustment_id!r}") from error
    return Adjustment(
        adjustment_id=adjustment_id,
        kind=EntryKind(kind),
        scope=scope,
        amount=amount,
        amounts=by_window,
        reason=reason,
        created_at=from_ms(created_ms),
    )


def packed(values: Iterable[object]) -> str:
    """Return a list as it is stored."""
    return json.dumps(list(values), ensure_ascii=False, separators=(",", ":"))


def _damaged(what: str) -> StoreDamagedError:
    return StoreDamagedError(f"{what} in the budget's database is damaged; restore the file from a backup")
