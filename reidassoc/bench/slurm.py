"""The runner for a Slurm cluster: it keeps as many jobs in the queue as there are cells that can be worked on.

A job is a worker like any other: it takes free cells until there are none, so a shared file system is all that jobs and
runner need to know of each other. submitit submits the jobs, and requeues one near its time limit; for one that dies a new
one is submitted. The runner itself may be stopped and started at any time.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from reidassoc.bench.plan import Cell, Plan, read_same_plan
from reidassoc.bench.runner import SILENT, THREADS, Runner, last_line
from reidassoc.bench.store import Store, held, locked
from reidassoc.bench.worker import over, reached, ready, work
from reidassoc.errors import DataError, ReidassocError
from reidassoc.registry.extras import needed

COMMANDS = ("sbatch", "srun", "squeue", "scancel")
DEFAULTS = {"time": "24:00:00", "cpus-per-task": "4"}
RESERVED = {
    "array",
    "error",
    "job-name",
    "nodes",
    "ntasks",
    "ntasks-per-node",
    "open-mode",
    "output",
    "requeue",
    "signal",
}
WATCH_S = 1.0  # between two looks at the results folder
QUEUE_S = 5.0  # between two looks at the queue
PATIENCE_S = 5.0  # then a job that finds no free cell gives its GPU back
BARREN = 2  # submissions in a row after which no job has taken a cell: something is wrong with the jobs
STUCK = 5  # attempts that don't get an epoch further, after which a cell counts as failed
REQUEUES = 10_000  # a cell that gets no further is given up, not a job
WARNING_S = 90  # before its time limit a job is told to requeue itself
FRESH_S = 60.0  # a lock that the runner touched so lately is held


@dataclass
class SlurmRunner(Runner):
    """Runs a plan's cells with jobs of a Slurm cluster; ``jobs`` is how many there may be at a time."""

    options: Mapping[str, str] = field(default_factory=dict)  # of sbatch, for each job
    queue: list[str] = field(default_factory=list)  # the array of each job in the queue
    last: tuple[str, int] | None = None  # the last array, and how many attempts at cells there had been before it
    barren: int = 0

    @property
    def folder(self) -> Path:
        """What jobs print, and what submitit writes for them."""
        return self.store.path / "slurm"

    @property
    def name(self) -> str:
        """Name of all jobs for this results folder."""
        return f"reidassoc-{self.plan.grid.name}-{zlib.crc32(str(self.store.path.resolve()).encode()):08x}"

    def check(self) -> None:
        """That jobs can be submitted from here; the devices are the jobs' concern."""
        for name in COMMANDS:
            if shutil.which(name) is None:
                raise ReidassocError(f"{name} is not installed here; use --executor slurm where jobs can be submitted")
        self.submitter()
        answer = self.asked()
        if answer.returncode != 0:
            said = (answer.stderr.strip().splitlines() or [SILENT])[-1]
            raise ReidassocError(f"squeue fails here ({said}); use --executor slurm where jobs can be submitted")

    def caption(self) -> str:
        return f"jobs in the queue: {len(self.queue)}"

    def stopped(self) -> str:
        return f"The jobs continue by themselves (to end them: scancel --name {self.name}); watch them again with"

    def run(self, watch: Callable[[], None] = lambda: None) -> None:
        """Submit jobs as long as there are cells for them; ``watch`` is called every second.

        Raises:
            ReidassocError: another runner submits jobs for this folder, Slurm refuses them, or they end without taking a cell.
        """
        self.folder.mkdir(exist_ok=True)
        with locked(lock_of(self.store)) as mine:
            if not mine:
                raise ReidassocError(f"another command submits jobs for {self.store.path}; stop it, or let it finish")
            try:
                looked = -QUEUE_S
                while not all(over(self.store, cell) for cell in self.plan.runs):
                    if time.monotonic() - looked >= QUEUE_S:
                        self.look()
                        looked = time.monotonic()
                    watch()
                    time.sleep(WATCH_S)
            finally:
                os.utime(lock_of(self.store), (0, 0))  # jobs no longer expect it to be held
        subprocess.run(["scancel", "--state=PENDING", "--name", self.name], capture_output=True, check=False)
        watch()

    def look(self) -> None:
        """Submit jobs for cells that no job works on, if any."""
        os.utime(lock_of(self.store))
        answer = self.asked()
        if answer.returncode != 0:  # Slurm is away for a moment
            return
        self.queue = answer.stdout.split()
        at_work = sum(self.store.state(cell) == "running" for cell in self.plan.runs)
        wanted = min(self.jobs, at_work + len(ready(self.plan, self.store))) - len(self.queue)
        if wanted > 0:
            self.submit(wanted)

    def asked(self) -> subprocess.CompletedProcess[str]:
        """What squeue says of this benchmark's jobs: the array of each one that has not ended."""
        command = ["squeue", "--noheader", "--array", "--me", "--name", self.name, "--states=PD,R,S,CF", "--format=%F"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def submit(self, count: int) -> None:
        """Submit so many jobs, as one array, unless jobs come and go without taking a cell."""
        attempts = sum(len(self.store.attempts(cell)) for cell in self.plan.runs)
        if self.last is not None and self.last[0] not in self.queue:
            self.barren = self.barren + 1 if attempts == self.last[1] else 0
        if self.barren >= BARREN:
            logs = sorted(self.folder.glob("*_log.err"), key=lambda path: path.stat().st_mtime)
            said = last_line(logs[-1]) if logs else SILENT
            raise ReidassocError(f"jobs end without taking a run; the last one: {said} (in {self.folder})")
        spec, store = str(self.spec.resolve()), str(self.store.path.resolve())
        job = Job(spec, store, self.plan.digest, tuple(self.roots.items()), self.seeds, self.device, self.pictures)
        executor = self.submitter()
        try:
            with executor.batch():
                submitted = [executor.submit(job) for _ in range(count)]
        except Exception as error:  # submitit passes on what sbatch says, in several kinds of error
            lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise ReidassocError(f"Slurm refuses the jobs: {lines[-1].strip()}") from None
        self.last = submitted[0].job_id.partition("_")[0], attempts

    def submitter(self) -> Any:
        """submitit's executor with the options of each job."""
        executor = needed("submitit", "slurm", by="--executor slurm").SlurmExecutor(
            folder=self.folder.resolve(), max_num_timeout=REQUEUES
        )
        executor.update_parameters(
            job_name=self.name,
            srun_args=[f"--cpus-per-task={self.options['cpus-per-task']}"],  # srun no longer takes it from sbatch
            signal_delay_s=WARNING_S,
            setup=[f"export {name}=${{{name}:-${{SLURM_CPUS_PER_TASK:-1}}}}" for name in THREADS],
            additional_parameters={"requeue": True, **{name: text or True for name, text in self.options.items()}},
        )
        return executor


def on_slurm(runner: Runner, options: Mapping[str, str] | None = None, *, jobs: int | None = None) -> SlurmRunner:
    """The same benchmark, run by jobs of a Slurm cluster.

    Args:
        runner: from :func:`reidassoc.open_benchmark`.
        options: what each job asks for, by sbatch's long names, such as ``{"partition": "gpu", "time": "4:00:00"}``; the
            value of one that takes none, such as ``exclusive``, is empty. A day, four cores and, unless the device is the CPU,
            one GPU if not given.
        jobs: how many there may be at a time; as many as there are cells to work on if None.

    Raises:
        ReidassocError: the runner sets an option itself.
    """
    asked = {**DEFAULTS, **({} if runner.device == "cpu" else {"gpus-per-node": "1"}), **(options or {})}
    if wrong := sorted(RESERVED & asked.keys()):
        raise ReidassocError(f"sbatch's '{wrong[0]}' can't be chosen, since the runner sets it; leave it out")
    if asked.get("gpus-per-node") == "0":
        del asked["gpus-per-node"]
    return SlurmRunner(
        runner.spec, runner.plan, runner.store, runner.roots, runner.seeds, jobs or len(runner.plan.runs), runner.device,
        runner.pictures, options=asked,
    )  # fmt: skip


@dataclass(frozen=True)
class Job:
    """Works on a benchmark until no cell is free; ``digest`` is its plan's: a job does what it was submitted for, or nothing."""

    spec: str
    store: str
    digest: str
    roots: tuple[tuple[str, str], ...] = ()
    seeds: tuple[int, ...] = ()
    device: str = "auto"
    pictures: bool = True

    def __call__(self) -> None:
        end_quietly_when_requeued()
        by, host, store = (
            needed("submitit", "slurm", by="a job").JobEnvironment().job_id,
            socket.gethostname(),
            Store(Path(self.store)),
        )
        lock = lock_of(store)
        if lock.exists() and time.time() - lock.stat().st_mtime < FRESH_S and not held(lock):
            raise DataError(
                f"a lock on {lock} is not seen on {host}: mount the file system with locks (flock), or use another"
            )
        plan = read_same_plan(self.spec, self.digest, roots=dict(self.roots), seeds=self.seeds)
        give_up_stuck(plan, store)

        def told(what: str, cell: Cell) -> None:
            print(f"== {time.strftime('%Y-%m-%d %H:%M:%S')}: {what} {cell.id}", flush=True)
            if what == "begin":
                attempt = {"by": by, "host": host, "process": os.getpid(), "epochs": reached(store, cell)}
                store.note_attempt(cell, attempt)

        work(plan, store, device=self.device, pictures=self.pictures, told=told, patience_s=PATIENCE_S)

    def checkpoint(self) -> Any:
        """What a requeued job does: the same; the run folders hold how far each cell is."""
        return needed("submitit.helpers", "slurm", by="a job").DelayedSubmission(self)


def lock_of(store: Store) -> Path:
    """Held, and touched every few seconds, by the command that submits the jobs."""
    return store.path / "slurm" / "runner.lock"


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
                store.fail(cell, {"error": reason, "details": f"see slurm/{last[-1]['by']}_0_log.err"})


def end_quietly_when_requeued() -> None:
    """Keep an error in submitit's signal handler from counting as the cell's: the job ends, another continues the cell."""
    requeue: Any = signal.getsignal(signal.SIGUSR2)

    def handle(number: int, frame: FrameType | None) -> None:
        try:
            requeue(number, frame)
        except Exception as error:
            raise SystemExit(f"this job is not requeued: {error}") from error

    if callable(requeue):
        signal.signal(signal.SIGUSR2, handle)
