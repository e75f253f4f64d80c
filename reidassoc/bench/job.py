"""What a job of a cluster does: the work of any worker, with a diary, and with an eye on cells that kill their jobs."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from reidassoc.bench.plan import Cell, Plan, read_same_plan
from reidassoc.bench.store import Store, held
from reidassoc.bench.worker import over, reached, work
from reidassoc.engine.folder import said
from reidassoc.errors import DataError

PATIENCE_S = 5.0  # then a job that finds no free cell gives its GPU back
STUCK = 5  # attempts that don't get an epoch further, after which a cell counts as failed
RUNNER_LOCK = "runner.lock"  # held, and touched every few seconds, by the command that submits the jobs
RUNNER_FRESH_S = 60.0

Handler = Callable[[int, "FrameType | None"], object]


@dataclass(frozen=True)
class Job:
    """Works on a benchmark until no cell is free.

    Args:
        spec: the YAML file.
        store: the results folder.
        digest: of the plan: a job does what it was submitted for, or nothing.
        roots: folder of each dataset that is kept on disk, by the dataset's name.
        seeds: in place of the spec's.
        device: as for ``run``.
        pictures: as for ``run``.
    """

    spec: str
    store: str
    digest: str
    roots: tuple[tuple[str, str], ...] = ()
    seeds: tuple[int, ...] = ()
    device: str = "auto"
    pictures: bool = True

    def __call__(self) -> None:
        end_quietly_when_requeued()
        store = Store(Path(self.store))
        check_locks(store.path / "slurm" / RUNNER_LOCK)
        plan = read_same_plan(self.spec, self.digest, roots=dict(self.roots), seeds=self.seeds)
        give_up_stuck(plan, store)
        work(plan, store, device=self.device, pictures=self.pictures, told=Diary(store), patience_s=PATIENCE_S)

    def checkpoint(self) -> object:
        """What a requeued job does: the same; the run folders hold how far each cell is."""
        from submitit.helpers import DelayedSubmission  # an extra, there where submitit calls this

        return DelayedSubmission(self)


@dataclass
class Diary:
    """Notes who takes up which cell, and sends everything printed meanwhile to the cell's own log, ``job.log`` in its folder."""

    store: Store
    kept: tuple[int, int] | None = field(default=None, init=False)  # standard output and error of the job itself

    def __call__(self, what: str, cell: Cell) -> None:
        if what == "begin":
            attempt = {
                "by": job_name(), "host": socket.gethostname(), "process": os.getpid(),
                "epochs": reached(self.store, cell),
            }  # fmt: skip
            self.store.note_attempt(cell, attempt)
            self.redirect(self.log_of(cell))
            print(f"== {time.strftime('%Y-%m-%d %H:%M:%S')}: job {attempt['by']} on {attempt['host']}", flush=True)
        else:
            self.restore()
            self.keep(cell)

    def log_of(self, cell: Cell) -> Path:
        """Where the log lies as long as the run folder may be made anew."""
        return self.store.cells / f"{cell.id}.job.log"

    def redirect(self, log: Path) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self.kept = (os.dup(1), os.dup(2))
        with said(log), open(log, "a") as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)

    def restore(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        if self.kept is not None:
            for number, handle in zip((1, 2), self.kept, strict=True):
                os.dup2(handle, number)
                os.close(handle)
            self.kept = None

    def keep(self, cell: Cell) -> None:
        """Move the log into the run folder, if there is one."""
        log, final = self.log_of(cell), self.store.folder(cell).path / "job.log"
        if final.parent.is_dir():
            with said(final), open(final, "a", encoding="utf-8") as file:
                file.write(log.read_text(encoding="utf-8", errors="replace"))
            log.unlink()


def job_name() -> str:
    """``12_3`` for task 3 of job array 12, ``12`` for a single job, with ``+1`` once it was requeued."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    name = f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID", f"process {os.getpid()}")
    again = os.environ.get("SLURM_RESTART_COUNT", "0")
    return name if again == "0" else f"{name}+{again}"


def give_up_stuck(plan: Plan, store: Store) -> None:
    """Mark cells as failed whose last jobs all ended in the same epoch: they would kill the next job, too."""
    for cell in plan.runs:
        last = store.attempts(cell)[-STUCK:]
        if len(last) < STUCK or over(store, cell):
            continue
        with store.claim(cell) as mine:
            epochs = reached(store, cell)
            if mine and not over(store, cell) and all(attempt["epochs"] == epochs for attempt in last):
                reason = f"{STUCK} jobs ended in epoch {epochs}; out of memory, or is the time limit below one epoch?"
                store.fail(cell, {"error": reason, "details": f"see {Diary(store).log_of(cell)}"})


def check_locks(lock: Path) -> None:
    """Make sure that locks reach from machine to machine: the command that submitted this job holds one, if it still runs.

    Raises:
        DataError: it runs, and its lock is not seen here.
    """
    probe = lock.with_name(f"{job_name()}.probe")
    for _ in range(int(2 * RUNNER_FRESH_S)):
        probe.touch()  # the file system's own clock
        age_s = probe.stat().st_mtime - lock.stat().st_mtime if lock.exists() else RUNNER_FRESH_S
        probe.unlink()
        if age_s >= RUNNER_FRESH_S or held(lock):
            return
        time.sleep(1.0)
    raise DataError(
        f"a lock on {lock} is not seen on {socket.gethostname()}: mount the file system with locks (flock), or use another"
    )


def end_quietly_when_requeued() -> None:
    """Keep an error in submitit's signal handler from counting as the cell's: the job ends, and another goes on with the cell."""
    usual = signal.getsignal(signal.SIGUSR2)
    if not callable(usual):
        return
    handler: Handler = usual

    def handle(number: int, frame: FrameType | None) -> None:
        try:
            handler(number, frame)
        except Exception as error:
            raise SystemExit(f"this job is not requeued: {error}") from error

    signal.signal(signal.SIGUSR2, handle)
