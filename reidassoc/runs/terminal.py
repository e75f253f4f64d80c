"""Show the progress of a run on a terminal, in a pipe or in a notebook."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from reidassoc.evaluation.figures import figure_text
from reidassoc.runs.folder import said
from reidassoc.runs.observer import Observer
from reidassoc.runs.result import Result


class Terminal(Observer):
    """Shows bars with losses, images per second and the time left; copies every line to ``log.txt`` of the run folder."""

    def __init__(self) -> None:
        self.console = Console(file=sys.stderr, highlight=False)
        self.folder: Path | None = None
        self.said: set[str] = set()
        self.waiting: list[str] = []  # lines from before there was a folder
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.run_task = self.bars.add_task("epochs", total=None, note="")
        self.step_task = self.bars.add_task("steps", total=None, note="")
        self.first = 0
        self.started = 0.0

    def start(self, folder: Path) -> None:
        self.folder = folder
        self.keep(*self.waiting)

    def epoch(self, number: int, total: int, stage: str, steps: int) -> None:
        self.bars.start()
        self.bars.update(self.run_task, total=total, completed=number, note=f"stage {stage}")
        self.bars.reset(self.step_task, total=steps, note="features and labels …")
        self.started = 0.0

    def step(self, number: int, losses: Mapping[str, float], *, images: int) -> None:
        now = time.perf_counter()
        if self.started:
            rate = f"{(number - self.first) * images / max(now - self.started, 1e-9):.0f} images/s  "
        else:
            rate, self.started, self.first = "", now, number  # what came before warmed up
        self.bars.update(self.step_task, completed=number, note=f"{rate}loss {losses['loss']:.3f}")

    def report(self, row: Mapping[str, Any]) -> None:
        parts = [f"epoch {row['epoch']:>3}  {row['stage']:<6}"]
        parts.append(f"loss {row['losses']['loss']:.3f}" if row["losses"] else "no training")
        if "clusters" in row:
            parts.append(f"clusters {row['clusters']['visible']}/{row['clusters']['infrared']}")
        if cross := [v for k, v in row.get("labels", {}).items() if k.endswith("precision_cross")]:
            parts.append(f"cross precision {100 * sum(cross) / len(cross):.1f} %")
        if "retrieval" in row:
            protocol, metrics = next(iter(row["retrieval"].items()))
            parts.append(
                f"{protocol}: Rank-1 {figure_text(metrics['rank1']['mean'])}  mAP {figure_text(metrics['mAP']['mean'])}"
            )
        parts.append(f"{sum(row['seconds'].values()):.1f} s")
        self.line("  ".join(parts))

    def once(self, text: str) -> None:
        if text not in self.said:
            self.said.add(text)
            self.line(text)

    def line(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)
        self.keep(text)

    def keep(self, *lines: str) -> None:
        """Append to log.txt, or keep in mind until there is a folder."""
        if self.folder is None:
            self.waiting += lines
            return
        path = self.folder / "log.txt"
        with said(path), open(path, "a", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)

    def finish(self, result: Result) -> None:
        self.close()

    def close(self) -> None:
        self.bars.stop()
