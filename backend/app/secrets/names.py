"""Which secrets there are, and where each lies in Vault."""

from __future__ import annotations

from typing import Final

__all__ = ["FIELDS", "NOT_SECRET", "VAULT_SECRETS", "vault_secret_of"]

VAULT_SECRETS: Final[dict[str, tuple[str, ...]]] = {
    "anthropic": ("anthropic_api_key",),
    "openai": ("openai_api_key",),
    "neon": ("database_url",),
    "upstash": ("redis_url",),
    "r2": ("r2_endpoint", "r2_bucket", "r2_access_key_id", "r2_secret_access_key"),
}
"""The fields of ``Settings`` that each secret of Vault holds; its keys there are the variables, in capitals."""

FIELDS: Final[tuple[str, ...]] = tuple(field for fields in VAULT_SECRETS.values() for field in fields)
"""Every field of ``Settings`` that a file or Vault may fill."""

NOT_SECRET: Final = frozenset({"r2_endpoint", "r2_bucket"})
"""Fields that lie beside secrets and may be shown."""


def vault_secret_of(field: str) -> str:
    """Return the name of the secret in Vault that holds a field."""
    return next(secret for secret, fields in VAULT_SECRETS.items() if field in fields)
