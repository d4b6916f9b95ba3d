"""The budget guard: every call on a hold, and every hold closed by what the call turned out to be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from app.errors import (
    BudgetExceededError,
    BudgetStoppedError,
    BudgetStoreUnavailableError,
    ConfigurationError,
    HoldConflictError,
    InvalidInputError,
    LLMError,
    UnboundedCallError,
)
from app.skills.guards import BudgetedAdapter
from app.skills.guards.wrapper import Patience
from app.skills.llm_invoke_v2 import (
    CallContext,
    ImageBlock,
    LLMConfig,
    LLMResponse,
    LLMUsage,
    Message,
    StreamEnd,
    TextBlock,
    TextDelta,
)
from app.skills.pricing import PriceBook
from app.stores.budget.contract import BudgetStore, HoldState
from app.stores.budget.memory import InMemoryBudgetStore
from app.stores.budget.sqlite import SqliteBudgetStore

from .fakes import FakeTime, ScriptedAdapter, answer, cancelled_at, collect, failure, scheduling_points, until
from .ledger import ObservedStore, all_holds, total

CONFIG = LLMConfig(max_tokens=10, timeout_s=60)
HOLD = (2 + 4) * 100 + 10 * 200
"""What ``hi`` with 10 tokens of output can cost with the stub's prices: 2,600 microcents."""
BILL = 5 * 100 + 3 * 200
"""What the scripted answer costs."""
IMPATIENT = Patience(total_s=0.0)
IMAGE = [Message("user", [TextBlock("look"), ImageBlock(media_type="image/png", data="AAAA")])]


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BudgetStore]:
    """Give each store that is embedded."""
    opened: BudgetStore = (
        InMemoryBudgetStore() if request.param == "memory" else SqliteBudgetStore(tmp_path / "nova.db")
    )
    yield opened
    await opened.close()


def budgeted(inner: ScriptedAdapter, store: Any, **more: Any) -> BudgetedAdapter:
    """Return the guard with the stub's prices."""
    return BudgetedAdapter(inner, budget=store, **{"prices": PriceBook(), **more})


async def test_a_call_costs_its_bill_in_every_scope(store: BudgetStore) -> None:
    """The bill is charged exactly to the tenant, the run and the caller's scopes, and written on the response."""
    inner = ScriptedAdapter()
    context = CallContext(run_id="7", scopes=("agent:writer",), idempotency_key="k", fence=3, attempt=2)

    response = await budgeted(inner, store).invoke("hi", CONFIG, context=context)

    assert (response.cost, response.price_version, response.hold_id) == (BILL, "stub", "k/3/stub/2")
    (hold,) = await all_holds(store)
    assert (hold.state, hold.amount, hold.charged) == (HoldState.SETTLED, HOLD, BILL)
    for scope in ("tenant", "run:7", "agent:writer"):
        usage = await total(store, scope)
        assert (usage.spent, usage.held, usage.uncertain) == (BILL, 0, 0)
    assert inner.calls[0].context == context


@pytest.mark.parametrize("verb", ["invoke", "stream"])
async def test_a_priced_call_is_two_round_trips(verb: str) -> None:
    """A reserve and a settle, and nothing else; once a second it is asked whether all tenants are stopped."""
    observed = ObservedStore(InMemoryBudgetStore())
    guard = budgeted(ScriptedAdapter(), observed)
    await guard.invoke("hi", CONFIG)
    observed.verbs.clear()

    if verb == "invoke":
        await guard.invoke("hi", CONFIG)
    else:
        await collect(guard.stream("hi", CONFIG))

    assert dict(observed.verbs) == {"reserve": 1, "settle": 1}


@pytest.mark.parametrize("tenant_id", ["default", None], ids=["its tenant", "all tenants"])
async def test_a_stopped_call_is_not_sent(store: BudgetStore, tenant_id: str | None) -> None:
    """Whether its tenant is stopped or all are: nothing is sent, nothing is held, and the error says who stopped it."""
    inner = ScriptedAdapter()
    await store.stop(reason="drill", tenant_id=tenant_id)

    with pytest.raises(BudgetStoppedError, match=r"\(drill\).*nova budget go") as caught:
        await budgeted(inner, store).invoke("hi", CONFIG)

    assert caught.value.tenant_id == tenant_id
    assert inner.calls == []
    assert await all_holds(store) == ()


