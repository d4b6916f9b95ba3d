"""Secrets from files and from HashiCorp Vault or OpenBao, kept fresh while the process runs.

A secret is taken from the first of: an argument, the environment, the file that ``<NAME>_FILE`` names, Vault. The first
two never change in a process; files and Vault are looked at again every ``NOVA_SECRETS_REFRESH_S`` seconds, and at once
when a server rejects what was there. ``app.settings`` says which apply; nothing here reads the environment.
"""

from __future__ import annotations

from app.secrets.keeper import SecretKeeper, close_secrets, keeper
from app.secrets.names import FIELDS, VAULT_SECRETS, vault_secret_of
from app.secrets.rotating import RotatingCredential
from app.secrets.standing import Standing

__all__ = [
    "FIELDS",
    "VAULT_SECRETS",
    "RotatingCredential",
    "SecretKeeper",
    "Standing",
    "close_secrets",
    "keeper",
    "vault_secret_of",
]
