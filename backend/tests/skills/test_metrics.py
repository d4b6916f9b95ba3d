"""Metrics: what is promised to users of ``track_llm_usage`` and ``track_llm_response``."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from app.errors import LLMError
from app.metrics import build_llm_metrics, llm_metrics
from app.skills.adapters.metrics import track_llm_response, track_llm_usage
from app.skills.llm_invoke_v2 import LLMConfig, LLMResponse, LLMUsage, Prompt
from tests.skills.adapters.samples import change_since, samples

RESPONSE = LLMResponse(
    content="hi",
    input_tokens=1000,
    output_tokens=100,
    model="claude-sonnet-4-20250514",
    finish_reason="stop",
    latency_ms=250.0,
)
LABELS = ("claude", "claude-sonnet-4")


class Mine:
    """An adapter of somebody else, as in the README."""

    adapter_id = "claude"
    default_model = "claude-sonnet-4"

    def __init__(self, outcome: LLMResponse | BaseException) -> None:
        self.outcome = outcome

    @track_llm_usage
    async def invoke(self, prompt: Prompt, config: LLMConfig | None = None) -> LLMResponse:
        """Answer, or fail."""
        await asyncio.sleep(0)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


def failed(code: str) -> LLMError:
    """Return an error of a provider."""
    return LLMError("played", code=code, retryable=False, billed="no", provider="claude")


class TestTrackResponse:
    """``track_llm_response(response, adapter_id=..., model=...)``."""

    def test_a_bare_response_is_counted_with_the_price_of_its_model(self) -> None:
        """1000 tokens in at $3 and 100 out at $15 per million are 0.45 cents."""
        before = samples()

        marked = track_llm_response(RESPONSE, adapter_id="claude", model="claude-sonnet-4")

        change = change_since(before)
        assert change.pop(("nova_llm_cost_cents_total", *LABELS)) == pytest.approx(0.45)
        assert change == {
            ("nova_llm_invocations_total", *LABELS, "success"): 1,
            ("nova_llm_duration_seconds_count", *LABELS): 1,
            ("nova_llm_tokens_total", *LABELS, "input"): 1000,
            ("nova_llm_tokens_total", *LABELS, "output"): 100,
        }
        assert marked == replace(RESPONSE, metered=True)

    def test_what_was_metered_or_replayed_is_not_counted_again(self) -> None:
        """Neither the marked response, nor the record of an earlier call."""
        before = samples()

        for response in (replace(RESPONSE, metered=True), replace(RESPONSE, replayed=True)):
            assert track_llm_response(response, adapter_id="claude", model="claude-sonnet-4") is response

        assert change_since(before) == {}

    def test_all_but_the_response_is_optional(self) -> None:
        """Provider and model are then those that the response names."""
        before = samples()

        track_llm_response(replace(RESPONSE, provider="claude"))

        assert change_since(before)[("nova_llm_invocations_total", "claude", RESPONSE.model, "success")] == 1

    def test_parts_of_a_total_are_counted_beside_it(self) -> None:
        """The totals stay what was billed; cached and reasoning tokens have a metric of their own."""
        usage = LLMUsage(
            input_tokens=1000, output_tokens=100, cache_read_tokens=600, cache_write_1h_tokens=0, reasoning_tokens=80
        )
        before = samples()

        track_llm_response(replace(RESPONSE, usage=usage), adapter_id="claude", model="claude-sonnet-4")

        change = change_since(before)
        assert change[("nova_llm_tokens_total", *LABELS, "input")] == 1000
        assert {key: value for key, value in change.items() if key[0] == "nova_llm_token_parts_total"} == {
            ("nova_llm_token_parts_total", *LABELS, "cache_read"): 600,
            ("nova_llm_token_parts_total", *LABELS, "reasoning"): 80,
        }

    def test_a_cost_that_the_response_has_is_taken_as_it_is(self) -> None:
        """Zero is a price: it is not computed anew, and not unknown."""
        before = samples()

        track_llm_response(replace(RESPONSE, cost=0), adapter_id="claude", model="claude-sonnet-4")

        change = change_since(before)
        assert ("nova_llm_cost_cents_total", *LABELS) not in change
        assert ("nova_llm_unknown_total", *LABELS, "cost") not in change

    def test_a_negative_count_is_unknown_and_breaks_nothing(self) -> None:
        """A response that was paid for is not lost to a counter that cannot fall."""
        before = samples()

        track_llm_response(replace(RESPONSE, input_tokens=-1), adapter_id="claude", model="claude-sonnet-4")

        assert change_since(before)[("nova_llm_unknown_total", *LABELS, "tokens")] == 1


class TestTrackUsage:
    """``@track_llm_usage`` on ``async def invoke(self, prompt, config)``."""

    async def test_the_label_is_the_name_that_was_passed(self) -> None:
        """The config's model, else the adapter's default; never the one that the provider names."""
        before = samples()

        first = await Mine(RESPONSE).invoke("hello")
        await Mine(RESPONSE).invoke("hello", LLMConfig(model="claude-opus-4-7"))
        await Mine(RESPONSE).invoke("hello", config=LLMConfig(model="made-up"))

        change = change_since(before)
        assert first.metered
        assert {key[2] for key in change} == {"claude-sonnet-4", "claude-opus-4-7", "other"}

    @pytest.mark.parametrize(
        ("outcome", "status"),
        [
            (failed("ERR_LLM_RATE_LIMITED"), "rate_limited"),
            (failed("ERR_LLM_TIMEOUT"), "timeout"),
            (failed("ERR_LLM_CONTENT_BLOCKED"), "refused"),
            (failed("ERR_LLM_SERVER_ERROR"), "error"),
            (failed("ERR_LLM_OVERLOADED"), "error"),
            (RuntimeError("a defect"), "error"),
            (asyncio.CancelledError(), "cancelled"),
        ],
    )
    async def test_each_outcome_has_its_status(self, outcome: BaseException, status: str) -> None:
        """The error is passed on as it is, and counted once."""
        before = samples()

        with pytest.raises(type(outcome)) as caught:
            await Mine(outcome).invoke("hello")

        assert caught.value is outcome or status == "cancelled"
        assert change_since(before) == {("nova_llm_invocations_total", *LABELS, status): 1}

    async def test_a_refusal_is_refused(self) -> None:
        """An answer that declines, or that a filter cut, is no success."""
        before = samples()

        for reason in ("refusal", "content_filter"):
            await Mine(replace(RESPONSE, finish_reason=reason)).invoke("hello")

        change = change_since(before)
        assert change[("nova_llm_invocations_total", *LABELS, "refused")] == 2
        assert ("nova_llm_invocations_total", *LABELS, "success") not in change

    async def test_a_wrapped_adapter_counts_once(self) -> None:
        """The decorator around an adapter that meters itself adds nothing."""
        inner = Mine(RESPONSE)

        class Outer:
            adapter_id = "claude"

            @track_llm_usage
            async def invoke(self, prompt: Prompt, config: LLMConfig | None = None) -> LLMResponse:
                return await inner.invoke(prompt, config)

        before = samples()

        await Outer().invoke("hello")

        assert change_since(before)[("nova_llm_invocations_total", *LABELS, "success")] == 1


class TestFamilies:
    """Names and labels are part of the interface."""

    def test_names_and_labels_are_as_promised(self) -> None:
        """Exactly these; dashboards depend on them."""
        registry = CollectorRegistry()

        families = build_llm_metrics(registry)

        for name in ("tokens", "token_parts", "cost_cents", "invocations", "unknown", "duration"):
            assert f"nova_llm_{name}" in {family.name.removesuffix("_seconds") for family in registry.collect()}
        assert families.tokens._labelnames == ("provider", "model", "token_type")
        assert families.cost_cents._labelnames == ("provider", "model")
        assert families.duration._labelnames == ("provider", "model")
        assert families.invocations._labelnames == ("provider", "model", "status")

    def test_they_are_built_once(self) -> None:
        """A second event uses the same families; the registry would refuse others."""
        assert llm_metrics() is llm_metrics()

    def test_nothing_heavy_is_imported_before_the_first_event(self) -> None:
        """Not by the adapters' package, nor by the module of the decorators."""
        code = (
            "import sys; before = set(sys.modules); import app.skills.adapters;"
            "heavy = {'asyncio', 'prometheus_client', 'openai', 'anthropic', 'httpx2', 'pydantic', 'pydantic_settings',"
            " 'genai_prices', 'importlib.metadata'};"
            "first = heavy & (set(sys.modules) - before);"
            "import app.skills.adapters.metrics, app.metrics;"
            "second = (heavy - {'asyncio'}) & (set(sys.modules) - before);"
            "print(sorted(first), sorted(second))"
        )

        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

        assert done.stdout.strip() == "[] []"
