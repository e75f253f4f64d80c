"""What a plug-in takes over from the one in whose place it is named; k1 and k2 belong to the data: all take the clusterer's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def exchanged(theirs: Spec, named: Spec) -> Spec:
    """A named part in the place of the recipe's: of the same plug-in, options that it doesn't name stay."""
    return Spec(named.name, {**theirs.options, **named.options}) if named.name == theirs.name else named


def in_place_of(theirs: Spec, named: Spec) -> Spec:
    """A named clusterer in the place of another: the same one keeps the options that aren't named, another one k1 and k2."""
    if named.name == theirs.name:
        return exchanged(theirs, named)
    return with_affinity(affinity_of("clusterers", theirs), "clusterers", named)


def grouping(named: Sequence[str], of_file: str) -> list[str]:
    """The clusterers that are asked for, with the options of the features' own one; that one alone if none is named."""
    theirs = Spec.parse(of_file) if of_file else None
    if theirs is None or (named and theirs.name not in registry.names("clusterers")):
        return list(named) or ["dbscan"]
    return [str(in_place_of(theirs, Spec.parse(text))) for text in named] or [of_file]


def defaults(kind: str, name: str) -> Mapping[str, Any]:
    """What each option of a plug-in is if it isn't given; MISSING where it must be."""
    cls = registry.get(kind, name, outlined=True)
    hints_of(cls)  # a PluginError if it is no dataclass
    return {f.name: default_of(f) for f in fields(cls) if f.init}
