"""``nova run`` and ``nova resume``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.session import JsonOption, Session, session_of

if TYPE_CHECKING:
    from app.cli.outcome import Left
    from app.money import Microcents
    from app.workflow.engine import Workflow

__all__ = ["resume", "run"]

DeadlineOption = Annotated[
    str | None, typer.Option("--deadline", metavar="TIME", help="How long it may take from now on, such as 10m.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


def run(
    ctx: typer.Context,
    flow: Annotated[Path, typer.Argument(metavar="FLOW", help="A flow file (YAML).")],
    *,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="NAME=VALUE", help="An input of the flow; may be repeated."),
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="AMOUNT", help="The most that the run may spend, such as '$0.50'.")
    ] = None,
    run_id: Annotated[str | None, typer.Option("--run-id", metavar="ID", help="Default: a new id.")] = None,
    deadline: DeadlineOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Run a flow: each step is recorded once, within its budget, and survives a crash.

    The result goes to standard output, progress to standard error. Ctrl-C lets steps under way finish; twice stops at
    once. Either way, and after a kill -9, `nova resume RUN` goes on where it was.

    Example:  nova run examples/brief.yaml --input documents=examples/documents --budget '$0.50'
    """
    from app.cli.outcome import conclude
    from app.cli.values import parse_duration, parse_inputs, parse_new_run_id
    from app.money import parse_usd
    from app.workflow.engine import new_run_id, utc_now
    from app.workflow.flow import load_flow

    session = session_of(ctx, json=json)
    pairs = parse_inputs(inputs or [])
    limit = None if budget is None else parse_usd(budget)
    length = None if deadline is None else parse_duration(deadline, option="--deadline")
    named = None if run_id is None else parse_new_run_id(run_id)
    loaded = load_flow(flow)
    given = loaded.read_inputs(pairs)
    chosen = named if named is not None else new_run_id(loaded.name, now=utc_now())
    left = _started(session, loaded.workflow(), given, run_id=chosen, budget=limit, deadline=length, quiet=quiet)
    conclude(session, left)


def resume(
    ctx: typer.Context,
    run_id: Annotated[str | None, typer.Argument(metavar="RUN", help="The run's id; or --all.")] = None,
    *,
    every: Annotated[
        bool, typer.Option("--all", help="Every run that was interrupted or waits for its budget; never failed ones.")
    ] = False,
    steal: Annotated[bool, typer.Option("--steal", help="Take it from whoever holds it.")] = False,
    reopen: Annotated[
        bool, typer.Option("--reopen", help="Also if it failed: its failed step is tried again.")
    ] = False,
    allow_changed: Annotated[
        bool, typer.Option("--allow-changed", help="Also if the workflow is not the recorded one; its records stand.")
    ] = False,
    deadline: DeadlineOption = None,
    quiet: QuietOption = False,
    json: JsonOption = False,
) -> None:
    """Go on with a run where it was: recorded steps are replayed, the others run.

    Where a process on another machine holds it, this waits until its lease ends, with a countdown.

    Example:  nova resume tour
    """
    from app.cli.outcome import conclude, conclude_all
    from app.cli.values import parse_duration

    session = session_of(ctx, json=json)
    if (run_id is None) == (not every):
        raise typer.BadParameter("name a run, or give --all", param_hint="RUN")
    length = None if deadline is None else parse_duration(deadline, option="--deadline")
    if run_id is None:
        if steal or reopen or allow_changed:
            raise typer.BadParameter("--steal, --reopen and --allow-changed are for one run that is named")
        conclude_all(session, _all_resumed(session, deadline=length, quiet=quiet))
        return
    left = _resumed(
        session, run_id, steal=steal, reopen=reopen, allow_changed=allow_changed, deadline=length, quiet=quiet
    )
    conclude(session, left)


def _started(
    session: Session,
    workflow: Workflow[Any],
    inputs: Mapping[str, object],
    *,
    run_id: str,
    budget: Microcents | None,
    deadline: timedelta | None,
    quiet: bool,
) -> Left:
    from app.cli.conduct import Conductor, conducted

    async def work(conductor: Conductor) -> Left:
        return await conductor.left(
            run_id, conductor.runner.start(workflow, inputs, run_id=run_id, budget=budget, deadline=deadline)
        )

    return session.execute(lambda: conducted(session, work, run_id=run_id, quiet=quiet))


def _resumed(session: Session, run_id: str, *, quiet: bool, **options: Any) -> Left:
    from app.cli.conduct import Conductor, conducted

    async def work(conductor: Conductor) -> Left:
        return await conductor.left(run_id, conductor.resume(run_id, **options))

    return session.execute(lambda: conducted(session, work, run_id=run_id, quiet=quiet))


def _all_resumed(session: Session, *, deadline: timedelta | None, quiet: bool) -> list[Left]:
    from app.cli.conduct import Conductor, conducted

    async def work(conductor: Conductor) -> list[Left]:
        reports = await conductor.runner.resume_all(deadline=deadline)
        return [await conductor.left_by(report) for report in reports]

    return session.execute(lambda: conducted(session, work, run_id=None, quiet=quiet))
