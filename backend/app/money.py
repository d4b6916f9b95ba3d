"""Money: integers of microcents inside, cents and dollars at the edges.

One cent is 1,000,000 microcents; one US dollar is 10**8 microcents. Whatever becomes a charge is rounded up, once.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Context, Decimal, InvalidOperation
from typing import Final, TypeAlias

from app.errors import InvalidInputError

__all__ = [
    "MAX_MICROCENTS",
    "MICROCENTS_PER_CENT",
    "MICROCENTS_PER_USD",
    "Microcents",
    "cents_to_microcents",
    "check_amount",
    "format_usd",
    "microcents_to_cents",
    "parse_usd",
    "usd_to_microcents",
]

Microcents: TypeAlias = int
"""An amount of money: 1 microcent = 10**-8 US dollars. Never a float."""

MICROCENTS_PER_CENT: Final = 1_000_000
MICROCENTS_PER_USD: Final = 100_000_000

MAX_MICROCENTS: Final = 2**53 - 1
"""The largest amount and limit, about 90 million dollars: beyond it Redis' Lua would lose digits."""

_UP = Context(prec=60, rounding=ROUND_CEILING)
_USD = re.compile(r"^\s*(?:USD\s*|\$\s*)?(\d+(?:\.\d+)?|\.\d+)\s*(?:USD)?\s*$", re.IGNORECASE)


def check_amount(amount: Microcents, *, what: str = "amount") -> Microcents:
    """Return ``amount`` if it is an int from 0 to :data:`MAX_MICROCENTS`.

    Raises:
        InvalidInputError: it is not an int (a bool is none either), negative, or too large.
    """
    if isinstance(amount, bool) or not isinstance(amount, int):
        raise InvalidInputError(f"{what} must be an int of microcents, not {type(amount).__name__}")
    if not 0 <= amount <= MAX_MICROCENTS:
        raise InvalidInputError(f"{what} must be from 0 to {MAX_MICROCENTS} microcents ({amount} given)")
    return amount


def usd_to_microcents(usd: Decimal) -> Microcents:
    """Convert exact dollars, rounding up to the next microcent."""
    return _scaled_up(usd, MICROCENTS_PER_USD, what="dollars")


def cents_to_microcents(cents: Decimal | float | str) -> Microcents:
    """Convert cents, rounding up; a float is read by its shortest decimal form, so 0.1 is a tenth of a cent.

    Raises:
        InvalidInputError: not a finite number, negative, or above :data:`MAX_MICROCENTS`.
    """
    try:
        value = Decimal(str(cents))
    except InvalidOperation:
        raise InvalidInputError(f"not an amount in cents: {cents!r}") from None
    return _scaled_up(value, MICROCENTS_PER_CENT, what="cents")


def microcents_to_cents(amount: Microcents) -> Decimal:
    """Return the exact number of cents."""
    return Decimal(amount) / MICROCENTS_PER_CENT


def parse_usd(text: str) -> Microcents:
    """Read a dollar amount as people write it: ``$0.50``, ``0.5``, ``12 USD``; rounded up to a microcent.

    Raises:
        InvalidInputError: the text is not such an amount.
    """
    match = _USD.match(text)
    if match is None:
        raise InvalidInputError(f"not a dollar amount: {text!r} (write it like '$0.50')")
    return usd_to_microcents(Decimal(match.group(1)))


def format_usd(amount: Microcents | None) -> str:
    """Show an amount in dollars with at least two decimals and no digit lost; None, unknown, is a question mark."""
    if amount is None:
        return "?"
    sign, whole = ("-", -amount) if amount < 0 else ("", amount)
    dollars, rest = divmod(whole, MICROCENTS_PER_USD)
    decimals = f"{rest:08d}".rstrip("0").ljust(2, "0")
    return f"{sign}${dollars:,}.{decimals}"


def _scaled_up(value: Decimal, factor: int, *, what: str) -> Microcents:
    if not value.is_finite() or value < 0:
        raise InvalidInputError(f"an amount in {what} must be a number of at least 0 ({value} given)")
    if value > Decimal(MAX_MICROCENTS) / factor:
        raise InvalidInputError(f"an amount above {format_usd(MAX_MICROCENTS)} cannot be kept exactly ({value} {what})")
    return check_amount(int(_UP.multiply(value, Decimal(factor)).to_integral_value(rounding=ROUND_CEILING)))
