"""What the documents show works as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.workflow.flow import parse_flow

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: str, language: str) -> list[str]:
    """Return the code blocks of one language in a document."""
    return [code for tag, code in BLOCK.findall((ROOT / document).read_text()) if tag == language]


def environment(data_dir: Path) -> dict[str, str]:
    """Return the environment of a newcomer with a set-up checkout and no key."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "PATH": path, "LLM_ADAPTER": "stub", "NOVA_DATA_DIR": str(data_dir), "PYTHONPATH": "backend"}


def bash(script: str, data_dir: Path) -> str:
    """Run a script at the root of the checkout and return everything that it printed."""
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=ROOT,
        env=environment(data_dir),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("document", ["README.md", "docs/adapters.md", "docs/workflows.md"])
def test_every_program_in_the_documents_runs(document: str, tmp_path: Path) -> None:
    """A program is pasted into a file and run; it prints something and fails nowhere."""
    programs = blocks(document, "python")
    assert programs

    for number, program in enumerate(programs):
        script = tmp_path / f"program{number}.py"
        script.write_text(program)
        printed = bash(f"python {script}", tmp_path)

        assert printed.strip()


def test_the_tour_of_the_readme_can_be_pasted(tmp_path: Path) -> None:
    """Its lines run one after another: the first run completes, the small one is parked and then completes."""
    (tour,) = [code for code in blocks("README.md", "bash") if "nova doctor" in code]
    lines = [line for line in tour.splitlines() if not line.startswith(("make ", "export NOVA_DATA_DIR"))]

    printed = bash("\n".join(lines), tmp_path)

    assert "run tour is completed" in printed
    assert "run 'small' waits for budget" in printed
    assert "run small is completed" in printed


def test_every_flow_in_the_documents_is_valid() -> None:
    """A flow is read as `nova run` reads it."""
    flows = blocks("docs/flows.md", "yaml")
    assert flows

    for flow in flows:
        assert parse_flow(flow, source="docs/flows.md").workflow().name == "brief"


def test_every_link_between_documents_leads_somewhere() -> None:
    """A file that a document names exists."""
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))):
        for name in re.findall(r"`((?:docs|examples|backend|benchmarks)/[\w./-]+\w)`", document.read_text()):
            assert (ROOT / name).exists(), f"{document.name} names {name}"
