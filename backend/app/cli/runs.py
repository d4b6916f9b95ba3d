"""``nova runs``: what was run, step by step."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.exits import Ended, explain
from app.cli.run_views import history_table, run_view, runs_table, text_view
from app.cli.session import JsonOption, Session, is_terminal, session_of
from app.cli.standing import has_flow, resume_in_program
from app.stores.checkpoint.contract import RunStatus

if TYPE_CHECKING:
    from app.stores.budget.contract import WindowUsage
    from app.stores.checkpoint.contract import RunState, Step

__all__ = ["group"]

group = typer.Typer(no_args_is_help=True, help="What was run, step by step; forks, aborts, deletions.")

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]


@group.command("list")
def list_runs(
    ctx: typer.Context,
    *,
    status: Annotated[
        RunStatus | None, typer.Option("--status", help="Only runs of this status; running has the interrupted ones.")
    ] = None,
    workflow: Annotated[str | None, typer.Option("--workflow", help="Only runs of this workflow.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many at most.")] = 50,
    cursor: Annotated[str | None, typer.Option("--cursor", help="Continue a list, as it said at its end.")] = None,
    json: JsonOption = False,
) -> None:
    """List runs, the latest first.

    Example:  nova runs list --status waiting
    """
    from app.cli.documents import run_document
    from app.stores.checkpoint.contract import RunFilter

    session = session_of(ctx, json=json)
    where = RunFilter(workflow=workflow, status=status)
    page = session.execute(
        lambda: session.checkpoints().list_runs(where, cursor=cursor, limit=limit, tenant_id=session.tenant)
    )
    session.show(
        {"runs": [run_document(head) for head in page.heads], "cursor": page.cursor}, lambda: runs_table(page.heads)
    )
    if page.cursor is not None and not session.json:
        session.note(f"there are more: --cursor {page.cursor}")


@group.command("show")
def show(
    ctx: typer.Context,
    run_id: RunArgument,
    *,
    step: Annotated[str | None, typer.Option("--step", metavar="STEP", help="Only the output of this step.")] = None,
    full: Annotated[bool, typer.Option("--full", help="The result in full, however long it is.")] = False,
    json: JsonOption = False,
) -> None:
    """Show a run: its status, its money, its steps, and its result.

    The hash chain of its steps is verified while they are read.

    Example:  nova runs show tour --step notes/0
    """
    from app.cli.documents import run_document, step_document, window_document

    session = session_of(ctx, json=json)
    state, windows = session.execute(lambda: _read(session, run_id))
    if step is not None:
        found = _step(state, step)
        session.give(step_document(found), found.output)
        return
    document = {
        **run_document(state.head, whole=True),
        "budget": [window_document(window) for window in windows],
        "recorded_steps": [step_document(each) for each in state.steps],
    }
    session.show(document, lambda: run_view(session, state, windows, full=full))


@group.command("history")
def history(
    ctx: typer.Context,
    run_id: RunArgument,
    *,
    after: Annotated[int, typer.Option("--after", min=-1, metavar="INDEX", help="Begin behind this step.")] = -1,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many at most.")] = 1000,
    json: JsonOption = False,
) -> None:
    """List the recorded steps of a run with their hashes, without their outputs.

    Example:  nova runs history tour --json
    """
    from app.cli.documents import step_document

    session = session_of(ctx, json=json)
    steps = session.execute(
        lambda: session.checkpoints().history(run_id, after_index=after, limit=limit, tenant_id=session.tenant)
    )
    session.show({"run_id": run_id, "steps": [step_document(each) for each in steps]}, lambda: history_table(steps))
    if len(steps) == limit and not session.json:
        session.note(f"there may be more: --after {steps[-1].index}")


@group.command("fork")
def fork(
    ctx: typer.Context,
    run_id: RunArgument,
    new_run_id: Annotated[str, typer.Argument(metavar="NEW_RUN", help="The id of the copy.")],
    *,
    steps: Annotated[
        int | None, typer.Option("--steps", min=0, help="Copy only so many of its first steps. Default: all.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Copy a run and its first steps to a new run, which goes on from there; the original stays as it is.

    Example:  nova runs fork tour tour-2 --steps 5
    """
    from app.cli.documents import run_document
    from app.cli.values import parse_new_run_id
    from app.errors import RunExistsError

    session = session_of(ctx, json=json)
    name = parse_new_run_id(new_run_id)
    try:
        head = session.execute(lambda: session.checkpoints().fork(run_id, name, steps=steps, tenant_id=session.tenant))
    except RunExistsError as error:
        raise Ended(replace(explain(error, nova=session.nova), remedy="name another NEW_RUN")) from error
    session.show(run_document(head), lambda: runs_table([head]))
    if not session.json:
        if has_flow(head):
            session.note(f"to go on with it: {session.nova} resume {shlex.quote(new_run_id)}")
        else:
            session.note(f"go on with it in its program: {resume_in_program(new_run_id)}")


