"""The breaker guard: a provider that fails again and again is left alone for a while."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Literal

from app.errors import Category, InvalidInputError, LLMError
from app.metrics import guard_metrics
from app.skills.guards.wrapper import Clock, Guard, closing_stream
from app.skills.llm_invoke_v2 import CallContext, LLMAdapter, LLMConfig, LLMResponse, Prompt, StreamEvent

__all__ = ["BreakerPolicy", "BreakingAdapter", "Circuits"]

_CATEGORIES: Final[frozenset[Category]] = frozenset({"TRANSIENT", "TIMEOUT", "NETWORK", "SERVER_ERROR"})
"""What a provider in trouble fails with. A rate limit, a rejection and a refusal show that it is there."""

_Outcome = Literal["worked", "failed", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When a circuit opens, and for how long.

    Attributes:
        failures: so many in a row open it; 0 never does.
        open_s: how long no call is made then; after that one call at a time tries whether it works again.
    """

    failures: int = 10
    open_s: float = 30.0

    def __post_init__(self) -> None:
        """Refuse a policy that cannot be followed.

        Raises:
            InvalidInputError: which field, its value, and what it may be.
        """
        if self.failures < 0:
            raise InvalidInputError(f"failures must be at least 0 ({self.failures} given)")
        if self.open_s <= 0:
            raise InvalidInputError(f"open_s must be above 0 ({self.open_s} given)")


@dataclass(slots=True)
class _Circuit:
    """What is known of one model. Only its methods change it, and there is no await in them."""

    failures: int = 0
    opened_at: float | None = None
    trying: bool = False

    def admit(self, policy: BreakerPolicy, now: float) -> float | None:
        """Return None where a call may be made now, else how many seconds it has to wait."""
        if self.opened_at is None:
            return None
        left_s = self.opened_at + policy.open_s - now
        if left_s > 0:
            return left_s
        if self.trying:
            return policy.open_s  # somebody tries it now; if that fails, it is so long
        self.trying = True
        return None

    def ended(self, outcome: _Outcome, policy: BreakerPolicy, now: float, *, tried: bool) -> None:
        """Take over how a call ended that was admitted; ``tried``: it was the one that tries an open circuit."""
        if tried:
            self.trying = False
        if outcome == "worked":
            self.failures, self.opened_at = 0, None
        elif outcome == "failed":
            self.failures += 1
            if tried or (self.opened_at is None and self.failures >= policy.failures):
                self.opened_at = now


@dataclass(slots=True)
class Circuits:
    """The circuits of one provider in this process, by model: share them among the guards of the same adapter."""

    by_model: dict[str, _Circuit] = field(default_factory=dict)

    def of(self, model: str) -> _Circuit:
        """Return the circuit of a model."""
        return self.by_model.setdefault(model, _Circuit())


class BreakingAdapter(Guard):
    """Makes no call while the circuit of its model is open.

    The promise: after ``policy.failures`` failures in a row (timeouts, broken connections, overload, server errors; not
    rate limits, rejections or refusals) calls are refused at once, unbilled, with ``ERR_LLM_CIRCUIT_OPEN``, for
    ``policy.open_s``; then one call tries, and the others go on being refused until it has ended. It closes the circuit
    by an answer, and opens it again by a failure. A call that was cancelled says nothing.

    Args:
        inner: makes one attempt per call.
        policy: None is the default policy.
        circuits: None is one of its own.
        clock: the present time, for tests.
    """

    def __init__(
        self,
        inner: LLMAdapter,
        *,
        policy: BreakerPolicy | None = None,
        circuits: Circuits | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(inner)
        self._policy = policy or BreakerPolicy()
        self._circuits = circuits or Circuits()
        self._clock = clock

    async def invoke(
        self, prompt: Prompt, config: LLMConfig | None = None, *, context: CallContext | None = None
    ) -> LLMResponse:
        """Make the call, or refuse it.

        Raises:
            LLMError: ``ERR_LLM_CIRCUIT_OPEN``: nothing was sent; or as the inner adapter.
        """
        circuit, tries = await self._admitted(config)
        with self._watched(circuit, tries=tries):
            return await self.inner.invoke(prompt, config, context=context)

    async def stream(
        self, prompt: Prompt, config: LLMConfig | None = None, *, context: CallContext | None = None
    ) -> AsyncIterator[StreamEvent]:
        """Stream the call, or refuse it; errors as for ``invoke``."""
        circuit, tries = await self._admitted(config)
        with self._watched(circuit, tries=tries):
            async with closing_stream(self.inner.stream(prompt, config, context=context)) as events:
                async for event in events:
                    yield event

    async def _admitted(self, config: LLMConfig | None) -> tuple[_Circuit, bool]:
        """Return the circuit of a call that may be made, and whether it is one that tries."""
        model = (config.model if config is not None else None) or self.default_model
        circuit = self._circuits.of(model)
        wait_s = circuit.admit(self._policy, self._clock())
        if wait_s is None:
            return circuit, circuit.opened_at is not None
        (await guard_metrics()).circuit_refusals.labels(self.adapter_id).inc()
        raise LLMError(
            f"{self.adapter_id}, model {model}: {circuit.failures} calls failed in a row, so none is made for "
            f"{wait_s:.0f} s more (LLM_BREAKER_FAILURES sets after how many, LLM_FALLBACK another provider)",
            code="ERR_LLM_CIRCUIT_OPEN",
            retryable=True,
            billed="no",
            provider=self.adapter_id,
            model=model,
            retry_after=timedelta(seconds=wait_s),
        )

    @contextmanager
    def _watched(self, circuit: _Circuit, *, tries: bool) -> Iterator[None]:
        outcome: _Outcome = "unknown"
        try:
            yield
            outcome = "worked"
        except LLMError as error:
            outcome = "failed" if error.category in _CATEGORIES else "worked"
            raise
        finally:
            circuit.ended(outcome, self._policy, self._clock(), tried=tries)
