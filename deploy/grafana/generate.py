"""Writes the dashboard "LLM Cost Tracking"; run it after a change here: ``python deploy/grafana/generate.py``.

The dashboard in Grafana is read-only, because this file is its source. A test compares the two, validates the dashboard
against the types of the Grafana in ``deploy/compose.yml`` (``schema.sh``), and runs every query on a real Prometheus.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from grafana_foundation_sdk.builders import bargauge, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import ReduceDataOptions
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef, Threshold, ThresholdsMode, VariableRefresh

__all__ = ["OUTPUT", "ROWS", "Panel", "Query", "generated"]

OUTPUT: Final = Path(__file__).parent / "dashboards" / "llm-cost-tracking.json"

SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
CALLS: Final = 'provider=~"$provider", model=~"$model"'
ALL: Final = 'scope="tenant"'


@dataclass(frozen=True, slots=True)
class Query:
    """A query of Prometheus, and how each of its series is called."""

    expr: str
    legend: str = "__auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel. ``unit`` is Grafana's name; money is divided by 100 in the query, because it is counted in cents."""

    title: str
    about: str
    queries: tuple[Query, ...]
    kind: Literal["stat", "time", "bars"] = "time"
    unit: str = "short"
    width: int = 8
    height: int = 7
    limits: tuple[tuple[float, str], ...] = ()


def _rate(metric: str, by: str, labels: str = CALLS) -> str:
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def _quantile(quantile: float, metric: str, by: str, labels: str = CALLS) -> str:
    return f"histogram_quantile({quantile}, {_rate(f'{metric}_bucket', f'{by}, le', labels)})"


