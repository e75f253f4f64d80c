"""Figures reach TensorBoard, Weights & Biases and MLflow, under the names of metrics.jsonl, and a resumed run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from reidassoc.cli import cli
from reidassoc.errors import ReidassocError
from reidassoc.recipe.configuration import method_digest
from reidassoc.recipe.model import Recipe
from reidassoc.registry import extras
from reidassoc.runs import trackers
from reidassoc.runs.folder import RunFolder
from reidassoc.runs.observer import Everyone, Observer
from reidassoc.runs.result import Result
from reidassoc.runs.trackers import scalars, tracker


def row(epoch: int) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "stage": "cross",
        "losses": {"loss": 2.0 - epoch},
        "clusters": {"visible": 7, "infrared": 5},
        "retrieval": {"all-search single-shot": {"mAP": {"mean": 10.0 + epoch, "std": 0.5}}},
        "seconds": {"train": 0.1},
    }


@pytest.fixture
def folder(tmp_path: Path, small: Recipe) -> Path:
    made = RunFolder(tmp_path / "mult-1")
    made.create(small)
    return made.path


def told(name: str, folder: Path, epochs: list[int], *, finished: bool = True) -> None:
    """A run of some epochs, as the engine tells it."""
    observer = Everyone([tracker(name), Observer()])
    observer.start(folder)
    for epoch in epochs:
        observer.epoch(epoch, 3, "cross", 4)
        observer.step(4, {"loss": 1.0}, images=12)
        observer.once("a note")
        observer.report(row(epoch))
    if finished:
        observer.finish(Result(folder, {"digest": "d", "flags": []}))
    observer.close()


MAP = "retrieval/all-search single-shot/mAP"


def test_numbers_have_paths() -> None:
    assert dict(scalars(row(1))) == {
        "losses/loss": 1.0,
        "clusters/visible": 7.0,
        "clusters/infrared": 5.0,
        MAP: 11.0,
        "seconds/train": 0.1,
    }


def test_a_figure_that_is_not_there_is_not_tracked() -> None:
    assert dict(scalars({"retrieval": {"all": {"mAP": {"mean": None, "std": None}}}})) == {}


def test_tensorboard_s_files_hold_every_epoch_once(folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    told("tensorboard", folder, [0, 1, 2], finished=False)
    told("tensorboard", folder, [2, 3])  # epoch 2 was cut off
    read = EventAccumulator(str(folder / "tensorboard"))
    read.Reload()
    assert set(read.Tags()["scalars"]) == set(dict(scalars(row(0))))
    found = [(event.step, event.value) for event in read.Scalars(MAP)]
    assert found == [(0, 10.0), (1, 11.0), (2, 12.0), (3, 13.0)]
    (text,) = read.Tensors("recipe/text_summary")[-1].tensor_proto.string_val
    assert (folder / "recipe.yaml").read_text() in text.decode()


def test_mlflow_s_store_holds_every_epoch(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    told("mlflow", folder, [0, 1], finished=False)
    client = mlflow.MlflowClient()
    run_id = (folder / "mlflow_id").read_text()
    assert client.get_run(run_id).info.status == "FAILED"  # as an interrupted run leaves it
    again = tracker("mlflow")
    again.start(folder)
    assert client.get_run(run_id).info.status == "RUNNING"
    told("mlflow", folder, [2])
    assert (folder / "mlflow_id").read_text() == run_id
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["intra.associator"] == "None"
    recipe = RunFolder(folder).recipe
    assert run.data.tags["digest"] == recipe.digest
    assert run.data.tags["method"] == method_digest(recipe.model_copy(update={"seed": 7}))
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, MAP)] == [(0, 10.0), (1, 11.0), (2, 12.0)]


def test_the_real_wandb_takes_what_it_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MODE", "offline"), ("SILENT", "true"), ("DISABLE_GIT", "true")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    told("wandb", folder, [0], finished=False)
    told("wandb", folder, [1])
    assert len(list((folder / "wandb").glob(f"offline-run-*-{(folder / 'wandb_id').read_text()}"))) >= 1


class FakeWandB:
    """What of the package is used, and nothing else."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.summary = self
        self.update: Callable[[Mapping[str, Any]], None] = lambda facts: self.calls.append(("summary", facts))

    def init(self, **options: Any) -> FakeWandB:
        self.calls.append(("init", options["id"]))
        assert len(options["group"]) == 16
        json.dumps(options["config"])
        return self

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        self.calls.append(("log", (step, values[MAP])))

    def finish(self, *, exit_code: int) -> None:
        self.calls.append(("finish", exit_code))


def test_wandb_is_told_every_epoch_under_one_id(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandB()
    monkeypatch.setattr(trackers, "needed", lambda module, extra, by: fake)
    told("wandb", folder, [0], finished=False)
    told("wandb", folder, [1])
    known = (folder / "wandb_id").read_text()
    assert known
    assert fake.calls == [
        ("init", known), ("log", (0, 10.0)), ("finish", 1),
        ("init", known), ("log", (1, 11.0)), ("summary", {"digest": "d", "flags": []}), ("finish", 0),
    ]  # fmt: skip


class Failing(Observer):
    """A tracker whose server is away, from one call on."""

    fails = "start"

    def __init__(self) -> None:
        self.told: list[str] = []

    def tell(self, what: str) -> None:
        self.told.append(what)
        if what == self.fails:
            raise ConnectionError("no answer\nfrom the server")

    def start(self, folder: Path) -> None:
        self.tell("start")

    def report(self, row: Mapping[str, Any]) -> None:
        self.tell("report")

    def finish(self, result: Result) -> None:
        self.tell("finish")

    def close(self) -> None:
        self.tell("close")


@pytest.mark.parametrize("fails", ["report", "finish", "close"])
def test_a_tracker_that_fails_does_not_end_the_run(fails: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "failing", Failing)
    monkeypatch.setattr(Failing, "fails", fails)
    said: list[str] = []
    observer = tracker("failing", said.append)
    observer.start(folder)
    observer.report(row(0))
    observer.report(row(1))
    observer.finish(Result(folder, {}))
    observer.close()
    assert said == [
        "tracker failing failed, and is told nothing more of this run: ConnectionError: no answer from the server; "
        "metrics.jsonl has it all"
    ]
    assert observer.inner.told[-1] == fails  # type: ignore[attr-defined]


def test_a_tracker_that_can_not_begin_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "failing", Failing)
    with pytest.raises(
        ReidassocError, match=r"^tracker failing can't begin: ConnectionError: no answer from the server; .*--resume"
    ):
        tracker("failing").start(folder)


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str) -> None:
        raise ImportError(f"No module named '{module}'")

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    with pytest.raises(ReidassocError, match=r"needs a package .*pip install 'reidassoc\[mlflow\]'"):
        tracker("mlflow")
    with pytest.raises(ReidassocError, match="no tracker 'comet'"):
        tracker("comet")


def test_the_command_line_offers_every_tracker() -> None:
    (option,) = [p for p in cli.commands["run"].params if p.name == "trackers"]
    assert set(option.type.choices) == set(trackers.TRACKERS)  # type: ignore[attr-defined]
    done = CliRunner().invoke(cli, ["run", "--tracker", "comet"])
    assert done.exit_code == 2
