"""How the demo tells its story: acts, the commands that it runs, and figures."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Mapping, Sequence
from typing import Final

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from app.money import format_usd
from app.stores.budget.contract import HoldState
from examples.demo.evidence import Claim, Evidence

__all__ = ["Story"]

_PROMPT: Final = "$ "


class Story:
    """Writes to one console; texts are taken as they are."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._act = 0

    def act(self, title: str) -> None:
        """Begin the next act."""
        self._act += 1
        self._console.print()
        self._console.rule(Text(f"{self._act}. {title}", style="bold cyan"), align="left", characters="─")

    def say(self, text: str, *, style: str = "") -> None:
        """Say paragraphs, wrapped as the terminal wants it; lines that begin with a prompt stay lines."""
        paragraphs = [part.split("\n") for part in textwrap.dedent(text).strip().split("\n\n")]
        for index, lines in enumerate(paragraphs):
            commands = lines[0].startswith(_PROMPT)
            shown = "\n".join(lines) if commands else " ".join(lines)
            self._console.print(Text(("\n" if index else "") + shown, style=style), soft_wrap=commands)

    def command(self, *words: str, variables: Mapping[str, str] | None = None) -> None:
        """Show a command as it could be pasted, with what was exported before."""
        self._console.print()
        for name, value in (variables or {}).items():
            self._print_long(Text.assemble((_PROMPT, "dim"), f"export {name}={shlex.quote(value)}"))
        self._print_long(Text.assemble((_PROMPT, "dim"), (" ".join(map(_quoted, words)), "bold")))

    def killed(self, pid: int) -> None:
        """Show that a process was killed, on a line of its own below whatever it had drawn."""
        self._console.show_cursor(show=True)  # the process had no time to give the cursor back
        self._console.print()
        self._print_long(Text.assemble((_PROMPT, "dim"), (f"kill -9 {pid}", "bold red")))

    def text(self, title: str, text: str) -> None:
        """Show a longer text that a model wrote."""
        self._console.print(Panel(Text(text.strip()), title=title, title_align="left", box=box.ROUNDED, padding=(1, 2)))

    def notes(self, notes: Sequence[tuple[str, str]]) -> None:
        """Show a few of the notes, each with the name of its document."""
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 1, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        for name, text in notes:
            table.add_row(name, Text(" ".join(text.split())))
        self._console.print(table)

    def costs(self, evidence: Evidence) -> None:
        """Show what each part of the run cost, and what it adds up to."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
        table.add_column("what")
        for heading in ("steps", "tokens in", "tokens out", "cost"):
            table.add_column(heading, justify="right")
        for group in dict.fromkeys(step.step_id.split("/")[0] for step in evidence.steps):
            steps = [step for step in evidence.steps if step.step_id.split("/")[0] == group]
            tokens = [_tokens([step.meta.get(key) for step in steps]) for key in ("input_tokens", "output_tokens")]
            table.add_row(group, str(len(steps)), *tokens, format_usd(evidence.step_cost(group)))
        uncertain = evidence.of(HoldState.EXPIRED)
        table.add_row(
            Text("cut by the kill, uncertain", style="yellow"),
            "",
            "?",
            "?",
            Text(format_usd(sum(hold.charged for hold in uncertain)), style="yellow"),
            end_section=True,
        )
        table.add_row("spent", str(len(evidence.steps)), "", "", format_usd(evidence.total.spent), style="bold")
        self._console.print(table)

    def verdict(self, claims: Sequence[Claim]) -> bool:
        """Show each claim with its figures; return whether all of them are true."""
        self._console.print()
        for claim in claims:
            mark = Text("yes  ", style="bold green") if claim.holds else Text("NO   ", style="bold red")
            text = claim.text if claim.holds else f"{claim.text}: this is not so"
            self._console.print(Text.assemble(mark, text, ("\n     " + claim.figures, "dim")))
        return all(claim.holds for claim in claims)

    def failed(self, text: str) -> None:
        """Say why the demo ends here."""
        self._console.print()
        self._console.print(Text.assemble(("the demo stopped: ", "bold red"), text))

    def _print_long(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


def _quoted(word: str) -> str:
    return word if word.startswith("\\\n") else shlex.quote(word)


def _tokens(counts: Sequence[object]) -> str:
    known = [count for count in counts if isinstance(count, int)]
    return f"{sum(known):,}" if len(known) == len(counts) else "?"
