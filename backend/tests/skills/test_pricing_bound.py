"""The upper bound: no bill is above it."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import InvalidInputError, UnboundedCallError
from app.skills.llm_invoke_v2 import (
    ContentBlock,
    DocumentBlock,
    ImageBlock,
    LLMConfig,
    LLMUsage,
    Message,
    Prompt,
    ReasoningBlock,
    TextBlock,
    Tool,
    ToolResultBlock,
    ToolUseBlock,
    as_messages,
)
from app.skills.models import facts
from app.skills.pricing import ModelPrice, PriceBook, PriceTier, Rates
from app.skills.pricing.bound import input_tokens_at_most
from app.skills.pricing.catalogue import published_tiers

DAY = datetime(2026, 11, 24, 12, tzinfo=UTC)

MODELS = (
    ("claude", "claude-sonnet-4"),
    ("claude", "claude-sonnet-4-5"),
    ("claude", "claude-haiku-5-5"),
    ("claude", "claude-opus-5-5"),
    ("openai", "gpt-3.5-turbo"),
    ("openai", "gpt-4o"),
    ("openai", "gpt-4.1"),
    ("openai", "gpt-5.4"),
    ("openai", "gpt-5.6-sol"),
    ("openai", "gpt-6.1-sol"),
    ("openai", "o3"),
    ("openai", "odd"),
    ("stub", "stub-1"),
)

ODD = ModelPrice(
    provider="openai",
    model="odd",
    rates=Rates(
        input_usd_per_million=Decimal(1),
        output_usd_per_million=Decimal(9),
        cache_read_usd_per_million=Decimal(7),
    ),
    tiers=(
        PriceTier(
            above_input_tokens=40,
            rates=Rates(input_usd_per_million=Decimal("0.5"), output_usd_per_million=Decimal(2)),
        ),
        PriceTier(
            above_input_tokens=80,
            rates=Rates(
                input_usd_per_million=Decimal(1),
                output_usd_per_million=Decimal(1),
                cache_write_1h_usd_per_million=Decimal(30),
            ),
        ),
    ),
    source="file",
    version="file:odd@00000000",
)
"""A price list that does everything the wrong way round: dear reads, and tiers that make things cheaper."""

CACHES = ("cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens")

BOOK = PriceBook(overrides={"odd": ODD}, clock=lambda: DAY)

texts = st.text(max_size=60) | st.text(alphabet="a\u00e9\u4e2d\U0001f600\ufdfa", max_size=60)
messages = st.lists(
    st.builds(
        Message,
        st.sampled_from(["system", "user", "assistant"]),
        texts | st.lists(st.builds(TextBlock, texts, st.booleans()), max_size=3).map(tuple),
    ),
    min_size=1,
    max_size=4,
)


def _has_text(prompt: Prompt) -> bool:
    try:
        return bool(as_messages(prompt))
    except InvalidInputError:
        return False


prompts = (texts | messages).filter(_has_text)


@st.composite
def usages(draw: st.DrawFn, *, most_input: int, most_output: int, tiers: tuple[str | None, ...]) -> LLMUsage:
    """Give any usage within the numbers of tokens, cached and tiered in any way; half of them as large as can be."""
    tier = draw(st.sampled_from(tiers))
    if draw(st.booleans()):
        all_of_it: dict[str, Any] = dict.fromkeys(
            draw(st.sampled_from([(), *((name,) for name in CACHES)])), most_input
        )
        return LLMUsage(input_tokens=most_input, output_tokens=most_output, service_tier=tier, **all_of_it)
    total = draw(st.integers(0, most_input))
    cuts = sorted(draw(st.lists(st.integers(0, total), min_size=3, max_size=3)))
    parts = (cuts[0], cuts[1] - cuts[0], cuts[2] - cuts[1])
    return LLMUsage(
        input_tokens=total,
        output_tokens=draw(st.integers(0, most_output)),
        service_tier=tier,
        **dict[str, Any](zip(CACHES, parts, strict=True)),
    )


def tokens_at_most(prompt: Prompt, system: str | None, provider: str, model: str) -> int:
    """Return the most tokens that the model table allows a provider to read, worked out without the product's code."""
    known = facts(provider, model)
    parts = [block.text for message in as_messages(prompt) for block in message.blocks if isinstance(block, TextBlock)]
    parts += [] if system is None else [system]
    size = sum(len(part.encode("utf-8", "surrogatepass")) for part in parts)
    return (
        math.ceil(size * known.tokens_per_byte_bound)
        + known.message_overhead_tokens * len(parts)
        + known.request_overhead_tokens
    )


