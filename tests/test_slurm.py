"""Jobs of a Slurm cluster: what they ask for, when they are submitted; (marked) a grid and a run across nodes on a real one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from test_bench import TINY, table_of, wait_for, written

from reidassoc.bench import job as job_module
from reidassoc.bench.job import STUCK, Diary, Job, check_locks, end_quietly_when_requeued, give_up_stuck
from reidassoc.bench.plan import read_plan
from reidassoc.bench.runner import open_benchmark
from reidassoc.bench.slurm import Slurm, SlurmRunner, Submission, on_slurm
from reidassoc.bench.store import Store, locked
from reidassoc.bench.worker import ready, work
from reidassoc.cli import cli
from reidassoc.engine.folder import RunFolder
from reidassoc.errors import DataError, RecipeError, ReidassocError

SCRIPT = Path(__file__).parent.parent / "scripts" / "local-slurm"


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("90:30", 91), ("4:00:00", 240), ("2-00", 2880), ("1-02:30", 1590), ("1-00:00:01", 1441)],
)
def test_time_limits_are_read_as_slurm_reads_them(text: str, minutes: int) -> None:
    assert Slurm(time=text).minutes == minutes


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"time": "1 day"}, r"'1 day' is no time limit; expected minutes, H:MM:SS or D-HH:MM:SS"),
        ({"time": "2"}, r"must be at least 3 minutes, got '2'"),
        ({"options": {"array": "0-9"}}, r"'array' is no option of sbatch that can be given here"),
        ({"options": {"wrap=x; rm": ""}}, r"is no option of sbatch"),
        ({"options": {"cpus-per-task": "8"}}, r"sbatch's 'cpus-per-task' is set by --slurm-cpus"),
        ({"options": {"nodes": "2"}}, r"'nodes' is no option of sbatch that can be given here; one is account=NAME"),
        ({"cpus": 0}, r"a job needs a CPU at least, and no less than 0 GPUs; got 0 and None"),
        ({"gpus": -1}, r"no less than 0 GPUs; got 4 and -1"),
    ],
)
def test_bad_options_end_in_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ReidassocError, match=said) as caught:
        Slurm(**options)
    assert "\n" not in str(caught.value)


def test_the_command_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = written(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    for arguments, said in [
        (["--executor", "slurm"], "no sbatch here"),
        (["--slurm-time", "90"], "go with --executor slurm"),
        (["--executor", "slurm", "--slurm-option", "nodes=2"], "'nodes' is no option of sbatch"),
    ]:
        done = CliRunner().invoke(cli, ["bench", str(spec), "--out", str(tmp_path / "out"), *arguments])
        assert isinstance(done.exception, ReidassocError)
        assert said in str(done.exception)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an sbatch that keeps what it is given, and a squeue that prints the file ``queue``."""
    place = tmp_path / "cluster"
    place.mkdir()
    for name, body in {
        "sbatch": f'[ ! -e {place}/refuse ] || {{ echo "sbatch: error: invalid partition specified: gpus" >&2; exit 1; }}\n'
        f'cat "$1" >>{place}/asked; n=$(grep -c /bin/bash {place}/asked); echo "Submitted batch job $n"',
        "squeue": f"cat {place}/queue",
        "scancel": f'echo "$@" >>{place}/cancelled',
        "srun": "",
    }.items():
        (place / name).write_text(f"#!/bin/sh\n{body}\n")
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    (place / "queue").write_text("")
    return place


