"""What each model family accepts, and how large a call to it can become: data.

Where nothing else is said, limits and accepted parameters are from the providers' API references and the docstrings of
their SDKs (openai 3.54, anthropic 2.12), and context sizes from genai-prices 0.2.3, all read in November 2026.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from app.skills.model_facts import ModelFacts

__all__ = ["FAMILIES"]

_SHARED_EXTRA: Final = frozenset({"metadata", "reasoning_effort", "user"})

_LOW_TO_HIGH: Final = ("low", "medium", "high")
_TO_XHIGH: Final = (*_LOW_TO_HIGH, "xhigh")
_TO_MAX: Final = (*_TO_XHIGH, "max")

_OPENAI: Final = ModelFacts(
    family="openai",
    max_tokens_param="max_completion_tokens",
    sampling="never",
    sampling_headers={},
    accepts_stop=False,
    max_stop=4,
    accepts_seed=True,
    # Chat Completions rejects tools beside reasoning since gpt-5.4, and since 5.5 where no effort is named too ("To use
    # function tools, use /v1/responses or set reasoning_effort to 'none'", for instance BerriAI/litellm#34569).
    tools_without_reasoning=True,
    reasoning="effort",
    efforts=("none", *_TO_MAX),
    thinks_by_default=True,
    cache_breakpoints=True,
    tiers=frozenset({"auto", "default", "flex", "priority", "fast"}),
    # tiktoken's encodings are byte-level: a token is at least one byte. Framing is 3 tokens per message and 3 per
    # request by OpenAI's cookbook ("How to count tokens"); the rest is margin.
    tokens_per_byte_bound=Decimal(1),
    message_overhead_tokens=8,
    request_overhead_tokens=32,
    # A namespace of functions is about 20 tokens around what the tools themselves say; the rest is margin.
    tools_overhead_tokens=256,
    # With detail=high, which is what is sent: at most 2,500 patches of 32 px at 1.2 tokens (gpt-5.4 and later), 8 tiles
    # (gpt-5: 1,190) or 1,536 patches at 2.46 (the nano models: 3,779); OpenAI's vision guide.
    image_tokens_bound=4_096,
    bounded_extra=_SHARED_EXTRA
    | {
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "presence_penalty",
        "prompt_cache_key",
        "safety_identifier",
        "store",
        "top_logprobs",
        "verbosity",
    },
)
"""The current default of OpenAI: a reasoning model. A name below that no pattern matches is taken as one if it begins
like a model of OpenAI."""

_CHAT: Final = _OPENAI.with_changes(
    sampling="always",
    accepts_stop=True,
    tools_without_reasoning=False,
    reasoning="none",
    efforts=(),
    thinks_by_default=False,
    cache_breakpoints=False,
    # 85 tokens and 170 for each of at most 8 tiles: 1,445.
    image_tokens_bound=2_048,
)

_COMPATIBLE: Final = _CHAT.with_changes(
    family="openai-compatible",
    # Every server of this API knows max_tokens; some ignore the newer name, and would then write without a limit.
    max_tokens_param="max_tokens",
    max_stop=None,
    documents=False,
    tiers=frozenset(),
    # Tokenizers of open models are byte-level, or fall back to bytes. Chat templates may add a system text of their
    # own; the longest that is known (Mistral Small) has about 500 tokens.
    message_overhead_tokens=16,
    request_overhead_tokens=1024,
    # The template of a model explains to it how tools are called; the longest known ones have a few hundred tokens.
    tools_overhead_tokens=2_048,
    image_tokens_bound=None,
    bounded_extra=_OPENAI.bounded_extra
    | {"cache_prompt", "grammar", "min_p", "repeat_penalty", "repetition_penalty", "top_k", "typical_p"},
)
"""A model of another server that speaks OpenAI's API."""

