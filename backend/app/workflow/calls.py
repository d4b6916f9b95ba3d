"""The LLM calls of a step: guarded, keyed by the step, and noted beside its record with what they cost."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import cast

from app.money import Microcents
from app.skills.guards.recording import decode_response, encode_response, fingerprint
from app.skills.llm_invoke_v2 import CallContext, LLMAdapter, LLMConfig, LLMResponse, Prompt
from app.stores.checkpoint.codec import JsonValue, canonical_json, parse_json

__all__ = ["StepCalls", "read_response", "recorded_cost", "request_fingerprint", "response_json"]


class StepCalls:
    """Makes the calls of one step, and sums up what they cost over all of its attempts.

    Args:
        adapter: returns the guarded adapter.
        context: the step: its key, and on whose behalf it calls. The key of a call is derived from it.
        time_left: how long the run may still take, None without a deadline.
    """

    def __init__(
        self, adapter: Callable[[], LLMAdapter], *, context: CallContext, time_left: Callable[[], timedelta | None]
    ) -> None:
        self._adapter = adapter
        self._context = context
        self._time_left = time_left
        self._asked: Counter[str] = Counter()
        self._responses: dict[str, LLMResponse] = {}

    def begin_attempt(self) -> None:
        """Count equal calls from one again, so that each finds what an earlier attempt recorded for it."""
        self._asked.clear()

    async def invoke(
        self, prompt: Prompt, config: LLMConfig | None, *, name: str, scopes: tuple[str, ...]
    ) -> LLMResponse:
        """Make one of the calls of a step's function; its key comes from the step's, the request and ``name``."""
        request = hashlib.sha256(f"{name}\n{fingerprint(prompt, config)}".encode()).hexdigest()[:16]
        self._asked[request] += 1
        key = f"{self._context.idempotency_key}/{request}-{self._asked[request]}"
        return await self.invoke_as(key, prompt, config, scopes=scopes)

    async def invoke_as(
        self, key: str, prompt: Prompt, config: LLMConfig | None, *, scopes: tuple[str, ...]
    ) -> LLMResponse:
        """Make a call under a given key."""
        context = CallContext(
            tenant_id=self._context.tenant_id,
            run_id=self._context.run_id,
            step_id=self._context.step_id,
            idempotency_key=key,
            scopes=scopes,
            deadline=self._time_left(),
        )
        response = await self._adapter().invoke(prompt, config, context=context)
        self._responses[key] = response
        return response

    @property
    def cost(self) -> Microcents | None:
        """What the calls cost so far: 0 without any, None where the cost of one is unknown."""
        costs = [response.cost for response in self._responses.values()]
        return None if None in costs else sum(cost for cost in costs if cost is not None)

    def meta(self) -> dict[str, JsonValue]:
        """Return what is noted beside the step's output.

        ``calls``, ``cost`` (microcents), ``input_tokens``, ``output_tokens`` (null: unknown) and ``models``; nothing
        where the step made no call.
        """
        responses = self._responses.values()
        if not responses:
            return {}
        return {
            "calls": len(responses),
            "cost": self.cost,
            "input_tokens": _sum_known([response.input_tokens for response in responses]),
            "output_tokens": _sum_known([response.output_tokens for response in responses]),
            "models": cast("JsonValue", sorted({response.model for response in responses})),
        }


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


def read_response(value: JsonValue) -> LLMResponse:
    """Return the response that :func:`response_json` wrote."""
    return decode_response(canonical_json(value, what="a recorded response"))


def _sum_known(counts: list[int | None]) -> int | None:
    return None if None in counts else sum(count for count in counts if count is not None)
