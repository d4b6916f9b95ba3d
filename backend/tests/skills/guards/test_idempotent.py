"""Idempotency: one key, one call, one recorded response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.errors import (
    IdempotencyConflictError,
    IdempotencyLeaseLostError,
    IdempotencyStoreUnavailableError,
    InvalidInputError,
    LLMError,
)
from app.skills.guards import IdempotentAdapter
from app.skills.guards.recording import fingerprint
from app.skills.guards.wrapper import Patience
from app.skills.llm_invoke_v2 import CallContext, LLMConfig, StreamEnd, TextDelta
from app.stores.holder import Holder
from app.stores.idempotency.contract import MAX_RESULT_BYTES, Completed, IdempotencyStore, InProgress, Started
from app.stores.idempotency.memory import InMemoryIdempotencyStore
from app.stores.idempotency.sqlite import SqliteIdempotencyStore

from .fakes import FakeTime, ScriptedAdapter, answer, cancelled_at, collect, failure, scheduling_points

KEY = CallContext(idempotency_key="k")
REPLAYED = replace(answer(), replayed=True)
IMPATIENT = Patience(total_s=0.0)
SOON = LLMConfig(timeout_s=1.0)
"""Who finds the key taken does not wait for the end of its lease."""


class Broken:
    """An idempotency store of which chosen verbs do not answer, before or after they took effect."""

    def __init__(self, inner: IdempotencyStore, **broken: str) -> None:
        self._inner = inner
        self.broken = broken

    def __getattr__(self, verb: str) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            if self.broken.get(verb) == "before":
                raise IdempotencyStoreUnavailableError("no answer")
            result = await getattr(self._inner, verb)(*args, **kwargs)
            if self.broken.get(verb) == "after":
                raise IdempotencyStoreUnavailableError("no answer")
            if self.broken.get(verb) == "once":
                del self.broken[verb]
                raise IdempotencyStoreUnavailableError("no answer")
            return result

        return call


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[IdempotencyStore]:
    """Give each store that is embedded."""
    opened: IdempotencyStore = (
        InMemoryIdempotencyStore() if request.param == "memory" else SqliteIdempotencyStore(tmp_path / "nova.db")
    )
    yield opened
    await opened.close()


@pytest.fixture
def memory() -> InMemoryIdempotencyStore:
    """Give the store whose verbs take no time."""
    return InMemoryIdempotencyStore()


async def state(store: IdempotencyStore) -> Started | InProgress | Completed:
    """Ask for the key as another process that makes the same call."""
    return await store.begin("k", fingerprint("hi", None), holder=replace(Holder.current(), instance="other"))


async def test_fifty_duplicates_at_once_are_one_call(store: IdempotencyStore) -> None:
    """Of fifty callers with one key one makes the call, and forty-nine get its response."""
    inner = ScriptedAdapter(answer("once"), answer("twice"), awaits=20)
    guard = IdempotentAdapter(inner, store=store)

    responses = await asyncio.gather(*(guard.invoke("hi", context=KEY) for _ in range(50)))

    assert len(inner.calls) == 1
    assert sorted(response.replayed for response in responses) == [False] + [True] * 49
    assert {replace(response, replayed=False) for response in responses} == {answer("once")}


async def test_duplicates_of_a_stream_wait_for_its_end(store: IdempotencyStore) -> None:
    """A replayed stream is one piece of text and its end, whoever streamed or invoked first."""
    inner = ScriptedAdapter(answer(), awaits=5, pieces=4)
    guard = IdempotentAdapter(inner, store=store)

    streamed, *replayed = await asyncio.gather(*(collect(guard.stream("hi", context=KEY)) for _ in range(10)))
    events = [event async for event in guard.stream("hi", context=KEY)]
    invoked = await guard.invoke("hi", context=KEY)

    assert len(inner.calls) == 1
    assert streamed == ("hello there", answer())
    assert replayed == [("hello there", REPLAYED)] * 9
    assert events == [TextDelta("hello there"), StreamEnd(REPLAYED)]
    assert invoked == REPLAYED


async def test_a_replay_of_nothing_is_only_an_end(memory: InMemoryIdempotencyStore) -> None:
    """An answer without text has no piece of text."""
    guard = IdempotentAdapter(ScriptedAdapter(answer("")), store=memory)
    await guard.invoke("hi", context=KEY)

    events = [event async for event in guard.stream("hi", context=KEY)]

    assert events == [StreamEnd(replace(answer(""), replayed=True))]


async def test_a_call_without_a_key_is_handed_on(memory: InMemoryIdempotencyStore) -> None:
    """Without a key every call is made, as it was asked for."""
    inner = ScriptedAdapter()
    guard = IdempotentAdapter(inner, store=memory)
    context = CallContext(run_id="r")

    await guard.invoke("hi")
    await guard.invoke("hi", context=context)
    await collect(guard.stream("hi", context=context))

    assert [call.context for call in inner.calls] == [CallContext(), context, context]


async def test_the_key_belongs_to_one_request(memory: InMemoryIdempotencyStore) -> None:
    """The same key for something else is refused; only how long to wait may differ."""
    guard = IdempotentAdapter(ScriptedAdapter(), store=memory)
    await guard.invoke("hi", context=KEY)

    again = await guard.invoke("hi", LLMConfig(timeout_s=3), context=KEY)
    with pytest.raises(IdempotencyConflictError):
        await guard.invoke("hi", LLMConfig(max_tokens=3), context=KEY)

    assert again.replayed


async def test_keys_belong_to_tenants(memory: InMemoryIdempotencyStore) -> None:
    """Nobody replays what another tenant paid for."""
    inner = ScriptedAdapter()
    guard = IdempotentAdapter(inner, store=memory)

    await guard.invoke("hi", context=KEY)
    other = await guard.invoke("hi", context=replace(KEY, tenant_id="other"))

    assert not other.replayed
    assert len(inner.calls) == 2


@pytest.mark.parametrize("error", [failure(), failure("ERR_LLM_AUTH_FAILED", retryable=False), RuntimeError("a bug")])
async def test_an_error_is_never_frozen(store: IdempotencyStore, error: Exception) -> None:
    """A call that failed leaves the key free at once, and the next one has a new token."""
    inner = ScriptedAdapter(error, error, answer())
    guard = IdempotentAdapter(inner, store=store)

    with pytest.raises(type(error)):
        await guard.invoke("hi", SOON, context=KEY)
    with pytest.raises(type(error)):
        await collect(guard.stream("hi", SOON, context=KEY))
    response = await guard.invoke("hi", SOON, context=KEY)

    assert response == answer()
    fences = [call.context.fence for call in inner.calls]
    assert None not in fences
    assert fences == sorted(set(fences), key=lambda fence: fence or 0), "tokens only grow"


async def test_a_reader_who_leaves_frees_the_key(memory: InMemoryIdempotencyStore) -> None:
    """A stream that is closed early records nothing and closes what is inside."""
    inner = ScriptedAdapter(answer())
    guard = IdempotentAdapter(inner, store=memory)

    stream = guard.stream("hi", context=KEY)
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]  # an async generator, as every adapter's stream

    assert inner.open_streams == 0
    assert not (await guard.invoke("hi", SOON, context=KEY)).replayed


async def test_a_stream_without_an_end_is_an_error(memory: InMemoryIdempotencyStore) -> None:
    """What stops in the middle is not recorded as if it were whole."""

    class Endless(ScriptedAdapter):
        async def stream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            yield TextDelta("hel")

    with pytest.raises(LLMError) as caught:
        await collect(IdempotentAdapter(Endless(), store=memory).stream("hi", context=KEY))

    assert (caught.value.code, caught.value.billed) == ("ERR_LLM_STREAM_CUT", "unknown")
    assert isinstance(await state(memory), Started)


@pytest.mark.parametrize("verb", ["invoke", "stream"])
async def test_cancellation_at_every_point_leaves_the_key_free_or_completed(verb: str) -> None:
    """Wherever a call is cancelled, its key is not left in progress, and nothing stays open."""
    outcomes = set()

    async def check(point: int) -> bool:
        memory = InMemoryIdempotencyStore()
        inner = ScriptedAdapter(answer(), awaits=2)
        guard = IdempotentAdapter(inner, store=memory)

        async def work() -> None:
            if verb == "stream":
                await collect(guard.stream("hi", context=KEY))
            else:
                await guard.invoke("hi", context=KEY)

        running = await cancelled_at(point, work)
        left = await state(memory)
        outcomes.add(type(left))
        assert not isinstance(left, InProgress)
        assert inner.open_streams == 0
        return running

    assert await scheduling_points(check) >= 4
    assert outcomes == {Started, Completed}


async def test_a_waiting_caller_polls_ever_more_slowly_until_its_deadline() -> None:
    """From 50 ms to 1 s, doubling, jittered, and never past the caller's own deadline."""
    time = FakeTime()
    memory = InMemoryIdempotencyStore()
    inner = ScriptedAdapter()
    guard = IdempotentAdapter(inner, store=memory, clock=time.clock, sleep=time.sleep, random_share=lambda: 0.0)
    await _own(memory)

    with pytest.raises(LLMError) as caught:
        await guard.invoke("hi", LLMConfig(timeout_s=4), context=KEY)

    assert (caught.value.code, caught.value.billed, caught.value.retryable) == ("ERR_LLM_TIMEOUT", "no", True)
    assert "still being made by process" in str(caught.value)
    assert [round(pause, 3) for pause in time.slept[:6]] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0]
    assert 4.0 <= sum(time.slept) < 4.01
    assert inner.calls == []