async def test_a_stream_is_settled_before_its_end_is_handed_on(store: BudgetStore) -> None:
    """When the reader has the whole response, its cost is spent already."""
    guard = budgeted(ScriptedAdapter(), store)

    async for event in guard.stream("hi", CONFIG):
        held, spent = (await total(store)).held, (await total(store)).spent
        if isinstance(event, StreamEnd):
            assert (held, spent) == (0, BILL)
            assert (event.response.cost, event.response.price_version) == (BILL, "stub")
        else:
            assert (held, spent) == (HOLD, 0)


async def test_a_call_that_does_not_fit_is_not_sent(store: BudgetStore) -> None:
    """One microcent too little refuses, says which limit and what to do, and takes nothing."""
    inner = ScriptedAdapter()
    guard = budgeted(inner, store)
    await store.set_limit("run:7", HOLD - 1)

    with pytest.raises(BudgetExceededError, match="raise the limit") as caught:
        await guard.invoke("hi", CONFIG, context=CallContext(run_id="7"))

    refused = caught.value
    assert (refused.scope, refused.window, refused.limit, refused.requested) == ("run:7", "total", HOLD - 1, HOLD)
    assert inner.calls == []
    assert await all_holds(store) == ()
    await store.set_limit("run:7", HOLD)
    await guard.invoke("hi", CONFIG, context=CallContext(run_id="7"))


async def test_a_bill_above_its_hold_is_charged_in_full(store: BudgetStore) -> None:
    """A provider that bills more than it could is paid, the difference is shown, and the next call is refused."""
    inner = ScriptedAdapter(answer(read=5, generated=100))
    guard = budgeted(inner, store)
    await store.set_limit("tenant", 2 * HOLD)

    response = await guard.invoke("hi", CONFIG)

    bill = 5 * 100 + 100 * 200
    assert response.cost == bill
    assert ((await total(store)).spent, (await total(store)).overage) == (bill, bill - HOLD)
    with pytest.raises(BudgetExceededError):
        await guard.invoke("hi", CONFIG)


@pytest.mark.parametrize("missing", ["tokens", "usage", "partial"])
async def test_an_answer_without_a_bill_is_charged_as_uncertain(store: BudgetStore, missing: str) -> None:
    """Usage that is absent or partial is not zero: the hold stays charged, with what was said about it."""
    said = {
        "tokens": answer(read=5, generated=None),
        "usage": replace(answer(read=5, generated=None), usage=None),
        "partial": replace(answer(), usage=LLMUsage(input_tokens=5, output_tokens=3, complete=False)),
    }[missing]

    response = await budgeted(ScriptedAdapter(said), store).invoke("hi", CONFIG)

    assert (response.cost, response.price_version) == (None, None)
    (hold,) = await all_holds(store)
    assert (hold.state, hold.charged) == (HoldState.EXPIRED, HOLD)
    assert hold.detail is not None
    assert json.loads(hold.detail)["outcome"] == "usage_unknown"
    assert json.loads(hold.detail)["input_tokens"] == 5
    assert (await total(store)).uncertain == HOLD


async def test_a_response_without_parts_is_priced_by_its_totals(store: BudgetStore) -> None:
    """Usage in full is not needed where the totals are there."""
    response = await budgeted(ScriptedAdapter(replace(answer(), usage=None)), store).invoke("hi", CONFIG)

    assert response.cost == BILL


UNBILLED: list[BaseException] = [
    failure("ERR_LLM_OVERLOADED"),
    failure("ERR_LLM_INVALID_PROMPT", retryable=False),
    failure("ERR_LLM_TIMEOUT", billed="no"),
    InvalidInputError("the prompt is empty"),
    ConfigurationError("no key"),
]
UNKNOWN: list[BaseException] = [
    failure("ERR_LLM_TIMEOUT", billed="unknown"),
    failure("ERR_LLM_STREAM_CUT", billed="unknown", partial_text="he", partial_input_tokens=5, partial_output_tokens=1),
    failure("ERR_LLM_SERVER_ERROR", billed="yes"),
    failure("ERR_LLM_STREAM_CUT", billed="yes", partial_input_tokens=5, partial_output_tokens=1),
    failure("ERR_LLM_CONTENT_BLOCKED", billed="yes", partial_input_tokens=5, partial_output_tokens=1),
    RuntimeError("a bug in the adapter"),
    asyncio.CancelledError(),
]


