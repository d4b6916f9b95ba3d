"""The whole chain: what was called, held, charged and recorded adds up, whatever happened."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from app.errors import (
    BudgetExceededError,
    BudgetStoreUnavailableError,
    ConfigurationError,
    IdempotencyLeaseLostError,
    IdempotencyStoreUnavailableError,
    InvalidInputError,
    LLMError,
    NovaError,
)
from app.settings import Settings
from app.skills.adapters.stub_adapter import StubAdapter
from app.skills.adapters.stub_script import StubFault
from app.skills.guards import (
    BreakingAdapter,
    BudgetedAdapter,
    FallbackAdapter,
    IdempotentAdapter,
    RetryingAdapter,
    RetryPolicy,
    ThrottledAdapter,
    ThrottlePolicy,
    get_guarded_adapter,
)
from app.skills.guards.recording import decode_response, fingerprint
from app.skills.guards.wrapper import Patience
from app.skills.llm_invoke_v2 import CallContext, LLMAdapter, LLMConfig, LLMResponse
from app.skills.pricing import PriceBook
from app.stores.budget.contract import Hold, HoldState
from app.stores.budget.memory import InMemoryBudgetStore
from app.stores.holder import Holder
from app.stores.idempotency.contract import DEFAULT_LEASE, Completed, InProgress
from app.stores.idempotency.memory import InMemoryIdempotencyStore

from .fakes import Outcome, ScriptedAdapter, answer, cancelled_at, collect, failure, scheduling_points
from .ledger import ObservedStore, all_holds, total

AT_ONCE = RetryPolicy(max_attempts=4, first_backoff_s=0.001, longest_backoff_s=0.001)
CONFIG = LLMConfig(max_tokens=10, timeout_s=30)
HOLD = (2 + 4) * 100 + 10 * 200
BILL = 5 * 100 + 3 * 200
KEY = CallContext(idempotency_key="k", run_id="7")

RELEASED, EXPIRED, SETTLED = HoldState.RELEASED, HoldState.EXPIRED, HoldState.SETTLED


def chain(adapter: LLMAdapter, budget: Any, idempotency: Any = None, **more: Any) -> LLMAdapter:
    """Return the guarded chain around an adapter, with stores of the test."""
    return get_guarded_adapter(
        adapter,
        settings=Settings(),
        budget_store=budget,
        idempotency_store=idempotency or InMemoryIdempotencyStore(),
        prices=PriceBook(),
        **{"retry": AT_ONCE, **more},
    )


def counted() -> float:
    """Return how many calls of the stub the metrics have counted."""
    return sum(
        sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == "nova_llm_invocations_total" and sample.labels["provider"] == "stub"
    )


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What the provider does call after call, and what each call's hold becomes."""

    kinds: tuple[str, ...]
    states: tuple[HoldState, ...]
    answered: bool
    timeout_s: float = 30.0
    verbs: tuple[str, ...] = ("invoke", "stream")


FAULTS = (
    Fault(kinds=("ok",), states=(SETTLED,), answered=True),
    Fault(kinds=("refusal",), states=(SETTLED,), answered=True),
    Fault(kinds=("rate_limited", "ok"), states=(RELEASED, SETTLED), answered=True),
    Fault(kinds=("overloaded", "server_error", "ok"), states=(RELEASED, EXPIRED, SETTLED), answered=True),
    Fault(kinds=("disconnect", "disconnect", "ok"), states=(EXPIRED, EXPIRED, SETTLED), answered=True),
    Fault(kinds=("overloaded",) * 4, states=(RELEASED,) * 4, answered=False),
    Fault(kinds=("server_error",) * 4, states=(EXPIRED,) * 4, answered=False),
    Fault(kinds=("missing_usage",), states=(EXPIRED,), answered=True),
    Fault(kinds=("timeout",), states=(EXPIRED,), answered=False, timeout_s=0.5),
    Fault(kinds=("cut_stream", "ok"), states=(EXPIRED, SETTLED), answered=True, verbs=("invoke",)),
    Fault(kinds=("cut_stream", "ok"), states=(EXPIRED,), answered=False, verbs=("stream",)),
    Fault(kinds=("stalled",), states=(EXPIRED,), answered=False, timeout_s=0.5, verbs=("stream",)),
)


