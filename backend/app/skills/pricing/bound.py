"""How large a call can become: numbers of tokens that its usage cannot exceed.

A token covers at least one byte of UTF-8 in the model families whose tokenizer works on bytes; for others the model
table states a factor. Whatever is not text, and every parameter that the model table does not know to be harmless, has
no bound.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from app.errors import UnboundedCallError
from app.skills.llm_invoke_v2 import LLMConfig, Prompt, TextBlock, as_messages

if TYPE_CHECKING:
    from app.skills.models import ModelFacts

__all__ = ["TIER_PARAMETERS", "answers", "check_parameters", "input_tokens_at_most", "text_tokens_at_most"]

TIER_PARAMETERS: Final = frozenset({"service_tier", "speed"})
"""Parameters that choose a price instead of a quantity; the price book bounds them by the dearest they can choose."""

_ANSWERS: Final = "n"
MAX_ANSWERS: Final = 128


def input_tokens_at_most(prompt: Prompt, config: LLMConfig, facts: ModelFacts) -> int:
    """Return a number of input tokens that the prompt cannot exceed, system text and framing included.

    Raises:
        UnboundedCallError: a message holds something else than text.
        InvalidInputError: the prompt is empty.
    """
    messages = as_messages(prompt)
    parts = 0
    size_bytes = 0
    for message in messages:
        for block in message.blocks:
            if not isinstance(block, TextBlock):
                raise UnboundedCallError(
                    f"a {type(block).__name__} in the prompt has no known upper bound in tokens; only text can be sent "
                    "where a budget limit applies"
                )
            size_bytes += _utf8_bytes(block.text)
            parts += 1
    if config.system is not None:
        size_bytes += _utf8_bytes(config.system)
        parts += 1
    overhead = facts.request_overhead_tokens + facts.message_overhead_tokens * parts
    return _tokens(size_bytes, facts) + overhead


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


def _tokens(size_bytes: int, facts: ModelFacts) -> int:
    return math.ceil(size_bytes * facts.tokens_per_byte_bound)


def _utf8_bytes(text: str) -> int:
    """Return the bytes that a tokenizer may see: some normalise first, which makes 33 bytes of the 3 of U+FDFA."""
    if text.isascii():
        return len(text)
    # A lone surrogate cannot be sent as UTF-8; whatever takes its place on the wire has at most its three bytes.
    return max(len(form.encode("utf-8", "surrogatepass")) for form in (text, unicodedata.normalize("NFKC", text)))
