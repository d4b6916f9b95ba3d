"""The price book: exact charges, and prices that are never guessed."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from anthropic.types import MessageDeltaUsage, Usage
from openai.types import CompletionUsage

from app.errors import ConfigurationError, InvalidInputError
from app.settings import Settings
from app.skills.adapters.claude_adapter import claude_usage
from app.skills.adapters.openai_adapter import openai_usage
from app.skills.llm_invoke_v2 import LLMUsage
from app.skills.pricing import FREE, ModelPrice, PriceBook, Rates, get_price_book

from .usage_cases import BILLS, Bill, Raw

DAY = datetime(2026, 11, 24, 12, tzinfo=UTC)
USAGE = LLMUsage(input_tokens=1_000_000, output_tokens=1_000_000)


def as_usage(raw: Raw, tier: str | None) -> LLMUsage:
    """Convert what an SDK reports, by the adapters' own functions where they speak that API."""
    if isinstance(raw, CompletionUsage):
        return openai_usage(raw.model_dump(), service_tier=tier)
    if isinstance(raw, Usage | MessageDeltaUsage):
        return claude_usage(raw.model_dump())
    return LLMUsage(
        input_tokens=raw.input_tokens,
        output_tokens=raw.output_tokens,
        cache_read_tokens=raw.input_tokens_details.cached_tokens,
        cache_write_5m_tokens=raw.input_tokens_details.cache_write_tokens,
        reasoning_tokens=raw.output_tokens_details.reasoning_tokens,
        service_tier=tier,
    )


@pytest.fixture(scope="module")
def book() -> PriceBook:
    """Return the published prices of one day."""
    return PriceBook(clock=lambda: DAY)


def test_there_are_forty_bills_with_names_of_their_own() -> None:
    """The table is as large as it says, and no case hides another."""
    assert len(BILLS) == 40
    assert len({bill.name for bill in BILLS}) == 40


@pytest.mark.parametrize("bill", BILLS, ids=lambda bill: bill.name)
def test_a_bill_is_exact(book: PriceBook, bill: Bill) -> None:
    """What the SDK reports costs, to the microcent, what the price list says."""
    cost = book.cost(as_usage(bill.raw, bill.tier), provider=bill.provider, model=bill.model)

    assert (None if cost is None else cost.amount) == bill.expected
    assert cost is None or cost.price_version == "genai-prices 0.2.3"


@pytest.mark.parametrize(
    ("provider", "model", "price_in", "price_out"),
    [
        ("claude", "claude-sonnet-4", "3", "15"),
        ("openai", "gpt-4o", "2.50", "10"),
        ("openai", "gpt-4o-mini", "0.15", "0.60"),
        ("openai", "gpt-4-turbo", "10", "30"),
        ("openai", "gpt-3.5-turbo", "0.50", "1.50"),
        ("stub", "stub-1", "1", "2"),
    ],
)
def test_promised_prices_hold(book: PriceBook, provider: str, model: str, price_in: str, price_out: str) -> None:
    """These models cost what was promised, per million tokens in and out."""
    price = book.price(provider=provider, model=model)

    assert price is not None
    assert price.input_usd_per_million == Decimal(price_in)
    assert price.output_usd_per_million == Decimal(price_out)


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("claude", "claude-sonnet-4-20250514-foo"),
        ("claude", "claude-sonnet-4-5-turbo"),
        ("claude", "claude-haiku-4-5-mini-20251001"),
        ("claude", "gpt-4o"),
        ("openai", "claude-sonnet-4"),
        ("openai", "openai/gpt-4o"),
        ("openai", "gpt-4-foo"),
        ("openai", "gpt-5-nano-tuned"),
        ("openai", "gpt-4o-20240513"),
        ("openai", "gpt-4o-audio-preview"),
        ("openai", "gpt-4o-search-preview"),
        ("openai", "gpt-4o-mini-search-preview"),
        ("openai", "o3-deep-research"),
        ("openai", "gpt-image-1"),
        ("openai", "text-embedding-3-small"),
        ("openai", "ft:gpt-4-0613:acme::id"),
        ("openai", ""),
        ("mistral", "mistral-large-latest"),
        ("stub", "stub-2"),
    ],
)
def test_a_name_that_only_looks_like_a_model_has_no_price(book: PriceBook, provider: str, model: str) -> None:
    """A price is never taken over from another model or provider, nor from a model that bills more than its text."""
    assert book.price(provider=provider, model=model) is None
    assert not book.is_priced(provider=provider, model=model)
    assert book.cost(USAGE, provider=provider, model=model) is None


