"""What users type: inputs, durations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import typer

from app.errors import InvalidInputError
from app.stores.names import check_name

__all__ = ["parse_duration", "parse_inputs", "parse_new_run_id"]

_UNITS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION: Final = re.compile(r"^(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?$")


def parse_duration(text: str, *, option: str) -> timedelta:
    """Read a duration: ``90``, ``90s``, ``10m``, ``1h30m``, ``2d``.

    Raises:
        typer.BadParameter: it is none, or it is zero.
    """
    match = _DURATION.match(text.strip().lower())
    parts = match.groups() if match else ()
    seconds = sum(float(part) * unit for part, unit in zip(parts, _UNITS.values(), strict=False) if part)
    if not 0 < seconds <= 365 * 86_400:
        raise typer.BadParameter(f"{text!r} is not a duration: write it like 90s, 10m or 1h30m", param_hint=option)
    return timedelta(seconds=seconds)


def parse_inputs(pairs: Sequence[str]) -> dict[str, str]:
    """Read ``name=value`` pairs; a value may hold ``=``.

    Raises:
        typer.BadParameter: one is not such a pair, or a name comes twice.
    """
    inputs: dict[str, str] = {}
    for pair in pairs:
        name, found, value = pair.partition("=")
        if not found or not name.strip():
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="--input")
        if name in inputs:
            raise typer.BadParameter(f"the input {name!r} is given twice", param_hint="--input")
        inputs[name] = value
    return inputs


def parse_new_run_id(text: str) -> str:
    """Read the id of a run that is about to be; it will be an argument of other commands.

    Raises:
        InvalidInputError: it cannot be part of a key, or it would be read as an option.
    """
    if text.startswith("-"):
        raise InvalidInputError(f"the run id {text!r} begins with -, so commands would read it as an option")
    return check_name(text, what="the run id")
