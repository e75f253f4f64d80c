"""Who is told how a run goes on; and progress as a person reads it: bars on a terminal, one line per epoch elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reidassoc.runs.result import Result


class Observer:
    """Is told how a run goes on. Every method does nothing here: say those that you care about."""

    def start(self, folder: Path) -> None:
        """The run begins, or goes on; its folder holds ``recipe.yaml``."""

    def epoch(self, number: int, total: int, stage: str, steps: int) -> None:
        """An epoch begins."""

    def step(self, number: int, losses: Mapping[str, float], *, images: int) -> None:
        """Some steps are done: the epoch's mean losses so far. ``images`` is the size of a step's batch."""

    def report(self, row: Mapping[str, Any]) -> None:
        """An epoch is over; the row is that of ``metrics.jsonl``."""

    def once(self, text: str) -> None:
        """Something that a person should read, once."""

    def finish(self, result: Result) -> None:
        """The run is over."""

    def close(self) -> None:
        """Nothing more will come: the run is over, was interrupted, or failed."""


class Everyone(Observer):
    """Tells several observers, in order."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self.observers = tuple(observers)

    def start(self, folder: Path) -> None:
        for observer in self.observers:
            observer.start(folder)

    def epoch(self, number: int, total: int, stage: str, steps: int) -> None:
        for observer in self.observers:
            observer.epoch(number, total, stage, steps)

    def step(self, number: int, losses: Mapping[str, float], *, images: int) -> None:
        for observer in self.observers:
            observer.step(number, losses, images=images)

    def report(self, row: Mapping[str, Any]) -> None:
        for observer in self.observers:
            observer.report(row)

    def once(self, text: str) -> None:
        for observer in self.observers:
            observer.once(text)

    def finish(self, result: Result) -> None:
        for observer in self.observers:
            observer.finish(result)

    def close(self) -> None:
        for observer in self.observers:
            observer.close()
