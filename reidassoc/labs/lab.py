"""The lab: one epoch's features, and every clusterer × associator × chain of refiners scored on them, without training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

import reidassoc.registry as registry
from reidassoc.engine.associate import on_device
from reidassoc.engine.devices.device import open_device
from reidassoc.engine.devices.peak_memory import peak_bytes, start_peak
from reidassoc.errors import DataError, ReidassocError
from reidassoc.evaluation.labels import coverage, label_quality
from reidassoc.files.features import FeatureFile, read_features
from reidassoc.interfaces.plugins import Associator, Clusterer, Refiner
from reidassoc.interfaces.scene import Scene
from reidassoc.labs.combinations import NONE, Combination, Sweep, combinations, every_associator, refuse_misfits
from reidassoc.labs.result import IN_MEMORY, Lab, Row
from reidassoc.labs.shared_cost import Ledger, metered
from reidassoc.ops.part_features import PARTS
from reidassoc.pipeline import associate, cluster, refine
from reidassoc.recipe.choose import text_of
from reidassoc.recipe.inherited_options import grouping
from reidassoc.recipe.requirements import needs
from reidassoc.registry.entry import name_of
from reidassoc.registry.options import checked
from reidassoc.registry.spec import plain, several
from reidassoc.types import Clustering, Features, Pair, Targets

FILE_EPOCH = "epoch"


def lab(
    features: str | Path | FeatureFile,
    *,
    clusterers: str | Clusterer | Sequence[str | Clusterer] = (),
    associators: str | Associator | Sequence[str | Associator] = (),
    refiners: str | Refiner | Sequence[str | Refiner] = (NONE,),
    sweeps: str | Sequence[str] = (),
    oracle: bool = False,
    seed: int = 0,
    device: str | torch.device = "auto",
    cache: bool = True,
    watch: Callable[[Row], None] = lambda row: None,
) -> Lab:
    """Score every clusterer × associator × chain of refiners on one epoch's features.

    A clusterer takes over options of the one that the features' file names: all that its spec doesn't name if it is the same
    one, else ``k1`` and ``k2``.

    Each runs once; what methods remember with the features (the Jaccard affinity) is made once for all.

    Args:
        features: a .safetensors or .npz file, or what :func:`reidassoc.files.features.read_features` returned.
        clusterers: specs or objects; the one that the file names, else ``dbscan``, if there are none.
        associators: specs or objects; all registered ones that need no option and no identities if there are none.
        refiners: chains of specs joined by ``+``, or objects; ``none`` refines nothing.
        sweeps: ``KIND.OPTION=VALUE,VALUE``; a spec that has the option is tried with every value.
        oracle: let associators see true identities that need them; flagged.
        seed: for methods that draw at random.
        device: as for ``run``.
        cache: share work between combinations; without it each starts from nothing, with the same figures.
        watch: is called with every row when it is done.

    Raises:
        ReidassocError: the file, a spec or a combination is wrong; said before any work. A method that fails later
            fails alone: its row says why.

    Examples:
        >>> import reidassoc as ra
        >>> from reidassoc.files.features import FeatureFile
        >>> from reidassoc.testing import toy_features, toy_identity
        >>> toy = FeatureFile(toy_features(), toy_identity())
        >>> rows = ra.lab(toy, clusterers=["dbscan(k1=10)"], associators=["nearest", "pgm"]).rows
        >>> [row.clusters for row in rows]
        [Pair(visible=8, infrared=8), Pair(visible=8, infrared=8)]
    """
    started = time.perf_counter()
    seed = checked(plain(seed), Annotated[int, Field(ge=0)], "seed")
    file = features if isinstance(features, FeatureFile) else read_features(features)
    holds = frozenset({PARTS} if all(PARTS in f.extra for f in file.features) else ())
    chosen = combinations(
        grouping([text_of(each) for each in several(clusterers)], file.notes.get("clusterer", "")),
        [text_of(each) for each in several(associators)] or every_associator(oracle=oracle, given=holds),
        [text_of(each) for each in several(refiners)],
        [Sweep.parse(text) for text in several(sweeps)],
    )
    holds |= frozenset({"identity"} if file.identity is not None else ())
    for choice in chosen:
        refuse_misfits(choice, given=holds, oracle=oracle)
    bench = Bench(file, open_device(device).device, seed, cache)
    rows = []
    for choice in chosen:
        rows.append(bench.score(choice))
        watch(rows[-1])
    source = IN_MEMORY if isinstance(features, FeatureFile) else str(features)
    return Lab(tuple(rows), source, file.features.map(len), file.notes, time.perf_counter() - started)


@dataclass(frozen=True)
class Clustered:
    """A clustering and its seconds, shared work included; or why there is none."""

    clustering: Clustering | None
    seconds: float
    problem: str = ""


@dataclass
class Bench:
    """The features on their device, and the clusterings made so far."""

    file: FeatureFile
    device: torch.device
    seed: int
    cache: bool
    _clustered: dict[str, Clustered] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.identity = None if self.file.identity is None else self.file.identity.map(lambda t: t.to(self.device))
        self.epoch = int(text) if (text := self.file.notes.get(FILE_EPOCH, "0")).isdecimal() else 0
        self.fresh()

    def fresh(self) -> None:
        """Forget all shared work."""
        self.ledger = Ledger()
        self.features: Pair[Features] = Pair.build(
            lambda m: metered(on_device(self.file.features[m], str(m), self.device), self.ledger)
        )
        self._clustered.clear()

    def score(self, choice: Combination) -> Row:
        """Label by one combination, and measure."""
        if not self.cache:
            self.fresh()
        made = self.clustered(choice)
        if made.clustering is None:
            return Row(choice, Pair(0, 0), Pair(None, None), problem=made.problem)
        own = made.clustering.own
        outliers, largest = own.map(lambda c: share(c.labels < 0)), own.map(lambda c: c.largest)
        row = Row(choice, own.map(lambda c: c.count), outliers, largest)
        method = registry.build("associators", choice.associator)
        grouping = registry.build("clusterers", choice.clusterer)
        row = replace(row, oracle=any("identity" in needs(part) for part in (grouping, method)))
        scene = Scene(self.epoch, self.seed, self.features, made.clustering)
        before = start_peak(self.device)
        self.ledger.open()
        started = self.now()
        try:
            targets = Targets.compose(made.clustering, associate(method, scene, self.identity))
            targets = refine([registry.build("refiners", link) for link in choice.refiners], scene, targets)
        except ReidassocError as error:
            return replace(row, problem=str(error))
        elapsed = self.now() - started
        return replace(
            row,
            coverage=coverage(targets),
            quality={} if self.identity is None else label_quality(targets, self.identity),
            seconds={"own": elapsed - self.ledger.spent, "shared": self.ledger.shared, "cluster": made.seconds},
            peak_bytes=(peak := peak_bytes(self.device)),
            extra_bytes=max(0, peak - before),
        )

    def clustered(self, choice: Combination) -> Clustered:
        """Cluster, once for each spec."""
        key = str(choice.clusterer)
        if key not in self._clustered:
            self._clustered[key] = self.group(registry.build("clusterers", choice.clusterer))
        return self._clustered[key]

    def group(self, clusterer: Clusterer) -> Clustered:
        self.ledger.open()
        started = self.now()
        try:
            clustering = cluster(clusterer, self.features, epoch=self.epoch, seed=self.seed, identity=self.identity)
        except DataError:  # it is the features, not the clusterer
            raise
        except ReidassocError as error:
            return Clustered(None, 0.0, str(error))
        seconds = self.now() - started - self.ledger.spent + self.ledger.shared
        if not clustering.usable:
            counts = clustering.own.map(lambda c: c.count)
            return Clustered(
                None,
                seconds,
                f"{name_of(type(clusterer))} found {counts.visible} and {counts.infrared} clusters",
            )
        return Clustered(clustering, seconds)

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def share(flags: Tensor) -> float | None:
    return float(flags.double().mean()) if len(flags) else None
