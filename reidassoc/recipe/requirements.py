"""What parts of a recipe need of each other and give to each other, and why some don't fit: decided before any work.

A *need* is a word, or several with ``|`` between them, one of which is enough. A part's needs and what it gives:

==================== ======================================================================= ==========================
word                 meaning                                                                 given by
==================== ======================================================================= ==========================
``cross``            labels of each modality's samples in the other one's space              associators
``shared``           clusters of both modalities together                                    clusterers, associators
``parts``            part features, of images and of all streams of a paired batch           networks
``paired``           image i of every stream shows the same pseudo-identity                  objectives, by how they draw
``agnostic bank``    a cluster bank of global features, of that role; so ``specific bank``, … objectives, refiners
``identity``         true identities                                                         ``--oracle``
``losses``           the samples' losses in the last epoch, if an objective can tell them    every stage
``affinity``         the k-reciprocal affinity; ``cameras``; the stream ``augmented``        every stage
``maps``             the views' feature maps: on several devices they are there only if asked   every stage
==================== ======================================================================= ==========================
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import reidassoc.registry as registry
from reidassoc.errors import ReidassocError
from reidassoc.registry.spec import Spec

EVERYWHERE = frozenset({"affinity", "losses", "cameras", "augmented", "maps"})  # what every stage has
DRAWN_FROM = {"own": frozenset[str](), "paired": frozenset({"cross"}), "shared": frozenset({"shared"})}
ONE_WAY = "one way to draw batches"
GIVERS = ("clusterers", "associators", "objectives", "networks", "refiners")


def needs(part: object) -> frozenset[str]:
    """What a part needs: as declared, and the labels from which an objective's batches are drawn."""
    declared: frozenset[str] = getattr(part, "needs", frozenset())
    return declared | DRAWN_FROM.get(getattr(part, "sampling", ""), frozenset())


def gives(part: object) -> frozenset[str]:
    """What a part gives: as declared, and the way in which an objective's batches are drawn."""
    declared: frozenset[str] = getattr(part, "gives", frozenset())
    return declared | ({"paired"} if getattr(part, "sampling", "") == "paired" else frozenset())


def misfits(parts: Sequence[tuple[str, Any]], *, oracle: bool = False) -> list[str]:
    """Why the parts of a stage don't fit together, one line each; nothing if they do.

    Args:
        parts: (name, plug-in) of the clusterer, the associator if there is one, refiners, objectives and the network.
        oracle: whether true identities may be given to clusterer and associator.
    """
    missing = unmet(parts, oracle=oracle)
    if not missing:
        return []
    known = [pair for kind in GIVERS for pair in candidates(kind)]  # those that the reasons may propose
    drawn = ways_to_draw(parts)
    found = [
        f"{name} needs {quoted(need)}, but {hint(need, parts, known)}" for name, need in missing if need != ONE_WAY
    ]
    return found + [f"its objectives draw batches differently: {', '.join(drawn)}"] * (len(drawn) > 1)


def unmet(parts: Sequence[tuple[str, Any]], *, oracle: bool = False) -> list[tuple[str, str]]:
    """The same, as (name, need)."""
    given = EVERYWHERE | ({"identity"} if oracle else frozenset())
    given = given.union(*(gives(part) for _, part in parts))
    missing = [(name, need) for name, part in parts for need in sorted(needs(part)) if not given & set(need.split("|"))]
    return missing + [("its objectives", ONE_WAY)] * (len(ways_to_draw(parts)) > 1)


def ways_to_draw(parts: Sequence[tuple[str, Any]]) -> list[str]:
    return sorted({part.sampling for _, part in parts if hasattr(part, "sampling")})


def hint(need: str, parts: Sequence[tuple[str, Any]], known: Sequence[tuple[str, Any]]) -> str:
    """What is wrong where a need is not met, and who would meet it."""
    if need == "identity":
        return "it sees true identities: say so with --oracle (oracle: true in the recipe)"
    if need == "cross" and not any(getattr(part, "kind", "") == "associators" for _, part in parts):
        return "the stage has no associator"
    who = givers(need, known)
    others = f"; {', '.join(who)} {'does' if len(who) == 1 else 'do'}" if who else ", and no known plug-in does"
    if need == "paired":
        return f"the objectives draw {' and '.join(ways_to_draw(parts))} batches{others}"
    return f"no part of this stage gives it{others}"


def quoted(need: str) -> str:
    return " or ".join(f"'{word}'" for word in need.split("|"))


def givers(need: str, known: Sequence[tuple[str, Any]]) -> list[str]:
    """The plug-ins that meet a need, as specs: of several forms of one the first."""
    words = set(need.split("|"))
    found: dict[tuple[str, str], str] = {}
    for spec, part in known:
        if words & gives(part):
            found.setdefault((part.kind, Spec.parse(spec).name), spec)
    return list(found.values())


def candidates(kind: str) -> list[tuple[str, Any]]:
    """Every registered plug-in of a kind that can be made, with its ``variants``: (spec, plug-in)."""
    return [pair for name in registry.names(kind) for pair in forms(kind, name, registry.find(kind, name).cls)]


@cache
def forms(kind: str, name: str, cls: type | None) -> tuple[tuple[str, Any], ...]:
    specs = [name, *(f"{name}({options})" for options in getattr(cls, "variants", ()))] if cls else []
    made = []
    for spec in specs:
        try:
            made.append((spec, registry.build(kind, spec)))
        except ReidassocError:  # an option without a default, or a library that is not installed
            continue
    return tuple(made)
