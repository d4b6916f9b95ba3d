"""What the guards count: each event once, and the money of the ledger to the microcent."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY

from app.errors import BudgetExceededError, BudgetStoppedError, IdempotencyLeaseLostError, LLMError, UnboundedCallError
from app.metrics import guard_metrics
from app.skills.guards import BudgetedAdapter, FallbackAdapter, IdempotentAdapter, RetryingAdapter, RetryPolicy
from app.skills.guards.recording import fingerprint
from app.skills.guards.wrapper import Patience
from app.skills.llm_invoke_v2 import CallContext, LLMAdapter, LLMConfig
from app.skills.pricing import PriceBook
from app.stores.budget.memory import InMemoryBudgetStore
from app.stores.holder import Holder
from app.stores.idempotency.contract import DEFAULT_LEASE
from app.stores.idempotency.memory import InMemoryIdempotencyStore
from tests.support.clock import FakeClock

from .fakes import FakeTime, ScriptedAdapter, answer, failure
from .ledger import ObservedStore

CONFIG = LLMConfig(max_tokens=10, timeout_s=30)
BILL = 5 * 100 + 3 * 200
HOLD = (2 + 4) * 100 + 10 * 200
PREFIXES = ("nova_budget_", "nova_idempotency_", "nova_lease_", "nova_llm_retries", "nova_llm_fallbacks")


def counted() -> dict[tuple[str, ...], float]:
    """Return every sample of the guards that is not zero."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in REGISTRY.collect()
        if family.name.startswith(PREFIXES)
        for sample in family.samples
        if not sample.name.endswith("_created") and sample.value
    }


