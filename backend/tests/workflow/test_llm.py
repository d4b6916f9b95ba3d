"""A call of a run is keyed by its step, paid by the run, and recorded with what it cost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.errors import ConfigurationError, LLMError, StepFailedError
from app.skills.llm_invoke_v2 import LLMConfig, LLMResponse, LLMUsage, ReasoningBlock, TextBlock, ToolUseBlock
from app.stores.checkpoint.contract import CheckpointStorage, RunStatus
from app.workflow.calls import read_response, response_json
from app.workflow.engine import Run, StepContext, workflow

from .support import Memory, MortalStore, ProcessDiedError, ScriptedAdapter, forgiving_store, runner_on


async def test_a_call_is_recorded_and_its_response_is_the_same_when_replayed(checkpoints: CheckpointStorage) -> None:
    """The response of a call is equal when it is made and when it is replayed, and a replay makes no call."""
    adapter = ScriptedAdapter()
    seen: list[LLMResponse] = []

    @workflow(version="1")
    async def ask(run: Run) -> str:
        seen.append(await run.llm("ask", "hello", LLMConfig(max_tokens=5)))
        if len(seen) == 1:
            raise RuntimeError("boom")
        return seen[-1].content

    runner = runner_on(checkpoints, guarded=adapter)
    await runner.start(ask, run_id="r")
    outcome = await runner.resume("r", ask, reopen=True)

    assert outcome.value() == "HELLO"
    assert seen[0] == seen[1]
    assert len(adapter.calls) == 1
    assert outcome.cost == seen[0].cost == 50


async def test_a_call_has_the_key_and_the_scopes_of_its_run(checkpoints: CheckpointStorage) -> None:
    """A call is made for its tenant, run and step, under the step's key, within the time that the run has left."""
    adapter = ScriptedAdapter()

    async def two_calls(context: StepContext) -> str:
        first = await context.llm("a", scopes=("agent:x",))
        again = await context.llm("a")
        named = await context.llm("a", name="other")
        return first.content + again.content + named.content

    @workflow(version="1")
    async def ask(run: Run) -> str:
        await run.llm("direct", "hello", scopes=("agent:x",))
        return await run.step("inside", two_calls)

    now = datetime(2026, 11, 24, tzinfo=UTC)
    runner = runner_on(checkpoints, guarded=adapter, tenant_id="t", clock=lambda: now)
    outcome = await runner.start(ask, run_id="r", deadline=timedelta(seconds=50))

    contexts = [context for _, context in adapter.calls]
    assert outcome.value() == "AAA"
    assert [context.step_id for context in contexts] == ["direct", "inside", "inside", "inside"]
    assert contexts[0].all_scopes == contexts[1].all_scopes == ("tenant", "run:r", "agent:x")
    assert contexts[2].all_scopes == ("tenant", "run:r")
    assert {context.deadline for context in contexts} == {timedelta(seconds=50)}
    keys = [str(context.idempotency_key) for context in contexts]
    assert len(set(keys)) == 4
    assert all(key.startswith(f"r/{context.step_id}/") for key, context in zip(keys, contexts, strict=True))
    assert all(len(key.encode()) < 480 for key in keys)


async def test_what_a_step_s_calls_cost_is_noted_beside_its_record(checkpoints: CheckpointStorage) -> None:
    """Costs and tokens of all calls of a step, those of failed attempts too, are in its meta, each call once."""
    adapter, listener = ScriptedAdapter(), Memory()
    tries = 0

    async def flaky(context: StepContext) -> str:
        nonlocal tries
        tries += 1
        await context.llm("1234567890")
        if tries == 1:
            raise ConnectionError("not yet")
        return (await context.llm("12")).content

    @workflow(version="1")
    async def ask(run: Run) -> str:
        await run.step("free", free)
        return await run.step("flaky", flaky, retries=1)

    async def free() -> int:
        return 1

    outcome = await runner_on(checkpoints, guarded=adapter, listener=listener).start(ask, run_id="r")
    free_record, record = await checkpoints.history("r")

    assert outcome.cost == 120
    assert outcome.unknown_cost == 0
    assert set(free_record.meta) == {"attempts", "ms"}
    assert {key: record.meta[key] for key in record.meta if key != "ms"} == {
        "attempts": 2,
        "calls": 2,
        "cost": 120,
        "input_tokens": 12,
        "output_tokens": 6,
        "models": ["scripted-1"],
    }


