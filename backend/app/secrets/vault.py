"""HashiCorp Vault and OpenBao through hvac: logging in, staying logged in, and reading KV version 2."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from app.credentials import Credential
from app.errors import ConfigurationError, SecretsUnavailableError
from app.redaction import know

__all__ = ["Reading", "VaultConfig", "VaultReader"]

TIMEOUT_S: Final = 5.0
"""How long one request may take."""

RENEW_AT: Final = 2 / 3
"""The part of a login's life after which it is renewed, as Vault's own agent does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultConfig:
    """Where Vault is and how to log in: with a token, or as an AppRole.

    Attributes:
        url: such as ``https://vault:8200``.
        mount: the mount of the KV engine; ``data/`` belongs to the API and to neither mount nor path.
        path: the folder of the secrets: ``<mount>/data/<path>/anthropic``.
        token_file, secret_id_file: read anew at each login, because an agent or an operator may replace them.
        approle_mount: the mount of the AppRole method.
        namespace: of Vault Enterprise and OpenBao; None for the root.
        ca_certificate: a file with the certificates to trust; None for the system's.
    """

    url: str
    mount: str = "secret"
    path: str = "user"
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    role_id: str | None = field(default=None, repr=False)
    secret_id: str | None = field(default=None, repr=False)
    secret_id_file: Path | None = None
    approle_mount: str = "approle"
    namespace: str | None = None
    ca_certificate: Path | None = None

    def place_of(self, secret: str) -> str:
        """Return where a secret lies, as ``vault kv get`` takes it."""
        return f"{self.mount}/{self.path}/{secret}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One version of a secret. The values are not shown by ``repr``."""

    version: str
    values: dict[str, str] = field(repr=False)


class VaultReader:
    """Reads secrets, logging in when there is no login or it is near its end. Used by one thread at a time.

    Args:
        config: where and how.
        clock: seconds that never go back.
    """

    def __init__(self, config: VaultConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self._clock = clock
        self._client: Any = None
        self._renew_at = float("inf")
        self._renewable = False

    def read(self, secret: str) -> Reading | None:
        """Return the present version of a secret; None where there is none, or its present version is deleted.

        Raises:
            SecretsUnavailableError: Vault is sealed, down or forbids it, also after a new login.
            ConfigurationError: hvac is not installed, or a file of the login cannot be read.
        """
        self.stay_logged_in()
        what = f"{self.config.place_of(secret)!r} cannot be read"
        with self._translated(what):
            try:
                return self._read(secret)
            except _hvac().exceptions.Forbidden:
                # The login may have been revoked, or have ended with its maximal life; a new one settles which.
                self.log_in()
            return self._read(secret)

    def stay_logged_in(self) -> None:
        """Log in, or renew a login that has passed two thirds of its life; errors as for :meth:`read`."""
        if self._client is not None and self._clock() < self._renew_at:
            return
        if self._client is not None and self._renewable:
            with self._translated("the login cannot be renewed"):
                try:
                    self._take_lease(self._client.auth.token.renew_self()["auth"])
                except (_hvac().exceptions.Forbidden, _hvac().exceptions.InvalidRequest):
                    pass  # revoked, or past its maximal life: only a new login helps
                else:
                    return
        self.log_in()

    def log_in(self) -> None:
        """Log in anew; errors as for :meth:`read`."""
        config = self.config
        self._client = None
        client = _hvac().Client(
            url=config.url,
            # An empty one keeps hvac from looking for a token of its own.
            token="",
            timeout=TIMEOUT_S,
            verify=True if config.ca_certificate is None else str(config.ca_certificate),
            namespace=config.namespace,
        )
        if config.role_id is None:
            client.token = config.token or _content(config.token_file, "VAULT_TOKEN_FILE")
        else:
            secret_id = Credential(config.secret_id or _content(config.secret_id_file, "VAULT_SECRET_ID_FILE"))
        with self._translated("the login failed"):
            if config.role_id is None:
                found = client.auth.token.lookup_self()["data"]
                auth = {"lease_duration": found["ttl"], "renewable": found.get("renewable", False)}
            else:
                auth = client.auth.approle.login(
                    role_id=config.role_id, secret_id=secret_id.reveal(), mount_point=config.approle_mount
                )["auth"]
            self._take_lease(auth)
        know(client.token)
        self._client = client

    def forget(self) -> None:
        """Drop the login and its connections without a word to Vault: after a fork they belong to the parent."""
        self._client = None

    def _take_lease(self, auth: dict[str, Any]) -> None:
        life_s = float(auth["lease_duration"])
        self._renewable = bool(auth["renewable"])
        # A root token has no end, which Vault writes as zero.
        self._renew_at = self._clock() + life_s * RENEW_AT if life_s > 0 else float("inf")

    def _read(self, secret: str) -> Reading | None:
        try:
            answer = self._client.secrets.kv.v2.read_secret_version(
                path=f"{self.config.path}/{secret}", mount_point=self.config.mount, raise_on_deleted_version=True
            )["data"]
        except _hvac().exceptions.InvalidPath:
            return None
        values = {str(name): value for name, value in (answer["data"] or {}).items() if isinstance(value, str)}
        return Reading(version=str(answer["metadata"]["version"]), values=values)

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Turn what hvac and requests raise into Nova's error, with what to do about it."""
        import requests

        exceptions = _hvac().exceptions
        try:
            yield
        except exceptions.VaultError as error:
            answers = {
                exceptions.VaultDown: "it is sealed or in maintenance (503): unseal it",
                exceptions.VaultNotInitialized: "it is not initialised (501): initialise and unseal it",
                exceptions.Forbidden: "permission denied (403): give the token or role the policy of "
                "deploy/vault/nova-policy.hcl, or a token that has not ended",
                exceptions.InvalidRequest: "it rejects the request (400): check VAULT_ROLE_ID, VAULT_SECRET_ID and the "
                "mounts",
            }
            why = answers.get(type(error), f"it answers with {type(error).__name__}: see its log")
            forbidden = isinstance(error, exceptions.Forbidden)
            raise SecretsUnavailableError(f"{self._name}: {what}: {why}", forbidden=forbidden) from error
        except (requests.RequestException, OSError) as error:
            why = f"it cannot be reached ({type(error).__name__}): check VAULT_ADDR, and the network to it"
            raise SecretsUnavailableError(f"{self._name}: {what}: {why}") from error
        except (KeyError, TypeError, ValueError) as error:
            why = "its answer is not that of a Vault: check VAULT_ADDR, and that the mount is KV version 2"
            raise SecretsUnavailableError(f"{self._name}: {what}: {why}") from error

    @property
    def _name(self) -> str:
        scheme, separator, rest = self.config.url.partition("://")
        return f"Vault at {scheme}{separator}{rest.rpartition('@')[2]}"


def _hvac() -> Any:
    try:
        import hvac
        import hvac.exceptions
    except ImportError as error:
        raise ConfigurationError(
            "secrets in Vault need the package hvac: pip install 'nova-llm[vault]'", variable="VAULT_ADDR"
        ) from error
    return hvac


def _content(path: Path | None, variable: str) -> str:
    if path is None:
        raise ConfigurationError(
            "VAULT_ROLE_ID needs VAULT_SECRET_ID or VAULT_SECRET_ID_FILE", variable="VAULT_SECRET_ID"
        )
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigurationError(f"{variable}: {str(path)!r} cannot be read: {reason}", variable=variable) from None
