"""The stages of the suite: what is timed, beside what, and how the two results are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import baselines
import torch
import torch.nn.functional as F
from label_stage import synthetic
from meter import Rates, Row, clocked, measured
from steps import bare_and_whole, in_place_and_read, layouts
from torch import Tensor

from reidassoc.data.transforms import augment, draw
from reidassoc.evaluation.labels import label_quality
from reidassoc.evaluation.retrieval import retrieve
from reidassoc.ops.affinity import affinity
from reidassoc.ops.banks import Intake, plan_rounds, update_banks
from reidassoc.ops.dbscan import dbscan
from reidassoc.ops.jaccard import jaccard_similarity
from reidassoc.ops.losses import cross_prediction
from reidassoc.ops.memories import memory_cost, sub_memories
from reidassoc.ops.neighbours import nearest
from reidassoc.ops.positives import near_rows, positive_loss
from reidassoc.ops.propagation import propagate
from reidassoc.ops.transport import transport
from reidassoc.recipe import Augmentation
from reidassoc.scene import Scene
from reidassoc.types import Association, Clustering, Clusters, Features, Modality, Pair, Rule, Targets, Trial
from reidassoc_plugins.associators.mult import Mult
from reidassoc_plugins.clusterers.dbscan import Dbscan
from reidassoc_plugins.networks.tiny import Tiny

K1, CMFP_K, MEMORIES, BATCH, POSITIVES = 30, 20, 4, 144, 30
STEP_BARS = {"mult": 1.15, "salcr": 1.3}  # times the bare step
READING_BAR = 1.05  # times the step on images that are in place
EVALUATION_BAR_S, BANK_BAR, LABEL_BAR, SAME_LABELS = 6.0, 0.05, 1.6, 0.999


@dataclass(frozen=True)
class Bench:
    """The inputs that stages share.

    Args:
        scale: share of SYSU-MM01's training size.
        runs: timed runs of ours, after a warm-up.
        plain: run the plain versions, too; they need N x N memory.
    """

    scale: float
    width: int
    runs: int
    plain: bool
    rates: Rates = field(default_factory=Rates.probe)

    @cached_property
    def scene(self) -> tuple[Scene, Pair[Tensor]]:
        features, identity = synthetic(self.scale, 0, width=self.width)
        clustering = Dbscan()(features, epoch=0, seed=0, previous=None)
        return Scene(0, 0, features, clustering), identity

    @cached_property
    def x(self) -> Pair[Tensor]:
        return self.scene[0].features.map(lambda f: f.x)

    @cached_property
    def centroids(self) -> Pair[Tensor]:
        return self.scene[0].clustering.own.map(lambda c: c.centroids)

    @property
    def size(self) -> str:
        return " + ".join(str(len(x)) for x in self.x) + f" x {self.width}"

    def row(
        self,
        stage: str,
        ours: Callable[[], Any],
        plain: Callable[[], Any] | None = None,
        compare: Callable[[Any, Any], str] | None = None,
        *,
        size: str = "",
        floor: float | None = None,
        bar: Callable[[float, float], str] | None = None,
    ) -> Row:
        seconds, peak, result = measured(ours, self.runs)
        plain_s, said = None, ""
        if plain is not None and self.plain:
            plain_s, want = clocked(plain)
            said = compare(result, want) if compare else ""
        return Row(stage, size or self.size, seconds, plain_s, floor, peak, said, bar(seconds, peak) if bar else "")


def same(one: Tensor, two: Tensor) -> str:
    return f"{100 * float((one == two).double().mean()):.3f} % equal"


def largest(one: Tensor, two: Tensor) -> str:
    return f"differs by {float((one - two).abs().max()):.1e}"


def verdict(asked: str, met: bool) -> str:
    return f"{asked}: {'met' if met else 'MISSED'}"


def neighbours(b: Bench) -> Row:
    x = b.x.visible
    gflop = 2 * len(x) ** 2 * b.width / 1e9
    return b.row(
        "neighbours",
        lambda: nearest(x, x, K1)[1],
        lambda: baselines.nearest(x, K1),
        same,
        size=f"{len(x)} x {b.width}, k = {K1}",
        floor=b.rates.products(gflop),
    )


def jaccard(b: Bench) -> Row:
    x = b.x.visible
    return b.row(
        "jaccard",
        lambda: jaccard_similarity(x),
        lambda: baselines.jaccard_distance(x),
        lambda got, want: largest(1 - got.to_dense(), want),
        size=f"{len(x)} x {b.width}",
        floor=b.rates.products(2 * len(x) ** 2 * b.width / 1e9),
    )


def clusters(b: Bench) -> Row:
    similarity = affinity(b.scene[0].features.visible)
    distance = 1 - similarity.to_dense() if b.plain else torch.empty(0)
    return b.row(
        "dbscan",
        lambda: dbscan(similarity, eps=0.6, min_samples=4),
        lambda: baselines.dbscan(distance.clamp(min=0)),
        same,
        size=str(similarity.shape[0]),
    )


def centroid_transport(b: Bench) -> Row:
    x, y = b.x.visible, b.centroids.infrared
    return b.row(
        "centroid transport",
        lambda: transport(x, y, strength=25.0).row_argmax(),
        lambda: baselines.transport(x, y).argmax(dim=1),
        same,
        size=f"{len(x)} x {len(y)}",
        floor=b.rates.products(2 * len(x) * len(y) * b.width / 1e9) + b.rates.reads(500 * len(x) * len(y) * 4e-9),
    )


def instance_transport(b: Bench) -> Row:
    x, y = b.x
    return b.row(
        "instance transport",
        lambda: transport(x, y, strength=25.0, fast=True).row_argmax(),
        lambda: baselines.transport(x, y).argmax(dim=1),
        same,
        floor=b.rates.products(2 * len(x) * len(y) * b.width / 1e9) + b.rates.reads(500 * len(x) * len(y) * 4e-9),
    )


def label_transfer(b: Bench) -> Row:
    scene, _ = b.scene
    scene.affinity()

    def plain() -> list[Tensor]:
        distance = scene.affinity().map(lambda a: a.to_dense().neg_().add_(1))
        moved = Pair.build(lambda m: baselines.transport(b.x[m], b.centroids[m.other]).argmax(dim=1))
        own, cross = baselines.mult(b.x, b.centroids, distance, baselines.transport(*b.x), moved)
        return [y.argmax(dim=1) for y in (*own, *cross)]

    return b.row("label transfer (mult)", lambda: hard(Mult()(scene)), plain, equal_labels)


def equal_labels(got: list[Tensor], want: list[Tensor]) -> str:
    """Own and cross labels of both modalities, beside those of the plain version: its whole matrices and 500 plain rounds."""
    own, cross = (float((torch.cat(got[s]) == torch.cat(want[s])).double().mean()) for s in (slice(2), slice(2, 4)))
    met = verdict(f"asked {100 * SAME_LABELS} %", min(own, cross) >= SAME_LABELS)
    return f"own {100 * own:.3f} %, cross {100 * cross:.3f} % equal; {met}"


def hard(association: Association) -> list[Tensor]:
    assert association.own is not None
    assert association.cross is not None
    return [labels.hard for labels in (*association.own, *association.cross)]


def label_stage(b: Bench) -> Row:
    """Clustering and MULT together, from the features on."""
    v, r = (len(x) for x in b.x)
    gflop = 2 * b.width * (v * v + r * r + v * r) / 1e9
    floor = b.rates.products(gflop) + b.rates.reads(500 * v * r * 4e-9)

    def ours() -> list[Tensor]:
        features = b.scene[0].features.map(lambda f: Features(f.x))  # nothing remembered
        return hard(Mult()(Scene(0, 0, features, Dbscan()(features, epoch=0, seed=0, previous=None))))

    return b.row(
        "label stage",
        ours,
        floor=floor,
        bar=(lambda s, p: verdict(f"{LABEL_BAR} x floor, 1.6 GiB", s <= LABEL_BAR * floor and p <= 1.6))
        if b.scale >= 1
        else None,
    )


def mmm(b: Bench) -> Row:
    labels = b.scene[0].clustering.own.map(lambda c: c.labels)

    def ours() -> Tensor:
        one, two = (
            sub_memories(x, y, int(y.max()) + 1, count=MEMORIES, seed=0) for x, y in zip(b.x, labels, strict=True)
        )
        return memory_cost(one, two)

    return b.row(
        "mmm matching",
        ours,
        lambda: baselines.memory_matching_cost(b.x, labels, memories=MEMORIES, seed=0),
        largest,
        size=" x ".join(str(int(y.max()) + 1) for y in labels) + f" clusters, {MEMORIES} memories",
    )


def cmfp(b: Bench) -> Row:
    return b.row(
        "cmfp",
        lambda: propagate(b.x, k=CMFP_K),
        lambda: baselines.propagated(b.x, k=CMFP_K),
        lambda got, want: largest(torch.cat(list(got)), torch.cat(list(want))),
        floor=b.rates.products(2 * sum(map(len, b.x)) ** 2 * b.width / 1e9),
    )


def unit(generator: torch.Generator, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1)


def bank_update(b: Bench) -> Row:
    """Five banks, as in MULT, of 395 clusters; the bar compares with a bare step of the tiny network."""
    g = torch.Generator().manual_seed(0)
    batch, width, count = 64, 256, 395
    intakes = []
    for _ in range(5):
        labels = torch.randint(0, 16, (batch,), generator=g)
        rounds = plan_rounds(labels.numpy())
        intakes.append(Intake(unit(g, count, width), unit(g, batch, width), labels, rounds, 0.1))
    step = bare_step(batch)
    step_s, _, _ = measured(step, max(5, b.runs))
    return b.row(
        "bank update",
        lambda: update_banks(intakes),
        lambda: [baselines.fed(i.vectors, i.features, i.labels, i.momentum) for i in intakes],
        lambda got, want: largest(torch.cat(got), torch.cat(want)),
        size=f"5 banks {count} x {width}, batch {batch}",
        bar=lambda s, _: verdict(f"5 % of a bare tiny step ({step_s:.3f} s)", s <= BANK_BAR * step_s),
    )


def bare_step(batch: int) -> Callable[[], None]:
    """Forward, backward and optimiser of the tiny network on three streams, without losses of ours."""
    torch.manual_seed(0)
    network = Tiny().build(size=(64, 32))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)
    images = {name: torch.randn(batch, 3, 64, 32) for name in ("visible", "augmented", "infrared")}

    def step() -> None:
        loss = torch.stack([output.z.square().mean() for output in network(images).values()]).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def training_step(b: Bench) -> Row:
    return b.row("training step, bare tiny", bare_step(64), size="3 x 64 images 64 x 32")


def whole_step(b: Bench, method: str, network: str, size: str) -> Row:
    """The engine's step beside the bare network's on the same batch, both in processor seconds."""
    bare, whole = bare_and_whole(method, network, max(3, b.runs) if network == "tiny" else 2)
    asked, ratio = STEP_BARS[method], whole / bare
    said = verdict(f"{asked} x the bare step (plain); it is {ratio:.3f}", ratio <= asked)
    return Row(f"{method} step, {network}", size, whole, bare, None, 0.0, "processor seconds", said)


def channels_last(b: Bench) -> Row:
    """ResNet-50's bare step with the recipe's option, beside the one without."""
    as_is, last = layouts(2)
    return Row("bare step, channels last", "3 x 8 images 288 x 144", last, as_is, None, 0.0, "processor seconds")


def data_path(b: Bench) -> Row:
    """Steps that read the cache of decoded images beside steps whose batches are in place."""
    in_place, read = in_place_and_read(max(10, b.runs))
    ratio = read / in_place
    said = verdict(f"{READING_BAR} x a step with its data in place (plain); it is {ratio:.3f}", ratio <= READING_BAR)
    return Row("data path, mult step", "3 x 64 images 64 x 32", read, in_place, None, 0.0, "processor seconds", said)


def oclr(b: Bench) -> Row:
    g = torch.Generator().manual_seed(0)
    logits, target = 10 * torch.randn(BATCH, 395, generator=g), 10 * torch.randn(BATCH, 395, generator=g)
    return b.row(
        "oclr loss",
        lambda: cross_prediction(logits, target, sharpening=0.2).mean(),
        lambda: baselines.agreement_loss(logits, target, 0.2),
        largest,
        size=f"{BATCH} x 395",
    )


def gpcr(b: Bench) -> Row:
    g = torch.Generator().manual_seed(0)
    logits = 20 * torch.randn(BATCH, len(b.x.visible), generator=g) / b.width**0.5

    def ours() -> Tensor:
        near = near_rows(logits, POSITIVES)
        return positive_loss(logits, near.index, near.has(logits, near.index))

    return b.row(
        "gpcr loss, one bank",
        ours,
        lambda: baselines.positive_loss_by_sort(logits, POSITIVES),
        largest,
        size=f"{BATCH} x {logits.shape[1]}, k = {POSITIVES}",
    )


def augmentation(b: Bench) -> Row:
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (BATCH, 3, 288, 144), generator=g, dtype=torch.uint8)
    settings = Augmentation(intensity=0.5)
    chosen = draw(settings, "augmented", BATCH, (288, 144), g)
    one = [type(chosen)(*(None if t is None else t[i : i + 1] for t in vars(chosen).values())) for i in range(BATCH)]
    return b.row(
        "augmentation",
        lambda: augment(images, chosen, settings.pad),
        lambda: torch.cat([augment(images[i : i + 1], one[i], settings.pad) for i in range(BATCH)]),
        largest,
        size=f"{BATCH} images 288 x 144",
    )


def extraction(b: Bench) -> Row:
    torch.manual_seed(0)
    network, images = Tiny().build(size=(64, 32)).eval(), torch.randn(256, 3, 64, 32)

    def ours() -> Tensor:
        with torch.no_grad():
            return F.normalize(network({"visible": images})["visible"].z, dim=1)

    return b.row("extraction, tiny", ours, size="256 images 64 x 32")


def evaluation(b: Bench) -> Row:
    """SYSU-MM01's protocols: 3803 queries, 6775 gallery images, four protocols of ten trials; shrunk by the scale."""
    g = torch.Generator().manual_seed(0)
    people = max(4, round(96 * b.scale))
    counts = Pair(round(6775 * b.scale), round(3803 * b.scale))
    identity = counts.map(lambda n: torch.arange(n) % people)
    places = Pair(torch.tensor([1, 2, 4, 5]), torch.tensor([3, 6]))
    camera = Pair.build(lambda m: places[m][torch.randint(0, len(places[m]), (counts[m],), generator=g)])
    centre = torch.randn(people, b.width, generator=g)
    x = identity.map(lambda ids: centre[ids] + 6 * torch.randn(len(ids), b.width, generator=g))
    rule = Rule(ignored_cameras=((3, 2),), first_occurrence=True)
    trials = []
    for cameras in ((1, 2, 4, 5), (1, 2)):
        allowed = torch.isin(camera.visible, torch.tensor(cameras)).nonzero().flatten()
        group = identity.visible[allowed] * 10 + camera.visible[allowed]
        for shots in (1, 10):
            for number in range(10):
                mixed = torch.randperm(len(allowed), generator=g)
                order = mixed[torch.argsort(group[mixed], stable=True)]
                at = torch.arange(len(order)) - torch.searchsorted(group[order], group[order])
                gallery = allowed[order[at < shots]]
                query = torch.arange(counts.infrared)
                name = f"{len(cameras)} cameras, {shots} shots"
                trials.append(
                    Trial(
                        protocol=name,
                        number=number,
                        query_modality=Modality.INFRARED,
                        query=query,
                        gallery=gallery,
                        rule=rule,
                    )
                )

    def plain() -> list[float]:
        unit_x = x.map(lambda rows: F.normalize(rows, dim=1))
        distance = 1 - unit_x.infrared @ unit_x.visible.T
        columns = {
            "query_camera": camera.infrared,
            "query_identity": identity.infrared,
            "gallery_camera": camera.visible,
            "gallery_identity": identity.visible,
        }
        return [baselines.retrieval(distance, columns, t.gallery, t.rule)[1] for t in trials]

    full = b.scale >= 1
    return b.row(
        "evaluation, ten trials",
        lambda: retrieve(x, identity=identity, camera=camera, trials=trials),
        plain,
        lambda got, want: largest(
            torch.tensor([t.metrics["mAP"] for t in got.trials], dtype=torch.float64),
            torch.tensor(want, dtype=torch.float64),
        ),
        size=f"{counts.infrared} x {counts.visible} x {b.width}, {len(trials)} trials",
        bar=(lambda s, _: verdict(f"{EVALUATION_BAR_S:.0f} s", s < EVALUATION_BAR_S)) if full else None,
    )


