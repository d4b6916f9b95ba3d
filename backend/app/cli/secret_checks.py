"""What ``nova doctor`` says about secrets: the name, where it was taken from and which version; never the value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from app.cli.finding import Finding

if TYPE_CHECKING:
    from app.secrets import Standing
    from app.settings import Settings

__all__ = ["secret_findings"]


def secret_findings(settings: Settings) -> Iterator[Finding]:
    """Return a finding for each secret that is set, and one for a Vault that is named but cannot be logged in to."""
    from app.secrets import FIELDS
    from app.secrets.chain import has_vault

    if settings.vault_addr is not None and not has_vault(settings):
        yield Finding(
            part="vault",
            state="note",
            in_force="not asked",
            why="VAULT_ADDR is set, but no login is",
            remedy="set VAULT_TOKEN, or VAULT_ROLE_ID with VAULT_SECRET_ID; or unset VAULT_ADDR",
        )
    for field in FIELDS:
        standing = settings.standing(field)
        if standing is not None:
            yield _finding(standing)


def _finding(standing: Standing) -> Finding:
    place = standing.origin if standing.place is None else f"{standing.origin} {standing.place}"
    version = "" if standing.version is None else f", version {standing.version}"
    if standing.stale_since is not None:
        return Finding(
            part=standing.variable,
            state="note",
            in_force=place + version,
            why=f"not read since {standing.stale_since:%Y-%m-%d %H:%M:%S} UTC: {standing.problem}",
            remedy="the value that is known is served until it can be read again",
        )
    fresh = "a newer one is taken over without a restart" if standing.place else "it stays until the process ends"
    return Finding(part=standing.variable, state="ok", in_force=place + version, why=fresh)
