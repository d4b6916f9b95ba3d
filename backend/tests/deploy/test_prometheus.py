"""A real Prometheus that scrapes a real run: what the dashboard asks is there, and what is counted is what was spent.

The windows of the rules are made short, because the run is; what the rules say at their full length, ``promtool``
tests.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from app.cli.reconciling import Reconciliation, counted_cents, reconciled
from app.exposition import expose
from app.stores.budget.contract import AuditReport, HoldState
from app.stores.budget.sqlite import SqliteBudgetStore
from tests.support.servers.process import free_port
from tests.support.servers.prometheus import PrometheusServer

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "llm-cost-tracking.json"


def shortened(rules: str) -> str:
    """Return the rules with windows of 20 seconds and no waiting."""
    return re.sub(r"\[\d+[mh]\]", "[20s]", re.sub(r"for: \d+m", "for: 0s", rules)).replace(
        "interval: 30s", "interval: 1s"
    )


@dataclass
class World:
    """A process that makes calls, an exporter of the ledger, one whose counter is false, and Prometheus."""

    prometheus: PrometheusServer
    traffic: subprocess.Popen[str]
    database: Path
    variables: dict[str, str]
    false_cents: Counter

    def tell(self, command: str) -> str:
        """Have the process do something, and return its answer."""
        assert self.traffic.stdin is not None
        assert self.traffic.stdout is not None
        self.traffic.stdin.write(f"{command}\n")
        self.traffic.stdin.flush()
        return self.traffic.stdout.readline().strip()

    def reconcile(self) -> Reconciliation:
        """Compare Prometheus's samples with the ledger, as ``nova metrics reconcile`` does."""

        async def total() -> Any:
            store = SqliteBudgetStore(self.database)
            try:
                return next(usage for usage in await store.usage("tenant") if usage.window == "total")
            finally:
                await store.close()

        return reconciled(asyncio.run(total()), counted_cents(self.prometheus.url, last=timedelta(hours=1)))

    def audited(self) -> AuditReport:
        """Have the store recompute every counter from its entries."""

        async def audit() -> AuditReport:
            store = SqliteBudgetStore(self.database)
            try:
                return await store.audit()
            finally:
                await store.close()

        return asyncio.run(audit())

    def take_up(self) -> int:
        """Charge the holds that the dead process left, as whoever resumes its run does; return their sum."""

        async def expire() -> int:
            store = SqliteBudgetStore(self.database)
            try:
                holds = await store.holds(state=HoldState.HELD)
                return sum([(await store.expire(hold.hold_id)).charged for hold in holds])
            finally:
                await store.close()

        return asyncio.run(expire())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Start everything; nothing has been called yet."""
    ports = {"nova": free_port(), "nova-ledger": free_port()}
    database = tmp_path / "nova.db"
    stores = dict.fromkeys(("BUDGET_STORE", "CHECKPOINT_STORE", "IDEMPOTENCY_STORE"), "sqlite")
    variables = {**os.environ, **stores, "NOVA_DATA_DIR": str(tmp_path), "LLM_ADAPTER": "stub"}
    variables["NOVA_ARCHIVE_DIR"] = str(tmp_path / "archive")
    registry = CollectorRegistry()
    false_cents = Counter("nova_llm_cost_cents", "False.", ("provider", "model"), registry=registry)
    false_cents.labels("stub", "stub-1")
    false = expose(host="127.0.0.1", port=0, registry=registry)
    configuration = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    configuration = configuration.replace("scrape_interval: 15s", "scrape_interval: 200ms")
    configuration = configuration.replace("evaluation_interval: 30s", "evaluation_interval: 1s")
    configuration = configuration.replace("worker:9465", f'127.0.0.1:{ports["nova"]}", "127.0.0.1:{false.port}')
    configuration = configuration.replace("ledger:9464", f"127.0.0.1:{ports['nova-ledger']}")
    rules = shortened((DEPLOY / "prometheus" / "rules.yml").read_text())
    server = PrometheusServer(configuration, rules=rules)
    traffic = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "traffic.py")],
        env={**variables, "NOVA_METRICS_PORT": str(ports["nova"])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert traffic.stdout is not None
    ledger = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "metrics", "serve", "--port", str(ports["nova-ledger"])], env=variables
    )
    try:
        assert traffic.stdout.readline() == "ready\n"
        with server:
            found = World(
                prometheus=server, traffic=traffic, database=database, variables=variables, false_cents=false_cents
            )
            server.until(lambda: len(server.query("up == 1")) == 3, what="every target was scraped")
            yield found
    finally:
        false.close()
        for process in (traffic, ledger):
            process.kill()
            process.communicate()


def queries() -> dict[str, str]:
    """Return every query of the dashboard by its panel, as Grafana would send it."""
    found = {}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            text = target["expr"].replace("$__rate_interval", "10s")
            found[f"{panel['title']}/{target['refId']}"] = text.replace("$provider", ".*").replace("$model", ".*")
    return found


def test_what_is_shown_counted_and_spent_agrees_through_a_crash_and_a_falsified_counter(world: World) -> None:
    """One run, told in order; each part needs what came before."""
    prometheus = world.prometheus
    subprocess.run([sys.executable, "-m", "app.stores.checkpoint_offload"], env=world.variables, check=True)
    # Every query of the dashboard has data, once there were two scrapes with calls between them.
    billed = int(world.tell("calls"))
    prometheus.until(lambda: world.reconcile().drift == 0, what="the first calls were scraped")
    missing = queries()
    for _ in range(5):
        # A machine that is busy elsewhere may let the ten seconds that a rate looks back on go by.
        billed += int(world.tell("calls"))
        prometheus.until(lambda: world.reconcile().drift == 0, what="the next calls were scraped")
        missing = {name: query for name, query in missing.items() if not _has_data(prometheus, query)}
        if not missing:
            break
    assert missing == {}

    # Counters, gauges, ledger and audit agree to the microcent; what is uncertain is in none of the counters.
    found = world.reconcile()
    assert found.counted == found.billed == billed > 0
    assert found.uncertain > 0
    assert found.told == "none"
    gauge = 'nova_ledger_spend_cents{scope="tenant",window="total"}'
    prometheus.until(lambda: _microcents(prometheus, gauge) == found.spent, what="the ledger's gauge is the ledger")
    assert _microcents(prometheus, gauge.replace("spend", "uncertain")) == found.uncertain
    assert _microcents(prometheus, "sum(nova_llm_cost_cents_total)") == billed
    assert world.audited().clean

    # A crash: what was billed after the last scrape, and what was under way, is what the two differ by.
    assert world.tell("hang") == "hanging"
    prometheus.freeze()
    unscraped = int(world.tell("calls"))
    world.traffic.kill()
    world.traffic.wait()
    prometheus.thaw()
    cut = world.take_up()
    after = world.reconcile()
    assert after.drift == unscraped > 0
    assert after.uncertain > found.uncertain + cut - 1 > found.uncertain
    assert "Prometheus never saw" in after.told
    assert world.audited().clean

    # A counter that is false: the alert fires, and the report says which way it is wrong.
    assert not _firing(prometheus, "NovaCostDrift")
    world.false_cents.labels("stub", "stub-1").inc(5_000)
    prometheus.until(lambda: _firing(prometheus, "NovaCostDrift"), what="the alert fires")
    false = world.reconcile()
    assert false.drift == unscraped - 5_000 * 1_000_000
    assert "more than the ledger has" in false.told


def _has_data(prometheus: PrometheusServer, query: str) -> bool:
    found: set[str] = set()

    def look() -> bool:
        found.update(value for series in prometheus.query(query) for _, value in [series["value"]])
        return bool(found - {"NaN"})

    try:
        prometheus.until(look, what=query, timeout_s=5)
    except AssertionError:
        return False
    return True


def _microcents(prometheus: PrometheusServer, query: str) -> int:
    (series,) = prometheus.query(query)
    return round(float(series["value"][1]) * 1_000_000)


def _firing(prometheus: PrometheusServer, name: str) -> bool:
    alerts = prometheus.ask("alerts")["alerts"]
    return any(alert["labels"]["alertname"] == name and alert["state"] == "firing" for alert in alerts)
