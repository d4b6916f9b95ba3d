"""Adjustments as entries of the ledger, and the audit that recomputes every counter from its entries."""

from __future__ import annotations

from collections import Counter as Sums
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Literal
from uuid import uuid4

from app.errors import HoldConflictError, InvalidInputError
from app.money import Microcents, format_usd
from app.stores.budget.contract import AuditFinding, AuditReport, Hold, HoldState, WindowUsage
from app.stores.budget.rules import NO_CHANGE, Change, Counter
from app.stores.budget.windows import is_kept, kind_of

__all__ = ["Adjustment", "EntryKind", "audit", "check_applies", "check_known", "named", "repairs", "unnamed"]

CounterKey = tuple[str, str]
"""Scope and window id, within a tenant."""


class EntryKind(StrEnum):
    """Who made an adjustment: a caller under an id of its own, or a verb under one that was made up for it."""

    NAMED = "named"
    COST = "cost"
    RESET = "reset"
    FLOOR = "floor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """One entry. ``amount`` is what the caller said; ``amounts`` is what was added, by window id."""

    adjustment_id: str
    kind: EntryKind
    scope: str
    amount: Microcents
    amounts: tuple[tuple[str, Microcents], ...]
    reason: str
    created_at: datetime


def named(
    adjustment_id: str, scope: str, amount: Microcents, windows: Iterable[WindowUsage], *, reason: str, now: datetime
) -> Adjustment:
    """Return a caller's entry in each of a scope's current windows."""
    return Adjustment(
        adjustment_id=adjustment_id,
        kind=EntryKind.NAMED,
        scope=scope,
        amount=amount,
        amounts=tuple((window.window_id, amount) for window in windows),
        reason=reason,
        created_at=now,
    )


def unnamed(
    kind: Literal[EntryKind.COST, EntryKind.RESET, EntryKind.FLOOR],
    scope: str,
    amounts: Iterable[tuple[str, Microcents]],
    *,
    reason: str,
    now: datetime,
) -> Adjustment:
    """Return a verb's entry; its amount is that of ``total``, or of the first window where ``total`` is not named."""
    by_window = tuple(amounts)
    return Adjustment(
        adjustment_id=uuid4().hex,
        kind=kind,
        scope=scope,
        amount=dict(by_window).get("total", by_window[0][1]),
        amounts=by_window,
        reason=reason,
        created_at=now,
    )


def check_known(entry: Adjustment, scope: str, amount: Microcents) -> None:
    """Refuse an id that was used for something else.

    Raises:
        HoldConflictError: the scope or the amount differs.
    """
    if (entry.scope, entry.amount) != (scope, amount):
        raise HoldConflictError(
            f"the adjustment {entry.adjustment_id!r} is known with {format_usd(entry.amount)} in {entry.scope}; "
            "an id stands for one adjustment: use a new one",
            hold_id=entry.adjustment_id,
        )


def check_applies(windows: Iterable[WindowUsage], amount: Microcents) -> None:
    """Refuse an adjustment below zero spent.

    Raises:
        InvalidInputError: names the scope, the window and what is spent.
    """
    for window in windows:
        if window.spent + amount < 0:
            raise InvalidInputError(
                f"{format_usd(amount)} would make spent negative: {window.scope!r} has {format_usd(window.spent)} in "
                f"{window.window_id}; nothing was changed"
            )


def audit(
    counters: Mapping[CounterKey, Counter], holds: Iterable[Hold], entries: Iterable[Adjustment], *, now: datetime
) -> AuditReport:
    """Recompute ``spent`` and ``held`` of every counter of a tenant from what is kept, as it is kept.

    Entries of windows that are past their keeping are left out: their counters are gone, or about to be.
    """
    spent: Sums[CounterKey] = Sums()
    held: Sums[CounterKey] = Sums()
    holds_checked = 0
    for hold in holds:
        holds_checked += 1
        sums, amount = (held, hold.amount) if hold.state is HoldState.HELD else (spent, hold.charged)
        for scope, _, of_window in hold.windows:
            sums[scope, of_window] += amount
    for entry in entries:
        for of_window, amount in entry.amounts:
            spent[entry.scope, of_window] += amount
    keys = sorted(key for key in {*counters, *spent, *held} if key in counters or is_kept(key[1], now))
    findings: list[AuditFinding] = []
    for key in keys:
        counter = counters.get(key, Counter())
        findings += _differences(key, counter, spent=counter.base + spent[key], held=held[key])
    return AuditReport(counters_checked=len(keys), holds_checked=holds_checked, findings=tuple(findings))


def repairs(report: AuditReport) -> dict[CounterKey, Change]:
    """Return what is to be added to each counter that differs from its entries."""
    changes: dict[CounterKey, Change] = {}
    for finding in report.findings:
        key = (finding.scope, finding.window_id)
        missing = finding.recomputed - finding.recorded
        before = changes.get(key, NO_CHANGE)
        if finding.counter == "spent":
            changes[key] = replace(before, spent=missing)
        else:
            changes[key] = replace(before, held=missing)
    return changes


def _differences(key: CounterKey, counter: Counter, *, spent: Microcents, held: Microcents) -> list[AuditFinding]:
    compared: tuple[tuple[Literal["spent", "held"], Microcents, Microcents], ...] = (
        ("spent", counter.spent, spent),
        ("held", counter.held, held),
    )
    return [
        AuditFinding(
            scope=key[0],
            window=kind_of(key[1]),
            window_id=key[1],
            counter=name,
            recorded=recorded,
            recomputed=recomputed,
        )
        for name, recorded, recomputed in compared
        if recorded != recomputed
    ]
