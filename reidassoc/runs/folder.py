"""The run folder: everything that a row of a table can be traced to. Every file in it appears whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shlex
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reidassoc.data.file_lock import locked
from reidassoc.errors import DataError
from reidassoc.evaluation.queries import QueryScores, save_scores
from reidassoc.files.paths import refuse_no_run
from reidassoc.recipe.load import load_recipe
from reidassoc.recipe.model import Recipe
from reidassoc.registry.spec import Spec, folders_of
from reidassoc.types import Targets

METRICS = "metrics.jsonl"
ENVIRONMENT = "environment.json"
SETTINGS = "settings.json"  # what is of this run and this machine, not of the recipe
IMPORTED = "imported.json"  # of a run folder made from a released checkpoint: which one
SCORES = "queries.npz"
KEPT = 2  # checkpoints: the newest may be the one that a crash spoils
CHECKPOINT = re.compile(r"epoch_\d+\.pt")
UNFINISHED = ".part"  # ending of a file that is being written


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @staticmethod
    def free(path: Path) -> RunFolder:
        """A folder for a new run, not made yet; DataError if it holds something already."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            quoted = shlex.quote(str(path))
            raise DataError(f"{path} exists already; choose another --out, or continue that run with --resume {quoted}")
        return RunFolder(path)

    def create(self, recipe: Recipe, *, pictures: bool = True) -> None:
        """Make the folder; DataError if it can't be written, FolderTaken if another process was faster."""
        try:
            (self.path / "checkpoints").mkdir(parents=True)
            (self.path / "labels").mkdir()
        except FileExistsError as error:
            if not self.path.exists():  # a link in its place, or above it, leads nowhere
                raise DataError(f"can't make the run folder {self.path}: {error.filename} leads nowhere") from None
            raise FolderTaken(f"{self.path} was taken by another run just now; choose another --out") from error
        except OSError as error:
            raise DataError(f"can't make the run folder {self.path}: {error.strerror}; choose another --out") from None
        self.write_settings(recipe, pictures=pictures)
        self.write_text("recipe.yaml", recipe.to_yaml())

    @staticmethod
    def open(path: Path) -> RunFolder:
        """Open a run folder made earlier; CheckpointError if it is none."""
        refuse_no_run(path)
        return RunFolder(path)

    @property
    def recipe(self) -> Recipe:
        return load_recipe(str(self.path / "recipe.yaml"))

    def write_settings(self, recipe: Recipe, *, pictures: bool = True) -> None:
        """Keep where a recipe's data lie, from the root of the file system, and whether the run may keep pictures."""
        self.write_json(SETTINGS, {"dataset": str(recipe.dataset.with_absolute_roots()), "pictures": pictures})

    def read_json(self, name: str) -> dict[str, Any]:
        """What ``write_json`` kept under a name; empty if there is nothing, or nothing that can be read."""
        try:
            found = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def pictures(self) -> bool:
        """Whether the run keeps pictures: whoever began it without any does not get them by resuming it."""
        return self.read_json(SETTINGS).get("pictures") is not False

    @property
    def dataset(self) -> Spec:
        """The dataset's spec with the folder that it was in as the run began, wherever that is looked at from."""
        stored = self.read_json(SETTINGS).get("dataset")
        return Spec.parse(stored) if isinstance(stored, str) else self.recipe.dataset

    def located_recipe(self, root: str | Path | None = None) -> Recipe:
        """The recipe with the folder of its data: a given one, else that of the run's beginning.

        Raises:
            DataError: the latter is not there.
        """
        dataset = self.dataset if root is None else self.dataset.with_options(root=root)
        if root is None:
            self.refuse_missing(dataset)
        return self.recipe.model_copy(update={"dataset": dataset})

    def refuse_missing(self, dataset: Spec) -> None:
        """Raise DataError if a folder of the run's data is not there."""

        def looked_at(key: str, place: str) -> str:
            missing = [str(path) for path in folders_of(place) if not path.exists()] if key == "root" else []
            if missing:
                raise DataError(
                    f"{self.path}: its data were in {' and '.join(missing)}, where nothing is now; give --data FOLDER (root=… "
                    "in Python), the one that they are in"
                )
            return place

        dataset.with_places(looked_at)

    def write_text(self, name: str, text: str) -> None:
        with self.replacing(name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """Yield a temporary path that takes the place of ``name`` once it is written whole."""
        final = self.path / name
        with said(final):
            temporary = final.with_name(f".{final.name}.{secrets.token_hex(4)}{UNFINISHED}")
            temporary.touch(exist_ok=False)
            try:
                yield temporary
                flushed(temporary)
                os.replace(temporary, final)
                flushed(final.parent)
            finally:
                temporary.unlink(missing_ok=True)

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add one epoch's row to metrics.jsonl, and have it on the disk: the checkpoint that makes it count comes next."""
        with said(self.path / METRICS), open(self.path / METRICS, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows written so far; a last line that a crash cut off is left out."""
        path = self.path / METRICS
        rows: list[dict[str, Any]] = []
        # A line may be cut off within a character, and other ends of lines than \n may stand in a text.
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def forget_from(self, epoch: int) -> None:
        """Drop the rows of an epoch that is to be repeated, and of all later ones."""
        rows = [row for row in self.metrics if row["epoch"] < epoch]
        self.write_text(METRICS, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def write_labels(self, epoch: int, targets: Targets) -> None:
        """Keep the hard labels of an epoch, named as ``associate`` names them."""
        columns = {}
        for (modality, space), labels in targets.table.items():
            kind = {str(modality): "own", str(modality.other): "cross"}.get(space, space)
            columns[f"{kind}_{modality}"] = labels.hard.cpu().numpy()
        with self.replacing(labels_name(epoch)) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **columns)  # type: ignore[arg-type]

    def write_scores(self, scores: Mapping[str, QueryScores]) -> None:
        """Keep how each query fared in the last epoch, for paired tests between runs."""
        with self.replacing(SCORES) as temporary:
            save_scores(temporary, scores)

    def checkpoints(self) -> list[Path]:
        """The checkpoints, newest first."""
        return sorted(
            (path for path in (self.path / "checkpoints").glob("epoch_*.pt") if CHECKPOINT.fullmatch(path.name)),
            key=epoch_of,
            reverse=True,
        )

    def prune(self, kept: int = KEPT) -> None:
        """Delete all checkpoints but the newest ``kept``."""
        for old in self.checkpoints()[max(kept, 1) :]:
            old.unlink(missing_ok=True)

    @property
    def begun(self) -> bool:
        """Whether there is something to go on with: a run that was killed before its first checkpoint has nothing."""
        return (self.path / "recipe.yaml").is_file() and bool(self.checkpoints() or self.metrics)

    def sweep(self) -> None:
        """Delete what a process that was killed had half written; for the one that holds the folder."""
        for left in self.path.rglob(f".*{UNFINISHED}"):
            left.unlink(missing_ok=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from running into this folder, until the block or this process ends, however it ends.

        Raises:
            DataError: another process does already. Where the file system has no locks, nobody is kept out.
        """
        with ExitStack() as stack:
            with said(self.path):
                mine = stack.enter_context(locked(self.path / "recipe.yaml", without=True))
            if not mine:
                raise DataError(
                    f"{self.path} is in use: another process runs into it; wait for that one, or choose another --out"
                )
            yield


def labels_name(epoch: int) -> str:
    """The file in a run folder that keeps the hard labels of an epoch, if they were kept."""
    return f"labels/epoch_{epoch:03d}.npz"


class FolderTaken(DataError):
    """A run folder that was free a moment ago is not any more."""


def epoch_of(path: Path) -> int:
    """The epoch that a checkpoint starts, by its name."""
    return int(path.stem.removeprefix("epoch_"))


def flushed(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if not path.is_dir():  # some file systems can't flush a folder
            raise error
    finally:
        os.close(handle)


@contextmanager
def said(path: Path) -> Iterator[None]:
    """Turn a failure to write into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DataError(f"no disk space left for {path}; free some and go on with --resume") from None
        raise DataError(f"can't write {path}: {error.strerror or error}") from None
