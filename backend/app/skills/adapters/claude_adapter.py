"""Anthropic's Messages API, through the official SDK."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from app.errors import InvalidInputError
from app.skills.adapters.base import Answer, Attempt, Request
from app.skills.adapters.failures import (
    AUTH_FAILED,
    CONFLICT,
    CONTENT_BLOCKED,
    CONTEXT_TOO_LONG,
    INVALID_MODEL,
    INVALID_PROMPT,
    INVALID_REQUEST,
    INVALID_RESPONSE,
    OVERLOADED,
    PROVIDER_BUDGET,
    RATE_LIMITED,
    SERVER_ERROR,
    STREAM_CUT,
    TIMEOUT,
    Failure,
    Verdict,
)
from app.skills.adapters.sdk_adapter import SdkAdapter
from app.skills.adapters.wire import (
    ErrorEventError,
    adds_up,
    check_extra,
    check_text,
    count_of,
    mapping_of,
    sampling_params,
    sequence_of,
    text_of,
    text_only,
)
from app.skills.llm_invoke_v2 import (
    ContentBlock,
    LLMConfig,
    LLMUsage,
    Message,
    ReasoningBlock,
    TextBlock,
    ToolUseBlock,
)
from app.skills.models import DEFAULT_MODELS, ModelFacts

if TYPE_CHECKING:
    import httpx2
    from anthropic import AsyncAnthropic
    from anthropic._streaming import ServerSentEvent

    from app.credentials import CredentialSource
    from app.skills.pricing import PriceBook

__all__ = ["DEFAULT_BASE_URL", "ClaudeAdapter", "claude_usage"]

DEFAULT_BASE_URL: Final = "https://api.anthropic.com"
_PATH: Final = "/v1/messages"

_FINISH_REASONS: Final = {
    "end_turn": "stop",
    "max_tokens": "length",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_use",
    "pause_turn": "pause",
    "refusal": "refusal",
}

# https://platform.claude.com/docs/en/api/errors, November 2026.
_BY_TYPE: Final[dict[str, Verdict]] = {
    "invalid_request_error": INVALID_REQUEST,
    "authentication_error": AUTH_FAILED,
    "permission_error": AUTH_FAILED,
    "billing_error": PROVIDER_BUDGET,
    "not_found_error": INVALID_MODEL,
    "request_too_large": INVALID_PROMPT,
    "conflict_error": CONFLICT,
    "rate_limit_error": RATE_LIMITED,
    "timeout_error": TIMEOUT,
    "api_error": SERVER_ERROR,
    "overloaded_error": OVERLOADED,
}
_BY_STATUS: Final[dict[int, Verdict]] = {
    401: AUTH_FAILED,
    402: PROVIDER_BUDGET,
    403: AUTH_FAILED,
    404: INVALID_MODEL,
    409: CONFLICT,
    413: INVALID_PROMPT,
    429: RATE_LIMITED,
    529: OVERLOADED,
}
# What Anthropic tells apart by words alone, or by a code within the details; all of them come with status 400 or 429.
_BY_WORDS: Final[tuple[tuple[str, Verdict], ...]] = (
    ("spend_limit_reached", PROVIDER_BUDGET),
    ("usage limits", PROVIDER_BUDGET),
    ("credit balance", PROVIDER_BUDGET),
    ("prompt is too long", CONTEXT_TOO_LONG),
    ("exceed context limit", CONTEXT_TOO_LONG),
    ("context window", CONTEXT_TOO_LONG),
    ("context size", CONTEXT_TOO_LONG),
    ("content filtering", CONTENT_BLOCKED),
)


class ClaudeAdapter(SdkAdapter):
    """Calls Claude: one attempt per call, no retries, no budget.

    Args:
        api_key: where the key comes from; asked at each call.
        base_url: None is Anthropic's.
        default_model: None is the one of the model table.
        prices: returns the price book; None: the environment's.
        today, now: clocks for tests.
    """

    adapter_id = "claude"
    sdk_name: ClassVar[str] = "anthropic"
    request_id_header: ClassVar[str] = "request-id"

    def __init__(
        self,
        *,
        api_key: CredentialSource | None,
        base_url: str | None = None,
        default_model: str | None = None,
        prices: Callable[[], PriceBook] | None = None,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        super().__init__(
            api_key=api_key,
            base_url=base_url or DEFAULT_BASE_URL,
            default_model=default_model or DEFAULT_MODELS["claude"],
            prices=prices,
            today=today,
            now=now,
        )

    def _encode(self, messages: tuple[Message, ...], config: LLMConfig, *, model: str, facts: ModelFacts) -> Request:
        text_only(messages, adapter=self.adapter_id)
        check_extra(config)
        sampling, dropped = sampling_params(config, facts)
        body: dict[str, Any] = {**config.extra, "model": model, "max_tokens": config.max_tokens, **sampling}
        system, turns = _split_system(messages, config.system)
        if not turns:
            raise InvalidInputError("the prompt has only system messages; Claude needs one of the user")
        body["messages"] = [{"role": turn.role, "content": _content(turn)} for turn in turns]
        if system is not None:
            body["system"] = system
        if config.stop:
            if any(not sequence.strip() for sequence in config.stop):
                raise InvalidInputError("Claude takes no stop sequence of white space only")
            body["stop_sequences"] = list(config.stop)
        if config.seed is not None:
            dropped = (*dropped, "seed")
        return Request(body=body, headers=dict(facts.sampling_headers) if sampling else {}, dropped=dropped)

    def _open_client(self, sdk: Any, options: dict[str, Any]) -> AsyncAnthropic:
        # The key is set at each call. Given none at all, the SDK would look for files and variables of its own.
        client: AsyncAnthropic = sdk.AsyncAnthropic(api_key="set-at-each-call", **options)
        return client

    async def _post(self, client: AsyncAnthropic, attempt: Attempt) -> httpx2.Response:
        import httpx2

        request = attempt.request
        return await client.post(
            _PATH, cast_to=httpx2.Response, body=request.body, options={"headers": dict(request.headers)}
        )

    def _read(self, payload: Mapping[str, Any], attempt: Attempt) -> Answer:
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

    async def _pieces(self, client: AsyncAnthropic, attempt: Attempt) -> AsyncGenerator[str | Answer, None]:
        import httpx2
        from anthropic import AsyncStream

        request = attempt.request
        opening = client.post(
            _PATH,
            cast_to=httpx2.Response,
            body={**request.body, "stream": True},
            options={"headers": dict(request.headers)},
            stream=True,
            stream_cls=AsyncStream[object],
        )
        response: httpx2.Response = await self._open_stream(attempt, opening)
        try:
            state = _StreamState(attempt)
            # Raw events: the SDK skips those without an event name, and with them text that was paid for.
            raw = cast("AsyncGenerator[ServerSentEvent, None]", AsyncStream.raw_events(response))
            async with aclosing(raw) as events:
                async for event in events:
                    if event.data and (piece := state.take(json.loads(event.data))):
                        yield piece
            yield state.answer()
        finally:
            await response.aclose()

    def _rejection(self, status: int | None, body: object, headers: Mapping[str, str]) -> Failure:
        error = body.get("error") if isinstance(body, dict) else None
        if not isinstance(error, dict):
            return self._rejected(
                Failure(
                    verdict=_by_status(status),
                    message=f"HTTP {status} without an error that can be read",
                    status=status,
                ),
                headers,
            )
        kind, message = str(error.get("type", "")), str(error.get("message", ""))
        verdict = _BY_TYPE.get(kind) or _by_status(status)
        if verdict in {INVALID_REQUEST, RATE_LIMITED, INVALID_PROMPT}:
            words = f"{message} {error.get('details', '')}".lower()
            verdict = next((found for part, found in _BY_WORDS if part in words), verdict)
        place = f"HTTP {status}" if status is not None else "an error within the stream"
        return self._rejected(Failure(verdict=verdict, message=f"{place}, {kind}: {message}", status=status), headers)


@dataclass(slots=True)
class _StreamState:
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

    def take(self, payload: object) -> str | None:
        """Take one event; return the text that it brings, None where it brings none."""
        event = mapping_of(payload, what="an event")
        kind = event.get("type")
        if kind == "error":
            raise ErrorEventError(event)
        if kind == "message_start":
            message = mapping_of(event.get("message"), what="message")
            self.started = True
            self.model = str(message.get("model") or self.attempt.model)
            self._replace_usage(message.get("usage"))
        elif kind == "content_block_start":
            block = mapping_of(event.get("content_block"), what="content_block")
            self.blocks[self._index(event)] = dict(block)
            if block.get("type") == "text":
                return self._add(str(block.get("text") or ""))
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

    def _delta(self, delta: Mapping[str, Any], index: int) -> str | None:
        block = self.blocks.setdefault(index, {})
        kind = delta.get("type")
        if kind == "text_delta":
            return self._add(text_of(delta.get("text"), what="text"), block)
        for wanted, name in (("thinking_delta", "thinking"), ("signature_delta", "signature")):
            if kind == wanted:
                block[name] = str(block.get(name) or "") + str(delta.get(name) or "")
        if kind == "input_json_delta":
            block["partial_json"] = str(block.get("partial_json") or "") + str(delta.get("partial_json") or "")
        return None

    def _add(self, text: str, block: dict[str, Any] | None = None) -> str:
        self.text.append(text)
        if block is not None:
            block["text"] = str(block.get("text") or "") + text
        return text

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


def _by_status(status: int | None) -> Verdict:
    """Return what a status means by itself; None, an error within a stream, is the provider's."""
    return _BY_STATUS.get(status or 500) or (SERVER_ERROR if (status or 500) >= 500 else INVALID_REQUEST)


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