@settings(max_examples=300)
@given(data=st.data(), prompt=prompts, system=st.none() | texts, max_tokens=st.integers(1, 5_000), n=st.integers(1, 3))
def test_no_bill_is_above_the_bound(
    data: st.DataObject, prompt: Prompt, system: str | None, max_tokens: int, n: int
) -> None:
    """Whatever is sent, cached, tiered and answered within the bound of tokens costs at most the bound."""
    provider, model = data.draw(st.sampled_from(MODELS))
    extra: dict[str, Any] = data.draw(st.sampled_from([{}, {"n": n}]))
    config = LLMConfig(model=model, max_tokens=max_tokens, system=system, extra=extra)
    tiers: tuple[str | None, ...] = (None, "default")
    if provider == "openai":
        tiers += published_tiers(provider=provider, model=model, day=DAY.date())
    answers = extra.get("n", 1)
    usage = data.draw(
        usages(
            most_input=tokens_at_most(prompt, system, provider, model), most_output=max_tokens * answers, tiers=tiers
        )
    )

    bound = BOOK.upper_bound(prompt, config, provider=provider, model=model)
    cost = BOOK.cost(usage, provider=provider, model=model)

    assert cost is not None
    assert cost.amount <= bound


def test_a_bound_is_what_its_definition_says() -> None:
    """Bytes and overheads at the dearest input rate, and the most output, of one call worked out by hand."""
    # 5 characters of 2 bytes and 1 of 4 = 14 bytes = 14 tokens; 4 more for the one message of the stub
    assert BOOK.upper_bound("ééééé😀", LLMConfig(max_tokens=10), provider="stub", model="stub-1") == 18 * 100 + 10 * 200
    # a system text of 3 bytes adds 3 tokens and the framing of a message
    assert (
        BOOK.upper_bound("ééééé😀", LLMConfig(max_tokens=10, system="中"), provider="stub", model="stub-1")
        == (18 + 3 + 4) * 100 + 10 * 200
    )
    # Claude: 2 tokens per byte: 14 x 2 + 16 + 64 = 108 tokens at the 1 h cache write of $6; 10 at $15
    assert (
        BOOK.upper_bound("ééééé😀", LLMConfig(max_tokens=10), provider="claude", model="claude-sonnet-4")
        == 108 * 600 + 10 * 1_500
    )
    # gpt-4o in whichever tier the project is set to, priority being the dearest: (14 + 8 + 32) x 425 + 10 x 1,700
    assert (
        BOOK.upper_bound("ééééé😀", LLMConfig(max_tokens=10), provider="openai", model="gpt-4o")
        == 54 * 425 + 10 * 1_700
    )


def test_a_tier_that_is_named_rules_out_dearer_ones() -> None:
    """Who asks for the default or the flex tier is held to its price, and who asks for a dear one to that."""
    bounds = {
        tier: BOOK.upper_bound(
            "hello",
            LLMConfig(max_tokens=1, extra={} if tier is None else {"service_tier": tier}),
            provider="openai",
            model="gpt-5",
        )
        for tier in (None, "auto", "default", "flex", "priority")
    }

    assert bounds["default"] == bounds["flex"] == (5 + 8 + 32) * 125 + 1_000
    assert bounds[None] == bounds["auto"] == bounds["priority"] == (5 + 8 + 32) * 250 + 2_000


