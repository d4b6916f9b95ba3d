"""What the budget's scripts answer, as values: lines of text, in the order that each script's header says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final, overload

from app.errors import StoreDamagedError
from app.money import Microcents
from app.stores.budget.contract import WINDOWS, Hold, HoldState, Limit, Window, WindowUsage
from app.stores.budget.ledger import Adjustment, CounterKey, EntryKind
from app.stores.budget.rules import Counter
from app.stores.budget.windows import ends_at, windows_at
from app.stores.clock import from_ms

__all__ = [
    "ShownUsage",
    "counter_of",
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
_NO_LIMITS: Final = (None, None, None, None)
_NOTHING: Final = Counter()


def hold_of(tenant_id: str, hold_id: str, packed: str) -> Hold:
    """Return a hold as it is written down.

    Raises:
        StoreDamagedError: it cannot be read.
    """
    try:
        head, rest = packed.split("\n", 1)
        state, amount, charged, created_ms, expires_ms, closed_ms, hours = head.split(" ")
        names, noted, note = rest.partition("\n\n")
        scopes = tuple(names.split("\n"))
        created_at = from_ms(int(created_ms))
        return Hold(
            hold_id=hold_id,
            tenant_id=tenant_id,
            amount=int(amount),
            scopes=scopes,
            state=_STATES[state],
            charged=int(charged),
            windows=windows_of(scopes, hours, created_at),
            created_at=created_at,
            expires_at=from_ms(int(expires_ms)),
            closed_at=None if closed_ms == "0" else from_ms(int(closed_ms)),
            detail=note if noted else None,
        )
    except (ValueError, KeyError) as error:
        raise damaged(f"the hold {hold_id!r}") from error


def windows_of(scopes: Sequence[str], hours: str, moment: datetime) -> tuple[tuple[str, Window, str], ...]:
    """Return the counters of some scopes at a moment; ``hours`` has a 1 for each scope that is counted per hour."""
    return _windows_in_hour(tuple(scopes), hours, moment.replace(minute=0, second=0, microsecond=0))


@lru_cache(maxsize=1024)
def _windows_in_hour(scopes: tuple[str, ...], hours: str, hour: datetime) -> tuple[tuple[str, Window, str], ...]:
    plain, hourly = windows_at(hour, hourly=False), windows_at(hour, hourly=True)
    return tuple(
        (scope, window, of_window)
        for scope, per_hour in zip(scopes, hours, strict=True)
        for window, of_window in (hourly if per_hour == "1" else plain)
    )


def usages_of(
    windows: Iterable[tuple[str, Window, str]], lines: Sequence[str], *, taken: Microcents = 0
) -> tuple[WindowUsage, ...]:
    """Return counters as they are shown, from the lines behind a scope's limits, scope by scope.

    Args:
        windows: the counters, in the order of the lines.
        lines: for each scope its limits, and then each of its counters.
        taken: what was held beside what the lines say: they are from before a hold was taken.

    Raises:
        StoreDamagedError: a line is not a counter, or not the limits of a scope.
    """
    found: list[WindowUsage] = []
    limits: dict[Window, Microcents | None] = {}
    following = iter(lines)
    previous = None
    try:
        for scope, window, of_window in windows:
            if scope != previous:
                limits = _limits(next(following))
                previous = scope
            line = next(following)
            # The same as rules.usage: every grant does this for each of a dozen counters.
            spent, held, uncertain, overage, _ = map(int, line.split(" ")) if line else (0, 0, 0, 0, 0)
            found.append(
                WindowUsage(
                    scope=scope,
                    window=window,
                    window_id=of_window,
                    spent=spent,
                    held=held + taken,
                    uncertain=uncertain if uncertain < spent else spent,  # noqa: FURB136 - min() takes three times as long
                    overage=overage if overage < spent else spent,  # noqa: FURB136
                    limit=limits[window],
                    resets_at=ends_at(of_window),
                )
            )
    except (ValueError, StopIteration) as error:
        raise damaged("a counter") from error
    return tuple(found)


class ShownUsage(Sequence[WindowUsage]):
    """Counters that are read when somebody looks at them: most callers of ``reserve`` only want the hold.

    It is a sequence of a fixed length, equal to the tuple that :func:`usages_of` returns for the same arguments.
    """

    __slots__ = ("_lines", "_read", "_taken", "_windows")

    def __init__(
        self, windows: tuple[tuple[str, Window, str], ...], lines: Sequence[str], *, taken: Microcents
    ) -> None:
        self._windows = windows
        self._lines = lines
        self._taken = taken
        self._read: tuple[WindowUsage, ...] | None = None

    def _all(self) -> tuple[WindowUsage, ...]:
        if self._read is None:
            self._read = usages_of(self._windows, self._lines, taken=self._taken)
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
    if not packed:
        return _NOTHING
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
