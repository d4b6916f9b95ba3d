"""The published prices, from genai-prices: looked up strictly.

Three things that the library does silently are errors in a bill, and are not let through: a name that only begins like
a known model, a service tier that the table does not know (the library takes the standard price), and a model that is
billed by more than its text tokens (audio, images, searches). Each of them is an unknown price here.

The data that is read is the data of the installed release, never an update fetched at run time, so that the version on
a cost says which prices they were.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from app.skills.pricing.rates import ModelPrice, PriceTier, Rates

if TYPE_CHECKING:
    from genai_prices.types import MatchLogic, ModelInfo, Provider, TieredPrices
    from genai_prices.types import ModelPrice as PublishedPrice

__all__ = ["STANDARD_TIERS", "is_loaded", "published_price", "published_tiers"]

STANDARD_TIERS: Final = frozenset({None, "default", "standard", "on_demand"})
"""What providers call the tier that the plain price is for. ``None``: the provider says nothing about a tier."""

_PROVIDER_IDS: Final = {"claude": "anthropic", "openai": "openai"}
_TIER_CONTEXTS: Final[dict[str, dict[str, tuple[str, str]]]] = {
    "claude": {"batch": ("processing", "batch"), "fast": ("speed", "fast")},
    "openai": {
        "batch": ("processing", "batch"),
        "flex": ("service_tier", "flex"),
        "priority": ("service_tier", "priority"),
        "fast": ("service_tier", "fast"),
    },
}
_TEXT_KEYS: Final = {
    "input_mtok": "input_usd_per_million",
    "output_mtok": "output_usd_per_million",
    "cache_read_mtok": "cache_read_usd_per_million",
    "cache_write_mtok": "cache_write_usd_per_million",
    "cache_write_1h_mtok": "cache_write_1h_usd_per_million",
}
_TOOL_KEYS: Final = frozenset({"web_searches_kcount", "storage_searches_kcount"})
"""Prices of tools that a call has only if it asks for them, by a parameter that has no bound."""

_MORE_THAN_TEXT: Final = re.compile(
    r"(?:^|-)(?:search|audio|realtime|transcribe|tts|image|computer-use|deep-research|moderation)(?:-|$)"
)
"""Models whose calls cost more than their text tokens even where the table has no other price for them."""

_SNAPSHOT: Final = re.compile(r"(?:[-@]20\d{6}|-20\d\d-\d\d-\d\d|-latest)$")
_FINE_TUNED: Final = re.compile(r"^(ft:[^:]+?)(?:-\d{4}|-20\d\d-\d\d-\d\d)?:")


def published_price(*, provider: str, model: str, tier: str | None, day: date) -> ModelPrice | None:
    """Return the published price of a model on a day (UTC) in a service tier, or None where there is none."""
    info = _find(provider, model)
    if info is None:
        return None
    moment = datetime.combine(day, time(12), tzinfo=UTC)
    context: dict[str, str] = {}
    if tier not in STANDARD_TIERS:
        condition = _TIER_CONTEXTS[provider].get(str(tier))
        if condition is None or not _has_variant(info, condition, moment):
            return None
        context = dict([condition])
    return _translated(info.get_prices(moment, context), provider=provider, model=model)


def published_tiers(*, provider: str, model: str, day: date) -> tuple[str, ...]:
    """Return the service tiers beside the standard one that have a price of their own for the model on a day."""
    info = _find(provider, model)
    if info is None:
        return ()
    moment = datetime.combine(day, time(12), tzinfo=UTC)
    return tuple(tier for tier, condition in _TIER_CONTEXTS[provider].items() if _has_variant(info, condition, moment))


def is_loaded(provider: str) -> bool:
    """Whether looking up a model of this provider reads nothing from the disk: the list is large, and read once."""
    return provider not in _PROVIDER_IDS or "genai_prices.data" in sys.modules


def _find(provider: str, model: str) -> ModelInfo | None:
    name = model.lower()
    catalogue = _catalogue(provider)
    if catalogue is None or _MORE_THAN_TEXT.search(name):
        return None
    info = catalogue.find_model(name)
    if info is None or not _is_that_model(name, info) or _changes_within_a_day(info):
        return None
    return info


@lru_cache(maxsize=8)
def _catalogue(provider: str) -> Provider | None:
    if provider not in _PROVIDER_IDS:
        return None
    from genai_prices.data import providers

    return next(entry for entry in providers if entry.id == _PROVIDER_IDS[provider])


@lru_cache(maxsize=1)
def _version() -> str:
    import genai_prices

    return f"genai-prices {genai_prices.__version__}"


def _is_that_model(name: str, info: ModelInfo) -> bool:
    """Whether the name is one that the table lists, or a dated snapshot of one; not merely a name that begins alike."""
    fine_tuned = _FINE_TUNED.match(name)
    if fine_tuned is not None:
        return fine_tuned.group(1) == info.id.rstrip("-")
    names = {name, _SNAPSHOT.sub("", name)}
    return info.id in names or any(_lists(clause, names) for clause in _clauses(info.match))


def _lists(clause: MatchLogic, names: set[str]) -> bool:
    from genai_prices.types import ClauseEquals, ClauseRegex, ClauseStartsWith

    if isinstance(clause, ClauseEquals):
        return clause.equals.lower() in names
    if isinstance(clause, ClauseStartsWith):
        return clause.starts_with.lower().rstrip("@-") in names
    return isinstance(clause, ClauseRegex) and any(re.fullmatch(clause.regex, name) for name in names)


def _clauses(match: MatchLogic) -> Iterator[MatchLogic]:
    from genai_prices.types import ClauseOr

    if isinstance(match, ClauseOr):
        for clause in match.or_:
            yield from _clauses(clause)
    else:
        yield match


def _changes_within_a_day(info: ModelInfo) -> bool:
    """Whether the price depends on the time of day: then one day has no one price."""
    from genai_prices.types import ModelPrice as PublishedPrice
    from genai_prices.types import TimeOfDateConstraint

    prices = [] if isinstance(info.prices, PublishedPrice) else info.prices
    return any(isinstance(entry.constraint, TimeOfDateConstraint) for entry in (*prices, *(info.price_variants or ())))


def _has_variant(info: ModelInfo, condition: tuple[str, str], moment: datetime) -> bool:
    return any(
        dict(variant.when) == dict([condition]) and (variant.constraint is None or variant.constraint.active(moment))
        for variant in info.price_variants or ()
    )


def _translated(prices: PublishedPrice, *, provider: str, model: str) -> ModelPrice | None:
    """Return the price in our terms; None where the model is priced by something that a usage does not hold."""
    values: dict[str, Decimal | TieredPrices] = {
        key: value for key, value in vars(prices).items() if value is not None and key not in _TOOL_KEYS
    }
    if not {"input_mtok", "output_mtok"} <= values.keys() <= _TEXT_KEYS.keys():
        return None
    starts = sorted({tier.start for value in values.values() if not isinstance(value, Decimal) for tier in value.tiers})
    return ModelPrice(
        provider=provider,
        model=model,
        rates=_rates(values, above=0),
        tiers=tuple(PriceTier(above_input_tokens=start, rates=_rates(values, above=start)) for start in starts),
        source="genai-prices",
        version=_version(),
    )


def _rates(values: dict[str, Decimal | TieredPrices], *, above: int) -> Rates:
    return Rates(**{_TEXT_KEYS[key]: _at(value, above=above) for key, value in values.items()})


def _at(value: Decimal | TieredPrices, *, above: int) -> Decimal:
    """Return the price of a call whose input is just above ``above`` tokens."""
    if isinstance(value, Decimal):
        return value
    return next((tier.price for tier in reversed(value.tiers) if above >= tier.start), value.base)
