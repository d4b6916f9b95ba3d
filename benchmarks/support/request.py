"""The request that every participant sends. The standard library only."""

from __future__ import annotations

from typing import Final

__all__ = ["MAX_TOKENS", "MODEL", "PROMPT", "TIMEOUT_S", "TOOL_CALL", "TOOL_SCHEMA", "TOOL_TEXT", "look_up"]

MODEL: Final = "gpt-4o-mini"
MAX_TOKENS: Final = 100
TIMEOUT_S: Final = 60.0
PROMPT: Final = " ".join(["Read the report below and name the three causes that it gives for the outage."] * 5)

TOOL_TEXT: Final = "Look up a report by its number."
TOOL_SCHEMA: Final = {
    "type": "object",
    "properties": {"number": {"type": "integer"}},
    "required": ["number"],
    "additionalProperties": False,
}
TOOL_CALL: Final = {"name": "look_up", "arguments": '{"number": 7}'}


async def look_up(number: int) -> str:
    """Look up a report by its number."""
    return f"Report {number}: three causes."
