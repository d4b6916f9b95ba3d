"""A provider in trouble is left alone, calls wait for their turn, and ``LLM_FALLBACK`` names who is asked instead."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from app.errors import ConfigurationError, InvalidInputError, LLMError
from app.settings import load_settings
from app.skills.adapters import close_adapters
from app.skills.guards import (
    BreakerPolicy,
    BreakingAdapter,
    FallbackAdapter,
    RetryingAdapter,
    ThrottledAdapter,
    ThrottlePolicy,
    get_guarded_adapter,
)
from app.skills.guards.breaker import Circuits
from app.skills.llm_invoke_v2 import CallContext, LLMAdapter, LLMConfig, LLMResponse, Prompt, StreamEnd
from tests.support.wire import Fault, WireServer

from .fakes import FakeTime, ScriptedAdapter, answer, collect, failure

POLICY = BreakerPolicy(failures=3, open_s=30)
TROUBLE = ("ERR_LLM_SERVER_ERROR", "ERR_LLM_TIMEOUT", "ERR_LLM_NETWORK", "ERR_LLM_OVERLOADED")
NO_TROUBLE = ("ERR_LLM_RATE_LIMITED", "ERR_LLM_AUTH_FAILED", "ERR_LLM_INVALID_PROMPT", "ERR_LLM_CONTENT_BLOCKED")


async def fails(adapter: LLMAdapter, *, streamed: bool = False, config: LLMConfig | None = None) -> str:
    """Make a call that fails; return the code of its error."""
    with pytest.raises(LLMError) as caught:
        await (collect(adapter.stream("hi", config)) if streamed else adapter.invoke("hi", config))
    return caught.value.code


@pytest.mark.parametrize("code", TROUBLE)
@pytest.mark.parametrize("streamed", [False, True], ids=["invoke", "stream"])
async def test_failures_in_a_row_open_the_circuit(code: str, streamed: bool) -> None:  # noqa: FBT001  # a parameter of the test
    """After three nothing is sent; the error says so, is unbilled, and for how long."""
    time = FakeTime()
    inner = ScriptedAdapter(*[failure(code)] * 3)
    adapter = BreakingAdapter(inner, policy=POLICY, clock=time.clock)

    codes = [await fails(adapter, streamed=streamed) for _ in range(3)]
    time.pass_by(10)
    with pytest.raises(LLMError) as caught:
        await adapter.invoke("hi")

    assert codes == [code] * 3
    assert (caught.value.code, caught.value.billed) == ("ERR_LLM_CIRCUIT_OPEN", "no")
    assert caught.value.retry_after == timedelta(seconds=20)
    assert len(inner.calls) == 3


@pytest.mark.parametrize("code", NO_TROUBLE)
async def test_a_provider_that_answers_is_not_in_trouble(code: str) -> None:
    """A limit, a rejection or a refusal is an answer: it closes the count of failures."""
    inner = ScriptedAdapter(
        *[failure("ERR_LLM_TIMEOUT"), failure("ERR_LLM_TIMEOUT"), failure(code)] * 2, answer("fine")
    )
    adapter = BreakingAdapter(inner, policy=POLICY, clock=FakeTime().clock)

    for _ in range(6):
        await fails(adapter)

    assert (await adapter.invoke("hi")).content
    assert len(inner.calls) == 7


async def test_one_call_tries_when_the_time_is_over() -> None:
    """Its failure opens the circuit again, at once; its success closes it."""
    time = FakeTime()
    inner = ScriptedAdapter(*[failure("ERR_LLM_TIMEOUT")] * 4, answer("fine"))
    adapter = BreakingAdapter(inner, policy=POLICY, clock=time.clock)
    for _ in range(3):
        await fails(adapter)

    time.pass_by(30)
    tried = await fails(adapter)
    again = await fails(adapter)
    time.pass_by(30)
    worked = await adapter.invoke("hi")
    after = await adapter.invoke("hi")

    assert (tried, again) == ("ERR_LLM_TIMEOUT", "ERR_LLM_CIRCUIT_OPEN")
    assert worked.content == after.content
    assert len(inner.calls) == 6


class Gate(ScriptedAdapter):
    """An adapter whose calls wait until they are let through."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.under_way = 0
        self.most = 0

    async def invoke(
        self, prompt: Prompt, config: LLMConfig | None = None, *, context: CallContext | None = None
    ) -> LLMResponse:
        """Wait, and answer."""
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.open.wait()
            return await super().invoke(prompt, config, context=context)
        finally:
            self.under_way -= 1


