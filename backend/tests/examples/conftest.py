"""The small model, where its wheels are installed: `make test` installs them, so in CI they have to be there."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from examples.local_model import LocalModel, missing_wheels, running_model


@pytest.fixture(scope="module")
def local_model() -> Iterator[LocalModel]:
    """The model, started for the tests of one module."""
    if missing := missing_wheels():
        text = f"no wheels of the small model: {', '.join(missing)}"
        if os.environ.get("CI"):
            pytest.fail(f"{text}; `make .venv/.ready-local` installs them")
        pytest.skip(text)
    with running_model() as model:
        yield model
