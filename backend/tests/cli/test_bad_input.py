"""Whatever a user gets wrong is told in one message with an exit code of its own, and nothing is recorded or spent."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from .harness import Nova, Result

GOOD = """\
name: brief
version: 1
inputs:
  documents: {type: documents}
steps:
  - id: notes
    map: documents
    as: document
    config: {max_tokens: 50, model: stub-1}
    prompt: "Take notes on {{ document.name }}: {{ document.text }}"
"""

Break = Callable[[Path], object]


def _fifty_megabytes(folder: Path) -> None:
    with (folder / "large.txt").open("wb") as file:
        file.truncate(50 * 1024 * 1024)


def _name_in_latin_1(folder: Path) -> None:
    (folder / os.fsdecode(b"caf\xe9.txt")).write_text("text")


def _no_documents(folder: Path) -> None:
    for document in folder.iterdir():
        document.unlink()


BAD_DOCUMENTS: dict[str, tuple[Break, str]] = {
    "unreadable": (lambda folder: (folder / "gone.txt").symlink_to(folder / "nowhere"), "gone.txt"),
    "binary": (lambda folder: (folder / "image.txt").write_bytes(b"\x89PNG\r\n\x00\x01"), "image.txt"),
    "not UTF-8": (lambda folder: (folder / "old.txt").write_bytes("café".encode("latin-1")), "old.txt"),
    "empty": (lambda folder: (folder / "empty.txt").touch(), "empty.txt"),
    "name not UTF-8": (_name_in_latin_1, r"caf\xe9.txt"),
    "50 MB": (_fifty_megabytes, "large.txt"),
    "empty folder": (_no_documents, "documents"),
}

BAD_FLOWS: dict[str, tuple[str, str]] = {
    "invalid YAML": (GOOD.replace("steps:", "steps: ["), "YAML"),
    "not a flow": ("- just\n- a list\n", "name"),
    "empty": ("", "empty"),
    "unknown skill": (GOOD.replace("    map:", "    skill: telepathy\n    map:"), "telepathy"),
    "unknown variable": (GOOD.replace("document.text", "dokument.text"), "dokument"),
    "sandbox escape": (GOOD.replace("document.text", "document.__class__.__mro__"), "brief.yaml"),
    "escape by a filter": (GOOD.replace("document.text", "document.text|attr('__class__')"), "brief.yaml"),
    "forbidden call": (GOOD.replace("document.text", "cycler.__init__.__globals__"), "brief.yaml"),
    "NUL byte": (GOOD + "\0", "brief.yaml"),
    "not a number": (GOOD.replace("max_tokens: 50", "max_tokens: .nan"), "brief.yaml:9:"),
    "loop over a text": (GOOD.replace("{{ document.name }}", "{% for x in document %}{% endfor %}"), "list"),
    "unknown key": (GOOD + "    temprature: 1\n", "temprature"),
}


@pytest.fixture
def run(nova: Nova, tmp_path: Path, documents: Path) -> Callable[..., Result]:
    """Run a flow's text over the documents as run ``tour``."""

    def call(text: str = GOOD, *options: str) -> Result:
        path = tmp_path / "brief.yaml"
        path.write_text(text)
        return nova("run", str(path), "--input", f"documents={documents}", "--run-id", "tour", *options)

    return call


def assert_told(result: Result, code: int, *words: str) -> None:
    """Check that there is one message with these words, and this exit code."""
    assert result.code == code, result.err
    assert result.out == ""
    assert result.err.count("error: ") == 1
    assert "Traceback" not in result.err
    for word in words:
        assert word in result.err


def assert_untouched(nova: Nova) -> None:
    """Check that no run was recorded, and nothing counted."""
    assert nova("runs", "list", "--json").check().json["runs"] == []
    assert nova("budget", "show", "--json").check().json["windows"] == []
    assert nova("budget", "holds", "--json").check().json["holds"] == []


@pytest.mark.parametrize(("spoil", "name"), BAD_DOCUMENTS.values(), ids=BAD_DOCUMENTS)
def test_a_bad_document_is_named_and_nothing_is_recorded(
    nova: Nova, run: Callable[..., Result], documents: Path, spoil: Break, name: str
) -> None:
    """One bad document among good ones refuses the run before it begins."""
    spoil(documents)

    refused = run()

    assert_told(refused, 5, name)
    assert_untouched(nova)


@pytest.mark.parametrize(("text", "word"), BAD_FLOWS.values(), ids=BAD_FLOWS)
def test_a_bad_flow_says_where_and_nothing_is_recorded(
    nova: Nova, run: Callable[..., Result], text: str, word: str
) -> None:
    """The file is checked as a whole before the run begins, templates and skills included."""
    refused = run(text)

    assert_told(refused, 6, word)
    assert_untouched(nova)


