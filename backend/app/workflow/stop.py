"""Why a run stops before its end, and how: gently, what is under way being finished and recorded first, or at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from enum import StrEnum
from typing import Any, TypeVar

__all__ = ["Stop", "StopCause", "finish_anyway", "first_of"]

T = TypeVar("T")


class StopCause(StrEnum):
    """``parked`` by a budget, ``drained`` on request and ``interrupted`` by an error of a store or listener are gentle.

    ``deadline``, ``lost`` (the lease) and ``aborted`` are not: what is in flight is cancelled.
    """

    PARKED = "parked"
    DRAINED = "drained"
    INTERRUPTED = "interrupted"
    DEADLINE = "deadline"
    LOST = "lost"
    ABORTED = "aborted"


_AT_ONCE = frozenset({StopCause.DEADLINE, StopCause.LOST, StopCause.ABORTED})


class Stop:
    """The one place where a run learns that it must stop. The first cause holds; but "at once" wins over gently.

    Attributes:
        hurried: somebody waits for the run to stop; not where it only came to its end, or to its budget's.
    """

    def __init__(self) -> None:
        self.cause: StopCause | None = None
        self.error: Exception | None = None
        self.hurried = False
        self._requested = asyncio.Event()
        self._at_once = asyncio.Event()

    def request(self, cause: StopCause, error: Exception | None = None) -> None:
        """Ask the run to stop; later requests of the same urgency change nothing."""
        self.hurried = self.hurried or cause is not StopCause.PARKED
        self._close(cause, error)

    def end(self) -> None:
        """Say that the workflow ended: no step of it begins any more, and what is under way has its time."""
        self._close(StopCause.DRAINED, None)

    @property
    def requested(self) -> bool:
        """Whether no new step may begin."""
        return self._requested.is_set()

    @property
    def at_once(self) -> bool:
        """Whether steps in flight are cancelled too."""
        return self._at_once.is_set()

    async def wait(self) -> None:
        """Return when a stop is requested."""
        await self._requested.wait()

    async def wait_at_once(self) -> None:
        """Return when a stop at once is requested."""
        await self._at_once.wait()

    def _close(self, cause: StopCause, error: Exception | None) -> None:
        urgent = cause in _AT_ONCE
        if self.cause is None or (urgent and not self.at_once):
            self.cause, self.error = cause, error
        self._requested.set()
        if urgent:
            self._at_once.set()


async def first_of(*waits: Coroutine[Any, Any, Any] | asyncio.Future[Any]) -> None:
    """Return when one of ``waits`` is done; coroutines are then cancelled, futures are left as they are."""
    owned = [asyncio.ensure_future(wait) for wait in waits if asyncio.iscoroutine(wait)]
    given = [wait for wait in waits if isinstance(wait, asyncio.Future)]
    try:
        await asyncio.wait([*owned, *given], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in owned:
            task.cancel()
        await asyncio.gather(*owned, return_exceptions=True)


async def finish_anyway(action: Awaitable[T], *, on_cancel: Callable[[], None] | None = None) -> T:
    """Await a short action to its end even if the caller is cancelled meanwhile; the cancellation follows then.

    Args:
        action: the action.
        on_cancel: tells the action that somebody waits for its end.
    """
    task = asyncio.ensure_future(action)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if on_cancel is not None:
            on_cancel()
        while not task.done():
            # A second cancellation does not cut it either: a write under way must be known to stand or not.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # the cancellation is what the caller hears; the write's own error changes nothing now
        raise
