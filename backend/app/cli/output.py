"""What people see: consoles, tables, bars, amounts and times.

Nothing that came from a file, a model or a provider is read as markup, and none of it can move the cursor.
"""

from __future__ import annotations

import json
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from app.money import format_usd

if TYPE_CHECKING:
    from app.money import Microcents

__all__ = [
    "CourteousStream",
    "NovaConsole",
    "aligned",
    "ascii_only",
    "bar",
    "console",
    "counted",
    "duration",
    "facts",
    "moment",
    "printable",
    "status_text",
    "table",
    "text_of",
    "wrapped",
    "write_json",
    "write_text",
]

_STATUS_STYLE = {
    "running": "cyan",
    "interrupted": "yellow",
    "waiting": "yellow",
    "completed": "green",
    "failed": "red",
    "aborted": "magenta",
    "held": "cyan",
    "settled": "green",
    "released": "dim",
    "expired": "yellow",
}


_ANY_WIDTH = 10_000
"""More columns than any table has."""


class NovaConsole(Console):
    """A console whose closed pipe is an exception like any other; rich itself would end the program."""

    def on_broken_pipe(self) -> None:
        """Tell the command that nobody reads any more."""
        raise BrokenPipeError


class CourteousStream:
    """Standard error for what is said beside the result: it falls silent where it cannot be written to any more.

    A run that costs money does not end because its progress is no longer looked at.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._silent = False

    def write(self, text: str) -> int:
        """Write, or do nothing."""
        if not self._silent:
            try:
                self._stream.write(text)
            except OSError:
                self._silent = True
        return len(text)

    def flush(self) -> None:
        """Flush, or do nothing."""
        if not self._silent:
            try:
                self._stream.flush()
            except OSError:
                self._silent = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def console(*, stderr: bool = False, color: bool = True) -> NovaConsole:
    """Return a console that takes every text as it is; the one for standard error never fails."""
    file = cast("TextIO", CourteousStream(sys.stderr)) if stderr else None
    return NovaConsole(file=file, markup=False, emoji=False, highlight=False, no_color=None if color else True)


def write_json(document: object) -> None:
    """Write the one JSON document of a command to standard output."""
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=not unicode) + "\n")
    sys.stdout.flush()


def write_text(text: str) -> None:
    """Write a text to standard output as it is, without wrapping; what would control a terminal is left out on one."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def text_of(value: Any) -> str:
    """Return a recorded value as people read it: a text is itself, anything else its JSON."""
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def wrapped(text: str, width: int) -> str:
    """Return text whose lines are broken between words where they are longer than ``width``, and nowhere else.

    A line goes on as far to the right as it began. A word that is longer than a line stays whole.
    """
    lines = text.split("\n")
    return "\n".join(line if len(line) <= width else _broken(line, width) for line in lines)


def _broken(line: str, width: int) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    if len(indent) > width // 2:
        indent = ""
    return textwrap.fill(
        line,
        width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
        expand_tabs=False,
    )


def table(*columns: str | tuple[str, Literal["right"]], title: str | None = None) -> Table:
    """Return an empty table; a column is its heading, with ``"right"`` where it holds figures.

    What does not fit is first moved closer together, and then folded, never cut: ids are copied from tables.
    """
    made = _FittedTable(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        heading, justify = (column, None) if isinstance(column, str) else column
        made.add_column(
            heading, justify=justify or "left", overflow="fold", no_wrap=justify == "right", header_style="bold"
        )
    return made


class _FittedTable(Table):
    """A table whose columns move closer together where they would not fit otherwise."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Choose the distance and render."""
        usual = self.padding
        wanted = Measurement.get(console, options.update(width=_ANY_WIDTH), self).maximum
        self.padding = usual if wanted <= options.max_width else (0, 0)
        try:
            yield from super().__rich_console__(console, options)
        finally:
            self.padding = usual


def status_text(status: str) -> Text:
    """Return a status in its colour."""
    return Text(status, style=_STATUS_STYLE.get(status, ""))


def aligned(amounts: Sequence[Microcents | None]) -> list[str]:
    """Return amounts with as many decimals as the longest needs, so that their points stand below each other."""
    texts = [format_usd(amount) for amount in amounts]
    decimals = max((len(text.partition(".")[2]) for text in texts), default=2)
    return [text if text == "?" else f"{text:0<{len(text.partition('.')[0]) + 1 + decimals}}" for text in texts]


def bar(spent: int, held: int, limit: int | None, *, width: int = 20, plain: bool = False) -> Text:
    """Return a bar of what is spent, what is held, and what is left of a limit.

    It is full only where nothing is left, and shows at least one mark for anything above nothing.
    """
    if limit is None:
        return Text("no limit".ljust(width), style="dim")
    marks = ("#", "+", ".") if plain else ("█", "▒", "·")
    total = max(limit, spent + held, 1)
    used = _cells(spent + held, total, width)
    of_spent = min(used, _cells(spent, total, width))
    over = spent + held >= limit
    return Text.assemble(
        (marks[0] * of_spent, "red" if over else "green"),
        (marks[1] * (used - of_spent), "yellow"),
        (marks[2] * (width - used), "dim"),
    )


def _cells(part: int, whole: int, width: int) -> int:
    if part <= 0:
        return 0
    return width if part >= whole else min(width - 1, max(1, part * width // whole))


def ascii_only(target: Console) -> bool:
    """Whether the console's encoding has no block characters."""
    return not target.encoding.lower().startswith("utf")


def moment(time: datetime | None, *, precise: bool = False) -> str | None:
    """Return a time as ISO 8601 in UTC: to the second, or to the millisecond if ``precise``."""
    if time is None:
        return None
    text = time.astimezone(UTC).isoformat(timespec="milliseconds" if precise else "seconds")
    return text.replace("+00:00", "Z")


def duration(length: timedelta) -> str:
    """Return a duration as people say it: ``8s``, ``2m05s``, ``3h10m``, ``2d04h``."""
    seconds = max(0, round(length.total_seconds()))
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d{hour:02}h"
    if hours:
        return f"{hours}h{minute:02}m"
    return f"{minutes}m{second:02}s" if minutes else f"{second}s"


def printable(text: str) -> str:
    """Return text without characters that would control a terminal; line ends and tabs stay."""
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) != "Cc")


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun, and what else agrees with it: ``1 step is``, ``2 steps are``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def facts(rows: Iterable[tuple[str, Any]]) -> Table:
    """Return names and values below each other, without lines."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, value)
    return grid