@pytest.mark.parametrize(
    ("fault", "verb"),
    [pytest.param(fault, verb, id=f"{'-'.join(fault.kinds)}-{verb}") for fault in FAULTS for verb in fault.verbs],
)
async def test_calls_holds_charges_and_metrics_add_up(fault: Fault, verb: str) -> None:
    """Every call that reached the provider has one hold and one count; spent is recorded costs plus uncertain."""
    script: list[Any] = [StubFault(kind=kind) for kind in fault.kinds]  # type: ignore[arg-type]  # kinds as literals
    stub, budget = StubAdapter(faults=script), InMemoryBudgetStore()
    guard = chain(stub, budget)
    before = counted()

    response = await _outcome(guard, verb, replace(CONFIG, timeout_s=fault.timeout_s))

    holds = _in_order(await all_holds(budget))
    usage = await total(budget, "run:7")
    recorded = response.cost or 0 if response is not None else 0
    assert (response is not None) is fault.answered
    assert tuple(hold.state for hold in holds) == fault.states
    assert stub.calls == len(holds)
    assert counted() - before == stub.calls
    assert usage.spent == recorded + usage.uncertain == sum(hold.charged for hold in holds)
    assert usage.uncertain == sum(hold.amount for hold in holds if hold.state is EXPIRED)
    assert usage.held == 0
    assert (await budget.audit()).clean


@pytest.mark.parametrize("verb", ["invoke", "stream"])
async def test_a_replay_charges_and_counts_nothing(verb: str) -> None:
    """The second time nothing is sent, held, charged or counted."""
    stub, budget = StubAdapter(), InMemoryBudgetStore()
    guard = chain(stub, budget)
    first = await guard.invoke("hi", CONFIG, context=KEY)
    before = (counted(), await all_holds(budget), await total(budget), stub.calls)

    again = await _outcome(guard, verb, CONFIG)

    assert again == replace(first, replayed=True)
    assert again.metered
    assert (counted(), await all_holds(budget), await total(budget), stub.calls) == before


@pytest.mark.parametrize("verb", ["invoke", "stream"])
async def test_a_hold_is_settled_only_when_its_response_is_on_record(verb: str) -> None:
    """A crash at any moment leaves no final bill without a result: at the settlement the record is there."""
    keys, seen = InMemoryIdempotencyStore(), []

    class Witness(InMemoryBudgetStore):
        async def settle(self, *args: Any, **kwargs: Any) -> Hold:
            seen.append(await keys.begin("k", fingerprint("hi", CONFIG), holder=Holder.current()))
            return await super().settle(*args, **kwargs)

    response = await _outcome(chain(ScriptedAdapter(), Witness(), keys), verb, CONFIG)

    assert response is not None
    assert [decode_response(found.result) for found in seen if isinstance(found, Completed)] == [response]


