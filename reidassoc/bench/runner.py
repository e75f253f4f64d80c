"""The local runner: so many worker processes, each with its share of GPUs and threads, watched until all cells are done."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import torch

from reidassoc.bench.plan import Cell, Plan, read_plan, read_same_plan
from reidassoc.bench.progress import Watch
from reidassoc.bench.store import Store
from reidassoc.bench.worker import over, work
from reidassoc.engine.devices.device import open_device
from reidassoc.errors import ReidassocError
from reidassoc.recipe.code_version import start_name
from reidassoc.runs.folder import RunFolder
from reidassoc.tables.formats import markdown
from reidassoc.tables.read import Results, read_results
from reidassoc.tables.table import Table, compare_results

LOOK_S = 0.5  # between two looks at the workers
SILENT = "it printed nothing"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass
class Worker:
    """A worker process, and the cell that it said it works on."""

    process: subprocess.Popen[str]
    slot: int
    cell: str | None = None
    ear: threading.Thread | None = None

    def listen(self) -> None:
        """Read what the worker says, until it ends."""
        for line in self.process.stdout or ():
            what, _, cell = line.strip().partition(" ")
            self.cell = {"begin": cell, "end": None}.get(what, self.cell)


@dataclass
class Runner:
    """Runs a plan's cells with worker processes.

    A worker dies with its runner, however that ends: it reads from a pipe that closes then.
    """

    spec: Path
    plan: Plan
    store: Store
    roots: Mapping[str, str]
    seeds: tuple[int, ...] = ()
    jobs: int = 1
    device: str = "auto"
    pictures: bool = True
    workers: list[Worker] = field(default_factory=list)

    def listed(self) -> list[str]:
        """One line per cell, and a count: what a dry run prints."""
        lines = []
        for cell in self.plan.cells:
            state = self.store.state(cell)
            lines.append(
                f"{cell.id}  {state:<8}  {cell.recipe.epochs:>4} epochs  {cell.method}, {cell.dataset}, seed {cell.seed}"
            )
        runs = len(self.plan.runs)
        shared = len({start_name(c.recipe, e) for c in self.plan.runs for e in self.plan.starts(c)})
        return [*lines, f"{len(lines)} cells, {runs} runs, {shared} shared starts, in {self.store.path}"]

    def run_watched(self, *, retry_failed: bool = False) -> None:
        """Make the results folder, run what is left with a live table, and write ``table.md`` there."""
        self.check()
        self.store.create(self.plan)
        for cell in self.plan.runs if retry_failed else ():
            self.store.forget_failure(cell)
        with Watch(self.plan, self.store, caption=self.caption) as watch:
            self.run(watch)
        tables, _ = self.tables()
        RunFolder(self.store.path).write_text("table.md", "\n".join(map(markdown, tables)))

    def check(self) -> None:
        """What can be known to fail fails here, not in every cell."""
        open_device(self.device)
        self.plan.check_protocol()

    def caption(self) -> str:
        """A line below the live table."""
        return ""

    def stopped(self) -> str:
        """What to say after Ctrl-C."""
        return "Stopped. Whole epochs are saved; go on with"

    def outdated(self) -> str:
        """What to say beside the tables if files were edited while the benchmark ran; empty if none was."""
        if not (names := self.plan.edited(self.spec)):
            return ""
        return (
            f"{' and '.join(names)} {'was' if len(names) == 1 else 'were'} edited while the benchmark ran; the table is of the "
            "text as it was at the start: the same command runs the new one"
        )

    def tables(self) -> tuple[list[Table], Results]:
        """The comparison on each dataset as it stands, and what it is made from; differences between rows are footnotes."""
        results = read_results([self.store.path])
        return [compare_results(part, allow=True) for part in results.by_dataset()], results

    def run(self, watch: Callable[[], None] = lambda: None) -> None:
        """Work until every cell is finished or failed; ``watch`` is called twice a second.

        Raises:
            ReidassocError: workers end at once, without having taken a cell.
        """
        try:
            self.start_workers()
            while self.workers:
                watch()
                self.look()
        finally:
            for worker in self.workers:
                worker.process.terminate()
            for worker in self.workers:
                worker.process.wait()
        watch()

    def start_workers(self) -> None:
        open_cells = sum(not over(self.store, cell) for cell in self.plan.runs)
        for slot in range(min(self.jobs, open_cells)):
            self.workers.append(self.start(slot))

    def start(self, slot: int) -> Worker:
        """Start a worker with its own GPU, where there are any, and its share of the threads."""
        job = {
            "spec": str(self.spec), "store": str(self.store.path), "digest": self.plan.digest,
            "roots": dict(self.roots), "seeds": list(self.seeds), "device": self.device,
            "pictures": self.pictures,
        }  # fmt: skip
        with open(self.store.path / f"worker_{slot}.log", "a", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "reidassoc.bench.runner", json.dumps(job)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **share(slot, self.jobs, self.device)},
            )
        worker = Worker(process, slot)
        worker.ear = threading.Thread(target=worker.listen, daemon=True)
        worker.ear.start()
        return worker

    def look(self) -> None:
        """Wait a moment; a worker that was killed has its cell marked as failed, and another takes its place."""
        first = self.workers[0].process
        with contextlib.suppress(subprocess.TimeoutExpired):
            first.wait(LOOK_S)
        for worker in [worker for worker in self.workers if worker.process.poll() is not None]:
            self.workers.remove(worker)
            code = worker.process.returncode
            if worker.ear is not None:
                worker.ear.join()
            if code == 0:
                continue
            log = self.store.path / f"worker_{worker.slot}.log"
            if worker.cell is None:
                raise ReidassocError(f"a worker ended with code {code}: {last_line(log)} (in {log})")
            reason = f"its process was killed by signal {-code}" if code < 0 else f"its process ended with code {code}"
            for cell in self.plan.runs:
                if cell.id == worker.cell and not over(self.store, cell):
                    self.store.fail(cell, {"error": f"{reason} (out of memory?)", "details": f"see {log}"})
            self.workers.append(self.start(worker.slot))


def last_line(log: Path) -> str:
    """What a process had to say in the end."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), SILENT)


