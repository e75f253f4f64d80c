"""One registered plug-in: its class, what it says of itself, and where it came from; and how a class is called."""

from __future__ import annotations

import inspect
import keyword
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from reidassoc.errors import PluginError, nearest_name
from reidassoc.interfaces.plugins import KINDS


@dataclass(frozen=True)
class Entry:
    """One registered name: the class, or the reason why it could not be loaded."""

    kind: str
    name: str
    origin: str
    cls: type | None
    problem: str = ""
    package_licence: str = ""
    file: str = ""  # that holds the class; empty for the plug-ins that reidassoc ships
    text_hash: str = ""  # of that file, when this process first looked the class up

    @property
    def claim(self) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(self.cls) or "").split("\n")[0] if self.cls else ""

    @property
    def paper(self) -> str:
        return str(getattr(self.cls, "paper", "")) if self.cls else ""

    @property
    def licence(self) -> str:
        """The class's own ``licence``, else that of the package that it came with; empty where neither says."""
        return str(getattr(self.cls, "licence", self.package_licence))


def kind_of(text: str) -> str:
    """Return the kind that ``text`` names, in singular or plural."""
    for kind in KINDS:
        if text in {kind, kind.removesuffix("s")}:
            return kind
    raise PluginError(f"no kind of plug-in '{text}'{nearest_name(text, KINDS)}; kinds: {', '.join(KINDS)}")


def name_of(cls: type) -> str:
    """The ``name`` attribute of a plug-in class, or its own name in snake_case."""
    return str(getattr(cls, "name", None) or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower())


def refuse_name(name: str, cls: type) -> None:
    """Raise PluginError if no spec could name a plug-in so: ``my-idea``, or a word of Python's, such as ``global``."""
    if not name.isidentifier() or keyword.iskeyword(name):
        raise PluginError(
            f"the name of {cls.__name__} must be a Python identifier and no keyword, got '{name}'; "
            "give the class another attribute name"
        )


def hash_of(file: Path) -> str:
    """A short hash of a file's bytes; empty if there is none."""
    return sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else ""