ROWS: Final[tuple[tuple[str, tuple[Panel, ...]], ...]] = (
    (
        "Spending, by the ledger",
        (
            Panel(
                title="Spent today",
                about="What the ledger counts as spent in this day (UTC), uncertain charges included.",
                queries=(Query(f'max(nova_ledger_spend_cents{{{ALL}, window="day"}}) / 100'),),
                kind="stat",
                unit="currencyUSD",
                width=4,
                height=4,
            ),
            Panel(
                title="Spent this month",
                about="The same for this month.",
                queries=(Query(f'max(nova_ledger_spend_cents{{{ALL}, window="month"}}) / 100'),),
                kind="stat",
                unit="currencyUSD",
                width=4,
                height=4,
            ),
            Panel(
                title="Held now",
                about="What calls under way may cost at most.",
                queries=(Query(f'max(nova_ledger_held_cents{{{ALL}, window="total"}}) / 100'),),
                kind="stat",
                unit="currencyUSD",
                width=4,
                height=4,
            ),
            Panel(
                title="Uncertain",
                about="Charged in full because nobody knows the bill; `nova budget holds --state expired` lists them.",
                queries=(Query(f'max(nova_ledger_uncertain_cents{{{ALL}, window="total"}}) / 100'),),
                kind="stat",
                unit="currencyUSD",
                width=4,
                height=4,
                limits=((0.0001, "orange"),),
            ),
            Panel(
                title="Above its hold",
                about="By how much bills were above the upper bound that was held for them.",
                queries=(Query(f'max(nova_ledger_overage_cents{{{ALL}, window="total"}}) / 100'),),
                kind="stat",
                unit="currencyUSD",
                width=4,
                height=4,
                limits=((0.0001, "orange"),),
            ),
            Panel(
                title="Ledger readable",
                about="1: the budget store could be read at the last scrape.",
                queries=(Query("min(nova_ledger_up)"),),
                kind="stat",
                width=4,
                height=4,
                limits=((1, "green"),),
            ),
            Panel(
                title="Spent, over time",
                about="The ledger's day so far; it begins anew at midnight UTC.",
                queries=(
                    Query('max by (scope) (nova_ledger_spend_cents{window="day"}) / 100', "{{scope}}"),
                    Query('max by (scope) (nova_budget_limit_cents{window="day"}) / 100', "{{scope}}: limit"),
                ),
                unit="currencyUSD",
                width=12,
            ),
            Panel(
                title="Budgets used",
                about="Spent divided by the limit, in each scope and window that has one. Calls are refused at 100 %.",
                queries=(
                    Query(
                        "max by (scope, window) (nova_ledger_spend_cents)"
                        " / on (scope, window) max by (scope, window) (nova_budget_limit_cents)",
                        "{{scope}} ({{window}})",
                    ),
                ),
                kind="bars",
                unit="percentunit",
                width=6,
                limits=((0.5, "yellow"), (0.8, "orange"), (1, "red")),
            ),
            Panel(
                title="Budgets remaining",
                about="What a hold may still take: limit less spent less held.",
                queries=(
                    Query(
                        "clamp_min(max by (scope, window) (nova_budget_limit_cents)"
                        " - on (scope, window) max by (scope, window) (nova_ledger_spend_cents)"
                        " - on (scope, window) max by (scope, window) (nova_ledger_held_cents), 0) / 100",
                        "{{scope}} ({{window}})",
                    ),
                ),
                kind="bars",
                unit="currencyUSD",
                width=6,
            ),
        ),
    ),
    (
        "Cost of calls, by the processes that made them",
        (
            Panel(
                title="Cost by model",
                about="Cents per hour that calls cost, as the processes count them.",
                queries=(Query(f"{_rate('nova_llm_cost_cents_total', 'model')} * 36", "{{model}}"),),
                unit="currencyUSD",
            ),
            Panel(
                title="Cost by provider",
                about="The same by provider.",
                queries=(Query(f"{_rate('nova_llm_cost_cents_total', 'provider')} * 36", "{{provider}}"),),
                unit="currencyUSD",
            ),
            Panel(
                title="Cost per call",
                about="What an answered call cost on average.",
                queries=(
                    Query(
                        f"{_rate('nova_llm_cost_cents_total', 'provider, model')} / 100 / on (provider, model) "
                        + _rate("nova_llm_invocations_total", "provider, model", f'{CALLS}, status="success"'),
                        "{{provider}} {{model}}",
                    ),
                ),
                unit="currencyUSD",
            ),
            Panel(
                title="Tokens",
                about="Billed tokens per second, cached and reasoning tokens included.",
                queries=(Query(_rate("nova_llm_tokens_total", "token_type"), "{{token_type}}"),),
            ),
            Panel(
                title="Parts of tokens",
                about="What of them was read from a cache, written to one, or reasoning.",
                queries=(Query(_rate("nova_llm_token_parts_total", "part"), "{{part}}"),),
            ),
            Panel(
                title="Unknown tokens or cost",
                about="Answers whose tokens or cost nobody knows: the totals lack them.",
                queries=(Query(_rate("nova_llm_unknown_total", "quantity, model"), "{{quantity}} of {{model}}"),),
                limits=((0.000001, "red"),),
            ),
        ),
    ),
    (
        "Latency and errors",
        (
            Panel(
                title="Duration",
                about="From the request to the end of the answer.",
                queries=tuple(
                    Query(_quantile(quantile, "nova_llm_duration_seconds", "model"), f"{{{{model}}}}: {name}")
                    for quantile, name in ((0.5, "half"), (0.95, "95 %"))
                ),
                unit="s",
            ),
            Panel(
                title="Time to the first token",
                about="Of streams.",
                queries=tuple(
                    Query(
                        _quantile(quantile, "nova_llm_time_to_first_token_seconds", "model"), f"{{{{model}}}}: {name}"
                    )
                    for quantile, name in ((0.5, "half"), (0.95, "95 %"))
                ),
                unit="s",
            ),
            Panel(
                title="Calls by outcome",
                about="Every attempt.",
                queries=(Query(_rate("nova_llm_invocations_total", "status"), "{{status}}"),),
                unit="reqps",
            ),
            Panel(
                title="Errors",
                about="The share of attempts that gave no answer.",
                queries=(
                    Query(
                        _rate("nova_llm_invocations_total", "provider", f'{CALLS}, status!~"success|refused"')
                        + " / on (provider) "
                        + _rate("nova_llm_invocations_total", "provider"),
                        "{{provider}}",
                    ),
                ),
                unit="percentunit",
            ),
            Panel(
                title="Retries and fallbacks",
                about="Attempts after the first, and adapters that were passed over, by the error.",
                queries=(
                    Query(_rate("nova_llm_retries_total", "code", 'provider=~"$provider"'), "retry: {{code}}"),
                    Query(_rate("nova_llm_fallbacks_total", "code", 'provider=~"$provider"'), "fallback: {{code}}"),
                ),
            ),
            Panel(
                title="Refused by budgets",
                about="Calls that were not made, by the window that was in the way.",
                queries=(Query("sum by (window) (rate(nova_budget_refusals_total[$__rate_interval]))", "{{window}}"),),
            ),
        ),
    ),
    (
        "Health",
        (
            Panel(
                title="Counters against the ledger",
                about="How far the two differ over six hours; `nova metrics reconcile` says it exactly.",
                queries=(Query("nova:cost_drift_cents:6h / 100", "difference"),),
                unit="currencyUSD",
                width=6,
            ),
            Panel(
                title="Uncertain charges",
                about="Holds that were charged without a bill, by the reason.",
                queries=(Query("sum by (reason) (rate(nova_budget_uncertain_total[$__rate_interval]))", "{{reason}}"),),
                width=6,
            ),
            Panel(
                title="Replays, takeovers, lost leases",
                about="Calls answered from their record; keys begun again; leases that somebody else took over.",
                queries=(
                    Query("sum(rate(nova_idempotency_replays_total[$__rate_interval]))", "replays"),
                    Query("sum(rate(nova_idempotency_takeovers_total[$__rate_interval]))", "takeovers"),
                    Query("sum by (kind) (rate(nova_lease_losses_total[$__rate_interval]))", "lost: {{kind}}"),
                ),
                width=6,
            ),
            Panel(
                title="Checkpoints",
                about="How long 95 % of the verbs of the checkpoint store took at most.",
                queries=(Query(_quantile(0.95, "nova_checkpoint_duration_seconds", "verb", ""), "{{verb}}"),),
                unit="s",
                width=6,
            ),
            Panel(
                title="Last offload",
                about="How long ago old runs were last copied to the archive.",
                queries=(Query("time() - max(nova_offload_last_success_timestamp_seconds)"),),
                kind="stat",
                unit="s",
                width=6,
                height=4,
                limits=((26 * 3600, "red"),),
            ),
            Panel(
                title="Offload: not verified",
                about="Objects and runs that the last offload found to be not what they should be.",
                queries=(Query("max(nova_offload_unverified)"),),
                kind="stat",
                width=6,
                height=4,
                limits=((1, "red"),),
            ),
        ),
    ),
)


