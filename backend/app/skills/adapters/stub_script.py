"""The faults that the stub plays, and the script that says in which call."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from app.errors import InvalidInputError

__all__ = ["FaultKind", "StubFault", "StubScript"]

FaultKind = Literal[
    "ok",
    "rate_limited",
    "overloaded",
    "server_error",
    "timeout",
    "disconnect",
    "cut_stream",
    "stalled",
    "missing_usage",
    "refusal",
]
"""What happens to a call.

``ok``: nothing; only the latency counts. ``rate_limited`` (429), ``overloaded`` (529), ``server_error`` (500): refused.
``timeout``: no answer before the deadline. ``disconnect``: the connection breaks before the first byte.
``cut_stream``: it breaks after ``after_chunks`` pieces. ``stalled``: nothing more comes after them, until the deadline.
``missing_usage``: an answer that does not say what was used. ``refusal``: an answer that declines, billed like any.
"""

_KINDS: Final = frozenset(get_args(FaultKind))


@dataclass(frozen=True, slots=True, kw_only=True)
class StubFault:
    """What happens to one call.

    Attributes:
        kind: see :data:`FaultKind`.
        latency_s: how long the call takes before that.
        retry_after_s: what a refusal asks for, None for nothing.
        after_chunks: how many pieces of a stream arrive before a cut or a stall; of a call without a stream, none do.
    """

    kind: FaultKind = "ok"
    latency_s: float = 0.0
    retry_after_s: float | None = None
    after_chunks: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be played.

        Raises:
            InvalidInputError: which field, its value, and what it may be.
        """
        if self.kind not in _KINDS:
            raise InvalidInputError(f"the stub knows no fault {self.kind!r}; use one of {', '.join(sorted(_KINDS))}")
        for name, value in (("latency_s", self.latency_s), ("retry_after_s", self.retry_after_s)):
            if value is not None and not (_is_number(value) and value >= 0):
                raise InvalidInputError(f"{name} must be a number of at least 0 ({value!r} given)")
        if self.after_chunks < 0:
            raise InvalidInputError(f"after_chunks must be at least 0 ({self.after_chunks!r} given)")

    @classmethod
    def from_extra(cls, extra: Mapping[str, Any]) -> StubFault | None:
        """Read ``fault`` and ``latency_s`` of a call's extra parameters; None where there is neither."""
        if not extra.keys() & {"fault", "latency_s"}:
            return None
        return cls(kind=extra.get("fault", "ok"), latency_s=extra.get("latency_s", 0.0))


class StubScript:
    """What happens to each of the coming calls, in order; after the last, calls go well.

    Args:
        faults: one for each call.
        always: what happens to the calls after these.
    """

    def __init__(self, faults: Iterable[StubFault] = (), *, always: StubFault | None = None) -> None:
        self._coming = deque(faults)
        self._always = always or StubFault()

    def add(self, *faults: StubFault) -> None:
        """Add what happens to the calls after those that are in the script already."""
        self._coming.extend(faults)

    def next(self) -> StubFault:
        """Return what happens to the call that begins now."""
        return self._coming.popleft() if self._coming else self._always


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
