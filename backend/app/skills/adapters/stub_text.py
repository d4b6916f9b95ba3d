"""What the stub writes: sentences of the prompt, JSON by a schema or calls of tools, chosen by its seed; and how it
counts tokens.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.skills.adapters.stub_json import draw
from app.skills.llm_invoke_v2 import (
    ContentBlock,
    DocumentBlock,
    FinishReason,
    ImageBlock,
    LLMConfig,
    Message,
    ReasoningBlock,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from app.skills.structured import json_schema_of

__all__ = [
    "BYTES_PER_TOKEN",
    "IMAGE_TOKENS",
    "MESSAGE_TOKENS",
    "StubText",
    "count_input",
    "count_tokens",
    "pieces_of",
    "write",
]

BYTES_PER_TOKEN: Final = 4
"""The stub's token is four bytes of UTF-8, the last one of a text possibly shorter."""

MESSAGE_TOKENS: Final = 4
"""What a message costs beside its text, the system prompt too."""

IMAGE_TOKENS: Final = 64
"""What an image costs, whatever its size."""

_SENTENCE: Final = re.compile(r"[^.!?\n]+(?:[.!?]+(?=\s|$)|(?=\n)|$)|[^.!?\n]+[.!?]+")
_PIECE: Final = re.compile(r"\s*\S+\s*?")


@dataclass(frozen=True, slots=True)
class StubText:
    """A text, and why it ends."""

    text: str
    finish_reason: FinishReason
    calls: tuple[ToolUseBlock, ...] = ()
    reasoning: str = ""

    @property
    def blocks(self) -> tuple[ContentBlock, ...]:
        """The content as blocks, nothing where it is a text that stands for itself."""
        if not self.calls and not self.reasoning:
            return ()
        reasoning = (
            [ReasoningBlock(text=self.reasoning, signature=_hash(self.reasoning)[:16])] if self.reasoning else []
        )
        return (*reasoning, *([TextBlock(self.text)] if self.text else []), *self.calls)

    @property
    def tokens(self) -> int:
        """What it is billed as."""
        calls = sum(count_tokens(call.name + json.dumps(dict(call.arguments))) for call in self.calls)
        return count_tokens(self.text) + count_tokens(self.reasoning) + calls


