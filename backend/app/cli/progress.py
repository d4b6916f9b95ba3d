"""How a run shows that it goes on: a live bar on a terminal, plain lines elsewhere; both on standard error.

Progress is a courtesy. When nobody reads it any more it ends, and the run, which costs money, goes on.
"""

# ruff: noqa: ARG002, D102 - the methods and their arguments are those of RunListener

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from app.cli.output import duration, printable
from app.money import format_usd
from app.workflow.listener import RunListener

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from app.money import Microcents
    from app.stores.checkpoint.contract import RunStatus, WaitingFor

__all__ = ["Group", "LineProgress", "LiveProgress", "Tally", "progress_on"]

LINE_EVERY_S: Final = 2.0
"""How often a group of steps says where it is, in plain lines."""


@dataclass(slots=True)
class Group:
    """Steps that belong together: those of one ``run.map``, or the documents of the inputs."""

    name: str
    total: int
    began_s: float
    replayed: int = 0
    recorded: int = 0

    @property
    def done(self) -> int:
        """Steps on record, replayed ones included."""
        return self.replayed + self.recorded

    def left(self, now_s: float) -> timedelta | None:
        """Return how long the rest takes at the pace so far, None while that is not known."""
        if not self.recorded or self.done >= self.total:
            return None
        return timedelta(seconds=(now_s - self.began_s) / self.recorded * (self.total - self.done))


@dataclass(slots=True)
class Tally:
    """What a run has done so far in this process. ``cost`` counts what was paid now, not what is replayed."""

    recorded: int = 0
    replayed: int = 0
    retries: int = 0
    cost: Microcents = 0
    unknown_costs: int = 0
    groups: dict[str, Group] = field(default_factory=dict)

    def add_recorded(self, step_id: str, cost: Microcents | None) -> Group | None:
        """Count a step that was recorded now, and return its group."""
        self.recorded += 1
        self.cost += cost or 0
        self.unknown_costs += cost is None
        if (group := self.group_of(step_id)) is not None:
            group.recorded += 1
        return group

    def add_replayed(self, step_id: str) -> Group | None:
        """Count a step that was on record already, and return its group."""
        self.replayed += 1
        if (group := self.group_of(step_id)) is not None:
            group.replayed += 1
        return group

    def group_of(self, step_id: str) -> Group | None:
        """Return the group of a step: ``notes`` for ``notes/3``; None for a step that stands alone."""
        return self.groups.get(step_id.rpartition("/")[0])

    def cost_text(self) -> str:
        """Return the cost so far; a plus where the cost of some call is not known."""
        return format_usd(self.cost) + ("+?" if self.unknown_costs else "")


