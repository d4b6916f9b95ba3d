"""One step: its function, what the function is handed, and its attempts."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import types
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import ref

from app.errors import StepTimeoutError, WorkflowDefinitionError
from app.skills.llm_invoke_v2 import LLMConfig, LLMResponse, Prompt
from app.workflow.values import annotation_of, plain_function

if TYPE_CHECKING:
    from app.workflow.calls import StepCalls

__all__ = ["StepContext", "StepFunction", "attempt_once", "stable_key"]

T = TypeVar("T")

_READABLE_BYTES = 80
_KNOWN = "__nova_signature__"


def stable_key(*, tenant_id: str, run_id: str, step_id: str, fingerprint: str) -> str:
    """Return the idempotency key of a step: equal in every attempt, different for every other run, step or input.

    It begins with the run and the step, so that people can read it; what makes it unique is the digest at its end. It
    is short enough for holds and calls to be named after it.
    """
    digest = hashlib.sha256()
    for part in (tenant_id, run_id, step_id, fingerprint):
        digest.update(len(part.encode()).to_bytes(8, "big") + part.encode())
    readable = [part.encode()[:_READABLE_BYTES].decode(errors="ignore") for part in (run_id, step_id)]
    return "/".join([*readable, digest.hexdigest()[:24]])


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContext:
    """What a step's function gets when one of its parameters is annotated with this class.

    Attributes:
        key: stable across attempts and crashes; hand it to whatever can tell a repeated request by it.
        attempt: 1 for the first of this process; a crash in between is not counted.
    """

    tenant_id: str
    run_id: str
    step_id: str
    key: str
    attempt: int
    calls: StepCalls

    async def llm(
        self,
        prompt: Prompt,
        config: LLMConfig | None = None,
        *,
        name: str = "",
        scopes: tuple[str, ...] = (),
    ) -> LLMResponse:
        """Make a guarded call on the run's budget; what it costs is recorded with the step.

        The same call in a later attempt gives the recorded response and costs nothing. Where a new answer is wanted,
        as when the first was of no use, give each its own ``name``, such as ``f"try {context.attempt}"``.

        Raises:
            BudgetExceededError: a limit refused it; the run is parked if the step does not handle that.
            LLMError: no provider gave an answer.
        """
        return await self.calls.invoke(prompt, config, name=name, scopes=scopes)


@dataclass(frozen=True, slots=True)
class _Signature:
    """What a step needs to know of a plain function; to resolve its annotations takes as long as to record a step."""

    function: ref[types.FunctionType]
    returns: object
    context_parameter: str | None

    @classmethod
    def of(cls, plain: types.FunctionType) -> _Signature:
        """Look at a function, or at what is known of it.

        That lies with the function, because the type that it returns may refer to it: in a table of this module such
        functions would keep themselves alive, a new one for each run.
        """
        known: _Signature | None = plain.__dict__.get(_KNOWN)
        # A decorator may have copied it to a function of its own.
        if known is None or known.function() is not plain:
            known = plain.__dict__[_KNOWN] = cls._seen(plain)
        return known

    @classmethod
    def _seen(cls, plain: types.FunctionType) -> _Signature:
        context = None
        for name, annotation in plain.__annotations__.items():
            text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
            if name != "return" and text.rpartition(".")[2] == StepContext.__name__:
                context = name
        return cls(ref(plain), annotation_of(plain, "return"), context)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFunction(Generic[T]):
    """A function as a step calls it.

    Attributes:
        returns: its return annotation, None where it has none.
        context_parameter: the parameter that takes the :class:`StepContext`, None where it asks for none.
    """

    function: Callable[..., Awaitable[T]]
    name: str
    returns: object
    context_parameter: str | None

    @classmethod
    def of(cls, function: Callable[..., Awaitable[T]]) -> StepFunction[T]:
        """Look at a function; at one that many steps call, only once.

        Raises:
            WorkflowDefinitionError: it is not callable, or its return annotation cannot be resolved.
        """
        plain = plain_function(function)
        known = _Signature.of(plain)
        return cls(
            function=function,
            name=plain.__qualname__,
            returns=known.returns,
            context_parameter=known.context_parameter,
        )

    async def __call__(self, *args: object, context: StepContext) -> T:
        """Call it, with the context where it asks for one."""
        extra: dict[str, Any] = {} if self.context_parameter is None else {self.context_parameter: context}
        awaitable = self.function(*args, **extra)
        if not inspect.isawaitable(awaitable):
            raise WorkflowDefinitionError(
                f"the step function {self.name!r} is not async: write `async def`, and await asyncio.to_thread(...) in "
                "it for what blocks"
            )
        return await awaitable


async def attempt_once(
    function: StepFunction[T], args: tuple[object, ...], *, context: StepContext, timeout: timedelta | None
) -> T:
    """Call a step's function once, within its timeout.

    Raises:
        StepTimeoutError: it did not end in time and was cancelled.
        Exception: what the function raised.
    """
    limit = None if timeout is None else timeout.total_seconds()
    scope = asyncio.timeout(limit)
    try:
        async with scope:
            return await function(*args, context=context)
    except TimeoutError as error:
        if not scope.expired():
            raise
        raise StepTimeoutError(f"step {context.step_id!r} did not end within {limit:g} s") from error
