"""Faults that a run must survive, or end at in one line: the table of docs/reliability.md, with the rows tested elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partialmethod
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from support.grids import TINY, written
from torch import Tensor

import reidassoc as ra
from reidassoc import registry
from reidassoc.bench.runner import Worker, open_benchmark
from reidassoc.cli import main
from reidassoc.data.store import ImageStore
from reidassoc.engine import extract as extract_module
from reidassoc.engine.out_of_memory import by_batches, ran_out, too_large
from reidassoc.errors import DataError, DeviceError
from reidassoc.interfaces.plugins import Objective, Sampling
from reidassoc.recipe.model import Recipe
from reidassoc.recipe.override import override
from reidassoc.runs.folder import RunFolder
from reidassoc.runs.observer import Observer

ROOT = Path(__file__).resolve().parents[3]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in RunFolder(folder).metrics]


class Heard(Observer):
    """Keeps what is said, and does something when an epoch is over."""

    def __init__(self, act: Any = lambda row: None) -> None:
        self.said: list[str] = []
        self.act = act

    def once(self, text: str) -> None:
        self.said.append(text)

    def report(self, row: Mapping[str, Any]) -> None:
        self.act(row)


def test_every_row_of_the_table_names_tests_that_are_there() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+)::(test_\w+)`", text)
    assert len(named) >= 14
    for file, test in named:
        assert f"def {test}(" in next((ROOT / "tests").rglob(f"{file}.py")).read_text(encoding="utf-8"), (
            f"{file}::{test}"
        )


def test_sigterm_ends_like_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = RunFolder.append_metrics

    def terminated(self: RunFolder, row: Mapping[str, Any]) -> None:
        real(self, row)
        if row["epoch"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(RunFolder, "append_metrics", terminated)
    monkeypatch.chdir(tmp_path)
    tiny = ["--dataset", "synthetic(size='tiny')", "--set", "intra.iterations=1"]
    monkeypatch.setattr(sys, "argv", ["reidassoc", "run", *tiny, "--device", "cpu", "--out", "r"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 130
    assert "Stopped. The last whole epoch is saved; go on with: reidassoc run --resume r" in capsys.readouterr().err
    assert RunFolder(tmp_path / "r").checkpoints()[0].name == "epoch_001.pt"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own in memory, that can be made full, larger and read-only."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def remounted(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True, capture_output=True)


def test_a_disk_that_fills_up_ends_the_run_in_one_line_and_it_goes_on(
    small: Recipe, finished: Path, small_disk: Path
) -> None:
    folder = small_disk / "run"

    def fill(row: Mapping[str, Any]) -> None:
        if row["epoch"] == 2:
            left = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
            (small_disk / "other").write_bytes(bytes(left - 20_000))  # room for the labels, not for a checkpoint

    with pytest.raises(DataError, match=r"no disk space left for .*; free some and go on with --resume"):
        ra.run(small, out=folder, device="cpu", log=Heard(fill))
    assert not list(folder.rglob(".*"))
    assert RunFolder(folder).checkpoints()[0].name == "epoch_003.pt"
    (small_disk / "other").unlink()
    ra.run(RunFolder.open(folder).recipe, out=folder, device="cpu", resume=True)
    assert rows_of(folder) == rows_of(finished)


def test_a_read_only_disk_is_said_before_and_during_a_run(small: Recipe, small_disk: Path) -> None:
    def freeze(row: Mapping[str, Any]) -> None:
        if row["epoch"] == 0:
            place = str(small_disk / "run" / "checkpoints")
            subprocess.run(["mount", "--bind", place, place], check=True)
            remounted(Path(place), "bind,ro")

    with pytest.raises(DataError, match=r"can't write .*: Read-only file system"):
        ra.run(small, out=small_disk / "run", device="cpu", log=Heard(freeze))
    remounted(small_disk, "ro")
    with pytest.raises(DataError, match=r"can't make the run folder .*: Read-only file system; choose another --out"):
        ra.run(small, out=small_disk / "other", device="cpu")


def test_images_that_vanish_or_are_cut_during_a_run_change_nothing(
    small: Recipe, finished: Path, tmp_path: Path
) -> None:
    from reidassoc.data.export import export

    export(registry.build("datasets", "synthetic(size='tiny')"), tmp_path / "tree", layout="sysu_mm01")
    recipe = ra.choose(recipe="mult/synthetic", dataset="sysu_mm01", root=str(tmp_path / "tree"), changes=[
        (f"{stage}.{key}", value) for stage, epochs in (("intra", 2), ("cross", 3))
        for key, value in (("epochs", epochs), ("iterations", 4), ("identities", 6))] + [("evaluate_every", 2)])  # fmt: skip
    images = sorted((tmp_path / "tree").rglob("*.png")) or sorted((tmp_path / "tree").rglob("*.jpg"))

    def spoil(row: Mapping[str, Any]) -> None:
        if row["epoch"] == 0:
            images[0].unlink()
            for path in images[1:]:
                path.write_bytes(path.read_bytes()[:100])
        if row["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ra.run(recipe, out=tmp_path / "run", device="cpu", log=Heard(spoil))
    assert rows_of(tmp_path / "run") == rows_of(finished)[:2]
    with pytest.raises(DataError, match="images can't be read"):  # found again when it is resumed
        ra.run(recipe, out=tmp_path / "run", device="cpu", resume=True)


def test_a_cache_that_is_cut_off_during_a_run_ends_it_in_one_line_and_it_goes_on(
    small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageStore, "__init__", partialmethod(ImageStore.__init__, memory_limit=0))  # all on disk
    few = [(f"{stage}.{key}", 1) for stage in ("intra", "cross") for key in ("epochs", "iterations")]
    short, cut = override(small, [*few, ("evaluate_every", 0)]), list[Path]()

    def spoil(row: Mapping[str, Any]) -> None:
        for path in (tmp_path / "cache").rglob("images.npy") if not cut else ():
            os.truncate(path, 2000)
        cut.extend((tmp_path / "cache").rglob("images.npy"))

    with pytest.raises(
        DataError, match=r"images\.npy was cut off while it was in use; start again, a run with --resume"
    ):
        ra.run(short, out=tmp_path / "run", device="cpu", log=Heard(spoil))
    assert [row["epoch"] for row in RunFolder(tmp_path / "run").metrics] == [0]
    ra.run(short, out=tmp_path / "run", device="cpu", resume=True)
    assert [row["epoch"] for row in RunFolder(tmp_path / "run").metrics] == [0, 1]
    assert all(path.stat().st_size > 2000 for path in cut)  # decoded anew


def test_a_run_is_not_resumed_with_fewer_images(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    real = ImageStore.good
    monkeypatch.setattr(ImageStore, "good", property(lambda store: real.fget(store)[1:]))  # type: ignore[attr-defined]
    with pytest.raises(
        DataError, match=r"visible training images can be read, but the run began with \d+: bring them back"
    ):
        ra.run(RunFolder(tmp_path / "run").recipe, out=tmp_path / "run", device="cpu", resume=True)


def test_a_worker_that_is_killed_costs_its_cell_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = open_benchmark(written(tmp_path, TINY), out=tmp_path / "out", device="cpu")
    runner.store.create(runner.plan)
    cell, started = runner.plan.runs[0], []

    def start(slot: int) -> Worker:
        said = f"print('begin {cell.id}', flush=True); import time; time.sleep(0 if {len(started)} else 60)"
        process = subprocess.Popen([sys.executable, "-S", "-c", said], stdout=subprocess.PIPE, text=True)
        started.append(Worker(process, slot))
        return started[-1]

    monkeypatch.setattr(runner, "start", start)
    runner.start_workers()
    (worker,) = runner.workers
    assert worker.process.stdout is not None
    worker.process.stdout.readline()
    worker.cell = cell.id
    worker.process.kill()
    while runner.workers:
        runner.look()
    assert len(started) == 2  # another takes its place
    assert "its process was killed by signal 9 (out of memory?)" in (runner.store.failure(cell) or {})["error"]
    assert runner.store.state(runner.plan.runs[1]) == "waiting"


def scarce(limit: int, real: Any) -> Any:
    """The same function, on a machine with memory for so many images."""

    def unit_features(network: Any, images: Tensor, *more: Any) -> Any:
        if len(images) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(network, images, *more)

    return unit_features


def test_extraction_goes_on_with_smaller_batches(
    small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_step = [(f"{stage}.{key}", 1) for stage in ("intra", "cross") for key in ("epochs", "iterations")]
    short = override(small, [*one_step, ("evaluate_every", 0), ("extract_batch", 128)])
    monkeypatch.setattr(extract_module, "unit_features", scarce(32, extract_module.unit_features))
    heard = Heard()
    with pytest.warns(UserWarning, match="out of memory"):  # evaluation has no log
        ra.run(short, out=tmp_path / "run", device="cpu", log=heard)
    said = "out of memory: features are extracted {0} images at a time; --set extract_batch={0} starts so"
    assert list(dict.fromkeys(heard.said)) == [said.format(64), said.format(32)]


def test_smaller_batches_give_every_row_once_and_in_order() -> None:
    rows, said = torch.arange(21), list[str]()

    def embed(chunk: Tensor) -> Tensor:
        if len(chunk) > 4 or (len(chunk) > 2 and int(chunk[0]) >= 12):  # memory gets scarcer
            raise torch.OutOfMemoryError("CUDA out of memory")
        return chunk

    assert torch.cat(list(by_batches(rows, 16, embed, said.append))).equal(rows)
    assert [text.partition("extract_batch=")[2].split()[0] for text in said] == ["8", "4", "2"]

    def never(chunk: Tensor) -> Tensor:
        raise MemoryError

    with pytest.raises(DeviceError, match="not one image fits"):
        list(by_batches(rows, 2, never, said.append))


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def fail(rows: Tensor) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        list(by_batches(torch.arange(4), 2, fail))
    with pytest.raises(RuntimeError, match="shapes differ"):
        raise too_large("cross", 8, 4, lambda count: fail(torch.ones(count)))
    assert ran_out(MemoryError())
    assert ran_out(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"))


@dataclass(frozen=True, kw_only=True)
class Greedy(Objective):
    """Needs memory for every image."""

    sampling: ClassVar[Sampling] = "paired"
    limit: int

    def banks(self, scene: Any, targets: Any) -> list[Any]:
        return []

    def __call__(self, batch: Any, banks: Any) -> dict[str, Tensor]:
        if len(batch["visible"].z) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"sum": batch["visible"].z.square().sum()}


def test_a_training_step_that_is_too_large_names_the_size_that_fits(small: Recipe, tmp_path: Path) -> None:
    registry.add("greedy", Greedy)
    images = small.stages[1].images
    chosen = override(small, [("cross.objectives", [f"greedy(limit={3 * images})"]), ("cross.refiners", [])])
    said = rf"out of memory in a training step of 6 identities × {images} images; 3 × {images} fit: .*--set cross.identities=3"
    with pytest.raises(DeviceError, match=said):
        ra.run(chosen, out=tmp_path / "run", device="cpu")
    assert RunFolder(tmp_path / "run").checkpoints()[0].name == "epoch_002.pt"


def test_when_not_even_one_identity_fits_that_is_said() -> None:
    def attempt(count: int) -> None:
        raise MemoryError

    assert "and one identity does not fit either" in str(too_large("cross", 6, 4, attempt))


def test_a_clock_that_jumps_changes_nothing(
    small: Recipe, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = iter(range(10**9, 0, -(10**5)))
    monkeypatch.setattr(time, "time", lambda: float(next(hours)))  # an hour back at every look

    def back(row: Mapping[str, Any]) -> None:
        for path in (tmp_path / "run" / "checkpoints").iterdir():
            os.utime(path, (0, 10**9 - row["epoch"] * 10**6))
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ra.run(small, out=tmp_path / "run", device="cpu", log=Heard(back))
    ra.run(small, out=tmp_path / "run", device="cpu", resume=True)
    assert rows_of(tmp_path / "run") == rows_of(finished)
    assert all(lap >= 0 for row in RunFolder(tmp_path / "run").metrics for lap in row["seconds"].values())


def test_two_runs_do_not_share_a_folder(small: Recipe, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    recipe = RunFolder(tmp_path / "run").recipe
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with (
        RunFolder(tmp_path / "run").held(),
        pytest.raises(DataError, match=r"run is in use: another process runs into it; wait for that one"),
    ):
        ra.run(recipe, out=tmp_path / "run", device="cpu", resume=True)
    assert before == {path: path.read_bytes() for path in before}
    short, refused = override(small, [("intra.epochs", 1), ("cross.epochs", 1)]), list[str]()

    def intrude(row: Mapping[str, Any]) -> None:
        with pytest.raises(DataError, match="is in use") as caught:
            ra.run(short, out=tmp_path / "held", device="cpu", resume=True)
        refused.append(str(caught.value))

    for again in (False, True):  # a run holds its folder, begun or resumed
        if again:
            (tmp_path / "held" / "checkpoints" / "epoch_002.pt").unlink()
        ra.run(short, out=tmp_path / "held", device="cpu", resume=again, log=Heard(intrude))
    assert len(refused) == 3
    assert [row["epoch"] for row in rows_of(tmp_path / "held")] == [0, 1]
    RunFolder(tmp_path / "new").create(recipe)
    with pytest.raises(DataError, match="was taken by another run just now"):  # of two that start at once, one is first
        RunFolder(tmp_path / "new").create(recipe)
