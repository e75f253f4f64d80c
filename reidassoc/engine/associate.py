"""Labels for anybody's features: cluster and associate once, without training."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from numpy.typing import ArrayLike
from pydantic import Field
from torch import Tensor

import reidassoc.registry as registry
from reidassoc.engine.devices.device import open_device
from reidassoc.engine.devices.peak_memory import resident
from reidassoc.errors import DataError, PluginError
from reidassoc.evaluation.crowding import crowding
from reidassoc.evaluation.labels import label_quality
from reidassoc.files.features import unit_features
from reidassoc.interfaces.plugins import Associator, Clusterer
from reidassoc.interfaces.scene import Scene
from reidassoc.ops.unit_rows import rows_off_unit
from reidassoc.pipeline import associate as run_associator
from reidassoc.pipeline import cluster
from reidassoc.registry.options import checked, refuse_out_of_range
from reidassoc.registry.spec import plain
from reidassoc.types import Features, Modality, Pair, Targets

Labels = npt.NDArray[np.int64]


class FitsAndPredicts(Protocol):
    """What scikit-learn's clusterers are."""

    def fit_predict(self, x: Any, /) -> Any:
        """The (N,) labels of (N, D) features; negative = outlier."""


@dataclass(frozen=True, eq=False)
class Associated:
    """Hard labels of every sample in both label spaces, and what they cost.

    Args:
        own: (N,) int64 per modality, in its own clusters; −1 = none.
        cross: (N,) int64 per modality, in the other modality's clusters; −1 = none.
        clusters: K per modality.
        largest: share of each modality's samples that its largest cluster contains.
        seconds: of clustering and of association.
        peak_bytes: the process's peak memory so far.
        quality: label quality by space, if identities were given.
    """

    own: Pair[Labels]
    cross: Pair[Labels]
    clusters: Pair[int]
    largest: Pair[float]
    seconds: Mapping[str, float]
    peak_bytes: int
    quality: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """A line for each modality, one for the quality where it is known, and a hint where one cluster is very large."""
        lines = []
        for modality in Modality:
            own, cross = self.own[modality], self.cross[modality]
            lines.append(
                f"{modality}: {len(own)} samples, {self.clusters[modality]} clusters, {int((own < 0).sum())} outliers; "
                f"{int((cross >= 0).sum())} labelled among the {modality.other} clusters"
            )
        if self.quality:
            lines.append("quality: " + ", ".join(f"{name} {value:.3g}" for name, value in self.quality.items()))
        return "\n".join([*lines, *filter(None, [crowding(self.largest)])])


def associate(
    associator: str | Associator,
    visible: Features | Tensor | ArrayLike,
    infrared: Features | Tensor | ArrayLike,
    *,
    clusterer: str | Clusterer | FitsAndPredicts = "dbscan",
    identity: Pair[Tensor] | tuple[Tensor | ArrayLike, Tensor | ArrayLike] | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
) -> Associated:
    """Cluster and associate features from any model.

    Args:
        associator: a spec such as ``"mult(alpha=0.3)"``, or an object.
        visible: (N_v, D) floating point, a tensor, an array or what NumPy makes one of; rows are normalised here. ``Features``
            may also say cameras, tracklets and part features, as in ``ra.Features(x, camera=camera)``.
        infrared: (N_r, D), likewise.
        clusterer: likewise a spec or an object; one with scikit-learn's ``fit_predict`` will do.
        identity: (N_v,) and (N_r,) true identities, for scoring (and for a clusterer or associator that needs them).

    Raises:
        ReidassocError: a spec or the features are wrong.

    Examples:
        >>> import torch, reidassoc as ra
        >>> x = torch.eye(4).repeat_interleave(8, 0) + 0.01 * torch.randn(32, 4, generator=torch.manual_seed(0))
        >>> labels = ra.associate("nearest", x, x, clusterer="dbscan(k1=8)")
        >>> labels.clusters
        Pair(visible=4, infrared=4)
    """
    seed = checked(plain(seed), Annotated[int, Field(ge=0)], "seed")
    fabric = open_device(device)
    method: Associator = made("associators", associator)
    grouping: Clusterer = made("clusterers", clusterer)
    features = Pair(on_device(visible, "visible", fabric.device), on_device(infrared, "infrared", fabric.device))
    known = identities(identity, features) if identity is not None else None
    started = time.perf_counter()
    clustering = cluster(grouping, features, seed=seed, identity=known)
    clustered = time.perf_counter()
    targets = Targets.compose(clustering, run_associator(method, Scene(0, seed, features, clustering), known))
    ended = time.perf_counter()

    def hard(modality: Modality, space: Modality) -> Labels:
        if not targets.has(modality, space):
            return np.full(len(features[modality]), -1, dtype=np.int64)
        return targets.of(modality, space).hard.cpu().numpy()

    return Associated(
        own=Pair.build(lambda m: hard(m, m)),
        cross=Pair.build(lambda m: hard(m, m.other)),
        clusters=clustering.own.map(lambda clusters: clusters.count),
        largest=clustering.own.map(lambda clusters: clusters.largest),
        seconds={"cluster": clustered - started, "associate": ended - clustered},
        peak_bytes=resident("VmHWM"),
        quality=label_quality(targets, known) if known is not None else {},
    )


def made(kind: str, given: object) -> Any:
    """The plug-in that a spec describes, or the object that was given in its place."""
    if isinstance(given, str):
        return registry.build(kind, given)
    if kind == "clusterers" and hasattr(given, "fit_predict") and not isinstance(given, type):
        adapter: Any = registry.get(kind, "sklearn")
        return adapter.of(given)
    if callable(given) and not isinstance(given, type):
        refuse_out_of_range(given)
        return given
    if isinstance(given, type):
        raise PluginError(f"{given.__name__} is a class: give an object of it, as in {given.__name__}()")
    what = f"{kind.removesuffix('s')} {type(given).__name__}"
    raise PluginError(f"{what}: expected a spec such as 'name(option=value)', or an object of a plug-in's class")


def identities(given: Pair[Any] | tuple[Any, Any], features: Pair[Features]) -> Pair[Tensor]:
    """True identities beside the features; DataError if they are not one whole number for each row."""
    try:
        visible, infrared = (torch.as_tensor(ids if isinstance(ids, Tensor) else np.array(ids)) for ids in given)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"identities must be whole numbers, one for each feature row, of both modalities: {error}"
        ) from None
    known = Pair(visible, infrared)
    for modality in Modality:
        found, rows = known[modality], len(features[modality])
        if found.shape != (rows,) or (rows and bool((found != found.long()).any())):
            raise DataError(
                f"identities must be whole numbers, one for each feature row: expected ({rows},) of {modality}, "
                f"got {tuple(found.shape)} {str(found.dtype).removeprefix('torch.')}"
            )
    return Pair.build(lambda m: known[m].to(features[m].x.device, torch.int64))


def on_device(features: Features | Tensor | ArrayLike, name: str, device: torch.device) -> Features:
    made = features if isinstance(features, Features) else unit_features(features, name)
    if rows_off_unit(made.x):
        made = replace(made, x=unit_features(made.x, name).x)
    extra = {key: tensor.to(device) for key, tensor in made.extra.items()}
    return Features(made.x.to(device), made.index.to(device), made.camera.to(device), extra)
