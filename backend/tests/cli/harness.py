"""What the tests of the command line share: how a command is called, and what it left behind."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = ["Nova", "Result", "Start"]


@dataclass(frozen=True, slots=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on standard output."""
        return json.loads(self.out)

    def check(self) -> Result:
        """Return it if the command succeeded."""
        assert self.code == 0, self.err
        return self


Nova: TypeAlias = Callable[..., Result]
Start: TypeAlias = Callable[..., "subprocess.Popen[bytes]"]