def _named(error: BaseException) -> str:
    return f"{getattr(error, 'code', type(error).__name__)}-{getattr(error, 'billed', '')}"


@pytest.mark.parametrize("verb", ["invoke", "stream"])
@pytest.mark.parametrize("error", UNBILLED, ids=_named)
async def test_only_what_was_provably_not_billed_is_released(
    store: BudgetStore, error: BaseException, verb: str
) -> None:
    """A call that was rejected unbilled, or never sent, gives its hold back."""
    with pytest.raises(type(error)) as caught:
        await _make(budgeted(ScriptedAdapter(error), store), verb)

    assert caught.value is error
    (hold,) = await all_holds(store)
    assert (hold.state, hold.charged) == (HoldState.RELEASED, 0)
    assert ((await total(store)).spent, (await total(store)).held) == (0, 0)


@pytest.mark.parametrize("verb", ["invoke", "stream"])
@pytest.mark.parametrize("error", UNKNOWN, ids=_named)
async def test_an_unknown_outcome_is_charged_at_the_hold(store: BudgetStore, error: BaseException, verb: str) -> None:
    """Nobody knows what it cost, so it counts as the most that it can have cost, with the partial usage kept."""
    with pytest.raises(type(error)):
        await _make(budgeted(ScriptedAdapter(error), store), verb)

    (hold,) = await all_holds(store)
    assert (hold.state, hold.charged) == (HoldState.EXPIRED, HOLD)
    assert (await total(store)).uncertain == HOLD
    detail = json.loads(hold.detail or "")
    assert detail["outcome"] == "unknown"
    assert detail.get("input_tokens") == getattr(error, "partial_input_tokens", None)
    assert detail.get("output_tokens") == getattr(error, "partial_output_tokens", None)


async def test_an_uncertain_charge_can_be_corrected(store: BudgetStore) -> None:
    """When the bill comes later, it takes the place of the hold."""
    with pytest.raises(LLMError):
        await budgeted(ScriptedAdapter(UNKNOWN[0]), store).invoke("hi", CONFIG)
    (hold,) = await all_holds(store)

    await store.settle(hold.hold_id, 7)

    assert ((await total(store)).spent, (await total(store)).uncertain) == (7, 0)


async def test_a_reader_who_leaves_is_an_unknown_outcome(store: BudgetStore) -> None:
    """A stream that is closed early goes on being generated for all that anybody knows."""
    inner = ScriptedAdapter()
    stream = budgeted(inner, store).stream("hi", CONFIG)

    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]  # an async generator, as every adapter's stream

    (hold,) = await all_holds(store)
    assert (hold.state, hold.charged) == (HoldState.EXPIRED, HOLD)
    assert inner.open_streams == 0


async def test_a_stream_without_an_end_is_an_unknown_outcome(store: BudgetStore) -> None:
    """A stream that just stops is an error, and is not free."""

    class Endless(ScriptedAdapter):
        async def stream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            yield TextDelta("hel")

    with pytest.raises(LLMError) as caught:
        await collect(budgeted(Endless(), store).stream("hi", CONFIG))

    assert caught.value.code == "ERR_LLM_STREAM_CUT"
    (hold,) = await all_holds(store)
    assert hold.state is HoldState.EXPIRED


# --- calls without a price or a bound -------------------------------------------------------------------------------


@pytest.mark.parametrize("limited", [("tenant", "total"), ("run:7", "hour"), ("agent:a", "month")])
@pytest.mark.parametrize(
    ("model", "config"),
    [("nobody-knows", CONFIG), ("stub-1", LLMConfig(extra={"audio": {}}))],
    ids=["unpriced", "unbounded parameter"],
)
async def test_what_has_no_bound_is_refused_where_a_limit_applies(
    store: BudgetStore, limited: tuple[str, Any], model: str, config: LLMConfig
) -> None:
    """One limit, in any window of any scope of the call, and it is not sent; nothing stays held."""
    scope, window = limited
    await store.set_limit(scope, 10**9, window=window)
    inner = ScriptedAdapter(model=model)

    with pytest.raises(UnboundedCallError):
        await budgeted(inner, store).invoke("hi", config, context=CallContext(run_id="7", scopes=("agent:a",)))

    assert inner.calls == []
    assert all(hold.state is HoldState.RELEASED for hold in await all_holds(store))


