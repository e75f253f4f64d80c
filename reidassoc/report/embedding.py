"""Maps of test images: t-SNE of the features of a few people, who are the same for every method."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reidassoc.report.chapters import Chapter, Method
from reidassoc.report.charts import Dots
from reidassoc.types import Modality

PERPLEXITY = 20.0
FEWEST = 12  # images that are worth a map


def maps(chapter: Chapter) -> list[Dots]:
    """One map per method that kept features."""
    return [dots for method in chapter.methods if (dots := map_of(method)) is not None]


def map_of(method: Method) -> Dots | None:
    held = method.example.exhibits
    if held is None or held.test is None or held.mapped is None or held.features is None:
        return None
    features = np.concatenate([held.features[m].astype(np.float32) for m in Modality])
    if len(features) < FEWEST:
        return None
    people = np.concatenate([held.test[m].identity[held.mapped[m]] for m in Modality])
    infrared = np.repeat([m is Modality.INFRARED for m in Modality], [len(held.mapped[m]) for m in Modality])
    groups, colour = np.unique(people, return_inverse=True)
    places = flat(features)
    points = zip(places[:, 0], places[:, 1], colour, infrared, strict=True)
    return Dots(
        f"map-{method.colour}",
        method.name,
        tuple((float(x), float(y), int(c), bool(i)) for x, y, c, i in points),
        tuple(int(person) for person in groups),
    )


def flat(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(n, D) unit rows to (n, 2) in the unit square: t-SNE of cosine distances, from the principal components, seed 0."""
    from sklearn.manifold import TSNE  # slow to import

    perplexity = min(PERPLEXITY, (len(features) - 1) / 4)
    reducer = TSNE(perplexity=perplexity, init="pca", max_iter=500, random_state=0, n_jobs=1)
    places = np.asarray(reducer.fit_transform(features), dtype=np.float64)
    low, high = places.min(0), places.max(0)
    return np.asarray((places - (low + high) / 2) / max(float((high - low).max()), 1e-9) + 0.5)
