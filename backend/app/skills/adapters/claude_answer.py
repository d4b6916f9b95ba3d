"""An answer of the Messages API, whole or event by event, in Nova's terms."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.skills.adapters.base import Answer, Attempt, Piece
from app.skills.adapters.failures import INVALID_RESPONSE, STREAM_CUT, Failure
from app.skills.adapters.wire import (
    ErrorEventError,
    adds_up,
    count_of,
    mapping_of,
    sequence_of,
    text_of,
    tool_use,
)
from app.skills.llm_invoke_v2 import (
    ContentBlock,
    LLMUsage,
    ReasoningBlock,
    ReasoningDelta,
    TextBlock,
    TextDelta,
    ToolCallDelta,
)

__all__ = ["EventReader", "claude_usage", "read_answer"]

_FINISH_REASONS: Final = {
    "end_turn": "stop",
    "max_tokens": "length",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_use",
    "pause_turn": "pause",
    "refusal": "refusal",
    # What is left of the context was less than max_tokens.
    "model_context_window_exceeded": "length",
}


def read_answer(payload: Mapping[str, Any], attempt: Attempt) -> Answer:
    """Read a whole answer.

    Raises:
        UnreadableAnswerError: it is not one.
    """
    blocks = [
        mapping_of(block, what="a content block") for block in sequence_of(payload.get("content"), what="content")
    ]
    reason = text_of(payload.get("stop_reason"), what="stop_reason")
    text = "".join(text_of(block.get("text"), what="text") for block in blocks if block.get("type") == "text")
    return Answer(
        content=text,
        model=str(payload.get("model") or attempt.model),
        finish_reason=_FINISH_REASONS.get(reason, reason),
        usage=claude_usage(payload.get("usage"), answered=_holds_anything(blocks)),
        request_id=attempt.request_id,
        blocks=_more_than_text(blocks),
    )


@dataclass(slots=True)
class EventReader:
    """What has arrived of a stream. Figures of usage are cumulative: a later one replaces an earlier one."""

    attempt: Attempt
    started: bool = False
    model: str | None = None
    stop_reason: str | None = None
    ended: bool = False
    final_usage: bool = False
    usage: dict[str, Any] = field(default_factory=dict)
    text: list[str] = field(default_factory=list)
    blocks: dict[int, dict[str, Any]] = field(default_factory=dict)
    calls: dict[int, int] = field(default_factory=dict)

    def take(self, payload: object) -> Piece | None:
        """Take one event; return what it brings, None where it brings nothing to be shown."""
        event = mapping_of(payload, what="an event")
        kind = event.get("type")
        if kind == "error":
            raise ErrorEventError(event)
        if kind == "message_start":
            self.started = True
            message = mapping_of(event.get("message"), what="message")
            self.model = str(message.get("model") or self.attempt.model)
            self._replace_usage(message.get("usage"))
        elif kind == "content_block_start":
            return self._begin(mapping_of(event.get("content_block"), what="content_block"), self._index(event))
        elif kind == "content_block_delta":
            return self._delta(mapping_of(event.get("delta"), what="delta"), self._index(event))
        elif kind == "message_delta":
            reason = mapping_of(event.get("delta"), what="delta").get("stop_reason")
            self.stop_reason = text_of(reason, what="stop_reason") if reason is not None else self.stop_reason
            self.final_usage = self._replace_usage(event.get("usage"))
        elif kind == "message_stop":
            self.ended = True
        return None

    def answer(self) -> Answer:
        """Return the whole answer.

        Raises:
            LLMError: the stream ended before it.
        """
        if self.stop_reason is None or not self.ended:
            what = "stop_reason" if self.stop_reason is None else "message_stop"
            raise self.attempt.error(
                Failure(
                    verdict=STREAM_CUT if self.started else INVALID_RESPONSE,
                    message=f"the stream ended without {what}",
                    request_id=self.attempt.request_id,
                )
            )
        blocks = [self.blocks[index] for index in sorted(self.blocks)]
        return Answer(
            content="".join(self.text),
            model=self.model or self.attempt.model,
            finish_reason=_FINISH_REASONS.get(self.stop_reason, self.stop_reason),
            usage=claude_usage(self.usage, complete=self.final_usage, answered=_holds_anything(blocks)),
            request_id=self.attempt.request_id,
            blocks=_more_than_text(blocks),
        )

    def _begin(self, block: Mapping[str, Any], index: int) -> Piece | None:
        self.blocks[index] = dict(block)
        kind = block.get("type")
        if kind == "text" and block.get("text"):
            return self._add(str(block["text"]))
        if kind == "thinking" and block.get("thinking"):
            return ReasoningDelta(str(block["thinking"]))
        if kind == "tool_use":
            number = self.calls[index] = len(self.calls)
            return ToolCallDelta(index=number, id=str(block.get("id") or ""), name=str(block.get("name") or ""))
        return None

    def _delta(self, delta: Mapping[str, Any], index: int) -> Piece | None:
        block = self.blocks.setdefault(index, {})
        kind = delta.get("type")
        if kind == "text_delta":
            return self._add(text_of(delta.get("text"), what="text"), block)
        for wanted, name in (
            ("thinking_delta", "thinking"),
            ("signature_delta", "signature"),
            ("input_json_delta", "partial_json"),
        ):
            if kind == wanted:
                piece = str(delta.get(name) or "")
                block[name] = str(block.get(name) or "") + piece
                return self._shown(name, piece, index) if piece else None
        return None

    def _shown(self, name: str, piece: str, index: int) -> Piece | None:
        if name == "thinking":
            return ReasoningDelta(piece)
        if name == "partial_json" and index in self.calls:  # of a tool of the provider's own nothing is shown
            return ToolCallDelta(index=self.calls[index], arguments=piece)
        return None

    def _add(self, text: str, block: dict[str, Any] | None = None) -> TextDelta | None:
        self.text.append(text)
        if block is not None:
            block["text"] = str(block.get("text") or "") + text
        return TextDelta(text) if text else None

    def _replace_usage(self, usage: object) -> bool:
        """Take over every figure that is there; return whether the output is among them."""
        if not isinstance(usage, dict):
            return False
        self.usage.update({name: value for name, value in usage.items() if value is not None})
        self.attempt.usage = claude_usage(self.usage, complete=False)
        return count_of(usage.get("output_tokens")) is not None

    @staticmethod
    def _index(event: Mapping[str, Any]) -> int:
        index = event.get("index")
        return index if isinstance(index, int) else 0


def claude_usage(usage: object, *, complete: bool = True, answered: bool = False) -> LLMUsage:
    """Read a usage object; what is absent stays unknown.

    Anthropic's ``input_tokens`` leaves out what was read from and written to a cache; ours has everything in it. A
    usage without its totals, or one of zeros that the answer contradicts, is not complete.

    Args:
        usage: as the server sent it.
        complete: whether it can be the final one.
        answered: whether the answer holds anything that the model wrote.
    """
    if not isinstance(usage, dict):
        return LLMUsage(input_tokens=None, output_tokens=None, complete=False)
    plain, output = count_of(usage.get("input_tokens")), count_of(usage.get("output_tokens"))
    read = count_of(usage.get("cache_read_input_tokens"))
    short, long = _cache_writes(usage)
    total = None if plain is None else plain + (read or 0) + (short or 0) + (long or 0)
    details = usage.get("output_tokens_details")
    return LLMUsage(
        input_tokens=total,
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_5m_tokens=short,
        cache_write_1h_tokens=long,
        reasoning_tokens=count_of(details.get("thinking_tokens")) if isinstance(details, dict) else None,
        complete=complete and adds_up(total, output, answered=answered) and not _billed_beside_tokens(usage),
        service_tier=_tier(usage),
    )


def _cache_writes(usage: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return the tokens written for 5 minutes and for an hour; a total without parts counts as the first."""
    total = count_of(usage.get("cache_creation_input_tokens"))
    parts = usage.get("cache_creation")
    if not isinstance(parts, dict):
        return total, None
    short = count_of(parts.get("ephemeral_5m_input_tokens"))
    long = count_of(parts.get("ephemeral_1h_input_tokens"))
    # In a stream the total is replaced at the end, its parts are not: then the total holds.
    return (short, long) if total is None or (short or 0) + (long or 0) == total else (total, None)


