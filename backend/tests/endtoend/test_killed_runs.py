"""A run that is killed wherever it happens to be, and resumed: nothing recorded is lost, redone or unaccounted for."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.cli.exits import ExitCode
from app.stores.budget.contract import Hold, HoldState
from app.stores.budget.sqlite import SqliteBudgetStore
from app.stores.checkpoint.contract import RunStatus, Step
from app.stores.checkpoint.sqlite import SqliteCheckpointStore
from tests.endtoend.harness import Nova, Provider, counting_provider, kill, nova_with

DOCUMENTS = 39
FLOW = Path(__file__).parents[3] / "examples" / "brief.yaml"
PRICES = """
models:
  counted:
    provider: openai
    input_usd_per_million: "1.10"
    output_usd_per_million: "3.30"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the runs of this module live, and who answers their calls."""

    data_dir: Path
    documents: Path
    nova: Nova
    provider: Provider


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What the file says about a run, read past the command line."""

    status: RunStatus
    steps: dict[str, Step]
    holds: tuple[Hold, ...]
    spent: int
    uncertain: int
    audit_clean: bool

    @property
    def answers(self) -> dict[str, Any]:
        """The text of each call of the model, by step."""
        return {step_id: _content(step) for step_id, step in self.steps.items() if "calls" in step.meta}

    @property
    def recorded_cost(self) -> int:
        """The sum of the costs that are noted beside the recorded steps, in microcents."""
        costs = [step.meta["cost"] for step in self.steps.values() if "calls" in step.meta]
        assert all(isinstance(cost, int) for cost in costs)
        return sum(cost for cost in costs if isinstance(cost, int))

    @property
    def paid_for(self) -> int:
        """How many holds were charged: each is a call that the provider may have received."""
        return sum(hold.state in {HoldState.SETTLED, HoldState.EXPIRED} for hold in self.holds)


def _content(step: Step) -> Any:
    return step.output["content"] if isinstance(step.output, dict) else step.output


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One data directory, one folder of documents and one provider for every run of this module."""
    data_dir = tmp_path_factory.mktemp("data")
    documents = tmp_path_factory.mktemp("documents")
    for number in range(DOCUMENTS):
        (documents / f"{number:02}.txt").write_text(f"Document {number}. " + f"Fact {number * 7}. " * 40)
    prices = data_dir / "prices.yaml"
    prices.write_text(PRICES)
    with counting_provider(latency_s=0.02) as provider:
        nova = nova_with(
            data_dir,
            LLM_ADAPTER="openai",
            OPENAI_BASE_URL=provider.base_url,
            OPENAI_DEFAULT_MODEL="counted",
            NOVA_PRICES_FILE=str(prices),
        )
        yield Place(data_dir=data_dir, documents=documents, nova=nova, provider=provider)


def read_books(place: Place, run_id: str) -> Books | None:
    """Return what is on record for a run, None before its head is."""

    async def read() -> Books | None:
        file = place.data_dir / "nova.db"
        checkpoints, budget = SqliteCheckpointStore(file), SqliteBudgetStore(file)
        try:
            state = await checkpoints.load(run_id)
            if state is None:
                return None
            scope = f"run:{run_id}"
            holds = await budget.holds(scope=scope, limit=1000)
            total = next(usage for usage in await budget.usage(scope) if usage.window == "total")
            return Books(
                status=state.head.status,
                steps={step.step_id: step for step in state.steps},
                holds=holds,
                spent=total.spent,
                uncertain=total.uncertain,
                audit_clean=(await budget.audit()).clean,
            )
        finally:
            await checkpoints.close()
            await budget.close()

    return asyncio.run(read())


def start(place: Place, run_id: str) -> tuple[str, ...]:
    """Return the command that starts a run."""
    return (
        "run",
        str(FLOW),
        *("--input", f"documents={place.documents}", "--run-id", run_id, "--budget", "$5"),
    )


def killed_and_resumed(place: Place, run_id: str, *, moments: random.Random, longest_s: float) -> list[Books]:
    """Kill a run at one or two random moments and carry it to its end; return the books after each kill and the end."""
    seen: list[Books] = []
    command = start(place, run_id)
    for _ in range(moments.choice([1, 2])):
        process = place.nova.start(*command)
        time.sleep(moments.uniform(0.2, longest_s))
        kill(process)
        if (books := read_books(place, run_id)) is not None:
            seen.append(books)
            command = ("resume", run_id)
    carry_on(place, run_id)
    final = read_books(place, run_id)
    assert final is not None
    return [*seen, final]


def carry_on(place: Place, run_id: str) -> None:
    """Resume a run to its end; one that was killed before all of its inputs were on record is started again."""
    done = place.nova.run(
        "resume", run_id, ok=(ExitCode.OK, ExitCode.RUN_NOT_FOUND, ExitCode.RUN_FINISHED, ExitCode.RUN_FAILED)
    )
    if done.returncode == ExitCode.RUN_FAILED:
        assert "Start it again with the same run id and inputs" in done.stderr
    if done.returncode in {ExitCode.RUN_NOT_FOUND, ExitCode.RUN_FAILED}:
        place.nova.run(*start(place, run_id))


def campaign(place: Place, *, kills: int, seed: int) -> None:
    """Kill and resume ``kills`` runs, and hold each against an uninterrupted one and against the provider's count."""
    started = time.monotonic()
    place.nova.run(*start(place, f"whole-{seed}"))
    longest_s = time.monotonic() - started
    whole = read_books(place, f"whole-{seed}")
    assert whole is not None
    assert len(whole.answers) == DOCUMENTS + 1
    moments = random.Random(seed)
    for number in range(kills):
        run_id = f"killed-{seed}-{number}"
        before = place.provider.received()

        *earlier, final = killed_and_resumed(place, run_id, moments=moments, longest_s=longest_s)

        assert final.status is RunStatus.COMPLETED
        assert final.answers == whole.answers
        for books in earlier:
            # What was acknowledged before a kill is what is there at the end: the same record, not a second one.
            assert all(final.steps[step_id] == step for step_id, step in books.steps.items())
        assert place.provider.received() - before <= final.paid_for
        assert not [hold for hold in final.holds if hold.state is HoldState.HELD]
        assert final.spent == final.recorded_cost + final.uncertain
        assert final.audit_clean


def test_a_killed_run_ends_as_an_uninterrupted_one_with_every_call_paid_for(place: Place) -> None:
    """After SIGKILL: equal outputs, no step twice, calls ≤ charged holds, spent = recorded + uncertain."""
    campaign(place, kills=5, seed=11)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_fifty_killed_runs(place: Place) -> None:
    """The same at 50 random moments."""
    campaign(place, kills=50, seed=12)
