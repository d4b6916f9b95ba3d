"""``nova models``: the table of models as people and programs read it."""

from __future__ import annotations

from app.skills.model_names import MODEL_NAMES

from .harness import Nova


def test_every_model_that_has_not_ended_is_listed(nova: Nova) -> None:
    """With all, those that have ended too; each has what a caller wants to know."""
    current = nova("models", "--json").check().json["models"]
    every = nova("models", "--all", "--json").check().json["models"]

    assert [each["model"] for each in every] == [name for names in MODEL_NAMES.values() for name in names]
    assert 40 < len(current) < len(every)
    sonnet = next(each for each in current if each["model"] == "claude-sonnet-5-5")
    assert sonnet["structured_output"] == "schema"
    assert sonnet["usd_per_million"] == {"input": "2", "output": "10"}
    assert sonnet["reasoning_efforts"] == ["low", "medium", "high", "xhigh", "max"]


def test_a_name_says_what_it_is_taken_for(nova: Nova) -> None:
    """Listed or not, with a provider in front or without; one that has ended too."""
    found = nova("models", "gpt-4", "claude:my-own", "smollm2-135m", "stub-1", "--json").check().json["models"]

    assert [(each["provider"], each["family"]) for each in found] == [
        ("openai", "gpt-4"),
        ("claude", "claude"),
        ("openai", "openai-compatible"),
        ("stub", "stub"),
    ]
    assert found[0]["ends"] == "2026-10-23"
    assert found[2]["usd_per_million"] is None


def test_the_table_fits_a_terminal_of_eighty_columns(nova: Nova) -> None:
    """Nothing is cut, and the name of every model that has not ended is in one piece."""
    shown, ended = nova("models").check().out, nova("models", "--all").check().out
    current = {each["model"] for each in nova("models", "--json").check().json["models"]}

    assert current <= {line.split()[0] for line in shown.splitlines() if line.strip()}
    assert max(map(len, [*shown.splitlines(), *ended.splitlines()])) <= 80


def test_a_provider_that_there_is_not(nova: Nova) -> None:
    """A usage error names those that there are."""
    refused = nova("models", "--provider", "gemini")

    assert refused.code == 2
    assert "claude, openai, stub" in refused.err
