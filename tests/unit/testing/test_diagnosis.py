"""`reidassoc check` says in plain words what is wrong with a plug-in, and shows the smallest scene where it is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pytest
import torch
from pydantic import Field
from torch import Tensor

from reidassoc import (
    Association,
    Associator,
    Bank,
    Banks,
    Batch,
    Clusters,
    Modality,
    NetworkOutput,
    Pair,
    Scene,
    SoftLabels,
    registry,
)
from reidassoc.data.images import ArrayImages
from reidassoc.errors import PluginError
from reidassoc.interfaces.plugins import Dataset, Network, Objective, Refiner, Sampling
from reidassoc.ops import transport
from reidassoc.ops.assignment import cosine_table, of_samples, rows_of_samples
from reidassoc.ops.neighbours import nearest
from reidassoc.ops.votes import vote
from reidassoc.registry.entry import Entry
from reidassoc.testing import (
    ContractError,
    Toy,
    check_associator,
    check_clusterer,
    check_dataset,
    check_network,
    check_objective,
    check_outliers,
    check_refiner,
)
from reidassoc.testing.check.advice import advice_for
from reidassoc.testing.check.diagnosis import diagnose, smallest
from reidassoc.types import Records, Targets
from reidassoc_plugins.clusterers.dbscan import Dbscan
from reidassoc_plugins.datasets.synthetic import Synthetic
from reidassoc_plugins.networks.tiny import Tiny
from reidassoc_plugins.objectives.amirl import Amirl


@dataclass(frozen=True, kw_only=True)
class Careless(Associator):
    """Nearest centroid without a thought for empty modalities."""

    def __call__(self, scene: Scene) -> Association:
        own = scene.clustering.own

        def cross(modality: Modality) -> SoftLabels:
            similarity = scene.features[modality].x @ own[modality.other].centroids.T
            return SoftLabels.one_hot(similarity.argmax(1), own[modality.other].count)

        return Association(cross=Pair.build(cross))


@dataclass(frozen=True, kw_only=True)
class Picky(Associator):
    """Fails where three visible clusters meet two infrared ones."""

    def __call__(self, scene: Scene) -> Association:
        own = scene.clustering.own
        if own.visible.count >= 3 and own.infrared.count >= 2:
            raise RuntimeError("too many")
        return Association()


def look(cls: type, plugin: Any = None) -> dict[str, list[tuple[str, ...]]]:
    """Details of the findings by verdict."""
    name = cls.__name__.lower()
    found = diagnose(Entry(cls.kind, name, "here", cls), plugin or cls())  # type: ignore[attr-defined]
    by: dict[str, list[tuple[str, ...]]] = {}
    for finding in found.findings:
        by.setdefault(finding.verdict, []).append((finding.text, *finding.details))
    return by


def test_a_failure_is_explained_with_the_smallest_scene() -> None:
    ((text, scene, happened, means, again),) = look(Careless)["fails"]
    assert text.startswith("breaks its contract on 3 of 14 scenes: no_visible")
    assert "0 visible clusters and 0 infrared clusters, 1 image per cluster, 1 outlier per modality" in scene
    assert "argmax()" in happened
    assert f"test_diagnosis.py, line {Careless.__call__.__code__.co_firstlineno + 5}" in happened
    assert "without any cluster is common" in means
    with pytest.raises(ContractError, match="argmax"):  # what it prints to see it again does show it
        check_associator(Careless(), {"smallest": eval(again.partition("'smallest': ")[2].removesuffix("})"))})


@dataclass(frozen=True, kw_only=True)
class Voters(Associator):
    """A newcomer's first try: the eight nearest images of the other modality vote."""

    wrong: str

    def __call__(self, scene: Scene) -> Association:
        def cross(modality: Modality) -> SoftLabels:
            x, clusters = scene.features[modality].x, scene.clustering.own[modality.other]
            similarity, index = nearest(x, scene.features[modality.other].x, 8)
            if self.wrong == "index":  # outliers vote, too
                votes = torch.zeros(len(x), clusters.count).scatter_add(1, clusters.labels[index], similarity.exp())
            else:  # perhaps nobody votes
                votes = vote(clusters.labels[index], clusters.count, similarity.clamp_min(0)).float()
            return SoftLabels(votes / votes.sum(1, keepdim=True))

        return Association(cross=Pair.build(cross))


