"""Forty bills: usage objects of the SDKs' own types, and what each costs, worked out by hand.

One dollar per million tokens is 100 microcents per token. The prices are those of genai-prices 0.2.3 on 2026-11-24;
each case has its arithmetic beside it. What is not a whole microcent is rounded up, never to the nearest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from anthropic.types import CacheCreation, MessageDeltaUsage, Usage
from anthropic.types.output_tokens_details import OutputTokensDetails as ClaudeOutputDetails
from openai.types import CompletionUsage
from openai.types.completion_usage import CompletionTokensDetails, PromptTokensDetails
from openai.types.responses import ResponseUsage
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails

__all__ = ["BILLS", "Bill", "Raw"]

Raw = CompletionUsage | ResponseUsage | Usage | MessageDeltaUsage


@dataclass(frozen=True, kw_only=True)
class Bill:
    """A usage as the SDK gives it, and its cost in microcents; None where it is no bill.

    ``tier`` is what OpenAI's response says beside the usage; Anthropic's usage holds it.
    """

    name: str
    provider: str
    model: str
    raw: Raw
    tier: str | None = None
    expected: int | None


def _chat(
    prompt: int,
    completion: int,
    *,
    cached: int | None = None,
    written: int | None = None,
    reasoning: int | None = None,
) -> CompletionUsage:
    return CompletionUsage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=cached, cache_write_tokens=written),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=reasoning),
    )


def _responses(read: int, generated: int, *, cached: int = 0, written: int = 0, reasoning: int = 0) -> ResponseUsage:
    return ResponseUsage(
        input_tokens=read,
        input_tokens_details=InputTokensDetails(cached_tokens=cached, cache_write_tokens=written),
        output_tokens=generated,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=reasoning),
        total_tokens=read + generated,
    )


def _messages(
    plain: int,
    output: int,
    *,
    read: int | None = None,
    write_5m: int | None = None,
    write_1h: int | None = None,
    thinking: int | None = None,
    tier: Literal["standard", "priority", "batch"] = "standard",
    speed: Literal["standard", "fast"] | None = None,
) -> Usage:
    """Build Anthropic's usage, whose ``input_tokens`` leaves out what was read from or written to a cache."""
    wrote = write_5m is not None or write_1h is not None
    creation = CacheCreation(ephemeral_5m_input_tokens=write_5m or 0, ephemeral_1h_input_tokens=write_1h or 0)
    return Usage(
        input_tokens=plain,
        output_tokens=output,
        cache_read_input_tokens=read,
        cache_creation_input_tokens=(write_5m or 0) + (write_1h or 0) if wrote else None,
        cache_creation=creation if wrote else None,
        output_tokens_details=None if thinking is None else ClaudeOutputDetails(thinking_tokens=thinking),
        service_tier=tier,
        speed=speed,
    )


def _openai(name: str, model: str, raw: Raw, expected: int | None, tier: str | None = None) -> Bill:
    return Bill(name=name, provider="openai", model=model, raw=raw, tier=tier, expected=expected)


def _claude(name: str, model: str, raw: Raw, expected: int | None) -> Bill:
    return Bill(name=name, provider="claude", model=model, raw=raw, expected=expected)


