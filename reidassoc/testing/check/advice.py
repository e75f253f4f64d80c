"""What a broken contract means, in plain words: why it matters, and what to write instead."""

from __future__ import annotations

import difflib
import re

from reidassoc.testing.contracts import ContractError
from reidassoc.testing.scenes import Toy

DEVICE = (
    "Make new tensors on the device of what you were given: torch.zeros(n, device=x.device). Look for torch.zeros, arange, "
    "tensor, … without device=, perhaps far above the line where two devices meet."
)
PREVIOUS = (
    "scene.previous holds the last epoch's targets. Before the first cross epoch these are own labels alone: ask "
    "scene.previous.has(m, m.other). Rows are the same samples, but columns are that epoch's clusters, other ones in another "
    "number. What they share is samples: old = scene.previous.of(m.other, m.other).prob and new = "
    "SoftLabels.one_hot(own[m.other].labels, own[m.other].count).prob make scene.previous.of(m, m.other).prob @ (old.T @ new) "
    "a table of today's clusters, whose rows are then divided by their sums (clamp_min(1e-12))."
)
CAMERAS = (
    "Cameras and tracklets have the numbers of the dataset, such as 1, 2, 4, 5 (visible) and 3, 6 (infrared), or −1 where "
    "unknown: no sizes or indices. values, index = torch.unique(camera, return_inverse=True) counts those that there are from 0."
)
OTHER = (
    "Clusters of one modality were numbered in a table of the other's. own[m].labels number the clusters of m itself; a table "
    "of partners says which of the other modality's each of them is: of_samples(own[m].labels, partner[m]), and among "
    "own[m.other].count columns."
)
MISTAKEN: tuple[tuple[str, str], ...] = (
    (
        r"KeyError: .*no labels of",
        "There are not always labels across the modalities: ask targets.has(modality, modality.other) first.",
    ),
    (
        r"(?i)sparse_?csr|\bCSR\b",
        "The affinity is a sparse CSR tensor, for which torch knows few functions. TransitionMatrix.of_affinity(graph) @ x of "
        "reidassoc.ops.transition averages over neighbours, reidassoc.ops.sparse selects rows and looks pairs up; "
        "graph.to_dense() is (N, N), for small N only.",
    ),
    (
        r"numpy\.dtypes|numpy\.ndarray|int64, got \([\d, ]*\) (int|float)\d",
        "Labels, centroids and features are torch tensors, no NumPy arrays: torch.from_numpy(array).to(x.device), with .float() "
        "for probabilities and .long() for numbers of clusters.",
    ),
    (
        r"floating point, got \(\d+,\) torch\.(u?int|bool)",
        "These are numbers of clusters, one per sample: SoftLabels.one_hot(labels, count) makes labels of them, −1 = no opinion. "
        "SoftLabels(prob) takes (N, K) probabilities.",
    ),
    (
        r"floating point, got \(\d+, \d+\) torch\.(u?int|bool)",
        "These are counts or marks, not probabilities: divide each row by its sum, votes / votes.sum(1, keepdim=True)"
        ".clamp_min(1).",
    ),
    (
        r"must be \(K,( L)?\),",
        "of_samples(labels, partner) reads one number for each cluster, rows_of_samples(labels, table) a row of a table for each.",
    ),
    (
        r"floating point, got",
        "SoftLabels(prob) takes a row for each sample and a column for each cluster; SoftLabels.one_hot(labels, count) takes (N,) "
        "numbers of clusters.",
    ),
    (
        r"'module' object is not callable",
        "A module was called in the place of its function, which often has the same name: from reidassoc.ops.transport import "
        "transport, not from reidassoc.ops import transport.",
    ),
)
"""What errors that the plug-in's code raised say of what their author took for something else, on any scene."""
OUT_OF_BOUNDS = re.compile(r"index (\d+) is out of bounds for (?:dimension|axis) (\d+) with size (\d+)")
OF_VALUES = (LookupError, RuntimeError, ValueError)
RAISED = "Your code raised this error itself; the line is named above."
OF_SIZES = r"out of (range|bounds)|size|shape|dimension|empty|neighbo|at least|reduc|kth"
"""What errors say that too few samples lead to."""
ADVICE: tuple[tuple[str, str], ...] = (
    (
        r"was used as an index",
        "Python and torch count a negative index from the end. With reidassoc.ops.assignment, write of_samples(labels, partner) "
        "for a table (K,) of numbers, rows_of_samples(labels, table) for one (K, L) of probabilities, which is prob = "
        "torch.zeros(len(labels), table.shape[1], device=labels.device); seen = labels >= 0; prob[seen] = table[labels[seen]].",
    ),
    (
        r"between calls",
        "A resumed run would go on without it, and others of the same process would share it. What must survive an epoch is "
        "scene.previous, the last epoch's targets; what is dear and follows from the features alone is "
        "scene.features[m].memo('my key', make); what follows from the options may be a functools.cached_property.",
    ),
    (
        r"wrote into its input",
        "It changed a tensor that it was given, which every other part of the run reads too. Make a new tensor: x * 2 or "
        "x.clone() in the place of x *= 2, x.add_(…) or x[…] = ….",
    ),
    (
        r"same seed",
        "Asked twice, it answered differently, so no run could be repeated. Draw random numbers from a generator of your own, "
        "reidassoc.ops.seeds.generator_for(scene.seed, scene.epoch, 'my purpose'); never depend on the order of a set.",
    ),
    (
        r"cross.*prob must be",
        "cross.visible labels every visible sample among the infrared clusters, (N_v, K_r), and cross.infrared every infrared "
        "one among the visible clusters, (N_r, K_v). There is a row for each sample, outliers included; the number of columns "
        "is scene.clustering.own[modality.other].count.",
    ),
    (
        r"prob must be",
        "There is a row for each sample, outliers included, and a column for each cluster of the space: "
        "scene.clustering.own[modality].count.",
    ),
    (
        r"must sum to 1",
        "A row is a distribution over clusters. Divide it by its sum, or leave it all 0, which says: no opinion. "
        "SoftLabels.one_hot(labels, count) makes certain labels, −1 = no opinion.",
    ),
    (
        r"NaN|infinite|no finite number",
        "Something was divided by 0 or overflowed: often a row that sums to 0, a cluster without members, or the mean over "
        "no rows. Clamp the divisor, as in x / total.clamp_min(1e-12).",
    ),
    (
        r"expected float32",
        "SoftLabels(prob.float()): labels are float32 wherever they are read. cosine_table, for one, is float64.",
    ),
    (r"prob is on", DEVICE),
    (
        r"centroids are not",
        "A centroid is the plain mean of the members' features, not normalised again: "
        "reidassoc.ops.prototypes.centroids(features.x, labels, count).",
    ),
    (
        r"have members|labels must lie in",
        "K clusters are numbered 0 to K − 1 without a gap, −1 is an outlier, and there is one centroid per cluster.",
    ),
    (
        r"lost the labels",
        "A refiner gives back every entry that it was given: targets.replaced({…}) keeps those that you don't change.",
    ),
    (
        r"no gradient",
        "The answer doesn't depend on what should learn: a detach(), an argmax, or torch.no_grad() lies between.",
    ),
    (
        r"needs an attribute width",
        "Set self.width = D in the module's __init__: the engine reads it.",
    ),
    (
        r"depend on which other streams",
        "In evaluation an image's features must be its own. Normalise with running statistics (nn.BatchNorm does in eval()), "
        "not with those of the batch.",
    ),
    (
        r"shown twice",
        "In evaluation nothing may depend on chance: draw noise only where self.training, as nn.Dropout does.",
    ),
    (
        r"read once more|fingerprint: must be",
        "A resumed or repeated run reads the dataset anew, and must find what it had: sort the listing of a folder, seed the "
        "generators of what is drawn, and let the fingerprint follow from options and files alone.",
    ),
    (
        r"people are in training too",
        "Retrieval is judged on people that training never saw: give each person to one split.",
    ),
    (
        r"z of '\w+' must be|pooled of '\w+' must be",
        "z and pooled have a row per image and module.width columns.",
    ),
    (
        r"must be a tensor of no dimension",
        "A loss term is one number with its gradient: average over the rows with .mean(), and take no .item().",
    ),
    (
        r"no row has a label",
        "A batch may hold outliers only. reidassoc.ops.losses averages over the rows that have an opinion, and is 0 without.",
    ),
    (
        r"must be SoftLabels",
        "Labels are no plain tensor: SoftLabels.one_hot(labels, count) makes them of (N,) numbers of clusters, −1 = no opinion; "
        "SoftLabels(prob) of (N, K) probabilities.",
    ),
    (
        r"must be a Pair",
        "It holds something for each modality: Pair(visible, infrared), or Pair.build(function of a modality).",
    ),
    (
        r"must return .*got NoneType",
        "It came to its end without an answer: is a return missing? A function without one returns None.",
    ),
    (
        r"must return an Association, got (Pair|SoftLabels)|must return a Clustering, got Pair",
        "Wrap it: Association(cross=Pair(visible, infrared)) of SoftLabels, Clustering(own=Pair(visible, infrared)) of Clusters.",
    ),
    (r"must return a mapping of loss terms", "Name the terms, as in {'agreement': loss}; {} where there is none."),
    (r"must return|must be a NetworkOutput|must be Records", "See the method's signature in reidassoc.interfaces."),
)


