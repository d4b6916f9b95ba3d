"""How runs show that they go on: live bars on a terminal, plain lines elsewhere; both on standard error."""

# ruff: noqa: ARG002, D102 - the methods and their arguments are those of RunListener

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from app.cli.output import counted, duration, printable
from app.money import format_usd
from app.workflow.listener import RunListener

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from app.money import Microcents
    from app.stores.checkpoint.contract import RunStatus, WaitingFor

__all__ = ["Group", "LineProgress", "LiveProgress", "RunProgress", "Tally", "progress_on"]

LINE_EVERY_S: Final = 2.0
"""How often a group of steps says where it is, in plain lines."""

_DOCUMENTS: Final = "documents"
_LEASE: Final = ""
"""A name that no group of steps has: the bar of a lease that is waited for."""

_COUNTDOWN_LINE_S: Final = 10


@dataclass(slots=True)
class Group:
    """Steps that belong together: those of one ``run.map``, a single step, or the large inputs of a run."""

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
    """What a run has done so far in this process. ``cost`` counts what was paid now, not what was replayed."""

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
        group = self.group_of(step_id)
        if group is not None:
            group.recorded += 1
        return group

    def add_replayed(self, step_id: str) -> Group | None:
        """Count a step that was on record already, and return its group."""
        self.replayed += 1
        group = self.group_of(step_id)
        if group is not None:
            group.replayed += 1
        return group

    def group_of(self, step_id: str) -> Group | None:
        """Return the group of a step: ``notes`` for ``notes/3``; None for a step that stands alone."""
        return self.groups.get(step_id.rpartition("/")[0])

    def cost_text(self) -> str:
        """Return the cost so far; with a mark where the cost of some call is not known."""
        return format_usd(self.cost) + (" + ?" if self.unknown_costs else "")


