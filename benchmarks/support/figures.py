"""Figures from rounds: a median, and how far the rounds lie apart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Figure", "over", "percentile"]


@dataclass(frozen=True, slots=True)
class Figure:
    """The median of some rounds, and their lowest and highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        """Sum rounds up."""
        return cls(statistics.median(values), min(values), max(values))

    def show(self, digits: int = 2) -> str:
        """Return the median with its spread: ``1.02 (0.97-1.31)``."""
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f}-{self.high:,.{digits}f})"

    def as_json(self, digits: int = 4) -> dict[str, float]:
        """Return the figure for programs."""
        return {name: round(getattr(self, name), digits) for name in ("median", "low", "high")}


def over(values: Sequence[float], base: Sequence[float]) -> Figure:
    """Return the ratio of two sides, taken within each round: what slows a round down slows down both."""
    return Figure.of([value / other for value, other in zip(values, base, strict=True)])


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
