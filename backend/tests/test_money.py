"""Money: exact integers inside, and whatever becomes a charge is rounded up."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidInputError
from app.money import (
    MAX_MICROCENTS,
    MICROCENTS_PER_CENT,
    MICROCENTS_PER_USD,
    cents_to_microcents,
    check_amount,
    format_usd,
    microcents_to_cents,
    parse_usd,
    usd_to_microcents,
)

amounts = st.integers(0, MAX_MICROCENTS)
dollars = st.decimals(0, Decimal(MAX_MICROCENTS) / MICROCENTS_PER_USD, places=14)
cents = st.decimals(0, Decimal(MAX_MICROCENTS) / MICROCENTS_PER_CENT, places=12)


@given(dollars)
def test_dollars_are_rounded_up_and_by_less_than_one(usd: Decimal) -> None:
    """A conversion never loses a fraction of a microcent, and never adds a whole one."""
    exact = Fraction(usd) * MICROCENTS_PER_USD

    assert 0 <= usd_to_microcents(usd) - exact < 1


@given(cents)
def test_cents_are_rounded_up_and_by_less_than_one(value: Decimal) -> None:
    """The same for cents, from a Decimal and from its text."""
    exact = Fraction(value) * MICROCENTS_PER_CENT

    assert 0 <= cents_to_microcents(value) - exact < 1
    assert cents_to_microcents(str(value)) == cents_to_microcents(value)


@given(st.floats(0, 1_000_000, allow_subnormal=True))
def test_a_float_of_cents_is_its_shortest_decimal(value: float) -> None:
    """0.1 is a tenth of a cent, not a bit more than that."""
    assert cents_to_microcents(value) == cents_to_microcents(Decimal(repr(value)))


@given(amounts)
def test_what_is_shown_reads_back_as_the_same_amount(amount: int) -> None:
    """``format_usd`` loses no digit: ``parse_usd`` of it is the amount."""
    assert parse_usd(format_usd(amount).replace(",", "")) == amount


@given(amounts)
def test_cents_convert_there_and_back(amount: int) -> None:
    """The cents of an amount are exact."""
    assert cents_to_microcents(microcents_to_cents(amount)) == amount


@given(st.lists(dollars, min_size=2, max_size=2))
def test_a_larger_price_is_never_a_smaller_amount(pair: list[Decimal]) -> None:
    """Rounding keeps the order."""
    lower, higher = sorted(pair)

    assert usd_to_microcents(lower) <= usd_to_microcents(higher)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("$0.50", 50_000_000),
        ("0.5", 50_000_000),
        (".5", 50_000_000),
        ("12 USD", 1_200_000_000),
        ("usd 12", 1_200_000_000),
        ("  $ 3 ", 300_000_000),
        ("0", 0),
        ("0.00000001", 1),
        ("0.000000001", 1),
    ],
)
def test_amounts_are_read_as_people_write_them(text: str, amount: int) -> None:
    """Dollar signs, the currency's name and spaces are allowed; the smallest fraction is a microcent."""
    assert parse_usd(text) == amount


@pytest.mark.parametrize("text", ["", "$", "-1", "1e3", "1,000", "0x10", "NaN", "inf", "five", "$1 EUR", "1.", "$1\n2"])
def test_what_is_not_a_dollar_amount_is_refused(text: str) -> None:
    """Nothing is guessed: signs, exponents, separators and words are refused with the text that was given."""
    with pytest.raises(InvalidInputError, match="not a dollar amount"):
        parse_usd(text)


@pytest.mark.parametrize("value", ["-0.01", "NaN", "Infinity", "-Infinity", "1e30", "sNaN", "cents", ""])
def test_cents_that_are_no_amount_are_refused(value: str) -> None:
    """Negative, infinite, not a number, or more than can be kept exactly."""
    with pytest.raises(InvalidInputError):
        cents_to_microcents(value)


def test_the_largest_amount_is_taken_and_the_next_is_not() -> None:
    """The end of the range is exact."""
    largest = Decimal(MAX_MICROCENTS) / MICROCENTS_PER_USD

    assert usd_to_microcents(largest) == MAX_MICROCENTS
    assert check_amount(MAX_MICROCENTS) == MAX_MICROCENTS
    with pytest.raises(InvalidInputError):
        usd_to_microcents(largest + Decimal("0.00000001"))
    with pytest.raises(InvalidInputError):
        check_amount(MAX_MICROCENTS + 1)


@pytest.mark.parametrize("amount", [-1, True, 1.0, "1", None, Decimal(1)])
def test_an_amount_is_an_int_of_at_least_zero(amount: object) -> None:
    """Floats, texts and booleans are no amounts."""
    with pytest.raises(InvalidInputError, match="price"):
        check_amount(amount, what="price")  # type: ignore[arg-type]  # the wrong types are the point


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (None, "?"),
        (0, "$0.00"),
        (1, "$0.00000001"),
        (50_000_000, "$0.50"),
        (123_456_789_00, "$123.456789"),
        (100_000_000_000, "$1,000.00"),
        (-150_000_000, "-$1.50"),
    ],
)
def test_amounts_are_shown_with_every_digit(amount: int | None, shown: str) -> None:
    """At least two decimals, no digit lost, and unknown is never shown as zero."""
    assert format_usd(amount) == shown
