"""The price book: what a usage cost, and what a call can cost at most."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from app.errors import ConfigurationError, InvalidInputError, UnboundedCallError
from app.money import MAX_MICROCENTS, Microcents, format_usd
from app.skills.pricing.bound import answers, check_parameters, input_tokens_at_most, text_tokens_at_most
from app.skills.pricing.catalogue import STANDARD_TIERS, is_loaded, published_price, published_tiers
from app.skills.pricing.price_file import read_price_file
from app.skills.pricing.rates import Meter, ModelPrice, Rates

if TYPE_CHECKING:
    from app.settings import Settings
    from app.skills.llm_invoke_v2 import LLMConfig, LLMUsage, Prompt

__all__ = ["DENY", "FREE", "Cost", "PriceBook", "UnknownPrice", "get_price_book"]

UnknownPrice: TypeAlias = Literal["deny", "free"] | Decimal
"""What an unpriced model costs: nobody can tell, nothing, or so many dollars per million tokens in and out."""

DENY: Final[Literal["deny"]] = "deny"
FREE: Final[Literal["free"]] = "free"

_UNKNOWN_VARIABLE: Final = "NOVA_UNKNOWN_PRICE"

_BUILT_IN: Final = {
    ("stub", "stub-1"): ModelPrice(
        provider="stub",
        model="stub-1",
        rates=Rates(input_usd_per_million=Decimal(1), output_usd_per_million=Decimal(2)),
        source="built in",
        version="stub",
    )
}
"""The stub costs something, so that budgets mean something offline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """A charge, rounded up once, and the prices that it was computed with."""

    amount: Microcents
    price_version: str


def _now() -> datetime:
    return datetime.now(UTC)


