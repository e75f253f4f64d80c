"""Jobs of a Slurm cluster: what they ask for, when they are submitted; (marked) a grid and a run across nodes on a real one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.grids import TINY, table_of, wait_for, written

from reidassoc.bench import slurm
from reidassoc.bench.plan import read_plan
from reidassoc.bench.runner import open_benchmark
from reidassoc.bench.slurm import STUCK, Job, SlurmRunner, end_quietly_when_requeued, give_up_stuck, lock_of, on_slurm
from reidassoc.bench.store import Store, locked
from reidassoc.bench.worker import ready, work
from reidassoc.cli import cli, main
from reidassoc.errors import DataError, RecipeError, ReidassocError
from reidassoc.runs.folder import RunFolder

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "local-slurm"


def test_the_command_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = written(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    for arguments, words in [
        (["--executor", "slurm"], "sbatch is not installed here"),
        (["--slurm-time", "90"], "go with --executor slurm"),
        (["--executor", "slurm", "--slurm-option", "nodes=2"], "sbatch's 'nodes' can't be chosen"),
    ]:
        done = CliRunner().invoke(cli, ["bench", str(spec), "--out", str(tmp_path / "out"), *arguments])
        assert isinstance(done.exception, ReidassocError)
        assert words in str(done.exception)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an sbatch that keeps what it is given, and a squeue that prints the file ``queue``."""
    place = tmp_path / "cluster"
    place.mkdir()
    for name, body in {
        "sbatch": f'[ ! -e {place}/refuse ] || {{ echo "sbatch: error: invalid partition specified: gpus" >&2; exit 1; }}\n'
        f'cat "$1" >>{place}/asked; n=$(grep -c /bin/bash {place}/asked); echo "Submitted batch job $n"',
        "squeue": f'echo "$@" >>{place}/looked; cat {place}/queue',
        "scancel": "",
        "srun": "",
    }.items():
        (place / name).write_text(f"#!/bin/sh\n{body}\n")
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    (place / "queue").write_text("")
    return place


