"""What the tests of workflows share: a scripted adapter, a store that dies, and a listener that remembers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

from app.errors import BudgetExceededError
from app.skills.llm_invoke_v2 import (
    CallContext,
    LLMAdapter,
    LLMConfig,
    LLMResponse,
    LLMUsage,
    Prompt,
    StreamEnd,
    StreamEvent,
)
from app.stores.checkpoint.contract import CheckpointStorage
from app.stores.checkpoint.memory import InMemoryCheckpointStore
from app.workflow.engine import RunListener, Runner

VERBS = (
    "create",
    "claim",
    "heartbeat",
    "heartbeat_all",
    "release",
    "append",
    "finish",
    "load",
    "head",
    "abort",
    "list_runs",
)


async def no_sleep(seconds: float) -> None:
    """Return at once, after the other tasks had their turn."""
    await asyncio.sleep(0)


def refused(scope: str = "tenant") -> BudgetExceededError:
    """Return the error of a budget guard whose limit is reached."""
    return BudgetExceededError(
        f"the limit of {scope!r} is reached",
        scope=scope,
        window="total",
        limit=5,
        spent=5,
        held=0,
        requested=1,
        resets_at=None,
    )


class ScriptedAdapter(LLMAdapter):
    """Answers by a function of the prompt, and remembers each call with its context; stands in for a guarded adapter.

    Like the guard, it answers a key that it knows with what it answered before, and does not count that as a call.
    """

    adapter_id = "scripted"

    def __init__(self, answer: Callable[[str], str] = str.upper) -> None:
        self.answer = answer
        self.calls: list[tuple[str, CallContext]] = []
        self._known: dict[str, LLMResponse] = {}

    @property
    def default_model(self) -> str:
        """The only model."""
        return "scripted-1"

    async def invoke(
        self, prompt: Prompt, config: LLMConfig | None = None, *, context: CallContext | None = None
    ) -> LLMResponse:
        """Answer."""
        assert isinstance(prompt, str)
        assert context is not None
        assert context.idempotency_key is not None
        if context.idempotency_key in self._known:
            return self._known[context.idempotency_key]
        await asyncio.sleep(0)
        self.calls.append((prompt, context))
        response = LLMResponse(
            content=self.answer(prompt),
            input_tokens=len(prompt),
            output_tokens=3,
            model="scripted-1",
            finish_reason="stop",
            latency_ms=1.5,
            usage=LLMUsage(input_tokens=len(prompt), output_tokens=3),
            cost=10 * len(prompt),
            price_version="test",
            provider=self.adapter_id,
            metered=True,
            warnings=("a warning",),
        )
        self._known[context.idempotency_key] = response
        return response

    async def stream(
        self, prompt: Prompt, config: LLMConfig | None = None, *, context: CallContext | None = None
    ) -> AsyncIterator[StreamEvent]:
        """Answer in one piece."""
        yield StreamEnd(await self.invoke(prompt, config, context=context))


class ProcessDiedError(BaseException):
    """Stands for SIGKILL within one process: nobody handles it, and nothing is written afterwards."""


class MortalStore:
    """A checkpoint store whose process dies at the ``dies_at``-th verb: before it takes effect, or right after.

    From then on every verb raises, so that no clean-up of the dead reaches the store.
    """

    def __init__(self, inner: CheckpointStorage, *, dies_at: int, after_effect: bool) -> None:
        self._inner = inner
        self._dies_at = dies_at
        self._after_effect = after_effect
        self.verbs = 0
        self.dead = False

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._inner, name)
        if name not in VERBS:
            return verb

        async def mortal(*args: Any, **options: Any) -> Any:
            if self.dead:
                raise ProcessDiedError
            self.verbs += 1
            dying = self.verbs == self._dies_at
            if dying and not self._after_effect:
                self.dead = True
                raise ProcessDiedError
            result = await verb(*args, **options)
            if dying:
                self.dead = True
                raise ProcessDiedError
            return result

        return mortal


class Memory(RunListener):
    """Remembers the events, as names with the most telling fact."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.counts: Counter[str] = Counter()

    def note(self, event: str, detail: object = "") -> None:
        """Keep an event."""
        self.events.append(f"{event} {detail}".strip())
        self.counts[event] += 1

    def run_started(self, *, run_id: str, workflow: str, resumed: bool, steps_recorded: int) -> None:
        """Keep it."""
        self.note("resumed" if resumed else "started", steps_recorded)

    def step_started(self, *, run_id: str, step_id: str, attempt: int) -> None:
        """Keep it."""
        self.note("step_started", step_id)

    def step_retrying(self, *, run_id: str, step_id: str, attempt: int, delay: timedelta, error: Exception) -> None:
        """Keep it."""
        self.note("retrying", f"{step_id} {delay.total_seconds():g}")

    def step_recorded(self, *, run_id: str, step_id: str, attempts: int, cost: int | None) -> None:
        """Keep it."""
        self.note("recorded", step_id)

    def step_replayed(self, *, run_id: str, step_id: str, cost: int | None) -> None:
        """Keep it."""
        self.note("replayed", step_id)

    def run_waiting(self, *, run_id: str, waiting_for: str, reason: str) -> None:
        """Keep it."""
        self.note("waiting", waiting_for)

    def run_ended(self, *, run_id: str, status: str) -> None:
        """Keep it."""
        self.note("ended", str(status))


def forgiving_store() -> InMemoryCheckpointStore:
    """Return a store in memory that takes every other holder for dead: a resume takes over at once."""
    return InMemoryCheckpointStore(is_gone=lambda _: True)


def runner_on(checkpoints: object, **options: Any) -> Runner:
    """Return a runner that never waits; ``options`` as of :class:`Runner`."""
    return Runner(**{"checkpoints": checkpoints, "sleep": no_sleep, "random": lambda: 0.5, **options})
