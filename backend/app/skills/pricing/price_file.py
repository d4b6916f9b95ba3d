"""The price file: prices of a user's own models, or prices that replace the published ones.

::

    models:
      smollm2-135m:
        provider: openai                        # optional: the adapter that calls it
        input_usd_per_million: "0.10"
        output_usd_per_million: "0.20"
        cache_read_usd_per_million: "0.01"      # optional, as are cache_write_ and cache_write_1h_usd_per_million
        tiers:                                  # optional
          - above_input_tokens: 200000
            input_usd_per_million: "0.20"
            output_usd_per_million: "0.40"
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from app.errors import ConfigurationError, InvalidInputError
from app.skills.pricing.rates import ModelPrice, PriceTier, Rates

if TYPE_CHECKING:
    import yaml

__all__ = ["read_price_file"]

MAX_FILE_BYTES: Final = 4 * 1024 * 1024

_VARIABLE: Final = "NOVA_PRICES_FILE"
_RATES: Final = (
    "input_usd_per_million",
    "output_usd_per_million",
    "cache_read_usd_per_million",
    "cache_write_usd_per_million",
    "cache_write_1h_usd_per_million",
)
_REQUIRED: Final = _RATES[:2]
_PROVIDERS: Final = {"claude": "claude", "anthropic": "claude", "openai": "openai", "stub": "stub"}


def read_price_file(path: Path) -> dict[str, ModelPrice]:
    """Return the prices in a file, by model.

    Raises:
        ConfigurationError: it cannot be read, is not YAML, or says something that is not a price; the text names the
            file, the model and the field.
    """
    content = _content(path)
    document = _parsed(path, content)
    models = document.get("models") if isinstance(document, dict) else None
    if not isinstance(models, dict) or not models:
        _refuse(path, "has no prices: it must begin with 'models:' and name at least one model")
    _only_known(path, "the top level", document, ("models",))
    version = f"file:{path.name}@{hashlib.sha256(content).hexdigest()[:8]}"
    return {str(model): _model_price(path, str(model), entry, version) for model, entry in models.items()}


def _content(path: Path) -> bytes:
    """Read the file, if it is one: a pipe would be waited for, and a device need not end."""
    try:
        with os.fdopen(os.open(path.expanduser(), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                _refuse(path, "is not a regular file")
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        _refuse(path, f"cannot be read: {error.strerror or error}")
    except RuntimeError:
        _refuse(path, "cannot be read: '~' stands for the home of a user that is not known; write the whole path")
    if len(content) > MAX_FILE_BYTES:
        _refuse(path, f"is too large; a price file has at most {MAX_FILE_BYTES} bytes")
    return content


def _parsed(path: Path, content: bytes) -> Any:
    import yaml

    try:
        return yaml.load(content, Loader=_strict_loader())  # noqa: S506 - the loader is a SafeLoader
    except RecursionError:
        _refuse(path, "is nested too deeply")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        _refuse(path, f"is not valid YAML{where}: {getattr(error, 'problem', None) or error}")


def _strict_loader() -> type[yaml.SafeLoader]:
    """Return a safe loader that refuses a key written twice: of two prices of one model neither can be meant."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
            seen: set[str] = set()
            for key, _ in node.value:
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
                seen.add(key.value)
            return super().construct_mapping(node, deep=deep)

    return Loader


def _model_price(path: Path, model: str, entry: object, version: str) -> ModelPrice:
    where = f"model {model!r}"
    fields = _mapping(path, where, entry)
    _only_known(path, where, fields, ("provider", *_RATES, "tiers"))
    return ModelPrice(
        provider=_provider(path, where, fields.get("provider")),
        model=model,
        rates=_rates(path, where, fields),
        tiers=_tiers(path, where, fields.get("tiers", [])),
        source="file",
        version=version,
    )


def _provider(path: Path, where: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or value.lower() not in _PROVIDERS:
        _refuse(path, f"{where}, field 'provider': {value!r} is unknown; use one of {', '.join(sorted(_PROVIDERS))}")
    return _PROVIDERS[value.lower()]


def _tiers(path: Path, where: str, value: object) -> tuple[PriceTier, ...]:
    if not isinstance(value, list):
        _refuse(path, f"{where}, field 'tiers': must be a list")
    tiers: list[PriceTier] = []
    for number, entry in enumerate(value, start=1):
        place = f"{where}, tier {number}"
        fields = _mapping(path, place, entry)
        _only_known(path, place, fields, ("above_input_tokens", *_RATES))
        start = fields.get("above_input_tokens")
        if isinstance(start, bool) or not isinstance(start, int) or start < 1:
            _refuse(path, f"{place}, field 'above_input_tokens': must be a whole number of at least 1, not {start!r}")
        if tiers and start <= tiers[-1].above_input_tokens:
            _refuse(path, f"{place}, field 'above_input_tokens': must be above the tier before ({start} given)")
        tiers.append(PriceTier(above_input_tokens=start, rates=_rates(path, place, fields)))
    return tuple(tiers)


def _rates(path: Path, where: str, fields: Mapping[str, object]) -> Rates:
    for name in _REQUIRED:
        if fields.get(name) is None:
            _refuse(path, f"{where}, field {name!r}: is missing; write 0 for a free model")
    values = {name: _decimal(path, where, name, fields[name]) for name in _RATES if fields.get(name) is not None}
    try:
        return Rates(**values)
    except InvalidInputError as error:
        _refuse(path, f"{where}: {error}")


def _decimal(path: Path, where: str, name: str, value: object) -> Decimal:
    """Read a number exactly; one that YAML read as a float is taken by its shortest form, so 0.1 is a tenth."""
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise InvalidOperation
        return Decimal(str(value).strip())
    except InvalidOperation:
        _refuse(path, f"{where}, field {name!r}: {value!r} is not a number of dollars per million tokens")


def _mapping(path: Path, where: str, entry: object) -> Mapping[str, object]:
    if not isinstance(entry, dict) or not all(isinstance(key, str) for key in entry):
        _refuse(path, f"{where}: must have fields, such as input_usd_per_million")
    return entry


def _only_known(path: Path, where: str, fields: Mapping[str, object], known: tuple[str, ...]) -> None:
    unknown = sorted(set(fields) - set(known))
    if unknown:
        _refuse(path, f"{where}: unknown field {unknown[0]!r}; known are {', '.join(known)}")


def _refuse(path: Path, problem: str) -> NoReturn:
    raise ConfigurationError(f"{_VARIABLE}: the price file {str(path)!r} {problem}", variable=_VARIABLE) from None
