"""Options that a named plug-in inherits from the one that it replaces."""

from __future__ import annotations

from collections.abc import Sequence

import reidassoc.registry as registry
from reidassoc.registry.options import options_of
from reidassoc.registry.spec import Spec

AFFINITY = ("k1", "k2")  # they belong to the data, not to a clusterer


def exchanged(theirs: Spec, named: Spec) -> Spec:
    """A named part instead of the recipe's: one of the same plug-in keeps the options that it doesn't name."""
    return Spec(named.name, {**theirs.options, **named.options}) if named.name == theirs.name else named


def in_place_of(theirs: Spec, named: Spec) -> Spec:
    """A named clusterer instead of another: the same one keeps the options that aren't named, another one k1 and k2."""
    if named.name == theirs.name:
        return exchanged(theirs, named)
    mine = {option.name for option in options_of(registry.get("clusterers", named.name))}
    known = {name: size for name, size in theirs.options.items() if name in AFFINITY and name in mine}
    return named.with_options(**{name: size for name, size in known.items() if name not in named.options})


def grouping(named: Sequence[str], of_file: str) -> list[str]:
    """The clusterers that are asked for, with the options of the features' own one; that one alone if none is named."""
    theirs = Spec.parse(of_file) if of_file else None
    if theirs is None or (named and theirs.name not in registry.names("clusterers")):
        return list(named) or ["dbscan"]
    return [str(in_place_of(theirs, Spec.parse(text))) for text in named] or [of_file]
