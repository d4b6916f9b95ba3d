"""Which backend the settings choose for each store, and why: used by the factories and shown by ``nova doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from app.errors import ConfigurationError

if TYPE_CHECKING:
    from app.settings import Settings

__all__ = ["Backend", "Choice", "StoreKind", "choose", "is_postgres"]

StoreKind = Literal["budget", "checkpoint", "idempotency"]
Backend = Literal["memory", "sqlite", "redis", "postgres"]

_ALLOWED: Final[dict[StoreKind, tuple[Backend, ...]]] = {
    "budget": ("redis", "sqlite", "memory"),
    "checkpoint": ("postgres", "sqlite", "memory"),
    "idempotency": ("redis", "sqlite", "memory"),
}
_REDIS_SCHEMES: Final = ("redis", "rediss")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A backend, and the sentence that says why; ``implicit`` where nobody asked for it."""

    kind: StoreKind
    backend: Backend
    reason: str
    implicit: bool


def choose(kind: StoreKind, settings: Settings) -> Choice:
    """Return the backend of a store.

    Raises:
        ConfigurationError: what was asked for cannot be met, or memory would be a silent fallback in production.
    """
    variable = f"{kind.upper()}_STORE"
    asked: str | None = getattr(settings, f"{kind}_store")
    if asked is None:
        choice = _detected(kind, settings)
    elif asked in _ALLOWED[kind]:
        choice = Choice(kind=kind, backend=asked, reason=f"{variable}={asked}", implicit=False)
    else:
        raise ConfigurationError(
            f"{variable}={asked!r} is unknown; use one of {', '.join(_ALLOWED[kind])}", variable=variable
        )
    _check_met(choice, settings, variable)
    return choice


def is_postgres(scheme: str) -> bool:
    """Whether a URL's scheme, in lower case, is one of PostgreSQL's."""
    return scheme in {"postgresql", "postgres"} or scheme.startswith("postgresql+")


def _detected(kind: StoreKind, settings: Settings) -> Choice:
    database = _scheme(settings, "database_url")
    if kind != "checkpoint" and settings.redis_url is not None:
        return Choice(kind=kind, backend="redis", reason="REDIS_URL is set", implicit=False)
    if database == "sqlite":
        return Choice(kind=kind, backend="sqlite", reason="DATABASE_URL is sqlite:///", implicit=False)
    if kind == "checkpoint" and database is not None:
        return Choice(kind=kind, backend="postgres", reason=f"DATABASE_URL is {database}://", implicit=False)
    return Choice(kind=kind, backend="memory", reason="nothing is configured", implicit=True)


def _check_met(choice: Choice, settings: Settings, variable: str) -> None:
    """Refuse a backend whose address is missing or of the wrong kind, and memory that nobody chose in production."""
    database = _scheme(settings, "database_url")
    if database is not None and not is_postgres(database) and database != "sqlite":
        raise ConfigurationError(
            f"DATABASE_URL has the scheme {database!r}; use postgresql://, postgres:// or sqlite:///path",
            variable="DATABASE_URL",
        )
    redis = _scheme(settings, "redis_url")
    if redis is not None and redis not in _REDIS_SCHEMES:
        raise ConfigurationError(f"REDIS_URL has the scheme {redis!r}; use redis:// or rediss://", variable="REDIS_URL")
    if choice.backend == "redis" and redis is None:
        raise ConfigurationError(
            f"{variable}=redis needs REDIS_URL (redis://host:6379/0 or rediss://...)", variable="REDIS_URL"
        )
    if choice.backend == "postgres" and (database is None or not is_postgres(database)):
        raise ConfigurationError(
            f"{variable}=postgres needs a DATABASE_URL that begins with postgresql:// or postgres://",
            variable="DATABASE_URL",
        )
    if choice.backend == "memory" and choice.implicit and settings.production:
        raise ConfigurationError(
            f"in production the {choice.kind} store does not fall back to memory: set "
            f"{_remedy(choice.kind, database)}, or {variable}=memory if losing it at every restart is what you want",
            variable="DATABASE_URL" if choice.kind == "checkpoint" else "REDIS_URL",
        )


def _remedy(kind: StoreKind, database: str | None) -> str:
    """Return what to set for a store that survives its process, beside a database that is set already."""
    if kind == "checkpoint":
        return "DATABASE_URL to postgresql://... or sqlite:////path/nova.db"
    if database is not None:
        return f"REDIS_URL, or {kind.upper()}_STORE=sqlite for a file on this host"
    return "REDIS_URL, or DATABASE_URL=sqlite:////path/nova.db for a file with all three stores"


def _scheme(settings: Settings, name: Literal["database_url", "redis_url"]) -> str | None:
    secret = getattr(settings, name)
    if secret is None:
        return None
    # Only what stands before "://" is a scheme; anything else may be part of a password and is not shown.
    scheme, found, _ = secret.get_secret_value().partition("://")
    if not found or not scheme.replace("+", "").isalnum():
        raise ConfigurationError(
            f"{name.upper()} is not a URL: it must begin with a scheme, such as "
            + ("redis://" if name == "redis_url" else "postgresql:// or sqlite:///"),
            variable=name.upper(),
        )
    return str(scheme.lower())
