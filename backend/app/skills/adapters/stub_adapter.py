"""The stub: a deterministic adapter without a network, for work offline, tests and demonstrations."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final

from app.errors import LLMError
from app.skills.adapters.base import Answer, Attempt, BaseAdapter, Piece, Request
from app.skills.adapters.failures import (
    NETWORK,
    OVERLOADED,
    RATE_LIMITED,
    SERVER_ERROR,
    STREAM_CUT,
    Failure,
    Verdict,
)
from app.skills.adapters.request import check_extra, check_messages, check_text, check_tools
from app.skills.adapters.stub_script import FaultKind, StubFault, StubScript
from app.skills.adapters.stub_text import StubText, count_input, count_tokens, pieces_of, write
from app.skills.llm_invoke_v2 import LLMConfig, LLMUsage, Message, ReasoningDelta, TextDelta, ToolCallDelta
from app.skills.model_facts import ModelFacts
from app.skills.models import DEFAULT_MODELS

if TYPE_CHECKING:
    from app.skills.pricing import PriceBook

__all__ = ["StubAdapter"]

_REFUSAL: Final = "I cannot help with that."
_REJECTED: Final[dict[FaultKind, tuple[int, Verdict]]] = {
    "rate_limited": (429, RATE_LIMITED),
    "overloaded": (529, OVERLOADED),
    "server_error": (500, SERVER_ERROR),
}


class StubAdapter(BaseAdapter):
    """Answers with sentences of the prompt, the same for the same prompt and seed, and bills what it read and wrote.

    A token is four bytes of UTF-8; each message costs four tokens more. Every fault of a provider can be played: by
    ``faults``, call after call, or for one call by its extra parameters ``fault`` and ``latency_s``. A fault goes the
    way of a real one: the same errors, the same metrics, the same deadline.

    Args:
        default_model: None is ``stub-1``, which has a price.
        faults: what happens to each of the coming calls.
        prices: returns the price book; None: the environment's.
        sleep: how time passes in a call.
        today: a clock for tests.
    """

    adapter_id = "stub"

    def __init__(
        self,
        *,
        default_model: str | None = None,
        faults: StubScript | Iterable[StubFault] = (),
        prices: Callable[[], PriceBook] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    ) -> None:
        super().__init__(default_model=default_model or DEFAULT_MODELS["stub"], prices=prices, today=today)
        self._script = faults if isinstance(faults, StubScript) else StubScript(faults)
        self._sleep = sleep
        self.calls = 0
        """How many attempts reached the stub."""

    def _encode(self, messages: tuple[Message, ...], config: LLMConfig, *, model: str, facts: ModelFacts) -> Request:
        check_messages(messages, facts=facts, model=model)
        check_tools(messages, config, facts=facts, model=model)
        check_extra(config)
        if config.system is not None:
            check_text(config.system, what="system")
        StubFault.from_extra(config.extra)
        dropped = tuple(name for name in config.extra if name not in facts.bounded_extra)
        if config.service_tier is not None:
            dropped = (*dropped, "service_tier")
        return Request(body={"model": model}, dropped=dropped)

    async def _ask(self, attempt: Attempt) -> Answer:
        fault = await self._receive(attempt)
        if fault.kind == "cut_stream":
            raise attempt.error(Failure(verdict=NETWORK, message="the connection broke before the answer was complete"))
        if fault.kind == "stalled":
            await self._hang()
        return self._answer(attempt, fault, _text_of(attempt, fault))

    async def _tell(self, attempt: Attempt) -> AsyncGenerator[Piece | Answer, None]:
        fault = await self._receive(attempt)
        written = _text_of(attempt, fault)
        attempt.began = True
        for number, piece in enumerate(_streamed(written)):
            await self._break(attempt, fault, before=number)
            yield piece
        await self._break(attempt, fault, before=None)
        yield self._answer(attempt, fault, written)

    async def _receive(self, attempt: Attempt) -> StubFault:
        """Begin a call: let its latency pass, and raise what happens to it before any of its answer."""
        self.calls += 1
        fault = StubFault.from_extra(attempt.config.extra) or self._script.next()
        attempt.sent = True
        attempt.request_id = f"stub-{self.calls}"
        # At least one turn of the loop, so that calls of one task do not keep out the others.
        await self._sleep(fault.latency_s)
        if fault.kind in _REJECTED:
            raise self._rejected(attempt, fault)
        if fault.kind == "disconnect":
            raise attempt.error(Failure(verdict=NETWORK, message="the connection broke before the first byte"))
        if fault.kind == "timeout":
            await self._hang()
        return fault

    async def _break(self, attempt: Attempt, fault: StubFault, *, before: int | None) -> None:
        """Cut or stall a stream if this is the place: before piece ``before``, None is the end of the text."""
        if before is not None and before < fault.after_chunks:
            return
        attempt.usage = LLMUsage(input_tokens=_input(attempt), output_tokens=None, complete=False)
        if fault.kind == "cut_stream":
            raise attempt.error(Failure(verdict=STREAM_CUT, message="the stream was cut"))
        if fault.kind == "stalled":
            await self._hang()

    async def _hang(self) -> None:
        """Wait for ever: the deadline of the call ends it, as it ends a silent provider."""
        while True:
            await self._sleep(3600)

    def _rejected(self, attempt: Attempt, fault: StubFault) -> LLMError:
        status, verdict = _REJECTED[fault.kind]
        wait = None if fault.retry_after_s is None else timedelta(seconds=fault.retry_after_s)
        message = f"HTTP {status}, {fault.kind}: played by the stub"
        return attempt.error(
            Failure(verdict=verdict, message=message, status=status, retry_after=wait, request_id=attempt.request_id)
        )

    def _answer(self, attempt: Attempt, fault: StubFault, written: StubText) -> Answer:
        reasoning = count_tokens(written.reasoning) if written.reasoning else None
        usage = LLMUsage(input_tokens=_input(attempt), output_tokens=written.tokens, reasoning_tokens=reasoning)
        if fault.kind == "missing_usage":
            usage = LLMUsage(input_tokens=None, output_tokens=None, complete=False)
        return Answer(
            content=written.text,
            model=attempt.model,
            finish_reason=written.finish_reason,
            usage=usage,
            request_id=attempt.request_id,
            blocks=written.blocks,
        )


def _streamed(written: StubText) -> Iterator[Piece]:
    """Yield an answer as it is streamed: a thought at once, words, the arguments of each call in two pieces."""
    if written.reasoning:
        yield ReasoningDelta(written.reasoning)
    for piece in pieces_of(written.text):
        yield TextDelta(piece)
    for index, call in enumerate(written.calls):
        arguments = json.dumps(dict(call.arguments))
        half = len(arguments) // 2
        yield ToolCallDelta(index=index, id=call.id, name=call.name, arguments=arguments[:half])
        yield ToolCallDelta(index=index, arguments=arguments[half:])


def _text_of(attempt: Attempt, fault: StubFault) -> StubText:
    if fault.kind == "refusal":
        return StubText(_REFUSAL, "refusal")
    return write(attempt.messages, attempt.config)


def _input(attempt: Attempt) -> int:
    return count_input(attempt.messages, attempt.config)
