"""A run, as the code of a workflow sees it: steps that are recorded once, one after another or in parallel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar

from app.errors import (
    BudgetExceededError,
    BudgetStoppedError,
    CheckpointStoreUnavailableError,
    ConfigurationError,
    InvalidInputError,
    LeaseLostError,
    RunAbortedError,
    StepConflictError,
    StepFailedError,
    StoreDamagedError,
    StoreError,
    WorkflowChangedError,
    WorkflowDefinitionError,
)
from app.log_context import log_ids
from app.skills.llm_invoke_v2 import CallContext, LLMConfig, LLMResponse, Prompt, Tool, ToolUseBlock
from app.stores.checkpoint.codec import JsonValue
from app.stores.checkpoint.contract import Step
from app.stores.names import check_name
from app.workflow.calls import StepCalls, read_response, recorded_cost, request_fingerprint, response_json
from app.workflow.inputs import INPUTS_PREFIX
from app.workflow.parts import RunParts, Tally
from app.workflow.policies import Retries, RetryPolicy, retry_policy
from app.workflow.steps import StepContext, StepFunction, attempt_once, stable_key
from app.workflow.stop import StopCause, first_of
from app.workflow.tool_loop import MAX_ROUNDS, ToolLoop, ToolOutcome, ToolStep, tools_of
from app.workflow.values import fingerprint, restore, to_json

if TYPE_CHECKING:
    from app.money import Microcents
    from app.workflow.writer import Sleep

__all__ = ["MAX_CONCURRENCY", "Run"]

T = TypeVar("T")

MAX_CONCURRENCY: Final = 256
"""The most steps of one ``map`` that are under way at once."""

_inside_step: ContextVar[str | None] = ContextVar("nova_step", default=None)
"""The step whose function is being called in this context: steps do not nest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work(Generic[T]):
    """A step to be done: the fingerprint of its input, one attempt, and its way to the record and back."""

    fingerprint: str
    attempt: Callable[[StepContext], Awaitable[T]]
    to_record: Callable[[T], JsonValue]
    from_record: Callable[[JsonValue], T]
    policy: RetryPolicy
    scopes: tuple[str, ...] = ()


class _SuspendedError(Exception):
    """The step did not end, because the run stops; it is done when the run is resumed."""


