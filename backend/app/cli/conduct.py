"""Runs under way: a runner on the session's stores, its progress on the screen, and signals that stop it in order."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from app.cli.adapter import guarded_adapter
from app.cli.exits import Ended, ExitCode, Explanation
from app.cli.interrupts import Interrupts, watched
from app.cli.outcome import Left
from app.cli.progress import RunProgress, progress_on
from app.cli.standing import has_flow, needs_program
from app.errors import NovaError, RunBusyError, WorkflowDefinitionError
from app.workflow.engine import Runner

if TYPE_CHECKING:
    from app.cli.session import Session
    from app.stores.budget.contract import WindowUsage
    from app.workflow.engine import ResumeReport, RunOutcome

__all__ = ["Conductor", "conducted"]

T = TypeVar("T")

_TICK_S: Final = 1.0
_AFTER_LEASE_S: Final = 0.2
"""A lease ends by the clock of its store, which may be a little behind."""


class Conductor:
    """What a command does with its runs: it starts or resumes them, waits for busy ones, and knows why they stopped."""

    def __init__(self, session: Session, runner: Runner, interrupts: Interrupts, progress: RunProgress) -> None:
        self.session = session
        self.runner = runner
        self.interrupts = interrupts
        self.progress = progress

    async def left(self, run_id: str, going: Coroutine[Any, Any, RunOutcome]) -> Left:
        """Await a run, and return how it was left, an error of Nova included."""
        try:
            outcome = await going
        except NovaError as error:
            return self._left(run_id, error=error, windows=await self._windows(run_id))
        return self._left(run_id, outcome=outcome, windows=await self._windows(run_id))

    async def left_by(self, report: ResumeReport) -> Left:
        """Return how a run of many was left."""
        windows = await self._windows(report.run_id)
        if isinstance(report.error, WorkflowDefinitionError) and not await self._has_flow(report.run_id):
            return self._left(report.run_id, to_program=True, windows=windows)
        return self._left(report.run_id, outcome=report.outcome, error=report.error, windows=windows)

    async def resume(self, run_id: str, **options: Any) -> RunOutcome:
        """Resume a run; where a process elsewhere holds it, wait once until its lease would end.

        A process of this host that lives is not waited for: it is at work, and the caller is told.

        Raises:
            RunBusyError: somebody is at work on it.
            WorkflowDefinitionError: its code is that of a Python program; or its recorded flow cannot run.
            and those of :meth:`Runner.resume`.
        """
        try:
            return await self.runner.resume(run_id, **options)
        except WorkflowDefinitionError as error:
            if await self._has_flow(run_id):
                raise
            raise WorkflowDefinitionError(needs_program(run_id)) from error
        except RunBusyError as busy:
            if not await self._held_elsewhere(run_id):
                raise
            await self._countdown(busy)
        return await self.runner.resume(run_id, **options)

    def _left(self, run_id: str, **facts: Any) -> Left:
        return Left(run_id=run_id, began=run_id in self.progress.begun, stopped=self.interrupts.exit_code, **facts)

    async def _windows(self, run_id: str) -> Sequence[WindowUsage]:
        try:
            return await self.session.budget().usage(f"run:{run_id}", tenant_id=self.session.tenant)
        except NovaError:
            # What became of the run is told in any case; its money can be asked for when the store answers again.
            return ()

    async def _has_flow(self, run_id: str) -> bool:
        head = await self.session.checkpoints().head(run_id, tenant_id=self.session.tenant)
        return head is not None and has_flow(head)

    async def _held_elsewhere(self, run_id: str) -> bool:
        from app.stores.holder import Holder

        head = await self.session.checkpoints().head(run_id, tenant_id=self.session.tenant)
        return head is not None and head.lease is not None and head.lease.holder.host != Holder.current().host

    async def _countdown(self, busy: RunBusyError) -> None:
        whole = left = busy.expires_in + timedelta(seconds=_AFTER_LEASE_S)
        while left > timedelta(0):
            self.progress.waiting_for_holder(busy.run_id, busy.holder, left, whole)
            step = min(_TICK_S, left.total_seconds())
            if await self.interrupts.wait(timeout_s=step):
                raise Ended(
                    Explanation(
                        exit_code=self.interrupts.exit_code or ExitCode.INTERRUPTED,
                        code="ERR_INTERRUPTED",
                        message=f"no longer waiting for run {busy.run_id}; nothing was changed",
                    )
                )
            left -= timedelta(seconds=step)


async def conducted(
    session: Session, work: Callable[[Conductor], Coroutine[Any, Any, T]], *, run_id: str | None, quiet: bool = False
) -> T:
    """Do ``work`` with a conductor.

    The first SIGINT or SIGTERM lets steps under way finish and be recorded, and no other begins. The second cuts them:
    what is recorded stands, and a call whose bill is not known is charged in full as uncertain.

    Args:
        session: the invocation.
        work: starts or resumes runs.
        run_id: the run; None where there may be many.
        quiet: show no progress.

    Raises:
        Ended: a second signal came.
        and whatever ``work`` raises.
    """
    from app.stores import get_idempotency_store

    async with guarded_adapter(session) as adapter:
        progress = RunProgress(session.err, silent=True) if quiet else progress_on(session.err, many=run_id is None)
        runner = Runner(
            checkpoints=session.checkpoints(),
            budget=session.budget(),
            idempotency=get_idempotency_store(session.settings),
            guarded=adapter,
            tenant_id=session.tenant,
            listener=progress,
        )

        def stop_in_order() -> None:
            progress.say("stopping: steps under way are finished and recorded; once more stops at once", style="yellow")
            runner.drain()
            # A run that gets its lease only now has not heard of it.
            progress.on_started = runner.drain

        def stop_at_once() -> None:
            task.cancel()

        interrupts = Interrupts(on_first=stop_in_order, on_second=stop_at_once)
        task = asyncio.ensure_future(work(Conductor(session, runner, interrupts, progress)))
        try:
            async with watched(interrupts):
                return await task
        except asyncio.CancelledError:
            if not interrupts.at_once:
                raise
            raise Ended(_cut(session, run_id, interrupts.exit_code)) from None
        finally:
            progress.close()


def _cut(session: Session, run_id: str | None, exit_code: ExitCode | None) -> Explanation:
    target = "--all" if run_id is None else shlex.quote(run_id)
    return Explanation(
        exit_code=exit_code or ExitCode.INTERRUPTED,
        code="ERR_INTERRUPTED",
        message="stopped at once: recorded steps stand, and a call that was cut is charged in full, as uncertain",
        remedy=f"to go on: {session.nova} resume {target}",
        document={"run_id": run_id},
    )
