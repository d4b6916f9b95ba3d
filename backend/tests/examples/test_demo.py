"""The whole demo, with the stub: as `make demo` plays it where the small model is not installed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[3]
_ELSEWHERE = {
    "DATABASE_URL": "sqlite:////no/such/directory/elsewhere.db",
    "ENV": "production",
    "LLM_ADAPTER": "claude",
    "NOVA_UNKNOWN_PRICE": "free",
    "OPENAI_API_KEY": "a-key-that-must-not-be-used",
    "REDIS_URL": "redis://127.0.0.1:1",
}


_WITHOUT_WHEELS = """
import sys
import examples.local_model
examples.local_model._WHEELS = {"no_such_module_of_ours": "no-such-wheel"}
from examples.demo import __main__ as demo
sys.exit(demo.main(sys.argv[1:]))
"""
_WITH_A_CLAIM_THAT_IS_FALSE = """
import sys
from examples.demo import __main__ as demo
from examples.demo.evidence import Claim
demo._act_run_and_kill = demo._act_brief = demo._act_money = demo._act_your_own = lambda *_: None
demo._act_resume = lambda *_: (None, "")
demo.claims = lambda *_: (Claim("the sky is green", False, "it is not"),)
sys.exit(demo.main(["--stub", *sys.argv[1:]]))
"""


def _played(script: str, data_dir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, "--data-dir", str(data_dir)],
        cwd=_ROOT,
        env={**os.environ, **_ELSEWHERE},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_demo_does_what_it_says(tmp_path: Path) -> None:
    """Without the small model it says so and takes the stub; it kills a run and resumes it, and its claims are true.

    What the user's own environment points at makes no difference.
    """
    done = _played(_WITHOUT_WHEELS, tmp_path)

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "no no-such-wheel" in done.stdout
    assert "kill -9" in done.stdout
    assert done.stdout.count("\nyes  ") == 5
    assert "\nNO " not in done.stdout
    assert "goes on" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_the_demo_does_not_touch_somebodys_state(tmp_path: Path) -> None:
    """A directory that has a database in it is refused with code 1, and stays as it is."""
    state = tmp_path / "nova.db"
    state.write_bytes(b"dear to somebody")

    done = _played(_WITHOUT_WHEELS, tmp_path)

    assert done.returncode == 1
    assert "has a nova.db already" in " ".join(done.stdout.split())
    assert list(tmp_path.iterdir()) == [state]
    assert state.read_bytes() == b"dear to somebody"


def test_a_false_claim_fails_the_demo(tmp_path: Path) -> None:
    """Where a claim is not true, the demo says which, and ends with code 1."""
    done = _played(_WITH_A_CLAIM_THAT_IS_FALSE, tmp_path)

    assert done.returncode == 1, done.stdout + done.stderr
    assert "\nNO   the sky is green: this is not so\n     it is not\n" in done.stdout


def test_ctrl_c_leaves_no_process_behind(tmp_path: Path) -> None:
    """Ctrl-C in the middle of the run ends the demo with code 130, and every process of it."""
    with subprocess.Popen(
        [sys.executable, "-m", "examples.demo", "--stub", "--data-dir", str(tmp_path)],
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
