"""The budget contract: holds under ceilings.

A **scope** is a name inside a tenant (``run:42``, ``agent:writer``, ``tenant``). It is counted per **window**
(``total``, ``month``, ``day``, ``hour``; UTC) and has at most one limit in each. A **hold** takes an amount in every
window of every scope that it names, or in none. What may never happen:

1. When a hold is granted, ``spent + held <= limit`` in each of its windows. A hold is never shrunk to fit.
2. A hold past its lease counts as spent (state ``expired``: uncertain) until somebody corrects it. Expiry is a function
   of time: ``spent + held`` does not change by it, so the ceiling needs no sweeper.
3. A bill above its hold is charged in full; the difference is recorded as overage.
4. A hold belongs to the windows in which it was reserved, whenever it is settled.
5. Per scope and window: spent = base + settled + expired + adjustments. ``audit`` recomputes it.
6. Closed holds are kept for ``KEEP_CLOSED`` and then folded into the base; a verb on a folded id is
   ``UnknownHoldError`` and charges nothing.
7. Under an emergency stop of its tenant no ``reserve`` is granted, a repeat included. What is held is closed as ever.

Every verb is atomic, and one round trip to a server. Amounts are microcents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final, Literal, Protocol, TypeAlias

from app.money import Microcents
from app.stores.names import DEFAULT_TENANT

__all__ = [
    "KEEP_CLOSED",
    "MAX_DETAIL_BYTES",
    "MAX_LEASE",
    "MAX_PAGE",
    "MAX_SCOPES",
    "WINDOWS",
    "AuditFinding",
    "AuditReport",
    "BudgetStore",
    "Granted",
    "Hold",
    "HoldState",
    "Limit",
    "Refused",
    "ReserveResult",
    "Stopped",
    "Window",
    "WindowUsage",
]

Window = Literal["total", "month", "day", "hour"]
WINDOWS: Final[tuple[Window, ...]] = ("total", "month", "day", "hour")

KEEP_CLOSED: Final = timedelta(days=7)
"""How long a settled, released or expired hold can still be looked at and corrected."""

MAX_SCOPES: Final = 16
"""How many scopes one hold may name; it bounds the work of one atomic step."""

MAX_LEASE: Final = timedelta(hours=24)
MAX_PAGE: Final = 1_000

MAX_DETAIL_BYTES: Final = 8 * 1024
"""How much UTF-8 may be noted about a hold or an adjustment."""


class HoldState(StrEnum):
    """``held -> settled | released | expired``; ``expired -> settled | released``; settled and released are final."""

    HELD = "held"
    SETTLED = "settled"
    RELEASED = "released"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The ceiling of one scope in one window."""

    scope: str
    window: Window
    amount: Microcents


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowUsage:
    """What one scope has used in one window.

    Attributes:
        window_id: ``total``, ``2026-11``, ``2026-11-24`` or ``2026-11-24T10`` (UTC).
        spent: settled, expired and adjusted, the base included.
        held: granted and neither closed nor past its lease.
        uncertain: the part of ``spent`` that comes from expired holds which nobody corrected yet.
        overage: the sum by which bills of this window were above their holds; it is included in ``spent``.
        limit: None where the window has no limit.
        resets_at: when the next window begins; None for ``total``.
    """

    scope: str
    window: Window
    window_id: str
    spent: Microcents
    held: Microcents
    uncertain: Microcents
    overage: Microcents
    limit: Microcents | None
    resets_at: datetime | None

    @property
    def remaining(self) -> Microcents | None:
        """What a hold may still take: never negative, None where there is no limit."""
        return None if self.limit is None else max(0, self.limit - self.spent - self.held)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """One hold, as it was when the verb that returned it took effect.

    Attributes:
        amount: what was reserved.
        charged: what counts as spent for it now: the bill if settled, ``amount`` if expired, else 0.
        scopes: as given to ``reserve``, sorted.
        windows: ``(scope, window, window_id)`` of each counter that it belongs to.
        expires_at: the end of its lease.
        closed_at: when it left ``held``; for a lease that ran out, the end of the lease.
        detail: what the caller noted about it when it closed, such as a partial usage; None where nothing was.
    """

    hold_id: str
    tenant_id: str
    amount: Microcents
    scopes: tuple[str, ...]
    state: HoldState
    charged: Microcents
    windows: tuple[tuple[str, Window, str], ...]
    created_at: datetime
    expires_at: datetime
    closed_at: datetime | None = None
    detail: str | None = None

    @property
    def permits_call(self) -> bool:
        """Whether a call may be made on it: only while it is held."""
        return self.state is HoldState.HELD


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """The hold stands in all of its scopes; ``windows`` shows each counter right after it was taken."""

    hold: Hold
    windows: Sequence[WindowUsage]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Nothing was taken. ``blocking`` are the windows in which the amount did not fit, never empty."""

    requested: Microcents
    blocking: tuple[WindowUsage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """An emergency stop: nothing is granted until somebody lifts it."""

    since: datetime
    reason: str


ReserveResult: TypeAlias = Granted | Refused | Stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFinding:
    """One counter that does not equal what its entries say."""

    scope: str
    window: Window
    window_id: str
    counter: Literal["spent", "held"]
    recorded: Microcents
    recomputed: Microcents


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What ``audit`` found; ``findings`` is empty where every counter equals the sum of its entries."""

    counters_checked: int
    holds_checked: int
    findings: tuple[AuditFinding, ...]

    @property
    def clean(self) -> bool:
        """Whether every counter was right."""
        return not self.findings


