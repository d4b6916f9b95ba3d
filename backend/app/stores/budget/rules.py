"""The rules of holds as pure functions, the same for every backend: what fits, and what each verb changes.

A transition takes a hold as it is now and returns it as it will be, with the change of each counter that it belongs to.
A backend only finds rows, asks here, and writes what it is told, all in one atomic step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.errors import HoldConflictError, InvalidInputError, UnknownHoldError
from app.money import MAX_MICROCENTS, Microcents, format_usd
from app.stores.budget.contract import KEEP_CLOSED, Hold, HoldState, Window, WindowUsage
from app.stores.budget.windows import ends_at, windows_at

__all__ = [
    "NO_CHANGE",
    "Change",
    "Counter",
    "Transition",
    "as_of",
    "blocking",
    "check_repeat",
    "check_room",
    "expired",
    "floor",
    "is_due",
    "is_folded",
    "known",
    "new_hold",
    "released",
    "reserved",
    "settled",
    "taken",
    "usage",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """What a backend keeps of one scope in one window; ``base`` is the part of ``spent`` whose entries were folded."""

    spent: Microcents = 0
    held: Microcents = 0
    uncertain: Microcents = 0
    overage: Microcents = 0
    base: Microcents = 0

    def plus(self, change: Change) -> Counter:
        """Return the counter after a change."""
        return Counter(
            spent=self.spent + change.spent,
            held=self.held + change.held,
            uncertain=self.uncertain + change.uncertain,
            overage=self.overage + change.overage,
            base=self.base + change.base,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is added to every counter of a hold; each part may be negative."""

    spent: Microcents = 0
    held: Microcents = 0
    uncertain: Microcents = 0
    overage: Microcents = 0
    base: Microcents = 0


NO_CHANGE = Change()
Transition = Callable[[Hold, datetime], tuple[Hold, Change]]


# --- reserving ----------------------------------------------------------------------------------------------------


def new_hold(
    tenant_id: str,
    hold_id: str,
    amount: Microcents,
    scopes: tuple[str, ...],
    *,
    hourly: Iterable[str],
    lease: timedelta,
    now: datetime,
) -> Hold:
    """Return a hold that begins now; ``hourly`` are the scopes that have a limit per hour."""
    with_hour = frozenset(hourly)
    return Hold(
        hold_id=hold_id,
        tenant_id=tenant_id,
        amount=amount,
        scopes=scopes,
        state=HoldState.HELD,
        charged=0,
        windows=tuple(
            (scope, window, of_window)
            for scope in scopes
            for window, of_window in windows_at(now, hourly=scope in with_hour)
        ),
        created_at=now,
        expires_at=now + lease,
    )


def reserved(hold: Hold) -> Change:
    """Return what taking a hold changes."""
    return Change(held=hold.amount)


def check_repeat(hold: Hold, amount: Microcents, scopes: tuple[str, ...]) -> None:
    """Refuse a known id that is used for something else.

    Raises:
        HoldConflictError: the amount or the set of scopes differs.
    """
    if (hold.amount, hold.scopes) != (amount, scopes):
        raise HoldConflictError(
            f"the hold {hold.hold_id!r} is known with {format_usd(hold.amount)} in {', '.join(hold.scopes)}; "
            "a hold id stands for one call: use a new one",
            hold_id=hold.hold_id,
        )


def taken(window: WindowUsage, amount: Microcents) -> WindowUsage:
    """Return a counter as it is shown right after a hold was taken in it."""
    # dataclasses.replace takes ten times as long, and every grant does this for every counter.
    return WindowUsage(
        scope=window.scope,
        window=window.window,
        window_id=window.window_id,
        spent=window.spent,
        held=window.held + amount,
        uncertain=window.uncertain,
        overage=window.overage,
        limit=window.limit,
        resets_at=window.resets_at,
    )


def blocking(windows: Iterable[WindowUsage], amount: Microcents) -> tuple[WindowUsage, ...]:
    """Return the windows in which ``amount`` does not fit."""
    # Written so that no sum is formed: beside 2**53 a backend that counts in doubles would round it.
    return tuple(w for w in windows if w.limit is not None and amount > w.limit - w.spent - w.held)


def check_room(windows: Iterable[WindowUsage], amount: Microcents) -> None:
    """Refuse what would take a counter beyond the largest amount that every backend keeps exactly.

    Raises:
        InvalidInputError: it would; names the scope.
    """
    for window in windows:
        if amount > MAX_MICROCENTS - window.spent - window.held:
            raise InvalidInputError(
                f"{format_usd(amount)} more would take the scope {window.scope!r} beyond {format_usd(MAX_MICROCENTS)}, "
                "above which amounts are not exact; nothing was changed. Use another scope, or reset this one"
            )


# --- closing ------------------------------------------------------------------------------------------------------


def is_due(hold: Hold, now: datetime) -> bool:
    """Whether the hold is past its lease and still kept as held."""
    return hold.state is HoldState.HELD and hold.expires_at <= now


def as_of(hold: Hold, now: datetime) -> Hold:
    """Return the hold as it counts now: one past its lease is expired, whether or not anybody wrote that down."""
    if not is_due(hold, now):
        return hold
    return replace(hold, state=HoldState.EXPIRED, charged=hold.amount, closed_at=hold.expires_at)


