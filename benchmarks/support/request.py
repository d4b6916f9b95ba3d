"""The request that every participant sends. The standard library only."""

from __future__ import annotations

from typing import Final

__all__ = ["MAX_TOKENS", "MODEL", "PROMPT", "TIMEOUT_S"]

MODEL: Final = "gpt-4o-mini"
MAX_TOKENS: Final = 100
TIMEOUT_S: Final = 60.0
PROMPT: Final = " ".join(["Read the report below and name the three causes that it gives for the outage."] * 5)