async def test_waiting_is_jittered() -> None:
    """Fifty waiting callers do not ask at the same moments."""
    time = FakeTime()
    memory = InMemoryIdempotencyStore()
    await _own(memory)
    guard = IdempotentAdapter(
        ScriptedAdapter(), store=memory, clock=time.clock, sleep=time.sleep, random_share=lambda: 1.0
    )

    with pytest.raises(LLMError):
        await guard.invoke("hi", LLMConfig(timeout_s=1), context=KEY)

    assert [round(pause, 4) for pause in time.slept[:3]] == [0.025, 0.05, 0.1]


async def test_who_waited_has_less_time_for_the_call() -> None:
    """When the first caller fails, the one who waited makes the call with what is left of its deadline."""
    time = FakeTime()
    memory = InMemoryIdempotencyStore()
    token = await _own(memory)
    inner = ScriptedAdapter()

    async def sleep(seconds: float) -> None:
        await time.sleep(seconds)
        if len(time.slept) == 2:
            await memory.abandon("k", token)

    guard = IdempotentAdapter(inner, store=memory, clock=time.clock, sleep=sleep, random_share=lambda: 0.0)

    await guard.invoke("hi", LLMConfig(timeout_s=10), context=KEY)

    assert inner.calls[0].config.timeout_s == pytest.approx(9.85)
    assert inner.calls[0].context.deadline == timedelta(seconds=9.85)


