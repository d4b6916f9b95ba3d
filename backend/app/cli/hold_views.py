"""How holds look to people, and how people name one: by the start of its id."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from app.errors import UnknownHoldError
from app.money import format_usd
from app.stores.budget.contract import MAX_PAGE, HoldState

if TYPE_CHECKING:
    from rich.text import Text

    from app.stores.budget.contract import BudgetStore, Hold

__all__ = ["detail_text", "holds_text", "whole_hold_id"]

_OUTCOMES: Final = {
    "unknown": "outcome unknown",
    "unpriced": "answered, at a price that is not known",
    "usage_unknown": "answered, without its token counts",
    "superseded": "answered after somebody else had taken the call over",
    "not_recorded": "answered, but not recorded",
    "unbilled": "not billed",
    "estimated": "cut, and estimated by what had come",
}
_CUT: Final = "CancelledError"


def holds_text(found: Sequence[Hold], *, nova: str) -> Text:
    """Return a list of holds: each id on a line of its own, so that it can be copied, and below it what it is.

    Where some are uncertain it ends with what they come to, and the command that corrects them.
    """
    from rich.text import Text

    from app.cli.output import moment, printable, status_text

    if not found:
        return Text("no holds")
    lines: list[Text] = []
    for hold in found:
        lines.append(Text(printable(hold.hold_id), style="bold"))
        amounts = f", {format_usd(hold.amount)} reserved, {format_usd(hold.charged)} charged, "
        time = f"since {moment(hold.closed_at)}" if hold.closed_at else f"lease until {moment(hold.expires_at)}"
        lines.append(Text.assemble("  ", status_text(hold.state.value), amounts, time))
        if hold.detail:
            lines.append(Text(f"  {printable(detail_text(hold.detail))}", style="dim"))
    uncertain = [hold.charged for hold in found if hold.state is HoldState.EXPIRED]
    if uncertain:
        many = "1 hold is" if len(uncertain) == 1 else f"these {len(uncertain)} holds are"
        told = f"{many} uncertain: {format_usd(sum(uncertain))} charged; where the bill says otherwise: "
        lines += [Text(""), Text(f"{told}{nova} budget correct HOLD AMOUNT", style="yellow")]
    return Text("\n").join(lines)


def detail_text(detail: str) -> str:
    """Return in words what a call noted about its hold; a note that is not a call's is given as it is."""
    try:
        noted = json.loads(detail)
    except ValueError:
        return detail
    if not isinstance(noted, Mapping):
        return detail
    known: dict[str, Any] = dict(noted)
    parts = [_outcome(known.pop("outcome", None), known.pop("error", None))]
    model, cost = known.pop("model", None), known.pop("cost", None)
    parts.append(f"model {model}" if model is not None else "")
    tokens = (("input_tokens", "tokens in"), ("output_tokens", "tokens out"))
    parts += [f"{known.pop(name)} {words}" for name, words in tokens if name in known]
    parts.append(f"billed {format_usd(cost)}" if isinstance(cost, int) else "")
    parts += [f"{name.replace('_', ' ')} {value}" for name, value in known.items()]
    return ", ".join(part for part in parts if part)


def _outcome(outcome: object, error: object) -> str:
    if outcome == "unknown" and error == _CUT:
        words = "cut"
    else:
        words = "" if outcome is None else _OUTCOMES.get(str(outcome), str(outcome))
    return ": ".join(part for part in (words, "" if error is None else str(error)) if part)


async def whole_hold_id(store: BudgetStore, start: str, *, tenant_id: str) -> str:
    """Return the id of the one uncertain hold whose id begins with ``start``.

    Only uncertain holds are looked at: nobody corrects another one by an id that was cut too short.

    Raises:
        UnknownHoldError: there is none, or more than one.
    """
    after: str | None = start
    found: list[str] = []
    while after is not None:
        # Ids are sorted, so those that begin alike follow each other.
        page = await store.holds(after=after, limit=MAX_PAGE, tenant_id=tenant_id)
        alike = [hold for hold in page if hold.hold_id.startswith(start)]
        found += [hold.hold_id for hold in alike if hold.state is HoldState.EXPIRED]
        after = page[-1].hold_id if len(alike) == MAX_PAGE else None
    if not found:
        raise UnknownHoldError(
            f"there is no hold {start!r}, and no uncertain one whose id begins so (it may have been closed more than "
            "seven days ago)",
            hold_id=start,
        )
    if len(found) > 1:
        raise UnknownHoldError(
            f"{len(found)} uncertain holds have an id that begins with {start!r}: give more of it", hold_id=start
        )
    return found[0]
