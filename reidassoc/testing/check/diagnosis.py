"""A plug-in's health, for its author: every contract check, and for each failure the smallest scene that shows it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, Literal

import torch
from pydantic import PydanticUserError, TypeAdapter, ValidationError

from reidassoc.errors import ReidassocError, SpecError
from reidassoc.registry.entry import Entry
from reidassoc.registry.options import checked, default_of, hints_of, options_of
from reidassoc.testing.check.advice import advice_for, as_code, in_words
from reidassoc.testing.check.lines import own_line
from reidassoc.testing.contracts import ContractError, check_associator, check_clusterer
from reidassoc.testing.fake_gpu import PretendError, pretended_device
from reidassoc.testing.outliers import check_outliers
from reidassoc.testing.properties import DISTINCT, check_permutation, check_renumbering, check_swap
from reidassoc.testing.scenes import CASES, Toy
from reidassoc.testing.training import TRAINABLE, check_dataset, check_network, check_objective, check_refiner
from reidassoc.types import Pair

Check = Callable[..., None]  # of a plug-in and the scenes that it is tried on
ON_SCENES: dict[str, tuple[Check, Mapping[str, Toy]]] = {
    "clusterers": (check_clusterer, CASES),
    "associators": (check_associator, CASES),
    "refiners": (check_refiner, CASES),
    "objectives": (check_objective, TRAINABLE),
}
ONCE: dict[str, Callable[[Any], None]] = {"networks": check_network, "datasets": check_dataset}
SYMMETRIES: tuple[tuple[Check, str], ...] = (
    (check_permutation, "the order of the samples"),
    (check_swap, "which modality is which"),
    (check_renumbering, "how clusters are numbered"),
)
TRIES = 200  # scenes looked at for a smaller one that fails


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        verdict: ``ok``; ``fails``: the contract is broken; ``note``: allowed, but the author should know.
        text: one line, in plain words.
        details: what happened, what it means, how to see it again.
    """

    verdict: Literal["ok", "note", "fails"]
    text: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """All findings about one plug-in."""

    kind: str
    name: str
    origin: str
    findings: tuple[Finding, ...]

    @property
    def failures(self) -> int:
        return sum(finding.verdict == "fails" for finding in self.findings)

    def lines(self) -> Iterator[str]:
        """What was found, one line each, details indented."""
        yield f"{self.kind.removesuffix('s')} {self.name} ({self.origin})"
        for finding in self.findings:
            yield f"  {finding.verdict:<5}  {finding.text}"
            yield from (f"         {detail}" for detail in finding.details)
        yield f"  {'breaks its contract' if self.failures else 'keeps its contract'}"


def diagnose(entry: Entry, plugin: Any) -> Diagnosis:
    """Look a plug-in over.

    Args:
        entry: where it is registered.
        plugin: an instance with the options to be tried.
    """
    findings = [described(entry), *configured(entry)]
    if entry.kind in ON_SCENES:
        findings += on_scenes(entry, plugin)
    else:
        findings.append(once(entry, plugin))
    healthy = not any(finding.verdict == "fails" for finding in findings)
    if healthy and entry.kind in ON_SCENES:
        findings += on_gpu(entry, plugin)
    if healthy and entry.kind == "associators":
        findings += [outliers(plugin), *symmetries(plugin)]
    return Diagnosis(entry.kind, entry.name, entry.origin, tuple(findings))


def described(entry: Entry) -> Finding:
    """Whether the docstring begins with a claim."""
    if entry.claim.endswith("."):
        return Finding("ok", f"says what it does: {entry.claim}")
    return Finding(
        "note", "its docstring should begin with one sentence, ending in a full stop, for reidassoc list to print"
    )