@pytest.mark.parametrize(("wrong", "advice"), [("index", "the label of an outlier"), ("division", "divided by 0")])
def test_what_a_newcomer_stumbles_over_is_named(wrong: str, advice: str) -> None:
    for finding in look(Voters, Voters(wrong=wrong))["fails"]:
        assert advice in finding[3]


def test_a_tensor_left_on_the_cpu_is_named_even_without_a_gpu() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Elsewhere(Associator):
        """Makes its labels on the CPU."""

        def __call__(self, scene: Scene) -> Association:
            own = scene.clustering.own
            return Association(
                cross=Pair.build(lambda m: SoftLabels(torch.zeros(len(scene.features[m]), own[m.other].count)))
            )

    (finding,) = look(Elsewhere)["fails"]
    assert "GPU" in finding[0]
    assert "prob is on the cpu" in finding[1]
    assert "device=x.device" in finding[2]
    assert "Look for torch.zeros, arange" in finding[2]


def test_every_tensor_left_on_the_cpu_is_named_at_once() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Twofold(Associator):
        """Another fault where a modality has no cluster."""

        def __call__(self, scene: Scene) -> Association:
            own, x = scene.clustering.own, scene.features.visible.x
            if not scene.clustering.usable:
                return Association(
                    cross=Pair.build(lambda m: SoftLabels(torch.zeros(len(scene.features[m]), own[m.other].count)))
                )
            x = x * torch.ones(x.shape[1])
            return Association(
                cross=Pair.build(lambda m: SoftLabels(x.new_zeros(len(scene.features[m]), own[m.other].count)))
            )

    said = [finding[1] for finding in look(Twofold)["fails"]]
    assert len(said) == 2
    assert "in two places" in said[0] or "same device" in said[0]
    assert "prob is on the cpu" in said[1]


def test_a_scene_shrinks_to_where_it_still_fails() -> None:
    toy = smallest(check_associator, Picky(), Toy(clusters=Pair(11, 9), copies=2))
    assert toy == Toy(clusters=Pair(3, 2), samples=1, outliers=0)
    fails = Nearby(wrong="everywhere")  # and no scene without clusters is shown for what is not about them
    assert smallest(check_associator, fails, Toy()) == Toy(clusters=Pair(1, 1), samples=1, outliers=0)


def test_a_healthy_plugin_is_told_so_and_its_symmetries_are_only_noted() -> None:
    assert set(look(registry.get("associators", "nearest"))) == {"ok"}
    notes = look(registry.get("associators", "random"))["note"]
    assert any("which modality is which matters" in note[0] for note in notes)
    assert any("how clusters are numbered matters" in note[0] for note in notes)


def said(found: Mapping[str, list[tuple[str, ...]]]) -> str:
    """Everything that failed, as lines."""
    return "\n".join(line for finding in found["fails"] for line in finding)


def test_a_default_that_its_option_may_not_have_is_a_failure() -> None:
    """Of a type that no text can name, nothing is said; no default is no failure."""

    @dataclass(frozen=True, kw_only=True)
    class Wrong(Associator):
        """Says nothing."""

        needed: int
        low: Annotated[int, Field(ge=1)] = 0
        word: int = "5"  # type: ignore[assignment]
        pydantics: int = Field(default=3, ge=1)
        whole: float = 1
        none: int | None = None
        place: Path = Path()
        names: frozenset[str] = frozenset({"a"})
        toy: Toy = field(default_factory=Toy)
        how: Callable[[float], float] = abs

        def __call__(self, scene: Scene) -> Association:
            return Association()

    ((text, *details),) = look(Wrong, Wrong(needed=1))["fails"]
    assert text == "the default of an option breaks the option's own rule"
    assert [detail.partition(", got")[0] for detail in details] == [
        "the default of low must be int ≥ 1",
        "the default of word must be int",
        "the default of pydantics must be int",
    ]


@pytest.mark.parametrize("field_name", ["cross", "own", "shared"])
@pytest.mark.parametrize("pair", [True, False])
def test_plain_tensors_in_the_place_of_labels_are_named(field_name: str, pair: bool) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Plain(Associator):
        """Numbers of clusters as they are."""

        def __call__(self, scene: Scene) -> Association:
            labels = scene.clustering.own.map(lambda c: c.labels)
            return Association(**{field_name: labels if pair else labels.visible})  # type: ignore[arg-type]

    lines = said(look(Plain))
    if pair:
        assert f"{field_name}: must be SoftLabels, got Tensor" in lines
        assert "what it means: Labels are no plain tensor: SoftLabels.one_hot(labels, count)" in lines
    else:
        assert f"{field_name} must be a Pair, got Tensor" in lines
        assert "Pair(visible, infrared)" in lines


