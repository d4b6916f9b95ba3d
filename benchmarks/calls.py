"""A guarded call beside the bare OpenAI SDK, raw httpx2 and LiteLLM's SDK, on a loopback server that answers at once.

Then a stream, and a call with one round of tools, beside the bare SDK and Pydantic AI; ``--kind`` picks one of these.

Every participant is a process of its own that waits until it has its turn. In each round each makes its calls one
after another, then 64 at once; the order moves on from round to round. Rounds that warm up are left out. Figures are
medians of rounds with the lowest and the highest; ratios are taken within a round. On a machine that others use, trust
the ratio of processor times (CPU) and of the best rounds (best), not the milliseconds.

Run it with ``python benchmarks/calls.py [--rounds N]``; ``--json`` prints the figures for programs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console
from rich.table import Table

from benchmarks.support.chat_server import STREAMED_TOKENS, ChatServer
from benchmarks.support.environments import peer_python
from benchmarks.support.figures import Figure, over, percentile
from benchmarks.support.turns import CONCURRENCY, Caller, Turn, clean_environment, script

WARM_UP_ROUNDS: Final = 2
BASE: Final = "openai"
NAMES: Final = {
    "httpx2": "raw httpx2",
    "openai": "openai SDK",
    "adapter": "Nova, bare",
    "guarded": "Nova, guarded",
    "litellm": "LiteLLM SDK",
    "run": "Nova, recorded run",
    "pydantic_ai": "Pydantic AI",
}
KINDS: Final = {
    "plain": ("httpx2", "openai", "adapter", "guarded", "litellm"),
    "stream": ("openai", "adapter", "guarded", "pydantic_ai"),
    "tools": ("openai", "adapter", "guarded", "run", "pydantic_ai"),
}
PEERS: Final = ("litellm", "pydantic_ai")
REQUESTS: Final = {"plain": 1, "stream": 1, "tools": 2}
"""How many requests a call makes."""
TARGET: Final = 1.3
"""What a guarded call may take at most, as a multiple of the bare SDK."""


@dataclass(slots=True)
class Rounds:
    """What one participant took in one mode, round by round."""

    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    calls_per_s: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def add(self, turn: Turn) -> None:
        """Add a round."""
        calls = len(turn.latencies_ms)
        self.p50_ms.append(percentile(turn.latencies_ms, 50))
        self.p99_ms.append(percentile(turn.latencies_ms, 99))
        self.calls_per_s.append(calls / turn.wall_s)
        self.cpu_ms.append(turn.cpu_s / calls * 1_000)


@dataclass(frozen=True, slots=True)
class Mode:
    """How calls are made: how many in a turn, by how many tasks.

    Attributes:
        kind: one of ``KINDS``.
        unit: what a call consists of, such as ``token``, and how many of it; None where a call is the unit.
    """

    title: str
    calls: int
    tasks: int
    kind: str = "plain"
    unit: tuple[str, int] | None = None


Results = dict[str, dict[str, Rounds]]
"""Rounds by mode and participant."""


def commands(base_url: str, kind: str) -> tuple[dict[str, list[str]], list[str]]:
    """Return how each participant is started, and what is to be said of those that cannot be."""
    found: dict[str, list[str]] = {}
    missing = []
    for name in KINDS[kind]:
        if name in PEERS:
            python = peer_python(name)
            if isinstance(python, str):
                missing.append(python)
                continue
            arguments = [base_url] if name == "litellm" else [kind, base_url]
            found[name] = [str(python), script(f"peers/{name}_caller.py"), *arguments]
        elif kind == "plain":
            found[name] = [sys.executable, script("support/callers.py"), name, base_url]
        else:
            found[name] = [sys.executable, script("support/shaped_callers.py"), kind, name, base_url]
    return found, missing


def measure(modes: list[Mode], rounds: int) -> tuple[Results, dict[str, str], list[str]]:
    """Let the participants of one kind take their turns; return rounds, versions, and what could not be measured.

    Raises:
        RuntimeError: a participant ended, or the server counted other calls than were made.
    """
    # LiteLLM otherwise asks GitHub for prices when it is imported.
    environment = clean_environment(LITELLM_LOCAL_MODEL_COST_MAP="True")
    with ExitStack() as stack:
        server = stack.enter_context(ChatServer())
        kind = modes[0].kind
        found, missing = commands(server.base_url, kind)
        callers = {name: stack.enter_context(Caller(command, environment)) for name, command in found.items()}
        results: Results = {mode.title: {name: Rounds() for name in callers} for mode in modes}
        order = list(callers)
        for number in range(WARM_UP_ROUNDS + rounds):
            for name in order:
                for mode in modes:
                    before = server.calls
                    turn = callers[name].take(calls=mode.calls, tasks=mode.tasks)
                    arrived, made = server.calls - before, REQUESTS[kind] * (mode.calls + mode.tasks)
                    if arrived != made:
                        raise RuntimeError(f"{NAMES[name]} made {made} calls, and {arrived} arrived")
                    if number >= WARM_UP_ROUNDS:
                        results[mode.title][name].add(turn)
            order = [*order[1:], order[0]]
        return results, {name: caller.version for name, caller in callers.items()}, missing


def ratios(rounds: Rounds, base: Rounds, mode: Mode) -> Figure:
    """Return how much more a call takes than the SDK's: by its p50 one after another, by the throughput at once."""
    if mode.tasks == 1:
        return over(rounds.p50_ms, base.p50_ms)
    return over(base.calls_per_s, rounds.calls_per_s)


