"""The metric families, built at the first event, so that importing Nova loads no metrics library."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Histogram

__all__ = ["LLMMetrics", "llm_metrics"]

_DURATION_BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 120.0, 300.0, 600.0)
"""An answer takes from a fraction of a second to, with much reasoning, ten minutes."""

_building = Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMMetrics:
    """What is counted of LLM calls.

    Attributes:
        tokens: ``nova_llm_tokens_total``, the billed totals: input and output.
        token_parts: ``nova_llm_token_parts_total``, what of these was cached or reasoning.
        cost_cents: ``nova_llm_cost_cents_total``.
        duration: ``nova_llm_duration_seconds``, of invocations that got an answer.
        invocations: ``nova_llm_invocations_total``, by outcome.
        unknown: ``nova_llm_unknown_total``, answers whose tokens or cost nobody knows; the totals lack them.
    """

    tokens: Counter
    token_parts: Counter
    cost_cents: Counter
    duration: Histogram
    invocations: Counter
    unknown: Counter


def llm_metrics() -> LLMMetrics:
    """Return the families of LLM calls in the default registry; the first call builds them."""
    # Without the lock two threads could both build them, and the registry refuses the second.
    with _building:
        return _built()


@lru_cache(maxsize=1)
def _built() -> LLMMetrics:
    from prometheus_client import REGISTRY

    return build_llm_metrics(REGISTRY)


def build_llm_metrics(registry: CollectorRegistry) -> LLMMetrics:
    """Build the families of LLM calls in a registry."""
    from prometheus_client import Counter, Histogram

    model = ("provider", "model")
    return LLMMetrics(
        tokens=Counter(
            "nova_llm_tokens",
            "Tokens that providers billed, cached and reasoning tokens included.",
            (*model, "token_type"),
            registry=registry,
        ),
        token_parts=Counter(
            "nova_llm_token_parts",
            "What of the billed tokens was cache_read, cache_write_5m, cache_write_1h or reasoning.",
            (*model, "part"),
            registry=registry,
        ),
        cost_cents=Counter("nova_llm_cost_cents", "What calls cost, in US cents.", model, registry=registry),
        duration=Histogram(
            "nova_llm_duration_seconds",
            "From the request to the end of the answer, of invocations that got one.",
            model,
            buckets=_DURATION_BUCKETS_S,
            registry=registry,
        ),
        invocations=Counter(
            "nova_llm_invocations",
            "Calls of a provider, every attempt, by outcome.",
            (*model, "status"),
            registry=registry,
        ),
        unknown=Counter(
            "nova_llm_unknown",
            "Answers whose quantity (tokens or cost) is unknown: the totals lack them.",
            (*model, "quantity"),
            registry=registry,
        ),
    )
