"""How metrics leave the process: to Prometheus on a port, or into a file for node_exporter."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from app.settings import Settings

__all__ = ["Exposed", "expose", "expose_as_configured", "write_as_configured", "write_textfile"]

_log = logging.getLogger(__name__)

_exposing = Lock()
_exposed: Exposed | None = None


@dataclass(frozen=True, slots=True)
class Exposed:
    """A server of metrics that runs in a thread."""

    host: str
    port: int
    _server: Any
    _thread: Any

    @property
    def url(self) -> str:
        """Where Prometheus finds the metrics."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/metrics"

    def close(self) -> None:
        """End the server and wait for its thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def expose(*, host: str, port: int, registry: CollectorRegistry | None = None) -> Exposed:
    """Serve a registry (None: that of the process) on a port; 0 is any free one.

    Raises:
        OSError: the port is taken, or the address is not this machine's.
    """
    from prometheus_client import REGISTRY, start_http_server

    server, thread = start_http_server(port, addr=host, registry=registry or REGISTRY)
    return Exposed(host, int(server.server_port), server, thread)


def expose_as_configured(settings: Settings) -> Exposed | None:
    """Serve the metrics of this process on ``NOVA_METRICS_PORT``, once, with every family there at zero.

    None where no port is set, or it is taken (by another process on the same settings): that is logged, and work goes
    on, because a call must not fail for its metrics.
    """
    global _exposed  # noqa: PLW0603 - one server per process
    if settings.nova_metrics_port is None:
        return None
    with _exposing:
        if _exposed is not None:
            return _exposed
        from app.metrics import build_all

        build_all()
        try:
            _exposed = expose(host=settings.nova_metrics_host, port=settings.nova_metrics_port)
        except OSError as error:
            _log.warning(
                "metrics are not shown on %s:%d: %s; give each process a port of its own (NOVA_METRICS_PORT)",
                settings.nova_metrics_host,
                settings.nova_metrics_port,
                error.strerror or error,
            )
            return None
        _log.info("metrics at %s", _exposed.url)
        return _exposed


def write_as_configured(settings: Settings) -> None:
    """Write what this process counted to ``NOVA_METRICS_TEXTFILE``; nothing where it counted nothing, or none is set.

    A file that cannot be written is logged: work that is done does not fail for its metrics.
    """
    from app.metrics import anything_counted

    path = settings.nova_metrics_textfile
    if path is None or not anything_counted():
        return
    try:
        write_textfile(path)
    except OSError as error:
        _log.warning("metrics could not be written to %r: %s", str(path), error.strerror or error)


def write_textfile(path: Path, *, registry: CollectorRegistry | None = None) -> None:
    """Write a registry (None: that of the process) to a file, in one step: a reader sees the old one or the new one.

    Raises:
        OSError: it cannot be written.
    """
    from prometheus_client import REGISTRY, write_to_textfile

    write_to_textfile(str(path), registry or REGISTRY)