def change_since(before: dict[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    """Return what has been counted since."""
    return {key: value - before.get(key, 0) for key, value in counted().items() if value != before.get(key, 0)}


def budgeted(inner: LLMAdapter, store: InMemoryBudgetStore) -> BudgetedAdapter:
    """Return a budget guard with the stub's prices."""
    return BudgetedAdapter(inner, budget=store, prices=PriceBook())


async def test_a_call_that_just_works_counts_nothing() -> None:
    """The events are those that somebody should know of."""
    await guard_metrics()
    before = counted()

    await budgeted(ScriptedAdapter(answer()), InMemoryBudgetStore()).invoke("hi", CONFIG)

    assert change_since(before) == {}


async def test_each_attempt_after_the_first_is_a_retry() -> None:
    """By the error before it; the error that ends the call is no retry."""
    time = FakeTime()
    inner = ScriptedAdapter(failure(), failure("ERR_LLM_RATE_LIMITED"), failure("ERR_LLM_TIMEOUT"))
    guard = RetryingAdapter(inner, policy=RetryPolicy(max_attempts=3), clock=time.clock, sleep=time.sleep)
    await guard_metrics()
    before = counted()

    with pytest.raises(LLMError):
        await guard.invoke("hi")

    assert change_since(before) == {
        ("nova_llm_retries_total", "stub", "ERR_LLM_OVERLOADED"): 1,
        ("nova_llm_retries_total", "stub", "ERR_LLM_RATE_LIMITED"): 1,
    }


async def test_an_adapter_that_is_passed_over_is_a_fallback() -> None:
    """Counted for the one that could not."""
    first = ScriptedAdapter(failure(), adapter_id="claude")
    await guard_metrics()
    before = counted()

    await FallbackAdapter([first, ScriptedAdapter(answer())]).invoke("hi")

    assert change_since(before) == {("nova_llm_fallbacks_total", "claude", "ERR_LLM_OVERLOADED"): 1}


async def test_a_refusal_is_counted_by_the_window_in_the_way() -> None:
    """A call without a bound has a name of its own."""
    store = InMemoryBudgetStore()
    await store.set_limit("tenant", HOLD - 1, window="day")
    await guard_metrics()
    before = counted()

    with pytest.raises(BudgetExceededError):
        await budgeted(ScriptedAdapter(answer()), store).invoke("hi", CONFIG)
    with pytest.raises(UnboundedCallError):
        await budgeted(ScriptedAdapter(answer(), model="of-unknown-price"), store).invoke("hi", CONFIG)

    assert change_since(before) == {
        ("nova_budget_refusals_total", "day"): 1,
        ("nova_budget_refusals_total", "unbounded"): 1,
    }


@pytest.mark.parametrize("tenant_id", ["default", None], ids=["its tenant", "all tenants"])
async def test_a_stopped_call_is_counted_as_a_refusal(tenant_id: str | None) -> None:
    """Whoever is stopped."""
    store = InMemoryBudgetStore()
    await store.stop(tenant_id=tenant_id)
    await guard_metrics()
    before = counted()

    with pytest.raises(BudgetStoppedError):
        await budgeted(ScriptedAdapter(answer()), store).invoke("hi", CONFIG)

    assert change_since(before) == {("nova_budget_refusals_total", "stopped"): 1}


async def test_a_settlement_that_cannot_be_delivered_is_counted() -> None:
    """Once, however often it was tried; the end of the lease then charges the hold."""
    time = FakeTime()
    observed: Any = ObservedStore(InMemoryBudgetStore(), settle="before")
    patience = Patience(total_s=3.0, clock=time.clock, sleep=time.sleep)
    await guard_metrics()
    before = counted()

    await BudgetedAdapter(ScriptedAdapter(answer()), budget=observed, prices=PriceBook(), patience=patience).invoke(
        "hi", CONFIG
    )

    assert observed.verbs["settle"] > 1
    assert change_since(before) == {("nova_budget_undelivered_total",): 1}


async def test_an_unknown_outcome_is_counted_with_what_was_charged() -> None:
    """To the microcent, as the ledger has it."""
    store = InMemoryBudgetStore()
    await guard_metrics()
    before = counted()

    with pytest.raises(LLMError):
        await budgeted(ScriptedAdapter(failure("ERR_LLM_TIMEOUT", billed="unknown")), store).invoke("hi", CONFIG)

    change = change_since(before)
    (total, *_) = await store.usage("tenant")
    assert round(change.pop(("nova_budget_uncertain_cents_total", "unknown")) * 1_000_000) == total.uncertain == HOLD
    assert change == {("nova_budget_uncertain_total", "unknown"): 1}


async def test_a_bill_above_its_hold_is_counted_as_overage() -> None:
    """The part above, as the ledger has it."""
    store = InMemoryBudgetStore()
    await guard_metrics()
    before = counted()

    await budgeted(ScriptedAdapter(answer(generated=100)), store).invoke("hi", CONFIG)

    (total, *_) = await store.usage("tenant")
    change = change_since(before)
    assert round(change.pop(("nova_budget_overage_cents_total",)) * 1_000_000) == total.overage > 0
    assert change == {}


async def test_replays_takeovers_and_lost_keys_are_counted() -> None:
    """A replay, a key that was begun again after a failure, and one that another process took, once each."""
    store = InMemoryIdempotencyStore()
    inner = ScriptedAdapter(failure(), answer())
    guard = IdempotentAdapter(inner, store=store)
    await guard_metrics()
    before = counted()

    with pytest.raises(LLMError):
        await guard.invoke("hi", context=CallContext(idempotency_key="k"))
    await guard.invoke("hi", context=CallContext(idempotency_key="k"))
    await guard.invoke("hi", context=CallContext(idempotency_key="k"))

    assert change_since(before) == {
        ("nova_idempotency_takeovers_total",): 1,
        ("nova_idempotency_replays_total",): 1,
    }


async def test_a_key_that_was_lost_is_counted_once() -> None:
    """However many verbs notice it."""
    clock = FakeClock()
    store = InMemoryIdempotencyStore(clock=clock)

    async def steal() -> None:
        # Its lease ended while the call ran, and somebody else began.
        thief = Holder(host="elsewhere", boot_id="b", pid=7, started="1")
        clock.advance(2 * DEFAULT_LEASE)
        await store.begin("k", fingerprint("hi", None), holder=thief, lease=timedelta(minutes=1))

    class Stolen(ScriptedAdapter):
        async def _yield(self) -> None:
            await steal()

    await guard_metrics()
    before = counted()
    with pytest.raises(IdempotencyLeaseLostError):
        await IdempotentAdapter(Stolen(answer()), store=store).invoke("hi", context=CallContext(idempotency_key="k"))

    assert change_since(before) == {("nova_lease_losses_total", "key"): 1}