class BudgetStore(Protocol):
    """Keeps ceilings. Safe for concurrent use by tasks, processes and machines that share its backend.

    Raises, from every verb:
        InvalidInputError: a name, amount, window or duration outside what the verb takes; nothing was changed.
        BudgetStoreUnavailableError: the backend did not answer; a repeat with the same ids is safe.
        StoreDamagedError: the backend holds something that is not Nova's, or a newer Nova's.
    """

    async def reserve(
        self,
        hold_id: str,
        amount: Microcents,
        scopes: Sequence[str],
        *,
        lease: timedelta,
        tenant_id: str = DEFAULT_TENANT,
    ) -> ReserveResult:
        """Take a hold in every named scope, or in none.

        A known ``hold_id`` with the same amount and the same set of scopes gives the hold as it is, in whatever state
        (see :attr:`Hold.permits_call`), and takes nothing more; its lease is not prolonged.

        Args:
            hold_id: unique per tenant.
            amount: at least 0; an upper bound of what the call can cost.
            scopes: 1 to ``MAX_SCOPES`` different names; the order does not matter.
            lease: how long the hold stays held if nobody closes it; positive, at most ``MAX_LEASE``.
            tenant_id: the tenant that pays.

        Returns:
            ``Granted``; ``Refused`` with every window that was in the way; or ``Stopped`` while the tenant is stopped.

        Raises:
            HoldConflictError: the id is known with another amount or other scopes.
        """
        ...

    async def settle(
        self,
        hold_id: str,
        actual: Microcents,
        *,
        correction: bool = False,
        detail: str | None = None,
        tenant_id: str = DEFAULT_TENANT,
    ) -> Hold:
        """Replace the hold by the bill, in the windows in which it was reserved, and charge it in full.

        Settling an expired hold corrects its charge, up or down. The same bill again is a no-op.

        Args:
            hold_id: the hold.
            actual: the bill, at least 0.
            correction: the bill comes from somebody else than the one who made the call, who may still be waiting for
                it: a hold that is ``held`` is then refused, and only an expired one is settled.
            detail: a note, kept with the hold.
            tenant_id: the tenant that pays.

        Raises:
            HoldConflictError: it is settled with another bill, or released; or held, for a correction.
            UnknownHoldError: there is no such hold, or it was folded; nothing was charged.
        """
        ...

    async def release(self, hold_id: str, *, detail: str | None = None, tenant_id: str = DEFAULT_TENANT) -> Hold:
        """Drop the hold without a charge: only for a call that provably was not billed. Again is a no-op.

        Raises:
            HoldConflictError: it is settled.
            UnknownHoldError: there is no such hold, or it was folded.
        """
        ...

    async def expire(self, hold_id: str, *, detail: str | None = None, tenant_id: str = DEFAULT_TENANT) -> Hold:
        """Charge the hold in full as uncertain, now, as the end of its lease would. Again is a no-op.

        For a call whose outcome is unknown: a timeout or reset after sending, a stream cut before its usage.

        Raises:
            HoldConflictError: it is settled or released.
            UnknownHoldError: there is no such hold, or it was folded.
        """
        ...

    async def set_limit(
        self,
        scope: str,
        limit: Microcents | None,
        *,
        window: Window = "total",
        tenant_id: str = DEFAULT_TENANT,
    ) -> None:
        """Set the ceiling of a scope in a window, or remove it (None). It may be below what is spent already.

        ``total``, ``month`` and ``day`` count from the first hold of the scope, whether limited or not; ``hour`` counts
        from when it is limited.
        """
        ...

    async def limits(self, *, scope: str | None = None, tenant_id: str = DEFAULT_TENANT) -> tuple[Limit, ...]:
        """Return the limits of a scope, or of all scopes, sorted by scope and then in the order of ``WINDOWS``."""
        ...

    async def usage(self, scope: str, *, tenant_id: str = DEFAULT_TENANT) -> tuple[WindowUsage, ...]:
        """Return the current windows of a scope in the order of ``WINDOWS``: three, and ``hour`` where it is limited.

        A scope that was never used reads as zero in each.
        """
        ...

    async def scopes(self, *, tenant_id: str = DEFAULT_TENANT) -> tuple[str, ...]:
        """Return the scopes that have a limit or a counter, sorted."""
        ...

    async def hold(self, hold_id: str, *, tenant_id: str = DEFAULT_TENANT) -> Hold:
        """Return one hold.

        Raises:
            UnknownHoldError: there is no such hold, or it was folded.
        """
        ...

    async def holds(
        self,
        *,
        scope: str | None = None,
        state: HoldState | None = None,
        after: str | None = None,
        limit: int = 100,
        tenant_id: str = DEFAULT_TENANT,
    ) -> tuple[Hold, ...]:
        """Return a page of 1 to ``MAX_PAGE`` holds, sorted by id; ``after`` is the last id of the page before."""
        ...

    async def adjust(
        self,
        adjustment_id: str,
        scope: str,
        amount: Microcents,
        *,
        reason: str = "",
        tenant_id: str = DEFAULT_TENANT,
    ) -> bool:
        """Add ``amount`` (it may be negative, to no less than zero spent) to a scope's current windows, once per id.

        Returns:
            True if it was added now, False if this id was added before with the same scope and amount.

        Raises:
            HoldConflictError: the id was used with another scope or amount.
            InvalidInputError: spent would become negative in a window.
        """
        ...

    async def audit(self, *, tenant_id: str = DEFAULT_TENANT) -> AuditReport:
        """Recompute every counter of the tenant from its entries, at one moment, and report what differs."""
        ...

    async def repair(self, *, tenant_id: str = DEFAULT_TENANT) -> AuditReport:
        """Audit, and set each counter that differs to what its entries say, and nothing else.

        What differs is corrected by its difference, so that a verb of somebody else meanwhile is not lost.

        Returns:
            The report of what was found and repaired; repairing again finds nothing.
        """
        ...

    async def stop(self, *, reason: str = "", tenant_id: str | None = DEFAULT_TENANT) -> Stopped:
        """Stop a tenant: no ``reserve`` that begins after this is granted, until ``go``.

        A stop that is in force stays as it is. None stops all tenants: ``reserve`` does not look at that stop, whoever
        makes calls asks for it (:class:`app.stores.budget.stop.GlobalStop`).

        Returns:
            The stop that is in force now.
        """
        ...

    async def go(self, *, tenant_id: str | None = DEFAULT_TENANT) -> None:
        """Lift the stop of a tenant, or that of all tenants (None); without one nothing happens."""
        ...

    async def stopped(self, *, tenant_id: str | None = DEFAULT_TENANT) -> Stopped | None:
        """Return the stop of a tenant, or that of all tenants (None); None where there is none."""
        ...

    # The plain verbs, for programs that count a workflow's cost themselves. A run's scope is ``run:<run_id>``.

    async def get_workflow_cost(self, run_id: str, *, tenant_id: str = DEFAULT_TENANT) -> Decimal:
        """Return what the run has spent in all, in cents, exactly."""
        ...

    async def add_workflow_cost(
        self, run_id: str, cost_cents: Decimal | float, *, tenant_id: str = DEFAULT_TENANT
    ) -> Decimal:
        """Add a cost in cents (rounded up to a microcent) and return the new total in cents. Not idempotent."""
        ...

    async def add_workflow_cost_if_below(
        self,
        run_id: str,
        cost_cents: Decimal | float,
        ceiling: Decimal | float,
        *,
        tenant_id: str = DEFAULT_TENANT,
    ) -> bool:
        """Add a cost if the total, what is held included, stays at or below ``ceiling`` (both in cents)."""
        ...

    async def reset_workflow_cost(self, run_id: str, *, tenant_id: str = DEFAULT_TENANT) -> None:
        """Set what the run has spent to zero in each of its current windows, by one entry; open holds stay open."""
        ...

    async def close(self) -> None:
        """Let go of files and connections. A later verb opens them again."""
        ...
