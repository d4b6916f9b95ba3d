"""A test run of one process ends as its tests say, whatever its tools have left in the interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BACKEND = Path(__file__).parents[1]


def test_a_run_in_one_process_that_captures_nothing_ends_well() -> None:
    """Built-in types are as they were when Python frees them: it does not crash behind the summary."""
    command = (
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-s",
        "-o",
        "addopts=--import-mode=importlib",
        "tests/test_money.py",
    )

    run = subprocess.run(command, cwd=BACKEND, capture_output=True, text=True, timeout=120, check=False)

    assert (run.returncode, " passed in " in run.stdout) == (0, True), run.stdout + run.stderr