def configured(entry: Entry) -> Iterator[Finding]:
    """Whether the class is a frozen, keyword-only dataclass, and its options are explained."""
    cls: Any = entry.cls
    try:
        options = options_of(cls)
    except (ReidassocError, TypeError) as error:
        text = "put @dataclass(frozen=True, kw_only=True) above the class; its annotated fields are its options"
        yield Finding("fails", "its options can't be read", (str(error), text))
        return
    parameters = cls.__dict__.get("__dataclass_params__")
    if parameters is None or not parameters.frozen or not all(f.kw_only for f in fields(cls)):
        text = "expected @dataclass(frozen=True, kw_only=True): a method keeps nothing between calls, and options have names"
        yield Finding("fails", "it is no frozen, keyword-only dataclass", (text,))
        return
    if wrong := tuple(wrong_defaults(cls)):
        yield Finding("fails", "the default of an option breaks the option's own rule", wrong)
        return
    yield Finding("ok", f"its options are {', '.join(option.name for option in options)}" if options else "no options")
    if silent := [option.name for option in options if not option.doc]:
        text = f"no description of {', '.join(silent)}: Annotated[float, Field(description=…)] shows in reidassoc show"
        yield Finding("note", text)


def wrong_defaults(cls: type) -> Iterator[str]:
    """Why an option's default could not be given to it. Of a type that pydantic doesn't know, any default is right."""
    hints = hints_of(cls)
    for f in fields(cls):
        if not f.init or (default := default_of(f)) is MISSING:
            continue
        try:
            checked(default, hints[f.name], f"the default of {f.name}")
        except PydanticUserError:
            continue
        except SpecError as error:
            try:  # a path, a set: right, though no text of a spec can say it
                TypeAdapter(hints[f.name]).validate_python(default, strict=True)
            except ValidationError:
                yield str(error)


def on_scenes(entry: Entry, plugin: Any) -> Iterator[Finding]:
    """Try every scene by itself; show the smallest one that fails."""
    check, cases = ON_SCENES[entry.kind]
    failed = {name: error for name, toy in cases.items() if (error := failure(check, plugin, toy, name)) is not None}
    if not failed:
        yield Finding("ok", f"keeps its contract on {len(cases)} scenes: {', '.join(cases)}")
        return
    by_advice: dict[str, list[str]] = {}
    for name, error in failed.items():
        by_advice.setdefault(signature(error, plugin), []).append(name)
    for names in by_advice.values():
        usable = [
            name for name in names if min(cases[name].clusters) > 0
        ]  # if there are, it is not for empty modalities
        toy = smallest(check, plugin, min((cases[name] for name in usable or names), key=size))
        error = failure(check, plugin, toy, "smallest")
        if error is None:  # it fails by chance
            toy, error = cases[names[0]], failed[names[0]]
        yield Finding(
            "fails",
            f"breaks its contract on {len(names)} of {len(cases)} scenes: {', '.join(names)}",
            (
                f"smallest scene that fails: {in_words(toy)}",
                *explained(error, plugin, toy, ordinary="ordinary" in names),
                f"see it again (from reidassoc import Pair; from reidassoc.testing import Toy, {check.__name__}): "
                f"{check.__name__}({plugin!r}, {{'smallest': {as_code(toy)}}})",
            ),
        )


def on_gpu(entry: Entry, plugin: Any) -> Iterator[Finding]:
    """The same scenes, held by a GPU, or by a pretended one: what was made on the CPU meets what was not."""
    check, cases = ON_SCENES[entry.kind]
    real = torch.cuda.is_available()
    name = "the GPU" if real else "a pretended GPU"
    failed: dict[str, ContractError] = {}  # by reason, each once
    with nullcontext("cuda") if real else pretended_device() as device:
        for case, toy in cases.items():
            try:
                check(plugin, {case: toy}, device)
            except ContractError as error:
                failed.setdefault(signature(error, plugin), error)
    for found in failed.values():
        sure = real or found.__cause__ is None or isinstance(found.__cause__, PretendError)
        yield Finding("fails" if sure else "note", f"breaks its contract on {name}", explained(found, plugin))
    if not failed:
        yield Finding("ok", f"keeps its contract on {name}")


def once(entry: Entry, plugin: Any) -> Finding:
    """Try a plug-in that no scene is shown to."""
    check = ONCE[entry.kind]
    try:
        check(plugin)
    except ContractError as error:
        return Finding("fails", "breaks its contract", explained(error, plugin))
    return Finding("ok", "keeps its contract")


