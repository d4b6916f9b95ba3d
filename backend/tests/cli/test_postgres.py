"""The commands with their checkpoints in PostgreSQL: chosen by DATABASE_URL alone, seen by doctor, kept by db."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from tests.support.planted import planted
from tests.support.servers.postgres import PostgresServer

from .harness import Nova

_numbers = itertools.count(1)
SECRET = planted("postgres.password")


@pytest.fixture
def database(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, blockbuster: BlockBuster
) -> Iterator[str]:
    """Choose a database that nobody has used, and return its name."""
    blockbuster.deactivate()
    name = f"cli{next(_numbers)}"
    dsn = postgres_server.create_database(name)
    monkeypatch.setenv("DATABASE_URL", dsn.replace("postgres@", f"postgres:{SECRET}@"))
    yield name
    postgres_server.drop_database(name)


def test_a_run_is_recorded_and_shown(
    nova: Nova, database: str, postgres_server: PostgresServer, documents: Path
) -> None:
    """A flow runs, its run is listed and shown, and what is recorded lies in the database and nowhere else."""
    nova("run", "examples/brief.yaml", "--input", f"documents={documents}", "--run-id", "tour").check()

    listed = nova("runs", "list", "--json").check().json
    shown = nova("runs", "show", "tour", "--json").check().json
    again = nova("resume", "tour")

    assert [run["run_id"] for run in listed["runs"]] == ["tour"]
    assert shown["status"] == "completed"
    assert again.code != 0
    rows = postgres_server.execute("SELECT status, next_step_index FROM nova_runs", database=database)
    assert rows == [("completed", shown["steps"])]


def test_doctor_says_why_and_whether_it_answers(nova: Nova, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend is named with its reason; an address that does not answer is a problem that shows no password."""
    works = nova("doctor")
    monkeypatch.setenv("DATABASE_URL", f"postgresql://postgres:{SECRET}@127.0.0.1:1/{database}")
    broken = nova("doctor")

    assert "postgres" in works.out
    assert "it answers" in works.out
    assert broken.code != 0
    assert "cannot be reached" in " ".join(broken.out.split())
    assert SECRET not in works.out + works.err + broken.out + broken.err


def test_db_looks_after_the_database(nova: Nova, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without automatic migrations a command says what to run; status and migrate work on the database."""
    monkeypatch.setenv("NOVA_AUTO_MIGRATE", "false")
    refused = nova("runs", "list")
    before = nova("db", "status", "--json").check().json
    migrated = nova("db", "migrate", "--json").check().json
    after = nova("db", "status").check().out

    assert "nova db migrate" in " ".join((refused.out + refused.err).split())
    assert before["postgres"]["current"] is False
    assert migrated["postgres"]["current"] is True
    assert migrated["postgres"]["database"].startswith(f"{database!r} at 127.0.0.1:")
    assert "nova_steps" in after
    assert nova("runs", "list").check().code == 0
    assert SECRET not in after + str(before) + str(migrated) + refused.err


def test_what_concerns_a_file_says_what_serves_instead(
    nova: Nova, database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where no store is in a SQLite file, ``backup`` and ``reset-clock`` look for none."""
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")

    backup, reset = nova("db", "backup", str(tmp_path / "copy.db")), nova("db", "reset-clock")

    assert (backup.code, reset.code) == (4, 4)
    assert "pg_dump" in backup.err
    assert "nova doctor" in reset.err
    assert not (tmp_path / "copy.db").exists()
