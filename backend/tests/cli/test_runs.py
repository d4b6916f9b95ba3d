"""``nova runs``: what was recorded is shown as it is, and changed only as it was asked for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.settings import load_settings
from app.stores.checkpoint.contract import RunStatus
from app.stores.checkpoint.sqlite import SqliteCheckpointStore

from .harness import Nova

Seed = Callable[..., None]


@pytest.fixture
def seed() -> Seed:
    """Record runs in the file that the commands read."""

    def record(
        run_id: str, *steps: tuple[str, Any, dict[str, Any]], end: RunStatus | None = None, error: str | None = None
    ) -> None:
        async def write() -> None:
            store = SqliteCheckpointStore(load_settings().database_file)
            head = await store.create(run_id, workflow="brief", workflow_version="1", inputs={"topic": "ants"})
            version = head.version
            for step_id, output, meta in steps:
                done = await store.append(
                    run_id, step_id, output, expected_version=version, meta=meta, fingerprint="f1"
                )
                version = done.version
            if end is not None:
                result = "all is well" if end is RunStatus.COMPLETED else None
                await store.finish(run_id, end, expected_version=version, result=result, error=error)
            await store.close()

        asyncio.run(write())

    return record


CALL = {"calls": 1, "cost": 1_234_500, "input_tokens": 1500, "output_tokens": 20, "models": ["stub-1"]}


def test_a_list_shows_each_run_with_its_status_and_steps(nova: Nova, seed: Seed) -> None:
    """People see a row per run, programs the same figures; filters leave out the others."""
    seed("tour", ("a", "one", {}), ("b", "two", {}), end=RunStatus.COMPLETED)
    seed("later", ("a", "one", {}))

    table = nova("runs", "list").check().out
    document = nova("runs", "list", "--json").check().json
    filtered = nova("runs", "list", "--status", "completed", "--json").check().json

    rows = {line.split()[0]: line.split() for line in table.splitlines() if "brief" in line}
    assert rows["tour"][2:4] == ["completed", "2"]
    assert rows["later"][2:4] == ["interrupted", "1"]
    assert {run["run_id"]: (run["status"], run["steps"]) for run in document["runs"]} == {
        "tour": ("completed", 2),
        "later": ("running", 1),
    }
    assert [run["run_id"] for run in filtered["runs"]] == ["tour"]


def test_a_long_list_continues_at_its_cursor(nova: Nova, seed: Seed) -> None:
    """Pages together show every run once, and a list says where it goes on."""
    for number in range(3):
        seed(f"run-{number}")

    first = nova("runs", "list", "--limit", "2", "--json").check().json
    rest = nova("runs", "list", "--limit", "2", "--cursor", first["cursor"], "--json").check().json
    hint = nova("runs", "list", "--limit", "2").check().err

    assert sorted(run["run_id"] for run in first["runs"] + rest["runs"]) == ["run-0", "run-1", "run-2"]
    assert rest["cursor"] is None
    assert f"--cursor {first['cursor']}" in hint


def test_a_run_is_shown_with_its_money_steps_and_result(nova: Nova, seed: Seed) -> None:
    """The costs and tokens of the steps are those that were recorded; a step without a call has none."""
    seed("tour", ("notes/0", "a note", CALL), ("brief", "short", {}), end=RunStatus.COMPLETED)

    text = nova("runs", "show", "tour").check().out
    document = nova("runs", "show", "tour", "--json").check().json

    row = next(line.split() for line in text.splitlines() if "notes/0" in line)
    assert row[:5] == ["0", "notes/0", "1,500", "20", "$0.012345"]
    assert "all is well" in text
    assert document["result"] == "all is well"
    assert document["inputs"] == {"topic": "ants"}
    assert [step["output"] for step in document["recorded_steps"]] == ["a note", "short"]
    assert document["recorded_steps"][0]["meta"]["cost"] == 1_234_500


def test_the_output_of_one_step_is_given_as_it_is(nova: Nova, seed: Seed) -> None:
    """A text is the text, anything else its JSON; an unknown step is named with those that there are."""
    seed("tour", ("text", "line one\nline two", {}), ("data", {"a": [1, 2]}, {}))

    text = nova("runs", "show", "tour", "--step", "text").check().out
    data = nova("runs", "show", "tour", "--step", "data").check().out
    missing = nova("runs", "show", "tour", "--step", "none")

    assert text == "line one\nline two\n"
    assert json.loads(data) == {"a": [1, 2]}
    assert missing.code == 4
    assert "text, data" in missing.err


def test_what_a_model_wrote_is_text_in_views_and_itself_in_files(nova: Nova, seed: Seed) -> None:
    """Markup and escape sequences do nothing in a view; a step's output on a pipe is what was recorded, unwrapped."""
    output = "[red]not red[/red] \x1b[2J " + "long " * 40
    seed("tour", ("text", output, {}))
    seed("broken", end=RunStatus.FAILED, error=output)

    piped = nova("runs", "show", "tour", "--step", "text").check().out
    viewed = nova("runs", "show", "broken").check().out

    assert piped == output + "\n"
    assert "[red]not red[/red] [2J" in viewed
    assert "\x1b" not in viewed


def test_the_history_continues_and_shows_the_hashes_of_the_chain(nova: Nova, seed: Seed) -> None:
    """Pages of steps join without a gap; the last hash is the head of the run."""
    seed("tour", *((f"s{number}", number, {}) for number in range(5)))

    first = nova("runs", "history", "tour", "--limit", "3", "--json").check().json["steps"]
    rest = nova("runs", "history", "tour", "--after", "2", "--json").check().json["steps"]
    head = nova("runs", "show", "tour", "--json").check().json["head_hash"]
    table = nova("runs", "history", "tour").check().out

    assert [step["step_id"] for step in first + rest] == ["s0", "s1", "s2", "s3", "s4"]
    assert rest[-1]["hash"] == head
    assert head[:8] in table