def is_folded(hold: Hold, now: datetime) -> bool:
    """Whether the hold has been closed for so long that no verb knows it any more, removed already or not."""
    closed_at = as_of(hold, now).closed_at
    return closed_at is not None and closed_at + KEEP_CLOSED <= now


def known(hold: Hold | None, hold_id: str, now: datetime) -> Hold:
    """Return the hold as it counts now.

    Raises:
        UnknownHoldError: there is none, or it was folded.
    """
    if hold is None or is_folded(hold, now):
        raise UnknownHoldError(
            f"there is no hold {hold_id!r}: it never was, or it was closed more than {KEEP_CLOSED.days} days ago. "
            "Nothing was charged; `nova budget holds` lists what there is",
            hold_id=hold_id,
        )
    return as_of(hold, now)


def settled(
    hold: Hold, actual: Microcents, *, correction: bool, detail: str | None, now: datetime
) -> tuple[Hold, Change]:
    """Return the hold replaced by its bill.

    Raises:
        HoldConflictError: it is settled with another bill, or released; or held, for a correction.
    """
    if correction and hold.state is HoldState.HELD:
        # The bill that the call itself brings would find the hold settled, and be lost.
        raise HoldConflictError(
            f"the hold {hold.hold_id!r} is held: its call may still be under way, and would bring its own bill. It can "
            f"be corrected when its run was resumed, or after {hold.expires_at:%Y-%m-%d %H:%M:%S} UTC",
            hold_id=hold.hold_id,
        )
    if hold.state is HoldState.SETTLED and hold.charged == actual:
        return hold, NO_CHANGE
    _refuse_final(hold, "settled")
    after = _closed(hold, HoldState.SETTLED, charged=actual, detail=detail, now=now)
    return after, _reverted(hold, spent=actual, overage=max(0, actual - hold.amount))


def released(hold: Hold, *, detail: str | None, now: datetime) -> tuple[Hold, Change]:
    """Return the hold dropped without a charge.

    Raises:
        HoldConflictError: it is settled.
    """
    if hold.state is HoldState.RELEASED:
        return hold, NO_CHANGE
    _refuse_final(hold, "released")
    return _closed(hold, HoldState.RELEASED, charged=0, detail=detail, now=now), _reverted(hold)


def expired(hold: Hold, *, detail: str | None, now: datetime) -> tuple[Hold, Change]:
    """Return the hold charged in full as uncertain.

    A hold that is expired already keeps its first note: the end of a lease leaves none, so one may still be added.

    Raises:
        HoldConflictError: it is settled or released.
    """
    if hold.state is HoldState.EXPIRED:
        return replace(hold, detail=detail if hold.detail is None else hold.detail), NO_CHANGE
    _refuse_final(hold, "expired")
    after = _closed(hold, HoldState.EXPIRED, charged=hold.amount, detail=detail, now=now)
    return after, _reverted(hold, spent=hold.amount, uncertain=hold.amount)


def floor(counter: Counter, change: Change) -> Microcents:
    """Return what must be added with a correction so that ``spent`` does not become negative.

    That happens where an uncertain charge was forgiven by an adjustment before it was corrected downwards: without this
    the correction would be granted a second time, as room above the limit.
    """
    return max(0, -(counter.spent + change.spent)) if change.spent < 0 else 0


def _refuse_final(hold: Hold, verb: str) -> None:
    if hold.state is HoldState.SETTLED or hold.state is HoldState.RELEASED:
        bill = f" with {format_usd(hold.charged)}" if hold.state is HoldState.SETTLED else ""
        raise HoldConflictError(
            f"the hold {hold.hold_id!r} is {hold.state}{bill}, which is final; it cannot be {verb}",
            hold_id=hold.hold_id,
        )


def _closed(hold: Hold, state: HoldState, *, charged: Microcents, detail: str | None, now: datetime) -> Hold:
    # dataclasses.replace takes twice as long, and every call ends here. A correction keeps the moment at which the hold
    # left `held`: it is what its seven days count from.
    return Hold(
        hold_id=hold.hold_id,
        tenant_id=hold.tenant_id,
        amount=hold.amount,
        scopes=hold.scopes,
        state=state,
        charged=charged,
        windows=hold.windows,
        created_at=hold.created_at,
        expires_at=hold.expires_at,
        closed_at=hold.closed_at or now,
        detail=hold.detail if detail is None else detail,
    )


def _reverted(hold: Hold, *, spent: Microcents = 0, uncertain: Microcents = 0, overage: Microcents = 0) -> Change:
    """Return the change that takes back what an open or expired hold counts for, and adds what it counts for now."""
    if hold.state is HoldState.HELD:
        return Change(held=-hold.amount, spent=spent, uncertain=uncertain, overage=overage)
    return Change(spent=spent - hold.amount, uncertain=uncertain - hold.amount, overage=overage)


# --- reading ------------------------------------------------------------------------------------------------------


def usage(scope: str, window: Window, of_window: str, counter: Counter, limit: Microcents | None) -> WindowUsage:
    """Return a counter as it is shown. ``uncertain`` and ``overage`` are parts of ``spent``, never above it."""
    return WindowUsage(
        scope=scope,
        window=window,
        window_id=of_window,
        spent=counter.spent,
        held=counter.held,
        uncertain=min(counter.uncertain, counter.spent),
        overage=min(counter.overage, counter.spent),
        limit=limit,
        resets_at=ends_at(of_window),
    )
