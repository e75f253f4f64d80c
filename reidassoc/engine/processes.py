"""One process per device on this machine: started together, watched, and ended together.

Imports no torch: the process that watches does nothing else.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

from reidassoc.errors import ReidassocError

NOTES = "REIDASSOC_NOTES"  # variable: the folder in which the first process says where the run folder is
PARENT = "REIDASSOC_PARENT"  # variable: the process that watches
FOLDER = "folder"
COMMAND = (sys.executable, "-m", "reidassoc")
LOST = 75  # exit code of a process that ended because another one had
LOOK_S = 0.1
GRACE_S = 2.0  # for others to say why they end, and then again to end


def start(arguments: Sequence[str], count: int) -> int:
    """Run ``reidassoc ARGUMENTS`` in ``count`` processes that compute together; return the exit code.

    The first one speaks; of another one that fails, what it said last is told.

    Raises:
        ReidassocError: a process was killed or broke down; the message says which, and how to go on.
        KeyboardInterrupt: Ctrl-C, or SIGTERM where that is turned into it; the processes are ended, the message says how to
            go on.
    """
    with tempfile.TemporaryDirectory(prefix="reidassoc-") as notes:
        processes: list[subprocess.Popen[bytes]] = []
        try:
            with unheard(signal.SIGINT):  # a terminal sends it to all; we alone decide
                for rank in range(count):
                    processes.append(begin(arguments, rank, count, Path(notes)))
            codes = watch(processes)
        except KeyboardInterrupt:
            end(processes)
            raise KeyboardInterrupt(f"Stopped: {next_step(Path(notes), count, arguments)}") from None
        finally:
            end(processes)
        if not any(codes):
            return 0
        return explain(codes, Path(notes), arguments)


def begin(arguments: Sequence[str], rank: int, count: int, notes: Path) -> subprocess.Popen[bytes]:
    """Start one process, with the variables by which torchrun tells processes of each other."""
    if rank == 0:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            (notes / "port").write_text(str(free.getsockname()[1]), encoding="utf-8")
    told: Mapping[str, object] = {
        "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": (notes / "port").read_text(encoding="utf-8"), NOTES: notes, PARENT: os.getpid(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", max(1, (os.cpu_count() or 1) // count)),
    }  # fmt: skip
    environment = {**os.environ, **{name: str(value) for name, value in told.items()}}
    command = [*COMMAND, *arguments]
    if rank == 0:
        return subprocess.Popen(command, env=environment)
    with open(notes / str(rank), "wb") as said:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said)


@contextmanager
def unheard(number: signal.Signals) -> Iterator[None]:
    """Ignore a signal inside this block; processes that are started there ignore it for good."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


def watch(processes: Sequence[subprocess.Popen[bytes]]) -> list[int | None]:
    """Wait until all have ended, or one has failed and the others had time to; return the exit codes so far."""
    until = float("inf")
    while time.monotonic() < until:
        codes = [process.poll() for process in processes]
        if None not in codes:
            break
        if any(codes):
            until = min(until, time.monotonic() + GRACE_S)
        time.sleep(LOOK_S)
    return [process.poll() for process in processes]


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End those that still run, politely, then by force: a rank in a collective operation would wait for the others."""
    try:
        for process in processes:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + GRACE_S
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
    finally:  # also if somebody presses Ctrl-C again
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def explain(codes: Sequence[int | None], notes: Path, arguments: Sequence[str] = ()) -> int:
    """Say which process failed first, unless the first one has said it all itself; return the exit code."""
    causes = [rank for rank, code in enumerate(codes) if code not in (None, 0, LOST)]
    killed = [rank for rank in causes if (codes[rank] or 0) < 0]
    killed.sort(key=lambda rank: codes[rank] == -signal.SIGABRT)  # gloo aborts a process that has lost another one
    rank = (killed or causes or [codes.index(LOST)])[0]
    code = codes[rank] or LOST
    if rank == 0 and code > 0 and code != LOST:
        return code
    how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"failed ({last_words(notes / str(rank))})"
    raise ReidassocError(f"process {rank} of {len(codes)} {how}; {next_step(notes, len(codes), arguments)}")


def last_words(path: Path) -> str:
    said = path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""
    return said.splitlines()[-1].removeprefix("Error: ")[:500] if said else "it said nothing"


def next_step(notes: Path, count: int, arguments: Sequence[str] = ()) -> str:
    """How to go on, as far as the run has come; with the plug-in files that it was begun with."""
    if not (notes / FOLDER).is_file():
        return "the run had not begun: nothing is lost, start it again"
    folder = (notes / FOLDER).read_text(encoding="utf-8")
    files = [word.removeprefix("--plugin=") for word in arguments if word.startswith("--plugin=")]
    files += [file for word, file in pairwise(arguments) if word == "--plugin"]
    plugins = [word for file in files for word in ("--plugin", file)]
    again = shlex.join(["reidassoc", "run", "--resume", folder, *plugins, "--devices", str(count)])
    return f"the last whole epoch is saved: go on with {again}"


def watched() -> bool:
    """Whether this process is one of those that :func:`start` began."""
    return NOTES in os.environ


def by_torchrun() -> bool:
    """Whether this is one of several processes that torchrun, or :func:`begin`, started."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 and "LOCAL_RANK" in os.environ


def several_here() -> bool:
    """Whether somebody (we, torchrun, or srun) has started the processes of a run on several devices already."""
    return by_torchrun() or ("SLURM_PROCID" in os.environ and int(os.environ.get("SLURM_NTASKS", 1)) > 1)


def speaks(devices: int) -> bool:
    """Whether this process is the one that prints: the only one, or the first."""
    if by_torchrun():
        return os.environ.get("RANK") == "0"
    return devices == 1 or os.environ.get("SLURM_PROCID", "0") == "0"


def stops_in_order() -> bool:
    """Whether SIGTERM may stop this process like Ctrl-C: not if it could wait for others meanwhile, without us to end it."""
    return "RANK" not in os.environ or (watched() and os.environ["RANK"] == "0")


def note(folder: Path) -> None:
    """Let the watching process know where the run folder is."""
    if watched():
        (Path(os.environ[NOTES]) / FOLDER).write_text(str(folder), encoding="utf-8")


def end_with_parent() -> None:
    """End this process once the one that watches it is gone, by whatever means."""
    parent = int(os.environ[PARENT])

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(LOST)

    threading.Thread(target=look, daemon=True, name="reidassoc-parent").start()
