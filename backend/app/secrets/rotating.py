"""One secret that changes while the process runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Final

from app.credentials import Credential

__all__ = ["RotatingCredential"]

RETRY_AFTER_S: Final = 5.0
"""How long the former value is given out after the present one was rejected, before the present one is tried again."""


class RotatingCredential:
    """A ``CredentialSource``: gives the newest value, and the one before it while the newest is rejected.

    Whoever rotates a secret changes it in two places, and one of them is first. So a server may still want the old
    value when the new one is known here (the old one is kept until then), or already want the new one when only the old
    one is known (a rejection looks for a newer one at once).

    Args:
        first: the value at the start.
        look: looks for newer values now; blocks for as long as that takes, and never raises.
        used: called at each use; it keeps the watch alive.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        first: Credential,
        *,
        look: Callable[[], None],
        used: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = first
        self._before: Credential | None = None
        self._before_until = 0.0
        self._look = look
        self._used = used
        self._clock = clock
        self._lock = Lock()

    def __call__(self) -> Credential:
        """Return the value to use now; reads memory only."""
        self._used()
        before = self._before
        if before is not None and self._clock() < self._before_until:
            return before
        return self._now

    @property
    def newest(self) -> Credential:
        """The newest value, accepted or not."""
        return self._now

    def replace(self, newer: Credential) -> bool:
        """Take over a newer value; the present one becomes the one before. False where it is the same value."""
        with self._lock:
            if newer.reveal() == self._now.reveal():
                self._now = newer
                return False
            self._before, self._now = self._now, newer
            self._before_until = 0.0
            return True

    def instead_of(self, rejected: Credential) -> Credential | None:
        """Return another value after a server rejected one: a newer one, else the one before, else None.

        Blocks while it looks for a newer one. Where the newest was rejected and there is one before it, that one is
        given to everybody for ``RETRY_AFTER_S``; then the newest is tried again.
        """
        value = rejected.reveal()
        if value == self._now.reveal():
            self._look()
        with self._lock:
            if value != self._now.reveal():
                self._before_until = 0.0
                return self._now
            if self._before is None or self._before.reveal() == value:
                return None
            self._before_until = self._clock() + RETRY_AFTER_S
            return self._before
