"""The small model as a child process: it answers, it counts, and nothing of it is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from examples import local_model as module
from examples.local_model import LocalModel, LocalModelError, missing_wheels, running_model


def _gone(pid: int, *, within_s: float = 5.0) -> bool:
    """Whether a process ends within a while; one that waits for a parent to ask after it has ended."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def _ask(model: LocalModel) -> None:
    request = urllib.request.Request(
        f"{model.base_url}/completions",
        data=b'{"prompt": "one", "max_tokens": 1}',
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.status == 200


def test_the_server_counts_the_calls_that_it_begins(local_model: LocalModel) -> None:
    """Each completion raises the count by one, and a look at the server's health does not."""
    before = local_model.calls()

    _ask(local_model)
    _ask(local_model)
    with urllib.request.urlopen(local_model.base_url.removesuffix("/v1") + "/health", timeout=5) as response:
        assert response.status == 200

    assert local_model.calls() == before + 2


def test_the_model_ends_with_its_block(local_model: LocalModel) -> None:
    """A second model gets a port of its own, and is gone when its block ends, by an error too."""
    with contextlib.suppress(KeyboardInterrupt), running_model() as second:
        raise KeyboardInterrupt

    assert second.base_url != local_model.base_url
    assert _gone(second.pid)
    assert not second.log.exists()


def test_the_model_ends_with_a_parent_that_is_killed(local_model: LocalModel, tmp_path: Path) -> None:
    """When the parent is killed with SIGKILL, the model ends by itself."""
    script = (
        "from examples.local_model import running_model\nimport time\n"
        "with running_model() as model:\n    print(model.pid, flush=True)\n    time.sleep(600)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())

        parent.send_signal(signal.SIGKILL)

    assert _gone(pid)


def test_missing_wheels_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a wheel is missing, nothing is started, and the error names it and what installs it."""
    monkeypatch.setattr(module, "_WHEELS", {"no_such_module_of_ours": "no-such-wheel"})

    with pytest.raises(LocalModelError, match=r"no-such-wheel.*ready-local"), running_model():
        pytest.fail("it must not start")

    assert missing_wheels() == ("no-such-wheel",)


def test_a_server_that_ends_at_its_start_is_told_with_its_log(
    local_model: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that cannot start is an error that has the end of its log, and not a wait."""
    monkeypatch.setattr(sys, "executable", "/bin/false")

    with pytest.raises(LocalModelError, match="ended with code 1"), running_model():
        pytest.fail("it must not start")