class PriceBook:
    """Prices from the price file, else from genai-prices; looked up once per model, tier and day.

    Args:
        overrides: prices by model that come before the published ones.
        unknown: what a model without a price costs.
        clock: the present time, aware; it chooses among prices that change on a date.
    """

    def __init__(
        self,
        *,
        overrides: Mapping[str, ModelPrice] | None = None,
        unknown: UnknownPrice = DENY,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._overrides = dict(overrides or {})
        self._clock = clock
        self._unknown = None if unknown == DENY else Meter(_unknown_price(unknown))
        self._meter = lru_cache(maxsize=4096)(self._find_meter)
        self._tiers = lru_cache(maxsize=1024)(self._find_tiers)

    @classmethod
    def from_settings(cls, settings: Settings) -> PriceBook:
        """Build a book from ``NOVA_PRICES_FILE`` and ``NOVA_UNKNOWN_PRICE``.

        Raises:
            ConfigurationError: which variable, or which model and field of the price file, and what to write instead.
        """
        return _build(settings.nova_prices_file, settings.nova_unknown_price)

    def cost(self, usage: LLMUsage, *, provider: str, model: str, at: datetime | None = None) -> Cost | None:
        """Return what a usage cost, or None: the price is unknown, or the usage is not the provider's final figure.

        Args:
            usage: what the provider reported.
            provider: the adapter's id.
            model: the model that was asked for.
            at: when the call was made, aware; None is now.
        """
        meter = self._meter(provider, model, usage.service_tier, self._day(at)) or self._unknown_meter(
            provider, model, at
        )
        amount = None if meter is None else meter.charge(usage)
        return None if meter is None or amount is None else Cost(amount=amount, price_version=meter.version)

    def is_priced(self, *, provider: str, model: str) -> bool:
        """Whether the model has a price of its own; what unknown models are taken to cost does not count."""
        return self._meter(provider, model, None, self._day(None)) is not None

    def is_loaded(self, *, provider: str) -> bool:
        """Whether the prices of a provider are in memory; the first look-up reads them from the disk (a third of a
        second), which an event loop leaves to a thread.
        """
        return is_loaded(provider)

    def price(self, *, provider: str, model: str, at: datetime | None = None) -> ModelPrice | None:
        """Return the standard price of a model at a time (None: now), or None where it has none."""
        return self._find_price(provider, model, None, self._day(at))

    def upper_bound(
        self, prompt: Prompt, config: LLMConfig, *, provider: str, model: str, at: datetime | None = None
    ) -> Microcents:
        """Return an amount that the bill of a call cannot exceed.

        Bytes of the prompt as tokens by the model's factor, plus framing, at the dearest input rate that could apply
        (cache writes, service tier, the price tier of that size), plus ``max_tokens`` at the dearest output rate; times
        ``n``. Sound as long as the provider bills no more tokens than the model table says it can.

        Raises:
            UnboundedCallError: the model has no price, or the call has no bound; the text says which and what to do.
            InvalidInputError: the prompt is empty.
        """
        from app.skills.models import facts

        day = self._day(at)
        meters = [
            meter
            for tier in (None, *self._tiers_that_may_apply(provider, model, config, day))
            if (meter := self._meter(provider, model, tier, day)) is not None
        ]
        if not meters and self._unknown is not None:
            meters = [self._unknown]
        if not meters:
            raise UnboundedCallError(
                f"the price of model {model!r} of {provider!r} is unknown, so a budget limit cannot be kept; name "
                f"it in the file of NOVA_PRICES_FILE, or set {_UNKNOWN_VARIABLE}=free or to dollars per million tokens"
            )
        model_facts = facts(provider, model)
        check_parameters(config.extra, model_facts)
        input_tokens = input_tokens_at_most(prompt, config, model_facts)
        bound = answers(config.extra) * max(
            meter.ceiling(input_tokens=input_tokens, output_tokens=config.max_tokens) for meter in meters
        )
        if bound > MAX_MICROCENTS:
            raise UnboundedCallError(
                f"the call could cost more than {format_usd(MAX_MICROCENTS)}, which no budget can hold; "
                "shorten the prompt or lower max_tokens"
            )
        return bound

    def estimate(
        self,
        prompt: Prompt,
        config: LLMConfig,
        *,
        provider: str,
        model: str,
        partial_text: str,
        input_tokens: int | None,
        output_tokens: int | None,
        at: datetime | None = None,
    ) -> Cost | None:
        """Return what a stream that was cut probably cost, or None where not even that can be told.

        The figures that were reported, where they were; else the bounds of the prompt and of the text that arrived. It
        may be below the bill (reasoning that was never shown) or above it: it is for users who prefer it to the hold.
        Of several answers (``n``) a stream hands on the first, so what the others cost cannot be told.
        """
        from app.skills.llm_invoke_v2 import LLMUsage
        from app.skills.models import facts

        model_facts = facts(provider, model)
        try:
            if answers(config.extra) > 1:
                return None
            read = input_tokens_at_most(prompt, config, model_facts) if input_tokens is None else input_tokens
        except UnboundedCallError:
            return None
        arrived = text_tokens_at_most(partial_text, model_facts)
        usage = LLMUsage(input_tokens=read, output_tokens=max(arrived, output_tokens or 0))
        return self.cost(usage, provider=provider, model=model, at=at)

    def _day(self, at: datetime | None) -> date:
        return (self._clock() if at is None else at).astimezone(UTC).date()

    def _unknown_meter(self, provider: str, model: str, at: datetime | None) -> Meter | None:
        """Return the meter of unpriced models, unless the model has a price and only its tier is unknown."""
        if self._unknown is None or self._meter(provider, model, None, self._day(at)) is not None:
            return None
        return self._unknown

    def _tiers_that_may_apply(self, provider: str, model: str, config: LLMConfig, day: date) -> tuple[str, ...]:
        """Return the tiers beside the standard one in which the provider might serve the call.

        OpenAI takes an unset tier from the project's settings, so only a tier that is asked for by name rules out the
        others; Anthropic's fast mode must be asked for.

        Raises:
            UnboundedCallError: a tier is asked for whose price is unknown.
        """
        from app.skills.models import facts

        tiers = self._tiers(provider, model, day)
        parameter, unset = ("speed", "standard") if provider == "claude" else ("service_tier", "auto")
        asked = config.extra.get(parameter, unset)
        if config.service_tier in facts(provider, model).tiers and (
            provider != "claude" or config.service_tier == "fast"
        ):
            asked = config.service_tier  # else the adapter does not send it
        if asked in ("default", "standard"):
            return ()
        if asked != "auto" and asked not in tiers:
            raise UnboundedCallError(
                f"the price of model {model!r} of {provider!r} with {parameter}={asked!r} is unknown, so a budget "
                f"limit cannot be kept; leave {parameter} away"
            )
        return ("flex",) if asked == "flex" else tiers

    def _find_tiers(self, provider: str, model: str, day: date) -> tuple[str, ...]:
        return () if self._own_price(provider, model) else published_tiers(provider=provider, model=model, day=day)

    def _find_meter(self, provider: str, model: str, tier: str | None, day: date) -> Meter | None:
        price = self._find_price(provider, model, tier, day)
        return None if price is None else Meter(price)

    def _find_price(self, provider: str, model: str, tier: str | None, day: date) -> ModelPrice | None:
        own = self._own_price(provider, model)
        if own is not None:
            return own if tier in STANDARD_TIERS else None
        return published_price(provider=provider, model=model, tier=tier, day=day)

    def _own_price(self, provider: str, model: str) -> ModelPrice | None:
        override = self._overrides.get(model)
        if override is not None and override.provider in {None, provider}:
            return replace(override, provider=provider)
        return _BUILT_IN.get((provider, model))


def get_price_book(settings: Settings | None = None) -> PriceBook:
    """Return the book of the settings; the same price file and unknown price give the same object.

    Args:
        settings: None reads the environment now.

    Raises:
        ConfigurationError: as for :meth:`PriceBook.from_settings`.
    """
    if settings is None:
        from app.settings import load_settings

        settings = load_settings()
    return _shared(settings.nova_prices_file, settings.nova_unknown_price)


@lru_cache(maxsize=16)
def _shared(path: Path | None, unknown: str) -> PriceBook:
    return _build(path, unknown)


def _build(path: Path | None, unknown: str) -> PriceBook:
    return PriceBook(overrides={} if path is None else read_price_file(path), unknown=_parse_unknown(unknown))


def _parse_unknown(text: str) -> UnknownPrice:
    word = text.strip().lower()
    if word == DENY:
        return DENY
    if word == FREE:
        return FREE
    try:
        price = Decimal(word.removeprefix("$"))
        Rates(input_usd_per_million=price, output_usd_per_million=price)
    except (InvalidOperation, InvalidInputError):
        raise ConfigurationError(
            f"{_UNKNOWN_VARIABLE} must be deny, free, or dollars per million tokens such as 15 ({text!r} given)",
            variable=_UNKNOWN_VARIABLE,
        ) from None
    return price


def _unknown_price(unknown: UnknownPrice) -> ModelPrice:
    price = Decimal(0) if unknown == FREE else Decimal(unknown)
    return ModelPrice(
        provider=None,
        model="*",
        rates=Rates(input_usd_per_million=price, output_usd_per_million=price),
        source=_UNKNOWN_VARIABLE,
        version=f"{_UNKNOWN_VARIABLE}={unknown}",
    )
