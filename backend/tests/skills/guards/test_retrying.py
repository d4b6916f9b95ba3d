"""Retries: bounded, patient as asked, and over by the deadline."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from app.errors import BudgetExceededError, InvalidInputError, LLMError
from app.skills.guards import RetryingAdapter, RetryPolicy
from app.skills.llm_invoke_v2 import CallContext, LLMConfig, TextDelta

from .fakes import FakeTime, Outcome, ScriptedAdapter, answer, collect, failure

EXACT = RetryPolicy(jitter=0.0)


def retrying(
    time: FakeTime, inner: ScriptedAdapter, policy: RetryPolicy = EXACT, share: float = 0.0
) -> RetryingAdapter:
    """Return a guard whose time is the test's."""
    return RetryingAdapter(inner, policy=policy, clock=time.clock, sleep=time.sleep, random_share=lambda: share)


async def test_an_answer_is_not_asked_for_twice() -> None:
    """A call that worked is one call."""
    time, inner = FakeTime(), ScriptedAdapter()

    response = await retrying(time, inner).invoke("hi")

    assert response == answer()
    assert len(inner.calls) == 1
    assert time.slept == []


async def test_pauses_double_up_to_the_longest() -> None:
    """Without a hint of the provider the pauses are 1, 2, 4, 4, 4 times the first."""
    time, inner = FakeTime(), ScriptedAdapter(failure())
    policy = RetryPolicy(max_attempts=6, first_backoff_s=0.5, longest_backoff_s=2.0, jitter=0.0)

    with pytest.raises(LLMError):
        await retrying(time, inner, policy).invoke("hi")

    assert time.slept == [0.5, 1.0, 2.0, 2.0, 2.0]
    assert len(inner.calls) == 6


@pytest.mark.parametrize(("share", "pause"), [(0.0, 0.5), (0.5, 0.375), (1.0, 0.25)])
async def test_pauses_are_jittered(share: float, pause: float) -> None:
    """A random share of each pause falls away, so that callers that failed together come back apart."""
    time, inner = FakeTime(), ScriptedAdapter(failure(), answer())

    await retrying(time, inner, RetryPolicy(jitter=0.5), share).invoke("hi")

    assert time.slept == [pause]


async def test_a_hint_of_the_provider_is_obeyed_in_full() -> None:
    """Retry-After is waited for also where it is longer than the longest pause, and shorter hints change nothing."""
    time = FakeTime()
    inner = ScriptedAdapter(
        failure("ERR_LLM_RATE_LIMITED", retry_after=timedelta(seconds=20)),
        failure("ERR_LLM_RATE_LIMITED", retry_after=timedelta(milliseconds=1)),
        answer(),
    )

    await retrying(time, inner).invoke("hi")

    assert time.slept == [20.0, 1.0]


async def test_a_hint_beyond_the_deadline_ends_the_call_at_once() -> None:
    """Nobody waits for a moment at which it will be too late."""
    time = FakeTime()
    inner = ScriptedAdapter(failure("ERR_LLM_RATE_LIMITED", retry_after=timedelta(seconds=60)))

    with pytest.raises(LLMError) as caught:
        await retrying(time, inner).invoke("hi", LLMConfig(timeout_s=60))

    assert caught.value.code == "ERR_LLM_RATE_LIMITED"
    assert time.slept == []
    assert len(inner.calls) == 1


async def test_one_deadline_holds_for_all_attempts_together() -> None:
    """Attempts of 4 s and pauses of 1 s fit twice into 10 s, and each attempt is told what is left."""
    time = FakeTime()
    inner = ScriptedAdapter(failure("ERR_LLM_TIMEOUT", billed="unknown"), before=lambda: time.pass_by(4))
    policy = RetryPolicy(max_attempts=9, first_backoff_s=1.0, longest_backoff_s=1.0, jitter=0.0)

    with pytest.raises(LLMError):
        await retrying(time, inner, policy).invoke("hi", LLMConfig(timeout_s=10))

    assert [call.config.timeout_s for call in inner.calls] == [10.0, 5.0]
    assert [call.context.deadline for call in inner.calls] == [timedelta(seconds=10), timedelta(seconds=5)]


async def test_the_shorter_deadline_holds() -> None:
    """What the caller has left counts as much as the timeout of the config."""
    time, inner = FakeTime(), ScriptedAdapter()

    await retrying(time, inner).invoke(
        "hi", LLMConfig(timeout_s=60), context=CallContext(deadline=timedelta(seconds=7))
    )

    assert inner.calls[0].config.timeout_s == 7.0