def test_fast_mode_is_bounded_by_its_own_price() -> None:
    """Anthropic's fast mode must be asked for, and doubles the bound of opus 5.5."""
    plain = BOOK.upper_bound("hello", LLMConfig(), provider="claude", model="claude-opus-5-5")
    fast = BOOK.upper_bound("hello", LLMConfig(extra={"speed": "fast"}), provider="claude", model="claude-opus-5-5")

    assert fast == 2 * plain


@pytest.mark.parametrize(("provider", "model"), [("openai", "gpt-5-nano"), ("claude", "claude-sonnet-5-5")])
def test_a_tier_without_a_price_has_no_bound(provider: str, model: str) -> None:
    """A tier that the table does not price is refused, not taken for the standard one."""
    extra = {"service_tier": "priority"} if provider == "openai" else {"speed": "fast"}

    with pytest.raises(UnboundedCallError, match="so a budget limit cannot be kept; leave"):
        BOOK.upper_bound("hello", LLMConfig(extra=extra), provider=provider, model=model)


def test_the_bound_crosses_the_cliff_where_the_bill_would() -> None:
    """A prompt that may be above a price tier is bounded at the tier's rates, one that cannot be is not."""
    config = LLMConfig(max_tokens=1, extra={"service_tier": "default"})
    below, above = (
        BOOK.upper_bound("a" * (272_000 - 40 + more), config, provider="openai", model="gpt-5.4") for more in (0, 1)
    )

    assert below == 272_000 * 250 + 1_500
    assert above == 272_001 * 500 + 2_250


PNG = "iVBORw0KGgo="
IMAGE = ImageBlock(media_type="image/png", data=PNG)
PDF = DocumentBlock(media_type="application/pdf", data="JVBERi0=")


def bound_of(*blocks: ContentBlock, provider: str = "openai", model: str = "gpt-4o", **config: Any) -> int:
    """Return the bound in input tokens of one turn with these blocks, and nothing for the output."""
    prompt = [Message("user", [TextBlock("hi"), *blocks])]
    return input_tokens_at_most(prompt, LLMConfig(**config), facts(provider, model))


@pytest.mark.parametrize(
    ("block", "at_least"),
    [
        (TextBlock("x" * 100), 100),
        (ToolUseBlock(id="1", name="f", arguments={"a": "x" * 100}), 100),
        (ToolUseBlock(id="1", name="f", arguments={}, malformed="x" * 100), 100),
        (ToolResultBlock(tool_use_id="1", content="x" * 100), 100),
        (ReasoningBlock(text="x" * 100), 100),
        (ReasoningBlock(text="", signature="x" * 100), 100),
        (DocumentBlock(media_type="text/plain", data="eHh4" * 34, title="t"), 102),
        (IMAGE, 1_445),
    ],
)
def test_every_kind_of_content_is_in_the_bound(block: ContentBlock, at_least: int) -> None:
    """Each adds what it can be billed as, and its framing."""
    assert bound_of(block) >= bound_of() + at_least + facts("openai", "gpt-4o").message_overhead_tokens


@pytest.mark.parametrize(
    ("provider", "model", "tokens"),
    [
        # Documented examples of an image of the largest size: OpenAI's and Anthropic's vision guides.
        ("openai", "gpt-4o", 85 + 8 * 170),
        ("openai", "gpt-4o-mini", 2_833 + 8 * 5_667),
        ("openai", "gpt-4.1-nano", 3_779),
        ("openai", "o3", 75 + 8 * 150),
        ("openai", "gpt-5", 70 + 8 * 140),
        ("openai", "gpt-5-nano", 3_779),
        ("openai", "gpt-6-sol", 3_000),
        ("claude", "claude-sonnet-4-5", 1_640),
        ("claude", "claude-sonnet-5-5", 4_784),
    ],
)
def test_an_image_of_the_largest_size_is_within_its_bound(provider: str, model: str, tokens: int) -> None:
    """What the providers' guides say it costs at most, with a margin."""
    stated = facts(provider, model).image_tokens_bound

    assert stated is not None
    assert tokens <= stated <= 4 * tokens


