"""The budget guard: no call without a hold, and every hold closed by what the call turned out to be."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from app.errors import ConfigurationError, IdempotencyLeaseLostError, InvalidInputError, LLMError, UnboundedCallError
from app.money import Microcents
from app.skills.guards.holding import HoldKeeper, hold_id_of, lease_of
from app.skills.guards.wrapper import Guard, Patience, closing_stream, ended_early
from app.skills.llm_invoke_v2 import (
    CallContext,
    LLMAdapter,
    LLMConfig,
    LLMResponse,
    LLMUsage,
    Prompt,
    ReasoningDelta,
    StreamEnd,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
)
from app.skills.pricing import Cost, PriceBook
from app.stores.budget.contract import BudgetStore, Hold

__all__ = ["BudgetedAdapter"]

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class _Attempt:
    """One attempt and its hold. Its owner is the one task that makes the call."""

    prompt: Prompt
    config: LLMConfig
    model: str
    started_at: datetime
    hold: Hold
    streamed: bool
    keep: Callable[[LLMResponse], Awaitable[LLMResponse]] | None
    received: list[str] = field(default_factory=list)
    closed: bool = False


class BudgetedAdapter(Guard):
    """Takes a hold for the most that a call can cost, makes the call, and replaces the hold by the bill.

    The promise, for every call and however it ends, by cancellation too:

    - It is sent only on a hold that was granted in all of ``context.all_scopes``.
    - A known bill of a response that is recorded or handed on is charged exactly and in full, also above the hold.
    - The hold is released only where the call provably was not sent, or was rejected unbilled.
    - Everything else (a timeout, a cut stream, a cancellation on the way, a bill of unknown price, an answer whose key
      another process took over) charges the hold as uncertain, with what usage there was kept in the hold's detail,
      until somebody corrects it.
    - A call without a known price or upper bound is refused where a limit applies to one of its scopes. Where none
      does, it is made on a hold of nothing, its cost is None, and its hold stays uncertain (``unpriced``).
    - If the store cannot be reached for the settlement, it is tried for a while, then logged; the end of the lease then
      charges the hold. The answer is returned all the same.

    A call takes two round trips to the store: ``reserve``, and one verb that closes.

    Args:
        inner: makes one attempt per call.
        budget: keeps the ceilings.
        prices: prices the usage and bounds the call.
        cut_stream: ``estimate`` settles a cut stream by what arrived, instead of charging the hold.
        label: stands for the adapter in the hold id; two budgeted adapters of one chain need different ones.
        patience: how long the settlement is tried.
        clock: the present time, aware.
    """

    def __init__(
        self,
        inner: LLMAdapter,
        *,
        budget: BudgetStore,
        prices: PriceBook,
        cut_stream: Literal["hold", "estimate"] = "hold",
        label: str | None = None,
        patience: Patience | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__(inner)
        self._holds = HoldKeeper(budget, patience or Patience())
        self._prices = prices
        self._estimates_cut_streams = cut_stream == "estimate"
        self._label = label or inner.adapter_id
        self._clock = clock

    async def invoke(
        self, prompt: Prompt, config: LLMConfig | None = None, *, context: CallContext | None = None
    ) -> LLMResponse:
        """Make one call on a hold; the response has its exact ``cost`` and the ``hold_id`` that paid for it.

        Raises:
            BudgetExceededError: the call does not fit under a limit; nothing was sent.
            UnboundedCallError: it has no price or bound, and a limit applies; nothing was sent.
            BudgetStoreUnavailableError: no hold could be taken; nothing was sent.
            LLMError, InvalidInputError: as the inner adapter.
        """
        attempt = await self._begin(prompt, config or LLMConfig(), context or CallContext(), streamed=False)
        try:
            response = await self.inner.invoke(prompt, attempt.config, context=context)
            return await self._close_answered(attempt, response)
        except BaseException as error:
            await self._close_failed(attempt, error)
            raise

    async def stream(
        self, prompt: Prompt, config: LLMConfig | None = None, *, context: CallContext | None = None
    ) -> AsyncIterator[StreamEvent]:
        """Stream one call on a hold, settled before :class:`StreamEnd` is handed on; errors as for ``invoke``.

        A stream that its reader closes early is a call of unknown outcome.
        """
        attempt = await self._begin(prompt, config or LLMConfig(), context or CallContext(), streamed=True)
        try:
            async with closing_stream(self.inner.stream(prompt, attempt.config, context=context)) as events:
                async for event in events:
                    if isinstance(event, StreamEnd):
                        answered = await self._close_answered(attempt, event.response)
                        break
                    if self._estimates_cut_streams:
                        attempt.received.append(_written(event))
                    yield event
                else:
                    raise ended_early(self.adapter_id, model=attempt.model, received="".join(attempt.received))
        except BaseException as error:
            await self._close_failed(attempt, error)
            raise
        yield StreamEnd(answered)

    async def _begin(self, prompt: Prompt, config: LLMConfig, context: CallContext, *, streamed: bool) -> _Attempt:
        """Take the hold, or refuse. If it raises, nothing was sent and no hold stays."""
        model = config.model or self.inner.default_model
        if not self._prices.is_loaded(provider=self.adapter_id):
            await asyncio.to_thread(self._prices.is_priced, provider=self.adapter_id, model=model)
        started_at = self._clock()
        unbounded: UnboundedCallError | None = None
        amount: Microcents = 0
        try:
            amount = self._prices.upper_bound(prompt, config, provider=self.adapter_id, model=model, at=started_at)
        except UnboundedCallError as error:
            unbounded = error
        hold = await self._holds.take(
            hold_id_of(context, label=self._label),
            amount,
            context.all_scopes,
            lease=lease_of(config, context),
            tenant_id=context.tenant_id,
            unbounded=unbounded,
        )
        return _Attempt(
            prompt=prompt,
            config=config,
            model=model,
            started_at=started_at,
            hold=hold,
            streamed=streamed,
            keep=context.keep,
        )

    async def _close_answered(self, attempt: _Attempt, response: LLMResponse) -> LLMResponse:
        """Have the priced response recorded, then settle by the bill; an unknown bill charges the hold as uncertain.

        A bill is final only where the response is on record or is handed on, because spent is the sum of the recorded
        costs and the uncertain charges. If ``keep`` raises, that is known by what it raised:

        - ``IdempotencyLeaseLostError``: another process owns the key, and will record a response with a hold of its
          own. This response is discarded, so its hold is charged as uncertain (``superseded``).
        - A cancellation without a cause: the response is on record, so the bill is final.
        - Anything else, a cancellation with that as its cause too: nobody gets the response, and as far as is known it
          is not on record, so the hold is charged as uncertain (``not_recorded``). Should it be on record all the same,
          the repeat that finds it settles the hold by the recorded cost.

        A hold that was expired meanwhile (its lease ended, or its run was taken up by another process) stays so and
        keeps its first note; one that a person corrected stays corrected. The log has the bill in any case.
        """
        usage = response.usage or LLMUsage(input_tokens=response.input_tokens, output_tokens=response.output_tokens)
        # As of the start of the call and by the model that was asked for: as the hold was computed.
        cost = self._prices.cost(usage, provider=self.adapter_id, model=attempt.model, at=attempt.started_at)
        answered = replace(
            response,
            cost=None if cost is None else cost.amount,
            price_version=None if cost is None else cost.price_version,
            hold_id=attempt.hold.hold_id,
        )
        attempt.closed = True
        if attempt.keep is not None:
            try:
                answered = await attempt.keep(answered)
            except BaseException as error:
                if (reason := _not_on_record(error)) is not None:
                    await self._charge_discarded(attempt, usage, cost, reason)
                else:
                    await self._charge(attempt, usage, cost)
                raise
        await self._charge(attempt, usage, cost)
        return answered

    async def _charge(self, attempt: _Attempt, usage: LLMUsage, cost: Cost | None) -> None:
        if cost is not None:
            await self._holds.settle(attempt.hold, cost.amount)
            return
        unpriced = usage.complete and not self._prices.is_priced(provider=self.adapter_id, model=attempt.model)
        detail = _detail(
            outcome="unpriced" if unpriced else "usage_unknown",
            model=attempt.model,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            service_tier=usage.service_tier,
        )
        await self._holds.expire(attempt.hold, detail=detail)

    async def _charge_discarded(
        self, attempt: _Attempt, usage: LLMUsage, cost: Cost | None, reason: BaseException
    ) -> None:
        """Charge the hold of an answer that nobody gets, with its bill as a note for whoever corrects it."""
        bill = _detail(
            outcome="superseded" if isinstance(reason, IdempotencyLeaseLostError) else "not_recorded",
            error=type(reason).__name__,
            model=attempt.model,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            service_tier=usage.service_tier,
            cost=None if cost is None else cost.amount,
        )
        _log.warning("the answer for the hold %r is discarded: %s; its bill: %s", attempt.hold.hold_id, reason, bill)
        await self._holds.expire(attempt.hold, detail=bill)

    async def _close_failed(self, attempt: _Attempt, error: BaseException) -> None:
        """Close the hold of a call that raised or was cancelled, if it is not closed yet."""
        if attempt.closed:
            return
        attempt.closed = True
        failure = error if isinstance(error, LLMError) else None
        facts: dict[str, object] = {
            "error": failure.code if failure else type(error).__name__,
            "model": attempt.model,
            "input_tokens": failure.partial_input_tokens if failure else None,
            "output_tokens": failure.partial_output_tokens if failure else None,
        }
        if _provably_unbilled(error):
            await self._holds.release(attempt.hold, detail=_detail(outcome="unbilled", **facts))
        elif (guess := self._estimate(attempt, failure)) is not None:
            await self._holds.settle(attempt.hold, guess, detail=_detail(outcome="estimated", **facts))
        else:
            await self._holds.expire(attempt.hold, detail=_detail(outcome="unknown", **facts))

    def _estimate(self, attempt: _Attempt, failure: LLMError | None) -> Microcents | None:
        """Return what a cut stream probably cost, never above its hold; None where the hold is to be charged."""
        if not (self._estimates_cut_streams and attempt.streamed):
            return None
        text = "".join(attempt.received) or (failure.partial_text if failure else "")
        input_tokens = failure.partial_input_tokens if failure else None
        output_tokens = failure.partial_output_tokens if failure else None
        if not text and input_tokens is None and output_tokens is None:
            return None
        cost = self._prices.estimate(
            attempt.prompt,
            attempt.config,
            provider=self.adapter_id,
            model=attempt.model,
            partial_text=text,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            at=attempt.started_at,
        )
        return None if cost is None else min(cost.amount, attempt.hold.amount)


def _written(event: TextDelta | ReasoningDelta | ToolCallDelta) -> str:
    """Return what the model wrote for a piece of a stream; all of it is billed as output."""
    return (event.name or "") + event.arguments if isinstance(event, ToolCallDelta) else event.text


def _not_on_record(error: BaseException) -> BaseException | None:
    """Return why a response is not on record, by what ``keep`` raised; None where it is."""
    return error.__cause__ if isinstance(error, asyncio.CancelledError) else error


def _provably_unbilled(error: BaseException) -> bool:
    """Whether a failed call certainly costs nothing: rejected unbilled, or refused before anything was sent."""
    if isinstance(error, LLMError):
        return error.billed == "no"
    return isinstance(error, InvalidInputError | ConfigurationError)


def _detail(**facts: object) -> str:
    return json.dumps({key: value for key, value in facts.items() if value is not None}, sort_keys=True)