@pytest.mark.parametrize("name", ["sbatch", "srun", "squeue", "scancel", "submitit", "controller"])
def test_a_machine_that_lacks_something_is_refused_in_one_line(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    if name == "submitit":
        monkeypatch.setitem(sys.modules, "submitit", None)
    elif name == "controller":
        (cluster / "squeue").write_text("#!/bin/sh\necho squeue: error: no controller >&2; exit 1\n")
    else:
        (cluster / name).unlink()
        monkeypatch.setenv("PATH", str(cluster))
    arguments = ["reidassoc", "bench", str(written(tmp_path)), "--out", str(tmp_path / "out"), "--executor", "slurm"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("A line an epoch")]
    assert len(lines) == 1
    assert lines[0].startswith("Error: ")
    assert name in lines[0]
    assert not (tmp_path / "out").exists()


def runner_of(tmp_path: Path, asked: dict[str, str] | None = None, text: str = TINY, **options: Any) -> SlurmRunner:
    """A runner about to look for the first time, on whose folder nobody else works."""
    runner = on_slurm(open_benchmark(written(tmp_path, text), out=tmp_path / "out"), asked, **options)
    runner.check()
    runner.store.create(runner.plan)
    runner.folder.mkdir()
    (runner.folder / "runner.lock").touch()
    return runner


def test_jobs_ask_for_what_was_said(cluster: Path, tmp_path: Path) -> None:
    asked = {
        "partition": "gpu",
        "time": "4:00:00",
        "gpus-per-node": "2",
        "cpus-per-task": "6",
        "account": "vision",
        "exclusive": "",
    }
    runner = runner_of(tmp_path, asked)
    runner.submit(3)
    lines = (cluster / "asked").read_text().splitlines()
    for line in ("partition=gpu", "time=4:00:00", "gpus-per-node=2", "cpus-per-task=6", "account=vision", "array=0-2%3",
                 "exclusive", "requeue", "signal=USR2@90", f"job-name={runner.name}"):  # fmt: skip
        assert f"#SBATCH --{line}" in lines
    assert runner.last == ("1", 0)
    cpu = on_slurm(open_benchmark(runner.spec, out=tmp_path / "out", device="cpu"))
    cpu.submit(1)
    assert not any("gpus" in line for line in (cluster / "asked").read_text().splitlines()[len(lines) :])
    (cluster / "refuse").touch()
    with pytest.raises(ReidassocError, match=r"Slurm refuses the jobs: .*invalid partition specified: gpus"):
        runner.submit(1)


def test_as_many_jobs_as_cells_that_can_be_worked_on(cluster: Path, tmp_path: Path) -> None:
    """Two methods share a start in each of three seeds: three cells can begin, then six."""
    runner = runner_of(tmp_path, text=TINY + "seeds: [0, 1, 2]\n")
    assert [cell.method for cell in ready(runner.plan, runner.store)] == ["nearest"] * 3
    runner.look()
    assert "array=0-2%3" in (cluster / "asked").read_text()
    assert runner.last == ("1", 0)
    (cluster / "queue").write_text("1\n1\n1\n")
    runner.look()
    assert runner.caption() == "jobs in the queue: 3"
    assert runner.last == ("1", 0)
    assert f"--me --name {runner.name}" in (cluster / "looked").read_text()
    first = runner.plan.runs[0]
    with runner.store.claim(first), runner.store.claim_start(first.recipe.prefix_digest(1)):
        assert first not in ready(runner.plan, runner.store)
        runner.look()  # a job has taken its cell
        (cluster / "queue").write_text("1\n")  # two have ended without a word
        runner.store.note_attempt(first, {"by": "1_0", "host": "a", "epochs": 0})
        runner.look()
    assert runner.last == ("2", 1)
    assert "array=0-1%2" in (cluster / "asked").read_text()
    (cluster / "squeue").write_text("#!/bin/sh\nexit 1\n")  # Slurm restarts
    runner.look()
    assert runner.last == ("2", 1)


def test_no_more_jobs_than_were_asked_for(cluster: Path, tmp_path: Path) -> None:
    """Three cells can begin."""
    runner = runner_of(tmp_path, text=TINY + "seeds: [0, 1, 2]\n", jobs=2)
    runner.look()
    assert "array=0-1%2" in (cluster / "asked").read_text()
    (cluster / "queue").write_text("1\n1\n")
    runner.look()
    assert runner.last == ("1", 0)


def test_jobs_that_take_no_cell_are_not_submitted_for_ever(cluster: Path, tmp_path: Path) -> None:
    runner = runner_of(tmp_path)
    (runner.folder / "1_0_log.err").write_text("…\nModuleNotFoundError: No module named 'reidassoc'\n\n")
    runner.look()
    runner.look()
    with pytest.raises(ReidassocError, match="jobs end without taking a run; the last one: ModuleNotFoundError"):
        runner.look()
    assert runner.last == ("2", 0)


def test_one_job_that_took_a_cell_begins_the_count_anew(cluster: Path, tmp_path: Path) -> None:
    runner = runner_of(tmp_path)
    for number in range(1, 6):
        runner.look()
        assert runner.last is not None
        assert runner.last[0] == str(number)
        if number % 2 == 0:  # every other one dies before it takes one
            runner.store.note_attempt(runner.plan.runs[0], {"by": f"{number}_0", "host": "a", "epochs": number})
    runner.look()
    with pytest.raises(ReidassocError, match="jobs end without taking a run; the last one: it printed nothing"):
        runner.look()


def test_only_one_runner_submits(cluster: Path, tmp_path: Path) -> None:
    runner = runner_of(tmp_path)
    with locked(lock_of(runner.store)), pytest.raises(ReidassocError, match="another command submits jobs"):
        runner.run()
    assert not (cluster / "asked").exists()


def test_a_cell_that_kills_its_jobs_is_given_up(tmp_path: Path) -> None:
    plan, store = read_plan(written(tmp_path)), Store(tmp_path / "out")
    store.create(plan)
    first, second = plan.cells
    for cell, count in ((first, STUCK), (second, STUCK - 1)):
        for number in range(count):
            store.note_attempt(cell, {"by": str(number), "host": "a", "epochs": 0})
    with open(store.cells / f"{second.id}.attempts.jsonl", "a") as file:
        file.write('{"by": "')  # cut off
    give_up_stuck(plan, store)
    assert [store.state(cell) for cell in plan.cells] == ["failed", "waiting"]
    assert "5 jobs ended in epoch 0; out of memory" in (store.failure(first) or {})["error"]
    store.forget_failure(first)
    assert store.attempts(first) == []


@pytest.fixture
def in_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a job."""
    for name, value in {"SUBMITIT_EXECUTOR": "slurm", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_JOB_ID", "15")


def test_a_job_works_until_no_cell_is_free_and_does_not_wait(
    in_job: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = written(tmp_path)
    plan, store = read_plan(spec), Store(tmp_path / "out")
    store.create(plan)
    (store.path / "slurm").mkdir()
    monkeypatch.setattr(slurm, "PATIENCE_S", 0.0)
    before = signal.getsignal(signal.SIGUSR2)
    with store.claim(plan.cells[1]):
        Job(str(spec), str(store.path), plan.digest, device="cpu")()
    assert [store.state(cell) for cell in plan.cells] == ["finished", "waiting"]
    assert [(attempt["by"], attempt["epochs"]) for attempt in store.attempts(plan.cells[0])] == [("12_3", 0)]
    assert f"begin {plan.cells[0].id}" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGUSR2) == before


def test_a_job_does_what_it_was_submitted_for_or_nothing(in_job: None, tmp_path: Path) -> None:
    """Its runner waits for the cells that it knows."""
    spec = written(tmp_path)
    plan, store = read_plan(spec), Store(tmp_path / "out")
    store.create(plan)
    (store.path / "slurm").mkdir()
    spec.write_text(TINY.replace("network.width: 32", "network.width: 16"))
    with pytest.raises(
        RecipeError, match=r"^spec\.yaml was edited since the benchmark was started; stop it, and start"
    ):
        Job(str(spec), str(store.path), plan.digest, device="cpu")()
    assert [store.state(cell) for cell in read_plan(spec).cells] == ["waiting", "waiting"]


def test_a_job_that_is_requeued_does_the_same_again() -> None:
    job = Job("grid.yaml", "out", "0123", roots=(("regdb", "/data"),), seeds=(1, 2), device="cpu")
    again: Any = job.checkpoint()
    assert (again.function, again.args, again.kwargs) == (job, (), {})


def test_a_job_that_can_t_be_requeued_just_ends() -> None:
    def refuse(number: int, frame: object) -> None:
        raise OSError("scontrol: requeue is disabled")

    before = signal.signal(signal.SIGUSR2, refuse)
    try:
        end_quietly_when_requeued()
        with pytest.raises(SystemExit, match="not requeued: scontrol: requeue is disabled"):
            os.kill(os.getpid(), signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_locks_that_do_not_reach_the_job_are_noticed(
    in_job: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = written(tmp_path)
    plan, store = read_plan(spec), Store(tmp_path / "out")
    store.create(plan)
    for cell in plan.cells:
        store.fail(cell, {"error": "nothing to do"})
    lock = lock_of(store)
    job = Job(str(spec), str(store.path), plan.digest, device="cpu")
    job()  # there is no runner
    lock.parent.mkdir()
    with locked(lock):
        job()
        monkeypatch.setattr(slurm, "held", lambda path: False)  # as on a file system without locks between machines
        with pytest.raises(DataError, match=r"a lock on .*runner.lock is not seen on "):
            job()
    os.utime(lock, (0, 0))  # as the runner leaves it
    job()


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A running Slurm of two nodes: the one that SLURM_CONF names, or one started for these tests."""
    if "SLURM_CONF" in os.environ:
        yield
        return
    place = tmp_path_factory.mktemp("slurm")
    done = subprocess.run([SCRIPT, "start", place, "2"], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode == 3:  # where it can't be installed or started
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    os.environ["SLURM_CONF"] = str(place / "slurm.conf")
    try:
        yield
    finally:
        del os.environ["SLURM_CONF"]
        subprocess.run([SCRIPT, "stop", place], check=True)


def in_queue() -> list[str]:
    found = subprocess.run(
        ["squeue", "--noheader", "--array", "--format=%i"], capture_output=True, text=True, check=True
    )
    return found.stdout.split()


@pytest.mark.slurm
@pytest.mark.timeout(900)
def test_a_grid_on_a_real_slurm_survives_a_killed_and_a_requeued_job(two_nodes: None, tmp_path: Path) -> None:
    longer = TINY.replace("cross.epochs: 2", "cross.epochs: 12") + "seeds: [0, 1]\n"
    spec = written(tmp_path, longer)
    plan, store = read_plan(spec), Store(tmp_path / "out")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "REIDASSOC_CACHE": str(tmp_path / "cache"), "COLUMNS": "200"}
    command = [sys.executable, "-m", "reidassoc", "bench", str(spec), "--out", str(store.path), "--device", "cpu",
               "--executor", "slurm", "--slurm-cpus", "1", "--slurm-time", "10"]  # fmt: skip
    with open(tmp_path / "said", "w") as said:
        runner = subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT)
    hit: dict[str, str] = {}  # cells whose job was killed or requeued, and that job

    def struck(kill: bool) -> bool:
        """Kill a job that is in the middle of a cell that was not hit yet, or warn it; False if there is none."""
        for cell in plan.cells:
            done = len(store.folder(cell).metrics)
            if cell.id not in hit and store.state(cell) == "running" and 2 <= done < 9:
                last = store.attempts(cell)[-1]
                hit[cell.id] = last["by"]
                if kill:
                    os.kill(last["process"], signal.SIGKILL)
                else:  # what Slurm sends before the time limit, or before it takes the node for another job
                    subprocess.run(["scancel", "--signal=USR2", last["by"]], check=True)
                return True
        assert runner.poll() is None, (tmp_path / "said").read_text()
        return False

    wait_for(lambda: struck(kill=True), 300)
    wait_for(lambda: struck(kill=False), 300)
    assert runner.wait(600) == 0, (tmp_path / "said").read_text()
    wait_for(lambda: not in_queue())

    attempts = {cell.id: store.attempts(cell) for cell in plan.cells}
    assert len(hit) == 2
    assert {name: len(found) for name, found in attempts.items()} == {name: 1 + (name in hit) for name in attempts}
    assert all(attempts[name][1]["epochs"] >= 1 for name in hit)  # they went on, and did not start anew
    warned, logs = list(hit)[1], store.path / "slurm"
    assert "Requeued job" in (logs / f"{hit[warned]}_0_log.out").read_text()
    for cell in plan.cells:
        assert [row["epoch"] for row in store.folder(cell).metrics] == list(range(13))
        for attempt in attempts[cell.id]:
            assert f"begin {cell.id}" in (logs / f"{attempt['by']}_0_log.out").read_text()
    alone = Store(tmp_path / "alone")
    alone.create(plan)
    work(plan, alone, device="cpu")
    assert table_of(store.path) == table_of(alone.path) == (store.path / "table.md").read_text()
    assert json.loads((store.path / "plan.json").read_text()) == json.loads((alone.path / "plan.json").read_text())