def test_a_fork_has_its_first_steps_and_leaves_the_original_alone(nova: Nova, seed: Seed) -> None:
    """The copy has so many steps as asked for, and says how to go on with it."""
    seed("tour", ("a", 1, {}), ("b", 2, {}), end=RunStatus.COMPLETED)
    before = nova("runs", "show", "tour", "--json").check().json

    forked = nova("runs", "fork", "tour", "copy", "--steps", "1")

    assert forked.check().err.strip() == "go on with it in its program: runner.resume('copy')"
    assert nova("runs", "show", "copy", "--json").check().json["steps"] == 1
    assert nova("runs", "show", "tour", "--json").check().json == before


def test_an_aborted_run_is_final(nova: Nova, seed: Seed) -> None:
    """It keeps its steps, and aborting a completed run is refused with its own exit code."""
    seed("open", ("a", 1, {}))
    seed("done", end=RunStatus.COMPLETED)

    aborted = nova("runs", "abort", "open", "--reason", "wrong input", "--json").check().json
    refused = nova("runs", "abort", "done")

    assert (aborted["status"], aborted["steps"], aborted["error"]) == ("aborted", 1, "wrong input")
    assert refused.code == 12
    assert "nova runs fork done NEW_RUN" in refused.err


def test_deleting_asks_for_a_word_and_says_when_there_is_nothing(nova: Nova, seed: Seed) -> None:
    """Without --yes and without a terminal nothing is deleted; a second time there is no such run."""
    seed("tour")

    unconfirmed = nova("runs", "delete", "tour")
    still_there = nova("runs", "history", "tour")
    deleted = nova("runs", "delete", "tour", "--yes", "--json")
    again = nova("runs", "delete", "tour", "--yes")

    assert (unconfirmed.code, still_there.code) == (2, 0)
    assert deleted.check().json == {"run_id": "tour", "deleted": True}
    assert again.code == 10


def test_deleting_takes_the_limits_of_the_run_away_and_those_of_no_other(nova: Nova, seed: Seed) -> None:
    """A deleted run leaves what it spent, and no limit that a later run of its id would meet."""
    seed("tour")
    for scope, window in (("run:tour", "total"), ("run:tour", "day"), ("run:tour-2", "total")):
        nova("budget", "set", scope, "$1", "--window", window).check()

    nova("runs", "delete", "tour", "--yes").check()
    windows = nova("budget", "show", "run:tour", "run:tour-2", "--json").check().json["windows"]

    assert [window["scope"] for window in windows if window["limit"] is not None] == ["run:tour-2"]


def test_deleting_nothing_takes_no_limit_away(nova: Nova) -> None:
    """A limit that waits for its run is still there when there was no run to delete."""
    nova("budget", "set", "run:tour", "$1").check()

    refused = nova("runs", "delete", "tour", "--yes")

    assert refused.code == 10
    assert nova("budget", "show", "run:tour", "--json").check().json["windows"][0]["limit"]["usd"] == "1"


def test_verify_counts_the_steps_or_names_the_one_that_does_not_hold(nova: Nova, seed: Seed) -> None:
    """A changed byte in a stored output is found, named, and has the exit code of damage."""
    import sqlite3

    seed("tour", ("a", "x" * 20, {}), ("b", "y" * 20, {}))
    sound = nova("runs", "verify", "tour", "--json").check().json
    path: Path = load_settings().database_file
    with sqlite3.connect(path) as connection:
        for table, column in connection.execute(
            "SELECT m.name, p.name FROM sqlite_master m, pragma_table_info(m.name) p"
            " WHERE m.type = 'table' AND m.name LIKE 'checkpoint_%' AND p.type = 'BLOB'"
        ).fetchall():
            connection.execute(
                f"UPDATE {table} SET {column} = CAST(replace({column}, 'yyyy', 'yyyz') AS BLOB)"
                f" WHERE instr({column}, 'yyyy')"
            )
    connection.close()

    damaged = nova("runs", "verify", "tour")

    assert sound == {"run_id": "tour", "verified_steps": 2}
    assert damaged.code == 31
    assert "'b'" in damaged.err


@pytest.mark.parametrize(
    "arguments",
    [("show", "none"), ("history", "none"), ("fork", "none", "x"), ("abort", "none"), ("verify", "none")],
    ids=lambda each: each[0],
)
def test_an_unknown_run_is_told_in_one_line_and_as_json(nova: Nova, arguments: tuple[str, ...]) -> None:
    """People get a sentence on standard error, programs one document on standard output; both the exit code."""
    told = nova("runs", *arguments)
    as_json = nova("runs", *arguments, "--json")

    assert (told.code, told.out) == (10, "")
    assert "'none'" in told.err
    assert as_json.json["error"]["code"] == "ERR_RUN_NOT_FOUND"
    assert as_json.json["error"]["exit_code"] == as_json.code == 10


def test_tenants_do_not_see_each_other(nova: Nova, seed: Seed) -> None:
    """A run of one tenant is unknown to another, and the remedy keeps the tenant."""
    seed("tour")

    other = nova("--tenant", "acme", "runs", "history", "tour")

    assert other.code == 10
    assert "nova --tenant acme runs list" in other.err
