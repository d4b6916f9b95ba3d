"""When models end, as their providers have announced it: data.

From ``ChatModel`` of openai 3.54 and ``DEPRECATED_MODELS`` of anthropic 2.12, read in November 2026.
"""

from __future__ import annotations

from datetime import date
from typing import Final

__all__ = ["END_OF_LIFE"]


def _ends(day: str, *models: str) -> dict[str, date]:
    return dict.fromkeys(models, date.fromisoformat(day))


END_OF_LIFE: Final[dict[str, dict[str, date]]] = {
    "openai": {
        **_ends("2024-09-13", "gpt-3.5-turbo-16k", "gpt-3.5-turbo-16k-0613", "gpt-3.5-turbo-0301"),
        **_ends("2024-09-13", "gpt-3.5-turbo-0613", "gpt-3.5-turbo-16k-0613"),
        **_ends("2024-12-06", "gpt-4-vision-preview"),
        **_ends("2025-10-10", "gpt-4o-audio-preview-2024-10-01"),
        **_ends("2026-05-07", "gpt-4o-audio-preview", "gpt-4o-audio-preview-2024-12-17"),
        **_ends("2026-05-07", "gpt-4o-audio-preview-2025-06-03", "gpt-4o-mini-audio-preview"),
        **_ends("2026-05-07", "gpt-4o-mini-audio-preview-2024-12-17"),
        **_ends("2027-01-20", "gpt-audio-mini", "gpt-audio-mini-2025-12-15"),
        **_ends("2025-06-06", "gpt-4-32k", "gpt-4-32k-0314", "gpt-4-32k-0613"),
        **_ends("2025-07-28", "o1-preview", "o1-preview-2024-09-12"),
        **_ends("2025-10-27", "o1-mini", "o1-mini-2024-09-12"),
        **_ends("2026-02-12", "codex-mini-latest"),
        **_ends("2026-02-17", "chatgpt-4o-latest"),
        **_ends("2026-03-26", "gpt-4-0125-preview", "gpt-4-turbo-preview", "gpt-4-0314"),
        **_ends("2026-07-23", "gpt-5.1-codex", "gpt-5.1-chat-latest", "gpt-5-chat-latest"),
        **_ends("2026-07-23", "gpt-4o-search-preview", "gpt-4o-search-preview-2025-03-11"),
        **_ends("2026-07-23", "gpt-4o-mini-search-preview", "gpt-4o-mini-search-preview-2025-03-11"),
        **_ends("2026-08-10", "gpt-5.3-chat-latest", "gpt-5.2-chat-latest"),
        **_ends("2026-09-28", "gpt-3.5-turbo-1106"),
        **_ends("2026-10-23", "gpt-3.5-turbo", "gpt-3.5-turbo-0125", "gpt-4", "gpt-4-0613", "gpt-4-1106-preview"),
        **_ends("2026-10-23", "gpt-4-turbo", "gpt-4-turbo-2024-04-09", "gpt-4o-2024-05-13"),
        **_ends("2026-10-23", "gpt-4.1-nano", "gpt-4.1-nano-2025-04-14", "o1", "o1-2024-12-17"),
        **_ends("2026-10-23", "o3-mini", "o3-mini-2025-01-31", "o4-mini", "o4-mini-2025-04-16"),
        **_ends("2026-12-11", "gpt-5", "gpt-5-mini", "gpt-5-nano", "gpt-5-2025-08-07", "gpt-5-mini-2025-08-07"),
        **_ends("2026-12-11", "gpt-5-nano-2025-08-07", "o3", "o3-2025-04-16"),
        **_ends("2027-01-14", "gpt-4o", "gpt-4o-2024-08-06", "gpt-4o-2024-11-20", "gpt-4o-mini"),
        **_ends("2027-01-14", "gpt-4o-mini-2024-07-18", "gpt-4.1", "gpt-4.1-2025-04-14", "gpt-4.1-mini"),
        **_ends("2027-01-14", "gpt-4.1-mini-2025-04-14"),
        **_ends("2027-04-01", "gpt-5.1", "gpt-5.1-2025-11-13", "gpt-5.4-nano", "gpt-5.4-nano-2026-03-17"),
    },
    "claude": {
        **_ends("2024-11-06", "claude-1.3", "claude-1.3-100k"),
        **_ends("2024-11-06", "claude-instant-1.1", "claude-instant-1.1-100k", "claude-instant-1.2"),
        **_ends("2025-07-21", "claude-2.0", "claude-2.1", "claude-3-sonnet-20240229"),
        **_ends("2026-01-05", "claude-3-opus-20240229"),
        **_ends("2026-02-19", "claude-3-5-haiku-latest", "claude-3-5-haiku-20241022"),
        **_ends("2026-02-19", "claude-3-7-sonnet-latest", "claude-3-7-sonnet-20250219"),
        **_ends("2026-06-15", "claude-opus-4", "claude-opus-4-0", "claude-opus-4-20250514"),
        **_ends("2026-06-15", "claude-sonnet-4", "claude-sonnet-4-0", "claude-sonnet-4-20250514"),
        **_ends("2026-06-30", "claude-mythos-preview"),
        **_ends("2026-11-30", "claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
    },
}
"""By provider and name: the first day without the model."""