def count_tokens(text: str) -> int:
    """Return the number of the stub's tokens in a text."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


def count_input(messages: Sequence[Message], config: LLMConfig) -> int:
    """Return the number of tokens that a prompt is billed as, tools and schema included."""
    total = 0
    for message in messages:
        total += MESSAGE_TOKENS + sum(_tokens_of(block) for block in message.blocks)
    texts = [config.system] if config.system is not None else []
    texts += [tool.name + tool.description + json.dumps(dict(tool.parameters)) for tool in config.tools]
    texts += [json.dumps(json_schema_of(config.schema))] if config.schema is not None else []
    return total + sum(count_tokens(text) + MESSAGE_TOKENS for text in texts)


def write(messages: Sequence[Message], config: LLMConfig) -> StubText:
    """Return the answer to a prompt: the same for the same prompt, seed, length and stop sequences.

    With tools it calls those that the last text of the user names and that have not been called since, all at once or
    one after another; where one must be called and none is named, the first. With a schema it writes JSON that
    satisfies it. Else it consists of sentences of the last message, in their order; which ones is drawn by a hash of
    seed and prompt, as many as fit into ``max_tokens``. With a reasoning effort it shows a thought before.
    """
    source = next((text for message in reversed(messages) if (text := _text(message)).strip()), "")
    seed = _hash(str(config.seed or 0), config.system or "", *(f"{m.role}\0{_text(m)}" for m in messages))
    thought = ""
    if config.reasoning_effort not in {None, "none"}:
        thought = f"Thinking with {config.reasoning_effort} effort."[: config.max_tokens * BYTES_PER_TOKEN // 2]
    if calls := _calls(messages, config, seed):
        asked = StubText("", "tool_use", calls=calls, reasoning=thought)
        return asked if asked.tokens <= config.max_tokens else StubText("", "length", reasoning=thought)
    if config.schema is not None:
        value = draw(json_schema_of(config.schema), seed=seed, words=source.split())
        return _as_long_as_it_may_be(json.dumps(value, ensure_ascii=False), config, thought)
    sentences = [found for match in _SENTENCE.finditer(source) if (found := " ".join(match.group().split()))]
    by_lot = sorted(range(len(sentences)), key=lambda index: _hash(seed, str(index)))
    chosen: list[int] = []
    left_bytes = (config.max_tokens - count_tokens(thought)) * BYTES_PER_TOKEN
    for index in by_lot:
        size = len(sentences[index].encode("utf-8", "surrogatepass")) + 1
        if size <= left_bytes:
            chosen.append(index)
            left_bytes -= size
    if chosen:
        return _stopped(" ".join(sentences[index] for index in sorted(chosen)), "stop", config.stop, thought)
    # Not even one sentence fits: the beginning of one, as long as it may be.
    return _as_long_as_it_may_be(sentences[by_lot[0]] if by_lot else source.strip(), config, thought)


def _calls(messages: Sequence[Message], config: LLMConfig, seed: str) -> tuple[ToolUseBlock, ...]:
    """Return the calls of tools that this turn makes."""
    if not config.tools or config.tool_choice == "none":
        return ()
    asked_at = max((n for n, m in enumerate(messages) if m.role == "user" and _own_text(m)), default=0)
    since = [block for message in messages[asked_at:] for block in message.blocks]
    called = {block.name for block in since if isinstance(block, ToolUseBlock)}
    question = _own_text(messages[asked_at])
    named = [tool for tool in config.tools if tool.name in question and tool.name not in called]
    if config.tool_choice not in {None, "auto"}:
        must = [tool for tool in config.tools if tool.name == config.tool_choice]
        named = must or named or list(config.tools[:1])
    if config.parallel_tool_calls is False:
        named = named[:1]
    return tuple(
        ToolUseBlock(
            id=f"call_{_hash(seed, tool.name)[:12]}",
            name=tool.name,
            arguments=draw(tool.parameters, seed=_hash(seed, tool.name), words=question.split()),
        )
        for tool in named
    )


def _as_long_as_it_may_be(text: str, config: LLMConfig, thought: str) -> StubText:
    left_bytes = (config.max_tokens - count_tokens(thought)) * BYTES_PER_TOKEN
    cut = text.encode("utf-8", "surrogatepass")[:left_bytes].decode("utf-8", "ignore")
    return _stopped(cut, "stop" if cut == text else "length", config.stop, thought)


def pieces_of(text: str) -> list[str]:
    """Return a text in the pieces in which it is streamed: words with the space before them."""
    pieces = _PIECE.findall(text)
    rest = text[sum(len(piece) for piece in pieces) :]
    return [*pieces, rest] if rest else pieces


def _stopped(text: str, reason: FinishReason, stop: Sequence[str], thought: str) -> StubText:
    ends = [position for sequence in stop if (position := text.find(sequence)) >= 0]
    if ends:
        return StubText(text[: min(ends)], "stop_sequence", reasoning=thought)
    return StubText(text, reason, reasoning=thought)


def _text(message: Message) -> str:
    """Return the text of a message, that of its tools' results included."""
    return "".join(
        block.text if isinstance(block, TextBlock) else block.content
        for block in message.blocks
        if isinstance(block, TextBlock | ToolResultBlock)
    )


def _own_text(message: Message) -> str:
    return "".join(block.text for block in message.blocks if isinstance(block, TextBlock))


def _tokens_of(block: ContentBlock) -> int:
    if isinstance(block, ImageBlock):
        return IMAGE_TOKENS
    if isinstance(block, DocumentBlock):
        return count_tokens(block.data or block.url or "")
    if isinstance(block, ToolUseBlock):
        return count_tokens(block.name + json.dumps(dict(block.arguments)) + (block.malformed or ""))
    if isinstance(block, ToolResultBlock):
        return count_tokens(block.content)
    return count_tokens(block.text)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
