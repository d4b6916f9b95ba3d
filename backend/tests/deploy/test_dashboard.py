"""The dashboard is what its source generates, is what Grafana takes, and asks for metrics that there are."""

from __future__ import annotations

import enum
import json
import re
import types
import typing
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from grafana_foundation_sdk.models import dashboard as models
from prometheus_client import CollectorRegistry

from app.metrics import build_guard_metrics, build_llm_metrics
from app.stores.gauges import LedgerCollector, LedgerReading, OffloadCollector, OffloadReading
from deploy.grafana.generate import OUTPUT, generated

BOARD: dict[str, Any] = json.loads(OUTPUT.read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
ROOT = Path(__file__).parents[3]
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
SCHEMA: dict[str, Any] = json.loads((Path(__file__).parent / "grafana-schema.json").read_text())


def test_the_file_is_what_its_source_generates() -> None:
    """After a change of the source: ``python deploy/grafana/generate.py``."""
    assert OUTPUT.read_text() == generated()


def metrics_of_nova() -> dict[str, set[str]]:
    """Return every series that Nova can show, with its labels."""
    registry = CollectorRegistry()
    build_llm_metrics(registry)
    build_guard_metrics(registry)
    registry.register(LedgerCollector(lambda: LedgerReading(usage=(), left_out=0)))
    registry.register(OffloadCollector(lambda: OffloadReading(last_success_s=1.0, unverified=0)))
    found: dict[str, set[str]] = {}
    for collector in registry._collector_to_names:
        for family in collector.collect():
            labels = set(getattr(collector, "_labelnames", getattr(family, "_labelnames", ())))
            suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}[family.type]
            for suffix in suffixes:
                found[family.name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    return found


def expressions() -> list[str]:
    """Return every query of the dashboard and of the rules."""
    asked = [target["expr"] for panel in PANELS for target in panel["targets"]]
    variables = [variable["query"] for variable in BOARD["templating"]["list"] if variable["type"] == "query"]
    return [*asked, *variables, RULES.read_text()]


def test_every_metric_that_is_asked_for_is_one_of_novas() -> None:
    """Names of metrics, and the labels that they are selected by."""
    known = metrics_of_nova()
    for expression in expressions():
        for name, selector in re.findall(r"\b(nova_\w+)(\{[^}]*\})?", expression):
            if f":{name}:" in expression:  # a part of the name of a recorded series
                continue
            assert name in known, name
            for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector):
                assert label in known[name], f"{name}: {label}"


def test_every_metric_is_in_the_reference() -> None:
    """With its name as Prometheus shows it."""
    reference = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    names = {name.removesuffix("_bucket") for name in metrics_of_nova() if not name.endswith(("_count", "_sum"))}

    assert {name for name in names if f"`{name}`" not in reference} == set()


def test_every_series_that_is_recorded_has_a_rule() -> None:
    """A recorded name has colons in it; each that is asked for is one that the rules record."""
    recorded = set(re.findall(r"record: (\S+)", RULES.read_text()))
    asked = {name for expression in expressions() for name in re.findall(r"\b\w+:\w+:\w+\b", expression)}

    assert asked - recorded == set()


