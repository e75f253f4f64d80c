"""Draw what each associator makes of one and the same small scene: ``python docs/method_pictures.py``.

A line goes from a cluster to a cluster of the other modality; its width is the share of the cluster's images that are given
that label. Green: the same person; red: another one.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from reidassoc import Clustering, Clusters, Features, Modality, Pair, Scene, registry
from reidassoc.ops.prototypes import centroids
from reidassoc.pipeline import associate
from reidassoc.registry.options import options_of
from reidassoc.registry.spec import Spec

IMAGES = Path(__file__).parent / "images" / "methods"
NAMES = ("mult", "mmm", "salcr", "pgm", "otla", "bccm", "cma", "cclnet", "clu", "brst", "rpnr", "nulc", "unison")
# The person of each cluster: a is split in the visible modality, c in the infrared; f and g are seen in one modality only.
PERSONS = Pair("aabcdef", "abccdeg")
SPLIT = ((Modality.VISIBLE, 1), (Modality.INFRARED, 3))  # the clusters that are the second half of a person
WIDTH, STEP, EDGE, COLUMN = 360, 34, 22, 110
RIGHT, WRONG, INK, PAPER = "#2e7d32", "#d32f2f", "#37474f", "#ffffff"


def scene(images: int = 12, width: int = 32, gap: float = 0.5, apart: float = 0.5, noise: float = 0.9) -> Scene:
    """Persons as random directions, an offset for each modality and for each second half, and noise."""
    generator = torch.Generator().manual_seed(3)
    draw = F.normalize(torch.randn(40, width, generator=generator), dim=1)
    person = {name: draw[number] for number, name in enumerate("abcdefg")}
    features, clusters = {}, {}
    for number, modality in enumerate(Modality):
        rows = []
        for cluster, name in enumerate(PERSONS[modality]):
            centre = (
                person[name] + gap * draw[20 + number] + apart * draw[30 + cluster] * ((modality, cluster) in SPLIT)
            )
            rows.append(centre + noise * torch.randn(images, width, generator=generator) / width**0.5)
        x = F.normalize(torch.cat(rows), dim=1)
        labels = torch.arange(len(rows)).repeat_interleave(images)
        features[modality] = Features(x)
        clusters[modality] = Clusters(labels, centroids(x, labels, len(rows)))
    return Scene(0, 0, Pair.build(features.__getitem__), Clustering(own=Pair.build(clusters.__getitem__)))


def shares(name: str, seen: Scene) -> Pair[Tensor]:
    """(K_v, K_r) and (K_r, K_v): the share of each cluster's images whose most probable label that cluster is."""
    few = (
        {"k1": 8, "k2": 4} if "k1" in {option.name for option in options_of(registry.get("associators", name))} else {}
    )
    cross = associate(registry.build("associators", Spec(name, few)), seen).cross
    assert cross is not None

    def one(modality: Modality) -> Tensor:
        own, hard = seen.clustering.own[modality], cross[modality].hard
        table = torch.zeros(own.count, seen.clustering.own[modality.other].count)
        known = hard >= 0
        table.index_put_((own.labels[known], hard[known]), torch.ones(int(known.sum())), accumulate=True)
        return table / own.labels.bincount(minlength=own.count)[:, None]

    return Pair.build(one)


def picture(name: str, seen: Scene) -> str:
    """One method, as SVG: to the left what visible images are told, to the right what infrared ones are."""
    told = shares(name, seen)
    high = EDGE * 2 + STEP * max(map(len, PERSONS)) + 14
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {high}" font-family="sans-serif" font-size="13">',
        f'<rect width="{2 * WIDTH}" height="{high}" fill="{PAPER}"/>',
    ]
    for panel, modality in enumerate(Modality):
        left = panel * WIDTH + (WIDTH - 2 * COLUMN) // 2
        ends = (left + 26, left + 2 * COLUMN - 26)
        title = f"labels of the {modality} images"
        parts.append(f'<text x="{panel * WIDTH + WIDTH / 2}" y="16" text-anchor="middle" fill="{INK}">{title}</text>')
        for row, column in told[modality].nonzero().tolist():
            same = PERSONS[modality][row] == PERSONS[modality.other][column]
            start, end = (row, column) if modality is Modality.VISIBLE else (column, row)
            parts.append(
                f'<line x1="{ends[0]}" y1="{height(start)}" x2="{ends[1]}" y2="{height(end)}" '
                f'stroke="{RIGHT if same else WRONG}" stroke-width="{5 * float(told[modality][row, column]):.1f}"/>'
            )
        for side, x in zip(Modality, (ends[0] - 14, ends[1] + 14), strict=True):
            for number, person in enumerate(PERSONS[side]):
                fill = "#3f51b5" if side is Modality.VISIBLE else "#8e24aa"
                parts.append(f'<circle cx="{x}" cy="{height(number)}" r="13" fill="{fill}"/>')
                parts.append(
                    f'<text x="{x}" y="{height(number) + 4}" text-anchor="middle" fill="{PAPER}">{person}</text>'
                )
    return "\n".join([*parts, "</svg>", ""])


def height(number: int) -> int:
    return EDGE + 20 + STEP * number


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    small = scene()
    for method in NAMES:
        (IMAGES / f"{method}.svg").write_text(picture(method, small), encoding="utf-8")
        print(method)
