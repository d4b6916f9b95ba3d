"""The LLM calls of a step: guarded, keyed by the step, and noted beside its record with what they cost."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final, cast

from app.money import Microcents
from app.skills.guards.recording import decode_response, encode_response, fingerprint
from app.skills.llm_invoke_v2 import CallContext, LLMAdapter, LLMConfig, LLMResponse, Prompt, Schema
from app.stores.budget.contract import BudgetStore, HoldState, Limit
from app.stores.checkpoint.codec import JsonValue, canonical_json, parse_json
from app.workflow.policies import set_once

__all__ = ["StepCalls", "read_response", "recorded_cost", "request_fingerprint", "response_json"]

_PAGE: Final = 20


class StepCalls:
    """Makes the calls of one step, and sums up what the step was billed, over all of its attempts and processes.

    Args:
        adapter: returns the guarded adapter.
        budget: where its holds are; None where there is no budget.
        context: the step: its key, and on whose behalf it calls. The key of each call begins with the step's, and its
            scopes are charged by all of them.
        time_left: how long the run may still take, None without a deadline.
        limit: the most that the step may spend in all; None where only its run limits it.
        resumed: whether an earlier process may have called for this step.
    """

    def __init__(
        self,
        adapter: Callable[[], LLMAdapter],
        *,
        budget: BudgetStore | None,
        context: CallContext,
        time_left: Callable[[], timedelta | None],
        resumed: bool,
        limit: Microcents | None = None,
    ) -> None:
        self._adapter = adapter
        self._budget = budget
        self._context = context
        self._time_left = time_left
        self._limit = limit
        self._asked: Counter[str] = Counter()
        self._responses: dict[str, LLMResponse] = {}
        self._called = False
        self._was_billed_before = resumed

    def begin_attempt(self) -> None:
        """Count equal calls from one again, so that each finds what an earlier attempt recorded for it."""
        self._asked.clear()

    async def invoke(
        self, prompt: Prompt, config: LLMConfig | None, *, name: str, scopes: tuple[str, ...]
    ) -> LLMResponse:
        """Make one of the calls of a step's function; its key comes from the step's, the request and ``name``."""
        request = hashlib.sha256(f"{name}\n{fingerprint(prompt, config)}".encode()).hexdigest()[:16]
        self._asked[request] += 1
        return await self._call(f"{self._key}/{request}-{self._asked[request]}", prompt, config, scopes=scopes)

    async def invoke_once(self, prompt: Prompt, config: LLMConfig | None, *, scopes: tuple[str, ...]) -> LLMResponse:
        """Make the one call of a step that is a call; its key is the step's."""
        return await self._call(self._key, prompt, config, scopes=scopes)

    async def meta(self) -> dict[str, JsonValue]:
        """Return what is noted beside the step's output, nothing where it made no call.

        ``calls``, ``input_tokens``, ``output_tokens`` and ``models`` of the responses that it got; ``cost``, what it
        was billed in microcents; and ``lost_cost``, the part of that for which it got no response, where there is one.
        None is unknown.
        """
        if not self._called:
            return {}
        responses = list(self._responses.values())
        lost = await self._lost_cost() if self._was_billed_before else 0
        cost = _sum_known([response.cost for response in responses])
        return {
            "calls": len(responses),
            "cost": None if cost is None else cost + lost,
            "input_tokens": _sum_known([response.input_tokens for response in responses]),
            "output_tokens": _sum_known([response.output_tokens for response in responses]),
            "models": cast("JsonValue", sorted({response.model for response in responses})),
            **({"lost_cost": lost} if lost else {}),
        }

    @property
    def _key(self) -> str:
        assert self._context.idempotency_key is not None, "a step always has a key"
        return self._context.idempotency_key

    async def _call(
        self, key: str, prompt: Prompt, config: LLMConfig | None, *, scopes: tuple[str, ...]
    ) -> LLMResponse:
        context = replace(
            self._context,
            idempotency_key=key,
            scopes=(*self._context.scopes, *scopes, *await self._own_scope()),
            deadline=self._time_left(),
        )
        self._called = True
        try:
            response = await self._adapter().invoke(prompt, config, context=context)
        except BaseException:
            self._was_billed_before = True
            raise
        first_hold = response.hold_id is not None and response.hold_id.endswith("/1")
        if response.fallback_from or not first_hold:
            self._was_billed_before = True
        self._responses[key] = response
        return response

    async def _own_scope(self) -> tuple[str, ...]:
        """Return the scope of a step that has a limit, which is set before its first call; else nothing."""
        if self._limit is None or self._budget is None:
            return ()
        scope = f"step:{self._key}"
        if not self._called:
            limit = Limit(scope=scope, window="total", amount=self._limit)
            await set_once(self._budget, limit, tenant_id=self._context.tenant_id)
        return (scope,)

    async def _lost_cost(self) -> Microcents:
        """Return what was billed for this step beside the responses that it has now.

        A cut stream that was estimated, an answer that could not be recorded before its process was killed, and one
        that an earlier process got and this one did not ask for again are settled without a response here. An answer
        that came after its key was taken over is not: its hold stays uncertain. All holds of a step begin with its key,
        so they lie together.
        """
        if self._budget is None:
            return 0
        paid = {response.hold_id for response in self._responses.values()}
        lost, after, more = 0, f"{self._key}/", True
        while more:
            page = await self._budget.holds(after=after, limit=_PAGE, tenant_id=self._context.tenant_id)
            own = [hold for hold in page if hold.hold_id.startswith(f"{self._key}/")]
            lost += sum(hold.charged for hold in own if hold.state is HoldState.SETTLED and hold.hold_id not in paid)
            more = len(own) == _PAGE
            after = page[-1].hold_id if page else after
        return lost


def recorded_cost(meta: Mapping[str, JsonValue]) -> Microcents | None:
    """Return what a recorded step cost: 0 where it made no call, None where that is unknown."""
    if "calls" not in meta:
        return 0
    cost = meta.get("cost")
    return cost if isinstance(cost, int) else None


def request_fingerprint(prompt: Prompt, config: LLMConfig | None) -> str:
    """Return what makes two calls the same: what is asked for, not how long to wait for it.

    Raises:
        InvalidInputError: the prompt is empty, or a parameter is not JSON.
    """
    return fingerprint(prompt, config)


def response_json(response: LLMResponse) -> JsonValue:
    """Return a response as it is recorded. Whether it was replayed belongs to the moment, and is not."""
    return parse_json(encode_response(replace(response, replayed=False)))


def read_response(value: JsonValue, *, schema: Schema | None = None) -> LLMResponse:
    """Return the response that :func:`response_json` wrote, with its ``output`` as the schema says."""
    return decode_response(canonical_json(value, what="a recorded response"), schema=schema)


def _sum_known(counts: list[int | None]) -> int | None:
    return None if None in counts else sum(count for count in counts if count is not None)
