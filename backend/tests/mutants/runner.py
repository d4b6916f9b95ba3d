"""Takes out one guard at a time in a copy of the tree and runs the tests that must notice."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from .catalogue import Mutant

__all__ = ["Result", "Verdict", "run"]

Verdict = Literal["killed", "survived", "broken", "red before"]
"""``killed`` is right. ``broken``: the tests did not run, as where the mutated file cannot be imported or a test's name
is wrong. ``red before``: a test fails without the mutation.
"""

_PROCESSES: Final = 2
_TIMEOUT_S: Final = 300
_NOT_COPIED: Final = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "dist")
_PASSED, _FAILED = 0, 1  # pytest's exit codes; every other one says that the tests did not run


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a mutant; ``output`` is the end of what pytest said, where something is wrong."""

    mutant: Mutant
    verdict: Verdict
    seconds: float
    output: str = ""


class _Copy:
    """A copy of the tree, in which one mutant lives at a time."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def judge(self, mutant: Mutant) -> Result:
        """Take the guard out, run each of the tests, and put it back."""
        start = time.monotonic()
        file = self._root / mutant.file
        original = file.read_text()
        file.write_text(mutant.mutated(original))
        try:
            for test in mutant.tests:
                code, output = self.pytest([test])
                if code != _FAILED:
                    verdict: Verdict = "survived" if code == _PASSED else "broken"
                    return Result(
                        mutant=mutant, verdict=verdict, seconds=time.monotonic() - start, output=f"{test}\n{output}"
                    )
        finally:
            file.write_text(original)
        return Result(mutant=mutant, verdict="killed", seconds=time.monotonic() - start)

    def pytest(self, tests: Sequence[str]) -> tuple[int, str]:
        """Run tests in this copy; return pytest's exit code and the end of its output."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-o", "timeout=60"]
        environment = {
            **os.environ,
            # A compiled file would be taken for that of the next mutant: same second, same size.
            "PYTHONDONTWRITEBYTECODE": "1",
            "MUTANT": "1",  # see conftest.py
            "PYTHONPATH": os.pathsep.join((str(self._root / "backend"), str(self._root))),
        }
        try:
            ran = subprocess.run(
                [*command, *(f"backend/tests/{test}" for test in tests)],
                cwd=self._root,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return -1, f"no end after {_TIMEOUT_S} s"
        return ran.returncode, "\n".join(ran.stdout.splitlines()[-15:])


def run(mutants: Sequence[Mutant], root: Path) -> Iterator[Result]:
    """Judge every mutant of the tree at ``root``, which is not touched; give the results as they come.

    Raises:
        ValueError: a text to replace is not there exactly once; nothing was run.
    """
    for mutant in mutants:
        mutant.mutated((root / mutant.file).read_text())
    with ExitStack() as stack:
        copies: queue.SimpleQueue[_Copy] = queue.SimpleQueue()
        for _ in range(min(_PROCESSES, len(mutants))):
            copies.put(stack.enter_context(_copied(root)))
        pool = stack.enter_context(ThreadPoolExecutor(_PROCESSES))
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)

        def judge(mutant: Mutant) -> Result:
            copy = copies.get()
            try:
                return copy.judge(mutant)
            finally:
                copies.put(copy)

        red = {result.mutant.name: result for result in _red_before(mutants, copies)}
        yield from red.values()
        sound = [mutant for mutant in mutants if mutant.name not in red]
        for future in as_completed([pool.submit(judge, mutant) for mutant in sound]):
            yield future.result()


def _red_before(mutants: Sequence[Mutant], copies: queue.SimpleQueue[_Copy]) -> Iterator[Result]:
    """Give a result for each mutant whose tests do not pass as the code is; asked one by one only if some do not."""
    copy = copies.get()
    try:
        code, _ = copy.pytest(sorted({test for mutant in mutants for test in mutant.tests}))
        if code == _PASSED:
            return
        for mutant in mutants:
            start = time.monotonic()
            code, output = copy.pytest(mutant.tests)
            if code != _PASSED:
                yield Result(mutant=mutant, verdict="red before", seconds=time.monotonic() - start, output=output)
    finally:
        copies.put(copy)


@contextmanager
def _copied(root: Path) -> Iterator[_Copy]:
    with tempfile.TemporaryDirectory(prefix="nova-mutants-") as directory:
        copy = Path(directory) / "tree"
        shutil.copytree(root, copy, ignore=_NOT_COPIED)
        yield _Copy(copy)
