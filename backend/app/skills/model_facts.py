"""What there is to know of a model: how it is asked, what it takes, and how large a call to it can become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Final, Literal

__all__ = ["ORDER_OF_EFFORT", "ModelFacts", "Reasoning", "Sampling", "Structured"]

Sampling = Literal["always", "unless_reasoning", "reasoning_off", "never"]
"""When a model takes ``temperature`` and ``top_p``: always; unless reasoning was asked for; only where reasoning, which
is on by default, was turned off (``reasoning_effort="none"``); or never."""

Structured = Literal["schema", "json", "words"]
"""How a model is held to a schema: by the provider; by the provider to JSON and by words to the schema; by words."""

Reasoning = Literal["none", "effort", "budget", "adaptive"]
"""How a model is told how much to think: it does not think; by ``reasoning_effort``; by a number of tokens; by
Claude's effort, with thinking that adapts itself."""

ORDER_OF_EFFORT: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What is known of a model.

    Attributes:
        family: whose facts these are.
        max_tokens_param: the parameter that limits the output.
        sampling: when ``temperature`` and ``top_p`` are accepted.
        max_temperature: the highest temperature.
        one_of_temperature_and_top_p: both at once are rejected.
        sampling_headers: what must be sent for ``temperature`` and ``top_p`` to be accepted.
        accepts_stop: whether stop sequences can be given.
        max_stop: how many; None is any number.
        accepts_seed: whether a seed can be given.
        tools: whether it calls tools.
        accepts_parallel: whether it can be told to call one tool at a time.
        tools_without_reasoning: with tools it takes no other ``reasoning_effort`` than ``none``, which must be sent.
        structured: how it is held to a schema.
        images: whether it reads images.
        documents: whether it reads PDF files.
        reasoning: how it is told how much to think.
        efforts: the levels that it has, ``none`` among them where thinking can be turned off.
        thinks_by_default: whether it thinks where nothing is said.
        cache_breakpoints: whether marks of the cache are sent; without them it keeps prefixes by itself, or none.
        tiers: the service tiers that can be asked for.
        context_tokens: how much the model reads and writes at most, None where that is not known.
        max_output_tokens: how much it writes at most, None where that is not known.
        tokens_per_byte_bound: tokens per byte of UTF-8 that a text cannot exceed.
        message_overhead_tokens: what each message, and each block of one, adds at most.
        request_overhead_tokens: what a request adds at most.
        tools_overhead_tokens: what a request with tools or a schema adds beside their own text.
        image_tokens_bound: what an image of any size costs at most, None where that is not known.
        end_of_life: the day the provider has named for the end, None where it has named none.
        bounded_extra: parameters that cannot raise the price above what text and ``max_tokens`` allow.
    """

    family: str
    max_tokens_param: Literal["max_tokens", "max_completion_tokens"]
    sampling: Sampling
    max_temperature: float = 2.0
    one_of_temperature_and_top_p: bool = False
    sampling_headers: Mapping[str, str]
    accepts_stop: bool = True
    max_stop: int | None = None
    accepts_seed: bool
    tools: bool = True
    accepts_parallel: bool = True
    tools_without_reasoning: bool = False
    structured: Structured = "schema"
    images: bool = True
    documents: bool = True
    reasoning: Reasoning = "none"
    efforts: tuple[str, ...] = ()
    thinks_by_default: bool = False
    cache_breakpoints: bool = False
    tiers: frozenset[str] = frozenset()
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    tokens_per_byte_bound: Decimal
    message_overhead_tokens: int
    request_overhead_tokens: int
    tools_overhead_tokens: int
    image_tokens_bound: int | None = None
    end_of_life: date | None = None
    bounded_extra: frozenset[str]

    def accepts_sampling(self, effort: object) -> bool:
        """Whether the model takes ``temperature`` and ``top_p`` in a call with this reasoning effort (None: unset)."""
        if self.sampling == "unless_reasoning":
            return effort in {None, "none"}
        if self.sampling == "reasoning_off":
            return effort == "none"
        return self.sampling == "always"

    def nearest_effort(self, asked: str) -> str | None:
        """Return the level that is asked for, or the nearest one that the model has; None where there is none.

        To turn thinking off has no nearest level, and thinking less is nearer than thinking more.
        """
        if asked in self.efforts:
            return asked
        levels = [level for level in ORDER_OF_EFFORT if level in self.efforts and level != "none"]
        if asked == "none" or not levels:
            return None
        wanted = ORDER_OF_EFFORT.index(asked)
        below = [level for level in levels if ORDER_OF_EFFORT.index(level) < wanted]
        return below[-1] if below else levels[0]

    def with_changes(self, **changes: Any) -> ModelFacts:
        """Return the facts of a model that differs in these."""
        from dataclasses import replace

        return replace(self, **changes)
