"""The fallback guard: another adapter where the first one cannot."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Final

from app.errors import Category, InvalidInputError, LLMError
from app.metrics import guard_metrics
from app.skills.guards.wrapper import Clock, Deadline, Guard, closing_stream
from app.skills.llm_invoke_v2 import (
    CallContext,
    LLMAdapter,
    LLMConfig,
    LLMResponse,
    Prompt,
    StreamEnd,
    StreamEvent,
)

__all__ = ["FallbackAdapter"]

_CATEGORIES: Final[frozenset[Category]] = frozenset({"TRANSIENT", "RATE_LIMIT", "TIMEOUT", "NETWORK", "SERVER_ERROR"})
_CODES: Final = frozenset({"ERR_LLM_INVALID_MODEL"})


class FallbackAdapter(Guard):
    """Tries adapters in order, while the one before could not do what another one may.

    The promise: the next adapter is asked only after a transient error, a rate limit, overload, a timeout, a network or
    server error, or a model that does not exist, and only while the deadline of the whole call lasts; never after a
    refusal by a budget, a rejected prompt, blocked content or failed authentication, which another adapter must not get
    around. A stream moves on only before its first event. ``fallback_from`` of the response says why each earlier
    adapter was passed over.

    The model that a call names is the first adapter's; the others use their own default model. ``extra`` goes only to
    adapters of the same provider; elsewhere its names are in ``dropped_params``.

    Args:
        adapters: at least one, best first.
        clock: the present time, for tests.
    """

    def __init__(self, adapters: Sequence[LLMAdapter], *, clock: Clock = time.monotonic) -> None:
        if not adapters:
            raise InvalidInputError("a FallbackAdapter needs at least one adapter")
        super().__init__(adapters[0])
        self._adapters = tuple(adapters)
        self._clock = clock

    async def aclose(self) -> None:
        """Close all adapters."""
        for adapter in self._adapters:
            await adapter.aclose()

    async def invoke(
        self, prompt: Prompt, config: LLMConfig | None = None, *, context: CallContext | None = None
    ) -> LLMResponse:
        """Make the call with the first adapter that can; the error raised is the one of the last that was asked."""
        config, context = config or LLMConfig(), context or CallContext()
        deadline = Deadline(config, context, clock=self._clock)
        passed_over: list[LLMError] = []
        for adapter in self._adapters:
            own_config, own_context = self._for(adapter, deadline, config, context, passed_over)
            try:
                response = await adapter.invoke(prompt, own_config, context=own_context)
            except LLMError as error:
                if not self._moves_on(error, adapter, deadline):
                    _add_notes(error, passed_over)
                    raise
                passed_over.append(error)
                (await guard_metrics()).fallbacks.labels(adapter.adapter_id, error.code).inc()
            else:
                return self._answered(response, adapter, config, passed_over)
        raise AssertionError("the last adapter never moves on")

    async def stream(
        self, prompt: Prompt, config: LLMConfig | None = None, *, context: CallContext | None = None
    ) -> AsyncIterator[StreamEvent]:
        """Stream the call from the first adapter that can; after the first event an error is raised as it is."""
        config, context = config or LLMConfig(), context or CallContext()
        deadline = Deadline(config, context, clock=self._clock)
        passed_over: list[LLMError] = []
        delivered = False
        for adapter in self._adapters:
            own_config, own_context = self._for(adapter, deadline, config, context, passed_over)
            try:
                async with closing_stream(adapter.stream(prompt, own_config, context=own_context)) as events:
                    async for event in events:
                        delivered = True
                        if isinstance(event, StreamEnd):
                            yield StreamEnd(self._answered(event.response, adapter, config, passed_over))
                        else:
                            yield event
                return
            except LLMError as error:
                if delivered or not self._moves_on(error, adapter, deadline):
                    _add_notes(error, passed_over)
                    raise
                passed_over.append(error)
                (await guard_metrics()).fallbacks.labels(adapter.adapter_id, error.code).inc()

    def _for(
        self,
        adapter: LLMAdapter,
        deadline: Deadline,
        config: LLMConfig,
        context: CallContext,
        passed_over: Sequence[LLMError],
    ) -> tuple[LLMConfig, CallContext]:
        if (keep := context.keep) is not None and passed_over:
            # What is recorded says so too. The list is complete by then: only an error before the answer adds to it.
            context = replace(
                context, keep=lambda response: keep(self._answered(response, adapter, config, passed_over))
            )
        own = config
        if adapter is not self.inner:
            same_provider = adapter.adapter_id == self.adapter_id
            own = replace(config, model=None, extra=config.extra if same_provider else {})
        return deadline.narrow(own, context, adapter_id=adapter.adapter_id)

    def _moves_on(self, error: LLMError, adapter: LLMAdapter, deadline: Deadline) -> bool:
        """Whether the next adapter is to be asked: there is one, the error allows it, and time is left."""
        may = error.category in _CATEGORIES or error.code in _CODES
        return may and adapter is not self._adapters[-1] and deadline.remaining_s() > 0

    def _answered(
        self, response: LLMResponse, adapter: LLMAdapter, config: LLMConfig, passed_over: Sequence[LLMError]
    ) -> LLMResponse:
        if not passed_over or response.fallback_from:
            return response
        dropped = () if adapter.adapter_id == self.adapter_id else tuple(config.extra)
        return replace(
            response,
            fallback_from=tuple(f"{error.provider}: {error.code}" for error in passed_over),
            dropped_params=(*response.dropped_params, *dropped),
        )


def _add_notes(error: LLMError, passed_over: Sequence[LLMError]) -> None:
    for earlier in passed_over:
        error.add_note(f"passed over before: {earlier.provider}: {earlier.code}: {earlier}")
