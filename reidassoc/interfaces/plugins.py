"""The six kinds of plug-in. A plug-in is a frozen, keyword-only dataclass that subclasses one of these.

Its fields are its options (annotated, with ranges where they have any); it keeps nothing between calls. What it needs
of the other parts of a recipe it declares in ``needs``, what they may rely on in ``gives``: the words are listed in
:mod:`reidassoc.recipe.requirements`. A recipe whose parts don't fit together is refused when it is composed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

if TYPE_CHECKING:  # what only annotations name: the names and options of plug-ins are known without torch
    from torch import Tensor, nn

    from reidassoc.interfaces.banks import Bank, Banks
    from reidassoc.interfaces.batch import Batch, View
    from reidassoc.interfaces.scene import Scene
    from reidassoc.types import Association, Clustering, Features, Pair, Records, Targets, Trial

KINDS = ("clusterers", "associators", "refiners", "objectives", "networks", "datasets")

Sampling = Literal["own", "paired", "shared"]


class Plugin(Protocol):
    """What all kinds share: they say what they need and give, and where they come from.

    ``variants``: options with which a plug-in needs or gives something else, or that it can't do without, as
    ``"parts=3"``: for what error messages propose.
    """

    kind: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    gives: ClassVar[frozenset[str]] = frozenset()
    variants: ClassVar[tuple[str, ...]] = ()
    paper: ClassVar[str] = ""


class Clusterer(Plugin, Protocol):
    """Groups each modality's features into pseudo-identities.

    One whose ``needs`` holds ``identity`` gets a further argument ``identity=Pair[Tensor]``, and only where the recipe says
    ``oracle: true``.
    """

    kind: ClassVar[str] = "clusterers"

    @abstractmethod
    def __call__(
        self, features: Pair[Features], *, epoch: int, seed: int, previous: Clustering | None
    ) -> Clustering: ...

    def relaxed(self) -> Clusterer | None:
        """The same clusterer, a little more willing to join samples; None if it can't be.

        Asked for once, when a clustering leaves a modality without any cluster and there are no earlier labels to keep.
        """
        return None


class Associator(Plugin, Protocol):
    """Labels the samples of each modality in the other one's label space.

    One whose ``needs`` holds ``identity`` is called as ``(scene, identity=Pair[Tensor])``, and only where the recipe
    says ``oracle: true``. ``recipe`` is the name under which recipes of its method ship, if that is not its own.
    """

    kind: ClassVar[str] = "associators"
    recipe: ClassVar[str] = ""
    gives: ClassVar[frozenset[str]] = frozenset({"cross"})

    @abstractmethod
    def __call__(self, scene: Scene) -> Association: ...


class Refiner(Plugin, Protocol):
    """Repairs noisy labels: once per epoch by ``refine``, at each step by ``losses``, or both."""

    kind: ClassVar[str] = "refiners"

    def refine(self, scene: Scene, targets: Targets) -> Targets:
        return targets

    def banks(self, scene: Scene, targets: Targets) -> Sequence[Bank]:
        return ()

    def losses(self, batch: Batch, banks: Banks) -> Mapping[str, Tensor]:
        return {}


class Objective(Plugin, Protocol):
    """A training loss: it declares its banks, how batches are drawn, and maps a batch to named loss terms.

    ``sampling``: ``own`` draws identities of each modality by themselves; ``paired`` draws half of them from either label
    space, with samples of both modalities; ``shared`` from the shared space.

    An objective may train a module beside the network, such as a classifier: ``modules`` makes it, and the engine keeps it,
    moves it to the device, gives it an optimiser (at the stage's full rate; the network's is multiplied by the recipe's
    ``network_rate``) and saves it with checkpoints. It is made in a stage's first epoch, and again whenever the labels were
    made anew, unless ``outlives_labels``. Such an objective is called as ``(batch, banks, module=it)``, likewise its
    ``per_sample``.
    """

    kind: ClassVar[str] = "objectives"
    sampling: ClassVar[Sampling]
    outlives_labels: ClassVar[bool] = False

    @abstractmethod
    def banks(self, scene: Scene, targets: Targets) -> Sequence[Bank]: ...

    @abstractmethod
    def __call__(self, batch: Batch, banks: Banks) -> Mapping[str, Tensor]: ...

    def modules(self, scene: Scene, targets: Targets) -> nn.Module | None:
        """Make the module that this objective trains beside the network, on the CPU; None if it needs none."""
        return None

    def per_sample(self, view: View, batch: Batch, banks: Banks) -> Tensor | None:
        """The loss (B,) of each row of a view, NaN for one without a label; None if it can't be told row by row.

        Asked for at an epoch's end, without gradient and augmentation, with one view in the batch, where a part of the
        stage needs ``losses``.
        """
        return None


@dataclass(frozen=True)
class NetworkOutput:
    """What a network says of one stream's B images.

    Args:
        z: (B, D) after the BN neck; losses, clustering and evaluation use it.
        pooled: (B, D) before the neck.
        map: (B, C, h, w), or None if the network has none.
        parts: part features by (query stream, map stream): (B, P, D).
    """

    z: Tensor
    pooled: Tensor
    map: Tensor | None = None
    parts: Mapping[tuple[str, str], Tensor] = field(default_factory=dict)


class Network(Plugin, Protocol):
    """Builds the module that maps ``{stream: images (B, 3, H, W)}`` to ``{stream: NetworkOutput}``.

    The module runs its shared layers once over all streams together, so batch-norm statistics are joint. It has an
    attribute ``width`` (D). If it has a method ``calibrate(batches)``, the engine calls it once before a run that
    starts from scratch, with a few ``{stream: images}`` batches.
    """

    kind: ClassVar[str] = "networks"

    @abstractmethod
    def build(self, *, size: tuple[int, int]) -> nn.Module:
        """Return the module for images of ``size`` (height, width) pixels, its weights loaded."""
        ...


class Dataset(Plugin, Protocol):
    """Lists images and trials. A dataset kept on disk has an option ``root`` (a path)."""

    kind: ClassVar[str] = "datasets"

    @abstractmethod
    def train(self) -> Pair[Records]: ...

    @abstractmethod
    def test(self) -> Pair[Records]:
        """All images that some trial uses, each once."""
        ...

    @abstractmethod
    def trials(self) -> Sequence[Trial]: ...

    @abstractmethod
    def identity(self, records: Records) -> Tensor | None:
        """(N,) int64 true identities, negative where unknown, None if all are: for evaluation, and the oracle, alone."""
        ...

    @abstractmethod
    def fingerprint(self) -> str:
        """A short hash of what the dataset holds: runs on other data are never compared silently."""
        ...

    def members(self) -> Sequence[Dataset]:
        """The datasets of which this one is joined: itself alone if it is of one piece."""
        return (self,)

    def notes(self) -> Sequence[str]:
        """What a user should know before training on it, such as counts that differ from the published ones."""
        return ()
