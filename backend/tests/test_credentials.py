"""Credentials: asked for at each use, and seen by nobody else."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable

import pytest

from app.credentials import Credential, fixed
from tests.support.planted import planted

SECRET = planted("postgres.password")


def test_a_credential_shows_its_version_and_not_its_secret() -> None:
    """repr, str and format hide the secret; whoever sends it reveals it."""
    credential = Credential(SECRET, version="7")

    shown = [repr(credential), str(credential), f"{credential}", repr([credential]), str({"key": credential})]

    assert all("version='7'" in text and SECRET not in text for text in shown)
    assert credential.reveal() == SECRET


@pytest.mark.parametrize("leak", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps, vars])
def test_a_credential_cannot_be_carried_off(leak: Callable[[object], object]) -> None:
    """It is not pickled, copied or dumped, and the error does not show it."""
    with pytest.raises(TypeError) as caught:
        leak(Credential(SECRET))

    assert SECRET not in str(caught.value)


def test_a_fixed_source_gives_one_credential() -> None:
    """A secret that does not change keeps its version, so that nobody reconnects for nothing."""
    source = fixed(SECRET)

    first, second = source(), source()

    assert first is second
    assert (first.reveal(), first.version) == (SECRET, "1")