async def test_while_one_call_tries_the_others_are_refused() -> None:
    """Also where an older call ends meanwhile, or the one that tries is cancelled: then another may try."""
    time = FakeTime()
    gate = Gate()
    circuits = Circuits()
    circuit = circuits.of("stub-1")
    circuit.failures, circuit.opened_at = 3, time.clock()
    adapter = BreakingAdapter(gate, policy=POLICY, circuits=circuits, clock=time.clock)
    time.pass_by(30)

    first = asyncio.ensure_future(adapter.invoke("hi"))
    await asyncio.sleep(0)
    refused = await fails(adapter)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    second = asyncio.ensure_future(adapter.invoke("hi"))
    gate.open.set()

    assert refused == "ERR_LLM_CIRCUIT_OPEN"
    assert (await second).content
    assert circuit.opened_at is None


async def test_each_model_has_its_own_circuit() -> None:
    """One model in trouble does not close the others."""
    inner = ScriptedAdapter(*[failure("ERR_LLM_TIMEOUT")] * 3, answer("fine"))
    adapter = BreakingAdapter(inner, policy=POLICY, clock=FakeTime().clock)
    for _ in range(3):
        await fails(adapter, config=LLMConfig(model="a"))

    assert await fails(adapter, config=LLMConfig(model="a")) == "ERR_LLM_CIRCUIT_OPEN"
    assert (await adapter.invoke("hi", LLMConfig(model="b"))).content


async def test_an_open_circuit_is_not_waited_for_but_moved_away_from() -> None:
    """The retries stop, and the fallback answers, with the reason on the response."""
    time = FakeTime()
    first = BreakingAdapter(
        ScriptedAdapter(*[failure("ERR_LLM_TIMEOUT", provider="claude")] * 9, adapter_id="claude"),
        policy=POLICY,
        clock=time.clock,
    )
    other = ScriptedAdapter(answer("from the other"), answer("again"), adapter_id="openai", model="gpt-4o-mini")
    chain = FallbackAdapter([RetryingAdapter(first, clock=time.clock, sleep=time.sleep), other], clock=time.clock)

    response = await chain.invoke("hi")
    opened_at = time.clock()
    at_once = await chain.invoke("hi")

    assert response.fallback_from == at_once.fallback_from == ("claude: ERR_LLM_CIRCUIT_OPEN",)
    assert time.clock() == opened_at


async def test_no_more_calls_are_under_way_than_may_be() -> None:
    """The others wait in their order, streams too; each model has its own."""
    gate = Gate()
    adapter = ThrottledAdapter(gate, policy=ThrottlePolicy(concurrency=2))

    calls = [asyncio.ensure_future(adapter.invoke("hi")) for _ in range(5)]
    elsewhere = asyncio.ensure_future(adapter.invoke("hi", LLMConfig(model="another")))
    for _ in range(20):
        await asyncio.sleep(0)
    under_way = gate.under_way
    gate.open.set()
    await asyncio.gather(*calls, elsewhere)
    streamed = await collect(adapter.stream("hi"))

    assert under_way == 3
    assert gate.most == 3
    assert len(gate.calls) >= 6
    assert streamed


async def test_a_turn_that_is_cancelled_is_free_for_the_next() -> None:
    """Whoever waits and gives up leaves no place behind."""
    gate = Gate()
    adapter = ThrottledAdapter(gate, policy=ThrottlePolicy(concurrency=1))
    calls = [asyncio.ensure_future(adapter.invoke("hi")) for _ in range(3)]
    for _ in range(10):
        await asyncio.sleep(0)

    for call in calls[:2]:
        call.cancel()
    gate.open.set()
    await asyncio.gather(*calls[:2], return_exceptions=True)

    assert (await calls[2]).content


