"""What a run tells while it goes on: a front end overrides the methods that it shows."""

from __future__ import annotations

from datetime import timedelta

from app.money import Microcents
from app.stores.checkpoint.contract import RunStatus, WaitingFor

__all__ = ["RunListener"]


class RunListener:
    """Hears of every event of a runner's runs, on its event loop; each method must be quick.

    An exception of a listener stops its run in order (what is in flight is recorded, the run stays resumable) and is
    raised from ``start`` or ``resume``.
    """

    def run_started(self, *, run_id: str, workflow: str, resumed: bool, steps_recorded: int) -> None:
        """A run has its lease and begins or goes on; ``steps_recorded`` counts the steps on record, without inputs."""

    def inputs_recorded(self, *, run_id: str, recorded: int, total: int) -> None:
        """So many of the run's large inputs (documents) are recorded."""

    def map_started(self, *, run_id: str, step_id: str, count: int) -> None:
        """The steps ``step_id/0`` to ``step_id/<count - 1>`` follow."""

    def step_started(self, *, run_id: str, step_id: str, attempt: int) -> None:
        """A step's function is about to be called; the first attempt is 1."""

    def step_retrying(self, *, run_id: str, step_id: str, attempt: int, delay: timedelta, error: Exception) -> None:
        """Attempt ``attempt`` failed; the next one follows after ``delay``."""

    def step_recorded(self, *, run_id: str, step_id: str, attempts: int, cost: Microcents | None) -> None:
        """A step is on record. ``cost`` is what its LLM calls cost: 0 without any, None where that is unknown."""

    def step_replayed(self, *, run_id: str, step_id: str, cost: Microcents | None) -> None:
        """A step was on record already and did not run; ``cost`` as recorded."""

    def step_failed(self, *, run_id: str, step_id: str, attempts: int, error: Exception) -> None:
        """A step failed after its last attempt."""

    def run_waiting(self, *, run_id: str, waiting_for: WaitingFor, reason: str) -> None:
        """The run is parked; its lease is free."""

    def run_ended(self, *, run_id: str, status: RunStatus) -> None:
        """The run was let go with this status; ``running`` where it was interrupted and can be resumed."""
