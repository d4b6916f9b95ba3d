"""The types of an LLM call, and the adapter that every provider has.

A prompt is a string or a list of messages (:mod:`app.skills.content`). What an adapter or model cannot take is refused
before anything is sent, with a typed error, or left away and named in ``dropped_params`` of the response.
"""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final, Literal, TypeAlias, get_args

from app.errors import InvalidInputError, LLMError
from app.money import Microcents
from app.skills.content import (
    CacheMark,
    ContentBlock,
    DocumentBlock,
    ImageBlock,
    ImageDetail,
    Message,
    Prompt,
    ReasoningBlock,
    Role,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
    as_messages,
)
from app.skills.structured import Schema, check_schema, read_output
from app.skills.tools import Tool, check_tools

__all__ = [
    "DEFAULT_MAX_TOKENS",
    "DEFAULT_TIMEOUT_S",
    "CacheMark",
    "CallContext",
    "ContentBlock",
    "DocumentBlock",
    "FinishReason",
    "ImageBlock",
    "ImageDetail",
    "LLMAdapter",
    "LLMConfig",
    "LLMResponse",
    "LLMUsage",
    "Message",
    "Prompt",
    "ReasoningBlock",
    "ReasoningDelta",
    "ReasoningEffort",
    "Role",
    "Schema",
    "ServiceTier",
    "StreamEnd",
    "StreamEvent",
    "TextBlock",
    "TextDelta",
    "Tool",
    "ToolCallDelta",
    "ToolResultBlock",
    "ToolUseBlock",
    "as_messages",
]

DEFAULT_MAX_TOKENS: Final = 1024
DEFAULT_TIMEOUT_S: Final = 120.0

