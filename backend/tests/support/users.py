"""Tests that need a user who may not write everywhere, whoever runs them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ordinary_user"]


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Give up the superuser's right to write to anything, if these tests run with it."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
