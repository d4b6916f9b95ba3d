"""Guards: adapters around adapters, which make a call safe to make.

``get_guarded_adapter`` puts them together::

    Idempotent(Fallback(Retrying(Budgeted(claude)), Retrying(Budgeted(openai))))

From the inside: every attempt has a budget hold of its own; attempts are repeated within one deadline; another adapter
is asked where one cannot; and one idempotency key has one recorded response.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from app.skills.guards.budgeted import BudgetedAdapter
from app.skills.guards.fallback import FallbackAdapter
from app.skills.guards.idempotent import IdempotentAdapter
from app.skills.guards.retrying import RetryingAdapter, RetryPolicy

if TYPE_CHECKING:
    from app.settings import Settings
    from app.skills.llm_invoke_v2 import LLMAdapter
    from app.skills.pricing import PriceBook
    from app.stores.budget.contract import BudgetStore
    from app.stores.idempotency.contract import IdempotencyStore

__all__ = [
    "BudgetedAdapter",
    "FallbackAdapter",
    "IdempotentAdapter",
    "RetryPolicy",
    "RetryingAdapter",
    "get_guarded_adapter",
]


def get_guarded_adapter(
    adapter: LLMAdapter | str | None = None,
    *,
    settings: Settings | None = None,
    budget_store: BudgetStore | None = None,
    idempotency_store: IdempotencyStore | None = None,
    prices: PriceBook | None = None,
    fallbacks: Sequence[LLMAdapter | str] = (),
    retry: RetryPolicy | None = None,
) -> LLMAdapter:
    """Return an adapter whose calls are budgeted, retried, moved to a fallback, and recorded once per key.

    Args:
        adapter: one that makes single attempts, or its id; None is the one that the settings choose.
        settings: what is not given here comes from them; None reads the environment now.
        budget_store, idempotency_store, prices: None takes those of the settings.
        fallbacks: adapters or their ids, in the order in which they are asked.
        retry: for each adapter; None is the default policy.

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
    chain: list[LLMAdapter] = []
    labels: Counter[str] = Counter()
    for single in (_adapter(adapter, settings), *(_adapter(fallback, settings) for fallback in fallbacks)):
        labels[single.adapter_id] += 1
        number = labels[single.adapter_id]
        budgeted = BudgetedAdapter(
            single,
            budget=budget_store,
            prices=prices,
            cut_stream=settings.nova_cut_stream,
            label=single.adapter_id if number == 1 else f"{single.adapter_id}.{number}",
        )
        chain.append(RetryingAdapter(budgeted, policy=retry))
    calls = chain[0] if len(chain) == 1 else FallbackAdapter(chain)
    return IdempotentAdapter(calls, store=idempotency_store, budget=budget_store)


def _adapter(adapter: LLMAdapter | str | None, settings: Settings) -> LLMAdapter:
    if adapter is not None and not isinstance(adapter, str):
        return adapter
    from app.skills.adapters import get_llm_adapter

    return get_llm_adapter(settings if adapter is None else settings.with_changes(llm_adapter=adapter))
