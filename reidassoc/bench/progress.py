"""The table that shows a benchmark at work: methods by seeds, each cell with its state or its result."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table as RichTable

from reidassoc.bench.plan import Cell, Plan
from reidassoc.bench.store import Store
from reidassoc.evaluation.figures import figure_text
from reidassoc.tables.terminal_table import Column, drawn, laid_out

PAUSE_S = 60  # between two lines on how far the runs are
NAMED = 4  # runs in such a line


class Watch:
    """Shows the states on a terminal as they change; elsewhere a line for each cell that begins or ends, and one a minute."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        console: Console | None = None,
        caption: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan, self.store, self.caption, self.clock = plan, store, caption, clock
        self.last = clock()
        self.console = console or Console(stderr=True, highlight=False)
        self.live = Live(console=self.console, transient=True, auto_refresh=False)
        self.said: dict[str, str] = {}

    def __enter__(self) -> Watch:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.live.stop()

    def __call__(self) -> None:
        states = {cell.id: self.describe(cell) for cell in self.plan.runs}
        if self.console.is_terminal:
            self.live.update(self.drawn(states), refresh=True)
            return
        caption = self.caption()
        if self.said.setdefault("caption", "") != caption:
            self.said["caption"] = caption
            self.say(caption)
        for cell in self.plan.runs:
            text = states[cell.id]
            coarse = text.partition(" ")[0] if text.startswith("epoch") else text
            if self.said.setdefault(cell.id, "waiting") != coarse:
                self.said[cell.id] = coarse
                self.say(f"{name_of(cell)}: {'runs' if coarse == 'epoch' else text}")
        running = [cell for cell in self.plan.runs if states[cell.id].startswith("epoch")]
        if running and self.clock() - self.last >= PAUSE_S:
            more = f"; and {len(running) - NAMED} more" if len(running) > NAMED else ""
            self.say("; ".join(f"{name_of(cell)}: {states[cell.id]}" for cell in running[:NAMED]) + more)

    def say(self, line: str) -> None:
        self.last = self.clock()
        self.console.print(line, markup=False, soft_wrap=True)

    def describe(self, cell: Cell) -> str:
        """``mAP 59.0``, ``epoch 12 of 53``, ``failed: why``, ``begun`` or ``waiting``."""
        state = self.store.state(cell)
        if state == "finished":
            try:
                protocols = self.store.result(cell)["protocols"]
                shown = protocols.get(self.plan.grid.protocol) or next(iter(protocols.values()), None)
                return f"mAP {figure_text(shown['mAP']['mean'])}" if shown else "finished"
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
                return "its result.json can't be read"
        if state == "failed":
            failure = self.store.failure(cell)
            return f"failed: {failure['error'] if failure else 'unknown'}"
        if state == "running":
            return f"epoch {len(self.store.folder(cell).metrics)} of {cell.recipe.epochs}"
        return state

    def drawn(self, states: dict[str, str]) -> RichTable:
        seeds = list(dict.fromkeys(cell.seed for cell in self.plan.cells))
        names = ("method", "dataset", *(f"seed {seed}" for seed in seeds))
        lines = []
        rows = dict.fromkeys((cell.method, cell.dataset) for cell in self.plan.cells)
        for method, dataset in rows:
            cells = {c.seed: states[c.id] for c in self.plan.cells if (c.method, c.dataset) == (method, dataset)}
            lines.append([method, dataset, *(cells.get(seed, "") for seed in seeds)])
        table = drawn(laid_out([Column(name, "words") for name in names], lines, self.console.width))
        table.caption = escape(self.caption())
        return table


def name_of(cell: Cell) -> str:
    return f"{cell.method}, {cell.dataset}, seed {cell.seed}"