def _billed_beside_tokens(usage: Mapping[str, Any]) -> bool:
    """Whether tools of the provider ran: each use costs a fee that no number of tokens has in it."""
    tools = usage.get("server_tool_use")
    return isinstance(tools, dict) and any(count_of(uses) for uses in tools.values())


def _tier(usage: Mapping[str, Any]) -> str | None:
    """Return what decides about the price per token: fast mode, the service tier, and a place that costs more."""
    tier = "fast" if usage.get("speed") == "fast" else usage.get("service_tier")
    place = usage.get("inference_geo")
    if isinstance(place, str) and place not in {"", "global", "not_available"}:
        return f"{tier or 'standard'}@{place}"
    return tier if isinstance(tier, str) else None


def _more_than_text(blocks: list[Any]) -> tuple[ContentBlock, ...]:
    """Return the content as blocks, nothing where it is a text that stands for itself."""
    if all(block.get("type") == "text" for block in blocks):
        return ()
    return tuple(found for block in blocks if (found := _block(block)) is not None)


def _holds_anything(blocks: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the model wrote anything: a text that is not empty, thinking, the call of a tool."""
    return any(block.get("text") or block.get("type") not in {None, "text"} for block in blocks)


def _block(block: Mapping[str, Any]) -> ContentBlock | None:
    kind = block.get("type")
    if kind == "text":
        return TextBlock(str(block.get("text") or "")) if block.get("text") else None
    if kind == "thinking":
        return ReasoningBlock(text=str(block.get("thinking") or ""), signature=block.get("signature"))
    if kind == "redacted_thinking":
        return ReasoningBlock(text="", signature=block.get("data"), redacted=True)
    if kind == "tool_use":
        streamed = block.get("partial_json")
        arguments = streamed if isinstance(streamed, str) and streamed else json.dumps(block.get("input") or {})
        return tool_use(block.get("id"), block.get("name"), arguments)
    return None