@pytest.mark.parametrize(
    ("provider", "model", "price_in"),
    [
        ("claude", "claude-sonnet-4@20250514", "3"),
        ("claude", "claude-3-5-haiku-latest", "0.8"),
        ("openai", "gpt-5-nano-2025-08-07", "0.05"),
        ("openai", "gpt-6.1-sol-2026-10-01", "2"),
        ("openai", "ft:gpt-4o-mini-2024-07-18:acme::id", "0.3"),
        ("openai", "ft:gpt-3.5-turbo-0125:acme::id", "3"),
    ],
)
def test_a_snapshot_costs_what_its_model_costs(book: PriceBook, provider: str, model: str, price_in: str) -> None:
    """Dated and fine-tuned names that the provider itself gives are found."""
    price = book.price(provider=provider, model=model)

    assert price is not None
    assert price.input_usd_per_million == Decimal(price_in)


@pytest.mark.parametrize(
    "usage",
    [
        LLMUsage(input_tokens=None, output_tokens=1),
        LLMUsage(input_tokens=1, output_tokens=None),
        LLMUsage(input_tokens=1, output_tokens=1, complete=False),
        LLMUsage(input_tokens=-1, output_tokens=1),
        LLMUsage(input_tokens=1, output_tokens=-1),
        LLMUsage(input_tokens=5, output_tokens=1, cache_read_tokens=3, cache_write_5m_tokens=3),
        LLMUsage(input_tokens=5, output_tokens=1, cache_read_tokens=-3),
        LLMUsage(input_tokens=5, output_tokens=1, cache_write_1h_tokens=6),
        LLMUsage(input_tokens=5, output_tokens=1, reasoning_tokens=2),
        LLMUsage(input_tokens=10**14, output_tokens=10**14),
    ],
)
def test_what_is_not_a_final_bill_has_no_cost(book: PriceBook, usage: LLMUsage) -> None:
    """Missing, partial, contradictory and absurd figures cost None, never zero and never an exception."""
    assert book.cost(usage, provider="openai", model="gpt-4o") is None


@pytest.mark.parametrize(
    ("provider", "model", "tier"),
    [
        ("openai", "gpt-5-nano", "priority"),
        ("openai", "gpt-3.5-turbo", "flex"),
        ("openai", "gpt-4o", "scale"),
        ("claude", "claude-sonnet-5-5", "fast"),
        ("claude", "claude-sonnet-5-5", "standard@us"),
        ("stub", "stub-1", "priority"),
    ],
)
def test_a_tier_without_a_price_of_its_own_has_no_cost(book: PriceBook, provider: str, model: str, tier: str) -> None:
    """Another tier is never charged at the standard price."""
    usage = LLMUsage(input_tokens=1, output_tokens=1, service_tier=tier)

    assert book.cost(usage, provider=provider, model=model) is None
    assert book.is_priced(provider=provider, model=model)


def test_free_is_not_unknown(book: PriceBook) -> None:
    """No tokens at a known price cost zero, which is a fact."""
    cost = book.cost(LLMUsage(input_tokens=0, output_tokens=0), provider="openai", model="gpt-4o")

    assert cost is not None
    assert cost.amount == 0


def test_a_price_is_the_price_of_its_day(book: PriceBook) -> None:
    """A call is priced by the list of the day on which it was made, in UTC."""
    before = datetime(2026, 8, 20, 23, 59, tzinfo=UTC)
    after = datetime(2026, 8, 21, 0, 1, tzinfo=UTC)

    assert book.cost(USAGE, provider="openai", model="gpt-5-6-sol", at=before) != book.cost(
        USAGE, provider="openai", model="gpt-5-6-sol", at=after
    )
    # 1,000,000 tokens are above the cliff: $10 + $45 before, $8 + $30 from then on.
    assert _dollars(book, "gpt-5.6-sol", before) == Decimal(55)
    assert _dollars(book, "gpt-5.6-sol", after) == Decimal(38)


def test_an_unknown_model_costs_what_the_user_says() -> None:
    """``free`` and a flat price apply to models without a price, and to no others; they do not make a model priced."""
    free, flat = PriceBook(unknown=FREE), PriceBook(unknown=Decimal("2.5"))
    usage = LLMUsage(input_tokens=3, output_tokens=1, service_tier="whatever")

    for_free = free.cost(usage, provider="openai", model="local-model")
    for_something = flat.cost(usage, provider="openai", model="local-model")

    assert for_free is not None
    assert (for_free.amount, for_free.price_version) == (0, "NOVA_UNKNOWN_PRICE=free")
    assert for_something is not None
    assert (for_something.amount, for_something.price_version) == (1_000, "NOVA_UNKNOWN_PRICE=2.5")
    assert not free.is_priced(provider="openai", model="local-model")
    assert free.cost(usage, provider="openai", model="gpt-4o") is None, "its price is known; only its tier is not"


