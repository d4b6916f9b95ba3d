"""Environments of peers: made once with venv and pip in the user's cache, never in Nova's own environment."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from platformdirs import user_cache_path

__all__ = ["peer_python"]

_PEERS: Final = Path(__file__).resolve().parents[1] / "peers"
_INSTALL_TIMEOUT_S: Final = 600


def peer_python(peer: str) -> Path | str:
    """Return the interpreter of a peer's environment, or, where it cannot be made, the sentence that says why.

    The environment is made anew when ``peers/<peer>.txt`` or this interpreter changes. ``NOVA_BENCH_CACHE`` names
    another directory than the user's cache.
    """
    requirements = _PEERS / f"{peer}.txt"
    wanted = hashlib.sha256(f"{sys.version}\n{requirements.read_text()}".encode()).hexdigest()
    place = os.environ.get("NOVA_BENCH_CACHE")
    directory = (Path(place) if place else user_cache_path("nova", appauthor=False) / "benchmarks") / peer
    python = directory / "bin" / "python"
    marker = directory / ".made-from"
    if python.exists() and marker.exists() and marker.read_text() == wanted:
        return python
    print(f"installing {peer} into {directory}", file=sys.stderr)
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", str(requirements)]
    for command in ([sys.executable, "-m", "venv", "--clear", str(directory)], pip):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{peer} cannot be installed: {error}"
        if done.returncode:
            words = (done.stderr or done.stdout).strip().splitlines() or ["no reason was given"]
            return f"{peer} cannot be installed: {words[-1]}"
    marker.write_text(wanted)  # last: an environment that is half made has none
    return python
