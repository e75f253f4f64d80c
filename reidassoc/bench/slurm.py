"""The runner for a Slurm cluster: it keeps as many jobs in the queue as there are cells that can be worked on.

A job is a worker like any other: it takes free cells until there are none, so a shared file system is all that jobs and
runner need to know of each other. A job near its time limit is requeued and goes on after the last whole epoch; for one
that dies a new one is submitted; the runner itself may be stopped and started at any time.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reidassoc.bench.job import RUNNER_LOCK, Job
from reidassoc.bench.runner import SILENT, THREADS, Runner, last_line
from reidassoc.bench.store import locked
from reidassoc.bench.worker import over, ready
from reidassoc.errors import ReidassocError
from reidassoc.extras import needed

WATCH_S = 1.0  # between two looks at the results folder
QUEUE_S = 5.0  # between two looks at the queue
BARREN = 2  # submissions in a row after which no job has taken a cell: something is wrong with the jobs
REQUEUES = 10_000  # a cell that gets no further is given up, not a job
WARNING_S = 90  # before its time limit a job is told to requeue itself
STATES = {"R": "running", "PD": "pending"}
COMMANDS = ("sbatch", "squeue", "scancel")
COMPLETING = "CG"  # its process has ended
OWN = {
    "partition": "partition",
    "time": "time",
    "gpus-per-node": "gpus",
    "cpus-per-task": "cpus",
}  # sbatch's name: ours
FORMATS = (
    r"(?P<m>\d+)(:(?P<s>\d+))?",
    r"((?P<d>\d+)-)?(?P<h>\d+):(?P<m>\d+):(?P<s>\d+)",
    r"(?P<d>\d+)-(?P<h>\d+)(:(?P<m>\d+))?",
)


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """What each job asks for.

    Args:
        partition: the cluster's default if None.
        time: limit, in Slurm's own formats: ``90`` (minutes), ``4:00:00``, ``2-00:00:00``.
        gpus: per job; None: one, but none for ``--device cpu``.
        cpus: per job.
        options: anything else that sbatch takes, by its long name, such as ``{"account": "vision"}``; the value of one that
            takes none, such as ``exclusive``, is empty.

    Raises:
        ReidassocError: a limit or a number is wrong, or an option is none of sbatch's or is set here.
    """

    partition: str | None = None
    time: str = "24:00:00"
    gpus: int | None = None
    cpus: int = 4
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.minutes < 3:
            raise ReidassocError(f"a job's time limit must be at least 3 minutes, got '{self.time}'")
        if self.cpus < 1 or (self.gpus or 0) < 0:
            raise ReidassocError(
                f"a job needs a CPU at least, and no less than 0 GPUs; got {self.cpus} and {self.gpus}"
            )
        taken = {
            "array",
            "requeue",
            "no-requeue",
            "signal",
            "output",
            "error",
            "open-mode",
            "nodes",
            "ntasks",
            "ntasks-per-node",
        }
        for name in self.options:
            if name in OWN:
                raise ReidassocError(f"sbatch's '{name}' is set by --slurm-{OWN[name]}")
            if not re.fullmatch(r"[a-z][a-z-]*", name) or name in taken:
                raise ReidassocError(f"'{name}' is no option of sbatch that can be given here; one is account=NAME")

    @property
    def minutes(self) -> int:
        for form in FORMATS:
            if found := re.fullmatch(form, self.time):
                days, hours, minutes, seconds = (int(found.groupdict().get(unit) or 0) for unit in "dhms")
                return (days * 24 + hours) * 60 + minutes + (seconds + 59) // 60
        raise ReidassocError(f"'{self.time}' is no time limit; expected minutes, H:MM:SS or D-HH:MM:SS")


@dataclass(frozen=True)
class Submission:
    """A job array, and how many attempts at cells there had been when it was submitted."""

    array: str
    attempts: int


@dataclass
class SlurmRunner(Runner):
    """Runs a plan's cells with jobs of a Slurm cluster; ``jobs`` is how many there may be at a time."""

    slurm: Slurm = field(default_factory=Slurm)
    barren: int = 0
    last: Submission | None = None
    queue: Counter[tuple[str, str]] = field(
        default_factory=Counter
    )  # this benchmark's jobs: their array, their state's letters

    @property
    def folder(self) -> Path:
        """What jobs print, what submitit writes for them, and their numbers."""
        return self.store.path / "slurm"

    def check(self) -> None:
        """That jobs can be submitted from here; the devices are the jobs' concern."""
        for name in COMMANDS:
            if shutil.which(name) is None:
                raise ReidassocError(
                    f"no {name} here: --executor slurm works on a machine from which jobs are submitted"
                )
        self.submitter()

    def caption(self) -> str:
        states = Counter(state for _, state in self.queue.elements())
        shown = [f"{states[letters]} {state}" for letters, state in STATES.items() if states[letters]]
        return f"jobs: {', '.join(shown)}" if shown else ""

    def stopped(self) -> str:
        return f"The jobs go on by themselves (to end them: scancel {' '.join(self.arrays())}); watch them again with"

    def run(self, watch: Callable[[], None] = lambda: None) -> None:
        """Submit jobs as long as there are cells for them; ``watch`` is called every second.

        Raises:
            ReidassocError: another runner submits jobs for this folder, Slurm refuses them, or they end without taking a cell.
        """
        self.folder.mkdir(exist_ok=True)
        with self.alone():
            looked = -QUEUE_S
            while not all(over(self.store, cell) for cell in self.plan.runs):
                if time.monotonic() - looked >= QUEUE_S:
                    self.look()
                    looked = time.monotonic()
                watch()
                time.sleep(WATCH_S)
            self.cancel()
        watch()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only runner that submits; the lock also shows the jobs that locks reach from machine to machine."""
        path = self.folder / RUNNER_LOCK
        with locked(path) as mine:
            if not mine:
                raise ReidassocError(
                    f"another runner submits jobs for {self.store.path}; stop it first, or let it go on"
                )
            try:
                yield
            finally:
                os.utime(path, (0, 0))  # nobody is expected to hold it

    def look(self) -> None:
        """Submit jobs for cells that nobody works on, if any."""
        os.utime(self.folder / RUNNER_LOCK)
        queue = self.queued()
        if queue is None:  # Slurm is away for a moment
            return
        self.queue = queue
        at_work = sum(self.store.state(cell) == "running" for cell in self.plan.runs)
        wanted = min(self.jobs, at_work + len(ready(self.plan, self.store)))
        if queue.total() < wanted:
            self.refuse_barren()
            self.submit(wanted - queue.total())

    def attempts(self) -> int:
        return sum(len(self.store.attempts(cell)) for cell in self.plan.runs)

    def refuse_barren(self) -> None:
        """Raise an error if jobs come and go without taking a cell."""
        if self.last is None or self.last.array in {array for array, _ in self.queue}:
            return
        self.barren = self.barren + 1 if self.attempts() == self.last.attempts else 0
        if self.barren >= BARREN:
            logs = sorted(self.folder.glob("*_log.err"), key=lambda path: path.stat().st_mtime)
            last = last_line(logs[-1]) if logs else SILENT
            raise ReidassocError(f"jobs end without taking a run; the last one: {last} (in {self.folder})")

    def arrays(self) -> list[str]:
        """Numbers of all jobs and job arrays submitted for this folder."""
        path = self.folder / "jobs.txt"
        return path.read_text(encoding="utf-8").split() if path.is_file() else []

    def queued(self) -> Counter[tuple[str, str]] | None:
        """This benchmark's jobs in the queue, by array and state; None if Slurm does not answer."""
        command = ["squeue", "--noheader", "--array", "--me", "--format=%F %t"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode != 0:
            return None
        own = set(self.arrays())
        lines = [line.split() for line in found.stdout.splitlines() if line.strip()]
        return Counter((array, state) for array, state in lines if array in own and state != COMPLETING)

    def cancel(self) -> None:
        """Take jobs off the queue that would find nothing to do; those that run end by themselves."""
        if self.arrays():
            subprocess.run(["scancel", "--state=PENDING", *self.arrays()], capture_output=True, check=False)

    def submit(self, count: int) -> None:
        """Submit so many jobs, as one array."""
        spec, store = str(self.spec.resolve()), str(self.store.path.resolve())
        job = Job(spec, store, self.plan.digest, tuple(self.roots.items()), self.seeds, self.device, self.pictures)
        before = self.attempts()
        executor = self.submitter()
        try:
            with executor.batch():
                submitted = [executor.submit(job) for _ in range(count)]
        except Exception as error:  # submitit passes on what sbatch says, in several kinds of error
            lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise ReidassocError(f"Slurm refuses the jobs: {lines[-1].strip()}") from None
        self.last = Submission(submitted[0].job_id.partition("_")[0], before)
        with open(self.folder / "jobs.txt", "a", encoding="utf-8") as file:
            file.write(self.last.array + "\n")

    def submitter(self) -> Any:
        """submitit's executor with the options of each job."""
        submitit = needed("submitit", "slurm", by="--executor slurm")
        executor = submitit.SlurmExecutor(folder=self.folder.resolve(), max_num_timeout=REQUEUES)
        gpus = self.slurm.gpus if self.slurm.gpus is not None else int(self.device != "cpu")
        asked = {"partition": self.slurm.partition, "gpus_per_node": gpus or None}
        cores = "${SLURM_CPUS_PER_TASK:-1}"
        executor.update_parameters(
            job_name=f"reidassoc-{self.plan.grid.name}",
            time=self.slurm.minutes,
            cpus_per_task=self.slurm.cpus,
            srun_args=[f"--cpus-per-task={self.slurm.cpus}"],  # srun no longer takes it from sbatch
            signal_delay_s=WARNING_S,
            setup=[f"export {name}=${{{name}:-{cores}}}" for name in THREADS],
            additional_parameters={
                "requeue": True,
                **{name: text or True for name, text in self.slurm.options.items()},
            },
            **{name: value for name, value in asked.items() if value is not None},
        )
        return executor


def on_slurm(runner: Runner, slurm: Slurm | None = None, *, jobs: int | None = None) -> SlurmRunner:
    """The same benchmark, run by jobs of a Slurm cluster.

    Args:
        runner: from :func:`reidassoc.open_benchmark`.
        slurm: what each job asks for.
        jobs: how many there may be at a time; as many as there are cells to work on if None.
    """
    return SlurmRunner(
        runner.spec, runner.plan, runner.store, runner.roots, runner.seeds, jobs or len(runner.plan.runs), runner.device,
        runner.pictures, slurm=slurm or Slurm(),
    )  # fmt: skip