def test_a_flow_that_is_not_there_is_a_bad_flow(nova: Nova) -> None:
    """The path is named."""
    refused = nova("run", "/nonexistent/flow.yaml")

    assert_told(refused, 6, "/nonexistent/flow.yaml")


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        (("--input", "tone=dry"), 4, "tone"),
        (("--budget", "a lot"), 4, "a lot"),
        (("--run-id", "a\nb"), 4, "run"),
        (("--run-id", ""), 4, "run id is empty"),
        (("--deadline", "soon"), 2, "soon"),
        (("--input", "nonsense"), 2, "nonsense"),
    ],
    ids=["unknown input", "not an amount", "bad run id", "no run id", "not a duration", "not a pair"],
)
def test_a_bad_option_is_told_and_nothing_is_recorded(
    nova: Nova, run: Callable[..., Result], options: tuple[str, ...], code: int, word: str
) -> None:
    """Values are checked before the run begins."""
    refused = run(GOOD, *options)

    assert refused.code == code, refused.err
    assert word in refused.err
    assert "Traceback" not in refused.err
    assert_untouched(nova)


def test_a_missing_input_is_named(nova: Nova, run: Callable[..., Result]) -> None:
    """The flow's inputs are listed."""
    refused = run(GOOD.replace("steps:", "  topic: {type: string}\nsteps:"))

    assert_told(refused, 4, "'topic'", "documents, topic")
    assert_untouched(nova)


@pytest.mark.parametrize("path", ["", "  ", "~nobody-of-this-name/papers"])
def test_a_path_that_names_nothing_is_told_by_its_input(
    nova: Nova, tmp_path: Path, documents: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """An empty path does not read the current folder."""
    (tmp_path / "brief.yaml").write_text(GOOD)
    monkeypatch.chdir(documents)

    refused = nova("run", str(tmp_path / "brief.yaml"), "--input", f"documents={path}")

    assert_told(refused, 4, "documents")
    assert_untouched(nova)


def test_an_unpriced_model_under_a_limit_is_refused_before_its_call(nova: Nova, run: Callable[..., Result]) -> None:
    """The run fails with its own exit code; nothing was spent or held."""
    refused = run(GOOD.replace("stub-1", "no-such-model"), "--budget", "$1")

    assert_told(refused, 21, "no-such-model", "nova resume tour --reopen")
    holds = nova("budget", "holds", "--json").check().json["holds"]
    windows = nova("budget", "show", "run:tour", "--json").check().json["windows"]
    assert all((hold["state"], hold["charged"]["microcents"]) == ("released", 0) for hold in holds)
    assert all(window["spent"]["microcents"] == window["held"]["microcents"] == 0 for window in windows)


def test_an_error_for_a_program_is_one_document(run: Callable[..., Result]) -> None:
    """With --json standard output has the error as JSON, standard error the sentence."""
    refused = run("nonsense: [", "--json")

    assert refused.json["error"]["code"] == "ERR_WORKFLOW_DEFINITION"
    assert refused.json["error"]["exit_code"] == refused.code == 6
    assert refused.json["error"]["message"] in " ".join(refused.err.split())


def test_a_fault_is_one_line_and_its_place_is_shown_on_request(nova: Nova, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody expected has no traceback, unless NOVA_DEBUG asks for it."""
    from app.stores.checkpoint.sqlite import SqliteCheckpointStore

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(SqliteCheckpointStore, "list_runs", fail)
    told = nova("runs", "list")
    monkeypatch.setenv("NOVA_DEBUG", "1")
    debugged = nova("runs", "list")

    assert_told(told, 1, "ZeroDivisionError", "a fault of ours", "NOVA_DEBUG=1")
    assert debugged.code == 1
    assert "Traceback" in debugged.err


@pytest.mark.parametrize(
    ("variables", "word"),
    [
        ({"BUDGET_STORE": "redis"}, "REDIS_URL"),
        ({"CHECKPOINT_STORE": "papyrus"}, "CHECKPOINT_STORE"),
        ({"DATABASE_URL": "mysql://secret@host/db"}, "DATABASE_URL"),
        ({"LLM_ADAPTER": "parrot"}, "LLM_ADAPTER"),
        ({"NOVA_CUT_STREAM": "maybe"}, "NOVA_CUT_STREAM"),
        ({"ENV": "production"}, "production"),
        ({"NOVA_DATA_DIR": "  "}, "NOVA_DATA_DIR"),
        ({"NOVA_DATA_DIR": "~nobody-of-this-name/x"}, "NOVA_DATA_DIR"),
        ({"DATABASE_URL": "sqlite:///~nobody-of-this-name/x.db"}, "DATABASE_URL"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_bad_variable_is_a_configuration_error_that_names_it(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], word: str
) -> None:
    """The variable and the remedy are in the message, a secret never is."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    refused = run()

    assert_told(refused, 3, word)
    assert "secret" not in refused.err


def test_a_file_that_is_not_a_database_is_damage_and_stays_as_it_is(nova: Nova, tmp_path: Path) -> None:
    """A foreign file is refused untouched."""
    (tmp_path / "nova.db").write_text("my diary\n" * 1000)

    refused = nova("--data-dir", str(tmp_path), "runs", "list")

    assert_told(refused, 31, "nova.db")
    assert (tmp_path / "nova.db").read_text() == "my diary\n" * 1000


def test_a_directory_that_cannot_be_made_is_an_unavailable_store(nova: Nova, tmp_path: Path) -> None:
    """A data directory below a file is told as such."""
    (tmp_path / "file").write_text("in the way")

    refused = nova("--data-dir", str(tmp_path / "file" / "data"), "runs", "list")

    assert_told(refused, 30, "file")
