"""The text form of a configured plug-in: ``dbscan(eps=0.6)``. Literals only; nothing is ever evaluated."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reidassoc.errors import SpecError

FORM = "expected a name, such as dbscan, or a name with options, such as dbscan(eps=0.6)"
PLACES = ("root", "images")  # options of datasets that say where files are
QUOTE = "in YAML, quote a spec that has commas, as in 'x(a=1, b=2)'"
CUT = f"its bracket is left open; {QUOTE}"


@dataclass(frozen=True)
class Spec:
    """A plug-in's name and the options that differ from its defaults.

    >>> str(Spec.parse('dbscan( eps = .6 )'))
    'dbscan(eps=0.6)'
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", {key: plain(value) for key, value in self.options.items()})

    @staticmethod
    def parse(text: str) -> Spec:
        """Read the text form; a bare word as a value is a string.

        Raises:
            SpecError: it is no text; or no name or call, a value is no literal, or an option is given twice.
        """
        if not isinstance(text, str):  # from Python, where an object was given
            raise SpecError(
                f"expected a spec as text, such as 'mult(alpha=0.3)', got an object of {type(text).__name__}"
            )
        try:
            node = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            cut = text.count("(") > text.count(")")
            raise SpecError(f"can't read '{text}': {CUT if cut else FORM}") from None
        if isinstance(node, ast.Name):
            return Spec(node.id)
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            raise SpecError(f"can't read '{text}': {FORM}")
        if node.args or any(keyword.arg is None for keyword in node.keywords):
            raise SpecError(f"can't read '{text}': options need names, as in {node.func.id}(option=value)")
        names = [keyword.arg for keyword in node.keywords]
        if twice := [name for name in names if names.count(name) > 1]:
            raise SpecError(f"can't read '{text}': option '{twice[0]}' is given twice; leave one of them out")
        return Spec(node.func.id, {str(k.arg): literal(k.value, text) for k in node.keywords})

    def with_options(self, **options: Any) -> Spec:
        return Spec(self.name, {**self.options, **options})

    def without(self, *options: str) -> Spec:
        return Spec(self.name, {key: value for key, value in self.options.items() if key not in options})

    def with_places(self, change: Callable[[str, str], str | None]) -> Spec:
        """Change where a dataset's spec says that files are, also in those of the datasets that its options name, as a union's do.

        Args:
            change: of an option and its value; None leaves the option out.

        >>> str(Spec.parse("union(first='regdb(root=a)', second='llcm', root='b')").with_places(lambda *place: None))
        "union(first='regdb', second='llcm')"
        """
        options: dict[str, Any] = {}
        for key, value in self.options.items():
            if key in PLACES:
                place = change(key, str(value))
                options |= {} if place is None else {key: place}
                continue
            options[key] = value
            if isinstance(value, str) and any(place in value for place in PLACES):
                with suppress(SpecError):  # some other text
                    options[key] = str(Spec.parse(value).with_places(change))
        return Spec(self.name, options)

    def without_roots(self) -> Spec:
        """A dataset's spec without the folders that its images are in."""
        return self.with_places(lambda key, place: None)

    def with_absolute_roots(self) -> Spec:
        """A dataset's spec whose folders are found from any working folder; ``images`` starts from the root as it is."""
        return self.with_places(lambda key, place: absolute_folders(place) if key == "root" else place)

    def __str__(self) -> str:
        if not self.options:
            return self.name
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in self.options.items())})"


def absolute_folders(root: str) -> str:
    """A ``root`` whose folders are found from any working folder."""
    return os.pathsep.join(str(path.absolute()) for path in folders_of(root))


def folders_of(root: str) -> list[Path]:
    """The folders that a ``root`` names: one, or several joined as in PATH."""
    whole = Path(root).expanduser()
    parts = [root] if whole.exists() else root.split(os.pathsep)
    return [Path(part).expanduser() for part in parts if part]


def plain(value: Any) -> Any:
    """A value as text can say it: a number of NumPy's or torch's as Python's, a path as text.

    >>> import numpy as np
    >>> str(Spec("dbscan", {"eps": np.linspace(0.3, 0.5, 3)[1]}))
    'dbscan(eps=0.4)'
    """
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (tuple, list)):
        return type(value)(map(plain, value))
    return value.item() if callable(getattr(value, "item", None)) and getattr(value, "ndim", None) == 0 else value


def several(given: Any) -> list[Any]:
    """What Python gives where there may be several: one spec, path or object alone is a list of one, None an empty one.

    >>> several("mix"), several(["mix", "oclr"]), several(None)
    (['mix'], ['mix', 'oclr'], [])
    """
    if given is None:
        return []
    alone = isinstance(given, (str, os.PathLike)) or not isinstance(given, Iterable)
    return [given] if alone else list(given)


def literal(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Name):
        return {"true": True, "false": False, "none": None, "null": None}.get(node.id, node.id)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise SpecError(f"can't read '{text}': values are literals such as 0.6, true, 'text' or (1, 2)") from None


def parse_value(text: str) -> Any:
    """Read the value of ``--set path=value``: a literal, or else the text itself."""
    try:
        return literal(ast.parse(text.strip(), mode="eval").body, text)
    except (SpecError, SyntaxError, ValueError, RecursionError, MemoryError):
        return text
