"""A real Prometheus and its promtool: Debian's package, which ``.ci/run`` installs.

Elsewhere the package is downloaded once, unpacked without root, and kept outside of the checkout.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from tests.support.searched.search import SEARCH
from tests.support.servers.process import Server

__all__ = ["PrometheusServer", "program"]


@lru_cache(maxsize=1)
def _unpacked() -> Path | None:
    """Return the folder with the programs of the downloaded package; None where this is no Debian, or it has none."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "nova-tests" / "prometheus"
    programs = cache / "usr" / "bin"
    if (programs / "promtool").exists():
        return programs
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        return None
    cache.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["apt-get", "download", "prometheus"], cwd=cache, capture_output=True, check=False).returncode:
        return None
    (package,) = cache.glob("prometheus_*.deb")
    subprocess.run(["dpkg", "-x", str(package), str(cache)], check=True)
    return programs


def program(name: str) -> str:
    """Return the path of ``prometheus`` or ``promtool``; the test is skipped where neither can be had, never in CI."""
    found = shutil.which(name)
    if found is None:
        unpacked = _unpacked()
        found = None if unpacked is None else str(unpacked / name)
    if found is None:
        assert not os.environ.get("CI"), f"{name} is missing: .ci/run installs Debian's package prometheus"
        pytest.skip(f"no {name}: install Debian's package prometheus")
    return found


class PrometheusServer(Server):
    """A server that reads a configuration, such as the one in ``deploy/prometheus``.

    Args:
        configuration: the text of ``prometheus.yml``; the paths in it are relative to ``directory``.
        files: further files in ``directory``.
    """

    def __init__(self, configuration: str, **files: str) -> None:
        super().__init__()
        self._program = program("prometheus")
        (self.directory / "prometheus.yml").write_text(configuration)
        for name, content in files.items():
            (self.directory / f"{name}.yml").write_text(content)

    @property
    def url(self) -> str:
        """Where its interface is."""
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of its interface."""
        with urlopen(f"{self.url}/api/v1/{path}?{urlencode(parameters)}", timeout=30) as answer:
            text = answer.read()
        SEARCH.look(text, where="a scrape")
        return json.loads(text)["data"]

    def query(self, expression: str) -> list[Any]:
        """Return the series of an instant query."""
        return list(self.ask("query", query=expression)["result"])

    def until(self, holds: Callable[[], bool], *, what: str, timeout_s: float = 60.0) -> None:
        """Ask until something holds: scrapes and rules come when Prometheus sees fit."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
            time.sleep(0.05)

    def command(self) -> list[str]:
        """Return the command line."""
        return [
            self._program,
            f"--config.file={self.directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]

    def is_ready(self) -> bool:
        """Whether it answers queries."""
        try:
            with urlopen(f"{self.url}/-/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False
