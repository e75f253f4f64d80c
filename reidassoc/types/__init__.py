"""The values that flow through reidassoc. All frozen; their tensors are never written into."""

from reidassoc.types.features import UNKNOWN_CAMERA, Features
from reidassoc.types.labels import OUTLIER, Clustering, Clusters, SoftLabels
from reidassoc.types.modality import Modality, Pair
from reidassoc.types.records import ImageSource, Records, Rule, Trial
from reidassoc.types.targets import SHARED, Association, Targets

__all__ = [
    "OUTLIER",
    "SHARED",
    "UNKNOWN_CAMERA",
    "Association",
    "Clustering",
    "Clusters",
    "Features",
    "ImageSource",
    "Modality",
    "Pair",
    "Records",
    "Rule",
    "SoftLabels",
    "Targets",
    "Trial",
]