def test_what_needs_no_explanation_has_none() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Bare(Associator):
        """Starts banks from rows of another width."""

        def __call__(self, scene: Scene) -> Association:
            rows = scene.clustering.own.visible.centroids
            return Association(prototypes={"visible": rows[:, 1:]})

    lines = said(look(Bare)).splitlines()
    assert any("prototypes of 'visible' must be" in line for line in lines)
    assert not any(line.startswith("what it means") for line in lines)


def test_a_refiner_hears_of_labels_without_columns() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Sharp(Refiner):
        """The best label alone."""

        def refine(self, scene: Scene, targets: Targets) -> Targets:
            sharp = {
                key: SoftLabels.one_hot(labels.prob.argmax(1), labels.count) for key, labels in targets.table.items()
            }
            return targets.replaced(sharp)

    lines = said(look(Sharp))
    assert "argmax()" in lines
    assert "Give labels back unchanged where labels.count == 0." in lines
    assert "centroids" not in lines


@dataclass(frozen=True, kw_only=True)
class Nearby(Associator):
    """The five nearest images, of which there may be fewer."""

    k: Any = 5
    wrong: str = ""

    def __call__(self, scene: Scene) -> Association:
        if self.wrong:
            raise RuntimeError(self.wrong)
        scene.features.visible.x.sum(1).topk(self.k)
        return Association()


def test_few_samples_explain_errors_of_sizes_alone() -> None:
    few = "With so few samples"
    assert few in said(look(Nearby))
    lines = said(look(Nearby, Nearby(k="5")))
    assert "TypeError" in lines
    assert "a value of another type than it takes" in lines
    assert few not in lines
    assert few not in said(look(Nearby, Nearby(wrong="no luck")))


@dataclass(frozen=True, kw_only=True)
class Mistaken(Associator):
    """Takes one thing for another."""

    wrong: str

    def __call__(self, scene: Scene) -> Any:
        own, graph = scene.clustering.own, scene.affinity(k1=8, k2=4).visible
        count = own.map(lambda clusters: clusters.count)
        other: Any = self.other(scene)
        if self.wrong == "sum":
            graph.sum(1)
        elif self.wrong == "numpy":
            graph.numpy()
        elif self.wrong == "array":
            return Association(cross=Pair.build(lambda m: SoftLabels(np.zeros((3, 2), np.float32))))  # type: ignore[arg-type]
        elif self.wrong == "clusters":
            own.map(lambda c: Clusters(c.labels.numpy(), c.centroids))
        elif self.wrong == "numbers":
            return Association(cross=own.map(lambda c: SoftLabels(c.labels)))
        elif self.wrong == "votes":
            return Association(cross=Pair.build(lambda m: SoftLabels(torch.ones(3, 2).long())))
        elif self.wrong == "row":
            return Association(cross=Pair.build(lambda m: SoftLabels(torch.ones(3))))
        elif self.wrong == "soft table":
            of_samples(own.visible.labels, cosine_table(own.visible.centroids, own.infrared.centroids))
        elif self.wrong == "module":
            transport(own.visible.centroids, own.infrared.centroids)  # type: ignore[operator]
        elif self.wrong == "other's table":
            torch.zeros(count.infrared)[own.visible.labels[own.visible.labels >= 0]]
        elif self.wrong == "shape":
            scene.features.visible.x @ other
        elif self.wrong == "attribute":
            scene.clustring  # type: ignore[attr-defined]  # noqa: B018
        elif self.wrong == "pair":
            return own.map(lambda c: SoftLabels.one_hot(c.labels, c.count))
        elif self.wrong == "space":
            Targets.compose(scene.clustering).of(Modality.VISIBLE, "infrared")
        return None

    def other(self, scene: Scene) -> Tensor:
        return torch.zeros(99, 2, device=scene.features.visible.x.device)


