"""What the demo is played on: a model or the stub, a directory of its own, and a way to look into its stores."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import yaml

from app.settings import Settings
from examples.demo.evidence import Evidence, gather
from examples.demo.nova import ROOT, DemoError, Nova, shown
from examples.demo.story import Story
from examples.local_model import LocalModel, missing_wheels, running_model

__all__ = ["RUN_ID", "Demo", "prepared", "read"]

T = TypeVar("T")

RUN_ID: Final = "demo"
EXAMPLES: Final = ROOT / "examples"
_OWN: Final = ROOT / ".demo"
_STUB_LATENCY_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """The parts that the acts share.

    Attributes:
        model: the server of the small model; None: the stub answers.
        flow: the flow file that is run.
        budget: of the run, as it is given to ``nova run``.
    """

    story: Story
    nova: Nova
    model: LocalModel | None
    flow: Path
    documents: Path
    budget: str

    @property
    def settings(self) -> Settings:
        """Where the run's stores lie, whatever the environment says of others."""
        return Settings(
            env="development",
            nova_data_dir=self.nova.data_dir,
            checkpoint_store="sqlite",
            budget_store="sqlite",
            database_url=None,
        )

    def show(self, *arguments: str) -> None:
        """Show a command of ``nova`` and what it says."""
        self.story.command("nova", *arguments)
        self.nova.call(*arguments)

    def look(self) -> Evidence:
        """Read what is on record now."""
        calls = None if self.model is None else self.model.calls
        return read(lambda: gather(self.settings, RUN_ID, calls=calls))


@contextlib.contextmanager
def prepared(story: Story, data_dir: Path | None, *, stub: bool) -> Iterator[Demo]:
    """Prepare the data directory and start the model; the model ends with the block.

    Args:
        story: where the demo is told.
        data_dir: where its state is to lie; None is the demo's own directory, which is emptied.
        stub: take the stub, whether the model is there or not.

    Raises:
        DemoError: ``data_dir`` has somebody's state in it.
        LocalModelError: the model does not start.
    """
    data_dir = _own_directory() if data_dir is None else _without_state(data_dir.resolve())
    story.act("A model")
    missing = missing_wheels()
    if stub or missing:
        yield _with_stub(story, data_dir, missing=() if stub else missing)
        return
    with running_model() as model:
        story.say(
            f"""
            SmolLM2 with 135 million parameters is served by llama.cpp at {model.base_url} (process {model.pid}).
            It is a real model, and a tiny one: it writes sentences, and often gets the facts wrong. What this demo is
            about is the run around it: its budget, its record, and what a crash costs.
            """
        )
        settings = {**model.environment, "NOVA_PRICES_FILE": shown(EXAMPLES / "prices.yaml")}
        yield Demo(
            story=story,
            nova=Nova(data_dir=data_dir, settings=settings),
            model=model,
            flow=EXAMPLES / "brief.yaml",
            documents=EXAMPLES / "documents",
            budget="$0.03",
        )


def _own_directory() -> Path:
    _OWN.mkdir(exist_ok=True)
    for old in _OWN.glob("nova.db*"):
        old.unlink()
    return _OWN


def _without_state(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.glob("nova.db*")):
        raise DemoError(f"{str(directory)!r} has a nova.db already; name another directory, or none")
    return directory


def _with_stub(story: Story, data_dir: Path, *, missing: Sequence[str]) -> Demo:
    why = f"The small model is not installed here (no {' and no '.join(missing)}), so" if missing else "As asked for,"
    story.say(
        f"""
        {why} Nova's stub answers in its place: deterministic, offline, and without any sense.
        It is told to take half a second for each call. Everything else is as it would be with a model.
        """,
        style="yellow" if missing else "",
    )
    flow = yaml.safe_load((EXAMPLES / "brief.yaml").read_text(encoding="utf-8"))
    flow["defaults"]["extra"] = {"latency_s": _STUB_LATENCY_S}
    slow = data_dir / "brief.yaml"
    slow.write_text(yaml.safe_dump(flow, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return Demo(
        story=story,
        nova=Nova(data_dir=data_dir, settings={"LLM_ADAPTER": "stub"}),
        model=None,
        flow=slow,
        documents=EXAMPLES / "documents",
        budget="$0.04",
    )


def read(work: Callable[[], Awaitable[T]]) -> T:
    """Read the stores in a loop of its own, and let go of them: the next command is another process."""
    from app.stores import close_stores

    async def whole() -> T:
        try:
            return await work()
        finally:
            await close_stores()

    return asyncio.run(whole())