@pytest.mark.slurm
@pytest.mark.timeout(600)
def test_one_run_on_two_nodes_of_a_real_slurm_is_that_of_one_process(two_nodes: None, tmp_path: Path) -> None:
    changes = ["intra.epochs=1", "cross.epochs=1", "intra.iterations=3", "cross.iterations=3"]
    changes += ["intra.identities=6", "cross.identities=6", "evaluate_every=0"]
    train = [
        sys.executable,
        "-m",
        "reidassoc",
        "run",
        "--recipe",
        "mult/synthetic",
        "--dataset",
        "synthetic(size='tiny')",
    ]
    train += ["--device", "cpu", "--no-report", *(word for change in changes for word in ("--set", change))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "REIDASSOC_CACHE": str(tmp_path / "cache")}
    across = ["srun", "--nodes", "2", "--ntasks-per-node", "2", "--kill-on-bad-exit=1", *train, "--devices", "2"]
    subprocess.run([*across, "--out", tmp_path / "across"], env={**environment, "MASTER_ADDR": "127.0.0.1"}, check=True)
    subprocess.run([*train, "--out", tmp_path / "alone"], env=environment, check=True)
    found, expected = ([row["losses"] for row in RunFolder(tmp_path / name).metrics] for name in ("across", "alone"))
    assert len(found) == len(expected) == 2
    assert found[0] == pytest.approx(
        expected[0], rel=1e-4
    )  # later ones follow other clusters, which a last digit may move
    result = json.loads((tmp_path / "across" / "result.json").read_text())
    assert result["environment"]["devices"] == 4
