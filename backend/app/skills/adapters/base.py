"""What every adapter does the same way: one attempt under one deadline, priced, metered, with its warnings."""

from __future__ import annotations

import abc
import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from app.errors import LLMError
from app.skills.adapters.failures import STREAM_CUT, TIMEOUT, Failure
from app.skills.adapters.metrics import CallMeter, warmed_up
from app.skills.llm_invoke_v2 import (
    CallContext,
    ContentBlock,
    LLMAdapter,
    LLMConfig,
    LLMResponse,
    LLMUsage,
    Message,
    Prompt,
    ReasoningDelta,
    StreamEnd,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    as_messages,
)
from app.skills.models import ModelFacts, end_of_life_warning, facts

if TYPE_CHECKING:
    from app.skills.pricing import PriceBook

__all__ = ["Answer", "Attempt", "BaseAdapter", "Piece", "Request"]

Piece: TypeAlias = TextDelta | ReasoningDelta | ToolCallDelta
"""What of an answer arrives in a stream before its end."""

_log = logging.getLogger(__name__)
_logged_ends: set[tuple[str, str]] = set()
"""The models whose end was logged: once per process is enough, however many adapters there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What an adapter sends, and what it leaves away because the model rejects it."""

    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a provider answered, read into Nova's terms."""

    content: str
    model: str
    finish_reason: str
    usage: LLMUsage
    request_id: str | None = None
    blocks: tuple[ContentBlock, ...] = ()


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One attempt at a call, and how far it came. Its owner is the one task that makes it.

    Attributes:
        deadline: when it has to be over, by the loop's clock.
        started: when it began, by the adapter's clock.
        sent: whether a byte of the request left this process; before that, nothing can be billed.
        began: whether an answer has begun to arrive.
        received: the text that arrived.
        usage: what the provider had said about usage before the end, None where nothing.
        secret: the credential that was used, to keep it out of errors.
    """

    provider: str
    model: str
    facts: ModelFacts
    messages: tuple[Message, ...]
    config: LLMConfig
    request: Request
    timeout_s: float
    deadline: float
    started: float
    sent: bool = False
    began: bool = False
    received: list[str] = field(default_factory=list)
    usage: LLMUsage | None = None
    request_id: str | None = None
    secret: str | None = field(default=None, repr=False)

    def error(self, failure: Failure) -> LLMError:
        """Return the error for how this attempt failed, with whatever had arrived."""
        return failure.to_error(
            provider=self.provider,
            model=self.model,
            sent=self.sent,
            began=self.began,
            secret=self.secret,
            partial_text="".join(self.received),
            partial_input_tokens=self.usage.input_tokens if self.usage else None,
            partial_output_tokens=self.usage.output_tokens if self.usage else None,
        )

    def timed_out(self) -> LLMError:
        """Return the error for an attempt that passed its deadline."""
        what = "the answer was not complete" if self.began else "there was no answer"
        message = f"{what} after {self.timeout_s:g} s"
        return self.error(Failure(verdict=TIMEOUT, message=message, request_id=self.request_id))


class BaseAdapter(LLMAdapter):
    """The frame around one attempt; a subclass encodes the request, and asks.

    Args:
        default_model: the model of a call that names none.
        prices: returns the price book; called once, in a thread, at the first call. None: the environment's.
        today: the present day, for models that end.
        clock: seconds, for latencies.
    """

    def __init__(
        self,
        *,
        default_model: str,
        prices: Callable[[], PriceBook] | None = None,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._default_model = default_model
        self._prices_source = prices
        self._prices: PriceBook | None = None
        self._today = today
        self._clock = clock

    @property
    def default_model(self) -> str:
        """The model of a call that names none."""
        return self._default_model

    async def invoke(
        self, prompt: Prompt, config: LLMConfig | None = None, *, context: CallContext | None = None
    ) -> LLMResponse:
        """Make one attempt, priced and metered.

        Raises:
            LLMError: the provider gave no usable answer, or not before the deadline.
            InvalidInputError: the prompt is empty or holds what cannot be sent; nothing was sent.
            ConfigurationError: the SDK is not installed, or the price file cannot be read; nothing was sent.
        """
        attempt, prices = await self._begin(prompt, config, context)
        with CallMeter(provider=self.adapter_id, model=attempt.model, prices=prices) as meter:
            try:
                async with asyncio.timeout_at(attempt.deadline):
                    answer = await self._ask(attempt)
            except TimeoutError:
                raise attempt.timed_out() from None
            return meter.answered(self._response(attempt, answer, prices))

    async def stream(
        self, prompt: Prompt, config: LLMConfig | None = None, *, context: CallContext | None = None
    ) -> AsyncIterator[StreamEvent]:
        """Make one attempt and yield the answer as it arrives; arguments and errors as for ``invoke``.

        The deadline holds for the whole stream, the time its reader takes included.
        """
        attempt, prices = await self._begin(prompt, config, context)
        with CallMeter(provider=self.adapter_id, model=attempt.model, prices=prices) as meter:
            began = False
            async with aclosing(self._tell(attempt)) as pieces:
                while not isinstance(piece := await _next(pieces, attempt), Answer):
                    if not began:
                        meter.first_token(self._clock() - attempt.started)
                        began = True
                    if isinstance(piece, TextDelta):
                        attempt.received.append(piece.text)
                    yield piece
            response = meter.answered(self._response(attempt, piece, prices))
        yield StreamEnd(response)

    @abc.abstractmethod
    def _encode(self, messages: tuple[Message, ...], config: LLMConfig, *, model: str, facts: ModelFacts) -> Request:
        """Return what will be sent; refuse what cannot be."""

    @abc.abstractmethod
    async def _ask(self, attempt: Attempt) -> Answer:
        """Make the attempt; raise ``LLMError`` for whatever goes wrong."""

    @abc.abstractmethod
    def _tell(self, attempt: Attempt) -> AsyncGenerator[Piece | Answer, None]:
        """Make the attempt and yield the answer in pieces, the whole of it last; raise as ``_ask``."""

    async def _begin(
        self, prompt: Prompt, config: LLMConfig | None, context: CallContext | None
    ) -> tuple[Attempt, PriceBook]:
        """Check all that can be checked before anything is sent, prices included: a bill must not fail afterwards."""
        config = config or LLMConfig()
        messages = as_messages(prompt)
        model = config.model or self.default_model
        known = facts(self.adapter_id, model)
        request = self._encode(messages, config, model=model, facts=known)
        timeout_s = config.timeout_s
        if context is not None and context.deadline is not None:
            timeout_s = min(timeout_s, context.deadline.total_seconds())
        attempt = Attempt(
            provider=self.adapter_id,
            model=model,
            facts=known,
            messages=messages,
            config=config,
            request=request,
            timeout_s=timeout_s,
            started=self._clock(),
            deadline=asyncio.get_running_loop().time() + timeout_s,
        )
        return attempt, self._prices or await self._load_prices(model)

    async def _load_prices(self, model: str) -> PriceBook:
        """Read the price book in a thread: its tables are large, and lie on a disk."""

        def load() -> PriceBook:
            if self._prices_source is None:
                from app.skills.pricing import get_price_book

                book = get_price_book()
            else:
                book = self._prices_source()
            return warmed_up(book, provider=self.adapter_id, model=model)

        self._prices = await asyncio.to_thread(load)
        return self._prices

    def _response(self, attempt: Attempt, answer: Answer, prices: PriceBook) -> LLMResponse:
        cost = prices.cost(answer.usage, provider=self.adapter_id, model=attempt.model)
        response = LLMResponse(
            content=answer.content,
            input_tokens=answer.usage.input_tokens,
            output_tokens=answer.usage.output_tokens,
            model=answer.model,
            finish_reason=answer.finish_reason,
            latency_ms=(self._clock() - attempt.started) * 1000,
            usage=answer.usage,
            cost=None if cost is None else cost.amount,
            price_version=None if cost is None else cost.price_version,
            provider=self.adapter_id,
            request_id=answer.request_id,
            blocks=answer.blocks,
            dropped_params=attempt.request.dropped,
            warnings=self._warnings(attempt, answer),
        )
        return response.read_as(attempt.config.schema)

    def _warnings(self, attempt: Attempt, answer: Answer) -> tuple[str, ...]:
        found = []
        ends = end_of_life_warning(self.adapter_id, attempt.model, today=self._today())
        if ends is not None:
            found.append(ends)
            if (self.adapter_id, attempt.model) not in _logged_ends:
                _logged_ends.add((self.adapter_id, attempt.model))
                _log.warning("%s", ends)
        if not answer.content and not answer.blocks and answer.finish_reason == "length":
            found.append("the answer is empty: all of max_tokens went into reasoning; raise it")
        return tuple(found)


async def _next(pieces: AsyncGenerator[Piece | Answer, None], attempt: Attempt) -> Piece | Answer:
    """Return the next piece before the deadline.

    The deadline is set anew around each step: around a ``yield`` it would cancel the reader, not the call. A piece
    that is there already brings no await at which it could strike, so it is looked at first.
    """
    if asyncio.get_running_loop().time() >= attempt.deadline:
        raise attempt.timed_out()
    try:
        async with asyncio.timeout_at(attempt.deadline):
            return await anext(pieces)
    except TimeoutError:
        raise attempt.timed_out() from None
    except StopAsyncIteration:
        raise attempt.error(Failure(verdict=STREAM_CUT, message="the stream ended without an answer")) from None
