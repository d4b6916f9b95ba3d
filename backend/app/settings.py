"""Settings: the only reader of the environment.

Nothing is read at import. ``load_settings()`` reads the variables once more at each call; a factory that is given none
calls it. An empty variable counts as unset.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import AfterValidator, Field, PrivateAttr, SecretStr, ValidationError, field_serializer
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.credentials import fixed
from app.errors import ConfigurationError
from app.redaction import redact
from app.secrets.names import NOT_SECRET
from app.secrets.rotating import RotatingCredential
from app.secrets.standing import Standing

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from app.credentials import CredentialSource

__all__ = ["DATABASE_FILE", "Settings", "load_settings"]

DATABASE_FILE: Final = "nova.db"
"""The name of the SQLite file inside the data directory."""


def _lower(text: str) -> str:
    return text.strip().lower()


Name = Annotated[str, AfterValidator(_lower)]


class Settings(BaseSettings):
    """What the environment says. Field names are the variables' names in lower case."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True, populate_by_name=True
    )

    env: Name = "development"

    budget_store: Name | None = None
    idempotency_store: Name | None = None
    checkpoint_store: Name | None = None
    redis_url: SecretStr | None = None
    nova_redis_pool_size: int = Field(default=50, ge=1, le=10_000)
    nova_redis_timeout_s: float = Field(default=5.0, gt=0, le=300)
    database_url: SecretStr | None = None
    nova_data_dir: Path | None = None
    nova_auto_migrate: bool = True
    nova_postgres_pool_size: int = Field(default=16, ge=1, le=10_000)
    nova_postgres_timeout_s: float = Field(default=30.0, gt=0, le=300)
    nova_debug: bool = False

    llm_adapter: Name = "claude"
    anthropic_api_key: SecretStr | None = None
    openai_api_key: SecretStr | None = None
    anthropic_default_model: str | None = None
    openai_default_model: str | None = None
    anthropic_base_url: str | None = None
    openai_base_url: str | None = None
    llm_fallback: str | None = None
    llm_breaker_failures: int = Field(default=10, ge=0)
    llm_breaker_open_s: float = Field(default=30.0, gt=0)
    llm_max_concurrency: int | None = Field(default=None, ge=1)
    llm_max_rpm: int | None = Field(default=None, ge=1)

    nova_log_format: Literal["auto", "json", "text"] = "auto"
    nova_log_level: Literal["debug", "info", "warning", "error"] = "warning"
    nova_metrics_port: int | None = Field(default=None, ge=0, le=65535)
    nova_metrics_host: str = "127.0.0.1"
    nova_metrics_textfile: Path | None = None

    nova_prices_file: Path | None = None
    nova_unknown_price: str = "deny"
    nova_cut_stream: Literal["hold", "estimate"] = "hold"

    r2_endpoint: str | None = None
    r2_bucket: str | None = None
    r2_access_key_id: SecretStr | None = None
    r2_secret_access_key: SecretStr | None = None
    nova_archive_dir: Path | None = None
    checkpoint_offload_older_than_days: int = Field(default=3, ge=0)
    checkpoint_retention_days: int = Field(default=7, ge=0)

    # Where a secret is that is not in the environment itself: a file, or Vault.
    anthropic_api_key_file: Path | None = None
    openai_api_key_file: Path | None = None
    database_url_file: Path | None = None
    redis_url_file: Path | None = None
    r2_endpoint_file: Path | None = None
    r2_bucket_file: Path | None = None
    r2_access_key_id_file: Path | None = None
    r2_secret_access_key_file: Path | None = None
    vault_addr: str | None = None
    vault_token: SecretStr | None = None
    vault_token_file: Path | None = None
    vault_role_id: SecretStr | None = None
    vault_secret_id: SecretStr | None = None
    vault_secret_id_file: Path | None = None
    vault_namespace: str | None = None
    vault_cacert: Path | None = None
    nova_vault_mount: str = "secret"
    nova_vault_path: str = "user"
    nova_vault_approle_mount: str = "approle"
    nova_vault_secrets: str = "anthropic,openai,neon,upstash,r2"
    nova_secrets_refresh_s: float = Field(default=30, ge=1, le=3600)

    _rotating: dict[str, RotatingCredential] = PrivateAttr(default_factory=dict)
    """What files and Vault filled, by field: the field has the value of the moment, this the one that is kept fresh."""

    @field_serializer("anthropic_base_url", "openai_base_url", "r2_endpoint", "vault_addr")
    def _without_password(self, url: str | None) -> str | None:
        """An address may have a password in it, which a dump of the settings must not show."""
        return None if url is None else redact(url)

    def __repr_args__(self) -> Iterator[tuple[str | None, object]]:
        for name, value in super().__repr_args__():
            yield name, redact(value) if isinstance(value, str) else value

    @property
    def production(self) -> bool:
        """Whether implicit fallbacks are refused."""
        return self.env in {"prod", "production"}

    @property
    def data_dir(self) -> Path:
        """The directory of embedded state: ``NOVA_DATA_DIR``, else the user's data directory.

        Raises:
            ConfigurationError: it is blank, or below the home directory of nobody.
        """
        if self.nova_data_dir is not None:
            return _at_home(self.nova_data_dir, "NOVA_DATA_DIR")
        from platformdirs import user_data_path

        return user_data_path("nova", appauthor=False)

    @property
    def database_file(self) -> Path:
        """The SQLite file: the path in a ``sqlite:///`` ``DATABASE_URL``, else ``nova.db`` in the data directory.

        Raises:
            ConfigurationError: the URL names no file, or its path is one that ``data_dir`` could not be either.
        """
        url = self.database_url.get_secret_value() if self.database_url else ""
        scheme, _, rest = url.partition(":")
        if scheme.lower() != "sqlite":
            return self.data_dir / DATABASE_FILE
        path = rest.removeprefix("///")
        if path in {rest, "", ":memory:"} or "?" in path:
            raise ConfigurationError(
                "DATABASE_URL must name a file and nothing else: sqlite:///relative/path.db or "
                "sqlite:////absolute/path.db (to keep state in memory only, set BUDGET_STORE=memory and so on)",
                variable="DATABASE_URL",
            )
        return _at_home(Path(path), "DATABASE_URL")

    def with_changes(self, **changes: object) -> Settings:
        """Return a copy in which the named fields have other values."""
        changed = self.model_copy(update=changes)
        kept = {name: source for name, source in self._rotating.items() if name not in changes}
        changed._rotating = kept  # noqa: SLF001 - of the same class
        return changed

    def with_rotating(self, sources: Mapping[str, RotatingCredential]) -> Settings:
        """Return a copy whose named secrets come from these sources, and have their values of now."""
        if not sources:
            return self
        values = {name: source().reveal() for name, source in sources.items()}
        filled = self.model_copy(
            update={name: value if name in NOT_SECRET else SecretStr(value) for name, value in values.items()}
        )
        filled._rotating = dict(sources)  # noqa: SLF001 - of the same class
        return filled

    def credential(self, field: str) -> CredentialSource | None:
        """Return the source of a secret; None where there is none. It is kept fresh where a file or Vault has it.

        Args:
            field: one of ``app.secrets.FIELDS``, such as ``redis_url``.
        """
        if field in self._rotating:
            return self._rotating[field]
        value = self.plain(field)
        return None if value is None else fixed(value)

    def identity_of(self, field: str) -> object:
        """Return what tells two sources of a secret apart: what keeps it fresh, else a digest; None without one."""
        value = self.plain(field)
        if field in self._rotating or value is None:
            return self._rotating.get(field)
        return sha256(value.encode(errors="replace")).hexdigest()

    def standing(self, field: str) -> Standing | None:
        """Return where a secret comes from, never its value; None where there is none."""
        from app.secrets import Standing, keeper

        if field in self._rotating:
            return keeper().standing(self._rotating[field])
        value = self.plain(field)
        if value is None:
            return None
        here = Settings().plain(field) == value
        return Standing(variable=field.upper(), origin="environment" if here else "argument")

    def plain(self, field: str) -> str | None:
        """Return a secret itself, as it was when the settings were read."""
        value: SecretStr | str | None = getattr(self, field)
        return value.get_secret_value() if isinstance(value, SecretStr) else value


