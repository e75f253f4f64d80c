"""Checkpoints: the last good one survives whatever happens while the next is written, and whoever else comes along."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import reidassoc as ra
from reidassoc.cli.run import run as command
from reidassoc.engine import checkpoint, train
from reidassoc.errors import DataError
from reidassoc.recipe.choose import choose
from reidassoc.recipe.model import Recipe
from reidassoc.recipe.override import override
from reidassoc.runs.folder import FolderTaken, RunFolder
from reidassoc.runs.terminal import Terminal

CPU = torch.device("cpu")


@pytest.fixture
def folder(small: Recipe, tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "run")
    made.create(small)
    return made


def state(epoch: int) -> checkpoint.State:
    network = nn.Linear(64, 64)
    nn.init.constant_(network.weight, epoch)
    return checkpoint.State(network, torch.optim.SGD(network.parameters(), 0.1), epoch=epoch, counts={})


def names(folder: RunFolder) -> list[str]:
    return sorted(path.name for path in (folder.path / "checkpoints").iterdir())


def test_the_newest_are_kept_and_at_least_one(folder: RunFolder) -> None:
    for epoch in range(5):
        checkpoint.save(folder, state(epoch), "x", kept=3)
    assert names(folder) == ["epoch_002.pt", "epoch_003.pt", "epoch_004.pt"]
    checkpoint.save(folder, state(5), "x", kept=1)
    assert names(folder) == ["epoch_005.pt"]
    folder.prune(0)
    assert names(folder) == ["epoch_005.pt"]
    assert checkpoint.newest(folder, CPU)["epoch"] == 5
    (folder.path / "checkpoints" / "epoch_best.pt").write_text("somebody's own")
    for epoch in (999, 1000):
        checkpoint.save(folder, state(epoch), "x", kept=2)
    assert [path.name for path in folder.checkpoints()] == ["epoch_1000.pt", "epoch_999.pt"]
    assert checkpoint.newest(folder, CPU)["epoch"] == 1000
    for wrong in ("0", "all"):
        assert CliRunner().invoke(command, ["--keep", wrong]).exit_code == 2


def in_a_process_that_is_killed(action: Any) -> None:
    """Do something in a copy of this process; a kill -9 of its own must end it."""
    child = os.fork()
    if child == 0:
        try:
            action()
        finally:
            os._exit(0)  # not reached
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_while_a_checkpoint_is_written_leaves_the_last_one(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(folder, state(1), "x")
    whole, die = torch.save, lambda: os.kill(os.getpid(), signal.SIGKILL)

    def half(value: Any, path: Path) -> None:
        whole(value, path)
        os.truncate(path, Path(path).stat().st_size // 2)
        die()

    monkeypatch.setattr(torch, "save", half)
    in_a_process_that_is_killed(lambda: checkpoint.save(folder, state(2), "x"))
    monkeypatch.setattr(torch, "save", whole)
    monkeypatch.setattr(os, "replace", lambda *paths: die())  # whole, but not in its place yet
    in_a_process_that_is_killed(lambda: checkpoint.save(folder, state(2), "x"))
    monkeypatch.undo()
    assert [path.name for path in folder.checkpoints()] == ["epoch_001.pt"]
    found = checkpoint.newest(folder, CPU)
    assert found["epoch"] == 1
    assert torch.equal(found["network"]["weight"], torch.ones(64, 64))
    left = [name for name in names(folder) if name.startswith(".")]
    assert len(left) == 2
    folder.sweep()  # as a resumed run does
    assert names(folder) == ["epoch_001.pt"]


def test_a_disk_that_is_full_leaves_the_last_one(folder: RunFolder) -> None:
    """The system itself refuses to write on: here by a limit on the size of files."""
    import resource

    checkpoint.save(folder, state(1), "x")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(
            DataError, match=r"no disk space left for .*epoch_002\.pt; free some and go on with --resume"
        ):
            checkpoint.save(folder, state(2), "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert names(folder) == ["epoch_001.pt"]
    assert checkpoint.newest(folder, CPU)["epoch"] == 1


def test_a_second_process_is_kept_out_until_the_first_one_is_gone(folder: RunFolder, small: Recipe) -> None:
    checkpoint.save(folder, state(0), small.digest)
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    with folder.held(), pytest.raises(DataError, match="is in use: another process runs into it; wait for that one"):
        ra.run(small, out=folder.path, device="cpu", resume=True)
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")} == before

    def hold() -> None:
        with folder.held():
            os.kill(os.getpid(), signal.SIGKILL)

    in_a_process_that_is_killed(hold)
    with folder.held():
        pass
    with pytest.raises(ZeroDivisionError), folder.held():  # what goes wrong inside stays what it is
        raise ZeroDivisionError
    with pytest.raises(FileNotFoundError), folder.held():
        raise FileNotFoundError


def test_two_runs_that_begin_at_once_do_not_share_a_folder(
    folder: RunFolder, small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FolderTaken, match="was taken by another run just now; choose another --out"):
        folder.create(small)
    (folder.path / "recipe.yaml").unlink()
    with pytest.raises(FolderTaken):
        train.begin(folder, folder.path, small, None, there=False, pictures=False)  # type: ignore[arg-type]
    monkeypatch.chdir(tmp_path)
    chosen = train.chosen_folder(None, small, resume=False)
    RunFolder(chosen.path).create(small)  # meanwhile, by another one
    with ExitStack() as held:
        assert train.begin(chosen, None, small, held, there=False, pictures=False).path == Path("runs/mult-synthetic-2")


def test_a_folder_names_the_plugins_that_its_recipe_does_not_bring(small: Recipe) -> None:
    assert train.title(small) == "mult-synthetic"
    assert train.title(choose(associator="nearest")) == "mult-synthetic-nearest"
    assert train.title(choose(associator="nearest", refiners=["agree", "mix"])) == "mult-synthetic-nearest-agree"
    assert train.title(choose(recipe="adca/synthetic")) == "adca-synthetic", "its own, whatever that is called"
    assert train.title(small.model_copy(update={"name": "mine"})) == "mine", "a file's are all its own"


def test_a_folder_behind_a_link_that_leads_nowhere_is_said(
    small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another number for the run would not help."""
    monkeypatch.chdir(tmp_path)
    Path("runs").symlink_to(tmp_path / "unmounted")
    with ExitStack() as held, pytest.raises(DataError, match=r"can't make the run folder .*: runs leads nowhere"):
        train.begin(train.chosen_folder(None, small, resume=False), None, small, held, there=False, pictures=False)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux which file is flushed")
