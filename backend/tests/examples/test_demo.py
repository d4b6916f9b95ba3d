"""The whole demo, with the stub: as `make demo` plays it where the small model is not installed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[3]
_ELSEWHERE = {
    "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
    "ENV": "production",
    "LLM_ADAPTER": "claude",
    "NOVA_UNKNOWN_PRICE": "free",
    "OPENAI_API_KEY": "a-key-that-must-not-be-used",
    "REDIS_URL": "redis://127.0.0.1:1",
}


def _command(data_dir: Path) -> list[str]:
    return [sys.executable, "-m", "examples.demo", "--stub", "--data-dir", str(data_dir)]


def test_the_demo_does_what_it_says(tmp_path: Path) -> None:
    """It kills a run, resumes it, and all of its claims are true, whatever the user's environment points at."""
    (tmp_path / "nova.db").write_bytes(b"of an earlier demo")

    done = subprocess.run(
        _command(tmp_path),
        cwd=_ROOT,
        env={**os.environ, **_ELSEWHERE},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "kill -9" in done.stdout
    assert done.stdout.count("\nyes  ") == 5
    assert "\nNO " not in done.stdout
    assert "goes on" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_ctrl_c_leaves_no_process_behind(tmp_path: Path) -> None:
    """Ctrl-C in the middle of the run ends the demo with code 130, and every process of it."""
    with subprocess.Popen(
        _command(tmp_path),
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "notes: 12 steps" in line:
                break

        os.killpg(demo.pid, signal.SIGINT)
        rest = demo.stdout.read()
        code = demo.wait(30)

    assert code == 130, rest
    assert "Traceback" not in rest
    try:
        os.killpg(demo.pid, 0)
    except ProcessLookupError:
        return
    raise AssertionError("a process of the demo is left")
