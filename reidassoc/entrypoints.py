"""What installed packages offer, read once per search path: reading it opens a file of every installed package."""

from __future__ import annotations

import configparser
import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent  # of an editable install; a wheel has no setup.cfg there


def installed(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group, of all packages on the search path."""
    return _installed(group, tuple(sys.path))


@cache
def _installed(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=group))


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
