"""The engine: starts workflows, records each of their steps, and resumes them where they were.

::

    @workflow(version="1")
    async def brief(run: Run, documents: list[Document]) -> str:
        notes = await run.map("notes", summarise, documents, concurrency=4)   # steps notes/0, notes/1, ...
        return await run.step("brief", write, notes)

    runner = Runner(checkpoints=..., budget=..., idempotency=..., adapter=...)
    outcome = await runner.start(brief, {"documents": read_documents("papers")}, budget=parse_usd("$0.50"))
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from app.errors import (
    ConfigurationError,
    HoldConflictError,
    NovaError,
    RunExistsError,
    RunFinishedError,
    RunNotFoundError,
    WorkflowChangedError,
    WorkflowDefinitionError,
)
from app.stores.budget.contract import HoldState
from app.stores.checkpoint.contract import DEFAULT_LEASE, CheckpointStorage, RunFilter, RunHead, RunStatus, Step
from app.stores.holder import Holder
from app.stores.names import DEFAULT_TENANT
from app.workflow.ceiling import RunCeiling
from app.workflow.definition import Workflow, workflow
from app.workflow.documents import Document
from app.workflow.execution import Execution, RunOutcome
from app.workflow.inputs import StartRecord, input_parts, read_inputs
from app.workflow.leases import LeaseKeeper
from app.workflow.listener import RunListener
from app.workflow.parts import RunParts
from app.workflow.policies import NO_POLICY, RunLimits, SpendPolicy
from app.workflow.run import Run
from app.workflow.steps import StepContext
from app.workflow.stop import Stop, StopCause
from app.workflow.values import fingerprint
from app.workflow.writer import RunWriter, Sleep

if TYPE_CHECKING:
    from app.money import Microcents
    from app.skills.llm_invoke_v2 import LLMAdapter
    from app.stores.budget.contract import BudgetStore
    from app.stores.idempotency.contract import IdempotencyStore

__all__ = [
    "CRASH_LIMIT",
    "Document",
    "ResumeReport",
    "Run",
    "RunListener",
    "RunOutcome",
    "Runner",
    "StepContext",
    "Workflow",
    "new_run_id",
    "workflow",
]

CRASH_LIMIT: Final = 5
"""How often in a row a process may die of a run, without a step recorded, before it is not resumed by itself."""

_PAGE: Final = 100
_HOLDS_PAGE: Final = 1000
_ORPHANED: Final = '{"outcome": "unknown", "error": "its run was taken up by another process"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeReport:
    """What ``resume_all`` did with one run: its outcome, or the error that kept it from being resumed."""

    run_id: str
    outcome: RunOutcome | None
    error: NovaError | None


def utc_now() -> datetime:
    """Return the host's time."""
    return datetime.now(UTC)


def new_run_id(name: str, *, now: datetime) -> str:
    """Return a new id: the workflow's name, the time, and enough randomness that nobody else has it."""
    return f"{name[:60]}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"


