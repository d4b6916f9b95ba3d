"""Settings: the one reader of the environment, at each call and never at import."""

from __future__ import annotations

from pathlib import Path

import pytest

import app
from app.errors import ConfigurationError
from app.settings import Settings, load_settings


def test_the_environment_is_read_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that changes between two calls changes the settings."""
    before = load_settings()
    monkeypatch.setenv("OPENAI_DEFAULT_MODEL", "gpt-x")

    after = load_settings()

    assert before.openai_default_model is None
    assert after.openai_default_model == "gpt-x"


def test_defaults_are_the_promised_ones() -> None:
    """Without variables: development, Claude, archive after three days, removal after seven, unknown prices denied."""
    settings = load_settings()

    assert (settings.env, settings.production) == ("development", False)
    assert settings.llm_adapter == "claude"
    assert (settings.checkpoint_offload_older_than_days, settings.checkpoint_retention_days) == (3, 7)
    assert (settings.nova_unknown_price, settings.nova_cut_stream) == ("deny", "hold")
    assert {settings.budget_store, settings.checkpoint_store, settings.idempotency_store} == {None}


def test_settings_do_not_change() -> None:
    """Settings are a value: a field cannot be set, and ``with_changes`` gives a copy."""
    settings = load_settings()

    with pytest.raises(ValueError, match="frozen"):
        settings.env = "production"
    changed = settings.with_changes(env="production")

    assert settings.env == "development"
    assert changed.production


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CHECKPOINT_RETENTION_DAYS", "a week"),
        ("CHECKPOINT_RETENTION_DAYS", "-1"),
        ("CHECKPOINT_OFFLOAD_OLDER_THAN_DAYS", "1.5"),
        ("NOVA_CUT_STREAM", "maybe"),
        ("NOVA_REDIS_POOL_SIZE", "0"),
        ("NOVA_REDIS_TIMEOUT_S", "-3"),
        ("NOVA_REDIS_TIMEOUT_S", "inf"),
    ],
)
def test_a_value_that_a_variable_cannot_have_is_refused(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the variable, does not show the value, and holds nothing that does."""
    monkeypatch.setenv(variable, value)

    with pytest.raises(ConfigurationError) as caught:
        load_settings()

    assert caught.value.variable == variable
    assert variable in str(caught.value)
    assert value not in str(caught.value)
    assert caught.value.__context__ is None


def test_every_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two mistakes are told in one error."""
    monkeypatch.setenv("CHECKPOINT_RETENTION_DAYS", "x")
    monkeypatch.setenv("NOVA_CUT_STREAM", "x")

    with pytest.raises(ConfigurationError, match=r"NOVA_CUT_STREAM: .*CHECKPOINT_RETENTION_DAYS: "):
        load_settings()


def test_the_data_directory_is_the_users_unless_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``NOVA_DATA_DIR`` wins, a tilde is the home directory, and without it the platform's place is used."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))

    monkeypatch.setenv("NOVA_DATA_DIR", "~/state")
    named = load_settings().data_dir
    monkeypatch.delenv("NOVA_DATA_DIR")
    default = load_settings()

    assert named == tmp_path / "state"
    assert default.data_dir.is_relative_to(tmp_path)
    assert default.data_dir.name == "nova"
    assert default.database_file == default.data_dir / "nova.db"


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite:///a/b.db", "a/b.db"),
        ("sqlite:////a/b.db", "/a/b.db"),
        ("SQLITE:////a/b.db", "/a/b.db"),
    ],
)
def test_three_slashes_are_relative_and_four_absolute(url: str, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SQLite URL is read as everywhere else."""
    monkeypatch.setenv("DATABASE_URL", url)

    assert load_settings().database_file == Path(file)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("NOVA_DATA_DIR", "  "),
        ("NOVA_DATA_DIR", "~nobody-of-this-name/state"),
        ("DATABASE_URL", "sqlite:///  "),
        ("DATABASE_URL", "sqlite:///~nobody-of-this-name/state.db"),
    ],
)
def test_a_path_that_names_no_place_is_refused(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A blank path and the home directory of nobody are errors of the variable that names them."""
    monkeypatch.setenv(variable, value)

    with pytest.raises(ConfigurationError) as caught:
        _ = load_settings().database_file

    assert caught.value.variable == variable


def test_no_other_module_of_the_library_reads_the_environment() -> None:
    """Every variable is read in one place; the command line alone may look at those of its terminal."""
    (root,) = app.__path__
    words = ("os.environ", "os.getenv", "from os import environ", "from os import getenv")
    modules = [path.relative_to(root) for path in sorted(Path(root).rglob("*.py"))]

    readers = [module for module in modules if any(word in (Path(root) / module).read_text() for word in words)]

    assert len(modules) > 20
    assert [module for module in readers if module.parts[0] != "cli"] == []


def test_every_variable_is_in_the_example_environment() -> None:
    """``.env.example`` has a line for each setting, so that nobody has to read the code to find one."""
    example = (Path(__file__).parents[2] / ".env.example").read_text()

    missing = [name.upper() for name in Settings.model_fields if f"{name.upper()}=" not in example]

    assert missing == []
