"""``nova prices``: what is shown is what is charged, and what a switch saves is computed from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from .harness import Nova


@pytest.fixture
def price_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give two models prices of their own."""
    path = tmp_path / "prices.yaml"
    path.write_text(
        "models:\n"
        '  dear: {provider: openai, input_usd_per_million: "10", output_usd_per_million: "30"}\n'
        '  cheap: {provider: openai, input_usd_per_million: "0.10", output_usd_per_million: "0.4"}\n'
        '  gratis: {provider: openai, input_usd_per_million: "0", output_usd_per_million: "0"}\n'
    )
    monkeypatch.setenv("NOVA_PRICES_FILE", str(path))


@pytest.mark.usefixtures("price_file")
def test_prices_are_those_of_the_book(nova: Nova) -> None:
    """Dollars per million tokens are shown exactly, with their source."""
    document = nova("prices", "dear", "cheap", "--json").check().json["prices"]
    table = nova("prices", "dear", "cheap").check().out

    assert [(each["model"], each["usd_per_million"]["input"], each["source"]) for each in document] == [
        ("dear", "10", "file"),
        ("cheap", "0.1", "file"),
    ]
    rows = {line.split()[0]: line.split() for line in table.splitlines() if " openai " in line}
    assert rows["dear"][2:4] == ["$10.00", "$30.00"]
    assert rows["cheap"][2:4] == ["$0.10", "$0.40"]


@pytest.mark.usefixtures("price_file")
def test_a_comparison_says_what_a_call_costs_and_what_switching_saves(nova: Nova) -> None:
    """100,000 tokens in and 10,000 out cost $1.30 and $0.014: switching saves $1.286, or 98.9 %."""
    arguments = ("prices", "dear", "cheap", "gratis", "--input-tokens", "100000", "--output-tokens", "10000")

    document = nova(*arguments, "--json").check().json
    table = nova(*arguments).check().out

    assert document["compared_with"] == "dear"
    assert [(each["cost"]["usd"], each["saves"]["usd"], each["saves_percent"]) for each in document["prices"]] == [
        ("1.3", "0", "0.0"),
        ("0.014", "1.286", "98.9"),
        ("0", "1.3", "100.0"),
    ]
    row = next(line.split() for line in table.splitlines() if "cheap" in line)
    assert row[2:] == ["$0.014", "$1.286", "98.9%"]


@pytest.mark.usefixtures("price_file")
def test_switching_to_a_dearer_model_saves_less_than_nothing(nova: Nova) -> None:
    """The sign says that it costs more; beside a free model there is no percentage."""
    dearer = nova("prices", "cheap", "dear", "--input-tokens", "1000", "--json").check().json["prices"][1]
    beside_free = nova("prices", "gratis", "cheap", "--input-tokens", "1000", "--json").check().json["prices"][1]

    assert dearer["saves"] == {"usd": "-0.0099", "microcents": -990_000}
    assert dearer["saves_percent"] == "-9900.0"
    assert beside_free["saves_percent"] is None


@pytest.mark.usefixtures("price_file")
def test_without_a_model_the_defaults_and_the_price_file_are_shown(nova: Nova) -> None:
    """The chosen adapter's default model is first; every model of the file is there."""
    models = [each["model"] for each in nova("prices", "--json").check().json["prices"]]

    assert models[0] == "stub-1"
    assert {"dear", "cheap", "gratis"} <= set(models)


def test_an_unpriced_model_is_an_error_of_its_own(nova: Nova) -> None:
    """Unknown is never shown as zero."""
    refused = nova("prices", "no-such-model", "--input-tokens", "5")

    assert (refused.code, refused.out) == (21, "")
    assert "'no-such-model'" in refused.err


def test_a_price_file_that_cannot_be_read_is_a_configuration_error(nova: Nova, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is named."""
    monkeypatch.setenv("NOVA_PRICES_FILE", "/nonexistent/prices.yaml")

    refused = nova("prices", "stub-1")

    assert refused.code == 3
    assert "NOVA_PRICES_FILE" in refused.err