_CLAUDE: Final = ModelFacts(
    family="claude",
    max_tokens_param="max_tokens",
    sampling="never",
    max_temperature=1.0,
    sampling_headers={},
    accepts_seed=False,
    reasoning="adaptive",
    efforts=_TO_MAX,
    thinks_by_default=True,
    cache_breakpoints=True,
    tiers=frozenset({"auto", "default", "fast"}),
    # The tokenizer is not published. The only one that Anthropic ever published (for Claude 2) is byte-level, so at
    # most 1 token per byte, after NFKC normalisation, which lengthens rare compatibility characters. 2 is that with a
    # margin; ordinary text has a token per 3 to 4 bytes.
    tokens_per_byte_bound=Decimal(2),
    message_overhead_tokens=16,
    request_overhead_tokens=64,
    # The text that explains tool use to the model has up to 530 tokens in the table of Anthropic's guide to tools.
    tools_overhead_tokens=1_024,
    # Scaled to at most 2,576 px on the long edge since Opus 4.7: about 4,784 tokens by Anthropic's vision guide.
    image_tokens_bound=5_120,
    bounded_extra=_SHARED_EXTRA | {"cache_control", "thinking", "top_k"},
    context_tokens=1_000_000,
    max_output_tokens=128_000,
)
"""The current default of Anthropic: no sampling parameters since Opus 4.7, and thinking that cannot be turned off."""

_CLAUDE_SAMPLING: Final = _CLAUDE.with_changes(
    sampling="always",
    # From version 2026-10-21 of the API on, temperature and top_p are rejected for every model.
    sampling_headers={"anthropic-version": "2023-06-01"},
    structured="words",
    reasoning="budget",
    efforts=("none", *_LOW_TO_HIGH),
    thinks_by_default=False,
    tiers=frozenset({"auto", "default"}),
    context_tokens=200_000,
    # Scaled to at most 1,568 px on the long edge: about 1,600 tokens by Anthropic's vision guide.
    image_tokens_bound=2_048,
)

_STUB: Final = ModelFacts(
    family="stub",
    max_tokens_param="max_tokens",
    sampling="always",
    sampling_headers={},
    accepts_seed=True,
    reasoning="effort",
    efforts=("none", *_LOW_TO_HIGH),
    tokens_per_byte_bound=Decimal(1),
    message_overhead_tokens=4,
    request_overhead_tokens=0,
    tools_overhead_tokens=0,
    image_tokens_bound=64,
    context_tokens=1_000_000,
    bounded_extra=frozenset({"latency_s", "fault"}),
)


def _chat(family: str, *, context: int, output: int, **changes: Any) -> ModelFacts:
    return _CHAT.with_changes(family=family, context_tokens=context, max_output_tokens=output, **changes)


def _early(family: str, *, context: int, output: int, **changes: Any) -> ModelFacts:
    """Return the facts of a model from before structured output, images mostly, and the newer limit."""
    facts: dict[str, Any] = {
        "max_tokens_param": "max_tokens",
        "structured": "json",
        "images": False,
        "documents": False,
    }
    return _chat(family, context=context, output=output, **{**facts, **changes})


def _reasoning(family: str, *, context: int, output: int, **changes: Any) -> ModelFacts:
    return _OPENAI.with_changes(family=family, context_tokens=context, max_output_tokens=output, **changes)


def _o_series(family: str, *, context: int, output: int, **changes: Any) -> ModelFacts:
    facts: dict[str, Any] = {
        "cache_breakpoints": False,
        "efforts": _LOW_TO_HIGH,
        "accepts_parallel": False,
        "tools_without_reasoning": False,
    }
    return _reasoning(family, context=context, output=output, **{**facts, **changes})


def _gpt_5(family: str, *, context: int = 400_000, efforts: tuple[str, ...], **changes: Any) -> ModelFacts:
    facts = {"tools_without_reasoning": False, "cache_breakpoints": False, **changes}
    return _reasoning(family, context=context, output=128_000, efforts=efforts, **facts)


def _claude(family: str, *, output: int, **changes: Any) -> ModelFacts:
    return _CLAUDE_SAMPLING.with_changes(family=family, max_output_tokens=output, **changes)


_BEFORE_IMAGES: Final[dict[str, Any]] = {"images": False, "documents": False, "reasoning": "none", "efforts": ()}
_ONE: Final[dict[str, Any]] = {"one_of_temperature_and_top_p": True}
_LARGE: Final[dict[str, Any]] = {"context_tokens": 1_000_000, "reasoning": "adaptive"}
# Turning thinking off is nothing to be sent where it is off by default.
_OFF_BY_DEFAULT: Final[dict[str, Any]] = {"efforts": ("none", *_TO_MAX), "thinks_by_default": False}