@pytest.mark.parametrize(
    ("wrong", "happened", "advice"),
    [
        ("sum", "reduction operations on CSR", "TransitionMatrix.of_affinity(graph) @ x"),
        ("numpy", "can't convert SparseCsr", "graph.to_dense()"),
        ("array", "has no attribute 'is_floating_point'", "torch.from_numpy(array)"),
        ("clusters", "labels must be (N,) int64, got", "torch.from_numpy(array)"),
        ("numbers", "prob must be (N, K) floating point", "SoftLabels.one_hot(labels, count)"),
        ("votes", "got (3, 2) torch.int64", "divide each row by its sum"),
        ("row", "got (3,) torch.float32", "a column for each cluster"),
        ("soft table", "partner must be (K,)", "rows_of_samples(labels, table)"),
        ("module", "'module' object is not callable", "from reidassoc.ops.transport import transport"),
        ("other's table", "is out of bounds for dimension 0", "own[m].labels number the clusters of m itself"),
        ("shape", "mat1 and mat2 shapes cannot be multiplied", "raised this error itself"),
        ("return", "must return an Association, got NoneType", "is a return missing?"),
        ("attribute", "has no attribute 'clustring'", "did you mean 'clustering'?"),
        ("pair", "must return an Association, got Pair", "Association(cross=Pair(visible, infrared))"),
        ("space", "no labels of visible samples", "ask targets.has(modality, modality.other) first"),
    ],
)
def test_what_was_taken_for_something_else_is_named(wrong: str, happened: str, advice: str) -> None:
    found = [finding for finding in look(Mistaken, Mistaken(wrong=wrong))["fails"] if happened in finding[2]]
    assert found
    for _, _, _, means, _ in found:
        assert advice in means


@dataclass(frozen=True, kw_only=True)
class Blended(Associator):
    """One half is what was said in the last epoch."""

    how: str

    def __call__(self, scene: Scene) -> Association:
        own, found = scene.clustering.own, registry.build("associators", "nearest")(scene).cross
        if scene.previous is None or (self.how != "unasked" and not scene.previous.has(Modality.VISIBLE, "infrared")):
            return Association(cross=found)
        return Association(cross=Pair.build(lambda m: self.blended(found[m], scene.previous, own[m.other], m)))

    def blended(self, now: SoftLabels, previous: Any, clusters: Any, m: Modality) -> SoftLabels:
        before = previous.of(m, m.other)
        if self.how == "answered":
            return before  # type: ignore[no-any-return]
        if self.how == "added":
            return SoftLabels(0.5 * now.prob + 0.5 * before.prob)
        if self.how == "misspelt":
            return SoftLabels(before.probability)
        new = SoftLabels.one_hot(clusters.labels, clusters.count).prob
        prob = now.prob + before.prob @ (previous.of(m.other, m.other).prob.T @ new)
        return SoftLabels(prob / prob.sum(1, keepdim=True).clamp_min(1e-12))


@pytest.mark.parametrize(
    ("how", "scenes", "happened"),
    [
        ("unasked", "previous_own", "no labels of visible samples in space 'infrared'"),
        ("added", "previous_cross", "The size of tensor a"),
        ("answered", "previous_cross", "cross: prob must be"),
    ],
)
def test_the_last_epoch_had_other_clusters_or_no_cross_labels(how: str, scenes: str, happened: str) -> None:
    found = look(Blended, Blended(how=how))["fails"]
    assert any(f"of 14 scenes: {scenes}" in text for text, *_ in found)
    for _, scene, what, means, again in found:
        assert "labels of the last epoch" in scene
        assert happened in what or "The size of tensor" in what
        assert "scene.previous holds the last epoch's targets" in means
        assert f"previous='{'own' if 'own ones' in scene else 'cross'}'" in again
    assert "look at its spelling" in said(look(Blended, Blended(how="misspelt")))


def test_labels_of_the_last_epoch_in_today_s_clusters_are_right_as_advised() -> None:
    assert "fails" not in look(Blended, Blended(how="translated"))


@dataclass(frozen=True, kw_only=True)
class ByCamera(Associator):
    """A table by camera."""

    counted: bool

    def __call__(self, scene: Scene) -> Association:
        camera = scene.features.visible.camera
        if self.counted:
            camera = torch.unique(camera, return_inverse=True)[1]
        torch.eye(max(3, len(camera)) if self.counted else 3)[camera.cpu()]
        return Association()


def test_cameras_are_no_indices() -> None:
    assert "fails" not in look(ByCamera, ByCamera(counted=True))
    ((text, scene, happened, means, again),) = look(ByCamera, ByCamera(counted=False))["fails"]
    assert text == "breaks its contract on 1 of 14 scenes: cameras"
    assert "cameras 1 to 6" in scene
    assert "index 4 is out of bounds" in happened
    assert "such as 1, 2, 4, 5 (visible) and 3, 6 (infrared)" in means
    assert "cameras=True" in again