def _split_system(
    messages: tuple[Message, ...], system: str | None
) -> tuple[str | list[dict[str, Any]] | None, tuple[Message, ...]]:
    """Return the system prompt as the API takes it, in front of the messages, and the messages that are left."""
    if system is not None:
        check_text(system, what="system")
    leading = 0
    while leading < len(messages) and messages[leading].role == "system":
        leading += 1
    parts = [_text_block(block) for message in messages[:leading] for block in message.blocks]
    if not parts:
        return system, messages
    return ([{"type": "text", "text": system}] if system is not None else []) + parts, messages[leading:]


def _content(message: Message) -> str | list[dict[str, Any]]:
    if isinstance(message.content, str):
        return message.content
    return [_text_block(block) for block in message.blocks]


def _text_block(block: ContentBlock) -> dict[str, Any]:
    assert isinstance(block, TextBlock)  # text_only refused the others
    encoded: dict[str, Any] = {"type": "text", "text": block.text}
    if block.cache:
        encoded["cache_control"] = {"type": "ephemeral"}
    return encoded


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
        return TextBlock(str(block.get("text") or ""))
    if kind == "thinking":
        return ReasoningBlock(text=str(block.get("thinking") or ""), signature=block.get("signature"))
    if kind == "redacted_thinking":
        return ReasoningBlock(text="", signature=block.get("data"))
    if kind == "tool_use":
        return ToolUseBlock(id=str(block.get("id")), name=str(block.get("name")), arguments=_arguments(block))
    return None


def _arguments(block: Mapping[str, Any]) -> Mapping[str, Any]:
    streamed = block.get("partial_json")
    arguments = json.loads(streamed) if isinstance(streamed, str) and streamed else block.get("input")
    return mapping_of(arguments if arguments is not None else {}, what="the input of a tool")
