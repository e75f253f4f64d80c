"""The values that flow through reidassoc. All frozen; their tensors are never written into."""

from reidassoc.types.features import TRACKLET, UNKNOWN_CAMERA, UNKNOWN_IDENTITY, UNKNOWN_TRACKLET, Features
from reidassoc.types.labels import OUTLIER, Clustering, Clusters, SoftLabels
from reidassoc.types.modality import FEEDERS, FEEDING_ORDER, STREAMS, Modality, Pair
from reidassoc.types.records import ImageSource, Records, Rule, Trial
from reidassoc.types.targets import SHARED, Association, Targets

__all__ = [
    "FEEDERS",
    "FEEDING_ORDER",
    "OUTLIER",
    "SHARED",
    "STREAMS",
    "TRACKLET",
    "UNKNOWN_CAMERA",
    "UNKNOWN_IDENTITY",
    "UNKNOWN_TRACKLET",
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