@group.command("abort")
def abort(
    ctx: typer.Context,
    run_id: RunArgument,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept with the run.")] = "",
    json: JsonOption = False,
) -> None:
    """Abort a run, whoever works on it: nothing more of it is recorded. This is final.

    Example:  nova runs abort tour --reason 'wrong documents'
    """
    from app.cli.documents import run_document

    session = session_of(ctx, json=json)
    head = session.execute(lambda: session.checkpoints().abort(run_id, reason=reason, tenant_id=session.tenant))
    session.show(run_document(head), lambda: runs_table([head]))


@group.command("delete")
def delete(
    ctx: typer.Context,
    run_id: RunArgument,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
) -> None:
    """Delete a run, its steps and its limits. What it spent stays counted.

    Example:  nova runs delete tour --yes
    """
    session = session_of(ctx, json=json)
    if not yes:
        if not is_terminal():
            raise typer.BadParameter("nobody can be asked here: confirm with --yes", param_hint="--yes")
        typer.confirm(f"Delete run {run_id!r} and its steps?", abort=True, err=True)
    session.execute(lambda: _delete(session, run_id))
    session.show({"run_id": run_id, "deleted": True}, lambda: text_view(f"deleted run {run_id}"))


@group.command("verify")
def verify(ctx: typer.Context, run_id: RunArgument, *, json: JsonOption = False) -> None:
    """Recompute the hash chain of a run from its stored bytes (exit code 31 if a step does not verify).

    Example:  nova runs verify tour
    """
    from app.cli.output import counted

    session = session_of(ctx, json=json)
    steps = session.execute(lambda: session.checkpoints().verify(run_id, tenant_id=session.tenant))
    session.show(
        {"run_id": run_id, "verified_steps": steps},
        lambda: text_view(f"run {run_id}: {counted(steps, 'step verifies', 'steps verify')}", style="green"),
    )


async def _delete(session: Session, run_id: str) -> None:
    from app.errors import RunNotFoundError
    from app.workflow.ceiling import RunCeiling

    ceiling = RunCeiling(budget=session.budget(), tenant_id=session.tenant)
    limits = await ceiling.limits(run_id)
    # The run goes first: killed in between, this leaves a limit without a run, and never a run without its limit.
    if not await session.checkpoints().delete(run_id, tenant_id=session.tenant):
        raise RunNotFoundError(f"there is no run {run_id!r}", run_id=run_id, tenant_id=session.tenant)
    await ceiling.remove(run_id, limits)


async def _read(session: Session, run_id: str) -> tuple[RunState, tuple[WindowUsage, ...]]:
    from app.errors import RunNotFoundError

    state = await session.checkpoints().load(run_id, tenant_id=session.tenant)
    if state is None:
        raise RunNotFoundError(
            f"there is no run {run_id!r} of tenant {session.tenant!r}", run_id=run_id, tenant_id=session.tenant
        )
    return state, await session.budget().usage(f"run:{run_id}", tenant_id=session.tenant)


def _step(state: RunState, step_id: str) -> Step:
    from app.errors import InvalidInputError

    for step in state.steps:
        if step.step_id == step_id:
            return step
    near = ", ".join(step.step_id for step in state.steps[:5])
    raise InvalidInputError(
        f"run {state.head.run_id!r} has no recorded step {step_id!r}" + (f"; its first are: {near}" if near else "")
    )
