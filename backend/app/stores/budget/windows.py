"""The calendar of budgets: which windows a moment belongs to, and when each begins anew (UTC).

The id of a window says its kind by its length, so ids of different windows never meet: ``total``, ``2026-11``,
``2026-11-24``, ``2026-11-24T10``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from app.stores.budget.contract import WINDOWS, Window

__all__ = ["ALWAYS_COUNTED", "KEEP_WINDOWS", "ends_at", "is_kept", "kind_of", "window_id", "windows_at"]

ALWAYS_COUNTED: Final[tuple[Window, ...]] = ("total", "month", "day")
"""Counted for every scope; ``hour`` only where it is limited, or each scope would leave 24 counters a day."""

KEEP_WINDOWS: Final = timedelta(days=35)
"""How long a counter outlives its window: longer than any hold that belongs to it (a lease of a day, then 7 days)."""

_ID_LENGTHS: Final[dict[Window, int]] = {"month": 7, "day": 10, "hour": 13}
_KINDS: Final[dict[int, Window]] = {length: window for window, length in _ID_LENGTHS.items()}


def window_id(window: Window, moment: datetime) -> str:
    """Return the id of the window in which a UTC ``moment`` lies."""
    return "total" if window == "total" else moment.isoformat()[: _ID_LENGTHS[window]]


def windows_at(moment: datetime, *, hourly: bool) -> tuple[tuple[Window, str], ...]:
    """Return the windows that a scope counts at a UTC ``moment``, in the order of ``WINDOWS``."""
    counted = WINDOWS if hourly else ALWAYS_COUNTED
    return tuple((window, window_id(window, moment)) for window in counted)


def kind_of(of_window: str) -> Window:
    """Return the window to which an id belongs."""
    return "total" if of_window == "total" else _KINDS[len(of_window)]


@lru_cache(maxsize=1024)
def ends_at(of_window: str) -> datetime | None:
    """Return the first moment after a window, by its id; None for ``total``, which never ends."""
    window = kind_of(of_window)
    if window == "total":
        return None
    if window == "month":
        year, month = int(of_window[:4]), int(of_window[5:])
        return datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    if window == "day":
        return datetime.fromisoformat(of_window).replace(tzinfo=UTC) + timedelta(days=1)
    return datetime.fromisoformat(f"{of_window}:00").replace(tzinfo=UTC) + timedelta(hours=1)


def is_kept(of_window: str, now: datetime) -> bool:
    """Whether the counter of a window still exists by the rules, removed already or not."""
    end = ends_at(of_window)
    return end is None or now < end + KEEP_WINDOWS
