"""The grid of a benchmark: methods × overrides × datasets × seeds, read from a YAML file and checked before anything runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import reidassoc.registry as registry
from reidassoc.errors import RecipeError, ReidassocError, nearest_name
from reidassoc.files.paths import refuse_no_grid
from reidassoc.recipe.choose import choose
from reidassoc.recipe.code_version import check_parts, code, sources, start_name
from reidassoc.recipe.compose import compose
from reidassoc.recipe.model import Recipe
from reidassoc.recipe.validation_messages import first_fault, in_words, unknown_key
from reidassoc.recipe.yaml_reader import read_yaml
from reidassoc.registry.entry import hash_of
from reidassoc.registry.options import REQUIRED, options_of
from reidassoc.registry.spec import Spec

Changes = dict[str, Any]


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Variant(Model):
    """One method: the recipe it starts from, and what is exchanged in it; the words are those of ``reidassoc run``."""

    recipe: str | None = None
    associator: str | None = None
    clusterer: str | None = None
    refiners: tuple[str, ...] = ()
    objectives: tuple[str, ...] = ()
    network: str | None = None
    weights: str | None = None
    oracle: bool = False
    set: Changes = Field(default_factory=dict, description="changes as of --set: {path: value}")


class Grid(Model):
    """A benchmark's YAML file."""

    name: str = Field(pattern=r"^\w[\w.-]*$", description="of the results folder")
    title: str = ""
    methods: dict[str, Variant | None] = Field(min_length=1, description="the table's rows, in order")
    recipe: str | None = Field(None, description="what methods start from that name no recipe of their own")
    datasets: tuple[str, ...] = Field((), description="none: the recipes' own")
    overrides: dict[str, Changes | None] = Field(
        default_factory=dict, description="each method is run with each of them"
    )
    set: Changes = Field(default_factory=dict, description="changes to every run")
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)
    protocol: str | None = Field(None, description="of the table; none: the first one")
    plugins: tuple[str, ...] = Field((), description="Python files with plug-ins, relative to this file")


@dataclass(frozen=True)
class Cell:
    """One run of the grid.

    Args:
        method: the row's name, with the override if there are several.
        dataset: its spec.
        recipe: complete, with the seed.
    """

    method: str
    dataset: str
    recipe: Recipe

    @property
    def seed(self) -> int:
        return self.recipe.seed

    @cached_property
    def id(self) -> str:
        """The run's name: the digest of all that decides its result, of files with plug-ins what they hold, and the seed."""
        return f"{self.recipe.digest}{code(self.recipe)}-s{self.seed}"


@dataclass(frozen=True)
class Plan:
    """All cells of a grid, in the order in which they are run: seed by seed, each with all methods.

    Args:
        text_hash: of the spec's text as it was read.
    """

    grid: Grid
    cells: tuple[Cell, ...]
    plugins: tuple[Path, ...] = ()
    text_hash: str = ""

    @cached_property
    def runs(self) -> tuple[Cell, ...]:
        """The cells without those whose run is another one's: an override may change nothing in some method."""
        first: dict[str, Cell] = {}
        for cell in self.cells:
            first.setdefault(cell.id, cell)
        return tuple(first.values())

    @cached_property
    def digest(self) -> str:
        """Of the names of all runs, and so of all that decides what they are."""
        return sha256(" ".join(cell.id for cell in self.runs).encode()).hexdigest()[:16]

    def starts(self, cell: Cell) -> tuple[int, ...]:
        """Epochs at whose end the cell's run is in the same state as another one's, ascending."""
        return self._starts[cell.id]

    def edited(self, spec: Path) -> list[str]:
        """Names of the files, the spec's and those of its plug-ins, whose text is no longer the one that was read."""
        read = {str(spec): self.text_hash}
        for cell in self.runs:
            read |= sources(cell.recipe)
        return [Path(path).name for path, text_hash in read.items() if hash_of(Path(path)) != text_hash]

    def check_protocol(self) -> None:
        """Make sure that a dataset of the grid has the protocol that the table is to show.

        Raises:
            RecipeError: none has it.
            DataError: a dataset can't be read.
        """
        wanted = self.grid.protocol
        specs = {str(cell.recipe.dataset): cell.recipe.dataset for cell in self.runs}
        datasets = [registry.build("datasets", spec) for spec in (specs.values() if wanted else ())]
        known = dict.fromkeys(trial.protocol for dataset in datasets for trial in dataset.trials())
        if wanted and wanted not in known:
            raise RecipeError(
                f"{self.grid.name}: no protocol '{wanted}'{nearest_name(wanted, known)}; protocols: {', '.join(known)}"
            )

    @cached_property
    def _starts(self) -> dict[str, tuple[int, ...]]:
        return shared_starts({cell.id: cell.recipe for cell in self.cells})


def shared_starts(recipes: Mapping[str, Recipe]) -> dict[str, tuple[int, ...]]:
    """For each run the stage ends up to which its recipe agrees with another run's."""
    ends: set[int] = set()
    for recipe in recipes.values():
        total = 0
        for stage in recipe.stages[:-1]:
            total += stage.epochs
            ends.add(total)
    digests = {
        name: {end: start_name(recipe, end) for end in sorted(ends) if end < recipe.epochs}
        for name, recipe in recipes.items()
    }
    count = Counter(digest for known in digests.values() for digest in known.values())
    return {name: tuple(end for end, digest in known.items() if count[digest] > 1) for name, known in digests.items()}