@dataclass(frozen=True, kw_only=True)
class ByIndex(Associator):
    """Each sample takes what a table of clusters says; outliers do right in one of three ways, or wrong."""

    outliers: str

    def __call__(self, scene: Scene) -> Association:
        own = scene.clustering.own
        if not scene.clustering.usable:
            return Association()
        cosine = cosine_table(own.visible.centroids, own.infrared.centroids)
        table = Pair(cosine.argmax(1), cosine.argmax(0))
        return Association(
            cross=Pair.build(lambda m: SoftLabels.one_hot(self.read(table[m], own[m].labels), own[m.other].count))
        )

    def read(self, table: Tensor, labels: Tensor) -> Tensor:
        table = table.to(labels.device)
        if self.outliers == "own row":
            return torch.cat([table, table.new_tensor([-1])])[labels]
        if self.outliers == "masked":
            return torch.where(labels >= 0, table[labels], -1)
        if self.outliers == "looked for":
            found = torch.full_like(labels, -1)
            found[labels >= 0] = table[labels[labels >= 0]]
            return found
        if self.outliers == "rows":
            return rows_of_samples(labels, table[:, None] + 1)[:, 0].long() - 1
        if self.outliers == "taken":
            return torch.take(table, labels)
        return table[labels]


@pytest.mark.parametrize("right", ["own row", "masked", "looked for", "rows"])
def test_outliers_may_be_left_out_in_any_way(right: str) -> None:
    assert set(look(ByIndex, ByIndex(outliers=right))) <= {"ok", "note"}
    check_outliers(ByIndex(outliers=right))


@pytest.mark.parametrize(
    ("wrong", "code"), [("wrong", "return table[labels]"), ("taken", "return torch.take(table, labels)")]
)
def test_an_outlier_that_takes_part_as_the_last_cluster_is_a_failure(wrong: str, code: str) -> None:
    (finding,) = look(ByIndex, ByIndex(outliers=wrong))["fails"]
    assert "takes outliers for members of the last cluster" in finding[0]
    assert finding[1].endswith(f"(test_diagnosis.py, line {line_number(code)}: {code})")
    assert "of_samples(labels, partner)" in finding[2]
    assert "rows_of_samples(labels, table)" in finding[2]


def test_the_line_of_the_failure_is_the_one_that_matters() -> None:
    """The mask reads at −1 first, and does right."""

    @dataclass(frozen=True, kw_only=True)
    class Twice(ByIndex):
        def read(self, table: Tensor, labels: Tensor) -> Tensor:
            table = table.to(labels.device)
            right = torch.where(labels >= 0, table[labels], 0)
            wrong = table[labels]
            return torch.where(labels >= 0, right, wrong)

    (finding,) = look(Twice, Twice(outliers="wrong"))["fails"]
    assert finding[1].endswith(f"line {line_number('wrong = table[labels]')}: wrong = table[labels])")


def test_a_method_typed_at_a_prompt_has_no_line_and_is_found_out_all_the_same() -> None:
    typed = type("Typed", (ByIndex,), {"__module__": "builtins"})
    with pytest.raises(ContractError, match=r"whichever that is$"):
        check_outliers(typed(outliers="wrong"))


def line_number(code: str) -> int:
    """Where a line of this file stands."""
    return [line.strip() for line in Path(__file__).read_text(encoding="utf-8").splitlines()].index(code) + 1


def test_options_must_be_a_frozen_dataclass_s() -> None:
    @dataclass
    class Loose(Associator):
        """Says nothing"""

        floor: float = 0.0

        def __call__(self, scene: Scene) -> Association:
            return Association()

    found = look(Loose)
    assert found["fails"][0][0] == "it is no frozen, keyword-only dataclass"
    assert any("docstring should begin" in note[0] for note in found["note"])


def test_probabilities_in_double_precision_are_named() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Double(Refiner):
        """As they were, at twice the size."""

        def refine(self, scene: Scene, targets: Targets) -> Targets:
            return targets.map(lambda labels: SoftLabels(labels.prob.double(), labels.weight))

    ((_, _, happened, means, _),) = look(Double)["fails"]
    assert "prob is float64, expected float32" in happened
    assert "SoftLabels(prob.float())" in means


