"""What Nova is for, in two minutes, without an account or a server.

A real language model on this machine takes notes on twelve documents and writes a brief from them, under a budget. In
the middle the process is killed with SIGKILL, and the run is resumed. Each claim at the end is checked against the
stores and the model's own count; the exit code is 1 if one of them is not true.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from rich.console import Console

from app.money import format_usd
from app.settings import Settings
from app.stores.budget.contract import HoldState
from examples.demo.evidence import Evidence, claims, gather, wait_for_middle
from examples.demo.nova import ROOT, DemoError, Nova, shown
from examples.demo.story import Story
from examples.local_model import MODEL, LocalModel, LocalModelError, missing_wheels, running_model

T = TypeVar("T")

RUN_ID: Final = "demo"
KILL_AFTER_NOTES: Final = 5
EXAMPLES: Final = ROOT / "examples"

_STUB_LATENCY_S: Final = 0.5
_UNDER_WAY: Final = timedelta(seconds=0.2)
"""How long the calls of the moment have been under way when the process is killed: it is in the midst of them."""

_SMALL_MODEL: Final = {
    "parallel": "3",
    "note_chars": "1200",
    "note_tokens": "80",
    "brief_chars": "220",
    "brief_tokens": "180",
    "seed": "7",
    "frequency_penalty": "0.6",
}
"""What the small model can take: its context is 2,700 tokens a call, and it repeats itself if it is let."""

_STUB: Final = {"note_tokens": "60", "brief_tokens": "120"}
"""The stub has nothing to say; this is enough of it."""


_HOSTED: Final = ("claude-sonnet-4-5", "gpt-4o-mini")


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
        return _read(lambda: gather(self.settings, RUN_ID, calls=calls))


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the demo and return its exit code: 0, 1 if a claim is not true or a part failed, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description="A run that is killed and resumed.")
    parser.add_argument("--stub", action="store_true", help="the stub in place of the small model")
    parser.add_argument("--data-dir", type=Path, default=ROOT / ".demo", help="where its state lies; emptied first")
    options = parser.parse_args(arguments)
    console = Console(markup=False, emoji=False, highlight=False)
    story = Story(console)
    # SIGTERM unwinds as Ctrl-C does, so that no child is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with _prepared(story, options.data_dir.resolve(), stub=options.stub) as demo:
            return 0 if _play(demo) else 1
    except (DemoError, LocalModelError) as error:
        story.failed(str(error))
        return 1
    except KeyboardInterrupt:
        console.show_cursor(show=True)
        story.failed("interrupted; its processes were ended")
        return 130


def _play(demo: Demo) -> bool:
    before = _act_run_and_kill(demo)
    after, brief = _act_resume(demo, before)
    _act_brief(demo, brief)
    _act_money(demo, after)
    true = _act_claims(demo, before, after)
    _act_your_own(demo, after)
    return true


@contextlib.contextmanager
def _prepared(story: Story, data_dir: Path, *, stub: bool) -> Iterator[Demo]:
    """Empty the data directory and start the model; the model ends with the block."""
    data_dir.mkdir(parents=True, exist_ok=True)
    for old in data_dir.glob("nova.db*"):
        old.unlink()
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


def _act_run_and_kill(demo: Demo) -> Evidence:
    """Start the run, kill it in the middle, and return what was on record then."""
    story = demo.story
    count = len(list(demo.documents.iterdir()))
    story.act(f"A run under a budget of {demo.budget}")
    story.say(
        f"""
        Notes on {count} documents in parallel, and one brief from the notes. Every step is recorded before the next one
        of its kind begins; every call reserves the most that it can cost before it is sent.
        """
    )
    inputs = {"documents": shown(demo.documents), **(_SMALL_MODEL if demo.model else _STUB)}
    given = [word for name, value in inputs.items() for word in ("--input", f"{name}={value}")]
    run = ("run", shown(demo.flow), *given, "--budget", demo.budget, "--run-id", RUN_ID)
    story.command("nova", *run, variables=demo.nova.variables)
    with demo.nova.started(*run) as process:
        _read(
            lambda: wait_for_middle(
                demo.settings,
                RUN_ID,
                notes=KILL_AFTER_NOTES,
                age=_UNDER_WAY,
                ended=lambda: process.poll() is not None,
            )
        )
        process.kill()
        process.wait()
    story.killed(process.pid)
    before = demo.look()
    under_way = before.of(HoldState.HELD)
    held = format_usd(sum(hold.amount for hold in under_way))
    story.act("What is left of it")
    story.say(
        f"""
        The process is gone: no handler ran, nothing was flushed or closed. On record are {len(before.steps)} steps.
        {len(under_way)} calls were under way; {held} are held for them.
        """
    )
    demo.show("runs", "history", RUN_ID)
    demo.show("budget", "show", f"run:{RUN_ID}")
    return before


def _act_resume(demo: Demo, before: Evidence) -> tuple[Evidence, str]:
    """Resume the run to its end; return what is on record then, and the brief."""
    demo.story.act("The run goes on")
    demo.story.command("nova", "resume", RUN_ID)
    left = json.loads(demo.nova.output_of("resume", RUN_ID, "--json"))
    after = demo.look()
    if left["status"] != "completed" or left["steps_replayed"] != len(before.steps):
        raise DemoError(f"the resumed run is {left['status']} and replayed {left['steps_replayed']} steps")
    return after, _text(left["result"])


def _act_brief(demo: Demo, brief: str) -> None:
    demo.story.act("The brief")
    demo.story.text(f"by {MODEL}, as it came" if demo.model else "by the stub", brief)
    notes = [_note(demo, number) for number in (0, 3)]
    demo.story.say("Two of the notes that it was written from:\n")
    demo.story.notes(notes)


def _act_money(demo: Demo, after: Evidence) -> None:
    demo.story.act("The money")
    demo.story.costs(after)
    demo.show("budget", "show", f"run:{RUN_ID}")
    demo.story.say(
        """
        Nobody knows what the calls cost that the kill cut, so the most that they can have cost counts as spent, marked
        uncertain. Where the provider's bill says otherwise: nova budget correct HOLD AMOUNT.
        """
    )
    demo.show("budget", "holds", "--scope", f"run:{RUN_ID}", "--state", "expired")


def _act_claims(demo: Demo, before: Evidence, after: Evidence) -> bool:
    demo.story.act("Was it so?")
    true = demo.story.verdict(claims(before, after))
    if not true:
        demo.story.failed("a claim is not true; please report it, with the directory " + shown(demo.nova.data_dir))
    return true


def _act_your_own(demo: Demo, after: Evidence) -> None:
    demo.story.act("Your turn")
    demo.story.say("What as many tokens cost with a large model and with a small one, at the published prices:")
    tokens = {key: str(after.tokens(key)) for key in ("input_tokens", "output_tokens")}
    options = ("--input-tokens", tokens["input_tokens"], "--output-tokens", tokens["output_tokens"])
    demo.show("prices", *_HOSTED, *options)
    demo.story.say(
        f"""
        Such a model changes the text and nothing else: the same flow then reads whole documents, and gets them right.

        $ . .venv/bin/activate
        $ export ANTHROPIC_API_KEY=...
        $ nova run examples/brief.yaml --input documents=PATH --budget '$0.50'

        The state of this demo stays in {shown(demo.nova.data_dir)}, until the next one:

        $ nova --data-dir {shown(demo.nova.data_dir)} runs show {RUN_ID}
        """
    )


def _note(demo: Demo, number: int) -> tuple[str, str]:
    step = json.loads(demo.nova.output_of("runs", "show", RUN_ID, "--step", f"notes/{number}", "--json"))
    name = sorted(path.name for path in demo.documents.iterdir())[number]
    return name, _text(step["output"])


def _text(output: Any) -> str:
    """Return the text of a step's output or of a run's result, marked where the model had no tokens left to end it."""
    text = (output if isinstance(output, str) else str(output["text"])).rstrip()
    return text if text.endswith((".", "!", "?")) else f"{text} …"


def _read(work: Callable[[], Awaitable[T]]) -> T:
    """Read the stores in a loop of its own, and let go of them: the next command is another process."""
    from app.stores import close_stores

    async def whole() -> T:
        try:
            return await work()
        finally:
            await close_stores()

    return asyncio.run(whole())


if __name__ == "__main__":
    sys.exit(main())
