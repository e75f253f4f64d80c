"""A new plug-in to start from: one file, or a package that pip installs.

The modules beside this one are working plug-ins of the six kinds, named ``MyIdea``; a new one is a copy under another name.
So what an author starts from is linted, type-checked and tested like everything else.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from importlib.metadata import packages_distributions
from importlib.resources import files
from keyword import iskeyword
from pathlib import Path

from jinja2 import Environment, StrictUndefined

import reidassoc.registry as registry
from reidassoc._version import __version__
from reidassoc.errors import PluginError
from reidassoc.registry.entry import kind_of
from reidassoc.registry.plugin_file import read_file

CLASS, NAME = "MyIdea", "my_idea"  # of the plug-ins that are copied
NAME_FORM = re.compile(r"[a-z][a-z0-9]+(_[a-z][a-z0-9]+)*")
BESIDE = {"objective": " --refiner mix", "dataset": " --recipe mult/synthetic"}  # what a first run of a kind takes, too


def new(
    kind: str, name: str, *, out: str | Path = ".", package: bool = True, taken: str | Path | None = None
) -> list[Path]:
    """Write a working plug-in to start from.

    Args:
        kind: ``associator``, ``clusterer``, ``refiner``, ``objective``, ``network`` or ``dataset``.
        name: what it will be called, a Python identifier in lower case such as ``my_idea``.
        out: the folder in which the file ``NAME.py``, or the package's folder ``NAME``, is made.
        package: a package with entry point, tests and README; else one file for ``--plugin``.
        taken: a file that holds the plug-in already; the package is made around its text (its code is run).

    Returns:
        the files written, the plug-in itself first.

    Raises:
        PluginError: the name is another plug-in's, or a module's, or no name; the file taken holds no such plug-in; something
            is there already, or the folder can't be written.
    """
    one = kind_of(kind).removesuffix("s")
    check_name(one, name, taken)
    check_module(module_of(name) if package else name)
    made = package_files(one, name, taken) if package else {Path(f"{name}.py"): source(one, name)}
    first = Path(out) / next(iter(made)).parts[0]
    if first.exists():
        raise PluginError(f"{first} exists already; choose another name, or another folder with --out")
    try:
        for path, text in made.items():
            (Path(out) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(out) / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise PluginError(f"can't write {first}: {error.strerror}; choose another folder with --out") from None
    return [Path(out) / path for path in made]


def check_name(kind: str, name: str, taken: str | Path | None = None) -> None:
    """Refuse names that no plug-in can bear, and those that another one of the kind bears (but for the one of a file taken)."""
    if not NAME_FORM.fullmatch(name) or iskeyword(name):
        raise PluginError(
            f"no name for a plug-in: '{name}'; expected words of two or more lower-case letters or digits, joined by "
            "underscores, such as my_idea"
        )
    if taken is None and re.search(rf"\b{class_of(name)}\b", text_of(kind).replace(CLASS, "")):
        raise PluginError(
            f"no name for a plug-in: '{name}': its class would be {class_of(name)}, which the file itself uses; choose "
            "another name"
        )
    if name not in registry.names(f"{kind}s"):
        return
    origin = registry.find(f"{kind}s", name).origin
    if taken is None or Path(origin).resolve() != Path(taken).expanduser().resolve():
        raise PluginError(f"{origin} has {kind} '{name}' already; choose another name")


def check_module(module: str) -> None:
    """Refuse the name of a module that is there: the new one would hide it, or the other way round."""
    if module in sys.stdlib_module_names or module in packages_distributions():
        raise PluginError(f"there is a module '{module}' already, and {module}.py would hide it; choose another name")


def module_of(name: str) -> str:
    """The module of a package: one called `random`, say, would hide Python's own."""
    return f"reidassoc_{name}"


def class_of(name: str) -> str:
    """``my_idea`` → ``MyIdea``, which :func:`reidassoc.registry.load_file` turns back."""
    return "".join(word.capitalize() for word in name.split("_"))


def source(kind: str, name: str) -> str:
    """The plug-in file."""
    return text_of(kind).replace(CLASS, class_of(name)).replace(NAME, name)


def text_of(kind: str) -> str:
    """The working plug-in that is copied."""
    return files("reidassoc.scaffold").joinpath(f"{kind}.py").read_text(encoding="utf-8")


def package_files(kind: str, name: str, taken: str | Path | None = None) -> dict[Path, str]:
    """Relative path → text of every file of a package, the plug-in first."""
    own = source(kind, name), {f"{kind}s": {name: class_of(name)}}
    text, points = own if taken is None else finished(taken, kind, name)
    module = module_of(name)
    words: dict[str, object] = {
        "kind": kind,
        "an_kind": ("an " if kind[0] in "ao" else "a ") + kind,
        "name": name,
        "dashed": name.replace("_", "-"),
        "module": module,
        "points": points,
        "taken": taken is not None,
        "version": __version__,
        "beside": BESIDE.get(kind, ""),
        "width": max(len(f"reidassoc list {kind}s"), len(f"reidassoc check {name}")),  # of the README's commands
    }
    made = {
        f"{module}.py": text,
        f"tests/test_{name}.py": filled(f"test_{kind}.py", words),
        "README.md": filled("README.md", words),
        "pyproject.toml": filled("pyproject.toml", words),
    }
    return {Path(name) / path: text for path, text in made.items()}


def finished(file: str | Path, kind: str, name: str) -> tuple[str, dict[str, dict[str, str]]]:
    """A file's text, and the entry points of its plug-ins: group → name → class; PluginError if it lacks the one asked for."""
    found = read_file(str(file))
    points: dict[str, dict[str, str]] = {}
    for entry in found:
        if entry.cls is not None:
            points.setdefault(entry.kind, {})[entry.name] = entry.cls.__name__
    if name not in points.get(f"{kind}s", {}):
        held = ", ".join(f"{entry.kind.removesuffix('s')} '{entry.name}'" for entry in found)
        raise PluginError(f"{file} holds no {kind} '{name}', but {held}; its class's name says how it is called")
    return Path(found[0].origin).read_text(encoding="utf-8"), points


def filled(template: str, words: Mapping[str, object]) -> str:
    text = files("reidassoc.scaffold").joinpath("package").joinpath(f"{template}.txt").read_text(encoding="utf-8")
    return (
        Environment(undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True)
        .from_string(text)
        .render(words)
    )