def open_benchmark(
    spec: str | Path,
    *,
    out: str | Path | None = None,
    roots: Mapping[str, str] | None = None,
    seeds: Sequence[int] = (),
    jobs: int = 1,
    device: str | torch.device = "auto",
    pictures: bool = True,
) -> Runner:
    """Read and check a benchmark's spec; nothing is run or written yet.

    Args:
        spec: the YAML file.
        out: results folder; ``runs/NAME`` if not given.
        roots: folder of each dataset that is kept on disk, by the dataset's name; "" stands for any.
        seeds: in place of the spec's.
        jobs: worker processes.
        device: as for ``run``.
        pictures: as for ``run``.

    Raises:
        ReidassocError: something in the spec is wrong; the message names the method.
    """
    plan = read_plan(spec, roots=roots, seeds=seeds)
    store = Store(Path(out) if out else Path("runs") / plan.grid.name)
    return Runner(Path(spec), plan, store, roots or {}, tuple(seeds), jobs, str(device), pictures)


def share(slot: int, jobs: int, device: str) -> dict[str, str]:
    """Environment of one of several workers: one GPU each, in turn, and an equal part of the cores."""
    found: dict[str, str] = {}
    if jobs > 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = str(max(1, cores // jobs))
        for name in THREADS:
            if name not in os.environ:
                found[name] = threads
    if device in {"auto", "cuda"} and (cards := visible_cards()):
        found["CUDA_VISIBLE_DEVICES"] = cards[slot % len(cards)]
    return found


def visible_cards() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them; nothing is started on them."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name.strip() for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name.strip()]
    import torch  # NVML counts the cards without opening them

    return [str(number) for number in range(torch.cuda.device_count())]


def follow(stream: IO[str]) -> None:
    """End this process when the one that started it does: the pipe from it closes."""
    while stream.read(1):
        pass
    os._exit(1)


def serve(text: str) -> None:
    """A worker process: read the job, and work on it, saying on standard output what begins and ends."""
    threading.Thread(target=follow, args=(sys.stdin,), daemon=True).start()
    job = json.loads(text)

    def told(what: str, cell: Cell) -> None:
        print(what, cell.id, flush=True)

    try:
        plan = read_same_plan(job["spec"], job["digest"], roots=job["roots"], seeds=job["seeds"])
    except ReidassocError as error:
        sys.exit(str(error))
    work(plan, Store(Path(job["store"])), device=job["device"], pictures=job["pictures"], told=told)


if __name__ == "__main__":
    serve(sys.argv[1])
