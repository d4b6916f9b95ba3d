"""How large a call can become: numbers of tokens that its usage cannot exceed.

A token covers at least one byte of UTF-8 in the model families whose tokenizer works on bytes; for others the model
table states a factor. For an image it states a number of tokens. Other content is bounded by the model's context where
that is known. A parameter that the model table does not know to be harmless has no bound.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from app.errors import UnboundedCallError
from app.skills.llm_invoke_v2 import (
    ContentBlock,
    ImageBlock,
    LLMConfig,
    Prompt,
    ReasoningBlock,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
    as_messages,
)
from app.skills.structured import json_schema_of

if TYPE_CHECKING:
    from app.skills.model_facts import ModelFacts

__all__ = ["TIER_PARAMETERS", "answers", "check_parameters", "input_tokens_at_most", "text_tokens_at_most"]

TIER_PARAMETERS: Final = frozenset({"service_tier", "speed"})
"""Parameters that choose a price instead of a quantity; the price book bounds them by the dearest they can choose."""

_ANSWERS: Final = "n"
MAX_ANSWERS: Final = 128


def input_tokens_at_most(prompt: Prompt, config: LLMConfig, facts: ModelFacts) -> int:
    """Return a number of input tokens that the prompt cannot exceed: system text, tools, schema and framing included.

    Content whose size does not say its tokens (a PDF, anything behind a url, an image of a model whose images have no
    stated bound) can fill the model's context and no more.

    Raises:
        UnboundedCallError: there is such content, and the model's context is not known.
        InvalidInputError: the prompt is empty.
    """
    count = _Count(facts)
    for message in as_messages(prompt):
        for block in message.blocks:
            count.add(block)
    if config.system is not None:
        count.text(config.system)
    for tool in config.tools:
        count.described(f"{tool.name} {tool.description} {_json(tool.parameters)}")
    if config.schema is not None:
        count.described(_json(json_schema_of(config.schema)))
    if config.tools or config.schema is not None:
        count.tokens += facts.tools_overhead_tokens
    if count.unbounded is None:
        return count.total
    if facts.context_tokens is None:
        raise UnboundedCallError(
            f"{count.unbounded} in the prompt has no known upper bound in tokens for this model, nor is the size of "
            "its context known; only text can be sent to it where a budget limit applies"
        )
    return facts.context_tokens


def text_tokens_at_most(text: str, facts: ModelFacts) -> int:
    """Return a number of tokens that a text cannot exceed."""
    return _tokens(_utf8_bytes(text), facts)


def check_parameters(extra: Mapping[str, Any], facts: ModelFacts) -> None:
    """Refuse a parameter that could raise the price by an amount that nobody can tell.

    Raises:
        UnboundedCallError: which one.
    """
    for name in extra:
        if name != _ANSWERS and name not in TIER_PARAMETERS and name not in facts.bounded_extra:
            raise UnboundedCallError(
                f"the parameter {name!r} has no known bound on the price; it cannot be sent where a budget limit "
                "applies"
            )


def answers(extra: Mapping[str, Any]) -> int:
    """Return how many answers the call asks for.

    Raises:
        UnboundedCallError: ``n`` is not a whole number from 1 to 128.
    """
    n = extra.get(_ANSWERS, 1)
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MAX_ANSWERS:
        raise UnboundedCallError(
            f"n must be a whole number from 1 to {MAX_ANSWERS} ({json.dumps(n, default=repr)} given)"
        )
    return n


@dataclass(slots=True)
class _Count:
    """Bytes, tokens and parts of a prompt; ``unbounded`` is the first content that has no bound of its own."""

    facts: ModelFacts
    size_bytes: int = 0
    tokens: int = 0
    parts: int = 0
    unbounded: str | None = None

    @property
    def total(self) -> int:
        """The tokens of all of it, framing included."""
        overhead = self.facts.request_overhead_tokens + self.facts.message_overhead_tokens * self.parts
        return _tokens(self.size_bytes, self.facts) + self.tokens + overhead

    def text(self, text: str) -> None:
        """Count a text."""
        self.size_bytes += _utf8_bytes(text)
        self.parts += 1

    def described(self, text: str) -> None:
        """Count a description that the provider renders in a form of its own: twice, since that may be longer."""
        self.text(text)
        self.size_bytes += _utf8_bytes(text)

    def add(self, block: ContentBlock) -> None:
        """Count a block."""
        if isinstance(block, TextBlock):
            self.text(block.text)
        elif isinstance(block, ReasoningBlock):
            # The signature may hold the reasoning itself, of which the text is a summary; it is not shorter than that.
            self.text(block.text + (block.signature or ""))
        elif isinstance(block, ToolUseBlock):
            self.text(f"{block.id} {block.name} {_json(block.arguments)} {block.malformed or ''}")
        elif isinstance(block, ToolResultBlock):
            self.text(f"{block.tool_use_id} error: {block.content}")
        elif isinstance(block, ImageBlock):
            self._image(block)
        elif block.media_type == "text/plain" and block.data is not None:
            self.text(f"{block.title or ''} {block.data}")  # base64 is longer than the text that it holds
        else:
            self._without_bound("a document")

    def _image(self, block: ImageBlock) -> None:
        if self.facts.image_tokens_bound is None or block.detail == "original":
            self._without_bound("an image")
        else:
            self.tokens += self.facts.image_tokens_bound
            self.parts += 1

    def _without_bound(self, what: str) -> None:
        self.unbounded = self.unbounded or what


def _json(value: object) -> str:
    """Return JSON that is no shorter than what is sent: every character that is not ASCII is written out."""
    return json.dumps(dict(value) if isinstance(value, Mapping) else value, default=str)


def _tokens(size_bytes: int, facts: ModelFacts) -> int:
    return math.ceil(size_bytes * facts.tokens_per_byte_bound)


def _utf8_bytes(text: str) -> int:
    """Return the bytes that a tokenizer may see: some normalise first, which makes 33 bytes of the 3 of U+FDFA."""
    if text.isascii():
        return len(text)
    # A lone surrogate cannot be sent as UTF-8; whatever takes its place on the wire has at most its three bytes.
    return max(len(form.encode("utf-8", "surrogatepass")) for form in (text, unicodedata.normalize("NFKC", text)))
