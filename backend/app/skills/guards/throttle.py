"""The throttle guard: so many calls of a model at once, and so many a minute."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakKeyDictionary

from app.errors import InvalidInputError, LLMError
from app.metrics import guard_metrics
from app.skills.guards.wrapper import Clock, Deadline, Guard, Sleep, closing_stream
from app.skills.llm_invoke_v2 import CallContext, LLMAdapter, LLMConfig, LLMResponse, Prompt, StreamEvent

__all__ = ["Lanes", "ThrottlePolicy", "ThrottledAdapter"]

_MINUTE_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ThrottlePolicy:
    """How fast a model is called from this process; None is no limit.

    Attributes:
        concurrency: how many calls are under way at once.
        per_minute: how many calls begin within any 60 seconds.
    """

    concurrency: int | None = None
    per_minute: int | None = None

    def __post_init__(self) -> None:
        """Refuse a policy that cannot be followed.

        Raises:
            InvalidInputError: which field, its value, and what it may be.
        """
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidInputError(f"{name} must be at least 1 ({value} given)")

    @property
    def limits(self) -> bool:
        """Whether there is any limit."""
        return self.concurrency is not None or self.per_minute is not None


@dataclass(slots=True)
class _Lane:
    """The calls of one model: when the latest began, and the locks of each event loop. Nothing outlives its loop."""

    begun: deque[float] = field(default_factory=deque)
    slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = field(default_factory=WeakKeyDictionary)
    turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = field(default_factory=WeakKeyDictionary)


@dataclass(slots=True)
class Lanes:
    """The lanes of one provider in this process, by model: share them among the guards of the same adapter."""

    by_model: dict[str, _Lane] = field(default_factory=dict)

    def of(self, model: str) -> _Lane:
        """Return the lane of a model."""
        return self.by_model.setdefault(model, _Lane())


class ThrottledAdapter(Guard):
    """Lets calls wait for their turn, in the order in which they came.

    The promise: of one model no more than ``policy.concurrency`` calls are under way at once in an event loop, and no
    more than ``policy.per_minute`` begin within any 60 seconds. A call whose deadline passes meanwhile is not made, and
    its error says so, unbilled. No hold is taken before its turn.

    Args:
        inner: makes one attempt per call.
        policy: the limits.
        lanes: None is one of its own.
        clock, sleep: the present time and the pause, for tests.
    """

    def __init__(
        self,
        inner: LLMAdapter,
        *,
        policy: ThrottlePolicy,
        lanes: Lanes | None = None,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        super().__init__(inner)
        self._policy = policy
        self._lanes = lanes or Lanes()
        self._clock = clock
        self._sleep = sleep

    async def invoke(
        self, prompt: Prompt, config: LLMConfig | None = None, *, context: CallContext | None = None
    ) -> LLMResponse:
        """Make the call in its turn.

        Raises:
            LLMError: ``ERR_LLM_TIMEOUT`` where its turn did not come before its deadline; or as the inner adapter.
        """
        config, context = config or LLMConfig(), context or CallContext()
        async with self._turn(config, context) as (own_config, own_context):
            return await self.inner.invoke(prompt, own_config, context=own_context)

    async def stream(
        self, prompt: Prompt, config: LLMConfig | None = None, *, context: CallContext | None = None
    ) -> AsyncIterator[StreamEvent]:
        """Stream the call in its turn; errors as for ``invoke``."""
        config, context = config or LLMConfig(), context or CallContext()
        async with (
            self._turn(config, context) as (own_config, own_context),
            closing_stream(self.inner.stream(prompt, own_config, context=own_context)) as events,
        ):
            async for event in events:
                yield event

    @asynccontextmanager
    async def _turn(self, config: LLMConfig, context: CallContext) -> AsyncIterator[tuple[LLMConfig, CallContext]]:
        """Wait for a turn; inside of the block the call has what is left of its time."""
        lane = self._lanes.of(config.model or self.default_model)
        deadline = Deadline(config, context, clock=self._clock)
        families = await guard_metrics()
        began = self._clock()
        slot = self._slot(lane)
        try:
            async with asyncio.timeout(max(deadline.remaining_s(), 0)):
                await slot.acquire()
        except TimeoutError:
            raise self._too_late(config) from None
        try:
            await self._begin(lane, deadline, config)
            families.throttled_seconds.labels(self.adapter_id).inc(max(0.0, self._clock() - began))
            with families.in_flight.labels(self.adapter_id).track_inprogress():
                yield deadline.narrow(config, context, adapter_id=self.adapter_id)
        finally:
            slot.release()

    def _slot(self, lane: _Lane) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        if loop not in lane.slots:
            lane.slots[loop] = asyncio.Semaphore(self._policy.concurrency or 1_000_000)
        return lane.slots[loop]

    async def _begin(self, lane: _Lane, deadline: Deadline, config: LLMConfig) -> None:
        """Wait until a call may begin, and note that it does; whoever came first waits first."""
        if self._policy.per_minute is None:
            return
        loop = asyncio.get_running_loop()
        turn = lane.turns.setdefault(loop, asyncio.Lock())
        async with turn:
            while True:
                # Between this look and the note below there is no await, so no two calls take the same place.
                now = self._clock()
                while lane.begun and lane.begun[0] <= now - _MINUTE_S:
                    lane.begun.popleft()
                if len(lane.begun) < self._policy.per_minute:
                    lane.begun.append(now)
                    return
                wait_s = lane.begun[0] + _MINUTE_S - now
                if not deadline.allows(wait_s):
                    raise self._too_late(config)
                await self._sleep(wait_s)

    def _too_late(self, config: LLMConfig) -> LLMError:
        return LLMError(
            f"{self.adapter_id}, model {config.model or self.default_model}: the turn of the call did not come before "
            "its deadline; raise LLM_MAX_CONCURRENCY or LLM_MAX_RPM, or give it a longer timeout_s",
            code="ERR_LLM_TIMEOUT",
            retryable=True,
            billed="no",
            provider=self.adapter_id,
            model=config.model or self.default_model,
        )
