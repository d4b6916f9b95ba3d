"""What the budget's scripts answer, as values: lines of text, in the order that each script's header says."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, overload

from app.errors import StoreDamagedError
from app.money import Microcents
from app.stores.budget.contract import WINDOWS, Hold, HoldState, Limit, Window, WindowUsage
from app.stores.budget.ledger import Adjustment, CounterKey, EntryKind
from app.stores.budget.rules import Counter, usage
from app.stores.budget.windows import windows_at
from app.stores.clock import from_ms

__all__ = [
    "LINES_OF_SCOPE",
    "ShownUsage",
    "counter_of",
    "counters_of",
    "damaged",
    "entry_of",
    "field_key",
    "field_of",
    "hold_of",
    "limits_of",
    "usages_of",
    "windows_of",
]

_STATES: Final = {
    "h": HoldState.HELD,
    "s": HoldState.SETTLED,
    "r": HoldState.RELEASED,
    "e": HoldState.EXPIRED,
}
_HOUR_MS: Final = 3_600_000
_NO_LIMITS: Final = (None, None, None, None)

Counted = tuple[tuple[str, Window, str], ...]
"""Counters: scope, window and window id of each."""

LINES_OF_SCOPE: Final = 5
"""Its limits, and its counters of total, month, day and hour."""


def hold_of(tenant_id: str, hold_id: str, packed: str) -> Hold:
    """Return a hold as it is written down.

    Raises:
        StoreDamagedError: it cannot be read.
    """
    try:
        head, _, rest = packed.partition("\n")
        state, amount, charged, created, expires, closed, hours = head.split(" ")
        names, noted, note = rest.partition("\n\n")
        created_ms = int(created)
        scopes = _scopes_of(names)
        return Hold(
            hold_id=hold_id,
            tenant_id=tenant_id,
            amount=int(amount),
            scopes=scopes,
            state=_STATES[state],
            charged=int(charged),
            windows=_windows_in_hour(scopes, hours, created_ms // _HOUR_MS),
            created_at=from_ms(created_ms),
            expires_at=from_ms(int(expires)),
            closed_at=None if closed == "0" else from_ms(int(closed)),
            detail=note if noted else None,
        )
    except (ValueError, KeyError) as error:
        raise damaged(f"the hold {hold_id!r}") from error


def windows_of(scopes: tuple[str, ...], hours: str, now_ms: int) -> Counted:
    """Return the counters of some scopes at a moment; ``hours`` has a 1 for each scope that is counted per hour."""
    return _windows_in_hour(scopes, hours, now_ms // _HOUR_MS)


@lru_cache(maxsize=1024)
def _windows_in_hour(scopes: tuple[str, ...], hours: str, hour: int) -> Counted:
    moment = from_ms(hour * _HOUR_MS)
    plain, hourly = windows_at(moment, hourly=False), windows_at(moment, hourly=True)
    return tuple(
        (scope, window, of_window)
        for scope, per_hour in zip(scopes, hours, strict=True)
        for window, of_window in (hourly if per_hour == "1" else plain)
    )


@lru_cache(maxsize=1024)
def _scopes_of(names: str) -> tuple[str, ...]:
    return tuple(names.split("\n"))


def usages_of(windows: Counted, packed: str) -> tuple[WindowUsage, ...]:
    """Return counters as they are shown, from the five lines of each of their scopes.

    Args:
        windows: the counters, in the order of the lines.
        packed: each scope as the book has it; see ``redis_scripts/counters.lua``.

    Raises:
        StoreDamagedError: a line is not a counter, or not the limits of a scope.
    """
    lines = packed.split("\n")
    found: list[WindowUsage] = []
    first = -LINES_OF_SCOPE
    previous = None
    try:
        for scope, window, of_window in windows:
            if scope != previous:
                first += LINES_OF_SCOPE
                counters, limits = _scope(lines[first : first + LINES_OF_SCOPE])
                previous = scope
            found.append(usage(scope, window, of_window, counters[window], limits[window]))
    except (ValueError, KeyError) as error:
        raise damaged("a counter") from error
    return tuple(found)


def _scope(lines: Sequence[str]) -> tuple[dict[Window, Counter], dict[Window, Microcents | None]]:
    """Return the counters of a scope, zero where there is none, and its limits.

    Raises:
        ValueError: they cannot be read.
    """
    numbers, _, limits, hour, rests = lines
    spent, held, *outside = map(int, numbers.split(" "))
    others = list(map(int, rests.split(" ")))
    parts = [
        (spent, held, *others[:3]),
        (spent - outside[0], held - outside[1], *others[3:6]),
        (spent - outside[2], held - outside[3], *others[6:9]),
    ]
    if hour != "-":
        parts.append(tuple(map(int, hour.split(" ")[1:])))
    counters = {
        window: Counter(spent=spent, held=held, uncertain=uncertain, overage=overage, base=base)
        for window, (spent, held, uncertain, overage, base) in zip(WINDOWS, parts, strict=False)
    }
    return counters, _limits(limits)


class ShownUsage(Sequence[WindowUsage]):
    """Counters that are read when somebody looks at them: most callers of ``reserve`` only want the hold.

    It is a sequence of a fixed length, equal to the tuple that :func:`usages_of` returns for the same arguments.
    """

    __slots__ = ("_packed", "_read", "_windows")

    def __init__(self, windows: Counted, packed: str) -> None:
        self._windows = windows
        self._packed = packed
        self._read: tuple[WindowUsage, ...] | None = None

    def _all(self) -> tuple[WindowUsage, ...]:
        if self._read is None:
            self._read = usages_of(self._windows, self._packed)
        return self._read

    @overload
    def __getitem__(self, index: int) -> WindowUsage: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[WindowUsage, ...]: ...

    def __getitem__(self, index: int | slice) -> WindowUsage | tuple[WindowUsage, ...]:
        return self._all()[index]

    def __len__(self) -> int:
        return len(self._windows)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, tuple | ShownUsage):
            return self._all() == tuple(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._all())

    def __repr__(self) -> str:
        return repr(self._all())


def counters_of(scope: str, packed: str) -> dict[CounterKey, Counter]:
    """Return the counters of a scope that are in the book.

    Raises:
        StoreDamagedError: they cannot be read.
    """
    lines = packed.split("\n")
    try:
        counters, _ = _scope(lines)
    except ValueError as error:
        raise damaged(f"the counters of {scope!r}") from error
    latest = lines[1]
    ids: dict[Window, str] = {} if latest == "-" else {"total": "total"}
    if latest not in {"-", "total"}:
        ids |= {"month": latest[:7], "day": latest[:10]}
    if len(latest) == len("2026-11"):
        del ids["day"]
    if "hour" in counters:
        ids["hour"] = lines[3].partition(" ")[0]
    return {(scope, of_window): counters[window] for window, of_window in ids.items()}


def limits_of(scope: str, packed: str) -> list[Limit]:
    """Return the limits of a scope in the order of ``WINDOWS``.

    Raises:
        StoreDamagedError: they cannot be read.
    """
    try:
        amounts = _limits(packed)
    except ValueError as error:
        raise damaged(f"the limits of {scope!r}") from error
    return [
        Limit(scope=scope, window=window, amount=amount) for window, amount in amounts.items() if amount is not None
    ]


def counter_of(packed: str) -> Counter:
    """Return a counter.

    Raises:
        StoreDamagedError: it cannot be read.
    """
    try:
        spent, held, uncertain, overage, base = map(int, packed.split(" "))
    except ValueError as error:
        raise damaged("a counter") from error
    return Counter(spent=spent, held=held, uncertain=uncertain, overage=overage, base=base)


def entry_of(adjustment_id: str, packed: str) -> Adjustment:
    """Return an adjustment.

    Raises:
        StoreDamagedError: it cannot be read.
    """
    try:
        head, scope, amounts, reason = packed.split("\n", 3)
        kind, amount, created_ms = head.split(" ")
        words = amounts.split(" ")
        return Adjustment(
            adjustment_id=adjustment_id,
            kind=EntryKind(kind),
            scope=scope,
            amount=int(amount),
            amounts=tuple(zip(words[::2], map(int, words[1::2]), strict=True)),
            reason=reason,
            created_at=from_ms(int(created_ms)),
        )
    except ValueError as error:
        raise damaged(f"the adjustment {adjustment_id!r}") from error


def field_of(key: CounterKey) -> str:
    """Return the field of a counter: no name has a line feed in it."""
    return "\n".join(key)


def field_key(field: str) -> CounterKey:
    """Return whose counter a field is."""
    scope, _, of_window = field.partition("\n")
    return scope, of_window


def damaged(what: str) -> StoreDamagedError:
    """Return the error for a value that cannot be read."""
    return StoreDamagedError(
        f"{what} in the budget's Redis database is damaged; nothing was changed. Restore the database from a backup"
    )


@lru_cache(maxsize=4096)
def _limits(packed: str) -> dict[Window, Microcents | None]:
    amounts = [None if word == "-" else int(word) for word in packed.split(" ")] if packed else _NO_LIMITS
    return dict(zip(WINDOWS, amounts, strict=True))
