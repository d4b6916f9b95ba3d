"""An answer of Chat Completions, whole or chunk by chunk, in Nova's terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.skills.adapters.base import Answer, Attempt, Piece
from app.skills.adapters.failures import INVALID_RESPONSE, STREAM_CUT, Failure
from app.skills.adapters.wire import (
    UnreadableAnswerError,
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
    ToolUseBlock,
)

__all__ = ["ChunkReader", "openai_usage", "read_answer"]

_FINISH_REASONS: Final = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "content_filter",
}
_REASONING: Final = ("reasoning_content", "reasoning")
"""Where servers of open models put the reasoning that they show; OpenAI shows none here."""


def read_answer(payload: Mapping[str, Any], attempt: Attempt) -> Answer:
    """Read a whole answer.

    Raises:
        UnreadableAnswerError: it is not one.
    """
    choices = sequence_of(payload.get("choices"), what="choices")
    if not choices:
        raise UnreadableAnswerError("the answer has no choice")
    choice = mapping_of(choices[0], what="a choice")
    message = mapping_of(choice.get("message"), what="message")
    reason = text_of(choice.get("finish_reason"), what="finish_reason")
    refusal, content = message.get("refusal"), message.get("content")
    text = text_of(refusal or content or "", what="content")
    answered = bool(refusal or content or message.get("tool_calls"))
    return Answer(
        content=text,
        model=str(payload.get("model") or attempt.model),
        finish_reason="refusal" if refusal else _FINISH_REASONS.get(reason, reason),
        usage=openai_usage(payload.get("usage"), service_tier=payload.get("service_tier"), answered=answered),
        request_id=attempt.request_id,
        blocks=_blocks(_shown_reasoning(message), text, _calls(message.get("tool_calls"))),
    )


@dataclass(slots=True)
class _Call:
    """A call of a tool, as much of it as has arrived."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class ChunkReader:
    """What has arrived of a stream. Figures of usage are cumulative: a later one replaces an earlier one."""

    attempt: Attempt
    started: bool = False
    model: str | None = None
    finish_reason: str | None = None
    refused: bool = False
    answered: bool = False
    usage: object = None
    final_usage: bool = False
    service_tier: object = None
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: dict[int, _Call] = field(default_factory=dict)

    def take(self, payload: object) -> list[Piece]:
        """Take one chunk; return what it brings."""
        chunk = mapping_of(payload, what="a chunk")
        self.started = True
        self.model = str(chunk.get("model") or self.model or self.attempt.model)
        self.service_tier = chunk.get("service_tier") or self.service_tier
        pieces: list[Piece] = []
        for entry in sequence_of(chunk.get("choices") or [], what="choices"):
            choice = mapping_of(entry, what="a choice")
            if choice.get("index") not in {None, 0}:
                continue  # `n` answers arrive interleaved; the response has the first
            if choice.get("delta") is not None:
                pieces += self._delta(mapping_of(choice["delta"], what="delta"))
            reason = choice.get("finish_reason")
            self.finish_reason = text_of(reason, what="finish_reason") if reason is not None else self.finish_reason
        if chunk.get("usage") is not None:
            # Some servers report running figures with each chunk; only those at or after the end are the bill.
            self.usage, self.final_usage = chunk["usage"], self.finish_reason is not None
            self.attempt.usage = openai_usage(self.usage, complete=False)
        return pieces

    def answer(self) -> Answer:
        """Return the whole answer.

        Raises:
            LLMError: the stream ended before it.
        """
        if self.finish_reason is None:
            raise self.attempt.error(
                Failure(
                    verdict=STREAM_CUT if self.started else INVALID_RESPONSE,
                    message="the stream ended without a finish_reason",
                    request_id=self.attempt.request_id,
                )
            )
        reason = _FINISH_REASONS.get(self.finish_reason, self.finish_reason)
        text = "".join(self.text)
        calls = [tool_use(call.id, call.name, "".join(call.arguments)) for _, call in sorted(self.calls.items())]
        return Answer(
            content=text,
            model=self.model or self.attempt.model,
            finish_reason="refusal" if self.refused else reason,
            usage=openai_usage(
                self.usage, complete=self.final_usage, service_tier=self.service_tier, answered=self.answered
            ),
            request_id=self.attempt.request_id,
            blocks=_blocks("".join(self.reasoning), text, calls),
        )

    def _delta(self, delta: Mapping[str, Any]) -> Iterator[Piece]:
        if reasoning := _shown_reasoning(delta):
            self.reasoning.append(reasoning)
            yield ReasoningDelta(reasoning)
        refusal, content = delta.get("refusal"), delta.get("content")
        self.refused = self.refused or bool(refusal)
        text = text_of(refusal or content or "", what="content")
        self.answered = self.answered or bool(text or delta.get("tool_calls"))
        if text:
            self.text.append(text)
            yield TextDelta(text)
        for entry in sequence_of(delta.get("tool_calls") or [], what="tool_calls"):
            yield self._call(mapping_of(entry, what="a tool call"))

    def _index(self, piece: Mapping[str, Any]) -> int:
        """Return which call a piece belongs to: some servers number none of them, or each as the first."""
        index, latest = piece.get("index"), max(self.calls, default=-1)
        if not isinstance(index, int):
            index = max(latest, 0)
        known = self.calls.get(index)
        another = known is not None and piece.get("id") not in {None, "", known.id}
        return latest + 1 if another else index

    def _call(self, piece: Mapping[str, Any]) -> ToolCallDelta:
        index = self._index(piece)
        function = mapping_of(piece.get("function") or {}, what="function")
        arguments = text_of(function.get("arguments") or "", what="arguments")
        first = index not in self.calls
        call = self.calls.setdefault(index, _Call())
        call.id = call.id or str(piece.get("id") or "")
        call.name = call.name or str(function.get("name") or "")
        call.arguments.append(arguments)
        return ToolCallDelta(
            index=index, id=call.id if first else None, name=call.name if first else None, arguments=arguments
        )


