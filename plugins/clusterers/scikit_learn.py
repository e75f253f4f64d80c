"""Any clusterer of scikit-learn, by its name; and any object with ``fit_predict``, for ``ra.associate``."""

from __future__ import annotations

import inspect
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from reidassoc import OUTLIER, Clusterer, Clustering, Clusters, Features, Pair
from reidassoc.errors import SpecError, nearest_name
from reidassoc.ops.partition import by_first_member
from reidassoc.ops.precision import check_features
from reidassoc.ops.prototypes import clusters_of
from reidassoc.ops.seeds import NUMPY_SEEDS, seed_for
from reidassoc.registry.spec import Spec


@dataclass(frozen=True, kw_only=True)
class FitPredict(Clusterer):
    """Group images of one modality by an object with scikit-learn's ``fit_predict``.

    ``fit_predict`` gets (N, D) float64 unit features of one modality and returns N whole numbers, negative = outlier. A copy
    of the object is used for each call, so that it keeps nothing. Its ``random_state``, if it has one and that is None, is
    seeded from (seed, epoch); an ``n_clusters`` larger than N is lowered to N. Fewer than two images are outliers: most
    clusterers refuse them. For ``ra.associate``: a run writes its options as text, so it takes :class:`Sklearn`.

    >>> from sklearn.cluster import Birch
    >>> from reidassoc.testing import toy_features
    >>> clusterer = FitPredict(estimator=Birch(n_clusters=6))
    >>> clusterer(toy_features(), epoch=0, seed=0, previous=None).own.visible.count
    6
    """

    estimator: Any

    def __post_init__(self) -> None:
        if not callable(getattr(self.estimator, "fit_predict", None)):
            raise ValueError(f"estimator must have a method fit_predict, got {type(self.estimator).__name__}")

    def __call__(self, features: Pair[Features], *, epoch: int, seed: int, previous: Clustering | None) -> Clustering:
        drawn = seed_for(seed, epoch, "fit_predict") % NUMPY_SEEDS
        return Clustering(own=features.map(lambda one: self.cluster(one, drawn)))

    def cluster(self, features: Features, seed: int) -> Clusters:
        """Cluster one modality."""
        check_features("features", features.x)
        labels = torch.full_like(features.index, OUTLIER)
        if len(features) > 1:
            found = np.asarray(self.ready(len(features), seed).fit_predict(features.x.detach().cpu().double().numpy()))
            if found.shape != (len(features),) or found.dtype.kind not in "iu":
                raise ValueError(
                    f"fit_predict must return ({len(features)},) integers, got {found.shape} {found.dtype}"
                )
            labels = by_first_member(found).to(features.x.device)
        return clusters_of(features.x, labels)

    def ready(self, count: int, seed: int) -> Any:
        """A copy of the estimator for N samples."""
        method = deepcopy(self.estimator)
        if getattr(method, "random_state", 0) is None:
            method.random_state = seed
        wanted = getattr(method, "n_clusters", None)
        if isinstance(wanted, int) and wanted > count:
            method.n_clusters = count
        return method


@dataclass(frozen=True, kw_only=True)
class Sklearn(Clusterer):
    """Group images of one modality by a clusterer of scikit-learn.

    ``estimator`` is one of ``sklearn.cluster`` with its options, as text: ``'AgglomerativeClustering(n_clusters=20)'``. Only
    literals are read, nothing is evaluated, and name and options are checked before any work. Called on the unit features
    of each modality by itself (Euclidean distance, in the order of the cosine) as :class:`FitPredict` says; what is
    ``precomputed…`` is refused, since there are features only.

    >>> from reidassoc.testing import toy_features
    >>> clusterer = Sklearn(estimator="AgglomerativeClustering(n_clusters=5)")
    >>> clusterer(toy_features(), epoch=0, seed=0, previous=None).own.map(lambda c: c.count)
    Pair(visible=5, infrared=5)
    """

    paper: ClassVar[str] = "Pedregosa et al., JMLR 2011"

    estimator: Annotated[str, Field(description="such as 'AgglomerativeClustering(n_clusters=20)'")]

    def __post_init__(self) -> None:
        made(self.estimator)  # so that a recipe is refused before any work

    def __call__(self, features: Pair[Features], *, epoch: int, seed: int, previous: Clustering | None) -> Clustering:
        return self.of(made(self.estimator))(features, epoch=epoch, seed=seed, previous=previous)

    @staticmethod
    def of(estimator: Any) -> FitPredict:
        """The clusterer that an object with ``fit_predict`` makes; ``ra.associate`` asks for it."""
        return FitPredict(estimator=estimator)


def made(text: str) -> Any:
    """The estimator of ``sklearn.cluster`` that a text describes.

    Raises:
        SpecError: the text does not parse, or names a clusterer, an option or a value that scikit-learn does not know.
    """
    import sklearn.cluster

    spec = Spec.parse(text)
    known = {
        name: cls
        for name in sklearn.cluster.__all__
        if inspect.isclass(cls := getattr(sklearn.cluster, name)) and callable(getattr(cls, "fit_predict", None))
    }
    if spec.name not in known:
        listed = ", ".join(sorted(known))
        raise SpecError(f"sklearn: no clusterer '{spec.name}'{nearest_name(spec.name, known)}; known: {listed}")
    cls = known[spec.name]
    options = list(inspect.signature(cls).parameters)
    for option, value in spec.options.items():
        if option not in options:
            hint = nearest_name(option, options)
            raise SpecError(f"sklearn: {spec.name} has no option '{option}'{hint}; options: {', '.join(options)}")
        if str(value).startswith("precomputed"):
            raise SpecError(f"sklearn: {option} '{value}' needs distances, and a clusterer gets features")
    try:
        estimator: Any = cls(**spec.options)
        estimator._validate_params()  # scikit-learn would do so when it fits, in the midst of a run
    except (TypeError, ValueError) as error:
        raise SpecError(f"sklearn: {spec.name}: {str(error).splitlines()[0]}") from None
    if reason := at_odds(estimator):
        raise SpecError(f"sklearn: {spec.name}: {reason}")
    return estimator


def at_odds(estimator: Any) -> str:
    """Which of its options exclude each other, though scikit-learn says so only when it fits; empty if none do."""
    import sklearn.neighbors

    options = estimator.get_params()
    metric, algorithm = options.get("metric"), options.get("algorithm")
    if options.get("linkage") == "ward" and metric != "euclidean":
        return f"linkage 'ward' needs metric 'euclidean', got '{metric}'"
    if "distance_threshold" in options:
        if (options["n_clusters"] is None) == (options["distance_threshold"] is None):
            return "give n_clusters or distance_threshold, and none for the other"
        if options["distance_threshold"] is not None and options["compute_full_tree"] is False:
            return "distance_threshold needs the whole tree: leave compute_full_tree out"
    if algorithm in ("kd_tree", "ball_tree") and isinstance(metric, str):
        known = sklearn.neighbors.VALID_METRICS[algorithm]
        if metric not in known:
            return f"algorithm '{algorithm}' has no metric '{metric}'; it has: {', '.join(sorted(known))}"
    return ""
