"""The list of mutants fits the code, and the runner tells a guard that is tested from one that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from .catalogue import HERE, ROOT, Mutant, load
from .runner import run

MUTANTS = load()


def test_there_are_mutants() -> None:
    """The list is read, and no two mutants are the same change."""
    assert len(MUTANTS) > 20
    assert len({(mutant.file, mutant.before, mutant.after) for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_code(mutant: Mutant) -> None:
    """Its text is there exactly once, what replaces it differs and is Python still, and its tests' files exist."""
    text = (ROOT / mutant.file).read_text()

    mutated = mutant.mutated(text)

    assert mutated != text
    if mutant.file.endswith(".py"):
        compile(mutated, mutant.file, "exec")
    assert [test for test in mutant.tests if not (HERE.parent / test.partition("::")[0]).is_file()] == []


CODE = "def half(n):\n    if n < 0:\n        raise ValueError\n    return n / 2\n"
TESTS = """
import pytest
from app.code import half

def test_guard():
    with pytest.raises(ValueError):
        half(-1)

def test_other():
    assert half(2) == 1

def test_red():
    assert half(2) == 2
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a small tree with one guard and three tests: one needs the guard, one does not, one fails."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # a pytest without plugins starts twice as quickly
    for folder in ("backend/app", "backend/tests"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "backend/app/__init__.py").touch()
    (tmp_path / "backend/app/code.py").write_text(CODE)
    (tmp_path / "backend/tests/test_code.py").write_text(TESTS)
    return tmp_path


def guard(name: str, *tests: str, after: str = "if False:") -> Mutant:
    """Return a mutant that takes the guard out."""
    ids = tuple(f"test_code.py::{test}" for test in tests)
    return Mutant(name=name, file="backend/app/code.py", before="if n < 0:", after=after, tests=ids)


def test_the_runner_tells_what_became_of_a_mutant(tree: Path) -> None:
    """Killed is only what every named test noticed; the tree stays as it was."""
    mutants = [
        guard("noticed", "test_guard"),
        guard("not noticed", "test_other"),
        guard("noticed by one of two", "test_guard", "test_other"),
        guard("not importable", "test_guard", after="if n <:"),
        guard("red", "test_red"),
    ]

    verdicts = {result.mutant.name: result.verdict for result in run(mutants, tree)}

    assert verdicts == {
        "noticed": "killed",
        "not noticed": "survived",
        "noticed by one of two": "survived",
        "not importable": "broken",
        "red": "red before",
    }
    assert (tree / "backend/app/code.py").read_text() == CODE


def test_a_text_that_is_not_there_once_is_refused(tree: Path) -> None:
    """A mutant that the code has outgrown stops everything, rather than passing unnoticed."""
    gone = Mutant(name="gone", file="backend/app/code.py", before="n", after="m", tests=("test_code.py::test_guard",))

    with pytest.raises(ValueError, match="must occur once"):
        list(run([gone], tree))


@pytest.mark.parametrize("text", ["[a]\nfile = 'f'\n", "[a]\nfile='f'\nbefore='b'\nafter='a'\ntests=[]\n"])
def test_an_incomplete_entry_is_refused(tmp_path: Path, text: str) -> None:
    """An entry without a test, or without what it changes, is a mistake."""
    (tmp_path / "list.toml").write_text(text)

    with pytest.raises(ValueError, match=r"list\.toml: \[a\] needs"):
        load(tmp_path)
