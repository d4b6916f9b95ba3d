"""What the stub writes: sentences of the prompt, chosen by its seed, and how it counts tokens."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.skills.llm_invoke_v2 import FinishReason, LLMConfig, Message, TextBlock

__all__ = ["BYTES_PER_TOKEN", "MESSAGE_TOKENS", "StubText", "count_input", "count_tokens", "pieces_of", "write"]

BYTES_PER_TOKEN: Final = 4
"""The stub's token is four bytes of UTF-8, the last one of a text possibly shorter."""

MESSAGE_TOKENS: Final = 4
"""What a message costs beside its text, the system prompt too."""

_SENTENCE: Final = re.compile(r"[^.!?\n]+(?:[.!?]+(?=\s|$)|(?=\n)|$)|[^.!?\n]+[.!?]+")
_PIECE: Final = re.compile(r"\s*\S+\s*?")


@dataclass(frozen=True, slots=True)
class StubText:
    """A text, and why it ends."""

    text: str
    finish_reason: FinishReason


def count_tokens(text: str) -> int:
    """Return the number of the stub's tokens in a text."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def count_input(messages: Sequence[Message], system: str | None) -> int:
    """Return the number of tokens that a prompt is billed as."""
    texts = [_text(message) for message in messages] + ([system] if system is not None else [])
    return sum(count_tokens(text) + MESSAGE_TOKENS for text in texts)


def write(messages: Sequence[Message], config: LLMConfig) -> StubText:
    """Return the answer to a prompt: the same for the same prompt, seed, length and stop sequences.

    It consists of sentences of the last message, in their order; which ones is drawn by a hash of seed and prompt, as
    many as fit into ``max_tokens``.
    """
    source = next((text for message in reversed(messages) if (text := _text(message)).strip()), "")
    sentences = [found for match in _SENTENCE.finditer(source) if (found := " ".join(match.group().split()))]
    seed = _hash(str(config.seed or 0), config.system or "", *(f"{m.role}\0{_text(m)}" for m in messages))
    by_lot = sorted(range(len(sentences)), key=lambda index: _hash(seed, str(index)))
    chosen: list[int] = []
    left_bytes = config.max_tokens * BYTES_PER_TOKEN
    for index in by_lot:
        size = len(sentences[index].encode("utf-8", "surrogatepass")) + 1
        if size <= left_bytes:
            chosen.append(index)
            left_bytes -= size
    if chosen:
        return _stopped(" ".join(sentences[index] for index in sorted(chosen)), "stop", config.stop)
    # Not even one sentence fits: the beginning of one, as long as it may be.
    first = sentences[by_lot[0]] if by_lot else source.strip()
    cut = first.encode("utf-8", "surrogatepass")[: config.max_tokens * BYTES_PER_TOKEN].decode("utf-8", "ignore")
    return _stopped(cut, "stop" if cut == first else "length", config.stop)


def pieces_of(text: str) -> list[str]:
    """Return a text in the pieces in which it is streamed: words with the space before them."""
    pieces = _PIECE.findall(text)
    rest = text[sum(len(piece) for piece in pieces) :]
    return [*pieces, rest] if rest else pieces


def _stopped(text: str, reason: FinishReason, stop: Sequence[str]) -> StubText:
    ends = [position for sequence in stop if (position := text.find(sequence)) >= 0]
    return StubText(text[: min(ends)], "stop_sequence") if ends else StubText(text, reason)


def _text(message: Message) -> str:
    return "".join(block.text for block in message.blocks if isinstance(block, TextBlock))


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
