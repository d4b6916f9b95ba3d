"""The model table: what it says of known models, of unknown ones, and of those that end."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import get_args

import pytest

from app.skills.model_facts import ORDER_OF_EFFORT
from app.skills.model_names import MODEL_NAMES
from app.skills.models import DEFAULT_MODELS, end_of_life_warning, facts
from app.skills.pricing import PriceBook

TODAY = date(2026, 11, 24)


@pytest.mark.parametrize(
    ("provider", "model", "family"),
    [
        ("claude", "claude-sonnet-4", "claude-sonnet-4"),
        ("claude", "claude-sonnet-4-20250514", "claude-sonnet-4"),
        ("claude", "claude-sonnet-4-5-20250929", "claude-4-5"),
        ("claude", "claude-opus-4-7", "claude-opus-4-7"),
        ("claude", "claude-sonnet-5-5", "claude-5-5"),
        ("claude", "claude-9", "claude"),
        ("openai", "gpt-3.5-turbo-0125", "gpt-3.5-turbo"),
        ("openai", "gpt-4", "gpt-4"),
        ("openai", "gpt-4-turbo-2024-04-09", "gpt-4-turbo"),
        ("openai", "gpt-4o-mini", "gpt-4o-mini"),
        ("openai", "GPT-4o-mini", "gpt-4o-mini"),
        ("openai", "gpt-4.1-mini", "gpt-4.1"),
        ("openai", "o3-pro", "o3"),
        ("openai", "gpt-5-nano", "gpt-5"),
        ("openai", "gpt-5.2-2025-12-11", "gpt-5.2"),
        ("openai", "gpt-5.4-mini", "gpt-5.4-mini"),
        ("openai", "gpt-5.6-terra", "gpt-5.6"),
        ("openai", "gpt-6.1-terra", "gpt-6"),
        ("openai", "gpt-8", "openai"),
        ("openai", "smollm2-135m", "openai-compatible"),
        ("openai", "gpt-oss-120b", "gpt-oss"),
        ("openai", "openai/gpt-4o", "openai-compatible"),
        ("openai", "gpt-9-nobody-knows", "openai"),
        ("stub", "stub-1", "stub"),
    ],
)
def test_each_name_has_its_family(provider: str, model: str, family: str) -> None:
    """The longest-known names are matched first; an unknown one has what is current at its provider."""
    assert facts(provider, model).family == family


def sdk_names() -> dict[str, list[str]]:
    """Return the names that the SDKs of both providers list."""
    from anthropic.types import Model
    from openai.types import ChatModel

    return {
        "claude": [name for part in get_args(Model) for name in get_args(part)],
        "openai": list(get_args(ChatModel)),
    }


def priced_names(provider: str) -> list[str]:
    """Return the names of chat models for which genai-prices has a price."""
    from genai_prices.data import providers

    catalogue = next(entry for entry in providers if entry.id == {"claude": "anthropic"}.get(provider, provider))
    return [
        info.id
        for info in catalogue.models
        if PriceBook().is_priced(provider=provider, model=info.id) and not NOT_CHAT.match(info.id)
    ]


NOT_CHAT = re.compile(r"(text-)?(ada|babbage|curie|davinci)|ft:|gpt-3\.5-(0301|turbo-instruct)|.*\.ft-|gpt-4o:extended")
"""Models of the old completions API, and entries that are no names of models."""

UNSPECIFIC = {"claude", "openai", "openai-compatible"}
"""The families of names that nothing is known of."""


@pytest.mark.parametrize("provider", ["claude", "openai"])
def test_the_table_has_every_model_that_the_sdk_names_or_that_has_a_price(provider: str) -> None:
    """Each is listed, and has facts of its own family, never those that an unknown name gets."""
    names = {*sdk_names()[provider], *priced_names(provider)}

    assert len(names) > (25 if provider == "claude" else 95)
    assert sorted(names - set(MODEL_NAMES[provider])) == []
    assert [name for name in MODEL_NAMES[provider] if name not in names] == []
    assert [name for name in sorted(names) if facts(provider, name).family in UNSPECIFIC] == []


@pytest.mark.parametrize("provider", ["claude", "openai"])
def test_what_is_said_of_each_model_is_complete_and_agrees_with_itself(provider: str) -> None:
    """Context, output, bounds; levels of effort where it thinks; tools for none that lacks them."""
    for name in MODEL_NAMES[provider]:
        known = facts(provider, name)
        assert known.context_tokens is not None or known.family == "gpt-rosalind", name
        assert known.max_output_tokens is not None or known.family in {"gpt-6", "gpt-rosalind", "gpt-oss"}, name
        assert (known.image_tokens_bound is not None) or not known.images or provider == "openai", name
        assert bool(known.efforts) == (known.reasoning != "none"), name
        assert set(known.efforts) <= set(ORDER_OF_EFFORT), name


def test_the_contexts_are_those_of_the_price_table() -> None:
    """Within what both state; where they differ, it is by how they round."""
    from genai_prices.data import providers

    differing = {"claude-2": 100_000, "gpt-4-32k": 32_768, "gpt-4.1": 1_047_576, "gpt-5.3": 400_000}
    for provider, entry_id in (("claude", "anthropic"), ("openai", "openai")):
        catalogue = next(entry for entry in providers if entry.id == entry_id)
        stated = {info.id: info.context_window for info in catalogue.models if info.context_window}
        for name in set(MODEL_NAMES[provider]) & stated.keys():
            ours = facts(provider, name).context_tokens
            expected = next((size for prefix, size in differing.items() if name.startswith(prefix)), stated[name])
            assert ours == expected, name


def test_every_end_that_openai_announces_is_in_the_table() -> None:
    """Read from the documentation in the SDK's source, beside the names."""
    from inspect import getsource
    from types import ModuleType

    from openai.types.shared import chat_model

    assert isinstance(chat_model, ModuleType)
    said = " ".join(getsource(chat_model).split())
    announced: dict[str, date] = {}
    for names, day in re.findall(r'- ((?:"[^"]+",? ?)+): Announced shutdown date: (\d{4}-\d\d-\d\d)', said):
        announced |= dict.fromkeys(re.findall(r'"([^"]+)"', names), date.fromisoformat(day))

    assert len(announced) > 60
    assert {name: facts("openai", name).end_of_life for name in announced} == announced