def outliers(plugin: Any) -> Finding:
    """Whether −1 is taken for the number of a cluster: no error of Python's, and wrong."""
    try:
        check_outliers(plugin)
    except ContractError as error:
        return Finding("fails", "takes outliers for members of the last cluster", explained(error, plugin))
    return Finding("ok", "indexes no tensor with an outlier's −1")


def symmetries(plugin: Any) -> Iterator[Finding]:
    """What most associators promise, and none must."""
    for check, what in SYMMETRIES:
        try:
            check(plugin, DISTINCT)
            yield Finding("ok", f"{what} does not matter")
        except ContractError as error:
            text = f"{what} matters ({error}); right if your method means it so, or breaks near ties"
            if "the outliers' labels" in str(error):
                text += "; wrong if a −1 became a cluster's number on the way, as in labels % K, or an index of NumPy or a list"
            yield Finding("note", text)


def failure(check: Check, plugin: Any, toy: Toy, name: str) -> ContractError | None:
    """The error of a check on one scene, if it fails."""
    try:
        check(plugin, {name: toy})
    except ContractError as error:
        return error
    return None


def signature(error: ContractError, plugin: Any) -> str:
    """What two failures have in common if they have the same reason."""
    return f"{type(error.__cause__).__name__} {line_of(error, plugin)} {advice_for(error, kind=plugin.kind)}"


def size(toy: Toy) -> int:
    """The number of images of a scene."""
    return sum(toy.clusters) * toy.samples * toy.copies + 2 * toy.outliers * toy.copies


def smallest(check: Check, plugin: Any, toy: Toy) -> Toy:
    """Make a failing scene smaller for as long as it fails for the same reason."""
    first = failure(check, plugin, toy, "first")
    if first is None:
        return toy
    reason, tries = signature(first, plugin), 0
    while tries < TRIES:
        for candidate in smaller(toy):
            tries += 1
            error = failure(check, plugin, candidate, "candidate")
            if error is not None and signature(error, plugin) == reason:
                toy = candidate
                break
        else:
            break
    return toy


def smaller(toy: Toy) -> Iterator[Toy]:
    """Scenes that are a little simpler, the simplest first; each modality keeps an image, and a cluster if both have one."""
    for simpler in with_less(toy):
        if min(simpler.clusters) > 0 or (simpler.outliers > 0 and min(toy.clusters) == 0):
            yield simpler


def with_less(toy: Toy) -> Iterator[Toy]:
    if toy.previous != "none":
        yield replace(toy, previous="none")
    if toy.cameras:
        yield replace(toy, cameras=False)
    visible, infrared = toy.clusters
    for count in sorted({0, 1, visible // 2, visible - 1}):
        if 0 <= count < visible:
            yield replace(toy, clusters=Pair(count, infrared))
    for count in sorted({0, 1, infrared // 2, infrared - 1}):
        if 0 <= count < infrared:
            yield replace(toy, clusters=Pair(visible, count))
    for name, least in (("outliers", 0), ("samples", 1), ("copies", 1)):
        now = getattr(toy, name)
        for count in sorted({least, now // 2, now - 1}):
            if least <= count < now:
                yield replace(toy, **{name: count})


def explained(error: ContractError, plugin: Any, toy: Toy | None = None, *, ordinary: bool = False) -> tuple[str, ...]:
    """What happened, and what it means, if anything more can be said of it; ``toy`` is shown beside, if it is given."""
    advice = advice_for(error, toy, plugin.kind, ordinary=ordinary)
    happened = f"what happened: {what_happened(error, plugin, case=toy is None)}"
    return (happened, f"what it means: {advice}") if advice else (happened,)


def what_happened(error: ContractError, plugin: Any, *, case: bool = False) -> str:
    """The complaint without the scene's name, and the line of the author's code that raised, if it did."""
    head, _, text = str(error).partition(": ")
    if case:
        text = str(error)
    elif place := head.partition(", ")[2]:
        text = f"{place}: {text}"
    line = line_of(error, plugin)
    return f"{text} ({line})" if line else text


def line_of(error: ContractError, plugin: Any) -> str:
    """The deepest line of the plug-in's own file that an exception came through."""
    if error.__cause__ is None:
        return ""
    return own_line(reversed(list(traceback.walk_tb(error.__cause__.__traceback__))), plugin)