def test_every_panel_has_a_place_of_its_own() -> None:
    """Ids differ, nothing overlaps or is wider than the page, each has words, and its source can be chosen."""
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        grid = panel["gridPos"]
        cells = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert grid["x"] + grid["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in PANELS:
        assert panel["description"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


def test_a_read_only_dashboard_has_a_fixed_address() -> None:
    """So links to it last, and nobody's change in the browser is lost at the next deployment."""
    assert BOARD["uid"] == "nova-llm-cost"
    assert BOARD["editable"] is False
    assert {variable["name"] for variable in BOARD["templating"]["list"]} == {"datasource", "provider", "model"}


def check(value: Any, kind: Any, where: str, problems: list[str]) -> None:
    """Add what of a value is not as a type of Grafana has it: an unknown field, another kind, no such choice."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in {object, Any}:
        return
    if origin is typing.Literal:
        if value not in arguments:
            problems.append(f"{where}: {value!r} is none of {arguments}")
    elif origin in {typing.Union, types.UnionType}:
        tried: list[list[str]] = []
        for choice in (each for each in arguments if each is not types.NoneType or value is None):
            found: list[str] = []
            check(value, choice, where, found)
            if not found:
                return
            tried.append(found)
        problems += tried[0]
    elif origin is list:
        if not isinstance(value, list):
            problems.append(f"{where}: no list")
            return
        for place, each in enumerate(value):
            check(each, arguments[0], f"{where}[{place}]", problems)
    elif origin is dict:
        for name, each in value.items():
            check(each, arguments[1], f"{where}.{name}", problems)
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        if value not in {member.value for member in kind}:
            problems.append(f"{where}: {value!r} is no {kind.__name__}")
    elif kind is types.NoneType:
        if value is not None:
            problems.append(f"{where}: not null")
    elif kind in {int, float, str, bool}:
        allowed = (int, float) if kind is float else (kind,)
        if type(value) not in allowed:
            problems.append(f"{where}: {type(value).__name__}, not {kind.__name__}")
    elif isinstance(kind, type) and hasattr(kind, "from_json"):
        check_object(value, kind, where, problems)


def check_object(value: Any, kind: type, where: str, problems: list[str]) -> None:
    """Check the fields of an object; how each is spelt in JSON is what its type reads."""
    if not isinstance(value, dict):
        problems.append(f"{where}: no object")
        return
    hints = typing.get_type_hints(kind)
    spelt = {_json_name(name): hint for name, hint in hints.items()} | hints
    for name, each in value.items():
        if name not in spelt:
            problems.append(f"{where}: unknown field {name!r} of {kind.__name__}")
        elif where.startswith("panel") and name in {"options", "custom"}:
            continue  # of the panel's own kind; checked apart
        else:
            check(each, spelt[name], f"{where}.{name}", problems)


def _json_name(name: str) -> str:
    first, *rest = name.removesuffix("_val").split("_")
    return first + "".join(part.capitalize() for part in rest)


def test_every_field_is_one_that_grafana_has() -> None:
    """By the types of grafana-foundation-sdk, which are generated from Grafana's schema: names, kinds and choices."""
    problems: list[str] = []
    check_object({**BOARD, "panels": []}, models.Dashboard, "dashboard", problems)
    queries = import_module("grafana_foundation_sdk.models.prometheus").Dataquery
    for panel in PANELS:
        kind = import_module(f"grafana_foundation_sdk.models.{panel['type']}")
        where = f"panel {panel['title']!r}"
        check_object({name: each for name, each in panel.items() if name != "targets"}, models.Panel, where, problems)
        check_object(panel.get("options", {}), kind.Options, f"{where} options", problems)
        custom = panel["fieldConfig"]["defaults"].get("custom", {})
        if custom:
            check_object(custom, kind.FieldConfig, f"{where} custom", problems)
        for target in panel["targets"]:
            check_object(target, queries, f"{where} query", problems)

    assert problems == []


def problems_of(board: dict[str, Any]) -> list[str]:
    """Return what of a dashboard is not as the schema of Grafana has it; it allows no field that it does not name."""
    found: list[str] = []

    def validate(name: str, value: Any, where: str) -> None:
        errors = jsonschema.Draft7Validator(SCHEMA[name]).iter_errors(value)
        found.extend(f"{where}: {error.message}" for error in errors)

    validate("dashboard", board, "dashboard")
    for panel in board["panels"]:
        where = f"panel {panel.get('title')!r}"
        if panel.get("type") == "row":
            validate("row", panel, where)
            continue
        validate("panel", panel, where)
        # The type of a panel leaves these two to its kind.
        if panel.get("type") in SCHEMA:
            validate(panel["type"], panel.get("options", {}), f"{where} options")
        if panel.get("type") == "timeseries":
            custom = panel["fieldConfig"]["defaults"].get("custom", {})
            validate("timeseries_custom", custom, f"{where} custom")
    return found


def test_the_dashboard_is_valid_against_the_schema_of_grafana() -> None:
    """That of the version which is deployed: dashboard, rows, panels, and the options of each kind of panel."""
    deployed = re.search(r"image: grafana/grafana:(\S+)", (ROOT / "deploy" / "compose.yml").read_text())
    assert deployed is not None
    assert f"Grafana {deployed[1]} " in SCHEMA["$comment"], "run: deploy/grafana/schema.sh"
    assert {panel["type"] for panel in PANELS} <= SCHEMA.keys()

    assert problems_of(BOARD) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda board: board.update(refersh="30s"),
        lambda board: board.pop("schemaVersion"),
        lambda board: board["templating"]["list"][0].update(type="datasuorce"),
        lambda board: board["time"].update(to=7),
        lambda board: panel_of(board, "stat").update(gridPos={"w": "8", "h": 1, "x": 0, "y": 0}),
        lambda board: panel_of(board, "stat").update(datasource="prometheus"),
        lambda board: panel_of(board, "stat")["options"].update(colorMode="rainbow"),
        lambda board: panel_of(board, "bargauge").setdefault("options", {}).update(orientaton="horizontal"),
        lambda board: panel_of(board, "timeseries")["fieldConfig"]["defaults"].update(custom={"drawStyle": "lines"}),
        lambda board: panel_of(board, "row").update(collapsed="no"),
    ],
    ids=["misspelt", "missing", "variable", "time", "number", "reference", "choice", "option", "custom", "row"],
)
def test_the_schema_refuses_what_grafana_does_not_have(change: Callable[[dict[str, Any]], object]) -> None:
    """The check above can fail, at every depth."""
    board = json.loads(OUTPUT.read_text())
    change(board)

    assert problems_of(board) != []


def panel_of(board: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return the first panel of a kind."""
    found: dict[str, Any] = next(panel for panel in board["panels"] if panel["type"] == kind)
    return found


@pytest.mark.parametrize(
    "broken",
    [{"titel": "x"}, {"gridPos": {"w": "8", "h": 1, "x": 0, "y": 0}}, {"type": 7}, {"repeatDirection": "q"}],
    ids=["misspelt", "a number as text", "another kind", "no such choice"],
)
def test_a_field_that_grafana_does_not_have_is_noticed(broken: dict[str, Any]) -> None:
    """The check above can fail."""
    problems: list[str] = []
    check_object({**PANELS[0], **broken}, models.Panel, "panel", problems)

    assert problems
