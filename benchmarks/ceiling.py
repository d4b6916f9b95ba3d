"""Whether a ceiling holds: many calls at once on a small budget, Nova's budgets beside those of LiteLLM's proxy.

All calls begin at the same moment on one budget, and each costs exactly what it could cost at most. A participant
admits a call or refuses it; an admitted call is answered after a moment and its bill is settled. Two figures come out:

- **spent / budget**: what the admitted calls really cost, over the budget. Above 1.000 the ceiling did not hold.
- **refused without need**: the share of all calls that were refused although the budget had room for their cost.

Nova keeps its budgets on a real server of Redis' kind. LiteLLM's proxy is asked by its own functions, with its counters
in memory as one worker of it has them, in an environment of its own; by default, and with
``fail_closed_budget_enforcement`` (strict). The worst of the rounds is shown, not the median: a ceiling that holds most
of the time does not hold.

Run it with ``python benchmarks/ceiling.py [--rounds N]``; ``--json`` prints the figures for programs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import subprocess
import sys
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "backend"))

from app.credentials import fixed
from app.stores.budget.contract import Granted
from app.stores.budget.redis import RedisBudgetStore
from benchmarks.support.environments import peer_python
from benchmarks.support.turns import clean_environment, script
from tests.support.servers.valkey import ValkeyServer

AT_ONCE: Final = (1, 20, 200, 2000)
CALLS_THAT_FIT: Final = (0.25, 3.25, 50.25)
"""How many calls the budget has room for; the quarter is what a hold that is shrunk to fit gets."""

COST: Final = 4_109_500
"""What each call costs, in microcents: about 4 cents."""

LATENCY_S: Final = 0.05
LEASE: Final = timedelta(minutes=5)
_PEER_TIMEOUT_S: Final = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One budget and how many call at once."""

    calls: int
    calls_that_fit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a case in its worst round.

    Attributes:
        spent: what the admitted calls cost, over the budget.
        refused_without_need: the share of all calls that would have fit and were refused.
    """

    participant: str
    calls: int
    calls_that_fit: float
    spent: float
    refused_without_need: float


def outcome(participant: str, case: Case, admitted: list[int]) -> Outcome:
    """Return the worst of some rounds."""
    could = min(case.calls, math.floor(case.calls_that_fit))
    return Outcome(
        participant=participant,
        calls=case.calls,
        calls_that_fit=case.calls_that_fit,
        spent=max(admitted) / case.calls_that_fit,
        refused_without_need=max(0, could - min(admitted)) / case.calls,
    )


async def nova(url: str, case: Case) -> int:
    """Return how many calls Nova admits."""
    store = RedisBudgetStore(fixed(url), timeout_s=60)
    scope = f"run:{uuid4().hex}"
    await store.set_limit(scope, int(COST * case.calls_that_fit))

    async def call(number: int) -> bool:
        answer = await store.reserve(f"{scope}/{number}", COST, [scope, "tenant"], lease=LEASE)
        if not isinstance(answer, Granted):
            return False
        await asyncio.sleep(LATENCY_S)
        await store.settle(f"{scope}/{number}", COST)
        return True

    admitted = sum(await asyncio.gather(*(call(number) for number in range(case.calls))))
    total, *_ = await store.usage(scope)
    report = await store.audit()
    await store.close()
    if total.spent != admitted * COST or not report.clean:
        raise RuntimeError(f"{admitted} calls were admitted, but {total.spent} is counted: {report}")
    return admitted


def litellm(python: Path, cases: list[Case], rounds: int) -> tuple[str, dict[bool, list[list[int]]]]:
    """Return LiteLLM's version, and by strictness how many calls it admits: a list for each case, of rounds."""
    asked = [(strict, case) for strict in (False, True) for case in cases for _ in range(rounds)]
    order = {"latency_s": LATENCY_S, "cases": [{**asdict(case), "strict": strict} for strict, case in asked]}
    done = subprocess.run(
        [str(python), script("peers/litellm_budget_caller.py")],
        input=json.dumps(order) + "\n",
        env=clean_environment(LITELLM_LOCAL_MODEL_COST_MAP="True"),
        capture_output=True,
        text=True,
        check=False,
        timeout=_PEER_TIMEOUT_S,
    )
    if done.returncode:
        raise RuntimeError(f"LiteLLM ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    admitted = [result["admitted"] for result in answer["results"]]
    found: dict[bool, list[list[int]]] = {False: [], True: []}
    for index in range(0, len(asked), rounds):
        found[asked[index][0]].append(admitted[index : index + rounds])
    return str(answer["version"]), found


def measure(rounds: int) -> list[Outcome]:
    """Measure every participant on every case."""
    cases = [Case(calls=calls, calls_that_fit=fit) for fit in CALLS_THAT_FIT for calls in AT_ONCE]
    outcomes: list[Outcome] = []
    with ValkeyServer() as server:
        for case in cases:
            admitted = [asyncio.run(nova(server.url, case)) for _ in range(rounds)]
            outcomes.append(outcome("Nova", case, admitted))
    python = peer_python("litellm_budgets")
    if isinstance(python, str):
        print(python, file=sys.stderr)
        return outcomes
    version, by_strictness = litellm(python, cases, rounds)
    for strict, found in by_strictness.items():
        name = f"{version}, {'strict' if strict else 'default'}"
        outcomes += [outcome(name, case, admitted) for case, admitted in zip(cases, found, strict=True)]
    return outcomes


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    outcomes = measure(options.rounds)
    if options.json:
        print(json.dumps([asdict(each) for each in outcomes], indent=2))
        return
    print(f"{options.rounds} rounds, the worst of each: spent / budget, and the share refused without need")
    print(f"{'participant':28}{'room for':>10}" + "".join(f"{f'{calls} at once':>18}" for calls in AT_ONCE))
    for participant in dict.fromkeys(each.participant for each in outcomes):
        for fit in CALLS_THAT_FIT:
            row = [each for each in outcomes if (each.participant, each.calls_that_fit) == (participant, fit)]
            cells = "".join(f"{f'{each.spent:.3f}  {each.refused_without_need:.1%}':>18}" for each in row)
            print(f"{participant:28}{fit:>10}{cells}")


if __name__ == "__main__":
    main()