@pytest.mark.parametrize("deadline", [timedelta(0), timedelta(seconds=-5)])
async def test_nothing_is_sent_after_the_deadline(deadline: timedelta) -> None:
    """A call whose deadline passed is a timeout that certainly cost nothing."""
    time, inner = FakeTime(), ScriptedAdapter()

    with pytest.raises(LLMError) as caught:
        await retrying(time, inner).invoke("hi", context=CallContext(deadline=deadline))

    assert (caught.value.code, caught.value.billed) == ("ERR_LLM_TIMEOUT", "no")
    assert inner.calls == []


@pytest.mark.parametrize(
    "error",
    [
        failure("ERR_LLM_AUTH_FAILED", retryable=False),
        failure("ERR_LLM_INVALID_PROMPT", retryable=False),
        failure("ERR_LLM_CONTENT_BLOCKED", retryable=False),
        failure("ERR_LLM_PROVIDER_BUDGET", retryable=False),
        InvalidInputError("the prompt is empty"),
        BudgetExceededError(
            "no", scope="tenant", window="total", limit=1, spent=1, held=0, requested=1, resets_at=None
        ),
        RuntimeError("a bug"),
    ],
    ids=lambda error: getattr(error, "code", type(error).__name__),
)
async def test_what_cannot_become_better_is_not_repeated(error: BaseException) -> None:
    """Only errors that say that they are retryable are retried; a refused budget never is."""
    time, inner = FakeTime(), ScriptedAdapter(error)

    with pytest.raises(type(error)) as caught:
        await retrying(time, inner).invoke("hi")

    assert caught.value is error
    assert len(inner.calls) == 1


async def test_each_attempt_has_its_number() -> None:
    """Attempts are numbered in the context, which gives each a hold of its own."""
    time, inner = FakeTime(), ScriptedAdapter(failure(), failure(), answer())

    await retrying(time, inner).invoke("hi", context=CallContext(run_id="r"))

    assert [call.context.attempt for call in inner.calls] == [1, 2, 3]
    assert {call.context.run_id for call in inner.calls} == {"r"}


async def test_a_stream_is_made_again_before_its_first_event() -> None:
    """A stream that failed before it said anything is invisible to its reader."""
    time = FakeTime()
    inner = ScriptedAdapter(failure(), answer(), pieces=0)

    text, response = await collect(retrying(time, inner).stream("hi"))

    assert (text, response) == ("", answer())
    assert len(inner.calls) == 2
    assert inner.open_streams == 0


async def test_a_stream_is_not_made_again_after_its_first_event() -> None:
    """What the reader has seen cannot be taken back, so the error is his."""
    time, inner = FakeTime(), ScriptedAdapter(failure("ERR_LLM_STREAM_CUT", billed="unknown"))
    seen: list[Any] = []

    async def read() -> None:
        async for event in retrying(time, inner).stream("hi"):
            seen.append(event)  # noqa: PERF401 - what was seen before the error counts

    with pytest.raises(LLMError) as caught:
        await read()

    assert caught.value.code == "ERR_LLM_STREAM_CUT"
    assert seen == [TextDelta("hello "), TextDelta("there")]
    assert len(inner.calls) == 1
    assert inner.open_streams == 0


async def test_a_reader_who_leaves_closes_what_is_inside() -> None:
    """A stream that is closed early closes the provider's at once, not when it is collected."""
    inner = ScriptedAdapter()
    stream = retrying(FakeTime(), inner).stream("hi")
    await anext(stream)

    await stream.aclose()  # type: ignore[attr-defined]  # an async generator, as every adapter's stream

    assert inner.open_streams == 0


@pytest.mark.parametrize(
    "wrong",
    [{"max_attempts": 0}, {"first_backoff_s": 0.0}, {"first_backoff_s": 9.0}, {"jitter": -0.1}, {"jitter": 1.1}],
)
def test_a_policy_that_cannot_be_followed_is_refused(wrong: dict[str, Any]) -> None:
    """A policy says at once which field is wrong."""
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        RetryPolicy(**wrong)


async def test_a_guard_is_the_adapter_that_it_wraps() -> None:
    """The id and the default model are those of what is inside, and closing closes it."""
    outcomes: list[Outcome] = []
    inner = ScriptedAdapter(*outcomes, adapter_id="claude", model="claude-sonnet-5-5")
    guard = RetryingAdapter(inner)

    await guard.aclose()

    assert (guard.adapter_id, guard.default_model) == ("claude", "claude-sonnet-5-5")
    assert inner.closed
