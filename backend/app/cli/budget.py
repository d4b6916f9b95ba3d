"""``nova budget``: ceilings, what was spent under them, and the holds that are uncertain."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.exits import ExitCode
from app.cli.hold_views import holds_text, whole_hold_id
from app.cli.session import JsonOption, Session, session_of
from app.stores.budget.contract import HoldState, Window

if TYPE_CHECKING:
    from rich.console import RenderableType

    from app.stores.budget.contract import AuditReport, BudgetStore, Hold, Stopped, WindowUsage

__all__ = ["group", "stops_in_force", "usage_table"]

group = typer.Typer(no_args_is_help=True, help="Ceilings, what was spent under them, and uncertain holds.")

NO_LIMIT = "none"


@group.command("show")
def show(
    ctx: typer.Context,
    scopes: Annotated[
        list[str] | None, typer.Argument(metavar="SCOPE", help="Such as run:ID or tenant. Default: all.")
    ] = None,
    *,
    json: JsonOption = False,
) -> None:
    """Show what each scope has spent and holds, beside its limits; and an emergency stop that is in force.

    Example:  nova budget show run:tour
    """
    from rich.console import Group

    from app.cli.documents import stop_document, window_document

    session = session_of(ctx, json=json)

    async def read() -> tuple[list[WindowUsage], list[tuple[str | None, Stopped]]]:
        store = session.budget()
        named = scopes or await store.scopes(tenant_id=session.tenant)
        windows = [window for scope in named for window in await store.usage(scope, tenant_id=session.tenant)]
        return windows, await stops_in_force(store, session.tenant)

    windows, stops = session.execute(read)
    session.show(
        {
            "windows": [window_document(window) for window in windows],
            "stops": [stop_document(stop, tenant_id=tenant_id) for tenant_id, stop in stops],
        },
        lambda: Group(
            *(_stop_view(session, stop, tenant_id) for tenant_id, stop in stops), usage_table(session, windows)
        ),
    )
    _note_missing_runs(session, scopes or [])


@group.command("set")
def set_limit(
    ctx: typer.Context,
    scope: Annotated[str, typer.Argument(metavar="SCOPE", help="Such as run:ID or tenant.")],
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="Dollars, such as '$0.50'; none removes the limit.")],
    *,
    window: Annotated[Window, typer.Option("--window", help="What the limit is for, in UTC.")] = "total",
    json: JsonOption = False,
) -> None:
    """Set the limit of a scope; it may be below what is spent already.

    A run that waits for its budget goes on with `nova resume` after its limit was raised.

    Example:  nova budget set tenant '$5' --window day
    """
    from app.cli.documents import window_document
    from app.money import parse_usd

    session = session_of(ctx, json=json)
    limit = None if amount.strip().lower() == NO_LIMIT else parse_usd(amount)

    async def change() -> tuple[WindowUsage, ...]:
        store = session.budget()
        await store.set_limit(scope, limit, window=window, tenant_id=session.tenant)
        return await store.usage(scope, tenant_id=session.tenant)

    windows = session.execute(change)
    session.show({"windows": [window_document(each) for each in windows]}, lambda: usage_table(session, windows))
    _note_missing_runs(session, [scope])


@group.command("holds")
def holds(
    ctx: typer.Context,
    *,
    scope: Annotated[str | None, typer.Option("--scope", help="Only holds that name this scope.")] = None,
    state: Annotated[HoldState | None, typer.Option("--state", help="expired: charged, and uncertain.")] = None,
    after: Annotated[str | None, typer.Option("--after", metavar="HOLD", help="Continue behind this id.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many at most.")] = 100,
    json: JsonOption = False,
) -> None:
    """List holds: money that calls have reserved, and what became of it.

    Example:  nova budget holds --state expired
    """
    from app.cli.documents import hold_document

    session = session_of(ctx, json=json)
    found = session.execute(
        lambda: session.budget().holds(scope=scope, state=state, after=after, limit=limit, tenant_id=session.tenant)
    )
    following = found[-1].hold_id if len(found) == limit else None
    session.show(
        {"holds": [hold_document(hold) for hold in found], "next_after": following},
        lambda: holds_text(found, nova=session.nova),
        wrap=False,
    )
    if following is not None and not session.json:
        session.note(f"there may be more: --after {shlex.quote(following)}")


@group.command("correct")
def correct(
    ctx: typer.Context,
    hold_id: Annotated[
        str, typer.Argument(metavar="HOLD", help="As `nova budget holds` shows it, or the start of it.")
    ],
    amount: Annotated[
        str, typer.Argument(metavar="AMOUNT", help="What the provider billed, such as '$0.0021'; 0: nothing.")
    ],
    *,
    detail: Annotated[str, typer.Option("--detail", help="Why; it is kept with the hold.")] = "corrected by hand",
    json: JsonOption = False,
) -> None:
    """Settle an uncertain hold with what the provider really billed.

    A hold whose call may still be under way is refused: the call brings its own bill.

    Example:  nova budget correct call-7/1/claude/1 '$0.0021' --detail 'invoice of November'
    """
    from app.cli.documents import hold_document
    from app.errors import UnknownHoldError
    from app.money import parse_usd

    session = session_of(ctx, json=json)
    bill = parse_usd(amount)

    async def settle(whole: str) -> Hold:
        return await session.budget().settle(whole, bill, correction=True, detail=detail, tenant_id=session.tenant)

    async def settle_named() -> Hold:
        try:
            return await settle(hold_id)
        except UnknownHoldError:
            return await settle(await whole_hold_id(session.budget(), hold_id, tenant_id=session.tenant))

    hold = session.execute(settle_named)
    session.show(hold_document(hold), lambda: holds_text([hold], nova=session.nova), wrap=False)


@group.command("audit")
def audit(ctx: typer.Context, *, json: JsonOption = False) -> None:
    """Recompute every counter from its entries, and name what differs (exit code 31 if anything does).

    Example:  nova budget audit
    """
    from app.cli.documents import audit_document

    session = session_of(ctx, json=json)
    report = session.execute(lambda: session.budget().audit(tenant_id=session.tenant))
    session.show(audit_document(report), lambda: _audit_view(report))
    if not report.clean:
        raise typer.Exit(ExitCode.STORE_DAMAGED)


@group.command("repair")
def repair(
    ctx: typer.Context,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be changed.")] = False,
    json: JsonOption = False,
) -> None:
    """Set each counter that differs from its entries to what they say, and nothing else.

    Example:  nova budget repair --dry-run
    """
    from app.cli.documents import audit_document

    session = session_of(ctx, json=json)

    async def work() -> AuditReport:
        store = session.budget()
        return await (store.audit if dry_run else store.repair)(tenant_id=session.tenant)

    report = session.execute(work)
    session.show({**audit_document(report), "repaired": not (dry_run or report.clean)}, lambda: _audit_view(report))
    if not (report.clean or session.json):
        session.note("nothing was changed" if dry_run else "each of them is now what was recomputed")


@group.command("stop")
def stop(
    ctx: typer.Context,
    *,
    everybody: Annotated[bool, typer.Option("--all", help="All tenants; it takes effect within a second.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is shown to whoever is refused.")] = "",
    json: JsonOption = False,
) -> None:
    """Stop in an emergency: no call is made on the tenant's budgets until `nova budget go`.

    Calls under way go on, and are charged. Runs that are refused are parked, and go on with `nova resume`.

    Example:  nova budget stop --reason 'runaway agent'
    """
    from app.cli.documents import stop_document

    session = session_of(ctx, json=json)
    tenant_id = None if everybody else session.tenant
    made = session.execute(lambda: session.budget().stop(reason=reason, tenant_id=tenant_id))
    session.show(stop_document(made, tenant_id=tenant_id), lambda: _stop_view(session, made, tenant_id))


@group.command("go")
def go(
    ctx: typer.Context,
    *,
    everybody: Annotated[bool, typer.Option("--all", help="Lift the stop of all tenants.")] = False,
    json: JsonOption = False,
) -> None:
    """Lift the emergency stop.

    Example:  nova budget go
    """
    from app.cli.documents import stop_document

    session = session_of(ctx, json=json)
    tenant_id = None if everybody else session.tenant

    async def work() -> Stopped | None:
        await session.budget().go(tenant_id=tenant_id)
        # The one lifts no stop of the other.
        return await session.budget().stopped(tenant_id=session.tenant if everybody else None)

    other = session.execute(work)
    session.show(stop_document(None, tenant_id=tenant_id), lambda: _stop_view(session, None, tenant_id))
    if other is not None and not session.json:
        session.note(
            f"the tenant {session.tenant!r} itself is still stopped: {session.nova} budget go"
            if everybody
            else f"all tenants are still stopped: {session.nova} budget go --all"
        )


async def stops_in_force(store: BudgetStore, tenant_id: str) -> list[tuple[str | None, Stopped]]:
    """Return the stops that refuse a tenant's calls, each with the tenant that it names: None is all of them."""
    whose: tuple[str | None, ...] = (None, tenant_id)
    found = [(each, await store.stopped(tenant_id=each)) for each in whose]
    return [(each, stop) for each, stop in found if stop is not None]