@pytest.mark.parametrize("block", [PDF, ImageBlock(media_type="image/png", data=PNG, detail="original")])
@pytest.mark.parametrize(("provider", "model"), [("openai", "gpt-4o"), ("claude", "claude-sonnet-5-5")])
def test_what_has_no_bound_of_its_own_can_fill_the_context(block: ContentBlock, provider: str, model: str) -> None:
    """A PDF, and an image at its original size, are held at all that the model can read."""
    assert bound_of(block, provider=provider, model=model) == facts(provider, model).context_tokens


@pytest.mark.parametrize(("block", "what"), [(IMAGE, "an image"), (PDF, "a document")])
def test_what_has_no_bound_is_refused_where_the_context_is_not_known(block: ContentBlock, what: str) -> None:
    """A model of a server of one's own: nobody has said how many tokens an image is there."""
    with pytest.raises(UnboundedCallError, match=f"{what} in the prompt has no known upper bound"):
        bound_of(block, model="smollm2-135m")


def test_tools_and_schemas_are_in_the_bound() -> None:
    """What they say counts twice, because the provider renders it in a form of its own; each kind adds its text."""
    tool = Tool(name="look", description="d" * 100, parameters={"type": "object", "properties": {"p" * 100: {}}})
    schema = {"type": "object", "properties": {"f" * 200: {"type": "string"}}}

    for config in ({"tools": (tool,)}, {"schema": schema}):
        assert bound_of(**config) >= bound_of() + 2 * 200 + facts("openai", "gpt-4o").tools_overhead_tokens


@pytest.mark.parametrize(
    ("provider", "model", "tier", "like"),
    [
        ("openai", "gpt-5.4", "flex", {"service_tier": "flex"}),
        ("openai", "gpt-5.4", "default", {"service_tier": "default"}),
        ("openai", "gpt-5.4", "priority", {"service_tier": "priority"}),
        ("claude", "claude-opus-5-5", "fast", {"speed": "fast"}),
        ("claude", "claude-opus-5-5", "auto", {}),
        ("claude", "claude-opus-4-1", "fast", {}),  # it has no such tier, so none is sent
    ],
)
def test_a_tier_of_the_config_is_bounded_like_the_parameter(
    provider: str, model: str, tier: Any, like: dict[str, str]
) -> None:
    """The field and the provider's own parameter choose the same price."""
    by_field = BOOK.upper_bound("hello", LLMConfig(service_tier=tier), provider=provider, model=model)

    assert by_field == BOOK.upper_bound("hello", LLMConfig(extra=like), provider=provider, model=model)


@pytest.mark.parametrize("name", ["tools", "max_tokens", "max_completion_tokens", "web_search_options", "modalities"])
def test_a_parameter_without_a_bound_is_refused_by_name(name: str) -> None:
    """A parameter could buy anything, or lift the limit of the output, unless the table knows it."""
    with pytest.raises(UnboundedCallError, match=f"the parameter '{name}'"):
        BOOK.upper_bound("hello", LLMConfig(extra={name: 1}), provider="openai", model="gpt-4o")


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2", 129, None])
def test_a_wrong_number_of_answers_has_no_bound(n: object) -> None:
    """``n`` multiplies the bill, so it must be a number that can be multiplied by."""
    with pytest.raises(UnboundedCallError, match="n must be a whole number from 1 to 128"):
        BOOK.upper_bound("hello", LLMConfig(extra={"n": n}), provider="openai", model="gpt-4o")


def test_answers_multiply_the_bound() -> None:
    """Three answers may cost three times as much."""
    once, thrice = (
        BOOK.upper_bound("hello", LLMConfig(extra=extra), provider="openai", model="gpt-4o") for extra in ({}, {"n": 3})
    )

    assert thrice == 3 * once