async def test_an_unpriced_call_that_no_longer_fits_says_that_it_has_no_price(store: BudgetStore) -> None:
    """Where the limit is passed already, the reason is still the price that is missing."""
    await store.adjust("a", "tenant", 100)
    await store.set_limit("tenant", 50)

    with pytest.raises(UnboundedCallError):
        await budgeted(ScriptedAdapter(model="nobody-knows"), store).invoke("hi", CONFIG)


async def test_an_unpriced_call_is_made_where_no_limit_applies(store: BudgetStore) -> None:
    """Its cost is None, never zero: the hold says that it is unpriced and how many tokens it was."""
    await store.set_limit("run:other", 1)

    response = await budgeted(ScriptedAdapter(model="nobody-knows"), store).invoke("hi", CONFIG)

    assert (response.cost, response.price_version) == (None, None)
    (hold,) = await all_holds(store)
    assert (hold.state, hold.amount) == (HoldState.EXPIRED, 0)
    assert json.loads(hold.detail or "") == {
        "input_tokens": 5,
        "model": "nobody-knows",
        "outcome": "unpriced",
        "output_tokens": 3,
    }
    await store.settle(hold.hold_id, 7)
    assert (await total(store)).spent == 7, "whoever learns the price can still charge it"


async def test_an_unbounded_call_with_a_price_is_charged(store: BudgetStore) -> None:
    """Without a limit an image may be sent, and costs what its tokens cost."""
    response = await budgeted(ScriptedAdapter(), store).invoke(IMAGE, CONFIG)

    assert response.cost == BILL
    assert (await total(store)).spent == BILL


# --- cut streams by estimate ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reported", "max_tokens", "charge"),
    [
        # nothing: the prompt's bound of 6 tokens, and the 11 bytes that arrived as 11 tokens
        ({}, 100, 6 * 100 + 11 * 200),
        # 5 read, and 4 written, which is less than what arrived
        ({"partial_input_tokens": 5, "partial_output_tokens": 4}, 100, 5 * 100 + 11 * 200),
        # 5 read, and 40 written, with reasoning that nobody saw
        ({"partial_input_tokens": 5, "partial_output_tokens": 40}, 100, 5 * 100 + 40 * 200),
        # never more than the hold
        ({}, 10, HOLD),
    ],
)
async def test_a_cut_stream_is_settled_by_estimate_where_that_is_preferred(
    reported: dict[str, int], max_tokens: int, charge: int
) -> None:
    """What was reported and what arrived is charged, and never more than the hold."""
    store = InMemoryBudgetStore()
    cut = ScriptedAdapter(failure("ERR_LLM_STREAM_CUT", billed="yes", **reported))

    with pytest.raises(LLMError):
        await collect(budgeted(cut, store, cut_stream="estimate").stream("hi", LLMConfig(max_tokens=max_tokens)))

    (hold,) = await all_holds(store)
    assert (hold.state, hold.charged) == (HoldState.SETTLED, charge)
    assert json.loads(hold.detail or "")["outcome"] == "estimated"


@pytest.mark.parametrize("cut_stream", ["hold", "estimate"])
async def test_an_estimate_is_only_for_streams_that_said_something(cut_stream: Literal["hold", "estimate"]) -> None:
    """A call whose answer never arrived has nothing to estimate by."""
    store = InMemoryBudgetStore()
    silent = failure("ERR_LLM_TIMEOUT", billed="unknown")
    guard = budgeted(ScriptedAdapter(silent, pieces=0), store, cut_stream=cut_stream)

    for verb in ("invoke", "stream"):
        with pytest.raises(LLMError):
            await _make(guard, verb)

    assert {hold.state for hold in await all_holds(store)} == {HoldState.EXPIRED}


async def test_a_cut_stream_of_several_answers_is_charged_at_the_hold() -> None:
    """Where an estimate is preferred too: the text that arrived is that of one of them."""
    store, cut = InMemoryBudgetStore(), failure("ERR_LLM_STREAM_CUT", billed="unknown", partial_text="hello")
    guard = budgeted(ScriptedAdapter(cut), store, cut_stream="estimate")

    with pytest.raises(LLMError):
        await collect(guard.stream("hi", replace(CONFIG, extra={"n": 4})))

    (hold,) = await all_holds(store)
    assert hold.state is HoldState.EXPIRED
    assert hold.charged == hold.amount == 4 * HOLD


