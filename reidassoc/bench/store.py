"""Where a benchmark's cells lie: one run folder each, named by content, with locks that die with their process.

``FOLDER/cells/ID`` is a run folder; ``ID.lock`` beside it is held by whoever works on it; ``ID.error.json`` says why it
failed, ``ID.attempts.jsonl`` which jobs of a cluster took it up. ``FOLDER/starts`` holds the states that several cells begin
with. Nothing here is changed but under its lock, and every file appears whole or not at all, so that processes may come, die
and go on in any order.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reidassoc.bench.plan import Cell, Plan
from reidassoc.data.file_lock import held as held  # as: jobs on a cluster take both from here
from reidassoc.data.file_lock import locked as locked
from reidassoc.errors import DataError
from reidassoc.runs.folder import RunFolder
from reidassoc.tables.schema import read_failure

State = Literal["finished", "failed", "running", "begun", "waiting"]


@dataclass(frozen=True)
class Store:
    """A benchmark's results folder."""

    path: Path

    def create(self, plan: Plan) -> None:
        """Make the folder, or add a plan's cells to one that is there; DataError if it can't be written."""
        try:
            self.cells.mkdir(parents=True, exist_ok=True)
            self.starts.mkdir(exist_ok=True)
        except OSError as error:
            raise DataError(f"can't make the results folder {self.path}: {error.strerror}; choose another") from None
        rows = [
            {"id": cell.id, "method": cell.method, "dataset": cell.dataset, "seed": cell.seed} for cell in plan.cells
        ]
        index = {"name": plan.grid.name, "title": plan.grid.title, "protocol": plan.grid.protocol, "cells": rows}
        RunFolder(self.path).write_json("plan.json", index)

    @property
    def cells(self) -> Path:
        return self.path / "cells"

    @property
    def starts(self) -> Path:
        return self.path / "starts"

    def folder(self, cell: Cell) -> RunFolder:
        return RunFolder(self.cells / cell.id)

    def finished(self, cell: Cell) -> bool:
        return (self.cells / cell.id / "result.json").is_file()

    def result(self, cell: Cell) -> dict[str, Any]:
        """The finished run's result.json."""
        text = (self.cells / cell.id / "result.json").read_text(encoding="utf-8")
        return json.loads(text)  # type: ignore[no-any-return]

    def failure(self, cell: Cell) -> dict[str, str] | None:
        """Why the cell failed, as :func:`read_failure` says; None if it did not."""
        try:
            return read_failure(self.cells / f"{cell.id}.error.json")
        except FileNotFoundError:
            return None

    def fail(self, cell: Cell, failure: Mapping[str, Any]) -> None:
        RunFolder(self.cells).write_json(f"{cell.id}.error.json", failure)

    def forget_failure(self, cell: Cell) -> None:
        for kind in ("error.json", "attempts.jsonl"):
            (self.cells / f"{cell.id}.{kind}").unlink(missing_ok=True)

    def attempts(self, cell: Cell) -> list[dict[str, Any]]:
        """The jobs that took the cell up, in order: ``{"by", "host", "process", "epochs": done before}``."""
        path = self.cells / f"{cell.id}.attempts.jsonl"
        found = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            with suppress(json.JSONDecodeError):  # a line that a crash cut off
                found.append(json.loads(line))
        return found

    def note_attempt(self, cell: Cell, attempt: Mapping[str, Any]) -> None:
        with open(self.cells / f"{cell.id}.attempts.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(attempt) + "\n")

    def state(self, cell: Cell) -> State:
        """What has become of a cell."""
        if self.finished(cell):
            return "finished"
        if self.failure(cell) is not None:
            return "failed"
        if held(self.cells / f"{cell.id}.lock"):
            return "running"
        return "begun" if self.folder(cell).checkpoints() else "waiting"

    @contextmanager
    def claim(self, cell: Cell) -> Iterator[bool]:
        """Hold the cell as long as the block runs; False if another process works on it."""
        with locked(self.cells / f"{cell.id}.lock") as mine:
            yield mine

    @contextmanager
    def claim_start(self, name: str) -> Iterator[bool]:
        """Hold a shared start while its epochs are trained; False if another process trains them."""
        with locked(self.starts / f"{name}.lock") as mine:
            yield mine

    def clear_unusable(self, cell: Cell) -> None:
        """Remove what a run left that was killed before its first checkpoint."""
        folder = self.folder(cell)
        if folder.path.exists() and not ((folder.path / "recipe.yaml").is_file() and folder.checkpoints()):
            shutil.rmtree(folder.path)
