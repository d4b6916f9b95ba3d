"""``nova db``: the file is looked after, and never at its cost."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from app.settings import load_settings

from .harness import Nova


def test_a_backup_is_a_whole_copy_that_the_commands_can_work_on(nova: Nova, tmp_path: Path) -> None:
    """The limit that was set is in the copy; a file that exists is not overwritten."""
    nova("budget", "set", "tenant", "$3").check()
    target = tmp_path / "copies" / "nova.db"
    target.parent.mkdir()

    copied = nova("db", "backup", str(target), "--json").check().json
    again = nova("db", "backup", str(target))
    from_copy = nova("--data-dir", str(target.parent), "budget", "show", "tenant", "--json").check().json

    assert copied["backup"] == str(target)
    assert copied["size_bytes"] >= 8192
    assert again.code == 4
    assert from_copy["windows"][0]["limit"]["usd"] == "3"


def test_the_status_shows_schema_rows_and_soundness(nova: Nova) -> None:
    """A file of this version is current and sound, and its rows are counted."""
    nova("budget", "set", "tenant", "$3").check()

    document = nova("db", "status", "--json").check().json
    table = nova("db", "status").check().out

    assert (document["sound"], document["current"]) == (True, True)
    assert document["rows"]["budget_limits"] == 1
    assert {each["component"] for each in document["schema"]} == {"budget", "checkpoint", "idempotency"}
    assert "budget_limits" in table


def test_a_file_that_is_not_there_is_told_by_status_and_made_by_migrate(nova: Nova) -> None:
    """Looking does not make it; migrating does."""
    missing = nova("db", "status")
    nova("db", "migrate").check()

    assert missing.code == 4
    assert "nova.db" in missing.err
    assert nova("db", "status", "--json").check().json["current"] is True


def test_a_clock_that_was_ahead_is_accepted_after_it_was_put_right(nova: Nova) -> None:
    """Writes are refused with the command that helps; after it they go on."""
    nova("budget", "set", "tenant", "$3").check()
    ahead_ms = int(time.time() * 1000) + 3_600_000
    with sqlite3.connect(load_settings().database_file) as connection:
        connection.execute("UPDATE nova_clock SET latest_ms = ?", (ahead_ms,))
    connection.close()

    refused = nova("budget", "set", "tenant", "$4")
    nova("db", "reset-clock").check()
    accepted = nova("budget", "set", "tenant", "$4", "--json").check().json

    assert refused.code == 30
    assert "nova db reset-clock" in refused.err
    assert accepted["windows"][0]["limit"]["usd"] == "4"
