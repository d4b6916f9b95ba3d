"""A durable step on PostgreSQL: Nova beside the bare statement, LangGraph's AsyncPostgresSaver and DBOS.

One server, fsync on; each participant has a database of its own in it, and is a process that lives as long as the
benchmark. They take turns: the same incompressible texts, recorded in runs of 50, 400 and 2,000 steps, alone and 16
at once. Printed are a step's p50 and p99 (from one step to the next, with all that the participant does around it),
bytes on the disk and in WAL per byte of content, and the time to load a run again.

Run it with ``python benchmarks/checkpoints.py [--rounds N] [--quick]``; ``--json`` prints the figures for programs.
``--quick`` leaves out 2,000 steps. LangGraph's full channel, which writes the whole state at each step, is left out
where that would be gigabytes. Autovacuum is off, because its WAL could be anybody's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "backend"))

from benchmarks.support.environments import peer_python
from benchmarks.support.figures import percentile
from benchmarks.support.recording import CONTENT_BYTES, Participant
from benchmarks.support.turns import clean_environment, script
from tests.support.servers.postgres import PostgresServer

CASES = ((1, 50), (1, 400), (1, 2_000), (16, 50), (16, 400))
SIZE = (
    "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class AS c JOIN pg_namespace AS n"
    " ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
)


@dataclass(slots=True)
class Figures:
    """What the rounds of one case gave, for one participant."""

    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    wal: list[float] = field(default_factory=list)
    disk: list[float] = field(default_factory=list)
    load: list[float] = field(default_factory=list)

    def medians(self) -> dict[str, float]:
        """Return the median of each figure over the rounds."""
        names = ("p50", "p99", "last", "rate", "wal", "disk", "load")
        return {name: round(statistics.median(getattr(self, name)), 4) for name in names}


def participants() -> dict[str, tuple[str, list[str]]]:
    """Return the database and the command of each participant that can run here."""
    own = [sys.executable, script("support/recorders.py")]
    found = {name: (name.replace("-", "_"), [*own, name]) for name in ("bare", "nova-store", "nova")}
    for peer, kinds in (("langgraph", ("full", "delta")), ("dbos", ("",))):
        python = peer_python(peer)
        if isinstance(python, str):
            print(f"{peer} is left out: {python}", file=sys.stderr)
            continue
        for kind in kinds:
            name = f"{peer} {kind}".strip()
            command = [str(python), script(f"peers/{peer}_recorder.py"), *([kind] if kind else [])]
            found[name] = (name.replace(" ", "_"), command)
    return found


def measure(rounds: int, *, quick: bool) -> tuple[dict[str, dict[tuple[int, int], Figures]], dict[str, str]]:
    """Let the participants take turns, and return their figures by case, and their versions."""
    cases = [case for case in CASES if not (quick and case[1] == 2_000)]
    figures: dict[str, dict[tuple[int, int], Figures]] = {}
    with (
        PostgresServer(durable=True, autovacuum="off", max_wal_size="8GB", checkpoint_timeout="1h") as server,
        ExitStack() as stack,
    ):
        running: dict[str, tuple[str, Participant]] = {}
        for name, (database, command) in participants().items():
            dsn = server.create_database(database)
            running[name] = (database, stack.enter_context(Participant([*command, dsn], clean_environment())))
            figures[name] = {case: Figures() for case in cases}
        turns = (
            (number, case, name)
            for number in range(rounds)
            for case in cases
            for name in running
            # It writes its whole state at each step: these would be some 3 and 5 GB.
            if not (name == "langgraph full" and case in {(16, 400), (1, 2_000)})
        )
        try:
            for number, case, name in turns:
                turn(server, *running[name], case, figures[name][case], seed=number + 1)
                print(f"round {number + 1}, {case[0]} x {case[1]}: {name}", file=sys.stderr)
        except KeyboardInterrupt:
            print("interrupted: the figures are of the turns so far", file=sys.stderr)
        return figures, {name: participant.version for name, (_, participant) in running.items()}


def turn(
    server: PostgresServer, database: str, participant: Participant, case: tuple[int, int], into: Figures, *, seed: int
) -> None:
    """Let one participant record one case, and note what it took."""
    runs, steps = case
    server.execute("CHECKPOINT")
    ((size_before,),) = server.execute(SIZE, database=database)
    ((lsn,),) = server.execute("SELECT pg_current_wal_insert_lsn()::text")
    recorded = participant.take(runs=runs, steps=steps, seed=seed)
    ((wal,),) = server.execute("SELECT (pg_current_wal_insert_lsn() - %s::pg_lsn)::bigint", lsn)
    ((size_after,),) = server.execute(SIZE, database=database)
    content = runs * steps * CONTENT_BYTES
    tail = recorded.step_ms[-max(1, steps // 10) :] if runs == 1 else recorded.step_ms
    into.p50.append(statistics.median(recorded.step_ms))
    into.p99.append(percentile(recorded.step_ms, 99))
    into.last.append(statistics.median(tail))
    into.rate.append(len(recorded.step_ms) / recorded.wall_s)
    into.wal.append(int(str(wal)) / content)
    into.disk.append((int(str(size_after)) - int(str(size_before))) / content)
    into.load.append(recorded.load_ms)


def document(figures: dict[str, dict[tuple[int, int], Figures]], versions: dict[str, str]) -> dict[str, Any]:
    """Return the figures for programs."""
    return {
        name: {
            "version": versions[name],
            **{f"{runs}x{steps}": case.medians() for (runs, steps), case in cases.items() if case.p50},
        }
        for name, cases in figures.items()
    }


def show(found: dict[str, Any]) -> None:
    """Print one table for each case, and how the figures stand to the targets."""
    for runs, steps in CASES:
        key = f"{runs}x{steps}"
        if any(key not in found[name] for name in ("bare", "nova-store", "nova")):
            continue
        print(f"\n{runs} run{'s' if runs > 1 else ''} of {steps:,} steps")
        print(
            f"{'':18}{'p50 ms':>9}{'/ bare':>8}{'p99 ms':>9}{'last tenth':>12}{'steps/s':>9}"
            f"{'disk x':>8}{'WAL x':>8}{'load ms':>9}"
        )
        for name, cases in found.items():
            if key in cases:
                row = cases[key]
                ratio = row["p50"] / found["bare"][key]["p50"]
                print(
                    f"{name:18}{row['p50']:9.2f}{ratio:8.2f}{row['p99']:9.2f}{row['last']:12.2f}{row['rate']:9,.0f}"
                    f"{row['disk']:8.2f}{row['wal']:8.2f}{row['load']:9.1f}"
                )
    print("\nversions: " + ", ".join(f"{name}: {cases['version']}" for name, cases in found.items()))
    print(
        "targets: p50 of nova-store at most 2x bare, a third of either peer; disk and WAL at most 2x; flat in the run"
    )


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = document(*measure(options.rounds, quick=options.quick))
    if options.json:
        print(json.dumps(found))
    else:
        show(found)


if __name__ == "__main__":
    main()
