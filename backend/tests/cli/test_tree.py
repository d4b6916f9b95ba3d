"""The command tree: every command explains itself, quickly, and the reference knows it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli.tree import app

from .harness import Nova

_REFERENCE = Path(__file__).resolve().parents[3] / "docs" / "cli.md"
_HEAVY = (
    "anthropic",
    "asyncio",
    "genai_prices",
    "jinja2",
    "openai",
    "prometheus_client",
    "pydantic",
    "pydantic_settings",
    "sqlite3",
    "yaml",
    "zstandard",
)


def _commands() -> Iterator[tuple[str, ...]]:
    for command in app.registered_commands:
        yield (str(command.name),)
    for group in app.registered_groups:
        assert group.typer_instance is not None
        for command in group.typer_instance.registered_commands:
            yield (str(group.name), str(command.name))


@pytest.mark.parametrize("command", list(_commands()), ids=" ".join)
def test_every_command_explains_itself_with_an_example(nova: Nova, command: tuple[str, ...]) -> None:
    """The help of a command renders, has an example that names it, and is in the reference."""
    help_text = nova(*command, "--help").check().out

    plain = " ".join(help_text.split())
    assert f"Example: nova {' '.join(command)}" in plain
    assert "<bool>" not in plain
    assert f"`nova {' '.join(command)}" in _REFERENCE.read_text()


@pytest.mark.parametrize("arguments", [(), ("runs",), ("budget",), ("db",)], ids=lambda each: " ".join(each) or "nova")
def test_a_group_without_a_command_shows_its_help(nova: Nova, arguments: tuple[str, ...]) -> None:
    """Asking for nothing is answered with what there is, as a usage error."""
    shown = nova(*arguments)

    assert shown.code == 2
    assert "Commands" in shown.out + shown.err


def test_help_loads_nothing_heavy() -> None:
    """The tree is built without a driver, an SDK, pydantic or asyncio, so that help is there at once."""
    code = f"import sys, app.cli.tree; print([name for name in {_HEAVY!r} if name in sys.modules])"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert loaded.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ("runs", "lst"),
        ("nonsense",),
        ("runs", "show"),
        ("runs", "list", "--limit", "0"),
        ("runs", "list", "--status", "gone"),
        ("budget", "set", "tenant", "$1", "--window", "week"),
        ("resume",),
        ("resume", "tour", "--all"),
        ("resume", "--all", "--steal"),
        ("resume", "tour", "--deadline", "soon"),
        ("ask", "hello", "--max-tokens", "0"),
        ("runs", "delete", "tour"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_a_usage_error(nova: Nova, arguments: tuple[str, ...]) -> None:
    """What cannot be meant ends with exit code 2 and a sentence, before any store is touched."""
    shown = nova(*arguments)

    assert shown.code == 2
    assert shown.out == ""
    assert "Traceback" not in shown.err
    assert shown.err.strip()


def test_a_global_option_behind_its_command_is_told_where_it_stands(nova: Nova) -> None:
    """Where people write it first."""
    shown = nova("run", "flow.yaml", "--tenant", "acme")

    assert shown.code == 2
    assert "stands before the command: nova --tenant ... run ..." in " ".join(shown.err.replace("│", " ").split())


def test_the_version_is_told_for_people_and_for_programs(nova: Nova) -> None:
    """Both forms name Nova, Python and SQLite."""
    document = nova("version", "--json").check().json
    text = nova("version").check().out

    assert set(document) == {"nova", "python", "sqlite"}
    assert all(version in text for version in document.values())