@dataclass(frozen=True, kw_only=True)
class Mindful(Associator):
    """Nearest, and remembers what it saw."""

    how: str
    seen: list[int] = field(default_factory=list)
    inner: Any = None
    everybody: ClassVar[dict[int, int]] = {}

    @cached_property
    def power(self) -> float:
        return 2.0**0.5

    def __call__(self, scene: Scene) -> Association:
        assert self.power
        found = registry.build("associators", "nearest")(scene)
        if self.how == "attribute":
            object.__setattr__(self, "last", scene.features.visible.x)
        elif self.how == "blend":  # and so fails, or answers differently, the second time
            last = getattr(self, "last", found.cross.visible.prob)
            object.__setattr__(self, "last", last + found.cross.visible.prob)
            return replace(found, cross=Pair(SoftLabels(last + found.cross.visible.prob), found.cross.infrared))
        elif self.how == "list":
            self.seen.append(scene.epoch)
        elif self.how == "class":
            self.everybody[len(self.everybody)] = scene.epoch
        elif self.how == "inner":
            self.inner.seen.append(scene.epoch)
        return found  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("how", "name"),
    [("attribute", "last"), ("blend", "last"), ("list", "seen"), ("class", "everybody"), ("inner", "inner")],
)
def test_what_is_kept_between_calls_is_a_failure(how: str, name: str) -> None:
    check_associator(Mindful(how=""))
    inner = Mindful(how="") if how == "inner" else None
    found = look(Mindful, Mindful(how=how, inner=inner))["fails"]
    assert f"keeps something between calls, in its attribute '{name}'" in found[0][2]
    assert "What must survive an epoch is scene.previous" in found[0][3]


def test_refiners_objectives_and_clusterers_keep_nothing_either() -> None:
    def keeping(cls: type, method: str, **options: Any) -> Any:
        def call(self: Any, *given: Any, **named: Any) -> Any:
            object.__setattr__(self, "count", getattr(self, "count", 0) + 1)
            return getattr(cls, method)(self, *given, **named)

        return type(cls.__name__, (cls,), {method: call})(**options)

    cases = {"ordinary": Toy()}
    for check, plugin in (
        (check_refiner, keeping(Loud, "refine", wrong="")),
        (check_refiner, keeping(Loud, "losses", wrong="")),
        (check_objective, keeping(Amirl, "__call__")),
        (check_objective, keeping(Amirl, "banks")),
        (check_clusterer, keeping(Dbscan, "__call__", k1=8)),
    ):
        with pytest.raises(ContractError, match="ordinary: keeps something between calls, in its attribute 'count'"):
            check(plugin, cases)


@dataclass(frozen=True, kw_only=True)
class Spoilt(Objective):
    """AMIRL, and then something wrong."""

    wrong: str
    sampling: ClassVar[Sampling] = "paired"
    needs: ClassVar[frozenset[str]] = frozenset({"cross"})

    def banks(self, scene: Scene, targets: Any) -> Sequence[Bank]:
        banks = Amirl().banks(scene, targets)
        if self.wrong == "bank":
            return [replace(banks[0], start=banks[0].start[:-1]), *banks[1:]]
        return [replace(banks[0], fed_by=("thermal",)), *banks[1:]] if self.wrong == "fed" else banks

    def __call__(self, batch: Batch, banks: Banks) -> Mapping[str, Tensor]:
        terms = dict(Amirl()(batch, banks))
        if self.wrong == "mean":
            rows = batch.labels(batch["visible"], "visible").labelled
            terms["mean"] = batch["visible"].z[rows].sum(1).mean()
        if self.wrong == "detached":
            terms = {name: term.detach().requires_grad_() for name, term in terms.items()}
        if self.wrong == "constant":
            terms = {name: term.detach() for name, term in terms.items()}
        if self.wrong == "nothing":
            terms = {}
        if self.wrong == "update":
            next(iter(banks)).vectors.mul_(0.9)
        if self.wrong == "rows":
            terms["rows"] = batch["visible"].z.sum(1)
        return terms


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ("bank", "bank 'amirl.specific.visible': starts from 7 rows, but its space has 8 clusters"),
        ("fed", "is fed by .*thermal"),
        ("mean", "no row has a label: loss 'mean' is nan"),
        ("detached", "no gradient reaches the features"),
        ("constant", "no gradient reaches the features"),
        ("nothing", "at least one loss term"),
        ("update", "wrote into its input"),
        ("rows", "must be a tensor of no dimension"),
    ],
)
def test_a_broken_objective_is_named(wrong: str, complaint: str) -> None:
    check_objective(Amirl())
    with pytest.raises(ContractError, match=complaint):
        check_objective(Spoilt(wrong=wrong), {"ordinary": Toy()})