@pytest.mark.parametrize(("text", "expected"), [("deny", None), (" FREE ", 0), ("15", 30_000), ("$0.5", 1_000)])
def test_the_variable_for_unknown_prices_is_read(text: str, expected: int | None) -> None:
    """``NOVA_UNKNOWN_PRICE`` is deny, free, or dollars per million tokens."""
    book = get_price_book(Settings(nova_unknown_price=text))

    cost = book.cost(LLMUsage(input_tokens=10, output_tokens=10), provider="openai", model="unheard-of")

    assert (None if cost is None else cost.amount) == expected


@pytest.mark.parametrize("text", ["maybe", "-1", "nan", "inf", "", "1e9", "0.0000000000000001"])
def test_a_wrong_unknown_price_names_its_variable(text: str) -> None:
    """A value that cannot be is refused with the variable and what it may be."""
    with pytest.raises(ConfigurationError, match="NOVA_UNKNOWN_PRICE must be deny, free, or dollars") as caught:
        PriceBook.from_settings(Settings(nova_unknown_price=text))

    assert caught.value.variable == "NOVA_UNKNOWN_PRICE"


def test_the_same_settings_give_the_same_book() -> None:
    """A book is built once per price file and unknown price."""
    assert get_price_book(Settings()) is get_price_book(Settings())
    assert get_price_book(Settings()) is not get_price_book(Settings(nova_unknown_price="free"))


def test_a_book_is_built_without_the_library() -> None:
    """genai-prices is imported by the first price that is looked up there, not by the import or the book."""
    program = (
        "import sys; from app.skills.pricing import PriceBook; book = PriceBook(); "
        "assert book.is_priced(provider='stub', model='stub-1'); assert 'genai_prices' not in sys.modules; "
        "assert book.is_priced(provider='openai', model='gpt-4o'); assert 'genai_prices' in sys.modules"
    )

    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-0.01", "1000000.01", "0.000000000000001"])
def test_a_price_that_cannot_be_exact_is_no_price(value: str) -> None:
    """A rate is a finite number that the integer arithmetic can hold exactly."""
    with pytest.raises(InvalidInputError, match="input_usd_per_million must be from 0"):
        Rates(input_usd_per_million=Decimal(value), output_usd_per_million=Decimal(0))


def test_what_is_not_priced_apart_costs_what_input_costs() -> None:
    """Without a price of their own, cached tokens cost what input costs, and a long cache what a short one costs."""
    book = PriceBook(
        overrides={"m": _price("m", Rates(input_usd_per_million=Decimal(2), output_usd_per_million=Decimal(3)))}
    )
    short = PriceBook(
        overrides={
            "m": _price(
                "m",
                Rates(
                    input_usd_per_million=Decimal(2),
                    output_usd_per_million=Decimal(3),
                    cache_write_usd_per_million=Decimal(5),
                ),
            )
        }
    )
    usage = LLMUsage(
        input_tokens=10, output_tokens=1, cache_read_tokens=2, cache_write_5m_tokens=3, cache_write_1h_tokens=4
    )

    plain, written = (each.cost(usage, provider="openai", model="m") for each in (book, short))

    assert plain is not None
    assert plain.amount == 10 * 200 + 300
    assert written is not None
    assert written.amount == 3 * 200 + 7 * 500 + 300


def _price(model: str, rates: Rates) -> ModelPrice:
    return ModelPrice(provider=None, model=model, rates=rates, source="file", version="file:test@00000000")


def _dollars(book: PriceBook, model: str, at: datetime) -> Decimal:
    cost = book.cost(USAGE, provider="openai", model=model, at=at)
    assert cost is not None
    return Decimal(cost.amount) / 100_000_000


def test_the_file_comes_before_the_list(tmp_path: Path) -> None:
    """A model in the price file costs what the file says, for the adapter that it names and no other."""
    file = tmp_path / "prices.yaml"
    file.write_text(
        "models:\n"
        "  gpt-4o: {provider: openai, input_usd_per_million: 1, output_usd_per_million: 0.1}\n"
        "  own: {input_usd_per_million: '0', output_usd_per_million: '0'}\n"
    )
    book = PriceBook.from_settings(Settings(nova_prices_file=file))

    cost = book.cost(LLMUsage(input_tokens=1, output_tokens=1), provider="openai", model="gpt-4o")
    own = book.cost(USAGE, provider="claude", model="own")

    assert cost is not None
    assert cost.amount == 110
    assert cost.price_version.startswith("file:prices.yaml@")
    assert own is not None
    assert own.amount == 0, "free is a price"
    assert book.price(provider="claude", model="gpt-4o") is None
    assert (
        book.cost(LLMUsage(input_tokens=1, output_tokens=1, service_tier="priority"), provider="openai", model="own")
        is None
    )