FAMILIES: Final[dict[str, tuple[tuple[str, ModelFacts], ...]]] = {
    "openai": (
        (r"gpt-oss", _COMPATIBLE.with_changes(family="gpt-oss", context_tokens=131_072, images=False)),
        (r"gpt-3\.5", _early("gpt-3.5-turbo", context=16_385, output=4_096)),
        (r"gpt-4-32k", _early("gpt-4-32k", context=32_768, output=32_768, structured="words")),
        (r"gpt-4(-0314|-0613)?$", _early("gpt-4", context=8_192, output=8_192, structured="words")),
        (r"gpt-4-(vision|1106-vision)", _early("gpt-4-vision", context=128_000, output=4_096, images=True)),
        (r"gpt-4-(0125|1106)?-?preview|gpt-4-turbo-preview", _early("gpt-4-preview", context=128_000, output=4_096)),
        (r"gpt-4-", _early("gpt-4-turbo", context=128_000, output=4_096, images=True)),
        (
            r"gpt-4o-2024-05-13|chatgpt-4o",
            _chat("gpt-4o-2024-05-13", context=128_000, output=4_096, structured="json"),
        ),
        # 2,833 tokens and 5,667 for each of at most 8 tiles: 48,169.
        (r"gpt-4o-mini", _chat("gpt-4o-mini", context=128_000, output=16_384, image_tokens_bound=49_152)),
        (r"gpt-4o", _chat("gpt-4o", context=128_000, output=16_384)),
        (r"gpt-4\.5", _chat("gpt-4.5", context=128_000, output=16_384)),
        (r"gpt-4\.1", _chat("gpt-4.1", context=1_047_576, output=32_768, image_tokens_bound=4_096)),
        (
            r"o1-preview",
            _o_series(
                "o1-preview",
                context=128_000,
                output=32_768,
                tools=False,
                efforts=(),
                images=False,
                documents=False,
                structured="words",
                reasoning="none",
            ),
        ),
        (
            r"o1-mini",
            _o_series(
                "o1-mini",
                context=128_000,
                output=65_536,
                tools=False,
                efforts=(),
                images=False,
                documents=False,
                structured="words",
                reasoning="none",
            ),
        ),
        (r"o1", _o_series("o1", context=200_000, output=100_000, accepts_stop=True)),
        (r"o3-mini", _o_series("o3-mini", context=200_000, output=100_000, images=False)),
        (r"o[34]", _o_series("o3", context=200_000, output=100_000)),
        (r"gpt-5-chat", _chat("gpt-5-chat", context=128_000, output=16_384)),
        (
            r"gpt-5\.\d+-chat|gpt-chat",
            _gpt_5("gpt-5.x-chat", context=128_000, efforts=("medium",)).with_changes(max_output_tokens=16_384),
        ),
        (r"gpt-5-pro", _gpt_5("gpt-5-pro", efforts=("high",))),
        (r"gpt-5(-|$)", _gpt_5("gpt-5", efforts=("minimal", *_LOW_TO_HIGH))),
        (r"gpt-5\.[1-3]-pro", _gpt_5("gpt-5.2-pro", efforts=("medium", "high", "xhigh"))),
        (r"gpt-5\.5-pro", _gpt_5("gpt-5.5-pro", context=1_000_000, efforts=("medium", "high", "xhigh"))),
        (r"gpt-5\.\d+-pro", _gpt_5("gpt-5.4-pro", context=1_050_000, efforts=("medium", "high", "xhigh"))),
        (r"gpt-5\.\d+-(codex|cyber)", _gpt_5("gpt-5-codex", efforts=_TO_XHIGH)),
        (
            r"gpt-5\.1(-20|$)",
            _gpt_5("gpt-5.1", efforts=("none", *_LOW_TO_HIGH), sampling="unless_reasoning", thinks_by_default=False),
        ),
        (
            r"gpt-5\.[23](-20|$)",
            _gpt_5("gpt-5.2", efforts=("none", *_TO_XHIGH), sampling="unless_reasoning", thinks_by_default=False),
        ),
        (
            r"gpt-5\.4(-20|$)",
            _gpt_5(
                "gpt-5.4",
                context=1_050_000,
                efforts=("none", *_TO_XHIGH),
                sampling="unless_reasoning",
                thinks_by_default=False,
                tools_without_reasoning=True,
            ),
        ),
        (
            r"gpt-5\.[1-4]",
            _gpt_5(
                "gpt-5.4-mini",
                efforts=("none", *_TO_XHIGH),
                sampling="reasoning_off",
                tools_without_reasoning=True,
            ),
        ),
        (
            r"gpt-5\.5",
            _gpt_5(
                "gpt-5.5",
                context=1_000_000,
                efforts=("none", *_TO_XHIGH),
                sampling="reasoning_off",
                tools_without_reasoning=True,
            ),
        ),
        (
            r"gpt-5\.6",
            _gpt_5(
                "gpt-5.6",
                context=1_050_000,
                efforts=("none", *_TO_MAX),
                sampling="reasoning_off",
                cache_breakpoints=True,
                tools_without_reasoning=True,
            ),
        ),
        (r"gpt-6", _OPENAI.with_changes(family="gpt-6", context_tokens=1_050_000)),
        (r"gpt-rosalind", _OPENAI.with_changes(family="gpt-rosalind")),
        # Their price has more than text in it, so no call to them has a bound; images they read none.
        (r"gpt-audio", _chat("gpt-audio", context=128_000, output=16_384, images=False, documents=False)),
        (r"codex-", _gpt_5("codex", context=200_000, efforts=_LOW_TO_HIGH)),
        (r"gpt-\d|o\d|chatgpt-", _OPENAI),
        (r"", _COMPATIBLE),
    ),
    "claude": (
        (
            r"claude-(1|2|v1|instant)",
            _claude("claude-2", output=4_096, context_tokens=100_000, tools=False, **_BEFORE_IMAGES),
        ),
        (r"claude-3-5-haiku", _claude("claude-3-5-haiku", output=8_192, reasoning="none", efforts=())),
        (r"claude-3-5", _claude("claude-3-5", output=8_192, reasoning="none", efforts=())),
        (r"claude-3-7", _claude("claude-3-7", output=64_000)),
        (r"claude-3", _claude("claude-3", output=4_096, documents=False, reasoning="none", efforts=())),
        (r"claude-opus-4(-0|-20\d{6})?$", _claude("claude-opus-4", output=32_000)),
        (r"claude-sonnet-4(-0|-20\d{6})?$", _claude("claude-sonnet-4", output=64_000)),
        (r"claude-opus-4-1", _claude("claude-opus-4-1", output=32_000, **_ONE)),
        (r"claude-[a-z]+-4-5", _claude("claude-4-5", output=64_000, structured="schema", **_ONE)),
        (
            r"claude-opus-4-6",
            _claude(
                "claude-opus-4-6",
                output=128_000,
                structured="schema",
                efforts=("none", *_LOW_TO_HIGH, "max"),
                tiers=_CLAUDE.tiers,
                **_ONE,
                **_LARGE,
            ),
        ),
        (
            r"claude-sonnet-4-6",
            _claude(
                "claude-sonnet-4-6",
                output=64_000,
                structured="schema",
                efforts=("none", *_LOW_TO_HIGH, "max"),
                **_ONE,
                **_LARGE,
            ),
        ),
        (r"claude-opus-4-[78]", _CLAUDE.with_changes(family="claude-opus-4-7", **_OFF_BY_DEFAULT)),
        # Thinks where nothing is said, and takes thinking=disabled; the later ones do not.
        (r"claude-(opus|sonnet)-5$", _CLAUDE.with_changes(family="claude-5", efforts=("none", *_TO_MAX))),
        (r"claude-(opus|sonnet|haiku)-5-5", _CLAUDE.with_changes(family="claude-5-5")),
        (r"claude-(fable|mythos)", _CLAUDE.with_changes(family="claude-fable")),
        (r"", _CLAUDE),
    ),
    "stub": ((r"", _STUB),),
}
"""The first pattern that the beginning of a name matches counts."""
