"""How runs and their steps look to people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from app.cli.standing import INTERRUPTED, go_on, is_interrupted, who

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from app.cli.session import Session
    from app.stores.budget.contract import WindowUsage
    from app.stores.checkpoint.codec import JsonValue
    from app.stores.checkpoint.contract import RunHead, RunState, StepRecord

__all__ = ["history_table", "run_view", "runs_table", "text_view"]

_RESULT_SHOWN: Final = 2_000
"""How many characters of a result are shown without being asked for more."""


def text_view(value: Any, *, style: str = "") -> RenderableType:
    """Return a recorded value as text that cannot drive the terminal."""
    from rich.text import Text

    from app.cli.output import printable, text_of

    return Text(printable(text_of(value)), style=style)


def runs_table(heads: Sequence[RunHead]) -> RenderableType:
    """Return a row per run."""
    from app.cli.output import moment, table

    if not heads:
        return text_view("no runs")
    now = datetime.now(UTC)
    made = table("run", "workflow", "status", ("steps", "right"), "updated")
    for head in heads:
        made.add_row(
            head.run_id, head.workflow, _status(head, now=now), str(head.next_step_index), moment(head.updated_at)
        )
    return made


def _status(head: RunHead, *, now: datetime) -> Text:
    from app.cli.output import status_text

    status = status_text(INTERRUPTED if is_interrupted(head, now=now) else head.status.value)
    if head.waiting_for is not None:
        status.append(f" ({head.waiting_for})")
    return status


def run_view(session: Session, state: RunState, windows: Sequence[WindowUsage], *, full: bool) -> RenderableType:
    """Return a run whole: its head, its money, its steps, and its result."""
    from rich.console import Group

    from app.cli.budget import usage_table
    from app.cli.output import facts, moment

    head, now = state.head, datetime.now(UTC)
    rows: list[tuple[str, Any]] = [
        ("run", head.run_id),
        ("workflow", f"{head.workflow}, version {head.workflow_version}" if head.workflow else "none"),
        ("status", _status(head, now=now)),
        ("started", moment(head.created_at)),
        ("updated", moment(head.updated_at)),
    ]
    if head.root_run_id != head.run_id:
        rows.append(("forked from", head.root_run_id))
    if head.lease is not None:
        word = "last worked on by" if is_interrupted(head, now=now) else "worked on by"
        rows.append((word, f"{who(head.lease.holder)}, lease until {moment(head.lease.expires_at)}"))
    if head.error:
        rows.append(("error", text_view(head.error)))
    to_do = go_on(head, nova=session.nova, now=now)
    if to_do is not None:
        rows.append(("to do", to_do))
    parts: list[RenderableType] = [facts(rows), usage_table(session, windows), _steps_table(state.steps)]
    if head.result is not None:
        parts.append(_result(head.result, full=full))
    return Group(*parts)


def _result(result: Any, *, full: bool) -> RenderableType:
    from app.cli.output import text_of

    text = text_of(result)
    if full or len(text) <= _RESULT_SHOWN:
        return text_view(text)
    return text_view(f"{text[:_RESULT_SHOWN]}\n… {len(text) - _RESULT_SHOWN:,} more characters: --full")


def _steps_table(steps: Sequence[StepRecord]) -> RenderableType:
    from app.cli.output import aligned, moment, table
    from app.workflow.calls import recorded_cost

    if not steps:
        return text_view("no step is recorded yet")
    made = table(("#", "right"), "step", ("tokens in", "right"), ("out", "right"), ("cost", "right"), "recorded")
    costs = aligned([recorded_cost(step.meta) for step in steps])
    for step, cost in zip(steps, costs, strict=True):
        called = "calls" in step.meta
        made.add_row(
            str(step.index),
            step.step_id,
            *(_count(step.meta[name]) if called else "" for name in ("input_tokens", "output_tokens")),
            cost if called else "",
            moment(step.recorded_at),
        )
    return made


def _count(value: JsonValue) -> str:
    return f"{value:,}" if isinstance(value, int) else "?"


def history_table(steps: Sequence[StepRecord]) -> RenderableType:
    """Return a row per step, with its size and hash."""
    from app.cli.output import moment, table

    if not steps:
        return text_view("no steps")
    made = table(("#", "right"), "step", ("bytes", "right"), "input", "hash", "recorded")
    for step in steps:
        made.add_row(
            str(step.index),
            step.step_id,
            f"{step.size_bytes:,}",
            step.fingerprint[:8],
            step.hash.hex()[:8],
            moment(step.recorded_at),
        )
    return made
