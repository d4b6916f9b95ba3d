"""How a provider's failures become :class:`LLMError`: what the adapters' tables say, and what no message may show."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

from app.errors import Billed, LLMError

__all__ = [
    "AUTH_FAILED",
    "CONFLICT",
    "CONTENT_BLOCKED",
    "CONTEXT_TOO_LONG",
    "INVALID_MODEL",
    "INVALID_PROMPT",
    "INVALID_REQUEST",
    "INVALID_RESPONSE",
    "NETWORK",
    "OVERLOADED",
    "PROVIDER_BUDGET",
    "RATE_LIMITED",
    "SERVER_ERROR",
    "STREAM_CUT",
    "TIMEOUT",
    "Failure",
    "Verdict",
    "address_of",
    "is_usable_key",
    "parse_retry_after",
    "redact",
    "shown_cause",
]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a kind of failure means.

    Attributes:
        code: the error's code.
        retryable: whether the same request may succeed later.
        billed: ``no`` only where the provider rejects such a request without charging for it.
        remedy: what to do about it, empty where that is to try again.
    """

    code: str
    retryable: bool
    billed: Billed
    remedy: str = ""


RATE_LIMITED: Final = Verdict("ERR_LLM_RATE_LIMITED", True, "no")
OVERLOADED: Final = Verdict("ERR_LLM_OVERLOADED", True, "no")
CONFLICT: Final = Verdict("ERR_LLM_CONFLICT", True, "no")
AUTH_FAILED: Final = Verdict("ERR_LLM_AUTH_FAILED", False, "no", "check the API key and what it permits")
PROVIDER_BUDGET: Final = Verdict(
    "ERR_LLM_PROVIDER_BUDGET", False, "no", "raise the spending limit or add credit at the provider"
)
INVALID_MODEL: Final = Verdict("ERR_LLM_INVALID_MODEL", False, "no", "check the model's name and the base URL")
INVALID_REQUEST: Final = Verdict("ERR_LLM_INVALID_REQUEST", False, "no", "change the request")
INVALID_PROMPT: Final = Verdict("ERR_LLM_INVALID_PROMPT", False, "no", "change the prompt")
CONTEXT_TOO_LONG: Final = Verdict("ERR_LLM_CONTEXT_TOO_LONG", False, "no", "shorten the prompt or lower max_tokens")
CONTENT_BLOCKED: Final = Verdict("ERR_LLM_CONTENT_BLOCKED", False, "no", "the provider's policy refuses this content")

# After these nobody can say whether the provider did the work, so nobody can say that it was free. A gateway answers
# 500, 502, 503 and 504 too, while the model behind it goes on.
SERVER_ERROR: Final = Verdict("ERR_LLM_SERVER_ERROR", True, "unknown")
TIMEOUT: Final = Verdict("ERR_LLM_TIMEOUT", True, "unknown")
NETWORK: Final = Verdict("ERR_LLM_NETWORK", True, "unknown")
STREAM_CUT: Final = Verdict("ERR_LLM_STREAM_CUT", True, "unknown")
INVALID_RESPONSE: Final = Verdict(
    "ERR_LLM_INVALID_RESPONSE", True, "unknown", "check the base URL, and whether a proxy is in between"
)

_MAX_MESSAGE = 400
_SECRETS: Final = (
    re.compile(r"(?i)\b(bearer|x-api-key|api[-_ ]?key)(['\"]?\s*[:=]?\s*['\"]?)(?=\S*[\d*_-])\S{6,}"),
    re.compile(r"()()\bsk-[\w*.-]{4,}"),
    re.compile(r"(://)()[^/\s@]+(?=@)"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A failed call, as an adapter read it from the SDK's exception or the provider's answer.

    Attributes:
        verdict: what it means.
        message: what happened, in the provider's words where it has some.
        status: the HTTP status, None where there was no answer.
        request_id: the provider's id.
        retry_after: what the provider asked for.
        should_retry: what the provider says about trying again, None where it says nothing.
    """

    verdict: Verdict
    message: str
    status: int | None = None
    request_id: str | None = None
    retry_after: timedelta | None = None
    should_retry: bool | None = None

    def to_error(
        self,
        *,
        provider: str,
        model: str,
        sent: bool,
        began: bool,
        secret: str | None = None,
        partial_text: str = "",
        partial_input_tokens: int | None = None,
        partial_output_tokens: int | None = None,
    ) -> LLMError:
        """Return the error; what was never sent is not billed, and what had begun to arrive was not rejected unbilled.

        Args:
            provider: the adapter's id.
            model: the model that was asked.
            sent: whether a byte of the request left this process.
            began: whether an answer had begun to arrive.
            secret: the credential, which is taken out of the message.
            partial_text, partial_input_tokens, partial_output_tokens: what of the answer had arrived.
        """
        verdict = self.verdict
        billed: Billed = verdict.billed if sent else "no"
        if began:
            # Content that is blocked with `billed=yes` reads as an answer whose usage is final; this one's is not.
            billed = "yes" if partial_text and verdict is not CONTENT_BLOCKED else "unknown"
        text = redact(self.message, secret=secret)
        text = text if len(text) <= _MAX_MESSAGE else text[:_MAX_MESSAGE] + " [...]"
        return LLMError(
            f"{provider}, model {model}: {text}" + (f" ({verdict.remedy})" if verdict.remedy else ""),
            code=verdict.code,
            retryable=verdict.retryable if self.should_retry is None else self.should_retry,
            billed=billed,
            provider=provider,
            model=model,
            retry_after=self.retry_after,
            request_id=self.request_id,
            status=self.status,
            partial_text=partial_text,
            partial_input_tokens=partial_input_tokens,
            partial_output_tokens=partial_output_tokens,
        )


def address_of(url: str) -> str:
    """Return scheme, host and port of a base URL: what may be shown of it, as the rest can hold a password."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port is not None else "")


def is_usable_key(value: str) -> bool:
    """Whether a key can be sent in a header; the error of a client that cannot send it would show it."""
    return bool(value) and value.isascii() and value.isprintable() and " " not in value


def redact(text: str, *, secret: str | None = None) -> str:
    """Return the text without the secret, and without whatever looks like a key."""
    if secret:
        text = text.replace(secret, "[redacted]")
    for pattern in _SECRETS:
        text = pattern.sub(r"\1\2[redacted]", text)
    return text


def shown_cause(error: BaseException, *, secret: str | None) -> BaseException | None:
    """Return an error if it can be shown as the cause of another, None where it or its cause holds a secret."""
    found: BaseException | None = error
    while found is not None:
        shown = f"{found} {vars(found)!r}"
        if redact(shown, secret=secret) != shown:
            return None
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
    return error


def parse_retry_after(headers: Mapping[str, str], *, now: datetime) -> timedelta | None:
    """Read how long to wait: ``retry-after-ms``, or ``retry-after`` in seconds or as a date; never negative.

    Returns:
        None where neither is there or can be read.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return timedelta(milliseconds=milliseconds)
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None:
        return timedelta(seconds=seconds)
    if text is None:
        return None
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(timedelta(0), (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now)


def _number(text: str | None) -> float | None:
    """Return a number from 0 to a year of seconds, None for anything else."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return min(max(value, 0.0), 31_536_000.0) if math.isfinite(value) else None
