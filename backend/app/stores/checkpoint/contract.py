"""The checkpoint contract: runs whose steps are recorded once and resumed exactly.

A **run** is a small head and an append-only list of **steps**. What may never happen:

1. A step that was acknowledged is lost (memory excepted).
2. Two writers both succeed: one wins, the other gets ``CheckpointConflictError``, or ``LeaseLostError`` if it had been
   superseded.
3. A writer with an old token changes anything. Tokens only grow, also over the runs that had the same id before. The
   end of a lease permits a takeover; it does not by itself refuse the holder. A write without a lease needs
   ``expected_version`` and no live lease, and ends a lease that ran out.
4. A lost acknowledgement becomes a conflict: the same append by the same owner is a success, again and again.
5. (run, step id) has two outputs, or a load returns a step that does not verify against the hash chain.

Recording a step is one atomic statement or transaction, whose cost does not grow with the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal, Protocol

from app.stores.checkpoint.codec import JsonValue
from app.stores.holder import Holder
from app.stores.names import DEFAULT_TENANT

__all__ = [
    "DEFAULT_LEASE",
    "Appended",
    "CheckpointStorage",
    "Claim",
    "Lease",
    "RunFilter",
    "RunHead",
    "RunPage",
    "RunState",
    "RunStatus",
    "Step",
    "StepRecord",
    "WaitingFor",
]

DEFAULT_LEASE: Final = timedelta(seconds=30)

WaitingFor = Literal["budget", "signal"]


class RunStatus(StrEnum):
    """``running`` covers runs that are under way and runs whose process died. ``completed`` and ``aborted`` are final.

    ``failed`` resumes on request only; ``waiting`` when what it waits for has come.
    """

    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    ABORTED = "aborted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Who may write to a run. It is *live* until ``expires_at`` by the store's clock."""

    token: int
    holder: Holder
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHead:
    """The head of a run.

    Attributes:
        root_run_id: the run at the start of the line of forks; its own id where it is none.
        workflow, workflow_version: name and declared version of the code that the run began with.
        inputs: what the run was started with; recorded once, never read again from elsewhere.
        version: grows by one with every write to the head or the steps, also where a claim changes the status; a lease
            alone does not count.
        next_step_index: the count of recorded steps.
        head_hash: the hash of the last step, or the root of the chain.
        result: the output of a completed run.
        error: the message of a failed one.
        lease: the last lease that was not released, live or not; None where there is none.
        tier: ``hot`` in the database; ``archived`` where only the archive has the steps.
        crashes: how many holders in a row ended without recording a step and without giving the lease up.
    """

    tenant_id: str
    run_id: str
    root_run_id: str
    workflow: str
    workflow_version: str
    status: RunStatus
    waiting_for: WaitingFor | None
    inputs: JsonValue
    result: JsonValue
    error: str | None
    version: int
    next_step_index: int
    head_hash: bytes
    lease: Lease | None
    created_at: datetime
    updated_at: datetime
    tier: Literal["hot", "archived"] = "hot"
    crashes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """A step as the history shows it: everything but the output.

    Attributes:
        index: 0 for the first recorded.
        fingerprint: of the step's input; empty where the writer gave none.
        hash: the chain up to and with this step.
        size_bytes: of the output as canonical JSON.
        meta: what the writer noted beside the output, such as attempts and cost; not covered by the chain.
    """

    step_id: str
    index: int
    fingerprint: str
    output_digest: bytes
    hash: bytes
    size_bytes: int
    recorded_at: datetime
    meta: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(StepRecord):
    """A step with its output."""

    output: JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """A whole run: its head and its steps in the order of recording; verified against the chain."""

    head: RunHead
    steps: tuple[Step, ...]

    @property
    def step_outputs(self) -> dict[str, JsonValue]:
        """Outputs by step id, in the order of recording."""
        return {step.step_id: step.output for step in self.steps}

    @property
    def next_step_index(self) -> int:
        """The count of recorded steps."""
        return self.head.next_step_index

    @property
    def version(self) -> int:
        """The version to expect at the next write."""
        return self.head.version


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """A step stands. ``replayed`` where it stood before, with the same input and output (a lost acknowledgement).

    ``version`` and ``next_step_index`` are the run's, as it is now; ``hash`` is the step's.
    """

    version: int
    next_step_index: int
    hash: bytes
    replayed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The caller may write with ``token``. ``took_over`` names the holder that was superseded, if one was."""

    token: int
    head: RunHead
    took_over: Holder | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs to list; None does not filter. Times are of ``updated_at``: from inclusive, to exclusive."""

    workflow: str | None = None
    status: RunStatus | None = None
    updated_from: datetime | None = None
    updated_to: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPage:
    """A page of heads, latest update first; ``cursor`` continues it, None at the end."""

    heads: tuple[RunHead, ...]
    cursor: str | None


