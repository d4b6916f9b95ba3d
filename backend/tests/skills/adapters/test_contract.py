"""What every adapter promises: the stub, and both SDKs against a server with their wire format."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest

from app.errors import Billed, InvalidInputError, LLMError
from app.skills.llm_invoke_v2 import (
    CallContext,
    DocumentBlock,
    ImageBlock,
    LLMConfig,
    LLMResponse,
    Message,
    StreamEnd,
    StreamEvent,
    TextBlock,
    TextDelta,
    ToolResultBlock,
    ToolUseBlock,
)
from app.skills.pricing import PriceBook
from tests.skills.adapters.samples import change_since, samples
from tests.skills.adapters.subjects import NAMES, Misbehaviour, Subject, open_subject

PROMPT = "The tide is out. Boats lie on the sand. Gulls walk among them. Nobody is on the pier."
SHORT = LLMConfig(timeout_s=0.2)


@pytest.fixture(params=NAMES)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """Each adapter in turn, after a first call: it imports the SDK and the prices, which takes its time."""
    async with open_subject(request.param) as opened:
        await opened.adapter.invoke("Warm up.")
        yield opened


async def call(
    subject: Subject, config: LLMConfig | None = None, *, streamed: bool = False, context: CallContext | None = None
) -> LLMResponse:
    """Make a call either way, and return the response."""
    if not streamed:
        return await subject.adapter.invoke(PROMPT, config, context=context)
    end = [event async for event in subject.adapter.stream(PROMPT, config, context=context)][-1]
    assert isinstance(end, StreamEnd)
    return end.response


async def collect(events: AsyncIterator[StreamEvent], received: list[str]) -> None:
    """Read a stream that does not reach its end."""
    async for event in events:
        assert isinstance(event, TextDelta)
        received.append(event.text)


both_ways = pytest.mark.parametrize("streamed", [False, True], ids=["invoke", "stream"])


class TestAnswers:
    """What a call brings when nothing goes wrong."""

    @both_ways
    async def test_a_response_has_all_that_is_promised(self, subject: Subject, streamed: bool) -> None:  # noqa: FBT001  # a parameter of the test
        """Text, tokens, an exact cost with its version, provider and request id; and it says that it is metered."""
        response = await call(subject, streamed=streamed)

        price = PriceBook().price(provider=subject.adapter.adapter_id, model=subject.adapter.default_model)
        assert price is not None
        assert response.input_tokens is not None
        assert response.output_tokens is not None
        usd_per_million = (
            response.input_tokens * price.input_usd_per_million + response.output_tokens * price.output_usd_per_million
        )
        assert response.content
        assert response.cost == -(-usd_per_million * 100 // 1)
        assert response.price_version == price.version
        assert (response.model, response.finish_reason) == (subject.adapter.default_model, "stop")
        assert response.provider == subject.adapter.adapter_id
        assert response.request_id
        assert response.usage_complete
        assert response.metered
        assert response.latency_ms > 0

    async def test_a_stream_brings_the_text_in_pieces_and_then_the_whole_response(self, subject: Subject) -> None:
        """The pieces put together are the content; the end is last and comes once; it says what invoke says."""
        whole = await call(subject)

        events = [event async for event in subject.adapter.stream(PROMPT)]

        pieces = [event.text for event in events if isinstance(event, TextDelta)]
        ends = [event.response for event in events if isinstance(event, StreamEnd)]
        assert isinstance(events[-1], StreamEnd)
        assert len(ends) == 1
        assert len(pieces) > 2
        assert "".join(pieces) == ends[0].content == whole.content
        assert ends[0].usage == whole.usage
        assert ends[0].finish_reason == whole.finish_reason

    @both_ways
    async def test_max_tokens_cuts_and_the_response_says_so(self, subject: Subject, streamed: bool) -> None:  # noqa: FBT001  # a parameter of the test
        """No more than max_tokens are generated, and the finish reason is ``length``."""
        response = await call(subject, LLMConfig(max_tokens=3), streamed=streamed)

        assert response.finish_reason == "length"
        assert response.output_tokens is not None
        assert 0 < response.output_tokens <= 3

    @both_ways
    async def test_a_stop_sequence_ends_the_text_and_is_not_in_it(self, subject: Subject, streamed: bool) -> None:  # noqa: FBT001  # a parameter of the test
        """The text ends where the sequence would begin."""
        response = await call(subject, LLMConfig(stop=("sand",)), streamed=streamed)

        assert "sand" not in response.content
        assert response.content.endswith("on the ")

    async def test_a_refusal_is_an_answer_that_is_marked_and_billed(self, subject: Subject) -> None:
        """It is no error: the provider charges for it."""
        subject.play("refusal")
        whole = await call(subject)
        subject.play("refusal")
        streamed = await call(subject, streamed=True)

        for response in (whole, streamed):
            assert response.finish_reason == "refusal"
            assert response.content == "I cannot help with that."
            assert response.cost

    @both_ways
    async def test_absent_usage_is_unknown_and_never_zero(self, subject: Subject, streamed: bool) -> None:  # noqa: FBT001  # a parameter of the test
        """Tokens and cost are None, and the response says that its usage is not complete."""
        subject.play("missing_usage")

        response = await call(subject, streamed=streamed)

        assert response.content
        assert not response.usage_complete
        assert (response.input_tokens, response.output_tokens, response.cost) == (None, None, None)

    async def test_messages_and_a_system_prompt_are_billed_too(self, subject: Subject) -> None:
        """A conversation with instructions costs more input than its last message alone."""
        alone = await subject.adapter.invoke([Message("user", PROMPT)])
        conversation = [Message("user", "Where are we?"), Message("assistant", "By the sea."), Message("user", PROMPT)]

        longer = await subject.adapter.invoke(conversation, LLMConfig(system="Be brief."))

        assert alone.input_tokens is not None
        assert longer.input_tokens is not None
        assert longer.input_tokens > alone.input_tokens


NESTED: list[Any] = []
"""A list that holds itself."""
NESTED.append(NESTED)


class TestRefusedBeforeSending:
    """What never reaches the provider."""

    @pytest.mark.parametrize(
        ("prompt", "config", "says"),
        [
            ("  ", None, "empty"),
            ([], None, "empty"),
            ([Message("user", [ImageBlock(media_type="image/bmp", data="AA==")])], None, "image/bmp.*image/png"),
            ([Message("user", [ImageBlock(media_type="image/png", data="A=")])], None, "not base64"),
            ([Message("user", [ImageBlock(media_type="image/png")])], None, "data .in base64. or a url"),
            ([Message("user", [ImageBlock(media_type="image/png", url="file:///x")])], None, "https:// only"),
            ([Message("assistant", [ImageBlock(media_type="image/png", data="AA==")])], None, "role user"),
            ([Message("user", [DocumentBlock(media_type="text/csv", data="AA==")])], None, "application/pdf"),
            ([Message("user", [DocumentBlock(media_type="text/plain", data="/w==")])], None, "UTF-8"),
            ([Message("user", [ToolResultBlock(tool_use_id="1", content="x")])], None, "does not ask for once"),
            ([Message("user", [ToolUseBlock(id="1", name="f", arguments={})])], None, "role assistant"),
            ("half \ud83d of a system", LLMConfig(system="\ud83d"), "surrogate"),
            ("half \ud83d of a pair", None, "surrogate"),
            (PROMPT, LLMConfig(extra={"max_tokens": 10**6}), "LLMConfig.max_tokens"),
            (PROMPT, LLMConfig(extra={"max_completion_tokens": 10**6}), "LLMConfig.max_tokens"),
            (PROMPT, LLMConfig(extra={"stream": True}), "stream"),
            (PROMPT, LLMConfig(extra={"metadata": object()}), "'metadata'.*JSON"),
            (PROMPT, LLMConfig(extra={"metadata": {("a", "b"): 1}}), "'metadata'.*JSON"),
            (PROMPT, LLMConfig(extra={"metadata": {"share": float("nan")}}), "'metadata'.*JSON"),
            (PROMPT, LLMConfig(extra={"metadata": {"half": "\ud83d"}}), "'metadata'.*JSON"),
            (PROMPT, LLMConfig(extra={"metadata": NESTED}), "'metadata'.*JSON"),
        ],
    )
    async def test_input_that_cannot_be_sent(
        self, subject: Subject, prompt: Any, config: LLMConfig | None, says: str
    ) -> None:
        """A typed error names what is wrong; nothing is sent, and nothing is counted as an invocation."""
        calls, before = subject.calls, samples()

        with pytest.raises(InvalidInputError, match=says):
            await subject.adapter.invoke(prompt, config)
        with pytest.raises(InvalidInputError, match=says):
            await anext(aiter(subject.adapter.stream(prompt, config)))

        assert subject.calls == calls
        assert change_since(before) == {}

    def test_a_config_that_no_provider_takes(self) -> None:
        """max_tokens of 0, and a temperature of 3, do not make a config."""
        with pytest.raises(InvalidInputError, match="max_tokens"):
            LLMConfig(max_tokens=0)
        with pytest.raises(InvalidInputError, match="temperature"):
            LLMConfig(temperature=3)


class TestFailures:
    """One failure of the provider is one call, one typed error and one count."""

    @pytest.mark.parametrize(
        ("what", "code", "category", "billed", "status"),
        [
            ("rate_limited", "ERR_LLM_RATE_LIMITED", "RATE_LIMIT", "no", "rate_limited"),
            ("overloaded", "ERR_LLM_OVERLOADED", "TRANSIENT", "no", "error"),
            ("server_error", "ERR_LLM_SERVER_ERROR", "SERVER_ERROR", "unknown", "error"),
            ("disconnect", "ERR_LLM_NETWORK", "NETWORK", "unknown", "error"),
            ("silent", "ERR_LLM_TIMEOUT", "TIMEOUT", "unknown", "timeout"),
        ],
    )
    @both_ways
    async def test_before_an_answer(  # noqa: PLR0917  # parameters of the test
        self,
        subject: Subject,
        what: Misbehaviour,
        code: str,
        category: str,
        billed: Billed,
        status: str,
        streamed: bool,  # noqa: FBT001  # a parameter of the test
    ) -> None:
        """Code, category, ``billed`` and the metrics say what happened, and it was sent once."""
        calls, before = subject.calls, samples()
        subject.play(what)

        with pytest.raises(LLMError) as caught:
            await call(subject, SHORT, streamed=streamed)

        error = caught.value
        assert (error.code, error.category, error.billed, error.retryable) == (code, category, billed, True)
        assert error.provider == subject.adapter.adapter_id
        assert error.model == subject.adapter.default_model
        assert error.retry_after == (timedelta(seconds=7) if what == "rate_limited" else None)
        assert (error.partial_text, error.partial_output_tokens) == ("", None)
        assert subject.calls == calls + 1
        provider, model = subject.adapter.adapter_id, subject.adapter.default_model
        assert change_since(before) == {("nova_llm_invocations_total", provider, model, status): 1}

    @pytest.mark.parametrize(
        ("what", "code"),
        [
            ("cut_stream", "ERR_LLM_STREAM_CUT"),
            ("truncated", "ERR_LLM_STREAM_CUT"),
            ("stalled", "ERR_LLM_TIMEOUT"),
        ],
    )
    async def test_within_a_stream(self, subject: Subject, what: Misbehaviour, code: str) -> None:
        """The text that had arrived is kept; it is billed, though nobody knows how much; it is never a success."""
        calls = subject.calls
        subject.play(what)
        received: list[str] = []

        with pytest.raises(LLMError) as caught:
            await collect(subject.adapter.stream(PROMPT, SHORT), received)

        assert received
        assert caught.value.code == code
        assert caught.value.partial_text == "".join(received)
        assert caught.value.billed == "yes"
        assert subject.calls == calls + 1

    async def test_the_adapter_goes_on_after_a_failure(self, subject: Subject) -> None:
        """A broken connection is not handed to the next call."""
        for what in ("disconnect", "cut_stream", "server_error"):
            subject.play(what)
            with pytest.raises(LLMError):
                await call(subject, streamed=True)

            assert (await call(subject)).content


class TestDeadline:
    """One wall-clock deadline for the whole call."""

    @both_ways
    async def test_the_shorter_of_timeout_and_context_holds(self, subject: Subject, streamed: bool) -> None:  # noqa: FBT001  # a parameter of the test
        """A context with less time left than the config's timeout ends the call at its own."""
        subject.play("silent")
        context = CallContext(deadline=timedelta(seconds=0.1))
        began = time.monotonic()

        with pytest.raises(LLMError) as caught:
            await call(subject, LLMConfig(timeout_s=60), streamed=streamed, context=context)

        assert caught.value.code == "ERR_LLM_TIMEOUT"
        assert "0.1 s" in str(caught.value)
        assert 0.1 <= time.monotonic() - began < 5

    async def test_a_slow_reader_uses_up_the_time_of_its_stream(self, subject: Subject) -> None:
        """The deadline counts from the request to the end, whoever is slow; the reader's own task is not cancelled."""
        events = subject.adapter.stream(PROMPT, LLMConfig(timeout_s=0.1))
        first = await anext(aiter(events))
        assert isinstance(first, TextDelta)

        await asyncio.sleep(0.11)

        with pytest.raises(LLMError) as caught:
            await anext(aiter(events))
        assert caught.value.code == "ERR_LLM_TIMEOUT"
        assert caught.value.partial_text == first.text