async def test_so_many_calls_begin_within_a_minute() -> None:
    """Of ten at three a minute the last begins in the fourth minute; no 60 seconds have more than three."""
    time = FakeTime()
    began: list[float] = []

    class Timed(ScriptedAdapter):
        async def invoke(self, *args: Any, **options: Any) -> LLMResponse:
            began.append(time.clock())
            return await super().invoke(*args, **options)

    adapter = ThrottledAdapter(Timed(), policy=ThrottlePolicy(per_minute=3), clock=time.clock, sleep=time.sleep)

    for _ in range(10):
        await adapter.invoke("hi", LLMConfig(timeout_s=3600))

    assert max(sum(start <= other < start + 60 for other in began) for start in began) == 3
    assert began[-1] - began[0] == 180


async def test_a_call_whose_turn_comes_too_late_is_not_made() -> None:
    """It is refused at once, unbilled, and says which setting is in the way; its deadline is the whole call's."""
    time = FakeTime()
    inner = ScriptedAdapter()
    adapter = ThrottledAdapter(inner, policy=ThrottlePolicy(per_minute=1), clock=time.clock, sleep=time.sleep)

    await adapter.invoke("hi")
    with pytest.raises(LLMError, match="LLM_MAX_RPM") as caught:
        await adapter.invoke("hi", LLMConfig(timeout_s=59))

    assert (caught.value.code, caught.value.billed) == ("ERR_LLM_TIMEOUT", "no")
    assert len(inner.calls) == 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: BreakerPolicy(failures=-1), "failures must be at least 0"),
        (lambda: BreakerPolicy(open_s=0), "open_s must be above 0"),
        (lambda: ThrottlePolicy(concurrency=0), "concurrency must be at least 1"),
        (lambda: ThrottlePolicy(per_minute=0), "per_minute must be at least 1"),
    ],
)
def test_policies_that_cannot_be_followed(make: Any, says: str) -> None:
    """They say which field, and what it may be."""
    with pytest.raises(InvalidInputError, match=says):
        make()


async def test_the_chain_of_the_environment_moves_on_and_records_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLM_FALLBACK names adapters with or without a model; the response says who was passed over, and who answered."""
    async with WireServer() as server:
        for name, value in {
            "LLM_ADAPTER": "claude",
            "ANTHROPIC_API_KEY": server.key,
            "ANTHROPIC_BASE_URL": server.url,
            "OPENAI_API_KEY": server.key,
            "OPENAI_BASE_URL": server.openai_url,
            "LLM_FALLBACK": "openai:gpt-4o, claude:claude-opus-4-8",
        }.items():
            monkeypatch.setenv(name, value)
        server.faults.extend([Fault("status", status=404, error="not_found_error")] * 2)
        adapter = get_guarded_adapter()

        response = await adapter.invoke("hello")
        streamed = [event async for event in adapter.stream("hello")][-1]
        await close_adapters()

    assert (response.provider, response.model) == ("claude", "claude-opus-4-8")
    assert response.fallback_from == ("claude: ERR_LLM_INVALID_MODEL", "openai: ERR_LLM_INVALID_MODEL")
    assert isinstance(streamed, StreamEnd)
    assert streamed.response.fallback_from == ()
    assert [call.body["model"] for call in server.calls] == [
        "claude-sonnet-5-5",
        "gpt-4o",
        "claude-opus-4-8",
        "claude-sonnet-5-5",
    ]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("openai", "has no key, .*set OPENAI_API_KEY"),
        ("gemini", "'gemini' is unknown"),
        ("stub:stub-2", "write claude, openai"),
    ],
)
def test_a_fallback_that_cannot_be_met_is_an_error(value: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never the stub in place of a provider; the variable is named."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-something-00001")
    monkeypatch.setenv("LLM_FALLBACK", value)

    with pytest.raises(ConfigurationError, match=says) as caught:
        get_guarded_adapter(settings=load_settings())

    assert caught.value.variable == "LLM_FALLBACK"


async def test_chains_around_one_adapter_share_their_circuits_and_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runners of a process leave a provider alone together."""
    inner = ScriptedAdapter(*[failure("ERR_LLM_INVALID_RESPONSE")] * 9)
    policy = BreakerPolicy(failures=1)
    first, second = (get_guarded_adapter(inner, breaker=policy) for _ in range(2))

    await fails(first)

    assert await fails(second) == "ERR_LLM_CIRCUIT_OPEN"
    assert len(inner.calls) == 1