class RunProgress(RunListener):
    """Counts, and says in lines what happens seldom; subclasses show what happens often.

    Args:
        console: where to.
        many: several runs go on at once, so that each line names its run.
        silent: count, and say nothing.
        clock: seconds that never go back.

    Attributes:
        tallies: what was done, by run.
        begun: the runs that got their lease.
        on_started: called when a run has got its lease.
    """

    def __init__(
        self,
        console: Console,
        *,
        many: bool = False,
        silent: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tallies: dict[str, Tally] = defaultdict(Tally)
        self.begun: set[str] = set()
        self.on_started: Callable[[], None] | None = None
        self._console = console
        self._many = many
        self._clock = clock
        self._silent = silent

    def say(self, text: str, *, style: str = "") -> None:
        """Print a line."""
        if not self._silent:
            self._console.print(printable(text), style=style, soft_wrap=True)

    def waiting_for_holder(self, run_id: str, holder: str, left: timedelta, whole: timedelta) -> None:
        """Say how long the lease of somebody else still lives; called every second."""
        seconds = math.ceil(left.total_seconds())
        if left == whole or seconds % _COUNTDOWN_LINE_S == 0:
            self.say(f"run {run_id} is held by {holder}, elsewhere: {seconds} s until its lease ends (or --steal)")

    def close(self) -> None:
        """End the display; what was printed stays."""

    def run_started(self, *, run_id: str, workflow: str, resumed: bool, steps_recorded: int) -> None:
        self.begun.add(run_id)
        if resumed:
            on_record = counted(steps_recorded, "step is", "steps are")
            self.say(f"run {run_id} ({workflow}) goes on, {on_record} on record")
        else:
            self.say(f"run {run_id} ({workflow}) begins")
        if self.on_started is not None:
            self.on_started()

    def step_retrying(self, *, run_id: str, step_id: str, attempt: int, delay: timedelta, error: Exception) -> None:
        self.tallies[run_id].retries += 1
        name, seconds = self._label(run_id, step_id), delay.total_seconds()
        self.say(f"{name}: attempt {attempt} failed, again in {seconds:.1f} s ({error})", style="yellow")

    def step_failed(self, *, run_id: str, step_id: str, attempts: int, error: Exception) -> None:
        times = "" if attempts == 1 else f" after {attempts} attempts"
        self.say(f"{self._label(run_id, step_id)}: failed{times}", style="red")

    def run_waiting(self, *, run_id: str, waiting_for: WaitingFor, reason: str) -> None:
        if not self._many:
            return  # the command tells it, with what to do
        self.say(f"run {run_id} is parked: it waits for its {waiting_for}", style="yellow")

    def run_ended(self, *, run_id: str, status: RunStatus) -> None:
        if not self._many:
            return  # the command tells how its one run ended
        tally = self.tallies[run_id]
        parts = [f"{counted(tally.recorded, 'step')} recorded"]
        if tally.replayed:
            parts.append(f"{tally.replayed} replayed")
        if tally.retries:
            parts.append(counted(tally.retries, "retry", "retries"))
        self.say(f"run {run_id} is {status.value}: {', '.join([*parts, tally.cost_text()])}")

    def _label(self, run_id: str, name: str) -> str:
        return f"{run_id} {name}" if self._many else name

    def _group(self, run_id: str, name: str, total: int) -> Group:
        groups = self.tallies[run_id].groups
        if name not in groups:
            groups[name] = Group(name, total, self._clock())
        return groups[name]


class LineProgress(RunProgress):
    """Plain lines, few enough to read: one per single step, one per group every two seconds and at its end."""

    def __init__(self, console: Console, *, many: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console, many=many, clock=clock)
        self._said_s: dict[tuple[str, str], float] = {}

    def inputs_recorded(self, *, run_id: str, recorded: int, total: int) -> None:
        group = self._group(run_id, _DOCUMENTS, total)
        group.recorded = recorded
        self._tell(run_id, group)

    def map_started(self, *, run_id: str, step_id: str, count: int) -> None:
        self._group(run_id, step_id, count)
        self.say(f"{self._label(run_id, step_id)}: {counted(count, 'step')}")

    def step_recorded(self, *, run_id: str, step_id: str, attempts: int, cost: Microcents | None) -> None:
        group = self.tallies[run_id].add_recorded(step_id, cost)
        if group is None:
            self.say(f"{self._label(run_id, step_id)}: recorded, {format_usd(cost)}")
        else:
            self._tell(run_id, group)

    def step_replayed(self, *, run_id: str, step_id: str, cost: Microcents | None) -> None:
        group = self.tallies[run_id].add_replayed(step_id)
        if group is None:
            self.say(f"{self._label(run_id, step_id)}: on record already")
        elif group.done >= group.total:
            self._tell(run_id, group)

    def _tell(self, run_id: str, group: Group) -> None:
        now = self._clock()
        last = self._said_s.get((run_id, group.name), group.began_s)
        if group.done < group.total and now - last < LINE_EVERY_S:
            return
        self._said_s[run_id, group.name] = now
        left = group.left(now)
        about = "" if left is None else f", about {duration(left)} left"
        replayed = f" ({counted(group.replayed, 'was', 'were')} on record)" if group.replayed else ""
        cost = "" if group.name == _DOCUMENTS else f", {self.tallies[run_id].cost_text()} so far"
        self.say(f"{self._label(run_id, group.name)}: {group.done} of {group.total}{replayed}{cost}{about}")


class LiveProgress(RunProgress):
    """A bar per group, with counts, what was paid so far and the time that is left."""

    def __init__(self, console: Console, *, many: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console, many=many, clock=clock)
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._bars: Progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[cost]}", markup=False),
            TextColumn("{task.fields[left]}", style="dim", markup=False),
            console=console,
        )
        self._tasks: dict[tuple[str, str], TaskID] = {}
        self._bars.start()

    def waiting_for_holder(self, run_id: str, holder: str, left: timedelta, whole: timedelta) -> None:
        key = (run_id, _LEASE)
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task(
                printable(f"{run_id}: held by {holder}"), total=whole.total_seconds(), cost="(or --steal)", left=""
            )
        self._bars.update(self._tasks[key], completed=(whole - left).total_seconds(), left=f"{duration(left)} left")

    def close(self) -> None:
        self._bars.stop()

    def inputs_recorded(self, *, run_id: str, recorded: int, total: int) -> None:
        group = self._group(run_id, _DOCUMENTS, total)
        group.recorded = recorded
        self._draw(run_id, group)

    def map_started(self, *, run_id: str, step_id: str, count: int) -> None:
        self._draw(run_id, self._group(run_id, step_id, count))

    def step_started(self, *, run_id: str, step_id: str, attempt: int) -> None:
        if self.tallies[run_id].group_of(step_id) is None:
            self._draw(run_id, self._group(run_id, step_id, 1))

    def step_recorded(self, *, run_id: str, step_id: str, attempts: int, cost: Microcents | None) -> None:
        group = self.tallies[run_id].add_recorded(step_id, cost)
        if group is None:
            group = self._group(run_id, step_id, 1)
            group.recorded = 1
        self._draw(run_id, group)

    def step_replayed(self, *, run_id: str, step_id: str, cost: Microcents | None) -> None:
        group = self.tallies[run_id].add_replayed(step_id)
        if group is not None:
            self._draw(run_id, group)

    def _draw(self, run_id: str, group: Group) -> None:
        key = (run_id, group.name)
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task(
                printable(self._label(run_id, group.name)), total=group.total, cost="", left=""
            )
        left = group.left(self._clock())
        self._bars.update(
            self._tasks[key],
            completed=group.done,
            total=group.total,
            cost="" if group.name == _DOCUMENTS else self.tallies[run_id].cost_text(),
            left="" if left is None else f"{duration(left)} left",
        )


def progress_on(console: Console, *, many: bool = False) -> RunProgress:
    """Return the display that suits a console."""
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveProgress(console, many=many)
    return LineProgress(console, many=many)