class TestCancellation:
    """Cancelled is an outcome of its own."""

    @both_ways
    async def test_it_is_counted_and_passed_on(self, subject: Subject, streamed: bool) -> None:  # noqa: FBT001  # a parameter of the test
        """CancelledError reaches the caller; the metrics have one cancelled invocation."""
        calls, before = subject.calls, samples()
        subject.play("silent")
        task = asyncio.ensure_future(call(subject, streamed=streamed))
        async with asyncio.timeout(5):
            while subject.calls == calls:  # noqa: ASYNC110  # the stub has no event to wait for
                await asyncio.sleep(0)

        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        provider, model = subject.adapter.adapter_id, subject.adapter.default_model
        assert change_since(before) == {("nova_llm_invocations_total", provider, model, "cancelled"): 1}

    async def test_a_stream_that_its_reader_closes_early_counts_as_cancelled(self, subject: Subject) -> None:
        """``aclose`` after the first piece ends the call."""
        before = samples()

        async with aclosing(subject.adapter.stream(PROMPT)) as events:  # type: ignore[type-var]  # an async generator
            assert isinstance(await anext(events), TextDelta)

        provider, model = subject.adapter.adapter_id, subject.adapter.default_model
        assert change_since(before) == {
            ("nova_llm_invocations_total", provider, model, "cancelled"): 1,
            ("nova_llm_time_to_first_token_seconds_count", provider, model): 1,
        }