def openai_usage(
    usage: object, *, complete: bool = True, service_tier: object = None, answered: bool = False
) -> LLMUsage:
    """Read a usage object; what is absent stays unknown.

    A usage without its totals, or one that contradicts itself or the answer, is not complete: servers that do not
    count send zeros, and some leave reasoning out of ``completion_tokens`` that ``total_tokens`` has in it.

    Args:
        usage: as the server sent it.
        complete: whether it can be the final one.
        service_tier: as the server named it, beside the usage.
        answered: whether the answer holds anything that the model wrote.
    """
    tier = service_tier if isinstance(service_tier, str) else None
    if not isinstance(usage, dict):
        return LLMUsage(input_tokens=None, output_tokens=None, complete=False, service_tier=tier)
    read, written = count_of(usage.get("prompt_tokens")), count_of(usage.get("completion_tokens"))
    of_input, of_output = _details(usage, "prompt_tokens_details"), _details(usage, "completion_tokens_details")
    total = usage.get("total_tokens")
    agrees = total is None or count_of(total) == (read or 0) + (written or 0)
    # Audio has a price per token of its own, which no figure of LLMUsage holds.
    audio = count_of(of_input.get("audio_tokens")) or count_of(of_output.get("audio_tokens"))
    return LLMUsage(
        input_tokens=read,
        output_tokens=written,
        cache_read_tokens=count_of(of_input.get("cached_tokens")),
        cache_write_5m_tokens=count_of(of_input.get("cache_write_tokens")),
        reasoning_tokens=count_of(of_output.get("reasoning_tokens")),
        complete=complete and adds_up(read, written, answered=answered) and agrees and not audio,
        service_tier=tier,
    )


def _details(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = usage.get(name)
    return found if isinstance(found, dict) else {}


def _shown_reasoning(message: Mapping[str, Any]) -> str:
    return next((found for name in _REASONING if isinstance(found := message.get(name), str) and found), "")


def _calls(calls: object) -> list[ToolUseBlock]:
    found = []
    for entry in sequence_of(calls or [], what="tool_calls"):
        call = mapping_of(entry, what="a tool call")
        function = mapping_of(call.get("function") or {}, what="function")
        arguments = text_of(function.get("arguments") or "", what="arguments")
        found.append(tool_use(call.get("id"), function.get("name"), arguments))
    return found


def _blocks(reasoning: str, text: str, calls: list[ToolUseBlock]) -> tuple[ContentBlock, ...]:
    """Return the content as blocks, nothing where it is a text that stands for itself."""
    if not reasoning and not calls:
        return ()
    shown: list[ContentBlock] = [ReasoningBlock(text=reasoning)] if reasoning else []
    return (*shown, *([TextBlock(text)] if text else []), *calls)
