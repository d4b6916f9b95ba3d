"""The rules of Prometheus: valid, each alert tested by promtool, each with a page that says what to do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.servers.prometheus import program

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "prometheus"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"] for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]


def promtool(*arguments: str, folder: Path = FOLDER) -> subprocess.CompletedProcess[str]:
    """Run promtool in a folder."""
    return subprocess.run(
        [program("promtool"), *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def test_rules_and_configuration_are_valid() -> None:
    """As Prometheus reads them, with the oldest version that is still about (2.42)."""
    rules = promtool("check", "rules", "rules.yml")
    configuration = promtool("check", "config", "prometheus.yml")

    assert rules.returncode == 0, rules.stdout + rules.stderr
    assert configuration.returncode == 0, configuration.stdout + configuration.stderr


def test_every_alert_fires_when_it_should_and_not_before() -> None:
    """The scenarios of ``rules.test.yml``."""
    tested = promtool("test", "rules", "rules.test.yml")

    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_has_a_scenario_in_which_it_fires() -> None:
    """One that nobody has ever seen fire may be one that cannot."""
    scenarios = yaml.safe_load((FOLDER / "rules.test.yml").read_text())["tests"]
    fired = {test["alertname"] for each in scenarios for test in each["alert_rule_test"] if test.get("exp_alerts")}

    assert {alert["alert"] for alert in ALERTS} - fired == set()


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_says_what_to_do(alert: dict[str, Any]) -> None:
    """A severity, a sentence, and a page whose name is the alert's."""
    assert alert["labels"]["severity"] in {"info", "warning", "critical"}
    assert alert["annotations"]["summary"]
    page = ROOT / alert["annotations"]["runbook"]
    assert page.stem == alert["alert"]
    text = page.read_text()
    assert text.startswith(f"# {alert['alert']}\n")
    assert all(heading in text for heading in ("## What it means", "## What to do"))


def test_no_page_is_left_over() -> None:
    """Each page belongs to an alert."""
    pages = {page.stem for page in (ROOT / "docs" / "runbooks").glob("*.md")}

    assert pages - {alert["alert"] for alert in ALERTS} == set()


def test_a_rule_that_never_fires_is_noticed(tmp_path: Path) -> None:
    """With every condition made impossible, the scenarios of every alert fail: they test what they say."""
    changed = yaml.safe_load((FOLDER / "rules.yml").read_text())
    for group in changed["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                rule["expr"] = "vector(1) < 0"
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(changed))
    shutil.copy(FOLDER / "rules.test.yml", tmp_path)

    tested = promtool("test", "rules", "rules.test.yml", folder=tmp_path)

    assert tested.returncode != 0
    told = tested.stdout + tested.stderr
    assert {alert["alert"] for alert in ALERTS if f"alertname: {alert['alert']}," not in told} == set()