def quietest(rounds: Rounds, base: Rounds, mode: Mode) -> float:
    """Return the same ratio between the best rounds of both: those in which the machine was disturbed least."""
    if mode.tasks == 1:
        return min(rounds.p50_ms) / min(base.p50_ms)
    return max(base.calls_per_s) / max(rounds.calls_per_s)


def table(mode: Mode, results: dict[str, Rounds]) -> Table:
    """Return the figures of a mode."""
    shown = Table(title=mode.title, title_justify="left")
    shown.add_column("participant", no_wrap=True)
    per = [] if mode.unit is None else [f"us per\n{mode.unit[0]}"]
    for heading in ("p50 ms", "p99 ms", "calls/s", *per, "CPU\nms/call", "x SDK", "x SDK\nbest", "x SDK\nCPU"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for name, rounds in results.items():
        shown.add_row(
            NAMES[name],
            Figure.of(rounds.p50_ms).show(2 if mode.tasks == 1 else 0),
            f"{Figure.of(rounds.p99_ms).median:,.{2 if mode.tasks == 1 else 0}f}",
            Figure.of(rounds.calls_per_s).show(0),
            *([] if mode.unit is None else [f"{Figure.of(rounds.p50_ms).median * 1_000 / mode.unit[1]:,.0f}"]),
            f"{Figure.of(rounds.cpu_ms).median:.2f}",
            ratios(rounds, results[BASE], mode).show(),
            f"{quietest(rounds, results[BASE], mode):.2f}",
            f"{over(rounds.cpu_ms, results[BASE].cpu_ms).median:.2f}",
        )
    return shown


def as_json(modes: list[Mode], results: Results, versions: dict[str, str], missing: list[str]) -> str:
    """Return the figures for programs."""
    figures = {
        mode.title: {
            name: {
                "p50_ms": Figure.of(rounds.p50_ms).as_json(),
                "p99_ms": Figure.of(rounds.p99_ms).as_json(),
                "calls_per_s": Figure.of(rounds.calls_per_s).as_json(),
                "cpu_ms_per_call": Figure.of(rounds.cpu_ms).as_json(),
                "times_sdk": ratios(rounds, results[mode.title][BASE], mode).as_json(),
                "times_sdk_best": round(quietest(rounds, results[mode.title][BASE], mode), 4),
                "times_sdk_cpu": over(rounds.cpu_ms, results[mode.title][BASE].cpu_ms).as_json(),
            }
            for name, rounds in results[mode.title].items()
        }
        for mode in modes
    }
    return json.dumps({"figures": figures, "versions": versions, "missing": missing}, indent=2)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # Many short turns: what else the machine does changes within seconds.
    parser.add_argument("--rounds", type=int, default=15, help="rounds that count")
    parser.add_argument("--calls", type=int, default=60, help="calls of a turn one after another; 4 times that at once")
    parser.add_argument("--kind", choices=("all", *KINDS), default="all", help="plain calls, streams, or tools")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    kinds = list(KINDS) if options.kind == "all" else [options.kind]
    modes = [mode for kind in kinds for mode in modes_of(kind, options.calls)]
    results: Results = {}
    versions: dict[str, str] = {}
    missing: list[str] = []
    for kind in kinds:
        own = [mode for mode in modes if mode.kind == kind]
        found, its_versions, its_missing = measure(own, options.rounds)
        results |= found
        versions |= its_versions
        missing += its_missing
    if options.json:
        print(as_json(modes, results, versions, missing))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    console.print(
        f"{options.rounds} rounds after {WARM_UP_ROUNDS} to warm up, median (lowest-highest); Python "
        f"{platform.python_version()}, {os.cpu_count()} cores, the server on one of them; "
        f"{', '.join(dict.fromkeys(versions.values()))}"
    )
    for mode in modes:
        console.print(table(mode, results[mode.title]))
    for sentence in missing:
        console.print(f"not measured: {sentence}")
    console.print(
        f"target: a guarded call takes at most {TARGET} times the SDK's, in both tables of plain calls, and less than "
        "LiteLLM's; a stream and a recorded run with a tool less than Pydantic AI's"
    )


def modes_of(kind: str, calls: int) -> list[Mode]:
    """Return how calls of a kind are made."""
    if kind == "stream":
        unit = ("token", STREAMED_TOKENS)
        title = f"a stream of {STREAMED_TOKENS} tokens, one after another"
        return [Mode(title, max(1, calls // 3), 1, kind, unit)]
    if kind == "tools":
        return [Mode("a call with one round of tools, one after another", max(1, calls // 2), 1, kind, ("round", 1))]
    return [
        Mode("one after another", calls, 1),
        Mode(f"{CONCURRENCY} at once", 4 * calls, CONCURRENCY),
    ]


if __name__ == "__main__":
    main()
