"""The ledger as metrics: what the budget store says is spent, held and allowed, read at each scrape.

Counters live in processes and die with them, and Prometheus sees no increase in a series that is born above zero. What
is spent is known by the store alone; these gauges are its figures, for dashboards, alerts, and for telling how far the
counters have drifted from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from app.errors import NovaError
from app.money import Microcents, microcents_to_cents
from app.stores.names import DEFAULT_TENANT

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from app.stores.archive.ledger import ArchiveLedger
    from app.stores.budget.contract import BudgetStore, WindowUsage

__all__ = [
    "MAX_SCOPES",
    "LedgerCollector",
    "LedgerReading",
    "OffloadCollector",
    "OffloadReading",
    "read_ledger",
    "read_offload",
]

MAX_SCOPES: Final = 50
"""How many scopes become labels at most: their names are made up by users, and each is a time series for ever."""

JOBS_READ: Final = 50
"""How many of the latest jobs on the archive are looked through for the last offload that succeeded."""

ALL_SPENDING: Final = "tenant"
"""The scope that every call names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerReading:
    """What the store said. ``left_out`` counts the scopes with a limit that got no label: there are too many."""

    usage: tuple[WindowUsage, ...]
    left_out: int


async def read_ledger(
    store: BudgetStore, *, scopes: Sequence[str] | None = None, tenant_id: str = DEFAULT_TENANT
) -> LedgerReading:
    """Read the windows of the scopes that become labels.

    Args:
        store: the budget store.
        scopes: which; None is ``tenant``, and whatever has a limit and is not a single run.
        tenant_id: whose.
    """
    wanted = list(dict.fromkeys((ALL_SPENDING, *(scopes or ()))))
    left_out = 0
    if scopes is None:
        limits = await store.limits(tenant_id=tenant_id)
        limited = dict.fromkeys(limit.scope for limit in limits if not limit.scope.startswith("run:"))
        others = [scope for scope in limited if scope != ALL_SPENDING]
        left_out = max(0, len(others) - (MAX_SCOPES - 1))
        wanted += others[: MAX_SCOPES - 1]
    usage: list[WindowUsage] = []
    for scope in wanted:
        usage += await store.usage(scope, tenant_id=tenant_id)
    return LedgerReading(usage=tuple(usage), left_out=left_out)


class LedgerCollector:
    """A collector for a Prometheus registry that reads the ledger at each scrape.

    A ledger that cannot be read is no ledger of zero: its gauges are left out, and ``nova_ledger_up`` is 0.

    Args:
        read: reads the ledger and blocks for as long as that takes; it is called by the thread of the scrape.
    """

    def __init__(self, read: Callable[[], LedgerReading]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Return nothing: a registry that is given none does not read the ledger when it registers this collector."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return the gauges."""
        from prometheus_client.core import GaugeMetricFamily

        up = GaugeMetricFamily("nova_ledger_up", "Whether the budget store could be read at this scrape.")
        try:
            reading = self._read()
        except (NovaError, OSError, TimeoutError):
            up.add_metric((), 0)
            return [up]
        up.add_metric((), 1)
        left_out = GaugeMetricFamily("nova_ledger_scopes_left_out", "Scopes with a limit and without a series.")
        left_out.add_metric((), reading.left_out)
        labels = ("scope", "window")
        families = {
            "spent": GaugeMetricFamily(
                "nova_ledger_spend_cents", "What counts as spent, uncertain included.", labels=labels
            ),
            "held": GaugeMetricFamily("nova_ledger_held_cents", "What calls under way may cost.", labels=labels),
            "uncertain": GaugeMetricFamily("nova_ledger_uncertain_cents", "Spent, without a bill.", labels=labels),
            "overage": GaugeMetricFamily("nova_ledger_overage_cents", "Spent above holds.", labels=labels),
            "limit": GaugeMetricFamily("nova_budget_limit_cents", "The ceiling.", labels=labels),
        }
        for usage in reading.usage:
            for name, family in families.items():
                amount: Microcents | None = getattr(usage, name)
                if amount is not None:
                    family.add_metric((usage.scope, usage.window), float(microcents_to_cents(amount)))
        return [up, left_out, *families.values()]


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadReading:
    """What the offload of old runs left behind.

    Attributes:
        last_success_s: when a job last did its work, in seconds since 1970; None where none ever did.
        unverified: objects and runs that the last job found to be not what they should be.
    """

    last_success_s: float | None
    unverified: int


async def read_offload(ledger: ArchiveLedger) -> OffloadReading:
    """Read how the latest offloads ended: a success is one that did its work, even if not all of it."""
    ended = [job for job in await ledger.jobs(limit=JOBS_READ) if job.verb == "offload" and job.ended_ms is not None]
    succeeded = [
        job.ended_ms / 1000 for job in ended if job.outcome in {"done", "partial"} and job.ended_ms is not None
    ]
    report = ended[0].report or {} if ended else {}
    found = (report.get(name) for name in ("verify_failures", "corrupt_runs", "lost_runs"))
    unverified = sum(
        each if isinstance(each, int) else len(each) for each in found if isinstance(each, int | list | tuple)
    )
    return OffloadReading(last_success_s=max(succeeded, default=None), unverified=unverified)


class OffloadCollector:
    """The offload as gauges; one that cannot be read is left out, so that its alert on absence fires.

    Args:
        read: as for :class:`LedgerCollector`; None where there is no archive.
    """

    def __init__(self, read: Callable[[], OffloadReading | None]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Return nothing, as :meth:`LedgerCollector.describe`."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Return the gauges."""
        from prometheus_client.core import GaugeMetricFamily

        try:
            reading = self._read()
        except (NovaError, OSError, TimeoutError):
            reading = None
        if reading is None:
            return []
        unverified = GaugeMetricFamily("nova_offload_unverified", "What the last offload found not to be as it should.")
        unverified.add_metric((), reading.unverified)
        if reading.last_success_s is None:
            return [unverified]
        last = GaugeMetricFamily("nova_offload_last_success_timestamp_seconds", "When an offload last did its work.")
        last.add_metric((), reading.last_success_s)
        return [unverified, last]