class TestMetrics:
    """The exact change of every sample by one call."""

    @both_ways
    async def test_one_answer_is_counted_once(self, subject: Subject, streamed: bool) -> None:  # noqa: FBT001  # a parameter of the test
        """One success, one duration, the billed tokens, the exact cents."""
        before = samples()

        response = await call(subject, streamed=streamed)

        labels = (subject.adapter.adapter_id, subject.adapter.default_model)
        assert response.cost is not None
        change = change_since(before)
        assert change.pop(("nova_llm_cost_cents_total", *labels)) == pytest.approx(response.cost / 1_000_000)
        assert change.pop(("nova_llm_time_to_first_token_seconds_count", *labels), 0) == int(streamed)
        assert change == {
            ("nova_llm_invocations_total", *labels, "success"): 1,
            ("nova_llm_duration_seconds_count", *labels): 1,
            ("nova_llm_tokens_total", *labels, "input"): response.input_tokens,
            ("nova_llm_tokens_total", *labels, "output"): response.output_tokens,
        }

    async def test_unknown_usage_is_counted_as_unknown(self, subject: Subject) -> None:
        """No tokens and no cents, and one each of tokens and cost that the totals lack."""
        before = samples()
        subject.play("missing_usage")

        await call(subject)

        labels = (subject.adapter.adapter_id, subject.adapter.default_model)
        assert change_since(before) == {
            ("nova_llm_invocations_total", *labels, "success"): 1,
            ("nova_llm_duration_seconds_count", *labels): 1,
            ("nova_llm_unknown_total", *labels, "tokens"): 1,
            ("nova_llm_unknown_total", *labels, "cost"): 1,
        }

    async def test_a_refusal_has_its_own_status(self, subject: Subject) -> None:
        """It is answered and billed, but no success."""
        before = samples()
        subject.play("refusal")

        await call(subject)

        labels = (subject.adapter.adapter_id, subject.adapter.default_model)
        change = change_since(before)
        assert change[("nova_llm_invocations_total", *labels, "refused")] == 1
        assert ("nova_llm_invocations_total", *labels, "success") not in change

    async def test_a_model_without_a_price_has_no_label_of_its_own(self, subject: Subject) -> None:
        """It is counted as ``other``, and its cost as unknown."""
        before = samples()

        response = await call(subject, LLMConfig(model="claude-nobody-knows"))

        labels = (subject.adapter.adapter_id, "other")
        assert response.cost is None
        change = change_since(before)
        assert change[("nova_llm_invocations_total", *labels, "success")] == 1
        assert change[("nova_llm_unknown_total", *labels, "cost")] == 1
        assert {key[2] for key in change} == {"other"}


def _one_call_and_a_fresh_loop(name: str) -> str:
    async def main() -> str:
        async with open_subject(name) as opened:
            return (await opened.adapter.invoke(PROMPT)).content

    return asyncio.run(main())


@pytest.mark.parametrize("name", NAMES)
def test_several_event_loops_one_after_another(name: str) -> None:
    """The same code works in a second loop of the process."""
    assert _one_call_and_a_fresh_loop(name) == _one_call_and_a_fresh_loop(name)


@pytest.mark.parametrize("name", NAMES)
async def test_messages_of_blocks_are_sent_as_text(name: str) -> None:
    """Blocks of text reach the model like one string."""
    async with open_subject(name) as opened:
        plain = await opened.adapter.invoke(PROMPT)
        first, second = PROMPT[:20], PROMPT[20:]

        blocks = await opened.adapter.invoke([Message("user", [TextBlock(first, cache=True), TextBlock(second)])])

    assert blocks.content == plain.content
