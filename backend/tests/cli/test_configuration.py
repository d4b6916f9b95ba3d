"""Where the commands keep their state, and where the library does."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.cli.configuration import for_command_line
from app.errors import ConfigurationError
from app.settings import load_settings
from app.stores import get_budget_store, get_checkpoint_store
from app.stores.choice import choose


def test_with_nothing_set_the_commands_use_one_sqlite_file_and_the_library_memory(tmp_path: Path) -> None:
    """Only the command line turns an implicit memory into SQLite; the factories keep their promise."""
    settings = for_command_line(load_settings(), data_dir=tmp_path)

    assert type(get_checkpoint_store(settings)).__name__ == "SqliteCheckpointStore"
    assert settings.database_file == tmp_path / "nova.db"
    assert type(get_checkpoint_store()).__name__ == "InMemoryCheckpointStore"


def test_a_choice_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that somebody asked for stays memory; what nobody asked for becomes SQLite."""
    monkeypatch.setenv("BUDGET_STORE", "memory")

    settings = for_command_line(load_settings())

    assert type(get_budget_store(settings)).__name__ == "InMemoryBudgetStore"
    assert settings.checkpoint_store == "sqlite"


def test_a_data_directory_on_the_command_line_comes_before_the_variables(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """--data-dir was said last: it replaces NOVA_DATA_DIR and the file of a sqlite:/// URL."""
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/other.db")

    without = for_command_line(load_settings())
    with_option = for_command_line(load_settings(), data_dir=tmp_path / "mine")

    assert without.database_file == tmp_path / "other.db"
    assert with_option.database_file == tmp_path / "mine" / "nova.db"
    assert choose("checkpoint", with_option).backend == "sqlite"


def test_in_production_a_store_that_nobody_chose_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line does not invent a store where the library would refuse."""
    monkeypatch.setenv("ENV", "production")

    with pytest.raises(ConfigurationError, match="production"):
        for_command_line(load_settings())