class CheckpointStorage(Protocol):
    """Keeps runs. Safe for concurrent use by tasks, processes and machines that share its backend.

    ``tenant_id`` is part of every key. Where a verb takes ``token`` and ``expected_version``: with a token the writer
    must hold that lease, and the version is checked only if given; without one ``expected_version`` is required and no
    lease may be live.

    Raises, from every verb:
        InvalidInputError: a name or argument outside what the verb takes; nothing was changed.
        CheckpointStoreUnavailableError: the backend did not answer; every verb may be repeated.
        StoreDamagedError: the backend holds something that is not Nova's, or a newer Nova's.
    """

    async def create(
        self,
        run_id: str,
        *,
        workflow: str = "",
        workflow_version: str = "",
        inputs: JsonValue = None,
        tenant_id: str = DEFAULT_TENANT,
    ) -> RunHead:
        """Create a run without steps, in status ``running``, version 0, without a lease.

        Raises:
            RunExistsError: there is a run of this id, equal or not.
            StateNotStorableError: ``inputs`` cannot be stored.
        """
        ...

    async def claim(
        self,
        run_id: str,
        *,
        holder: Holder,
        lease: timedelta = DEFAULT_LEASE,
        steal: bool = False,
        reopen: bool = False,
        crash_limit: int | None = None,
        tenant_id: str = DEFAULT_TENANT,
    ) -> Claim:
        """Take the lease of a run, with a token above every earlier one, and set its status to ``running``.

        It is taken over where it ran out, where its holder is a process of this host that is gone, and with ``steal``
        always. A claim by the holder itself also gives a new token.

        Args:
            run_id: the run.
            holder: who claims.
            lease: positive; how long the claim lives without a heartbeat.
            steal: supersede a live lease.
            reopen: permit a run whose status is ``failed``.
            crash_limit: where this would be the claim after so many holders in a row who died without recording a step,
                the run is failed instead (a dead letter); ``steal`` and ``reopen`` count anew. None: no limit.
            tenant_id: the tenant.

        Raises:
            RunNotFoundError: there is no such run.
            RunBusyError: the lease is live and somebody else's.
            RunFinishedError: completed, aborted, or failed without ``reopen``; also where it is failed by this claim.
        """
        ...

    async def claim_any(
        self,
        *,
        holder: Holder,
        lease: timedelta = DEFAULT_LEASE,
        idle: timedelta = DEFAULT_LEASE,
        workflow: str | None = None,
        crash_limit: int | None = None,
        tenant_id: str = DEFAULT_TENANT,
    ) -> Claim | None:
        """Claim the running run that nobody holds and that lay longest; None where there is none.

        Callers that do so at the same moment get different runs. A run that would be a dead letter becomes one, and the
        next is tried.

        Args:
            holder: who claims.
            lease: as for :meth:`claim`.
            idle: only runs that were not written to for so long: whoever has just created one wants to claim it.
            workflow: of this name only.
            crash_limit: as for :meth:`claim`.
            tenant_id: the tenant.
        """
        ...

    async def heartbeat(
        self, run_id: str, token: int, *, lease: timedelta = DEFAULT_LEASE, tenant_id: str = DEFAULT_TENANT
    ) -> None:
        """Prolong the lease to ``lease`` from now; also one that ran out but was not taken over.

        Raises:
            LeaseLostError: the token was superseded or released.
            RunNotFoundError: there is no such run.
        """
        ...

    async def heartbeat_all(
        self, tokens: Mapping[str, int], *, lease: timedelta = DEFAULT_LEASE, tenant_id: str = DEFAULT_TENANT
    ) -> frozenset[str]:
        """Prolong the leases of many runs, by run id, in one step; return the runs for which that was refused.

        For those :meth:`heartbeat` says why.
        """
        ...

    async def release(self, run_id: str, token: int, *, tenant_id: str = DEFAULT_TENANT) -> None:
        """Give the lease up; the status stays. Again is a no-op.

        Raises:
            LeaseLostError: the token was superseded.
            RunNotFoundError: there is no such run.
        """
        ...

    async def append(
        self,
        run_id: str,
        step_id: str,
        output: JsonValue,
        *,
        fingerprint: str = "",
        meta: Mapping[str, JsonValue] | None = None,
        token: int | None = None,
        expected_version: int | None = None,
        tenant_id: str = DEFAULT_TENANT,
    ) -> Appended:
        """Record one step, in one atomic step, write-once.

        Raises:
            LeaseLostError: the token was superseded or released.
            StepConflictError: the step is recorded with another fingerprint or output.
            CheckpointConflictError: the version is not the expected one.
            RunBusyError: no token was given and somebody's lease is live.
            RunFinishedError: the run is completed, aborted or failed.
            RunNotFoundError: there is no such run.
            StateNotStorableError: the output or meta cannot be stored.
        """
        ...

    async def save(
        self,
        run_id: str,
        next_step_index: int,
        *,
        step_outputs: Mapping[str, JsonValue],
        expected_version: int | None = None,
        token: int | None = None,
        status: RunStatus = RunStatus.RUNNING,
        workflow: str = "",
        tenant_id: str = DEFAULT_TENANT,
    ) -> int:
        """Record a whole state: the steps that are new are appended in the order of the mapping, in one atomic step.

        A run that does not exist is created if neither version nor token is given, or ``expected_version`` is 0.

        Args:
            run_id: the run.
            next_step_index: must equal ``len(step_outputs)``: the count of recorded steps.
            step_outputs: every step so far; those recorded already must be there, unchanged.
            expected_version: the version that the caller loaded; required for an existing run without a token.
            token: the caller's lease.
            status: the status to set.
            workflow: the name to record where the run is created.
            tenant_id: the tenant.

        Returns:
            The version after it; 1 where the run was created. The same state again, with the version that the first
            try expected, is a success. A status other than ``running`` gives up the lease.

        Raises:
            StepConflictError: a recorded step is missing from ``step_outputs`` or differs.
            and those of ``append``.
        """
        ...

    async def finish(
        self,
        run_id: str,
        status: RunStatus,
        *,
        result: JsonValue = None,
        error: str | None = None,
        waiting_for: WaitingFor | None = None,
        token: int | None = None,
        expected_version: int | None = None,
        tenant_id: str = DEFAULT_TENANT,
    ) -> RunHead:
        """End or park a run: set its status (any but ``running``) and what belongs to it, and give up the lease.

        ``result`` belongs to completed, ``error`` to failed and aborted (kept to 4,000 characters), ``waiting_for`` to
        waiting. The same again with the same token, or the version that the first try expected, is a no-op.

        Raises:
            LeaseLostError, CheckpointConflictError, RunBusyError, RunNotFoundError: as for ``append``.
            RunFinishedError: it is completed or aborted already, otherwise than asked for.
            StateNotStorableError: the result cannot be stored.
        """
        ...

    async def abort(self, run_id: str, *, reason: str = "", tenant_id: str = DEFAULT_TENANT) -> RunHead:
        """Abort a run from outside, whoever holds its lease: the holder's next write is refused.

        Aborting an aborted run is a no-op.

        Raises:
            RunFinishedError: it is completed.
            RunNotFoundError: there is no such run.
        """
        ...

    async def load(self, run_id: str, *, tenant_id: str = DEFAULT_TENANT) -> RunState | None:
        """Return the run, verified against the hash chain, or None where there is none.

        Raises:
            CheckpointCorruptError: a step does not verify; it names run and step.
        """
        ...

    async def head(self, run_id: str, *, tenant_id: str = DEFAULT_TENANT) -> RunHead | None:
        """Return the head of a run, or None; one small read."""
        ...

    async def history(
        self, run_id: str, *, after_index: int = -1, limit: int = 1000, tenant_id: str = DEFAULT_TENANT
    ) -> tuple[StepRecord, ...]:
        """Return a page of a run's steps without their outputs, in the order of recording.

        Raises:
            RunNotFoundError: there is no such run.
        """
        ...

    async def verify(self, run_id: str, *, tenant_id: str = DEFAULT_TENANT) -> int:
        """Recompute the chain of a run from its stored bytes and return the count of steps.

        Raises:
            CheckpointCorruptError: a step does not verify; it names run and step.
            RunNotFoundError: there is no such run.
        """
        ...

    async def fork(
        self,
        run_id: str,
        new_run_id: str,
        *,
        steps: int | None = None,
        tenant_id: str = DEFAULT_TENANT,
    ) -> RunHead:
        """Copy a run's head, inputs and first ``steps`` steps (None: all) to a new run, in one atomic step.

        The copy is ``running``, without a lease, with the root of the original; each of the two lives, is archived and
        is deleted alone.

        Raises:
            RunNotFoundError, RunExistsError: there is no such run; there is one of the new id.
            InvalidInputError: ``steps`` is negative, or above the count of recorded steps.
            CheckpointCorruptError: a step to be copied does not verify.
        """
        ...

    async def list_runs(
        self,
        where: RunFilter | None = None,
        *,
        cursor: str | None = None,
        limit: int = 100,
        tenant_id: str = DEFAULT_TENANT,
    ) -> RunPage:
        """Return a keyset page of heads, latest update first; ``limit`` is 1 to 1,000.

        A page may be shorter than ``limit`` where inputs and results are large; only the cursor tells the end.
        A run that is not updated meanwhile appears exactly once over the pages.

        Raises:
            InvalidInputError: the cursor is not one of this verb's.
        """
        ...

    async def delete(self, run_id: str, *, tenant_id: str = DEFAULT_TENANT) -> bool:
        """Delete a run and its steps; False where there is none.

        Raises:
            RunBusyError: its lease is live.
        """
        ...

    async def close(self) -> None:
        """Let go of files and connections. A later verb opens them again."""
        ...
