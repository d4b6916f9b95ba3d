"""``nova run`` and ``nova resume``: what is recorded and spent is shown, and a run goes on where it was."""

from __future__ import annotations

import shlex
from datetime import timedelta
from pathlib import Path

import pytest

from app.money import parse_usd

from .harness import Nova, held_by

FLOW = """\
name: brief
version: 1
inputs:
  documents: {type: documents}
steps:
  - id: notes
    map: documents
    as: document
    concurrency: 2
    config: {max_tokens: 50}
    prompt: "Take notes on {{ document.name }}: {{ document.text }}"
  - id: brief
    config: {max_tokens: 50}
    prompt: "{% for note in notes %}{{ note.text }} {% endfor %}Write one brief."
"""


@pytest.fixture
def flow(tmp_path: Path) -> str:
    """Give the path of a flow: a note on each document, and a brief."""
    path = tmp_path / "brief.yaml"
    path.write_text(FLOW)
    return str(path)


@pytest.fixture
def tour(flow: str, documents: Path) -> tuple[str, ...]:
    """Give the arguments that run the flow over three documents as run ``tour``."""
    return ("run", flow, "--input", f"documents={documents}", "--run-id", "tour")


def test_a_run_gives_its_result_and_what_it_cost(nova: Nova, tour: tuple[str, ...]) -> None:
    """The result alone is on standard output; cost, steps and what is left are beside it."""
    done = nova(*tour, "--budget", "$1").check()
    shown = nova("runs", "show", "tour", "--json").check().json

    notes = [step for step in shown["recorded_steps"] if step["step_id"].startswith("notes/")]
    cost = sum(step["meta"].get("cost", 0) for step in shown["recorded_steps"])
    total = shown["budget"][0]
    assert done.out == shown["result"] + "\n"
    assert len(notes) == 3
    assert cost > 0
    assert (total["spent"]["microcents"], total["held"]["microcents"]) == (cost, 0)
    assert "run tour is completed: " in done.err
    assert "of $1.00 left" in done.err


def test_the_document_of_a_run_is_the_same_as_what_the_stores_say(nova: Nova, tour: tuple[str, ...]) -> None:
    """With --json one document has status, result, cost and budget; progress stays on standard error."""
    document = nova(*tour, "--budget", "$1", "--json").check().json
    shown = nova("runs", "show", "tour", "--json").check().json

    assert (document["run_id"], document["status"], document["result"]) == ("tour", "completed", shown["result"])
    assert document["budget"] == shown["budget"]
    assert document["cost"] == document["budget"][0]["spent"]
    assert document["steps_run"] >= 4


def test_a_budget_that_the_first_call_exceeds_parks_the_run_with_nothing_spent(
    nova: Nova, tour: tuple[str, ...]
) -> None:
    """No step of the flow is recorded, nothing is spent or held, and the remedy is two commands."""
    parked = nova(*tour, "--budget", "$0.00000001")
    shown = nova("runs", "show", "tour", "--json").check().json

    assert (parked.code, parked.out) == (14, "")
    assert "nova budget set run:tour '$0." in parked.err
    assert "nova resume tour" in parked.err
    assert (shown["status"], shown["waiting_for"], shown["lease"]) == ("waiting", "budget", None)
    assert not [step for step in shown["recorded_steps"] if not step["step_id"].startswith("inputs/")]
    assert all(window["spent"]["microcents"] == window["held"]["microcents"] == 0 for window in shown["budget"])


def test_a_parked_run_goes_on_after_its_limit_was_raised(nova: Nova, tour: tuple[str, ...]) -> None:
    """Steps recorded before the refusal are replayed, and the result is that of a run that was never parked."""
    whole = nova(*tour[:-1], "whole", "--json").check().json
    notes = parse_usd("$" + whole["cost"]["usd"]) * 2 // 3
    parked = nova(*tour, "--budget", f"${notes / 10**8:.8f}", "--json")
    recorded = nova("runs", "history", "tour", "--json").check().json["steps"]

    nova("budget", "set", "run:tour", "$1").check()
    resumed = nova("resume", "tour", "--json").check().json

    assert parked.code == 14
    assert parked.json["error"]["code"] == "ERR_RUN_WAITING"
    assert parked.json["status"] == "waiting"
    after = nova("runs", "history", "tour", "--json").check().json["steps"]
    assert after[: len(recorded)] == recorded
    assert (resumed["status"], resumed["result"], resumed["cost"]) == ("completed", whole["result"], whole["cost"])
    assert resumed["cost"] == resumed["budget"][0]["spent"]


def test_whoever_pastes_the_remedies_completes_the_run(nova: Nova, tour: tuple[str, ...]) -> None:
    """Each remedy lets at least one further call through, so four calls need at most four of them."""
    left = nova(*tour, "--budget", "$0.00000001")
    pasted = 0

    while left.code == 14:
        which, remedy = left.err.splitlines()[-1].strip().split(": ", 1)
        assert which == "at least, for this call alone"
        raising, going_on = remedy.split(", then: ")
        nova(*shlex.split(raising)[1:]).check()
        left = nova(*shlex.split(going_on)[1:])
        pasted += 1

    assert left.code == 0
    assert 1 <= pasted <= 4


def test_a_run_id_is_used_once(nova: Nova, tour: tuple[str, ...]) -> None:
    """A second run of the same id is refused, and the first stays as it is."""
    nova(*tour).check()
    before = nova("runs", "show", "tour", "--json").check().json

    refused = nova(*tour)
    forked = nova("runs", "fork", "tour", "tour")

    assert (refused.code, forked.code) == (11, 11)
    assert refused.err.endswith("  nova resume tour, or name another --run-id\n")
    assert forked.err.endswith("  name another NEW_RUN\n")
    assert nova("runs", "show", "tour", "--json").check().json == before