FinishReason = Literal["stop", "length", "stop_sequence", "tool_use", "refusal", "content_filter", "pause"]
"""Why a response ended, in one vocabulary for all providers."""

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""How much a model may think before it answers; a model without a level takes the nearest one that it has."""

ServiceTier = Literal["auto", "default", "flex", "priority", "fast"]
"""How the provider is to serve the call: as its project is set, at the plain price, cheaper and slower, or dearer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMConfig:
    """How a call is made; None leaves the choice to the provider.

    Attributes:
        model: None is the adapter's default model.
        max_tokens: the most that may be generated, reasoning included; at least 1, never unlimited.
        temperature: 0 to 2.
        top_p: above 0, to 1.
        stop: sequences that end the text; they are not part of it.
        seed: for a repeatable answer, where the provider has such a thing.
        system: instructions in front of the messages.
        timeout_s: the wall-clock deadline of the whole call in seconds, retries and fallbacks included.
        tools: what the model may call; the response then has ``tool_calls``.
        tool_choice: ``auto`` (the model decides), ``required``, ``none``, or the name of the one it must call.
        parallel_tool_calls: False asks for at most one call in an answer.
        schema: what the answer has to satisfy; the response then has ``output``.
        reasoning_effort: how much the model may think.
        cache: the whole prompt may be kept by the provider for the next call that begins like it.
        service_tier: how the call is served, and at which price.
        extra: parameters that are passed through as they are. Where a limit applies, one without a known bound is
            refused before the call.
    """

    model: str | None = None
    max_tokens: int = DEFAULT_MAX_TOKENS
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    system: str | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    tools: tuple[Tool, ...] = ()
    tool_choice: str | None = None
    parallel_tool_calls: bool | None = None
    schema: Schema | None = None
    reasoning_effort: ReasoningEffort | None = None
    cache: CacheMark = False
    service_tier: ServiceTier | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what no provider takes.

        Raises:
            InvalidInputError: which field, its value, and what it may be.
        """
        if isinstance(self.max_tokens, bool) or not isinstance(self.max_tokens, int) or self.max_tokens < 1:
            raise InvalidInputError(f"max_tokens must be an int of at least 1 ({self.max_tokens!r} given)")
        if self.temperature is not None and not 0 <= self.temperature <= 2:
            raise InvalidInputError(f"temperature must be from 0 to 2 ({self.temperature!r} given)")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InvalidInputError(f"top_p must be above 0 and at most 1 ({self.top_p!r} given)")
        if not 0 < self.timeout_s <= 86_400:
            raise InvalidInputError(f"timeout_s must be above 0 and at most 86400 ({self.timeout_s!r} given)")
        if isinstance(self.stop, str) or any(not sequence for sequence in self.stop):
            raise InvalidInputError("stop must be a tuple of strings that are not empty")
        object.__setattr__(self, "stop", tuple(self.stop))
        object.__setattr__(self, "tools", tuple(self.tools))
        if self.tools or self.tool_choice is not None:
            check_tools(self.tools, self.tool_choice)
        if self.schema is not None:
            check_schema(self.schema)
        # A config is made anew at each guard of a call, so what is not set is passed over quickly.
        if self.reasoning_effort is not None:
            _one_of("reasoning_effort", self.reasoning_effort, get_args(ReasoningEffort))
        if self.service_tier is not None:
            _one_of("service_tier", self.service_tier, get_args(ServiceTier))
        if self.cache is not False:
            _one_of("cache", self.cache, (True, "5m", "1h"))


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise InvalidInputError(f"{name} must be one of {', '.join(map(str, allowed))} ({value!r} given)")


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMUsage:
    """What the provider billed. None is unknown, 0 is a fact.

    Attributes:
        input_tokens: everything that was read, cached tokens included.
        output_tokens: everything that was generated, reasoning included.
        cache_read_tokens: the part of the input that came from a cache.
        cache_write_5m_tokens, cache_write_1h_tokens: the parts of the input written to a cache, by how long it lives;
            a provider without such a distinction reports the first.
        reasoning_tokens: the part of the output that was reasoning.
        complete: whether these are the provider's final figures.
        service_tier: the tier that the provider says it used, None where it says nothing.
    """

    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | None = None
    cache_write_5m_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    reasoning_tokens: int | None = None
    complete: bool = True
    service_tier: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMResponse:
    """The answer to a call.

    Attributes:
        content: the text.
        input_tokens, output_tokens: the billed totals, as in ``usage``; None is unknown.
        model: the model that answered, as the provider names it.
        finish_reason: one of :data:`FinishReason`, or the provider's own word where it has none of these.
        latency_ms: from the request to the end of the answer, of the attempt that succeeded.
        usage: the parts; None where the response was built without.
        cost: microcents, rounded up; None is unknown, 0 is free.
        price_version: which price it was computed with.
        provider: the adapter's id.
        request_id: the provider's id.
        blocks: the content in full, where it is more than text.
        output: the validated object of a call with a ``schema``; None without one, or where ``output_error`` says why.
        output_error: why the answer does not satisfy the schema, None where it does or there is none.
        dropped_params: what the model would have rejected and was therefore not sent.
        warnings: what a user should know, such as a model that ends soon.
        replayed: it is the record of an earlier call; nothing was charged now.
        metered: the metrics have counted it.
        hold_id: the budget hold that paid for it, None without a budget.
        fallback_from: why an earlier adapter of the chain was passed over, empty where none was.
    """

    content: str
    input_tokens: int | None
    output_tokens: int | None
    model: str
    finish_reason: str
    latency_ms: float
    usage: LLMUsage | None = None
    cost: Microcents | None = None
    price_version: str | None = None
    provider: str = ""
    request_id: str | None = None
    blocks: tuple[ContentBlock, ...] = ()
    output: Any = None
    output_error: str | None = None
    dropped_params: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    replayed: bool = False
    metered: bool = False
    hold_id: str | None = None
    fallback_from: tuple[str, ...] = ()

    @property
    def usage_complete(self) -> bool:
        """Whether the provider reported its final figures."""
        if self.usage is not None:
            return self.usage.complete
        return self.input_tokens is not None and self.output_tokens is not None

    @property
    def tool_calls(self) -> tuple[ToolUseBlock, ...]:
        """The tools that the model asks for, in its order."""
        return tuple(block for block in self.blocks if isinstance(block, ToolUseBlock))

    @property
    def message(self) -> Message:
        """The answer as the next turn of the conversation."""
        return Message("assistant", self.blocks or self.content)

    def read_as(self, schema: Schema | None) -> LLMResponse:
        """Return it with ``output`` as a schema says; as it is where there is none, or a tool is called instead."""
        if schema is None or self.tool_calls:
            return self
        output, error = read_output(self.content, schema)
        return replace(self, output=output, output_error=error)

    def validated(self) -> Any:
        """Return ``output``.

        Raises:
            LLMError: the answer does not satisfy the schema; it was paid all the same.
        """
        if self.output_error is None:
            return self.output
        raise LLMError(
            f"the answer does not satisfy its schema: {self.output_error} (it ended by {self.finish_reason!r}; raise "
            "max_tokens if that is 'length')",
            code="ERR_LLM_INVALID_OUTPUT",
            retryable=False,
            billed="yes",
            provider=self.provider,
            model=self.model,
            request_id=self.request_id,
            partial_text=self.content,
        )


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the text, as it arrives."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of the reasoning that the model shows, as it arrives."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallDelta:
    """A piece of a call of a tool: the first of each has its ``id`` and ``name``.

    Attributes:
        index: which of the answer's calls, from 0.
        id, name: None in the pieces after the first.
        arguments: the next piece of the arguments' JSON.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The end of a stream: always the last event, with the whole response."""

    response: LLMResponse


