"""Forty secrets that the tests use as keys, passwords and tokens, so that one that gets out of Nova is recognised.

Each looks like what its place takes (``sk-ant-...``, ``ghp_...``), and each has a core that no other text has, with
nothing in it that quoting changes. ``tests.support.searched`` looks for them in all that a run of the tests leaves.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import Final

__all__ = ["AMBIENT", "MARK", "NAMES", "core", "planted"]

MARK: Final = os.environ.get("PLANTED_MARK", "Plt7Qz")
"""How every core begins; the variable gives a run of pytest inside of a test secrets of its own."""

_SHAPES: Final = {
    # What the fake providers take, refuse and quote.
    "provider.key": "sk-ant-api03-{}",
    "provider.wrong_key": "sk-wrong-{}",
    "provider.echoed_key": "sk-very-secret-{}",
    "provider.url_password": "{}",
    "provider.url_parameter": "{}",
    "provider.first_key": "sk-proj-first-{}",
    "provider.second_key": "sk-proj-second-{}",
    "provider.old_key": "sk-ant-old-{}",
    "provider.new_key": "sk-ant-new-{}",
    "provider.chosen_key": "sk-test-{}",
    "provider.other_key": "sk-other-{}",
    "provider.wordlike_key": "correct{}",
    # What is rotated under load.
    "rotation.key_1": "sk-test-rotated-1-{}",
    "rotation.key_2": "sk-test-rotated-2-{}",
    "rotation.password_1": "the-first-{}",
    "rotation.password_2": "the-second-{}",
    # Redis, PostgreSQL, the archive.
    "redis.password": "tops3cret{}",
    "redis.refused_password": "refused-{}",
    "redis.parsed_password": "tops3cret-{}",
    "postgres.password": "hunter2-{}",
    "postgres.parsed_password": "hunter2-s3cr3t-{}",
    "stores.secret": "hunter2-s3cr3t{}",
    "archive.access_key_id": "{}",
    "archive.secret_access_key": "{}",
    "archive.wrong_secret": "not-the-secret-{}",
    "archive.url_password": "s3cret-{}",
    # Where secrets come from: arguments, variables, files, Vault and its logins.
    "chain.argument": "key-of-argument-{}",
    "chain.environment": "key-of-environment-{}",
    "chain.file": "key-of-file-{}",
    "chain.vault": "key-of-vault-{}",
    "vault.database_password": "password-1-{}",
    "vault.redis_password": "password-2-{}",
    "vault.token": "nova-{}",
    "vault.secret_id": "{}",
    "vault.refused_token": "not-a-token-{}",
    "vault.refused_secret_id": "nothing-known-{}",
    "doctor.key": "sk-ant-of-doctor-{}",
    # What is none of Nova's business and lies in its environment all the same.
    "ambient.PGPASSWORD": "pg-{}",
    "ambient.AWS_SECRET_ACCESS_KEY": "aws/{}+",
    "ambient.GITHUB_TOKEN": "ghp_{}",
}
NAMES: Final = tuple(_SHAPES)
"""What the secrets are called; the place of a name in here is in the core of its secret."""


def core(name: str) -> str:
    """Return the part of a secret that is looked for: :data:`MARK`, its place in :data:`NAMES`, and letters."""
    return f"{MARK}{NAMES.index(name):02}{blake2b(f'{MARK}/{name}'.encode(), digest_size=8).hexdigest()}"


def planted(name: str) -> str:
    """Return the secret of this name, the same in every process of a run.

    Raises:
        KeyError: there is none of this name.
    """
    return _SHAPES[name].format(core(name))


AMBIENT: Final = {
    name.partition(".")[2]: _SHAPES[name].format(core(name)) for name in NAMES if name.startswith("ambient.")
}
"""Variables of the environment of every test, and so of every process that a test starts with its own."""