async def test_a_reader_who_leaves_pays_what_arrived_by_estimate() -> None:
    """Closing a stream early is a cut stream too."""
    store = InMemoryBudgetStore()
    stream = budgeted(ScriptedAdapter(answer("abcdef"), pieces=3), store, cut_stream="estimate").stream("hi", CONFIG)

    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]  # an async generator, as every adapter's stream

    assert (await total(store)).spent == 6 * 100 + 2 * 200


# --- cancellation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut_stream", ["hold", "estimate"])
@pytest.mark.parametrize("verb", ["invoke", "stream"])
async def test_cancellation_at_every_point_closes_the_hold(verb: str, cut_stream: Literal["hold", "estimate"]) -> None:
    """Wherever a call is cancelled, inside the store's verbs too, no hold stays; unsent means released."""
    seen = set()

    async def check(point: int) -> bool:
        store = InMemoryBudgetStore()
        inner = ScriptedAdapter(awaits=2)
        guard = budgeted(inner, ObservedStore(store, awaits=2), cut_stream=cut_stream)

        running = await cancelled_at(point, lambda: _make(guard, verb))

        holds = await all_holds(store)
        states = {hold.state for hold in holds}
        seen.update(states)
        assert states <= ({HoldState.SETTLED, HoldState.EXPIRED} if inner.calls else {HoldState.RELEASED})
        assert len(holds) == 1 or not inner.calls
        assert inner.open_streams == 0
        assert (await total(store)).held == 0
        assert (await store.audit()).clean
        return running

    points = await scheduling_points(check)

    assert points >= 10
    assert {HoldState.RELEASED, HoldState.SETTLED, HoldState.EXPIRED} == seen


@pytest.mark.parametrize("verb", ["invoke", "stream"])
async def test_cancellation_on_a_real_file_closes_the_hold(tmp_path: Path, verb: str) -> None:
    """The same with the store's own thread in between."""
    store = SqliteBudgetStore(tmp_path / "nova.db")
    inner = ScriptedAdapter(awaits=3)
    guard = budgeted(inner, store)

    for point in range(0, 60, 3):
        await cancelled_at(point, lambda: _make(guard, verb))
    held = await all_holds(store, state=HoldState.HELD)
    clean = (await store.audit()).clean
    await store.close()

    assert held == ()
    assert clean


async def test_a_second_cancellation_does_not_stop_the_settlement() -> None:
    """However often somebody cancels, the charge is delivered, and the cancellation comes after it."""
    store = InMemoryBudgetStore()
    observed = ObservedStore(store, awaits=10)
    task = asyncio.ensure_future(budgeted(ScriptedAdapter(), observed).invoke("hi", CONFIG))
    await until(lambda: observed.verbs["settle"] > 0)

    for _ in range(5):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait((task,))

    assert task.cancelled()
    (hold,) = await all_holds(store)
    assert (hold.state, hold.charged) == (HoldState.SETTLED, BILL)


# --- a store in trouble ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
async def test_without_a_hold_nothing_is_sent(when: str) -> None:
    """A store that does not answer refuses the call; a hold that it took all the same is given back."""
    store = InMemoryBudgetStore()
    inner = ScriptedAdapter()
    guard = budgeted(inner, ObservedStore(store, reserve=when))

    with pytest.raises(BudgetStoreUnavailableError):
        await guard.invoke("hi", CONFIG)
    with pytest.raises(BudgetStoreUnavailableError):
        await collect(guard.stream("hi", CONFIG))

    assert inner.calls == []
    assert {hold.state for hold in await all_holds(store)} == (set() if when == "before" else {HoldState.RELEASED})