async def test_a_key_won_too_late_is_freed() -> None:
    """Who gets the key after its own deadline does not make the call, and does not keep the key."""
    time = FakeTime()
    memory = InMemoryIdempotencyStore()
    inner = ScriptedAdapter()
    guard = IdempotentAdapter(inner, store=memory, clock=time.clock, sleep=time.sleep)

    with pytest.raises(LLMError) as caught:
        await guard.invoke("hi", context=replace(KEY, deadline=timedelta(0)))

    assert caught.value.code == "ERR_LLM_TIMEOUT"
    assert inner.calls == []
    assert isinstance(await state(memory), Started)


async def test_a_store_that_is_down_refuses(memory: InMemoryIdempotencyStore) -> None:
    """Without the store's word no call is made "anyway"."""
    inner = ScriptedAdapter()
    guard = IdempotentAdapter(inner, store=Broken(memory, begin="before"))

    with pytest.raises(IdempotencyStoreUnavailableError):
        await guard.invoke("hi", context=KEY)
    with pytest.raises(IdempotencyStoreUnavailableError):
        await collect(guard.stream("hi", context=KEY))

    assert inner.calls == []


async def test_a_lost_acknowledgement_is_asked_for_again(memory: InMemoryIdempotencyStore) -> None:
    """The recording that took effect without an answer is repeated, and is the same recording."""
    time = FakeTime()
    broken = Broken(memory, complete="once")
    guard = IdempotentAdapter(ScriptedAdapter(), store=broken, patience=Patience(clock=time.clock, sleep=time.sleep))

    response = await guard.invoke("hi", context=KEY)

    assert response == answer()
    assert time.slept == [0.05]
    assert await guard.invoke("hi", context=KEY) == REPLAYED


