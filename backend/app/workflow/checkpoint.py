"""What a run is recorded in: the checkpoint stores by name, and the types that they speak.

``InMemoryCheckpointStore`` and ``CheckpointStore`` (PostgreSQL) are loaded when they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.stores.checkpoint.contract import (
    CheckpointStorage,
    Claim,
    RunFilter,
    RunHead,
    RunPage,
    RunState,
    RunStatus,
    Step,
    StepRecord,
)

if TYPE_CHECKING:
    from app.stores.checkpoint.memory import InMemoryCheckpointStore
    from app.stores.checkpoint.postgres import CheckpointStore

__all__ = [
    "CheckpointStorage",
    "CheckpointStore",
    "Claim",
    "InMemoryCheckpointStore",
    "RunFilter",
    "RunHead",
    "RunPage",
    "RunState",
    "RunStatus",
    "Step",
    "StepRecord",
]


def __getattr__(name: str) -> object:
    if name == "InMemoryCheckpointStore":
        from app.stores.checkpoint.memory import InMemoryCheckpointStore

        return InMemoryCheckpointStore
    if name == "CheckpointStore":
        from app.stores.checkpoint.postgres import CheckpointStore

        return CheckpointStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