@pytest.mark.parametrize("name", ["squeue", "scancel"])
def test_a_machine_that_lacks_a_command_is_refused(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (cluster / name).unlink()
    monkeypatch.setenv("PATH", str(cluster))
    runner = on_slurm(open_benchmark(written(tmp_path), out=tmp_path / "out"))
    with pytest.raises(ReidassocError, match=f"no {name} here: --executor slurm works on a machine"):
        runner.check()


def runner_of(tmp_path: Path, slurm: Slurm | None = None, text: str = TINY, **options: Any) -> SlurmRunner:
    """A runner about to look for the first time, on whose folder nobody else works."""
    runner = on_slurm(open_benchmark(written(tmp_path, text), out=tmp_path / "out"), slurm, **options)
    runner.check()
    runner.store.create(runner.plan)
    runner.folder.mkdir()
    (runner.folder / "runner.lock").touch()
    return runner


def test_jobs_ask_for_what_was_said(cluster: Path, tmp_path: Path) -> None:
    options = Slurm(partition="gpu", time="4:00:00", gpus=2, cpus=6, options={"account": "vision", "exclusive": ""})
    runner = runner_of(tmp_path, options)
    runner.submit(3)
    asked = (cluster / "asked").read_text().splitlines()
    for line in ("partition=gpu", "time=240", "gpus-per-node=2", "cpus-per-task=6", "account=vision", "array=0-2%3", "exclusive",
                 "requeue", "signal=USR2@90", "job-name=reidassoc-tiny"):  # fmt: skip
        assert f"#SBATCH --{line}" in asked
    assert runner.arrays() == ["1"]
    cpu = on_slurm(open_benchmark(runner.spec, out=tmp_path / "out", device="cpu"))
    cpu.submit(1)
    assert not any("gpus" in line for line in (cluster / "asked").read_text().splitlines()[len(asked) :])
    (cluster / "refuse").touch()
    with pytest.raises(ReidassocError, match=r"Slurm refuses the jobs: .*invalid partition specified: gpus"):
        runner.submit(1)


def test_as_many_jobs_as_cells_that_can_be_worked_on(cluster: Path, tmp_path: Path) -> None:
    """Two methods share a start in each of three seeds: three cells can begin, then six."""
    runner = runner_of(tmp_path, text=TINY + "seeds: [0, 1, 2]\n")
    assert [cell.method for cell in ready(runner.plan, runner.store)] == ["nearest"] * 3
    runner.look()
    assert "array=0-2%3" in (cluster / "asked").read_text()
    assert runner.last == Submission("1", 0)
    (cluster / "queue").write_text("1 PD\n1 PD\n1 R\n77 R\n")  # 77 is somebody else's
    runner.look()
    assert runner.caption() == "jobs: 1 running, 2 pending"
    first = runner.plan.runs[0]
    with runner.store.claim(first), runner.store.claim_start(first.recipe.prefix_digest(1)):
        assert first not in ready(runner.plan, runner.store)
        runner.look()  # a job has taken its cell
        (cluster / "queue").write_text("1 R\n1 CG\n1 CG\n")  # two have ended without a word
        runner.store.note_attempt(first, {"by": "1_0", "host": "a", "epochs": 0})
        runner.look()
    assert runner.arrays() == ["1", "2"]
    assert "array=0-1%2" in (cluster / "asked").read_text()
    (cluster / "squeue").write_text("#!/bin/sh\nexit 1\n")  # Slurm restarts
    runner.look()
    assert runner.arrays() == ["1", "2"]
    runner.cancel()
    assert (cluster / "cancelled").read_text() == "--state=PENDING 1 2\n"
    assert "scancel 1 2" in runner.stopped()


def test_no_more_jobs_than_were_asked_for(cluster: Path, tmp_path: Path) -> None:
    """Three cells can begin."""
    runner = runner_of(tmp_path, text=TINY + "seeds: [0, 1, 2]\n", jobs=2)
    runner.look()
    assert "array=0-1%2" in (cluster / "asked").read_text()
    (cluster / "queue").write_text("1 PD\n1 R\n")
    runner.look()
    assert runner.arrays() == ["1"]


def test_jobs_that_take_no_cell_are_not_submitted_for_ever(cluster: Path, tmp_path: Path) -> None:
    runner = runner_of(tmp_path)
    (runner.folder / "1_0_log.err").write_text("…\nModuleNotFoundError: No module named 'reidassoc'\n\n")
    runner.look()
    runner.look()
    with pytest.raises(ReidassocError, match="jobs end without taking a run; the last one: ModuleNotFoundError"):
        runner.look()
    assert runner.arrays() == ["1", "2"]


def test_one_job_that_took_a_cell_begins_the_count_anew(cluster: Path, tmp_path: Path) -> None:
    runner = runner_of(tmp_path)
    for number in range(1, 6):
        runner.look()
        assert runner.arrays()[-1] == str(number)
        if number % 2 == 0:  # every other one dies before it takes one
            runner.store.note_attempt(runner.plan.runs[0], {"by": f"{number}_0", "host": "a", "epochs": number})
    runner.look()
    with pytest.raises(ReidassocError, match="jobs end without taking a run; the last one: it printed nothing"):
        runner.look()


def test_only_one_runner_submits(cluster: Path, tmp_path: Path) -> None:
    runner = runner_of(tmp_path)
    with runner.alone(), pytest.raises(ReidassocError, match="another runner submits jobs"):
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


def test_a_job_notes_its_attempt_and_leaves_its_output_in_the_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    plan, store = read_plan(written(tmp_path)), Store(tmp_path / "out")
    store.create(plan)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    diary, cell = Diary(store), plan.cells[0]
    for count in ("0", "1"):
        monkeypatch.setenv("SLURM_RESTART_COUNT", count)
        diary("begin", cell)
        os.write(2, f"attempt {count}\n".encode())
        if count == "1":
            store.folder(cell).path.mkdir()
        diary("end", cell)
    os.write(2, b"the job's own\n")
    assert [attempt["by"] for attempt in store.attempts(cell)] == ["12_3", "12_3+1"]
    log = (store.folder(cell).path / "job.log").read_text()
    assert [line for line in log.splitlines() if not line.startswith("==")] == ["attempt 0", "attempt 1"]
    assert not diary.log_of(cell).exists()
    assert capfd.readouterr().err == "the job's own\n"


def test_a_job_works_until_no_cell_is_free_and_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = written(tmp_path)
    plan, store = read_plan(spec), Store(tmp_path / "out")
    store.create(plan)
    (store.path / "slurm").mkdir()
    monkeypatch.setattr(job_module, "PATIENCE_S", 0.0)
    before = signal.getsignal(signal.SIGUSR2)
    with store.claim(plan.cells[1]):
        Job(str(spec), str(store.path), plan.digest, device="cpu")()
    assert [store.state(cell) for cell in plan.cells] == ["finished", "waiting"]
    assert signal.getsignal(signal.SIGUSR2) == before


def test_a_job_does_what_it_was_submitted_for_or_nothing(tmp_path: Path) -> None:
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


def test_locks_that_do_not_reach_the_job_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "runner.lock"
    check_locks(lock)  # there is no runner
    with locked(lock):
        check_locks(lock)
        monkeypatch.setattr(
            job_module, "held", lambda path: False
        )  # as on a file system without locks between machines
        monkeypatch.setattr(job_module, "RUNNER_FRESH_S", 1.0)
        monkeypatch.setattr(time, "sleep", lambda seconds: os.utime(lock))
        with pytest.raises(DataError, match=r"a lock on .*runner.lock is not seen on "):
            check_locks(lock)
    os.utime(lock, (0, 0))  # as the runner leaves it
    check_locks(lock)
    assert [path.name for path in tmp_path.iterdir()] == ["runner.lock"]  # what was tried with is gone


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
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
def test_a_grid_on_a_real_slurm_survives_a_killed_and_a_requeued_job(slurm: None, tmp_path: Path) -> None:
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
                    subprocess.run(["scancel", "--signal=USR2", last["by"].partition("+")[0]], check=True)
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
    warned = list(hit)[1]
    assert "Requeued job" in (store.cells / warned / "job.log").read_text()
    for cell in plan.cells:
        assert [row["epoch"] for row in store.folder(cell).metrics] == list(range(13))
        log = (store.folder(cell).path / "job.log").read_text()
        assert Counter(line[:3] for line in log.splitlines())["== "] == len(attempts[cell.id])
    alone = Store(tmp_path / "alone")
    alone.create(plan)
    work(plan, alone, device="cpu")
    assert table_of(store.path) == table_of(alone.path) == (store.path / "table.md").read_text()
    assert json.loads((store.path / "plan.json").read_text()) == json.loads((alone.path / "plan.json").read_text())


@pytest.mark.slurm
@pytest.mark.timeout(600)
def test_one_run_on_two_nodes_of_a_real_slurm_is_that_of_one_process(slurm: None, tmp_path: Path) -> None:
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