def usage_table(session: Session, windows: Sequence[WindowUsage]) -> RenderableType:
    """Return a table with a row for what each scope has spent in all, and a bar for each window that has a limit."""
    from rich.console import Group
    from rich.text import Text

    from app.cli.output import aligned, ascii_only, bar, moment, table

    shown = [each for each in windows if each.limit is not None or each.window == "total"]
    if not shown:
        return Text("no scope has a limit, and nothing was spent")
    made = table("scope", "window", "used", ("spent", "right"), ("held", "right"), ("limit", "right"))
    spent, held = aligned([each.spent for each in shown]), aligned([each.held for each in shown])
    limits = aligned([each.limit for each in shown])
    previous = None
    for index, each in enumerate(shown):
        made.add_row(
            each.scope if each.scope != previous else "",
            each.window,
            bar(each.spent, each.held, each.limit, width=12, plain=ascii_only(session.out)),
            spent[index],
            held[index],
            "" if each.limit is None else limits[index],
        )
        previous = each.scope
    notes = [
        Text(f"{each.scope}, {each.window}: {what}", style="yellow")
        for each in shown
        for what in _remarks(each, session.nova)
    ]
    resets = sorted(
        {(each.window, moment(each.resets_at)) for each in shown if each.resets_at and each.limit is not None}
    )
    notes += [Text(f"the {window} ends at {end}", style="dim") for window, end in resets]
    return Group(made, *notes)


