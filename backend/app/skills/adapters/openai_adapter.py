"""OpenAI's Chat Completions API, and whatever else speaks it, through the official SDK."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final

from app.skills.adapters.base import Answer, Attempt, Piece, Request
from app.skills.adapters.failures import (
    AUTH_FAILED,
    CONFLICT,
    CONTENT_BLOCKED,
    CONTEXT_TOO_LONG,
    INVALID_MODEL,
    INVALID_PROMPT,
    INVALID_REQUEST,
    OVERLOADED,
    PROVIDER_BUDGET,
    RATE_LIMITED,
    SERVER_ERROR,
    Failure,
    Verdict,
)
from app.skills.adapters.openai_answer import ChunkReader, openai_usage, read_answer
from app.skills.adapters.openai_request import encode_request
from app.skills.adapters.sdk_adapter import NO_KEY, SdkAdapter
from app.skills.llm_invoke_v2 import LLMConfig, Message
from app.skills.model_facts import ModelFacts
from app.skills.models import DEFAULT_MODELS

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

    from app.credentials import CredentialSource
    from app.skills.pricing import PriceBook

__all__ = ["DEFAULT_BASE_URL", "OpenAIAdapter", "openai_usage"]

DEFAULT_BASE_URL: Final = "https://api.openai.com/v1"
_PATH: Final = "/chat/completions"

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
        return encode_request(messages, config, model=model, facts=facts)

    def _open_client(self, sdk: Any, options: dict[str, Any]) -> AsyncOpenAI:
        client: AsyncOpenAI = sdk.AsyncOpenAI(api_key=NO_KEY, **options)
        return client

    async def _post(self, client: AsyncOpenAI, attempt: Attempt) -> httpx2.Response:
        import httpx2

        return await client.post(_PATH, cast_to=httpx2.Response, body=attempt.request.body)

    def _read(self, payload: Mapping[str, Any], attempt: Attempt) -> Answer:
        return read_answer(payload, attempt)

    async def _pieces(self, client: AsyncOpenAI, attempt: Attempt) -> AsyncGenerator[Piece | Answer, None]:
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
            reader = ChunkReader(attempt)
            async for chunk in stream:
                for piece in reader.take(chunk):
                    yield piece
            yield reader.answer()
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