def test_an_unpriced_model_has_no_bound_unless_the_user_says_what_it_costs() -> None:
    """Denied by default, with the remedies; free or at a flat price where that was chosen."""
    config = LLMConfig(max_tokens=10)
    with pytest.raises(UnboundedCallError, match="NOVA_PRICES_FILE, or set NOVA_UNKNOWN_PRICE"):
        BOOK.upper_bound("hello", config, provider="openai", model="unheard-of")

    free = PriceBook(unknown="free").upper_bound("hello", config, provider="openai", model="unheard-of")
    flat = PriceBook(unknown=Decimal(2)).upper_bound("hello", config, provider="openai", model="unheard-of")

    assert free == 0
    known = facts("openai", "unheard-of")
    assert flat == (5 + known.message_overhead_tokens + known.request_overhead_tokens + 10) * 200


def test_a_bound_that_no_budget_can_hold_is_refused() -> None:
    """An amount above what stores keep exactly is not shortened to fit."""
    with pytest.raises(UnboundedCallError, match="which no budget can hold"):
        BOOK.upper_bound("hello", LLMConfig(max_tokens=10**13), provider="openai", model="gpt-4o")


def test_normalisation_cannot_lengthen_a_text_past_its_bound() -> None:
    """One character of three bytes becomes eighteen when normalised, and is counted as these."""
    alone = BOOK.upper_bound("a\ufdfa", LLMConfig(max_tokens=1), provider="openai", model="gpt-3.5-turbo")

    assert alone == (1 + 33 + 8 + 32) * 50 + 150


def test_an_empty_prompt_is_no_call() -> None:
    """There is nothing to bound."""
    with pytest.raises(InvalidInputError, match="the prompt is empty"):
        BOOK.upper_bound(" ", LLMConfig(), provider="openai", model="gpt-4o")


def test_an_estimate_uses_what_was_reported_and_what_arrived() -> None:
    """For a cut stream: reported figures where there are some, the bounds of prompt and text where not."""
    config = LLMConfig(max_tokens=1_000)
    known = facts("stub", "stub-1")

    def estimate(text: str, read: int | None, generated: int | None) -> int:
        cost = BOOK.estimate(
            "hello",
            config,
            provider="stub",
            model="stub-1",
            partial_text=text,
            input_tokens=read,
            output_tokens=generated,
        )
        assert cost is not None
        return cost.amount

    assert estimate("abc", None, None) == (5 + known.message_overhead_tokens) * 100 + 3 * 200
    assert estimate("abc", 2, None) == 2 * 100 + 3 * 200
    assert estimate("abc", 2, 50) == 2 * 100 + 50 * 200
    assert BOOK.cost(LLMUsage(input_tokens=2, output_tokens=50), provider="stub", model="stub-1") is not None


@pytest.mark.parametrize("n", [2, 128, 0, "many"])
def test_several_answers_cannot_be_estimated(n: object) -> None:
    """A stream shows the first of them, and all are billed; what is no number of answers is none either."""
    config = LLMConfig(max_tokens=1_000, extra={"n": n})

    cost = BOOK.estimate(
        "hello", config, provider="stub", model="stub-1", partial_text="abc", input_tokens=2, output_tokens=3
    )

    assert cost is None


def test_one_answer_asked_for_by_number_is_estimated() -> None:
    """It is as if nothing had been said."""
    config = LLMConfig(max_tokens=1_000, extra={"n": 1})

    cost = BOOK.estimate(
        "hello", config, provider="stub", model="stub-1", partial_text="abc", input_tokens=2, output_tokens=3
    )

    assert cost is not None
    assert cost.amount == 2 * 100 + 3 * 200


def test_todays_tiers_are_those_of_the_list() -> None:
    """The tiers that a bound considers are the ones that have a price on that day."""
    assert published_tiers(provider="openai", model="gpt-4o", day=date(2026, 11, 24)) == ("batch", "priority", "fast")
    assert published_tiers(provider="openai", model="gpt-4o", day=date(2026, 10, 1)) == ()
