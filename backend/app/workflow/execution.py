"""One stay of a run in this process: from the claim of its lease to its end, its parking or its release."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from app.errors import (
    BudgetExceededError,
    BudgetStoppedError,
    CheckpointError,
    LeaseLostError,
    NovaError,
    RunAbortedError,
    RunDeadlineError,
    RunWaitingError,
    StateNotStorableError,
    StoreError,
    WorkflowChangedError,
    WorkflowDefinitionError,
    WorkflowError,
)
from app.log_context import log_ids
from app.stores.checkpoint.contract import RunStatus, Step, WaitingFor
from app.workflow.run import Run
from app.workflow.stop import Stop, StopCause, finish_anyway, first_of
from app.workflow.values import restore, to_json

if TYPE_CHECKING:
    from app.money import Microcents
    from app.workflow.definition import Workflow
    from app.workflow.listener import RunListener
    from app.workflow.writer import RunWriter

__all__ = ["Execution", "RunOutcome"]

_MAX_ERROR_CHARS: Final = 2000
_CANCEL_AGAIN_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """How a run was left.

    Attributes:
        status: ``running`` where it was interrupted on request; it can be resumed.
        result: what the workflow returned; None unless completed.
        error: why it failed, waits or was aborted; None where it did none of these.
        waiting_for: what a waiting run waits for.
        steps_run, steps_replayed: how many steps ran now, and how many were on record.
        cost: of all recorded steps so far, replayed ones included, in microcents.
        unknown_cost: how many recorded steps have a cost that is unknown; they are not in ``cost``.
        unclaimed_steps: recorded steps that the workflow, now completed, did not ask for: its code has changed.
    """

    run_id: str
    status: RunStatus
    result: Any = None
    error: Exception | None = None
    waiting_for: WaitingFor | None = None
    steps_run: int = 0
    steps_replayed: int = 0
    cost: Microcents = 0
    unknown_cost: int = 0
    unclaimed_steps: tuple[str, ...] = ()

    def value(self) -> Any:
        """Return the result of a completed run.

        Raises:
            RunWaitingError, RunAbortedError, WorkflowError: it is not completed.
            Exception: what a failed run failed with.
        """
        if self.status is RunStatus.COMPLETED:
            return self.result
        if self.waiting_for is not None:
            raise RunWaitingError(
                f"run {self.run_id!r} waits for {self.waiting_for}: {self.error}",
                run_id=self.run_id,
                waiting_for=self.waiting_for,
            ) from self.error
        if self.error is not None:
            raise self.error
        raise WorkflowError(f"run {self.run_id!r} was interrupted; resume it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """A workflow that runs under a lease.

    Attributes:
        records: the steps on record that the run did not ask for yet; the run's own mapping.
        time_left: until the deadline, None without one.
    """

    workflow: Workflow[Any]
    inputs: dict[str, object]
    run: Run
    writer: RunWriter
    stop: Stop
    listener: RunListener
    records: dict[str, Step]
    time_left: timedelta | None

    async def conduct(self) -> RunOutcome:
        """Run the workflow until it ends or has to stop, and leave the run accordingly.

        Cancelling it cancels the steps under way; what they had recorded stands. The lease is given up in any case,
        unless it is lost.

        Raises:
            LeaseLostError: somebody took the run over; nothing more is written.
            StoreError, CheckpointError: a store does not answer or refuses; the run stays resumable.
            WorkflowChangedError: the workflow is not the one that was recorded; the run stays as it is.
            Exception: what a listener raised.
        """
        with log_ids(run_id=self.run.id, tenant_id=self.run.tenant_id):
            body = asyncio.ensure_future(self.workflow.function(self.run, **self.inputs))
            try:
                ended = await self._until_end_or_stop(body)
                return await self._leave(body, ended=ended)
            finally:
                # Whatever raised, a cancellation included: nobody keeps the lease of a run that does not go on. Where
                # the run was finished, parked or lost, this does nothing.
                await self.writer.release()

    async def _until_end_or_stop(self, body: asyncio.Future[Any]) -> bool:
        """Return, when nothing of the run is under way any more, whether the workflow ended by itself."""
        loop = asyncio.get_running_loop()
        timer = None
        if self.time_left is not None:
            late = RunDeadlineError(
                f"run {self.run.id!r} passed its deadline; resume it with a later one (what is recorded stands)"
            )
            timer = loop.call_later(
                max(0.0, self.time_left.total_seconds()), self.stop.request, StopCause.DEADLINE, late
            )
        try:
            await first_of(body, self.stop.wait())
            # Steps under way are finished and recorded, and no other begins, unless the stop is one at once.
            self.stop.end()
            await first_of(self.run.idle(), self.stop.wait_at_once())
        finally:
            if timer is not None:
                timer.cancel()
            ended = body.done()
            # However often the caller is cancelled meanwhile: the lease is not given up under a write on its way.
            await finish_anyway(self._end(body))
        return ended

    async def _end(self, body: asyncio.Future[Any]) -> None:
        """Cancel the workflow, and then the steps that it left behind; return when all of them have ended."""
        while not body.done():
            # Asked again after a while: a workflow that swallows its cancellation would else hold the run for ever.
            body.cancel()
            await asyncio.wait([body], timeout=_CANCEL_AGAIN_S)
        await self.run.cut()

    async def _leave(self, body: asyncio.Future[Any], *, ended: bool) -> RunOutcome:
        """Write how the run ended."""
        cause, error = self.stop.cause, self.stop.error
        if cause is StopCause.LOST:
            raise error or LeaseLostError(f"run {self.run.id!r} was taken over", run_id=self.run.id)
        if cause is StopCause.ABORTED:
            return self._outcome(RunStatus.ABORTED, error=error)
        try:
            outcome = await self._written(body, cause, error, ended=ended)
        except RunAbortedError as aborted:
            return self._outcome(RunStatus.ABORTED, error=aborted)
        if cause is StopCause.INTERRUPTED and error is not None:
            raise error
        return outcome

    async def _written(
        self, body: asyncio.Future[Any], cause: StopCause | None, error: Exception | None, *, ended: bool
    ) -> RunOutcome:
        failure = None if body.cancelled() else body.exception()
        # What a workflow returns that swallowed its cancellation is not its result: it stopped at a step without one.
        if ended and not body.cancelled() and failure is None:
            return await self._complete(body.result())
        if cause is StopCause.DEADLINE and error is not None:
            return await self._fail(error)
        if cause is StopCause.PARKED and error is not None:
            return await self._park(error)
        if cause is StopCause.INTERRUPTED or failure is None:
            return self._outcome(RunStatus.RUNNING)
        if isinstance(failure, BudgetExceededError | BudgetStoppedError):
            return await self._park(failure)
        if isinstance(failure, StoreError | CheckpointError | WorkflowChangedError) or not isinstance(
            failure, Exception
        ):
            raise failure
        return await self._fail(failure)

    async def _complete(self, returned: object) -> RunOutcome:
        what = f"the result of run {self.run.id!r}"
        try:
            recorded = to_json(returned, what=what)
            result = restore(self.workflow.returns, recorded, what=what)
            await self.writer.finish(RunStatus.COMPLETED, result=recorded)
        except (StateNotStorableError, WorkflowDefinitionError) as error:
            return await self._fail(error)
        return self._outcome(RunStatus.COMPLETED, result=result, unclaimed_steps=tuple(self.records))

    async def _park(self, error: Exception) -> RunOutcome:
        await self.writer.finish(RunStatus.WAITING, waiting_for="budget")
        self.listener.run_waiting(run_id=self.run.id, waiting_for="budget", reason=str(error))
        return self._outcome(RunStatus.WAITING, error=error, waiting_for="budget")

    async def _fail(self, error: Exception) -> RunOutcome:
        text = str(error) if isinstance(error, NovaError) else f"{type(error).__name__}: {error}"
        # What a database or a terminal cannot take (a lone surrogate, a NUL) must not keep the failure from its record.
        plain = text.encode(errors="backslashreplace").decode().replace("\0", "\\0")
        await self.writer.finish(RunStatus.FAILED, error=plain[:_MAX_ERROR_CHARS])
        return self._outcome(RunStatus.FAILED, error=error)

    def _outcome(self, status: RunStatus, **facts: Any) -> RunOutcome:
        tally = self.run.tally
        return RunOutcome(
            run_id=self.run.id,
            status=status,
            steps_run=tally.steps_run,
            steps_replayed=tally.steps_replayed,
            cost=tally.cost,
            unknown_cost=tally.unknown_cost,
            **facts,
        )
