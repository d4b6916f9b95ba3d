"""Tables, bars, amounts and times say what is true."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.cli.documents import money
from app.cli.output import NovaConsole, aligned, bar, duration, moment, printable, table
from app.cli.session import Session


def test_aligned_amounts_lose_no_digit_and_have_their_points_below_each_other() -> None:
    """Amounts of one column have as many decimals as the longest; unknown stays a question mark."""
    texts = aligned([50_000_000, 1, None, 12_300_000_000])

    assert texts == ["$0.50000000", "$0.00000001", "?", "$123.00000000"]


@example(999, 0, 1000, 12)
@example(1, 998, 1000, 12)
@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**12), st.integers(4, 40))
def test_a_bar_is_full_exactly_where_nothing_is_left(spent: int, held: int, limit: int, width: int) -> None:
    """A bar has its width, shows any use, and is full only when spent and held reach the limit."""
    drawn = bar(spent, held, limit, width=width, plain=True).plain

    used = drawn.count("#") + drawn.count("+")
    assert len(drawn) == width
    assert (used == width) == (spent + held >= limit and (spent + held > 0))
    assert (used > 0) == (spent + held > 0)


def test_a_scope_without_a_limit_has_no_bar() -> None:
    """No limit is said in words: an empty bar would read as nothing used."""
    drawn = bar(5, 5, None, width=12)

    assert drawn.plain.strip() == "no limit"


def test_money_for_programs_is_exact_in_dollars_and_microcents() -> None:
    """The decimal string and the integer are the same amount, and unknown is null."""
    documents = [money(50_000_000), money(1), money(0), money(12_300_000_000), money(None)]

    assert documents == [
        {"usd": "0.5", "microcents": 50_000_000},
        {"usd": "0.00000001", "microcents": 1},
        {"usd": "0", "microcents": 0},
        {"usd": "123", "microcents": 12_300_000_000},
        None,
    ]


def test_times_are_iso_8601_in_utc() -> None:
    """Whatever zone a time is in, it is shown in UTC with a Z."""
    time = datetime(2026, 11, 24, 12, 30, 1, 250_000, tzinfo=timezone(timedelta(hours=2)))

    assert moment(time) == "2026-11-24T10:30:01Z"
    assert moment(time, precise=True) == "2026-11-24T10:30:01.250Z"
    assert datetime.fromisoformat(moment(time, precise=True) or "") == time.astimezone(UTC)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (8, "8s"), (125, "2m05s"), (11_400, "3h10m"), (187_200, "2d04h")]
)
def test_durations_are_short(seconds: int, text: str) -> None:
    """Two units at most, the larger first."""
    assert duration(timedelta(seconds=seconds)) == text


def test_text_from_outside_cannot_drive_the_terminal() -> None:
    """Escape sequences lose their escape; line ends, tabs and letters stay."""
    shown = printable("ok\x1b[2J\x9b31m\ttab\nline \u00e9\x07")

    assert shown == "ok[2J31m\ttab\nline \u00e9"


def test_a_table_takes_names_as_they_are_and_fits_eighty_columns() -> None:
    """Square brackets are not markup, long ids are folded and not cut, and no line is longer than the width."""
    stream = io.StringIO()
    run_id = "[red]" + "x" * 120
    made = table("run", ("steps", "right"))
    made.add_row(run_id, "7")

    NovaConsole(file=stream, width=80, markup=False, emoji=False, highlight=False).print(made)

    lines = stream.getvalue().splitlines()
    assert max(len(line) for line in lines) <= 80
    assert run_id in "".join(line.replace("7", "").strip() for line in lines)


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        (Terminal, ["one two three four", "five", f"https://{'x' * 30}", "", "  - a point that", "  goes on", "short"]),
        (io.StringIO, [f"one two three four five https://{'x' * 30}", "", "  - a point that goes on", "short"]),
    ],
    ids=["terminal", "pipe"],
)
def test_a_result_is_wrapped_between_words_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, kind: type[io.StringIO], lines: list[str]
) -> None:
    """A word that is longer than a line stays whole, and a pipe gets what was recorded."""
    stream = kind()
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout", stream)

    Session(color=False).give({}, f"one two three four five https://{'x' * 30}\n\n  - a point that goes on\nshort")

    assert [line.rstrip() for line in stream.getvalue().splitlines()] == lines


def test_a_table_moves_together_before_it_folds() -> None:
    """A name stays in one piece as long as it can; where there is room, columns stand apart."""
    made = table("model", ("price", "right"), "ends")
    made.add_row("gpt-rosalind-discovery", "5/25", "2026-12-11")
    shown = {}
    for width in (42, 60):
        console = NovaConsole(file=io.StringIO(), width=width)
        with console.capture() as captured:
            console.print(made)
        shown[width] = captured.get()

    assert "gpt-rosalind-discovery  5/25 2026-12-11" in shown[42]
    assert "gpt-rosalind-discovery    5/25   2026-12-11" in shown[60]
