"""Which place each secret is taken from, by what the settings say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.errors import ConfigurationError
from app.redaction import know
from app.secrets.names import FIELDS, NOT_SECRET, VAULT_SECRETS

if TYPE_CHECKING:
    from pathlib import Path

    from app.secrets.rotating import RotatingCredential
    from app.secrets.vault import VaultConfig
    from app.settings import Settings

__all__ = ["has_vault", "rotating_secrets"]


def rotating_secrets(settings: Settings) -> dict[str, RotatingCredential]:
    """Return, by field, the secrets that the environment does not hold: those of files, then those of Vault.

    A secret of Vault is read only if the environment and files lack one of its fields.

    Raises:
        ConfigurationError: a file cannot be read, or NOVA_VAULT_SECRETS names what there is not.
        SecretsUnavailableError: Vault cannot be read, and was not before.
    """
    files: dict[str, Path] = {}
    missing: set[str] = set()
    for name in FIELDS:
        value = settings.plain(name)
        path: Path | None = getattr(settings, f"{name}_file")
        if value is not None:
            if name not in NOT_SECRET:
                know(value)
        elif path is not None:
            files[name] = path
        else:
            missing.add(name)
    vault = _vault(settings) if missing else None
    if not files and vault is None:
        return {}
    from app.secrets.keeper import keeper

    keep = keeper()
    keep.refresh_every(settings.nova_secrets_refresh_s)
    found = {name: keep.from_file(name, path) for name, path in files.items()}
    if vault is not None:
        secrets = [secret for secret in _wanted(settings) if not missing.isdisjoint(VAULT_SECRETS[secret])]
        held = keep.from_vault(vault, secrets)
        found |= {name: credential for name, credential in held.items() if name in missing}
    return found


def has_vault(settings: Settings) -> bool:
    """Whether Vault is asked: an address is set, and a login."""
    has_login = settings.vault_token or settings.vault_token_file or settings.vault_role_id
    return settings.vault_addr is not None and bool(has_login)


def _vault(settings: Settings) -> VaultConfig | None:
    if settings.vault_addr is None or not has_vault(settings):
        return None
    from app.secrets.vault import VaultConfig

    token, role_id, secret_id = (
        None if secret is None else secret.get_secret_value()
        for secret in (settings.vault_token, settings.vault_role_id, settings.vault_secret_id)
    )
    return VaultConfig(
        url=settings.vault_addr.rstrip("/"),
        mount=settings.nova_vault_mount.strip("/"),
        path=settings.nova_vault_path.strip("/"),
        token=token,
        token_file=settings.vault_token_file,
        role_id=role_id,
        secret_id=secret_id,
        secret_id_file=settings.vault_secret_id_file,
        approle_mount=settings.nova_vault_approle_mount.strip("/"),
        namespace=settings.vault_namespace,
        ca_certificate=settings.vault_cacert,
    )


def _wanted(settings: Settings) -> list[str]:
    names = [name.strip() for name in settings.nova_vault_secrets.split(",") if name.strip()]
    unknown = sorted(set(names) - set(VAULT_SECRETS))
    if unknown:
        raise ConfigurationError(
            f"NOVA_VAULT_SECRETS names {', '.join(map(repr, unknown))}; known are {', '.join(VAULT_SECRETS)}",
            variable="NOVA_VAULT_SECRETS",
        )
    return names
