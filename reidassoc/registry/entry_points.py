"""The plug-ins that installed packages offer. Their names are read once per search path, which opens a file of every package."""

from __future__ import annotations

import configparser
import inspect
import sys
from contextlib import suppress
from dataclasses import is_dataclass
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from pathlib import Path
from typing import Any

from reidassoc.registry.entry import Entry, hash_of
from reidassoc.registry.outline import OURS, outline

GROUP = "reidassoc."
CHECKOUT = Path(__file__).resolve().parents[2]  # of an editable install; a wheel has no setup.cfg there


def installed(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group, of all packages on the search path."""
    return _installed(group, tuple(sys.path))


@cache
def _installed(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=group))


def installed_names(kind: str) -> set[str]:
    """The names of a kind's installed plug-ins; nothing is imported."""
    return {point.name for point in installed(GROUP + kind)}


def bearers(kind: str, name: str) -> list[EntryPoint]:
    """The entry points that bear a name, ours first; nothing is imported. Only one of several can be meant by it."""
    found = {point.value: point for point in installed(GROUP + kind) if point.name == name}
    return sorted(found.values(), key=lambda point: (not ours(point), point.value))


def owner_of(kind: str, name: str) -> EntryPoint | None:
    """The entry point of the installed plug-in that bears a name, if one does; nothing is imported."""
    return next(iter(bearers(kind, name)), None)


def ours(point: EntryPoint) -> bool:
    return point.value.startswith(OURS)


def holds(kind: str, owner: EntryPoint) -> str:
    """Who has a name already, as the beginning of an error."""
    return f"{origin_of(owner)[0]} has {kind.removesuffix('s')} '{owner.name}' already"


@cache
def package_of(distribution: Distribution) -> tuple[str, str]:
    """A package's name with its version, and its licence; reading them takes far longer than finding a plug-in."""
    facts = distribution.metadata.json
    licence = str(facts.get("license_expression") or facts.get("license") or "")
    return f"{distribution.name} {distribution.version}", licence


def origin_of(point: EntryPoint) -> tuple[str, str]:
    """The package that an entry point came with, and its licence; without a package, what it points to."""
    return package_of(point.dist) if point.dist else (point.value, "")


def class_of(point: EntryPoint, outlined: bool) -> Any:
    """What an entry point leads to: imported, or of our own plug-ins the outline, if that is enough and there is one."""
    if outlined and ours(point):
        with suppress(Exception):
            return outline(point.module, point.attr)
    return point.load()


def load(kind: str, point: EntryPoint, *, outlined: bool = False) -> Entry:
    """The plug-in behind an entry point; one that can't be imported, or is none of its kind, comes with its problem.

    Args:
        outlined: whether an outline is enough, which knows options and docstring, but no method.
    """
    origin, licence = origin_of(point)
    if problem := clash(kind, point):
        return Entry(kind, point.name, origin, None, problem, licence)
    try:
        cls = class_of(point, outlined)
    except (Exception, SystemExit) as error:  # a stranger's package may fail in any way; it breaks only itself
        return Entry(kind, point.name, origin, None, f"{type(error).__name__}: {error}", licence)
    if not isinstance(cls, type) or getattr(cls, "kind", None) != kind:
        return Entry(kind, point.name, origin, None, f"{point.value} is no {kind.removesuffix('s')}", licence)
    if not is_dataclass(cls):
        problem = f"{point.value} must be a frozen, keyword-only dataclass: its fields are its options"
        return Entry(kind, point.name, origin, None, problem, licence)
    file, text_hash = ("", "") if ours(point) else source_of(cls)
    return Entry(kind, point.name, origin, cls, package_licence=licence, file=file, text_hash=text_hash)


def clash(kind: str, point: EntryPoint) -> str:
    """Why an entry point doesn't get its name: we have it, or another package; empty if it does."""
    others = [other for other in bearers(kind, point.name) if other.value != point.value]
    if ours(point) or not others:
        return ""
    if ours(others[0]):
        return f"{holds(kind, others[0])}; its author must choose another name"
    named = " and ".join(origin_of(other)[0] for other in others)
    return f"{named} has the name '{point.name}', too: uninstall one of the packages"


@cache
def source_of(cls: Any) -> tuple[str, str]:
    """The file that holds a class's text, and its hash at the first call: what is edited later does not run here.

    Both are empty for compiled classes.
    """
    try:
        file = inspect.getsourcefile(cls) or ""
    except TypeError:
        file = ""
    return file, hash_of(Path(file))


def out_of_step(checkout: Path = CHECKOUT) -> set[EntryPoint]:
    """Our entry points of which a checkout's ``setup.cfg`` and the installation have but one: ``pip install -e .`` is due.

    Empty where there is no checkout, or one of something else.
    """
    configuration = configparser.ConfigParser(delimiters="=", interpolation=None)
    configuration.read(checkout / "setup.cfg", encoding="utf-8")
    if configuration.get("metadata", "name", fallback="") != "reidassoc":
        return set()
    differing = set()
    for group, text in configuration["options.entry_points"].items():
        pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
        listed = {EntryPoint(name.strip(), value.strip(), group) for name, value in pairs}
        differing |= listed ^ {point for point in installed(group) if point.dist and point.dist.name == "reidassoc"}
    return differing
