"""``python -m tests.support.wire``: serve until killed; the first line of output says where."""

from __future__ import annotations

import argparse
import asyncio
import json

from tests.support.wire.server import WireServer


async def _serve(*, port: int, delay_s: float) -> None:
    async with WireServer(key=None, port=port, delay_s=delay_s) as server:
        print(json.dumps({"url": server.url}), flush=True)  # noqa: T201  # how the parent learns the port
        await asyncio.Event().wait()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay-s", type=float, default=0.0)
    arguments = parser.parse_args()
    asyncio.run(_serve(port=arguments.port, delay_s=arguments.delay_s))


if __name__ == "__main__":
    main()
