"""What a refused writer is told: one error for each reason, with ids, and what to do next."""

from __future__ import annotations

from datetime import timedelta

from app.errors import (
    CheckpointConflictError,
    LeaseLostError,
    RunBusyError,
    RunExistsError,
    RunFinishedError,
    RunNotFoundError,
    StepConflictError,
)
from app.stores.checkpoint.contract import RunStatus
from app.stores.checkpoint.rows import StoredHead, holder_of

__all__ = [
    "busy",
    "dead_letter_text",
    "exists",
    "finished",
    "given_up",
    "moved_on",
    "not_found",
    "step_conflict",
    "step_left_out",
    "superseded",
    "version_needed",
]


def superseded(head: StoredHead, token: int) -> LeaseLostError:
    """The token is not the last that was given."""
    return LeaseLostError(
        f"the lease {token} of run {head.run_id!r} was taken over (the last one is {head.lease_token}); "
        "stop, and discard what was not recorded",
        run_id=head.run_id,
        tenant_id=head.tenant_id,
    )


def busy(head: StoredHead, now_ms: int) -> RunBusyError:
    """Somebody else's lease is live."""
    holder = str(holder_of(head))
    expires_in = timedelta(milliseconds=(head.lease_expires_ms or now_ms) - now_ms)
    return RunBusyError(
        f"run {head.run_id!r} is held by {holder} for {expires_in.total_seconds():.1f} s, or longer if it goes on; "
        "wait, or claim the run with steal",
        run_id=head.run_id,
        holder=holder,
        expires_in=expires_in,
        tenant_id=head.tenant_id,
    )


def dead_letter_text(crashes: int) -> str:
    """Return the error of a run that is not tried again by itself."""
    return (
        f"its process ended {crashes} times in a row without recording a step, so it is not resumed by itself any "
        "more; find out why, and claim it with reopen"
    )


def finished(head: StoredHead) -> RunFinishedError:
    """The run has ended."""
    remedy = "claim it with reopen to go on" if head.status is RunStatus.FAILED else "fork it to go on from its steps"
    return RunFinishedError(
        f"run {head.run_id!r} is {head.status.value}; {remedy}",
        run_id=head.run_id,
        status=head.status.value,
        tenant_id=head.tenant_id,
    )


def step_conflict(head: StoredHead, step_id: str, *, same_input: bool) -> StepConflictError:
    """The step is recorded otherwise."""
    return StepConflictError(
        f"step {step_id!r} of run {head.run_id!r} is recorded with another {'output' if same_input else 'input'}; "
        "a step is recorded once: use the record, or fork the run before this step",
        step_id=step_id,
        run_id=head.run_id,
        tenant_id=head.tenant_id,
    )


def step_left_out(head: StoredHead, step_id: str) -> StepConflictError:
    """A whole state lacks a step that is recorded."""
    return StepConflictError(
        f"run {head.run_id!r} has the step {step_id!r}, which is not in the state to be saved; load it again",
        step_id=step_id,
        run_id=head.run_id,
        tenant_id=head.tenant_id,
    )


def given_up(head: StoredHead, token: int) -> LeaseLostError:
    """The lease was released, or ended by a write without a lease after it ran out."""
    return LeaseLostError(
        f"the lease {token} of run {head.run_id!r} is held no longer; claim the run to go on",
        run_id=head.run_id,
        tenant_id=head.tenant_id,
    )


def version_needed(head: StoredHead) -> CheckpointConflictError:
    """Somebody meant to create a run that is there."""
    return CheckpointConflictError(
        f"run {head.run_id!r} exists already; load it, and pass its version as expected_version",
        run_id=head.run_id,
        tenant_id=head.tenant_id,
    )


def moved_on(head: StoredHead, expected_version: int) -> CheckpointConflictError:
    """The version is not the expected one."""
    return CheckpointConflictError(
        f"run {head.run_id!r} is at version {head.version}, not {expected_version}; load it again",
        run_id=head.run_id,
        tenant_id=head.tenant_id,
    )


def exists(run_id: str, tenant_id: str) -> RunExistsError:
    """There is a run of this id."""
    return RunExistsError(
        f"there is a run {run_id!r} already (tenant {tenant_id!r}); choose another id, or resume it",
        run_id=run_id,
        tenant_id=tenant_id,
    )


def not_found(run_id: str, tenant_id: str) -> RunNotFoundError:
    """Return the error for a run that is not there."""
    return RunNotFoundError(f"there is no run {run_id!r} (tenant {tenant_id!r})", run_id=run_id, tenant_id=tenant_id)
