"""How a run stands for people: whether anybody works on it, whose code it needs, and what to do to go on."""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from app.errors import WorkflowError
from app.stores.checkpoint.contract import RunStatus

if TYPE_CHECKING:
    from app.stores.checkpoint.contract import RunHead
    from app.stores.holder import Holder

__all__ = ["INTERRUPTED", "go_on", "has_flow", "is_interrupted", "needs_program", "resume_in_program", "who"]

INTERRUPTED: Final = "interrupted"
"""What people read for a run that is recorded as running, and that nobody works on."""


def has_flow(head: RunHead) -> bool:
    """Whether the run recorded the flow that it began with, so that ``nova resume`` has all it needs."""
    from app.workflow.inputs import StartRecord

    with contextlib.suppress(WorkflowError):  # recorded by something else than the runner: without a flow
        return StartRecord.decode(head.inputs, run_id=head.run_id).flow is not None
    return False


def needs_program(run_id: str) -> str:
    """Return the sentence for a run that ``nova resume`` cannot take up, because its code is not recorded."""
    return (
        f"run {run_id!r} was started by a Python program: run that program again, which calls "
        f"{resume_in_program(run_id)}"
    )


def resume_in_program(run_id: str) -> str:
    """Return the call that goes on with a run in Python."""
    return f"runner.resume({run_id!r})"


def is_interrupted(head: RunHead, *, now: datetime) -> bool:
    """Whether a run is recorded as running while nobody works on it.

    Its lease has ended, was given back, or is that of a process of this host that is gone.
    """
    if head.status is not RunStatus.RUNNING:
        return False
    return head.lease is None or head.lease.expires_at <= now or head.lease.holder.is_gone()


def who(holder: Holder) -> str:
    """Return a holder as people know it: its process, not which of its runners."""
    return str(replace(holder, instance=""))


def go_on(head: RunHead, *, nova: str, now: datetime) -> str | None:
    """Return what to do so that a run goes on, None where it is under way or over."""
    quoted = shlex.quote(head.run_id)
    again = f"{nova} resume {quoted}" if has_flow(head) else f"its program again: {resume_in_program(head.run_id)}"
    if is_interrupted(head, now=now):
        return again
    if head.status is RunStatus.WAITING:
        if head.waiting_for == "budget":
            return f"{nova} budget set {shlex.quote(f'run:{head.run_id}')} AMOUNT, then {again}"
        return f"when its {head.waiting_for} has come: {again}"
    if head.status is RunStatus.FAILED:
        if has_flow(head):
            return f"{again} --reopen"
        return f"its program again: runner.resume({head.run_id!r}, reopen=True)"
    return None
