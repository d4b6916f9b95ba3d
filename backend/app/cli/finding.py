"""What ``nova doctor`` found out about one part of the installation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from app.cli.exits import ExitCode

__all__ = ["Finding", "State"]

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One part of the installation.

    Attributes:
        part: its name.
        state: ``note`` works, with something to know.
        in_force: the backend that the commands use.
        why: what chose it, and whether it answers.
        library: what the library's factories return where that differs; None where it does not.
        remedy: what to set or do; None where nothing needs to be done.
        latency_ms: how long it took to answer; None where nothing was asked.
        exit_code: what ``nova doctor`` ends with if this is the first problem.
    """

    part: str
    state: State
    in_force: str
    why: str
    library: str | None = None
    remedy: str | None = None
    latency_ms: float | None = None
    exit_code: ExitCode = ExitCode.OK
