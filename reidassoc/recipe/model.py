"""A recipe: every choice of a run, as text. It is composed once, checked as a whole, and only objects go further down.

A recipe names a dataset, a network, a clusterer, and stages; a stage names an associator (or none), refiners and
objectives, each with options and, where several losses are added, a weight: ``0.5 * gpcr(k=30)``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PositiveInt,
    field_validator,
)

from reidassoc.registry.spec import Spec

if TYPE_CHECKING:
    pass  # moved to importlib.resources.abc in Python 3.11


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
