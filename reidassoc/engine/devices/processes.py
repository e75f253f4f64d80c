"""One process per device on this machine, started, watched and ended by torch's elastic launcher, which torchrun is.

Imports torch only to start them: every command line asks here first what it is.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from reidassoc.errors import ReidassocError

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

NOTES = "REIDASSOC_NOTES"  # variable: the folder in which the first process writes where the run folder is
PARENT = "REIDASSOC_PARENT"  # variable: the process that watches
FOLDER = "folder"
COMMAND = (sys.executable, "-m", "reidassoc")
LOOK_S = 0.1
GRACE_S = 2  # by which the cause of an error ends before its consequences, and for the first rank to tidy up


def start(arguments: Sequence[str], count: int) -> int:
    """Run ``reidassoc ARGUMENTS`` in ``count`` processes that compute together; return the exit code.

    The first one prints; of another one that fails, the last line is shown.

    Raises:
        ReidassocError: a process was killed or broke down; the message says which, and how to continue.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the processes are ended, the message says how to continue.
    """
    with tempfile.TemporaryDirectory(prefix="reidassoc-") as place:
        notes = Path(place)
        try:
            failures = launch(arguments, count, notes)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"Stopped: {next_step(notes, count, arguments)}") from None
        return explain(failures, count, notes, arguments)


def launch(arguments: Sequence[str], count: int, notes: Path) -> Mapping[int, ProcessFailure]:
    """Run the processes to their end; return those that failed by their rank, in order of time; empty after success."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.ERROR)  # the launcher's own words on what is explained here
    os.environ |= {
        NOTES: str(notes),
        PARENT: str(os.getpid()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count))),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(GRACE_S),
    }
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id="reidassoc",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=LOOK_S,
        logs_specs=DefaultLogsSpecs(str(notes), redirects=dict.fromkeys(range(1, count), Std.ALL)),
    )
    try:
        elastic_launch(config, COMMAND[0])(*COMMAND[1:], *arguments)
    except SignalException:
        raise KeyboardInterrupt from None
    except ChildFailedError as error:
        return error.failures
    return {}


def explain(failures: Mapping[int, ProcessFailure], count: int, notes: Path, arguments: Sequence[str] = ()) -> int:
    """Return the exit code; raise ReidassocError with what happened unless the first process has printed it itself."""
    if not failures:
        return 0
    # The launcher terminates those that are left, and gloo aborts a process that has lost another one.
    consequences = {-signal.SIGABRT: 1, -signal.SIGTERM: 2}
    rank = min(failures, key=lambda rank: consequences.get(failures[rank].exitcode, 0))
    code = failures[rank].exitcode
    if rank == 0 and code > 0:
        return code
    how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"failed ({last_words(notes, rank)})"
    raise ReidassocError(f"process {rank} of {count} {how}; {next_step(notes, count, arguments)}")


def last_words(notes: Path, rank: int) -> str:
    """The last line that a process wrote to standard error."""
    logs = [path.read_text(encoding="utf-8", errors="replace") for path in notes.glob(f"*/*/{rank}/stderr.log")]
    lines = "".join(logs).strip().splitlines()
    return lines[-1].removeprefix("Error: ")[:500] if lines else "it printed nothing"


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
    """Whether this is one of several processes that torchrun, or :func:`start`, started."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 and "LOCAL_RANK" in os.environ


def several_here() -> bool:
    """Whether the processes of a run on several devices are started already, by us, torchrun or srun."""
    return by_torchrun() or ("SLURM_PROCID" in os.environ and int(os.environ.get("SLURM_NTASKS", 1)) > 1)


def first() -> bool:
    """Whether this process, of several, is the one that prints."""
    return os.environ.get("RANK" if by_torchrun() else "SLURM_PROCID", "0") == "0"


def give_way() -> None:
    """Let a process end before this one, so that its message is the one that is shown."""
    time.sleep(GRACE_S)


def leave(code: int) -> NoReturn:
    """End this process of several after an error, without the clean-up at exit: NCCL's would wait for the others."""
    if not first():
        give_way()  # to the first one, which may end by the same error
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a closed pipe, or ours
            stream.flush()
    os._exit(code)


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
        os._exit(1)

    threading.Thread(target=look, daemon=True, name="reidassoc-parent").start()
