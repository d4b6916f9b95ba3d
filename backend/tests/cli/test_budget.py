"""``nova budget``: the figures that are shown are those of the store, and a correction is charged once."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import timedelta

import pytest

from app.cli.hold_views import detail_text
from app.money import MICROCENTS_PER_CENT
from app.settings import load_settings
from app.stores.budget.contract import BudgetStore
from app.stores.budget.sqlite import SqliteBudgetStore

from .harness import Nova


@pytest.fixture
def spent() -> None:
    """Leave one hold of each kind behind: settled at 2 cents, expired at 5, held at 3, released."""

    async def reserve(store: BudgetStore, hold_id: str, cents: int) -> None:
        await store.reserve(hold_id, cents * MICROCENTS_PER_CENT, ["tenant", "run:tour"], lease=timedelta(hours=1))

    async def spend() -> None:
        store = SqliteBudgetStore(load_settings().database_file)
        await store.set_limit("run:tour", 20 * MICROCENTS_PER_CENT)
        for hold_id, cents in (("call-1", 4), ("call-2", 5), ("call-3", 3), ("call-4", 6)):
            await reserve(store, hold_id, cents)
        await store.settle("call-1", 2 * MICROCENTS_PER_CENT)
        await store.expire("call-2", detail='{"output_tokens": 7}')
        await store.release("call-4")
        await store.close()

    asyncio.run(spend())


@pytest.mark.usefixtures("spent")
def test_a_scope_is_shown_with_a_bar_and_what_is_uncertain(nova: Nova) -> None:
    """Spent is settled and uncertain together, beside what is held and the limit; half of the bar is used."""
    table = nova("budget", "show", "run:tour").check().out
    windows = nova("budget", "show", "run:tour", "--json").check().json["windows"]

    total = next(window for window in windows if window["window"] == "total")
    row = next(line for line in table.splitlines() if "run:tour" in line)
    assert {name: total[name]["usd"] for name in ("spent", "held", "uncertain", "limit", "remaining")} == {
        "spent": "0.07",
        "held": "0.03",
        "uncertain": "0.05",
        "limit": "0.2",
        "remaining": "0.1",
    }
    assert row.split()[-3:] == ["$0.07", "$0.03", "$0.20"]
    assert row.count("·") == 6
    assert "$0.05 of it is uncertain" in table


@pytest.mark.usefixtures("spent")
def test_without_a_scope_every_scope_is_shown(nova: Nova) -> None:
    """Scopes with a limit or a counter are all there."""
    windows = nova("budget", "show", "--json").check().json["windows"]

    assert {window["scope"] for window in windows} == {"run:tour", "tenant"}


def test_nothing_spent_is_said_in_words(nova: Nova) -> None:
    """An empty store is not an empty table."""
    assert nova("budget", "show").check().out.strip() == "no scope has a limit, and nothing was spent"


def test_a_limit_is_set_shown_and_taken_away(nova: Nova) -> None:
    """The amount is exact, its window its own, and none removes it."""
    set_to = nova("budget", "set", "tenant", "$5", "--window", "day", "--json").check().json["windows"]
    shown = nova("budget", "show", "tenant", "--json").check().json["windows"]
    removed = nova("budget", "set", "tenant", "none", "--window", "day", "--json").check().json["windows"]

    limits = [{window["window"]: window["limit"] for window in windows} for windows in (set_to, shown, removed)]
    assert limits[0]["day"] == limits[1]["day"] == {"usd": "5", "microcents": 500_000_000}
    assert limits[0]["total"] is None
    assert limits[2]["day"] is None


@pytest.mark.parametrize("amount", ["-1", "ten", "", "$1e9", "100000000"])
def test_what_is_not_an_amount_changes_nothing(nova: Nova, amount: str) -> None:
    """It is refused as invalid input, and no limit is there afterwards."""
    refused = nova("budget", "set", "tenant", "--", amount)

    assert refused.code == 4
    assert nova("budget", "show", "--json").check().json["windows"] == []


@pytest.mark.usefixtures("spent")
def test_holds_are_listed_by_state_and_in_pages(nova: Nova) -> None:
    """A filter leaves out the others; a page says where the next begins."""
    expired = nova("budget", "holds", "--state", "expired", "--json").check().json
    first = nova("budget", "holds", "--limit", "3", "--json").check().json
    rest = nova("budget", "holds", "--after", first["next_after"], "--json").check().json
    text = nova("budget", "holds").check().out

    assert [(hold["hold_id"], hold["charged"]["usd"]) for hold in expired["holds"]] == [("call-2", "0.05")]
    assert [hold["hold_id"] for hold in first["holds"] + rest["holds"]] == ["call-1", "call-2", "call-3", "call-4"]
    assert rest["next_after"] is None
    lines = text.splitlines()
    assert lines[lines.index("call-1") + 1].startswith("  settled, $0.04 reserved, $0.02 charged, since 20")
    assert lines[lines.index("call-3") + 1].startswith("  held, $0.03 reserved, $0.00 charged, lease until 20")


@pytest.mark.usefixtures("spent")
def test_a_correction_replaces_an_uncertain_charge_once(nova: Nova) -> None:
    """Five uncertain cents become the bill of one; the same again is a no-op, another bill is refused."""
    corrected = nova("budget", "correct", "call-2", "$0.01", "--detail", "invoice", "--json").check().json
    again = nova("budget", "correct", "call-2", "$0.01")
    other = nova("budget", "correct", "call-2", "$0.02")
    unknown = nova("budget", "correct", "call-9", "$0.02")

    total = nova("budget", "show", "run:tour", "--json").check().json["windows"][0]
    assert (corrected["state"], corrected["charged"]["usd"], corrected["detail"]) == ("settled", "0.01", "invoice")
    assert (again.code, other.code, unknown.code) == (0, 22, 22)
    assert (total["spent"]["usd"], total["uncertain"]["usd"]) == ("0.03", "0")


@pytest.mark.usefixtures("spent")
def test_a_hold_whose_call_may_be_under_way_is_not_corrected(nova: Nova) -> None:
    """The call brings its own bill, which a correction made before it would have shut out."""
    refused = nova("budget", "correct", "call-3", "0")

    held = nova("budget", "holds", "--state", "held", "--json").check().json["holds"]
    assert refused.code == 22
    assert "may still be under way" in refused.err
    assert [hold["hold_id"] for hold in held] == ["call-3"]


def test_a_scope_of_a_run_that_there_is_not_is_noted(nova: Nova) -> None:
    """A limit may be set before its run begins, so it stands; whoever mistyped the id reads that too."""
    limited = nova("budget", "set", "run:zzz", "$1").check()
    shown = nova("budget", "show", "run:zzz", "tenant").check()
    document = nova("budget", "show", "run:zzz", "--json").check()

    assert limited.err == shown.err == "there is no run 'zzz' yet\n"
    assert (document.err, document.json["windows"][0]["limit"]["usd"]) == ("", "1")


def uncertain(*hold_ids: str, detail: str | None = None) -> None:
    """Leave expired holds of 2 cents each behind."""

    async def leave() -> None:
        store = SqliteBudgetStore(load_settings().database_file)
        for hold_id in hold_ids:
            await store.reserve(hold_id, 2 * MICROCENTS_PER_CENT, ["tenant"], lease=timedelta(hours=1))
            await store.expire(hold_id, detail=detail)
        await store.close()

    asyncio.run(leave())


def test_uncertain_holds_are_a_list_whose_ids_can_be_copied(nova: Nova) -> None:
    """Each id is one line however long it is; below it is what happened, and at the end what it all comes to."""
    ids = [f"{'a-long-name/' * 12}{number}" for number in range(2)]
    uncertain(*ids, detail='{"error": "CancelledError", "model": "stub-1", "outcome": "unknown"}')

    lines = nova("budget", "holds", "--state", "expired").check().out.splitlines()

    assert [line for line in lines if line.startswith("a-long")] == ids
    assert lines[1].startswith("  expired, $0.02 reserved, $0.02 charged, since 20")
    assert lines[2] == "  cut: CancelledError, model stub-1"
    assert lines[-1] == (
        "these 2 holds are uncertain: $0.04 charged; where the bill says otherwise: nova budget correct HOLD AMOUNT"
    )


def test_no_holds_are_told_in_words(nova: Nova) -> None:
    """An empty list is no error, and says nothing of a hold that was asked for."""
    assert nova("budget", "holds").check().out == "no holds\n"


def test_the_start_of_an_id_names_an_uncertain_hold_where_it_names_one_alone(nova: Nova) -> None:
    """An ambiguous start is refused with how many it names and changes nothing; an id in full is that hold alone."""
    uncertain("call-1", "call-10", "call-11", "other-7")

    corrected = nova("budget", "correct", "oth", "$0.01", "--json").check().json
    ambiguous = nova("budget", "correct", "cal", "$0.01")
    exact = nova("budget", "correct", "call-1", "$0.01", "--json").check().json
    nothing = nova("budget", "correct", "other", "$0.01")

    left = nova("budget", "holds", "--state", "expired", "--json").check().json["holds"]
    assert (corrected["hold_id"], exact["hold_id"]) == ("other-7", "call-1")
    assert (ambiguous.code, nothing.code) == (22, 22)
    assert "3 uncertain holds" in ambiguous.err
    assert [hold["hold_id"] for hold in left] == ["call-10", "call-11"]


@pytest.mark.parametrize(
    ("detail", "words"),
    [
        ("corrected by hand", "corrected by hand"),
        ("[1]", "[1]"),
        ('{"output_tokens": 7}', "7 tokens out"),
        ('{"outcome": "unknown", "error": "ERR_LLM_TIMEOUT"}', "outcome unknown: ERR_LLM_TIMEOUT"),
        (
            '{"cost": 5000000, "input_tokens": 3, "outcome": "superseded", "service_tier": "fast"}',
            "answered after somebody else had taken the call over, 3 tokens in, billed $0.05, service tier fast",
        ),
    ],
    ids=["text", "no note", "usage", "timeout", "superseded"],
)
def test_what_a_call_noted_is_told_in_words(detail: str, words: str) -> None:
    """Every fact of the note is told; a text that somebody wrote stays as it is."""
    assert detail_text(detail) == words


@pytest.mark.usefixtures("spent")
def test_an_audit_is_clean_or_names_the_counter_that_is_wrong(nova: Nova) -> None:
    """A counter that was changed by hand is found, with both figures and the exit code of damage."""
    clean = nova("budget", "audit", "--json").check().json
    with sqlite3.connect(load_settings().database_file) as connection:
        changed = connection.execute(
            "UPDATE budget_counters SET spent = spent + 1 WHERE scope = 'run:tour' AND window_id = 'total'"
        )
        assert changed.rowcount == 1
    connection.close()

    damaged = nova("budget", "audit", "--json")
    told = nova("budget", "audit")

    assert clean["clean"] is True
    assert damaged.code == told.code == 31
    finding = damaged.json["findings"][0]
    assert (finding["scope"], finding["counter"]) == ("run:tour", "spent")
    assert finding["recorded"]["microcents"] - finding["recomputed"]["microcents"] == 1
    assert "$0.07000001" in told.out


@pytest.mark.usefixtures("spent")
def test_a_repair_does_what_its_dry_run_says(nova: Nova) -> None:
    """The dry run changes nothing; the repair makes the audit clean, and names what it changed."""
    with sqlite3.connect(load_settings().database_file) as connection:
        connection.execute(
            "UPDATE budget_counters SET spent = spent + 7 WHERE scope = 'tenant' AND window_id = 'total'"
        )
    connection.close()

    planned = nova("budget", "repair", "--dry-run", "--json").check().json
    still = nova("budget", "audit", "--json")
    repaired = nova("budget", "repair", "--json").check().json
    words = nova("budget", "repair").check().out

    assert (planned["repaired"], repaired["repaired"]) == (False, True)
    assert planned["findings"] == still.json["findings"] == repaired["findings"]
    assert still.code == 31
    assert nova("budget", "audit").check().out == words
    assert words.startswith("clean")


def test_a_stop_refuses_until_it_is_lifted(nova: Nova) -> None:
    """A question is refused with the reason and the way out; the exit code is that of a refused budget."""
    stopped = nova("budget", "stop", "--reason", "runaway agent", "--json").check().json
    refused = nova("ask", "hello")
    lifted = nova("budget", "go").check()
    answered = nova("ask", "hello").check()

    assert (stopped["tenant"], stopped["stopped"], stopped["reason"]) == ("default", True, "runaway agent")
    assert refused.code == 20
    assert "runaway agent" in refused.err
    assert "nova budget go" in refused.err
    assert lifted.out.strip() == "tenant default: calls are made"
    assert answered.out


def test_the_stop_of_all_tenants_is_lifted_by_its_own_command(nova: Nova) -> None:
    """It stops whichever tenant asks; lifting one's own stop does not lift it, and says so."""
    nova("budget", "stop", "--all").check()
    refused = nova("--tenant", "acme", "ask", "hello")
    own = nova("--tenant", "acme", "budget", "go").check()
    still = nova("--tenant", "acme", "ask", "hello")
    nova("budget", "go", "--all").check()

    assert (refused.code, still.code) == (20, 20)
    assert "budget go --all" in refused.err
    assert "all tenants are still stopped" in own.err
    assert nova("--tenant", "acme", "ask", "hello").check().out


def test_whoever_looks_for_the_cause_finds_the_stop(nova: Nova) -> None:
    """``budget show`` and ``doctor`` name each stop in force and what lifts it, and say nothing of it afterwards."""
    nova("budget", "stop", "--reason", "runaway agent").check()
    nova("budget", "stop", "--all").check()

    shown = nova("budget", "show").check().out
    document = nova("budget", "show", "--json").check().json
    found = [each for each in nova("doctor", "--json").check().json["parts"] if each["part"] == "emergency stop"]
    nova("budget", "go").check()
    nova("budget", "go", "--all").check()

    assert "tenant default: stopped since" in shown
    assert "(runaway agent)" in shown
    assert "all tenants: stopped since" in shown
    assert [(stop["tenant"], stop["reason"]) for stop in document["stops"]] == [
        (None, ""),
        ("default", "runaway agent"),
    ]
    assert [each["remedy"].rpartition(": ")[2] for each in found] == ["nova budget go --all", "nova budget go"]
    assert nova("budget", "show", "--json").check().json["stops"] == []
    assert "emergency stop" not in nova("doctor").check().out
