"""How a secret stands, for people: never its value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

__all__ = ["Origin", "Standing"]

Origin = Literal["argument", "environment", "file", "vault"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a secret comes from and how fresh it is.

    Attributes:
        variable: its name, in capitals.
        origin: which of the places it was taken from.
        place: the file, or the path in Vault; None for an argument and the environment.
        version: what the place calls it: the version in Vault, the time at which a file was written; None elsewhere.
        stale_since: since when its place could not be read; None while it can.
        problem: why not.
    """

    variable: str
    origin: Origin
    place: str | None = None
    version: str | None = None
    stale_since: datetime | None = None
    problem: str | None = None
