"""An adapter that does what a script says, a clock that only moves when somebody sleeps, and what they need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

from app.errors import LLMError
from app.skills.llm_invoke_v2 import (
    CallContext,
    LLMAdapter,
    LLMConfig,
    LLMResponse,
    LLMUsage,
    Prompt,
    StreamEnd,
    StreamEvent,
    TextDelta,
)

__all__ = [
    "Call",
    "FakeTime",
    "Outcome",
    "ScriptedAdapter",
    "answer",
    "cancelled_at",
    "collect",
    "failure",
    "scheduling_points",
    "until",
]


@dataclass(frozen=True)
class Call:
    """One call that reached the provider."""

    prompt: Prompt
    config: LLMConfig
    context: CallContext


Outcome: TypeAlias = LLMResponse | BaseException
"""How a call ends: with a response, or by raising. A cut stream raises after its pieces."""


def answer(text: str = "hello there", *, read: int | None = 5, generated: int | None = 3, **more: Any) -> LLMResponse:
    """Return a response; by default it costs 5 x 100 + 3 x 200 = 1,100 microcents with the stub's prices."""
    return LLMResponse(
        content=text,
        input_tokens=read,
        output_tokens=generated,
        model="stub-1",
        finish_reason="stop",
        latency_ms=1.25,
        usage=LLMUsage(input_tokens=read, output_tokens=generated, complete=read is not None and generated is not None),
        provider="stub",
        metered=True,
        **more,
    )


def failure(code: str = "ERR_LLM_OVERLOADED", **more: Any) -> LLMError:
    """Return a provider's error: retryable and unbilled, where nothing else is said."""
    return LLMError("it did not work", code=code, **{"retryable": True, "billed": "no", "provider": "stub", **more})


class ScriptedAdapter(LLMAdapter):
    """Gives one outcome after another, the last one for ever, and counts what it does.

    Args:
        outcomes: in the order of the calls.
        awaits: how often a call yields to the event loop before its outcome, and a stream before each event.
        pieces: how many pieces a stream has before its outcome.
        before: run when a call arrives, such as a clock that moves.
    """

    def __init__(
        self,
        *outcomes: Outcome,
        awaits: int = 1,
        pieces: int = 2,
        adapter_id: str = "stub",
        model: str = "stub-1",
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self.adapter_id = adapter_id
        self.outcomes: Sequence[Outcome] = outcomes or (answer(),)
        self.calls: list[Call] = []
        self.open_streams = 0
        self.closed = False
        self._awaits = awaits
        self._pieces = pieces
        self._model = model
        self._before = before

    @property
    def default_model(self) -> str:
        """The model of a call that names none."""
        return self._model

    async def invoke(
        self, prompt: Prompt, config: LLMConfig | None = None, *, context: CallContext | None = None
    ) -> LLMResponse:
        """Give the next outcome."""
        outcome = self._next(prompt, config, context)
        await self._yield()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def stream(
        self, prompt: Prompt, config: LLMConfig | None = None, *, context: CallContext | None = None
    ) -> AsyncIterator[StreamEvent]:
        """Give the next outcome in pieces."""
        outcome = self._next(prompt, config, context)
        text = outcome.content if isinstance(outcome, LLMResponse) else "hello there"
        size = max(1, -(-len(text) // max(1, self._pieces)))
        self.open_streams += 1
        try:
            for start in range(0, len(text) if self._pieces else 0, size):
                await self._yield()
                yield TextDelta(text[start : start + size])
            await self._yield()
            if isinstance(outcome, BaseException):
                raise outcome
            yield StreamEnd(outcome)
        finally:
            self.open_streams -= 1

    async def aclose(self) -> None:
        """Note that it was closed."""
        self.closed = True

    def _next(self, prompt: Prompt, config: LLMConfig | None, context: CallContext | None) -> Outcome:
        self._before()
        self.calls.append(Call(prompt, config or LLMConfig(), context or CallContext()))
        return self.outcomes[min(len(self.calls), len(self.outcomes)) - 1]

    async def _yield(self) -> None:
        for _ in range(self._awaits):
            await asyncio.sleep(0)


class FakeTime:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []

    def clock(self) -> float:
        """Return the present time."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Move the time on and let others run."""
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def pass_by(self, duration: timedelta | float) -> None:
        """Move the time on."""
        self.now += duration.total_seconds() if isinstance(duration, timedelta) else duration


async def collect(events: AsyncIterator[StreamEvent]) -> tuple[str, LLMResponse]:
    """Read a stream to its end: the text of its pieces, and the response."""
    pieces: list[str] = []
    response: LLMResponse | None = None
    async for event in events:
        assert response is None, "the end is the last event"
        if isinstance(event, StreamEnd):
            response = event.response
        elif isinstance(event, TextDelta):
            pieces.append(event.text)
    assert response is not None, "a stream has an end"
    return "".join(pieces), response


async def cancelled_at(point: int, work: Callable[[], Any]) -> bool:
    """Run ``work`` and cancel it after ``point`` turns of the event loop; whether it was still running then."""
    task = asyncio.ensure_future(work())
    for _ in range(point):
        await asyncio.sleep(0)
        if task.done():
            break
    running = not task.done()
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled():
        task.result()
    return running


async def scheduling_points(check: Callable[[int], Any], *, most: int = 200) -> int:
    """Call ``check`` with 0, 1, 2, ... until it says that the work had ended by then; return how many those are."""
    for point in range(most):
        if not await check(point):
            return point
    raise AssertionError(f"the work did not end within {most} turns")


async def until(happened: Callable[[], bool], *, most: int = 10_000) -> None:
    """Let others run until something happened."""
    for _ in range(most):
        if happened():
            return
        await asyncio.sleep(0)
    raise AssertionError(f"it did not happen within {most} turns")
