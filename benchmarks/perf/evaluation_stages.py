"""The stages that score: retrieval and label quality."""

from __future__ import annotations

import baselines
import torch
import torch.nn.functional as F
from bench import Bench, largest, verdict
from meter import Row

from reidassoc.evaluation.labels import label_quality
from reidassoc.evaluation.retrieval import retrieve
from reidassoc.types import Clustering, Clusters, Modality, Pair, Rule, Targets, Trial

EVALUATION_BAR_S = 6.0


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
