"""The retry guard: attempts within one deadline."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from app.errors import InvalidInputError, LLMError
from app.metrics import guard_metrics
from app.skills.guards.wrapper import Clock, Deadline, Guard, Sleep, closing_stream
from app.skills.llm_invoke_v2 import CallContext, LLMAdapter, LLMConfig, LLMResponse, Prompt, StreamEvent

__all__ = ["RetryPolicy", "RetryingAdapter"]

_FOR_ANOTHER: Final = frozenset({"ERR_LLM_CIRCUIT_OPEN"})
"""What is not waited for here, because another adapter may be there: the caller may try again later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How a call is tried again.

    Attributes:
        max_attempts: how often it is sent in all, at least 1.
        first_backoff_s: the pause before the second attempt; it doubles from attempt to attempt.
        longest_backoff_s: the most that it grows to. A longer Retry-After is obeyed all the same.
        jitter: the share of a pause that is random, 0 to 1: callers that failed together do not return together.
    """

    max_attempts: int = 4
    first_backoff_s: float = 0.5
    longest_backoff_s: float = 8.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        """Refuse a policy that cannot be followed.

        Raises:
            InvalidInputError: which field, its value, and what it may be.
        """
        if self.max_attempts < 1:
            raise InvalidInputError(f"max_attempts must be at least 1 ({self.max_attempts} given)")
        if not 0 < self.first_backoff_s <= self.longest_backoff_s:
            raise InvalidInputError(
                f"first_backoff_s must be above 0 and at most longest_backoff_s ({self.first_backoff_s} given)"
            )
        if not 0 <= self.jitter <= 1:
            raise InvalidInputError(f"jitter must be from 0 to 1 ({self.jitter} given)")

    def backoff_s(self, attempt: int, random_share: float) -> float:
        """Return the pause after the given attempt (from 1); ``random_share`` is from 0 to 1."""
        longest = min(self.longest_backoff_s, self.first_backoff_s * 2.0 ** min(attempt - 1, 60))
        return longest * (1 - self.jitter * random_share)


class RetryingAdapter(Guard):
    """Makes a call again while its error is retryable, attempts are left and the deadline allows.

    The promise: at most ``max_attempts`` attempts, one after another, none of them begun after the deadline (the
    shorter of ``config.timeout_s`` and ``context.deadline``, for all attempts and pauses together); each attempt is
    told what is left. A Retry-After is waited for in full, or, where the deadline does not allow that, not at all: the
    error is raised at once. A stream is made again only before its first event. Each attempt has its number in the
    context, and so a hold of its own.

    Args:
        inner: makes one attempt per call.
        policy: None is the default policy.
        clock, sleep, random_share: the present time, the pause, and numbers from 0 to 1, for tests.
    """

    def __init__(
        self,
        inner: LLMAdapter,
        *,
        policy: RetryPolicy | None = None,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        random_share: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(inner)
        self._policy = policy or RetryPolicy()
        self._clock = clock
        self._sleep = sleep
        self._random_share = random_share

    async def invoke(
        self, prompt: Prompt, config: LLMConfig | None = None, *, context: CallContext | None = None
    ) -> LLMResponse:
        """Make the call; the error that is raised is the one of the last attempt."""
        config, context = config or LLMConfig(), context or CallContext()
        deadline = Deadline(config, context, clock=self._clock)
        attempt = 1
        while True:
            now_config, now_context = self._attempt(deadline, config, context, attempt)
            try:
                return await self.inner.invoke(prompt, now_config, context=now_context)
            except LLMError as error:
                pause_s = self._pause_s(error, attempt, deadline)
                if pause_s is None:
                    raise
                await self._count(error)
            await self._sleep(pause_s)
            attempt += 1

    async def stream(
        self, prompt: Prompt, config: LLMConfig | None = None, *, context: CallContext | None = None
    ) -> AsyncIterator[StreamEvent]:
        """Stream the call; after the first event an error is raised as it is."""
        config, context = config or LLMConfig(), context or CallContext()
        deadline = Deadline(config, context, clock=self._clock)
        attempt = 1
        delivered = False
        while True:
            now_config, now_context = self._attempt(deadline, config, context, attempt)
            try:
                async with closing_stream(self.inner.stream(prompt, now_config, context=now_context)) as events:
                    async for event in events:
                        delivered = True
                        yield event
                return
            except LLMError as error:
                pause_s = None if delivered else self._pause_s(error, attempt, deadline)
                if pause_s is None:
                    raise
                await self._count(error)
            await self._sleep(pause_s)
            attempt += 1

    def _attempt(
        self, deadline: Deadline, config: LLMConfig, context: CallContext, attempt: int
    ) -> tuple[LLMConfig, CallContext]:
        return deadline.narrow(config, context, adapter_id=self.adapter_id, attempt=attempt)

    async def _count(self, error: LLMError) -> None:
        (await guard_metrics()).retries.labels(self.adapter_id, error.code).inc()

    def _pause_s(self, error: LLMError, attempt: int, deadline: Deadline) -> float | None:
        """Return how long to wait before the next attempt, or None where there is to be none."""
        if not error.retryable or attempt >= self._policy.max_attempts or error.code in _FOR_ANOTHER:
            return None
        pause_s = self._policy.backoff_s(attempt, self._random_share())
        if error.retry_after is not None:
            pause_s = max(pause_s, error.retry_after.total_seconds())
        return pause_s if deadline.allows(pause_s) else None
