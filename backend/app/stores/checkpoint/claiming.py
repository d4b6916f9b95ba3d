"""Claiming any run: candidates in order, each claimed as a single one is, until one is granted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from app.errors import RunBusyError, RunFinishedError, RunNotFoundError
from app.stores.checkpoint.arguments import Position
from app.stores.checkpoint.contract import Claim

__all__ = ["CANDIDATES", "FIRST", "first_granted"]

CANDIDATES: Final = 50
"""How many runs are looked at between two readings of the list: more than are claimed by others meanwhile."""

FIRST: Final = Position(updated_ms=0, run_no=-1)
"""Before every run."""


async def first_granted(candidates: Iterable[str], claim: Callable[[str], Awaitable[Claim]]) -> Claim | None:
    """Return the first claim that is granted.

    A run that somebody claimed, ended or deleted since it was listed, or that became a dead letter, is passed over.
    """
    for run_id in candidates:
        try:
            return await claim(run_id)
        except (RunBusyError, RunFinishedError, RunNotFoundError):
            continue
    return None