BILLS: tuple[Bill, ...] = (
    # --- OpenAI, older families: $ per million in / cached / out
    # gpt-4o 2.50 / 1.25 / 10: 1,000 x 250 + 500 x 1,000 = 250,000 + 500,000
    _openai("gpt-4o", "gpt-4o", _chat(1_000, 500), 750_000),
    # 400 plain x 250 + 600 cached x 125 + 50 x 1,000 = 100,000 + 75,000 + 50,000
    _openai("gpt-4o cached", "gpt-4o", _chat(1_000, 50, cached=600), 225_000),
    # priority 4.25 / 2.125 / 17: 400 x 425 + 600 x 212.5 + 50 x 1,700 = 170,000 + 127,500 + 85,000
    _openai("gpt-4o priority", "gpt-4o", _chat(1_000, 50, cached=600), 382_500, tier="priority"),
    # the answer names the snapshot: 7 x 250 + 3 x 1,000 = 1,750 + 3,000
    _openai("gpt-4o snapshot", "gpt-4o-2024-08-06", _chat(7, 3), 4_750),
    # the first snapshot was dearer, 5 / 15: 7 x 500 + 3 x 1,500 = 3,500 + 4,500
    _openai("gpt-4o first snapshot", "gpt-4o-2024-05-13", _chat(7, 3), 8_000),
    # gpt-4o-mini 0.15 / 0.075 / 0.60: 1 x 15 + 1 x 60
    _openai("gpt-4o-mini smallest", "gpt-4o-mini", _chat(1, 1), 75),
    # 0 plain + 1 cached x 7.5 = 7.5, up to 8
    _openai("gpt-4o-mini half a microcent", "gpt-4o-mini", _chat(1, 0, cached=1), 8),
    # an explicit zero is a fact: 123 x 15 + 0
    _openai("gpt-4o-mini no output", "gpt-4o-mini", _chat(123, 0, cached=0, reasoning=0), 1_845),
    # gpt-4-turbo 10 / 30: 2,000 x 1,000 + 300 x 3,000 = 2,000,000 + 900,000
    _openai("gpt-4-turbo", "gpt-4-turbo", _chat(2_000, 300), 2_900_000),
    # gpt-3.5-turbo 0.50 / 1.50: 4,321 x 50 + 987 x 150 = 216,050 + 148,050
    _openai("gpt-3.5-turbo", "gpt-3.5-turbo", _chat(4_321, 987), 364_100),
    # gpt-4.1 2 / 0.50 / 8: 10,000 plain x 200 + 90,000 cached x 50 + 1,000 x 800 = 2,000,000 + 4,500,000 + 800,000
    _openai("gpt-4.1 cached", "gpt-4.1", _chat(100_000, 1_000, cached=90_000), 7_300_000),
    # batch 1 / 0.50 (not reduced) / 4: 10,000 x 100 + 90,000 x 50 + 1,000 x 400 = 1,000,000 + 4,500,000 + 400,000
    _openai("gpt-4.1 batch", "gpt-4.1", _chat(100_000, 1_000, cached=90_000), 5_900_000, tier="batch"),
    # gpt-4.1-nano 0.10 / 0.025 / 0.40: 3 cached x 2.5 + 0 plain + 1 x 40 = 7.5 + 40 = 47.5, up to 48
    _openai("gpt-4.1-nano rounded up", "gpt-4.1-nano", _chat(3, 1, cached=3), 48),
    # --- OpenAI, reasoning: counted inside the output, charged once
    # o3 2 / 0.50 / 8: 500 x 200 + 3,000 (2,800 of them reasoning) x 800 = 100,000 + 2,400,000
    _openai("o3 reasoning", "o3", _chat(500, 3_000, reasoning=2_800), 2_500_000),
    # flex 1 / 0.25 / 4: 500 x 100 + 3,000 x 400 = 50,000 + 1,200,000
    _openai("o3 flex", "o3", _chat(500, 3_000, reasoning=2_800), 1_250_000, tier="flex"),
    # o4-mini 1.10 / 0.275 / 4.40: 90 plain x 110 + 10 cached x 27.5 + 20 x 440 = 9,900 + 275 + 8,800
    _openai("o4-mini cached", "o4-mini", _chat(100, 20, cached=10, reasoning=20), 18_975),
    # gpt-5 1.25 / 0.125 / 10: 1,001 cached x 12.5 + 0 plain + 1 x 1,000 = 12,512.5 + 1,000 = 13,512.5, up to 13,513
    _openai("gpt-5 all cached", "gpt-5", _chat(1_001, 1, cached=1_001), 13_513),
    # gpt-5 flex 0.625 / 0.0625 / 5: 2,000 x 62.5 + 100 x 500 = 125,000 + 50,000
    _openai("gpt-5 flex", "gpt-5", _chat(2_000, 100), 175_000, tier="flex"),
    # gpt-5-mini 0.25 / 0.025 / 2 by the Responses API: 1,500 x 25 + 800 x 200 = 37,500 + 160,000
    _openai("gpt-5-mini responses", "gpt-5-mini", _responses(1_500, 800, reasoning=640), 197_500),
    # --- OpenAI, price tiers: above 272,000 tokens of input everything costs the tier's rate
    # gpt-5.4 2.50 / 0.25 / 15 at exactly 272,000: 272,000 x 250 + 100 x 1,500 = 68,000,000 + 150,000
    _openai("gpt-5.4 at the cliff", "gpt-5.4", _chat(272_000, 100), 68_150_000),
    # one token more, 5 / 0.50 / 22.50: 272,001 x 500 + 100 x 2,250 = 136,000,500 + 225,000
    _openai("gpt-5.4 over the cliff", "gpt-5.4", _chat(272_001, 100), 136_225_500),
    # flex above it 2.50 / 0.25 / 11.25: 100,000 plain x 250 + 200,000 cached x 25 + 100 x 1,125
    #   = 25,000,000 + 5,000,000 + 112,500
    _openai("gpt-5.4 flex over the cliff", "gpt-5.4", _chat(300_000, 100, cached=200_000), 30_112_500, tier="flex"),
    # --- OpenAI, cache writes are charged from gpt-5.6 on: in / read / write / out
    # gpt-5.6-sol 4 / 0.40 / 5 / 20: 1,000 plain x 400 + 3,000 read x 40 + 6,000 written x 500 + 200 x 2,000
    #   = 400,000 + 120,000 + 3,000,000 + 400,000
    _openai("gpt-5.6 cache write", "gpt-5.6-sol", _responses(10_000, 200, cached=3_000, written=6_000), 3_920_000),
    # the alias gpt-5.6, over the cliff 8 / 0.80 / 10 / 30: 280,000 written x 1,000 + 10 x 3,000
    _openai("gpt-5.6 written over the cliff", "gpt-5.6", _chat(280_000, 10, written=280_000), 280_030_000),
    # gpt-6.1-sol 2 / 0.10 / 2.50 / 10: 100 plain x 200 + 900 read x 10 + 50 x 1,000 = 20,000 + 9,000 + 50,000
    _openai("gpt-6.1-sol", "gpt-6.1-sol", _responses(1_000, 50, cached=900), 79_000),
    # gpt-6.1-terra priority 2 / 0.10 / 2.50 / 10: 100 x 200 + 50 x 1,000 = 20,000 + 50,000
    _openai("gpt-6.1-terra priority", "gpt-6.1-terra", _responses(100, 50), 70_000, tier="priority"),
    # a tier that the table does not know is no reason to charge the standard price
    _openai("gpt-4o unknown tier", "gpt-4o", _chat(1_000, 500), None, tier="scale"),
    # more cached than read is no bill
    _openai("gpt-4o contradiction", "gpt-4o", _chat(10, 5, cached=11), None),
    # --- Anthropic: in / read / 5 minutes write / 1 hour write / out
    # claude-sonnet-4 3 / 0.30 / 3.75 / 6 / 15: 1,000 x 300 + 500 x 1,500 = 300,000 + 750,000
    _claude("sonnet 4", "claude-sonnet-4", _messages(1_000, 500), 1_050_000),
    # 10 x 300 + 2,000 read x 30 + 100 x 1,500 = 3,000 + 60,000 + 150,000
    _claude("sonnet 4 cache read", "claude-sonnet-4-20250514", _messages(10, 100, read=2_000), 213_000),
    # 10 x 300 + 1,000 x 375 + 2,000 x 600 + 100 x 1,500 = 3,000 + 375,000 + 1,200,000 + 150,000
    _claude("sonnet 4 both writes", "claude-sonnet-4-0", _messages(10, 100, write_5m=1_000, write_1h=2_000), 1_728_000),
    # sonnet 4.5 at exactly 200,000 (190,000 read + 10,000): 10,000 x 300 + 190,000 x 30 + 1 x 1,500
    #   = 3,000,000 + 5,700,000 + 1,500
    _claude("sonnet 4.5 at the cliff", "claude-sonnet-4-5", _messages(10_000, 1, read=190_000), 8_701_500),
    # one token more, 6 / 0.60 / 7.50 / 12 / 22.50: 10,001 x 600 + 190,000 x 60 + 1 x 2,250
    #   = 6,000,600 + 11,400,000 + 2,250
    _claude("sonnet 4.5 over the cliff", "claude-sonnet-4-5", _messages(10_001, 1, read=190_000), 17_402_850),
    # sonnet 5.5 2 / 0.10 / 2.50 / 4 / 10: 9 x 200 + 77 (60 of them thinking) x 1,000 = 1,800 + 77,000
    _claude("sonnet 5.5 thinking", "claude-sonnet-5-5", _messages(9, 77, thinking=60), 78_800),
    # haiku 5.5 0.10 / 0.01 / 0.125 / 0.20 / 0.50: 3 written x 12.5 + 1 x 50 = 37.5 + 50 = 87.5, up to 88
    _claude("haiku 5.5 rounded up", "claude-haiku-5-5", _messages(0, 1, write_5m=3), 88),
    # opus 5.5 4 / 0.20 / 5 / 8 / 20: 100 x 400 + 1,000 read x 20 + 500 x 800 + 40 x 2,000
    #   = 40,000 + 20,000 + 400,000 + 80,000
    _claude("opus 5.5", "claude-opus-5-5", _messages(100, 40, read=1_000, write_1h=500), 540_000),
    # fast mode 8 / 0.40 / 10 / 16 / 40: 100 x 800 + 40 x 4,000 = 80,000 + 160,000
    _claude("opus 5.5 fast", "claude-opus-5-5", _messages(100, 40, speed="fast"), 240_000),
    # a priority tier has a price by contract, which no table knows
    _claude("sonnet 5.5 priority", "claude-sonnet-5-5", _messages(9, 77, tier="priority"), None),
    # the end of a stream is cumulative and final. haiku 4.5 1 / 0.10 / 1.25 / 2 / 5:
    #   12 x 100 + 300 read x 10 + 45 x 500 = 1,200 + 3,000 + 22,500
    _claude(
        "haiku 4.5 stream",
        "claude-haiku-4-5-20251001",
        MessageDeltaUsage(input_tokens=12, cache_read_input_tokens=300, output_tokens=45),
        26_700,
    ),
    # a stream that never said how much it read has no bill
    _claude("haiku 4.5 stream without input", "claude-haiku-4-5", MessageDeltaUsage(output_tokens=45), None),
)
