"""k1 and k2 of the Jaccard affinity belong to the data, not to a method: who has them as options takes the clusterer's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from reidassoc import registry
from reidassoc.options import default_of, hints_of
from reidassoc.spec import Spec

AFFINITY = ("k1", "k2")


def affinity_of(kind: str, spec: Spec) -> dict[str, Any]:
    """A plug-in's k1 and k2, named or by default; empty if it has no such options."""
    known = {**defaults(kind, spec.name), **spec.options}
    return {key: known[key] for key in AFFINITY if known.get(key, MISSING) is not MISSING}


def with_affinity(known: Mapping[str, Any], kind: str, spec: Spec) -> Spec:
    """Give a plug-in a known k1 and k2 where it has these options and its spec names none; its defaults are not named."""
    mine = defaults(kind, spec.name)
    shared = {key: value for key, value in known.items() if key in mine and key not in spec.options}
    return spec.with_options(**{key: value for key, value in shared.items() if value != mine[key]})


def defaults(kind: str, name: str) -> Mapping[str, Any]:
    """What each option of a plug-in is if it isn't given; MISSING where it must be."""
    cls = registry.get(kind, name)
    hints_of(cls)  # a PluginError if it is no dataclass
    return {f.name: default_of(f) for f in fields(cls) if f.init}