StreamEvent: TypeAlias = TextDelta | ReasoningDelta | ToolCallDelta | StreamEnd


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """On whose behalf a call is made.

    Attributes:
        tenant_id: whose budgets, runs and keys.
        run_id, step_id: the step of a workflow, None outside of one.
        idempotency_key: one key, one recorded response; None: every call is made.
        scopes: the budget scopes to charge beside ``run:<run_id>`` and ``tenant``.
        deadline: how much time the caller has left; the shorter of it and the config's timeout holds.
        fence: the token with which the idempotency key is owned, set by the guard that owns it; part of the hold id.
        attempt: which attempt of the call this is, from 1, set by the guard that retries; part of the hold id.
        keep: records a response under the idempotency key and returns it, set by the guard that owns the key. The guard
            that settles calls it first, so that a bill is final only where its response is on record: what a crash in
            between leaves open is charged as uncertain, and the repeat that finds the record settles it. If it raises,
            the response is not on record; only a cancellation without a cause comes once it is.
    """

    tenant_id: str = "default"
    run_id: str | None = None
    step_id: str | None = None
    idempotency_key: str | None = None
    scopes: tuple[str, ...] = ()
    deadline: timedelta | None = None
    fence: int | None = None
    attempt: int = 1
    keep: Callable[[LLMResponse], Awaitable[LLMResponse]] | None = field(default=None, repr=False, compare=False)

    @property
    def all_scopes(self) -> tuple[str, ...]:
        """Every scope of the call, ``tenant`` first."""
        run = (f"run:{self.run_id}",) if self.run_id is not None else ()
        return tuple(dict.fromkeys(("tenant", *run, *self.scopes)))


class LLMAdapter(abc.ABC):
    """Calls one provider, or wraps another adapter. Use it from one event loop at a time."""

    adapter_id: str
    """``claude``, ``openai``, ``stub``; a wrapper has the id of what it wraps first."""

    @property
    @abc.abstractmethod
    def default_model(self) -> str:
        """The model of a call that names none."""

    @abc.abstractmethod
    async def invoke(
        self, prompt: Prompt, config: LLMConfig | None = None, *, context: CallContext | None = None
    ) -> LLMResponse:
        """Make one call.

        Raises:
            LLMError: the provider gave no usable answer.
            InvalidInputError: the prompt is empty.
        """

    @abc.abstractmethod
    def stream(
        self, prompt: Prompt, config: LLMConfig | None = None, *, context: CallContext | None = None
    ) -> AsyncIterator[StreamEvent]:
        """Make one call and yield its text, reasoning and calls of tools as they arrive; the last event is
        :class:`StreamEnd`.

        Close the iterator (``aclose``) to end the call early.

        Raises:
            LLMError: as for ``invoke``; a cut stream has ``partial_text`` and what usage had been reported.
        """

    async def aclose(self) -> None:
        """Let go of connections. A later call opens them again; an adapter without any has nothing to do."""
        return

    def invoke_sync(
        self, prompt: Prompt, config: LLMConfig | None = None, *, context: CallContext | None = None
    ) -> LLMResponse:
        """Make one call from a program that has no event loop.

        Raises:
            RuntimeError: called inside a running event loop; await ``invoke`` there.
        """
        import asyncio

        async def call() -> LLMResponse:
            try:
                return await self.invoke(prompt, config, context=context)
            finally:
                await self.aclose()

        return asyncio.run(call())
