"""What each model family accepts, how large a call to it can become, and when it ends: data.

Where nothing else is said, limits and accepted parameters are from the providers' API references and the docstrings of
their SDKs (openai 3.54, anthropic 2.12), and context sizes from genai-prices 0.2.3, all read in November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, Literal

__all__ = ["DEFAULT_MODELS", "ModelFacts", "Sampling", "end_of_life_warning", "facts"]

DEFAULT_MODELS: Final = {"claude": "claude-sonnet-5-5", "openai": "gpt-4o-mini", "stub": "stub-1"}
"""The model of a call that names none, by adapter. Sonnet 5.5 is the newest that the SDK lists and that has a price."""

Sampling = Literal["always", "unless_reasoning", "reasoning_off", "never"]
"""When a model takes ``temperature`` and ``top_p``: always; unless reasoning was asked for; only where reasoning, which
is on by default, was turned off (``reasoning_effort="none"``); or never."""


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
        context_tokens: how much the model reads and writes at most, None where that is not known.
        max_output_tokens: how much it writes at most, None where that is not known.
        tokens_per_byte_bound: tokens per byte of UTF-8 that a text cannot exceed.
        message_overhead_tokens: what each message, and each block of one, adds at most.
        request_overhead_tokens: what a request adds at most.
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
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    tokens_per_byte_bound: Decimal
    message_overhead_tokens: int
    request_overhead_tokens: int
    end_of_life: date | None = None
    bounded_extra: frozenset[str]

    def accepts_sampling(self, extra: Mapping[str, Any]) -> bool:
        """Whether the model takes ``temperature`` and ``top_p`` in a call with these extra parameters."""
        effort = extra.get("reasoning_effort")
        if self.sampling == "unless_reasoning":
            return effort in {None, "none"}
        if self.sampling == "reasoning_off":
            return effort == "none"
        return self.sampling == "always"


_SHARED_EXTRA: Final = frozenset({"metadata", "reasoning_effort", "user"})

_OPENAI: Final = ModelFacts(
    family="openai",
    max_tokens_param="max_completion_tokens",
    sampling="never",
    sampling_headers={},
    accepts_stop=False,
    max_stop=4,
    accepts_seed=True,
    # tiktoken's encodings are byte-level: a token is at least one byte. Framing is 3 tokens per message and 3 per
    # request by OpenAI's cookbook ("How to count tokens"); the rest is margin.
    tokens_per_byte_bound=Decimal(1),
    message_overhead_tokens=8,
    request_overhead_tokens=32,
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

_CHAT: Final = replace(_OPENAI, sampling="always", accepts_stop=True)

_COMPATIBLE: Final = replace(
    _CHAT,
    family="openai-compatible",
    # Every server of this API knows max_tokens; some ignore the newer name, and would then write without a limit.
    max_tokens_param="max_tokens",
    max_stop=None,
    # Tokenizers of open models are byte-level, or fall back to bytes. Chat templates may add a system text of their
    # own; the longest that is known (Mistral Small) has about 500 tokens.
    message_overhead_tokens=16,
    request_overhead_tokens=1024,
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
    # The tokenizer is not published. The only one that Anthropic ever published (for Claude 2) is byte-level, so at
    # most 1 token per byte, after NFKC normalisation, which lengthens rare compatibility characters. 2 is that with a
    # margin; ordinary text has a token per 3 to 4 bytes.
    tokens_per_byte_bound=Decimal(2),
    message_overhead_tokens=16,
    request_overhead_tokens=64,
    bounded_extra=_SHARED_EXTRA | {"cache_control", "thinking", "top_k"},
    context_tokens=1_000_000,
)
"""The current default of Anthropic: no sampling parameters since Opus 4.7."""

_CLAUDE_SAMPLING: Final = replace(
    _CLAUDE,
    sampling="always",
    # From version 2026-10-21 of the API on, temperature and top_p are rejected for every model.
    sampling_headers={"anthropic-version": "2023-06-01"},
    context_tokens=200_000,
)

_STUB: Final = ModelFacts(
    family="stub",
    max_tokens_param="max_tokens",
    sampling="always",
    sampling_headers={},
    accepts_seed=True,
    tokens_per_byte_bound=Decimal(1),
    message_overhead_tokens=4,
    request_overhead_tokens=0,
    bounded_extra=frozenset({"latency_s", "fault"}),
)


def _chat(family: str, *, context: int, output: int, newer_limit: bool = True) -> ModelFacts:
    return replace(
        _CHAT,
        family=family,
        max_tokens_param="max_completion_tokens" if newer_limit else "max_tokens",
        context_tokens=context,
        max_output_tokens=output,
    )


def _reasoning(family: str, *, context: int, output: int, **changes: Any) -> ModelFacts:
    return replace(_OPENAI, family=family, context_tokens=context, max_output_tokens=output, **changes)


def _claude(family: str, *, output: int, **changes: Any) -> ModelFacts:
    return replace(_CLAUDE_SAMPLING, family=family, max_output_tokens=output, **changes)


_FAMILIES: Final[dict[str, tuple[tuple[str, ModelFacts], ...]]] = {
    "openai": (
        (r"gpt-oss", _COMPATIBLE),
        (r"gpt-3\.5-turbo", _chat("gpt-3.5-turbo", context=16_385, output=4_096, newer_limit=False)),
        (r"gpt-4-32k", _chat("gpt-4-32k", context=32_768, output=32_768, newer_limit=False)),
        (r"gpt-4(-0314|-0613)?$", _chat("gpt-4", context=8_192, output=8_192, newer_limit=False)),
        (r"gpt-4-", _chat("gpt-4-turbo", context=128_000, output=4_096, newer_limit=False)),
        (r"gpt-4o-2024-05-13", _chat("gpt-4o-2024-05-13", context=128_000, output=4_096)),
        (r"(chat)?gpt-4o", _chat("gpt-4o", context=128_000, output=16_384)),
        (r"gpt-4\.1", _chat("gpt-4.1", context=1_047_576, output=32_768)),
        (r"o1-preview", _reasoning("o1-preview", context=128_000, output=32_768)),
        (r"o1-mini", _reasoning("o1-mini", context=128_000, output=65_536)),
        (r"o1", _reasoning("o1", context=200_000, output=100_000, accepts_stop=True)),
        (r"o[34]", _reasoning("o3", context=200_000, output=100_000)),
        (r"gpt-5-chat", _chat("gpt-5-chat", context=128_000, output=16_384)),
        (r"gpt-5\.\d+-chat", _reasoning("gpt-5-chat", context=128_000, output=16_384)),
        (r"gpt-5(-|$)", _reasoning("gpt-5", context=400_000, output=128_000)),
        (r"gpt-5\.\d+-(pro|codex|cyber)", _reasoning("gpt-5-pro", context=400_000, output=128_000)),
        (
            r"gpt-5\.[1-3](-20|$)",
            _reasoning("gpt-5.1", context=400_000, output=128_000, sampling="unless_reasoning"),
        ),
        (
            r"gpt-5\.4(-20|$)",
            _reasoning("gpt-5.4", context=1_050_000, output=128_000, sampling="unless_reasoning"),
        ),
        (r"gpt-5\.[1-4]", _reasoning("gpt-5-mini", context=400_000, output=128_000, sampling="reasoning_off")),
        (r"gpt-5\.[56]", _reasoning("gpt-5.5", context=1_000_000, output=128_000, sampling="reasoning_off")),
        (r"gpt-6", replace(_OPENAI, family="gpt-6", context_tokens=1_050_000)),
        (r"gpt-\d|o\d|chatgpt-|codex-", _OPENAI),
        (r"", _COMPATIBLE),
    ),
    "claude": (
        (r"claude-(1|2|v1|instant)", _claude("claude-2", output=4_096, context_tokens=100_000)),
        (r"claude-3-5", _claude("claude-3-5", output=8_192)),
        (r"claude-3-7", _claude("claude-3-7", output=64_000)),
        (r"claude-3", _claude("claude-3", output=4_096)),
        (r"claude-opus-4(-0|-20\d{6})?$", _claude("claude-opus-4", output=32_000)),
        (r"claude-sonnet-4(-0|-20\d{6})?$", _claude("claude-sonnet-4", output=64_000)),
        (r"claude-opus-4-1", _claude("claude-opus-4-1", output=32_000, one_of_temperature_and_top_p=True)),
        (r"claude-[a-z]+-4-5", _claude("claude-4-5", output=64_000, one_of_temperature_and_top_p=True)),
        (
            r"claude-opus-4-6",
            _claude("claude-opus-4-6", output=128_000, one_of_temperature_and_top_p=True, context_tokens=1_000_000),
        ),
        (
            r"claude-sonnet-4-6",
            _claude("claude-sonnet-4-6", output=64_000, one_of_temperature_and_top_p=True, context_tokens=1_000_000),
        ),
        (r"", _CLAUDE),
    ),
    "stub": ((r"", _STUB),),
}
"""The first pattern that the beginning of a name matches counts."""


def _ends(day: str, *models: str) -> dict[str, date]:
    return dict.fromkeys(models, date.fromisoformat(day))


# openai 3.54, `ChatModel`; anthropic 2.12, `DEPRECATED_MODELS`.
_END_OF_LIFE: Final[dict[str, dict[str, date]]] = {
    "openai": {
        **_ends("2024-09-13", "gpt-3.5-turbo-16k", "gpt-3.5-turbo-16k-0613", "gpt-3.5-turbo-0301"),
        **_ends("2024-09-13", "gpt-3.5-turbo-0613"),
        **_ends("2024-12-06", "gpt-4-vision-preview"),
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
        **_ends("2024-11-06", "claude-instant-1.1", "claude-instant-1.2"),
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


@lru_cache(maxsize=1024)
def facts(provider: str, model: str) -> ModelFacts:
    """Return what is known of a model; one that is not listed has what is current at its provider.

    Args:
        provider: the adapter's id. One that is not known is taken to speak OpenAI's API.
        model: the name that is sent; ``ft:<model>:…`` has the facts of the model that was tuned.
    """
    name = model.lower()
    base = name.split(":")[1] if name.startswith("ft:") else name
    for pattern, found in _FAMILIES.get(provider, _FAMILIES["openai"]):
        if re.match(pattern, base):
            ends = _END_OF_LIFE.get(provider, {}).get(name)
            return found if ends is None else replace(found, end_of_life=ends)
    raise AssertionError("the last pattern of each provider matches every name")


def end_of_life_warning(provider: str, model: str, *, today: date) -> str | None:
    """Return what a user should know about the end of a model, or None where no end was named."""
    ends = facts(provider, model).end_of_life
    if ends is None:
        return None
    if ends <= today:
        return f"the model {model} ended on {ends}; choose another"
    return f"the model {model} ends on {ends}, in {(ends - today).days} days; choose another before then"
