"""OpenAI's Chat Completions API, and whatever else speaks it, through the official SDK."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final

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
    Failure,
    Verdict,
)
from app.skills.adapters.sdk_adapter import NO_KEY, SdkAdapter
from app.skills.adapters.wire import (
    UnreadableAnswerError,
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
from app.skills.llm_invoke_v2 import LLMConfig, LLMUsage, Message, TextBlock
from app.skills.models import DEFAULT_MODELS, ModelFacts

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

    from app.credentials import CredentialSource
    from app.skills.pricing import PriceBook

__all__ = ["DEFAULT_BASE_URL", "OpenAIAdapter", "openai_usage"]

DEFAULT_BASE_URL: Final = "https://api.openai.com/v1"
_PATH: Final = "/chat/completions"

_FINISH_REASONS: Final = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "content_filter",
}

# https://platform.openai.com/docs/guides/error-codes, November 2026; `exceed_context_size_error` is llama.cpp's.
_BY_CODE: Final[dict[str, Verdict]] = {
    "billing_hard_limit_reached": PROVIDER_BUDGET,
    "content_filter": CONTENT_BLOCKED,
    "content_policy_violation": CONTENT_BLOCKED,
    "context_length_exceeded": CONTEXT_TOO_LONG,
    "exceed_context_size_error": CONTEXT_TOO_LONG,
    "insufficient_quota": PROVIDER_BUDGET,
    "invalid_api_key": AUTH_FAILED,
    "invalid_prompt": CONTENT_BLOCKED,
    "model_not_found": INVALID_MODEL,
    "overloaded_error": OVERLOADED,
    "rate_limit_exceeded": RATE_LIMITED,
    "server_error": SERVER_ERROR,
    "string_above_max_length": INVALID_PROMPT,
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
# Servers without these codes say it in words.
_BY_WORDS: Final[tuple[tuple[str, Verdict], ...]] = (
    ("maximum context length", CONTEXT_TOO_LONG),
    ("context size", CONTEXT_TOO_LONG),
    ("context window", CONTEXT_TOO_LONG),
)


class OpenAIAdapter(SdkAdapter):
    """Calls OpenAI: one attempt per call, no retries, no budget.

    Args:
        api_key: where the key comes from, asked at each call; None for a server of your own that asks for none.
        base_url: None is OpenAI's.
        default_model: None is the one of the model table.
        prices: returns the price book; None: the environment's.
        today, now: clocks for tests.
    """

    adapter_id = "openai"
    sdk_name: ClassVar[str] = "openai"
    request_id_header: ClassVar[str] = "x-request-id"

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
            default_model=default_model or DEFAULT_MODELS["openai"],
            prices=prices,
            today=today,
            now=now,
        )

    def _encode(self, messages: tuple[Message, ...], config: LLMConfig, *, model: str, facts: ModelFacts) -> Request:
        text_only(messages, adapter=self.adapter_id)
        check_extra(config)
        sampling, dropped = sampling_params(config, facts)
        body: dict[str, Any] = {**config.extra, "model": model, facts.max_tokens_param: config.max_tokens, **sampling}
        body["messages"] = [{"role": message.role, "content": _content(message)} for message in messages]
        if config.system is not None:
            check_text(config.system, what="system")
            body["messages"].insert(0, {"role": "system", "content": config.system})
        if config.stop and facts.max_stop is not None and len(config.stop) > facts.max_stop:
            raise InvalidInputError(f"{model} takes at most {facts.max_stop} stop sequences ({len(config.stop)} given)")
        for name, value, accepted in (
            ("stop", list(config.stop) or None, facts.accepts_stop),
            ("seed", config.seed, facts.accepts_seed),
        ):
            if value is not None and accepted:
                body[name] = value
            elif value is not None:
                dropped = (*dropped, name)
        return Request(body=body, dropped=dropped)

    def _open_client(self, sdk: Any, options: dict[str, Any]) -> AsyncOpenAI:
        client: AsyncOpenAI = sdk.AsyncOpenAI(api_key=NO_KEY, **options)
        return client

    async def _post(self, client: AsyncOpenAI, attempt: Attempt) -> httpx2.Response:
        import httpx2

        return await client.post(_PATH, cast_to=httpx2.Response, body=attempt.request.body)

    def _read(self, payload: Mapping[str, Any], attempt: Attempt) -> Answer:
        choices = sequence_of(payload.get("choices"), what="choices")
        if not choices:
            raise UnreadableAnswerError("the answer has no choice")
        choice = mapping_of(choices[0], what="a choice")
        message = mapping_of(choice.get("message"), what="message")
        reason = text_of(choice.get("finish_reason"), what="finish_reason")
        refusal, content = message.get("refusal"), message.get("content")
        answered = bool(refusal or content or message.get("tool_calls"))
        return Answer(
            content=text_of(refusal or content or "", what="content"),
            model=str(payload.get("model") or attempt.model),
            finish_reason="refusal" if refusal else _FINISH_REASONS.get(reason, reason),
            usage=openai_usage(payload.get("usage"), service_tier=payload.get("service_tier"), answered=answered),
            request_id=attempt.request_id,
        )

    async def _pieces(self, client: AsyncOpenAI, attempt: Attempt) -> AsyncGenerator[str | Answer, None]:
        from openai import AsyncStream

        opening = client.post(
            _PATH,
            cast_to=object,
            body={**attempt.request.body, "stream": True, "stream_options": {"include_usage": True}},
            stream=True,
            stream_cls=AsyncStream[object],
        )
        stream: AsyncStream[object] = await self._open_stream(attempt, opening)
        try:
            state = _StreamState(attempt)
            async for chunk in stream:
                if piece := state.take(chunk):
                    yield piece
            yield state.answer()
        finally:
            await stream.close()

    def _rejection(self, status: int | None, body: object, headers: Mapping[str, str]) -> Failure:
        # The SDK unwraps `error` from the body of an answer, but not from every server's.
        error = body.get("error", body) if isinstance(body, dict) else None
        if not isinstance(error, dict):
            verdict = _BY_STATUS.get(status or 0) or (SERVER_ERROR if (status or 500) >= 500 else INVALID_REQUEST)
            words = f": {error}" if isinstance(error, str) else ""
            message = f"HTTP {status} without an error that can be read{words}"
            return self._rejected(Failure(verdict=verdict, message=message, status=status), headers)
        code, kind, message = (str(error.get(name) or "") for name in ("code", "type", "message"))
        verdict = (
            _BY_CODE.get(code)
            or _BY_CODE.get(kind)
            or _BY_STATUS.get(status or 0)
            or (SERVER_ERROR if (status or 500) >= 500 else INVALID_REQUEST)
        )
        if verdict is INVALID_REQUEST:
            verdict = next((found for part, found in _BY_WORDS if part in message.lower()), verdict)
        place = f"HTTP {status}" if status is not None else "an error within the stream"
        name = kind if code.isdigit() or not code else code  # llama.cpp puts the status where the code belongs
        return self._rejected(Failure(verdict=verdict, message=f"{place}, {name}: {message}", status=status), headers)


@dataclass(slots=True)
class _StreamState:
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

    def take(self, payload: object) -> str | None:
        """Take one chunk; return the text that it brings, None where it brings none."""
        chunk = mapping_of(payload, what="a chunk")
        self.started = True
        self.model = str(chunk.get("model") or self.model or self.attempt.model)
        self.service_tier = chunk.get("service_tier") or self.service_tier
        piece = None
        for entry in sequence_of(chunk.get("choices") or [], what="choices"):
            choice = mapping_of(entry, what="a choice")
            if choice.get("index") not in {None, 0}:
                continue  # `n` answers arrive interleaved; the response has the first
            piece = self._delta(choice.get("delta")) or piece
            reason = choice.get("finish_reason")
            self.finish_reason = text_of(reason, what="finish_reason") if reason is not None else self.finish_reason
        if chunk.get("usage") is not None:
            # Some servers report running figures with each chunk; only those at or after the end are the bill.
            self.usage, self.final_usage = chunk["usage"], self.finish_reason is not None
            self.attempt.usage = openai_usage(self.usage, complete=False)
        return piece

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
        return Answer(
            content="".join(self.text),
            model=self.model or self.attempt.model,
            finish_reason="refusal" if self.refused else reason,
            usage=openai_usage(
                self.usage, complete=self.final_usage, service_tier=self.service_tier, answered=self.answered
            ),
            request_id=self.attempt.request_id,
        )

    def _delta(self, payload: object) -> str | None:
        if payload is None:
            return None
        delta = mapping_of(payload, what="delta")
        refusal, content = delta.get("refusal"), delta.get("content")
        self.refused = self.refused or bool(refusal)
        text = text_of(refusal or content or "", what="content")
        self.text.append(text)
        self.answered = self.answered or bool(text or delta.get("tool_calls"))
        return text or None


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


def _content(message: Message) -> str | list[dict[str, Any]]:
    if isinstance(message.content, str):
        return message.content
    return [{"type": "text", "text": block.text} for block in message.blocks if isinstance(block, TextBlock)]