@pytest.mark.parametrize("expired", [False, True])
async def test_a_repeat_settles_what_a_crash_left_open(expired: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A hold whose call is on record is charged its bill by the repeat, held or charged as uncertain meanwhile."""
    budget, keys = ObservedStore(InMemoryBudgetStore(), settle="before"), InMemoryIdempotencyStore()
    guard = IdempotentAdapter(
        BudgetedAdapter(ScriptedAdapter(), budget=budget, prices=PriceBook(), patience=Patience(total_s=0)),
        store=keys,
        budget=budget,
    )
    first = await guard.invoke("hi", CONFIG, context=KEY)
    assert first.hold_id is not None
    if expired:
        await budget.expire(first.hold_id)
    budget.broken.clear()

    again = await guard.invoke("hi", CONFIG, context=KEY)

    usage = await total(budget, "run:7")
    assert again.replayed
    assert (usage.spent, usage.held, usage.uncertain) == (first.cost, 0, 0)


@pytest.mark.parametrize("meanwhile", ["held", "expired", "corrected"])
@pytest.mark.parametrize("verb", ["invoke", "stream"])
async def test_an_answer_whose_key_was_taken_over_is_charged_as_uncertain(
    verb: str, meanwhile: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Who stood still gets an error, and a charge that is uncertain: spent stays the recorded cost plus uncertain."""
    now_ms = 1_000_000
    budget, keys = InMemoryBudgetStore(), InMemoryIdempotencyStore(clock=lambda: now_ms)
    recorded: list[LLMResponse] = []

    class StoodStill(ScriptedAdapter):
        async def _yield(self) -> None:
            nonlocal now_ms
            now_ms += DEFAULT_LEASE // timedelta(milliseconds=1) + 1
            recorded.append(await chain(ScriptedAdapter(), budget, keys).invoke("hi", CONFIG, context=KEY))
            (own,) = (hold for hold in await all_holds(budget) if hold.hold_id != recorded[0].hold_id)
            if meanwhile == "expired":
                await budget.expire(own.hold_id, detail="its run was taken up")
            if meanwhile == "corrected":
                await budget.settle(own.hold_id, 7)

    with pytest.raises(IdempotencyLeaseLostError):
        await _outcome(chain(StoodStill(pieces=0), budget, keys), verb, CONFIG)

    (lost,) = (hold for hold in await all_holds(budget) if hold.hold_id != recorded[0].hold_id)
    usage = await total(budget)
    if meanwhile == "corrected":
        assert (lost.state, usage.spent, usage.uncertain) == (SETTLED, BILL + 7, 0)
    else:
        assert (lost.state, usage.spent, usage.uncertain) == (EXPIRED, BILL + HOLD, HOLD)
    if meanwhile == "held":
        noted = json.loads(lost.detail or "")
        assert (noted["outcome"], noted["cost"]) == ("superseded", BILL)
        assert (noted["input_tokens"], noted["output_tokens"]) == (5, 3)
    if meanwhile == "expired":
        assert lost.detail == "its run was taken up"
    assert f'"cost": {BILL}' in caplog.text
    assert (await budget.audit()).clean


async def test_a_call_cancelled_while_it_is_recorded_is_settled() -> None:
    """Once the response is on record its bill is final, though its caller is gone."""
    reached = asyncio.Event()

    class Slow(InMemoryIdempotencyStore):
        async def complete(self, *args: Any, **more: Any) -> None:
            reached.set()
            await asyncio.sleep(0)
            await super().complete(*args, **more)

    budget, keys = InMemoryBudgetStore(), Slow()
    call = asyncio.ensure_future(chain(ScriptedAdapter(), budget, keys).invoke("hi", CONFIG, context=KEY))
    await reached.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    (hold,) = await all_holds(budget)
    again = await chain(ScriptedAdapter(), budget, keys).invoke("hi", CONFIG, context=KEY)
    assert (hold.state, hold.charged) == (SETTLED, BILL)
    assert (again.replayed, again.cost) == (True, BILL)


@pytest.mark.parametrize("cancelled_in", ["complete", "abandon"])
async def test_cancelled_where_nothing_can_be_recorded_leaves_no_final_bill(cancelled_in: str) -> None:
    """A response that is not on record and that nobody gets is charged as uncertain, its bill noted."""
    reached = asyncio.Event()

    class Down(InMemoryIdempotencyStore):
        async def complete(self, *_: Any, **__: Any) -> None:
            await self._arrive("complete")
            raise IdempotencyStoreUnavailableError("no answer")

        async def abandon(self, *args: Any, **more: Any) -> None:
            await self._arrive("abandon")
            await super().abandon(*args, **more)

        async def _arrive(self, verb: str) -> None:
            if verb == cancelled_in:
                reached.set()
                await asyncio.sleep(0)

    budget = InMemoryBudgetStore()
    inner = BudgetedAdapter(ScriptedAdapter(), budget=budget, prices=PriceBook())
    guard = IdempotentAdapter(inner, store=Down(), patience=Patience(total_s=0))
    call = asyncio.ensure_future(guard.invoke("hi", CONFIG, context=KEY))
    await reached.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    (hold,) = await all_holds(budget)
    noted = json.loads(hold.detail or "")
    assert (hold.state, hold.charged) == (EXPIRED, HOLD)
    assert (noted["outcome"], noted["cost"]) == ("not_recorded", BILL)


async def test_the_record_of_a_fallback_says_what_was_passed_over() -> None:
    """A repeat gives the response as the first caller got it."""
    once = replace(AT_ONCE, max_attempts=1)
    guard = chain(ScriptedAdapter(failure()), InMemoryBudgetStore(), fallbacks=[ScriptedAdapter()], retry=once)

    first = await guard.invoke("hi", CONFIG, context=KEY)
    again = await guard.invoke("hi", CONFIG, context=KEY)

    assert first.fallback_from
    assert again == replace(first, replayed=True, metered=True)


async def test_fifty_duplicates_are_charged_once() -> None:
    """A budget for exactly one call is enough for fifty callers with one key."""
    inner, budget = ScriptedAdapter(awaits=20), InMemoryBudgetStore()
    await budget.set_limit("run:7", HOLD)
    guard = chain(inner, budget)

    responses = await asyncio.gather(*(guard.invoke("hi", CONFIG, context=KEY) for _ in range(50)))

    assert len(inner.calls) == 1
    assert {replace(response, replayed=False) for response in responses} == {
        replace(answer(), cost=1_100, price_version="stub", hold_id=responses[0].hold_id)
    }
    assert (await total(budget, "run:7")).spent == 1_100
    assert len(await all_holds(budget)) == 1


async def test_a_repeat_after_a_failure_has_holds_of_its_own() -> None:
    """The first time stays charged as uncertain, the second by its bill, and the names tell them apart."""
    inner = ScriptedAdapter(failure("ERR_LLM_TIMEOUT", retryable=False, billed="unknown"), answer())
    budget = InMemoryBudgetStore()
    guard = chain(inner, budget)

    with pytest.raises(LLMError):
        await guard.invoke("hi", CONFIG, context=KEY)
    response = await guard.invoke("hi", CONFIG, context=KEY)

    usage = await total(budget, "run:7")
    assert not response.replayed
    assert (usage.spent, usage.uncertain) == (HOLD + 1_100, HOLD)
    names = [hold.hold_id.split("/") for hold in _in_order(await all_holds(budget))]
    assert [name[0] for name in names] == ["k", "k"]
    assert int(names[0][1]) < int(names[1][1]), "the fencing token grew"


async def test_attempts_and_adapters_of_one_key_have_names_of_their_own() -> None:
    """Two attempts of the first stub and one of the second: three holds, told apart by adapter and attempt."""
    first, second = ScriptedAdapter(failure(), failure()), ScriptedAdapter(answer("second"))
    budget = InMemoryBudgetStore()
    guard = chain(first, budget, fallbacks=[second], retry=replace(AT_ONCE, max_attempts=2))

    response = await guard.invoke("hi", CONFIG, context=KEY)

    assert response.content == "second"
    assert response.fallback_from == ("stub: ERR_LLM_OVERLOADED",)
    ends = sorted("/".join(hold.hold_id.split("/")[2:]) for hold in await all_holds(budget))
    assert ends == ["stub.2/1", "stub/1", "stub/2"]


async def test_a_refused_budget_leaves_the_key_free() -> None:
    """After the limit is raised the same key makes the call."""
    budget = InMemoryBudgetStore()
    await budget.set_limit("run:7", HOLD - 1)
    inner = ScriptedAdapter()
    guard = chain(inner, budget, fallbacks=[ScriptedAdapter()])

    with pytest.raises(BudgetExceededError):
        await guard.invoke("hi", CONFIG, context=KEY)
    await budget.set_limit("run:7", HOLD)
    response = await guard.invoke("hi", CONFIG, context=KEY)

    assert not response.replayed
    assert len(inner.calls) == 1


async def test_what_cannot_be_sent_is_not_charged() -> None:
    """An extra parameter that is not JSON is refused, with a key or without, and nothing is spent."""
    budget = InMemoryBudgetStore()
    guard = chain(StubAdapter(), budget)
    config = replace(CONFIG, extra={"metadata": object()})

    for context in (KEY, None):
        with pytest.raises(InvalidInputError, match="JSON"):
            await guard.invoke("hi", config, context=context)

    usage = await total(budget)
    assert (usage.spent, usage.held) == (0, 0)


async def test_a_budget_store_that_is_down_is_not_retried_around() -> None:
    """No attempt and no other adapter is tried without a ledger."""
    first, second = ScriptedAdapter(), ScriptedAdapter()
    guard = chain(first, ObservedStore(InMemoryBudgetStore(), reserve="before"), fallbacks=[second])

    with pytest.raises(BudgetStoreUnavailableError):
        await guard.invoke("hi", CONFIG, context=KEY)

    assert first.calls == second.calls == []


@pytest.mark.parametrize("verb", ["invoke", "stream"])
async def test_cancellation_at_every_point_of_the_chain(verb: str) -> None:
    """Through a failed attempt, its retry, the settlement and the recording: no hold and no key stays."""
    states: set[HoldState] = set()

    async def check(point: int) -> bool:
        budget, keys = InMemoryBudgetStore(), InMemoryIdempotencyStore()
        inner = ScriptedAdapter(failure(), answer(), pieces=0)
        guard = IdempotentAdapter(
            RetryingAdapter(
                BudgetedAdapter(inner, budget=ObservedStore(budget, awaits=1), prices=PriceBook()),
                policy=AT_ONCE,
                sleep=lambda _: asyncio.sleep(0),
            ),
            store=ObservedStore(keys, awaits=1),  # type: ignore[arg-type]  # observes any store
        )

        running = await cancelled_at(point, lambda: _outcome(guard, verb, CONFIG))

        holds = await all_holds(budget)
        left = await keys.begin("k", fingerprint("hi", CONFIG), holder=replace(Holder.current(), instance="other"))
        assert HoldState.HELD not in {hold.state for hold in holds}
        assert isinstance(left, Completed) or SETTLED not in {hold.state for hold in holds}, "no bill without a record"
        assert not isinstance(left, InProgress)
        assert sum(hold.state is not RELEASED for hold in holds) <= len(inner.calls) <= len(holds)
        assert (await budget.audit()).clean
        states.update(hold.state for hold in holds)
        return running

    assert await scheduling_points(check) >= 15
    assert states == {RELEASED, EXPIRED, SETTLED}


# --- any interleaving -----------------------------------------------------------------------------------------------

kinds = st.sampled_from(["bill", "most", "unbilled", "unknown", "no usage", "bug"])
tasks = st.lists(
    st.tuples(kinds, st.integers(0, 6), st.none() | st.integers(0, 25), st.booleans()), min_size=1, max_size=12
)


@settings(max_examples=150)
@example(
    tasks=[("bill", 6, point, streamed) for point in (6, 8, 10, 12) for streamed in (False, True)], room=8, extra=0
)
@given(tasks=tasks, room=st.integers(0, 4), extra=st.integers(0, HOLD - 1))
def test_any_interleaving_keeps_the_ceiling_and_the_sum(
    tasks: list[tuple[str, int, int | None, bool]], room: int, extra: int
) -> None:
    """At every grant spent + held is within the limit; at the end spent is recorded costs plus uncertain, none held."""
    asyncio.run(_interleave(tasks, limit=room * HOLD + extra))


async def _interleave(tasks: list[tuple[str, int, int | None, bool]], *, limit: int) -> None:
    store = InMemoryBudgetStore()
    observed = ObservedStore(store, awaits=1)
    await store.set_limit("tenant", limit)
    outcomes: dict[str, Outcome] = {
        "bill": answer(),
        "most": answer(read=6, generated=10),
        "unbilled": failure(retryable=False),
        "unknown": failure("ERR_LLM_TIMEOUT", retryable=False, billed="unknown"),
        "no usage": answer(read=None, generated=None),
        "bug": RuntimeError("a bug"),
    }
    recorded: list[int] = []
    reached: list[ScriptedAdapter] = []

    async def one(kind: str, awaits: int, cancel_at: int | None, *, streamed: bool) -> None:
        inner = ScriptedAdapter(outcomes[kind], awaits=awaits)
        reached.append(inner)
        guard = BudgetedAdapter(inner, budget=observed, prices=PriceBook())

        async def work() -> None:
            try:
                if streamed:
                    _, response = await collect(guard.stream("hi", CONFIG))
                else:
                    response = await guard.invoke("hi", CONFIG)
            except (NovaError, RuntimeError):
                return
            if response.cost is not None:
                recorded.append(response.cost)

        await cancelled_at(10_000 if cancel_at is None else cancel_at, work)

    await asyncio.gather(
        *(one(kind, awaits, cancel_at, streamed=streamed) for kind, awaits, cancel_at, streamed in tasks)
    )

    for grant in observed.grants:
        for window in grant.windows:
            assert window.limit is None or window.spent + window.held <= window.limit
    usage, holds = await total(store), await all_holds(store)
    settled = sum(hold.charged for hold in holds if hold.state is SETTLED)
    assert usage.held == 0
    assert usage.spent == settled + usage.uncertain <= limit
    assert sum(recorded) <= settled, "a bill whose caller was cancelled is charged, and told to nobody"
    if all(cancel_at is None for _, _, cancel_at, _ in tasks):
        assert sum(recorded) == settled
    assert sum(len(inner.calls) for inner in reached) <= len(holds)
    assert (await store.audit()).clean


# --- putting it together --------------------------------------------------------------------------------------------


def test_the_guards_are_in_this_order() -> None:
    """Idempotent around fallback around retry around the limits, the breaker and the budget around the adapter."""
    first, second = ScriptedAdapter(), ScriptedAdapter()

    guard: Any = chain(first, InMemoryBudgetStore(), fallbacks=[second], throttle=ThrottlePolicy(concurrency=1))

    assert isinstance(guard, IdempotentAdapter)
    assert isinstance(guard.inner, FallbackAdapter)
    assert isinstance(guard.inner.inner, RetryingAdapter)
    assert isinstance(guard.inner.inner.inner, ThrottledAdapter)
    assert isinstance(guard.inner.inner.inner.inner, BreakingAdapter)
    assert isinstance(guard.inner.inner.inner.inner.inner, BudgetedAdapter)
    assert guard.inner.inner.inner.inner.inner.inner is first
    assert (guard.adapter_id, guard.default_model) == ("stub", "stub-1")


async def test_everything_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without arguments the stores, prices and adapter are those of the settings, named adapters too."""
    from app.stores import get_budget_store

    monkeypatch.setenv("LLM_ADAPTER", "stub")
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'nova.db'}")

    response = await get_guarded_adapter().invoke("hi", CONFIG, context=KEY)
    named = await get_guarded_adapter("stub", fallbacks=["stub"]).invoke("hi", CONFIG, context=KEY)

    assert response.cost is not None
    assert named == replace(response, replayed=True)
    assert (await total(get_budget_store(), "run:7")).spent == response.cost


async def test_cut_streams_are_settled_as_the_settings_say() -> None:
    """``NOVA_CUT_STREAM=estimate`` reaches the budget guard."""
    budget = InMemoryBudgetStore()
    guard = get_guarded_adapter(
        StubAdapter(faults=[StubFault(kind="cut_stream")]),
        settings=Settings(nova_cut_stream="estimate"),
        budget_store=budget,
        idempotency_store=InMemoryIdempotencyStore(),
    )

    with pytest.raises(LLMError):
        await collect(guard.stream("hi", CONFIG))

    (hold,) = await all_holds(budget)
    assert hold.state is SETTLED


def test_an_adapter_that_does_not_exist_is_a_configuration_error() -> None:
    """A wrong name is said at once."""
    with pytest.raises(ConfigurationError, match="parrot"):
        get_guarded_adapter("parrot", settings=Settings())


async def _outcome(guard: LLMAdapter, verb: str, config: LLMConfig) -> LLMResponse | None:
    """Make the call; None where it failed."""
    try:
        if verb == "invoke":
            return await guard.invoke("hi", config, context=KEY)
        return (await collect(guard.stream("hi", config, context=KEY)))[1]
    except LLMError:
        return None


def _in_order(holds: tuple[Hold, ...]) -> list[Hold]:
    """Return holds in the order of their fencing tokens and attempts."""
    return sorted(holds, key=lambda hold: [int(part) for part in hold.hold_id.split("/") if part.isdigit()])
