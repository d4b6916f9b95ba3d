"""Progress says what is true, seldom enough to be read, and never harms its run."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import TextIO, cast

import pytest

from app.cli.output import CourteousStream, NovaConsole
from app.cli.progress import LineProgress, LiveProgress, RunProgress, progress_on
from app.stores.checkpoint.contract import RunStatus


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


class ClosedPipe(io.StringIO):
    """A stream whose reader has gone."""

    def write(self, text: str) -> int:
        """Refuse."""
        raise BrokenPipeError


def console(stream: io.StringIO, *, terminal: bool = False) -> NovaConsole:
    """Return a console of 80 columns on a stream, as the commands have it for standard error."""
    courteous = cast("TextIO", CourteousStream(stream))
    return NovaConsole(file=courteous, width=80, force_terminal=terminal, markup=False, emoji=False, highlight=False)


def begin(progress: RunProgress, *, count: int, run_id: str = "tour") -> None:
    """Begin a run with one map."""
    progress.run_started(run_id=run_id, workflow="brief", resumed=False, steps_recorded=0)
    progress.map_started(run_id=run_id, step_id="notes", count=count)


def record(progress: RunProgress, step_id: str, *, cost: int | None = 1_000_000, run_id: str = "tour") -> None:
    """Record a step."""
    progress.step_started(run_id=run_id, step_id=step_id, attempt=1)
    progress.step_recorded(run_id=run_id, step_id=step_id, attempts=1, cost=cost)


def test_a_large_group_says_where_it_is_every_two_seconds_and_at_its_end() -> None:
    """A thousand steps in ten seconds are a handful of lines, with counts, cost so far and the time left."""
    stream, clock = io.StringIO(), Clock()
    progress = LineProgress(console(stream), clock=clock)
    begin(progress, count=1000)

    for number in range(1000):
        clock.now_s += 0.01
        record(progress, f"notes/{number}")

    told = [line for line in stream.getvalue().splitlines() if line.startswith("notes: ") and " of " in line]
    assert told == [
        "notes: 200 of 1000, $2.00 so far, about 8s left",
        "notes: 400 of 1000, $4.00 so far, about 6s left",
        "notes: 600 of 1000, $6.00 so far, about 4s left",
        "notes: 800 of 1000, $8.00 so far, about 2s left",
        "notes: 1000 of 1000, $10.00 so far",
    ]


def test_the_time_left_comes_from_what_ran_now_and_not_from_what_was_replayed() -> None:
    """After a resume, 90 replayed steps do not make the last 10 look instant."""
    stream, clock = io.StringIO(), Clock()
    progress = LineProgress(console(stream), clock=clock)
    begin(progress, count=100)
    for number in range(90):
        progress.step_replayed(run_id="tour", step_id=f"notes/{number}", cost=1_000_000)

    clock.now_s += 3
    record(progress, "notes/90")

    assert "notes: 91 of 100 (90 were on record), $0.01 so far, about 27s left" in stream.getvalue()


def test_the_end_counts_what_ran_what_was_replayed_and_what_it_cost_now() -> None:
    """Replayed costs are not paid again; an unknown cost is marked, never taken for nothing."""
    stream = io.StringIO()
    progress = LineProgress(console(stream), many=True)
    begin(progress, count=3)
    progress.step_replayed(run_id="tour", step_id="notes/0", cost=5_000_000)
    record(progress, "notes/1", cost=2_000_000)
    progress.step_retrying(
        run_id="tour", step_id="notes/2", attempt=1, delay=timedelta(seconds=1.5), error=ValueError("odd")
    )
    record(progress, "notes/2", cost=None)

    progress.run_ended(run_id="tour", status=RunStatus.COMPLETED)

    lines = stream.getvalue().splitlines()
    assert "tour notes/2: attempt 1 failed, again in 1.5 s (odd)" in lines
    assert lines[-1] == "run tour is completed: 2 steps recorded, 1 replayed, 1 retry, $0.02 + ?"


def test_one_is_not_told_as_many() -> None:
    """Counts agree with their nouns and verbs."""
    stream = io.StringIO()
    progress = LineProgress(console(stream))
    progress.run_started(run_id="tour", workflow="brief", resumed=True, steps_recorded=1)
    progress.map_started(run_id="tour", step_id="notes", count=1)
    progress.step_replayed(run_id="tour", step_id="notes/0", cost=None)

    assert stream.getvalue().splitlines() == [
        "run tour (brief) goes on, 1 step is on record",
        "notes: 1 step",
        "notes: 1 of 1 (1 was on record), $0.00 so far",
    ]


def test_runs_that_go_on_together_are_told_apart() -> None:
    """With several runs each line names its run, and their counts do not mix."""
    stream = io.StringIO()
    progress = LineProgress(console(stream), many=True)
    for run_id in ("one", "two"):
        begin(progress, count=1, run_id=run_id)

    record(progress, "notes/0", run_id="two")

    assert "two notes: 1 of 1, $0.01 so far" in stream.getvalue()
    assert progress.tallies["one"].recorded == 0


@pytest.mark.parametrize("kind", [LineProgress, LiveProgress])
def test_a_reader_that_goes_away_ends_the_progress_and_not_the_run(kind: type[RunProgress]) -> None:
    """A closed standard error raises nothing into the run, whose steps are still counted."""
    progress = kind(console(ClosedPipe()))

    begin(progress, count=2)
    record(progress, "notes/0")
    progress.run_ended(run_id="tour", status=RunStatus.RUNNING)
    progress.close()

    assert progress.tallies["tour"].recorded == 1


def test_a_terminal_gets_bars_with_counts_cost_and_time_left() -> None:
    """The last drawing of the bars shows each group, single steps included."""
    stream, clock = io.StringIO(), Clock()
    progress = LiveProgress(console(stream, terminal=True), clock=clock)
    begin(progress, count=4)
    for number in range(3):
        clock.now_s += 1
        record(progress, f"notes/{number}")
    record(progress, "brief")

    progress.close()

    drawn = stream.getvalue()
    assert "3/4" in drawn
    assert "1s left" in drawn
    assert "$0.04" in drawn
    assert "brief" in drawn


def test_the_display_suits_the_stream() -> None:
    """Bars on a terminal, lines on a pipe."""
    on_terminal = progress_on(console(io.StringIO(), terminal=True))
    on_pipe = progress_on(console(io.StringIO()))
    on_terminal.close()

    assert isinstance(on_terminal, LiveProgress)
    assert isinstance(on_pipe, LineProgress)


def test_a_countdown_names_the_holder_and_the_time_at_its_start_and_every_ten_seconds() -> None:
    """Thirty seconds of waiting are three lines."""
    stream = io.StringIO()
    progress = LineProgress(console(stream))
    whole = timedelta(seconds=25)

    for passed in range(25):
        progress.waiting_for_holder("tour", "process 7 on mars", whole - timedelta(seconds=passed), whole)

    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0] == "run tour is held by process 7 on mars, elsewhere: 25 s until its lease ends (or --steal)"


def test_a_run_that_begins_after_the_first_signal_is_told_to_stop_too() -> None:
    """What was asked of the runs under way is asked again of one that gets its lease only then."""
    progress = LineProgress(console(io.StringIO()))
    asked: list[str] = []
    progress.on_started = lambda: asked.append("drain")

    progress.run_started(run_id="tour", workflow="brief", resumed=True, steps_recorded=3)

    assert asked == ["drain"]
    assert progress.begun == {"tour"}