def advice_for(
    error: ContractError, toy: Toy | None = None, kind: str = "associators", *, ordinary: bool = False
) -> str:
    """What to do about a failure of the contract; an empty string where its message says it all.

    Args:
        error: the failure.
        toy: the scene that shows it, if it is about one.
        kind: of the plug-in that failed.
        ordinary: whether the ordinary scene fails for the same reason: it is not for empty modalities or few samples then.
    """
    message = str(error).split(": ", 1)[-1]
    if toy is not None and (isinstance(error.__cause__, OF_VALUES) or "must be" in message):
        # The smallest scene that fails: it would not without these.
        if toy.previous != "none":
            return PREVIOUS
        if toy.cameras:
            return CAMERAS
    for pattern, text in ADVICE:
        if re.search(pattern, str(error)) and (error.__cause__ is None or pattern == "no row has a label"):
            return text
    if error.__cause__ is None:
        return ""
    for pattern, text in MISTAKEN:
        if re.search(pattern, message):
            return text
    if "unexpected keyword" in message or "positional argument" in message:
        return "It is called with other arguments than it takes: see the method's signature in reidassoc.interfaces."
    if isinstance(error.__cause__, AttributeError) and (near := near_attribute(error.__cause__)):
        return f"A name that is not there: look at its spelling; did you mean '{near}'?"
    if isinstance(error.__cause__, (AttributeError, NameError, ImportError)):
        return "A name that is not there: look at its spelling, and at reidassoc.types and reidassoc.interfaces for what there is."
    if "same device" in message:
        return DEVICE
    if "index -1 is out of bounds" in message:
        return (
            "−1, the label of an outlier, was used as an index. Look at labels[labels >= 0] only, or let outliers abstain, as "
            "reidassoc.ops.votes.vote and SoftLabels.one_hot do."
        )
    if isinstance(error.__cause__, TypeError):
        return "Your code raised this error itself, for a value of another type than it takes; the line is named above."
    if toy is not None and numbers_of_the_other(message, toy):
        return OTHER
    if ordinary:
        return RAISED
    if toy is not None and min(toy.clusters) == 0 and kind == "refiners":
        return (
            "Where a modality has no cluster, labels in its space have 0 columns, on which argmax, max and softmax fail or "
            "mean nothing. Give labels back unchanged where labels.count == 0."
        )
    if toy is not None and min(toy.clusters) == 0 and kind == "associators":
        return (
            "A modality without any cluster is common in the first epochs, and in small data. Its centroids are an empty "
            "(0, D) tensor, on which argmax, max and softmax fail or mean nothing; answer with SoftLabels without an "
            "opinion, as in SoftLabels.one_hot(torch.full((n,), OUTLIER), count)."
        )
    few = toy is not None and toy.samples * max(toy.clusters) + toy.outliers <= 2
    if few and isinstance(error.__cause__, OF_VALUES) and re.search(OF_SIZES, message):
        return "With so few samples, k nearest neighbours are fewer than k: take min(k, n)."
    return RAISED