async def test_an_answer_that_cannot_be_recorded_is_returned_with_a_warning(
    memory: InMemoryIdempotencyStore, caplog: pytest.LogCaptureFixture
) -> None:
    """It is paid, so the caller gets it, and is told that a repeat would be another call."""
    guard = IdempotentAdapter(ScriptedAdapter(), store=Broken(memory, complete="before"), patience=IMPATIENT)

    response = await guard.invoke("hi", context=KEY)

    assert response.content == "hello there"
    assert response.warnings == ("not recorded under its idempotency key, so a repeat makes the call again: no answer",)
    assert "could not be recorded" in caplog.text
    assert isinstance(await state(memory), Started)


async def test_an_answer_that_is_too_large_is_returned_with_a_warning(memory: InMemoryIdempotencyStore) -> None:
    """A result beyond what the store keeps is handed over all the same, and the key is free."""
    guard = IdempotentAdapter(ScriptedAdapter(answer("x" * (MAX_RESULT_BYTES + 1))), store=memory)

    response = await guard.invoke("hi", context=KEY)

    assert len(response.warnings) == 1
    assert isinstance(await state(memory), Started)


async def test_a_response_of_somebody_who_lost_the_key_is_discarded(memory: InMemoryIdempotencyStore) -> None:
    """Who stood still for longer than the lease does not hand out a second response for the key."""
    inner = ScriptedAdapter()
    guard = IdempotentAdapter(inner, store=memory)

    def lose() -> None:
        entry = memory._entries[("default", "k")]
        memory._entries[("default", "k")] = replace(entry, record=replace(entry.record, token=entry.record.token + 1))

    inner._before = lose

    with pytest.raises(IdempotencyLeaseLostError):
        await guard.invoke("hi", context=KEY)


async def test_the_key_stays_owned_while_the_call_runs() -> None:
    """Three signs of life per lease, so that a long call is not made twice; none after it ended."""
    store = Broken(InMemoryIdempotencyStore())
    beats: list[timedelta] = []
    time = FakeTime()

    async def heartbeat(*args: Any, lease: timedelta, **kwargs: Any) -> None:
        beats.append(lease)
        if len(beats) == 1:
            raise IdempotencyStoreUnavailableError("no answer")

    store.heartbeat = heartbeat  # type: ignore[attr-defined]  # stands for the verb
    guard = IdempotentAdapter(
        ScriptedAdapter(awaits=10), store=store, lease=timedelta(seconds=30), clock=time.clock, sleep=time.sleep
    )

    await guard.invoke("hi", context=KEY)
    during = len(beats)
    for _ in range(10):
        await asyncio.sleep(0)

    assert during >= 3
    assert set(time.slept) == {10.0}
    assert set(beats) == {timedelta(seconds=30)}
    assert len(beats) == during


async def test_a_request_that_has_no_fingerprint_is_not_begun(memory: InMemoryIdempotencyStore) -> None:
    """Bad input is refused before the key is touched."""
    guard = IdempotentAdapter(ScriptedAdapter(), store=memory)

    with pytest.raises(InvalidInputError):
        await guard.invoke(" ", context=KEY)

    assert isinstance(await state(memory), Started)


async def _own(store: IdempotencyStore) -> int:
    """Begin the key as another process that makes the same call."""
    begun = await state(store)
    assert isinstance(begun, Started)
    return begun.token
