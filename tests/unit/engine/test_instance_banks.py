"""Instance banks: a row is an image, fed by the images drawn; a bank that doesn't fit its images is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import reidassoc as ra
from reidassoc import registry
from reidassoc.data.loader import plan_feeds
from reidassoc.engine.step import Step
from reidassoc.errors import PluginError
from reidassoc.interfaces.banks import Bank, Banks
from reidassoc.interfaces.batch import Batch
from reidassoc.interfaces.plugins import Objective, Sampling
from reidassoc.interfaces.scene import Scene
from reidassoc.recipe.model import Recipe
from reidassoc.recipe.override import override
from reidassoc.testing import ContractError, check_objective
from reidassoc.types import FEEDERS, Modality, Pair, Targets

MOMENTUM = 0.3


@dataclass(frozen=True, kw_only=True)
class Images(Objective):
    """Pull each image to its own row of a bank of all images; or declare that bank wrongly."""

    sampling: ClassVar[Sampling] = "own"
    wrong: str = ""

    def banks(self, scene: Scene, targets: Targets) -> Sequence[Bank]:
        return [self.bank(modality, scene.features[modality].x) for modality in Modality]

    def bank(self, modality: Modality, start: Tensor) -> Bank:
        space, fed_by, level = str(modality), FEEDERS[modality], "instance"
        if self.wrong == "rows":
            start = start[:-1]
        if self.wrong == "two modalities":
            fed_by = ("infrared", "augmented", "visible")
        if self.wrong == "space":
            space = "shared"
        if self.wrong == "level":
            level = "image"
        return Bank(
            name=f"images.{modality}", space=space, role="instance", start=start, fed_by=fed_by, momentum=MOMENTUM,
            level=level,  # type: ignore[arg-type]
        )  # fmt: skip

    def __call__(self, batch: Batch, banks: Banks) -> Mapping[str, Tensor]:
        pulls = [
            F.cross_entropy(banks[f"images.{view.modality}"].logits(view.feature), view.rows) for view in batch
        ]  # fmt: skip
        return {"pull": torch.stack(pulls).mean()}


WRONG = [
    ("rows", r"bank 'images\.visible': starts from \d+ rows, but there are \d+ visible images"),
    ("two modalities", r"bank 'images\.visible': its rows are visible images, but it is fed by infrared, too"),
    ("space", r"bank 'images\.visible': a row is an image, so its space must be visible or infrared, got 'shared'"),
    ("level", r"bank 'images\.visible': its level must be cluster or instance, got 'image'"),
]


def recipe_of(small: Recipe, spec: str = "images") -> Recipe:
    registry.add("images", Images)
    few = [("intra.epochs", 1), ("cross.epochs", 1), ("evaluate_every", 0), ("cross.refiners", [])]
    return override(small, [*few, ("intra.objectives", [spec]), ("cross.objectives", [spec])])


def test_a_step_feeds_each_image_its_own_row(small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Batch] = []
    losses, call = Step.losses, Step.__call__

    def noting(self: Step, batch: Batch) -> dict[str, Tensor]:
        seen.append(batch)
        return losses(self, batch)

    def compared(self: Step, host: Any) -> Any:
        before = {live.bank.name: live.vectors.double() for live in self.banks}
        answer = call(self, host)
        for modality in Modality:
            wanted = before[f"images.{modality}"].clone()
            for stream in FEEDERS[modality]:
                view = seen[-1][stream]
                for row, feature in zip(view.rows.tolist(), view.feature.detach().double(), strict=True):
                    wanted[row] = F.normalize(MOMENTUM * wanted[row] + (1 - MOMENTUM) * feature, dim=0)
            vectors = self.banks[f"images.{modality}"].vectors
            torch.testing.assert_close(vectors.double(), wanted, rtol=0, atol=2e-6)
            assert 0 < int((vectors.double() != before[f"images.{modality}"]).any(1).sum()) < len(vectors)
        return answer

    monkeypatch.setattr(Step, "losses", noting)
    monkeypatch.setattr(Step, "__call__", compared)
    ra.run(recipe_of(small), out=tmp_path / "run", device="cpu")
    assert len(seen) == 8


@pytest.mark.parametrize(("wrong", "complaint"), WRONG)
def test_a_run_refuses_a_bank_that_does_not_fit(wrong: str, complaint: str, small: Recipe, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=f"objective images: {complaint}"):
        ra.run(recipe_of(small, f"images(wrong='{wrong}')"), out=tmp_path / "run", device="cpu")


@pytest.mark.parametrize(("wrong", "complaint"), WRONG)
def test_check_refuses_what_a_run_refuses(wrong: str, complaint: str) -> None:
    check_objective(Images())
    with pytest.raises(ContractError, match=complaint):
        check_objective(Images(wrong=wrong))


def test_a_stream_without_labels_in_a_bank_s_space_is_refused(small: Recipe, tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Early(Images):
        """Feed a bank of visible clusters by infrared images before there are cross labels."""

        def banks(self, scene: Scene, targets: Targets) -> Sequence[Bank]:
            start = scene.prototypes(targets, "visible")
            return [Bank(name="early", space="visible", role="cross", start=start, fed_by=("infrared",))]

    registry.add("early", Early)
    with pytest.raises(PluginError, match="bank 'early': is fed by infrared, whose images have no labels in its space"):
        ra.run(override(small, [("intra.objectives", ["early"])]), out=tmp_path / "run", device="cpu")


def test_what_is_not_a_bank_is_named(small: Recipe, tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Nothing(Images):
        """Forget to return the banks."""

        def banks(self, scene: Scene, targets: Targets) -> Sequence[Bank]:
            return None  # type: ignore[return-value]

    registry.add("nothing", Nothing)
    with pytest.raises(PluginError, match="objective nothing: banks must return a sequence of Bank, got NoneType"):
        ra.run(override(small, [("intra.objectives", ["nothing"])]), out=tmp_path / "run", device="cpu")


def test_the_plan_of_an_instance_bank_numbers_images() -> None:
    bank = Images().bank(Modality.INFRARED, torch.eye(5))
    rows = Pair(np.array([0]), np.array([4, 1, 4]))
    hard = {(Modality.INFRARED, "infrared"): np.array([-1, 0, 0, 0, -1])}
    plan = plan_feeds([bank], rows, hard, np.random.default_rng(0))[bank.name]
    assert plan.tolist() == [[-1, 0], [1, 2]]  # image 1 once; image 4 twice, in the order drawn