def generated() -> str:
    """Return the dashboard as the file has it."""
    board = (
        dashboard.Dashboard("LLM Cost Tracking")
        .uid("nova-llm-cost")
        .description("What Nova's calls cost, by its ledger and by its processes; docs/how-to/metrics.md")
        .tags(["nova", "llm", "cost"])
        .readonly()
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("utc")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_labels("provider", "label_values(nova_llm_invocations_total, provider)"))
        .with_variable(_labels("model", 'label_values(nova_llm_invocations_total{provider=~"$provider"}, model)'))
    )
    number = 0
    for title, panels in ROWS:
        number += 1
        board = board.with_row(dashboard.Row(title).id(number))
        for panel in panels:
            number += 1
            board = board.with_panel(_built(panel).id(number))
    document = json.loads(json.dumps(board.build(), cls=JSONEncoder))
    for variable in document["templating"]["list"]:
        # The SDK gives every variable what only one of intervals has, and Grafana's own types do not know.
        for name in ("auto", "auto_count", "auto_min"):
            variable.pop(name, None)
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _labels(name: str, query: str) -> Any:
    return (
        dashboard.QueryVariable(name)
        .label(name.capitalize())
        .datasource(SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .include_all(True)
        .all_value(".*")
        .multi(True)
    )


def _built(panel: Panel) -> Any:
    kinds: dict[str, Any] = {"stat": stat.Panel, "time": timeseries.Panel, "bars": bargauge.Panel}
    built = kinds[panel.kind]().title(panel.title).description(panel.about).datasource(SOURCE).unit(panel.unit)
    built = built.span(panel.width).height(panel.height)
    if panel.kind != "time":
        built = built.reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
    if panel.limits:
        steps = [Threshold(value=None, color="red" if panel.title == "Ledger readable" else "green")]
        steps += [Threshold(value=value, color=color) for value, color in panel.limits]
        built = built.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    for place, query in enumerate(panel.queries):
        target = prometheus.Dataquery().datasource(SOURCE).expr(query.expr).legend_format(query.legend)
        target = target.ref_id(chr(ord("A") + place))
        built = built.with_target(target.instant() if panel.kind != "time" else target.range())
    return built


if __name__ == "__main__":
    OUTPUT.write_text(generated())
    sys.stdout.write(f"written: {OUTPUT.name}\n")