def near_attribute(error: AttributeError) -> str:
    """The attribute of the object whose name is nearest to the one that it lacks, if any is near."""
    names = [name for name in dir(error.obj) if not name.startswith("_")] if error.obj is not None else []
    return next(iter(difflib.get_close_matches(str(error.name), names, n=1)), "")


def numbers_of_the_other(message: str, toy: Toy) -> bool:
    """Whether an index that is too large for a table of one modality's clusters would do for the other's."""
    found = OUT_OF_BOUNDS.search(message)
    if found is None:
        return False
    index, dimension, size = (int(text) for text in found.groups())
    few, many = sorted(toy.clusters)
    sizes = {few} if dimension == 0 else {few, few + 1}  # `one_hot` has a column more, for nobody
    return size in sizes and few <= index < many


def in_words(toy: Toy) -> str:
    """A scene as a sentence."""
    clusters = (
        f"{count(toy.clusters.visible, 'visible cluster')} and {count(toy.clusters.infrared, 'infrared cluster')}"
    )
    outliers = "no outliers" if toy.outliers == 0 else count(toy.outliers, "outlier") + " per modality"
    copies = "" if toy.copies == 1 else f", every image {toy.copies} times"
    last = {"none": "", "own": ", labels of the last epoch, own ones alone", "cross": ", labels of the last epoch"}
    cameras = ", cameras 1 to 6" if toy.cameras else ""
    return f"{clusters}, {count(toy.samples, 'image')} per cluster, {outliers}{copies}{last[toy.previous]}{cameras}"


def count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def as_code(toy: Toy) -> str:
    """The call that makes a scene, without what is the default."""
    plain, parts = Toy(), [f"clusters=Pair{tuple(toy.clusters)}"]
    for name in ("samples", "outliers", "copies", "noise", "gap", "width", "seed", "previous", "cameras"):
        if getattr(toy, name) != getattr(plain, name):
            parts.append(f"{name}={getattr(toy, name)!r}")
    return f"Toy({', '.join(parts)})"