def test_every_end_that_the_sdks_announce_is_in_the_table() -> None:
    """Anthropic's list, read from the SDK itself."""
    from datetime import datetime

    from anthropic.resources.messages.messages import DEPRECATED_MODELS

    announced = {
        name: datetime.strptime(day.replace("th,", ",").replace("st,", ",").replace("rd,", ","), "%B %d, %Y").date()  # noqa: DTZ007  # a day
        for name, day in DEPRECATED_MODELS.items()
    }

    assert {name: facts("claude", name).end_of_life for name in announced} == announced


@pytest.mark.parametrize("adapter", ["claude", "openai", "stub"])
def test_the_default_models_have_a_price(adapter: str) -> None:
    """A call that names no model can be bounded."""
    assert PriceBook().is_priced(provider=adapter, model=DEFAULT_MODELS[adapter])


def test_the_default_claude_has_no_announced_end() -> None:
    """OpenAI's default has one, and warns; see below."""
    assert facts("claude", DEFAULT_MODELS["claude"]).end_of_life is None


@pytest.mark.parametrize(
    ("provider", "model", "expected"),
    [
        ("openai", "gpt-4o-mini", "the model gpt-4o-mini ends on 2027-01-14, in 51 days; choose another before then"),
        ("openai", "gpt-4-turbo", "the model gpt-4-turbo ended on 2026-10-23; choose another"),
        ("claude", "claude-sonnet-4", "the model claude-sonnet-4 ended on 2026-06-15; choose another"),
        ("claude", "claude-sonnet-5-5", None),
        ("openai", "gpt-6.1-sol", None),
        ("stub", "stub-1", None),
    ],
)
def test_a_model_that_ends_is_warned_of(provider: str, model: str, expected: str | None) -> None:
    """Before and after its day; nothing is said of the others."""
    assert end_of_life_warning(provider, model, today=TODAY) == expected


def test_on_its_last_day_a_model_has_ended() -> None:
    """The day that the provider names is the first without it."""
    warning = end_of_life_warning("openai", "gpt-4o-mini", today=date(2027, 1, 14))

    assert warning == "the model gpt-4o-mini ended on 2027-01-14; choose another"


@pytest.mark.parametrize(
    ("provider", "model", "at_least"),
    [
        ("openai", "gpt-4o", 1),
        ("openai", "o3", 1),
        ("openai", "smollm2-135m", 1),
        ("claude", "claude-sonnet-5-5", 2),
        ("claude", "claude-3-haiku", 2),
        ("stub", "stub-1", Decimal("0.25")),
    ],
)
def test_the_bound_of_tokens_is_conservative(provider: str, model: str, at_least: Decimal) -> None:
    """Byte-level tokenizers have at most a token per byte; the unpublished one gets a margin."""
    known = facts(provider, model)

    assert known.tokens_per_byte_bound >= at_least
    assert known.message_overhead_tokens >= 4


def test_no_parameter_that_can_raise_the_price_counts_as_bounded() -> None:
    """Limits, tools, several answers and places that cost more are not on any list."""
    raising = {
        *("max_tokens", "max_completion_tokens", "n", "tools", "web_search_options", "prediction", "audio"),
        *("inference_geo", "mcp_servers", "container", "service_tier", "speed", "response_format", "output_config"),
    }

    for provider, model in (("openai", "gpt-4o"), ("openai", "x"), ("claude", "claude-sonnet-5-5"), ("stub", "s")):
        assert not facts(provider, model).bounded_extra & raising
