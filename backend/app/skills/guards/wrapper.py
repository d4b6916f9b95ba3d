"""What the guards share: being an adapter around an adapter, one deadline, and work that cancellation does not stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, TypeAlias, TypeVar

from app.errors import LLMError, StoreUnavailableError
from app.skills.llm_invoke_v2 import CallContext, LLMAdapter, LLMConfig, StreamEvent

__all__ = ["Clock", "Deadline", "Guard", "Patience", "Sleep", "closing_stream", "ended_early", "persist", "to_the_end"]

Clock: TypeAlias = Callable[[], float]
"""Seconds from a point that does not matter; never goes back."""

Sleep: TypeAlias = Callable[[float], Awaitable[None]]

T = TypeVar("T")


class Guard(LLMAdapter):
    """An adapter around an adapter, with its id and its default model."""

    def __init__(self, inner: LLMAdapter) -> None:
        self.inner: Final = inner
        self.adapter_id = inner.adapter_id

    @property
    def default_model(self) -> str:
        """The model of a call that names none."""
        return self.inner.default_model

    async def aclose(self) -> None:
        """Close what is inside."""
        await self.inner.aclose()


class Deadline:
    """The wall-clock end of a call, retries and fallbacks included; the shorter of the config's and the context's."""

    __slots__ = ("_clock", "_end")

    def __init__(self, config: LLMConfig, context: CallContext, *, clock: Clock = time.monotonic) -> None:
        given = config.timeout_s
        if context.deadline is not None:
            given = min(given, context.deadline.total_seconds())
        self._clock = clock
        self._end = clock() + given

    def remaining_s(self) -> float:
        """Return the seconds that are left; not above zero once it has passed."""
        return self._end - self._clock()

    def allows(self, seconds: float) -> bool:
        """Whether something would still be left after so many seconds."""
        return seconds < self.remaining_s()

    def narrow(
        self, config: LLMConfig, context: CallContext, *, adapter_id: str, **changes: Any
    ) -> tuple[LLMConfig, CallContext]:
        """Return the config and context of a call that has what is left.

        Args:
            changes: fields of the context that differ too, so that a copy is made once: it is made for every call.

        Raises:
            LLMError: nothing is left, so nothing is sent.
        """
        remaining_s = self.remaining_s()
        if remaining_s <= 0:
            raise LLMError(
                "the deadline of the call passed before it could be sent; give it a longer timeout_s",
                code="ERR_LLM_TIMEOUT",
                retryable=True,
                billed="no",
                provider=adapter_id,
                model=config.model,
            )
        narrowed = replace(context, deadline=timedelta(seconds=remaining_s), **changes)
        return replace(config, timeout_s=remaining_s), narrowed


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long something that must reach a store is tried.

    Attributes:
        total_s: the most that it may take in all.
        first_pause_s, longest_pause_s: between two tries, doubling.
        clock, sleep: the present time and the pause, for tests.
    """

    total_s: float = 10.0
    first_pause_s: float = 0.05
    longest_pause_s: float = 1.0
    clock: Clock = time.monotonic
    sleep: Sleep = asyncio.sleep


async def persist(verb: Callable[[], Awaitable[T]], patience: Patience) -> T:
    """Return what ``verb`` gives, tried again while its store does not answer and patience lasts.

    The verb must be safe to repeat: that its store did not answer does not mean that nothing happened.

    Raises:
        StoreUnavailableError: the store did not answer in all that time.
        Exception: whatever else the verb raises, at once.
    """
    end = patience.clock() + patience.total_s
    pause_s = patience.first_pause_s
    while True:
        try:
            return await verb()
        except StoreUnavailableError:
            if patience.clock() + pause_s >= end:
                raise
        await patience.sleep(pause_s)
        pause_s = min(2 * pause_s, patience.longest_pause_s)


async def to_the_end(work: Awaitable[T]) -> T:
    """Await something short to its end, cancelled or not; a cancellation that came meanwhile is raised afterwards.

    Where the work failed and the caller was cancelled too, the cancellation is raised, with the failure as its cause.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    raise cancelled from (None if task.cancelled() else task.exception())


@asynccontextmanager
async def closing_stream(events: AsyncIterator[StreamEvent]) -> AsyncIterator[AsyncIterator[StreamEvent]]:
    """Close a stream when the block ends, however it ends, so that its connection is not left to the collector."""
    try:
        yield events
    finally:
        aclose = getattr(events, "aclose", None)
        if aclose is not None:
            await aclose()


def ended_early(adapter_id: str, *, model: str | None, received: str = "") -> LLMError:
    """Return the error of a stream that ended without :class:`StreamEnd`: nobody knows what it cost."""
    return LLMError(
        f"the stream of {adapter_id!r} ended without its last event",
        code="ERR_LLM_STREAM_CUT",
        retryable=True,
        billed="unknown",
        provider=adapter_id,
        model=model,
        partial_text=received,
    )
