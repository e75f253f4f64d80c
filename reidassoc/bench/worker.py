"""What a process of a benchmark does: take a free cell, run it or go on with it, until none is left.

Workers know of each other by the store's locks alone, so any number of them, started by anybody, on any machine that sees
the folder, share the work.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reidassoc.bench.plan import Cell, Plan
from reidassoc.bench.store import Store
from reidassoc.data.file_lock import held
from reidassoc.engine.shared_start import leave_snapshot, snapshot_path, start_from
from reidassoc.engine.train import run
from reidassoc.errors import ReidassocError
from reidassoc.recipe.code_version import start_name
from reidassoc.recipe.model import Recipe
from reidassoc.runs.folder import RunFolder
from reidassoc.runs.observer import Observer

LOOK_AGAIN_S = 0.5  # between two looks at cells that others hold

Told = Callable[[str, Cell], None]  # "begin", "end"


@dataclass
class SharingLog(Observer):
    """Leaves a snapshot at the epochs that other cells begin with, and lets go of the claims on them."""

    store: Store
    recipe: Recipe
    epochs: tuple[int, ...]
    claims: ExitStack
    folder: RunFolder | None = field(default=None, init=False)
    waiting: list[str] = field(default_factory=list, init=False)  # lines from before there was a folder

    def start(self, folder: Path) -> None:
        self.folder = RunFolder(folder)
        self.keep(*self.waiting)

    def once(self, text: str) -> None:
        self.keep(text)

    def keep(self, *lines: str) -> None:
        """Append to log.txt, or keep in mind until there is a folder."""
        if self.folder is None:
            self.waiting += lines
            return
        with open(self.folder.path / "log.txt", "a", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines)

    def report(self, row: Mapping[str, Any]) -> None:
        reached = row["epoch"] + 1
        if reached in self.epochs and self.folder is not None:
            leave_snapshot(self.store.starts, self.folder, self.recipe, reached)
        if self.epochs and reached >= self.epochs[-1]:
            self.claims.close()


def work(
    plan: Plan,
    store: Store,
    *,
    device: str = "auto",
    pictures: bool = True,
    told: Told = lambda what, cell: None,
    patience_s: float = math.inf,
) -> None:
    """Run what is neither finished nor failed, until all is done or held by others.

    Args:
        pictures: whether run folders keep thumbnails.
        patience_s: how long to wait for cells that other processes work on: they may die, or leave a start that others
            wait for. Without end where waiting costs nothing; on a cluster it keeps a GPU from others.
    """
    idle_since = time.monotonic()
    while True:
        others, worked = False, False
        for cell in plan.runs:
            if over(store, cell):
                continue
            with store.claim(cell) as mine:
                if not mine:
                    others = True
                elif not over(store, cell):  # it may have ended between the look and the claim
                    done = attempt(plan, store, cell, device, pictures, told)
                    others, worked = others or not done, worked or done
        if not others:
            return
        if worked:
            idle_since = time.monotonic()
        elif time.monotonic() - idle_since > patience_s:
            return
        else:
            time.sleep(LOOK_AGAIN_S)


def over(store: Store, cell: Cell) -> bool:
    return store.finished(cell) or store.failure(cell) is not None


def attempt(plan: Plan, store: Store, cell: Cell, device: str, pictures: bool, told: Told) -> bool:
    """Run a claimed cell to its end or failure; False if it must wait for a start that another process trains."""
    with ExitStack() as claims:
        store.clear_unusable(cell)
        starts = plan.starts(cell)
        for name in missing_starts(plan, store, cell):
            if not claims.enter_context(store.claim_start(name)):
                return False
        told("begin", cell)
        try:
            run_cell(store, cell, starts, claims, device, pictures)
        except MemoryError:
            store.fail(cell, {"error": "out of memory", "details": ""})
        except Exception as error:
            line = str(error) if isinstance(error, ReidassocError) else f"{type(error).__name__}: {error}"
            store.fail(cell, {"error": " ".join(line.split()) or "unknown", "details": traceback.format_exc()})
        told("end", cell)
    return True


def missing_starts(plan: Plan, store: Store, cell: Cell) -> list[str]:
    """The shared starts that somebody has to train before the cell can go on, or it itself."""
    return [
        start_name(cell.recipe, epochs)
        for epochs in plan.starts(cell)
        if reached(store, cell) < epochs and not snapshot_path(store.starts, cell.recipe, epochs).is_dir()
    ]


def ready(plan: Plan, store: Store) -> list[Cell]:
    """The cells that as many processes could begin now, each one: of those that need one start, the first."""
    found, training = [], set()
    for cell in plan.runs:
        if store.state(cell) in ("begun", "waiting"):
            needed = missing_starts(plan, store, cell)
            if not any(name in training or held(store.starts / f"{name}.lock") for name in needed):
                training.update(needed)
                found.append(cell)
    return found


def reached(store: Store, cell: Cell) -> int:
    """Epochs that the cell's own run has behind it."""
    newest = store.folder(cell).checkpoints()[:1]
    return int(newest[0].stem.removeprefix("epoch_")) if newest else 0


def run_cell(store: Store, cell: Cell, starts: tuple[int, ...], claims: ExitStack, device: str, pictures: bool) -> None:
    """Start a cell anew, from a shared start, or go on with it."""
    folder = store.folder(cell)
    own = reached(store, cell)
    if own in starts:  # it may have been killed before it could leave the snapshot
        leave_snapshot(store.starts, folder, cell.recipe, own)
    left = [snapshot_path(store.starts, cell.recipe, epochs) for epochs in starts]
    usable = [path for path, epochs in zip(left, starts, strict=True) if epochs > own and path.is_dir()]
    if usable and not folder.path.exists():
        start_from(usable[-1], folder.path, cell.recipe)
    log = SharingLog(store, cell.recipe, starts, claims)
    there = folder.path.exists()
    run(cell.recipe, out=folder.path, device=device, resume=there, pictures=pictures, log=log)
