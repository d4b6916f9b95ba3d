"""Runs as a database has them, made from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence

from app.stores.checkpoint import rules
from app.stores.checkpoint.codec import JsonValue, canonical_json, encode
from app.stores.checkpoint.contract import RunStatus
from app.stores.checkpoint.rows import StoredRun, StoredStep, pack_canonical

NOW_MS = 1_764_000_000_000


def value(generator: random.Random) -> JsonValue:
    """Return a value of any kind, with text that needs escapes in it."""
    values: list[JsonValue] = [
        None,
        generator.random(),
        generator.randrange(10**25),
        'line\n"quoted" \\ ü € \u2028 \x7f',
        [1, [2, {"ключ": "値"}]],
        {"text": generator.randbytes(generator.randrange(400)).hex(), "n": generator.random()},
    ]
    return generator.choice(values)


def stored_run(
    run_id: str, outputs: Sequence[JsonValue], *, tenant_id: str = "default", status: RunStatus = RunStatus.COMPLETED
) -> tuple[StoredRun, tuple[StoredStep, ...]]:
    """Return a run with these outputs, and its steps."""
    inputs = pack_canonical(canonical_json({"of": run_id}))
    head = rules.created(
        tenant_id, run_id, workflow="w", workflow_version="1", inputs_digest=inputs.digest, now_ms=NOW_MS
    )
    new = [
        rules.NewStep(
            step_id=f"s/{number}",
            fingerprint=f"f{number}",
            output=pack_canonical(canonical_json(output)),
            meta=encode(canonical_json({"attempts": number})),
        )
        for number, output in enumerate(outputs)
    ]
    head, steps = rules.saved_first(head, new, status=RunStatus.RUNNING, now_ms=NOW_MS + 5)
    result = pack_canonical(canonical_json(["result", run_id]))
    head = head._replace(status=status, result_digest=result.digest, version=head.version + 1)
    return StoredRun(head=head, inputs=inputs.body, result=result.body), steps