def load_settings() -> Settings:
    """Read the environment, and the secrets that are in files or in Vault instead.

    A secret is taken from the environment, else from the file that ``<NAME>_FILE`` names, else from Vault where
    ``VAULT_ADDR`` and a login are set. What was read from files and Vault once is not read again here, but kept fresh
    by a thread; the first reading takes as long as Vault does.

    Raises:
        ConfigurationError: a variable has a value that it cannot have; the text names it and never shows the value.
        SecretsUnavailableError: Vault is sealed, down or forbidding, and nothing was read from it before.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False, include_context=False)
    else:
        from app.secrets.chain import rotating_secrets

        return settings.with_rotating(rotating_secrets(settings))
    # Raised out here, because pydantic's error holds the rejected input, which may be a secret.
    texts = "; ".join(f"{_variable(problem)}: {problem['msg']}" for problem in problems)
    raise ConfigurationError(f"the environment is not valid: {texts}", variable=_variable(problems[0]))


def _at_home(path: Path, variable: str) -> Path:
    """Return a path whose ``~`` is replaced."""
    if not str(path).strip():
        raise ConfigurationError(f"{variable} is blank; name a path, or leave it out", variable=variable)
    try:
        return path.expanduser()
    except RuntimeError:
        raise ConfigurationError(
            f"{variable} begins with {path.parts[0]!r}, whose home directory is not known; write the path out",
            variable=variable,
        ) from None


def _variable(problem: ErrorDetails) -> str:
    return str(problem["loc"][0]).upper()
