"""The metric families, built at the first event, so that importing Nova loads no metrics library."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = [
    "UNCERTAIN_REASONS",
    "GuardMetrics",
    "LLMMetrics",
    "anything_counted",
    "build_all",
    "guard_metrics",
    "llm_metrics",
    "track_checkpoint",
]

UNCERTAIN_REASONS: Final = ("unknown", "unpriced", "usage_unknown", "superseded", "not_recorded")
"""Why a hold is charged without a bill, as its detail says it."""

_DURATION_BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 120.0, 300.0, 600.0)
"""An answer takes from a fraction of a second to, with much reasoning, ten minutes."""

_FIRST_TOKEN_BUCKETS_S = (0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 12.0, 30.0, 60.0, 120.0)
_CHECKPOINT_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

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
        first_token: ``nova_llm_time_to_first_token_seconds``, of streams.
    """

    tokens: Counter
    token_parts: Counter
    cost_cents: Counter
    duration: Histogram
    invocations: Counter
    unknown: Counter
    first_token: Histogram


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardMetrics:
    """What is counted of the guards around calls, and of the stores behind them.

    Attributes:
        retries: attempts after the first, by the code of the error before.
        fallbacks: adapters that were passed over, by the code of their error.
        refusals: calls that a budget refused, by the window that was in the way; ``unbounded`` for a call without one,
            ``stopped`` under an emergency stop.
        overage_cents: by how much bills were above their holds.
        uncertain: holds that were charged because the outcome of their call is unknown, by the reason.
        uncertain_cents: what was charged for them.
        undelivered: holds whose closing never reached the store: the end of the lease charges each in full.
        replays: calls that were answered from the record of their idempotency key.
        takeovers: idempotency keys that were begun again after a crash, a failure or a lost lease.
        lease_losses: of runs and of keys, seen by whoever lost one.
        checkpoint: how long a verb of the checkpoint store took, failed ones included.
        archive_reads: runs that were read from the archive, by where they came from.
        circuit_refusals: calls that were not made because those before them had failed.
        throttled_seconds: how long calls waited for their turn.
        in_flight: calls that are under way now, where they are limited.
    """

    retries: Counter
    fallbacks: Counter
    refusals: Counter
    overage_cents: Counter
    uncertain: Counter
    uncertain_cents: Counter
    undelivered: Counter
    replays: Counter
    takeovers: Counter
    lease_losses: Counter
    checkpoint: Histogram
    archive_reads: Counter
    circuit_refusals: Counter
    throttled_seconds: Counter
    in_flight: Gauge


def llm_metrics() -> LLMMetrics:
    """Return the families of LLM calls in the default registry; the first call builds them."""
    # Without the lock two threads could both build them, and the registry refuses the second.
    with _building:
        return _built()


async def guard_metrics() -> GuardMetrics:
    """Return the families of guards and stores in the default registry; the first call builds them, in a thread.

    Building reads files, because it imports the metrics library, which the event loop must not wait for.
    """
    if _guards_built.cache_info().currsize:
        return _guards_built()
    import asyncio

    def build() -> GuardMetrics:
        with _building:
            return _guards_built()

    return await asyncio.to_thread(build)


def anything_counted() -> bool:
    """Whether a family was built in this process."""
    return bool(_built.cache_info().currsize or _guards_built.cache_info().currsize)


def build_all() -> None:
    """Build every family of the default registry; call it in a thread, or before the event loop runs."""
    with _building:
        _built()
        _guards_built()


@asynccontextmanager
async def track_checkpoint(verb: str) -> AsyncIterator[None]:
    """Time a verb of the checkpoint store, however it ends."""
    families = await guard_metrics()
    with families.checkpoint.labels(verb).time():
        yield


@lru_cache(maxsize=1)
def _built() -> LLMMetrics:
    from prometheus_client import REGISTRY

    return build_llm_metrics(REGISTRY)


@lru_cache(maxsize=1)
def _guards_built() -> GuardMetrics:
    from prometheus_client import REGISTRY

    return build_guard_metrics(REGISTRY)


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
        first_token=Histogram(
            "nova_llm_time_to_first_token_seconds",
            "From the request to the first piece of a streamed answer.",
            model,
            buckets=_FIRST_TOKEN_BUCKETS_S,
            registry=registry,
        ),
    )


def build_guard_metrics(registry: CollectorRegistry) -> GuardMetrics:
    """Build the families of guards and stores in a registry; those whose labels are known are there at zero."""
    from prometheus_client import Counter, Gauge, Histogram

    def counter(name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=registry)

    families = GuardMetrics(
        retries=counter("nova_llm_retries", "Attempts after the first, by the error before.", "provider", "code"),
        fallbacks=counter("nova_llm_fallbacks", "Adapters passed over, by their error.", "provider", "code"),
        refusals=counter("nova_budget_refusals", "Calls that a budget refused, by the window in the way.", "window"),
        overage_cents=counter("nova_budget_overage_cents", "By how much bills were above their holds."),
        uncertain=counter("nova_budget_uncertain", "Holds charged because nobody knows the bill.", "reason"),
        uncertain_cents=counter("nova_budget_uncertain_cents", "What was charged for uncertain holds.", "reason"),
        undelivered=counter(
            "nova_budget_undelivered", "Holds whose closing never reached the store; the lease charges."
        ),
        replays=counter("nova_idempotency_replays", "Calls answered from the record of their key."),
        takeovers=counter("nova_idempotency_takeovers", "Keys that were begun again."),
        lease_losses=counter("nova_lease_losses", "Leases that somebody else took over.", "kind"),
        checkpoint=Histogram(
            "nova_checkpoint_duration_seconds",
            "How long a verb of the checkpoint store took.",
            ("verb",),
            buckets=_CHECKPOINT_BUCKETS_S,
            registry=registry,
        ),
        archive_reads=counter("nova_archive_reads", "Runs read from the archive, by where they came from.", "result"),
        circuit_refusals=counter(
            "nova_llm_circuit_refusals", "Calls not made because those before them had failed.", "provider"
        ),
        throttled_seconds=counter("nova_llm_throttled_seconds", "How long calls waited for their turn.", "provider"),
        in_flight=Gauge(
            "nova_llm_in_flight", "Calls under way now, where they are limited.", ("provider",), registry=registry
        ),
    )
    for window in ("total", "month", "day", "hour", "unbounded", "stopped"):
        families.refusals.labels(window)
    for reason in UNCERTAIN_REASONS:
        families.uncertain.labels(reason)
        families.uncertain_cents.labels(reason)
    for result in ("memory", "archive", "damaged"):
        families.archive_reads.labels(result)
    for kind in ("run", "key"):
        families.lease_losses.labels(kind)
    return families