def read_grid(path: Path) -> Grid:
    """Read a spec file.

    Raises:
        RecipeError: it is no YAML or not what a grid must be; the first fault is named.
    """
    refuse_no_grid(path)
    data = read_yaml(path.read_text(encoding="utf-8", errors="replace"), str(path))
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: expected a mapping with the keys {', '.join(Grid.model_fields)}")
    try:
        return Grid.model_validate(data)
    except ValidationError as error:
        fault = first_fault(error)
        place = ".".join(str(step) for step in fault["loc"])
        if fault["type"] == "extra_forbidden":
            known = list(Variant.model_fields if "." in place else Grid.model_fields)
            raise RecipeError(f"{path}: {unknown_key(fault['loc'][-1], place, known, listed=True)}") from None
        if fault["type"] == "too_short":
            raise RecipeError(f"{path}: '{place}' is empty, so the grid holds no run; name at least one") from None
        raise RecipeError(f"{path}: {in_words(fault, place)}") from None


def read_plan(
    path: str | Path, *, roots: Mapping[str, str] | None = None, seeds: Sequence[int] = (), composed: bool = True
) -> Plan:
    """Read a spec, make every recipe of it, and compose each: whatever is wrong shows here.

    Args:
        path: the YAML file.
        roots: folder of each dataset that is kept on disk, by the dataset's name; "" stands for any of them.
        seeds: in place of the spec's.
        composed: False checks names, options, ranges and files alone, without importing torch for plug-ins of ours.

    Raises:
        ReidassocError: the spec, a plug-in, an option or a change is wrong; the message names the cell.
    """
    path = Path(path)
    text_hash = hash_of(path)  # before it is read: an edit in between is noticed rather than missed
    grid = read_grid(path)
    plugins = tuple((path.parent / name).resolve() for name in grid.plugins)
    for file in plugins:
        registry.load_file(str(file))
    for name in filter(None, roots or {}):
        registry.find("datasets", name, outlined=True)
    first = [
        one_cell(path, grid, method, dataset, change, roots or {}, compose if composed else check_parts)
        for dataset in dict.fromkeys(grid.datasets or (None,))
        for method in grid.methods
        for change in grid.overrides or {"": None}
    ]
    refuse_datasets_alike(path, [cell.recipe.dataset for cell in first])
    cells = [
        replace(cell, recipe=cell.recipe.model_copy(update={"seed": seed}))
        for seed in dict.fromkeys(seeds or grid.seeds)
        for cell in first
    ]
    return Plan(grid, tuple(cells), plugins, text_hash)


def refuse_datasets_alike(path: Path, datasets: Iterable[Spec]) -> None:
    """Raise RecipeError for two datasets that differ in their folders alone: neither runs nor tables tell them apart."""
    named: dict[str, Spec] = {}
    for dataset in datasets:
        other = named.setdefault(str(dataset.without_roots()), dataset)
        if other != dataset:
            raise RecipeError(
                f"{path}: {other} and {dataset} differ in their folders alone, and would be one dataset in the table; "
                "make two benchmarks of them"
            )


def read_same_plan(path: str | Path, digest: str, *, roots: Mapping[str, str], seeds: Sequence[int]) -> Plan:
    """The plan that somebody else reads from this spec: for the processes that work on it.

    Raises:
        RecipeError: it is no longer the one of that digest.
    """
    plan = read_plan(path, roots=roots, seeds=seeds)
    if plan.digest != digest:
        edited = " or ".join([Path(path).name, *(file.name for file in plan.plugins)])
        raise RecipeError(f"{edited} was edited since the benchmark was started; stop it, and start it again")
    return plan


def one_cell(
    path: Path,
    grid: Grid,
    method: str,
    dataset: str | None,
    change: str,
    roots: Mapping[str, str],
    check: Callable[[Recipe], object],
) -> Cell:
    """The cell of the recipe's own seed, checked."""
    variant = grid.methods[method] or Variant()
    name = f"{method}, {change}" if change else method
    changes = {**grid.set, **variant.set, **((grid.overrides.get(change) or {}) if change else {})}
    try:
        recipe = choose(
            recipe=variant.recipe or grid.recipe, dataset=dataset, clusterer=variant.clusterer,
            associator=variant.associator, refiners=variant.refiners, objectives=variant.objectives,
            network=variant.network, weights=variant.weights, oracle=variant.oracle, changes=list(changes.items()),
        )  # fmt: skip
        recipe = rooted(recipe, roots)
        check(recipe)
    except ReidassocError as error:
        raise type(error)(f"{path}: method '{name}': {error}") from None
    return Cell(name, str(recipe.dataset.without_roots()), recipe)


def named_roots(texts: Iterable[str]) -> dict[str, str]:
    """``DATASET=ROOT``, or a ``ROOT`` for any dataset, as a mapping; the name of a folder may hold equals signs.

    >>> named_roots(["regdb=/data/a=b", "/data/a=b"])
    {'regdb': '/data/a=b', '': '/data/a=b'}
    """
    found = {}
    for text in texts:
        name, equals, root = text.partition("=")
        found.update({name: root} if equals and name.isidentifier() else {"": text})
    return found


def rooted(recipe: Recipe, roots: Mapping[str, str]) -> Recipe:
    """The recipe with the folder of its dataset filled in, where it needs one and one is given."""
    root = roots.get(recipe.dataset.name, roots.get(""))
    known = {option.name: option for option in options_of(registry.get("datasets", recipe.dataset.name, outlined=True))}
    if "root" not in known or "root" in recipe.dataset.options:
        return recipe
    if root is None and known["root"].default != REQUIRED:
        return recipe  # a union of what is drawn, or whose members say their roots
    if root is None:
        name = recipe.dataset.name
        raise RecipeError(f"dataset {name} is kept on disk: say where, as in --data {name}=ROOT")
    return recipe.model_copy(update={"dataset": recipe.dataset.with_options(root=root)})
