"""The ledger as gauges: the store's figures to the microcent, with bounded labels, and never zero for unknown."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app.errors import BudgetStoreUnavailableError
from app.stores.budget.memory import InMemoryBudgetStore
from app.stores.gauges import MAX_SCOPES, LedgerCollector, LedgerReading, read_ledger

MINUTE = timedelta(minutes=1)


def scraped(collector: LedgerCollector) -> dict[tuple[str, ...], float]:
    """Return what Prometheus would read."""
    registry = CollectorRegistry()
    registry.register(collector)
    text = generate_latest(registry).decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_gauges_are_the_ledgers_figures() -> None:
    """Spent, held, uncertain, overage and limit of each window; a window without a limit has no limit series."""
    store = InMemoryBudgetStore()
    await store.set_limit("tenant", 10_000_001, window="day")
    await store.reserve("settled", 1_000_000, ["tenant"], lease=MINUTE)
    await store.settle("settled", 1_234_567)
    await store.reserve("unknown", 222_222, ["tenant"], lease=MINUTE)
    await store.expire("unknown")
    await store.reserve("open", 333_333, ["tenant"], lease=MINUTE)

    reading = await read_ledger(store)
    found = scraped(LedgerCollector(lambda: reading))

    microcents = {key: round(value * 1_000_000) for key, value in found.items() if key[0].endswith("_cents")}
    for window in ("total", "month", "day"):
        assert microcents["nova_ledger_spend_cents", "tenant", window] == 1_234_567 + 222_222
        assert microcents["nova_ledger_uncertain_cents", "tenant", window] == 222_222
        assert microcents["nova_ledger_overage_cents", "tenant", window] == 234_567
        assert microcents["nova_ledger_held_cents", "tenant", window] == 333_333
    assert microcents["nova_budget_limit_cents", "tenant", "day"] == 10_000_001
    assert ("nova_budget_limit_cents", "tenant", "total") not in found
    assert found["nova_ledger_up",] == 1


async def test_runs_and_unlimited_scopes_are_no_labels() -> None:
    """Whoever makes up run ids does not make up time series; a scope of one's own is asked for by name."""
    store = InMemoryBudgetStore()
    await store.set_limit("run:1", 5)
    await store.set_limit("agent:writer", 5)
    await store.reserve("h", 1, ["tenant", "run:1", "agent:writer", "agent:free"], lease=MINUTE)

    by_itself = {usage.scope for usage in (await read_ledger(store)).usage}
    asked_for = {usage.scope for usage in (await read_ledger(store, scopes=["agent:free"])).usage}

    assert by_itself == {"tenant", "agent:writer"}
    assert asked_for == {"tenant", "agent:free"}


async def test_too_many_scopes_are_left_out_and_counted() -> None:
    """The number of series is bounded, and that some are missing is seen."""
    store = InMemoryBudgetStore()
    for number in range(MAX_SCOPES + 10):
        await store.set_limit(f"agent:{number:03}", 5)

    reading = await read_ledger(store)

    assert len({usage.scope for usage in reading.usage}) == MAX_SCOPES
    assert reading.left_out == 11


async def test_tenants_do_not_see_each_other() -> None:
    """An exporter shows one tenant."""
    store = InMemoryBudgetStore()
    await store.set_limit("agent:theirs", 5, tenant_id="them")

    assert {usage.scope for usage in (await read_ledger(store)).usage} == {"tenant"}


async def test_a_ledger_that_cannot_be_read_is_not_zero() -> None:
    """Its gauges are left out, and that is a metric."""

    def unreadable() -> LedgerReading:
        raise BudgetStoreUnavailableError("no answer")

    def slow() -> LedgerReading:
        raise TimeoutError

    await asyncio.sleep(0)
    for read in (unreadable, slow):
        assert scraped(LedgerCollector(read)) == {("nova_ledger_up",): 0}