@dataclass(frozen=True, kw_only=True)
class Loud(Refiner):
    """A loss at every step, and something wrong with it."""

    wrong: str

    def losses(self, batch: Batch, banks: Banks) -> Any:
        feature = batch["visible"].feature
        loss = banks.select("agnostic", space="visible")[0].logits(feature).logsumexp(1).mean()
        if self.wrong == "nan":
            return {"loud": loss * float("nan")}
        if self.wrong == "detached":
            return {"loud": loss.detach()}
        if self.wrong == "rows":
            return {"loud": feature.sum(1)}
        if self.wrong == "tensor":
            return loss
        if self.wrong == "chance":
            return {"loud": loss * torch.rand(())}
        if self.wrong == "role":
            return {"loud": banks.select("thermal")[0].logits(feature).mean()}
        if self.wrong == "nobody":
            return {"loud": feature[batch.labels(batch["visible"], "visible").labelled].mean()}
        return {"loud": loss, "silent": torch.zeros(())}


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ("nan", "loss 'loud' is nan"),
        ("detached", "no gradient reaches the features by 'loud'"),
        ("rows", "must be a tensor of no dimension"),
        ("tensor", "must return a mapping of loss terms"),
        ("chance", "two calls with the same seed differ"),
        ("role", "IndexError"),
        ("nobody", "no row has a label: loss 'loud' is nan"),
    ],
)
def test_a_refiner_s_losses_are_looked_at(wrong: str, complaint: str) -> None:
    check_refiner(Loud(wrong=""))
    with pytest.raises(ContractError, match=complaint):
        check_refiner(Loud(wrong=wrong), {"ordinary": Toy()})


def test_a_refiner_of_neither_method_is_a_failure() -> None:
    """A misspelt name would be a refiner that does nothing, in every run."""

    @dataclass(frozen=True, kw_only=True)
    class Misspelt(Refiner):
        """Refines nothing."""

        def refines(self, scene: Scene, targets: Targets) -> Targets:
            return targets

    with pytest.raises(
        ContractError, match=r"neither refine\(scene, targets\) nor losses.*; its own methods: refines$"
    ):
        check_refiner(Misspelt())


@dataclass(frozen=True, kw_only=True)
class Bent(Network):
    """Tiny, and then something wrong."""

    wrong: str

    def build(self, *, size: tuple[int, int]) -> torch.nn.Module:
        module = Tiny(width=16, channels=4).build(size=size)
        forward = module.forward

        def bent(images: Mapping[str, Tensor]) -> Any:
            out = forward(images)
            if self.wrong == "narrow":
                return {s: NetworkOutput(o.z[:, :-1], o.pooled) for s, o in out.items()}
            if self.wrong == "joined":
                total = sum(float(o.z.detach().abs().sum()) for o in out.values())
                return {s: NetworkOutput(o.z * total, o.pooled) for s, o in out.items()}
            if self.wrong == "frozen":
                return {s: NetworkOutput(o.z.detach().requires_grad_(), o.pooled) for s, o in out.items()}
            if self.wrong == "constant":
                return {s: NetworkOutput(o.z.detach(), o.pooled) for s, o in out.items()}
            if self.wrong == "noisy":
                return {s: NetworkOutput(o.z + torch.randn_like(o.z), o.pooled) for s, o in out.items()}
            return {"visible": out["infrared"]} if "infrared" in out else out

        if self.wrong == "width":
            del module.width
        module.forward = bent  # type: ignore[method-assign]
        return module


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ("width", "needs an attribute width"),
        ("narrow", "z of 'visible' must be"),
        ("joined", "depend on which other streams"),
        ("frozen", "no gradient reaches the weights"),
        ("constant", "no gradient reaches the weights"),
        ("noisy", "the same images, shown twice, have other features"),
        ("streams", "answers for"),
    ],
)
def test_a_broken_network_is_named(wrong: str, complaint: str) -> None:
    with pytest.raises(ContractError, match=complaint):
        check_network(Bent(wrong=wrong))


class Grey(ArrayImages):
    """Images of two dimensions."""

    def load(self, index: int) -> Any:
        return super().load(index)[:, :, 0]