@pytest.mark.parametrize("run_id", ["-x", "--all", "", "a\nb"])
def test_a_run_id_that_no_command_could_name_is_refused(nova: Nova, flow: str, documents: Path, run_id: str) -> None:
    """An id that reads as an option, as nothing or as two lines makes no run, and no fork."""
    refused = nova("run", flow, "--input", f"documents={documents}", f"--run-id={run_id}")
    forked = nova("runs", "fork", "tour", "--", run_id)

    assert (refused.code, forked.code) == (4, 4)
    assert nova("runs", "list", "--json").check().json["runs"] == []


def test_a_run_id_that_a_shell_would_take_apart_is_quoted(nova: Nova, tour: tuple[str, ...]) -> None:
    """The remedy of a parked run with a space in its id completes it when its commands are pasted."""
    run_id = "my tour; 'x'"
    parked = nova(*tour[:-1], run_id, "--budget", "$0.00000001")
    going_on = parked.err.splitlines()[-1].strip().split(", then: ")[1]

    nova("budget", "set", f"run:{run_id}", "$1").check()
    nova(*shlex.split(going_on)[1:]).check()

    assert nova("runs", "show", run_id, "--json").check().json["status"] == "completed"


def test_finished_runs_do_not_resume(nova: Nova, tour: tuple[str, ...]) -> None:
    """A completed run is told as finished, an unknown one as unknown, an aborted one as finished."""
    nova(*tour).check()

    assert nova("resume", "tour").code == 12
    assert nova("resume", "none").code == 10


def test_resume_all_goes_on_with_what_waits_and_reports_each_run(
    nova: Nova, tour: tuple[str, ...], flow: str, documents: Path
) -> None:
    """A run whose budget was raised completes, the other is still parked; the exit code is the latter's."""
    nova(*tour, "--budget", "$0.00000001")
    nova("run", flow, "--input", f"documents={documents}", "--run-id", "other", "--budget", "$0.00000001")
    nova("budget", "set", "run:tour", "$1").check()

    resumed = nova("resume", "--all", "--json")

    runs = {run["run_id"]: run for run in resumed.json["runs"]}
    assert resumed.code == 14
    assert (runs["tour"]["status"], runs["tour"]["error"]) == ("completed", None)
    assert (runs["other"]["status"], runs["other"]["error"]["code"]) == ("waiting", "ERR_RUN_WAITING")
    error = resumed.json["error"]
    assert (error["code"], error["exit_code"]) == ("ERR_RUN_WAITING", 14)
    assert error["message"].startswith("1 of 2 runs did not complete; the first, other: ")
    assert "budget set run:other" in error["remedy"]


def test_resume_all_without_anything_to_do_says_so(nova: Nova) -> None:
    """Nothing to resume is not an error."""
    assert "no run" in nova("resume", "--all").check().out
    assert nova("resume", "--all", "--json").check().json == {"runs": []}


def test_a_lease_held_elsewhere_is_waited_for(nova: Nova, tour: tuple[str, ...]) -> None:
    """The holder is named with the seconds that are left; when its lease has ended the run goes on."""
    nova(*tour, "--budget", "$0.00000001")
    nova("budget", "set", "run:tour", "$1").check()
    held_by("mars", lease=timedelta(seconds=1))

    resumed = nova("resume", "tour", "--json").check()

    assert "process 7 on mars, elsewhere: " in resumed.err
    assert resumed.json["status"] == "completed"


def test_a_lease_held_elsewhere_can_be_taken_over(nova: Nova, tour: tuple[str, ...]) -> None:
    """--steal does not wait."""
    nova(*tour, "--budget", "$0.00000001")
    nova("budget", "set", "run:tour", "$1").check()
    held_by("mars", lease=timedelta(hours=1))

    resumed = nova("resume", "tour", "--steal", "--json").check()

    assert resumed.json["status"] == "completed"
    assert "elsewhere" not in resumed.err


def test_the_result_is_given_even_where_its_money_cannot_be_read(
    nova: Nova, tour: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A budget store that fails after the last step does not hide what the run gave."""
    from app.errors import BudgetStoreUnavailableError
    from app.stores.budget.sqlite import SqliteBudgetStore

    async def fail(*_: object, **__: object) -> None:
        raise BudgetStoreUnavailableError("gone")

    monkeypatch.setattr(SqliteBudgetStore, "usage", fail)

    document = nova(*tour, "--json").check().json

    assert document["status"] == "completed"
    assert document["budget"] == []


def test_a_run_of_a_deleted_id_has_its_own_budget_beside_the_old_spending(
    nova: Nova, flow: str, tour: tuple[str, ...]
) -> None:
    """The budget that a start names is the one that holds, and what was spent under the id counts against it."""
    nova(*tour, "--budget", "$1").check()
    spent = nova("runs", "show", "tour", "--json").check().json["budget"][0]["spent"]
    nova("runs", "delete", "tour", "--yes").check()
    # Other prompts, since the answers to the old ones are known by their keys and cost nothing.
    Path(flow).write_text(FLOW.replace("Take notes", "Remark"))

    parked = nova(*tour, "--budget", spent["usd"], "--json")

    assert parked.code == 14
    total = parked.json["budget"][0]
    assert (total["limit"], total["spent"]) == (spent, spent)
