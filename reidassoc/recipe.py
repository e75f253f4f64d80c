"""A recipe: every choice of a run, as text. It is composed once, checked as a whole, and only objects go further down.

A recipe names a dataset, a network, a clusterer, and stages; a stage names an associator (or none), refiners and
objectives, each with options and, where several losses are added, a weight: ``0.5 * gpcr(k=30)``.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PositiveInt,
    ValidationError,
    field_validator,
)

from reidassoc.entrypoints import installed
from reidassoc.errors import RecipeError, SpecError, nearest_file, nearest_name
from reidassoc.faults import first_fault, in_words, unknown_key
from reidassoc.inheritance import extended, members
from reidassoc.spec import Spec
from reidassoc.yaml_text import read_yaml

if TYPE_CHECKING:
    from importlib.abc import Traversable  # moved to importlib.resources.abc in Python 3.11

RECIPE_GROUP = "reidassoc.recipes"


def to_spec(value: Any) -> Spec:
    return value if isinstance(value, Spec) else Spec.parse(str(value))


SpecText = Annotated[Any, BeforeValidator(to_spec), PlainSerializer(str)]


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)


class Part(Model):
    """A refiner or an objective with the weight of its losses; as text ``0.5 * gpcr(k=30)``."""

    use: SpecText
    weight: float = Field(1.0, ge=0)

    @staticmethod
    def parse(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        weighted = re.fullmatch(r"\s*([0-9.eE+-]+)\s*\*\s*(.+)", value)
        return {"use": weighted[2], "weight": float(weighted[1])} if weighted else {"use": value}

    def __str__(self) -> str:
        if self.weight == 1.0:
            return str(self.use)
        short = f"{self.weight:g}"
        return f"{short if float(short) == self.weight else repr(self.weight)} * {self.use}"


PartText = Annotated[Part, BeforeValidator(Part.parse), PlainSerializer(str)]


class Optimiser(Model):
    """How weights are updated. Milestones count epochs of the whole run; warm-up counts steps of the stage."""

    name: Literal["adam", "sgd"] = "adam"
    learning_rate: float = Field(3.5e-4, gt=0)
    weight_decay: float = Field(5e-4, ge=0)
    milestones: tuple[int, ...] = ()
    gamma: float = Field(0.1, gt=0, le=1)
    warmup_steps: int = Field(0, ge=0)
    network_rate: float = Field(1.0, gt=0, description="factor of the network's rate; objectives' own modules have 1")


class Augmentation(Model):
    """Training augmentation, in the order in which it is applied; each number is a probability unless it says otherwise."""

    pad: int = Field(10, ge=0, description="pixels added on each side before the random crop")
    flip: float = Field(0.5, ge=0, le=1)
    jitter: float = Field(0.0, ge=0, le=1, description="strength of brightness, contrast, saturation, hue changes")
    jitter_visible: bool = Field(True, description="whether the plain visible stream is jittered too")
    intensity: float = Field(0.0, ge=0, le=1, description="random intensity transform on a rectangle")
    erase: float = Field(0.5, ge=0, le=1, description="random erasing")


class Stage(Model):
    """Epochs that train in one way."""

    name: str
    epochs: int = Field(ge=1)
    iterations: int = Field(ge=1, description="steps per epoch")
    identities: int = Field(ge=1, description="P, pseudo-identities per modality in a batch")
    images: int = Field(ge=1, description="K, images per pseudo-identity")
    associator: SpecText | None = None
    refiners: tuple[PartText, ...] = ()
    objectives: tuple[PartText, ...] = Field(min_length=1)
    relabel: Literal["every_epoch", "once"] = "every_epoch"
    optimiser: Optimiser | None = Field(None, description="none: the last stage's optimiser goes on")
    augmentation: Augmentation = Augmentation()


class Recipe(Model):
    """Everything that decides a run's result, but the machine."""

    name: str
    reference: str = ""
    dataset: SpecText
    network: SpecText
    clusterer: SpecText
    size: tuple[PositiveInt, PositiveInt] = Field(description="image height and width in pixels")
    stages: tuple[Stage, ...] = Field(min_length=1)
    seed: int = Field(0, ge=0)
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    oracle: bool = Field(
        False, description="true identities may be given to clusterer and associator; flagged in every result"
    )
    batch_norm_gpus: int = Field(1, ge=1, description="GPU count that the published numbers belong to")
    as_gpus: int = Field(1, ge=1, description="GPUs whose DataParallel batch norm is imitated; 1 = joint statistics")
    batch_norm: Literal["sync", "rank"] = Field(
        "sync", description="on several devices: statistics of the whole batch, or left to each device"
    )
    on_nan: Literal["stop", "skip"] = Field(
        "stop", description="what a step whose loss is not finite does to the run; it never changes the network"
    )
    evaluate_every: int = Field(1, ge=0, description="epochs between evaluations; 0 = after the last one only")
    extract_batch: int = Field(256, ge=1)
    channels_last: bool = Field(False, description="lay the network's weights out channel by channel within a pixel")
    compile: bool = Field(False, description="let torch.compile translate the network; takes a C++ compiler")
    ema: float = Field(
        0.0, ge=0, lt=1, description="decay of averaged weights, whose features are clustered and evaluated; 0 = none"
    )
    memory_limit: float | None = Field(
        None, gt=0, description="GiB that one dense array of the label stage may take; none = 2"
    )

    @field_validator("stages")
    @classmethod
    def told_apart(cls, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        """Stages are changed by their names: no two may have the same."""
        names = [stage.name for stage in stages]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two stages are called '{twice[0]}'; give one of them another name")
        return stages

    @property
    def epochs(self) -> int:
        return sum(stage.epochs for stage in self.stages)

    def stage_at(self, epoch: int) -> tuple[Stage, int]:
        """The stage of an epoch, and the epoch's number within it."""
        for stage in self.stages:
            if epoch < stage.epochs:
                return stage, epoch
            epoch -= stage.epochs
        raise IndexError("epoch beyond the last stage")

    def to_yaml(self) -> str:
        return dumped(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        """A short hash of all that decides the result. Where the data lie does not: results name them by a fingerprint."""
        return sha256(dumped(decisive(self.model_dump(mode="json"))).encode()).hexdigest()[:16]

    def prefix_digest(self, epochs: int) -> str:
        """A short hash of all that decides the first ``epochs`` epochs: recipes that agree in it reach the same state.

        What later stages do, and what the recipe is called, has no part in it. A run's last epoch is evaluated whatever
        ``evaluate_every`` says, so only ``epochs`` below its total are shared.

        Raises:
            ValueError: the run is not longer than that.
        """
        if not 0 < epochs < self.epochs:
            raise ValueError(f"a shared start must be shorter than the run's {self.epochs} epochs, got {epochs}")
        data = decisive(self.model_dump(mode="json", exclude={"name", "reference", "stages", "oracle"}))
        left, begun = epochs, []
        for stage in self.stages:
            if left > 0:
                begun.append({**stage.model_dump(mode="json"), "epochs": min(left, stage.epochs)})
                left -= stage.epochs
        text = json.dumps({**data, "begun": begun, "epochs": epochs}, sort_keys=True)
        return sha256(text.encode()).hexdigest()[:16]


LATER = {
    "as_gpus": 1,
    "batch_norm": "sync",
    "channels_last": False,
    "compile": False,
    "ema": 0.0,
    "memory_limit": None,
}  # keys that recipes did not always have, and what they meant by leaving them out


def decisive(data: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's content without the folders of its data, and without later keys that say nothing: hashes of older runs hold."""
    known = {key: value for key, value in data.items() if key not in LATER or value != LATER[key]}
    return {**known, "dataset": str(Spec.parse(data["dataset"]).without_roots())}


def dumped(data: Mapping[str, Any]) -> str:
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)


def parse_recipe(data: Any, where: str, told: Callable[[str], str] = lambda place: "") -> Recipe:
    """Check a mapping as read from YAML; RecipeError names the first fault.

    Args:
        where: what is read, for the error.
        told: by whose words a value came to its place, such as ``--set cross.epochs=-3``; empty where it stands in ``where``.
    """
    if not isinstance(data, Mapping):
        raise RecipeError(f"{where}: expected a mapping with the keys {', '.join(Recipe.model_fields)}")
    try:
        return Recipe.model_validate(dict(data))
    except ValidationError as error:
        fault = first_fault(error)
        place = ".".join(steps_of(fault["loc"], data))
        if fault["type"] == "extra_forbidden":
            known = {name for model in (Recipe, Stage, Optimiser, Augmentation) for name in model.model_fields}
            raise RecipeError(f"{where}: {unknown_key(fault['loc'][-1], place, known)}") from None
        said = told(place)
        raise RecipeError(in_words(fault, said) if said else f"{where}: {in_words(fault, place)}") from None
    except SpecError as error:
        raise RecipeError(f"{where}: {error}") from None


def steps_of(place: Sequence[str | int], data: Mapping[str, Any]) -> list[str]:
    """A place in a recipe as one writes it: a stage goes by its name, not its number."""
    steps = [str(step) for step in place]
    if len(place) > 1 and place[0] == "stages" and isinstance(place[1], int):
        stage = data["stages"][place[1]]
        steps[1] = str(stage["name"]) if isinstance(stage, Mapping) and stage.get("name") else steps[1]
    return steps


def load_recipe(name: str) -> Recipe:
    """Load a recipe that ships under a name such as ``mult/synthetic``, or from a YAML file.

    Raises:
        RecipeError: there is none, or it does not hold what a recipe must.
    """
    data = read(name)
    if isinstance(data, Mapping) and "extends" in data:
        parent, data = parent_of(name, data)
        data = extended(read(parent), data, where=name, of=parent)
    return parse_recipe(data, name)


def parent_of(name: str, data: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The recipe that another one extends, and the latter with its name if it is of a family."""
    parent = data["extends"]
    if isinstance(parent, list) and name in (family := members(name.partition("/")[0], parent)):
        return family[name], {**data, "name": name}
    if not isinstance(parent, str):
        raise RecipeError(f"{name}: extends must be one recipe's name or file, such as mult/synthetic, got {parent!r}")
    if is_file(parent) and is_file(name):  # beside the file that names it
        parent = str(Path(name).expanduser().parent / Path(parent).expanduser())
    return parent, data


def is_file(name: str) -> bool:
    return Path(name).suffix in {".yaml", ".yml"}


def read(name: str) -> Any:
    """What the YAML of a recipe says; RecipeError if there is none."""
    path = Path(name).expanduser()
    if is_file(name):
        if not path.is_file():
            meant = nearest_file(path, ".yaml", ".yml")
            raise RecipeError(f"no recipe file {path}{meant}; shipped recipes: {', '.join(shipped_recipes())}")
        text = path.read_text(encoding="utf-8", errors="replace")
    else:
        shipped = shipped_recipes()
        if name not in shipped:
            if family := [other for other in shipped if other.startswith(f"{name}/")]:
                raise RecipeError(f"no recipe '{name}'; there are: {', '.join(family)}")
            listed = ", ".join(shipped)
            raise RecipeError(
                f"no recipe '{name}'{nearest_name(name, shipped)}; shipped: {listed}; or name a .yaml file"
            )
        text = shipped[name].read_text(encoding="utf-8")
    return read_yaml(text, name)


def shipped_recipes() -> dict[str, Traversable]:
    """All recipes that installed packages ship, as ``method/dataset``; a family's file stands for several.

    A package whose recipes can't be listed is left out, with a warning.
    """
    families: dict[str, Traversable] = {}
    found: dict[str, Traversable] = {}
    for point in sorted(installed(RECIPE_GROUP), key=lambda point: point.name, reverse=True):
        try:
            folders = list(files(point.value).iterdir())
        except Exception as error:  # a stranger's package may fail in any way; it breaks only itself
            warnings.warn(
                f"the recipes of {point.value} can't be listed: {type(error).__name__}: {error}", stacklevel=2
            )
            continue
        for folder in folders:
            if folder.name.endswith(".yaml"):
                families |= dict.fromkeys(members(folder.name.removesuffix(".yaml"), parents_in(folder)), folder)
            elif folder.is_dir():
                for file in folder.iterdir():
                    if file.name.endswith(".yaml"):
                        found[f"{folder.name}/{file.name.removesuffix('.yaml')}"] = file
    return dict(sorted({**families, **found}.items()))


def parents_in(file: Traversable) -> list[str]:
    """The recipes that a family extends; none if the file is no family: a stranger's package breaks only itself."""
    try:
        data = read_yaml(file.read_text(encoding="utf-8"), file.name)
    except (RecipeError, ValueError):
        return []
    parents = data.get("extends") if isinstance(data, Mapping) else None
    return [str(parent) for parent in parents] if isinstance(parents, list) else []
