"""Metering of LLM calls: every attempt counted once, by whoever saw it first.

The adapters of Nova meter themselves; ``track_llm_usage`` does it for an adapter of your own, ``track_llm_response``
for a response that came some other way. A response that was counted says so (``metered``) and is not counted again.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, cast, get_args

from app.errors import LLMError
from app.money import microcents_to_cents
from app.skills.llm_invoke_v2 import LLMConfig, LLMResponse, LLMUsage

if TYPE_CHECKING:
    from app.metrics import LLMMetrics
    from app.skills.pricing import PriceBook

__all__ = ["CallMeter", "Status", "show_at_zero", "track_llm_response", "track_llm_usage", "warmed_up"]

Status = Literal["success", "error", "rate_limited", "timeout", "cancelled", "refused"]
"""How an invocation ended, as the metrics say it."""

OTHER_MODEL: Final = "other"
"""The label of every model without a price: names that users make up must not become time series without end."""

_REFUSED: Final = frozenset({"refusal", "content_filter"})
_STATUS_BY_CODE: Final[dict[str, Status]] = {
    "ERR_LLM_RATE_LIMITED": "rate_limited",
    "ERR_LLM_TIMEOUT": "timeout",
    "ERR_LLM_CONTENT_BLOCKED": "refused",
}
_PARTS: Final = {
    "cache_read": "cache_read_tokens",
    "cache_write_5m": "cache_write_5m_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "reasoning": "reasoning_tokens",
}

_log = logging.getLogger(__name__)
_shown: set[tuple[str, str]] = set()
"""The models whose series are there: asking for eleven of them before each call would cost as much as the call."""

P = ParamSpec("P")


class CallMeter:
    """Counts one call, however it ends: by :meth:`answered`, or as a context manager by what was raised inside.

    Args:
        provider: the adapter's id.
        model: the name that was passed.
        prices: tell whether the model has a label of its own, and what a response cost that does not say so.
    """

    __slots__ = ("_counted", "_model", "_prices", "_provider")

    def __init__(self, *, provider: str, model: str, prices: PriceBook) -> None:
        self._provider = provider
        self._model = model
        self._prices = prices
        self._counted = False

    def answered(self, response: LLMResponse, *, model: str | None = None) -> LLMResponse:
        """Count a response, unless it was counted before or is the record of an earlier call; return it marked.

        Args:
            response: what was answered.
            model: the name to count it by where none was passed.
        """
        self._counted = True
        if response.metered or response.replayed:
            return response
        _count_response(response, provider=self._provider, model=model or self._model, prices=self._prices)
        return replace(response, metered=True)

    def first_token(self, seconds: float) -> None:
        """Observe how long the first piece of a stream took."""
        labels = (self._provider, _model_label(self._provider, self._model, self._prices))
        _families().first_token.labels(*labels).observe(seconds)

    def __enter__(self) -> CallMeter:
        show_at_zero(self._provider, _model_label(self._provider, self._model, self._prices))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if error is not None and not self._counted:
            labels = (self._provider, _model_label(self._provider, self._model, self._prices))
            _families().invocations.labels(*labels, _status_of(error)).inc()


def track_llm_usage(fn: Callable[P, Awaitable[LLMResponse]]) -> Callable[P, Awaitable[LLMResponse]]:
    """Meter an adapter's ``async def invoke(self, prompt, config)``: outcome, tokens, cost and duration of every call.

    The provider is the adapter's ``adapter_id``; the model is ``config.model``, else the adapter's ``default_model``,
    else what the response names. The response that is returned is marked as metered.
    """

    @functools.wraps(fn)
    async def invoke(*args: P.args, **kwargs: P.kwargs) -> LLMResponse:
        adapter: Any = args[0] if args else None
        config = kwargs.get("config", args[2] if len(args) > 2 else None)
        asked = config.model if isinstance(config, LLMConfig) else None
        model = asked or getattr(adapter, "default_model", None)
        provider = str(getattr(adapter, "adapter_id", OTHER_MODEL))
        prices = await _load_price_book(provider, model or OTHER_MODEL)
        with CallMeter(provider=provider, model=model or OTHER_MODEL, prices=prices) as meter:
            response = await fn(*args, **kwargs)
            return meter.answered(response, model=model or response.model)

    return cast("Callable[P, Awaitable[LLMResponse]]", invoke)


def track_llm_response(
    response: LLMResponse,
    *,
    adapter_id: str | None = None,
    model: str | None = None,
    prices: PriceBook | None = None,
) -> LLMResponse:
    """Meter one response; return it marked as metered, or unchanged if it was counted before or is a replay.

    Args:
        response: what the provider answered.
        adapter_id: None is the response's ``provider``.
        model: the name that was asked for; None is the one that the response names.
        prices: None is the price book of the environment.
    """
    if prices is None:
        from app.skills.pricing import get_price_book

        prices = get_price_book()
    meter = CallMeter(
        provider=adapter_id or response.provider or OTHER_MODEL, model=model or response.model, prices=prices
    )
    return meter.answered(response)


def show_at_zero(provider: str, model: str) -> None:
    """Let the series of a model exist before its first call ends: Prometheus sees no increase in one born above zero.

    Args:
        provider: the adapter's id.
        model: the name that is priced, or ``other``.
    """
    if (provider, model) in _shown:
        return
    families = _families()
    families.cost_cents.labels(provider, model)
    for token_type in ("input", "output"):
        families.tokens.labels(provider, model, token_type)
    for quantity in ("tokens", "cost"):
        families.unknown.labels(provider, model, quantity)
    for status in get_args(Status):
        families.invocations.labels(provider, model, status)
    _shown.add((provider, model))


def warmed_up(book: PriceBook, *, provider: str, model: str) -> PriceBook:
    """Return the book after a first price was looked up and the metrics were built.

    Both read files at their first use; call this in a thread, so that the event loop need not wait for a disk.
    """
    _families()
    book.is_priced(provider=provider, model=model)
    return book


def _count_response(response: LLMResponse, *, provider: str, model: str, prices: PriceBook) -> None:
    families = _families()
    labels = (provider, _model_label(provider, model, prices))
    status: Status = "refused" if response.finish_reason in _REFUSED else "success"
    families.invocations.labels(*labels, status).inc()
    _log.info(
        "%s answered a call of %s",
        provider,
        model,
        extra={
            "provider": provider,
            "model": model,
            "status": status,
            "input_tokens": response.input_tokens,
            "output_tokens": response.output_tokens,
            "cost_microcents": response.cost,
            "latency_ms": round(response.latency_ms, 3),
            "request_id": response.request_id,
        },
    )
    families.duration.labels(*labels).observe(response.latency_ms / 1000)
    usage = response.usage or LLMUsage(input_tokens=response.input_tokens, output_tokens=response.output_tokens)
    read, written = usage.input_tokens, usage.output_tokens
    if usage.complete and read is not None and written is not None and min(read, written) >= 0:
        families.tokens.labels(*labels, "input").inc(read)
        families.tokens.labels(*labels, "output").inc(written)
        for part, field in _PARTS.items():
            tokens = getattr(usage, field)
            if tokens is not None and tokens > 0:
                families.token_parts.labels(*labels, part).inc(tokens)
    else:
        families.unknown.labels(*labels, "tokens").inc()
    cost = response.cost
    if cost is None:
        priced = prices.cost(usage, provider=provider, model=model)
        cost = None if priced is None else priced.amount
    if cost is None:
        families.unknown.labels(*labels, "cost").inc()
    else:
        families.cost_cents.labels(*labels).inc(float(microcents_to_cents(cost)))


def _status_of(error: BaseException) -> Status:
    if isinstance(error, LLMError):
        return _STATUS_BY_CODE.get(error.code, "error")
    # What ends a call from outside, GeneratorExit of a stream included, is no Exception.
    return "error" if isinstance(error, Exception) else "cancelled"


def _model_label(provider: str, model: str, prices: PriceBook) -> str:
    return model if prices.is_priced(provider=provider, model=model) else OTHER_MODEL


def _families() -> LLMMetrics:
    from app.metrics import llm_metrics

    return llm_metrics()


async def _load_price_book(provider: str, model: str) -> PriceBook:
    """Return the price book of the environment, ready for use."""
    import asyncio

    from app.skills.pricing import get_price_book

    def load() -> PriceBook:
        return warmed_up(get_price_book(), provider=provider, model=model)

    return await asyncio.to_thread(load)
