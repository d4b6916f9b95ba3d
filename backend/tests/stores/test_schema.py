"""The migrations of the shared SQLite file are read the same everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import app


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