def quality(b: Bench) -> Row:
    scene, identity = b.scene
    own = scene.clustering.own
    blank = own.map(lambda c: Clusters(c.labels, c.centroids))
    targets = Targets.compose(Clustering(own=blank))
    return b.row(
        "label quality",
        lambda: label_quality(targets, identity),
        lambda: baselines.adjusted_rand(own.visible.labels, identity.visible),
        lambda got, want: f"ari {got.get('visible/ari', float('nan')):.4f}, plain {want:.4f}",
    )


STAGES: dict[str, Callable[[Bench], Row]] = {
    "neighbours": neighbours,
    "jaccard": jaccard,
    "dbscan": clusters,
    "centroid_transport": centroid_transport,
    "instance_transport": instance_transport,
    "label_transfer": label_transfer,
    "label_stage": label_stage,
    "mmm": mmm,
    "cmfp": cmfp,
    "bank_update": bank_update,
    "oclr": oclr,
    "gpcr": gpcr,
    "augmentation": augmentation,
    "training_step": training_step,
    "mult_step": lambda b: whole_step(b, "mult", "tiny", "3 x 64 images 64 x 32"),
    "salcr_step": lambda b: whole_step(b, "salcr", "tiny", "3 x 64 images 64 x 32"),
    "mult_step_resnet": lambda b: whole_step(b, "mult", "resnet50", "3 x 8 images 288 x 144"),
    "salcr_step_resnet": lambda b: whole_step(b, "salcr", "resnet50", "3 x 8 images 288 x 144"),
    "channels_last": channels_last,
    "data_path": data_path,
    "extraction": extraction,
    "evaluation": evaluation,
    "label_quality": quality,
}


def rows(bench: Bench, names: list[str]) -> Iterator[Row]:
    for name in names:
        yield STAGES[name](bench)
