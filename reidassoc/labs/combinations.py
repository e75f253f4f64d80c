"""Which combinations the lab tries: lists of specs as text, sweeps over options, and what one file can't serve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from types import SimpleNamespace
from typing import Any

import reidassoc.registry as registry
from reidassoc.errors import PluginError, RecipeError, SpecError, nearest_name
from reidassoc.interfaces.plugins import Refiner
from reidassoc.recipe.requirements import needs, quoted, unmet
from reidassoc.registry.options import options_of
from reidassoc.registry.spec import Spec, parse_value

NONE = "none"  # the refiner choice that refines nothing


@dataclass(frozen=True)
class Combination:
    """A clusterer, an associator, and a chain of refiners."""

    clusterer: Spec
    associator: Spec
    refiners: tuple[Spec, ...] = ()

    @property
    def refiner_text(self) -> str:
        return "+".join(map(str, self.refiners)) or NONE


@dataclass(frozen=True)
class Sweep:
    """One option with several values: ``associator.alpha``, or ``associator.mult.alpha`` for one plug-in alone."""

    kind: str
    name: str
    option: str
    values: tuple[Any, ...]

    @staticmethod
    def parse(text: str) -> Sweep:
        """Read ``KIND.OPTION=VALUE,VALUE`` or ``KIND.NAME.OPTION=VALUE,VALUE``; SpecError says what is wrong."""
        path, equals, listed = text.partition("=")
        steps = path.strip().split(".")
        values = tuple(parse_value(value) for value in split(listed))
        kinds = {"clusterer", "associator", "refiner"}
        if not equals or not values or len(steps) not in {2, 3} or not all(steps) or steps[0] not in kinds:
            raise SpecError(
                f"can't read sweep '{text}': expected KIND.OPTION=VALUE,VALUE as in associator.alpha=0.1,0.2"
            )
        return Sweep(f"{steps[0]}s", steps[1] if len(steps) == 3 else "", steps[-1], values)

    def meets(self, spec: Spec) -> bool:
        return self.name in {"", spec.name} and self.option in option_names(self.kind, spec.name)

    def spread(self, spec: Spec) -> list[Spec]:
        return [spec.with_options(**{self.option: value}) for value in self.values] if self.meets(spec) else [spec]


def split(text: str, at: str = ",") -> list[str]:
    """Split a list as the command line has it, not within brackets or quotes.

    >>> split("mult(alpha=0.1, k1=8), pgm")
    ['mult(alpha=0.1, k1=8)', 'pgm']
    """
    pieces, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        depth += (letter in "([{") - (letter in ")]}") if not quote else 0
        if letter == at and depth == 0 and not quote:
            pieces.append("")
        else:
            pieces[-1] += letter
    return [piece.strip() for piece in pieces if piece.strip()]


def option_names(kind: str, name: str) -> list[str]:
    return [option.name for option in options_of(registry.get(kind, name, outlined=True))]


def every_associator(*, oracle: bool, given: frozenset[str] = frozenset()) -> list[str]:
    """All associators that need no option, nothing beyond what is given and, unless ``oracle``, no identities; no aliases.

    Args:
        given: what file and clusterer give besides features.
    """
    file = ("the file", SimpleNamespace(gives=given))
    found: dict[type, str] = {}
    for entry in registry.entries("associators"):
        if entry.cls is None or unmet([(entry.name, entry.cls), file], oracle=oracle):
            continue
        try:
            registry.build("associators", entry.name)
        except (SpecError, PluginError):  # an option is required
            continue
        known = found.get(entry.cls)
        if known is None or entry.cls.__name__.lower() == entry.name:
            found[entry.cls] = entry.name
    return sorted(found.values())


def combinations(
    clusterers: Sequence[str], associators: Sequence[str], refiners: Sequence[str], sweeps: Sequence[Sweep]
) -> list[Combination]:
    """Every clusterer × associator × chain of refiners, each spread over the sweeps; nothing twice, order kept.

    Raises:
        ReidassocError: a list is empty, a spec is wrong, or a sweep meets nothing.
    """
    for what, given in {"clusterer": clusterers, "associator": associators, "refiner": refiners}.items():
        if not given:
            raise RecipeError(f"the lab needs at least one {what}, as in --{what} NAME")
    grouping = swept([Spec.parse(text) for text in clusterers], "clusterers", sweeps)
    joining = swept([Spec.parse(text) for text in associators], "associators", sweeps)
    chains = [[Spec.parse(link) for link in split(text, "+") if link != NONE] for text in refiners]
    mending = [link for chain in chains for link in chain]
    swept(mending, "refiners", sweeps)  # checked as a whole: one of the chains must have the option
    spread = [list(product(*(swept([link], "refiners", sweeps, strict=False) for link in chain))) for chain in chains]
    found: dict[str, Combination] = {}
    for cluster in grouping:
        for associator in joining:
            for chain in (chain for many in spread for chain in many):
                made = Combination(cluster, associator, chain)
                found[f"{made.clusterer}|{made.associator}|{made.refiner_text}"] = made
    return list(found.values())


def swept(specs: list[Spec], kind: str, sweeps: Sequence[Sweep], *, strict: bool = True) -> list[Spec]:
    """Spread specs over the sweeps of their kind; SpecError if a sweep meets none of them."""
    for sweep in (sweep for sweep in sweeps if sweep.kind == kind):
        if strict and not any(sweep.meets(spec) for spec in specs):
            listed = ", ".join(map(str, specs)) or NONE
            if sweep.name and sweep.name not in (names := [spec.name for spec in specs]):
                raise SpecError(
                    f"sweep over {kind[:-1]} '{sweep.name}': it is not among those tried, {listed}"
                    f"{nearest_name(sweep.name, names)}"
                )
            known = sorted({option for spec in specs for option in option_names(kind, spec.name)})
            raise SpecError(
                f"sweep over {kind[:-1]} option '{sweep.option}': none of {listed} has it"
                f"{nearest_name(sweep.option, known)}; options: {', '.join(known) or 'none'}"
            )
        specs = [made for spec in specs for made in sweep.spread(spec)]
    return specs


def refuse_misfits(choice: Combination, *, given: frozenset[str], oracle: bool) -> None:
    """Raise if a combination asks for what neither the file nor its other parts give.

    Args:
        given: what the file gives besides features: ``parts``, ``identity``.

    Raises:
        ReidassocError: with the reason and the next step.
    """
    refiners = [(link.name, registry.build("refiners", link)) for link in choice.refiners]
    for name, part in refiners:
        if type(part).refine is Refiner.refine:
            raise RecipeError(f"refiner {name} acts in training steps alone; the lab has nothing to show of it")
    clusterer = registry.build("clusterers", choice.clusterer)
    associator = registry.build("associators", choice.associator)
    parts = [(choice.clusterer.name, clusterer), (choice.associator.name, associator), *refiners]
    file = ("the file", SimpleNamespace(gives=given))
    for name, need in unmet([*parts, file], oracle="identity" in given):
        raise RecipeError(f"{name} needs {quoted(need)}, and neither the file nor the other parts give it")
    seers = [name for name, part in parts if "identity" in needs(part)]
    if seers and not oracle:
        raise RecipeError(f"{seers[0]} sees true identities: say so with --oracle (oracle=True)")