class Runner:
    """Runs workflows on a set of stores and one adapter. It is used from one event loop at a time.

    Args:
        checkpoints: where runs are recorded.
        budget: where spending is counted; needed for LLM calls and for budgets of runs.
        idempotency: where responses are recorded by key; needed for LLM calls.
        adapter: the bare adapter, or its name; None takes the one that the environment chooses. It is guarded at the
            first call (budget, retries, idempotency).
        guarded: an adapter that is guarded already, on the same stores; used in place of ``adapter``.
        workflows: those that ``resume`` finds by their name. Runs of flow files need none.
        listener: is told what happens.
        holder: who holds the leases: this process.
        tenant_id: whose runs.
        policy: what steps, runs, agents and the tenant may spend; set as limits where there are none yet.
        lease: how long a run stays this process's without a sign of life; a sign is given every third of it.
        clock, sleep, random: the time in UTC, waiting between retries in seconds, and a number from 0 to 1.
    """

    def __init__(
        self,
        *,
        checkpoints: CheckpointStorage,
        budget: BudgetStore | None = None,
        idempotency: IdempotencyStore | None = None,
        adapter: LLMAdapter | str | None = None,
        guarded: LLMAdapter | None = None,
        workflows: Iterable[Workflow[Any]] = (),
        listener: RunListener | None = None,
        holder: Holder | None = None,
        tenant_id: str = DEFAULT_TENANT,
        policy: SpendPolicy = NO_POLICY,
        lease: timedelta = DEFAULT_LEASE,
        clock: Callable[[], datetime] = utc_now,
        sleep: Sleep = asyncio.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._checkpoints = checkpoints
        self._budget = budget
        self._ceiling = RunCeiling(budget=budget, tenant_id=tenant_id)
        self._idempotency = idempotency
        self._adapter = adapter
        self._guarded = guarded
        self._workflows = {known.name: known for known in workflows}
        self._listener = listener or RunListener()
        self._holder = holder or Holder.current()
        self._tenant_id = tenant_id
        self._policy = policy
        self._lease = lease
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._stops: set[Stop] = set()
        self._keeper = LeaseKeeper(checkpoints, tenant_id=tenant_id, lease=lease)

    async def start(
        self,
        workflow: Workflow[Any],
        inputs: Mapping[str, object] | None = None,
        *,
        run_id: str | None = None,
        budget: Microcents | None = None,
        deadline: timedelta | None = None,
    ) -> RunOutcome:
        """Record a new run with its inputs, and run it until it ends, waits or is interrupted.

        A start that was cut before all inputs were on record goes on when it is repeated with the same run id, inputs
        and budget.

        Args:
            workflow: what to run.
            inputs: its inputs by name; those with a default may be left out.
            run_id: unique per tenant; None makes a new one.
            budget: the most that the run may spend over its whole life, in microcents; None: what the policy gives a
                run. It becomes the limit of the
                scope ``run:<run_id>``, in place of any that was set before. What a deleted run of the same id has
                spent stays counted there.
            deadline: how long it may take from now on.

        Returns:
            How the run was left; a failure of the workflow is an outcome, not an exception.

        Raises:
            InvalidInputError: an input is missing, unknown or cannot be recorded; there is no run.
            RunExistsError: there is a run of this id.
            ConfigurationError: a budget, but no store for it.
            LeaseLostError, StoreError, WorkflowChangedError: see :meth:`Execution.conduct`.
        """
        budget = self._policy.run if budget is None else budget
        if self._budget is not None:
            await self._policy.apply(self._budget, tenant_id=self._tenant_id)
        elif budget is not None or self._policy != NO_POLICY:
            raise ConfigurationError("a run with a budget needs a budget store: pass budget= to the Runner")
        given = workflow.bind(inputs or {})
        limits = RunLimits(budget=budget, deadline_at=None if deadline is None else self._clock() + deadline)
        record = StartRecord.of(given, limits=limits, flow=workflow.source)
        run_id = run_id if run_id is not None else new_run_id(workflow.name, now=self._clock())
        await self._create(run_id, workflow, record)
        return await self._execute(run_id, workflow, given=given)

    async def resume(
        self,
        run_id: str,
        workflow: Workflow[Any] | None = None,
        *,
        steal: bool = False,
        reopen: bool = False,
        allow_changed: bool = False,
        deadline: timedelta | None = None,
    ) -> RunOutcome:
        """Take up a run where it was: recorded steps are replayed, the others run.

        Args:
            run_id: the run.
            workflow: its code; None finds it among the runner's workflows, or in the recorded flow.
            steal: take it from a live holder.
            reopen: also if it failed.
            allow_changed: also if the workflow, its version or the input of a step is not the recorded one; recorded
                outputs are taken as they are.
            deadline: how long it may take from now on, in place of the deadline that was recorded.

        Raises:
            RunNotFoundError, RunBusyError, RunFinishedError: it cannot be resumed (now).
            WorkflowChangedError: the workflow is not the one that began the run.
            WorkflowDefinitionError: its code is not known here.
            LeaseLostError, StoreError: see :meth:`Execution.conduct`.
        """
        return await self._resume(
            run_id, workflow, steal=steal, reopen=reopen, allow_changed=allow_changed, deadline=deadline
        )

    async def resume_all(self, *, concurrency: int = 4, deadline: timedelta | None = None) -> tuple[ResumeReport, ...]:
        """Resume every run that is running without a live holder, or waits for its budget; ``concurrency`` at a time.

        A run that cannot be resumed (somebody has it, its code is not known) is reported and the others go on. Other
        processes may do the same at the same time: each run is one's, and what another has finished meanwhile is not
        reported. A run whose process died ``CRASH_LIMIT`` times in
        a row without recording a step is failed instead, so that it does not take this process along.
        """
        pending = [head.run_id for status in (RunStatus.RUNNING, RunStatus.WAITING) for head in await self._all(status)]
        reports: dict[str, ResumeReport] = {}
        queue = iter(pending)

        async def worker() -> None:
            for run_id in queue:
                try:
                    outcome = await self._resume(run_id, deadline=deadline, crash_limit=CRASH_LIMIT)
                    reports[run_id] = ResumeReport(run_id=run_id, outcome=outcome, error=None)
                except NovaError as error:
                    if isinstance(error, RunFinishedError) and error.status != RunStatus.FAILED:
                        continue
                    reports[run_id] = ResumeReport(run_id=run_id, outcome=None, error=error)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(max(1, concurrency), len(pending))):
                group.create_task(worker())
        return tuple(reports[run_id] for run_id in pending if run_id in reports)

    def drain(self) -> None:
        """Ask the runs of this runner to stop: steps under way are finished and recorded, and no other begins.

        ``start`` and ``resume`` then return with status ``running``. Cancelling them instead cuts what is under way.
        """
        for stop in self._stops:
            stop.request(StopCause.DRAINED)

    async def _resume(
        self, run_id: str, workflow: Workflow[Any] | None = None, *, allow_changed: bool = False, **options: Any
    ) -> RunOutcome:
        head = await self._checkpoints.head(run_id, tenant_id=self._tenant_id)
        if head is None:
            raise RunNotFoundError(f"there is no run {run_id!r}", run_id=run_id, tenant_id=self._tenant_id)
        code = self._code_of(head, workflow)
        if not allow_changed:
            _check_unchanged(head, code)
        return await self._execute(run_id, code, allow_changed=allow_changed, **options)

    async def _create(self, run_id: str, workflow: Workflow[Any], record: StartRecord) -> None:
        """Set the limit of a run and record its head; the same start again is taken up where it was cut."""
        budget, before = record.limits.budget, None
        # A run that is there keeps its limit, also where this start is then refused or is the repeat of a cut one.
        limiting = budget is not None and await self._checkpoints.head(run_id, tenant_id=self._tenant_id) is None
        if budget is not None and limiting:
            before = await self._ceiling.set(run_id, budget)
        try:
            await self._checkpoints.create(
                run_id,
                workflow=workflow.name,
                workflow_version=workflow.version,
                inputs=record.encode(),
                tenant_id=self._tenant_id,
            )
        except RunExistsError:
            head = await self._checkpoints.head(run_id, tenant_id=self._tenant_id)
            if head is not None and budget is not None and limiting:
                await self._ceiling.give_back(head, ours=budget, before=before)
            if head is None or head.next_step_index >= record.steps or head.status is not RunStatus.RUNNING:
                raise
            _check_unchanged(head, workflow)
            if not StartRecord.decode(head.inputs, run_id=run_id).same_start(record):
                raise

    async def _execute(
        self,
        run_id: str,
        workflow: Workflow[Any],
        *,
        given: dict[str, object] | None = None,
        steal: bool = False,
        reopen: bool = False,
        allow_changed: bool = False,
        deadline: timedelta | None = None,
        crash_limit: int | None = None,
    ) -> RunOutcome:
        """Claim a run, keep its lease, and conduct it."""
        # An instance of its own: a second resume within this process must not pass for the holder itself.
        holder = replace(self._holder, instance=secrets.token_hex(4))
        claim = await self._checkpoints.claim(
            run_id,
            holder=holder,
            lease=self._lease,
            steal=steal,
            reopen=reopen,
            crash_limit=crash_limit,
            tenant_id=self._tenant_id,
        )
        stop = Stop()
        writer = RunWriter(
            self._checkpoints,
            run_id=run_id,
            token=claim.token,
            tenant_id=self._tenant_id,
            lease=self._lease,
            stop=stop,
            sleep=self._sleep,
        )
        self._keeper.keep(writer)
        self._stops.add(stop)
        try:
            execution = await self._prepare(
                claim.head, workflow, writer, stop, given=given, allow_changed=allow_changed, deadline=deadline
            )
            outcome = await execution.conduct()
        finally:
            self._stops.discard(stop)
            await self._keeper.drop(writer)
            await writer.release()
        self._listener.run_ended(run_id=run_id, status=outcome.status)
        return outcome

    async def _prepare(
        self,
        head: RunHead,
        workflow: Workflow[Any],
        writer: RunWriter,
        stop: Stop,
        *,
        given: dict[str, object] | None,
        allow_changed: bool,
        deadline: timedelta | None,
    ) -> Execution:
        """Read what is on record, complete the inputs of a start, and put the run together."""
        record = StartRecord.decode(head.inputs, run_id=head.run_id)
        records = await self._load(head)
        if given is not None:
            await self._record_inputs(head.run_id, given, record, records, writer)
        inputs = read_inputs(
            record,
            {name: parameter.annotation for name, parameter in workflow.inputs.items()},
            records,
            given=given,
            run_id=head.run_id,
        )
        await self._ceiling.check(head, record.limits.budget)
        if given is None:
            await self._charge_orphans(head.run_id)
        limits = record.limits if deadline is None else replace(record.limits, deadline_at=self._clock() + deadline)
        self._listener.run_started(
            run_id=head.run_id, workflow=workflow.name, resumed=given is None, steps_recorded=len(records)
        )
        run = Run(
            RunParts(
                run_id=head.run_id,
                tenant_id=self._tenant_id,
                writer=writer,
                records=records,
                stop=stop,
                listener=self._listener,
                adapter=self._guarded_adapter,
                budget=self._budget,
                resumed=given is None,
                time_left=lambda: limits.time_left(self._clock()),
                sleep=self._sleep,
                random=self._random,
                allow_changed=allow_changed,
                policy=self._policy,
            )
        )
        return Execution(
            workflow=workflow,
            inputs=inputs,
            run=run,
            writer=writer,
            stop=stop,
            listener=self._listener,
            records=records,
            time_left=limits.time_left(self._clock()),
        )

    async def _load(self, head: RunHead) -> dict[str, Step]:
        """Return the recorded steps by id, verified; the caller takes them out one by one."""
        if head.next_step_index == 0:
            return {}
        state = await self._checkpoints.load(head.run_id, tenant_id=self._tenant_id)
        if state is None:
            raise RunNotFoundError(f"run {head.run_id!r} was deleted", run_id=head.run_id, tenant_id=self._tenant_id)
        return {step.step_id: step for step in state.steps}

    async def _record_inputs(
        self,
        run_id: str,
        given: Mapping[str, object],
        record: StartRecord,
        records: dict[str, Step],
        writer: RunWriter,
    ) -> None:
        """Record the parts of the large inputs that are not on record yet, in order, and let go of those that are."""
        total = sum(stored.count or 1 for stored in record.stored.values())
        done = 0
        for name in record.stored:
            for part in input_parts(name, given[name]):
                if part.step_id not in records:
                    await writer.append(
                        part.step_id, part.value, fingerprint=fingerprint(part.value, what=name), meta={"input": name}
                    )
                done += part.items
                self._listener.inputs_recorded(run_id=run_id, recorded=done, total=total)

    async def _charge_orphans(self, run_id: str) -> None:
        """Charge, as uncertain, what calls of an earlier holder of the run had reserved: nobody waits for their answer.

        The end of their lease would do the same, minutes later. Where that holder still lives and learns its bill after
        all, settling it corrects the charge.
        """
        if self._budget is None:
            return
        after: str | None = None
        while held := await self._budget.holds(
            scope=f"run:{run_id}", state=HoldState.HELD, after=after, limit=_HOLDS_PAGE, tenant_id=self._tenant_id
        ):
            for hold in held:
                with contextlib.suppress(HoldConflictError):  # closed by its own call meanwhile
                    await self._budget.expire(hold.hold_id, detail=_ORPHANED, tenant_id=self._tenant_id)
            after = held[-1].hold_id

    async def _all(self, status: RunStatus) -> list[RunHead]:
        heads: list[RunHead] = []
        cursor: str | None = None
        while True:
            page = await self._checkpoints.list_runs(
                RunFilter(status=status), cursor=cursor, limit=_PAGE, tenant_id=self._tenant_id
            )
            heads.extend(head for head in page.heads if head.waiting_for != "signal")
            cursor = page.cursor
            if cursor is None:
                return heads

    def _code_of(self, head: RunHead, given: Workflow[Any] | None) -> Workflow[Any]:
        if given is not None:
            return given
        flow = StartRecord.decode(head.inputs, run_id=head.run_id).flow
        if flow is not None:
            from app.workflow.flow import parse_flow

            return parse_flow(flow, source=f"the recorded flow of run {head.run_id!r}").workflow()
        if head.workflow in self._workflows:
            return self._workflows[head.workflow]
        raise WorkflowDefinitionError(
            f"run {head.run_id!r} is one of workflow {head.workflow!r}, whose code is not known here: pass it to "
            "resume, or to the Runner as workflows=[...]"
        )

    def _guarded_adapter(self) -> LLMAdapter:
        if self._guarded is None:
            if self._budget is None or self._idempotency is None:
                raise ConfigurationError(
                    "LLM calls need a budget store and an idempotency store: pass both to the Runner"
                )
            from app.skills.guards import get_guarded_adapter

            self._guarded = get_guarded_adapter(
                self._adapter, budget_store=self._budget, idempotency_store=self._idempotency
            )
        return self._guarded


def _check_unchanged(head: RunHead, code: Workflow[Any]) -> None:
    if head.workflow != code.name:
        raise WorkflowChangedError(
            f"run {head.run_id!r} is one of workflow {head.workflow!r}, not {code.name!r}. Resume it with its own code"
        )
    if head.workflow_version != code.version:
        raise WorkflowChangedError(
            f"run {head.run_id!r} was begun by version {head.workflow_version!r} of workflow {code.name!r}, and "
            f"this is version {code.version!r}. Resume it with the code that began it, or allow the change"
        )