def test_an_epoch_is_on_the_disk_before_it_counts(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut there is what was flushed: first the row, then the checkpoint's bytes, then its name."""
    done: list[tuple[str, str, int]] = []
    sync, replace = os.fsync, os.replace

    def flush(handle: int) -> None:
        sync(handle)
        done.append(("flush", Path(os.readlink(f"/proc/self/fd/{handle}")).name, os.fstat(handle).st_size))

    def take_place(one: Path, other: Path) -> None:
        done.append(("replace", other.name, one.stat().st_size))
        replace(one, other)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", take_place)
    folder.append_metrics({"epoch": 1})
    checkpoint.save(folder, state(2), "x")
    size = (folder.path / "checkpoints" / "epoch_002.pt").stat().st_size
    assert done[0] == ("flush", "metrics.jsonl", len('{"epoch": 1}\n'))
    what, name, flushed = done[1]
    assert (what, name.startswith(".epoch_002.pt."), flushed) == ("flush", True, size)
    assert done[2] == ("replace", "epoch_002.pt", size)
    assert [(what, name) for what, name, _ in done[3:]] == [("flush", "checkpoints")]


def test_a_row_that_was_cut_off_within_a_character_is_left_out(folder: RunFolder) -> None:
    folder.append_metrics({"epoch": 0, "stage": "two\u2028lines"})
    folder.append_metrics({"epoch": 1, "stage": "für"})
    file = folder.path / "metrics.jsonl"
    file.write_bytes(file.read_bytes().partition("ü".encode())[0] + "ü".encode()[:1])
    assert folder.metrics == [{"epoch": 0, "stage": "two\u2028lines"}]


def test_a_log_that_can_not_be_written_is_one_line(folder: RunFolder) -> None:
    log = Terminal()
    log.line("before")
    (folder.path / "log.txt").mkdir()
    with pytest.raises(DataError, match=r"can't write .*log\.txt: Is a directory"):
        log.start(folder.path)


def test_a_run_killed_before_its_first_checkpoint_begins_anew(small: Recipe, tmp_path: Path) -> None:
    folder, quick = RunFolder(tmp_path / "run"), override(small, [("intra.epochs", 1), ("cross.epochs", 1)])
    folder.create(quick)
    result = ra.run(quick, out=folder.path, device="cpu", resume=True)
    assert result.data["epochs"] == 2
    assert oct((folder.path / "result.json").stat().st_mode & 0o777) == oct(0o666 & ~umask())


def umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now
