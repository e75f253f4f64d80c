"""A new plug-in to start from: one file, or a package that pip installs.

The modules beside this one are working plug-ins of the six kinds, named ``MyIdea``; a new one is a copy under another name.
So what an author starts from is linted, type-checked and tested like everything else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from keyword import iskeyword
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from reidassoc import __version__, registry
from reidassoc.errors import PluginError

CLASS, NAME = "MyIdea", "my_idea"  # of the plug-ins that are copied
NAME_FORM = re.compile(r"[a-z][a-z0-9]+(_[a-z][a-z0-9]+)*")


def new(kind: str, name: str, *, out: str | Path = ".", package: bool = True) -> list[Path]:
    """Write a working plug-in to start from.

    Args:
        kind: ``associator``, ``clusterer``, ``refiner``, ``objective``, ``network`` or ``dataset``.
        name: what it will be called, a Python identifier in lower case such as ``my_idea``.
        out: the folder in which the file ``NAME.py``, or the package's folder ``NAME``, is made.
        package: a package with entry point, tests and README; else one file for ``--plugin``.

    Returns:
        the files written, the plug-in itself first.

    Raises:
        PluginError: the name is taken or no name, something is there already, or the folder can't be written.
    """
    one = registry.kind_of(kind).removesuffix("s")
    check_name(one, name)
    made = package_files(one, name) if package else {Path(f"{name}.py"): source(one, name)}
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


def check_name(kind: str, name: str) -> None:
    """Refuse names that no plug-in can bear, and those that another one of the kind bears."""
    if not NAME_FORM.fullmatch(name) or iskeyword(name):
        raise PluginError(
            f"no name for a plug-in: '{name}'; expected words of two or more lower-case letters or digits, joined by "
            "underscores, such as my_idea"
        )
    if name in registry.names(f"{kind}s"):
        raise PluginError(f"{registry.find(f'{kind}s', name).origin} has {kind} '{name}' already; choose another name")


def class_of(name: str) -> str:
    """``my_idea`` → ``MyIdea``, which :func:`reidassoc.registry.load_file` turns back."""
    return "".join(word.capitalize() for word in name.split("_"))


def source(kind: str, name: str) -> str:
    """The plug-in file."""
    text = files("reidassoc.scaffold").joinpath(f"{kind}.py").read_text(encoding="utf-8")
    return text.replace(CLASS, class_of(name)).replace(NAME, name)


def package_files(kind: str, name: str) -> dict[Path, str]:
    """Relative path → text of every file of a package, the plug-in first."""
    module = f"reidassoc_{name}"  # a module called `random`, say, would hide Python's own
    words: dict[str, object] = {
        "kind": kind,
        "an_kind": ("an " if kind[0] in "ao" else "a ") + kind,
        "name": name,
        "dashed": name.replace("_", "-"),
        "module": module,
        "cls": class_of(name),
        "version": __version__,
        "width": max(len(f"reidassoc list {kind}s"), len(f"reidassoc check {name}")),  # of the README's commands
    }
    made = {
        f"{module}.py": source(kind, name),
        f"tests/test_{name}.py": filled(f"test_{kind}.py", words),
        "README.md": filled("README.md", words),
        "pyproject.toml": filled("pyproject.toml", words),
    }
    return {Path(name) / path: text for path, text in made.items()}


def filled(template: str, words: Mapping[str, object]) -> str:
    text = files("reidassoc.scaffold").joinpath("package").joinpath(f"{template}.txt").read_text(encoding="utf-8")
    return Environment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(text).render(words)
