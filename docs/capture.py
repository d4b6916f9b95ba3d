"""``make captures``: the terminal captures of the documentation, from real commands on real stores.

Each command runs in a pseudo-terminal of 80 columns, and what it wrote is drawn as it looks there, as SVG in
``docs/captures``. The runs are those of the tutorial; the servers are those that the tests start.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import struct
import sys
import tempfile
import termios
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

__all__ = ["CAPTURES", "Capture", "all_captures", "capture", "drawn"]

ROOT: Final = Path(__file__).resolve().parents[1]
COLUMNS: Final = 80
_INPUT: Final = f"documents={ROOT / 'examples' / 'documents'}"
_FLOW: Final = str(ROOT / "examples" / "brief.yaml")


@dataclass(frozen=True, slots=True)
class Capture:
    """A command whose output is shown.

    Attributes:
        name: of the picture.
        words: behind ``nova``.
        first: what is run before it, and shown by none.
        on_servers: on servers, instead of the tutorial's SQLite file.
    """

    name: str
    words: tuple[str, ...]
    first: tuple[tuple[str, ...], ...] = ()
    on_servers: bool = False


CAPTURES: Final = (
    Capture(
        "runs-show",
        ("runs", "show", "second"),
        first=(
            ("run", _FLOW, "--input", _INPUT, "--run-id", "first", "--budget", "$0.50"),
            ("run", _FLOW, "--input", _INPUT, "--run-id", "second", "--budget", "$0.004"),
        ),
    ),
    Capture(
        "budget-show",
        ("budget", "show"),
        first=(("budget", "set", "run:second", "$0.50"), ("resume", "second")),
    ),
    Capture("doctor", ("doctor",)),
    Capture("doctor-servers", ("doctor",), on_servers=True),
)
"""In their order: what one command does is there for the next."""

# The window without the fonts that Rich's own template fetches: whoever reads the page asks nobody else.
_SVG: Final = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width;
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: ui-monospace, "DejaVu Sans Mono", monospace; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
_THEME: Final = TerminalTheme(
    (30, 33, 39),
    (224, 226, 230),
    [(60, 64, 72), (240, 113, 120), (152, 215, 125), (240, 198, 116), (110, 170, 250), (200, 146, 234), (95, 210, 220),
     (224, 226, 230)],
    [(120, 125, 135), (240, 113, 120), (152, 215, 125), (240, 198, 116), (110, 170, 250), (200, 146, 234),
     (95, 210, 220), (255, 255, 255)],
)  # fmt: skip


def capture(words: tuple[str, ...], environment: Mapping[str, str], *, columns: int = COLUMNS) -> str:
    """Run ``nova`` in a terminal and return what it wrote there, with the codes of its colours."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-m", "app.cli", *words], dict(environment))
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 60, columns, 0, 0))
    written = b""
    try:
        while chunk := os.read(terminal, 65_536):
            written += chunk
    except OSError:
        pass  # how Linux tells that nobody writes any more
    os.close(terminal)
    os.waitpid(pid, 0)
    return written.decode().replace("\r\n", "\n")


def drawn(text: str, *, title: str, columns: int = COLUMNS) -> str:
    """Return the picture of a terminal with a text in it; the same text gives the same picture."""
    # The clip of the template cuts the last line at its feet, so an empty one comes after it.
    shown = Text.from_ansi("\n".join(line.rstrip() for line in text.strip("\n").split("\n")) + "\n")
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=columns, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(shown, soft_wrap=False)
        svg = console.export_svg(title=title, theme=_THEME, code_format=_SVG, unique_id=re.sub(r"\W", "-", title))
    return "\n".join(line.rstrip() for line in svg.split("\n"))


@contextmanager
def _prepared(folder: Path, *, on_servers: bool) -> Iterator[dict[str, str]]:
    """Give the environment of the tutorial, with its state in a folder, or one of production with servers."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    common = {**kept, "PYTHONPATH": str(ROOT / "backend"), "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    (folder / "nova").mkdir()
    common["NOVA_DATA_DIR"] = str(folder / "nova")
    if not on_servers:
        yield {**common, "LLM_ADAPTER": "stub"}
        return
    from tests.support.servers.postgres import PostgresServer
    from tests.support.servers.s3 import S3Server
    from tests.support.servers.valkey import ValkeyServer

    with ExitStack() as stack:
        postgres = stack.enter_context(PostgresServer())
        valkey = stack.enter_context(ValkeyServer(maxmemory_policy="noeviction"))
        archive = stack.enter_context(S3Server())
        yield {
            **common,
            "ENV": "production",
            "NOVA_LOG_FORMAT": "text",
            "LLM_ADAPTER": "stub",
            "DATABASE_URL": postgres.create_database("nova"),
            "REDIS_URL": valkey.url,
            "R2_ENDPOINT": archive.endpoint,
            "R2_BUCKET": archive.bucket,
            "R2_ACCESS_KEY_ID": archive.access_key_id,
            "R2_SECRET_ACCESS_KEY": archive.secret_access_key,
        }


def all_captures(*, columns: int = COLUMNS) -> Iterator[tuple[str, str]]:
    """Run everything and give the name of each picture, and the picture."""
    for on_servers in (False, True):
        with (
            tempfile.TemporaryDirectory(prefix="nova-captures-") as folder,
            _prepared(Path(folder), on_servers=on_servers) as environment,
        ):
            for each in (each for each in CAPTURES if each.on_servers is on_servers):
                for words in each.first:
                    capture(words, environment)
                text = capture(each.words, environment, columns=columns).replace(folder, "/var/lib")
                yield each.name, drawn(text, title=f"nova {' '.join(each.words)}", columns=columns)


def main() -> None:
    """Write them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "captures")
    parser.add_argument("--columns", type=int, default=COLUMNS)
    arguments = parser.parse_args()
    arguments.to.mkdir(exist_ok=True)
    for name, picture in all_captures(columns=arguments.columns):
        (arguments.to / f"{name}.svg").write_text(picture)


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / "backend"), str(ROOT)]
    main()