def test_a_broken_dataset_is_named() -> None:
    good = Synthetic(size="tiny")
    check_dataset(good)
    train, trials = good.train(), good.trials()

    def broken(**methods: Any) -> Dataset:
        return type("Broken", (Synthetic,), {name: lambda self, *a, v=value: v for name, value in methods.items()})(
            size="tiny"
        )

    for methods, complaint in (
        ({"test": train}, "people are in training too"),
        ({"trials": []}, "retrieval can't be judged"),
        ({"trials": [replace(trials[0], query=torch.tensor([10**6]))]}, "its query has rows outside"),
        ({"train": train.swapped}, "says that it is infrared"),
        ({"identity": torch.zeros(3)}, "identities must be"),
        ({"train": train.map(lambda r: replace(r, names=r.names[:1] * len(r)))}, "two images have the same name"),
        (
            {"train": train.map(lambda r: replace(r, source=Grey([np.zeros((8, 4, 3), np.uint8)] * len(r))))},
            "an image must",
        ),
    ):
        with pytest.raises(ContractError, match=complaint):
            check_dataset(broken(**methods))


@dataclass(frozen=True, kw_only=True)
class Fickle(Synthetic):
    """The pedestrians, and something that differs from one reading to the next."""

    wrong: str = ""
    calls: ClassVar[list[int]] = []

    def train(self) -> Pair[Records]:
        self.calls.append(0)
        found, turn = super().train(), len(self.calls)
        if self.wrong == "order":
            return found.map(lambda r: replace(r, names=tuple(np.roll(r.names, turn))))
        if self.wrong == "pixels":
            image = np.full((8, 4, 3), turn, np.uint8)
            return found.map(lambda r: replace(r, source=ArrayImages([image] * len(r))))
        return found

    def fingerprint(self) -> str:
        return str(id(self)) if self.wrong == "mark" else super().fingerprint()


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ("order", "train, visible: read once more, it lists other images, or in another order"),
        ("pixels", "train, visible: read once more, image '.*' is another one"),
        ("mark", "fingerprint: must be a text, the same every time"),
    ],
)
def test_a_dataset_is_the_same_when_it_is_read_once_more(wrong: str, complaint: str) -> None:
    with pytest.raises(ContractError, match=complaint) as caught:
        check_dataset(Fickle(size="tiny", wrong=wrong))
    assert "sort the listing of a folder" in advice_for(caught.value)


def test_a_target_is_a_file_a_spec_or_a_kind_and_a_spec(tmp_path: Path) -> None:
    ((entry, spec),) = registry.named("mult(alpha=0.3)")
    assert (entry.kind, str(spec)) == ("associators", "mult(alpha=0.3)")
    assert registry.named("refiner:mix")[0][0].kind == "refiners"
    with pytest.raises(PluginError, match="no plug-in 'malt'; did you mean 'mult'"):
        registry.named("malt")
    with pytest.raises(PluginError, match="no plug-in file"):
        registry.named("none.py")
    (tmp_path / "stops.py").write_text("raise SystemExit('no licence')")
    with pytest.raises(PluginError, match="could not be loaded: SystemExit: no licence"):
        registry.named(str(tmp_path / "stops.py"))
    (tmp_path / "half.py").write_text(
        "from dataclasses import dataclass\nfrom reidassoc import Associator\n\n"
        '@dataclass(frozen=True, kw_only=True)\nclass Half(Associator):\n    """No call."""\n'
    )
    with pytest.raises(PluginError, match="class Half has no method __call__"):
        registry.build("associators", registry.named(f"{tmp_path / 'half.py'}:Half")[0][1])


def test_the_command_ends_with_two_if_a_contract_is_broken(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "from dataclasses import dataclass\nfrom reidassoc import Associator\n\n"
        '@dataclass(frozen=True, kw_only=True)\nclass Bad(Associator):\n    """Says nothing."""\n\n'
        "    def __call__(self, scene):\n        return None\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "reidassoc", "check", "bad.py"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "must return an Association, got NoneType" in done.stdout
    assert done.stderr == "Error: bad broke the contract: mend what fails above, and check again\n"


@dataclass(frozen=True, kw_only=True)
class Misspelt(Associator):
    """Asks for what is not there."""

    def __call__(self, scene: Scene) -> Association:
        return Association(cross=scene.clusterings)  # type: ignore[attr-defined]


def test_a_name_that_is_not_there_is_called_that_on_every_scene() -> None:
    for finding in look(Misspelt)["fails"]:
        assert "look at its spelling" in finding[3]
