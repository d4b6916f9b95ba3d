"""What imports cost, in fresh interpreters, over an interpreter that imports nothing.

In each round every statement is run once by a new process, and the order moves on from round to round; rounds that warm
up (and compile bytecode) are left out. Figures are medians of rounds with the lowest and the highest; "over bare" is
taken within a round, from the bare interpreter of the same environment.

Run it with ``python benchmarks/import_time.py [--rounds N]``; ``--json`` prints the figures for programs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console
from rich.table import Table

from benchmarks.support.environments import peer_python
from benchmarks.support.figures import Figure
from benchmarks.support.turns import clean_environment

WARM_UP_ROUNDS: Final = 2
TARGET_MS: Final = 60
"""What importing the modules of a factory may take over the bare interpreter."""

BARE: Final = "pass"
OWN: Final = {
    "bare interpreter": BARE,
    "import app.stores": "import app.stores",
    "import app.skills.adapters": "import app.skills.adapters",
    "both, and the factories called": (
        "from app.stores import get_budget_store; from app.skills.adapters import get_llm_adapter; "
        "get_budget_store(); get_llm_adapter()"
    ),
    "import openai": "import openai",
    "import anthropic": "import anthropic",
}
PEER: Final = {"LiteLLM's bare interpreter": BARE, "import litellm": "import litellm"}


@dataclass(slots=True)
class Subject:
    """A statement, the interpreter that runs it, and what each round took."""

    python: str
    statement: str
    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)


def run_once(subject: Subject, environment: dict[str, str]) -> tuple[float, float]:
    """Return the wall and processor time of a new process in ms.

    Raises:
        RuntimeError: the statement failed.
    """
    started = time.perf_counter()
    process = subprocess.Popen([subject.python, "-c", subject.statement], env=environment, stderr=subprocess.PIPE)
    assert process.stderr is not None
    with process.stderr as errors:
        words = errors.read()
    _, status, used = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{subject.statement!r} failed: {words.decode(errors='replace')[-2000:]}")
    return wall_s * 1_000, (used.ru_utime + used.ru_stime) * 1_000


def measure(rounds: int) -> tuple[dict[str, Subject], list[str]]:
    """Return what each statement took, and what could not be measured."""
    backend = str(Path(__file__).resolve().parents[1] / "backend")
    # LiteLLM otherwise asks GitHub for prices when it is imported.
    environment = clean_environment(PYTHONPATH=backend, LITELLM_LOCAL_MODEL_COST_MAP="True")
    subjects = {name: Subject(sys.executable, statement) for name, statement in OWN.items()}
    python = peer_python("litellm")
    missing = [python] if isinstance(python, str) else []
    if not isinstance(python, str):
        subjects |= {name: Subject(str(python), statement) for name, statement in PEER.items()}
    order = list(subjects.values())
    for number in range(WARM_UP_ROUNDS + rounds):
        for subject in order:
            wall_ms, cpu_ms = run_once(subject, environment)
            if number >= WARM_UP_ROUNDS:
                subject.wall_ms.append(wall_ms)
                subject.cpu_ms.append(cpu_ms)
        order = [*order[1:], order[0]]
    return subjects, missing


def over_bare(subject: Subject, subjects: dict[str, Subject]) -> tuple[Figure, Figure]:
    """Return what a statement takes more than the bare interpreter of its environment: wall and processor time."""
    bare = next(other for other in subjects.values() if other.python == subject.python and other.statement == BARE)
    return (
        Figure.of([own - base for own, base in zip(subject.wall_ms, bare.wall_ms, strict=True)]),
        Figure.of([own - base for own, base in zip(subject.cpu_ms, bare.cpu_ms, strict=True)]),
    )


def table(subjects: dict[str, Subject]) -> Table:
    """Return the figures."""
    shown = Table()
    shown.add_column("in a fresh interpreter", no_wrap=True)
    for heading in ("ms", "over bare, ms", "over bare, CPU ms"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for name, subject in subjects.items():
        own = [figure.show(0) for figure in over_bare(subject, subjects)] if subject.statement != BARE else ["", ""]
        shown.add_row(name, Figure.of(subject.wall_ms).show(0), *own)
    return shown


def as_json(subjects: dict[str, Subject], missing: list[str]) -> str:
    """Return the figures for programs."""
    figures = {}
    for name, subject in subjects.items():
        wall, cpu = over_bare(subject, subjects)
        figures[name] = {
            "ms": Figure.of(subject.wall_ms).as_json(),
            "over_bare_ms": wall.as_json(),
            "over_bare_cpu_ms": cpu.as_json(),
        }
    return json.dumps({"figures": figures, "missing": missing}, indent=2)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11, help="rounds that count")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    subjects, missing = measure(options.rounds)
    if options.json:
        print(as_json(subjects, missing))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(
        f"{options.rounds} rounds after {WARM_UP_ROUNDS} to warm up, median (lowest-highest); Python "
        f"{platform.python_version()}, {os.cpu_count()} cores"
    )
    console.print(table(subjects))
    for sentence in missing:
        console.print(f"not measured: {sentence}")
    console.print(f"target: the modules of the factories take under {TARGET_MS} ms over the bare interpreter")


if __name__ == "__main__":
    main()
