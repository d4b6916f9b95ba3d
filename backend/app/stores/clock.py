"""The time as the embedded stores use it: milliseconds since 1970, UTC; passed in, so that tests own it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

__all__ = ["Clock", "from_ms", "system_clock", "to_ms"]

Clock = Callable[[], int]
"""Returns the time in milliseconds since 1970, UTC."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


def system_clock() -> int:
    """Return the host's time."""
    return time.time_ns() // 1_000_000


def from_ms(milliseconds: int) -> datetime:
    """Return the moment, in UTC."""
    return _EPOCH + milliseconds * _MS


def to_ms(moment: datetime) -> int:
    """Return the first whole millisecond that is not before an aware ``moment``."""
    return -((_EPOCH - moment) // _MS)
