"""What the documents show works as it stands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from app.cli.tree import app
from app.workflow.flow import parse_flow
from tests.support.servers.postgres import PostgresServer
from tests.support.servers.s3 import S3Server
from tests.support.servers.valkey import ValkeyServer

ROOT = Path(__file__).parents[2]
_ENDS = {"|", "||", "&&", ";", ">"}
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


DOCUMENTS = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]


def with_blocks(language: str) -> list[str]:
    """Return the documents that have a code block of a language."""
    return [document for document in DOCUMENTS if blocks(document, language)]


def test_every_code_block_is_of_a_kind_that_is_tested() -> None:
    """``python`` and ``bash`` are run, ``sh`` is read, ``yaml`` is a flow; a block without a language is an excerpt."""
    tags = {tag for document in DOCUMENTS for tag, _ in BLOCK.findall((ROOT / document).read_text())}

    assert tags <= {"python", "bash", "sh", "yaml", "sql"}


@pytest.mark.parametrize("document", with_blocks("python"))
def test_every_program_in_the_documents_runs(document: str, tmp_path: Path) -> None:
    """A program is pasted into a file and run; it prints something and fails nowhere."""
    programs = blocks(document, "python")
    assert programs

    for number, program in enumerate(programs):
        script = tmp_path / f"program{number}.py"
        script.write_text(program)
        printed = bash(f"python {script}", tmp_path)

        assert printed.strip()


@pytest.mark.parametrize("document", [each for each in with_blocks("bash") if each != "README.md"])
def test_the_commands_of_a_document_can_be_pasted_one_block_after_another(document: str, tmp_path: Path) -> None:
    """In one shell, in the order of the page; none of them fails."""
    script = "set -e\n" + "\n".join(blocks(document, "bash"))

    assert "Traceback" not in bash(script, tmp_path)


@pytest.mark.parametrize("document", with_blocks("sh"))
def test_commands_that_need_what_a_test_has_not_are_at_least_commands(document: str) -> None:
    """The shell can read them; every ``nova`` among them is a command with those options; every script is there."""
    for script in blocks(document, "sh"):
        subprocess.run(["bash", "-n", "-c", script], check=True)
        for line in script.splitlines():
            words = shlex.split(line, comments=True)
            while words and "=" in words[0]:
                words = words[1:]
            if words[:1] == ["nova"]:
                command = words[1 : next((place for place, word in enumerate(words) if word in _ENDS), len(words))]
                assert_is_command(command)
            elif words and words[0].startswith("deploy/"):
                assert os.access(ROOT / words[0], os.X_OK), words[0]


def assert_is_command(words: list[str]) -> None:
    """Parse a command as ``nova`` would, without running it."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("nova", ["--tenant", "t", *words])
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)


def test_the_documents_make_a_site(tmp_path: Path) -> None:
    """MkDocs in strict mode: no link, anchor or page of the menu leads nowhere."""
    mkdocs = Path(sys.executable).parent / "mkdocs"
    done = subprocess.run(
        [mkdocs, "build", "--quiet", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "how-to" / "deploy" / "index.html").exists()


def test_every_page_is_in_the_menu() -> None:
    """A page that nobody can find is not there."""
    menu = (ROOT / "mkdocs.yml").read_text()
    pages = [str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")]

    assert [page for page in pages if f": {page}\n" not in menu] == []


def test_the_tour_of_the_readme_can_be_pasted(tmp_path: Path) -> None:
    """Its lines run one after another: the first run completes, the small one is parked and then completes."""
    (tour,) = [code for code in blocks("README.md", "bash") if "run-id tour" in code]
    lines = [line for line in tour.splitlines() if not line.startswith(("make ", "export NOVA_DATA_DIR"))]

    printed = bash("\n".join(lines), tmp_path)

    assert "run tour is completed" in printed
    assert "run 'small' waits for budget" in printed
    assert "run small is completed" in printed


def test_the_managed_services_of_the_readme_are_chosen_by_their_variables_alone(
    postgres_server: PostgresServer, valkey: ValkeyServer, tmp_path: Path
) -> None:
    """The passage as it stands, with the addresses of real servers: each has what it is said to have."""
    (passage,) = [code for code in blocks("README.md", "bash") if "run-id managed" in code]
    dsn = postgres_server.create_database("readme")
    with S3Server() as archive:
        addresses = {
            "REDIS_URL": valkey.url,
            "DATABASE_URL": dsn,
            "R2_ENDPOINT": archive.endpoint,
            "R2_BUCKET": archive.bucket,
            "R2_ACCESS_KEY_ID": archive.access_key_id,
            "R2_SECRET_ACCESS_KEY": archive.secret_access_key,
        }
        for name, value in addresses.items():
            passage = re.sub(rf"\b{name}=\S+", f"{name}={value}", passage)

        chosen_above = "export BUDGET_STORE=sqlite CHECKPOINT_STORE=sqlite IDEMPOTENCY_STORE=sqlite"
        printed = bash(f"set -e\n{chosen_above}\n{passage}", tmp_path)

    assert "..." not in passage
    assert "run managed is completed" in printed
    assert "purged 1 run with 14 checkpoints" in printed
    assert printed.rindex("notes/11") > printed.index("purged 1 run")
    assert postgres_server.execute("SELECT count(*) FROM nova_steps", database="readme") == [(0,)]
    assert not (tmp_path / "nova.db").exists()
    postgres_server.drop_database("readme")


def test_the_program_that_goes_on_may_be_started_again_after_its_end(tmp_path: Path) -> None:
    """The second start finds the run completed, and shows what the first one recorded."""
    program = blocks("docs/workflows.md", "python")[0]
    script = tmp_path / "digest.py"
    script.write_text(program)
    chosen = "export BUDGET_STORE=sqlite CHECKPOINT_STORE=sqlite IDEMPOTENCY_STORE=sqlite"

    first, second = (bash(f"{chosen}; python {script}", tmp_path) for _ in range(2))

    assert first.startswith("completed $0.0")
    assert second == f"completed {first.splitlines()[1]}\n"


def test_every_flow_in_the_documents_is_valid() -> None:
    """A flow is read as `nova run` reads it."""
    flows = blocks("docs/flows.md", "yaml")
    assert flows

    for flow in flows:
        assert parse_flow(flow, source="docs/flows.md").workflow().name == "brief"


def test_every_link_between_documents_leads_somewhere() -> None:
    """A file that a document names exists."""
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for name in re.findall(r"`((?:docs|deploy|examples|backend|benchmarks)/[\w./-]+\w)`", document.read_text()):
            assert (ROOT / name).exists(), f"{document.name} names {name}"
