"""Where figures go besides the run folder: TensorBoard, Weights & Biases, MLflow. Each is an observer, and optional."""

from __future__ import annotations

import os
import secrets
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from reidassoc.errors import ReidassocError
from reidassoc.recipe.configuration import method_digest
from reidassoc.registry.extras import needed
from reidassoc.runs.folder import RunFolder
from reidassoc.runs.observer import Observer
from reidassoc.runs.result import Result

PROJECT = "reidassoc"


def scalars(row: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a row of ``metrics.jsonl`` by path; of a mean with its deviation, the mean.

    >>> row = {"epoch": 3, "losses": {"loss": 1.5}, "retrieval": {"all": {"mAP": {"mean": 9.0, "std": 1.0}}}}
    >>> dict(scalars(row))
    {'losses/loss': 1.5, 'retrieval/all/mAP': 9.0}
    """
    for key, value in row.items():
        path = f"{name}/{key}" if name else key
        if isinstance(value, Mapping):
            if set(value) == {"mean", "std"}:
                if value["mean"] is not None:  # some query has a match
                    yield path, float(value["mean"])
            else:
                yield from scalars(value, path)
        elif name and isinstance(value, (int, float)):
            yield path, float(value)


class TensorBoard(Observer):
    """Writes event files into the folder ``tensorboard`` of the run folder."""

    def __init__(self) -> None:
        self.module = needed("torch.utils.tensorboard", "tensorboard", by="--tracker tensorboard")
        self.writer: Any = None
        self.folder: Path | None = None

    def start(self, folder: Path) -> None:
        self.folder = folder

    def report(self, row: Mapping[str, Any]) -> None:
        if self.writer is None and self.folder is not None:
            # What an interrupted run wrote of this epoch and later ones is hidden.
            self.writer = self.module.SummaryWriter(self.folder / "tensorboard", purge_step=row["epoch"])
            self.writer.add_text("recipe", f"```yaml\n{(self.folder / 'recipe.yaml').read_text(encoding='utf-8')}\n```")
        for name, value in scalars(row):
            self.writer.add_scalar(name, value, row["epoch"])
        self.writer.flush()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


class WandB(Observer):
    """Logs to Weights & Biases by its environment variables; files lie in the run folder."""

    def __init__(self) -> None:
        self.module = needed("wandb", "wandb", by="--tracker wandb")
        self.run: Any = None
        self.ended = False

    def start(self, folder: Path) -> None:
        recipe = RunFolder(folder).recipe
        self.run = self.module.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.name,
            group=method_digest(recipe),
            dir=str(folder),
            id=remembered(folder, "wandb", lambda: secrets.token_hex(4)),
            resume="allow",
            config=recipe.model_dump(mode="json"),
        )

    def report(self, row: Mapping[str, Any]) -> None:
        self.run.log(dict(scalars(row)), step=row["epoch"])

    def finish(self, result: Result) -> None:
        self.ended = True
        self.run.summary.update({"digest": result.data["digest"], "flags": list(result.data["flags"])})

    def close(self) -> None:
        if self.run is not None:
            self.run.finish(exit_code=0 if self.ended else 1)
            self.run = None


class MLflow(Observer):
    """Logs to MLflow by its environment variables."""

    def __init__(self) -> None:
        self.module = needed("mlflow", "mlflow", by="--tracker mlflow")
        self.client: Any = None
        self.run_id = ""
        self.status = "FAILED"

    def start(self, folder: Path) -> None:
        recipe = RunFolder(folder).recipe
        self.client = self.module.MlflowClient()
        self.run_id = remembered(folder, "mlflow", lambda: self.create(folder.name))
        self.client.update_run(self.run_id, status="RUNNING")
        for name in ("dataset", "network", "clusterer", "seed"):
            self.client.log_param(self.run_id, name, str(getattr(recipe, name)))
        for stage in recipe.stages:
            self.client.log_param(self.run_id, f"{stage.name}.associator", str(stage.associator))
        self.client.set_tag(self.run_id, "digest", recipe.digest)
        self.client.set_tag(self.run_id, "method", method_digest(recipe))

    def create(self, name: str) -> str:
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self.client.get_experiment_by_name(title)
        experiment = found.experiment_id if found else self.client.create_experiment(title)
        return str(self.client.create_run(experiment, run_name=name).info.run_id)

    def report(self, row: Mapping[str, Any]) -> None:
        for name, value in scalars(row):
            self.client.log_metric(self.run_id, name, value, step=row["epoch"])

    def finish(self, result: Result) -> None:
        self.status = "FINISHED"

    def close(self) -> None:
        if self.client is not None and self.run_id:
            self.client.set_terminated(self.run_id, status=self.status)
            self.client = None


def remembered(folder: Path, name: str, make: Callable[[], object]) -> str:
    """The identifier under which a tracker knows the run; a resumed run goes on under the same."""
    path = folder / f"{name}_id"
    if not path.exists():
        path.write_text(str(make()), encoding="utf-8")
    return path.read_text(encoding="utf-8")


class Careful(Observer):
    """Tells a tracker how the run goes on, as long as that works: its failure must not end hours of training.

    Args:
        name: of the tracker.
        inner: the tracker.
        say: is told, once, why the tracker is told nothing more.
    """

    def __init__(self, name: str, inner: Observer, say: Callable[[str], None]) -> None:
        self.name = name
        self.inner = inner
        self.say = say
        self.lost = False

    def start(self, folder: Path) -> None:
        try:
            self.inner.start(folder)
        except ReidassocError:
            raise
        except Exception as error:  # before any training: who asked for a tracker wants to know
            raise ReidassocError(
                f"tracker {self.name} can't begin: {type(error).__name__}: {error}; "
                f"next: mend that, and go on with: reidassoc run --resume {shlex.quote(str(folder))}, "
                f"with --tracker {self.name} or without"
            ) from error

    def report(self, row: Mapping[str, Any]) -> None:
        self.tell(lambda: self.inner.report(row))

    def finish(self, result: Result) -> None:
        self.tell(lambda: self.inner.finish(result))

    def close(self) -> None:
        self.tell(self.inner.close)

    def tell(self, what: Callable[[], None]) -> None:
        if self.lost:
            return
        try:
            what()
        except Exception as error:
            self.lost = True
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self.say(
                f"tracker {self.name} failed, and is told nothing more of this run: {reason}; metrics.jsonl has it all"
            )


TRACKERS: dict[str, type[Observer]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}


def tracker(name: str, say: Callable[[str], None] = warnings.warn) -> Observer:
    """Make a tracker; if it fails during a run, ``say`` is told so, and the run goes on.

    Raises:
        ReidassocError: there is none of that name, or its package is not installed.
    """
    if name not in TRACKERS:
        raise ReidassocError(f"no tracker '{name}'; there are: {', '.join(TRACKERS)}")
    return Careful(name, TRACKERS[name](), say)
