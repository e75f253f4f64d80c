"""The benchmark runner: its grid, shared starts, locks, failures, and what kill -9 leaves."""

from __future__ import annotations

import importlib
import io
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from rich.console import Console
from support.grids import TINY, table_of, wait_for, written

from reidassoc import registry
from reidassoc.bench.plan import Plan, named_roots, read_plan, shared_starts
from reidassoc.bench.progress import Watch
from reidassoc.bench.runner import Runner, open_benchmark, share
from reidassoc.bench.store import Store, held, locked
from reidassoc.bench.worker import SharingLog, work
from reidassoc.cli import cli
from reidassoc.engine.shared_start import leave_snapshot, snapshot_path, start_from
from reidassoc.engine.train import run
from reidassoc.errors import CheckpointError, DataError, PluginError, RecipeError, ReidassocError
from reidassoc.files.features import read_features
from reidassoc.recipe.choose import choose
from reidassoc.recipe.code_version import sources, start_name
from reidassoc.recipe.load import load_recipe
from reidassoc.recipe.override import override
from reidassoc.registry import entry_points
from reidassoc.runs.folder import RunFolder
from reidassoc.runs.observer import Observer
from reidassoc.runs.result import changed_files
from reidassoc.tables.formats import markdown
from reidassoc.tables.read import read_results
from reidassoc.tables.table import compare_results

