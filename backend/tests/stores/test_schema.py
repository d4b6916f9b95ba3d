"""The shared SQLite file is made the same everywhere, and by any number of programs at once."""

from __future__ import annotations

import itertools
import os
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import app
from app.stores.sqlite.schema import is_nova, open_database, versions


def test_a_file_is_made_where_the_locale_is_ascii(tmp_path: Path) -> None:
    """Migrations are UTF-8 whatever the locale says that text is."""
    (root,) = app.__path__
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(root).parent),
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }
    program = (
        "import sys, pathlib, locale; from app.stores.sqlite.schema import open_database, versions;"
        "assert 'utf' not in locale.getpreferredencoding(False).lower();"
        "print(sum(each.applied for each in versions(open_database(pathlib.Path(sys.argv[1])))))"
    )

    made = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "nova.db")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert made.returncode == 0, made.stderr
    assert int(made.stdout) >= 3


def test_a_connection_is_set_to_lose_nothing(tmp_path: Path) -> None:
    """Whoever opens a file syncs each commit (2 is FULL) in its log, and trusts no foreign schema."""
    path = tmp_path / "nova.db"
    open_database(path).close()

    with closing(open_database(path)) as connection:
        settings = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("synchronous", "journal_mode", "foreign_keys", "trusted_schema", "page_size")
        }

    assert settings == {
        "synchronous": 2, "journal_mode": "wal", "foreign_keys": 1, "trusted_schema": 0, "page_size": 8192,
    }  # fmt: skip


class _Interrupted(sqlite3.Connection):
    """A connection with a moment at which another program opens the same file, from beginning to end."""

    path: Path
    statements_left: int

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if self.statements_left == 0:
            # Where this connection has a lock the other program is told so, and comes again later.
            with suppress(sqlite3.OperationalError), pytest.MonkeyPatch.context() as plain:
                plain.setattr(sqlite3, "connect", _connect)
                open_database(self.path).close()
        self.statements_left -= 1
        return super().execute(sql, parameters)


_connect = sqlite3.connect


def test_programs_that_open_a_new_file_at_once_agree_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever statement of an opening another one comes before, the file is Nova's for both, and complete."""
    for moment in itertools.count():
        path = tmp_path / f"{moment}.db"
        interrupted = type("Interrupted", (_Interrupted,), {"path": path, "statements_left": moment})
        monkeypatch.setattr(sqlite3, "connect", partial(_connect, factory=interrupted))

        with closing(open_database(path)) as connection:
            statements_left = connection.statements_left  # type: ignore[attr-defined]
            assert is_nova(connection)
            assert all(each.applied == each.available for each in versions(connection))

        if statements_left >= 0:
            break
    assert moment > 10