class Run:
    """One run of a workflow.

    A step runs at least once and is recorded exactly once; when the run is resumed, its record is returned and nothing
    runs. When the run has to stop (its budget refuses, its lease is lost, it is interrupted), a step does not return:
    the workflow is cancelled there, after the steps that are under way were recorded.

    A call that does not fit under a limit beside what is held for the run's other steps waits for their bills, and its
    step is attempted again; the run is parked when no other step is left to make room.
    """

    def __init__(self, parts: RunParts) -> None:
        self._parts = parts
        self._used: set[str] = set()
        self._active: set[asyncio.Task[Any]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._step_ended = asyncio.Event()
        self._short_of_room = 0
        self.tally = Tally()

    @property
    def id(self) -> str:
        """The run's id."""
        return self._parts.run_id

    @property
    def tenant_id(self) -> str:
        """The tenant that the run belongs to."""
        return self._parts.tenant_id

    def key(self, step_id: str, *args: object) -> str:
        """Return the key that the step ``step_id`` with these arguments is handed; equal in every attempt."""
        return self._key(step_id, fingerprint(*args, what=f"the input of step {step_id!r}"))

    async def step(
        self,
        step_id: str,
        function: Callable[..., Awaitable[T]],
        *args: object,
        timeout: timedelta | float | None = None,
        retries: Retries = None,
    ) -> T:
        """Call ``function(*args)`` and record what it returns, or return what is on record.

        Args:
            step_id: unique within the run.
            function: an async function whose result is JSON, or a type that JSON can be turned into; then it is
                annotated with it. A parameter annotated ``StepContext`` is given the step's key.
            args: the input, JSON or of such types. Its fingerprint is recorded.
            timeout: of one attempt, in seconds if it is a number.
            retries: how often a failed attempt is repeated; never by default.

        Raises:
            StepFailedError: the function failed in its last attempt; the cause is kept.
            WorkflowDefinitionError: the step id is in use, or the function is not async.
        """
        return await self._do(step_id, self._work(step_id, StepFunction.of(function), args, timeout, retries))

    async def map(
        self,
        step_id: str,
        function: Callable[..., Awaitable[T]],
        items: Iterable[object],
        *,
        concurrency: int = 4,
        timeout: timedelta | float | None = None,
        retries: Retries = None,
    ) -> list[T]:
        """Do a step ``step_id/0``, ``step_id/1``, … for each item, and return the outputs in the order of the items.

        At most ``concurrency`` of them are under way at once. When one fails for good no other begins, those under way
        are finished and recorded, and then the failure of the first one in order is raised.

        Raises:
            StepFailedError, WorkflowDefinitionError: as for :meth:`step`.
            InvalidInputError: ``concurrency`` is not from 1 to ``MAX_CONCURRENCY``.
        """
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or not 1 <= concurrency <= MAX_CONCURRENCY:
            raise InvalidInputError(f"concurrency must be an int from 1 to {MAX_CONCURRENCY} ({concurrency!r} given)")
        work = items if isinstance(items, list | tuple) else list(items)
        called = StepFunction.of(function)
        results: dict[int, T] = {}
        failures: dict[int, Exception] = {}
        positions = iter(range(len(work)))

        async def worker() -> None:
            # The workers share the iterator: each takes the next position, so no more than they are ever under way.
            for position in positions:
                if failures:
                    return
                name = f"{step_id}/{position}"
                try:
                    results[position] = await self._do(
                        name, self._work(name, called, (work[position],), timeout, retries)
                    )
                except Exception as error:  # noqa: BLE001 - raised below, when the others have ended
                    failures[position] = error

        self._check_id(step_id)
        self._tell(self._parts.listener.map_started, step_id=step_id, count=len(work))
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(work))):
                group.create_task(worker())
        if failures:
            raise failures[min(failures)]
        return [results[position] for position in range(len(work))]

    async def llm(
        self,
        step_id: str,
        prompt: Prompt,
        config: LLMConfig | None = None,
        *,
        tools: Sequence[Callable[..., Awaitable[Any]] | Tool] = (),
        max_rounds: int = MAX_ROUNDS,
        max_cost: Microcents | None = None,
        scopes: tuple[str, ...] = (),
        timeout: timedelta | float | None = None,
        retries: Retries = None,
    ) -> LLMResponse:
        """Make a guarded LLM call and record its response as the step.

        It is paid by the run (scope ``run:<id>``), the tenant and ``scopes``. Its key is the step's, so that a call
        whose response was received but not recorded before a crash is not made again.

        With ``tools`` the model is asked again with their results, until it asks for none. Each round is a step
        (``step_id/1``, …), and so is each tool (``step_id/1/0-name``, …): async functions, described to the model by
        their names, docstrings and type hints. A tool that raises ``ToolError`` tells the model so; any other error is
        a failure of its step. A parameter annotated ``StepContext`` is given the tool's key, and its ``llm``.

        Args:
            tools: what the model may call, beside what ``config.tools`` only describes.
            max_rounds: how often the model is asked at most.
            max_cost: what all rounds may cost, the calls that tools make included: a limit of the scope
                ``run:<id>/<step_id>``, which is set at the beginning and can be raised like any other.
            timeout, retries: of each step.

        Returns:
            The recorded response: the same when the step runs and when it is replayed.

        Raises:
            StepFailedError: no provider gave an answer, or the call cannot be made, or a tool failed; the cause says
                which.
            ToolRoundsError: the model still asks for tools in the last round.
            ConfigurationError: ``max_cost`` without a budget store.
        """
        if not tools and max_cost is None:
            return await self._ask(step_id, prompt, config, scopes=scopes, timeout=timeout, retries=retries)
        if max_rounds < 1:
            raise InvalidInputError(f"max_rounds must be at least 1 ({max_rounds} given)")
        self._check_id(step_id)
        if max_cost is not None:
            scopes = (*scopes, await self._limited(step_id, max_cost))

        async def ask(round_id: str, messages: Prompt, round_config: LLMConfig) -> LLMResponse:
            return await self._ask(round_id, messages, round_config, scopes=scopes, timeout=timeout, retries=retries)

        async def use(tool_id: str, tool: ToolStep, call: ToolUseBlock) -> ToolOutcome:
            function, args = StepFunction.of(tool.use), (call.name, dict(call.arguments))
            return await self._do(
                tool_id, replace(self._work(tool_id, function, args, timeout, retries), scopes=scopes)
            )

        loop = ToolLoop(run_id=self.id, step_id=step_id, steps=tools_of(tools), max_rounds=max_rounds, ask=ask, run=use)
        return await loop.conduct(prompt, config or LLMConfig())

    async def _limited(self, step_id: str, max_cost: Microcents) -> str:
        """Return the scope of a call with tools, limited; a limit that is there, or was changed meanwhile, stays."""
        budget, scope = self._parts.budget, f"run:{self.id}/{step_id}"
        if budget is None:
            raise ConfigurationError("max_cost needs a budget store: pass budget= to the Runner")
        begun = f"{step_id}/1" in self._parts.records
        if not begun and not await budget.limits(scope=scope, tenant_id=self.tenant_id):
            await budget.set_limit(scope, max_cost, window="total", tenant_id=self.tenant_id)
        return scope

    async def _ask(
        self,
        step_id: str,
        prompt: Prompt,
        config: LLMConfig | None,
        *,
        scopes: tuple[str, ...],
        timeout: timedelta | float | None,
        retries: Retries,
    ) -> LLMResponse:
        """Make one call as a step."""

        async def call(context: StepContext) -> LLMResponse:
            return await context.calls.invoke_once(prompt, config, scopes=scopes)

        function = StepFunction(function=call, name="llm", returns=None, context_parameter="context")
        limit = _duration(timeout)
        work = _Work(
            fingerprint=request_fingerprint(prompt, config),
            attempt=lambda context: attempt_once(function, (), context=context, timeout=limit),
            to_record=response_json,
            from_record=lambda value: read_response(value, schema=None if config is None else config.schema),
            policy=retry_policy(retries),
        )
        return await self._do(step_id, work)

    # --- what the runner uses -----------------------------------------------------------------------------------

    async def idle(self) -> None:
        """Return when no step is under way."""
        await self._idle.wait()

    async def cut(self) -> None:
        """Cancel the steps that are still under way and wait for their ends."""
        while self._active:
            tasks = set(self._active)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    # --- one step -----------------------------------------------------------------------------------------------

    def _work(
        self,
        step_id: str,
        function: StepFunction[T],
        args: tuple[object, ...],
        timeout: timedelta | float | None,
        retries: Retries,
    ) -> _Work[T]:
        limit = _duration(timeout)
        return _Work(
            fingerprint=fingerprint(*args, what=f"the input of step {step_id!r}"),
            attempt=lambda context: attempt_once(function, args, context=context, timeout=limit),
            to_record=lambda value: to_json(value, what=f"the output of step {step_id!r}"),
            from_record=lambda value: restore(function.returns, value, what=f"the output of step {step_id!r}"),
            policy=retry_policy(retries),
        )

    async def _do(self, step_id: str, work: _Work[T]) -> T:
        self._check_id(step_id)
        if step_id in self._used:
            raise WorkflowDefinitionError(f"step {step_id!r} was asked for twice; each step of a run needs its own id")
        self._used.add(step_id)
        record = self._parts.records.pop(step_id, None)
        try:
            if record is not None:
                return await self._replay(record, work)
            if not self._parts.stop.requested:
                with self._under_way(step_id), log_ids(step_id=step_id):
                    return await self._perform(step_id, work)
        except _SuspendedError:
            pass
        return await _never()

    async def _replay(self, record: Step, work: _Work[T]) -> T:
        changed = record.fingerprint not in {"", work.fingerprint}
        if changed and not self._parts.allow_changed:
            self._parts.stop.request(
                StopCause.INTERRUPTED,
                WorkflowChangedError(
                    f"step {record.step_id!r} of run {self.id!r} was recorded with another input than the workflow "
                    "gives it now. Resume with the code that began the run, or allow the change"
                ),
            )
            raise _SuspendedError
        value = work.from_record(record.output)
        cost = recorded_cost(record.meta)
        self.tally.add(cost, replayed=True)
        self._tell(self._parts.listener.step_replayed, step_id=record.step_id, cost=cost)
        await asyncio.sleep(0)  # a long replay lets the heartbeat and other runs take their turns
        return value

    async def _perform(self, step_id: str, work: _Work[T]) -> T:
        """Attempt the step until it is on record.

        Raises:
            StepFailedError: it failed for good.
            _SuspendedError: the run stops.
        """
        key = self._key(step_id, work.fingerprint)
        calls = self._calls(step_id, work, key)
        started = asyncio.get_running_loop().time()
        attempt = 0
        while True:
            attempt += 1
            self._tell(self._parts.listener.step_started, step_id=step_id, attempt=attempt)
            calls.begin_attempt()
            try:
                output = work.to_record(await work.attempt(self._context(step_id, key, calls, attempt)))
                value = work.from_record(output)
                spent = await calls.meta()
                break
            except Exception as error:  # noqa: BLE001 - judged below, and raised with its cause
                if isinstance(error, BudgetExceededError) and error.held and await self._room_was_made():
                    attempt -= 1
                    continue
                await self._after_failure(step_id, work.policy, error, attempt=attempt)
        elapsed_ms = round((asyncio.get_running_loop().time() - started) * 1000)
        meta: dict[str, JsonValue] = {"attempts": attempt, "ms": elapsed_ms, **spent}
        await self._record(step_id, output, work, meta=meta)
        cost = recorded_cost(meta)
        self.tally.add(cost, replayed=False)
        self._tell(self._parts.listener.step_recorded, step_id=step_id, attempts=attempt, cost=cost)
        return value

    async def _room_was_made(self) -> bool:
        """Wait until another step of this run has ended, whose hold may have been what a call did not fit beside.

        Returns:
            False where every step under way waits like this one: then nothing will make room, and the run is parked.
        """
        self._short_of_room += 1
        try:
            if self._short_of_room == len(self._active):
                return False
            await first_of(self._step_ended.wait(), self._parts.stop.wait())
            return not self._parts.stop.requested
        finally:
            self._short_of_room -= 1

    async def _after_failure(self, step_id: str, policy: RetryPolicy, error: Exception, *, attempt: int) -> None:
        """Return when the next attempt may begin, or raise what ends the step."""
        stop = self._parts.stop
        if isinstance(error, BudgetExceededError | BudgetStoppedError):
            stop.request(StopCause.PARKED, error)
        elif policy.retries(error, attempt=attempt) and not stop.requested:
            delay_s = policy.delay_s(error, attempt=attempt, random=self._parts.random)
            self._tell(
                self._parts.listener.step_retrying,
                step_id=step_id,
                attempt=attempt,
                delay=timedelta(seconds=delay_s),
                error=error,
            )
            await first_of(_sleeping(self._parts.sleep, delay_s), stop.wait())
        elif isinstance(error, StoreError):
            # A store that is down or damaged is not the fault of the run: it stays resumable.
            stop.request(StopCause.INTERRUPTED, error)
        elif not stop.requested:
            self._tell(self._parts.listener.step_failed, step_id=step_id, attempts=attempt, error=error)
            times = "" if attempt == 1 else f" after {attempt} attempts"
            raise StepFailedError(
                f"step {step_id!r} failed{times}: {type(error).__name__}: {error}",
                run_id=self.id,
                step_id=step_id,
                attempts=attempt,
            ) from error
        if stop.requested:
            raise _SuspendedError from error

    async def _record(self, step_id: str, output: JsonValue, work: _Work[T], *, meta: dict[str, JsonValue]) -> None:
        try:
            await self._parts.writer.append(step_id, output, fingerprint=work.fingerprint, meta=meta)
        except (LeaseLostError, RunAbortedError, StepConflictError, CheckpointStoreUnavailableError) as error:
            # The writer has requested the stop, with the cause.
            raise _SuspendedError from error
        except StoreDamagedError as error:
            self._parts.stop.request(StopCause.INTERRUPTED, error)
            raise _SuspendedError from error

    def _calls(self, step_id: str, work: _Work[T], key: str) -> StepCalls:
        return StepCalls(
            self._parts.adapter,
            context=CallContext(
                tenant_id=self.tenant_id,
                run_id=self.id,
                step_id=step_id,
                idempotency_key=key,
                scopes=work.scopes,
            ),
            time_left=self._parts.time_left,
            budget=self._parts.budget,
            resumed=self._parts.resumed,
            limit=self._parts.policy.step,
        )

    def _context(self, step_id: str, key: str, calls: StepCalls, attempt: int) -> StepContext:
        return StepContext(
            tenant_id=self.tenant_id,
            run_id=self.id,
            step_id=step_id,
            key=key,
            attempt=attempt,
            calls=calls,
        )

    def _key(self, step_id: str, input_fingerprint: str) -> str:
        return stable_key(tenant_id=self.tenant_id, run_id=self.id, step_id=step_id, fingerprint=input_fingerprint)

    def _check_id(self, step_id: str) -> None:
        check_name(step_id, what="the step id")
        if step_id.startswith(INPUTS_PREFIX):
            raise InvalidInputError(
                f"step {step_id!r}: ids that begin with {INPUTS_PREFIX!r} belong to the run's inputs"
            )
        outer = _inside_step.get()
        if outer is not None:
            raise WorkflowDefinitionError(
                f"step {step_id!r} was asked for inside of step {outer!r}; steps do not nest, ask in the workflow"
            )

    @contextmanager
    def _under_way(self, step_id: str) -> Iterator[None]:
        task = asyncio.current_task()
        assert task is not None
        token = _inside_step.set(step_id)
        self._active.add(task)
        self._idle.clear()
        try:
            yield
        finally:
            _inside_step.reset(token)
            self._active.discard(task)
            # Whoever waits for an end wakes up; who waits from now on waits for the next one.
            self._step_ended.set()
            self._step_ended = asyncio.Event()
            if not self._active:
                self._idle.set()

    def _tell(self, event: Callable[..., None], **facts: object) -> None:
        """Tell the listener; when it fails, the run stops in order and its error is raised to the one who listens."""
        try:
            event(run_id=self.id, **facts)
        except Exception as error:  # noqa: BLE001 - handed to the stop, which raises it from the runner
            self._parts.stop.request(StopCause.INTERRUPTED, error)


def _duration(timeout: timedelta | float | None) -> timedelta | None:
    if timeout is None:
        return None
    duration = timeout if isinstance(timeout, timedelta) else timedelta(seconds=timeout)
    if duration <= timedelta(0):
        raise InvalidInputError(f"a timeout must be positive ({timeout!r} given)")
    return duration


async def _sleeping(sleep: Sleep, delay_s: float) -> None:
    await sleep(delay_s)


async def _never() -> NoReturn:
    """Wait until cancelled: the run is stopping, and its workflow goes no further."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("unreachable: nobody completes this future")
