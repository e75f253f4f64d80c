"""What the runs cost: seconds of each part of the epochs, and the peak of the memory."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reidassoc.report.chapters import Chapter, Method, Shown
from reidassoc.report.charts import Bars

PARTS = {
    "extract": "features",
    "label": "labels",
    "train": "training",
    "losses": "losses of samples",
    "evaluate": "evaluation",
}

LEAST = 0.01  # of a run's time: a part that no run spends as much on is not drawn


@dataclass(frozen=True)
class Cost:
    """One method's cost, a mean over its runs.

    Args:
        seconds: of a run, by part.
        epochs: of a run.
        peak_gib: peak of the memory; None if no run kept it.
        devices: names of what they ran on.
    """

    name: str
    seconds: dict[str, float]
    epochs: float
    peak_gib: float | None
    devices: tuple[str, ...]

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def costs(chapter: Chapter) -> list[Cost]:
    return [cost_of(method) for method in chapter.methods if any(run.epochs for run in method.runs)]


def cost_of(method: Method) -> Cost:
    runs = [run for run in method.runs if run.epochs]
    spent = [spent_by(run) for run in runs]
    peaks = [peak / 2**30 for run in runs if isinstance(peak := run.outcome.data.get("peak_bytes"), int)]
    names = {device(run.outcome.data["environment"]) for run in runs}
    return Cost(
        method.name,
        {part: statistics.fmean(held.get(part, 0.0) for held in spent) for part in PARTS},
        statistics.fmean(len(run.epochs) for run in runs),
        max(peaks) if peaks else None,
        tuple(sorted(names)),
    )


def device(environment: Mapping[str, Any]) -> str:
    threads = environment["threads"]
    return f"{environment['device']}, {threads} thread{'' if threads == 1 else 's'}"


def spent_by(run: Shown) -> dict[str, float]:
    found = dict.fromkeys(PARTS, 0.0)
    for row in run.epochs:
        for part, seconds in row.get("seconds", {}).items():
            found[part if part in PARTS else "train"] += seconds
    return found


def shown(found: Sequence[Cost]) -> list[str]:
    """The parts that some run spent at least a hundredth of its time on."""
    return [part for part in PARTS if any(cost.seconds[part] >= LEAST * cost.total > 0 for cost in found)]


def chart(found: Sequence[Cost]) -> Bars:
    used = shown(found)
    rows = tuple((cost.name, tuple(cost.seconds[part] for part in used)) for cost in found)
    return Bars("cost", "Time of a run", "seconds", tuple(PARTS[part] for part in used), rows)
