"""How a run was left, told: the result to standard output, what it cost beside it, and an exit code."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import typer

from app.cli.exits import Ended, ExitCode, Explanation, explain
from app.cli.output import counted
from app.cli.session import error_document
from app.errors import NovaError, RunDeadlineError, WorkflowError
from app.stores.checkpoint.contract import RunStatus

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from app.cli.session import Session
    from app.stores.budget.contract import WindowUsage
    from app.workflow.engine import RunOutcome

__all__ = ["Left", "conclude", "conclude_all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What became of one run in this process.

    Attributes:
        run_id: the run.
        outcome: None where an error kept it from having one.
        error: that error.
        windows: what its scope has spent, empty where the budget store did not say.
        began: it got its lease, so that it can be resumed.
        stopped: the exit code of the signal that stopped it, None without one.
        to_program: it was passed over, because its code is that of a Python program.
    """

    run_id: str
    outcome: RunOutcome | None = None
    error: NovaError | None = None
    windows: Sequence[WindowUsage] = ()
    began: bool = True
    stopped: ExitCode | None = None
    to_program: bool = False


def conclude(session: Session, left: Left) -> None:
    """Show the result of a completed run, or end the command with what kept it from completing.

    Raises:
        Ended: it is not completed; with the document of the run for ``--json``.
    """
    explanation = _explained(session, left)
    if explanation is not None:
        raise Ended(replace(explanation, document=_document(session, left)))
    assert left.outcome is not None
    document = _document(session, left)
    session.give(document, document["result"])
    _say_money(session, left)


def conclude_all(session: Session, runs: Sequence[Left]) -> None:
    """Show what became of many runs; the exit code is that of the first that is not completed.

    Runs that are left to their programs do not count: nothing here could have completed them.

    Raises:
        typer.Exit: one of them is not completed.
    """
    explained = [(left, _explained(session, left)) for left in runs]
    documents = [{**_document(session, left), "error": told and error_document(told)} for left, told in explained]
    left_over = [(left, told) for left, told in explained if told is not None]
    document: dict[str, Any] = {"runs": documents}
    if left_over:
        first, why = left_over[0]
        count = f"{len(left_over)} of {len(runs)} runs did not complete; the first, {first.run_id}: {why.message}"
        document["error"] = error_document(replace(why, message=count))
    session.show(document, lambda: _table(explained))
    if left_over:
        raise typer.Exit(left_over[0][1].exit_code)


def _explained(session: Session, left: Left) -> Explanation | None:
    """Return why a run is not completed, None where it is."""
    if left.to_program:
        return None
    go_on = f"to go on: {session.nova} resume {shlex.quote(left.run_id)}"
    if left.error is not None:
        told = explain(left.error, nova=session.nova)
        if told.remedy is None and left.began:
            told = replace(told, remedy=f"when that is put right: {session.nova} resume {shlex.quote(left.run_id)}")
        return told
    outcome = left.outcome
    assert outcome is not None
    if outcome.status is RunStatus.COMPLETED:
        return None
    if outcome.status is RunStatus.RUNNING:
        steps = outcome.steps_run + outcome.steps_replayed
        return Explanation(
            exit_code=left.stopped or ExitCode.INTERRUPTED,
            code="ERR_INTERRUPTED",
            message=f"run {left.run_id} was interrupted; {counted(steps, 'step is', 'steps are')} recorded",
            remedy=go_on,
        )
    try:
        outcome.value()
    except NovaError as error:
        told = explain(error, nova=session.nova)
        if isinstance(error, RunDeadlineError):
            return replace(told, remedy=f"{go_on} --reopen --deadline TIME")
    except Exception as error:  # noqa: BLE001 - what the workflow's own code raised, already recorded as its failure
        message = f"run {left.run_id} failed: {type(error).__name__}: {error}"
        told = explain(WorkflowError(message), nova=session.nova)
    if told.remedy is None and outcome.status is RunStatus.FAILED:
        told = replace(
            told, remedy=f"when that is put right: {session.nova} resume {shlex.quote(left.run_id)} --reopen"
        )
    return told


def _document(session: Session, left: Left) -> dict[str, Any]:
    from app.cli.documents import money, window_document
    from app.workflow.values import to_json

    document: dict[str, Any] = {"run_id": left.run_id, "tenant": session.tenant}
    if left.to_program:
        document["left_to"] = "its program"
    if left.outcome is not None:
        outcome = left.outcome
        document |= {
            "status": outcome.status.value,
            "waiting_for": outcome.waiting_for,
            "result": to_json(outcome.result, what="the result"),
            "steps_run": outcome.steps_run,
            "steps_replayed": outcome.steps_replayed,
            "cost": money(outcome.cost),
            "unknown_costs": outcome.unknown_cost,
            "unclaimed_steps": list(outcome.unclaimed_steps),
        }
    return document | {"budget": [window_document(window) for window in left.windows]}


def _say_money(session: Session, left: Left) -> None:
    """Say beside the result what the run has spent, and what of it is uncertain."""
    from app.money import format_usd

    outcome = left.outcome
    assert outcome is not None
    total = next((window for window in left.windows if window.window == "total"), None)
    replayed = f" ({counted(outcome.steps_replayed, 'was', 'were')} on record)" if outcome.steps_replayed else ""
    parts = [f"run {left.run_id} is completed: {counted(outcome.steps_run + outcome.steps_replayed, 'step')}{replayed}"]
    parts.append(f"{format_usd(outcome.cost)} recorded" + (" + ?" if outcome.unknown_cost else ""))
    if total is not None and total.uncertain:
        parts.append(f"{format_usd(total.uncertain)} uncertain")
    if total is not None and total.held:
        # The run is over, so nobody waits for these calls: a process died in them, and their leases have not ended yet.
        parts.append(f"{format_usd(total.held)} still held for calls that were cut")
    if total is not None and total.limit is not None:
        parts.append(f"{format_usd(total.remaining)} of {format_usd(total.limit)} left")
    session.note(", ".join(parts))
    if outcome.unclaimed_steps:
        session.note(
            f"{counted(len(outcome.unclaimed_steps), 'recorded step was', 'recorded steps were')} not asked for: "
            "the workflow has changed since"
        )


def _table(explained: Sequence[tuple[Left, Explanation | None]]) -> RenderableType:
    from rich.text import Text

    from app.cli.output import aligned, printable, table

    if not explained:
        return Text("no run is interrupted or waits for its budget")
    made = table("run", "left as", ("steps", "right"), ("cost", "right"), "why")
    costs = aligned([left.outcome.cost if left.outcome else None for left, _ in explained])
    for (left, told), cost in zip(explained, costs, strict=True):
        outcome = left.outcome
        made.add_row(
            left.run_id,
            _left_as(left),
            "" if outcome is None else str(outcome.steps_run + outcome.steps_replayed),
            "" if outcome is None else cost,
            "" if told is None else printable(told.message),
        )
    return made


def _left_as(left: Left) -> Text:
    from rich.text import Text

    from app.cli.output import status_text

    if left.to_program:
        return Text("left to its program", style="dim")
    return Text("not resumed", style="yellow") if left.outcome is None else status_text(left.outcome.status.value)
