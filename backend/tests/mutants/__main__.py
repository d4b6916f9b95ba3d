"""``python -m backend.tests.mutants [NAME ...]``: take out each guard, or those named, and see its test fail.

A name is a mutant's, or the beginning of some (``idempotency/``). Exit code 0: every mutant was killed. 1: one
survived, did not run, or has a test that is red before. 2: no such mutant, or a text to replace that is not there once.
"""

from __future__ import annotations

import sys
from collections import Counter

from rich.console import Console
from rich.table import Table

from .catalogue import ROOT, load
from .runner import Result, run


def main(names: list[str]) -> int:
    """Judge the mutants and print what became of them."""
    console = Console()
    mutants = [mutant for mutant in load() if not names or mutant.name.startswith(tuple(names))]
    if not mutants:
        console.print(f"no mutant is called {' or '.join(names)}", style="red")
        return 2
    results: list[Result] = []
    try:
        for result in run(mutants, ROOT):
            results.append(result)
            console.print(
                f"{len(results):>3}/{len(mutants)} {result.verdict:<10} {result.mutant.name}", highlight=False
            )
    except ValueError as error:
        console.print(str(error), style="red", markup=False)
        return 2
    console.print(_table(results))
    for result in results:
        if result.verdict != "killed":
            console.print(f"\n{result.mutant.name}: {result.verdict}\n{result.output}", markup=False, highlight=False)
    counts = Counter(result.verdict for result in results)
    console.print(", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())))
    return 0 if set(counts) == {"killed"} else 1


def _table(results: list[Result]) -> Table:
    table = Table("guard", "verdict", "s")
    for result in sorted(results, key=lambda result: result.mutant.name):
        style = "green" if result.verdict == "killed" else "red"
        table.add_row(result.mutant.name, f"[{style}]{result.verdict}[/]", f"{result.seconds:.1f}")
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