async def test_a_store_that_is_down_altogether_refuses(caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be given back is logged; its lease ends by itself."""
    guard = budgeted(ScriptedAdapter(), ObservedStore(InMemoryBudgetStore(), reserve="after", release="before"))

    with pytest.raises(BudgetStoreUnavailableError):
        await guard.invoke("hi", CONFIG)

    assert "could not be released" in caplog.text


async def test_a_settlement_that_lost_its_acknowledgement_is_repeated() -> None:
    """The same bill again is the same charge."""
    store, time = InMemoryBudgetStore(), FakeTime()
    observed = ObservedStore(store, settle="once")
    guard = budgeted(ScriptedAdapter(), observed, patience=Patience(clock=time.clock, sleep=time.sleep))

    response = await guard.invoke("hi", CONFIG)

    assert response.cost == BILL
    assert observed.verbs["settle"] == 2
    assert ((await total(store)).spent, (await total(store)).held) == (BILL, 0)


async def test_a_settlement_that_cannot_be_delivered_is_tried_then_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The paid answer is returned; the hold stays until the end of its lease charges it."""
    store, time = InMemoryBudgetStore(), FakeTime()
    observed = ObservedStore(store, settle="before")
    patience = Patience(total_s=3.0, clock=time.clock, sleep=time.sleep)

    response = await budgeted(ScriptedAdapter(), observed, patience=patience).invoke("hi", CONFIG)

    assert response.content == "hello there"
    assert observed.verbs["settle"] == len(time.slept) + 1 >= 5
    assert sum(time.slept) < 3.0
    assert "could not be settled at 1100 microcents" in caplog.text
    assert (await all_holds(store))[0].state is HoldState.HELD
    assert (await all_holds(store))[0].hold_id in caplog.text


async def test_an_error_of_the_provider_survives_a_store_in_trouble() -> None:
    """What the caller hears is why the call failed, not that its hold could not be closed."""
    observed = ObservedStore(InMemoryBudgetStore(), release="before")

    with pytest.raises(LLMError) as caught:
        await budgeted(ScriptedAdapter(failure()), observed, patience=IMPATIENT).invoke("hi", CONFIG)

    assert caught.value.code == "ERR_LLM_OVERLOADED"


# --- names and leases -----------------------------------------------------------------------------------------------


async def test_holds_of_calls_without_a_key_never_meet(store: BudgetStore) -> None:
    """Without a key, and with a key that nobody owns, every call has a hold of its own."""
    guard = budgeted(ScriptedAdapter(), store)

    for context in (None, CallContext(), CallContext(idempotency_key="k"), CallContext(idempotency_key="k")):
        await guard.invoke("hi", CONFIG, context=context)

    assert len({hold.hold_id for hold in await all_holds(store)}) == 4


async def test_a_hold_that_was_used_does_not_pay_twice(store: BudgetStore) -> None:
    """A name that was settled permits no second call."""
    inner = ScriptedAdapter()
    context = CallContext(idempotency_key="k", fence=1)
    guard = budgeted(inner, store)
    await guard.invoke("hi", CONFIG, context=context)

    with pytest.raises(HoldConflictError) as caught:
        await guard.invoke("hi", CONFIG, context=context)

    assert caught.value.hold_id == "k/1/stub/1"
    assert len(inner.calls) == 1
    assert (await total(store)).spent == BILL


async def test_a_long_key_still_names_its_hold(store: BudgetStore) -> None:
    """A key of the longest length that is allowed fits into a hold's name, and two such keys stay apart."""
    guard = budgeted(ScriptedAdapter(), store, label="a" * 60)

    for last in "ab":
        await guard.invoke("hi", CONFIG, context=CallContext(idempotency_key="k" * 511 + last, fence=10**12))

    assert len(await all_holds(store)) == 2


@pytest.mark.parametrize(
    ("timeout_s", "deadline", "lease_s"),
    [(60.0, None, 90), (60.0, timedelta(seconds=10), 40), (60.0, timedelta(hours=1), 90), (86_400.0, None, 86_400)],
)
async def test_a_hold_lives_as_long_as_its_call_may_take(
    timeout_s: float, deadline: timedelta | None, lease_s: int
) -> None:
    """The deadline of the call and 30 seconds to settle it, and no longer than a store allows."""
    store = InMemoryBudgetStore()

    await budgeted(ScriptedAdapter(), store).invoke(
        "hi", LLMConfig(max_tokens=10, timeout_s=timeout_s), context=CallContext(deadline=deadline)
    )

    (hold,) = await all_holds(store)
    assert hold.expires_at - hold.created_at == timedelta(seconds=lease_s)


async def test_the_bill_is_for_the_model_that_was_asked_for(store: BudgetStore) -> None:
    """A server may call its model what it likes; the price is that of the name in the request."""
    said = replace(answer(), model="/models/something.gguf")

    response: LLMResponse = await budgeted(ScriptedAdapter(said), store).invoke("hi", replace(CONFIG, model="stub-1"))

    assert response.cost == BILL
    assert response.model == "/models/something.gguf"


async def _make(guard: BudgetedAdapter, verb: str) -> None:
    if verb == "invoke":
        await guard.invoke("hi", CONFIG)
    else:
        await collect(guard.stream("hi", CONFIG))
