"""What others have published, with where each figure was read: package data ``published.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

METRICS = ("rank1", "mAP", "mINP")


@dataclass(frozen=True)
class Published:
    """A published row.

    Args:
        name, venue: of the method.
        figures: percent by ``rank1``, ``mAP``, ``mINP``; what was not printed is absent.
        source: where the figures were read.
        verified: whether that is a published paper or the authors' own repository.
        best_on_test: the epoch was chosen on the test set.
        over: what the figure is the mean of, as ``10 trials``.
        note: a condition it belongs to.
    """

    name: str
    venue: str
    figures: Mapping[str, float]
    source: str
    verified: bool
    best_on_test: bool
    over: str
    note: str = ""


@cache
def content() -> dict[str, Any]:
    """The whole of the package data, read once."""
    text = files("reidassoc.tables").joinpath("published.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)  # type: ignore[no-any-return]


def published(dataset: str, protocol: str, *, transductive: bool = False) -> list[Published]:
    """Published rows of a dataset's protocol, in the order of the data; none for data of one's own.

    Args:
        dataset: the plug-in's name, as ``sysu_mm01``.
        protocol: its name, as ``all-search single-shot``.
        transductive: the rows with a re-ranking over query and gallery instead of the plain ones.
    """
    data = content()
    keys = [k for k, v in data["protocols"].items() if (v["dataset"], v["protocol"]) == (dataset, protocol)]
    rows = []
    for entry in data["with_transductive_reranking" if transductive else "methods"]:
        for key in keys:
            if key in entry:
                source = data["sources"][entry["source"]]
                rows.append(
                    Published(
                        name=entry["name"],
                        venue=entry.get("venue", ""),
                        figures={m: float(v) for m, v in zip(METRICS, entry[key], strict=True) if v is not None},
                        source=source["text"],
                        verified=bool(source["verified"]),
                        best_on_test=entry["name"].split(" + ")[0] in data["best_on_test"],
                        over=data["protocols"][key]["over"],
                        note=entry.get("note", ""),
                    )
                )
    return rows
