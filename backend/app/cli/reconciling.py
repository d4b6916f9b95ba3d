"""The counters that Prometheus has, added up exactly, against the ledger."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from urllib.error import URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import urlopen

from app.errors import InvalidInputError, StoreUnavailableError
from app.money import Microcents, format_usd

if TYPE_CHECKING:
    from app.stores.budget.contract import WindowUsage

__all__ = ["Reconciliation", "counted_cents", "increase", "reconciled"]

TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """What the ledger says of all spending, and what Prometheus counted.

    Attributes:
        spent: all of it, since the ledger began.
        uncertain: the part without a bill: nothing was counted for it.
        counted: the increases of ``nova_llm_cost_cents_total`` that were scraped.
    """

    spent: Microcents
    uncertain: Microcents
    counted: Microcents

    @property
    def billed(self) -> Microcents:
        """What is spent by bills and adjustments."""
        return self.spent - self.uncertain

    @property
    def drift(self) -> Microcents:
        """How much more the ledger has than Prometheus; negative where it has less."""
        return self.billed - self.counted

    @property
    def told(self) -> str:
        """The difference, and what it consists of."""
        if self.drift == 0:
            return "none"
        if self.drift > 0:
            return (
                f"{format_usd(self.drift)} that Prometheus never saw: billed after the last scrape of a process that "
                "ended, before the first, or longer ago than its series reach; corrected by hand; or added as an "
                "adjustment"
            )
        return (
            f"{format_usd(-self.drift)} more than the ledger has: calls without a budget, a reset or correction by "
            "hand, calls of other tenants, or a counter that is wrong"
        )

    @property
    def document(self) -> dict[str, Any]:
        """The same for programs."""
        from app.cli.documents import money

        return {
            "spent": money(self.spent),
            "uncertain": money(self.uncertain),
            "billed": money(self.billed),
            "counted": money(self.counted),
            "drift": money(self.drift),
            "explanation": self.told,
        }


def reconciled(total: WindowUsage, counted: Microcents) -> Reconciliation:
    """Compare the window ``total`` of the scope ``tenant`` with what was counted."""
    return Reconciliation(spent=total.spent, uncertain=total.uncertain, counted=counted)


def counted_cents(url: str, *, last: timedelta) -> Microcents:
    """Return by how much the cost counters of all processes have grown, in microcents, from Prometheus's own samples.

    ``increase()`` would extrapolate, and would take a series that is born above zero for one that has not grown.

    Raises:
        InvalidInputError: the URL is none.
        StoreUnavailableError: Prometheus does not answer, or answers with an error.
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise InvalidInputError("--prometheus must be a URL such as http://127.0.0.1:9090")
    query = urlencode({"query": f"nova_llm_cost_cents_total[{int(last.total_seconds())}s]"})
    try:
        with urlopen(f"{url.rstrip('/')}/api/v1/query?{query}", timeout=TIMEOUT_S) as answer:  # noqa: S310 - see above
            series = json.load(answer)["data"]["result"]
    except (URLError, OSError, ValueError, KeyError) as error:
        raise StoreUnavailableError(f"Prometheus at {url} does not answer the query: {error}") from error
    grown = sum((increase(Decimal(value) for _, value in each["values"]) for each in series), Decimal())
    # The counter is a float of cents: what it lost is far below half a microcent.
    return int((grown * 1_000_000).to_integral_value())


def increase(samples: Iterable[Decimal] | Sequence[Decimal]) -> Decimal:
    """Return by how much a counter grew, its first value included; a value below the one before is a restart."""
    grown, before = Decimal(), Decimal()
    for value in samples:
        grown += value - before if value >= before else value
        before = value
    return grown
