"""Keeps what was read from files and Vault, and looks for newer versions in a thread of its own."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from app.credentials import Credential
from app.errors import ConfigurationError, SecretsUnavailableError
from app.secrets.names import VAULT_SECRETS
from app.secrets.rotating import RotatingCredential
from app.secrets.standing import Origin, Standing
from app.secrets.vault import Reading, VaultConfig, VaultReader

__all__ = ["SecretKeeper", "close_secrets", "keeper"]

SHORTEST_LOOK_S: Final = 0.25
"""Rejections look for a newer version at most this often, however many connections are rejected at once."""

JITTER: Final = 0.2
"""The share of the pause that is random, so that many processes do not ask Vault at the same moment."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class _Kept:
    """What is known of one place (a file, or a secret of Vault). Only its keeper changes it, under its lock."""

    place: str
    origin: Origin
    fields: tuple[str, ...]
    read: Callable[[], Reading | None]
    reader: VaultReader | None = None
    credentials: dict[str, RotatingCredential] = field(default_factory=dict)
    stale_since: datetime | None = None
    problem: str | None = None


class SecretKeeper:
    """The changing secrets of this process.

    The first reading of a place must succeed, or is an error. After that the last value is served, whatever becomes of
    the place, and that it is stale is logged once and shown by ``nova doctor``.

    Args:
        clock, now: seconds that never go back, and the present time, for tests.
        open_vault: makes the reader of a Vault.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        open_vault: Callable[[VaultConfig], VaultReader] = VaultReader,
    ) -> None:
        self._clock = clock
        self._now = now
        self._open_vault = open_vault
        self._kept: dict[tuple[object, ...], _Kept] = {}
        self._readers: dict[VaultConfig, VaultReader] = {}
        self._lock = threading.RLock()
        self._looked_at = float("-inf")
        self._refresh_s = 30.0
        # One of its own: drawing from the program's, in a thread, would change what a seeded program draws.
        self._random = random.Random()
        self._watched = False
        self._starting = threading.Lock()
        self._closed = threading.Event()
        os.register_at_fork(after_in_child=self._after_fork)

    def from_file(self, field_name: str, path: Path) -> RotatingCredential:
        """Return the secret that a file holds, without the line break at its end.

        Raises:
            ConfigurationError: the file cannot be read, or is empty.
        """
        kept = self._first_load(
            ("file", field_name, str(path)),
            _Kept(place=str(path), origin="file", fields=(field_name,), read=lambda: _read_file(field_name, path)),
        )
        return kept.credentials[field_name]

    def from_vault(self, config: VaultConfig, secrets: Iterable[str]) -> dict[str, RotatingCredential]:
        """Return what the named secrets of a Vault hold, by the field of the settings; what is not there is left out.

        Raises:
            SecretsUnavailableError: Vault cannot be read, and a secret was not read before.
            ConfigurationError: hvac is missing, or a file of the login cannot be read.
        """
        reader = self._readers.get(config) or self._readers.setdefault(config, self._open_vault(config))
        found: dict[str, RotatingCredential] = {}
        for secret in secrets:
            kept = self._first_load(
                ("vault", config, secret),
                _Kept(
                    place=config.place_of(secret),
                    origin="vault",
                    fields=VAULT_SECRETS[secret],
                    read=partial(reader.read, secret),
                    reader=reader,
                ),
            )
            found |= kept.credentials
        return found

    def refresh_every(self, seconds: float) -> None:
        """Set the pause between two looks."""
        self._refresh_s = seconds

    def standing(self, credential: RotatingCredential) -> Standing | None:
        """Return how a secret of this keeper stands; ``variable`` is its name in capitals."""
        with self._lock:
            for kept in self._kept.values():
                for field_name, mine in kept.credentials.items():
                    if mine is credential:
                        return Standing(
                            variable=field_name.upper(),
                            origin=kept.origin,
                            place=kept.place,
                            version=mine.newest.version,
                            stale_since=kept.stale_since,
                            problem=kept.problem,
                        )
        return None

    def refresh(self) -> None:
        """Look at every place now, and take over what is newer; a place that cannot be read leaves what is known."""
        with self._lock:
            self._looked_at = self._clock()
            down: dict[VaultReader, str] = {}
            for kept in list(self._kept.values()):
                if self._closed.is_set():
                    return
                # Where a Vault is down, one timeout says it for all of its secrets.
                if kept.reader is not None and kept.reader in down:
                    self._note(kept, down[kept.reader], told=True)
                    continue
                try:
                    self._load(kept)
                except ConfigurationError as error:
                    self._note(kept, str(error))
                    if kept.reader is not None and not (isinstance(error, SecretsUnavailableError) and error.forbidden):
                        down[kept.reader] = str(error)

    def close(self) -> None:
        """End the thread and forget everything; what was handed out keeps its last value."""
        self._closed.set()
        with self._lock:
            self._kept.clear()
            self._readers.clear()

    def _first_load(self, key: tuple[object, ...], place: _Kept) -> _Kept:
        """Return what is known of a place, reading it if nothing is."""
        # Without the lock, because a refresh holds it while Vault is slow, and what is known is known.
        known = self._kept.get(key)
        if known is not None:
            return known
        with self._lock:
            if key not in self._kept:
                self._load(place)
                self._kept[key] = place
            return self._kept[key]

    def _load(self, kept: _Kept) -> None:
        """Read a place and take over its values."""
        reading = kept.read()
        if reading is None:
            if kept.credentials:
                self._note(kept, f"{kept.place} is not there any more, or its present version was deleted")
            return
        for name in kept.fields:
            value = reading.values.get(name.upper(), "")
            if not value:
                continue
            newer = Credential(value, reading.version)
            mine = kept.credentials.get(name)
            if mine is None:
                kept.credentials[name] = RotatingCredential(newer, look=self._look, used=self._watch, clock=self._clock)
            elif mine.replace(newer):
                _log.info("%s has version %s now, from %s", name.upper(), reading.version, kept.place)
        if kept.stale_since is not None:
            _log.warning("%s can be read again", kept.place)
        kept.stale_since = kept.problem = None

    def _note(self, kept: _Kept, problem: str, *, told: bool = False) -> None:
        if kept.stale_since is None:
            kept.stale_since = self._now()
            if not told:
                _log.warning("%s. What is known is served until it can be read again", problem)
        kept.problem = problem

    def _look(self) -> None:
        """Look for newer versions because one was rejected, unless that was done a moment ago."""
        with self._lock:
            if self._clock() - self._looked_at >= SHORTEST_LOOK_S:
                self.refresh()

    def _watch(self) -> None:
        """See to it that a thread looks for newer versions."""
        if self._watched or self._closed.is_set():
            return
        with self._starting:
            if not self._watched:
                self._watched = True
                threading.Thread(target=self._stay, name="nova-secrets", daemon=True).start()

    def _after_fork(self) -> None:
        """Threads stay with the parent, and a lock that one of them held would never be given back."""
        self._lock, self._starting = threading.RLock(), threading.Lock()
        self._watched = False
        for reader in self._readers.values():
            reader.forget()

    def _stay(self) -> None:
        while not self._closed.wait(self._refresh_s * (1 - JITTER * self._random.random())):
            try:
                self.refresh()
            except Exception:  # noqa: BLE001 - see below
                # The watch must not end: a defect here would otherwise surface months later, at a rotation.
                _log.exception("looking for newer secrets failed")


def keeper() -> SecretKeeper:
    """Return the keeper of this process."""
    global _keeper  # noqa: PLW0603 - one keeper and one thread per process
    with _making:
        if _keeper is None:
            _keeper = SecretKeeper()
        return _keeper


def close_secrets() -> None:
    """Let go of everything that was read; the next settings read it anew."""
    global _keeper
    with _making:
        former, _keeper = _keeper, None
    if former is not None:
        former.close()


_keeper: SecretKeeper | None = None
_making = threading.Lock()


def _read_file(field_name: str, path: Path) -> Reading:
    variable = f"{field_name.upper()}_FILE"
    try:
        value = path.read_text().rstrip("\r\n")
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigurationError(f"{variable}: {str(path)!r} cannot be read: {reason}", variable=variable) from None
    if not value.strip():
        raise ConfigurationError(f"{variable}: {str(path)!r} is empty", variable=variable)
    return Reading(version=f"{written:%Y-%m-%dT%H:%M:%SZ}", values={field_name.upper(): value})
