"""Guards: adapters around adapters, which make a call safe to make.

``get_guarded_adapter`` puts them together::

    Idempotent(Fallback(Retrying(Throttled(Breaking(Budgeted(claude)))), Retrying(…(openai))))

From the inside: every attempt has a budget hold of its own; a provider that fails again and again is left alone; calls
wait for their turn; attempts are repeated within one deadline; another adapter is asked where one cannot; and one
idempotency key has one recorded response.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from app.errors import ConfigurationError
from app.skills.guards.breaker import BreakerPolicy, BreakingAdapter, Circuits
from app.skills.guards.budgeted import BudgetedAdapter
from app.skills.guards.fallback import FallbackAdapter
from app.skills.guards.idempotent import IdempotentAdapter
from app.skills.guards.retrying import RetryingAdapter, RetryPolicy
from app.skills.guards.throttle import Lanes, ThrottledAdapter, ThrottlePolicy

if TYPE_CHECKING:
    from app.settings import Settings
    from app.skills.llm_invoke_v2 import LLMAdapter
    from app.skills.pricing import PriceBook
    from app.stores.budget.contract import BudgetStore
    from app.stores.idempotency.contract import IdempotencyStore

__all__ = [
    "BreakerPolicy",
    "BreakingAdapter",
    "BudgetedAdapter",
    "FallbackAdapter",
    "IdempotentAdapter",
    "RetryPolicy",
    "RetryingAdapter",
    "ThrottlePolicy",
    "ThrottledAdapter",
    "get_guarded_adapter",
]


@dataclass(frozen=True, slots=True)
class _Protection:
    """What the guards of one adapter share in this process, however many chains are built around it."""

    circuits: Circuits = field(default_factory=Circuits)
    lanes: Lanes = field(default_factory=Lanes)


_protections: Final[WeakKeyDictionary[LLMAdapter, _Protection]] = WeakKeyDictionary()
"""By the adapter that makes the calls: the factory hands out one for each provider and configuration."""


def get_guarded_adapter(
    adapter: LLMAdapter | str | None = None,
    *,
    settings: Settings | None = None,
    budget_store: BudgetStore | None = None,
    idempotency_store: IdempotencyStore | None = None,
    prices: PriceBook | None = None,
    fallbacks: Sequence[LLMAdapter | str] | None = None,
    retry: RetryPolicy | None = None,
    breaker: BreakerPolicy | None = None,
    throttle: ThrottlePolicy | None = None,
) -> LLMAdapter:
    """Return an adapter whose calls are budgeted, retried, moved to a fallback, and recorded once per key.

    Args:
        adapter: one that makes single attempts, or its id; None is the one that the settings choose.
        settings: what is not given here comes from them; None reads the environment now.
        budget_store, idempotency_store, prices: None takes those of the settings.
        fallbacks: adapters or their ids, in the order in which they are asked; None takes those of ``LLM_FALLBACK``,
            where no ``adapter`` is given.
        retry: for each adapter; None is the default policy.
        breaker, throttle: for each provider and model in this process; None takes those of the settings.

    Raises:
        ConfigurationError: the settings ask for something that cannot be met.
    """
    if settings is None:
        from app.settings import load_settings

        settings = load_settings()
    if budget_store is None:
        from app.stores import get_budget_store

        budget_store = get_budget_store(settings)
    if idempotency_store is None:
        from app.stores import get_idempotency_store

        idempotency_store = get_idempotency_store(settings)
    if prices is None:
        from app.skills.pricing import get_price_book

        prices = get_price_book(settings)
    if fallbacks is None:
        fallbacks = _fallbacks(settings) if adapter is None else ()
    breaker = breaker or BreakerPolicy(failures=settings.llm_breaker_failures, open_s=settings.llm_breaker_open_s)
    throttle = throttle or ThrottlePolicy(concurrency=settings.llm_max_concurrency, per_minute=settings.llm_max_rpm)
    chain: list[LLMAdapter] = []
    labels: Counter[str] = Counter()
    for single in (_adapter(adapter, settings), *(_adapter(fallback, settings) for fallback in fallbacks)):
        labels[single.adapter_id] += 1
        number = labels[single.adapter_id]
        protection = _protections.setdefault(single, _Protection())
        guarded: LLMAdapter = BudgetedAdapter(
            single,
            budget=budget_store,
            prices=prices,
            cut_stream=settings.nova_cut_stream,
            label=single.adapter_id if number == 1 else f"{single.adapter_id}.{number}",
        )
        if breaker.failures:
            guarded = BreakingAdapter(guarded, policy=breaker, circuits=protection.circuits)
        if throttle.limits:
            guarded = ThrottledAdapter(guarded, policy=throttle, lanes=protection.lanes)
        chain.append(RetryingAdapter(guarded, policy=retry))
    calls = chain[0] if len(chain) == 1 else FallbackAdapter(chain)
    return IdempotentAdapter(calls, store=idempotency_store, budget=budget_store)


def _fallbacks(settings: Settings) -> list[LLMAdapter]:
    """Return the adapters of ``LLM_FALLBACK``: ``openai:gpt-4o-mini,claude``.

    Raises:
        ConfigurationError: one of them is unknown or has no key; a fallback is never the stub in its place.
    """
    from app.skills.adapters import choose_adapter, get_llm_adapter

    found: list[LLMAdapter] = []
    for entry in filter(None, (part.strip() for part in (settings.llm_fallback or "").split(","))):
        adapter_id, _, model = entry.partition(":")
        changes: dict[str, object] = {"llm_adapter": adapter_id.strip().lower()}
        if model:
            variable = {"claude": "anthropic_default_model", "openai": "openai_default_model"}.get(adapter_id)
            if variable is None:
                raise ConfigurationError(
                    f"LLM_FALLBACK names {entry!r}; write claude, openai, claude:MODEL or openai:MODEL, or stub",
                    variable="LLM_FALLBACK",
                )
            changes[variable] = model.strip()
        own = settings.with_changes(**changes)
        try:
            choice = choose_adapter(own)
        except ConfigurationError as error:
            raise ConfigurationError(f"LLM_FALLBACK names {entry!r}: {error}", variable="LLM_FALLBACK") from error
        if choice.implicit:
            raise ConfigurationError(
                f"LLM_FALLBACK names {entry!r}, which has no key, and a fallback is never the stub in its place: set "
                f"{'ANTHROPIC_API_KEY' if own.llm_adapter == 'claude' else 'OPENAI_API_KEY'}, or leave it out",
                variable="LLM_FALLBACK",
            )
        found.append(get_llm_adapter(own))
    return found


def _adapter(adapter: LLMAdapter | str | None, settings: Settings) -> LLMAdapter:
    if adapter is not None and not isinstance(adapter, str):
        return adapter
    from app.skills.adapters import get_llm_adapter

    return get_llm_adapter(settings if adapter is None else settings.with_changes(llm_adapter=adapter))
