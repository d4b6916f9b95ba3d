"""The price file: what it takes, and how it says what is wrong."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path

import pytest

from app.errors import ConfigurationError
from app.skills.pricing.price_file import read_price_file

FULL = """
models:
  "smollm2-135m":
    provider: anthropic
    input_usd_per_million: "0.10"
    output_usd_per_million: 0.2
    cache_read_usd_per_million: 0
    cache_write_usd_per_million: "0.125"
    cache_write_1h_usd_per_million: 1
    tiers:
      - {above_input_tokens: 1000, input_usd_per_million: 1, output_usd_per_million: 2}
      - {above_input_tokens: 2000, input_usd_per_million: 3, output_usd_per_million: 4}
  plain: {input_usd_per_million: 1, output_usd_per_million: 2}
"""


def write(tmp_path: Path, text: str) -> Path:
    """Write a price file."""
    file = tmp_path / "prices.yaml"
    file.write_bytes(text.encode())
    return file


def test_everything_that_a_price_has_can_be_written(tmp_path: Path) -> None:
    """Each field is read exactly, a float by its shortest form, and the version is the file's name and hash."""
    prices = read_price_file(write(tmp_path, FULL))

    full, plain = prices["smollm2-135m"], prices["plain"]
    assert full.provider == "claude"
    assert full.input_usd_per_million == Decimal("0.10")
    assert full.output_usd_per_million == Decimal("0.2")
    assert full.cache_read_usd_per_million == 0
    assert full.cache_write_usd_per_million == Decimal("0.125")
    assert full.cache_write_1h_usd_per_million == 1
    assert [(tier.above_input_tokens, tier.rates.input_usd_per_million) for tier in full.tiers] == [
        (1000, Decimal(1)),
        (2000, Decimal(3)),
    ]
    assert plain.provider is None
    assert plain.cache_read_usd_per_million is None
    assert full.version == plain.version
    assert full.version.startswith("file:prices.yaml@")
    assert len(full.version.rpartition("@")[2]) == 8


def test_another_content_is_another_version(tmp_path: Path) -> None:
    """The version on a cost tells which prices they were."""
    first = read_price_file(write(tmp_path, FULL))["plain"].version
    second = read_price_file(write(tmp_path, FULL + "# changed\n"))["plain"].version

    assert first != second


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("models: {", "is not valid YAML at line 1"),
        ("", "has no prices"),
        ("prices: {}", "has no prices"),
        ("models: {}", "has no prices"),
        ("models: [a]", "has no prices"),
        ("model: {}\nmodels: {m: {}}", "unknown field 'model'"),
        ("models: {m: 3}", "model 'm': must have fields"),
        ("models: {m: {output_usd_per_million: 1}}", "model 'm', field 'input_usd_per_million': is missing"),
        ("models: {m: {input_usd_per_million: 1}}", "model 'm', field 'output_usd_per_million': is missing"),
        ("models: {m: {input_usd_per_million: 1, output: 2}}", "model 'm': unknown field 'output'"),
        (
            "models: {m: {input_usd_per_million: cheap, output_usd_per_million: 1}}",
            "model 'm', field 'input_usd_per_million': 'cheap' is not a number",
        ),
        (
            "models: {m: {input_usd_per_million: true, output_usd_per_million: 1}}",
            "model 'm', field 'input_usd_per_million': True is not a number",
        ),
        (
            "models: {m: {input_usd_per_million: -1, output_usd_per_million: 1}}",
            "model 'm': input_usd_per_million must be",
        ),
        (
            "models: {m: {input_usd_per_million: .nan, output_usd_per_million: 1}}",
            "model 'm': input_usd_per_million must be",
        ),
        (
            "models: {m: {input_usd_per_million: 1, output_usd_per_million: 2000000}}",
            "model 'm': output_usd_per_million must be",
        ),
        (
            "models: {m: {provider: acme, input_usd_per_million: 1, output_usd_per_million: 1}}",
            "model 'm', field 'provider': 'acme' is unknown",
        ),
        (
            "models: {m: {input_usd_per_million: 1, output_usd_per_million: 1, tiers: 3}}",
            "model 'm', field 'tiers': must be a list",
        ),
        (
            "models: {m: {input_usd_per_million: 1, output_usd_per_million: 1, tiers: [{above_input_tokens: 0}]}}",
            "model 'm', tier 1, field 'above_input_tokens': must be a whole number of at least 1",
        ),
        (
            "models: {m: {input_usd_per_million: 1, output_usd_per_million: 1, tiers: [{above_input_tokens: 5}]}}",
            "model 'm', tier 1, field 'input_usd_per_million': is missing",
        ),
        (
            "models:\n  m: {input_usd_per_million: 1}\n  m: {input_usd_per_million: 2}\n",
            "line 3: 'm' is there twice",
        ),
        ("models: !!python/object/apply:os.system ['true']", "is not valid YAML"),
        ("models: \x00", "is not valid YAML"),
    ],
)
def test_what_is_wrong_is_said_with_file_model_and_field(tmp_path: Path, text: str, says: str) -> None:
    """A file that is not a price list is refused, with the place and what to write."""
    file = write(tmp_path, text)

    with pytest.raises(ConfigurationError) as caught:
        read_price_file(file)

    assert says in str(caught.value)
    assert str(file) in str(caught.value)
    assert caught.value.variable == "NOVA_PRICES_FILE"


def test_tiers_must_rise(tmp_path: Path) -> None:
    """A tier that begins below the one before could never apply, so it is a mistake."""
    tier = "{above_input_tokens: 5, input_usd_per_million: 1, output_usd_per_million: 1}"
    text = f"models: {{m: {{input_usd_per_million: 1, output_usd_per_million: 1, tiers: [{tier}, {tier}]}}}}"

    with pytest.raises(ConfigurationError, match="tier 2, field 'above_input_tokens': must be above the tier before"):
        read_price_file(write(tmp_path, text))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing file, a directory and a file of another kind give one clear error each."""
    with pytest.raises(ConfigurationError, match=r"missing\.yaml' cannot be read: No such file"):
        read_price_file(tmp_path / "missing.yaml")
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        read_price_file(tmp_path)
    with pytest.raises(ConfigurationError, match="is not valid YAML"):
        read_price_file(_binary(tmp_path))


def _binary(tmp_path: Path) -> Path:
    file = tmp_path / "binary"
    file.write_bytes(b"\x80\x81models")
    return file


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """What is no regular file is refused at once, whether somebody writes to it or not."""
    pipe = tmp_path / "prices.yaml"
    os.mkfifo(pipe)

    for path in (pipe, tmp_path, Path("/dev/null")):
        with pytest.raises(ConfigurationError, match=r"regular file|directory"):
            read_price_file(path)


def test_a_home_that_nobody_knows_is_refused() -> None:
    """``~`` with a name that is no user's is no path."""
    with pytest.raises(ConfigurationError, match=r"NOVA_PRICES_FILE.*'~' stands for"):
        read_price_file(Path("~nobody-has-this-name/prices.yaml"))


@pytest.mark.parametrize("text", ["[" * 3_000, "{a: " * 3_000, "models: " + "[" * 3_000 + "]" * 3_000])
def test_a_deeply_nested_file_is_refused(tmp_path: Path, text: str) -> None:
    """It is not read to the end of the stack."""
    with pytest.raises(ConfigurationError, match="nested too deeply"):
        read_price_file(write(tmp_path, text))
