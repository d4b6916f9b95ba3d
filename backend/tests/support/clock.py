"""A clock that goes only where a test moves it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from app.stores.clock import from_ms, to_ms

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


class FakeClock:
    """Gives the time in milliseconds since 1970, as the stores take it."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now_ms = to_ms(now)

    def __call__(self) -> int:
        """Return the time."""
        return self.now_ms

    @property
    def now(self) -> datetime:
        """Return the moment."""
        return from_ms(self.now_ms)

    def advance(self, duration: timedelta) -> None:
        """Let ``duration`` pass; a negative one sets the clock back."""
        self.now_ms += duration // timedelta(milliseconds=1)
