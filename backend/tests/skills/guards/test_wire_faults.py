"""The guarded chain through the official SDKs, on servers that misbehave: every call is accounted for."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import pytest

from app.errors import LLMError
from app.settings import Settings
from app.skills.guards import RetryPolicy, get_guarded_adapter
from app.skills.llm_invoke_v2 import CallContext, LLMConfig, LLMResponse, StreamEnd
from app.skills.pricing import PriceBook
from app.stores.budget.contract import HoldState
from app.stores.budget.memory import InMemoryBudgetStore
from app.stores.idempotency.memory import InMemoryIdempotencyStore
from tests.skills.adapters.samples import change_since, samples
from tests.skills.adapters.subjects import WireSubject, open_subject
from tests.support.wire import Fault

from .ledger import all_holds, total

CONTEXT = CallContext(idempotency_key="k", run_id="7")
RELEASED, EXPIRED, SETTLED = HoldState.RELEASED, HoldState.EXPIRED, HoldState.SETTLED


@dataclass(frozen=True, kw_only=True)
class Case:
    """A fault of the first call; what its hold becomes; whether another call is made, and then answered."""

    name: str
    fault: Fault
    first: HoldState
    repeated: bool = True
    streamed: bool = False
    timeout_s: float = 30.0


CASES = (
    Case(
        name="429, Retry-After: 0",
        fault=Fault("status", status=429, error="rate_limit_error", headers={"retry-after": "0"}),
        first=RELEASED,
    ),
    Case(
        name="429, retry-after-ms: 20",
        fault=Fault("status", status=429, error="rate_limit_error", headers={"retry-after-ms": "20"}),
        first=RELEASED,
    ),
    Case(name="429 without a hint", fault=Fault("status", status=429, error="rate_limit_error"), first=RELEASED),
    Case(name="529", fault=Fault("status", status=529, error="overloaded_error"), first=RELEASED),
    Case(name="500", fault=Fault("status", status=500), first=EXPIRED),
    Case(name="401", fault=Fault("status", status=401, error="authentication_error"), first=RELEASED, repeated=False),
    Case(name="disconnect before the first byte", fault=Fault("disconnect"), first=EXPIRED),
    Case(name="disconnect after the first byte", fault=Fault("disconnect_midway", after=4), first=EXPIRED),
    Case(name="cut stream", fault=Fault("disconnect_midway", after=4), first=EXPIRED, repeated=False, streamed=True),
    Case(name="truncated stream", fault=Fault("truncated", after=4), first=EXPIRED, repeated=False, streamed=True),
    Case(name="malformed", fault=Fault("malformed"), first=EXPIRED),
    Case(name="HTML from a proxy", fault=Fault("html"), first=EXPIRED),
    Case(name="stalled", fault=Fault("stalled", after=0), first=EXPIRED, repeated=False, timeout_s=0.3),
    Case(name="no usage", fault=Fault("no_usage"), first=EXPIRED, repeated=False),
)


@pytest.mark.parametrize("provider", ["claude", "openai"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_calls_holds_charges_and_metrics_add_up(case: Case, provider: str) -> None:
    """Calls that the server counted = holds = invocations counted; spent = recorded cost + uncertain; none is held."""
    async with open_subject(provider) as subject:
        assert isinstance(subject, WireSubject)
        await subject.adapter.invoke("Warm up.")  # imports the SDK and the prices, which takes its time
        warmed = subject.calls
        budget = InMemoryBudgetStore()
        guard = get_guarded_adapter(
            subject.adapter,
            settings=Settings(),
            budget_store=budget,
            idempotency_store=InMemoryIdempotencyStore(),
            prices=PriceBook(),
            retry=RetryPolicy(max_attempts=2, first_backoff_s=0.001, longest_backoff_s=0.001),
        )
        subject.server.faults.append(case.fault)
        before = samples()
        response: LLMResponse | None = None
        config = LLMConfig(max_tokens=20, timeout_s=case.timeout_s)

        with suppress(LLMError):  # what it means for the money is asserted below
            if case.streamed:
                async for event in guard.stream("Say something about rivers.", config, context=CONTEXT):
                    response = event.response if isinstance(event, StreamEnd) else None
            else:
                response = await guard.invoke("Say something about rivers.", config, context=CONTEXT)

        calls = subject.calls - warmed
        holds = sorted(await all_holds(budget), key=lambda hold: hold.hold_id)
        usage = await total(budget, "run:7")
        counted = sum(value for key, value in change_since(before).items() if key[0] == "nova_llm_invocations_total")
        recorded = (response.cost or 0) if response else 0
        print(  # noqa: T201 - the table of faults; pytest shows it on request
            f"\n| {provider} | {case.name} | {calls} | {' '.join(hold.state for hold in holds)} | {int(counted)} | "
            f"{recorded} | {usage.uncertain} | {usage.spent} |"
        )
        assert calls == len(holds) == counted == (2 if case.repeated else 1)
        assert tuple(hold.state for hold in holds) == ((case.first, SETTLED) if case.repeated else (case.first,))
        assert usage.spent == recorded + usage.uncertain == sum(hold.charged for hold in holds)
        assert usage.held == 0
        assert (response is not None) is (case.repeated or case.name == "no usage")
        assert (await budget.audit()).clean
