"""What a model costs: prices as they are published, and the integer arithmetic that turns tokens into a charge.

Prices are US dollars per million tokens. A tier is a cliff: where the input is above its start, *all* tokens of the
call, output included, are charged at the tier's rates.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from app.errors import InvalidInputError
from app.money import MAX_MICROCENTS, Microcents

if TYPE_CHECKING:
    from app.skills.llm_invoke_v2 import LLMUsage

__all__ = ["MAX_USD_PER_MILLION", "Meter", "ModelPrice", "PriceTier", "Rates"]

MAX_USD_PER_MILLION: Final = Decimal(1_000_000)
"""A dollar per token. A larger price is a slip of the pen, such as a price per token in a field per million."""

_DECIMALS: Final = 12
_UNITS_PER_USD_PER_MILLION: Final = 100 * 10**_DECIMALS
"""One dollar per million tokens is 100 microcents per token; 12 decimals more keep every published price an integer."""
_UNITS_PER_MICROCENT: Final = 10**_DECIMALS


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Dollars per million tokens. None: the provider has no such price, and the tokens cost what they cost without it.

    Attributes:
        input_usd_per_million: input that is neither read from nor written to a cache.
        output_usd_per_million: output, reasoning included.
        cache_read_usd_per_million: None is the price of input.
        cache_write_usd_per_million: for the provider's ordinary (5 minutes) lifetime; None is the price of input.
        cache_write_1h_usd_per_million: None is ``cache_write_usd_per_million``.
    """

    input_usd_per_million: Decimal
    output_usd_per_million: Decimal
    cache_read_usd_per_million: Decimal | None = None
    cache_write_usd_per_million: Decimal | None = None
    cache_write_1h_usd_per_million: Decimal | None = None

    def __post_init__(self) -> None:
        """Refuse what is not a price.

        Raises:
            InvalidInputError: which field, its value, and what it may be.
        """
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not _is_price(value):
                raise InvalidInputError(
                    f"{name} must be from 0 to {MAX_USD_PER_MILLION:,} dollars, exact to {_DECIMALS + 2} decimals "
                    f"({value} given)"
                )

    def in_units(self) -> tuple[int, int, int, int, int]:
        """Return input, output, cache read, cache write and 1 h cache write in the integer units of a meter."""
        plain = _units(self.input_usd_per_million)
        read, write, write_1h = (
            None if price is None else _units(price)
            for price in (
                self.cache_read_usd_per_million,
                self.cache_write_usd_per_million,
                self.cache_write_1h_usd_per_million,
            )
        )
        write = plain if write is None else write
        return (
            plain,
            _units(self.output_usd_per_million),
            plain if read is None else read,
            write,
            write if write_1h is None else write_1h,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTier:
    """The rates of a call whose input has more than ``above_input_tokens`` tokens."""

    above_input_tokens: int
    rates: Rates


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPrice:
    """The price of one model on one day.

    Attributes:
        provider: the adapter's id; None in a price file that names none: whichever adapter calls the model.
        model: the name it was looked up by.
        rates: the rates below the first tier.
        tiers: sorted by where they begin.
        source: ``genai-prices``, ``file``, ``built in`` or ``NOVA_UNKNOWN_PRICE``.
        version: what is written on each cost, such as ``genai-prices 0.2.3`` or ``file:prices.yaml@1f2e3d4c``.
    """

    provider: str | None
    model: str
    rates: Rates
    tiers: tuple[PriceTier, ...] = ()
    source: str
    version: str

    @property
    def input_usd_per_million(self) -> Decimal:
        """Dollars per million tokens of input."""
        return self.rates.input_usd_per_million

    @property
    def output_usd_per_million(self) -> Decimal:
        """Dollars per million tokens of output."""
        return self.rates.output_usd_per_million

    @property
    def cache_read_usd_per_million(self) -> Decimal | None:
        """Dollars per million tokens read from a cache; None where the provider has no such price."""
        return self.rates.cache_read_usd_per_million

    @property
    def cache_write_usd_per_million(self) -> Decimal | None:
        """Dollars per million tokens written to a cache; None where the provider has no such price."""
        return self.rates.cache_write_usd_per_million

    @property
    def cache_write_1h_usd_per_million(self) -> Decimal | None:
        """Dollars per million tokens written to a cache for an hour; None where the provider has no such price."""
        return self.rates.cache_write_1h_usd_per_million


class Meter:
    """A price made ready for use: integers only, so that a charge is exact and takes about a microsecond."""

    __slots__ = ("_base", "_tiers", "version")

    def __init__(self, price: ModelPrice) -> None:
        self.version = price.version
        self._base = price.rates.in_units()
        self._tiers = tuple(
            (tier.above_input_tokens, tier.rates.in_units())
            for tier in sorted(price.tiers, key=lambda tier: -tier.above_input_tokens)
        )

    def charge(self, usage: LLMUsage) -> Microcents | None:
        """Return what a usage costs, rounded up once; None where it is not the provider's full and final figure.

        Parts that contradict their total (more cached tokens than input, more reasoning than output, a negative
        number) are not a bill either. A part that the provider does not report is counted as ordinary input.
        """
        total, output = usage.input_tokens, usage.output_tokens
        if total is None or output is None or not usage.complete:
            return None
        read = usage.cache_read_tokens or 0
        write = usage.cache_write_5m_tokens or 0
        write_1h = usage.cache_write_1h_tokens or 0
        plain = total - read - write - write_1h
        reasoning = usage.reasoning_tokens or 0
        if min(plain, output, read, write, write_1h, reasoning) < 0 or reasoning > output:
            return None
        rates = self._base
        for start, tier in self._tiers:
            if total > start:
                rates = tier
                break
        amount = _rounded_up(
            plain * rates[0] + output * rates[1] + read * rates[2] + write * rates[3] + write_1h * rates[4]
        )
        return amount if amount <= MAX_MICROCENTS else None

    def ceiling(self, *, input_tokens: int, output_tokens: int) -> int:
        """Return a cost that no usage within these numbers of tokens can exceed, whatever was cached; rounded up.

        It takes the dearest rate of every tier that such an input can reach, and may be above ``MAX_MICROCENTS``.
        """
        reachable = [self._base, *(rates for start, rates in self._tiers if input_tokens > start)]
        dearest_input = max(max(rates[0], rates[2], rates[3], rates[4]) for rates in reachable)
        dearest_output = max(rates[1] for rates in reachable)
        return _rounded_up(input_tokens * dearest_input + output_tokens * dearest_output)


def _is_price(value: Decimal) -> bool:
    if not value.is_finite() or not 0 <= value <= MAX_USD_PER_MILLION:
        return False
    exponent = value.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -(_DECIMALS + 2)


def _units(price: Decimal) -> int:
    return int(price * _UNITS_PER_USD_PER_MILLION)


def _rounded_up(units: int) -> int:
    return -(-units // _UNITS_PER_MICROCENT)
