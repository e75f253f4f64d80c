"""Several devices: two processes compute what one does, and if one is lost the run ends in one line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from support.two_ranks import CASES, NAME, SHORT, TINY, labelled, shared_pass, short_recipe, trained
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

import reidassoc as ra
from reidassoc.engine import checkpoint
from reidassoc.engine.devices import device, processes
from reidassoc.engine.devices.as_gpus import refuse_uneven
from reidassoc.engine.devices.device import open_device, open_devices
from reidassoc.engine.devices.ranks import shares
from reidassoc.errors import DeviceError, RecipeError, ReidassocError
from reidassoc.recipe.choose import choose
from reidassoc.recipe.model import Recipe
from reidassoc.recipe.override import override
from reidassoc.runs.folder import RunFolder


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left, started as srun starts them."""
    out = tmp_path_factory.mktemp("pair")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {
        "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "test", "SLURM_NTASKS": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0",
        "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODELIST": "127.0.0.1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1", "REIDASSOC_CACHE": str(out / "cache"),
    }  # fmt: skip
    script = Path(__file__).resolve().parents[2] / "support" / "two_ranks.py"
    started = [
        subprocess.Popen(
            [sys.executable, str(script), str(out)],
            env={**os.environ, **variables, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate()[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], said
    return out


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of one process."""
    return ra.run(short_recipe(), out=tmp_path_factory.mktemp("one") / "run", device="cpu").folder


@pytest.mark.parametrize("name", CASES)
def test_banks_losses_and_weights_are_those_of_one_process(name: str, pair: Path) -> None:
    """Float64, SGD, five steps: the whole batch's loss, its gradient, its statistics."""
    expected = trained(open_device("cpu"), CASES[name])
    found = [torch.load(pair / f"{name}.{rank}.pt", weights_only=True) for rank in range(2)]
    assert [f["images"].tolist() for f in found] == [[6, 6], [6, 6]]
    assert expected["images"].tolist() == [12, 12]
    kinds = Counter(key.partition(" ")[0] for key in expected)
    assert kinds["weight"] > 10
    assert kinds["bank"] >= CASES[name].banks
    assert kinds["head"] == CASES[name].heads
    for key, value in expected.items():
        if key == "images":
            continue
        assert torch.equal(found[0][key], found[1][key]), key
        torch.testing.assert_close(found[0][key], value, rtol=0, atol=1e-8, msg=lambda m, key=key: f"{key}: {m}")
    assert float((expected["losses"][0] - expected["losses"][-1]).abs().max()) > 1e-4  # something was learnt


@pytest.mark.parametrize("infrared", [1, 5])
def test_each_process_looks_at_its_share_of_the_images_even_if_that_is_none(infrared: int, pair: Path) -> None:
    """With one infrared image, the second process has none; of five, it has two."""
    expected = shared_pass(open_device("cpu"), infrared)
    found = [torch.load(pair / f"shared_pass {infrared}.{rank}.pt", weights_only=True) for rank in range(2)]
    assert [len(x) for x in expected["features"]] == [48, infrared]
    assert expected["seen"] == {"visible": 48, "infrared": infrared}
    assert found[0]["seen"] == {"visible": 24, "infrared": (infrared + 1) // 2}
    assert found[1]["seen"] == {"visible": 24, "infrared": max(infrared // 2, 1)}  # a blank image stands for none
    for key in ("features", "parts", "losses"):
        for one, other, whole in zip(found[0][key], found[1][key], expected[key], strict=True):
            assert torch.equal(one, other), key
            torch.testing.assert_close(one, whole, rtol=1e-5, atol=1e-6)


def test_the_first_rank_labels_and_every_rank_has_its_labels(pair: Path) -> None:
    """To the bit."""
    expected = labelled(open_device("cpu"))
    found = [torch.load(pair / f"labels.{rank}.pt", weights_only=True) for rank in range(2)]
    assert [rank["made here"] for rank in found] == [True, False]
    for rank in found:
        assert rank["counts"] == expected["counts"] == {"as from a fall-back": 1}
        for key in ("clusters", "targets", "affinity"):
            assert len(rank[key]) == len(expected[key]) >= 4
            assert all(torch.equal(one, other) for one, other in zip(rank[key], expected[key], strict=True)), key


def test_a_step_that_is_too_large_for_one_device_names_the_size_that_fits(pair: Path) -> None:
    """5 × 4 images are 20 in all; of 2 × 4, one device has 4."""
    said = [(pair / f"scarce.{rank}").read_text() for rank in range(2)]
    assert said[0].startswith("RankLost: another process of this run has ended, see its message")
    assert said[1] == (
        "DeviceError: out of memory in a training step of 5 identities × 4 images; "
        "2 × 4 fit: start anew with --set cross.identities=2"
    )
    assert RunFolder(pair / "scarce").checkpoints()[0].name == "epoch_001.pt"


def close(first: Path, second: Path) -> None:
    """Float32, Adam: rows of two runs with losses within 1e-4."""
    rows = [RunFolder(folder).metrics for folder in (first, second)]
    assert len(rows[0]) == len(rows[1]) > 0
    for one, other in zip(*rows, strict=True):
        assert one["clusters"] == other["clusters"]
        assert one["losses"] == pytest.approx(other["losses"], rel=0, abs=1e-4)


def test_a_whole_run_of_two_processes_is_that_of_one(pair: Path, one: Path) -> None:
    close(one, pair / "run")
    results = [json.loads((folder / "result.json").read_text()) for folder in (one, pair / "run")]
    assert "devices" not in results[0]["environment"]
    assert results[1]["environment"]["devices"] == 2
    assert results[0]["digest"] == results[1]["digest"]
    assert results[0]["setting"] == results[1]["setting"] == {"batch_norm_groups": 1, "test_time": []}
    states = [torch.load(RunFolder(folder).checkpoints()[0], weights_only=True) for folder in (one, pair / "run")]
    assert states[0]["network"].keys() == states[1]["network"].keys()
    assert states[0]["heads"].keys() == states[1]["heads"].keys() != set()
    assert len(states[0]["losses"]) == len(states[1]["losses"]) == 2
    for rank in range(2):  # every process has the result
        assert torch.load(pair / f"result.{rank}.pt", weights_only=True) == results[1]["protocols"]


def process_of(rank: int, parent: int) -> int:
    """The child of a process that is a certain rank, by what Linux says of it."""
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if f"RANK={rank}" in Path(f"/proc/{pid}/environ").read_text().split("\0"):
            return int(pid)
    raise AssertionError(f"no process of rank {rank}")


@contextmanager
def under_way(folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A run on two devices after its first epoch, and the processes that it consists of."""
    options = [f"--set={path}={value}" for path, value in SHORT[1:]]
    command = [sys.executable, "-m", "reidassoc", "run", f"--recipe={NAME}", f"--dataset={SHORT[0][1]}"]
    run = subprocess.Popen(
        [*command, *options, "--device=cpu", "--devices=2", f"--out={folder}"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        while not (folder / "checkpoints" / "epoch_001.pt").exists():
            assert run.poll() is None, run.stderr and run.stderr.read()
            time.sleep(0.02)
        yield run, [process_of(rank, run.pid) for rank in range(2)]
    finally:
        run.kill()


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


@LINUX
def test_a_killed_process_ends_the_run_in_one_line_and_it_can_be_resumed(one: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with under_way(folder) as (run, others):
        os.kill(others[1], signal.SIGKILL)
        said = run.communicate()[1]
    assert run.returncode == 2
    assert said.strip().splitlines()[-1] == (
        "Error: process 1 of 2 was killed (SIGKILL); the last whole epoch is saved: "
        f"go on with reidassoc run --resume {folder} --devices 2"
    )
    assert "Traceback" not in said
    assert not any(Path(f"/proc/{pid}").exists() for pid in others)  # nobody waits for the dead
    assert len(RunFolder(folder).metrics) < len(RunFolder(one).metrics)
    ra.run(RunFolder(folder).recipe, out=folder, device="cpu", resume=True)  # on one device what two began
    close(one, folder)


@LINUX
def test_a_terminated_run_ends_as_one_of_one_process(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with under_way(folder) as (run, others):
        run.terminate()
        said = run.communicate()[1]
    assert run.returncode == 130
    assert said.strip().splitlines()[-1] == (
        f"Stopped: the last whole epoch is saved: go on with reidassoc run --resume {folder} --devices 2"
    )
    assert "Traceback" not in said
    assert said.count("--resume") == 1  # said once
    assert not any(Path(f"/proc/{pid}").exists() for pid in others)
    assert checkpoint.newest(RunFolder(folder), torch.device("cpu"))["epoch"] >= 1
    with RunFolder(folder).held():  # nobody holds it any more
        pass


CHILD = """
import os, signal, time
from reidassoc.engine import checkpoint
from reidassoc.engine.devices import processes
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN if os.environ["CHILD"] == "deaf" else signal.SIG_DFL)
processes.end_with_parent()
with open(os.environ["RANK"] + ".part", "w") as file:
    file.write(str(os.getpid()))
os.rename(file.name, os.environ["RANK"] + ".pid")
time.sleep(60)
"""
WATCHER = """
import sys
from reidassoc import cli
from reidassoc.engine import checkpoint
from reidassoc.engine.devices import processes
processes.COMMAND = (sys.executable, "child.py")
cli.main()
"""


def gone(pid: int) -> bool:
    """Whether a process has ended, though nobody may have asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def heed_interrupts() -> None:
    """A shell that runs the tests in the background has SIGINT ignored, and what it starts inherits that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@LINUX
@pytest.mark.parametrize(
    ("how", "child"), [("terminal", "willing"), ("signal", "willing"), ("signal", "deaf"), ("kill", "deaf")]
)
def test_no_process_is_left_behind(tmp_path: Path, how: str, child: str) -> None:
    """Ctrl-C in a terminal, SIGINT to the watching process alone, and SIGKILL: with children that do nothing but wait."""
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "watcher.py").write_text(WATCHER)
    watcher = subprocess.Popen(
        [sys.executable, "watcher.py", "run", "--devices=2"], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env={**os.environ, "CHILD": child}, preexec_fn=heed_interrupts,
    )  # fmt: skip
    notes = [tmp_path / f"{rank}.pid" for rank in range(2)]
    while not all(path.exists() for path in notes):
        assert watcher.poll() is None, watcher.stderr and watcher.stderr.read()
        time.sleep(0.02)
    children = [int(path.read_text()) for path in notes]
    if how == "terminal":
        os.killpg(watcher.pid, signal.SIGINT)
    else:
        watcher.send_signal(signal.SIGINT if how == "signal" else signal.SIGKILL)
    code = watcher.wait(30)
    assert code == (-signal.SIGKILL if how == "kill" else 130)
    until = time.monotonic() + 20
    while how == "kill" and not all(map(gone, children)) and time.monotonic() < until:
        time.sleep(0.05)  # they find out
    assert all(map(gone, children))
    assert watcher.stderr is not None
    said = watcher.stderr.read()
    assert said.strip() == ("" if how == "kill" else "Stopped: the run had not begun: nothing is lost, start it again")


FAILING = """
import atexit, os, time
from dataclasses import dataclass
from typing import ClassVar
from reidassoc.interfaces import Objective

@dataclass(frozen=True, kw_only=True)
class Failing(Objective):
    \"\"\"Fails on one rank, whose clean-up at exit never ends.\"\"\"
    name: ClassVar[str] = "failing"
    sampling: ClassVar[str] = "paired"
    rank: int = 0
    def banks(self, scene, targets):
        return []
    def __call__(self, batch, banks):
        if os.environ["RANK"] == str(self.rank):
            atexit.register(time.sleep, 600)
            with open("failed", "w") as file:
                file.write("now")
            raise RuntimeError("no paper in the printer")
        return {"sum": batch["visible"].z.square().sum()}
"""


@pytest.mark.parametrize(("rank", "code"), [(0, 1), (1, 2)])
def test_a_rank_that_fails_ends_the_run_within_ten_seconds(tmp_path: Path, rank: int, code: int) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    options = [f"--set={path}={value}" for path, value in [*TINY[1:], ("evaluate_every", 0)]]
    done = subprocess.run(
        [sys.executable, "-m", "reidassoc", "run", "--recipe=mult/synthetic", f"--dataset={TINY[0][1]}", *options,
         "--plugin=failing.py", f"--objective=failing(rank={rank})", "--set=cross.refiners=[]", "--set=intra.epochs=1",
         "--device=cpu", "--devices=2", "--no-report", "--out=run"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    seconds = time.time() - (tmp_path / "failed").stat().st_mtime
    assert done.returncode == code, done.stderr
    assert "no paper in the printer" in done.stderr.strip().splitlines()[-1]
    assert "another process" not in done.stderr  # nor is the loss of a rank taken for the cause
    assert seconds < 10
    with RunFolder(tmp_path / "run").held():  # no process is left
        pass


def failures(*codes: tuple[int, int]) -> dict[int, ProcessFailure]:
    return {rank: ProcessFailure(rank, 1, code, "") for rank, code in codes}


def test_the_process_that_failed_is_named(tmp_path: Path) -> None:
    log = tmp_path / "reidassoc_x" / "attempt_0" / "1" / "stderr.log"
    log.parent.mkdir(parents=True)
    log.write_text("loading\nError: the disk is full\n")
    assert processes.explain({}, 3, tmp_path) == 0
    assert processes.explain(failures((0, 2), (1, -15)), 3, tmp_path) == 2  # the first one has printed it itself
    with pytest.raises(ReidassocError, match=r"^process 1 of 3 failed \(the disk is full\); the run had not begun"):
        processes.explain(failures((1, 2), (0, -15), (2, -15)), 3, tmp_path)
    (tmp_path / processes.FOLDER).write_text("runs/a")
    with pytest.raises(ReidassocError, match=r"process 2 of 3 was killed \(SIGTERM\);.*--resume runs/a --devices 3$"):
        processes.explain(failures((2, -15), (0, -15), (1, -15)), 3, tmp_path)
    given = ["run", "--plugin", "a.py", "--keep", "3", "--plugin=b.py", "--plugin", "c.py:C"]
    with pytest.raises(
        ReidassocError, match=r"--resume runs/a --plugin b\.py --plugin a\.py --plugin c\.py:C --devices 2$"
    ):
        processes.explain(failures((1, -9), (0, -15)), 2, tmp_path, given)
    with pytest.raises(ReidassocError, match=r"process 1 of 2 was killed \(SIGKILL\)"):
        processes.explain(failures((0, -6), (1, -9)), 2, tmp_path)  # the first one aborted for want of the other
    with pytest.raises(ReidassocError, match=r"process 0 of 2 was killed \(SIGABRT\)"):
        processes.explain(failures((0, -6), (1, -15)), 2, tmp_path)
    with pytest.raises(ReidassocError, match=r"process 2 of 3 failed \(it printed nothing\)"):
        processes.explain(failures((2, 1)), 3, tmp_path)


@pytest.mark.parametrize(
    ("variables", "arguments", "said"),
    [
        ({}, {"devices": 2}, "2 devices need 2 processes: use reidassoc run --devices 2, or .* torchrun"),
        ({}, {"devices": 0}, "must be at least 1"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_NNODES": "2"}, {"devices": 3}, "needs --ntasks-per-node=3"),
        ({"torchrun": "3"}, {"devices": 2}, "torchrun started 3 processes, 3 on this node; --devices says 2"),
        ({"torchrun": "2"}, {"devices": 2, "name": "cuda:1"}, "cuda:1 is one device"),
    ],
)
def test_what_does_not_fit_the_processes_is_said(
    variables: dict[str, str], arguments: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = variables.pop("torchrun", None)
    if count is not None:
        variables |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DeviceError, match=said):
        open_devices(**arguments)


def test_there_may_be_several_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As srun and torchrun describe the last of two nodes' processes; who is who is lightning's to say."""
    monkeypatch.setattr(device, "connect", lambda *arguments: arguments)
    last = {
        "PROCID": 7,
        "LOCALID": 3,
        "NODEID": 1,
        "NTASKS": 8,
        "NNODES": 2,
        "NTASKS_PER_NODE": "4(x2)",
        "JOB_NAME": "x",
    }
    with monkeypatch.context() as slurm:
        for name, value in last.items():
            slurm.setenv(f"SLURM_{name}", str(value))
        name, _, place, each, nodes = open_devices("cpu", devices=4)  # type: ignore[misc]
        assert (name, each, nodes) == ("cpu", 4, 2)
        assert (place.world_size(), place.global_rank(), place.local_rank(), place.node_rank()) == (8, 7, 3, 1)
    last = {"RANK": 1, "LOCAL_RANK": 0, "GROUP_RANK": 1, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 1, "MASTER_PORT": 1}
    for name, value in {**last, "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, str(value))
    name, _, place, each, nodes = open_devices("cpu")  # type: ignore[misc]
    assert (name, each, nodes) == ("cpu", 1, 2)
    assert (place.world_size(), place.global_rank(), place.local_rank(), place.node_rank()) == (2, 1, 0, 1)


def test_torchrun_starts_it_and_batch_norm_may_be_left_to_each_device(tmp_path: Path) -> None:
    """Two processes with statistics of their own are one that imitates two GPUs."""
    little = {"epochs": 1, "iterations": 2, "identities": 4, "images": 3}
    changes = [*TINY, *((f"{stage}.{key}", value) for stage in ("intra", "cross") for key, value in little.items())]
    changes += [("evaluate_every", 0)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    options = [f"--set={path}={value}" for path, value in [*changes[1:], ("batch_norm", "rank")]]
    done = subprocess.run(
        [*command, "-m", "reidassoc", "run", "--recipe=mult/synthetic", f"--dataset={TINY[0][1]}", *options,
         "--device=cpu", "--no-report", f"--out={tmp_path / 'two'}"],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    recipe = choose(recipe="mult/synthetic", changes=changes)
    ra.run(override(recipe, [("as_gpus", 2)]), out=tmp_path / "one", device="cpu")
    close(tmp_path / "one", tmp_path / "two")
    one, two = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two"))
    assert one["setting"]["batch_norm_groups"] == two["setting"]["batch_norm_groups"] == 2
    assert two["environment"]["devices"] == 2
    with pytest.raises(RecipeError, match=r"began on 2 device\(s\) with batch_norm: rank.* --devices 2, not 1"):
        ra.run(RunFolder(tmp_path / "two").recipe, out=tmp_path / "two", device="cpu", resume=True)


def test_batches_that_can_not_be_shared_are_refused(small: Recipe) -> None:
    assert shares(7, 3) == [slice(0, 3), slice(3, 5), slice(5, 7)]
    refuse_uneven(small, 7)
    with pytest.raises(RecipeError, match="as_gpus: 2, but there are 4 devices; take 1, or a multiple of 4"):
        refuse_uneven(override(small, [("as_gpus", 2)]), 4)
    few = override(small, [("cross.identities", 3), ("cross.images", 2)])
    with pytest.raises(RecipeError, match=r"'cross' has 6 images .* which 7 devices can't share evenly"):
        refuse_uneven(few, 7)
    with pytest.raises(RecipeError, match="can't share evenly"):
        refuse_uneven(override(few, [("as_gpus", 4)]), 2)