async def test_an_unknown_cost_is_never_summed_as_zero(checkpoints: CheckpointStorage) -> None:
    """A step whose call has no known cost counts as unknown, also when it is replayed."""
    from dataclasses import replace

    class Unpriced(ScriptedAdapter):
        async def invoke(self, *args: object, **options: object) -> LLMResponse:
            return replace(await super().invoke(*args, **options), cost=None, input_tokens=None)  # type: ignore[arg-type]  # handed on

    first = True

    @workflow(version="1")
    async def ask(run: Run) -> None:
        nonlocal first
        await run.llm("ask", "hello")
        if first:
            first = False
            raise RuntimeError("boom")

    runner = runner_on(checkpoints, guarded=Unpriced())
    failed = await runner.start(ask, run_id="r")
    outcome = await runner.resume("r", ask, reopen=True)

    assert (failed.cost, failed.unknown_cost) == (0, 1)
    assert (outcome.cost, outcome.unknown_cost) == (0, 1)
    (record,) = await checkpoints.history("r")
    assert record.meta["cost"] is None
    assert record.meta["input_tokens"] is None


async def test_a_response_that_was_received_before_a_crash_is_not_asked_for_again() -> None:
    """A crash between the response and its record repeats the step under the same key, which knows the response."""
    inner, adapter = forgiving_store(), ScriptedAdapter()

    @workflow(version="1")
    async def ask(run: Run) -> str:
        return (await run.llm("ask", "hello")).content

    mortal = MortalStore(inner, dies_at=3, after_effect=False)
    with pytest.raises(ProcessDiedError):
        await runner_on(mortal, guarded=adapter).start(ask, run_id="r")
    outcome = await runner_on(inner, guarded=adapter).resume("r", ask)

    assert outcome.value() == "HELLO"
    assert len(adapter.calls) == 1
    assert outcome.cost == 50


async def test_a_provider_s_error_fails_the_step_with_its_text(checkpoints: CheckpointStorage) -> None:
    """An LLMError that cannot pass fails the run; one that asks for time is waited for."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    def answer(prompt: str) -> str:
        if not waits:
            raise LLMError(
                "slow down",
                code="ERR_LLM_RATE_LIMITED",
                retryable=True,
                billed="no",
                provider="p",
                retry_after=timedelta(seconds=17),
            )
        raise LLMError("bad key", code="ERR_LLM_AUTH_FAILED", retryable=False, billed="no", provider="p")

    @workflow(version="1")
    async def ask(run: Run) -> str:
        return (await run.llm("ask", "hello", retries=3)).content

    outcome = await runner_on(checkpoints, guarded=ScriptedAdapter(answer), sleep=sleep).start(ask, run_id="r")

    assert waits == [17]
    assert isinstance(outcome.error, StepFailedError)
    assert str(outcome.error) == "step 'ask' failed after 2 attempts: LLMError: bad key"


async def test_calls_without_stores_for_them_are_refused(checkpoints: CheckpointStorage) -> None:
    """A runner without a budget and idempotency store makes no call, and takes no run with a budget."""

    @workflow(version="1")
    async def ask(run: Run) -> str:
        return (await run.llm("ask", "hello")).content

    runner = runner_on(checkpoints)
    outcome = await runner.start(ask, run_id="r")
    with pytest.raises(ConfigurationError, match="budget store"):
        await runner.start(ask, run_id="other", budget=5)

    assert outcome.status is RunStatus.FAILED
    assert isinstance(outcome.error, StepFailedError)
    assert isinstance(outcome.error.__cause__, ConfigurationError)
    assert await checkpoints.head("other") is None


def test_a_response_with_blocks_survives_its_record() -> None:
    """Every field of a response comes back equal, blocks and the parts of its usage included."""
    response = LLMResponse(
        content="hi",
        input_tokens=3,
        output_tokens=None,
        model="m",
        finish_reason="tool_use",
        latency_ms=1.25,
        usage=LLMUsage(input_tokens=3, output_tokens=None, cache_read_tokens=1, complete=False),
        blocks=(
            TextBlock("hi"),
            ReasoningBlock(text="hm", signature="sig"),
            ToolUseBlock(id="1", name="f", arguments={"a": [1]}),
        ),
        dropped_params=("temperature",),
        warnings=("w",),
        fallback_from=("f",),
        hold_id="h",
    )

    assert read_response(response_json(response)) == response
