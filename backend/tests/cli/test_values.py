"""What users type is read exactly or refused."""

from __future__ import annotations

from datetime import timedelta

import pytest
import typer

from app.cli.values import parse_duration, parse_inputs


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5s", 1.5), ("10m", 600), ("1h30m", 5400), ("2d", 172_800)]
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    """A bare number is seconds; units add up."""
    length = parse_duration(text, option="--deadline")

    assert length == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "0", "0s", "-1m", "ten minutes", "1e3", "400d", "m"])
def test_what_is_not_a_duration_is_a_usage_error(text: str) -> None:
    """Nothing is guessed: a zero, a negative or an unknown form is refused."""
    with pytest.raises(typer.BadParameter, match="duration"):
        parse_duration(text, option="--deadline")


def test_an_input_may_hold_equals_signs_and_nothing() -> None:
    """Only the first sign divides; an empty value is a value."""
    inputs = parse_inputs(["query=a=b", "empty="])

    assert inputs == {"query": "a=b", "empty": ""}


@pytest.mark.parametrize("pairs", [["documents"], ["=x"], [" =x"], ["a=1", "a=2"]])
def test_inputs_without_a_name_or_given_twice_are_usage_errors(pairs: list[str]) -> None:
    """A pair needs a name, and a name comes once."""
    with pytest.raises(typer.BadParameter):
        parse_inputs(pairs)