def _note_missing_runs(session: Session, scopes: Sequence[str]) -> None:
    """Say which scopes are those of runs that there are not: a limit may be set before its run, a name be mistyped."""
    run_ids = [scope.removeprefix("run:") for scope in scopes if scope.startswith("run:")]
    if session.json or not run_ids:
        return

    async def missing() -> list[str]:
        runs = session.checkpoints()
        return [each for each in run_ids if each and await runs.head(each, tenant_id=session.tenant) is None]

    for run_id in session.execute(missing):
        session.note(f"there is no run {run_id!r} yet")


def _remarks(usage: WindowUsage, nova: str) -> list[str]:
    from app.money import format_usd

    remarks = []
    if usage.window == "total" and usage.uncertain:
        remarks.append(
            f"{format_usd(usage.uncertain)} of it is uncertain: charged in full for calls of unknown outcome "
            f"({nova} budget holds --state expired)"
        )
    if usage.window == "total" and usage.overage:
        remarks.append(f"{format_usd(usage.overage)} of it was billed above the holds")
    if usage.limit is not None and usage.spent + usage.held >= usage.limit:
        remarks.append("nothing is left")
    return remarks


def _audit_view(report: AuditReport) -> RenderableType:
    from rich.text import Text

    from app.cli.output import aligned, table

    checked = f"{report.counters_checked} counters against {report.holds_checked} holds and every adjustment"
    if report.clean:
        return Text(f"clean: {checked}", style="green")
    made = table(
        "scope", "window", "counter", ("recorded", "right"), ("recomputed", "right"), title=f"differences in {checked}"
    )
    recorded = aligned([finding.recorded for finding in report.findings])
    recomputed = aligned([finding.recomputed for finding in report.findings])
    for index, finding in enumerate(report.findings):
        made.add_row(finding.scope, finding.window_id, finding.counter, recorded[index], recomputed[index])
    return made


def _stop_view(session: Session, stop: Stopped | None, tenant_id: str | None) -> RenderableType:
    from rich.text import Text

    from app.cli.output import moment, printable

    whose = "all tenants" if tenant_id is None else f"tenant {tenant_id}"
    option = " --all" if tenant_id is None else ""
    if stop is None:
        return Text(f"{printable(whose)}: calls are made", style="green")
    reason = f" ({stop.reason})" if stop.reason else ""
    told = f"{whose}: stopped since {moment(stop.since)}{reason}\nto lift it: {session.nova} budget go{option}"
    return Text(printable(told), style="bold red")
