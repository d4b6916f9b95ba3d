"""The budget contract as tests: every backend runs :class:`BudgetContract`, with a back door behind the verbs."""

from __future__ import annotations

import pytest

from tests.support.clock import FakeClock

from .bad_input import BadInput
from .books import Books
from .closing import Closing
from .reserving import Reserving
from .sharing import OneBookForAll, Sharing
from .stopping import Stopping
from .support import DAY, LEASE, BackDoor, granted, spent_and_held, window
from .windows import Windows

__all__ = ["DAY", "LEASE", "BackDoor", "BudgetContract", "OneBookForAll", "granted", "spent_and_held", "window"]


class BudgetContract(Reserving, Closing, Windows, Books, Sharing, Stopping, BadInput):
    """What every backend keeps. A subclass gives the fixtures ``store`` and ``back_door``, on ``clock``."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        """Give a clock that stands at noon."""
        return FakeClock()
