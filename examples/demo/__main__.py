"""What Nova is for, in two minutes, without an account or a server.

A real language model on this machine takes notes on twelve documents and writes a brief from them, under a budget. In
the middle the process is killed with SIGKILL, and the run is resumed. Each claim at the end is checked against the
stores and the model's own count; the exit code is 1 if one of them is not true.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from app.money import format_usd
from app.stores.budget.contract import HoldState
from examples.demo.evidence import Evidence, claims, wait_for_middle
from examples.demo.nova import DemoError, shown
from examples.demo.stage import RUN_ID, Demo, prepared, read
from examples.demo.story import Story
from examples.local_model import MODEL, LocalModelError

KILL_AFTER_NOTES: Final = 5

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the demo and return its exit code: 0, 1 if a claim is not true or a part failed, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description="A run that is killed and resumed.")
    parser.add_argument("--stub", action="store_true", help="the stub in place of the small model")
    parser.add_argument("--data-dir", type=Path, help="where its state is to lie; default: .demo, emptied")
    options = parser.parse_args(arguments)
    console = Console(markup=False, emoji=False, highlight=False)
    story = Story(console)
    # SIGTERM unwinds as Ctrl-C does, so that no child is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with prepared(story, options.data_dir, stub=options.stub) as demo:
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
        read(
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


if __name__ == "__main__":
    sys.exit(main())
