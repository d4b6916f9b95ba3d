"""What the loopback server says: the text, its end, and its usage, before a wire format is put around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Refused", "Reply", "make_reply", "tokens"]


class Refused(Exception):  # noqa: N818  # it is an answer, not a defect
    """A request that the API refuses."""

    def __init__(self, status: int, kind: str, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer: ``reason`` is ``end``, ``length``, ``stop_sequence`` or ``refusal``; ``usage`` None is left out."""

    text: str
    reason: str
    usage: dict[str, Any] | None
    model: str

    @property
    def pieces(self) -> list[str]:
        """The text as it is streamed: words."""
        words = self.text.split(" ")
        return [word if not number else f" {word}" for number, word in enumerate(words)] if self.text else []


def tokens(text: str) -> int:
    """Return a number of tokens: one for four bytes."""
    return -(-len(text.encode()) // 4)


def make_reply(text: str, *, model: str, max_tokens: int, stop: Sequence[str]) -> Reply:
    """Return the answer with a text, shortened as its request says; the usage is added by the wire format."""
    reason = "end"
    ends = [position for sequence in stop if (position := text.find(sequence)) >= 0]
    if ends:
        text, reason = text[: min(ends)], "stop_sequence"
    if tokens(text) > max_tokens:
        text, reason = text.encode()[: max_tokens * 4].decode("utf-8", "ignore"), "length"
    return Reply(text=text, reason=reason, usage=None, model=model)


def text_in(content: object) -> str:
    """Return the text of a message's content, as a string or as blocks."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(
        isinstance(block, dict) and block.get("type") == "text" and isinstance(block.get("text"), str)
        for block in content
    ):
        raise Refused(400, "invalid_request_error", "messages: content must be a string or blocks of text")
    return "".join(block["text"] for block in content)
