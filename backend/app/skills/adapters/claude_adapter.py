"""Anthropic's Messages API, through the official SDK."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from app.skills.adapters.base import Answer, Attempt, Piece, Request
from app.skills.adapters.claude_answer import EventReader, claude_usage, read_answer
from app.skills.adapters.claude_request import encode_request
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
    TIMEOUT,
    Failure,
    Verdict,
)
from app.skills.adapters.sdk_adapter import SdkAdapter
from app.skills.llm_invoke_v2 import LLMConfig, Message
from app.skills.model_facts import ModelFacts
from app.skills.models import DEFAULT_MODELS

if TYPE_CHECKING:
    import httpx2
    from anthropic import AsyncAnthropic
    from anthropic._streaming import ServerSentEvent

    from app.credentials import CredentialSource
    from app.skills.pricing import PriceBook

__all__ = ["DEFAULT_BASE_URL", "ClaudeAdapter", "claude_usage"]

DEFAULT_BASE_URL: Final = "https://api.anthropic.com"
_PATH: Final = "/v1/messages"

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
        return encode_request(messages, config, model=model, facts=facts)

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
        return read_answer(payload, attempt)

    async def _pieces(self, client: AsyncAnthropic, attempt: Attempt) -> AsyncGenerator[Piece | Answer, None]:
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
            reader = EventReader(attempt)
            # Raw events: the SDK skips those without an event name, and with them text that was paid for.
            raw = cast("AsyncGenerator[ServerSentEvent, None]", AsyncStream.raw_events(response))
            async with aclosing(raw) as events:
                async for event in events:
                    if event.data and (piece := reader.take(json.loads(event.data))):
                        yield piece
            yield reader.answer()
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


def _by_status(status: int | None) -> Verdict:
    """Return what a status means by itself; None, an error within a stream, is the provider's."""
    return _BY_STATUS.get(status or 500) or (SERVER_ERROR if (status or 500) >= 500 else INVALID_REQUEST)