class _Telling(RunListener):
    """Counts, and says in lines what happens seldom; subclasses show what happens often."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.tally = Tally()
        self._console = console
        self._clock = clock
        self._reader_gone = False

    def say(self, text: str, *, style: str = "") -> None:
        """Print a line, as long as somebody reads."""
        if self._reader_gone:
            return
        try:
            self._console.print(printable(text), style=style, soft_wrap=True)
        except BrokenPipeError:
            self._reader_gone = True

    def close(self) -> None:
        """End the display; what was printed stays."""

    def run_started(self, *, run_id: str, workflow: str, resumed: bool, steps_recorded: int) -> None:
        if resumed:
            self.say(f"run {run_id} ({workflow}) goes on: {steps_recorded} steps are on record")
        else:
            self.say(f"run {run_id} ({workflow}) begins")

    def step_retrying(self, *, run_id: str, step_id: str, attempt: int, delay: timedelta, error: Exception) -> None:
        self.tally.retries += 1
        self.say(
            f"{step_id}: attempt {attempt} failed, again in {delay.total_seconds():.1f} s ({error})", style="yellow"
        )

    def step_failed(self, *, run_id: str, step_id: str, attempts: int, error: Exception) -> None:
        times = "" if attempts == 1 else f" after {attempts} attempts"
        self.say(f"{step_id}: failed{times}", style="red")

    def run_waiting(self, *, run_id: str, waiting_for: WaitingFor, reason: str) -> None:
        self.say(f"run {run_id} is parked, waiting for its {waiting_for}", style="yellow")

    def run_ended(self, *, run_id: str, status: RunStatus) -> None:
        parts = [f"{self.tally.recorded} steps recorded"]
        if self.tally.replayed:
            parts.append(f"{self.tally.replayed} replayed")
        if self.tally.retries:
            parts.append(f"{self.tally.retries} retries")
        self.say(f"run {run_id}: {', '.join([*parts, self.tally.cost_text()])}")


class LineProgress(_Telling):
    """Plain lines, few enough to read: one per single step, one per group every two seconds and at its end."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console, clock=clock)
        self._said_s: dict[str, float] = {}

    def inputs_recorded(self, *, run_id: str, recorded: int, total: int) -> None:
        group = self.tally.groups.setdefault("documents", Group("documents", total, self._clock()))
        group.total, group.recorded = total, recorded
        self._tell_group(group)

    def map_started(self, *, run_id: str, step_id: str, count: int) -> None:
        self.tally.groups[step_id] = Group(step_id, count, self._clock())
        self.say(f"{step_id}: {count} steps")

    def step_recorded(self, *, run_id: str, step_id: str, attempts: int, cost: Microcents | None) -> None:
        group = self.tally.add_recorded(step_id, cost)
        if group is None:
            self.say(f"{step_id}: recorded, {format_usd(cost)}")
        else:
            self._tell_group(group)

    def step_replayed(self, *, run_id: str, step_id: str, cost: Microcents | None) -> None:
        group = self.tally.add_replayed(step_id)
        if group is None:
            self.say(f"{step_id}: on record already")
        elif group.done >= group.total:
            self._tell_group(group)

    def _tell_group(self, group: Group) -> None:
        now = self._clock()
        last = self._said_s.get(group.name, group.began_s)
        if group.done < group.total and now - last < LINE_EVERY_S:
            return
        self._said_s[group.name] = now
        left = group.left(now)
        about = "" if left is None else f", about {duration(left)} left"
        self.say(f"{group.name}: {group.done} of {group.total}, {self.tally.cost_text()} so far{about}")


class LiveProgress(_Telling):
    """A bar per group, with counts, what was paid so far and the time that is left."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console, clock=clock)
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._bars: Progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[cost]}"),
            TextColumn("{task.fields[left]}", style="dim"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._bars.start()

    def close(self) -> None:
        self._bars.stop()

    def inputs_recorded(self, *, run_id: str, recorded: int, total: int) -> None:
        group = self.tally.groups.setdefault("documents", Group("documents", total, self._clock()))
        group.total, group.recorded = total, recorded
        self._update(group)

    def map_started(self, *, run_id: str, step_id: str, count: int) -> None:
        self.tally.groups[step_id] = Group(step_id, count, self._clock())
        self._update(self.tally.groups[step_id])

    def step_started(self, *, run_id: str, step_id: str, attempt: int) -> None:
        if self.tally.group_of(step_id) is None:
            self.tally.groups.setdefault(f"{step_id}/", Group(step_id, 1, self._clock()))
            self._update(self.tally.groups[f"{step_id}/"])

    def step_recorded(self, *, run_id: str, step_id: str, attempts: int, cost: Microcents | None) -> None:
        group = self.tally.add_recorded(step_id, cost)
        if group is None and (group := self.tally.groups.get(f"{step_id}/")) is not None:
            group.recorded = 1
        self._update(group)

    def step_replayed(self, *, run_id: str, step_id: str, cost: Microcents | None) -> None:
        self._update(self.tally.add_replayed(step_id))

    def _update(self, group: Group | None) -> None:
        if group is None:
            return
        left = group.left(self._clock())
        about = "" if left is None else f"{duration(left)} left"
        if group.name not in self._tasks:
            self._tasks[group.name] = self._bars.add_task(group.name, total=group.total, cost="", left="")
        self._bars.update(
            self._tasks[group.name], completed=group.done, total=group.total, cost=self.tally.cost_text(), left=about
        )


def progress_on(console: Console) -> LineProgress | LiveProgress:
    """Return the display that suits a console."""
    return LiveProgress(console) if console.is_terminal and not console.is_dumb_terminal else LineProgress(console)
