"""The error tree: what the docstring draws is what the classes are."""

from __future__ import annotations

import inspect
import re

import pytest

from app import errors
from app.errors import LLMError, NovaError

CLASSES: dict[str, type[NovaError]] = {
    name: found
    for name, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, NovaError) and found.__module__ == errors.__name__
}


def drawn() -> dict[str, list[str]]:
    """Read the tree in the docstring: each class with its parent, and the other base that it names."""
    tree: dict[str, list[str]] = {}
    above: list[str] = []
    for line in inspect.cleandoc(errors.__doc__ or "").splitlines():
        match = re.match(r"^ {4}([│├└─ ]*)(\w+Error)(?: \((\w+)\))?", line)
        if match is None:
            continue
        branches, name, other_base = match.groups()
        del above[len(branches) // 4 :]
        tree[name] = [*above[-1:], *([other_base] if other_base else [])]
        above.append(name)
    return tree


def test_the_tree_is_the_classes() -> None:
    """Every class is drawn under its parent, with its other base, and nothing else is drawn."""
    classes = {
        name: [base.__name__ for base in found.__bases__ if base is not Exception] for name, found in CLASSES.items()
    }

    assert drawn() == classes


def test_every_class_has_a_code_of_its_own() -> None:
    """No two classes share a code, so that a program can tell them apart; a provider's error brings its own."""
    own = {name: found.__dict__.get("code") for name, found in CLASSES.items() if found is not LLMError}

    assert [name for name, code in own.items() if not re.fullmatch(r"ERR_[A-Z_]+", str(code))] == []
    assert len(set(own.values())) == len(own)
    assert not set(own.values()) & set(LLMError.CODES)


def test_what_may_succeed_later_is_retryable() -> None:
    """Only where the same call may succeed without anybody changing anything: unavailable, busy, too slow."""
    retryable = {name for name, found in CLASSES.items() if found.retryable and found is not LLMError}

    assert retryable == {
        "StoreUnavailableError",
        "BudgetStoreUnavailableError",
        "ArchiveUnavailableError",
        "CheckpointStoreUnavailableError",
        "OffloadBusyError",
        "IdempotencyStoreUnavailableError",
        "RunBusyError",
        "SecretsUnavailableError",
        "StepTimeoutError",
    }


def test_every_class_says_what_it_means() -> None:
    """Each has a docstring of its own, and comes from the root."""
    assert [name for name, found in CLASSES.items() if not found.__dict__.get("__doc__")] == []
    assert all(issubclass(found, NovaError) for found in CLASSES.values())


@pytest.mark.parametrize("code", sorted(LLMError.CODES))
def test_a_provider_error_has_the_category_of_its_code(code: str) -> None:
    """The code decides the group that retry and fallback look at."""
    error = LLMError("text", code=code, retryable=False, billed="no", provider="stub")

    assert error.code == code
    assert error.category == LLMError.CODES[code]
    assert str(error) == "text"


def test_an_unknown_code_of_a_provider_error_is_a_mistake() -> None:
    """A code that is not in the table cannot be raised."""
    with pytest.raises(KeyError):
        LLMError("text", code="ERR_LLM_SURPRISE", retryable=False, billed="no", provider="stub")
