"""The schedules of ``deploy/offload`` call the program with arguments that it takes."""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path

import pytest
import yaml

from app.stores.offload.command import _parser

FOLDER = Path(__file__).resolve().parents[4] / "deploy" / "offload"
MODULE = "app.stores.checkpoint_offload"


def _arguments(command: str) -> list[str]:
    """Return what stands behind the module in a command line."""
    words = shlex.split(command)
    return words[words.index(MODULE) + 1 :]


def _crontab() -> list[str]:
    (line,) = [line for line in (FOLDER / "crontab").read_text().splitlines() if line and not line.startswith("#")]
    minute, hour, day, month, weekday, user, command = line.split(maxsplit=6)
    assert (minute, hour, day, month, weekday, user) == ("15", "3", "*", "*", "*", "nova")
    return _arguments(command)


def _systemd() -> list[str]:
    unit = configparser.ConfigParser(strict=True, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their case
    unit.read(FOLDER / "nova-offload.service")
    timer = configparser.ConfigParser(interpolation=None)
    timer.read(FOLDER / "nova-offload.timer")
    assert unit["Service"]["Type"] == "oneshot"
    assert unit["Service"]["SuccessExitStatus"].split() == ["3", "4"]
    assert timer["Timer"]["OnCalendar"].endswith("UTC")
    return _arguments(unit["Service"]["ExecStart"])


def _kubernetes() -> list[str]:
    job = yaml.safe_load((FOLDER / "cronjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"], job["spec"]["concurrencyPolicy"]) == ("batch/v1", "CronJob", "Forbid")
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert {"name": "PYTHONPATH", "value": "/app"} in container["env"]
    return _arguments(shlex.join([*container["command"], *container["args"]]))


@pytest.mark.parametrize("schedule", [_crontab, _systemd, _kubernetes])
def test_a_schedule_runs_the_daily_job(schedule: object) -> None:
    """It asks for the defaults of the documentation, and for an end before the next job begins."""
    assert callable(schedule)

    options = _parser("offload").parse_args(schedule())

    assert (options.verb, options.older_than, options.retention) == ("offload", 3, 7)
    assert options.max_seconds is not None
    assert options.max_seconds < 3_600
