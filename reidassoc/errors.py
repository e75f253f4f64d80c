"""The errors that reidassoc raises on purpose: each says what was wrong, what was expected, and the next step.

The command line prints the message alone and exits with code 2; a traceback therefore always means a fault of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


class ReidassocError(Exception):
    """Base of every error caused by input, configuration or the environment. Its message is one line, whatever it quotes."""

    def __init__(self, message: str = "") -> None:
        super().__init__(" ".join(str(message).splitlines()))


class SpecError(ReidassocError):
    """A spec such as ``dbscan(eps=0.6)`` does not parse, or names an option that is unknown or out of range."""


class PluginError(ReidassocError):
    """A plug-in is unknown, could not be loaded, or broke its contract."""


class RecipeError(ReidassocError):
    """A recipe is incomplete, contradictory, or asks for what its parts can't give."""


class DataError(ReidassocError):
    """A dataset root, an image or a feature file is missing, wrong or corrupt."""


class CheckpointError(ReidassocError):
    """A checkpoint or a run folder can't be read, or does not belong to what was asked."""


class DeviceError(ReidassocError):
    """The device asked for is not there, or is out of memory."""


class RankLost(ReidassocError):
    """Another process of a run on several devices has ended, so this one can't go on."""


def nearest_name(wrong: str, names: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the name closest to ``wrong``, or an empty string if none is close."""
    close = difflib.get_close_matches(wrong, list(names), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def nearest_file(wrong: Path, *endings: str) -> str:
    """The same for a file that is not there: the nearest name in its folder, of those with one of the endings.

    Args:
        endings: such as ``.npz``; without any, folders are what is looked for.
    """
    names: list[str] = []
    with suppress(OSError):  # its folder is not there, or may not be read
        if not wrong.exists():
            names = [
                path.name
                for path in wrong.parent.iterdir()
                if (path.suffix in endings if endings else path.is_dir()) and not path.name.startswith(".")
            ]
    close = difflib.get_close_matches(wrong.name, sorted(names), n=1, cutoff=0.6)
    return f"; did you mean '{wrong.parent / close[0]}'?" if close else ""
