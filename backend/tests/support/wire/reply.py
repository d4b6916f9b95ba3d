"""What the loopback server says: the text, its end, and its usage, before a wire format is put around it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.skills.adapters.stub_json import draw

__all__ = [
    "Refused",
    "Reply",
    "ToolCall",
    "make_reply",
    "structured_text",
    "text_in",
    "tokens",
    "tokens_in",
    "tool_calls",
]


class Refused(Exception):  # noqa: N818  # it is an answer, not a defect
    """A request that the API refuses."""

    def __init__(self, status: int, kind: str, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call of a tool; the arguments are JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer: ``reason`` is ``end``, ``length``, ``stop_sequence``, ``tools`` or ``refusal``; ``usage`` None is left
    out.
    """

    text: str
    reason: str
    usage: dict[str, Any] | None
    model: str
    calls: tuple[ToolCall, ...] = ()
    thought: str = ""

    @property
    def pieces(self) -> list[str]:
        """The text as it is streamed: words."""
        words = self.text.split(" ")
        return [word if not number else f" {word}" for number, word in enumerate(words)] if self.text else []


def tokens(text: str) -> int:
    """Return a number of tokens: one for four bytes."""
    return -(-len(text.encode()) // 4)


def make_reply(text: str, *, model: str, max_tokens: int, stop: Sequence[str]) -> Reply:
    """Return the answer with a text, shortened as its request says; usage and calls are added by the wire format."""
    reason = "end"
    ends = [position for sequence in stop if (position := text.find(sequence)) >= 0]
    if ends:
        text, reason = text[: min(ends)], "stop_sequence"
    if tokens(text) > max_tokens:
        text, reason = text.encode()[: max_tokens * 4].decode("utf-8", "ignore"), "length"
    return Reply(text=text, reason=reason, usage=None, model=model)


def tool_calls(
    tools: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    asked: str,
    used: Collection[str],
    forced: str | None,
    several: bool,
) -> tuple[ToolCall, ...]:
    """Return the calls of an answer: of the tools that the user's last text names and that were not used since.

    Args:
        tools: names, and schemas of their arguments.
        asked: the last text of the user.
        used: the tools that were called since.
        forced: the one that must be called; ``*`` is any, None none.
        several: whether more than one may be called at once.
    """
    named = [(name, schema) for name, schema in tools if name in asked and name not in used]
    if forced is not None:
        named = [tool for tool in tools if tool[0] == forced] or named or list(tools[:1])
    calls = [
        ToolCall(
            id=f"call_{name}_{len(used)}", name=name, arguments=json.dumps(draw(schema, seed=name, words=asked.split()))
        )
        for name, schema in named
    ]
    return tuple(calls if several else calls[:1])


def structured_text(schema: Mapping[str, Any], *, asked: str) -> str:
    """Return JSON that satisfies a schema."""
    return json.dumps(draw(schema, seed="answer", words=asked.split()))


def tokens_in(content: object) -> int:
    """Return the tokens of a message's content: an image costs 85, everything else what its text or JSON has."""
    if isinstance(content, str):
        return tokens(content)
    if not isinstance(content, list):
        return 0
    return sum(
        85 if block.get("type") in {"image", "image_url"} else tokens(text_in([block]) or json.dumps(block))
        for block in content
    )


def text_in(content: object) -> str:
    """Return the text of a message's content: a string, or what its blocks of text and results of tools say."""
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    texts = [
        block.get("text") or (block.get("content") if block.get("type") == "tool_result" else "") for block in blocks
    ]
    return "".join(text for text in texts if isinstance(text, str))