SPECS = sorted((Path(__file__).resolve().parents[3] / "benchmarks" / "specs").glob("*.yaml"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _one_cache(_own_cache: None, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures are the same in all these tests."""
    monkeypatch.setenv("REIDASSOC_CACHE", str(cache))


def made(spec: Path, out: Path) -> tuple[Plan, Store]:
    plan, store = read_plan(spec), Store(out)
    store.create(plan)
    return plan, store


def without_times(folder: RunFolder) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in folder.metrics]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, Path, float]:
    """A finished benchmark of two methods that share their first stage: spec, results folder, seconds."""
    place = tmp_path_factory.mktemp("bench")
    os.environ["REIDASSOC_CACHE"] = str(cache)
    spec = written(place)
    plan, store = made(spec, place / "out")
    started = time.perf_counter()
    work(plan, store, device="cpu")
    return spec, place / "out", time.perf_counter() - started


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_spec_composes(path: Path) -> None:
    plan = read_plan(path, roots={"": "/nowhere"})
    assert plan.grid.name == path.stem
    assert len({(cell.method, cell.dataset, cell.seed) for cell in plan.cells}) == len(plan.cells) == len(plan.runs)


def test_the_synthetic_comparison_has_six_methods_and_three_seeds() -> None:
    plan = read_plan(next(path for path in SPECS if path.stem == "synthetic"))
    assert len(plan.grid.methods) >= 6
    assert plan.grid.seeds == (0, 1, 2)
    stage = load_recipe("mult/synthetic").stages[0].epochs
    assert {plan.starts(cell) for cell in plan.cells if cell.method in ("mult", "pgm")} == {(stage,)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\nmethods: {}", r"'methods' is empty, so the grid holds no run"),
        ("name: x\nmethods: {a: }\nseeds: []", r"'seeds' is empty"),
        ("name: x\nmethods: {a: }\nsead: [1]", r"no key 'sead'; did you mean 'seeds'\?"),
        ("name: x\nmethod: {a: }", r"spec\.yaml: no key 'method'; did you mean 'methods'\?; keys there: name"),
        ("name: x", r"spec\.yaml: the key 'methods' is missing$"),
        ("name: x\nmethods: {a: }\nseeds: 2", r"seeds: expected a list, as in \[2\], got 2$"),
        ("name: x\nmethods: {a: }\nplugins: x.py", r"plugins: expected a list, as in \['x\.py'\], got 'x\.py'$"),
        ("name: x\nmethods: {a: 3}", r"methods\.a: expected a mapping, as in \{key: value\}, got 3$"),
        ("name: x\nmethods: {a: }\nseeds: [-1]", r"seeds\.0: expected at least 0, got -1$"),
        (
            "name: x\nmethods: {a: {associator: mult(alpha=1, k1=8)}}",
            r"no key 'methods\.a\.k1=8\)': in YAML, quote a spec that has commas, as in 'x\(a=1, b=2\)'$",
        ),
        ("name: x\nmethods: {a: {asociator: mult}}", r"no key 'methods.a.asociator'; did you mean 'associator'\?"),
        ("name: x\nmethods: {a: {associator: mlt}}", r"method 'a': no associator 'mlt'; did you mean 'mult'"),
        (
            "name: x\nmethods: {a: {set: {associator.alfa: 1}}}",
            r"method 'a': mult: no option 'alfa'; did you mean 'alpha'",
        ),
        ("name: x\nmethods: {a: }\noverrides: {b: {seedd: 1}}", r"method 'a, b': --set seedd: no 'seedd'"),
        (
            "name: x\nmethods: {a: {recipe: mult/sysu_mm01}}",
            r"sysu_mm01 is kept on disk: say where, as in --data sysu_mm01",
        ),
        ("name: x y\nmethods: {a: }", r"name: expected a name of letters, .*, got 'x y'$"),
        ("name: ..\nmethods: {a: }", r"name: expected a name of letters"),  # would write beside the folder of all runs
        ("name: x\nmethods: {a: {recipe: mult/synthetic}}\ndatasets: [nosuch]", r"method 'a': no dataset 'nosuch'"),
        ("name: x\nmethods: [a]", r"methods: expected a mapping, as in \{key: value\}, got \['a'\]$"),
        ("name: x\nmethods: {a: }\nplugins: [no.py]", r"no plug-in file .*no.py"),
        ("- 1", r"expected a mapping with the keys name"),
        ("{", r"is no YAML"),
    ],
)
def test_a_bad_spec_ends_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ReidassocError, match=said) as caught:
        open_benchmark(written(tmp_path, text), out=tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_dataset_that_may_lie_on_disk_need_not(tmp_path: Path) -> None:
    union = "union(first='synthetic(size=\"tiny\")', second='synthetic(size=\"tiny\", seed=1)')"
    spec = written(tmp_path, f"name: x\nrecipe: mult/synthetic\nmethods: {{a: }}\ndatasets: [{json.dumps(union)}]")
    assert len(open_benchmark(spec, out=tmp_path / "out").plan.cells) == 1
    lacking = written(tmp_path, 'name: x\nmethods: {a: }\ndatasets: ["union(first=sysu_mm01, second=regdb)"]')
    with pytest.raises(ReidassocError, match=r"method 'a': union: .* need a folder each, here 2"):
        open_benchmark(lacking, out=tmp_path / "out")


def test_a_protocol_that_no_dataset_has_ends_before_anything_runs(tmp_path: Path) -> None:
    runner = open_benchmark(written(tmp_path, TINY + "protocol: all-serch\n"), out=tmp_path / "out", device="cpu")
    with pytest.raises(RecipeError, match="no protocol 'all-serch'; did you mean 'all-search "):
        runner.run_watched()
    assert not (tmp_path / "out").exists()


def test_a_name_nearly_right_is_proposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file of features, a run folder, a spec and a recipe: what is of that kind, and lies where it was looked for."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mult-synthetic-1").mkdir(parents=True)
    for name in ("tiny.safetensors", "tiny.safetensor.txt", "mine.yaml", "min.py", "runs/mult-synthetic-2.txt"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"^no feature file tinny\.safetensors; did you mean 'tiny\.safetensors'\?; "):
        read_features("tinny.safetensors")
    for read in (RunFolder.open, lambda path: read_results([path])):
        with pytest.raises(ReidassocError, match=r"; did you mean 'runs/mult-synthetic-1'\?"):
            read(Path("runs/mult-syntetic-1"))
    with pytest.raises(RecipeError, match=r"^no benchmark spec min\.yaml; did you mean 'mine\.yaml'\?; expected"):
        read_plan("min.yaml")
    with pytest.raises(RecipeError, match=r"^no recipe file .*min\.yaml; did you mean '.*/mine\.yaml'\?; shipped"):
        load_recipe(str(tmp_path / "min.yaml"))
    for path in (
        "runs/mult-synthetic-1",
        "elsewhere/mult-synthetic-1",
        "quite-another",
    ):  # is there, or nothing is near
        with pytest.raises(CheckpointError, match=r"^[^?]*$"):
            RunFolder.open(Path(path))


def test_a_spec_that_is_not_there() -> None:
    with pytest.raises(RecipeError, match=r"no benchmark spec nowhere\.yaml"):
        open_benchmark("nowhere.yaml")


def test_a_grid_is_methods_by_overrides_by_datasets_by_seeds(tmp_path: Path) -> None:
    more = "overrides: {weak: {associator.k1: 4}, strong: }\nseeds: [3, 4]\n"
    plan = read_plan(written(tmp_path, TINY.replace("nearest: {associator: nearest}, mult:", "mult:") + more))
    assert [(c.method, c.seed) for c in plan.cells] == [(f"mult, {o}", s) for s in (3, 4) for o in ("weak", "strong")]
    assert "k1=4" in str(plan.cells[0].recipe.stages[1].associator)
    assert len({cell.id for cell in plan.cells}) == 4
    assert {plan.starts(cell) for cell in plan.cells} == {(1,)}
    only = read_plan(tmp_path / "spec.yaml", seeds=[9])
    assert {cell.id.partition("-")[2] for cell in only.cells} == {"s9"}


def test_prefixes_agree_exactly_where_the_first_epochs_do() -> None:
    recipe = load_recipe("mult/synthetic")
    stage = recipe.stages[0].epochs
    digest = recipe.prefix_digest(stage)
    for path, value in [("associator.alpha", 0.4), ("cross.epochs", 3), ("name", "other"), ("cross.images", 2)]:
        assert override(recipe, [(path, value)]).prefix_digest(stage) == digest, path
    for path, value in [("seed", 1), ("clusterer.eps", 0.5), ("intra.iterations", 3), ("network.width", 64),
                        ("intra.optimiser.learning_rate", 1e-3), ("dataset.seed", 1), ("evaluate_every", 1)]:  # fmt: skip
        assert override(recipe, [(path, value)]).prefix_digest(stage) != digest, path
    longer = override(recipe, [("intra.epochs", stage + 2)])
    assert longer.prefix_digest(stage) == digest  # a longer first stage begins alike
    assert override(recipe, [("cross.images", 2)]).prefix_digest(stage + 1) != recipe.prefix_digest(stage + 1)
    with pytest.raises(ValueError, match="must be shorter than the run's"):
        recipe.prefix_digest(recipe.epochs)
    assert shared_starts({"a": recipe, "b": longer}) == {"a": (stage,), "b": (stage,)}
    assert shared_starts({"a": recipe, "b": override(recipe, [("seed", 1)])}) == {"a": (), "b": ()}


def test_a_shared_start_gives_the_unshared_numbers(undisturbed: tuple[Path, Path, float], tmp_path: Path) -> None:
    spec, out, _ = undisturbed
    plan, store = read_plan(spec), Store(out)
    first, second = plan.cells
    shared = json.loads((store.folder(second).path / "shared.json").read_text())
    assert shared == {"epochs": 1, "snapshot": second.recipe.prefix_digest(1)}
    assert not (store.folder(first).path / "shared.json").exists()
    alone = run(second.recipe, out=tmp_path / "alone", device="cpu")
    assert without_times(RunFolder(tmp_path / "alone")) == without_times(store.folder(second))
    assert store.result(second)["protocols"] == alone.protocols
    for name in ("labels/epoch_000.npz", "labels/epoch_002.npz", "queries.npz"):
        with np.load(tmp_path / "alone" / name) as mine, np.load(store.folder(second).path / name) as theirs:
            assert mine.files == theirs.files
            for key in mine.files:
                np.testing.assert_array_equal(mine[key], theirs[key])
    states = [
        torch.load(path / "checkpoints/epoch_003.pt", weights_only=True)
        for path in (tmp_path / "alone", store.folder(second).path)
    ]
    assert states[0]["recipe"] == states[1]["recipe"]
    for key, tensor in states[0]["network"].items():
        assert torch.equal(tensor, states[1]["network"][key]), key


def test_a_snapshot_is_only_taken_by_runs_that_begin_alike(
    undisturbed: tuple[Path, Path, float], tmp_path: Path
) -> None:
    spec, out, _ = undisturbed
    plan, store = read_plan(spec), Store(out)
    recipe = plan.cells[0].recipe
    snapshot = snapshot_path(store.starts, recipe, 1)
    assert leave_snapshot(store.starts, store.folder(plan.cells[0]), recipe, 1) == snapshot  # kept already
    other = override(recipe, [("clusterer.eps", 0.5)])
    with pytest.raises(CheckpointError, match="was left by a run that begins otherwise"):
        start_from(snapshot, tmp_path / "run", other)
    assert not (tmp_path / "run").exists()
    with pytest.raises(CheckpointError, match="holds no checkpoint of epoch 1"):
        leave_snapshot(tmp_path, store.folder(plan.cells[0]), recipe, 1)  # pruned long ago


def test_finished_cells_are_not_run_again(undisturbed: tuple[Path, Path, float]) -> None:
    spec, out, _ = undisturbed
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.suffix != ".lock"}
    told: list[str] = []
    work(read_plan(spec), Store(out), device="cpu", told=lambda what, cell: told.append(what))
    assert told == []
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())


FAULTY = '''
from dataclasses import dataclass
from pathlib import Path
import reidassoc as ra

@dataclass(frozen=True, kw_only=True)
class Faulty(ra.Associator):
    """Fails until a file is there."""
    def __call__(self, scene: ra.Scene) -> ra.Association:
        if not Path(__file__).with_name("mended").exists():
            raise IndexError("index 7\\nis out of bounds")
        return ra.registry.build("associators", "nearest")(scene)
'''


def test_a_failed_cell_hides_no_other_and_is_retried_on_demand(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY)
    text = TINY.replace("methods: {", "plugins: [faulty.py]\nmethods: {faulty: {associator: faulty}, ")
    plan, store = made(written(tmp_path, text.replace(", mult:", "")), tmp_path / "out")
    work(plan, store, device="cpu")
    assert [store.state(cell) for cell in plan.cells] == ["failed", "finished"]
    text = table_of(store.path)
    assert "faulty: seed 0 failed: associator faulty failed: IndexError: index 7 is out of bounds" in text
    assert "| 0/1 |" in text
    assert "| nearest | 1 |" in text
    work(plan, store, device="cpu")  # not on demand
    assert store.state(plan.cells[0]) == "failed"
    (tmp_path / "mended").touch()
    store.forget_failure(plan.cells[0])
    assert store.state(plan.cells[0]) == "begun"
    work(plan, store, device="cpu")
    assert [store.state(cell) for cell in plan.cells] == ["finished", "finished"]
    assert store.result(plan.cells[0])["protocols"] == store.result(plan.cells[1])["protocols"]


MINE = '''
from dataclasses import dataclass
import reidassoc as ra

@dataclass(frozen=True, kw_only=True)
class Mine(ra.Associator):
    """The nearest cluster."""
    def __call__(self, scene: ra.Scene) -> ra.Association:
        return ra.registry.build("associators", "nearest")(scene)

@dataclass(frozen=True, kw_only=True)
class Groups(ra.Clusterer):
    """As dbscan."""
    def __call__(self, features, **told):
        return ra.registry.build("clusterers", "dbscan(eps=0.6, min_samples=4, k1=8, k2=4)")(features, **told)
'''


def test_an_edited_file_makes_other_cells_and_loses_none(tmp_path: Path) -> None:
    """Its old figures would be taken for those of the new text; what is installed alone keeps its names."""
    (tmp_path / "mine.py").write_text(MINE)
    text = TINY.replace("methods: {", "plugins: [mine.py]\nmethods: {mine: {associator: mine}, ").replace(", mult:", "")
    spec = written(tmp_path, text)
    plan, store = made(spec, tmp_path / "out")
    work(plan, store, device="cpu")
    mine, shipped = plan.cells
    starts, hashed = {path.name for path in store.starts.iterdir()}, store.result(mine)["files"]
    assert list(hashed) == ["mine.py"]
    assert store.result(shipped)["files"] == {}
    assert shipped.id == f"{shipped.recipe.digest}-s0"

    (tmp_path / "mine.py").write_text(MINE.replace("The nearest", "Still the nearest"))
    plan, _ = made(spec, store.path)
    assert [store.state(cell) for cell in plan.cells] == ["waiting", "finished"]
    work(plan, store, device="cpu")
    assert [store.state(cell) for cell in plan.cells] == ["finished", "finished"]
    assert store.finished(mine), "the old one is still there"
    assert store.result(plan.cells[0])["flags"] == [], "nothing changed during the run, whose start is shared"
    assert store.result(plan.cells[0])["files"] != hashed
    assert {path.name for path in store.starts.iterdir()} == starts, "stage 1 knows no associator"
    assert len(read_results([store.path]).outcomes) == 2


def test_a_shared_start_is_of_the_files_that_its_epochs_use(tmp_path: Path) -> None:
    names = []
    for text in (MINE, MINE + "#"):
        (tmp_path / "mine.py").write_text(text)
        registry.load_file(str(tmp_path / "mine.py"))
        recipes = [choose(associator="mine"), choose(associator="mine", clusterer="groups")]
        names.append([start_name(recipe, 1) for recipe in recipes] + [start_name(recipes[0], 9)])
    same = [one == other for one, other in zip(*names, strict=True)]
    assert same == [True, False, False]
    assert names[0][0] == load_recipe("mult/synthetic").prefix_digest(1)


def test_a_stranger_s_package_is_watched_and_what_we_ship_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be installed with -e, and be edited under the same version."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # texts of one second and size would share it
    own, real = EntryPoint("mine", "stranger:Mine", "reidassoc.associators"), entry_points.installed
    monkeypatch.setattr(entry_points, "installed", lambda group: (*real(group), *([own] if group == own.group else [])))
    found = []
    for text in (MINE, MINE + "# another thought"):
        (tmp_path / "stranger.py").write_text(text)
        sys.modules.pop("stranger", None)  # as in another process
        importlib.invalidate_caches()
        found.append(sources(choose(associator="mine")))
        (tmp_path / "stranger.py").write_text("# edited while it runs")
        assert sources(choose(associator="mine")) == found[-1], "what runs is what was imported"
    assert [list(files) for files in found] == [[str(tmp_path / "stranger.py")]] * 2
    assert found[0] != found[1]
    assert sources(choose(associator="mult")) == {}


def test_a_file_that_changed_during_a_run_is_said(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    spec = written(tmp_path, TINY.replace("methods: {", "plugins: [mine.py]\nmethods: {mine: {associator: mine}, "))
    recipe = read_plan(spec).cells[0].recipe
    with pytest.raises(KeyboardInterrupt):
        run(recipe, out=tmp_path / "run", device="cpu", log=Interrupting())
    assert changed_files(RunFolder(tmp_path / "run"), recipe) == []
    (tmp_path / "mine.py").write_text(MINE + "# another thought\n")
    registry.load_file(str(tmp_path / "mine.py"))
    log = Saying()
    result = run(recipe, out=tmp_path / "run", device="cpu", resume=True, log=log)
    assert "mine.py has changed since the run began: its first 1 epochs are of another text" in log.said
    assert result.data["flags"] == ["mine.py changed during the run"]


class Interrupting(Observer):
    """Ctrl-C when the second epoch begins."""

    def epoch(self, number: int, total: int, stage: str, steps: int) -> None:
        if number == 1:
            raise KeyboardInterrupt


class Saying(Observer):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def once(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.parametrize("text", ["", "[1]", "{}", "3", "\\ud800"])
def test_a_damaged_failure_is_a_failure(tmp_path: Path, text: str) -> None:
    plan, store = made(written(tmp_path, TINY), tmp_path / "out")
    cell = plan.cells[0]
    (store.cells / f"{cell.id}.error.json").write_text(text)
    assert store.state(cell) == "failed"
    said = f"failed: {cell.id}.error.json can't be read"
    assert Watch(plan, store).describe(cell) == said
    assert [remark for *_, remark in read_results([store.path]).missing] == [f"seed 0 {said}", "seed 0 has not ended"]
    store.forget_failure(cell)
    assert store.state(cell) == "waiting"


def test_a_damaged_result_stops_no_benchmark(tmp_path: Path) -> None:
    plan, store = made(written(tmp_path, TINY), tmp_path / "out")
    (store.cells / plan.cells[0].id).mkdir()
    (store.cells / plan.cells[0].id / "result.json").write_text("{")
    assert Watch(plan, store).describe(plan.cells[0]) == "its result.json can't be read"


def test_where_there_is_no_terminal_a_line_a_minute_says_how_far_the_runs_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = made(written(tmp_path, TINY), tmp_path / "out")
    names = [f"{cell.method}, {cell.dataset}, seed {cell.seed}" for cell in plan.runs]
    states = dict.fromkeys((cell.id for cell in plan.runs), "waiting")
    monkeypatch.setattr(Watch, "describe", lambda self, cell: states[cell.id])
    said, now = io.StringIO(), [0.0]
    watch = Watch(plan, store, Console(file=said, width=40), clock=lambda: now[0])

    def lines() -> list[str]:
        said.seek(0), said.truncate()
        watch()
        return said.getvalue().splitlines()

    assert lines() == []
    states[plan.runs[0].id] = "epoch 3 of 9"
    assert lines() == [f"{names[0]}: runs"]
    now[0] += 59
    assert lines() == []
    now[0] += 2
    assert lines() == [f"{names[0]}: epoch 3 of 9"]
    assert lines() == []
    states[plan.runs[1].id] = "epoch 1 of 9"
    assert lines() == [f"{names[1]}: runs"]
    now[0] += 61
    assert lines() == [f"{names[0]}: epoch 3 of 9; {names[1]}: epoch 1 of 9"]
    now[0] += 61
    monkeypatch.setattr("reidassoc.bench.progress.NAMED", 1)
    assert lines() == [f"{names[0]}: epoch 3 of 9; and 1 more"]
    states |= dict.fromkeys(states, "mAP 1.0")
    now[0] += 61
    assert lines() == [f"{name}: mAP 1.0" for name in names]


def hold(path: str, ready: str) -> None:
    with locked(Path(path)) as mine:
        Path(ready).write_text(str(mine))
        time.sleep(60)


def working(spec: str, out: str, log: str) -> None:
    """A process that works on a benchmark and writes down what it does."""
    torch.set_num_threads(1)

    def told(what: str, cell: Any) -> None:
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {what} {cell.id}\n")

    work(read_plan(spec), Store(Path(out)), device="cpu", told=told)


@pytest.fixture(scope="module")
def processes() -> Any:
    """Processes forked from one that has imported torch already, and never used it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["reidassoc.bench.worker", "reidassoc_plugins.datasets.synthetic"])
    return context


def test_a_lock_dies_with_its_process(processes: Any, tmp_path: Path) -> None:
    lock, ready = tmp_path / "cell.lock", tmp_path / "ready"
    assert not held(lock)
    process = processes.Process(target=hold, args=(str(lock), str(ready)))
    process.start()
    wait_for(ready.exists)
    assert held(lock)
    with locked(lock) as mine:
        assert not mine
    process.kill()
    process.join()
    assert not held(lock)
    with locked(lock) as mine:
        assert mine
        with locked(lock) as again:
            assert not again


def test_two_processes_lose_and_double_no_cell(
    processes: Any, undisturbed: tuple[Path, Path, float], tmp_path: Path
) -> None:
    spec, out, _ = undisturbed
    _, store = made(spec, tmp_path / "out")
    both = [
        processes.Process(target=working, args=(str(spec), str(store.path), str(tmp_path / "log"))) for _ in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
        assert process.exitcode == 0
    done = [line.split()[1:] for line in (tmp_path / "log").read_text().splitlines()]
    cells = [cell.id for cell in read_plan(spec).cells]
    assert sorted(cell for what, cell in done if what == "begin") == sorted(cells)
    assert sorted(cell for what, cell in done if what == "end") == sorted(cells)
    assert table_of(store.path) == table_of(out)


def test_killed_at_ten_points_the_table_is_that_of_an_undisturbed_run(
    processes: Any, undisturbed: tuple[Path, Path, float], tmp_path: Path
) -> None:
    spec, out, seconds = undisturbed
    _, store = made(spec, tmp_path / "out")
    arguments = (str(spec), str(store.path), str(tmp_path / "log"))
    draw, hit = random.Random(0), 0
    for _ in range(10):
        process = processes.Process(target=working, args=arguments)
        process.start()
        process.join(draw.uniform(0.2, 1.8) * seconds / 12)
        hit += process.is_alive()
        process.kill()
        process.join()
    assert hit == 10
    process = processes.Process(target=working, args=arguments)
    process.start()
    process.join(120)
    assert process.exitcode == 0
    assert table_of(store.path) == table_of(out)
    for cell in read_plan(spec).cells:
        assert without_times(store.folder(cell)) == without_times(Store(out).folder(cell))
    assert not [path for path in store.cells.iterdir() if path.name.endswith(".error.json")]


def environment(cache: Path) -> Mapping[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "REIDASSOC_CACHE": str(cache)}


@pytest.mark.timeout(900)  # processes that import torch, on a machine that may be busy
def test_a_worker_dies_with_its_runner_and_two_workers_go_on(
    undisturbed: tuple[Path, Path, float], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, out, _ = undisturbed
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments = ["bench", str(spec), "--out", "out", "--device", "cpu"]
    with open(tmp_path / "said", "w") as said:
        command = [sys.executable, "-m", "reidassoc", *arguments]
        first = subprocess.Popen(command, env=environment(cache), stderr=said, stdout=subprocess.DEVNULL)
    plan, store = read_plan(spec), Store(Path("out"))
    line = f"{plan.cells[0].method}, {plan.cells[0].dataset}, seed 0: runs"
    wait_for(lambda: line in (tmp_path / "said").read_text() or first.poll() is not None, 600)
    assert first.poll() is None
    first.send_signal(signal.SIGKILL)
    first.wait()
    wait_for(lambda: not any(held(path) for path in store.cells.glob("*.lock")))
    assert store.state(plan.cells[1]) != "finished"
    done = CliRunner().invoke(cli, [*arguments, "--jobs", "2", "--export", "cells"])
    assert done.exit_code == 0, done.output
    assert "all-search single-shot" in done.output
    assert (tmp_path / "out" / "table.md").read_text() == table_of(out)
    for cell in plan.cells:
        assert without_times(store.folder(cell)) == without_times(Store(out).folder(cell))
    exported = read_results([tmp_path / "cells"])
    assert markdown(compare_results(exported)) == table_of(out)


@pytest.mark.timeout(600)  # a process that imports torch, on a machine that may be busy
def test_a_worker_that_reads_another_plan_than_its_runner_ends_the_benchmark(tmp_path: Path) -> None:
    """It would work on cells that the runner doesn't count."""
    (tmp_path / "mine.py").write_text(MINE)
    spec = written(tmp_path, TINY.replace("methods: {", "plugins: [mine.py]\nmethods: {mine: {associator: mine}, "))
    runner = open_benchmark(spec, out=tmp_path / "out", device="cpu")
    assert runner.plan.digest == read_plan(spec).digest
    (tmp_path / "mine.py").write_text(MINE + "# another thought")
    said = r"a worker ended with code 1: spec\.yaml or mine\.py was edited since the benchmark was started; .*worker_0\.log"
    with pytest.raises(ReidassocError, match=said):
        runner.run_watched()
    assert list(runner.store.cells.iterdir()) == []


def test_an_edit_while_the_benchmark_runs_is_told_beside_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    text = TINY.replace("methods: {", "plugins: [mine.py]\nmethods: {mine: {associator: mine}, ")
    spec = written(tmp_path, text)
    assert open_benchmark(spec, out=tmp_path / "out").outdated() == ""

    def edit(runner: Runner, *, retry_failed: bool) -> None:
        (tmp_path / "mine.py").write_text(MINE + "# another thought")

    monkeypatch.setattr(Runner, "run_watched", edit)
    monkeypatch.setattr(Runner, "tables", lambda runner: ([], None))
    done = CliRunner().invoke(cli, ["bench", str(spec), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert (
        "mine.py was edited while the benchmark ran; the table is of the text as it was at the start: the same command runs the "
        "new one\n" in done.stderr
    )
    runner = open_benchmark(spec, out=tmp_path / "out")
    assert runner.outdated() == "", "the new text is what it read"
    (tmp_path / "mine.py").unlink()
    spec.write_text(text + "title: another\n")
    assert runner.outdated().startswith("spec.yaml and mine.py were edited while")


def test_what_is_said_before_there_is_a_folder_is_kept(tmp_path: Path) -> None:
    _, store = made(written(tmp_path, TINY), tmp_path / "out")
    log = SharingLog(store, load_recipe("mult/synthetic"), (), ExitStack())
    log.once("mine.py has changed since the run began")
    log.start(tmp_path)
    log.once("and this is later")
    assert (tmp_path / "log.txt").read_text() == "mine.py has changed since the run began\nand this is later\n"


def test_a_folder_is_given_to_a_dataset_by_its_name(tmp_path: Path) -> None:
    spec = written(tmp_path, "name: x\nmethods: {a: }\nrecipe: mult/sysu_mm01\ndatasets: [sysu_mm01, sysu_mm01]\n")
    (cell,) = read_plan(spec, roots=named_roots(["sysu_mm01=/data/a=b", "/elsewhere"])).cells  # named twice, run once
    assert cell.recipe.dataset.options["root"] == "/data/a=b"
    assert read_plan(spec, roots=named_roots(["/data/a=b"])).cells[0].recipe.dataset.options["root"] == "/data/a=b"
    with pytest.raises(PluginError, match="no dataset 'sysu'; did you mean 'sysu_mm01'"):
        read_plan(spec, roots=named_roots(["sysu=/data", "/data"]))


def test_what_is_said_after_ctrl_c_is_the_same_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: Runner, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Runner, "run_watched", stop)
    words = ["bench", str(written(tmp_path)), "--out", "a b", "--data", "/data", "--seed", "3"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/reidassoc", *words])
    with pytest.raises(click.exceptions.Abort) as stopped:
        cli.main(words, standalone_mode=False)
    assert str(stopped.value).endswith(f"go on with: reidassoc bench {words[1]} --out 'a b' --data /data --seed 3")


def test_a_dry_run_lists_cells_and_writes_nothing(tmp_path: Path) -> None:
    runner = open_benchmark(written(tmp_path), out=tmp_path / "out")
    lines = runner.listed()
    assert lines[-1] == f"2 cells, 2 runs, 1 shared starts, in {tmp_path / 'out'}"
    assert "waiting" in lines[0]
    assert "nearest" in lines[0]
    assert not (tmp_path / "out").exists()


def test_workers_share_cards_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert [share(slot, 3, "auto")["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["4", "6", "4"]
    assert share(0, 3, "auto")["OMP_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS" not in share(0, 1, "auto")
    assert "CUDA_VISIBLE_DEVICES" not in share(0, 3, "cpu")
    assert "CUDA_VISIBLE_DEVICES" not in share(0, 3, "cuda:1")
