"""Reading of the default Prometheus registry, as differences over a call."""

from __future__ import annotations

from prometheus_client import REGISTRY

Samples = dict[tuple[str, ...], float]


def samples() -> Samples:
    """Return the present value of every sample of Nova's LLM metrics: name and label values to number."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in REGISTRY.collect()
        if family.name.startswith("nova_llm_")
        for sample in family.samples
        if not sample.name.endswith(("_created", "_bucket"))
    }


def change_since(before: Samples) -> Samples:
    """Return what has changed, durations left away: their sum differs from run to run."""
    return {
        key: value - before.get(key, 0.0)
        for key, value in samples().items()
        if value != before.get(key, 0.0) and not key[0].endswith("_seconds_sum")
    }
